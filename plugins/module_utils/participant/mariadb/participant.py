# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MariaDB as a participant, with the strategies ``twin`` and ``in_place``; each step of the window is one InnoDB
transaction.

DDL commits by itself, so the fence triggers are made by stage and never touched in a window. What opens and closes is
one row per id in ``zdm_fence_<hash>``, which the triggers read with a locking read: a writer of the id holds a shared
lock on it until its transaction ends, so who holds it exclusively has waited out every such writer, and a writer with
an old snapshot still sees what is closed now. The worker holds both rows exclusively while it applies the last logged
keys, so no table is locked and no other tenant waits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from ansible_collections.zdm.landscape.plugins.module_utils.core.names import short_hash
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import STAGED, STAGING, Move, Progress
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute, literal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb import sql
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.sessions import (
    DEADLOCK,
    LOCK_WAIT,
    STATEMENT_TIMEOUT,
    Deadline,
    number,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.twin import LOG_BATCH, MariaDBTwins
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import State, state_name, write_state

with suppress(ImportError):  # Database refuses to be built without it
    import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

DDL_TIMEOUT_MS = 30_000
"""How long (milliseconds) stage and remove try to get a table for one trigger."""

T = TypeVar("T")


class MariaDB(MariaDBTwins):
    """A MariaDB database; for *options* see :class:`Database`."""

    # -- one transaction --------------------------------------------------------------------------

    def in_window(self, move: Move, timeout_ms: int, work: Callable[[Connection, State], T]) -> T:
        deadline = Deadline(timeout_ms)
        with self.transaction() as connection:
            stored = self.staged_state(connection, move)
        with self.only_session(move, stored.epoch, deadline), self.watch(self.connection()) as blockers:
            return self._retrying(move, deadline, work, blockers)

    def _retrying(
        self, move: Move, deadline: Deadline, work: Callable[[Connection, State], T], blockers: list[dict[str, Any]]
    ) -> T:
        with self.translated():
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
        """Run a locking SELECT, bounded by the verb's time-out to the millisecond (InnoDB's own one counts in
        seconds).
        """
        limit = f"max_statement_time = {max(self._deadline.left(), 0.05):.3f}, innodb_lock_wait_timeout = 3600"
        execute(connection, f"SET STATEMENT {limit} FOR {statement}").all()

    def exclude_writers(self, connection: Connection, state: State) -> None:
        self._lock(connection, sql.lock_fences(self.quote(sql.fence_name(state.migration))))

    def exempt(self, connection: Connection, state: State) -> None:
        execute(
            connection, f"SET {sql.worker_variable(state.migration)} = {literal(sql.worker_token(state.migration))}"
        )

    def set_fences(self, connection: Connection, state: State, fenced: Iterable[str]) -> None:
        execute(connection, sql.fence_rows(self.quote(sql.fence_name(state.migration)), fenced))

    # -- catalog ----------------------------------------------------------------------------------

    def _triggers(self, connection: Connection, migration: str) -> dict[str, sql.Trigger]:
        """The migration's triggers that exist."""
        prefix = f"zdm_{short_hash(migration)}_"
        return {
            row[0]: sql.Trigger(*map(str, row))
            for row in execute(connection, sql.TRIGGERS)
            if row[0].startswith(prefix)
        }

    def _wanted(self, state: State) -> dict[str, sql.Trigger]:
        """The logging triggers come first: a log whose fence is missing is harmless."""
        logging = {name: trigger for twin in self.twins(state) for name, trigger in twin.triggers().items()}
        return logging | sql.triggers(state.migration, state.source_id, state.target_id, state.tables, self.quote)

    def fenced(self, connection: Connection, state: State) -> tuple[str, ...]:
        there = self._triggers(connection, state.migration)
        if any(there.get(name) != trigger for name, trigger in self._wanted(state).items()):
            return ()
        fence = sql.fence_name(state.migration)
        if fence not in self._own_tables(connection, state.migration):
            return ()
        return tuple(execute(connection, f"SELECT id FROM {self.quote(fence)} WHERE closed ORDER BY id").scalars())

    def _own_tables(self, connection: Connection, migration: str) -> list[str]:
        """The migration's helper tables that exist; the state row's is the last one to go."""
        name = short_hash(migration)
        own = re.compile(f"zdm_(migration|fence)_{name}|zdm_log_{name}_[st]_[0-9]+")
        return sorted(
            (row[0] for row in execute(connection, sql.TABLES) if own.fullmatch(row[0])),
            key=lambda table: (table == state_name(migration), table),
        )

    def leftovers(self, connection: Connection, migration: str) -> tuple[str, ...]:
        return (*self._own_tables(connection, migration), *sorted(self._triggers(connection, migration)))

    # -- stage and remove -------------------------------------------------------------------------

    def install(self, move: Move, state: State, progress: Progress) -> int:
        deadline = Deadline(DDL_TIMEOUT_MS)
        name = self.quote(state_name(move.migration))
        self.ddl(sql.create_state(name), name, deadline)
        for table, statement in self._create_helpers(state).items():
            self.ddl(statement, table, deadline)
        with self.transaction() as connection:
            stored = self.state(connection, move.migration, lock=True)
            if stored is None:
                write_state(connection, replace(state, state=STAGING), insert=True)
            elif stored.state == STAGING:
                self.check_epoch(stored, move)
                write_state(connection, replace(state, state=STAGING))
        with self.only_session(move, stored.epoch if stored else move.epoch, deadline):
            return self._install(move, state, stored is None or stored.state == STAGING, progress)

    def _create_helpers(self, state: State) -> dict[str, str]:
        """Statement by the helper table's name, the state's left out."""
        fence = sql.fence_name(state.migration)
        logs = {name: statement for twin in self.twins(state) for name, statement in twin.create_logs().items()}
        return {fence: sql.create_fence(self.quote(fence)), **logs}

    def _install(self, move: Move, state: State, fill: bool, progress: Progress) -> int:
        fence, copied = self.quote(sql.fence_name(move.migration)), 0
        with self.transaction() as connection:
            there = self._triggers(connection, move.migration)
            for tenant in (move.from_id, move.to_id):
                execute(connection, sql.fence_row(fence, tenant, tenant == move.to_id))
        self._make_triggers(state, there, progress)
        if fill:
            copied, state = self.fill(move, state, progress)
        else:
            # during a transition the log grows for weeks: what is applied here no window has to apply
            self.follow_while_served(move)
        with self.transaction() as connection:
            self.staged_state(connection, move, lock=True)
            write_state(connection, replace(state, state=STAGED))
        return copied

    def in_stage(self, move: Move, work: Callable[[Connection, State], T]) -> T:
        def as_worker(connection: Connection, state: State) -> T:
            self.exempt(connection, state)
            return work(connection, state)

        return self._retrying(move, Deadline(DDL_TIMEOUT_MS), as_worker, [])

    def _make_triggers(self, state: State, there: dict[str, sql.Trigger], progress: Progress) -> None:
        wanted = self._wanted(state)
        for name, trigger in there.items():
            if wanted.get(name) != trigger:
                self.ddl(
                    f"DROP TRIGGER IF EXISTS {self.quote(name)}",
                    f"trigger {name} on {trigger.table}",
                    Deadline(DDL_TIMEOUT_MS),
                )
        for done, (name, trigger) in enumerate(wanted.items(), 1):
            if there.get(name) != trigger:
                self.ddl(trigger.create(self.quote), f"trigger {name} on {trigger.table}", Deadline(DDL_TIMEOUT_MS))
            progress(
                {"participant": self.name, "table": trigger.table, "step": "fence", "done": done, "of": len(wanted)}
            )

    def uninstall(self, move: Move, progress: Progress) -> int:
        with self.transaction() as connection:
            left = self.leftovers(connection, move.migration)
            there = self._triggers(connection, move.migration)
            state = self.state(connection, move.migration)
        if not left:
            return 0
        removed = 0
        with self.only_session(move, state.epoch if state else 0, Deadline(DDL_TIMEOUT_MS)):
            if state:
                removed = self._retire(move, progress)
            for name, trigger in there.items():
                self.ddl(
                    f"DROP TRIGGER IF EXISTS {self.quote(name)}",
                    f"trigger {name} on {trigger.table}",
                    Deadline(DDL_TIMEOUT_MS),
                )
            # the triggers first: without the fence table each of their tables would refuse every tenant's writes
            for table in left[: len(left) - len(there)]:
                self.ddl(f"DROP TABLE IF EXISTS {self.quote(table)}", f"table {table}", Deadline(DDL_TIMEOUT_MS))
        return removed

    def _retire(self, move: Move, progress: Progress) -> int:
        """No window can begin any more and a new stage would start from the first row; then the twins go."""
        with self.transaction() as connection:
            state = self.staged_state(connection, move, lock=True)
            kept = {key: value for key, value in state.progress.items() if key in ("copying", "rows")}
            state = replace(state, state=STAGING, epoch=move.epoch, progress=kept)
            write_state(connection, state)
        return self.purge(move, state, progress)

    def statements(self, state: State, updates: list[str]) -> tuple[str, ...]:
        fence = self.quote(sql.fence_name(state.migration))
        both = (state.source_id, state.target_id)
        twins = self.twins(state)
        worker = f"SET {sql.worker_variable(state.migration)} = {literal(sql.worker_token(state.migration))}"
        last = [statement for twin in twins for statement in (*twin.take(LOG_BATCH), *twin.apply(), twin.differing())]
        return (
            sql.create_state(self.quote(state_name(state.migration))),
            *self._create_helpers(state).values(),
            *(sql.fence_row(fence, tenant, tenant == state.other_id) for tenant in both),
            *(trigger.create(self.quote) for trigger in self._wanted(state).values()),
            *([worker] if twins else []),
            *(twin.chunk(None, None) for twin in twins),
            *(statement for twin in twins for statement in twin.compare()),
            "START TRANSACTION",
            sql.lock_fences(fence),
            worker,
            *last,
            *updates,
            sql.fence_rows(fence, both),
            "COMMIT",
        )
