# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stage of SQLite as a reconciler: all tables are in place."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import IN_PLACE
from ansible_collections.zdm.landscape.plugins.module_utils.participant.sqlite.participant import SQLite
from ansible_collections.zdm.landscape.tests.integration.reconciler_contract import (
    BarrierContract,
    ReconcilerContract,
    turned,
)
from ansible_collections.zdm.landscape.tests.integration.reconciler_kit import CHANGES, SCHEMA, Change, Scene
from ansible_collections.zdm.landscape.tests.integration.sqlite.bench import Bench
from ansible_collections.zdm.landscape.tests.integration.verb_kit import A, C


class SQLiteScene(Scene):
    strategy = IN_PLACE

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        return self.bench.sql(statement)

    def session(self) -> Any:
        connection = self.bench.application()
        connection.isolation_level = "IMMEDIATE"
        return connection

    def connect(self, options: dict[str, Any]) -> SQLite:
        return self.bench.participant(**options)

    def passing(self, error: Exception) -> bool:
        return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)

    def drop_trigger(self, table: str) -> None:
        name = f"SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = '{table}' AND name LIKE '%_u'"
        self.sql(f"DROP TRIGGER {self.sql(name)[0][0]}")

    def rebuild(self, table: str) -> None:
        ((create,),) = self.sql(f"SELECT sql FROM sqlite_master WHERE type = 'table' AND name = '{table}'")
        self.sql(create.replace(f"TABLE {table}", "TABLE copied"))
        self.sql(f"INSERT INTO copied SELECT * FROM {table}")
        self.sql(f"DROP TABLE {table}")
        self.sql(f"ALTER TABLE copied RENAME TO {table}")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[SQLiteScene]:
    bench = Bench(tmp_path / "docs.sqlite")
    try:
        scene = SQLiteScene(bench)
        bench.sql("PRAGMA synchronous = OFF")
        for statement in SCHEMA:
            scene.sql(statement)
        scene.fill(A)
        scene.fill(C, 1000)
        yield scene
    finally:
        bench.close()


class TestReconciler(ReconcilerContract):
    @turned
    @pytest.mark.parametrize("change", [change for change in CHANGES if change.name != "changed type"], ids=str)
    def test_what_has_changed_is_told_refused_and_mended(self, scene: Scene, change: Change, turned: bool) -> None:
        self.changed_told_refused_mended(scene, change, turned)


class TestBarrier(BarrierContract):
    pass
