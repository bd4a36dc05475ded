# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs of a database's window, written once; an engine adds locks, fences and helpers.

=========  ==============================================================================  ===========================
verb       one transaction, the state row locked first                                     leaves the state
=========  ==============================================================================  ===========================
prelude    waits out writers, applies the log in rounds; fences nothing                    staged
barrier 1  locks; catalog; last keys; both ids fenced                                      fenced; moved if no rows
                                                                                           are in place
barrier 2  no lock that other tenants meet; fence and catalog again; rows in place move    moved
confirm    reads: still moved, still fenced                                                moved
turn       the source's fence stays, the target's goes                                     staged, the target live
undo       rows in place move back, the source's fence goes                                staged, the source live
=========  ==============================================================================  ===========================

A crash leaves the state right before or right after a transaction. A run that finds ``fenced`` repeats both parts of
the barrier. The second part moves only under the epoch of the first; an epoch that turn or undo has finished can do
neither (protocol, amendments 19 and 23).
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused, Superseded, Timeout
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    ABSENT,
    FENCED,
    IN_WINDOW,
    MOVED,
    STAGED,
    STAGING,
    Move,
    Status,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.constraints import loose
from ansible_collections.zdm.landscape.plugins.module_utils.participant.copying import LOG_BATCH
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute
from ansible_collections.zdm.landscape.plugins.module_utils.participant.staging import Staging
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import Planned, State

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

VERB_TIMEOUT_MS = 10_000
"""How long (milliseconds) a verb without a time-out of its own waits for locks."""


class Verbs(Staging):
    """Each public verb keeps the contract of :class:`Participant`."""

    # -- what an engine adds ----------------------------------------------------------------------

    @abstractmethod
    def exclude_writers(self, connection: Connection, state: State) -> None:
        """Wait until every transaction that wrote rows of either id has ended, and keep new ones, and changes of the
        planned tables, waiting until this one ends.
        """

    @abstractmethod
    def await_writers(self, move: Move, state: State, timeout_ms: int) -> None:
        """Wait until every transaction that was writing rows of the live id has ended; keep nobody waiting.

        :raises Timeout: one does not end; ``details`` name it.
        """

    def limit(self, connection: Connection, timeout_ms: int, rows: bool = False) -> None:
        """No statement of this transaction may take longer than the window has left, where :meth:`in_window` does not
        see to it.

        :param rows: it may wait for rows so long too, as nobody waits behind it then.
        """
        del connection, timeout_ms, rows

    @abstractmethod
    def set_fences(self, connection: Connection, state: State, fenced: Iterable[str]) -> None:
        """Fence exactly these ids on every planned table, in the running transaction."""

    @abstractmethod
    def fenced(self, connection: Connection, state: State) -> tuple[str, ...]:
        """Ids that every planned table fences, by the catalog; sorted."""

    def checks_keys(self, state: State) -> bool:
        """Whether the server checks foreign keys of rows that the worker moves. It does not where parents and children
        could not move together otherwise, or where the session must not fire the application's triggers.
        """
        del state
        return False

    def refuse_loose(self, connection: Connection, state: State, tenant_id: str) -> None:
        """Ask after a move what the server has not checked.

        :raises Refused: a row in place of *tenant_id* refers to a row that is not there.
        """
        for table in state.in_place if not self.checks_keys(state) else ():
            rows = f"FROM {self.rows.table(table)} c WHERE {self.rows.has(table, tenant_id)}"
            for tie in table.ties:
                query, key = loose(tie, rows, self.quote)
                if execute(connection, query).first():
                    raise self.loose(table.name, key, tenant_id)

    def loose(self, table: str, key: str, tenant_id: str) -> Refused:
        """The error of rows that refer to nothing.

        :param key: the foreign key in words.
        """
        return Refused(
            f"{self.label}: {key} of table {table}: rows of {tenant_id} find no row there.",
            f"Insert the row of {tenant_id}, as the application does when it onboards a tenant.",
        )

    def ailments(self, connection: Connection, state: State) -> list[str]:
        """What a person must know beside what the state row tells, for example rights that were taken away."""
        del connection, state
        return []

    def pending(self, connection: Connection, state: State) -> int:
        """Logged keys of the live id that the twins have not got yet."""
        del connection, state
        return 0

    # -- verbs ------------------------------------------------------------------------------------

    def _absent(self, move: Move) -> bool:
        with self.transaction() as connection:
            state = self.state(connection, move.migration)
        return state is None

    def take_over(self, move: Move) -> None:
        if not self._absent(move):
            self.in_window(
                move,
                VERB_TIMEOUT_MS,
                lambda connection, state: self.write_state(connection, replace(state, epoch=move.epoch)),
            )

    def prelude(self, move: Move, timeout_ms: int) -> int:
        deadline = time.monotonic() + timeout_ms / 1000
        with self.transaction() as connection:
            state = self.staged_state(connection, move)
            if state.state not in IN_WINDOW:
                self.refuse_window_or_turned(state, move, "prelude")
                self.refuse_unready(connection, state)
        if state.state in IN_WINDOW:
            return 0
        self.await_writers(move, state, timeout_ms)
        applied = 0

        def work(connection: Connection, state: State) -> int:
            nonlocal applied
            applied = self.apply_some(connection, state)
            return applied

        total = self.rounds(move, work, deadline)
        if applied >= LOG_BATCH:
            raise Timeout(
                f"{self.label}: the log of {move.from_id} is too long to be applied in a window.",
                "Run the stage playbook, which applies it while the tenant is served, then the same command again.",
            )
        return total

    def barrier(self, move: Move, timeout_ms: int) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_ms / 1000

        def fence(connection: Connection, state: State) -> State:
            self.limit(connection, timeout_ms)
            return self._fence(connection, state, move)

        def shift(connection: Connection, state: State) -> State:
            self.limit(connection, max(1, round((deadline - time.monotonic()) * 1000)), rows=True)
            return self._shift(connection, state, move)

        state = self.in_window(move, timeout_ms, fence)
        if state.state == FENCED:
            state = self.in_window(move, max(1, round((deadline - time.monotonic()) * 1000)), shift)
        # rows by table: those in place as the barrier moved them, those of twins as the stage compared them
        tables = {table.name: state.progress.rows.get(table.name, 0) for table in state.twins} | state.progress.moved
        return {"rows": sum(tables.values()), "tables": tables}

    def _fence(self, connection: Connection, state: State, move: Move) -> State:
        """The barrier's first transaction."""
        if state.state == MOVED and state.live_id == move.from_id:
            return state
        if state.state not in (STAGED, FENCED) or state.live_id != move.from_id:
            self.wrong_state(state, move, "barrier")
        self._refuse_finished(state, move)
        self.exclude_writers(connection, state)
        self._refuse_changed(connection, state)
        self.exempt(connection, state)
        while self.catch_up(connection, state, None):
            pass
        self.sync_roots(connection, state)
        fenced = replace(state, state=FENCED if state.in_place else MOVED, epoch=move.epoch)
        self.set_fences(connection, fenced, fenced.closed)
        self.write_state(connection, fenced)
        return fenced

    def _shift(self, connection: Connection, state: State, move: Move) -> State:
        """The barrier's second transaction."""
        if state.state == MOVED and state.live_id == move.from_id:
            return state
        if state.state != FENCED or state.live_id != move.from_id:
            self.wrong_state(state, move, "barrier")
        if state.epoch != move.epoch:
            raise Superseded(
                f"{self.label}: epoch {state.epoch} has set the fences of migration {move.migration}, not epoch"
                f" {move.epoch}.",
                "Run the same command again.",
            )
        self._refuse_finished(state, move)
        self._refuse_unfenced(connection, state)
        self._refuse_changed(connection, state)
        self.exempt(connection, state)
        rows = self.rows.move(connection, state.in_place, move.from_id, move.to_id)
        self.refuse_loose(connection, state, move.to_id)
        moved = replace(state, state=MOVED, progress=replace(state.progress, moved=rows))
        self.write_state(connection, moved)
        return moved

    def confirm(self, move: Move) -> None:
        with self.transaction() as connection:
            state = self.staged_state(connection, move)
            if state.state != MOVED or state.live_id != move.from_id or state.epoch != move.epoch:
                self.wrong_state(state, move, "commit")
            self._refuse_unfenced(connection, state)
            self._refuse_changed(connection, state)

    def turn(self, move: Move) -> None:
        def work(connection: Connection, state: State) -> None:
            turned = replace(state, state=STAGED, live_id=move.to_id, epoch=move.epoch, finished=move.epoch)
            if state.state == STAGED and state.live_id == move.to_id:
                if state.finished != move.epoch:
                    self.write_state(connection, turned)
                return
            if state.state != MOVED or state.live_id != move.from_id:
                self.wrong_state(state, move, "turn")
            self.set_fences(connection, turned, turned.closed)
            self.write_state(connection, turned)

        self.in_window(move, VERB_TIMEOUT_MS, work)

    def undo(self, move: Move) -> None:
        def work(connection: Connection, state: State) -> None:
            if state.live_id != move.from_id:
                self.wrong_state(state, move, "undo")
            back = replace(state, epoch=move.epoch, finished=move.epoch)
            if state.state in IN_WINDOW:
                self.exempt(connection, state)
                if state.state == MOVED:
                    self.rows.move(
                        connection, self._in_place_now(connection, state), move.to_id, move.from_id, back=True
                    )
                back = replace(back, state=STAGED)
                self.set_fences(connection, back, back.closed)
            self.write_state(connection, back)

        if not self._absent(move):
            self.in_window(move, VERB_TIMEOUT_MS, work)

    # -- checks -----------------------------------------------------------------------------------

    def _refuse_finished(self, state: State, move: Move) -> None:
        if move.epoch <= state.finished:
            raise Superseded(
                f"{self.label}: epoch {move.epoch} of migration {move.migration} is finished.",
                "Leave it to the newer run, or run the same command again.",
            )

    def _refuse_unfenced(self, connection: Connection, state: State) -> None:
        """:raises Refused: an id that must be fenced is not."""
        lost = sorted(set(state.closed) - set(self.fenced(connection, state)))
        if lost:
            raise Refused(
                f"{self.label}: the fence of {' and '.join(lost)} is not on every planned table any more: somebody has"
                " switched triggers off, or replaced a table.",
                "Find out who did; then run the stage playbook.",
            )

    def _refuse_changed(self, connection: Connection, state: State) -> None:
        """:raises Refused: a planned table, or a trigger of ours on it, is not what the stage has left."""
        changed = self.changed(connection, state)
        if changed:
            raise Refused(f"{self.label}: {' '.join(changed)}", "Run the stage playbook, then the same command again.")

    def refuse_unready(self, connection: Connection, state: State) -> None:
        """:raises Refused: no window may begin."""
        unready = self.unready(connection, state)
        if unready:
            raise Refused(f"{self.label}: {' '.join(unready)}", "Run the stage playbook, then the same command again.")

    def unready(self, connection: Connection, state: State) -> tuple[str, ...]:
        """Why no window may begin before the next stage; stage, preflight, status and the window ask this one function
        (protocol, amendment 18). What only a look at the whole catalog tells is in :meth:`strangers`.
        """
        if state.state == STAGING:
            return ("The stage is not finished.",)
        found = self.changed(connection, state)
        if not found and state.other_id not in self.fenced(connection, state):
            found = [f"The fence of {state.other_id} is not on every planned table."]
        for table in state.twins:
            if table.name in state.progress.suspect:
                found.append(f"The copies of {table.name} may be stale.")
            elif table.name not in state.progress.compared:
                found.append(f"The copies of {table.name} differ from their originals, or were never compared.")
        return tuple(found)

    def changed(self, connection: Connection, state: State) -> list[str]:
        """What is no more as the stage has left it, a sentence for each table."""
        now = self.marks(connection, state)
        return [
            _what_changed(table.name, state.marks.get(table.name, ""), now.get(table.name, ""))
            for table in state.tables
            if now.get(table.name, "") != state.marks.get(table.name, "")
        ]

    def strangers(self, connection: Connection, state: State) -> list[str]:
        """Tables that have become planned ones since the stage, or are none any more."""
        catalog = self.catalog(connection)
        now, planned = self.tenant_tables(catalog), {table.name for table in state.tables}
        found = [f"Table {name} has a tenant column and is not staged." for name in sorted(now.keys() - planned)]
        gone = sorted(planned & catalog.keys() - now.keys())
        return found + [f"Table {name} is staged, but ignored or without a tenant column now." for name in gone]

    # -- status -----------------------------------------------------------------------------------

    def status(self, migration: str, source_id: str, target_id: str) -> Status:
        del source_id, target_id
        with self.transaction(*self.snapshot()) as connection:
            state = self.state(connection, migration)
            if state is None:
                left = self.leftovers(connection, migration)
                alone = (f"Helper objects without a state row: {', '.join(left)}.",) if left else ()
                return Status(self.name, self.kind, STAGING if left else ABSENT, problems=alone)
            there = self._there(connection, state)
            fenced = self.fenced(connection, state)
            unready = self.unready(connection, state)
            if state.state == STAGED:
                unready = (*unready, *self.strangers(connection, state))
            pending = 0 if state.state == STAGING else self.pending(connection, state)
            moving, copied = self._rows(connection, there.in_place, there), self._rows(connection, there.twins, there)
            compared = [state.progress.compared.get(table.name, 0) for table in state.twins]
            now = self.server_time_s(connection)
            problems = (*state.problems(fenced, moving), *self.ailments(connection, state))
        return Status(
            self.name,
            self.kind,
            state.state,
            state.epoch,
            state.live_id,
            fenced,
            pending,
            {tenant: moving[tenant] + copied[tenant] for tenant in moving},
            problems,
            unready if state.state in (STAGED, STAGING) else (),
            now - min(compared) if compared and all(compared) else None,
            bool(compared),
        )

    def _in_place_now(self, connection: Connection, state: State) -> tuple[Planned, ...]:
        """The tables in place, those that were renamed since by their new names, without those that are gone: they must
        not keep the tenant from being served.
        """
        there = self.marks(connection, state)
        if all(table.name in there for table in state.in_place):
            return state.in_place
        now = self.trigger_tables(connection, state.migration)
        return tuple(
            table if table.name in there else self.renamed(table, now[table.number])
            for table in state.in_place
            if table.name in there or table.number in now
        )

    def _there(self, connection: Connection, state: State) -> State:
        """The state with the tables whose tenant columns are still there: one may have been dropped meanwhile."""
        now = self.tenant_tables(self.catalog(connection))
        tables = tuple(table for table in state.tables if set(table.columns) <= set(now.get(table.name, ())))
        return replace(state, tables=tables)

    def _rows(self, connection: Connection, tables: tuple[Planned, ...], state: State) -> Mapping[str, int]:
        counts = self.rows.count(connection, tables, state.source_id, state.target_id).values()
        return {
            state.source_id: sum(count.old for count in counts),
            state.target_id: sum(count.new for count in counts),
        }


def _what_changed(table: str, staged: str, now: str) -> str:
    if not now:
        return f"Table {table} is gone."
    if not staged:
        return f"Table {table} has not been staged."
    if staged.split("|")[0] != now.split("|")[0]:
        return f"Columns, keys or triggers of {table} have changed since the stage."
    return f"The migration's triggers on {table} were switched, dropped or made anew since the stage."
