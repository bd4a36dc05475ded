# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shapes of real schemas in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.participant.sqlite.participant import SQLite
from ansible_collections.zdm.landscape.tests.integration.proposal_contract import ProposalContract
from ansible_collections.zdm.landscape.tests.integration.shape_contract import ShapeContract
from ansible_collections.zdm.landscape.tests.integration.shape_kit import Ground, Session
from ansible_collections.zdm.landscape.tests.integration.shape_random import whole_life
from ansible_collections.zdm.landscape.tests.integration.sqlite.bench import Bench


class SQLiteSession:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, statement: str) -> int:
        return self._connection.execute(statement).rowcount

    def query(self, statement: str) -> Any:
        return self._connection.execute(statement).fetchone()[0]

    def close(self) -> None:
        self._connection.close()


class SQLiteGround(Ground):
    words: ClassVar = {"id": "TEXT", "bytes": "BLOB", "text": "TEXT", "big": "BIGINT", "number": "INTEGER"}
    refused = sqlite3.Error

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.run("PRAGMA foreign_keys = ON")

    def session(self) -> Session:
        return SQLiteSession(sqlite3.connect(self.bench.path, 60, isolation_level=None, check_same_thread=False))

    def passing(self, error: Exception) -> bool:
        return "locked" in str(error)

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        return list(self.bench.admin.execute(statement))

    def participant(self, **options: Any) -> SQLite:
        return self.bench.participant(**{"tenant_columns": ["tenant_id"], **options})

    def dump(self) -> str:
        return "\n".join(map(str, self.run("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY 1, 2")))

    def tables(self) -> list[str]:
        names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'zdm_%' ORDER BY 1"
        return [f'"{row[0]}"' for row in self.run(names)]


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[SQLiteGround]:
    bench = Bench(tmp_path / "ground.sqlite")
    try:
        yield SQLiteGround(bench)
    finally:
        bench.close()


class TestSQLite(ShapeContract):
    pass


@pytest.mark.parametrize("seed", range(3))
def test_random_schemas(ground: SQLiteGround, seed: int) -> None:
    whole_life(ground, seed)


class TestSQLiteProposals(ProposalContract):
    pass
