# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Twins on a real MariaDB: staged under traffic, switched to and fro, killed anywhere."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pymysql
import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.participant import copying
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    ABSENT,
    COMPARE,
    FENCED,
    MOVED,
    STAGED,
    STAGING,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb import twin as mariadb_twin
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.participant import MariaDB
from ansible_collections.zdm.landscape.tests.integration.mariadb.bench import Bench, run
from ansible_collections.zdm.landscape.tests.integration.mariadb.twinsite import (
    ROWS,
    bypassing,
    catalog,
    options_of,
    participant_of,
    rows,
    switch,
)
from ansible_collections.zdm.landscape.tests.integration.verb_kit import (
    KEY,
    WAIT_MS,
    A,
    B,
    C,
    killed,
    move,
    stage,
    status,
)

LEVELS = ("READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "CHUNK_ROWS", 20)
    monkeypatch.setattr(mariadb_twin, "CHUNK_ROWS", 20)
    monkeypatch.setattr(copying, "COMPARE_ROWS", 50)
    monkeypatch.setattr(copying.Pace, "measured", lambda self, run: run(self.rows))


@contextmanager
def writers(site: Bench, tenant: str = A, most: int = 25) -> Iterator[list[int]]:
    """One writer per isolation level with at most *most* transactions, ended with the block; yields the counts of their
    commits.
    """
    stop, commits, failures = threading.Event(), [0] * len(LEVELS), list[BaseException]()

    def write(index: int) -> None:
        dice, session = random.Random(index), site.application(autocommit=False, isolation=LEVELS[index])
        run(session, "SET SESSION innodb_lock_wait_timeout = 1")
        while not stop.is_set() and commits[index] < most:
            try:
                one_transaction(session, dice, tenant, uuid.uuid4().hex[:20])
                session.commit()
                commits[index] += 1
            except BaseException as error:
                session.rollback()
                if not isinstance(error, pymysql.err.OperationalError) or error.args[0] not in (
                    1205,
                    1213,
                ):  # writers may be in each other's way
                    failures.append(error)
                    commits[index] = most
            stop.wait(0.01)

    threads = [threading.Thread(target=write, args=(index,)) for index in range(len(LEVELS))]
    for thread in threads:
        thread.start()
    try:
        yield commits
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures


def one_transaction(session: pymysql.Connection[Any], dice: random.Random, tenant: str, name: str) -> None:
    """A customer with orders comes, one changes, two exchange their mail addresses, orders go, an order changes hands
    or number.
    """
    run(
        session, f"INSERT INTO customer (tenant_id, id, email, country) VALUES ('{tenant}', '{name}', '{name}@y', 'IT')"
    )
    run(session, f"INSERT INTO `order` (tenant_id, customer) VALUES ('{tenant}', '{name}'), ('{tenant}', '{name}')")
    run(
        session,
        f"UPDATE customer SET balance = balance + 1 WHERE tenant_id = '{tenant}' AND id ="
        f" 'c''\\\\{dice.randrange(1, ROWS)}'",
    )
    first, second = dice.sample(range(1, ROWS), 2)
    for number, mail in ((first, f"'{name}@z'"), (second, f"'{first}@{name}'"), (first, f"'{second}@{name}'")):
        run(session, f"UPDATE customer SET email = {mail} WHERE tenant_id = '{tenant}' AND id = 'c''\\\\{number}'")
    run(session, f"DELETE FROM `order` WHERE tenant_id = '{tenant}' ORDER BY id LIMIT 1")
    run(session, f"UPDATE `order` SET id = -id WHERE tenant_id = '{tenant}' AND id > 0 ORDER BY id LIMIT 1")
    run(
        session,
        f"UPDATE odd SET label = '{name}' WHERE tenant_id = '{tenant}' AND part = {dice.randrange(1, ROWS)} / 4",
    )
    run(session, f"INSERT INTO outbox (tenant_id, body) VALUES ('{tenant}', '{name}')")


def test_plan(site: Bench) -> None:
    before = catalog(site), rows(site)
    plan = participant_of(site).inspect(KEY, A, B)
    assert plan.refusals == ()
    strategies = {**dict.fromkeys(("customer", "order", "odd"), "twin"), "outbox": "in_place", "country": "ignore"}
    assert {table.table: table.strategy for table in plan.tables} == strategies
    assert plan.stage_ms > 0
    assert any("CREATE TABLE IF NOT EXISTS `zdm_log_" in statement for statement in plan.sql)
    assert (catalog(site), rows(site)) == before


def test_auto_takes_twins_where_in_place_takes_too_long(site: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("SMALL_MS", "FEW_ROWS"):
        monkeypatch.setattr(f"ansible_collections.zdm.landscape.plugins.module_utils.participant.choice.{limit}", -1)
    plan = participant_of(site, tables={"country": {"ignore": "no tenant data"}}).inspect(KEY, A, B)
    assert {table.table: table.strategy for table in plan.tables} == {
        **dict.fromkeys(("customer", "order", "odd"), "twin"),
        "outbox": "in_place",  # its key does not contain the tenant
        "country": "ignore",
    }
    assert plan.refusals == ()


def test_stage_copies_verifies_and_tells(site: Bench) -> None:
    participant = participant_of(site)
    seen: list[dict[str, Any]] = []
    before = participant.fingerprint(A), participant.fingerprint(C)
    assert stage(participant, progress=seen.append) == 3 * ROWS
    assert {"participant": "rating", "table": "order", "step": "copy", "rows": ROWS} in seen
    assert [entry["table"] for entry in seen if entry["step"] == COMPARE and entry["rows"] == ROWS] == [
        "customer",
        "odd",
        "order",
    ]
    assert status(participant) == (STAGED, A, (B,))
    assert participant.status(KEY, A, B).rows == {A: 4 * ROWS, B: 3 * ROWS}
    assert (participant.fingerprint(A), participant.fingerprint(C)) == before
    again = participant.inspect(KEY, A, B)
    assert again.refusals == ()
    assert {table.why for table in again.tables} == {"Staged this way.", "no tenant data"}


def test_nothing_is_lost_while_the_tenant_writes(site: Bench) -> None:
    participant = participant_of(site)
    with writers(site) as commits:
        assert stage(participant) > 0
        participant.take_over(move(2))
        participant.prelude(move(2), 30_000)
    assert min(commits) > 0
    content = participant.fingerprint(A)
    result = switch(participant, 3)
    assert result["tables"]["outbox"] > ROWS
    assert participant.fingerprint(B) == content
    assert participant.status(KEY, A, B).problems == ()


def test_to_and_fro_under_writes(site: Bench) -> None:
    participant, foreign = participant_of(site), participant_of(site).fingerprint(C)
    schema = catalog(site)
    stage(participant)
    for epoch in range(2, 6):
        forward = epoch % 2 == 0
        live, other = (A, B) if forward else (B, A)
        with writers(site, live) as commits:
            while min(commits) < 1:
                stage(participant, move(epoch - 1, forward))  # as long as writes come in: applies what was logged
        pending = participant.status(KEY, A, B).pending
        content = participant.fingerprint(live)
        participant.take_over(move(epoch, forward))
        assert participant.prelude(move(epoch, forward), WAIT_MS) == pending
        participant.barrier(move(epoch, forward), WAIT_MS)
        participant.turn(move(epoch, forward))
        assert participant.fingerprint(other) == content
        assert status(participant) == (STAGED, other, (live,))
    assert participant.fingerprint(C) == foreign
    assert participant.remove(move(5)) > 0
    assert catalog(site) == schema
    assert participant.fingerprint(B) == participant.fingerprint("nobody")


def test_the_barrier_applies_what_came_last(site: Bench) -> None:
    participant = participant_of(site)
    stage(participant)
    site.sql(f"UPDATE customer SET email = CONCAT('late', email) WHERE tenant_id = '{A}'")
    site.sql(f"DELETE FROM odd WHERE tenant_id = '{A}' ORDER BY at LIMIT 30")
    content = participant.fingerprint(A)
    assert participant.status(KEY, A, B).pending == ROWS + 30
    participant.barrier(move(2), WAIT_MS)
    assert participant.status(KEY, A, B).pending == 0
    assert status(participant) == (MOVED, A, tuple(sorted((A, B))))
    participant.undo(move(2))
    assert participant.fingerprint(A) == content
    participant.barrier(move(3), WAIT_MS)
    participant.turn(move(3))
    assert participant.fingerprint(B) == content


def test_values_of_a_unique_key_that_change_hands(site: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is longer than a batch, and the rows that exchange values lie in different batches."""
    monkeypatch.setattr(copying, "LOG_BATCH", 25)
    participant = participant_of(site)
    stage(participant)
    session = site.application(autocommit=False)
    run(session, f"UPDATE customer SET email = 'free' WHERE tenant_id = '{A}' AND id = 'c''\\\\1'")
    for number in range(2, 60):
        run(session, f"UPDATE customer SET email = '{number - 1}@x' WHERE tenant_id = '{A}' AND id = 'c''\\\\{number}'")
    run(session, f"UPDATE customer SET email = '59@x' WHERE tenant_id = '{A}' AND id = 'c''\\\\1'")
    session.commit()
    content = participant.fingerprint(A)
    switch(participant, 2)
    assert participant.fingerprint(B) == content


def test_both_ids_are_fenced_when_they_must_be(site: Bench) -> None:
    participant, application = participant_of(site), site.application()
    stage(participant)

    def refused(tenant: str) -> bool:
        try:
            run(
                application,
                f"INSERT INTO customer (tenant_id, id, email, country) VALUES ('{tenant}', UUID(), UUID(), 'AT')",
            )
        except pymysql.err.MySQLError as error:
            return "is closed by a migration" in error.args[1]
        return False

    assert (refused(A), refused(B), refused(C)) == (False, True, False)
    participant.barrier(move(2), WAIT_MS)
    assert (refused(A), refused(B), refused(C)) == (True, True, False)
    participant.turn(move(2))
    assert (refused(A), refused(B), refused(C)) == (True, False, False)


def test_stage_goes_on_where_it_was(site: Bench) -> None:
    participant = participant_of(site)
    seen: list[dict[str, Any]] = []

    def fail(entry: dict[str, Any]) -> None:
        seen.append(entry)
        if sum(step["step"] == "copy" for step in seen) == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage(participant, progress=fail)
    assert participant.status(KEY, A, B).state == STAGING
    with pytest.raises(Refused, match="staging"):
        participant.barrier(move(1), WAIT_MS)
    site.sql(f"UPDATE customer SET balance = 3 WHERE tenant_id = '{A}' AND id = 'c''\\\\3'")
    site.sql(f"DELETE FROM `order` WHERE tenant_id = '{A}' LIMIT 3")
    assert 0 < stage(participant) < 2 * ROWS
    content = participant.fingerprint(A)
    switch(participant, 2)
    assert participant.fingerprint(B) == content


@pytest.mark.parametrize("verb", ["barrier", "undo", "turn"])
def test_killed_inside_a_verb(site: Bench, verb: str) -> None:
    participant = participant_of(site)
    stage(participant)
    site.sql(f"UPDATE customer SET balance = balance + 1 WHERE tenant_id = '{A}' LIMIT 12")
    content = participant.fingerprint(A)
    if verb != "barrier":
        participant.barrier(move(1), WAIT_MS)
    begin, end = {
        "barrier": ((STAGED, A), (MOVED, A)),
        "undo": ((MOVED, A), (STAGED, A)),
        "turn": ((MOVED, A), (STAGED, B)),
    }[verb]
    for statement in killed(MariaDB, options_of(site), verb, move(1)):
        participant.take_over(move(1))
        between = ((FENCED, A),) if verb == "barrier" else ()
        assert status(participant)[:2] in (begin, *between, end), f"before statement {statement}"
    assert status(participant)[:2] == end
    if verb != "turn":
        switch(participant, 2)
    assert participant.fingerprint(B) == content


@pytest.mark.parametrize("verb", ["stage", "remove"])
def test_killed_inside_stage_and_remove(site: Bench, verb: str) -> None:
    participant, before, content = participant_of(site), catalog(site), participant_of(site).fingerprint(A)
    if verb == "remove":
        stage(participant)
    for statement in killed(MariaDB, options_of(site), verb, move(1), every=5):
        assert participant.status(KEY, A, B).state in (ABSENT, STAGING, STAGED), f"before statement {statement}"
        site.sql(f"UPDATE customer SET balance = balance WHERE tenant_id = '{A}' LIMIT 5")
        assert participant.fingerprint(A) == content
    if verb == "stage":
        assert status(participant) == (STAGED, A, (B,))
        assert participant.fingerprint(A) == content
        participant.remove(move(1))
    assert catalog(site) == before
    assert site.sql(f"SELECT COUNT(*) FROM customer WHERE tenant_id = '{B}'") == [(0,)]


def test_rows_of_the_target_that_came_after_the_plan(site: Bench) -> None:
    participant = participant_of(site)
    plan = participant.inspect(KEY, A, B)
    original = participant.make_fences

    def late(*arguments: Any) -> None:  # right before the fence is there
        site.sql(
            f"INSERT INTO odd SELECT at, '{B}', raw, uid, part, data, ratio, flags, label FROM odd WHERE tenant_id ="
            f" '{C}' LIMIT 1"
        )
        original(*arguments)

    participant.make_fences = late  # type: ignore[method-assign, assignment]
    with pytest.raises(Refused, match=rf"tables hold rows of {B}, which is not live: odd \(1\)"):
        participant.stage(move(), plan, lambda _entry: None)
    assert participant.remove(move()) == 0
    assert site.sql(f"SELECT COUNT(*) FROM odd WHERE tenant_id = '{B}'") == [(1,)]
    assert participant.status(KEY, A, B).state == ABSENT


def test_a_twin_that_somebody_changed_is_found(site: Bench) -> None:
    participant = participant_of(site)
    seen: list[dict[str, Any]] = []

    def tamper(entry: dict[str, Any]) -> None:
        if entry["step"] == COMPARE and not seen:
            seen.append(entry)
            with bypassing(site):
                site.sql(f"UPDATE odd SET label = 'e' WHERE tenant_id = '{B}' LIMIT 1")  # equal to its collation only

    with pytest.raises(Refused, match=r"rows differ from their copies: odd \(2020-01-01 00:00:00.000000, ") as caught:
        stage(participant, progress=tamper)
    assert list(caught.value.details["differing"]) == ["odd"]
    assert participant.status(KEY, A, B).state == STAGING


@pytest.mark.parametrize(
    ("change", "table", "reason"),
    [
        ("ALTER TABLE `order` ADD UNIQUE KEY worldwide (id, customer)", "order", "unique key worldwide"),
        ("ALTER TABLE customer ADD UNIQUE KEY short (tenant_id, email(3))", "customer", "covers only the beginning"),
        (
            (
                "ALTER TABLE odd MODIFY flags SET('a','b') NOT NULL, DROP PRIMARY KEY, ADD PRIMARY KEY (tenant_id, at,"
                " raw, uid, part, flags)"
            ),
            "odd",
            "Key column flags of odd is of type set",
        ),
        (
            (
                "ALTER TABLE `order` ADD FOREIGN KEY acting (tenant_id, customer) REFERENCES customer (tenant_id, id)"
                " ON DELETE CASCADE"
            ),
            "order",
            "ON DELETE CASCADE",
        ),
    ],
)
def test_refusals(site: Bench, change: str, table: str, reason: str) -> None:
    site.sql(change)
    found = participant_of(site).inspect(KEY, A, B).refusals
    assert [(refusal.object, reason in refusal.reason) for refusal in found] == [(table, True)], found


def test_readers_across_tenants_must_be_declared_absent(site: Bench) -> None:
    found = participant_of(site, no_cross_tenant_readers=False).inspect(KEY, A, B).refusals
    assert {refusal.object for refusal in found} == {"customer", "order", "odd"}
    assert all("no_cross_tenant_readers" in refusal.advice for refusal in found)
