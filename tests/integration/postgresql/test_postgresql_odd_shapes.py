# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Odd shapes of tables: each goes the whole way, or is refused by the plan with a way out that works."""

from __future__ import annotations

import time
from typing import Any

import pytest
from ansible_collections.zdm.landscape.tests.integration.postgresql.pgsite import MIGRATION, A, B, C, Site
from ansible_collections.zdm.landscape.tests.integration.postgresql.shapes import empty, refusals, rows, whole_way

IN_PLACE, TWIN = {"strategy": "in_place"}, {"strategy": "twin"}
BILL = "CREATE TABLE bill (tenant_id uuid NOT NULL, id int NOT NULL, v int DEFAULT 0, PRIMARY KEY (tenant_id, id))"
FILL = tuple(f"INSERT INTO bill SELECT '{tenant}', n FROM generate_series(1, 30) n" for tenant in (A, C))
CHANGES = (
    "UPDATE bill SET v = v + 1 WHERE tenant_id = '{t}' AND id < 9",
    "INSERT INTO bill SELECT '{t}', coalesce(max(id), 0) + 1 FROM bill WHERE tenant_id = '{t}'",
    "DELETE FROM bill WHERE tenant_id = '{t}' AND id = (SELECT min(id) FROM bill WHERE tenant_id = '{t}' AND id > 12)",
)


@pytest.fixture(params=["in_place", "twin"])
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"strategy": request.param}


# -- keys -------------------------------------------------------------------------------------------


def test_a_table_without_any_key_is_in_place(site: Site) -> None:
    empty(site, BILL.replace(", PRIMARY KEY (tenant_id, id)", ""), *FILL, *FILL)
    (refusal,) = refusals(site, tables={"bill": TWIN})
    assert "it has neither a primary key nor a unique key of NOT NULL columns with tenant_id" in refusal.reason
    assert "`strategy: in_place`" in refusal.advice
    whole_way(site, tables={"bill": IN_PLACE})


@pytest.mark.parametrize("options", [{}, {"key": ["id", "tenant_id"]}])
def test_a_unique_key_serves_where_there_is_no_primary_key(
    site: Site, way: dict[str, Any], options: dict[str, Any]
) -> None:
    empty(site, BILL.replace("PRIMARY KEY", "UNIQUE"), "CREATE UNIQUE INDEX another ON bill (tenant_id, id, v)", *FILL)
    whole_way(site, *CHANGES, tables={"bill": {**way, **options}})


@pytest.mark.parametrize(
    "change",
    ["ALTER TABLE bill ALTER id DROP NOT NULL", "DROP INDEX one; CREATE UNIQUE INDEX one ON bill (tenant_id, abs(id))"],
)
def test_a_unique_key_that_does_not_serve(site: Site, change: str) -> None:
    empty(site, BILL.replace(", PRIMARY KEY (tenant_id, id)", ""), "CREATE UNIQUE INDEX one ON bill (tenant_id, id)")
    site.sql(*change.split("; "), *FILL)
    (refusal,) = refusals(site, tables={"bill": TWIN})
    assert "neither a primary key nor a unique key" in refusal.reason
    whole_way(site, *CHANGES, tables={"bill": IN_PLACE})


@pytest.mark.parametrize("deferred", ["DEFERRABLE", "DEFERRABLE INITIALLY DEFERRED"])
def test_deferrable_keys_are_in_place(site: Site, deferred: str) -> None:
    empty(
        site,
        BILL.replace("(tenant_id, id))", f"(tenant_id, id) {deferred}, UNIQUE (tenant_id, v, id) {deferred})"),
        *FILL,
    )
    found = refusals(site, tables={"bill": TWIN})
    assert "is deferrable, ON CONFLICT cannot use it" in found[0].reason
    whole_way(site, *CHANGES, tables={"bill": IN_PLACE})


@pytest.mark.parametrize("deferred", ["", "DEFERRABLE", "DEFERRABLE INITIALLY DEFERRED"])
@pytest.mark.parametrize("action", ["NO ACTION", "CASCADE"])
def test_foreign_keys_that_are_checked_late(site: Site, way: dict[str, Any], deferred: str, action: str) -> None:
    empty(
        site,
        BILL,
        *FILL,
        "CREATE TABLE item (tenant_id uuid, bill int, n int, PRIMARY KEY (tenant_id, bill, n), FOREIGN KEY (tenant_id,"
        f" bill) REFERENCES bill ON UPDATE {action} ON DELETE CASCADE {deferred})",
        "INSERT INTO item SELECT tenant_id, id, n FROM bill, generate_series(1, 2) n",
    )
    whole_way(site, *CHANGES, tables={"bill": way, "item": way})


def test_exclusion_constraints_are_in_place(site: Site) -> None:
    site.sql("CREATE EXTENSION btree_gist SCHEMA pg_catalog", admin=True)
    empty(
        site,
        "CREATE TABLE booking (tenant_id uuid NOT NULL, id int PRIMARY KEY, room int, during int4range, EXCLUDE USING"
        " gist (tenant_id WITH =, room WITH =, during WITH &&))",
        f"INSERT INTO booking SELECT '{A}', n, n % 3, int4range(n * 10, n * 10 + 9) FROM generate_series(1, 30) n",
        f"INSERT INTO booking SELECT '{C}', -n, n % 3, int4range(n * 10, n * 10 + 9) FROM generate_series(1, 30) n",
    )
    found = refusals(site, tables={"booking": TWIN})
    assert "does not contain tenant_id" in found[0].reason
    whole_way(site, tables={"booking": IN_PLACE})


# -- names ------------------------------------------------------------------------------------------


def test_names_in_mixed_case(site: Site, way: dict[str, Any]) -> None:
    site.sql('CREATE SCHEMA "Old Bills" AUTHORIZATION app', admin=True)
    empty(
        site,
        'CREATE TABLE "Bill" ("Tenant Id" uuid, "ID" int, "Value" int DEFAULT 0, PRIMARY KEY ("Tenant Id", "ID"))',
        'CREATE TABLE "Old Bills"."Bill" ("Tenant Id" uuid, "ID" int, "Value" int, PRIMARY KEY ("Tenant Id", "ID"),'
        ' FOREIGN KEY ("Tenant Id", "ID") REFERENCES "Bill")',
        f"""INSERT INTO "Bill" SELECT '{A}', n FROM generate_series(1, 20) n""",
        'INSERT INTO "Old Bills"."Bill" SELECT * FROM "Bill"',
    )
    changes = """UPDATE "Bill" SET "Value" = "Value" + 1 WHERE "Tenant Id" = '{t}' AND "ID" = 3"""
    tables = {"Bill": way, "Old Bills.Bill": way}
    whole_way(
        site, changes, changes.replace('"Bill"', '"Old Bills"."Bill"'), tables=tables, tenant_columns=["Tenant Id"]
    )


def test_equal_names_in_several_schemas(site: Site, way: dict[str, Any]) -> None:
    site.sql("CREATE SCHEMA eu AUTHORIZATION app", "CREATE SCHEMA us AUTHORIZATION app", admin=True)
    empty(site)
    for number, schema in enumerate(("public", "eu", "us"), 1):
        bill = BILL.replace("bill", f"{schema}.bill")
        site.sql(
            bill, *(statement.replace("bill", f"{schema}.bill").replace("30", str(number * 10)) for statement in FILL)
        )
    changes = [change.replace("bill", f"{schema}.bill") for change in CHANGES for schema in ("public", "eu")]
    whole_way(site, *changes, tables={"bill": way, "eu.bill": way, "us.bill": way})


def test_several_tenant_columns_of_one_meaning(site: Site) -> None:
    empty(
        site,
        'CREATE TABLE bill (id int PRIMARY KEY, tenant_id uuid NOT NULL, "tenantId" uuid NOT NULL, customer uuid NOT'
        " NULL)",
        *(
            f"INSERT INTO bill SELECT {n} + n, '{t}', '{t}', '{t}' FROM generate_series(1, 9) n"
            for n, t in ((0, A), (50, C))
        ),
        f"INSERT INTO bill VALUES (99, '{A}', '{C}', '{C}'), (100, '{C}', '{A}', '{C}')",
    )
    columns = ["tenant_id", "tenantId"]
    (refusal,) = refusals(site, tables={"bill": IN_PLACE}, tenant_columns=columns)
    assert "Column customer of bill holds the tenant's id inside" in refusal.reason
    found = refusals(site, tables={"bill": TWIN}, tenant_columns=[*columns, "cust.*"])
    assert any("several tenant columns" in refusal.reason for refusal in found)
    whole_way(site, tables={"bill": IN_PLACE}, tenant_columns=[*columns, "cust.*"])
    assert site.sql('SELECT tenant_id::text, "tenantId"::text FROM bill WHERE id = 99') == [(B, C)]


# -- columns ----------------------------------------------------------------------------------------


def test_generated_columns(site: Site, way: dict[str, Any]) -> None:
    """One that is computed from the tenant's id is computed anew."""
    empty(
        site,
        "CREATE TABLE bill (tenant_id text, id int, v int DEFAULT 0, path text GENERATED ALWAYS AS (tenant_id || '/' ||"
        " id) STORED, doubled int GENERATED ALWAYS AS (v * 2) STORED, PRIMARY KEY (tenant_id, id))",
        "CREATE INDEX ON bill (path)",
        *FILL,
    )
    whole_way(site, *CHANGES, tables={"bill": way})
    found = site.sql(f"SELECT count(*) FROM bill WHERE path = '{B}/' || id AND doubled = v * 2 AND tenant_id = '{B}'")
    assert found == [(30,)]


def test_a_unique_column_that_is_computed_from_the_tenant(site: Site) -> None:
    empty(
        site,
        "CREATE TABLE bill (tenant_id text, id int, v int, path text GENERATED ALWAYS AS (tenant_id || '/' || id)"
        " STORED UNIQUE, PRIMARY KEY (tenant_id, id))",
        *FILL,
    )
    (refusal,) = refusals(site, tables={"bill": TWIN})
    assert "(path) does not contain tenant_id" in refusal.reason
    whole_way(site, tables={"bill": IN_PLACE})


def test_arrays(site: Site, way: dict[str, Any]) -> None:
    empty(
        site,
        "CREATE TABLE bill (tenant_id uuid, id int[], v text[][], tags uuid[], PRIMARY KEY (tenant_id, id))",
        *(
            f"INSERT INTO bill SELECT '{t}', ARRAY[n, n + 1], '{{{{a,\"b c\"}},{{NULL,''}}}}', '{{}}' FROM"
            " generate_series(1, 20) n"
            for t in (A, C)
        ),
    )
    whole_way(
        site, "UPDATE bill SET v = v || v, id = id || 7 WHERE tenant_id = '{t}' AND id[1] = 3", tables={"bill": way}
    )


def test_an_id_inside_an_array_is_seen(site: Site) -> None:
    empty(
        site,
        "CREATE TABLE bill (tenant_id uuid, id int, shared_with uuid[], names text[], PRIMARY KEY (tenant_id, id))",
        f"INSERT INTO bill VALUES ('{A}', 1, '{{{A}}}', '{{{A}}}')",
    )
    found = refusals(site, tables={"bill": IN_PLACE})
    assert {refusal.reason.split()[1] for refusal in found} == {"shared_with", "names"}
    whole = {"bill": {**IN_PLACE, "id_stays": {"shared_with": "history", "names": "history"}}}
    assert refusals(site, tables=whole) == []


def test_a_row_of_a_megabyte(site: Site, way: dict[str, Any]) -> None:
    empty(
        site,
        BILL.replace("v int DEFAULT 0", "v bytea, t text"),
        f"INSERT INTO bill SELECT '{A}', n, decode(repeat(md5(random()::text), 16384), 'hex'), repeat('x', 1048576)"
        " FROM generate_series(1, 3) n",
        "ALTER TABLE bill ALTER t SET STORAGE EXTERNAL",
        f"INSERT INTO bill SELECT '{A}', n + 3, v, t FROM bill, generate_series(1, 1) n WHERE id = 1",
    )
    whole_way(site, "UPDATE bill SET v = v || v WHERE tenant_id = '{t}' AND id = 2", tables={"bill": way})


DOMAINS = (
    "CREATE DOMAIN tenant_ref AS uuid CHECK (VALUE IS NOT NULL)",
    "CREATE DOMAIN nested AS tenant_ref",
    "CREATE DOMAIN short AS varchar(36) NOT NULL",
)


@pytest.mark.parametrize("domain", ["tenant_ref", "nested", "short"])
def test_a_tenant_column_of_a_domain(site: Site, way: dict[str, Any], domain: str) -> None:
    empty(site, *DOMAINS, BILL.replace("uuid", domain), *FILL)
    whole_way(site, *CHANGES, tables={"bill": way})


def test_ids_that_a_domain_cannot_hold_are_refused(site: Site) -> None:
    empty(site, "CREATE DOMAIN small AS varchar(20)", BILL.replace("uuid", "small"))
    found = refusals(site, tables={"bill": IN_PLACE})
    assert f"Column tenant_id of bill is of type small, and the id {A} has 36 characters" in found[0].reason
    empty(site, f"CREATE DOMAIN other AS text CHECK (VALUE <> '{B}')", BILL.replace("uuid", "other"), *FILL)
    (refusal,) = refusals(site, tables={"bill": IN_PLACE})
    assert refusal.reason == f"Column tenant_id of bill is of type other, which cannot hold the id {B}."
    assert "a domain's checks" in refusal.advice
    site.sql("ALTER DOMAIN other DROP CONSTRAINT other_check")
    whole_way(site, tables={"bill": IN_PLACE})


def test_a_tenant_column_of_an_enum(site: Site, way: dict[str, Any]) -> None:
    empty(site, f"CREATE TYPE tenants AS ENUM ('{A}', '{C}')", BILL.replace("uuid", "tenants"), *FILL)
    refusal = refusals(site, tables={"bill": way})[0]
    assert refusal.reason == f"Column tenant_id of bill is of type tenants, which cannot hold the id {B}."
    assert f"ALTER TYPE tenants ADD VALUE '{B}'" in refusal.advice
    site.sql(f"ALTER TYPE public.tenants ADD VALUE '{B}'")
    whole_way(site, *CHANGES, tables={"bill": way})


# -- kinds of tables --------------------------------------------------------------------------------


def test_unlogged_tables_and_tables_without_rows(site: Site, way: dict[str, Any]) -> None:
    empty(
        site,
        BILL.replace("TABLE", "UNLOGGED TABLE"),
        BILL.replace("bill", "nothing"),
        BILL.replace("bill", "of_others"),
        *FILL,
        FILL[1].replace("bill", "of_others"),
    )
    whole_way(site, *CHANGES, tables=dict.fromkeys(("bill", "nothing", "of_others"), way))


def test_rows_that_come_to_an_empty_table_while_it_is_staged(site: Site, way: dict[str, Any]) -> None:
    empty(site, BILL)
    whole_way(site, *CHANGES, tables={"bill": way})


PARENT = (
    "CREATE TABLE app (tenant_id uuid, id int, kind text, PRIMARY KEY (tenant_id, id))",
    "CREATE FUNCTION kind_of(uuid, int) RETURNS text LANGUAGE sql SET search_path = public AS 'SELECT kind FROM app"
    " WHERE tenant_id = $1 AND id = $2'",
    "CREATE TABLE secret (tenant_id uuid, app int, v int DEFAULT 0, PRIMARY KEY (tenant_id, app), FOREIGN KEY"
    " (tenant_id, app) REFERENCES app, CONSTRAINT web CHECK (coalesce(kind_of(tenant_id, app) = 'web', false)))",
    *(f"INSERT INTO app SELECT '{t}', n, 'web' FROM generate_series(1, 9) n" for t in (A, C)),
    "INSERT INTO secret SELECT tenant_id, id FROM app",
)


def test_a_check_that_reads_a_row_of_the_parent(site: Site, way: dict[str, Any]) -> None:
    tables = {"app": way, "secret": way}
    changes = (
        "UPDATE secret SET v = v + 1 WHERE tenant_id = '{t}' AND app < 4",
        "INSERT INTO app SELECT '{t}', max(id) + 1, 'web' FROM app WHERE tenant_id = '{t}'",
        "INSERT INTO secret SELECT '{t}', max(id) FROM app WHERE tenant_id = '{t}'",
    )
    empty(site, *PARENT, "ALTER FUNCTION kind_of STABLE")
    (refusal,) = refusals(site, tables=tables)
    assert refusal.reason.startswith("Check constraint web of secret does not hold")
    assert "must be VOLATILE" in refusal.advice
    site.sql("ALTER FUNCTION kind_of VOLATILE")
    whole_way(site, *changes, tables=tables)


def test_a_check_by_a_function_that_old_rows_break(site: Site, way: dict[str, Any]) -> None:
    empty(site, *PARENT, f"UPDATE app SET kind = 'job' WHERE tenant_id = '{A}' AND id = 3")
    (refusal,) = refusals(site, tables={"app": way, "secret": way})
    assert refusal.reason.startswith("Check constraint web of secret does not hold")


@pytest.mark.parametrize(
    "rule",
    [
        "CREATE RULE quiet AS ON DELETE TO bill DO INSTEAD NOTHING",
        "CREATE RULE told AS ON UPDATE TO bill DO ALSO INSERT INTO told VALUES (old.id)",
    ],
)
def test_a_rule_is_refused_and_a_trigger_does_its_work(site: Site, way: dict[str, Any], rule: str) -> None:
    empty(site, BILL, *FILL, "CREATE TABLE told (id int)", rule)
    options = {"tables": {"bill": way, "told": {"ignore": "a list of numbers"}}}
    refusal = next(refusal for refusal in refusals(site, **options) if refusal.reason.startswith("Rule"))
    assert refusal.reason == f"Rule {rule.split()[2]} rewrites changes of bill."
    assert refusal.advice == "Replace the rule by a trigger."
    site.sql(
        f"DROP RULE {rule.split()[2]} ON bill",
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO told VALUES (OLD.id); RETURN"
        " NULL; END'",
        "CREATE TRIGGER tell AFTER UPDATE ON bill FOR EACH ROW EXECUTE FUNCTION tell()",
    )
    before = rows(site)["public.told"]
    whole_way(site, **options)
    assert rows(site)["public.told"] == before


@pytest.mark.parametrize("populated", [True, False])
def test_a_materialised_view_that_holds_the_id(site: Site, populated: bool) -> None:
    empty(
        site,
        BILL,
        *FILL,
        "CREATE MATERIALIZED VIEW per_tenant AS SELECT tenant_id, count(*) AS n FROM bill GROUP BY 1"
        + ("" if populated else " WITH NO DATA"),
    )
    options = {"tables": {"bill": IN_PLACE, "per_tenant": {"ignore": "refreshed after each switch"}}}
    plan = site.participant(**options).inspect(MIGRATION, A, B)
    assert plan.refusals == ()
    statement = "REFRESH MATERIALIZED VIEW public.per_tenant"
    assert any(caution.endswith(statement) for caution in plan.cautions)
    whole_way(site, **options)
    site.sql(statement)
    assert site.sql("SELECT tenant_id::text, n FROM per_tenant ORDER BY 1") == [(B, 30), (C, 30)]


def test_a_database_of_200_tables(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    empty(site)
    names = [f"bill{number}" for number in range(200)]
    with site.connect() as session:
        for number, name in enumerate(names):
            session.execute(BILL.replace("bill", name))
            for statement in FILL if number % 2 else FILL[1:]:
                session.execute(statement.replace("bill", name))
    tables = {name: TWIN if number % 4 == 1 else IN_PLACE for number, name in enumerate(names)}
    begin = time.monotonic()
    participant = site.participant(tables=tables, budget_ms=600_000)
    plan = site.plan(participant)
    planned = time.monotonic()
    participant.stage(site.move(), plan, lambda _entry: None)
    staged = time.monotonic()
    assert len(plan.tables) == 200
    before = rows(site, A)
    site.switch(participant)
    switched = time.monotonic()
    participant.remove(site.move(reverse=True))
    assert {name: len(found) for name, found in rows(site, B).items()} == {name: len(of) for name, of in before.items()}
    with capsys.disabled():
        print(
            f"\n200 tables: plan {planned - begin:.1f} s, stage {staged - planned:.1f} s, window"
            f" {switched - staged:.1f} s, remove {time.monotonic() - switched:.1f} s"
        )
