# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server that was set up for somebody else: the migration's sessions are what it needs all the same."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import ABSENT
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.participant import MariaDB
from ansible_collections.zdm.landscape.tests.integration.mariadb.bench import Bench
from ansible_collections.zdm.landscape.tests.integration.mariadb.conftest import running
from ansible_collections.zdm.landscape.tests.integration.verb_kit import KEY, WAIT_MS, A, B, C, move, stage
from ansible_collections.zdm.landscape.tests.landscape.processes import wait_until

HOSTILE = (
    "--transaction-isolation=SERIALIZABLE",
    "--sql-mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT,IGNORE_SPACE,PAD_CHAR_TO_FULL_LENGTH",
    "--max-statement-time=0.04",
    "--lock-wait-timeout=0",
    "--innodb-lock-wait-timeout=1",
    "--wait-timeout=2",
    "--idle-transaction-timeout=1",
    "--idle-write-transaction-timeout=1",
    "--idle-readonly-transaction-timeout=1",
    "--completion-type=CHAIN",
    "--default-time-zone=+05:45",
    "--character-set-server=latin1",
    "--collation-server=latin1_swedish_ci",
    "--autocommit=0",
    "--group-concat-max-len=4",
    "--div-precision-increment=0",
    "--max-join-size=100",
    "--default-storage-engine=MyISAM",
    "--init-connect=SET NAMES latin1, sql_safe_updates=1, sql_select_limit=7, sql_big_selects=0, unique_checks=0,"
    " sql_auto_is_null=1, tx_read_only=1",
)
"""What a server may have as its defaults, each for a good reason of somebody's."""


@pytest.fixture(scope="module")
def hostile() -> Iterator[Bench]:
    with running(*HOSTILE) as server:
        bench = Bench(server, "hostile")
        bench.sql(
            "SET SESSION sql_mode = '', max_statement_time = 0, wait_timeout = 28800, idle_transaction_timeout = 0,"
            " completion_type = 0"
        )
        bench.sql("SET SESSION default_storage_engine = InnoDB")
        bench.schema()
        bench.sql("ALTER TABLE item DROP FOREIGN KEY item_ibfk_1")  # it cascades: no twin
        yield bench
        bench.drop()


def counts(bench: Bench, tenant: str) -> dict[str, int]:
    return {
        table: bench.sql(f"SELECT COUNT(*) FROM {table} WHERE tenant_id = '{tenant}'")[0][0]
        for table in ("bill", "item", "event", "share")
    }


def late(bench: Bench, tenant: str, number: int) -> threading.Thread:
    """A job that bypasses the routers: it has written before the barrier and commits while the barrier waits for it."""
    session = bench.application(autocommit=False, isolation="READ COMMITTED")
    with session.cursor() as cursor:
        cursor.execute(
            "SET SESSION sql_mode = '', max_statement_time = 0, idle_transaction_timeout = 0, completion_type = 0"
        )
        cursor.execute(f"UPDATE bill SET note = 'late{number}' WHERE tenant_id = '{tenant}' AND id = 7")
        cursor.execute(f"INSERT INTO bill (tenant_id, id, note) VALUES ('{tenant}', {5000 + number}, 'late')")
        cursor.execute(f"DELETE FROM item WHERE tenant_id = '{tenant}' AND bill = {20 + number}")

    def commit() -> None:
        waits = "SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_state = 'LOCK WAIT'"
        wait_until(lambda: run_once(waits), "the barrier waits", pause_s=0.15)
        session.commit()

    def run_once(query: str) -> Any:
        with look.cursor() as cursor:
            cursor.execute(query)
            (found,) = cursor.fetchone() or (0,)
        look.rollback()
        return found

    look = bench.server.connect(None)
    thread = threading.Thread(target=commit)
    thread.start()
    return thread


@pytest.mark.parametrize("strategy", ["in_place", "twin"])
def test_the_whole_life_under_hostile_defaults(hostile: Bench, strategy: str) -> None:
    """Stage, windows there and back with late writers, removal: no write is lost, nothing is left."""
    tables = {name: {"strategy": strategy} for name in ("bill", "item")} | {
        name: {"strategy": "in_place"} for name in ("event", "share")
    }
    before, bystander = hostile.catalog(), counts(hostile, C)
    participant = hostile.participant(tables=tables, no_cross_tenant_readers=True)
    stage(participant)
    live, other, expected = A, B, counts(hostile, A)
    for number in range(4):
        participant.close()
        at = move(number + 2, forward=not number % 2)
        participant.take_over(at)
        job = late(hostile, live, number if strategy == "in_place" else number + 10)
        participant.prelude(at, WAIT_MS * 4)
        participant.barrier(at, WAIT_MS * 4)
        job.join()
        participant.turn(at)
        live, other = other, live
        expected = {**expected, "bill": expected["bill"] + 1, "item": expected["item"] - 1}
        assert counts(hostile, live) == expected
        assert participant.status(KEY, A, B).problems == ()
    participant.remove(move(9), lambda _entry: None)
    assert participant.status(KEY, A, B).state == ABSENT
    assert (hostile.catalog(), counts(hostile, C), counts(hostile, A)) == (before, bystander, expected)


def test_every_session_is_ours(hostile: Bench) -> None:
    with hostile.participant().transaction() as connection:
        row = execute(
            connection,
            "SELECT @@tx_isolation, @@sql_mode, @@max_statement_time, @@character_set_connection, @@sql_select_limit,"
            " @@tx_read_only, @@wait_timeout",
        ).one()
    assert row[:1] == ("READ-COMMITTED",)
    assert sorted(row[1].split(",")) == ["NO_AUTO_VALUE_ON_ZERO", "STRICT_ALL_TABLES"]
    assert tuple(row[2:]) == (0, "utf8mb4", 2**64 - 1, 0, 28800)


def test_a_proxy_that_serves_by_another_thread_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stands in between tells its own number for the thread at the login."""
    monkeypatch.setattr(MariaDB, "thread_id", lambda _self, _connection: 1_000_000)
    with pytest.raises(
        Refused,
        match=(
            r"mariadb participant .*: a proxy .* changes sessions between transactions, or may. Give host and port of"
            r" the server"
        ),
    ):
        bench.participant().inspect(KEY, A, B)
