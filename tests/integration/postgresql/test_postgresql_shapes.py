# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shapes of real schemas on PostgreSQL."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from itertools import count
from typing import Any, ClassVar

import psycopg
import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.participant import PostgreSQL
from ansible_collections.zdm.landscape.tests.integration.proposal_contract import ProposalContract
from ansible_collections.zdm.landscape.tests.integration.shape_contract import ShapeContract, without
from ansible_collections.zdm.landscape.tests.integration.shape_kit import A, B, C, Ground, Journey, renamed
from ansible_collections.zdm.landscape.tests.landscape.servers import PostgresServer

_NUMBER = count()


class PostgreSQLGround(Ground):
    words: ClassVar = {"id": "uuid", "bytes": "bytea", "text": "varchar(40)", "big": "bigint"}
    refused = psycopg.Error

    def __init__(self, server: PostgresServer, database: str) -> None:
        self.server, self.database = server, database
        self._session = server.connect(database, server.app)
        self._session.autocommit = True
        self._open: list[PostgreSQL] = []

    def close(self) -> None:
        self._session.close()
        for participant in self._open:
            participant.close()

    def give_back(self) -> None:
        """What administrators' statements have changed for all databases."""
        self.run("ADMIN ALTER ROLE zdm NOBYPASSRLS")
        self.run("ADMIN GRANT SET ON PARAMETER session_replication_role TO zdm")
        role = f"owner_{self.database}"
        if self.run(f"SELECT 1 FROM pg_roles WHERE rolname = '{role}'"):
            self.run(f"ADMIN DROP OWNED BY {role} CASCADE")
            self.run(f"ADMIN DROP ROLE {role}")

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        """A statement that begins with ``ADMIN`` is the administrator's; ``{role}`` is one of this database alone."""
        statement = statement.replace("{role}", f"owner_{self.database}").replace("{database}", self.database)
        if statement.startswith("ADMIN "):
            with self.server.connect(self.database) as session:
                session.execute(statement.removeprefix("ADMIN "))  # type: ignore[arg-type]
            return []
        cursor = self._session.execute(statement)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []

    def participant(self, **options: Any) -> PostgreSQL:
        base = {
            "name": "crm",
            "kind": "postgresql",
            "host": "127.0.0.1",
            "port": self.server.port,
            "database": self.database,
            "user": "zdm",
            "password": self.server.zdm.password,
        }
        self._open.append(PostgreSQL({**base, **options}))
        return self._open[-1]

    def dump(self) -> str:
        command = ["pg_dump", "-s", "-h", "127.0.0.1", "-p", str(self.server.port), "-U", "postgres", self.database]
        environment = {**os.environ, "PGPASSWORD": self.server.admin.password}
        text = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        return re.sub(r"(?m)^\\(un)?restrict .*$", "", text)

    def tables(self) -> list[str]:
        query = (
            "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables WHERE schemaname NOT IN"
            " ('pg_catalog', 'information_schema', 'zdm') ORDER BY 1"
        )
        return [row[0] for row in self.run(query)]


@pytest.fixture
def ground(server: PostgresServer) -> Iterator[PostgreSQLGround]:
    database = f"ground{next(_NUMBER)}"
    server.copy_database("template1", database)
    ground = PostgreSQLGround(server, database)
    try:
        yield ground
    finally:
        ground.close()
        with server.connect() as session:
            session.execute(f"DROP DATABASE {database} WITH (FORCE)")  # type: ignore[arg-type]


class TestPostgreSQL(ShapeContract):
    @staticmethod
    def bytes_of(digits: str) -> str:
        return f"'\\x{digits}'"

    def test_a_root_to_which_a_table_of_another_schema_refers(self, ground: PostgreSQLGround) -> None:
        ground.sql(
            "CREATE TABLE tenants (id uuid PRIMARY KEY, name text)",
            "CREATE SCHEMA sales",
            "CREATE TABLE sales.item (id int PRIMARY KEY, tenant_id uuid NOT NULL REFERENCES tenants)",
            f"INSERT INTO tenants VALUES ('{A}', 'Venezia'), ('{C}', 'other')",
            f"INSERT INTO sales.item VALUES (1, '{A}'), (2, '{C}')",
        )
        Journey(ground).life(renamed(A, B, "sales.item"), without(A))


class TestPostgreSQLProposals(ProposalContract):
    bytes_of = "'\\x{}'"
