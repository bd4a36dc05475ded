# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stage of PostgreSQL as a reconciler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.participant import PostgreSQL
from ansible_collections.zdm.landscape.tests.integration.postgresql.pgsite import Site
from ansible_collections.zdm.landscape.tests.integration.reconciler_contract import (
    BarrierContract,
    ReconcilerContract,
    TwinContract,
)
from ansible_collections.zdm.landscape.tests.integration.reconciler_kit import SCHEMA, TwinScene
from ansible_collections.zdm.landscape.tests.integration.verb_kit import KEY, A, C


class PostgreSQLScene(TwinScene):
    def __init__(self, site: Site) -> None:
        self.site = site
        self.sessions: list[psycopg.Connection[Any]] = []

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        return self.site.sql(statement)

    def session(self) -> Any:
        self.sessions.append(psycopg.connect(self.site.connect().info.dsn, password=self.site.server.app.password))
        return self.sessions[-1]

    def connect(self, options: dict[str, Any]) -> PostgreSQL:
        return self.site.participant(**options)

    def passing(self, error: Exception) -> bool:
        return isinstance(error, (psycopg.errors.DeadlockDetected, psycopg.errors.LockNotAvailable))

    def unlogged(self, statement: str) -> None:
        self.site.sql(f"SET zdm.worker = '{KEY}'", statement)

    def drop_trigger(self, table: str) -> None:
        found = self.site.sql(
            f"SELECT tgname FROM pg_trigger WHERE tgrelid = '{table}'::regclass AND tgname LIKE '%log_update'",
            admin=True,
        ) or self.site.sql(
            f"SELECT tgname FROM pg_trigger WHERE tgrelid = '{table}'::regclass AND tgname LIKE '%fence_update'",
            admin=True,
        )
        for (name,) in found:
            self.site.sql(f"DROP TRIGGER {name} ON {table}", admin=True)

    def rebuild(self, table: str) -> None:
        self.site.sql(
            f"CREATE TABLE copied (LIKE {table} INCLUDING ALL)",
            f"INSERT INTO copied SELECT * FROM {table}",
            f"DROP TABLE {table}",
            f"ALTER TABLE copied RENAME TO {table}",
        )

    def kept(self) -> list[tuple[str, dict[str, Any]]]:
        [(name,)] = self.site.sql(
            "SELECT relname FROM pg_class WHERE relname LIKE 'kept\\_%' AND relkind = 'r'", admin=True
        )
        return [(row[0], row[1]) for row in self.site.sql(f"SELECT table_name, kept FROM zdm.{name}", admin=True)]


@pytest.fixture
def scene(site: Site) -> Iterator[PostgreSQLScene]:
    site.sql("DROP SCHEMA public CASCADE", "CREATE SCHEMA public AUTHORIZATION app", admin=True)
    scene = PostgreSQLScene(site)
    for statement in SCHEMA:
        scene.sql(statement)
    scene.fill(A)
    scene.fill(C, 1000)
    yield scene
    for session in scene.sessions:
        session.close()


class TestReconciler(ReconcilerContract):
    pass


class TestBarrier(BarrierContract):
    pass


class TestTwins(TwinContract):
    pass
