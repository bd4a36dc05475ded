# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stage of a database, written once: a reconciler that makes the participant ready for a window, whatever has
become of its tables, while the tenant is served; and the way back.

A table whose triggers were away, or whose columns have changed, is doubted: its triggers are made anew first, then its
rows are compared with their twins as a whole, and what differs is rewritten through the log.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    CAREFUL,
    ROOT,
    STAGED,
    STAGING,
    TWIN,
    Care,
    Inspection,
    Move,
    Progress,
    untold,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.copying import STAGE_TIMEOUT_MS
from ansible_collections.zdm.landscape.plugins.module_utils.participant.roots import Roots
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import Planned, Progressed, State

with suppress(ImportError):  # Database refuses to be built without it
    pass

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

T = TypeVar("T")


class Staging(Roots):
    """The verbs ``stage`` and ``remove``."""

    # -- what an engine adds ----------------------------------------------------------------------

    @contextmanager
    def working(self, move: Move, state: State | None) -> Iterator[None]:
        """Be the migration's only session while the block runs, where single transactions are not enough for that."""
        del move, state
        yield

    @abstractmethod
    def make_state_table(self, move: Move) -> None:
        """Create what holds the state row, if it is not there."""

    @abstractmethod
    def arm(self, move: Move, state: State, table: Planned, progress: Progress) -> str:
        """Make log, fence and triggers of one table what they have to be; triggers that were touched are made anew.
        Returns the table's mark, read where nobody could touch them meanwhile.
        """

    @abstractmethod
    def disarm(self, move: Move, state: State, table: Planned) -> None:
        """Take log and triggers of one table away; it, or its columns, may be gone."""

    @abstractmethod
    def make_fences(self, move: Move, state: State) -> None:
        """Create what fences are made of, with the state's ``closed`` ids fenced, if it is not there."""

    @abstractmethod
    def marks(self, connection: Connection, state: State) -> dict[str, str]:
        """By planned table what it and the migration's triggers on it look like now: two digests, of columns, keys and
        the application's triggers, and of the migration's own triggers, with a bar between; nothing for a table that is
        gone. Equal marks mean that nobody has switched, dropped or replaced a trigger in between.
        """

    @abstractmethod
    def drop_helpers(self, move: Move, state: State | None, progress: Progress) -> None:
        """Drop every helper object of the migration, also those without a state row; the state row goes last."""

    @abstractmethod
    def leftovers(self, connection: Connection, migration: str) -> tuple[str, ...]:
        """Names of the migration's helper objects in the catalog."""

    # -- stage ------------------------------------------------------------------------------------

    def stage(self, move: Move, plan: Inspection, progress: Progress, care: Care = CAREFUL) -> int:
        self.refuse(plan.refusals)
        with self.transaction() as connection:
            stored = self.found(connection, move.migration)
            if stored:
                self.check_owner(stored, move)
                self.refuse_window_or_turned(stored, move, "stage")
            self.refuse(self.obstacles(connection))
            tables = self.present(connection, move, plan, stored)
        self.make_state_table(move)
        with self.working(move, stored):
            state = self._begin(move, stored, tables, plan.digest)
            for table in state.tables:
                if table not in tables:
                    self._let_go(move, table, tables, progress)
            self.set_state(move, lambda state: replace(state, tables=tables))
            self.make_fences(move, self.now(move))
            self._arm_all(move, progress)
            self._claim_rows(move)
            self.make_root_rows(move, progress)
            copied = sum(self.copy(move, table, progress) for table in self.now(move).twins)
            applied = self.follow_before_comparison(move, progress)
            self.compare_all(move, progress, care if applied else replace(care, compare_after_s=0))
            if not applied:
                self.follow_a_while(move, progress)
            self.set_state(move, lambda state: replace(state, state=STAGED, digest=plan.digest))
        return copied

    def _begin(self, move: Move, stored: State | None, tables: tuple[Planned, ...], digest: str) -> State:
        """Take the state row, or make it. A participant that is ready, with nothing to do but follow and compare, stays
        ready.
        """
        fresh = State(move.migration, move.epoch, STAGING, move.from_id, move.source_id, move.target_id, tables, digest)
        with self.transaction() as connection:
            known = self.state(connection, move.migration, lock=True)
            if known is None:
                self.write_state(connection, fresh, insert=True)
                return fresh
            self.check_owner(known, move)
            self.refuse_window_or_turned(known, move, "stage")
            state = replace(stored or known, epoch=move.epoch)
            if state.tables != tables or self.marks(connection, state) != state.marks:
                state = replace(state, state=STAGING)
            self.write_state(connection, state)
            return state

    def _let_go(self, move: Move, old: Planned, tables: Sequence[Planned], progress: Progress) -> None:
        """A table that is planned no more, or in another way: its helpers go, and its twins unless they are still
        wanted.
        """
        new = next((table for table in tables if table.name == old.name), None)
        if new and new.shape == old.shape:
            return  # only other columns: its log and its triggers hold
        still_twin = new is not None and new.strategy == TWIN and new.columns == old.columns
        if not still_twin and old.strategy != ROOT:  # to a root's row others may refer
            self.purge(move, old, progress)
        self.disarm(move, self.now(move), old)

        def forget(state: State) -> State:
            kept = tuple(table for table in state.tables if table.number != old.number)
            marks = {name: mark for name, mark in state.marks.items() if name != old.name}
            done = state.progress.doubted(old.name) if still_twin else state.progress.forgotten(old.name)
            return replace(state, tables=kept, marks=marks, progress=done)

        self.set_state(move, forget)

    def _arm_all(self, move: Move, progress: Progress) -> None:
        state = self.now(move)
        with self.transaction() as connection:
            marks = self.marks(connection, state)
        for done, table in enumerate(state.tables, 1):
            if table.name not in marks or marks[table.name] != state.marks.get(table.name):
                mark = self.arm(move, state, table, progress)
                self.set_state(move, partial(_armed, table.name, mark))
            progress(
                {
                    "participant": self.name,
                    "table": table.name,
                    "step": "fence",
                    "done": done,
                    "of": len(state.tables),
                }
            )

    def _claim_rows(self, move: Move) -> None:
        """Behind its fence nobody can add rows of the other id any more; note that from now on those in twins are ours.

        :raises Refused: there are rows of the other id that are not ours.
        """

        def work(connection: Connection, state: State) -> None:
            strange = [t for t in state.tables if t.name not in state.progress.own and t.strategy != ROOT]
            wrong = self.rows.some(connection, strange, state.other_id)
            if wrong:
                tables = ", ".join(f"{name} ({rows})" for name, rows in wrong.items())
                raise Refused(
                    f"{self.label}: tables hold rows of {state.other_id}, which is not live: {tables}. They are not the"
                    " migration's.",
                    "Find out who wrote them; remove them, or correct their id, then run the same command again.",
                )
            done = state.progress
            for table in state.twins:
                done = done.copying(table.name)
            if done != state.progress:
                self.write_state(connection, replace(state, progress=done))

        self.in_window(move, STAGE_TIMEOUT_MS, work)

    # -- remove -----------------------------------------------------------------------------------

    def remove(self, move: Move, progress: Progress = untold) -> int:
        with self.transaction() as connection:
            state = self.state(connection, move.migration)
            if state:
                self.check_owner(state, move)
                self.refuse_window_or_turned(state, move, "remove")
            elif not self.leftovers(connection, move.migration):
                return 0
        removed = 0
        with self.working(move, state):
            if state:
                # no window can begin any more, and a new stage would start from the first row
                kept = Progressed(own=state.progress.own, rows=state.progress.rows)
                self.set_state(move, lambda state: replace(state, state=STAGING, epoch=move.epoch, progress=kept))
                removed = sum(self.purge(move, table, progress) for table in reversed(state.twins))
                removed += self.remove_root_rows(move, progress)
            self.drop_helpers(move, state, progress)
        return removed


def _armed(table: str, mark: str, state: State) -> State:
    """The table's triggers were made anew, or its columns have changed: what was copied before may be stale."""
    return replace(state, marks={**state.marks, table: mark}, progress=state.progress.doubted(table))
