# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan: what is chosen, predicted and refused, on a real server. It changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.participant import choice
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import IN_PLACE, TWIN, Refusal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql import inspect as postgresql_inspect
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.participant import PostgreSQL
from ansible_collections.zdm.landscape.tests.integration.postgresql.pgsite import MIGRATION, TABLES, A, B, C, Site


def refusals(site: Site, participant: PostgreSQL | None = None, source: str = A, target: str = B) -> dict[str, str]:
    """Reasons by object; every one of them has a way out."""
    found: tuple[Refusal, ...] = (participant or site.participant()).inspect(MIGRATION, source, target).refusals
    assert all(refusal.advice for refusal in found)
    return {refusal.object: refusal.reason for refusal in found}


def test_the_plan_changes_nothing(site: Site) -> None:
    participant = site.participant()
    before = site.catalog(), participant.fingerprint(A), participant.fingerprint(C)
    first = site.plan(participant)
    assert (site.catalog(), participant.fingerprint(A), participant.fingerprint(C)) == before
    assert site.plan(participant).digest == first.digest
    assert site.sql("SELECT count(*) FROM pg_class WHERE relname LIKE 'zdm%' OR relname LIKE 'log_%'", admin=True) == [
        (0,)
    ]


def test_the_plan_speaks(site: Site) -> None:
    plan = site.plan(site.participant())
    tables = {table.table: table for table in plan.tables}
    order = list(tables)
    assert order.index("customer") < order.index("invoice") < order.index("line")
    assert (tables["line"].strategy, tables["line"].rows, tables["line"].key) == (TWIN, 600, ("invoice_id", "position"))
    assert (tables["sharing"].strategy, tables["sharing"].tenant_columns) == (IN_PLACE, ("tenant_id", "with_tenant"))
    assert tables["country"].why == "no tenant data"
    assert plan.version.startswith("1")
    assert plan.window_ms > 0
    assert plan.stage_ms > 0
    assert "GRANT app TO zdm;" in plan.grants
    assert plan.as_dict()["kind"] == "postgresql"


def test_the_listed_statements_are_those_that_run(site: Site) -> None:
    """A person can run them by hand: each is valid."""
    plan = site.plan(site.participant())
    with site.connect(admin=True) as session, session.transaction(force_rollback=True):
        session.execute(f"SET LOCAL zdm.worker = '{MIGRATION}'")
        for statement in plan.sql:
            if not statement.startswith("--"):
                session.execute(statement)
        assert session.execute(f"SELECT count(*) FROM customer WHERE tenant_id = '{B}'").fetchone() == (300,)
        assert session.execute(f"SELECT count(*) FROM outbox WHERE tenant_id = '{B}'").fetchone() == (50,)


def test_auto_chooses_by_size(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("SMALL_MS", "FEW_ROWS"):
        monkeypatch.setattr(choice, limit, -1)
    participant = site.participant(tables={"country": TABLES["country"]})
    chosen = {table.table: table.strategy for table in site.plan(participant).tables}
    assert chosen["line"] == chosen["invoice"] == chosen["customer"] == TWIN
    assert chosen["statistic"] == IN_PLACE
    assert chosen["sharing"] == IN_PLACE
    participant = site.participant(tables={"country": TABLES["country"]}, no_cross_tenant_readers=False)
    plan = site.plan(participant)
    assert {table.strategy for table in plan.tables} == {IN_PLACE, "ignore"}
    assert "no_cross_tenant_readers" in next(table.why for table in plan.tables if table.table == "line")


@pytest.mark.parametrize(
    ("change", "table", "reason"),
    [
        (f"INSERT INTO statistic VALUES ('{B}', 1)", "statistic", "1 rows of the tenant id that is not live"),
        ("CREATE TABLE note (tenant_id bytea NOT NULL)", "note", "is not written as bytes"),
        ("CREATE TABLE note (tenant_id int PRIMARY KEY)", "note", "of type integer"),
        (
            "CREATE TABLE note (tenant_id varchar(8) PRIMARY KEY)",
            "note",
            "the id 0a0a0a0a-0000-4000-8000-000000000001 has 36 characters",
        ),
        ("CREATE TABLE note (id int PRIMARY KEY)", "note", "is not classified"),
        ("CREATE TABLE note (id int PRIMARY KEY)", "note", "no foreign key leads to rows of a tenant"),
        ("CREATE SCHEMA more; CREATE TABLE more.note (id int PRIMARY KEY)", "more.note", "is not classified"),
        (
            "CREATE MATERIALIZED VIEW seen AS SELECT tenant_id, count(*) FROM line GROUP BY 1",
            "seen",
            "Materialised view",
        ),
        ("CREATE TABLE note (PRIMARY KEY (tenant_id)) INHERITS (statistic)", "note", "inheritance"),
        ("CREATE RULE quiet AS ON DELETE TO outbox DO INSTEAD NOTHING", "outbox", "Rule quiet"),
        (
            f"UPDATE outbox SET body = 'see /tenants/{A}/bills' WHERE tenant_id = '{A}' AND body = 'b3'",
            "outbox",
            "Column body of outbox",
        ),
        (
            f"UPDATE invoice SET payload = '{{\"t\": \"{A}\"}}' WHERE tenant_id = '{A}' AND amount = 3",
            "invoice",
            "Column payload of invoice",
        ),
        ("CREATE UNIQUE INDEX one ON customer (id) WHERE id > 290", "customer", "does not contain tenant_id"),
        (
            "ALTER TABLE customer ADD parent int, ADD FOREIGN KEY (tenant_id, parent) REFERENCES customer",
            "customer",
            "cycle",
        ),
        (
            "ALTER TABLE customer ADD EXCLUDE USING btree (tenant_id WITH =, email WITH =)",
            "customer",
            "Exclusion constraint",
        ),
    ],
)
def test_refusals(site: Site, change: str, table: str, reason: str) -> None:
    site.sql(change)
    assert reason in refusals(site)[table]


def test_refusals_of_replication(site: Site) -> None:
    site.sql("CREATE PUBLICATION feed FOR TABLE outbox", admin=True)
    site.sql(f"SELECT pg_create_logical_replication_slot('slot_{site.database}', 'test_decoding')", admin=True)
    try:
        found = refusals(site)
        assert "Publication feed" in found["outbox"]
        assert any(f"slot slot_{site.database}" in reason for reason in found.values())
    finally:
        site.sql(f"SELECT pg_drop_replication_slot('slot_{site.database}')", admin=True)


def test_refusals_of_transactions(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql_inspect, "LONG_TRANSACTION_S", 0)
    with site.connect() as session:
        session.execute("SET application_name = 'forgotten'")
        session.execute("BEGIN; SELECT 1; COMMIT AND CHAIN")
        assert any("forgotten" in reason for reason in refusals(site).values())
        session.execute(f"PREPARE TRANSACTION 'left {site.database}'")
        found = site.participant().inspect(MIGRATION, A, B).refusals
        assert any(
            "Prepared transaction 'left" in refusal.reason and "ROLLBACK PREPARED" in refusal.advice
            for refusal in found
        )
        session.execute(f"ROLLBACK PREPARED 'left {site.database}'")
    assert refusals(site) == {}


def test_a_schema_of_our_name(site: Site) -> None:
    site.sql("CREATE SCHEMA zdm", "CREATE TABLE zdm.mine (id int PRIMARY KEY)")
    assert any("holds mine" in reason for reason in refusals(site).values())


def test_row_security(site: Site) -> None:
    site.sql("ALTER TABLE outbox ENABLE ROW LEVEL SECURITY", "ALTER TABLE outbox FORCE ROW LEVEL SECURITY")
    assert "Row security" in refusals(site)["outbox"]


def test_application_triggers_need_an_exempt_session(site: Site) -> None:
    site.sql(
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$",
        "CREATE TRIGGER touch BEFORE UPDATE ON customer FOR EACH ROW EXECUTE FUNCTION touch()",
        "CREATE TRIGGER touch BEFORE UPDATE ON statistic FOR EACH ROW EXECUTE FUNCTION touch()",
    )
    assert refusals(site) == {}
    site.sql(
        "ALTER TABLE outbox ENABLE TRIGGER USER",
        "CREATE TRIGGER always BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION touch()",
    )
    site.sql("ALTER TABLE outbox ENABLE ALWAYS TRIGGER always")
    assert "fires in every session" in refusals(site)["outbox"]
    app = {"user": "app", "password": site.server.app.password}
    found = refusals(site, site.participant(**app))
    assert "Trigger touch of statistic would fire" in found["statistic"]
    assert "trigger touch would fire for the copies" in found["customer"]


@pytest.mark.parametrize("before", [[], ["REVOKE CONNECT ON DATABASE {database} FROM PUBLIC"]], ids=["connects", "not"])
def test_the_first_plan_of_a_user_without_rights_lists_all_it_needs(site: Site, before: list[str]) -> None:
    role = f"bare_{site.database}"
    site.sql(
        f"CREATE ROLE {role} LOGIN PASSWORD 'bare'", *(s.format(database=site.database) for s in before), admin=True
    )
    try:
        participant = site.participant(user=role, password="bare")
        rounds = 0
        while participant.inspect(MIGRATION, A, B).refusals:
            site.sql(*participant.inspect(MIGRATION, A, B).grants, admin=True)
            participant.close()
            rounds += 1
        # who may not connect can't be told who owns the tables
        assert rounds == 1 + len(before)
        participant.stage(site.move(), site.plan(participant), lambda _entry: None)
        site.switch(participant)
        participant.close()
    finally:
        site.sql(
            f"REASSIGN OWNED BY {role} TO {site.server.admin.user}",
            f"DROP OWNED BY {role}",
            f"REVOKE SET ON PARAMETER session_replication_role, deadlock_timeout FROM {role}",
            f"DROP ROLE {role}",
            admin=True,
        )


def test_rights_are_named(site: Site) -> None:
    site.sql("CREATE ROLE reader LOGIN PASSWORD 'reader'", "GRANT pg_read_all_data TO reader", admin=True)
    try:
        participant = site.participant(user="reader", password="reader")
        found = {refusal.object: refusal.advice for refusal in participant.inspect(MIGRATION, A, B).refusals}
        assert found["outbox"] == "GRANT app TO reader;"
        assert f"GRANT CREATE ON DATABASE {site.database} TO reader;" in found.values()
    finally:
        site.sql("DROP ROLE reader", admin=True)


def test_ids_must_fit_their_column(site: Site) -> None:
    assert "is of type uuid, which cannot hold the id tenant-7" in refusals(site, target="tenant-7")["customer"]


def test_a_full_disk(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql_inspect, "DISK_FACTOR", 10**12)
    assert any("MiB free" in reason for reason in refusals(site).values())


def test_wrong_password_and_other_bad_addresses(site: Site) -> None:
    for changes, reason in (
        ({"password": "top-secret-7"}, "wrong user or password"),
        ({"user": "nobody-here"}, "wrong user or password"),
        ({"database": "nowhere"}, "cannot be reached"),
        ({"port": 1}, "cannot be reached"),
    ):
        with pytest.raises(Unreachable, match=reason) as caught:
            site.participant(**changes).inspect(MIGRATION, A, B)
        text = f"{caught.value} {caught.value.details} {caught.value.__cause__}"
        assert "top-secret-7" not in text
        assert site.server.zdm.password not in text


def test_missing_options_are_named() -> None:
    with pytest.raises(InputError, match="has no database"):
        PostgreSQL({"name": "bills"})


def test_addresses() -> None:
    def url(**options: Any) -> Any:
        return PostgreSQL({"name": "bills", "database": "d", **options}).url()

    assert url(socket="/run/postgresql").query["host"] == "/run/postgresql"
    both = url(socket="/run/pg/.s.PGSQL.6000")
    assert (both.query["host"], both.port) == ("/run/pg", 6000)
    assert "secret" not in repr(url(host="h", user="u", password="secret"))
    assert PostgreSQL({"name": "b", "database": "d", "ca_file": "/ca.pem"}).connect_args()["sslmode"] == "verify-full"
