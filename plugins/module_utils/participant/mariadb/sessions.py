# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sessions, locks and waiting of the MariaDB participant: who works for a migration, who is in the way, DDL that
yields.
"""

from __future__ import annotations

import hashlib
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.durations import format_ms
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, Refused, Timeout, ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import Move
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import (
    Database,
    execute,
    first_line,
    literal,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.sql import (
    BLOCKERS,
    LONG_TRANSACTIONS,
    SESSION,
    SQL_MODE,
    THREAD,
)

with suppress(ImportError):  # Database refuses to be built without it
    import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Connection

# error numbers of the MariaDB manual
LOCK_WAIT, DEADLOCK, STATEMENT_TIMEOUT = 1205, 1213, 1969
DUPLICATE, NO_SUCH_COLUMN, NO_SUCH_INDEX, NO_SUCH_TABLE = 1062, 1054, 1176, 1146
NO_SUCH_THREAD, NOT_THE_OWNER = 1094, 1095
LOGIN_REFUSED = ("(1045,", "(1698,")
RIGHT_MISSING, NO_SUPER = (1044, 1142, 1143, 1227, 1370), 1419

DDL_PAUSE_S = 0.01
"""Between two attempts to get a table for one DDL statement."""
DDL_FREE_S = 2.0
"""How long DDL tries without waiting before ``ddl_wait`` counts."""
WATCH_AFTER_S = 0.3


class Deadline:
    """Time that is left, in seconds; never negative."""

    def __init__(self, timeout_ms: int) -> None:
        self.timeout_ms = timeout_ms
        self._end = time.monotonic() + timeout_ms / 1000

    def left(self) -> float:
        return max(0.0, self._end - time.monotonic())


class MariaDBSessions(Database):
    """Connections of a MariaDB participant."""

    kind = "mariadb"
    driver = "PyMySQL"
    # the connection that has a migration's user lock, and the migration
    _held: tuple[Connection, str] | None = None

    def url(self) -> URL:
        options = self.options
        query = {"unix_socket": str(options["socket"])} if options.get("socket") else {}
        return sa.URL.create(
            "mysql+pymysql",
            username=options.get("user"),
            password=options.get("password"),
            host=None if query else options.get("host") or "127.0.0.1",
            port=None if query else int(options.get("port") or 3306),
            database=str(options["database"]),
            query={**query, "charset": "utf8mb4"},
        )

    def connect_args(self) -> dict[str, Any]:
        # at the login already: SQLAlchemy asks the first session whether names are quoted as ANSI has it
        arguments: dict[str, Any] = {"connect_timeout": 10, "sql_mode": SQL_MODE}
        ca_file = self.options.get("ca_file")
        if ca_file or self.options.get("ssl"):
            try:
                arguments["ssl"] = ssl.create_default_context(cafile=ca_file or None)
            except OSError as error:
                raise InputError(
                    f"{self.label}: the CA file {ca_file} cannot be read: {error.strerror}.", "Correct ca_file."
                ) from None
        return arguments

    def refused_login(self, message: str) -> bool:
        return message.startswith(LOGIN_REFUSED)

    def lacks_right(self, error: sa.exc.DBAPIError) -> bool:
        return number(error) in RIGHT_MISSING

    def translate(self, error: sa.exc.DBAPIError) -> ZdmError:
        if number(error) == NO_SUPER:
            return Refused(
                f"{self.label}: {first_line(error)}",
                "SET GLOBAL log_bin_trust_function_creators = 1; or grant SUPER for stage and abort.",
            )
        return super().translate(error)

    def quote(self, *names: str) -> str:
        # our statements run without parameters, so a percent sign must not be doubled as SQLAlchemy does for this
        # driver
        return ".".join("`" + name.replace("`", "``") + "`" for name in names)

    def open(self) -> Connection:
        connection = super().open()
        with self.translated():
            connection.execution_options(isolation_level="READ COMMITTED")
            served_by = self._scalar(connection, THREAD)
            if served_by == self.thread_id(connection):
                for statement in SESSION:
                    execute(connection, statement)
                connection.commit()
                return connection
        connection.close()
        raise Refused(
            f"{self.label}: a proxy (ProxySQL or MaxScale, for example) changes sessions between transactions, or may.",
            "Give host and port of the server itself.",
        )

    def thread_id(self, connection: Connection) -> int:
        return int(connection.connection.driver_connection.thread_id())  # type: ignore[union-attr]

    # -- one session per migration ----------------------------------------------------------------

    @contextmanager
    def only_session(self, move: Move, stored_epoch: int, deadline: Deadline) -> Iterator[None]:
        """Hold the migration's user lock, which names its one working session, while a verb runs; it may hold it
        already.

        A session that holds it for an older controller is ended (a user may end its own threads without a further
        right).

        :raises Timeout: another session of the same epoch is at work.
        """
        name = literal(lock_name(str(self.options["database"]), move.migration))
        connection = self.connection()
        if self.holds(move.migration):
            yield
            return
        with self.translated():
            while not self._scalar(connection, f"SELECT GET_LOCK({name}, {min(0.2, deadline.left()):.3f})"):
                holder = self._scalar(connection, f"SELECT IS_USED_LOCK({name})")
                if holder and move.epoch > stored_epoch:
                    self._kill(connection, int(holder))
                elif holder and not deadline.left():
                    raise Timeout(
                        f"{self.label}: thread {holder} works for migration {move.migration} under the same epoch.",
                        "Wait until that run has ended, or end it.",
                        blocker={"thread": int(holder)},
                    )
        self._held = (connection, move.migration)
        try:
            yield
        finally:
            self._held = None
            if self._connection is connection and not connection.invalidated:
                with self.translated():
                    self._scalar(connection, f"SELECT RELEASE_LOCK({name})")

    def holds(self, migration: str) -> bool:
        """Whether this session is the migration's working one."""
        held = self._held
        return bool(held) and held == (self._connection, migration) and not held[0].invalidated

    @staticmethod
    def _scalar(connection: Connection, query: str) -> Any:
        value = execute(connection, query).scalar()
        connection.rollback()
        return value

    def _kill(self, connection: Connection, thread: int) -> None:
        try:
            execute(connection, f"KILL CONNECTION {thread}")
        except sa.exc.DBAPIError as error:
            if number(error) == NOT_THE_OWNER:
                raise Refused(
                    f"{self.label}: thread {thread} of an older controller belongs to another user and may not be"
                    " ended.",
                    f"End it: KILL {thread}; or use the same user for every run.",
                ) from None
            if number(error) != NO_SUCH_THREAD:
                raise
        finally:
            connection.rollback()

    # -- waiting ----------------------------------------------------------------------------------

    @contextmanager
    def watch(self, connection: Connection) -> Iterator[list[dict[str, Any]]]:
        """While the block runs, a second session notes who makes *connection* wait; the list holds the latest finding.

        The server shows lock waits only while they last, and *connection* is busy then.
        """
        found: list[dict[str, Any]] = []
        stop = threading.Event()
        thread = threading.Thread(target=self._look, args=(self.thread_id(connection), stop, found), daemon=True)
        thread.start()
        try:
            yield found
        finally:
            stop.set()
            thread.join()

    def _look(self, waiting: int, stop: threading.Event, found: list[dict[str, Any]]) -> None:
        if stop.wait(WATCH_AFTER_S):
            return
        try:
            with self.open() as connection:
                while True:
                    seen = self.transactions(connection, BLOCKERS.format(thread=waiting))
                    if seen:
                        found[:] = seen
                    connection.rollback()
                    # InnoDB makes these tables anew only when nobody has read them for 0.1 s
                    if stop.wait(0.25):
                        return
        except (ZdmError, sa.exc.DBAPIError):
            return  # naming the culprit is a courtesy: without it the time-out's message stays general

    @staticmethod
    def transactions(connection: Connection, query: str) -> list[dict[str, Any]]:
        rows = execute(connection, query).all()
        return [
            {"thread": int(row[0]), "user": str(row[1]), "host": str(row[2]), "age_s": int(row[3] or 0)} for row in rows
        ]

    def blocked(self, what: str, deadline: Deadline, blockers: list[dict[str, Any]]) -> Timeout:
        """The error of a wait that was too long, naming the transactions in the way."""
        waited = f"{self.label}: {what} did not get its locks within {format_ms(deadline.timeout_ms)}"
        if not blockers:
            return Timeout(
                f"{waited}.",
                "Look for long transactions in information_schema.INNODB_TRX and end them, then run the command again.",
                blockers=[],
            )
        names = "; ".join(describe(entry) for entry in blockers[:3])
        return Timeout(
            f"{waited}: in the way is {names}.",
            f"Let it end, or end it: KILL {blockers[0]['thread']}; then run the command again.",
            blockers=blockers,
        )

    def ddl(self, statement: str, what: str, deadline: Deadline) -> None:
        """Run DDL in attempts that do not wait for the table.

        A statement that waits for the metadata lock makes every tenant queue behind it, and where that closes a circle
        the server takes the service's transaction for the victim, not the DDL. So waiting is the operator's choice
        (``ddl_wait``), and it begins when a while of attempts did not find the table free.
        """
        connection, begin = self.connection(), time.monotonic()
        wait_s = int(self.options.get("ddl_wait_ms") or 0) / 1000
        with self.translated():
            execute(connection, "SET SESSION lock_wait_timeout = 0")
            connection.commit()
            try:
                while not self._attempt(connection, statement):
                    if not deadline.left():
                        with self.open() as other:
                            raise self._starved(what, deadline, self.transactions(other, LONG_TRANSACTIONS))
                    if wait_s and time.monotonic() - begin > DDL_FREE_S:
                        execute(connection, "SET SESSION lock_wait_timeout = 1")
                        statement, wait_s = f"SET STATEMENT max_statement_time = {wait_s:.3f} FOR {statement}", 0
                    time.sleep(min(DDL_PAUSE_S, deadline.left()))
            finally:
                if not connection.invalidated:
                    execute(connection, "SET SESSION lock_wait_timeout = 1")
                    connection.commit()

    def _starved(self, what: str, deadline: Deadline, blockers: list[dict[str, Any]]) -> Timeout:
        """The error of DDL that never found its table free."""
        error = self.blocked(what, deadline, blockers)
        if any(entry["age_s"] > 1 for entry in blockers) or self.options.get("ddl_wait_ms"):
            return error
        advice = (
            "Its table is in use at every moment: stage at a quieter time, or allow short waits, for example ddl_wait:"
            " 50ms of this participant."
        )
        return Timeout(error.message, advice, **error.details)

    @staticmethod
    def _attempt(connection: Connection, statement: str) -> bool:
        try:
            execute(connection, statement)
            connection.commit()
            return True
        except sa.exc.DBAPIError as error:
            if number(error) not in (LOCK_WAIT, DEADLOCK, STATEMENT_TIMEOUT):
                raise
            connection.rollback()
            return False


def lock_name(database: str, migration: str) -> str:
    """The migration's user lock. User locks belong to the whole server, and their names are 64 characters at most: a
    digest of all of it.
    """
    return f"zdm_{hashlib.sha256(f'{database}/{migration}'.encode()).hexdigest()[:40]}"


def number(error: sa.exc.DBAPIError) -> int:
    """The server's error number; 0 when the driver gave none."""
    first = error.orig.args[0] if error.orig is not None and error.orig.args else 0
    return first if isinstance(first, int) else 0


def describe(transaction: dict[str, Any]) -> str:
    """A transaction in words, without its statement, which may hold data."""
    who = (
        f" of {transaction['user']}@{transaction['host']}"
        if transaction["user"]
        else " without a session (a prepared XA transaction?)"
    )
    return f"thread {transaction['thread']}{who}, in a transaction for {transaction['age_s']} s"
