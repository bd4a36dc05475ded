# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real database servers in folders of their own, on loopback, durable (fsync on), stopped with their context."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pymysql

from . import programs
from .processes import Process, Processes, User, free_port, private_folder, run

HOST = "127.0.0.1"


@dataclass
class Account:
    """A login of a database server; the password never appears on a command line."""

    user: str
    password: str = field(default_factory=lambda: secrets.token_urlsafe(18), repr=False)


class Server(ABC):
    """A database server: ``init`` once, then ``launch``, ``wait`` and ``stop`` as often as wanted, on the same port."""

    kind: str

    def __init__(self, name: str, folder: Path, processes: Processes, program: programs.Program) -> None:
        self.name, self.folder, self.program = name, folder, program
        self.port = free_port()
        self.admin = Account("root" if self.kind == "mariadb" else "postgres")
        self.app, self.zdm = Account("app"), Account("zdm")
        self._processes = processes
        self._process: Process | None = None

    @property
    def version(self) -> str:
        return self.program.version_text

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.popen.poll() is None

    @property
    def pid(self) -> int:
        return self._running().pid

    def _running(self) -> Process:
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running.")
        return self._process

    @abstractmethod
    def init(self) -> None:
        """Make the data folder."""

    @abstractmethod
    def launch(self) -> None:
        """Start the server's process, without waiting for it."""

    @abstractmethod
    def ping(self) -> bool:
        """Whether it answers a query."""

    def wait(self) -> None:
        """Wait until the server answers a query."""
        self._running().wait_ready(self.ping)

    def start(self) -> None:
        self.launch()
        self.wait()

    def stop(self) -> None:
        """Stop the server; :meth:`start` brings it back with its data."""
        if self._process is not None:
            self._processes.stop(self._process)
            self._process = None

    def kill(self) -> None:
        """End the server as a crash does."""
        self._running().kill()
        self.stop()


class PostgresServer(Server):
    """One PostgreSQL cluster. TCP only: a unix socket's path would have to be short."""

    kind = "postgresql"

    def __init__(self, name: str, folder: Path, processes: Processes) -> None:
        super().__init__(name, folder, processes, programs.postgres(folder.parent))
        self._user = User.unprivileged("postgres")
        self._data = folder / "data"

    def init(self) -> None:
        private_folder(self.folder, self._user)
        password_file = self.folder / "password"
        password_file.touch(0o600)
        password_file.write_text(self.admin.password)
        if os.getuid() == 0:
            os.chown(password_file, self._user.uid, self._user.gid)
        # --no-sync spares the flush of the empty cluster only; the server itself runs with fsync on
        run(
            [
                str(self.program.path.with_name("initdb")),
                "--no-sync",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                f"--username={self.admin.user}",
                f"--pwfile={password_file}",
                "-D",
                str(self._data),
            ],
            user=self._user,
            cwd=self.folder.parent,
        )
        password_file.unlink()
        settings = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 80,
            "shared_buffers": "64MB",
            "fsync": "on",
            "max_wal_size": "1GB",
            "log_min_messages": "warning",
            "dynamic_shared_memory_type": "mmap",
            "cluster_name": self.name,
        }
        with (self._data / "postgresql.conf").open("a") as config:
            config.writelines(f"{key} = '{value}'\n" for key, value in settings.items())

    def launch(self) -> None:
        # SIGQUIT, the immediate shutdown, is how a postmaster ends its own children when this process dies
        self._process = self._processes.start(
            self.name,
            [str(self.program.path), "-D", str(self._data)],
            user=self._user,
            stop_signal=signal.SIGINT,
            death_signal=signal.SIGQUIT,
        )

    def connect(self, database: str = "postgres", account: Account | None = None) -> psycopg.Connection[Any]:
        account = account or self.admin
        return psycopg.connect(
            host=HOST,
            port=self.port,
            dbname=database,
            user=account.user,
            password=account.password,
            autocommit=True,
            connect_timeout=10,
        )

    def ping(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def create(self, database: str) -> None:
        """Make *database*, owned by the service's account, and the accounts of the service and of the migration.

        The migration's account is a member of the owner, may make its own schema and may switch off other triggers in
        its session; before PostgreSQL 15 the latter cannot be granted, so it is a superuser there.
        """
        with self.connect() as session:
            for account in (self.app, self.zdm):
                session.execute(
                    psycopg.sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                        psycopg.sql.Identifier(account.user), account.password
                    )
                )
            if self.program.version >= (15,):
                session.execute("GRANT SET ON PARAMETER session_replication_role TO zdm")
            else:
                session.execute("ALTER ROLE zdm SUPERUSER")
            session.execute("GRANT app, pg_monitor, pg_signal_backend TO zdm")
            session.execute(psycopg.sql.SQL("CREATE DATABASE {} OWNER app").format(psycopg.sql.Identifier(database)))
            self.allow(database, session)

    def allow(self, database: str, session: psycopg.Connection[Any]) -> None:
        """Rights that hang on the database itself and are lost when it is made anew."""
        session.execute(psycopg.sql.SQL("GRANT CREATE ON DATABASE {} TO zdm").format(psycopg.sql.Identifier(database)))

    def copy_database(self, source: str, target: str) -> None:
        """Make *target* anew as an exact copy of *source*, ending the sessions of both."""
        names = {"source": psycopg.sql.Identifier(source), "target": psycopg.sql.Identifier(target)}
        with self.connect() as session:
            session.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (source,))
            session.execute(psycopg.sql.SQL("DROP DATABASE IF EXISTS {target} WITH (FORCE)").format(**names))
            session.execute(psycopg.sql.SQL("CREATE DATABASE {target} TEMPLATE {source} OWNER app").format(**names))
            self.allow(target, session)


class MariaServer(Server):
    """One MariaDB server with a data folder and a folder for temporary files of its own."""

    kind = "mariadb"

    def __init__(self, name: str, folder: Path, processes: Processes, program: programs.Program) -> None:
        super().__init__(name, folder, processes, program)
        self._user = User.unprivileged("mysql")
        self._data = folder / "data"

    def init(self) -> None:
        private_folder(self.folder, self._user)
        temporary = private_folder(self.folder / "tmp", self._user)
        tool = shutil.which("mariadb-install-db") or str(self.program.path.with_name("mariadb-install-db"))
        run(
            [
                tool,
                "--no-defaults",
                f"--datadir={self._data}",
                f"--tmpdir={temporary}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--skip-name-resolve",
                f"--user={self._user.name}",
            ],
            user=self._user,
            cwd=self.folder.parent,
        )
        self._sql_file().touch(0o600)
        self._sql_file().write_text(
            f"ALTER USER 'root'@'localhost' IDENTIFIED BY '{self.admin.password}';\nCREATE OR REPLACE USER"
            f" 'root'@'{HOST}' IDENTIFIED BY '{self.admin.password}';\nGRANT ALL ON *.* TO 'root'@'{HOST}' WITH GRANT"
            " OPTION;\n"
        )
        if os.getuid() == 0:
            os.chown(self._sql_file(), self._user.uid, self._user.gid)

    def _sql_file(self) -> Path:
        return self.folder / "accounts.sql"

    def launch(self) -> None:
        first = [f"--init-file={self._sql_file()}"] if self._sql_file().exists() else []
        # a relative socket lies in the data folder, whatever the length of its path
        self._process = self._processes.start(
            self.name,
            [
                str(self.program.path),
                "--no-defaults",
                f"--datadir={self._data}",
                f"--tmpdir={self.folder / 'tmp'}",
                "--socket=sock",
                f"--port={self.port}",
                f"--bind-address={HOST}",
                "--skip-name-resolve",
                "--character-set-server=utf8mb4",
                "--innodb-buffer-pool-size=128M",
                "--innodb-flush-log-at-trx-commit=1",
                "--pid-file=pid",
                *first,
            ],
            user=self._user,
        )

    def connect(
        self, database: str | None = None, account: Account | None = None
    ) -> pymysql.connections.Connection[Any]:
        account = account or self.admin
        return pymysql.connect(
            host=HOST,
            port=self.port,
            user=account.user,
            password=account.password,
            database=database,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=10,
            ssl_disabled=True,
        )

    def ping(self) -> bool:
        try:
            self.connect().close()
        except pymysql.OperationalError:
            return False
        self._sql_file().unlink(missing_ok=True)
        return True

    def create(self, database: str) -> None:
        """Make *database* and the accounts of the service and of the migration."""
        with self.connect() as session, session.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE `{database}`")
            for account in (self.app, self.zdm):
                cursor.execute(f"CREATE USER '{account.user}'@'{HOST}' IDENTIFIED BY %s", (account.password,))
            cursor.execute(f"GRANT ALL ON `{database}`.* TO 'app'@'{HOST}'")
            cursor.execute(f"GRANT ALL ON `{database}`.* TO 'zdm'@'{HOST}'")
            # helpers live in a schema of their own; other sessions are seen, and ended when an older controller owns
            # them
            cursor.execute(f"GRANT ALL ON `zdm%`.* TO 'zdm'@'{HOST}'")
            cursor.execute(f"GRANT PROCESS, CONNECTION ADMIN ON *.* TO 'zdm'@'{HOST}'")


def start_all(servers: Sequence[Server]) -> None:
    """Initialise and start new servers side by side."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda server: server.init(), servers))
    for server in servers:
        server.launch()
    for server in servers:
        server.wait()
