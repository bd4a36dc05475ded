# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Twins of the MariaDB participant: copies of the live id's rows under the other id, kept in step by a log of changed
keys.

Why it is right: every change commits together with its key; one session writes chunks and applies keys, never both at
once, so a key that was applied before a chunk's snapshot is in the snapshot, and one applied after it repairs the twin;
applying reads the rows as they are now, so order and repetition do not matter. Nothing is written with IGNORE: what
does not fit is an error, not a warning.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import PURGE, Move, Progress
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.inspect import MariaDBInspection
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.sessions import DUPLICATE, number
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.twin_sql import Twin
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import State, write_state

with suppress(ImportError):  # Database refuses to be built without it
    import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

CHUNK_ROWS = 1000
CHUNK_MS = 100
"""A chunk that takes longer makes the next ones smaller: a table with AUTO_INCREMENT keeps others' inserts waiting for
its end.
"""
MOST_CHUNK_ROWS = 10_000
LOG_BATCH = 1000
"""Logged keys of one table that are applied in one transaction."""
CATCH_UP_MS = 60_000
"""How long (milliseconds) the stage follows a busy tenant before it goes on; the rest is the prelude's."""

T = TypeVar("T")


class MariaDBTwins(MariaDBInspection):
    """What the verbs do for tables of strategy twin."""

    @abstractmethod
    def in_stage(self, move: Move, work: Callable[[Connection, State], T]) -> T:
        """Run *work* as the migration's worker in a transaction that holds the state row; it runs again after a
        deadlock.
        """

    def twins(self, state: State) -> tuple[Twin, ...]:
        return tuple(
            Twin(state, number, self.quote) for number, table in enumerate(state.tables) if table in state.twins
        )

    # -- the log ----------------------------------------------------------------------------------

    def pending(self, connection: Connection, state: State) -> int:
        twins = self.twins(state)
        return (
            sum(map(int, execute(connection, "SELECT " + ", ".join(twin.waiting() for twin in twins)).one()))
            if twins
            else 0
        )

    def catch_up(self, connection: Connection, state: State) -> int:
        twins = self.twins(state)
        if not twins:
            return 0
        waiting = execute(connection, "SELECT " + ", ".join(twin.waiting() for twin in twins)).one()
        return sum(self._apply(connection, twin) for twin, count in zip(twins, waiting, strict=True) if count)

    def _apply(self, connection: Connection, twin: Twin) -> int:
        """Apply one batch of a table's log and verify it; returns how many entries it had.

        A row that got the value of a secondary unique key from another one collides unless both are in the batch. The
        other one's entry was committed no later, so reading the log again, and more of it, finds it.

        :raises Refused: a twin differs from its original afterwards.
        """
        taken, limit = 0, LOG_BATCH
        while True:
            before, taken = taken, self._take(connection, twin, limit)
            try:
                with connection.begin_nested():
                    for statement in twin.apply():
                        execute(connection, statement)
                break
            except sa.exc.DBAPIError as error:
                if number(error) != DUPLICATE or taken == before:
                    raise
            limit *= 10
        wrong = execute(connection, twin.differing()).scalar_one() if taken else 0
        if wrong:
            raise self._different(f"{twin.table.name} ({wrong})")
        return taken

    @staticmethod
    def _take(connection: Connection, twin: Twin, limit: int) -> int:
        return [int(execute(connection, statement).rowcount) for statement in twin.take(limit)][-1]

    def _different(self, tables: str) -> Refused:
        reason = f"{self.label}: copies differ from their originals: {tables}."
        return Refused(
            reason,
            "Look for what changes rows while they are written (a trigger, a default); abort the stage and stage"
            " again.",
        )

    # -- copies -----------------------------------------------------------------------------------

    def fill(self, move: Move, state: State, progress: Progress) -> tuple[int, State]:
        """Copy, follow and verify all twins; goes on where an earlier run stopped. Returns rows copied and the state
        that is reached.
        """
        if not state.twins:
            return 0, state
        self.in_stage(move, self._claim_rows)
        done = self.in_stage(move, _done)
        copied = 0
        for twin in self.twins(state):
            if twin.table.name not in done:
                copied += self._copy(move, twin, progress)
                self.in_stage(move, partial(_note_done, twin.table.name))
        self.follow_while_served(move)
        rows = self._verify(state, progress)
        return copied, replace(state, progress={"copying": True, "rows": rows})

    def _claim_rows(self, connection: Connection, stored: State) -> None:
        """Behind its fence nobody can add rows of the other id any more; note that from now on its rows in twins are
        ours.
        """
        if stored.progress.get("copying"):
            return
        for twin in self.twins(stored):
            if execute(connection, twin.exists()).scalar():
                reason = f"{self.label}: table {twin.table.name} has rows of {stored.other_id}."
                raise Refused(reason, "Abort the stage, then remove these rows or migrate to a tenant without data.")
        write_state(connection, replace(stored, progress={"copying": True}))

    def _copy(self, move: Move, twin: Twin, progress: Progress) -> int:
        """Copy one table in chunks. One that was stopped starts at its first row: what is there already costs a look
        only.
        """
        size, total = CHUNK_ROWS, 0
        after: Sequence[str] | None = None
        while True:
            begin = time.monotonic()
            rows, after = self.in_stage(move, partial(self._chunk, twin, after, size))
            took_ms = (time.monotonic() - begin) * 1000
            total += rows
            progress({"participant": self.name, "table": twin.table.name, "step": "copy", "rows": total})
            if after is None:
                return total
            size = (
                max(100, size // 2)
                if took_ms > CHUNK_MS
                else min(MOST_CHUNK_ROWS, size * 2)
                if took_ms < CHUNK_MS / 3
                else size
            )

    def _chunk(
        self, twin: Twin, after: Sequence[str] | None, most: int, connection: Connection, _state: State
    ) -> tuple[int, Sequence[str] | None]:
        """Copy the next rows; returns how many, and the last key as literals, ``None`` after the last chunk.

        A row whose value of a secondary unique key an outdated twin still holds collides: the log has the other row, so
        it is applied first.
        """
        while True:
            end = execute(connection, twin.chunk_end(twin.live, after, most)).one_or_none()
            until = list(map(str, end)) if end else None
            try:
                with connection.begin_nested():
                    return int(execute(connection, twin.chunk(after, until)).rowcount), until
            except sa.exc.DBAPIError as error:
                if number(error) != DUPLICATE or not self._apply(connection, twin):
                    raise

    def follow_while_served(self, move: Move) -> None:
        """Apply what was logged meanwhile, until little is left or the time is up."""
        deadline = time.monotonic() + CATCH_UP_MS / 1000
        while self.in_stage(move, self.catch_up) and time.monotonic() < deadline:
            pass

    def _verify(self, state: State, progress: Progress) -> dict[str, int]:
        """Compare originals and twins as a whole, each table at one snapshot, but for keys that wait in the log.
        Returns rows by table.

        :raises Refused: they differ.
        """
        rows: dict[str, int] = {}
        wrong = []
        for twin in self.twins(state):
            progress({"participant": self.name, "table": twin.table.name, "step": "verify"})
            with self.transaction(*self.snapshot()) as connection:
                originals, twins = twin.compare()
                rows[twin.table.name], missing = map(int, execute(connection, originals).one())
                different = missing + int(execute(connection, twins).scalar_one())
            wrong += [f"{twin.table.name} ({different})"] if different else []
        if wrong:
            raise self._different(", ".join(wrong))
        return rows

    def purge(self, move: Move, state: State, progress: Progress) -> int:
        """Delete the twins of the id that is not live, in chunks; rows that are not ours are never here (see
        :meth:`_claim_rows`).
        """
        if not state.progress.get("copying"):
            return 0
        total = 0
        for twin in reversed(self.twins(state)):
            gone = 0
            while rows := self.in_stage(move, partial(_purge_chunk, twin)):
                gone += rows
                of = state.progress.get("rows", {}).get(twin.table.name, 0)
                progress({"participant": self.name, "table": twin.table.name, "step": PURGE, "rows": gone, "of": of})
            total += gone
        return total


def _done(_connection: Connection, state: State) -> frozenset[str]:
    """Tables that have been copied."""
    return frozenset(state.progress.get("done", []))


def _note_done(table: str, connection: Connection, state: State) -> None:
    write_state(
        connection, replace(state, progress={**state.progress, "done": [*state.progress.get("done", []), table]})
    )


def _purge_chunk(twin: Twin, connection: Connection, _state: State) -> int:
    end = execute(connection, twin.chunk_end(twin.other, None, CHUNK_ROWS)).one_or_none()
    return int(execute(connection, twin.purge(list(map(str, end)) if end else None)).rowcount)
