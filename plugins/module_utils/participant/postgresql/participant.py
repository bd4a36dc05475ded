# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL as a participant, with the strategies ``twin`` and ``in_place``.

Every trigger is made while staging, disabled where it is not needed yet. The window only switches triggers, which
PostgreSQL does transactionally, so barrier, turn and undo are one transaction each and there is nothing between before
and after. Forward and reverse are the same code: the logs and fences of both ids exist from the stage on.

Chunks and logged keys are written by one session, never at the same time: a key that was applied before a chunk's
snapshot is in the snapshot, one that is applied after it repairs the twin.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused, Timeout
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    APPLY,
    BARRED,
    STAGED,
    Inspection,
    Move,
    Progress,
    Status,
    untold,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import TableFacts
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.catalog import (
    read_catalog,
    table_digest,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.inspect import Inspector
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.session import (
    READ_ONLY,
    REPEATABLE_READ,
    PostgreSQLSession,
    State,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.sql import (
    KEY_LOOKUPS_ONLY,
    SCHEMA,
    Work,
    shifts,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.stage import Remover, Stager
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.status import (
    read_replica_lag,
    read_status,
)

with suppress(ImportError):
    import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

TURN_TIMEOUT_MS = 10_000
"""How long turn and undo try to get their locks; they wait for no tenant's request, only for short transactions."""
READ_TIMEOUT_MS = 10_000
"""How long reading tries to get past somebody's DDL."""
LEFT_FOR_THE_BARRIER = 20
"""Keys that the barrier may apply itself."""


class PostgreSQL(PostgreSQLSession):
    """See :class:`~.database.Database` for the options."""

    # -- reading ----------------------------------------------------------------------------------

    def inspect(self, migration: str, source_id: str, target_id: str) -> Inspection:
        return self.retrying(
            lambda: Inspector(self, migration, source_id, target_id).run(), READ_TIMEOUT_MS, (), "inspect"
        )

    def status(self, migration: str, source_id: str, target_id: str) -> Status:
        return self.retrying(lambda: read_status(self, migration, source_id, target_id), READ_TIMEOUT_MS, (), "status")

    def replica_lag_ms(self) -> float | None:
        return self.retrying(lambda: read_replica_lag(self), READ_TIMEOUT_MS, (), "replica lag")

    def fingerprint(self, tenant_id: str) -> str:
        return self.retrying(partial(super().fingerprint, tenant_id), READ_TIMEOUT_MS, (), "fingerprint")

    def catalog(self, connection: Connection) -> dict[str, TableFacts]:
        return read_catalog(self, connection)

    def snapshot(self) -> tuple[str, ...]:
        return (READ_ONLY,)

    def table_digest(
        self, connection: Connection, table: TableFacts, tenant: Sequence[str], tenant_id: str
    ) -> tuple[int, str]:
        return table_digest(self, connection, table, tenant, tenant_id)

    def display_name(self, schema: str | None, table: str) -> str:
        return table if schema in (None, self.default_schema) else f"{schema}.{table}"

    # -- stage ------------------------------------------------------------------------------------

    def stage(self, move: Move, plan: Inspection, progress: Progress) -> int:
        return Stager(self, move, plan, progress).run()

    def follow(self, move: Move, timeout_ms: int, progress: Progress = untold) -> int:
        deadline = time.monotonic() + timeout_ms / 1000
        state = self.retrying(lambda: self._look(move), timeout_ms, (), "follow")
        self._need_staged(state, move.from_id)
        total, applied = 0, LEFT_FOR_THE_BARRIER + 1
        while applied > LEFT_FOR_THE_BARRIER and time.monotonic() < deadline:
            applied = self.retrying(lambda: self.apply_log(move, state.scheme.twins), timeout_ms, state.works, "follow")
            total += applied
            if applied:
                progress({"participant": self.name, "step": APPLY, "rows": total})
        return total

    def remove(self, move: Move, progress: Progress = untold) -> int:
        return Remover(self, move, progress).run()

    # -- window -----------------------------------------------------------------------------------

    def take_over(self, move: Move) -> None:
        """See the base class; the connection stays open for the window.

        :raises Timeout: the older controller's session does not end.
        """

        def look() -> State | None:
            with self.transaction() as connection:
                self.abilities(connection)
                state = self.read_state(connection, move.migration)
                if state is not None:
                    self.check_owner(state, move)
                    self._terminate(connection, state)
                return state

        def own() -> None:
            with self.transaction() as connection:
                self.prologue(connection, move.migration)
                state = self.owned_state(connection, move)
                self.write_state(connection, move, state.state, state.live_id, state.progress)
                self.record_session(connection, move.migration)

        state = self.retrying(look, TURN_TIMEOUT_MS, (), "take over")
        if state is not None:
            self.retrying(own, TURN_TIMEOUT_MS, state.works, "take over")

    def record_session(self, connection: Connection, migration: str) -> None:
        """Note which session works, so that the next controller can end it."""
        session = (
            "session_pid = pg_backend_pid(), session_start = (SELECT backend_start FROM pg_stat_activity WHERE pid ="
            " pg_backend_pid())"
        )
        connection.execute(
            sa.text(f"UPDATE {SCHEMA}.migration SET {session} WHERE migration = :migration"), {"migration": migration}
        )

    def _terminate(self, connection: Connection, state: State) -> None:
        """End the session that the row names, if it still is the same one, and wait until it is gone: its locks are
        then free.
        """
        session = {"pid": state.session_pid, "start": state.session_start}
        alive = "FROM pg_stat_activity WHERE pid = :pid AND backend_start = :start AND pid <> pg_backend_pid()"
        connection.execute(sa.text(f"SELECT pg_terminate_backend(pid) {alive}"), session)
        deadline = time.monotonic() + TURN_TIMEOUT_MS / 1000
        while connection.execute(sa.text(f"SELECT pg_stat_clear_snapshot(), pid {alive}"), session).first():
            if time.monotonic() >= deadline:
                raise Timeout(
                    f"{self.label}: the session {state.session_pid} of an older run does not end.",
                    "End it and run the same command again.",
                )
            time.sleep(0.01)

    def prelude(self, move: Move, timeout_ms: int) -> int:
        deadline = time.monotonic() + timeout_ms / 1000
        state = self.retrying(lambda: self._look(move), timeout_ms, (), "prelude")
        if state.state == BARRED:
            return 0
        self._need_staged(state, move.from_id)
        # autovacuum gives way to the barrier's lock
        older = {
            transaction: row
            for transaction, row in self.writers(state.works).items()
            if row["backend"] != "autovacuum worker"
        }
        while older:
            if time.monotonic() >= deadline:
                raise self.culprits_error(state.works, "prelude", timeout_ms)
            time.sleep(0.01)
            older = {transaction: row for transaction, row in self.writers(state.works).items() if transaction in older}
        total = 0
        while True:
            applied = self.retrying(
                lambda: self.apply_log(move, state.scheme.twins), timeout_ms, state.works, "prelude"
            )
            total += applied
            if applied <= LEFT_FOR_THE_BARRIER:
                return total
            if time.monotonic() >= deadline:
                raise Timeout(
                    f"{self.label}: changes of tenant {move.from_id} come in faster than they are applied.",
                    "Run the same command again when the tenant is less busy.",
                )

    def _look(self, move: Move) -> State:
        with self.transaction() as connection:
            self.prologue(connection, move.migration)
            return self.owned_state(connection, move)

    def apply_log(self, move: Move, works: Sequence[Work]) -> int:
        """Apply all visible logged keys of *works* in one transaction at one snapshot, verified; returns their
        number.
        """
        with self.transaction(REPEATABLE_READ) as connection:
            self.prologue(connection, move.migration)
            self.exempt(connection, works)
            state = self.owned_state(connection, move)
            return self.apply(connection, state, works)

    def apply(self, connection: Connection, state: State, works: Sequence[Work]) -> int:
        """Apply and verify the live id's log inside the caller's transaction.

        The transaction must be REPEATABLE READ or hold the tables' locks: the keys are read three times.

        :raises Refused: twin and original differ afterwards.
        """
        if not works:
            return 0
        scheme, live = state.scheme, state.live_id
        other = scheme.ids["t" if live == scheme.ids["s"] else "s"]
        role = scheme.role(live)
        counts = execute(connection, scheme.pending(role, works)).one()
        todo = [work for work, count in zip(works, counts, strict=True) if count]
        if not todo:
            return 0
        execute(connection, KEY_LOOKUPS_ONLY)
        try:
            with connection.begin_nested():
                execute(connection, scheme.apply(live, other, todo))
        except sa.exc.IntegrityError as error:
            if getattr(error.orig, "sqlstate", "") != "23505":
                raise
            # rows have exchanged values of a secondary unique key: take all of them away before they are written again
            if self.abilities(connection)["session_replication_role"]:
                execute(connection, "SET LOCAL session_replication_role = replica")
            execute(connection, scheme.apply(live, other, todo, whole=True))
        differing = execute(connection, scheme.differing(live, other, todo)).one()
        wrong = [f"{work.name} ({count})" for work, count in zip(todo, differing, strict=True) if count]
        if wrong:
            raise Refused(
                f"{self.label}: rows under {live} and {other} differ after their keys were applied:"
                f" {', '.join(wrong)}.",
                "Look for triggers or rules that change rows while they are written; remove the stage and stage again.",
            )
        execute(connection, scheme.empty_log(role, todo))
        return sum(counts)

    def _need_staged(self, state: State, live_id: str) -> None:
        if state.state != STAGED:
            raise Refused(f"{self.label} is {state.state}, not staged.", "Stage the migration first.")
        if state.live_id != live_id:
            raise Refused(
                f"{self.label}: {state.live_id} is live, not {live_id}.",
                "Look at the status: this direction has been done already.",
            )

    def barrier(self, move: Move, timeout_ms: int) -> dict[str, Any]:
        tables: list[Work] = []

        def attempt() -> dict[str, Any]:
            with self.transaction() as connection:
                self.prologue(connection, move.migration, timeout_ms)
                state = self.owned_state(connection, move)
                tables[:] = state.works
                if state.state == BARRED and state.live_id == move.from_id:
                    return dict(state.progress["barrier"])
                self._need_staged(state, move.from_id)
                self.exempt(connection, state.works)
                return self._bar(connection, state, move)

        return self.retrying(attempt, timeout_ms, tables, "barrier")

    def _bar(self, connection: Connection, state: State, move: Move) -> dict[str, Any]:
        scheme = state.scheme
        begin = time.monotonic()
        execute(connection, scheme.lock())
        applied = self.apply(connection, state, scheme.twins)
        moved = self._move_rows(connection, state, move.from_id, move.to_id)
        role = scheme.role(move.from_id)
        self._flip(connection, state, BARRED, role)
        copied = sum(
            rows
            for name, rows in state.progress.get("rows", {}).items()
            if any(work.name == name for work in scheme.twins)
        )
        result = {
            "rows": moved + copied,
            "moved": moved,
            "applied": applied,
            "locked_ms": round((time.monotonic() - begin) * 1000),
        }
        self.write_state(connection, move, BARRED, move.from_id, {**state.progress, "barrier": result})
        return result

    def _move_rows(self, connection: Connection, state: State, from_id: str, to_id: str) -> int:
        if not state.scheme.in_place:
            return 0
        return int(execute(connection, state.scheme.move(from_id, to_id)).scalar_one())

    def _flip(self, connection: Connection, state: State, to_state: str, live: str) -> None:
        before = shifts(state.state, state.scheme.role(state.live_id))
        statements = state.scheme.flips(before, shifts(to_state, live))
        if statements:
            # triggers cannot be switched while checks of deferred constraints are waiting
            execute(connection, "; ".join(("SET CONSTRAINTS ALL IMMEDIATE", *statements)))

    def turn(self, move: Move) -> None:
        self._leave_barrier(move, move.to_id, "turn")

    def undo(self, move: Move) -> None:
        self._leave_barrier(move, move.from_id, "undo")

    def _leave_barrier(self, move: Move, live_id: str, doing: str) -> None:
        """From barred to staged with *live_id* live; nothing to do when it is so already."""

        tables: list[Work] = []

        def attempt() -> None:
            with self.transaction() as connection:
                self.prologue(connection, move.migration)
                state = self.owned_state(connection, move)
                tables[:] = state.works
                if state.state == BARRED and state.live_id == move.from_id:
                    self.exempt(connection, state.works)
                    self._end_barrier(connection, state, move, live_id)
                else:
                    self._need_staged(state, live_id)

        self.retrying(attempt, TURN_TIMEOUT_MS, tables, doing)

    def _end_barrier(self, connection: Connection, state: State, move: Move, live_id: str) -> None:
        scheme = state.scheme
        retired = move.from_id if live_id == move.to_id else move.to_id
        execute(connection, scheme.lock())
        if live_id == move.from_id:
            self._move_rows(connection, state, move.to_id, move.from_id)
        if scheme.twins:
            execute(connection, scheme.empty_log(scheme.role(retired), scheme.twins))
        self._flip(connection, state, STAGED, scheme.role(live_id))
        progress = {key: value for key, value in state.progress.items() if key != "barrier"}
        self.write_state(connection, move, STAGED, live_id, progress)
