# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What releases, data fixes and late writers do to a staged database, each found by trying to break it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import CAREFUL, STAGED, Care
from ansible_collections.zdm.landscape.tests.integration.postgresql.pgsite import (
    MIGRATION,
    WAIT_MS,
    A,
    B,
    C,
    Site,
    make_small_chunks,
)


def again(site: Site, participant: Any, reverse: bool = False, care: Care = CAREFUL) -> None:
    plan = participant.inspect(MIGRATION, A, B)
    assert not plan.refusals, plan.refusals
    participant.stage(site.move(reverse), plan, lambda event: None, care)


@pytest.fixture
def bare(site: Site) -> Site:
    site.sql("DROP SCHEMA public CASCADE", "CREATE SCHEMA public AUTHORIZATION app", admin=True)
    return site


def test_a_new_number_of_an_identity_column_comes_along(site: Site) -> None:
    participant = site.staged()
    site.sql(f"UPDATE invoice SET number = DEFAULT WHERE tenant_id = '{A}' AND amount = 7")
    before = participant.fingerprint(A)
    site.switch(participant)
    assert participant.fingerprint(B) == before


def test_a_new_identity_column_is_copied(site: Site) -> None:
    participant = site.staged()
    site.sql("ALTER TABLE customer ADD COLUMN serial_no bigint GENERATED ALWAYS AS IDENTITY")
    again(site, participant)
    before = participant.fingerprint(A)
    site.switch(participant)
    assert participant.fingerprint(B) == before


def test_twins_whose_tenant_column_is_citext(bare: Site) -> None:
    bare.sql("CREATE EXTENSION citext SCHEMA public", admin=True)
    bare.sql(
        "CREATE TABLE bill (tenant_id citext NOT NULL, id int NOT NULL, v int, PRIMARY KEY (tenant_id, id))",
        f"INSERT INTO bill SELECT '{A}', n, 0 FROM generate_series(1, 10) n",
    )
    participant = bare.staged(tables={"bill": {"strategy": "twin"}})
    bare.sql(f"UPDATE bill SET v = 5 WHERE tenant_id = '{A}' AND id = 3")
    bare.sql(f"UPDATE bill SET id = 33 WHERE tenant_id = '{A}' AND id = 4")
    before = participant.fingerprint(A)
    bare.switch(participant)
    assert participant.fingerprint(B) == before


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ("int", "bigint", "5000000000"),
        ("varchar(5)", "varchar(50)", "'123456789'"),
        ("numeric(5,2)", "numeric(10,4)", "12345.1234"),
    ],
)
def test_a_wider_key_stops_no_writes(bare: Site, old: str, new: str, value: str) -> None:
    bare.sql(
        f"CREATE TABLE bill (tenant_id text NOT NULL, id {old} NOT NULL, v int, PRIMARY KEY (tenant_id, id))",
        f"INSERT INTO bill SELECT '{A}', n, 0 FROM generate_series(1, 10) n",
    )
    participant = bare.staged(tables={"bill": {"strategy": "twin"}})
    bare.sql(f"ALTER TABLE bill ALTER COLUMN id TYPE {new}")
    bare.sql(f"INSERT INTO bill VALUES ('{A}', {value}, 7)")
    again(bare, participant)
    before = participant.fingerprint(A)
    bare.switch(participant)
    assert participant.fingerprint(B) == before


def moved(site: Site) -> Any:
    participant = site.staged()
    site.epoch += 1
    participant.take_over(site.move())
    participant.barrier(site.move(), WAIT_MS)
    return participant


def test_a_write_that_got_past_a_lost_fence_does_not_hold_the_undo(site: Site) -> None:
    participant = moved(site)
    site.sql("ALTER TABLE outbox DISABLE TRIGGER USER", admin=True)
    site.sql(f"INSERT INTO outbox (tenant_id, body) VALUES ('{A}', 'late')")
    with pytest.raises(Refused):
        participant.confirm(site.move())
    participant.undo(site.move())
    assert site.sql(f"SELECT count(*) FROM outbox WHERE tenant_id = '{A}'") == [(51,)]


@pytest.mark.parametrize("change", ["DROP TABLE sharing", "ALTER TABLE sharing RENAME TO shared"])
def test_a_table_that_is_gone_does_not_hold_the_undo(site: Site, change: str) -> None:
    participant = moved(site)
    site.sql(change)
    with pytest.raises(Refused):
        participant.confirm(site.move())
    participant.undo(site.move())
    assert site.status(participant).state == STAGED
    if "RENAME" in change:
        assert site.sql(f"SELECT count(*) FROM shared WHERE '{B}' IN (tenant_id, with_tenant)") == [(0,)]


def test_a_column_that_was_made_anew_is_a_change(site: Site) -> None:
    participant = site.staged()
    again(site, participant)
    site.sql(
        "ALTER TABLE customer ADD COLUMN token uuid DEFAULT gen_random_uuid()",
    )
    again(site, participant)
    site.sql(
        "ALTER TABLE customer DROP COLUMN token",
        "ALTER TABLE customer ADD COLUMN token uuid DEFAULT gen_random_uuid()",
    )
    assert site.status(participant).unready


def test_a_column_whose_values_were_rewritten_is_a_change(site: Site) -> None:
    participant = site.staged()
    site.sql('ALTER TABLE line ALTER "order" TYPE text USING md5(random()::text)')
    assert site.status(participant).unready == ("Columns, keys or triggers of line have changed since the stage.",)
    again(site, participant)


def lost(site: Site, table: str, *statements: str) -> None:
    site.sql(
        f"ALTER TABLE {table} DISABLE TRIGGER USER",
        *statements,
        f"ALTER TABLE {table} ENABLE TRIGGER USER",
        admin=True,
    )


def test_stale_twins_in_another_chunk_hold_a_unique_value(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    make_small_chunks(monkeypatch.setattr, 20)
    participant = site.staged()
    lost(
        site,
        "customer",
        f"UPDATE customer SET email = 'free' WHERE tenant_id = '{A}' AND id = 250",
        f"UPDATE customer SET email = 'c250@example.com' WHERE tenant_id = '{A}' AND id = 3",
    )
    again(site, participant)
    before = participant.fingerprint(A)
    site.switch(participant)
    assert participant.fingerprint(B) == before


def test_a_logged_row_has_the_unique_value_of_a_stale_twin(site: Site) -> None:
    participant = site.staged()
    lost(
        site,
        "customer",
        f"UPDATE customer SET email = 'free' WHERE tenant_id = '{A}' AND id = 250",
    )
    # the triggers are there again, though touched: whoever writes now is logged
    site.sql(f"UPDATE customer SET email = 'c250@example.com' WHERE tenant_id = '{A}' AND id = 3")
    again(site, participant)
    before = participant.fingerprint(A)
    site.switch(participant)
    assert participant.fingerprint(B) == before


def test_a_new_parent_table_of_a_staged_one(site: Site) -> None:
    participant = site.staged()
    site.sql(
        "CREATE TABLE region (tenant_id uuid NOT NULL, id int NOT NULL, PRIMARY KEY (tenant_id, id))",
        f"INSERT INTO region VALUES ('{A}', 1), ('{A}', 2), ('{C}', 1)",
        "ALTER TABLE customer ADD COLUMN region int",
        "ALTER TABLE customer ADD FOREIGN KEY (tenant_id, region) REFERENCES region (tenant_id, id)",
        f"UPDATE customer SET region = 1 + id % 2 WHERE tenant_id = '{A}'",
    )
    again(site, participant)
    before = participant.fingerprint(A)
    site.switch(participant)
    assert participant.fingerprint(B) == before


def test_a_logged_child_whose_parent_was_written_without_triggers(site: Site) -> None:
    participant = site.staged()
    invoice = "('11111111-0000-4000-8000-000000000001', 9001, 1)"
    values = invoice.replace("(", f"('{A}', ")
    lost(
        site,
        "customer",
        f"INSERT INTO customer VALUES ('{A}', 9001, 'new@example.com', 'AT')",
    )
    site.sql(f"INSERT INTO invoice (tenant_id, id, customer_id, amount) VALUES {values}")
    again(site, participant)
    before = participant.fingerprint(A)
    site.switch(participant)
    assert participant.fingerprint(B) == before


def test_a_half_copied_table_whose_triggers_were_away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    make_small_chunks(monkeypatch.setattr, 100)
    participant = site.participant()

    def stop(event: dict[str, Any]) -> None:
        if event["step"] == "copy" and event["table"] == "customer":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        participant.stage(site.move(), site.plan(participant), stop)
    lost(
        site,
        "customer",
        f"UPDATE customer SET email = 'free' WHERE tenant_id = '{A}' AND id = 3",
        f"UPDATE customer SET email = 'c3@example.com' WHERE tenant_id = '{A}' AND id = 250",
        f"INSERT INTO customer VALUES ('{A}', 0, 'new@example.com', 'AT')",
    )
    site.sql(
        "INSERT INTO invoice (tenant_id, id, customer_id, amount)"
        f" VALUES ('{A}', '11111111-0000-4000-8000-000000000001', 0, 1)"
    )
    again(site, participant)
    before = participant.fingerprint(A)
    site.switch(participant)
    assert participant.fingerprint(B) == before


def test_an_equal_key_that_is_spelt_otherwise_twice(bare: Site) -> None:
    """Both spellings are logged, for one row."""
    bare.sql(
        "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        "CREATE TABLE bill (tenant_id text NOT NULL, code varchar(9) COLLATE ci, v int, PRIMARY KEY (tenant_id, code))",
        f"INSERT INTO bill VALUES ('{A}', 'a', 0), ('{A}', 'b', 0)",
    )
    participant = bare.staged(tables={"bill": {"strategy": "twin"}})
    bare.sql(
        f"UPDATE bill SET code = 'A' WHERE tenant_id = '{A}' AND code = 'a'",
        f"UPDATE bill SET v = 7 WHERE tenant_id = '{A}' AND code = 'a'",
    )
    before = participant.fingerprint(A)
    bare.switch(participant)
    assert participant.fingerprint(B) == before
