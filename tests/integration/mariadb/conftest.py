# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A MariaDB server of its own for each pytest worker, a database of its own for each test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.participant import MariaDB
from ansible_collections.zdm.landscape.tests.integration.mariadb.bench import Bench, Server
from ansible_collections.zdm.landscape.tests.integration.mariadb.twinsite import FILL, ROWS, SCHEMA
from ansible_collections.zdm.landscape.tests.integration.verb_kit import A, C, stage
from ansible_collections.zdm.landscape.tests.landscape.processes import Processes, temporary_folder


@contextmanager
def running(*options: str) -> Iterator[Server]:
    with temporary_folder() as folder, Processes(folder) as processes:
        yield Server(folder, processes, *options)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture(params=["ROW", "STATEMENT"])
def logged(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A database of a server that writes a binary log."""
    with running("--log-bin=log", "--server-id=1", f"--binlog-format={request.param}") as server:
        bench = Bench(server, "logged")
        bench.schema()
        yield bench
        bench.drop()


_numbers = itertools.count(1)


@pytest.fixture
def empty(server: Server) -> Iterator[Bench]:
    bench = Bench(server, f"zt{os.getpid()}_{next(_numbers)}")
    try:
        yield bench
    finally:
        bench.drop()


@pytest.fixture
def bench(empty: Bench) -> Bench:
    empty.schema()
    return empty


@pytest.fixture
def staged(bench: Bench) -> tuple[Bench, MariaDB]:
    participant = bench.participant()
    stage(participant)
    return bench, participant


@pytest.fixture
def site(empty: Bench) -> Bench:
    for statement in SCHEMA.split(";"):
        empty.sql(statement)
    for tenant in (A, C):
        for statement in FILL:
            empty.sql(statement.format(t=tenant, n=f"seq_1_to_{ROWS}"))
    return empty
