# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shapes of real schemas on MariaDB."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import pymysql
import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import TWIN
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.participant import MariaDB
from ansible_collections.zdm.landscape.tests.integration.mariadb.bench import Bench
from ansible_collections.zdm.landscape.tests.integration.proposal_contract import ProposalContract
from ansible_collections.zdm.landscape.tests.integration.shape_contract import ShapeContract
from ansible_collections.zdm.landscape.tests.integration.shape_kit import Ground, Session
from ansible_collections.zdm.landscape.tests.integration.shape_random import whole_life


class MariaDBSession:
    def __init__(self, connection: pymysql.Connection[Any]) -> None:
        self._connection = connection

    def execute(self, statement: str) -> int:
        with self._connection.cursor() as cursor:
            return int(cursor.execute(statement))

    def query(self, statement: str) -> Any:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            row = cursor.fetchone()
        return row[0] if row else None

    def close(self) -> None:
        self._connection.close()


class MariaDBGround(Ground):
    words: ClassVar = {
        "id": "varchar(36)",
        "bytes": "binary(16)",
        "text": "varchar(40)",
        "big": "bigint unsigned",
        "number": "int NOT NULL AUTO_INCREMENT",
    }
    refused = pymysql.Error

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def session(self) -> Session:
        return MariaDBSession(self.bench.server.connect(self.bench.name, True))

    def passing(self, error: Exception) -> bool:
        return error.args[0] in (1205, 1213)

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        return self.bench.sql(statement)

    def participant(self, **options: Any) -> MariaDB:
        return self.bench.participant(**{"tenant_columns": ["tenant_id"], **options})

    def dump(self) -> str:
        text = "\n".join(str(part) for row in self.bench.catalog() for part in row)
        return re.sub(r" AUTO_INCREMENT=\d+", "", text)

    def tables(self) -> list[str]:
        return [f"`{row[0]}`" for row in self.run("SHOW TABLES") if not row[0].startswith("zdm_")]


@pytest.fixture
def ground(empty: Bench) -> MariaDBGround:
    return MariaDBGround(empty)


class TestMariaDB(ShapeContract):
    copies = TWIN
    guards_roots = True


class TestMariaDBProposals(ProposalContract):
    pass


@pytest.mark.parametrize("seed", range(3))
def test_random_schemas(ground: MariaDBGround, seed: int) -> None:
    whole_life(ground, seed)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(100, 130))
def test_many_random_schemas(ground: MariaDBGround, seed: int) -> None:
    whole_life(ground, seed)
