# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The services' databases: made, filled, set back to their first state, read by the checker."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pymysql

from .processes import User, private_folder
from .servers import HOST, Account, MariaServer, PostgresServer, Server
from .spec import Service, country_sql, ddl, seed_sql

Row = tuple[Any, ...]


class Database(ABC):
    """One service's database."""

    server: Server | None = None

    def __init__(self, service: Service) -> None:
        self.service = service

    @abstractmethod
    def connect(self) -> Any:
        """A DB-API connection with the service's account, in autocommit mode."""

    @abstractmethod
    def address(self) -> dict[str, Any]:
        """What the service needs to connect, with its own account."""

    @abstractmethod
    def participant(self) -> dict[str, Any]:
        """What the migration needs to connect, with the migration's account, in the form of a module's option."""

    @abstractmethod
    def version(self) -> str: ...

    @abstractmethod
    def create(self) -> None:
        """Make the empty database and its accounts."""

    @abstractmethod
    def keep_seed(self) -> None:
        """Remember the state that :meth:`reset` restores."""

    @abstractmethod
    def reset(self) -> None:
        """Restore the remembered state exactly: rows, and nothing of a migration left."""

    def fill(self, heads: Mapping[str, int]) -> None:
        """Create the tables and give each tenant id its first rows.

        :param heads: tenant id → number of its objects.
        """
        with closing(self.connect()) as session:
            cursor = session.cursor()
            for statement in [*ddl(self.service), country_sql(self.service)]:
                cursor.execute(statement)
            for tenant_id, count in heads.items():
                for statement in seed_sql(self.service, tenant_id, count):
                    cursor.execute(statement)
            self._analyze(cursor)

    def query(self, sql: str) -> list[Row]:
        return self.queries(sql)[0]

    def queries(self, *statements: str) -> list[list[Row]]:
        """The rows of each statement, over one connection."""
        with closing(self.connect()) as session:
            cursor, results = session.cursor(), []
            for statement in statements:
                cursor.execute(statement)
                results.append(list(cursor.fetchall()))
            return results

    def execute(self, *statements: str) -> None:
        """Run statements as the service's account (tests damage data with it)."""
        with closing(self.connect()) as session:
            cursor = session.cursor()
            for statement in statements:
                cursor.execute(statement)

    def _analyze(self, cursor: Any) -> None:
        for table in self.service.tables:
            cursor.execute(f"ANALYZE {table}")


class PostgresDatabase(Database):
    """A database of a PostgreSQL cluster; reset copies it from a template."""

    def __init__(self, service: Service, server: PostgresServer) -> None:
        super().__init__(service)
        self.server: PostgresServer = server

    def _login(self, account: Account) -> dict[str, Any]:
        return {
            "host": HOST,
            "port": self.server.port,
            "database": self.service.name,
            "user": account.user,
            "password": account.password,
        }

    def connect(self) -> Any:
        return self.server.connect(self.service.name, self.server.app)

    def address(self) -> dict[str, Any]:
        return self._login(self.server.app)

    def participant(self) -> dict[str, Any]:
        return {"name": self.service.name, "kind": "postgresql", **self._login(self.server.zdm)}

    def version(self) -> str:
        return self.server.version

    def create(self) -> None:
        self.server.create(self.service.name)

    def keep_seed(self) -> None:
        self.server.copy_database(self.service.name, self._seed)

    def reset(self) -> None:
        self.server.copy_database(self._seed, self.service.name)

    @property
    def _seed(self) -> str:
        return f"{self.service.name}_seed"


class MariaDatabase(Database):
    """A schema of a MariaDB server; reset makes the tables anew and copies the rows from a second schema."""

    def __init__(self, service: Service, server: MariaServer) -> None:
        super().__init__(service)
        self.server: MariaServer = server

    def _login(self, account: Account) -> dict[str, Any]:
        return {
            "host": HOST,
            "port": self.server.port,
            "database": self.service.name,
            "user": account.user,
            "password": account.password,
        }

    def connect(self) -> Any:
        return self.server.connect(self.service.name, self.server.app)

    def address(self) -> dict[str, Any]:
        return self._login(self.server.app)

    def participant(self) -> dict[str, Any]:
        return {"name": self.service.name, "kind": "mariadb", **self._login(self.server.zdm)}

    def version(self) -> str:
        return self.server.version

    def create(self) -> None:
        self.server.create(self.service.name)

    def keep_seed(self) -> None:
        self._copy(self.service.name, f"{self.service.name}_seed")

    def reset(self) -> None:
        self._copy(f"{self.service.name}_seed", self.service.name)

    def _copy(self, source: str, target: str) -> None:
        with closing(self.server.connect()) as session:
            cursor = session.cursor()
            cursor.execute("SELECT id FROM information_schema.processlist WHERE user = 'zdm'")
            for (session_id,) in cursor.fetchall():
                with suppress(pymysql.OperationalError):  # it ended meanwhile
                    cursor.execute(f"KILL {session_id}")
            kept = {
                "information_schema",
                "mysql",
                "performance_schema",
                "sys",
                self.service.name,
                f"{self.service.name}_seed",
            }
            cursor.execute("SHOW DATABASES")
            for schema in {row[0] for row in cursor.fetchall()} - kept | {target}:
                cursor.execute(f"DROP DATABASE IF EXISTS `{schema}`")
            cursor.execute(f"CREATE DATABASE `{target}`")
            cursor.execute(f"USE `{target}`")
            for statement in ddl(self.service):
                cursor.execute(statement)
            cursor.execute("SET foreign_key_checks = 0, unique_checks = 0")
            cursor.execute("BEGIN")
            for table in self.service.tables:
                cursor.execute(f"INSERT INTO `{table}` SELECT * FROM `{source}`.`{table}`")
            cursor.execute("COMMIT")
            self._analyze(cursor)

    def _analyze(self, cursor: Any) -> None:
        for table in self.service.tables:
            cursor.execute(f"ANALYZE TABLE {table}")
            cursor.fetchall()


class SqliteDatabase(Database):
    """A SQLite file in WAL mode; reset writes it back page by page, under its locks."""

    def __init__(self, service: Service, folder: Path) -> None:
        super().__init__(service)
        self.path = folder / f"{service.name}.db"
        self._seed = folder / "seed.db"

    def connect(self) -> Any:
        return open_sqlite(str(self.path))

    def address(self) -> dict[str, Any]:
        return {"database": str(self.path)}

    def participant(self) -> dict[str, Any]:
        return {"name": self.service.name, "kind": "sqlite", "database": str(self.path)}

    def version(self) -> str:
        return sqlite3.sqlite_version

    def create(self) -> None:
        private_folder(self.path.parent, User.current())
        with closing(self.connect()) as session:
            session.execute("PRAGMA journal_mode = WAL")

    def keep_seed(self) -> None:
        self._copy(self.path, self._seed)

    def reset(self) -> None:
        self._copy(self._seed, self.path)

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        with closing(open_sqlite(str(source))) as reader, closing(open_sqlite(str(target))) as writer:
            reader.backup(writer)


def open_sqlite(path: str) -> sqlite3.Connection:
    """As the service opens it: durable, foreign keys checked, waiting for other writers."""
    session = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
    for pragma in ("foreign_keys = ON", "synchronous = FULL"):
        session.execute(f"PRAGMA {pragma}")
    return session


def _readers(database: Database, table: str) -> dict[str, Any]:
    """Every statement of the services names its tenant, but for whoever empties the outbox."""
    return {} if table == database.service.outbox else {"no_cross_tenant_readers": True}


def participants(databases: Sequence[Database], strategies: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    """The ``participants`` option of the modules.

    :param strategies: service → table → strategy; what is not named is ``auto``.
    """
    return [
        {
            **database.participant(),
            "tenant_columns": ["tenant_id"],
            "tables": {
                database.service.country: {"ignore": "no tenant data"},
                **{
                    table: {
                        "strategy": strategies.get(database.service.name, {}).get(table, "auto"),
                        **_readers(database, table),
                    }
                    for table in database.service.tenant_tables
                },
            },
        }
        for database in databases
    ]
