# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MariaDB as a participant, with the strategies ``twin`` and ``in_place``; each step of the window is an InnoDB
transaction.

DDL commits by itself, so the triggers are made by stage and never touched in a window. What opens and closes is one row
per id in ``zdm_fence_<hash>``, which the triggers read with a locking read: a writer of the id holds a shared lock on
it until its transaction ends, so who holds it exclusively has waited out every such writer, and a writer with an old
snapshot still sees what is closed now. The worker holds both rows exclusively while it applies the last logged keys, so
no table is locked and no other tenant waits. An UPDATE that finds nothing keeps changes of the tables out meanwhile:
its metadata lock lasts until the transaction ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import Move, Progress
from ansible_collections.zdm.landscape.plugins.module_utils.participant.copying import LOG_BATCH
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute, literal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb import sql
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.arming import (
    DDL_TIMEOUT_MS,
    MariaDBArming,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.sessions import (
    DEADLOCK,
    LOCK_WAIT,
    NO_SUCH_COLUMN,
    NO_SUCH_TABLE,
    STATEMENT_TIMEOUT,
    Deadline,
    number,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.triggers import (
    SIDES,
    Triggers,
    create_log,
    create_note,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.twin_sql import Range
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import State, state_name

with suppress(ImportError):  # Database refuses to be built without it
    import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

T = TypeVar("T")


class MariaDB(MariaDBArming):
    """A MariaDB database; for *options* see :class:`Database`, and:

    :param options: ``ddl_wait_ms``, ``definer_role``, ``user_rotates``.
    """

    # -- one transaction --------------------------------------------------------------------------

    @contextmanager
    def working(self, move: Move, state: State | None) -> Iterator[None]:
        with self.only_session(move, state.epoch if state else move.epoch, Deadline(DDL_TIMEOUT_MS)):
            yield

    def in_window(
        self, move: Move, timeout_ms: int, work: Callable[[Connection, State], T], *, snapshot: bool = False
    ) -> T:
        del snapshot  # every statement reads one state of the database by itself, and that is enough here
        deadline, epoch = Deadline(timeout_ms), move.epoch
        if not self.holds(move.migration):
            with self.transaction() as connection:
                epoch = self.staged_state(connection, move).epoch
        with self.only_session(move, epoch, deadline), self.watch(self.connection()) as blockers:
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
        """Run a statement that waits for locks, bounded by the verb's time-out to the millisecond (InnoDB's own one
        counts in seconds).
        """
        limit = f"max_statement_time = {max(self._deadline.left(), 0.05):.3f}, innodb_lock_wait_timeout = 3600"
        execute(connection, f"SET STATEMENT {limit} FOR {statement}")

    def exclude_writers(self, connection: Connection, state: State) -> None:
        for table in state.tables:
            try:
                self._lock(connection, self.hold(table))
            except sa.exc.DBAPIError as error:
                # the look at the catalog, which follows, says what has become of it
                if number(error) not in (NO_SUCH_TABLE, NO_SUCH_COLUMN):
                    raise
        self._lock(connection, sql.lock_fences(self.quote(sql.fence_name(state.migration))))

    def await_writers(self, move: Move, state: State, timeout_ms: int) -> None:
        """Writers of the live id that come meanwhile wait too: its requests are held, and else only late jobs write."""
        fence = sql.lock_fences(self.quote(sql.fence_name(state.migration)), state.live_id)
        self.in_window(move, timeout_ms, lambda connection, _state: self._lock(connection, fence))

    def exempt(self, connection: Connection, state: State) -> None:
        execute(
            connection, f"SET {sql.worker_variable(state.migration)} = {literal(sql.worker_token(state.migration))}"
        )

    def set_fences(self, connection: Connection, state: State, fenced: Iterable[str]) -> None:
        """Only rows that change are locked: a late writer that was refused holds the other one while its transaction
        lasts.
        """
        name, closed = self.quote(sql.fence_name(state.migration)), set(fenced)
        rows = execute(connection, f"SELECT id, closed FROM {name}").all()
        now = {str(row[0]): bool(row[1]) for row in rows}
        for tenant in (state.source_id, state.target_id):
            if now.get(tenant) != (tenant in closed):
                statement = sql.close_fence if tenant in now else sql.fence_row
                execute(connection, statement(name, tenant, tenant in closed))

    def server_time_s(self, connection: Connection) -> int:
        return int(execute(connection, "SELECT UNIX_TIMESTAMP()").scalar_one())

    # -- remove -----------------------------------------------------------------------------------

    def drop_helpers(self, move: Move, state: State | None, progress: Progress) -> None:
        del state, progress
        with self.transaction() as connection:
            triggers, routines, tables = self.helpers(connection, move.migration)
        # the triggers first: without the fence table each of their tables would refuse every tenant's writes
        for name, table in triggers.items():
            self.drop_trigger(name, table)
        for name in routines:
            self.ddl(f"DROP PROCEDURE IF EXISTS {self.quote(name)}", f"procedure {name}", Deadline(DDL_TIMEOUT_MS))
        for name in tables:
            self.ddl(f"DROP TABLE IF EXISTS {self.quote(name)}", f"table {name}", Deadline(DDL_TIMEOUT_MS))

    # -- for a DBA to sign ------------------------------------------------------------------------

    def statements(self, connection: Connection, state: State, updates: list[str]) -> tuple[str, ...]:
        fence = self.quote(sql.fence_name(state.migration))
        both = (state.source_id, state.target_id)
        twins = self.twins(state)
        worker = f"SET {sql.worker_variable(state.migration)} = {literal(sql.worker_token(state.migration))}"
        every = Range(None, None)
        apply = [
            statement
            for twin in twins
            for statement in (*twin.make_taken(), twin.take(LOG_BATCH), *twin.apply(), twin.applied_wrong())
        ]
        return (
            "-- stage",
            sql.create_state(self.quote(state_name(state.migration))),
            sql.create_fence(fence),
            *([sql.create_kept(self.quote(sql.kept_name(state.migration)))] if twins else []),
            *(sql.fence_row(fence, tenant, tenant == state.other_id) for tenant in both),
            *self._definitions(connection, state),
            *([worker] if twins or state.roots else []),
            *(self.root_insert(table, state) for table in state.roots),
            *(twin.chunk(every, present=False) for twin in twins),
            *(twin.compare(every) for twin in twins),
            *apply,
            "-- window: barrier, first transaction",
            "START TRANSACTION",
            *map(self.hold, state.tables),
            sql.lock_fences(fence),
            worker,
            *apply,
            *(self.root_update(table, state) for table in state.roots if table.copied),
            *(sql.close_fence(fence, tenant, True) for tenant in both),
            "COMMIT",
            *(("-- window: barrier, second transaction", "START TRANSACTION", *updates, "COMMIT") if updates else ()),
            "-- window: turn",
            sql.close_fence(fence, state.target_id, False),
        )

    def _definitions(self, connection: Connection, state: State) -> Iterator[str]:
        role, statements = self.role(connection), self.role_statements(connection)
        account = execute(connection, "SELECT CURRENT_USER()").scalar()
        if role:
            yield f"SET ROLE {self.quote(role)}"
        else:
            yield f"-- triggers run as {account}: without it all writes to these tables fail; else let a DBA run first:"
            yield from (f"-- {statement}" for statement in statements)
        clause = "DEFINER=CURRENT_ROLE " if role else ""
        for table in state.twins:
            for side in SIDES:
                yield create_log(state, table, self.quote, side)
                yield create_note(state, table, self.quote, side, clause)
        for table in state.tables:
            for trigger in Triggers(state, self.quote).of(table).values():
                yield trigger.create(self.quote, clause)
