# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state row of a participant whose window steps are one transaction each, and the statements that move rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused, ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.core.names import short_hash
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    BARRED,
    FORMAT,
    IGNORE,
    IN_PLACE,
    STAGING,
    TWIN,
    TablePlan,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute, literal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import TableFacts

with suppress(ImportError):  # Database refuses to be built without it
    import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

OWN_TABLES = r"zdm_(migration|fence)_[0-9a-f]{8}|zdm_log_[0-9a-f]{8}_[st]_[0-9]+"
"""Helper tables of any migration; they are no part of the application's schema."""

_COLUMNS = (
    "format",
    "migration",
    "epoch",
    "state",
    "live_id",
    "source_id",
    "target_id",
    "digest",
    "tables",
    "progress",
)


@dataclass(frozen=True)
class Planned:
    """A planned table.

    :param columns: its tenant columns; a twin has one.
    :param keep: columns that a plain UPDATE would touch by itself.
    :param index: of a twin: the index that holds its key.
    :param key: of a twin: the columns of that index without the tenant column; ``key_types`` as a CREATE TABLE writes
        them.
    :param copied: of a twin: all columns but the tenant column and generated ones.
    :param texts: those of them that a collation compares.
    """

    name: str
    columns: tuple[str, ...]
    keep: tuple[str, ...] = ()
    strategy: str = IN_PLACE
    index: str = ""
    key: tuple[str, ...] = ()
    key_types: tuple[str, ...] = ()
    copied: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()

    @classmethod
    def load(cls, value: Mapping[str, Any]) -> Planned:
        fields: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
        return cls(**fields)


@dataclass(frozen=True)
class State:
    """The state row."""

    migration: str
    epoch: int
    state: str
    live_id: str
    source_id: str
    target_id: str
    digest: str
    tables: tuple[Planned, ...]
    progress: dict[str, Any] = field(default_factory=dict)
    """Of the twins: ``copying`` when rows of the other id are the migration's own, ``done`` tables, ``rows`` of each.
    """
    format: int = FORMAT

    @property
    def in_place(self) -> tuple[Planned, ...]:
        return tuple(table for table in self.tables if table.strategy == IN_PLACE)

    @property
    def twins(self) -> tuple[Planned, ...]:
        return tuple(table for table in self.tables if table.strategy == TWIN)

    @property
    def own_rows(self) -> frozenset[str]:
        """Tables in which rows of the other id are the migration's own."""
        return frozenset(table.name for table in self.twins) if self.progress.get("copying") else frozenset()

    @property
    def other_id(self) -> str:
        return self.target_id if self.live_id == self.source_id else self.source_id

    @property
    def standing(self) -> tuple[str, str]:
        """The id under which the rows in place stand, and the empty one."""
        return (self.other_id, self.live_id) if self.state == BARRED else (self.live_id, self.other_id)

    def problems(self, fenced: Sequence[str], rows: Mapping[str, int]) -> list[str]:
        """Where the catalog disagrees with this state row.

        :param rows: by tenant id, of the tables in place.
        """
        if self.state == STAGING:
            return []
        wanted = {self.live_id, self.other_id} if self.state == BARRED else {self.other_id}
        found = [
            f"State {self.state}, but {tenant} is not fenced on every planned table."
            for tenant in sorted(wanted - set(fenced))
        ]
        found += [f"State {self.state}, but {tenant} is fenced." for tenant in sorted(set(fenced) - wanted)]
        empty = self.standing[1]
        if rows.get(empty):
            found.append(f"State {self.state}, but {rows[empty]} rows stand under {empty}.")
        return found


@dataclass
class Survey:
    """What an engine finds when it looks at its database for one migration."""

    catalog: dict[str, TableFacts]
    keep: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Columns by table that an UPDATE would touch by itself."""
    key_types: dict[str, dict[str, str]] = field(default_factory=dict)
    """By table and column, as a CREATE TABLE writes them; of engines with twins."""
    texts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By table the columns that a collation compares; of engines with twins."""
    version: str = ""

    def planned(self, tables: Iterable[TablePlan]) -> tuple[Planned, ...]:
        """The tables that change id, with what the verbs must know of them."""
        return tuple(
            self._twin(table) if table.strategy == TWIN else self._in_place(table)
            for table in tables
            if table.strategy != IGNORE
        )

    def _in_place(self, table: TablePlan) -> Planned:
        return Planned(table.table, table.tenant_columns, self.keep.get(table.table, ()))

    def _twin(self, plan: TablePlan) -> Planned:
        table, tenant = self.catalog[plan.table], plan.tenant_columns
        whole = {*plan.key, *tenant}
        index = next((unique.name for unique in table.unique_keys if set(unique.columns) == whole), "")
        return Planned(
            plan.table,
            tenant,
            strategy=TWIN,
            index="PRIMARY" if set(table.primary_key) == whole else index,
            key=plan.key,
            key_types=tuple(self.key_types[plan.table][column] for column in plan.key),
            copied=tuple(column.name for column in table.columns if column.name not in tenant and not column.generated),
            texts=self.texts.get(plan.table, ()),
        )


def state_name(migration: str) -> str:
    """The helper table that holds the migration's state row."""
    return f"zdm_migration_{short_hash(migration)}"


def _table(migration: str) -> sa.TableClause:
    return sa.table(state_name(migration), *(sa.column(name) for name in _COLUMNS))


def read_state(connection: Connection, migration: str, lock: bool = False) -> State | None:
    """The state row; None when its table is empty. Any format, see :data:`base.FORMAT`.

    :raises sqlalchemy.exc.DBAPIError: there is no such table.
    """
    query = sa.select(_table(migration))
    row = connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    if row is None:
        return None
    tables = tuple(map(Planned.load, json.loads(row["tables"])))
    return State(
        **{
            **row,
            "epoch": int(row["epoch"]),
            "format": int(row["format"]),
            "tables": tables,
            "progress": json.loads(row["progress"]),
        }
    )


def write_state(connection: Connection, state: State, insert: bool = False) -> None:
    """Insert the state row, or overwrite it."""
    table = _table(state.migration)
    values = {
        **asdict(state),
        "tables": json.dumps([asdict(table) for table in state.tables]),
        "progress": json.dumps(state.progress),
    }
    connection.execute((table.insert() if insert else table.update()).values(**values))


class Rows:
    """Statements on a planned table's rows.

    :param quote: quotes an identifier.
    :param exact: (quoted column, id) → condition that the column holds the id byte for byte, whatever its collation.
    :param label: how the participant is called in messages.
    """

    def __init__(self, quote: Callable[[str], str], exact: Callable[[str, str], str], label: str) -> None:
        self.quote = quote
        self.exact = exact
        self.label = label

    def has(self, table: Planned, tenant_id: str) -> str:
        """Condition: a row of the tenant, as the application's own comparison finds it."""
        return " OR ".join(f"{self.quote(column)} = {literal(tenant_id)}" for column in table.columns)

    def update(self, table: Planned, old: str, new: str) -> str:
        """The statement that moves a table's rows; with the ids exchanged it is its own inverse, as *new* had no
        rows.
        """
        sets = [f"{self.quote(column)} = {self._new_value(table, column, old, new)}" for column in table.columns]
        sets += [f"{self.quote(column)} = {self.quote(column)}" for column in table.keep]
        return f"UPDATE {self.quote(table.name)} SET {', '.join(sets)} WHERE {self.has(table, old)}"

    def _new_value(self, table: Planned, column: str, old: str, new: str) -> str:
        if len(table.columns) == 1:
            return literal(new)
        name = self.quote(column)
        return f"CASE WHEN {name} = {literal(old)} THEN {literal(new)} ELSE {name} END"

    def count(self, connection: Connection, table: Planned, tenant_id: str) -> tuple[int, int]:
        """Rows of a tenant, and those of them that hold its id byte for byte."""
        exactly = " AND ".join(
            f"({self.quote(column)} <> {literal(tenant_id)} OR {self.exact(self.quote(column), tenant_id)})"
            for column in table.columns
        )
        query = (
            f"SELECT COUNT(*), COALESCE(SUM(CASE WHEN {exactly} THEN 1 ELSE 0 END), 0) FROM {self.quote(table.name)}"
            f" WHERE {self.has(table, tenant_id)}"
        )
        row = execute(connection, query).one()
        return int(row[0]), int(row[1])

    def move(self, connection: Connection, table: Planned, old: str, new: str) -> int:
        """Move one table's rows and prove it; what is raised rolls the whole transaction back. Returns their number.

        :raises Refused: rows hold another spelling of *old*, or *new* has rows.
        :raises ZdmError: something else changes the rows.
        """
        rows, exactly = self.count(connection, table, old)
        others = self.count(connection, table, new)[0]
        if rows != exactly:
            reason = (
                f"{self.label}: table {table.name} holds {rows - exactly} rows whose id only looks like {old} (letter"
                " case, accents or spaces)."
            )
            raise Refused(reason, "Correct the ids of these rows.")
        if others:
            raise Refused(
                f"{self.label}: table {table.name} already holds {others} rows of {new}.",
                "Remove them and find out who wrote them.",
            )
        moved = execute(connection, self.update(table, old, new)).rowcount
        left, arrived = self.count(connection, table, old)[0], self.count(connection, table, new)[0]
        if moved != rows or left or arrived != rows:
            reason = (
                f"{self.label}: {rows} rows of table {table.name} should have moved, {moved} did, {arrived} arrived,"
                f" {left} are left; nothing was changed."
            )
            raise ZdmError(
                reason,
                "Something else changes these rows, for example a rule of the database; find it before the next try.",
            )
        return rows
