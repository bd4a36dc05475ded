# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the preflight sees of a SQLite participant: catalog, file, measured speed. Changes nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import IN_PLACE, Refusal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.constraints import ties
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import (
    SAMPLE_ROWS,
    execute,
    first_line,
    literal,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import Engine, Note, Rate, TableFacts
from ansible_collections.zdm.landscape.plugins.module_utils.participant.own_ids import as_bytes, is_binary, is_numeric
from ansible_collections.zdm.landscape.plugins.module_utils.participant.planning import typical_us
from ansible_collections.zdm.landscape.plugins.module_utils.participant.rows import Count
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import OWN_TABLES, Planned, Survey
from ansible_collections.zdm.landscape.plugins.module_utils.participant.verbs import Verbs

with suppress(ImportError):  # Database refuses to be built without it
    import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

OWN_TRIGGERS = r"zdm_([0-9a-f]{8})_([0-9]+)_[st]_[iud]"
"""Hash of the migration and number of the table."""
PROBE_FACTOR = 2.0
"""The probe runs on a temporary table in memory; the file costs about twice as much."""

_PROBE = "zdm_probe"
_UNIQUE_KEYS = (
    "SELECT i.name, c.name, c.coll FROM pragma_index_list({table}) i, pragma_index_xinfo(i.name) c"
    ' WHERE i."unique" AND c.key ORDER BY i.name, c.seqno'
)
"""Index, column (null for an expression) and collation; the integer primary key is no index."""


@dataclass(frozen=True)
class SQLitePlanned(Planned):
    """A planned table of SQLite.

    :param hits: for every unique key that does not hold all tenant columns the condition that a stored row has the
        ``NEW`` row's key: REPLACE would delete that row, whoever's it is, and fire no trigger for it.
    """

    hits: tuple[str, ...] = ()


class SQLiteInspection(Verbs):
    """The reading half of the SQLite participant."""

    planned = SQLitePlanned
    row_lock = ""  # a file has one writer

    @property
    def path(self) -> Path:
        """The database file."""
        return Path(self.options["database"])

    def spell(self, kind: str, tenant_id: str) -> str:
        # a text compares equal to a number of a column with numeric affinity, and never to bytes
        return f"X'{as_bytes(tenant_id).hex()}'" if is_binary(kind) else literal(tenant_id)

    def exact(self, column: str, kind: str, tenant_id: str) -> str:
        if is_binary(kind):
            return f"{column} = {self.spell(kind, tenant_id)}"
        return f"CAST({column} AS TEXT) = {literal(tenant_id)} COLLATE BINARY"

    def snapshot(self) -> tuple[str, ...]:
        return ("BEGIN",)

    def catalog(self, connection: Connection) -> dict[str, TableFacts]:
        return {name: table for name, table in self.reflect(connection).items() if not re.fullmatch(OWN_TABLES, name)}

    def survey(self, connection: Connection, live_id: str, other_id: str, own_rows: Collection[str]) -> Survey:
        del own_rows  # no twins here
        catalog = self.catalog(connection)
        tenant = self.tenant_tables(catalog)
        hits = {name: self._hits(connection, name, columns) for name, columns in tenant.items()}
        survey = Survey(
            catalog,
            lambda plan, number: SQLitePlanned(
                plan.table,
                plan.tenant_columns,
                number,
                ties=ties(catalog, tenant, plan.table, self.quote),
                hits=hits[plan.table],
            ),
            str(execute(connection, "SELECT sqlite_version()").scalar()),
        )
        virtual = {
            row[0]
            for row in execute(
                connection, "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL%'"
            )
        }
        triggers: dict[str, list[str]] = {}
        for table, trigger in execute(
            connection, "SELECT tbl_name, name FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
        ):
            if not re.fullmatch(OWN_TRIGGERS, trigger):
                triggers.setdefault(table, []).append(trigger)
        for name, columns in tenant.items():
            own = tuple(triggers.get(name, ()))
            catalog[name] = self._surveyed(
                connection, replace(catalog[name], triggers=own), columns, (live_id, other_id), name in virtual
            )
        return survey

    def _hits(self, connection: Connection, table: str, tenant: Collection[str]) -> tuple[str, ...]:
        return tuple(
            " AND ".join(
                f"{self.quote(column)} = NEW.{self.quote(column)} COLLATE {self.quote(collation)}"
                for column, collation in key
            )
            for key in self._loose_keys(connection, table, tenant).values()
            if all(column for column, _collation in key)
        )

    def _loose_keys(
        self, connection: Connection, table: str, tenant: Collection[str]
    ) -> dict[str, tuple[tuple[str, str], ...]]:
        """By name the unique keys that do not hold all tenant columns, as columns (empty for an expression) with their
        collations.
        """
        keys: dict[str, tuple[tuple[str, str], ...]] = {}
        for index, column, collation in execute(connection, _UNIQUE_KEYS.format(table=literal(table))):
            keys[index] = (*keys.get(index, ()), (column or "", collation))
        primary = [
            row[0]
            for row in execute(connection, f"SELECT name FROM pragma_table_info({literal(table)}) WHERE pk ORDER BY pk")
        ]
        keys["primary key"] = tuple((column, "BINARY") for column in primary)
        columns = {name: {column for column, _collation in key} for name, key in keys.items()}
        return {name: key for name, key in keys.items() if key and not set(tenant) <= columns[name]}

    def _surveyed(
        self, connection: Connection, table: TableFacts, columns: tuple[str, ...], ids: tuple[str, str], virtual: bool
    ) -> TableFacts:
        count, moved = Count(), self.moved(table, columns)

        def look() -> None:
            nonlocal count
            count = self.rows.count(connection, [moved], *ids)[table.name]

        look_ms = typical_us(1, look) / 1000
        notes = list(self._expressions(connection, table.name, columns))
        if virtual:
            notes.append(
                Note(
                    f"Table {table.name} is virtual, and SQLite has no triggers on virtual tables.",
                    "Ignore it and fill it again afterwards.",
                    ignorable="filled again after each switch",
                )
            )
        if table.triggers:
            reason = (
                f"Trigger {table.triggers[0]} of table {table.name} would fire for every moved row, and SQLite cannot"
                " exempt a connection."
            )
            advice = "Drop the trigger for the migration, or do its work in the application."
            notes.append(Note(reason, advice, writes=True))
        notes += (*_id_notes(table.name, count, *ids), *_misfits(moved, ids))
        return replace(
            table,
            rows=count.old,
            rows_of_target=count.new,
            look_ms=look_ms,
            notes=tuple(notes),
        )

    def _expressions(self, connection: Connection, table: str, tenant: Collection[str]) -> Iterator[Note]:
        for index, key in self._loose_keys(connection, table, tenant).items():
            if not all(column for column, _collation in key):
                reason = (
                    f"Unique index {index} of {table} is over an expression: a REPLACE of another tenant could delete"
                    " rows that no fence sees."
                )
                yield Note(reason, "Drop the index for the migration, or put the tenant column into it.")

    def abilities(self) -> Engine:
        return Engine("SQLite", (IN_PLACE,), table_ms=3, rate=Rate(20.0, 40.0), one_writer=True)

    def measure(
        self, connection: Connection, table: TableFacts, tenant: Sequence[str], live_id: str, other_id: str
    ) -> Rate | Refusal | None:
        """Move a sample of the tenant's rows in a temporary table with the same keys, indexes and checks."""
        if not table.rows or table.notes:
            return None
        moved = self.moved(table, tenant)
        probe = replace(moved, name=_PROBE)
        columns = ", ".join(self.quote(column.name) for column in table.columns if not column.generated)
        checks = [f", CHECK ({check['sqltext']})" for check in sa.inspect(connection).get_check_constraints(table.name)]
        indexes = sa.inspect(connection).get_indexes(table.name)
        key = f", PRIMARY KEY ({', '.join(map(self.quote, table.primary_key))})" if table.primary_key else ""
        try:
            execute(connection, f"CREATE TEMP TABLE {_PROBE} ({columns}{key}{''.join(checks)})")
            for number, index in enumerate(indexes):
                if all(index["column_names"]):
                    names = ", ".join(self.quote(str(name)) for name in index["column_names"])
                    execute(connection, f"CREATE INDEX temp.zdm_probe_{number} ON {_PROBE} ({names})")
            sample = (
                f"SELECT {columns} FROM main.{self.quote(table.name)} WHERE {self.rows.has(moved, live_id)} LIMIT"
                f" {SAMPLE_ROWS}"
            )
            rows = execute(connection, f"INSERT INTO {_PROBE} {sample}").rowcount
            micros = self.move_to_and_fro(connection, probe, rows, live_id, other_id)
        except sa.exc.IntegrityError as error:
            reason = f"Rows of table {table.name} cannot take the id {other_id}: {first_line(error)}."
            return Refusal(table.name, reason, "Change the constraint that refuses it.")
        except sa.exc.OperationalError:
            return None  # a check that refers to a generated column, for example: the default rate holds
        finally:
            execute(connection, f"DROP TABLE IF EXISTS temp.{_PROBE}")
        return Rate(update_us=micros * PROBE_FACTOR)

    def obstacles(self, connection: Connection) -> tuple[Refusal, ...]:
        del connection  # the file alone decides
        folder = self.path.absolute().parent
        if os.access(self.path, os.W_OK) and os.access(folder, os.W_OK | os.X_OK):
            return ()
        reason = f"{self.label}: {self.path} and its folder are not both writable; the journal lies beside the file."
        return (Refusal(self.name, reason, f"Let this user write {self.path} and {folder}."),)


def _misfits(moved: Planned, ids: Sequence[str]) -> Iterator[Note]:
    """Ids that a tenant column with numbers or bytes cannot hold; it would take them, and find nothing."""
    for column in moved.columns:
        kind = moved.kind(column)
        own = [moved.called(column, tenant_id) for tenant_id in ids]
        misfit = next(
            (
                each
                for each in own
                if (is_numeric(kind) and not each.isdecimal())
                or (is_binary(kind) and not re.fullmatch(r"(0x|\\x)([0-9A-Fa-f]{2})+", each))
            ),
            None,
        )
        if misfit is not None:
            yield Note(
                f"Column {column} of {moved.name} is of type {kind}, which cannot hold the id {misfit}.",
                "Correct the participant's `ids`."
                if moved.ids.get(column)
                else "If this database has ids of its own, give them: `ids: {<subdomain>: <own id>}`, or `id_query`.",
            )


def _id_notes(table: str, count: Count, live_id: str, other_id: str) -> Iterator[Note]:
    if count.old != count.exact:
        yield Note(
            f"Table {table} holds {count.old - count.exact} rows whose id only looks like {live_id}.",
            "Correct the ids of these rows.",
        )
    if live_id.lower() == other_id.lower():
        yield Note(
            f"{live_id} and {other_id} differ in letter case only, which a column of {table} may ignore.",
            "Use another id.",
        )


def lock_holders(path: Path) -> tuple[str, ...]:
    """Processes of this host that hold a lock on the file or its shared-memory index, as ``name (pid)``; empty when not
    to be found.
    """
    inodes = {}
    for name in (path, Path(f"{path}-shm")):
        with suppress(OSError):
            inodes[str(name.stat().st_ino)] = name.absolute()
    found = set()
    with suppress(OSError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            # 1: POSIX ADVISORY WRITE <pid> <major>:<minor>:<inode> <start> <end>; waiting ones have an arrow
            match = re.search(r"POSIX\s+ADVISORY\s+\w+\s+([0-9]+)\s+\w+:\w+:([0-9]+)\s", line)
            if match and "->" not in line and match[2] in inodes and _has_open(int(match[1]), inodes[match[2]]):
                found.add(f"{_name_of(int(match[1]))} ({match[1]})")
    return tuple(sorted(found))


def _has_open(process: int, path: Path) -> bool:
    """Whether the process has the file open; inode numbers alone may belong to another file system."""
    with suppress(OSError):
        return any(os.path.realpath(link) == os.path.realpath(path) for link in Path(f"/proc/{process}/fd").iterdir())
    return True  # another user's process: its files may not be listed


def _name_of(process: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{process}/comm").read_text(encoding="utf-8").strip()
    return "process"
