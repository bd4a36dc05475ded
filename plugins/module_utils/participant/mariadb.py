# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MariaDB as a participant: rows change id in place, in one InnoDB transaction.

DDL commits by itself, so the fence triggers are made by stage and never touched in a window. What opens and closes is one
row per id in ``zdm_fence_<hash>``, which the triggers read with a locking read: a writer of the id holds a shared lock on it
until its transaction ends, so who holds it exclusively has waited out every such writer, and a writer with an old snapshot
still sees what is closed now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from ansible_collections.zdm.landscape.plugins.module_utils.names import short_hash
from ansible_collections.zdm.landscape.plugins.module_utils.participant import mariadb_sql as sql
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import STAGED, STAGING, Move, Progress
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute, literal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.in_place_state import State, state_name, write_state
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb_inspect import MariaDBInspection
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb_sessions import DEADLOCK, LOCK_WAIT, STATEMENT_TIMEOUT, Deadline, number

with suppress(ImportError):  # Database refuses to be built without it
    import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

DDL_TIMEOUT_MS = 30_000
"""How long (milliseconds) stage and remove try to get a table for one trigger."""

T = TypeVar("T")


class MariaDB(MariaDBInspection):
    """A MariaDB database; for *options* see :class:`Database`."""

    # -- one transaction --------------------------------------------------------------------------

    def in_window(self, move: Move, timeout_ms: int, work: Callable[[Connection, State], T]) -> T:
        deadline = Deadline(timeout_ms)
        with self.transaction() as connection:
            stored = self.staged_state(connection, move)
        with self.only_session(move, stored.epoch, deadline), self.translated(), self.watch(self.connection()) as blockers:
            while True:
                try:
                    return self._once(move, deadline, work)
                except sa.exc.DBAPIError as error:
                    if number(error) not in (LOCK_WAIT, DEADLOCK, STATEMENT_TIMEOUT):
                        raise
                    if not deadline.left():
                        raise self.blocked(f"migration {move.migration}", deadline, blockers) from None

    def _once(self, move: Move, deadline: Deadline, work: Callable[[Connection, State], T]) -> T:
        connection = self.connection()
        self._deadline = deadline
        with connection.begin():
            self._lock(connection, sql.lock_state(self.quote(state_name(move.migration))))
            return work(connection, self.staged_state(connection, move))

    def _lock(self, connection: Connection, statement: str) -> None:
        """Run a locking SELECT, bounded by the verb's time-out to the millisecond (InnoDB's own one counts in seconds)."""
        limit = f"max_statement_time = {max(self._deadline.left(), 0.05):.3f}, innodb_lock_wait_timeout = 3600"
        execute(connection, f"SET STATEMENT {limit} FOR {statement}").all()

    def exclude_writers(self, connection: Connection, state: State) -> None:
        self._lock(connection, sql.lock_fences(self.quote(sql.fence_name(state.migration))))

    def exempt(self, connection: Connection, state: State) -> None:
        execute(connection, f"SET {sql.worker_variable(state.migration)} = {literal(sql.worker_token(state.migration))}")

    def set_fences(self, connection: Connection, state: State, fenced: Iterable[str]) -> None:
        execute(connection, sql.fence_rows(self.quote(sql.fence_name(state.migration)), fenced))

    # -- catalog ----------------------------------------------------------------------------------

    def _triggers(self, connection: Connection, migration: str) -> dict[str, sql.Trigger]:
        """The migration's triggers that exist."""
        prefix = f"zdm_{short_hash(migration)}_"
        return {row[0]: sql.Trigger(*map(str, row)) for row in execute(connection, sql.TRIGGERS) if row[0].startswith(prefix)}

    def _wanted(self, state: State) -> dict[str, sql.Trigger]:
        return sql.triggers(state.migration, state.source_id, state.target_id, state.tables, self.quote)

    def fenced(self, connection: Connection, state: State) -> tuple[str, ...]:
        there = self._triggers(connection, state.migration)
        if any(there.get(name) != trigger for name, trigger in self._wanted(state).items()):
            return ()
        fence = sql.fence_name(state.migration)
        if fence not in self.leftovers(connection, state.migration):
            return ()
        return tuple(execute(connection, f"SELECT id FROM {self.quote(fence)} WHERE closed ORDER BY id").scalars())

    def leftovers(self, connection: Connection, migration: str) -> tuple[str, ...]:
        own = {state_name(migration), sql.fence_name(migration)}
        tables = {row[0] for row in execute(connection, sql.TABLES)} & own
        return (*sorted(tables), *sorted(self._triggers(connection, migration)))

    # -- stage and remove -------------------------------------------------------------------------

    def install(self, move: Move, state: State, progress: Progress) -> None:
        deadline = Deadline(DDL_TIMEOUT_MS)
        name, fence = self.quote(state_name(move.migration)), self.quote(sql.fence_name(move.migration))
        self.ddl(sql.create_state(name), name, deadline)
        self.ddl(sql.create_fence(fence), fence, deadline)
        with self.transaction() as connection:
            stored = self.state(connection, move.migration, lock=True)
            if stored is None:
                write_state(connection, replace(state, state=STAGING), insert=True)
            elif stored.state == STAGING:
                self.check_epoch(stored, move)
                write_state(connection, replace(state, state=STAGING))
        with self.only_session(move, stored.epoch if stored else move.epoch, deadline):
            with self.transaction() as connection:
                there = self._triggers(connection, move.migration)
                for tenant in (move.from_id, move.to_id):
                    execute(connection, sql.fence_row(fence, tenant, tenant == move.to_id))
            self._make_triggers(state, there, progress)
            with self.transaction() as connection:
                self.staged_state(connection, move, lock=True)
                write_state(connection, replace(state, state=STAGED))

    def _make_triggers(self, state: State, there: dict[str, sql.Trigger], progress: Progress) -> None:
        wanted = self._wanted(state)
        for name, trigger in there.items():
            if wanted.get(name) != trigger:
                self.ddl(f"DROP TRIGGER IF EXISTS {self.quote(name)}", f"trigger {name} on {trigger.table}", Deadline(DDL_TIMEOUT_MS))
        for done, (name, trigger) in enumerate(wanted.items(), 1):
            if there.get(name) != trigger:
                self.ddl(trigger.create(self.quote), f"trigger {name} on {trigger.table}", Deadline(DDL_TIMEOUT_MS))
            progress({"participant": self.name, "table": trigger.table, "step": "fence", "done": done, "of": len(wanted)})

    def uninstall(self, move: Move) -> None:
        with self.transaction() as connection:
            left = self.leftovers(connection, move.migration)
            there = self._triggers(connection, move.migration)
            state = self.state(connection, move.migration)
        if not left:
            return
        with self.only_session(move, state.epoch if state else 0, Deadline(DDL_TIMEOUT_MS)):
            if state:
                with self.transaction() as connection:
                    write_state(connection, replace(self.staged_state(connection, move, lock=True), state=STAGING, epoch=move.epoch))
            for name, trigger in there.items():
                self.ddl(f"DROP TRIGGER IF EXISTS {self.quote(name)}", f"trigger {name} on {trigger.table}", Deadline(DDL_TIMEOUT_MS))
            # the triggers first: without the fence table each of their tables would refuse every tenant's writes
            for table in (sql.fence_name(move.migration), state_name(move.migration)):
                self.ddl(f"DROP TABLE IF EXISTS {self.quote(table)}", f"table {table}", Deadline(DDL_TIMEOUT_MS))

    def statements(self, state: State, updates: list[str]) -> tuple[str, ...]:
        name, fence = self.quote(state_name(state.migration)), self.quote(sql.fence_name(state.migration))
        both = (state.source_id, state.target_id)
        return (
            sql.create_state(name),
            sql.create_fence(fence),
            *(sql.fence_row(fence, tenant, tenant == state.other_id) for tenant in both),
            *(trigger.create(self.quote) for trigger in self._wanted(state).values()),
            "START TRANSACTION",
            sql.lock_fences(fence),
            f"SET {sql.worker_variable(state.migration)} = {literal(sql.worker_token(state.migration))}",
            *updates,
            sql.fence_rows(fence, both),
            "COMMIT",
        )
