# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real MariaDB server, a database with the sample schema, and what tests do to them."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import pymysql
import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.participant import MariaDB
from ansible_collections.zdm.landscape.tests.integration.verb_kit import A, C
from ansible_collections.zdm.landscape.tests.landscape.processes import Processes, User, free_port, private_folder
from ansible_collections.zdm.landscape.tests.landscape.processes import run as run_command

SCHEMA = """
CREATE TABLE bill (tenant_id VARCHAR(63) NOT NULL, id INT NOT NULL, note VARCHAR(200), amount DECIMAL(10,2),
  changed TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, PRIMARY KEY (tenant_id, id),
   KEY (id));
CREATE TABLE item (tenant_id VARCHAR(63) NOT NULL, bill INT NOT NULL, pos INT NOT NULL, txt VARCHAR(200), data BLOB,
  PRIMARY KEY (tenant_id, bill, pos), FOREIGN KEY (tenant_id, bill) REFERENCES bill (tenant_id, id) ON DELETE CASCADE
   ON UPDATE CASCADE);
CREATE TABLE event (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, tenant_id VARCHAR(63) NOT NULL, txt VARCHAR(200),
 KEY (tenant_id));
CREATE TABLE share (id INT NOT NULL PRIMARY KEY, tenant_id VARCHAR(63) NOT NULL, owner_tenant_id VARCHAR(63) NOT NULL,
 KEY (tenant_id), KEY (owner_tenant_id))
"""


class Server:
    """A running mariadbd with its own folders; it ends with this process, however that happens."""

    def __init__(self, folder: Path, processes: Processes, *options: str) -> None:
        self.folder = private_folder(folder / "mariadb", user := User.unprivileged("mysql"))
        self.socket = self.folder / "s.sock"
        common = [
            "--no-defaults",
            f"--datadir={self.folder / 'data'}",
            f"--tmpdir={private_folder(self.folder / 'tmp', user)}",
        ]
        install = [
            _program("mariadb-install-db"),
            *common,
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ]
        run_command(install, user=user, cwd=folder)
        where = [f"--socket={self.socket}", f"--port={free_port()}", "--bind-address=127.0.0.1", "--pid-file=pid"]
        size = ["--innodb-buffer-pool-size=64M", "--innodb-log-file-size=32M", "--performance-schema=OFF"]
        self.process = processes.start("mariadbd", [_program("mariadbd"), *common, *where, *size, *options], user=user)
        self.process.wait_ready(self._answers)

    def _answers(self) -> bool:
        try:
            self.connect(database=None).close()
        except pymysql.err.OperationalError:
            return False
        return True

    def connect(
        self, database: str | None, autocommit: bool = True, user: str = "root", password: str = "", isolation: str = ""
    ) -> pymysql.Connection[Any]:
        connection = pymysql.connect(
            unix_socket=str(self.socket),
            user=user,
            password=password,
            database=database,
            autocommit=autocommit,
            charset="utf8mb4",
            local_infile=True,
        )
        if isolation:
            run(connection, f"SET SESSION TRANSACTION ISOLATION LEVEL {isolation}")
        return connection


def _program(name: str) -> str:
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if not path:
        pytest.fail(f"{name} is not installed: apt-get install mariadb-server")
    return path


def run(connection: pymysql.Connection[Any], statement: str) -> list[tuple[Any, ...]]:
    """Run one statement and return its rows."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


class Bench:
    """One test's database with the sample schema, and what a test does to it."""

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.name = name
        self.admin = server.connect(database=None)
        self._open: list[Any] = []
        run(self.admin, f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        run(self.admin, f"USE {name}")
        run(self.admin, f"CREATE USER {name} IDENTIFIED BY 'secret-of-zdm'")
        run(
            self.admin,
            f"GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, TRIGGER, CREATE TEMPORARY TABLES, CREATE ROUTINE,"
            f" ALTER ROUTINE, EXECUTE ON {name}.* TO {name}",
        )
        run(self.admin, f"GRANT PROCESS ON *.* TO {name}")

    def drop(self) -> None:
        for thing in self._open:
            with contextlib.suppress(pymysql.err.Error):
                thing.close()
        run(self.admin, f"DROP DATABASE {self.name}")
        run(self.admin, f"DROP USER {self.name}")
        self.admin.close()

    def schema(self, rows: int = 60) -> None:
        for statement in SCHEMA.split(";"):
            run(self.admin, statement)
        for tenant in (A, C):
            first = 0 if tenant == A else 1_000_000
            numbers = f"seq_1_to_{rows}"
            run(
                self.admin,
                f"INSERT INTO bill SELECT '{tenant}', seq, REPEAT('n', 150), seq / 7, '2020-02-03 04:05:06' FROM"
                f" {numbers}",
            )
            run(
                self.admin,
                f"INSERT INTO item SELECT '{tenant}', seq, 1, REPEAT('t', 150), UNHEX('00FF27') FROM {numbers}",
            )
            run(self.admin, f"INSERT INTO event SELECT {first} + seq, '{tenant}', REPEAT('e', 150) FROM {numbers}")
            run(self.admin, f"INSERT INTO share SELECT {first} + seq, '{tenant}', '{C}' FROM {numbers}")
        run(self.admin, f"INSERT INTO share VALUES (9000000, '{C}', '{A}'), (9000001, '{A}', '{A}')")

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        return run(self.admin, statement)

    def application(self, autocommit: bool = True, isolation: str = "") -> pymysql.Connection[Any]:
        """A session of the application, closed at the end of the test."""
        connection = self.server.connect(self.name, autocommit, isolation=isolation)
        self._open.append(connection)
        return connection

    def participant(self, **options: Any) -> MariaDB:
        participant = MariaDB(self.options(**options))
        self._open.append(participant)
        return participant

    def options(self, **options: Any) -> dict[str, Any]:
        base = {
            "name": "rating",
            "kind": "mariadb",
            "socket": str(self.server.socket),
            "database": self.name,
            "user": self.name,
            "password": "secret-of-zdm",
        }
        return {**base, "tenant_columns": ["tenant_id", "owner_tenant_id"], **options}

    def catalog(self) -> list[tuple[Any, ...]]:
        """Everything that must be as before when the migration is gone."""
        tables = [row[0] for row in self.sql("SHOW TABLES")]
        triggers = self.sql(
            "SELECT trigger_name, event_object_table, action_statement FROM information_schema.triggers WHERE"
            " trigger_schema = DATABASE()"
        )
        # AUTO_INCREMENT is a counter, no schema
        return [*(tuple(part for part in self.sql(f"SHOW CREATE TABLE `{table}`")[0]) for table in tables), *triggers]

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        return {
            table: sorted(self.sql(f"SELECT * FROM `{table}`"), key=repr)
            for table in ("bill", "item", "event", "share")
        }
