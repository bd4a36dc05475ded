# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fences against writers with old snapshots and against switched triggers; the barrier's two transactions, killed
between them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import psycopg
import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused, Superseded
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import FENCED, MOVED, STAGED, Move
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.participant import PostgreSQL
from ansible_collections.zdm.landscape.tests.integration.postgresql.pgsite import WAIT_MS, A, B, C, Site

REFUSED = psycopg.errors.ObjectNotInPrerequisiteState
WRITES = {
    "insert": f"INSERT INTO customer VALUES ('{A}', 5000, 'late', 'AT')",
    "update": f"UPDATE customer SET email = 'late' WHERE tenant_id = '{A}' AND id = 1",
    "delete": f"DELETE FROM line WHERE tenant_id = '{A}' AND position = 1",
    "in place": f"INSERT INTO outbox (tenant_id, body) VALUES ('{A}', 'late')",
    "upsert": (
        f"INSERT INTO customer VALUES ('{A}', 1, 'late', 'AT') ON CONFLICT (tenant_id, id) DO UPDATE SET email = 'l'"
    ),
    "moved in": f"UPDATE customer SET tenant_id = '{A}', id = 6000 WHERE tenant_id = '{C}' AND id = 1",
}


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("write", WRITES)
def test_a_writer_with_an_old_snapshot_is_refused(site: Site, level: str, write: str) -> None:
    participant = site.staged()
    with site.connect() as late:
        late.execute(f"BEGIN ISOLATION LEVEL {level}")
        late.execute("SELECT count(*) FROM country").fetchone()  # takes the snapshot, and no lock in the way
        participant.barrier(site.move(), WAIT_MS)
        with pytest.raises(REFUSED, match="is being migrated"):
            late.execute(WRITES[write])
        late.execute("ROLLBACK")
        late.execute(f"BEGIN ISOLATION LEVEL {level}")
        late.execute("SELECT count(*) FROM country").fetchone()
        participant.turn(site.move())
        with pytest.raises(REFUSED, match="is being migrated"):
            late.execute(WRITES[write])


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize(
    "switch",
    ["ENABLE TRIGGER USER", "ENABLE TRIGGER ALL", "DISABLE TRIGGER USER", "DISABLE TRIGGER USER, ENABLE TRIGGER USER"],
)
def test_triggers_switched_by_hand_refuse_nobody_of_the_live_id(site: Site, level: str, switch: str) -> None:
    participant = site.staged()
    with site.connect() as early:
        early.execute(f"BEGIN ISOLATION LEVEL {level}")
        early.execute("SELECT count(*) FROM country").fetchone()
        site.sql(f"ALTER TABLE customer {switch}", admin=True)
        early.execute(WRITES["insert"])
        early.execute("COMMIT")
    assert "customer" in site.status(participant).unready[0]
    with pytest.raises(Refused, match="customer were switched"):
        participant.barrier(site.move(), WAIT_MS)


def test_triggers_that_were_put_back_exactly_are_noticed(site: Site) -> None:
    """As pg_restore --disable-triggers and data fixes do it, in one transaction and with ENABLE ALWAYS."""
    participant = site.staged()
    names = site.sql(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = 'customer'::regclass AND NOT tgisinternal", admin=True
    )
    back = ", ".join(f"ENABLE ALWAYS TRIGGER {name}" for (name,) in names)
    with site.connect(admin=True) as session, session.transaction():
        session.execute("ALTER TABLE customer DISABLE TRIGGER USER")
        session.execute(f"UPDATE customer SET email = 'unlogged' WHERE tenant_id = '{A}' AND id = 5")
        session.execute(f"ALTER TABLE customer {back}")
    assert site.status(participant).fenced == (B,)
    with pytest.raises(Refused, match="customer were switched"):
        participant.barrier(site.move(), WAIT_MS)
    participant.stage(site.move(), site.plan(participant), lambda _entry: None)
    before = participant.fingerprint(A)
    site.switch(participant)
    assert participant.fingerprint(B) == before


NO_ALARM = (
    "VACUUM FULL customer",
    "VACUUM FREEZE customer",
    "CLUSTER customer USING customer_pkey",
    "REINDEX TABLE customer",
    "GRANT SELECT ON customer TO zdm",
    "COMMENT ON TABLE customer IS 'x'",
    "ANALYZE customer",
    "CREATE INDEX plain ON customer (country)",
    "ALTER TABLE customer SET (fillfactor = 70)",
    "BEGIN; ALTER TABLE customer DISABLE TRIGGER USER; ROLLBACK",
    "REINDEX TABLE pg_trigger",
    "VACUUM FULL pg_trigger",
)


def test_ordinary_maintenance_closes_no_way(site: Site) -> None:
    participant = site.staged()
    with site.connect(admin=True) as session:
        session.autocommit = True
        for statement in NO_ALARM:
            for part in statement.split("; "):
                session.execute(part)
            assert site.status(participant).unready == (), statement
    site.switch(participant)


def only_fenced(site: Site, participant: PostgreSQL, epoch: int) -> Move:
    """The first of the barrier's transactions, as a kill right after it leaves it."""
    move = site.move(epoch=epoch)
    participant.take_over(move)
    participant.in_window(move, WAIT_MS, lambda connection, state: participant._fence(connection, state, move))
    status = site.status(participant)
    assert (status.state, status.fenced, status.problems) == (FENCED, (A, B), ())
    return move


def test_a_run_that_finds_the_fences_repeats_the_barrier(site: Site) -> None:
    participant = site.staged()
    rows = participant.fingerprint(A)
    only_fenced(site, participant, 2)
    with pytest.raises(REFUSED):
        site.sql(WRITES["in place"])
    site.epoch = 3
    participant.take_over(site.move())
    assert participant.prelude(site.move(), WAIT_MS) == 0
    result = participant.barrier(site.move(), WAIT_MS)
    assert (result["rows"], site.status(participant).state) == (1304, MOVED)
    participant.confirm(site.move())
    participant.turn(site.move())
    assert participant.fingerprint(B) == rows


def test_an_undo_of_the_fences_moves_nothing(site: Site) -> None:
    participant = site.staged()
    rows, catalog = participant.fingerprint(A), site.catalog()
    move = only_fenced(site, participant, 2)
    participant.undo(move)
    assert (site.status(participant).state, participant.fingerprint(A)) == (STAGED, rows)
    assert site.catalog() == catalog
    site.sql(WRITES["in place"])


def test_the_second_transaction_of_an_older_or_finished_epoch_is_refused(site: Site) -> None:
    participant = site.staged()
    rows = participant.fingerprint(A)
    old = only_fenced(site, participant, 2)
    participant.take_over(site.move(epoch=3))

    def shift(move: Move) -> None:
        participant.in_window(move, WAIT_MS, lambda connection, state: participant._shift(connection, state, move))

    with pytest.raises(Superseded, match="epoch 3 has taken over"):
        shift(old)
    participant.undo(site.move(epoch=3))
    with pytest.raises(Refused, match="does not fit state staged"):
        shift(site.move(epoch=3))
    with pytest.raises(Superseded, match="epoch 3 of migration .* is finished"):
        participant.barrier(site.move(epoch=3), WAIT_MS)
    assert participant.fingerprint(A) == rows
    # an undo that found nothing to do finishes its epoch too
    participant.take_over(site.move(epoch=4))
    participant.undo(site.move(epoch=4))
    with pytest.raises(Superseded, match="epoch 4 of migration .* is finished"):
        participant.barrier(site.move(epoch=4), WAIT_MS)
    site.epoch = 4
    site.switch(participant)
    with pytest.raises(Superseded, match="finished"):
        participant.barrier(replace(site.move(), from_id=B, to_id=A), WAIT_MS)


def test_the_move_needs_the_epoch_that_has_set_the_fences(site: Site) -> None:
    participant = site.staged()
    only_fenced(site, participant, 2)
    move = site.move(epoch=3)
    with pytest.raises(Superseded, match="epoch 2 has set the fences"):
        participant.in_window(move, WAIT_MS, lambda connection, state: participant._shift(connection, state, move))


def disable(site: Site) -> None:
    site.sql("ALTER TABLE outbox DISABLE TRIGGER USER", admin=True)


def open_fence(site: Site) -> None:
    [(name,)] = site.sql("SELECT proname FROM pg_proc WHERE proname LIKE 'fence\\_%\\_s'", admin=True)
    site.sql(
        f"CREATE OR REPLACE FUNCTION zdm.{name}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        admin=True,
    )


@pytest.mark.parametrize("damage", [disable, open_fence], ids=["triggers off", "another body"])
def test_a_fence_that_is_lost_in_the_window_stops_it(site: Site, damage: Callable[[Site], None]) -> None:
    participant = site.staged()
    rows = participant.fingerprint(A)
    move = only_fenced(site, participant, 2)
    damage(site)
    with pytest.raises(Refused, match="is not on every planned table any more"):
        participant.in_window(move, WAIT_MS, lambda connection, state: participant._shift(connection, state, move))
    participant.undo(move)
    assert participant.fingerprint(A) == rows


@pytest.mark.parametrize("damage", [disable, open_fence], ids=["triggers off", "another body"])
def test_a_fence_that_is_lost_after_the_move_stops_the_commit(site: Site, damage: Callable[[Site], None]) -> None:
    participant = site.staged()
    rows, move = participant.fingerprint(A), site.move()
    participant.barrier(move, WAIT_MS)
    participant.confirm(move)
    damage(site)
    with pytest.raises(Refused, match="is not on every planned table any more"):
        participant.confirm(move)
    participant.undo(move)
    assert (site.status(participant).state, participant.fingerprint(A)) == (STAGED, rows)


def test_bystanders_meet_no_lock_while_rows_move(site: Site) -> None:
    """A row of the tenant that somebody holds keeps the move waiting, and nobody else."""
    participant = site.staged()
    move = only_fenced(site, participant, 2)
    with site.connect() as holder, site.connect() as bystander:
        holder.execute("BEGIN")
        holder.execute(f"SELECT FROM statistic WHERE tenant_id = '{A}' FOR UPDATE")

        def second(connection: object, state: object) -> None:
            participant.limit(connection, 300, rows=True)  # type: ignore[arg-type]
            participant._shift(connection, state, move)  # type: ignore[arg-type]

        bystander.execute("SET lock_timeout = '20s'")
        with suppress(Exception):
            participant.in_window(move, 300, second)
        bystander.execute(f"UPDATE statistic SET writes = 9 WHERE tenant_id = '{C}'")
        holder.execute("ROLLBACK")
    participant.barrier(move, WAIT_MS)
    participant.undo(move)
