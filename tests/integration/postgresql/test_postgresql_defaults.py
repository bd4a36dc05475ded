# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database, a role and a pooler that were set up for somebody else: the migration's sessions are what it needs all
the same.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import ABSENT
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute
from ansible_collections.zdm.landscape.tests.integration.postgresql.pgsite import MIGRATION, A, B, C, Site
from ansible_collections.zdm.landscape.tests.landscape.processes import (
    Processes,
    User,
    free_port,
    private_folder,
    temporary_folder,
    wait_until,
)

HOSTILE = {
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "statement_timeout": "40ms",
    "lock_timeout": "15ms",
    "idle_in_transaction_session_timeout": "40ms",
    "standard_conforming_strings": "off",
    "backslash_quote": "on",
    "transform_null_equals": "on",
    "array_nulls": "off",
    "quote_all_identifiers": "on",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kathmandu",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "client_encoding": "LATIN1",
    "synchronous_commit": "off",
    "search_path": "public, hostile, pg_catalog",
    "enable_indexscan": "off",
    "jit": "on",
}
"""What a role or a database may have as its defaults, each for a good reason of somebody's."""
TRAPS = (
    "CREATE SCHEMA hostile",
    "GRANT USAGE ON SCHEMA hostile TO PUBLIC",
    "CREATE FUNCTION hostile.now() RETURNS timestamptz LANGUAGE plpgsql AS $$BEGIN RAISE 'hostile.now'; END$$",
    "CREATE FUNCTION hostile.md5(text) RETURNS text LANGUAGE sql AS $$SELECT 'the same'$$",
    "CREATE FUNCTION hostile.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS $$SELECT 'nothing was set'$$",
)


def hostile(site: Site, of: str = "ROLE zdm") -> None:
    site.sql(*TRAPS, *(f"ALTER {of} SET {name} = {value}" for name, value in quoted().items()), admin=True)


def quoted() -> dict[str, str]:
    return {name: value if name == "search_path" else f"'{value}'" for name, value in HOSTILE.items()}


@pytest.fixture
def kind(site: Site) -> Iterator[Site]:
    """The site; the role's defaults are reset at the end, as all sites share it."""
    yield site
    with site.server.connect() as session:
        session.execute("ALTER ROLE zdm RESET ALL")


def late(site: Site, tenant: str, number: int) -> None:
    """A job that bypasses the routers: it has written before the barrier, and commits while the barrier waits for
    it.
    """
    session = psycopg.connect(
        host="127.0.0.1", port=site.server.port, dbname=site.database, user="app", password=site.server.app.password
    )
    session.execute(f"UPDATE customer SET email = 'late{number}' WHERE tenant_id = '{tenant}' AND id = 7")
    session.execute(f"INSERT INTO customer VALUES ('{tenant}', {5000 + number}, 'late-insert{number}', 'AT')")
    session.execute(
        f"DELETE FROM line WHERE tenant_id = '{tenant}' AND invoice_id = '00000000-0000-4000-8000-{10 + number:012d}'"
    )
    session.execute(f"INSERT INTO outbox (tenant_id, body) VALUES ('{tenant}', 'late{number}')")
    session.execute(f"UPDATE statistic SET writes = writes + 1 WHERE tenant_id = '{tenant}'")

    def commit() -> None:
        waits = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'zdm.landscape' AND wait_event_type ="
            " 'Lock' AND datname = %s"
        )
        with site.server.connect() as look:
            wait_until(
                lambda: look.execute(waits, (site.database,)).fetchone() != (0,), "the barrier waits", pause_s=0.001
            )
        session.commit()
        session.close()

    threading.Thread(target=commit).start()


def counts(site: Site, tenant: str) -> list[Any]:
    tables = ("customer", "invoice", "line", "statistic", "outbox")
    rows = [site.sql(f"SELECT count(*) FROM {table} WHERE tenant_id = '{tenant}'")[0][0] for table in tables]
    return [*rows, site.sql(f"SELECT writes FROM statistic WHERE tenant_id = '{tenant}'")[0][0]]


@pytest.mark.parametrize("of", ["ROLE zdm", "ROLE zdm IN DATABASE {database}"])
def test_the_whole_life_under_hostile_defaults(kind: Site, of: str) -> None:
    """Stage, windows there and back with late writers, removal: no write is lost, nothing is left."""
    site = kind
    hostile(site, of.format(database=site.database))
    before = site.catalog()
    participant = site.staged()
    bystander = counts(site, C)
    live, other, expected = A, B, counts(site, A)
    for number in range(4):
        participant.close()  # every window of its own session
        site.epoch += 1
        move = site.move(reverse=bool(number % 2))
        participant.take_over(move)
        participant.prelude(move, 20_000)
        late(site, live, number)
        participant.barrier(move, 20_000)
        participant.turn(move)
        live, other = other, live
        expected = [expected[0] + 1, expected[1], expected[2] - 2, expected[3], expected[4] + 1, expected[5] + 1]
        assert counts(site, live) == expected
        assert site.sql(f"SELECT email FROM customer WHERE tenant_id = '{live}' AND id = 7") == [(f"late{number}",)]
        assert site.status(participant).problems == ()
    assert participant.fingerprint(live) != ""
    assert counts(site, C) == bystander
    participant.remove(site.move(epoch=9), lambda _entry: None)
    assert (site.status(participant).state, site.catalog()) == (ABSENT, before)


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
@pytest.mark.parametrize("of", ["ROLE zdm", "DATABASE {database}"])
def test_every_session_reads_what_is_committed(kind: Site, level: str, of: str) -> None:
    kind.sql(f"ALTER {of.format(database=kind.database)} SET default_transaction_isolation = '{level}'", admin=True)
    with kind.participant().transaction() as connection:
        assert execute(connection, "SELECT current_setting('transaction_isolation')").scalar_one() == "read committed"


def test_a_commit_is_on_disk_when_it_is_acknowledged(kind: Site) -> None:
    """After the journal's commit a server that crashes must still have what the barrier wrote."""
    for default, found in (("off", "on"), ("local", "local"), ("remote_write", "remote_write")):
        kind.sql(f"ALTER ROLE zdm SET synchronous_commit = '{default}'", admin=True)
        with kind.participant().transaction() as connection:
            assert execute(connection, "SELECT current_setting('synchronous_commit')").scalar_one() == found


def test_the_default_schema_is_the_operators(kind: Site) -> None:
    """A role's search path says which tables have no schema in their names; functions are always the server's."""
    kind.sql(
        "CREATE SCHEMA own AUTHORIZATION app",
        "CREATE TABLE own.note (tenant_id uuid, id int, PRIMARY KEY (tenant_id, id))",
        "ALTER TABLE own.note OWNER TO app",
        "ALTER ROLE zdm SET search_path = own, public",
        admin=True,
    )
    names = {table.table for table in kind.participant(tables={}).inspect(MIGRATION, A, B).tables}
    assert {"note", "public.customer"} <= names


@pytest.fixture
def pooled(site: Site, request: pytest.FixtureRequest) -> Iterator[int]:
    """Port of a real PgBouncer before the site's database; its mode is the parameter."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "pgbouncer is not installed: apt-get install pgbouncer"
    port, user = free_port(), User.unprivileged("postgres")
    with temporary_folder() as folder, Processes(folder) as processes:
        own = private_folder(folder / "pgbouncer", user)
        files = {
            "users.txt": f'"zdm" "{site.server.zdm.password}"\n',
            "pgbouncer.ini": (
                f"[databases]\n* = host=127.0.0.1 port={site.server.port}\n[pgbouncer]\nlisten_addr ="
                f" 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = plain\nauth_file ="
                f" {own}/users.txt\npool_mode = {request.param}\n"
            ),
        }
        for name, content in files.items():
            (own / name).write_text(content)
            (own / name).chmod(0o644)
        process = processes.start("pgbouncer", [program, str(own / "pgbouncer.ini")], user=user)
        process.wait_ready(lambda: listens(port))
        yield port
        for participant in site.opened:
            participant.close()


def listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("pooled", ["transaction"], indirect=True)
def test_a_pooler_that_changes_sessions_is_refused_by_name(site: Site, pooled: int) -> None:
    with pytest.raises(
        Refused,
        match=(
            r"participant bills .*: a pooler or proxy .* changes sessions between transactions. Give host and port of"
            r" the server"
        ),
    ):
        site.participant(port=pooled).inspect(MIGRATION, A, B)
    with site.connect(admin=True) as session:
        left = session.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'zdm.landscape' AND state <> 'idle'"
        ).fetchone()
    assert left == (0,)


@pytest.mark.parametrize("pooled", ["session"], indirect=True)
def test_a_pooler_that_keeps_sessions_is_no_obstacle(site: Site, pooled: int) -> None:
    participant = site.staged(port=pooled)
    assert site.switch(participant)["rows"] == 1304
    assert site.status(participant).problems == ()
