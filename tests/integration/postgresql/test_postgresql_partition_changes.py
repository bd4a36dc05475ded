# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Partitioned tables while others write to them, and partitions that come and go."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused, Timeout
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql import locks
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.participant import PostgreSQL
from ansible_collections.zdm.landscape.tests.integration.postgresql.partitioned import (
    BY_HASH,
    BY_TENANT,
    BY_TIME,
    FILL,
    OF_B,
)
from ansible_collections.zdm.landscape.tests.integration.postgresql.pgsite import (
    MIGRATION,
    WAIT_MS,
    A,
    B,
    C,
    Site,
    make_small_chunks,
)
from ansible_collections.zdm.landscape.tests.integration.postgresql.shapes import dump, empty, go, refusals, rows


@pytest.fixture(params=["in_place", "twin"])
def tables(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"ev": {"strategy": request.param}}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small_chunks(monkeypatch.setattr, 7)


# -- others that write --------------------------------------------------------------------------------


def late(site: Site, participant: PostgreSQL, monkeypatch: pytest.MonkeyPatch, statement: str) -> Any:
    """What becomes of a statement that waits for a row that moves: its number of rows, or its error."""
    outcome: list[Any] = []

    def write() -> None:
        with site.connect() as session:
            try:
                outcome.append(session.execute(statement).rowcount)
            except psycopg.Error as error:
                outcome.append(error)

    writer = threading.Thread(target=write)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND wait_event_type = 'Lock'"

    def moved(*_arguments: Any) -> None:
        writer.start()
        while not site.sql(waiting, admin=True)[0][0]:
            assert writer.is_alive() or not outcome, outcome

    monkeypatch.setattr(participant, "refuse_loose", moved)
    site.switch(participant)
    writer.join()
    return outcome[0]


@pytest.mark.parametrize("schema", [BY_TIME, (*BY_TENANT, OF_B)], ids=["time", "tenant"])
def test_a_late_writer_of_a_row_that_moves_is_not_told_that_it_wrote(
    site: Site, monkeypatch: pytest.MonkeyPatch, schema: tuple[str, ...]
) -> None:
    empty(site, *schema, *FILL)
    participant = site.staged(tables={"ev": {"strategy": "in_place"}})
    outcome = late(site, participant, monkeypatch, f"UPDATE ev SET v = 9 WHERE tenant_id = '{A}' AND id = 7")
    if schema == BY_TIME:
        assert outcome == 0
    else:
        assert isinstance(outcome, psycopg.errors.SerializationFailure)
        assert "already moved to another partition" in str(outcome)
    assert site.sql("SELECT count(*) FROM ev WHERE v = 9") == [(0,)]


@pytest.mark.parametrize("schema", [BY_TIME, BY_HASH], ids=["time", "hash"])
def test_other_tenants_meet_no_error_while_rows_move(
    site: Site, tables: dict[str, Any], schema: tuple[str, ...]
) -> None:
    """They write rows of their own, from one partition to another too, in the partitions in which ours move."""
    empty(site, *schema, *FILL, f"INSERT INTO ev SELECT '{C}', n, '2024-05-05' FROM generate_series(200, 300) n")
    participant = site.staged(tables=tables)
    ended, written, errors = threading.Event(), [0, 0, 0], list[psycopg.Error]()

    def write(number: int) -> None:
        with site.connect() as session:
            while not ended.is_set():
                try:
                    session.execute(
                        "UPDATE ev SET at = CASE WHEN at < '2025-01-01' THEN at + 400 ELSE at - 400 END, v = v + 1"
                        f" WHERE tenant_id = '{C}' AND id % 3 = {number}"
                    )
                    written[number] += 1
                except psycopg.Error as error:
                    errors.append(error)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for writer in writers:
        writer.start()
    for reverse in (False, True, False):
        go_live = site.switch(participant, reverse)
        assert go_live["rows"] == 100
        seen = list(written)
        while not errors and any(now == before for now, before in zip(written, seen, strict=True)):
            pass
    ended.set()
    for writer in writers:
        writer.join()
    assert errors == []
    found = site.sql(f"SELECT id % 3, count(*), sum(v) FROM ev WHERE tenant_id = '{C}' GROUP BY 1 ORDER BY 1")
    assert found == [(number, 67, 67 * written[number]) for number in range(3)]


def test_a_writer_of_a_partition_is_waited_for_and_named(site: Site, tables: dict[str, Any]) -> None:
    empty(site, *BY_TIME, *FILL)
    participant = site.staged(tables=tables)
    with site.connect() as session:
        session.autocommit = False
        session.execute(f"INSERT INTO ev25 VALUES ('{A}', 777, '2025-07-07')")
        with pytest.raises(Timeout, match="on ev25") as caught:
            participant.prelude(site.move(), 200)
        assert caught.value.details["blockers"][0]["username"] == "app"
        session.commit()
    go(site, participant)
    assert site.sql(f"SELECT count(*) FROM ev WHERE tenant_id = '{B}' AND id = 777") == [(1,)]


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
def test_an_old_snapshot_passes_no_fence_of_a_partition(site: Site, tables: dict[str, Any], isolation: str) -> None:
    empty(site, *BY_TENANT, OF_B, *FILL)
    participant = site.staged(tables=tables)
    with site.connect() as session:
        session.autocommit = False
        session.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
        session.execute("SELECT 1")
        site.switch(participant)
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            session.execute(f"INSERT INTO ev VALUES ('{A}', 777, '2025-07-07')")


@pytest.mark.parametrize("schema", [BY_TIME, (*BY_TENANT, OF_B)], ids=["time", "tenant"])
def test_an_undo_is_exact(site: Site, tables: dict[str, Any], schema: tuple[str, ...]) -> None:
    empty(site, *schema, *FILL)
    participant = site.staged(tables=tables)
    before = rows(site)
    participant.barrier(site.move(), WAIT_MS)
    participant.undo(site.move())
    assert rows(site) == before
    found = site.status(participant)
    assert (found.state, found.live_id, found.fenced, found.problems) == ("staged", A, (B,), ())
    site.sql(f"UPDATE ev SET v = 5 WHERE tenant_id = '{A}'")


def test_more_partitions_than_the_lock_table_has_room_for(
    site: Site, tables: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    empty(site, *BY_TIME, *FILL)
    assert refusals(site, tables=tables) == []
    monkeypatch.setattr(locks, "SHARE", 0.001)
    refusal = refusals(site, tables=tables)[0]
    assert refusal.object == "ev"
    assert refusal.reason.startswith("The window locks 8 tables, partitions and indexes at once")
    assert "Set max_locks_per_transaction to" in refusal.advice


# -- partitions that come and go --------------------------------------------------------------------

NEW = "CREATE TABLE ev26 PARTITION OF ev FOR VALUES FROM ('2027-01-01') TO ('2028-01-01')"


@pytest.mark.parametrize(
    "change",
    [
        (NEW,),
        ("ALTER TABLE ev DETACH PARTITION ev24", "DROP TABLE ev24"),
        ("ALTER TABLE ev25 RENAME TO ev_25",),
        (
            "ALTER TABLE ev DETACH PARTITION ev24",
            "ALTER TABLE ev ATTACH PARTITION ev24 FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')",
        ),
        ("ALTER TABLE ev25 DISABLE TRIGGER USER",),
        ("ALTER TABLE ev25 DISABLE TRIGGER USER", "ALTER TABLE ev25 ENABLE TRIGGER USER"),
        ("CREATE UNIQUE INDEX late ON ev24 (tenant_id, id)",),
    ],
    ids=["made", "dropped", "renamed", "attached_again", "switched_off", "switched_on", "indexed"],
)
def test_a_change_of_partitions_is_refused_until_the_next_stage(
    site: Site, tables: dict[str, Any], change: tuple[str, ...]
) -> None:
    empty(site, *BY_TIME, *FILL)
    participant = site.staged(tables=tables)
    site.sql(*change)
    (unready,) = site.status(participant).unready
    assert " of ev have changed" in unready or "triggers on ev were switched" in unready
    for verb in (participant.prelude, participant.barrier):
        with pytest.raises(Refused, match="ev") as caught:
            verb(site.move(), WAIT_MS)
        assert "Run the stage playbook" in caught.value.advice
    participant.stage(site.move(), site.plan(participant), lambda _entry: None)
    assert site.status(participant).unready == ()
    go(site, participant)
    go(site, participant, reverse=True)


def test_a_switched_off_trigger_of_one_partition_is_no_fence(site: Site) -> None:
    empty(site, *BY_TIME, *FILL)
    participant = site.staged(tables={"ev": {"strategy": "in_place"}})
    assert site.status(participant).fenced == (B,)
    site.sql("ALTER TABLE ev25 DISABLE TRIGGER USER")
    found = site.status(participant)
    assert found.fenced == ()
    assert found.problems == (f"State staged, but {B} is not fenced on every planned table.",)


def test_a_partition_that_is_attached_brings_its_rows(site: Site, tables: dict[str, Any]) -> None:
    empty(site, *BY_TIME, *FILL)
    participant = site.staged(tables=tables)
    site.sql(
        "CREATE TABLE ev30 (LIKE ev INCLUDING ALL)",
        f"INSERT INTO ev30 SELECT '{A}', n, '2030-01-01' FROM generate_series(1, 20) n",
        "ALTER TABLE ev ATTACH PARTITION ev30 FOR VALUES FROM ('2030-01-01') TO ('2031-01-01')",
    )
    participant.stage(site.move(), site.plan(participant), lambda _entry: None)
    go(site, participant)
    assert site.sql(f"SELECT count(*) FROM ev WHERE tenant_id = '{B}'") == [(120,)]


def test_a_detached_partition_becomes_a_table_of_its_own(site: Site) -> None:
    empty(site, *BY_TIME, *FILL)
    participant = site.staged(tables={"ev": {"strategy": "in_place"}})
    site.sql("ALTER TABLE ev DETACH PARTITION ev24")
    found = site.status(participant).unready
    assert found[-1] == "Table ev24 has a tenant column and is not staged."
    with pytest.raises(Refused, match="ev"):
        participant.barrier(site.move(), WAIT_MS)
    participant.stage(site.move(), site.plan(participant), lambda _entry: None)
    go(site, participant)
    assert site.sql(f"SELECT count(*) FROM ev24 WHERE tenant_id = '{A}'") == [(0,)]


def test_copies_in_a_detached_partition_are_named(site: Site) -> None:
    tables = {"ev": {"strategy": "twin"}}
    empty(site, *BY_TIME, *FILL)
    structure, before = dump(site), rows(site)
    participant = site.staged(tables=tables)
    site.sql("ALTER TABLE ev DETACH PARTITION ev24")
    (refusal,) = participant.inspect(MIGRATION, A, B).refusals
    assert refusal.reason.startswith("Table ev24 was a partition of ev when that was staged, and holds 36 rows")
    site.sql("ALTER TABLE ev ATTACH PARTITION ev24 FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')")
    participant.stage(site.move(), site.plan(participant), lambda _entry: None)
    site.sql("ALTER TABLE ev DETACH PARTITION ev24", f"DELETE FROM ev24 WHERE tenant_id = '{B}'")
    participant.stage(site.move(), site.plan(participant), lambda _entry: None)
    go(site, participant)
    go(site, participant, reverse=True)
    site.sql("ALTER TABLE ev ATTACH PARTITION ev24 FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')")
    participant.remove(site.move())
    assert (dump(site), rows(site)) == (structure, before)


def test_a_dropped_partition_of_the_other_id_is_missed_and_made_again(site: Site, tables: dict[str, Any]) -> None:
    empty(site, *BY_TENANT, OF_B, *FILL)
    participant = site.staged(tables=tables)
    go(site, participant)
    site.sql("ALTER TABLE ev DETACH PARTITION ev_a", "DROP TABLE ev_a")
    assert site.status(participant).unready
    (refusal,) = participant.inspect(MIGRATION, A, B).refusals
    assert refusal.reason.startswith(f"Table ev has no partition for rows of {A}")
    site.sql(BY_TENANT[1])
    participant.stage(site.move(reverse=True), site.plan(participant), lambda _entry: None)
    go(site, participant, reverse=True)
    assert site.sql(f"SELECT count(*) FROM ev WHERE tenant_id = '{A}'") == [(100,)]


def test_abort_removes_copies_from_every_partition_and_nothing_else(site: Site) -> None:
    """Rows of different partitions have the same ctid."""
    empty(site, *BY_HASH, *FILL)
    structure, before = dump(site), rows(site)
    participant = site.staged(tables={"ev": {"strategy": "twin"}})
    participant.remove(site.move())
    assert (dump(site), rows(site)) == (structure, before)


def test_the_plan_says_what_partitions_mean(site: Site) -> None:
    empty(site, *BY_TENANT, OF_B, *FILL)
    in_place = site.participant(tables={"ev": {"strategy": "in_place"}}).inspect(MIGRATION, A, B)
    assert any("rows of ev anew in other partitions" in caution for caution in in_place.cautions)
    twin = site.participant(tables={"ev": {"strategy": "twin"}}).inspect(MIGRATION, A, B)
    assert not any("anew" in caution for caution in twin.cautions)
    assert any("after a partition of ev is made" in caution for caution in twin.cautions)
