# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a release, a data fix or an online schema change does to planned tables between two windows: it closes the way
until a stage has mended it while the tenant writes, and then nothing is lost, there and back.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import ABSENT, CAREFUL, Care, Move, untold
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.participant import PostgreSQL
from ansible_collections.zdm.landscape.tests.integration.postgresql.pgsite import (
    MIGRATION,
    TABLES,
    WAIT_MS,
    A,
    B,
    C,
    Site,
    make_small_chunks,
)

LATER = "UPDATE line SET \"order\" = 'later' WHERE tenant_id = '{live}' AND position = 1"
GONE = (
    "DELETE FROM line WHERE tenant_id = '{live}' AND position = 2 AND invoice_id <"
    " '00000000-0000-4000-8000-000000000012'"
)
CHANGES: dict[str, tuple[str, ...]] = {
    "a column": (
        "ALTER TABLE customer ADD phone text",
        "UPDATE customer SET phone = id::text WHERE tenant_id = '{live}'",
    ),
    "a column with a default": (
        "ALTER TABLE customer ADD phone text NOT NULL DEFAULT gen_random_uuid()::text",
        "UPDATE customer SET phone = id::text WHERE tenant_id = '{live}'",
    ),
    "a column that is gone": ('ALTER TABLE line DROP COLUMN "order"',),
    "a key's type": ("ALTER TABLE line ALTER position TYPE bigint",),
    "a table": (
        "CREATE TABLE extra (tenant_id uuid NOT NULL, id int NOT NULL, v text, PRIMARY KEY (tenant_id, id))",
        "INSERT INTO extra SELECT '{live}', n, 'v' FROM generate_series(1, 40) n",
    ),
    "a name": (
        "ALTER TABLE line RENAME TO position",
        "DELETE FROM position WHERE tenant_id = '{live}' AND position = 2",
    ),
    "a copy in its place": (
        "CREATE TABLE copied (LIKE line INCLUDING ALL)",
        "INSERT INTO copied SELECT * FROM line",
        "DROP TABLE line",
        "ALTER TABLE copied RENAME TO line",
        LATER,
        GONE,
    ),
    "triggers off and on": (
        "ALTER TABLE line DISABLE TRIGGER USER",
        LATER,
        GONE,
        "ALTER TABLE line ENABLE TRIGGER USER",
    ),
    "triggers off": ("ALTER TABLE line DISABLE TRIGGER USER", LATER, GONE),
    "triggers of a table in place": (
        "ALTER TABLE outbox DISABLE TRIGGER USER",
        "ALTER TABLE outbox ENABLE TRIGGER USER",
    ),
    "a table that is gone": ("DROP TABLE line",),
}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small_chunks(monkeypatch.setattr)


def write(site: Site, tenant: str) -> None:
    site.sql(
        f"UPDATE customer SET country = 'IT' WHERE tenant_id = '{tenant}' AND id < 20",
        f"INSERT INTO outbox (tenant_id, body) VALUES ('{tenant}', 'again')",
    )


def stage(site: Site, participant: PostgreSQL, reverse: bool, care: Care = CAREFUL) -> int:
    plan = participant.inspect(MIGRATION, A, B)
    assert plan.refusals == ()
    return participant.stage(site.move(reverse), plan, untold, care)


@pytest.mark.parametrize("turned", [False, True], ids=["before the switch", "in the transition"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_mended_by_stage_and_nothing_is_lost(site: Site, change: str, turned: bool) -> None:
    participant = site.staged()
    if turned:
        site.switch(participant)
    live, other = (B, A) if turned else (A, B)
    site.sql(*(statement.format(live=live) for statement in CHANGES[change]))
    write(site, live)
    assert site.status(participant).unready
    site.epoch += 1
    if change != "a table":  # only a look at the whole catalog tells, which preflight and status take
        with pytest.raises(Refused, match="stage playbook"):
            participant.prelude(site.move(turned), WAIT_MS)
        with pytest.raises(Refused, match="stage playbook"):
            participant.barrier(site.move(turned), WAIT_MS)
    site.epoch += 1
    stage(site, participant, turned)
    status = site.status(participant)
    assert (status.unready, status.problems) == ((), ())
    for to, back in ((other, turned), (live, not turned)):
        before = participant.fingerprint(live if to == other else other)
        site.switch(participant, reverse=back)
        assert participant.fingerprint(to) == before
        write(site, to)
    site.epoch += 1
    participant.take_over(site.move(turned))
    participant.remove(site.move(turned))
    assert site.status(participant).state == ABSENT
    assert site.sql("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'zzz_zdm%'", admin=True) == [(0,)]


LATE = {
    "a rule": "CREATE RULE silent AS ON DELETE TO outbox DO INSTEAD NOTHING",
    "an heir": "CREATE TABLE heir () INHERITS (outbox)",
    "row security": "ALTER TABLE outbox ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    "a foreign key to it": "CREATE TABLE sent (id int PRIMARY KEY, of uuid, nr int, FOREIGN KEY (of, nr) REFERENCES"
    " customer (tenant_id, id))",
    "a constraint": "ALTER TABLE outbox ADD CONSTRAINT short CHECK (length(body) < 9000) NOT VALID",
}


@pytest.mark.parametrize("change", LATE)
def test_what_comes_between_preflight_and_barrier_stops_the_barrier(site: Site, change: str) -> None:
    participant = site.staged()
    before = participant.fingerprint(A)
    site.epoch += 1
    participant.take_over(site.move())
    participant.prelude(site.move(), WAIT_MS)
    site.sql(LATE[change])
    with pytest.raises(Refused, match=r"(outbox|customer)") as refusal:
        participant.barrier(site.move(), WAIT_MS)
    assert "stage" in refusal.value.advice
    participant.undo(site.move())
    site.sql("ALTER TABLE outbox NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY")
    site.sql("DROP TABLE IF EXISTS heir", "DROP TABLE IF EXISTS sent")
    assert participant.fingerprint(A) == before


def test_an_ignored_table_closes_nothing(site: Site) -> None:
    """Nor does one that refers to a key which stays."""
    participant = site.staged()
    site.sql(
        "CREATE TABLE report (id int PRIMARY KEY, tenant text)",
        "CREATE TABLE sent (id int PRIMARY KEY, outbox_id bigint REFERENCES outbox)",
    )
    assert site.status(participant).unready == ()
    site.switch(participant)


@pytest.mark.parametrize("turned", [False, True], ids=["before the switch", "in the transition"])
def test_a_planned_table_that_is_gone_does_not_keep_anybody_from_the_end(site: Site, turned: bool) -> None:
    participant = site.staged()
    if turned:
        site.switch(participant)
    site.sql("DROP TABLE line", "ALTER TABLE customer DROP COLUMN tenant_id CASCADE")
    site.status(participant)
    site.epoch += 1
    participant.take_over(site.move(turned))
    assert participant.remove(site.move(turned)) == 300
    assert site.status(participant).state == ABSENT


def test_a_database_that_is_staged_first_in_the_transition_fences_the_retired_id(site: Site) -> None:
    site.sql(
        *(
            f"DELETE FROM {table} WHERE tenant_id = '{A}'"
            for table in ("sharing", "line", "invoice", "customer", "statistic", "receipt", "outbox")
        ),
        f"DELETE FROM sharing WHERE with_tenant = '{A}'",
        f"INSERT INTO customer VALUES ('{B}', 1, 'b', 'AT')",
        f"INSERT INTO statistic VALUES ('{B}', 7)",
    )
    participant = site.participant()
    move = Move(MIGRATION, 1, A, B, B, A)
    site.sql(f"INSERT INTO statistic VALUES ('{A}', 1)")
    with pytest.raises(Refused, match="statistic already has 1 rows|tables hold rows"):
        participant.stage(move, participant.inspect(MIGRATION, A, B, live_id=B), untold)
    site.sql(f"DELETE FROM statistic WHERE tenant_id = '{A}'")
    participant.stage(move, participant.inspect(MIGRATION, A, B, live_id=B), untold)
    status = site.status(participant)
    assert (status.live_id, status.fenced, status.problems) == (B, (A,), ())
    write(site, B)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        site.sql(f"INSERT INTO statistic VALUES ('{A}', 1)")
    before = participant.fingerprint(B)
    site.switch(participant, reverse=True)
    assert participant.fingerprint(A) == before


def bypass(site: Site, *statements: str) -> None:
    """Write as nobody's triggers see it."""
    site.sql(f"SET zdm.worker = '{MIGRATION}'", *statements)


def test_rows_that_differ_are_refused_by_their_keys_and_repaired_when_asked(site: Site) -> None:
    participant = site.staged()
    bypass(
        site,
        f"UPDATE customer SET email = 'spoilt' || id WHERE tenant_id = '{B}' AND id IN (3, 77)",
        f"INSERT INTO customer VALUES ('{B}', 9000, 'stray', 'AT')",
        f"DELETE FROM line WHERE tenant_id = '{A}' AND position = 2",
    )
    with pytest.raises(Refused, match=r"customer \(3, 77, 9000\); line \(.*, 2, .*…\)") as caught:
        stage(site, participant, False)
    assert len(caught.value.details["differing"]["line"]) == 20
    assert any("differ from their originals" in sentence for sentence in site.status(participant).unready)
    with pytest.raises(Refused, match="customer differ"):
        participant.prelude(site.move(), WAIT_MS)
    stage(site, participant, False, Care(0, repair=True))
    assert site.status(participant).unready == ()
    kept = site.sql(
        "SELECT kept ->> 'email' FROM zdm.kept_" + hash_of(site) + " WHERE table_name = 'customer'", admin=True
    )
    assert sorted(row[0] for row in kept) == ["spoilt3", "spoilt77", "stray"]
    before = participant.fingerprint(A)
    site.switch(participant)
    assert participant.fingerprint(B) == before


def hash_of(site: Site) -> str:
    [(name,)] = site.sql("SELECT relname FROM pg_class WHERE relname LIKE 'kept\\_%' AND relkind = 'r'", admin=True)
    return str(name).removeprefix("kept_")


def test_a_comparison_is_repeated_only_when_it_is_due(site: Site) -> None:
    participant, told = site.staged(), list[dict[str, Any]]()
    plan = participant.inspect(MIGRATION, A, B)
    for care, compared in ((Care(3600), False), (Care(None), False), (Care(0), True)):
        told.clear()
        participant.stage(site.move(), plan, told.append, care)
        assert ("compare" in {entry["step"] for entry in told}) == compared


def test_a_new_table_whose_retired_rows_are_nobodys_is_refused_with_their_number(site: Site) -> None:
    participant = site.staged()
    site.sql(
        "CREATE TABLE extra (tenant_id uuid NOT NULL, id int NOT NULL, PRIMARY KEY (tenant_id, id))",
        f"INSERT INTO extra SELECT '{B}', n FROM generate_series(1, 3) n",
    )
    refusals = {refusal.object: refusal.reason for refusal in participant.inspect(MIGRATION, A, B).refusals}
    assert refusals == {"extra": "Table extra already has 3 rows of the tenant id that is not live."}
    assert TABLES["country"]["ignore"]
    assert C


def test_ids_that_only_look_like_the_tenants_are_refused_by_the_plan(site: Site) -> None:
    """The way back could not restore their spelling."""
    site.sql("CREATE EXTENSION IF NOT EXISTS citext", admin=True)
    site.sql(
        "CREATE TABLE login (tenant_id citext NOT NULL, id int, PRIMARY KEY (tenant_id, id))",
        f"INSERT INTO login VALUES ('{A}', 1), ('{A.upper()}', 2)",
    )
    refusals = {refusal.object: refusal.reason for refusal in site.participant().inspect(MIGRATION, A, B).refusals}
    assert refusals == {
        "login": f"Table login holds 1 rows whose id only looks like {A} (letter case, or an equal value that is"
        " written differently)."
    }
