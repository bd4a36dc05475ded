# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real PostgreSQL server, and for each test a database of its own with the rows of three tenants."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from ansible_collections.zdm.landscape.tests.integration.postgresql.pgsite import FILL, ROWS, SCHEMA, A, C, Site
from ansible_collections.zdm.landscape.tests.landscape.processes import Processes, remove_folder
from ansible_collections.zdm.landscape.tests.landscape.servers import PostgresServer


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    folder = Path(tempfile.mkdtemp(prefix="zdm-postgresql-"))
    folder.chmod(0o755)
    try:
        with Processes(folder) as processes:
            server = PostgresServer("postgresql", folder / "server", processes)
            server.init()
            with (folder / "server" / "data" / "postgresql.conf").open("a") as config:
                config.write("max_prepared_transactions = 5\nwal_level = logical\n")
            server.start()
            server.create("seed")
            with server.connect("seed", server.app) as session:
                session.execute(SCHEMA)
                for tenant, rows in ((A, ROWS), (C, 40)):
                    session.execute(FILL.format(t=tenant, n=rows))
                session.execute(f"INSERT INTO sharing VALUES ('{A}', '{C}'), ('{C}', '{A}'), ('{A}', '{A}')")
                session.execute("ANALYZE")
            yield server
    finally:
        remove_folder(folder)


_NUMBER = count()


@pytest.fixture
def site(server: PostgresServer) -> Iterator[Site]:
    database = f"db{next(_NUMBER)}"
    server.copy_database("seed", database)
    site = Site(server, database)
    try:
        yield site
    finally:
        for participant in site.opened:
            participant.close()
        with server.connect() as session:
            session.execute(f"DROP DATABASE {database} WITH (FORCE)")
