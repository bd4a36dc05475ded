# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sessions with PostgreSQL: connecting, time-outs, one working session per migration, retries behind other sessions'
locks.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import (
    MissingRight,
    Timeout,
    Unreachable,
    ZdmError,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import (
    Database,
    execute,
    first_line,
    literal,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import TableFacts
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.partitions import tree
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.settings import (
    behind_a_pooler,
    configure,
    refuse_pooler,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.sql import Work, quote

with suppress(ImportError):
    import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Connection

T = TypeVar("T")

LOCK_TIMEOUT_MS = 200
"""A lock that we wait for queues every later writer of all tenants behind us: give up soon and try again."""
DEADLOCK_TIMEOUT_MS = 10
"""Autovacuum yields after this time; longer than the lock time-out and it never does."""
PATIENCE = 5
LONG_LOCK_TIMEOUT_MS = 1300
"""A user who may not set ``deadlock_timeout`` (1 s) must, after some short attempts, wait longer than it for autovacuum
to yield.
"""
IDLE_TIMEOUT_MS = 2000
"""A paused controller's transaction ends after this, and its locks with it."""
REPEATABLE_READ = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
READ_ONLY = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"

_REFERENCES = """
SELECT n.nspname, c.relname, k.conname, p.nspname, r.relname FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
 JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_class r ON r.oid = k.confrelid
 JOIN pg_namespace p ON p.oid = r.relnamespace WHERE k.contype = 'f'"""
_CONTENTION = {"55P03", "40P01", "40001"}  # lock_not_available, deadlock_detected, serialization_failure


class Contended(Timeout):
    """Another session is in the way; trying again may help."""


class PostgreSQLSession(Database):
    """Everything about sessions; the verbs are in the subclass."""

    kind = "postgresql"
    knows_replica_lag = True
    driver = "psycopg[binary]"
    foreign_key_options: ClassVar[Mapping[str, Any]] = {"postgresql_ignore_search_path": True}

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._may: dict[str, bool] = {}
        self.default_schema = "public"
        self._lock_timeout_ms = LOCK_TIMEOUT_MS

    def table_sql(self, name: str) -> str:
        """A table by its name for an operator, quoted."""
        schema, _dot, relation = name.rpartition(".")
        return quote(schema or self.default_schema, relation)

    def reflect(self, connection: Connection, schemas: Sequence[str | None] = (None,)) -> dict[str, TableFacts]:
        # SQLAlchemy takes a key to a table of the default schema for one to a table of the child's own schema
        referred = {
            (self.display_name(row[0], row[1]), row[2]): self.display_name(row[3], row[4])
            for row in execute(connection, _REFERENCES)
        }
        return {
            name: replace(
                table,
                foreign_keys=tuple(
                    replace(key, table=referred.get((name, key.name), key.table)) for key in table.foreign_keys
                ),
            )
            for name, table in super().reflect(connection, schemas).items()
        }

    # -- connecting -------------------------------------------------------------------------------

    def url(self) -> URL:
        host, port, socket = self.options.get("host"), self.options.get("port"), self.options.get("socket")
        if socket:
            host = str(socket)
            folder, _slash, last = host.rpartition("/")
            if last.startswith(".s.PGSQL."):
                host, port = folder, int(last.rpartition(".")[2])
        query = {"host": host} if socket and host else {}
        return sa.URL.create(
            "postgresql+psycopg",
            username=self.options.get("user"),
            password=self.options.get("password"),
            host=None if socket else host,
            port=int(port) if port else None,
            database=self.options["database"],
            query=query,
        )

    def connect_args(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "application_name": "zdm.landscape",
            "connect_timeout": 5,
            "client_encoding": "UTF8",
            "prepare_threshold": None,
        }
        if self.options.get("ca_file"):
            arguments |= {"sslmode": "verify-full", "sslrootcert": os.fspath(self.options["ca_file"])}
        elif self.options.get("ssl"):
            arguments["sslmode"] = "require"
        return arguments

    def open(self) -> Connection:
        connection = super().open()
        try:
            with self.translated():
                if behind_a_pooler(connection):
                    with super().open() as second:
                        refuse_pooler(connection, second, self.label)
                self.default_schema = configure(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def refused_login(self, message: str) -> bool:
        return any(
            words in message
            for words in ("authentication failed", "no password supplied", "is not permitted to log in")
        ) or ("role " in message and "does not exist" in message)

    def lacks_right(self, error: sa.exc.DBAPIError) -> bool:
        return getattr(error.orig, "sqlstate", "") == "42501" or "permission denied for database" in str(error.orig)

    def translate(self, error: sa.exc.DBAPIError) -> ZdmError:
        sqlstate = getattr(error.orig, "sqlstate", None) or ""
        if error.connection_invalidated or sqlstate in ("57P01", "25P03") or sqlstate.startswith("08"):
            return Unreachable(
                f"{self.label}: the connection broke: {first_line(error)}.", "Run the same command again."
            )
        if sqlstate in _CONTENTION:
            return Contended(
                f"{self.label}: {first_line(error)}.", "Run the same command again when the other session has ended."
            )
        if sqlstate == "57014":
            return Timeout(
                f"{self.label}: {first_line(error)}.", "Run the same command again when the database is less busy."
            )
        if sqlstate == "53100":
            return ZdmError(
                f"{self.label}: {first_line(error)}.",
                "Make room on the database's disk and run the same command again.",
            )
        return super().translate(error)

    def close(self) -> None:
        super().close()
        self._may = {}

    def may(self, connection: Connection) -> dict[str, bool]:
        """Settings that the user may change: ``session_replication_role``, ``deadlock_timeout``; asked once per
        connection.
        """
        if not self._may:
            names = ("session_replication_role", "deadlock_timeout")
            superuser = execute(connection, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user").scalar_one()
            granted = dict.fromkeys(names, bool(superuser))
            if not superuser and (connection.dialect.server_version_info or (0,)) >= (15,):
                checks = ", ".join(f"has_parameter_privilege('{name}', 'SET')" for name in names)
                granted = dict(zip(names, execute(connection, f"SELECT {checks}").one(), strict=True))
            self._may = granted
        return self._may

    # -- transactions -----------------------------------------------------------------------------

    def prologue(self, connection: Connection, migration: str) -> bool:
        """Settings of a worker's transaction, and the migration's advisory lock, which names its one working session.
        Returns whether it was free.
        """
        settings = {
            "zdm.worker": migration,
            "lock_timeout": f"{self._lock_timeout_ms}ms",
            "idle_in_transaction_session_timeout": f"{IDLE_TIMEOUT_MS}ms",
            "row_security": "off",
        }
        if self.may(connection)["deadlock_timeout"]:
            settings["deadlock_timeout"] = f"{DEADLOCK_TIMEOUT_MS}ms"
        set_all = ", ".join(f"set_config('{name}', {literal(value)}, true)" for name, value in settings.items())
        taken = execute(connection, f"SELECT pg_try_advisory_xact_lock({lock_key(migration)}), {set_all}").one()
        return bool(taken[0])

    def end_holder(self, migration: str) -> str:
        """End the session that holds the migration's advisory lock: an older controller's. Returns who that is; one of
        another user may not be ended, but loses its transaction when it is idle.
        """
        key = lock_key(migration)
        holder = (
            "SELECT l.pid, a.usename FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid WHERE locktype ="
            f" 'advisory' AND granted AND objsubid = 1 AND classid = {key >> 32} AND objid = {key & 0xFFFFFFFF} AND"
            " l.pid <> pg_backend_pid() AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        with self.transaction() as connection:
            found = execute(connection, holder).first()
        if found is None:
            return "a session that has just ended"
        with suppress(MissingRight), self.transaction() as connection:
            execute(connection, f"SELECT pg_terminate_backend({found.pid})").all()
        return f"session {found.pid} of user {found.usename}"

    def limit(self, connection: Connection, timeout_ms: int, rows: bool = False) -> None:
        """No statement of this transaction may take longer.

        :param rows: it may wait for rows so long too, as nobody waits behind it then. A short deadlock time-out would
            make it the victim of its own impatience.
        """
        execute(connection, f"SET LOCAL statement_timeout = '{timeout_ms}ms'")
        if rows:
            execute(connection, f"SET LOCAL lock_timeout = '{timeout_ms}ms'")
            if self.may(connection)["deadlock_timeout"]:
                execute(connection, "SET LOCAL deadlock_timeout = '1s'")

    def exempt_from_triggers(self, connection: Connection) -> None:
        """Keep the application's triggers and foreign keys' checks from firing in this transaction, if the user may:
        callers write rows only that are in step with their parents.
        """
        if self.may(connection)["session_replication_role"]:
            execute(connection, "SET LOCAL session_replication_role = replica")

    def retrying(self, work: Callable[[], T], timeout_ms: int, tables: Sequence[Work], doing: str) -> T:
        """Do *work* until no other session is in the way.

        A connection that broke while nobody used it is opened again, once.

        :raises Timeout: it names the sessions that hold the tables.
        """
        deadline = time.monotonic() + timeout_ms / 1000
        fresh = self._connection is None
        self._lock_timeout_ms, attempts = LOCK_TIMEOUT_MS, 0
        while True:
            try:
                return work()
            except Unreachable:
                if fresh:
                    raise
                fresh = True
                self.close()
            except Contended as error:
                if time.monotonic() >= deadline:
                    raise self.culprits_error(tables, doing, timeout_ms, error.message) from None
                attempts += 1
                if attempts >= PATIENCE and not self._may.get("deadlock_timeout"):
                    self._lock_timeout_ms = LONG_LOCK_TIMEOUT_MS
                # the queue behind the lock must get its turn before we lock again; random, so that two migrations part
                time.sleep(random.uniform(0.005, 0.03))

    def writers(self, tables: Sequence[Work]) -> dict[str, dict[str, Any]]:
        """Transactions of other sessions that hold locks against ours on *tables*, by their virtual id."""
        names = ", ".join(f"to_regclass({literal(work.sql)})::oid" for work in tables)
        # a writer of a partition need not hold a lock on its parent
        relations = tree(f"SELECT unnest(ARRAY[{names}]::oid[])")
        sql = (
            "SELECT l.virtualtransaction, l.pid, coalesce(a.application_name, '') AS application, coalesce(a.usename,"
            " '') AS username, coalesce(a.backend_type, '') AS backend, coalesce(a.state, '') AS state, p.gid,"
            " string_agg(DISTINCT l.relation::regclass::text, ', ') AS tables, max((extract(epoch FROM"
            " clock_timestamp() - coalesce(a.xact_start, p.prepared)) * 1000)::bigint) AS age_ms FROM pg_locks l LEFT"
            " JOIN pg_stat_activity a ON a.pid = l.pid LEFT JOIN pg_locks x ON l.pid IS NULL AND x.pid IS NULL AND"
            " x.virtualtransaction = l.virtualtransaction AND x.locktype = 'transactionid' LEFT JOIN pg_prepared_xacts"
            " p ON p.transaction = x.transactionid WHERE l.locktype = 'relation' AND l.granted AND l.relation IN"
            f" ({relations}) AND l.database = (SELECT oid FROM pg_database WHERE datname ="
            " current_database()) AND l.pid IS DISTINCT FROM pg_backend_pid() AND l.mode IN ('RowExclusiveLock',"
            " 'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',"
            " 'AccessExclusiveLock') GROUP BY 1, 2, 3, 4, 5, 6, 7"
        )
        with self.transaction() as connection:
            return {row.pop("virtualtransaction"): row for row in map(dict, execute(connection, sql).mappings())}

    def culprits_error(self, tables: Sequence[Work], doing: str, timeout_ms: int, cause: str = "") -> Timeout:
        """A time-out that names the sessions in the way: process id, application, user, age; never their query's
        text.
        """
        found = list(self.writers(tables).values())
        if not found:
            return Timeout(
                f"{self.label}: {doing} did not get its locks within {timeout_ms} ms. {cause}".rstrip(),
                "Run the same command again.",
                blockers=[],
            )
        names = "; ".join(
            (
                f"prepared transaction {row['gid']!r}"
                if row["gid"]
                else f"process {row['pid']} ({row['application'] or row['backend']}, user {row['username']})"
            )
            + f" for {row['age_ms'] if row['age_ms'] is not None else 'unknown'} ms on {row['tables']}"
            for row in found
        )
        return Timeout(
            f"{self.label}: {doing} waited {timeout_ms} ms for {names}.",
            "End these transactions and run the same command again.",
            blockers=found,
        )


def lock_key(migration: str) -> int:
    """Key of the migration's advisory lock, which is the database's own: 62 bits of a digest."""
    return int.from_bytes(hashlib.sha256(f"zdm.landscape {migration}".encode()).digest()[:8], "big") >> 2
