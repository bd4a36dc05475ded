# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Twins: copies of the live id's rows under the other id, kept in step by a log of changed keys; written once, an
engine adds the statements.

Why they are right: every change commits together with its key in the log; one session writes chunks and applies keys,
never both at once, so a key that was applied before a chunk's snapshot is in the snapshot, and one applied after it
repairs the twin; applying reads the rows as they are now, so order and repetition do not matter.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NoReturn, TypeAlias, TypeVar

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused, ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    APPLY,
    COMPARE,
    COMPARED,
    COPY,
    IN_WINDOW,
    PURGE,
    Care,
    Move,
    Progress,
    untold,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.planning import Planning
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import Planned, State

with suppress(ImportError):  # Database refuses to be built without it
    pass

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

STAGE_TIMEOUT_MS = 60_000
"""How long (milliseconds) the stage tries to get one table's locks while the tenant is served."""
LOG_BATCH = 1000
"""Logged keys of one table that are applied in one transaction while the tenant is served."""
LEFT_FOR_THE_BARRIER = 20
"""Logged keys that the barrier may apply itself."""
CATCH_UP_MS = 60_000
"""How long (milliseconds) the stage follows a busy tenant before it goes on; the rest is the next call's."""
CHUNK_ROWS = 1000
COMPARE_ROWS = 5000
SHOWN_KEYS = 20
"""Keys of differing rows that an error names."""

T = TypeVar("T")


class Clash(ZdmError):
    """Logged rows cannot be written yet: a twin that is stale has a value that only one row may have, or a parent's
    twin is missing. A stage mends it, as it compares what may be stale.
    """


Cursor: TypeAlias = "list[str] | None"


@dataclass(frozen=True)
class Chunk:
    """What was done with the next rows of a table.

    :param rows: how many.
    :param after: the key of the last one, column by column as text; None when the table is done.
    :param differing: keys of rows that differ from their twins, for a person.
    """

    rows: int
    after: Cursor
    differing: tuple[str, ...] = ()


class Pace:
    """Rows of a chunk, so that it takes neither longer than others should wait nor so short that it is wasteful."""

    def __init__(self, rows: int, longest_ms: float) -> None:
        self.rows, self._most, self._longest_ms = rows, rows * 10, longest_ms

    def measured(self, run: Callable[[int], T]) -> T:
        begin = time.monotonic()
        result = run(self.rows)
        took_ms = (time.monotonic() - begin) * 1000
        if took_ms > self._longest_ms:
            self.rows = max(100, self.rows // 2)
        elif took_ms < self._longest_ms / 3:
            self.rows = min(self._most, self.rows * 2)
        return result


class Copying(Planning):
    """Copies, their log, their comparison and their removal; with the verb ``follow``."""

    chunk_ms = 250
    """A chunk that takes longer (milliseconds) makes the next ones smaller: other tenants' writes wait for its I/O."""

    # -- what an engine adds ----------------------------------------------------------------------

    @abstractmethod
    def in_window(
        self, move: Move, timeout_ms: int, work: Callable[[Connection, State], T], *, snapshot: bool = False
    ) -> T:
        """Run *work* in one write transaction that holds the state row; the epoch has been checked. *work* may run
        again after a deadlock.

        :param snapshot: all statements of *work* read one state of the database, where the engine's :meth:`catch_up`
            or :meth:`compare_chunk` needs it.
        :raises Refused: not staged.
        :raises Timeout: a lock was not to be had.
        """

    @abstractmethod
    def exempt(self, connection: Connection, state: State) -> None:
        """Let this transaction's own writes pass the fences and the logs."""

    def chunk(self, connection: Connection, state: State, table: Planned, after: Cursor, rows: int) -> Chunk:
        """Copy the next rows of the live id; what the log has brought before stays as it is. An engine without twins
        has none.
        """
        del connection, state, table, after, rows
        return Chunk(0, None)

    def compare_chunk(
        self, connection: Connection, state: State, table: Planned, after: Cursor, rows: int, mend: bool
    ) -> Chunk:
        """Compare the next rows of the live id with their twins, and twins without an original, at one snapshot; keys
        that wait in the log do not count.

        :param mend: keep the twins that differ in a helper table and log their keys, so that the next
            :meth:`catch_up` rewrites them.
        """
        del connection, state, table, after, rows, mend
        return Chunk(0, None)

    def purge_chunk(self, connection: Connection, state: State, table: Planned) -> int:
        """Delete twins of the id that is not live; how many, 0 when none are left or the table is gone."""
        del connection, state, table
        return 0

    def catch_up(self, connection: Connection, state: State, most: int | None) -> int:
        """Apply logged keys of the live id to the twins and verify them; how many, 0 when none were left.

        :param most: about how many of each table; None for all of them.
        """
        del connection, state, most
        return 0

    def analyze(self, table: Planned) -> None:
        """Make the planner know the copies before they are used."""

    @abstractmethod
    def server_time_s(self, connection: Connection) -> int:
        """The server's time in seconds since 1970."""

    # -- the state row ----------------------------------------------------------------------------

    def now(self, move: Move) -> State:
        with self.transaction() as connection:
            return self.staged_state(connection, move)

    def set_state(self, move: Move, change: Callable[[State], State]) -> None:
        """Change the state row, and nothing else."""

        def work(connection: Connection, state: State) -> None:
            changed = change(state)
            if changed != state:
                self.write_state(connection, changed)

        self.in_window(move, STAGE_TIMEOUT_MS, work)

    # -- copies -----------------------------------------------------------------------------------

    def in_stage(self, move: Move, work: Callable[[Connection, State], T]) -> T:
        """:meth:`in_window` while the tenant is served, as the migration's worker and at one snapshot."""

        def as_worker(connection: Connection, state: State) -> T:
            self.exempt(connection, state)
            return work(connection, state)

        return self.in_window(move, STAGE_TIMEOUT_MS, as_worker, snapshot=True)

    def copy(self, move: Move, table: Planned, progress: Progress) -> int:
        """Copy one table in chunks, from where an earlier run stopped; parents have been copied before."""
        if table.name in self.now(move).progress.done:
            return 0
        pace, total = Pace(CHUNK_ROWS, self.chunk_ms), 0
        while True:
            chunk = pace.measured(lambda rows: self.in_stage(move, partial(self._copy_chunk, table, rows)))
            total += chunk.rows
            progress({"participant": self.name, "table": table.name, "step": COPY, "rows": total})
            if chunk.after is None:
                self.analyze(table)
                return total

    def _copy_chunk(self, table: Planned, rows: int, connection: Connection, state: State) -> Chunk:
        done = state.progress
        chunk = self.chunk(connection, state, table, done.cursor.get(table.name), rows)
        if chunk.after is None:
            done = done.copied(table.name)
        else:
            done = replace(done, cursor={**done.cursor, table.name: chunk.after})
        self.write_state(connection, replace(state, progress=done))
        return chunk

    # -- comparison -------------------------------------------------------------------------------

    def compare_all(self, move: Move, progress: Progress, care: Care) -> None:
        """Compare every twin for which it is time.

        :raises Refused: twins differ although nothing has touched their triggers, and nobody asked for a repair.
        """
        with self.transaction() as connection:
            state, now = self.staged_state(connection, move), self.server_time_s(connection)
        wrong: dict[str, tuple[str, ...]] = {}
        equal: dict[str, int] = {}
        for table in state.twins:
            mend = care.repair or table.name in state.progress.suspect
            at = state.progress.compared.get(table.name)
            if mend or at is None or (care.compare_after_s is not None and now - at >= care.compare_after_s):
                rows, differing = self._compare(move, table, progress, mend)
                if mend:
                    equal[table.name] = rows
                    continue
                wrong |= {table.name: differing} if differing else {}
                self.set_state(move, partial(_compared, table.name, rows, now, bool(differing)))
        if equal:
            # stale twins of one part of a table, or of its parents, may have been in the way of another's
            self.follow_a_while(move, progress)
        for name, rows in equal.items():
            self.set_state(move, partial(_compared, name, rows, now, False))
        if wrong:
            raise self._different(wrong)

    def _compare(self, move: Move, table: Planned, progress: Progress, mend: bool) -> tuple[int, tuple[str, ...]]:
        """Rows of the live id, and keys of those that differ and were not mended."""
        pace, total = Pace(COMPARE_ROWS, self.chunk_ms), 0
        after: Cursor = None
        differing: tuple[str, ...] = ()
        while True:
            chunk = pace.measured(partial(self._compare_chunk, move, table, after, mend))
            total, after, differing = total + chunk.rows, chunk.after, (*differing, *chunk.differing)
            progress({"participant": self.name, "table": table.name, "step": COMPARE, "rows": total})
            if mend and chunk.differing:
                self.follow_before_comparison(move, progress)
            if after is None:
                shown = differing[: SHOWN_KEYS + 1]
                done = {"participant": self.name, "table": table.name, "step": COMPARED, "rows": total}
                progress(done | {"mended": named(shown)} if mend and shown else done)
                return total, () if mend else shown

    def _compare_chunk(self, move: Move, table: Planned, after: Cursor, mend: bool, rows: int) -> Chunk:
        def work(connection: Connection, state: State) -> Chunk:
            return self.compare_chunk(connection, state, table, after, rows, mend)

        return self.in_stage(move, work)

    def _different(self, wrong: dict[str, tuple[str, ...]]) -> Refused:
        shown = [f"{table} ({named(keys)})" for table, keys in wrong.items()]
        return Refused(
            f"{self.label}: rows differ from their copies: {'; '.join(shown)}.",
            "Find out what changes rows without their triggers. To rewrite the copies from the live rows, run the stage"
            " playbook with -e repair=true: what is replaced is kept in a helper table.",
            differing={table: list(keys[:SHOWN_KEYS]) for table, keys in wrong.items()},
        )

    # -- the log ----------------------------------------------------------------------------------

    def follow(self, move: Move, timeout_ms: int, progress: Progress = untold) -> int:
        def work(connection: Connection, state: State) -> int:
            self.refuse_window_or_turned(state, move, "follow")
            return self.apply_some(connection, state)

        return self.rounds(move, work, time.monotonic() + timeout_ms / 1000, progress)

    def follow_a_while(self, move: Move, progress: Progress) -> None:
        self.rounds(move, self.apply_some, time.monotonic() + CATCH_UP_MS / 1000, progress)

    def follow_before_comparison(self, move: Move, progress: Progress) -> bool:
        """Whether all could be applied; what stale twins are in the way of must wait until they are compared."""
        try:
            self.follow_a_while(move, progress)
        except Clash:
            return False
        return True

    def apply_some(self, connection: Connection, state: State) -> int:
        if state.state in IN_WINDOW or not state.twins:
            return 0
        self.exempt(connection, state)
        return self.catch_up(connection, state, LOG_BATCH)

    def rounds(
        self, move: Move, work: Callable[[Connection, State], int], deadline: float, progress: Progress = untold
    ) -> int:
        """Apply the log in batches until little is left, the time is up, or a round does not get nearer: with busy
        writers the log is never empty. Returns the keys applied.
        """
        total, before = 0, 0
        while True:
            left_ms = max(1, round((deadline - time.monotonic()) * 1000))
            applied = self.in_window(move, left_ms, work, snapshot=True)
            total += applied
            if applied:
                progress({"participant": self.name, "step": APPLY, "rows": total})
            # less than a batch: all that could be seen was applied, and what is left has come in meanwhile
            near = applied <= LEFT_FOR_THE_BARRIER or (applied < LOG_BATCH and before and applied >= before)
            if near or time.monotonic() >= deadline:
                return total
            before = applied if applied < LOG_BATCH else 0

    def purge(self, move: Move, table: Planned, progress: Progress) -> int:
        """Delete the twins of one table in chunks, children come first; rows that are not ours are never here (see
        :meth:`_claim_rows`).
        """

        def work(connection: Connection, state: State) -> int:
            return self.purge_chunk(connection, state, table) if table.name in state.progress.own else 0

        total, of = 0, self.now(move).progress.rows.get(table.name, 0)
        while rows := self.in_stage(move, work):
            total += rows
            progress({"participant": self.name, "table": table.name, "step": PURGE, "rows": total, "of": of})
        return total

    # -- checks -----------------------------------------------------------------------------------

    def wrong_state(self, state: State, move: Move, verb: str) -> NoReturn:
        raise Refused(
            f"{self.label}: {verb} from {move.from_id} to {move.to_id} does not fit state {state.state}, in which"
            f" {state.live_id} is live.",
            "Run the status playbook: it says which id is live and what to do.",
        )

    def refuse_window_or_turned(self, state: State, move: Move, verb: str) -> None:
        """:raises Refused: ``from_id`` is not the live id of a participant at rest."""
        if state.state in IN_WINDOW or state.live_id != move.from_id:
            self.wrong_state(state, move, verb)


def named(keys: Sequence[str]) -> str:
    """The first of them for a person."""
    return f"{', '.join(keys[:SHOWN_KEYS])}{', …' if len(keys) > SHOWN_KEYS else ''}"


def _compared(table: str, rows: int, at_s: int, differs: bool, state: State) -> State:
    done = state.progress.different(table) if differs else state.progress.equal(table, rows, at_s)
    return replace(state, progress=done)
