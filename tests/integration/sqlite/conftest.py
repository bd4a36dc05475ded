# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A SQLite file of its own for each test, with and without a write-ahead log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.participant.sqlite.participant import SQLite
from ansible_collections.zdm.landscape.tests.integration.sqlite.bench import Bench
from ansible_collections.zdm.landscape.tests.integration.verb_kit import stage


@pytest.fixture(params=["delete", "wal"])
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(tmp_path / "a db%20with#odd?name.sqlite")
    try:
        bench.sql(f"PRAGMA journal_mode = {request.param}")
        bench.schema()
        yield bench
    finally:
        bench.close()


@pytest.fixture
def staged(bench: Bench) -> tuple[Bench, SQLite]:
    participant = bench.participant()
    stage(participant)
    return bench, participant
