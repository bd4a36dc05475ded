# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state row of an in-place participant and the statements that move rows; the same for every engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from ansible_collections.zdm.landscape.plugins.module_utils.names import short_hash
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import BARRED, FORMAT, STAGING
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute, literal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import TableFacts

with suppress(ImportError):  # Database refuses to be built without it
    import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

OWN_TABLES = r"zdm_(migration|fence)_[0-9a-f]{8}"
"""Helper tables of any migration; they are no part of the application's schema."""

_COLUMNS = ("format", "migration", "epoch", "state", "live_id", "source_id", "target_id", "digest", "tables")


@dataclass(frozen=True)
class Moved:
    """A planned table: its tenant columns, and the columns that a plain UPDATE would touch by itself."""

    name: str
    columns: tuple[str, ...]
    keep: tuple[str, ...] = ()


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
    tables: tuple[Moved, ...]
    format: int = FORMAT

    @property
    def other_id(self) -> str:
        return self.target_id if self.live_id == self.source_id else self.source_id

    @property
    def standing(self) -> tuple[str, str]:
        """The id under which the rows stand, and the empty one."""
        return (self.other_id, self.live_id) if self.state == BARRED else (self.live_id, self.other_id)

    def problems(self, fenced: Sequence[str], rows: Mapping[str, int]) -> list[str]:
        """Where the catalog disagrees with this state row."""
        if self.state == STAGING:
            return []
        wanted = {self.live_id, self.other_id} if self.state == BARRED else {self.other_id}
        found = [f"State {self.state}, but {tenant} is not fenced on every planned table." for tenant in sorted(wanted - set(fenced))]
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
    version: str = ""
    scan_ms: float = 0.0
    """Time of one count over all tenant tables; the window counts twice as often and the update looks again."""


def state_name(migration: str) -> str:
    """The helper table that holds the migration's state row."""
    return f"zdm_migration_{short_hash(migration)}"


def _table(migration: str) -> sa.TableClause:
    return sa.table(state_name(migration), *(sa.column(name) for name in _COLUMNS))


def read_state(connection: Connection, migration: str, lock: bool = False) -> State | None:
    """The state row; None when there is none. Any format, see :data:`base.FORMAT`."""
    if not sa.inspect(connection).has_table(state_name(migration)):
        return None
    query = sa.select(_table(migration))
    row = connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    if row is None:
        return None
    tables = tuple(Moved(entry["name"], tuple(entry["columns"]), tuple(entry["keep"])) for entry in json.loads(row["tables"]))
    return State(**{**row, "epoch": int(row["epoch"]), "format": int(row["format"]), "tables": tables})


def write_state(connection: Connection, state: State, insert: bool = False) -> None:
    """Insert the state row, or overwrite it."""
    table = _table(state.migration)
    values = {**asdict(state), "tables": json.dumps([asdict(moved) for moved in state.tables])}
    connection.execute((table.insert() if insert else table.update()).values(**values))


class Rows:
    """Statements on a planned table's rows.

    :param quote: quotes an identifier.
    :param exact: (quoted column, id) → condition that the column holds the id byte for byte, whatever its collation.
    """

    def __init__(self, quote: Callable[[str], str], exact: Callable[[str, str], str]) -> None:
        self.quote = quote
        self.exact = exact

    def has(self, table: Moved, tenant_id: str) -> str:
        """Condition: a row of the tenant, as the application's own comparison finds it."""
        return " OR ".join(f"{self.quote(column)} = {literal(tenant_id)}" for column in table.columns)

    def update(self, table: Moved, old: str, new: str) -> str:
        """The statement that moves a table's rows; with the ids exchanged it is its own inverse, as *new* had no rows."""
        sets = [f"{self.quote(column)} = {self._new_value(table, column, old, new)}" for column in table.columns]
        sets += [f"{self.quote(column)} = {self.quote(column)}" for column in table.keep]
        return f"UPDATE {self.quote(table.name)} SET {', '.join(sets)} WHERE {self.has(table, old)}"

    def _new_value(self, table: Moved, column: str, old: str, new: str) -> str:
        if len(table.columns) == 1:
            return literal(new)
        name = self.quote(column)
        return f"CASE WHEN {name} = {literal(old)} THEN {literal(new)} ELSE {name} END"

    def count(self, connection: Connection, table: Moved, tenant_id: str) -> tuple[int, int]:
        """Rows of a tenant, and those of them that hold its id byte for byte."""
        exactly = " AND ".join(f"({self.quote(column)} <> {literal(tenant_id)} OR {self.exact(self.quote(column), tenant_id)})" for column in table.columns)
        query = f"SELECT COUNT(*), COALESCE(SUM(CASE WHEN {exactly} THEN 1 ELSE 0 END), 0) FROM {self.quote(table.name)} WHERE {self.has(table, tenant_id)}"
        row = execute(connection, query).one()
        return int(row[0]), int(row[1])
