# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shapes of real schemas on MariaDB."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import pymysql
import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.participant import MariaDB
from ansible_collections.zdm.landscape.tests.integration.mariadb.bench import Bench
from ansible_collections.zdm.landscape.tests.integration.proposal_contract import ProposalContract
from ansible_collections.zdm.landscape.tests.integration.shape_contract import ShapeContract
from ansible_collections.zdm.landscape.tests.integration.shape_kit import Ground


class MariaDBGround(Ground):
    words: ClassVar = {"id": "varchar(36)", "bytes": "binary(16)", "text": "varchar(40)", "big": "bigint unsigned"}
    refused = pymysql.Error

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

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
    pass


class TestMariaDBProposals(ProposalContract):
    pass
