# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stage of MariaDB as a reconciler."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.participant import MariaDB
from ansible_collections.zdm.landscape.tests.integration.mariadb.bench import Bench
from ansible_collections.zdm.landscape.tests.integration.mariadb.twinsite import bypassing
from ansible_collections.zdm.landscape.tests.integration.reconciler_contract import (
    BarrierContract,
    ReconcilerContract,
    TwinContract,
)
from ansible_collections.zdm.landscape.tests.integration.reconciler_kit import SCHEMA, TwinScene
from ansible_collections.zdm.landscape.tests.integration.verb_kit import A, C


class MariaDBScene(TwinScene):
    retype = "ALTER TABLE bill MODIFY v BIGINT NOT NULL"

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        return self.bench.sql(statement)

    def session(self) -> Any:
        return self.bench.application(autocommit=False)

    def connect(self, options: dict[str, Any]) -> MariaDB:
        return self.bench.participant(**options, ddl_wait_ms=50)

    def passing(self, error: Exception) -> bool:
        return error.args[0] in (1205, 1213)

    def unlogged(self, statement: str) -> None:
        with bypassing(self.bench):
            self.sql(statement)

    def drop_trigger(self, table: str) -> None:
        found = self.sql(f"SHOW TRIGGERS WHERE `Table` = '{table}' AND Event = 'UPDATE'")
        self.sql(f"DROP TRIGGER {found[0][0]}")

    def rebuild(self, table: str) -> None:
        self.sql(f"CREATE TABLE copied LIKE {table}")
        self.sql(f"INSERT INTO copied SELECT * FROM {table}")
        self.sql(f"RENAME TABLE {table} TO away, copied TO {table}")
        self.sql("DROP TABLE away")

    def kept(self) -> list[tuple[str, dict[str, Any]]]:
        (name,) = (row[0] for row in self.sql("SHOW TABLES LIKE 'zdm\\_kept\\_%'"))
        return [(row[0], json.loads(row[1])) for row in self.sql(f"SELECT table_name, `row` FROM {name}")]


@pytest.fixture
def scene(empty: Bench) -> MariaDBScene:
    scene = MariaDBScene(empty)
    for statement in SCHEMA:
        scene.sql(statement)
    scene.fill(A)
    scene.fill(C, 1000)
    return scene


class TestReconciler(ReconcilerContract):
    pass


class TestBarrier(BarrierContract):
    pass


class TestTwins(TwinContract):
    pass
