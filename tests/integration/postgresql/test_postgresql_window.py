# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prelude, barrier, turn, undo and reverse on a real server."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused, Superseded, Timeout, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import ABSENT, MOVED, STAGED, Move
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.participant import PostgreSQL
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.session import lock_key
from ansible_collections.zdm.landscape.tests.integration.postgresql.pgsite import (
    MIGRATION,
    TABLES,
    WAIT_MS,
    A,
    B,
    C,
    Site,
    killed,
)

INVOICE = "'00000000-0000-4000-8000-{:012d}'"
UPDATE_ALL = [
    "UPDATE customer SET email = email || '.x' WHERE tenant_id = '{t}' AND id = 7",
    "UPDATE invoice SET amount = amount + 1, payload = '{{\"a\": 2}}' WHERE tenant_id = '{t}' AND customer_id < 9",
    "DELETE FROM line WHERE tenant_id = '{t}' AND position = 2 AND invoice_id = " + INVOICE.format(3),
    "INSERT INTO line VALUES ('{t}', " + INVOICE.format(5) + ", 9, 'new')",
    "UPDATE statistic SET writes = writes + 1 WHERE tenant_id = '{t}'",
    "INSERT INTO outbox (tenant_id, body) VALUES ('{t}', 'more')",
]


def write(site: Site, tenant: str) -> None:
    site.sql(
        *(statement.format(t=tenant) for statement in UPDATE_ALL),
        f"DELETE FROM line WHERE tenant_id = '{tenant}' AND position = 9",
    )


def test_a_switch_and_its_reverse(site: Site) -> None:
    participant = site.participant()
    before, bystander = participant.fingerprint(A), participant.fingerprint(C)
    participant = site.staged()
    assert site.switch(participant)["rows"] == 1304
    assert participant.fingerprint(B) == before
    # the sharing table names A in the row of the bystander, which follows
    assert site.sql(f"SELECT with_tenant::text FROM sharing WHERE tenant_id = '{C}'") == [(B,)]
    site.switch(participant, reverse=True)
    assert participant.fingerprint(A) == before
    assert participant.fingerprint(C) == bystander
    assert site.status(participant).problems == ()


def test_five_flip_flops_under_writes(site: Site) -> None:
    participant = site.staged()
    live, other = A, B
    for turn in range(5):
        site.sql(f"INSERT INTO customer VALUES ('{live}', {1000 + turn}, 'n{turn}', 'AT')")
        site.sql(f"DELETE FROM customer WHERE tenant_id = '{live}' AND id = {999 + turn}")
        write(site, live)
        before = participant.fingerprint(live)
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="is being migrated"):
            write(site, other)
        assert participant.fingerprint(live) == before
        site.switch(participant, reverse=bool(turn % 2))
        live, other = other, live
        assert participant.fingerprint(live) == before
        assert site.status(participant).problems == ()
    assert live == B


def test_every_state_fences_what_it_must(site: Site) -> None:
    participant = site.staged()

    def fenced() -> tuple[str, ...]:
        status = site.status(participant)
        assert status.problems == ()
        return status.fenced

    assert fenced() == (B,)
    participant.barrier(site.move(), WAIT_MS)
    assert fenced() == (A, B)
    for tenant in (A, B):
        for statement in UPDATE_ALL:
            if tenant == A and "outbox" not in statement and "statistic" not in statement:
                continue
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
                site.sql(statement.format(t=tenant), f"INSERT INTO statistic VALUES ('{tenant}', 1)")
    write(site, C)
    participant.undo(site.move())
    assert fenced() == (B,)
    site.switch(participant)
    assert fenced() == (A,)


def test_undo_is_exact(site: Site) -> None:
    participant = site.staged()
    write(site, A)
    rows, triggers = participant.fingerprint(A), site.catalog()
    for _round in range(2):
        participant.barrier(site.move(), WAIT_MS)
        assert site.status(participant).state == MOVED
        participant.undo(site.move())
        assert participant.fingerprint(A) == rows
        assert site.catalog() == triggers
        site.epoch += 1
    write(site, A)
    rows = participant.fingerprint(A)
    site.switch(participant)
    assert participant.fingerprint(B) == rows


def test_every_verb_may_be_repeated(site: Site) -> None:
    participant = site.staged()
    move = site.move()
    for verb in (participant.take_over, lambda move: participant.prelude(move, WAIT_MS)):
        verb(move)
        verb(move)
    write(site, A)
    first = participant.barrier(move, WAIT_MS)
    assert participant.barrier(move, WAIT_MS) == first
    assert participant.prelude(move, WAIT_MS) == 0
    participant.turn(move)
    state = site.status(participant)
    participant.turn(move)
    assert site.status(participant) == state
    assert participant.stage(site.move(reverse=True), site.plan(participant), lambda event: None) == 0
    assert (state.state, state.live_id) == (STAGED, B)


def test_steps_out_of_order_are_refused(site: Site) -> None:
    participant = site.staged()
    move = site.move()
    participant.undo(move)
    with pytest.raises(Refused, match="does not fit state staged"):
        participant.turn(move)
    with pytest.raises(Superseded, match="epoch 1 of migration .* is finished"):
        participant.barrier(move, WAIT_MS)
    move = site.move(epoch=2)
    participant.barrier(move, WAIT_MS)
    with pytest.raises(Refused, match="does not fit state moved"):
        participant.stage(move, site.plan(participant), lambda event: None)
    with pytest.raises(Refused, match="does not fit state"):
        participant.remove(move)
    with pytest.raises(Refused, match="does not fit state moved"):
        participant.barrier(site.move(reverse=True, epoch=2), WAIT_MS)
    participant.turn(move)
    with pytest.raises(Refused, match="does not fit state staged"):
        participant.undo(move)
    with pytest.raises(Refused, match="does not fit state"):
        participant.remove(move)
    other = Move(MIGRATION, 3, A, C, A, C)
    with pytest.raises(Refused, match="not for these"):
        participant.take_over(other)


def test_an_unstaged_participant(site: Site) -> None:
    participant = site.participant()
    participant.take_over(site.move())
    assert participant.remove(site.move()) == 0
    assert site.status(participant).state == ABSENT
    with pytest.raises(Refused, match="is not staged"):
        participant.barrier(site.move(), WAIT_MS)


def test_an_older_epoch_is_refused_by_every_verb(site: Site) -> None:
    old, new = site.staged(), site.participant()
    plan = site.plan(old)
    new.take_over(site.move(epoch=7))
    verbs: list[Callable[[PostgreSQL, Move], object]] = [
        lambda p, m: p.take_over(m),
        lambda p, m: p.prelude(m, WAIT_MS),
        lambda p, m: p.barrier(m, WAIT_MS),
        lambda p, m: p.turn(m),
        lambda p, m: p.undo(m),
        lambda p, m: p.remove(m),
        lambda p, m: p.stage(m, plan, lambda event: None),
    ]
    for verb in verbs:
        with pytest.raises(Superseded, match="epoch 7"):
            verb(old, site.move(epoch=6))
    assert site.status(old).epoch == 7
    new.barrier(site.move(epoch=7), WAIT_MS)


def test_take_over_ends_the_older_session(site: Site) -> None:
    old = site.staged()
    old.take_over(site.move())
    with pytest.raises(Unreachable), old.transaction() as connection:  # noqa: PT012 - the block is what must break
        old.prologue(connection, MIGRATION)
        execute(connection, "LOCK TABLE customer IN SHARE ROW EXCLUSIVE MODE")
        new = site.participant()
        new.take_over(site.move(epoch=2))
        new.barrier(site.move(epoch=2), WAIT_MS)
        execute(connection, "SELECT 1")
    with pytest.raises(Superseded):
        old.barrier(site.move(), WAIT_MS)


def test_a_paused_controller_loses_its_locks(site: Site) -> None:
    participant = site.staged()
    with pytest.raises(Unreachable), participant.transaction() as connection:  # noqa: PT012 - the block must break
        participant.prologue(connection, MIGRATION)
        execute(connection, "LOCK TABLE customer IN SHARE ROW EXCLUSIVE MODE")
        site.sql("SET lock_timeout = '20s'", f"UPDATE customer SET email = 'free' WHERE tenant_id = '{A}' AND id = 1")
        execute(connection, "SELECT 1")


def test_the_barrier_names_who_is_in_its_way(site: Site) -> None:
    participant = site.staged()
    rows = participant.fingerprint(A)
    with site.connect() as session, session.transaction():
        session.execute("SET application_name = 'report job'")
        session.execute(f"DELETE FROM invoice WHERE tenant_id = '{C}'")
        with pytest.raises(Timeout, match=r"report job, user app\) for \d+ ms on invoice") as caught:
            participant.barrier(site.move(), 300)
        assert caught.value.details["blockers"][0]["pid"] == session.info.backend_pid
        assert "DELETE" not in str(caught.value)
        with pytest.raises(Timeout, match="report job"):
            participant.prelude(site.move(), 300)
    assert site.status(participant).fenced == (B,)
    participant.prelude(site.move(), WAIT_MS)
    participant.barrier(site.move(), WAIT_MS)
    participant.undo(site.move())
    assert participant.fingerprint(A) == rows


def test_the_prelude_names_a_prepared_transaction(site: Site) -> None:
    participant = site.staged()
    with site.connect() as session:
        session.execute(
            f"BEGIN; UPDATE statistic SET writes = 5 WHERE tenant_id = '{C}'; PREPARE TRANSACTION 'lost"
            f" {site.database}'"
        )
        with pytest.raises(Timeout, match="prepared transaction 'lost"):
            participant.prelude(site.move(), 200)
        session.execute(f"ROLLBACK PREPARED 'lost {site.database}'")
    participant.prelude(site.move(), WAIT_MS)


@pytest.mark.parametrize("privileged", [True, False])
def test_keys_that_need_care(site: Site, privileged: bool) -> None:
    """Rows that exchange unique values, children that change parents, cascades, new keys."""
    if not privileged:
        site.sql("REVOKE SET ON PARAMETER session_replication_role FROM zdm", admin=True)
        site.sql("ALTER TABLE invoice DROP CONSTRAINT invoice_tenant_id_customer_id_fkey")
        site.sql("ALTER TABLE invoice ADD FOREIGN KEY (tenant_id, customer_id) REFERENCES customer (tenant_id, id)")
    try:
        participant = site.staged(tables={**TABLES, "invoice": {"strategy": "twin"}, "line": {"strategy": "twin"}})
        at = f"tenant_id = '{A}' AND"
        site.sql(
            f"UPDATE customer SET email = 'tmp' WHERE {at} id = 1",
            f"UPDATE customer SET email = 'c1@example.com' WHERE {at} id = 2",
            f"UPDATE customer SET email = 'c2@example.com' WHERE {at} id = 1",
            f"INSERT INTO customer VALUES ('{A}', 5000, 'new', 'AT')",
            f"UPDATE invoice SET customer_id = 5000 WHERE {at} customer_id = 3",
            f"DELETE FROM customer WHERE {at} id = 3",
            f"INSERT INTO customer VALUES ('{A}', 5001, 'c3@example.com', 'AT')",
            f"DELETE FROM invoice WHERE {at} id = {INVOICE.format(20)}",
            f"UPDATE line SET position = 77 WHERE {at} position = 1 AND invoice_id = {INVOICE.format(21)}",
            f"UPDATE line SET invoice_id = {INVOICE.format(23)}, position = 5 WHERE {at} invoice_id ="
            f" {INVOICE.format(22)} AND position = 2",
        )
        rows = participant.fingerprint(A)
        result = site.switch(participant)
        assert participant.fingerprint(B) == rows
        assert result["rows"] > 0
        assert site.sql(f"SELECT count(*) FROM line WHERE tenant_id = '{B}' AND invoice_id = {INVOICE.format(20)}") == [
            (0,)
        ]
    finally:
        if not privileged:
            site.sql("GRANT SET ON PARAMETER session_replication_role TO zdm", admin=True)


def test_the_barrier_applies_what_the_prelude_did_not_see(site: Site) -> None:
    participant = site.staged()
    participant.prelude(site.move(), WAIT_MS)
    write(site, A)
    assert site.status(participant).pending > 0
    rows = participant.fingerprint(A)
    participant.barrier(site.move(), WAIT_MS)
    participant.turn(site.move())
    assert participant.fingerprint(B) == rows
    assert site.status(participant).pending == 0


def test_a_twin_that_was_spoilt_stops_the_window(site: Site) -> None:
    participant = site.staged()
    site.sql(
        "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.email := 'spoilt' || NEW.id; RETURN"
        " NEW; END$$",
        f"CREATE TRIGGER spoil BEFORE UPDATE ON customer FOR EACH ROW WHEN (NEW.tenant_id = '{B}') EXECUTE FUNCTION"
        " spoil()",
        f"UPDATE customer SET country = 'AT' WHERE tenant_id = '{A}' AND id = 4",
    )
    rows = participant.fingerprint(A)
    with pytest.raises(Refused, match="Columns, keys or triggers of customer have changed since the stage"):
        participant.barrier(site.move(), WAIT_MS)
    assert site.status(participant).fenced == (B,)
    assert participant.fingerprint(A) == rows


def test_application_triggers_do_not_fire_for_the_migration(site: Site) -> None:
    site.sql(
        "CREATE TABLE audit (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text)",
        "CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO audit (what) VALUES (TG_OP ||"
        " TG_TABLE_NAME); RETURN NULL; END$$",
        "CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON customer FOR EACH ROW EXECUTE FUNCTION audit()",
        "CREATE TRIGGER audit AFTER UPDATE ON outbox FOR EACH ROW EXECUTE FUNCTION audit()",
    )
    participant = site.staged(tables={**TABLES, "audit": {"ignore": "history"}})
    site.sql(f"UPDATE customer SET country = 'AT' WHERE tenant_id = '{A}' AND id = 4")
    rows = participant.fingerprint(A)
    site.switch(participant)
    assert participant.fingerprint(B) == rows
    site.switch(participant, reverse=True)
    participant.remove(site.move())
    assert site.sql("SELECT what FROM audit") == [("UPDATEcustomer",)]


@pytest.mark.parametrize("verb", ["take_over", "barrier", "turn", "undo"])
def test_a_kill_inside_a_verb_leaves_the_state_before_it(site: Site, verb: str) -> None:
    participant = site.staged()
    write(site, A)
    rows = participant.fingerprint(A)
    if verb in ("turn", "undo"):
        participant.barrier(site.move(), WAIT_MS)
    before, triggers = site.status(participant), site.catalog()
    assert killed(site, verb, 1)
    assert site.status(participant) == before
    assert site.catalog() == triggers
    site.epoch += 1
    participant.take_over(site.move())
    if verb == "undo":
        participant.undo(site.move())
        assert participant.fingerprint(A) == rows
        site.epoch += 1
    participant.barrier(site.move(), WAIT_MS)
    participant.turn(site.move())
    assert participant.fingerprint(B) == rows
    assert site.status(participant).problems == ()


def test_status_reports_what_disagrees(site: Site) -> None:
    participant = site.staged()
    name = site.sql(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = 'outbox'::regclass AND tgname LIKE '%t_fence_insert'", admin=True
    )[0][0]
    site.sql(f"ALTER TABLE outbox DISABLE TRIGGER {name}", admin=True)
    status = site.status(participant)
    assert status.fenced == ()
    assert status.problems == (f"State staged, but {B} is not fenced on every planned table.",)
    assert status.unready == (
        "The migration's triggers on outbox were switched, dropped or made anew since the stage.",
    )
    site.sql("DELETE FROM zdm.migration", admin=True)
    assert name in site.status(participant).problems[0]


def test_an_idle_connection_that_broke_is_opened_again(site: Site) -> None:
    participant = site.staged()
    participant.take_over(site.move())
    site.sql(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'zdm' AND datname = '{site.database}'",
        admin=True,
    )
    participant.barrier(site.move(), WAIT_MS)
    assert site.status(participant).state == MOVED


def test_other_tenants_wait_for_the_barrier_only_shortly(site: Site) -> None:
    """A barrier behind a long writer gives its place in the queue back again and again."""
    participant = site.staged()
    with site.connect() as long, long.transaction():
        long.execute(f"UPDATE customer SET country = 'AT' WHERE tenant_id = '{C}' AND id = 1")
        with site.connect() as bystander:
            bystander.execute("SET statement_timeout = '60s'")
            with pytest.raises(Timeout):
                participant.barrier(site.move(), 400)
            bystander.execute(f"UPDATE customer SET country = 'AT' WHERE tenant_id = '{C}' AND id = 2")


def test_an_older_session_of_another_user_is_named_and_waited_for(site: Site) -> None:
    """It may not be ended; when it is idle its transaction ends by itself, and then the take over goes on."""
    participant = site.staged(user="zdm")
    with site.connect(admin=True) as older:
        older.execute("BEGIN")
        older.execute(f"SELECT pg_advisory_xact_lock({lock_key(MIGRATION)})")
        move = site.move(epoch=2)
        with pytest.raises(Timeout, match=rf"session {older.info.backend_pid} of user .* works for migration"):
            participant.in_window(move, 300, lambda connection, state: None)
        older.execute("SELECT 1")
        older.execute("ROLLBACK")
        participant.take_over(move)
    assert site.status(participant).epoch == 2
