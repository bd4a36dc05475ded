# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Staging under traffic, resuming after a kill, and taking the stage back."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import ABSENT, COPY, STAGED, STAGING, Move
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.participant import PostgreSQL
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.twin_sql import (
    KEY_LOOKUPS_ONLY,
    Twins,
)
from ansible_collections.zdm.landscape.tests.integration.postgresql.pgsite import (
    MIGRATION,
    TABLES,
    WAIT_MS,
    A,
    B,
    C,
    Site,
    killed,
    make_small_chunks,
)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small_chunks(monkeypatch.setattr)


@contextmanager
def writers(site: Site, count: int, most: int) -> Iterator[list[int]]:
    """Writers on A, each with at most *most* transactions of several statements, ended with the block; yields the
    counts of their commits.
    """
    stop, commits = threading.Event(), [0] * count
    failures: list[BaseException] = []

    def write(index: int) -> None:
        dice = random.Random(index)
        try:
            with site.connect() as session:
                while not stop.is_set() and commits[index] < most:
                    with session.transaction():
                        one_transaction(session, dice, 10_000 + commits[index] * count + index)
                    commits[index] += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield commits
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures


def one_transaction(session: psycopg.Connection[Any], dice: random.Random, customer: int) -> None:
    """A new customer with an invoice and lines; an invoice that changes customers; one that goes, with its lines."""
    invoice, position = f"{dice.getrandbits(32):08x}-0000-4000-9000-{dice.getrandbits(48):012x}", dice.randrange(100)
    session.execute("INSERT INTO customer VALUES (%s, %s, %s, 'AT')", (A, customer, f"{customer}@example.org"))
    session.execute(
        "INSERT INTO invoice (tenant_id, id, customer_id, amount) VALUES (%s, %s, %s, 1)", (A, invoice, customer)
    )
    session.execute("INSERT INTO line VALUES (%s, %s, %s, 'y')", (A, invoice, position))
    picked = session.execute(
        "SELECT id FROM invoice WHERE tenant_id = %s ORDER BY id OFFSET %s LIMIT 1 FOR UPDATE SKIP LOCKED",
        (A, dice.randrange(200)),
    ).fetchone()
    if picked and dice.random() < 0.5:
        session.execute(
            "UPDATE invoice SET customer_id = %s WHERE tenant_id = %s AND id = %s", (customer, A, picked[0])
        )
    elif picked:
        session.execute("DELETE FROM invoice WHERE tenant_id = %s AND id = %s", (A, picked[0]))


def test_nothing_is_lost_while_the_tenant_writes(site: Site) -> None:
    participant = site.participant()
    plan = site.plan(participant)
    with writers(site, 3, 200) as commits:
        assert participant.stage(site.move(), plan, lambda event: None) > 0
        assert participant.prelude(site.move(), 30_000) >= 0
    assert min(commits) > 0
    rows = participant.fingerprint(A)
    site.switch(participant)
    assert participant.fingerprint(B) == rows


def test_progress_is_told(site: Site) -> None:
    participant, events = site.participant(), []
    assert participant.stage(site.move(), site.plan(participant), events.append) == 1200
    assert {"participant": "bills", "table": "line", "step": "copy", "rows": 600} in events
    assert [event["table"] for event in events if event["step"] == "compare" and event["rows"] == 50] == [
        "customer",
        "invoice",
        "line",
    ]


def test_stage_goes_on_after_its_session_was_ended(site: Site) -> None:
    participant = site.participant()
    plan, seen = site.plan(participant), []

    def end_session(event: dict[str, Any]) -> None:
        seen.append(event)
        if len(seen) == 10:
            site.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'zdm' AND datname ="
                f" '{site.database}'",
                admin=True,
            )

    # a connection that breaks between two transactions is opened again; one that breaks inside one is not
    copied = participant.stage(site.move(), plan, end_session)
    assert copied == 1200
    assert len(seen) > 24


def test_stage_goes_on_after_an_error_between_chunks(site: Site) -> None:
    participant = site.participant()
    plan, seen = site.plan(participant), []

    def fail(event: dict[str, Any]) -> None:
        seen.extend([event] if event["step"] == COPY else [])
        if len(seen) == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        participant.stage(site.move(), plan, fail)
    assert site.status(participant).state == STAGING
    with pytest.raises(Refused, match="does not fit state staging"):
        participant.barrier(site.move(), WAIT_MS)
    site.sql(
        f"UPDATE customer SET email = 'changed' WHERE tenant_id = '{A}' AND id = 3",
        f"DELETE FROM invoice WHERE tenant_id = '{A}' AND customer_id = 9",
    )
    assert participant.inspect(MIGRATION, A, B).digest == plan.digest
    copied = participant.stage(site.move(), plan, lambda event: None)
    assert 0 < copied <= 1200 - 8 * 50
    rows = participant.fingerprint(A)
    site.switch(participant)
    assert participant.fingerprint(B) == rows


@pytest.mark.parametrize("number", [2, 12, 30])
def test_stage_goes_on_after_a_kill(site: Site, number: int) -> None:
    assert killed(site, "stage", number)
    participant = site.staged()
    rows = participant.fingerprint(A)
    assert site.status(participant).problems == ()
    site.switch(participant)
    assert participant.fingerprint(B) == rows


def test_remove_leaves_nothing(site: Site) -> None:
    before, participant = site.catalog(), site.participant()
    rows = participant.fingerprint(A), participant.fingerprint(C)
    participant.stage(site.move(), site.plan(participant), lambda event: None)
    assert site.catalog() != before
    site.switch(participant)
    site.switch(participant, reverse=True)
    assert participant.remove(site.move()) == 1200
    assert participant.remove(site.move()) == 0
    assert site.catalog() == before
    assert (participant.fingerprint(A), participant.fingerprint(C)) == rows
    assert site.status(participant).state == ABSENT
    assert site.sql(f"SELECT count(*) FROM customer WHERE tenant_id = '{B}'") == [(0,)]


def test_remove_goes_on_after_a_kill(site: Site) -> None:
    before = site.catalog()
    site.staged()
    assert killed(site, "remove", 1)
    participant = site.participant()
    assert participant.remove(site.move()) == 1200
    assert site.catalog() == before


def test_remove_of_half_a_stage(site: Site) -> None:
    before = site.catalog()
    assert killed(site, "stage", 14)
    participant = site.participant()
    assert participant.remove(site.move()) > 0
    assert site.catalog() == before


def test_stage_again_after_half_a_remove(site: Site) -> None:
    participant = site.staged()
    site.sql(f"UPDATE customer SET email = 'later' WHERE tenant_id = '{A}' AND id = 1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            PostgreSQL,
            "drop_helpers",
            lambda *arguments: (never for never in ()).throw(KeyboardInterrupt),
        )
        with pytest.raises(KeyboardInterrupt):
            participant.remove(site.move())
    site.sql(f"UPDATE customer SET email = 'latest' WHERE tenant_id = '{A}' AND id = 2")
    assert participant.stage(site.move(), site.plan(participant), lambda event: None) >= 1198
    rows = participant.fingerprint(A)
    site.switch(participant)
    assert participant.fingerprint(B) == rows


def test_stage_again_catches_up_in_both_directions(site: Site) -> None:
    participant = site.staged()
    plan = site.plan(participant)
    for tenant, reverse in ((A, False), (B, True)):
        site.sql(f"UPDATE invoice SET amount = amount + 1 WHERE tenant_id = '{tenant}'")
        assert site.status(participant).pending == 300
        assert participant.stage(site.move(reverse), plan, lambda event: None) == 0
        assert site.status(participant).pending == 0
        rows = participant.fingerprint(tenant)
        site.switch(participant, reverse)
        assert participant.fingerprint(A if reverse else B) == rows


def test_two_migrations_share_the_schema(site: Site) -> None:
    target = "0d0d0d0d-0000-4000-8000-000000000004"
    before = site.catalog()
    first = site.staged()
    other = Move("padua--padua-scp", 1, C, target, C, target)
    second = site.participant()
    plan = second.inspect(other.migration, C, target)
    assert not plan.refusals
    second.stage(other, plan, lambda event: None)
    site.switch(first)
    second.barrier(other, WAIT_MS)
    second.turn(other)
    assert first.status(MIGRATION, A, B).problems == second.status(other.migration, C, target).problems == ()
    site.switch(first, reverse=True)
    first.remove(site.move())
    assert second.status(other.migration, C, target).live_id == target
    back = Move(other.migration, 2, C, target, target, C)
    second.barrier(back, WAIT_MS)
    second.turn(back)
    second.remove(Move(other.migration, 2, C, target, C, target))
    assert site.catalog() == before


def test_rows_of_the_target_that_came_after_the_plan(site: Site) -> None:
    participant = site.participant()
    plan = site.plan(participant)
    site.sql(f"INSERT INTO statistic VALUES ('{B}', 1)")
    before = participant.fingerprint(B)
    with pytest.raises(Refused, match="statistic already has 1 rows of the tenant id that is not live"):
        participant.stage(site.move(), plan, lambda event: None)
    assert participant.remove(site.move()) == 0
    assert participant.fingerprint(B) == before
    assert site.status(participant).state == ABSENT


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE customer ADD phone text",
        "CREATE UNIQUE INDEX extra ON outbox (body, id)",
        "ALTER TABLE line ALTER position TYPE bigint",
    ],
)
def test_schema_drift_is_refused(site: Site, change: str) -> None:
    participant = site.participant()
    plan = site.plan(participant)
    site.sql(change)
    assert participant.inspect(MIGRATION, A, B).digest != plan.digest
    with pytest.raises(Refused, match="schema has changed"):
        participant.stage(site.move(), plan, lambda event: None)
    assert site.status(participant).state == ABSENT


def test_the_digest_knows_neither_rows_nor_our_triggers(site: Site) -> None:
    participant = site.participant()
    plan = site.plan(participant)
    site.sql(f"DELETE FROM line WHERE tenant_id = '{A}'")
    participant.stage(site.move(), plan, lambda event: None)
    assert site.plan(participant).digest == plan.digest
    site.switch(participant)
    after = site.plan(participant)
    assert after.digest == plan.digest
    assert {table.strategy for table in after.tables} == {"twin", "in_place", "ignore"}


def test_a_plan_with_refusals_is_not_staged(site: Site) -> None:
    participant = site.participant(tables={})
    plan = participant.inspect(MIGRATION, A, B)
    with pytest.raises(Refused, match="country is not classified"):
        participant.stage(site.move(), plan, lambda event: None)
    assert site.status(participant).state == ABSENT


def test_triggers_wait_behind_a_writer_without_stalling_others(site: Site) -> None:
    participant = site.participant()
    plan = site.plan(participant)
    with site.connect() as long:
        long.execute("BEGIN")
        long.execute(f"UPDATE customer SET country = 'AT' WHERE tenant_id = '{C}' AND id = 1")
        thread = threading.Thread(target=participant.stage, args=(site.move(), plan, lambda event: None))
        thread.start()
        with site.connect() as bystander:
            for number in range(5):
                bystander.execute("SET statement_timeout = '5s'")
                bystander.execute(f"UPDATE customer SET country = 'IT' WHERE tenant_id = '{C}' AND id = {number + 2}")
        assert thread.is_alive()
        long.execute("COMMIT")
        thread.join()
    assert site.status(participant).state == STAGED


def test_stage_needs_the_server(site: Site) -> None:
    participant = site.staged()
    with pytest.raises(Unreachable, match="cannot be reached"):
        site.participant(port=1).inspect(MIGRATION, A, B)
    assert site.status(participant).state == STAGED
    assert TABLES["country"]["ignore"]


def test_twins_of_logged_keys_are_looked_up_by_key_although_no_statistics_know_them(site: Site) -> None:
    """The planner takes rows of an unknown id for a single one: read as a whole for every key, they would make a
    stage's time quadratic.
    """
    site.sql("ANALYZE")
    participant, plans = site.participant(), list[Any]()

    def look(entry: dict[str, Any]) -> None:
        if entry["step"] == COPY:
            scheme = _scheme(participant)
            for statement in (scheme.apply(scheme.twins, 1000), scheme.differing(scheme.twins, 1000)):
                [(plan,)] = site.sql("BEGIN", KEY_LOOKUPS_ONLY, f"EXPLAIN (FORMAT JSON) {statement}", admin=True)
                plans.append(plan)

    participant.stage(site.move(), site.plan(participant), look)
    twins = {work.relation: work.key for work in _scheme(participant).twins}
    scans = [scan for plan in plans for scan in _scans(plan[0]["Plan"]) if scan["Alias"].split("_")[0] == "b"]
    assert len(scans) == len(plans) * len(twins)
    wrong = [
        scan
        for scan in scans
        if not all(column in scan.get("Index Cond", "") for column in ("tenant_id", *twins[scan["Relation Name"]]))
    ]
    assert not wrong, json.dumps(wrong, indent=2)


def _scheme(participant: PostgreSQL) -> Twins:
    with participant.transaction() as connection:
        state = participant.state(connection, MIGRATION)
    assert state is not None
    return Twins(state)


def _scans(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "Scan" in node["Node Type"] and "Relation Name" in node:
        yield node
    for child in node.get("Plans", ()):
        yield from _scans(child)
