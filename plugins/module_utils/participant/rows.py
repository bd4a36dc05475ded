# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The statements that count and move the rows of planned tables, and the proof that they did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused, ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import Planned

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


@dataclass(frozen=True)
class Count:
    """Rows of two ids in one table.

    :param exact: those of the *old* id that hold it byte for byte.
    """

    old: int = 0
    exact: int = 0
    new: int = 0


class Rows:
    """Statements on planned tables' rows.

    :param quote: quotes an identifier.
    :param spell: (type, id) → the id as a literal of a tenant column's type.
    :param exact: (quoted column, type, id) → condition that the column holds the id byte for byte, whatever its
        collation.
    :param label: how the participant is called in messages.
    """

    def __init__(
        self,
        quote: Callable[[str], str],
        spell: Callable[[str, str], str],
        exact: Callable[[str, str, str], str],
        label: str,
    ) -> None:
        self.quote = quote
        self.spell = spell
        self.exact = exact
        self.label = label

    def table(self, table: Planned) -> str:
        """The table's quoted name."""
        return self.quote(table.name)

    def value(self, table: Planned, column: str, tenant_id: str) -> str:
        """What a tenant column holds for a tenant, as a literal of its type."""
        return self.spell(table.kind(column), table.called(column, tenant_id))

    def exactly(self, table: Planned, column: str, tenant_id: str) -> str:
        """Condition: a tenant column holds an id byte for byte."""
        return self.exact(self.quote(column), table.kind(column), table.called(column, tenant_id))

    def has(self, table: Planned, tenant_id: str) -> str:
        """Condition: a row of the tenant, as the application's own comparison finds it."""
        return " OR ".join(f"{self.quote(column)} = {self.value(table, column, tenant_id)}" for column in table.columns)

    def update(self, table: Planned, old: str, new: str) -> str:
        """The statement that moves a table's rows; with the ids exchanged it is its own inverse, as *new* had no
        rows.
        """
        sets = [f"{self.quote(column)} = {self._new_value(table, column, old, new)}" for column in table.columns]
        sets += [f"{self.quote(column)} = {self.quote(column)}" for column in table.keep]
        return f"UPDATE {self.table(table)} SET {', '.join(sets)} WHERE {self.has(table, old)}"

    def _new_value(self, table: Planned, column: str, old: str, new: str) -> str:
        before, after = (self.value(table, column, tenant_id) for tenant_id in (old, new))
        if len(table.columns) == 1:
            return after
        name = self.quote(column)
        return f"CASE WHEN {name} = {before} THEN {after} ELSE {name} END"

    def count_query(self, tables: Sequence[Planned], old: str, new: str) -> str:
        """One row for each table, in their order: its number, and the figures of :class:`Count`."""
        return " UNION ALL ".join(self._counted(number, table, old, new) for number, table in enumerate(tables))

    def _counted(self, number: int, table: Planned, old: str, new: str) -> str:
        has_old, has_new = self.has(table, old), self.has(table, new)
        exactly = " AND ".join(
            f"({self.quote(column)} IS NULL OR {self.quote(column)} <> {self.value(table, column, old)} OR"
            f" {self.exactly(table, column, old)})"
            for column in table.columns
        )
        sums = ", ".join(
            f"COALESCE(SUM(CASE WHEN {condition} THEN 1 ELSE 0 END), 0)"
            for condition in (has_old, f"({has_old}) AND {exactly}", has_new)
        )
        return f"SELECT {number} AS n, {sums} FROM {self.table(table)} WHERE {has_old} OR {has_new}"

    def count(self, connection: Connection, tables: Sequence[Planned], old: str, new: str) -> dict[str, Count]:
        """Rows of both ids, by table."""
        if not tables:
            return {}
        found = {row[0]: Count(*map(int, row[1:])) for row in execute(connection, self.count_query(tables, old, new))}
        return {table.name: found[number] for number, table in enumerate(tables)}

    def some(self, connection: Connection, tables: Sequence[Planned], tenant_id: str) -> dict[str, int]:
        """Tables that hold rows of an id, with their number, which is counted up to 1000."""
        if not tables:
            return {}
        queries = (
            f"SELECT {number} AS n, COUNT(*) FROM (SELECT 1 AS one FROM {self.table(table)} WHERE"
            f" {self.has(table, tenant_id)} LIMIT 1000) x"
            for number, table in enumerate(tables)
        )
        return {tables[row[0]].name: int(row[1]) for row in execute(connection, " UNION ALL ".join(queries)) if row[1]}

    def update_all(self, connection: Connection, tables: Sequence[Planned], old: str, new: str) -> None:
        """Move the rows of all tables."""
        for table in tables:
            execute(connection, self.update(table, old, new))

    def move(
        self, connection: Connection, tables: Sequence[Planned], old: str, new: str, *, back: bool = False
    ) -> dict[str, int]:
        """Move the tables' rows and prove it; what is raised rolls the whole transaction back. Returns their number by
        table.

        :param back: *new* is the live id again. Rows that it has were written past a fence that somebody had switched
            off, and acknowledged: they stay, and keep nobody from being served.
        :raises Refused: rows hold another spelling of *old*, or *new* has rows.
        :raises ZdmError: something else changes the rows.
        """
        if not tables:
            return {}
        before = self.count(connection, tables, old, new)
        for name, count in before.items():
            self._refuse(name, replace(count, new=0) if back else count, old, new)
        self.update_all(connection, tables, old, new)
        for name, after in self.count(connection, tables, old=new, new=old).items():
            rows = before[name].old
            arrived = after.old >= rows if back else (after.old, after.exact) == (rows, rows)
            if not arrived or after.new:
                reason = (
                    f"{self.label}: {rows} rows of table {name} should have moved, {after.old} arrived, {after.new} are"
                    " left; nothing was changed."
                )
                raise ZdmError(
                    reason,
                    "Something else changes these rows, for example a rule of the database; find it before the next"
                    " try.",
                )
        return {name: count.old for name, count in before.items()}

    def _refuse(self, name: str, count: Count, old: str, new: str) -> None:
        if count.old != count.exact:
            reason = (
                f"{self.label}: table {name} holds {count.old - count.exact} rows whose id only looks like {old}"
                " (letter case, accents or spaces)."
            )
            raise Refused(reason, "Correct the ids of these rows.")
        if count.new:
            raise Refused(
                f"{self.label}: table {name} already holds {count.new} rows of {new}.",
                "Remove them and find out who wrote them.",
            )
