# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the preflight sees of a MariaDB participant: catalog, rights, obstacles, measured speed. Changes nothing."""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import MissingRight
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import IN_PLACE, TWIN, Refusal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import (
    SAMPLE_ROWS,
    execute,
    first_line,
    literal,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import (
    Engine,
    Note,
    Rate,
    TableFacts,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb import sql
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.partitions import partition_notes
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.planned import MariaDBPlanned, planned
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.server import MariaDBServer
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.sessions import (
    NO_SUCH_TABLE,
    number,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.sql import ColumnInfo
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.triggers import SEQUENCE
from ansible_collections.zdm.landscape.plugins.module_utils.participant.own_ids import as_bytes, is_binary, is_numeric
from ansible_collections.zdm.landscape.plugins.module_utils.participant.planning import typical_us
from ansible_collections.zdm.landscape.plugins.module_utils.participant.rows import Count
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import OWN_TABLES, Planned, State, Survey
from ansible_collections.zdm.landscape.plugins.module_utils.participant.verbs import Verbs

with suppress(ImportError):  # Database refuses to be built without it
    import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

PROBE_FACTOR = 1.6
"""The probe runs on a temporary table, which writes no redo log and fires no trigger: 1.3 to 1.9 times its processor
time was measured.
"""
COPYING = 4.0
"""Copying a row into the table itself, and comparing it, against inserting it into the probe."""
STATEMENT_LOG = 1665
TEXT_TYPES = ("char", "varchar", "tinytext", "text", "mediumtext", "longtext", "uuid")
KEY_TYPES = (
    *("tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "char", "varchar", "binary", "varbinary", "uuid"),
    *("date", "datetime", "timestamp", "time", "year", "inet4", "inet6"),
)
"""Types whose order is that of their literals."""

_PROBE = "zdm_probe"
_BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}
_BEYOND = {
    (kind, unsigned): 2 ** (bits - (not unsigned)) for kind, bits in _BITS.items() for unsigned in (True, False)
} | {("decimal", unsigned): 10**65 for unsigned in (True, False)}
"""The first whole number that is too large for a type, by type and whether it is unsigned."""


class MariaDBInspection(MariaDBServer, Verbs):
    """The reading half of the MariaDB participant."""

    planned = MariaDBPlanned
    client_wants_delimiters = True
    _keys: Mapping[str, str] = MappingProxyType({})
    """By table the tenant column in its partition key, of the last survey."""
    text_type = "CHAR"

    def cautions(self, state: State) -> tuple[str, ...]:
        # the triggers name these columns, and MariaDB looks for them at every row (1054)
        named = ", ".join(f"{table.name} ({', '.join((*table.columns, *table.key))})" for table in state.tables)
        if not named:
            return ()
        anew = [table.name for table in state.in_place if table.name in self._keys]
        return (
            f"renaming or dropping one of these columns stops every tenant's writes to its table: {named}",
            *(
                f"each switch writes the tenant's rows of {name} anew in other partitions, as {self._keys[name]} is in"
                " its partition key"
                for name in anew
            ),
        )

    def no_such_table(self, error: sa.exc.DBAPIError) -> bool:
        return number(error) == NO_SUCH_TABLE

    def spell(self, kind: str, tenant_id: str) -> str:
        return sql.spell(kind, tenant_id)

    def exact(self, column: str, kind: str, tenant_id: str) -> str:
        if is_numeric(kind) or is_binary(kind):
            return f"{column} = {sql.spell(kind, tenant_id)}"
        return f"CONVERT({column} USING utf8mb4) COLLATE utf8mb4_nopad_bin = {literal(tenant_id)}"

    def root_update(self, table: Planned, state: State) -> str:
        (column,) = table.columns
        name, names = self.rows.table(table), [self.quote(each) for each in table.copied]
        live = f"SELECT {', '.join(names)} FROM {name} WHERE {self.rows.has(table, state.live_id)}"
        changes = ", ".join(f"b.{each} = a.{each}" for each in names)
        return (
            f"UPDATE {name} b, ({live}) a SET {changes} WHERE b.{self.quote(column)} ="
            f" {self.rows.value(table, column, state.other_id)}"
        )

    def snapshot(self) -> tuple[str, ...]:
        return ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "START TRANSACTION WITH CONSISTENT SNAPSHOT")

    def catalog(self, connection: Connection) -> dict[str, TableFacts]:
        tables = self.reflect(connection).items()
        return {name: _unquoted(table) for name, table in tables if not re.fullmatch(OWN_TABLES, name)}

    # -- tables -----------------------------------------------------------------------------------

    def survey(self, connection: Connection, live_id: str, other_id: str, own_rows: Collection[str]) -> Survey:
        if "SELECT" in self.missing_rights(connection):  # the catalog would hide what may not be read
            raise MissingRight(
                f"{self.label}: user {self.options.get('user')!r} may not read the tables.",
                "Give it the rights that the plan lists (playbook zdm.landscape.plan).",
            )
        catalog = self.catalog(connection)
        tenant = self.tenant_tables(catalog)
        columns: dict[str, dict[str, ColumnInfo]] = {name: {} for name in catalog}
        for row in execute(connection, sql.COLUMNS):
            if row[0] in columns:
                columns[row[0]][row[1]] = ColumnInfo(*row)
        notes = self._notes(connection, catalog, tenant, (live_id, other_id))
        triggers: dict[str, list[str]] = {}
        for table, trigger in execute(connection, sql.APPLICATION_TRIGGERS):
            if not re.fullmatch(sql.OWN_TRIGGERS, trigger):
                triggers.setdefault(table, []).append(trigger)
        survey = Survey(
            catalog,
            lambda plan, number: planned(plan, number, catalog, tenant, columns[plan.table], self.quote),
            str(execute(connection, "SELECT VERSION()").scalar()),
        )
        for name, names in tenant.items():
            found = [columns[name][column] for column in names]
            moved = self.moved(catalog[name], names)
            unfit = list(self._column_notes(connection, moved, found, live_id, other_id))
            count, look_ms = (Count(), 0.0) if unfit else self._count(connection, moved, live_id, other_id)
            notes[name] += unfit
            if count.old != count.exact:
                reason = (
                    f"Table {name} holds {count.old - count.exact} rows whose id only looks like {live_id} (letter"
                    " case, accents or spaces)."
                )
                notes[name].append(Note(reason, "Correct the ids of these rows."))
            if name in triggers:
                reason = (
                    f"Trigger {triggers[name][0]} of table {name} would fire for every moved row, and MariaDB cannot"
                    " exempt a session."
                )
                advice = "Drop the trigger for the migration, or do its work in the application."
                notes[name].append(Note(reason, advice, writes=True))
            notes[name] += self._twin_notes(catalog[name], names, columns[name])
            catalog[name] = replace(
                catalog[name],
                rows=count.old,
                rows_of_target=0 if name in own_rows else count.new,
                look_ms=look_ms,
                triggers=tuple(sorted(triggers.get(name, ()))),
                notes=tuple(notes[name]),
            )
        return survey

    def _count(self, connection: Connection, table: Planned, live_id: str, other_id: str) -> tuple[Count, float]:
        """Rows of both ids; and how long counting took, in milliseconds."""
        result = Count()

        def count() -> None:
            nonlocal result
            (result,) = self.rows.count(connection, [table], live_id, other_id).values()

        look_ms = typical_us(1, count) / 1000
        return result, look_ms

    @staticmethod
    def _twin_notes(table: TableFacts, tenant: Sequence[str], columns: Mapping[str, ColumnInfo]) -> Iterator[Note]:
        keys = table.primary_key or tuple(name for unique in table.unique_keys for name in unique.columns)
        if SEQUENCE in map(str.lower, keys):
            reason = f"Key column {SEQUENCE} of {table.name} has the name of a column of ours."
            yield Note(reason, "Choose `strategy: in_place`.", (TWIN,))
        for name in dict.fromkeys(keys):
            if name not in tenant and columns[name].type not in KEY_TYPES:
                reason = (
                    f"Key column {name} of {table.name} is of type {columns[name].type}, which has no order by value to"
                    " copy along."
                )
                yield Note(reason, "Choose `strategy: in_place`.", (TWIN,))

    def _notes(
        self,
        connection: Connection,
        catalog: Mapping[str, TableFacts],
        tenant: Mapping[str, tuple[str, ...]],
        ids: tuple[str, str],
    ) -> dict[str, list[Note]]:
        def value(table: str, column: str, tenant_id: str) -> str:
            return self.rows.value(self.moved(catalog[table], [column]), column, tenant_id)

        homeless, self._keys = partition_notes(connection, tenant, self.quote, value, *ids)
        notes: dict[str, list[Note]] = {name: list(homeless.get(name, ())) for name in tenant}
        for name, kind, engine in execute(connection, sql.TABLES):
            if name in notes and engine != "InnoDB":
                notes[name].append(
                    Note(
                        f"Table {name} uses engine {engine}, which has no transactions.",
                        f"ALTER TABLE {self.quote(name)} ENGINE=InnoDB.",
                    )
                )
            if name in notes and kind == "SYSTEM VERSIONED":
                notes[name].append(
                    Note(
                        f"Table {name} is system-versioned: its history would keep the old id.",
                        "Remove the versioning for the migration.",
                    )
                )
        for name, index in execute(connection, sql.PREFIXES):
            if name in notes:
                reason = f"Unique index {index} of {name} covers only the beginning of a column."
                notes[name].append(Note(reason, "Choose `strategy: in_place`.", (TWIN,)))
        for name in notes:
            for foreign in catalog[name].foreign_keys:
                if foreign.acts and foreign.table not in tenant:
                    reason = (
                        f"Foreign key {foreign.name} changes rows of {name} when {foreign.table} changes, for which"
                        " MariaDB fires no trigger, so no fence."
                    )
                    notes[name].append(
                        Note(
                            reason,
                            f"Make it ON DELETE RESTRICT ON UPDATE RESTRICT, or give {foreign.table} a tenant column.",
                        )
                    )
        return notes

    def _column_notes(
        self, connection: Connection, moved: Planned, columns: Sequence[ColumnInfo], live_id: str, other_id: str
    ) -> Iterator[Note]:
        for column in columns:
            where = f"Tenant column {column.name} of {column.table}"
            ids = [moved.called(column.name, tenant) for tenant in (live_id, other_id)]
            misfit = next((reason for own in ids if (reason := self._misfit(column, own))), "")
            if misfit:
                advice = (
                    "Correct the participant's `ids`."
                    if moved.ids.get(column.name)
                    else "If this database has ids of its own, give them: `ids: {<subdomain>: <own id>}`, or"
                    " `id_query`; else correct the tenant's id, the column, or `tenant_columns`."
                )
                yield Note(f"{where} is of type {column.definition}, {misfit}.", advice)
            elif column.collation and column.charset:
                converted = [
                    f"CONVERT({literal(own)} USING {column.charset}) COLLATE {column.collation}" for own in ids
                ]
                if execute(connection, f"SELECT {converted[0]} = {converted[1]}").scalar():
                    yield Note(
                        f"For collation {column.collation} of {where[0].lower()}{where[1:]} both ids are the same.",
                        "Use a binary collation there.",
                    )

    @staticmethod
    def _misfit(column: ColumnInfo, own: str) -> str:
        """Why a column cannot hold an id; empty when it can."""
        if is_binary(column.type):
            if not re.fullmatch(r"(0x|\\x)([0-9A-Fa-f]{2})+", own):
                return f"and the id {own} is not written as bytes, 0x…"
            size = len(as_bytes(own))
            wrong = size != column.length if column.type == "binary" else size > (column.length or 0)
            return f"and the id {own} has {size} bytes" if wrong else ""
        if is_numeric(column.type):
            if not own.isdecimal():
                return f"which cannot hold the id {own}"
            return "" if int(own) < _BEYOND[column.type, "unsigned" in column.definition] else f"and {own} is too large"
        if column.type == "uuid":
            return "" if _is_uuid(own) else f"and the id {own} is no uuid in lower case with hyphens"
        if column.type == "enum":
            values = column.definition[len("enum(") : -1].split(",")
            return "" if literal(own) in values else f"which does not know {own}"
        if column.type not in TEXT_TYPES:
            return f"which holds no text: the id {own} does not fit"
        too_long = column.length is not None and column.length < len(own)
        return f"and the id {own} has {len(own)} characters" if too_long else ""

    def abilities(self) -> Engine:
        return Engine("MariaDB", (IN_PLACE, TWIN), table_ms=2, rate=Rate(40.0, 80.0))

    def measure(
        self, connection: Connection, table: TableFacts, tenant: Sequence[str], live_id: str, other_id: str
    ) -> Rate | Refusal | None:
        """Move a sample of the tenant's rows in a temporary table, which only this session sees."""
        if not table.rows or table.notes:
            return None
        moved = self.moved(table, tenant)
        probe = replace(moved, name=_PROBE)
        columns = ", ".join(self.quote(column.name) for column in table.columns if not column.generated)
        try:
            execute(connection, f"CREATE TEMPORARY TABLE {_PROBE} LIKE {self.quote(table.name)}")
        except sa.exc.DBAPIError as error:
            if error.connection_invalidated:
                raise
            return (
                None  # kinds of tables that cannot be temporary, for example partitioned ones: the default rate holds
            )
        try:
            sample = (
                f"SELECT {columns} FROM {self.quote(table.name)} WHERE {self.rows.has(moved, live_id)} LIMIT"
                f" {SAMPLE_ROWS}"
            )
            rows, copy_us = self._sample(connection, f"INSERT INTO {_PROBE} ({columns}) {sample}")
            micros = self.move_to_and_fro(connection, probe, rows, live_id, other_id)
        except sa.exc.DBAPIError as error:
            if error.connection_invalidated:
                raise
            if number(error) == STATEMENT_LOG:
                return None  # the obstacles say so, once
            return Refusal(
                table.name,
                f"Rows of table {table.name} cannot take the id {other_id}: {first_line(error)}",
                "Change the constraint that refuses it.",
            )
        finally:
            if not connection.invalidated:
                execute(connection, f"DROP TEMPORARY TABLE {_PROBE}")
        return Rate(update_us=micros * PROBE_FACTOR, copy_us=copy_us * COPYING)

    @staticmethod
    def _sample(connection: Connection, statement: str) -> tuple[int, float]:
        """Run an INSERT; its rows and the microseconds of each."""
        rows = int(execute(connection, statement).rowcount)
        execute(connection, f"DELETE FROM {_PROBE}")
        insert = partial(execute, connection, statement)
        return rows, typical_us(rows, insert, partial(execute, connection, f"DELETE FROM {_PROBE}"))

    # -- digest -----------------------------------------------------------------------------------

    def table_digest(
        self, connection: Connection, table: TableFacts, tenant: Sequence[str], tenant_id: str
    ) -> tuple[int, str]:
        """Hashed by the server: only two sums leave it."""
        moved = self.moved(table, tenant)
        values = ", ".join(self._digested(moved, column.name, tenant_id) for column in table.columns)
        hashed = (
            f"SELECT SHA2(CONCAT_WS('|', {values}), 256) AS h FROM {self.quote(table.name)} WHERE"
            f" {self.rows.has(moved, tenant_id)}"
        )
        sums = ", ".join(
            f"COALESCE(SUM(CAST(CONV(SUBSTRING(h, {start}, 15), 16, 10) AS DECIMAL(30))), 0)"
            for start in (1, 16, 31, 46)
        )
        row: Any = execute(connection, f"SELECT COUNT(*), {sums} FROM ({hashed}) AS hashes").one()
        return int(row[0]), "-".join(f"{int(value):x}" for value in row[1:])

    def _digested(self, moved: Planned, column: str, tenant_id: str) -> str:
        name = self.quote(column)
        value = f"COALESCE(HEX(CAST({name} AS BINARY)), 'N')"
        own = column in moved.columns
        return f"IF({name} = {self.rows.value(moved, column, tenant_id)}, 'T', {value})" if own else value


def _unquoted(table: TableFacts) -> TableFacts:
    """SQLAlchemy leaves the backticks of columns' names doubled, as it reads them from SHOW CREATE TABLE."""

    def plain(names: Iterable[str]) -> tuple[str, ...]:
        return tuple(name.replace("``", "`") for name in names)

    return replace(
        table,
        columns=tuple(replace(column, name=column.name.replace("``", "`")) for column in table.columns),
        primary_key=plain(table.primary_key),
        unique_keys=tuple(replace(key, columns=plain(key.columns)) for key in table.unique_keys),
        foreign_keys=tuple(
            replace(key, columns=plain(key.columns), referred=plain(key.referred)) for key in table.foreign_keys
        ),
    )


def _is_uuid(value: str) -> bool:
    try:
        return str(uuid.UUID(value)) == value
    except ValueError:
        return False
