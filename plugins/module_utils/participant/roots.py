# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roots: tables with one row per tenant, to which the tenant's other rows refer. Written once for all engines.

The other tenant's row has to be there before rows move, and normally is not: the mapping leads that tenant to this
one's data, so no service has ever made it. The stage makes it as a copy, and keeps it in step in both directions until
the end of the transition; a row that was there before is nobody's copy and stays as it is. Both rows are fenced like
any other's, and none of them ever moves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import ROOT, Move, Progress
from ansible_collections.zdm.landscape.plugins.module_utils.participant.copying import STAGE_TIMEOUT_MS, Copying
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute, first_line
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import TableFacts
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import Planned, State

with suppress(ImportError):  # Database refuses to be built without it
    import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


class Roots(Copying):
    """What stage, window and removal do with roots."""

    def differing(self, connection: Connection, table: Planned, live_id: str, other_id: str) -> tuple[str, ...]:
        names = ", ".join(self.quote(column) for column in table.copied)
        if not names:
            return ()
        query = f"SELECT {names} FROM {self.rows.table(table)} WHERE "
        live, there = (
            execute(connection, query + self.rows.has(table, tenant_id)).first() for tenant_id in (live_id, other_id)
        )
        if live is None or there is None:
            return ()
        pairs = zip(table.copied, live, there, strict=True)
        return tuple(column for column, mine, other in pairs if mine != other)

    # -- stage ------------------------------------------------------------------------------------

    def make_root_rows(self, move: Move, progress: Progress) -> None:
        """Make what is missing, parents first, and bring what we made up to date.

        :raises Refused: a key allows no second row with the same values.
        """
        for table in self.now(move).roots:
            made = self.in_stage(move, partial(self._make_root_row, table))
            if made:
                self._tell(progress, table, f"the row of {move.to_id} was made as a copy of that of {move.from_id}")
        self.in_stage(move, self.sync_roots)

    def _make_root_row(self, table: Planned, connection: Connection, state: State) -> bool:
        if table.name in state.progress.own or self.rows.some(connection, [table], state.other_id):
            return False
        if not self.rows.some(connection, [table], state.live_id):
            return False
        try:
            execute(connection, self.root_insert(table, state))
        except sa.exc.IntegrityError as error:
            raise Refused(
                f"{self.label}: the row of {state.other_id} in {table.name} cannot be a copy of that of"
                f" {state.live_id}: {first_line(error)}.",
                "Give what must differ: `tables: {" + table.name + ": {new_row: {<column>: <value>}}}`.",
            ) from None
        self.write_state(connection, replace(state, progress=state.progress.copying(table.name)))
        return True

    def root_insert(self, table: Planned, state: State) -> str:
        """The statement that makes the other id's row."""
        (column,) = table.columns
        names = [self.quote(name) for name in (column, *table.copied, *table.new_row)]
        values = [
            self.rows.value(table, column, state.other_id),
            *(self.quote(name) for name in table.copied),
            *table.new_row.values(),
        ]
        sql = self.rows.table(table)
        return (
            f"INSERT INTO {sql} ({', '.join(names)}) SELECT {', '.join(values)} FROM {sql} WHERE"
            f" {self.rows.has(table, state.live_id)}"
        )

    def sync_roots(self, connection: Connection, state: State) -> None:
        """Bring the other id's rows up to date with the live id's, where one of them is our copy."""
        for table in state.roots:
            if table.name in state.progress.own and table.copied:
                execute(connection, self.root_update(table, state))

    def root_update(self, table: Planned, state: State) -> str:
        """The statement that brings the other id's row up to date."""
        sql, names = self.rows.table(table), ", ".join(self.quote(column) for column in table.copied)
        live = f"FROM {sql} WHERE {self.rows.has(table, state.live_id)}"
        return (
            f"UPDATE {sql} SET ({names}) = (SELECT {names} {live}) WHERE {self.rows.has(table, state.other_id)} AND"
            f" EXISTS (SELECT 1 {live})"
        )

    # -- removal ----------------------------------------------------------------------------------

    def remove_root_rows(self, move: Move, progress: Progress) -> int:
        """Delete the retired id's rows, children first: what we made, and at the end of a transition the source's.
        A row to which anything refers stays, and is told.
        """
        removed = 0
        for table in reversed(self.now(move).roots):
            kept = self.in_window(move, STAGE_TIMEOUT_MS, partial(self._remove_root_row, table))
            if kept is None:
                removed += 1
            elif kept:
                self._tell(progress, table, f"the row of {move.to_id} stays: {kept}")
        return removed

    def _remove_root_row(self, table: Planned, connection: Connection, state: State) -> str | None:
        """None when it was deleted; why it stays otherwise, nothing when there is none, or it is not ours."""
        retired, catalog = state.other_id, self.catalog(connection)
        made = retired == state.target_id and table.name in state.progress.own
        if (retired == state.target_id and not made) or not _there(catalog, table):
            return ""
        sql, own = self.rows.table(table), self.rows.has(table, retired)
        # keeps new references waiting, see the engine's manual on locks of foreign keys
        if execute(connection, f"SELECT 1 FROM {sql} WHERE {own}{self.row_lock}").first() is None:
            return ""
        references = tuple(self._references(catalog, table, retired))
        if not references and not made:
            return "no foreign key tells what refers to it; delete it when nothing does"
        for query, words in references:
            if execute(connection, query).first():
                return words
        self.exempt(connection, state)
        execute(connection, f"DELETE FROM {sql} WHERE {own}")
        return None

    row_lock = " FOR UPDATE"
    """What makes a SELECT lock its rows."""

    def _references(
        self, catalog: Mapping[str, TableFacts], root: Planned, tenant_id: str
    ) -> Iterator[tuple[str, str]]:
        """For each foreign key to a root: a query that has a row when one refers to the tenant's row, and the key in
        words.
        """
        (column,) = root.columns
        value = self.rows.value(root, column, tenant_id)
        for name, facts in catalog.items():
            for key in facts.foreign_keys:
                if key.table != root.name:
                    continue
                same = " AND ".join(f"c.{self.quote(child)} = p.{self.quote(parent)}" for child, parent in key.pairs)
                itself = f" AND c.{self.quote(column)} <> {value}" if name == root.name else ""
                query = (
                    f"SELECT 1 FROM {self.rows.table(root)} p JOIN {self.table_sql(name)} c ON {same}{itself} WHERE"
                    f" p.{self.quote(column)} = {value} LIMIT 1"
                )
                yield query, f"foreign key {key.name} of {name} refers to it"

    def _tell(self, progress: Progress, table: Planned, message: str) -> None:
        progress({"participant": self.name, "table": table.name, "step": ROOT, "message": message})


def _there(catalog: Mapping[str, TableFacts], table: Planned) -> bool:
    """Whether a planned table and its tenant column are still there."""
    facts = catalog.get(table.name)
    return facts is not None and set(table.columns) <= {column.name for column in facts.columns}
