# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state row of a participant whose window steps are one transaction each, and the statements that move rows."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

from ansible_collections.zdm.landscape.plugins.module_utils.core.names import short_hash
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    FORMAT,
    IN_PLACE,
    IN_WINDOW,
    MOVED,
    MOVING,
    ROOT,
    STAGING,
    STAYING,
    TWIN,
    TablePlan,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import TableFacts

with suppress(ImportError):  # Database refuses to be built without it
    import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

OWN_TABLES = r"zdm_(migration|fence|kept)_[0-9a-f]{8}|zdm_log_[0-9a-f]{8}_[st]_[0-9]+"
"""Helper tables of any migration; they are no part of the application's schema."""

_COLUMNS = (
    "format",
    "migration",
    "epoch",
    "state",
    "live_id",
    "source_id",
    "target_id",
    "finished",
    "digest",
    "tables",
    "marks",
    "progress",
)


@dataclass(frozen=True)
class Planned:
    """A planned table; an engine adds what only it must know.

    :param number: names the table's helper objects; it stays the same as long as the migration does.
    :param columns: its tenant columns; a twin has one.
    :param key: of a twin: the columns of its key without the tenant column; ``key_types`` as a CREATE TABLE writes
        them.
    :param copied: of a twin: all columns but the tenant column and generated ones.
    :param keep: columns that a plain UPDATE would touch by itself.
    :param ties: its foreign keys to rows that stay, see :func:`constraints.ties`.
    :param kinds: types of the tenant columns.
    :param ids: by tenant column, by tenant id the participant's own one, where the column holds that.
    :param new_row: of a root: values of the other tenant's row that differ, by column.
    :param root_key: of a relabelled root: the column with the own ids, which are in ``root_ids``.
    """

    name: str
    columns: tuple[str, ...]
    number: int = 0
    strategy: str = IN_PLACE
    key: tuple[str, ...] = ()
    key_types: tuple[str, ...] = ()
    copied: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    ties: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    ids: dict[str, dict[str, str]] = field(default_factory=dict, hash=False)
    new_row: dict[str, str] = field(default_factory=dict, hash=False)
    root_key: str = ""
    root_ids: dict[str, str] = field(default_factory=dict, hash=False)

    @classmethod
    def load(cls, value: Mapping[str, Any]) -> Self:
        fields: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
        return cls(**fields)

    @property
    def shape(self) -> tuple[Any, ...]:
        """What the table's helper objects are made of: when it changes they are made anew."""
        return (self.columns, self.kinds, self.ids, self.strategy, self.key, self.key_types)

    def kind(self, column: str) -> str:
        """The type of a tenant column."""
        return dict(zip(self.columns, self.kinds, strict=False)).get(column, "")

    def called(self, column: str, tenant_id: str) -> str:
        """What a tenant column holds for a tenant."""
        return self.ids.get(column, {}).get(tenant_id, tenant_id)


@dataclass(frozen=True)
class Progressed:
    """How far the stage of the twins is.

    :param own: tables in which rows of the other id are the migration's own.
    :param done: tables that have been copied.
    :param cursor: by table the key up to which it is copied, as text.
    :param suspect: tables whose triggers were away or that were changed: their twins are rewritten where they differ.
    :param compared: by table when its twin was last found equal as a whole, in seconds since 1970 by the server.
    :param rows: by table, as last compared.
    """

    own: tuple[str, ...] = ()
    done: tuple[str, ...] = ()
    cursor: dict[str, list[str]] = field(default_factory=dict)
    suspect: tuple[str, ...] = ()
    compared: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    moved: dict[str, int] = field(default_factory=dict)
    """By table in place the rows that the barrier has moved."""

    @classmethod
    def load(cls, text: str) -> Progressed:
        fields: dict[str, Any] = {
            key: tuple(item) if isinstance(item, list) else item for key, item in json.loads(text).items()
        }
        return cls(**fields)

    def copying(self, table: str) -> Progressed:
        """Rows of the other id in *table* are the migration's own from now on."""
        return replace(self, own=_with(self.own, table))

    def copied(self, table: str) -> Progressed:
        return replace(self, done=_with(self.done, table), cursor=_without(self.cursor, table))

    def doubted(self, table: str) -> Progressed:
        """The twins of *table* may be stale; rows that were copied so far are rewritten where they differ."""
        if table not in self.own:
            return self
        return replace(self, suspect=_with(self.suspect, table), compared=_without(self.compared, table))

    def equal(self, table: str, rows: int, at_s: int) -> Progressed:
        """The twins of *table* were found equal, or have become so."""
        suspect = tuple(name for name in self.suspect if name != table)
        return replace(self, suspect=suspect, compared={**self.compared, table: at_s}, rows={**self.rows, table: rows})

    def different(self, table: str) -> Progressed:
        return replace(self, compared=_without(self.compared, table))

    def renamed(self, names: Mapping[str, str]) -> Progressed:
        """The same with new names of tables, by the old ones."""
        lists: dict[str, Any] = {name: tuple(names.get(t, t) for t in getattr(self, name)) for name in _LISTS}
        maps: dict[str, Any] = {name: {names.get(t, t): v for t, v in getattr(self, name).items()} for name in _MAPS}
        return replace(self, **lists, **maps)

    def forgotten(self, table: str) -> Progressed:
        """Nothing of *table* is the migration's any more."""
        lists: dict[str, Any] = {name: tuple(t for t in getattr(self, name) if t != table) for name in _LISTS}
        maps: dict[str, Any] = {name: _without(getattr(self, name), table) for name in _MAPS}
        return replace(self, **lists, **maps)


_LISTS, _MAPS = ("own", "done", "suspect"), ("cursor", "compared", "rows", "moved")


def _with(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return names if name in names else (*names, name)


def _without(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


@dataclass(frozen=True)
class State:
    """The state row.

    :param live_id: the id that is live; in a window the one that was live before it.
    :param finished: the last epoch that turn or undo has ended: its barrier may not begin any more (protocol, 23).
    :param marks: by table what it and the migration's triggers on it looked like when the stage last made sure of them.
    """

    migration: str
    epoch: int
    state: str
    live_id: str
    source_id: str
    target_id: str
    tables: tuple[Planned, ...]
    digest: str = ""
    finished: int = 0
    marks: dict[str, str] = field(default_factory=dict)
    progress: Progressed = field(default_factory=Progressed)
    format: int = FORMAT

    @property
    def in_place(self) -> tuple[Planned, ...]:
        """Tables whose rows change id inside the window."""
        return tuple(table for table in self.tables if table.strategy in MOVING)

    @property
    def twins(self) -> tuple[Planned, ...]:
        return tuple(table for table in self.tables if table.strategy == TWIN)

    @property
    def roots(self) -> tuple[Planned, ...]:
        """Tables of which the other tenant's row is a copy."""
        return tuple(table for table in self.tables if table.strategy == ROOT)

    @property
    def own_rows(self) -> frozenset[str]:
        """Tables in which rows of the other id are the migration's own."""
        return frozenset(self.progress.own)

    @property
    def other_id(self) -> str:
        return self.target_id if self.live_id == self.source_id else self.source_id

    @property
    def standing(self) -> tuple[str, str]:
        """The id under which the rows in place stand, and the empty one."""
        return (self.other_id, self.live_id) if self.state == MOVED else (self.live_id, self.other_id)

    @property
    def closed(self) -> tuple[str, ...]:
        """The ids that must be fenced."""
        return tuple(sorted((self.live_id, self.other_id))) if self.state in IN_WINDOW else (self.other_id,)

    def renamed(self, names: Mapping[str, str]) -> State:
        """The same with new names of tables, by the old ones."""
        if not names:
            return self
        tables = tuple(replace(table, name=names.get(table.name, table.name)) for table in self.tables)
        marks = {names.get(name, name): mark for name, mark in self.marks.items()}
        return replace(self, tables=tables, marks=marks, progress=self.progress.renamed(names))

    def side(self, tenant_id: str) -> str:
        """``s`` or ``t``: whether an id is the migration's source or target."""
        return "s" if tenant_id == self.source_id else "t"

    def problems(self, fenced: Sequence[str], rows: Mapping[str, int]) -> list[str]:
        """Where the catalog disagrees with this state row.

        :param rows: by tenant id, of the tables in place.
        """
        if self.state == STAGING:
            return []
        found = [
            f"State {self.state}, but {tenant} is not fenced on every planned table."
            for tenant in sorted(set(self.closed) - set(fenced))
        ]
        found += [f"State {self.state}, but {tenant} is fenced." for tenant in sorted(set(fenced) - set(self.closed))]
        empty = self.standing[1]
        if rows.get(empty):
            found.append(f"State {self.state}, but {rows[empty]} rows stand under {empty}.")
        return found


@dataclass
class Survey:
    """What an engine finds when it looks at its database for one migration."""

    catalog: dict[str, TableFacts]
    make: Callable[[TablePlan, int], Planned]
    """What the verbs must know of a planned table, by its plan and its number."""
    version: str = ""

    def planned(self, tables: Iterable[TablePlan], known: Sequence[Planned] = ()) -> tuple[Planned, ...]:
        """The tables that change id; one that is *known* keeps its number, so that its helper objects keep their
        names.
        """
        numbers = {table.name: table.number for table in known}
        free = itertools.count(max(numbers.values(), default=-1) + 1)
        return tuple(
            self.make(table, numbers[table.table] if table.table in numbers else next(free))
            for table in tables
            if table.strategy not in STAYING
        )


def state_name(migration: str) -> str:
    """The helper table that holds the migration's state row."""
    return f"zdm_migration_{short_hash(migration)}"


# each of a stage's many transactions reads and writes all planned tables, which seldom change
@lru_cache(maxsize=4)
def _read_tables(load: Callable[[Mapping[str, Any]], Planned], text: str) -> tuple[Planned, ...]:
    return tuple(map(load, json.loads(text)))


@lru_cache(maxsize=4)
def _written_tables(tables: tuple[Planned, ...]) -> str:
    return json.dumps([asdict(table) for table in tables])


class StateTable:
    """The table of state rows; in some engines each migration has its own.

    :param planned: the engine's class of planned tables.
    """

    def __init__(self, name: str, schema: str | None, planned: type[Planned]) -> None:
        self._table = sa.table(name, *(sa.column(column) for column in _COLUMNS), schema=schema)
        self._planned = planned

    def read(self, connection: Connection, migration: str, lock: bool = False) -> State | None:
        """The migration's state row; None when there is none. Any format, see :data:`base.FORMAT`.

        :raises sqlalchemy.exc.DBAPIError: there is no such table.
        """
        query = sa.select(self._table).where(self._table.c.migration == migration)
        row = connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()
        if row is None:
            return None
        numbers = {name: int(row[name]) for name in ("epoch", "finished", "format")}
        if numbers["format"] > FORMAT:
            return State(migration, numbers["epoch"], row["state"], "", "", "", (), format=numbers["format"])
        tables = _read_tables(self._planned.load, row["tables"])
        read = {"tables": tables, "marks": json.loads(row["marks"]), "progress": Progressed.load(row["progress"])}
        return State(**{**row, **numbers, **read})

    def write(self, connection: Connection, state: State, insert: bool = False) -> None:
        """Insert the migration's state row, or overwrite it."""
        values = {
            **{name: getattr(state, name) for name in _COLUMNS},
            "tables": _written_tables(state.tables),
            "marks": json.dumps(state.marks),
            "progress": json.dumps(asdict(state.progress)),
        }
        if insert:
            connection.execute(self._table.insert().values(**values))
        else:
            connection.execute(self._table.update().where(self._table.c.migration == state.migration).values(**values))

    def delete(self, connection: Connection, migration: str) -> None:
        connection.execute(self._table.delete().where(self._table.c.migration == migration))
