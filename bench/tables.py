# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One table of a multi-tenant application in a database server of its own: made, filled inside the server, read, and
settled.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import time
from abc import ABC, abstractmethod
from contextlib import closing
from pathlib import Path
from typing import Any

from ansible_collections.zdm.landscape.tests.landscape import programs
from ansible_collections.zdm.landscape.tests.landscape.processes import Processes, wait_until
from ansible_collections.zdm.landscape.tests.landscape.servers import HOST, MariaServer, PostgresServer

NAME = "records"
"""Of the table, its database, the participant and the service."""
KINDS = ("postgresql", "mariadb")
SMALL_HISTORY = 1000
"""Transactions that InnoDB may still have to purge when a measurement begins."""


class Table(ABC):
    """Key (tenant_id, id), unique (tenant_id, number); the same ids and numbers for every tenant, rows of 200 to 270
    bytes.

    :param folder: the server's; it is removed with what it is in.
    """

    kind: str
    title: str
    client: str
    """The database's own command-line client."""
    server: PostgresServer | MariaServer

    @property
    def version(self) -> str:
        return f"{self.title} {self.server.version}"

    def connect(self) -> Any:
        """A DB-API connection of the application in autocommit mode."""
        return self.server.connect(NAME, self.server.app)

    def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements as the application; the rows of the last one."""
        with closing(self.connect()) as session:
            cursor = session.cursor()
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    def login(self, account: str) -> dict[str, Any]:
        """Connection of the account ``app`` or ``zdm`` in the form of a module's option."""
        password = {"app": self.server.app, "zdm": self.server.zdm}[account].password
        return {"host": HOST, "port": self.server.port, "database": NAME, "user": account, "password": password}

    def participant(self) -> dict[str, Any]:
        tables = {NAME: {"strategy": "twin", "no_cross_tenant_readers": True}}
        return {"name": NAME, "kind": self.kind, **self.login("zdm"), "tenant_columns": ["tenant_id"], "tables": tables}

    def start(self, rows: dict[str, int]) -> None:
        """Start the server and fill the table.

        :param rows: number of rows by tenant id.
        """
        self.server.init()
        self.server.start()
        self.tune()
        self.server.create(NAME)
        self.execute(self.ddl(), *(self.fill(tenant_id, count) for tenant_id, count in rows.items()))
        self.settle()

    def copy(self, from_id: str, to_id: str) -> str:
        """All rows of a tenant once more under another id, in one statement."""
        columns = "id, number, code, customer, amount, version, note"
        return (
            f"INSERT INTO {NAME} (tenant_id, {columns}) SELECT '{to_id}', {columns} FROM {NAME} WHERE tenant_id ="
            f" '{from_id}'"
        )

    def move(self, from_id: str, to_id: str) -> str:
        return f"UPDATE {NAME} SET tenant_id = '{to_id}' WHERE tenant_id = '{from_id}'"

    def need_client(self) -> None:
        """:raises SystemExit: the client is missing."""
        if not shutil.which(self.client):
            raise SystemExit(f"The measurement by hand needs the command-line client {self.client}; install it.")

    @abstractmethod
    def tune(self) -> None:
        """Give the server a cache that holds the table, as in production."""

    @abstractmethod
    def ddl(self) -> str: ...

    @abstractmethod
    def like(self, name: str) -> str:
        """An empty table of the same structure."""

    @abstractmethod
    def fill(self, tenant_id: str, rows: int) -> str: ...

    @abstractmethod
    def settle(self) -> None:
        """Let the server clear up what was written before, so that the next measurement does not pay for it."""

    @abstractmethod
    def row_bytes(self) -> int:
        """The mean size of a row."""

    @abstractmethod
    def command(self, statement: str, folder: Path) -> tuple[list[str], dict[str, str]]:
        """Command line and environment that run a statement by the client; the password goes into a file of
        *folder*.
        """


class PostgresTable(Table):
    kind, title, client = "postgresql", "PostgreSQL", "psql"

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.server: PostgresServer = PostgresServer("postgresql", folder / "postgresql", processes)

    def tune(self) -> None:
        with self.server.connect() as session:
            for setting, value in {"shared_buffers": "1GB", "max_wal_size": "8GB"}.items():
                session.execute(f"ALTER SYSTEM SET {setting} = '{value}'")
        self.server.stop()
        self.server.start()

    def ddl(self) -> str:
        return (
            f"CREATE TABLE {NAME} (tenant_id uuid NOT NULL, id uuid NOT NULL, number integer NOT NULL, code varchar(12)"
            " NOT NULL, customer varchar(40) NOT NULL, amount integer NOT NULL, version integer NOT NULL, note"
            " varchar(200) NOT NULL, PRIMARY KEY (tenant_id, id), UNIQUE (tenant_id, number))"
        )

    def like(self, name: str) -> str:
        return f"CREATE TABLE {name} (LIKE {NAME} INCLUDING ALL)"

    def fill(self, tenant_id: str, rows: int) -> str:
        return (
            f"INSERT INTO {NAME} SELECT '{tenant_id}', ('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,"
            f" n, 'C' || n % 100, 'customer ' || n, n % 1000, 1, repeat('x', 130) FROM generate_series(1, {rows}) n"
        )

    def settle(self) -> None:
        self.execute(f"VACUUM ANALYZE {NAME}")
        with self.server.connect() as session:
            session.execute("CHECKPOINT")

    def row_bytes(self) -> int:
        return int(self.execute(f"SELECT avg(pg_column_size(r.*)) FROM (SELECT * FROM {NAME} LIMIT 1000) r")[0][0])

    def command(self, statement: str, folder: Path) -> tuple[list[str], dict[str, str]]:
        secret = _secret(folder / "pgpass", f"{HOST}:{self.server.port}:{NAME}:app:{self.server.app.password}\n")
        login = ["-h", HOST, "-p", str(self.server.port), "-U", "app", "-d", NAME]
        return [self.client, "-X", "-v", "ON_ERROR_STOP=1", *login, "-c", statement], {"PGPASSFILE": str(secret)}


class MariaTable(Table):
    kind, title, client = "mariadb", "MariaDB", "mariadb"

    def __init__(self, folder: Path, processes: Processes) -> None:
        program = programs.mariadb()
        if program is None:
            raise SystemExit("MariaDB's server is not installed (Debian: apt-get install mariadb-server).")
        self.server: MariaServer = MariaServer("mariadb", folder / "mariadb", processes, program)

    def _admin(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(self.server.connect()) as session, session.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def tune(self) -> None:
        size = 1 << 30
        self._admin(f"SET GLOBAL innodb_buffer_pool_size = {size}")
        if self.server.program.version >= (10, 9):
            self._admin(f"SET GLOBAL innodb_log_file_size = {size}")
        wait_until(
            lambda: self._admin("SELECT @@innodb_buffer_pool_size")[0][0] == size, "the buffer pool has its size"
        )

    def ddl(self) -> str:
        return (
            f"CREATE TABLE {NAME} (tenant_id varchar(36) NOT NULL, id varchar(36) NOT NULL, number integer NOT NULL,"
            " code varchar(12) NOT NULL, customer varchar(40) NOT NULL, amount integer NOT NULL, version integer NOT"
            " NULL, note varchar(200) NOT NULL, PRIMARY KEY (tenant_id, id), UNIQUE (tenant_id, number)) ENGINE=InnoDB"
        )

    def like(self, name: str) -> str:
        return f"CREATE TABLE {name} LIKE {NAME}"

    def fill(self, tenant_id: str, rows: int) -> str:
        return (
            f"INSERT INTO {NAME} SELECT '{tenant_id}', concat('00000000-0000-4000-8000-', lpad(lower(hex(seq)), 12,"
            " '0')), seq, concat('C', seq % 100), concat('customer ', seq), seq % 1000, 1, repeat('x', 100) FROM"
            f" seq_1_to_{rows}"
        )

    def settle(self) -> None:
        query = "SELECT count FROM information_schema.innodb_metrics WHERE name = 'trx_rseg_history_len'"
        wait_until(
            lambda: self._admin(query)[0][0] < SMALL_HISTORY,
            "InnoDB has purged old versions",
            timeout_s=300,
            pause_s=0.2,
        )
        self.execute(f"ANALYZE TABLE {NAME}")

    def row_bytes(self) -> int:
        return int(
            self.execute(f"SELECT avg_row_length FROM information_schema.tables WHERE table_name = '{NAME}'")[0][0]
        )

    def command(self, statement: str, folder: Path) -> tuple[list[str], dict[str, str]]:
        secret = _secret(folder / "my.cnf", f"[client]\nuser=app\npassword={self.server.app.password}\n")
        return [
            self.client,
            f"--defaults-file={secret}",
            "-h",
            HOST,
            "-P",
            str(self.server.port),
            NAME,
            "-e",
            statement,
        ], {}


TABLES: dict[str, type[PostgresTable] | type[MariaTable]] = {"postgresql": PostgresTable, "mariadb": MariaTable}


def _secret(path: Path, text: str) -> Path:
    path.touch(0o600)
    path.write_text(text)
    return path


def rows_of(text: str) -> int:
    """``50k``, ``2m`` or a plain number.

    :raises ValueError: it is none of them.
    """
    found = re.fullmatch(r"(\d+)([km]?)", text.lower())
    if not found or not int(found[1]):
        raise ValueError(text)
    return int(found[1]) * {"": 1, "k": 1000, "m": 1_000_000}[found[2]]


def say(what: str) -> None:
    """Tell how far a long run is."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """Where and when a benchmark ran; ask it before the work begins, for the load of others."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "processor": found[1] if found else platform.machine(),
        "processors": os.cpu_count(),
        "load": [round(value, 1) for value in os.getloadavg()],
        "python": platform.python_version(),
        "kernel": platform.release(),
        "haproxy": programs.haproxy().version_text,
    }
