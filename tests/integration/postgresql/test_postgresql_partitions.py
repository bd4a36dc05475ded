# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Partitioned tables: in place and as twins, with the tenant in the partition key and without, foreign keys, and what
partitions have of their own.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from ansible_collections.zdm.landscape.tests.integration.postgresql.partitioned import (
    BY_HASH,
    BY_RANGE,
    BY_TENANT,
    BY_TIME,
    CHANGES,
    FILL,
    OF_B,
)
from ansible_collections.zdm.landscape.tests.integration.postgresql.pgsite import (
    MIGRATION,
    A,
    B,
    C,
    Site,
    make_small_chunks,
)
from ansible_collections.zdm.landscape.tests.integration.postgresql.shapes import empty, go, refusals, whole_way


@pytest.fixture(params=["in_place", "twin"])
def tables(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"ev": {"strategy": request.param}}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small_chunks(monkeypatch.setattr, 7)


@pytest.mark.parametrize(
    "schema",
    [BY_TIME, (*BY_TENANT, OF_B), (*BY_TENANT, "CREATE TABLE ev_rest PARTITION OF ev DEFAULT"), BY_HASH, BY_RANGE],
    ids=["time", "tenant", "tenant_default", "hash", "range"],
)
def test_a_partitioned_table_goes_the_whole_way(site: Site, tables: dict[str, Any], schema: tuple[str, ...]) -> None:
    empty(site, *schema, *FILL)
    plan = site.participant(tables=tables).inspect(MIGRATION, A, B)
    assert plan.refusals == ()
    assert [(table.table, table.rows) for table in plan.tables] == [("ev", 100)]
    whole_way(site, tables=tables)
    assert site.sql(f"SELECT count(*) FROM ev WHERE tenant_id = '{C}'") == [(100,)]


@pytest.mark.parametrize("schema", [BY_TIME, (*BY_TENANT, OF_B), BY_HASH], ids=["time", "tenant", "hash"])
def test_with_an_application_that_writes(site: Site, tables: dict[str, Any], schema: tuple[str, ...]) -> None:
    whole_way(empty(site, *schema, *FILL), *CHANGES, tables=tables)


def test_writes_to_a_partition_itself_are_fenced_and_logged(site: Site, tables: dict[str, Any]) -> None:
    empty(site, *BY_TIME, *FILL)
    participant = site.staged(tables=tables)
    site.sql(
        f"INSERT INTO ev25 VALUES ('{A}', 900, '2025-02-02')", f"DELETE FROM ev24 WHERE tenant_id = '{A}' AND id=3"
    )
    go(site, participant)
    for statement in (
        f"INSERT INTO ev25 VALUES ('{A}', 901, '2025-02-02')",
        f"INSERT INTO ev VALUES ('{A}', 901, '2025-02-02')",
        f"UPDATE ev24 SET tenant_id = '{A}' WHERE tenant_id = '{C}'",
    ):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            site.sql(statement)


def test_sub_partitions_in_another_schema_and_unlogged(site: Site, tables: dict[str, Any]) -> None:
    site.sql("CREATE SCHEMA old AUTHORIZATION app", admin=True)
    empty(
        site,
        *BY_TIME[:2],
        "CREATE TABLE old.\"Ev 25\" PARTITION OF ev FOR VALUES FROM ('2025-01-01') TO ('2026-01-01') PARTITION BY LIST"
        " (tenant_id)",
        f'CREATE UNLOGGED TABLE old."a\'25" PARTITION OF old."Ev 25" FOR VALUES IN (\'{A}\')',
        'CREATE TABLE old.rest PARTITION OF old."Ev 25" DEFAULT',
        "CREATE TABLE ev_rest PARTITION OF ev DEFAULT",
        *FILL,
    )
    whole_way(site, *CHANGES, tables=tables)


@pytest.mark.parametrize("strategy", ["in_place", "twin"])
def test_without_a_partition_for_the_other_id_the_plan_refuses(site: Site, strategy: str) -> None:
    empty(site, *BY_TENANT, *FILL)
    tables = {"ev": {"strategy": strategy}}
    (refusal,) = refusals(site, tables=tables)
    assert refusal.reason == f"Table ev has no partition for rows of {B}: the tenant column is in its partition key."
    statement = refusal.advice.removeprefix("Make one: ").rstrip(".")
    assert statement == f"CREATE TABLE <name> PARTITION OF public.ev FOR VALUES IN ('{B}')"
    site.sql(statement.replace("<name>", "ev_b"))
    whole_way(site, tables=tables)


def test_a_sub_partition_that_the_other_id_lacks_is_found(site: Site) -> None:
    empty(
        site,
        *BY_TENANT[:1],
        *(
            f"CREATE TABLE ev_{name} PARTITION OF ev FOR VALUES IN ('{tenant}') PARTITION BY RANGE (at)"
            for name, tenant in zip("abc", (A, B, C), strict=True)
        ),
        *(
            f"CREATE TABLE ev_{name}_{year} PARTITION OF ev_{name} FOR VALUES FROM ('{year}-01-01') TO"
            f" ('{year + 1}-01-01')"
            for name, years in (("a", (2024, 2025, 2026)), ("b", (2024, 2026)), ("c", (2024, 2025, 2026)))
            for year in years
        ),
        *FILL,
    )
    tables = {"ev": {"strategy": "in_place"}}
    (refusal,) = refusals(site, tables=tables)
    assert "no partition for rows of" in refusal.reason
    assert "the same sub-partitions" in refusal.advice
    site.sql("CREATE TABLE ev_b_2025 PARTITION OF ev_b FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')")
    whole_way(site, tables=tables)


def test_a_key_that_is_an_expression_of_the_tenant(site: Site) -> None:
    empty(
        site,
        "CREATE TABLE ev (tenant_id text NOT NULL, id int, j json) PARTITION BY LIST (upper(tenant_id))",
        f"CREATE TABLE ev_a PARTITION OF ev FOR VALUES IN ('{A.upper()}')",
        f"INSERT INTO ev VALUES ('{A}', 1, '{{}}')",
    )
    (refusal,) = refusals(site, tables={"ev": {"strategy": "in_place"}})
    assert "no partition for rows of" in refusal.reason


# -- foreign keys -----------------------------------------------------------------------------------

CHILD = (
    (
        "CREATE TABLE part (tenant_id uuid NOT NULL, id int NOT NULL, ev int, at date, PRIMARY KEY (tenant_id, id, at),"
        " CONSTRAINT part_ev FOREIGN KEY (tenant_id, ev, at) REFERENCES ev (tenant_id, id, at) ON DELETE CASCADE)"
        " PARTITION BY RANGE (id)"
    ),
    "CREATE TABLE part_low PARTITION OF part FOR VALUES FROM (MINVALUE) TO (50)",
    "CREATE TABLE part_high PARTITION OF part FOR VALUES FROM (50) TO (MAXVALUE)",
)
FILL_CHILD = "INSERT INTO part SELECT tenant_id, id, id, at FROM ev"


@pytest.mark.parametrize("schema", [BY_TIME, (*BY_TENANT, OF_B)], ids=["time", "tenant"])
def test_foreign_keys_between_partitioned_tables(site: Site, tables: dict[str, Any], schema: tuple[str, ...]) -> None:
    empty(site, *schema, *FILL, *CHILD, FILL_CHILD)
    plain = (
        "CREATE TABLE mark (tenant_id uuid, id int, at date, PRIMARY KEY (tenant_id, id), FOREIGN KEY (tenant_id, id,"
        " at) REFERENCES ev)"
    )
    site.sql(plain, "INSERT INTO mark SELECT tenant_id, id, at FROM ev WHERE id % 3 = 0")
    whole_way(site, tables=dict.fromkeys(("ev", "part", "mark"), tables["ev"]))
    assert site.sql("SELECT count(*) FROM part") == [(200,)]


@pytest.mark.parametrize("schema", [BY_TIME, (*BY_TENANT, OF_B)], ids=["time", "tenant"])
def test_a_foreign_key_to_one_partition(site: Site, tables: dict[str, Any], schema: tuple[str, ...]) -> None:
    part = schema[1].split()[2]
    empty(
        site,
        *schema,
        *FILL,
        "CREATE TABLE mark (tenant_id uuid, id int, at date, PRIMARY KEY (tenant_id, id), CONSTRAINT mark_part FOREIGN"
        f" KEY (tenant_id, id, at) REFERENCES {part})",
        f"INSERT INTO mark SELECT tenant_id, id, at FROM {part}",
    )
    both = dict.fromkeys(("ev", "mark"), tables["ev"])
    if schema == BY_TIME:
        whole_way(site, tables=both)
        return
    found = {(refusal.object, refusal.reason) for refusal in refusals(site, tables=both)}
    reason = "Foreign key mark_part refers to partition ev_a of ev, and rows that change tenant_id leave it."
    assert ("ev", reason) in found
    site.sql(
        "ALTER TABLE mark DROP CONSTRAINT mark_part",
        "ALTER TABLE mark ADD CONSTRAINT mark_ev FOREIGN KEY (tenant_id, id, at) REFERENCES ev",
    )
    whole_way(site, tables=both)


def test_a_foreign_key_to_a_partition_ties_the_strategies(site: Site) -> None:
    empty(
        site,
        *BY_TIME,
        *FILL,
        "CREATE TABLE mark (tenant_id uuid, id int, at date, PRIMARY KEY (tenant_id, id), FOREIGN KEY (tenant_id, id,"
        " at) REFERENCES ev24)",
    )
    found = refusals(site, tables={"ev": {"strategy": "twin"}, "mark": {"strategy": "in_place"}})
    assert "ask for different strategies" in found[0].reason


def test_a_key_of_one_partition_that_is_not_valid(site: Site) -> None:
    empty(
        site,
        *BY_TIME,
        *FILL,
        "CREATE TABLE kind (tenant_id uuid, id int, PRIMARY KEY (tenant_id, id))",
        "INSERT INTO kind SELECT tenant_id, id FROM ev25 WHERE id > 40",
        "ALTER TABLE ev25 ADD CONSTRAINT ev25_kind FOREIGN KEY (tenant_id, id) REFERENCES kind NOT VALID",
    )
    tables = {"ev": {"strategy": "twin"}, "kind": {"strategy": "twin"}}
    (refusal,) = refusals(site, tables=tables)
    assert refusal.reason.startswith("Foreign key ev25_kind of ev is NOT VALID")
    assert "ALTER TABLE ev25 VALIDATE CONSTRAINT ev25_kind" in refusal.advice
    site.sql(f"INSERT INTO kind SELECT '{A}', id FROM ev25 WHERE id <= 40 AND tenant_id = '{A}'")
    assert refusals(site, tables=tables) == [], "rows of other partitions, and of other tenants, do not count"
    site.sql(f"DELETE FROM ev25 WHERE id <= 40 AND tenant_id = '{C}'", "ALTER TABLE ev25 VALIDATE CONSTRAINT ev25_kind")
    whole_way(site, tables=tables)


# -- what partitions have of their own --------------------------------------------------------------


def test_a_foreign_table_as_a_partition_is_refused_and_can_be_detached(site: Site) -> None:
    empty(site, BY_TIME[0].replace(", PRIMARY KEY (tenant_id, id, at)", ""), *BY_TIME[1:3])
    site.sql(
        "CREATE EXTENSION postgres_fdw",
        "CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1')",
        "GRANT USAGE ON FOREIGN SERVER far TO app",
        admin=True,
    )
    site.sql("CREATE FOREIGN TABLE ev_far PARTITION OF ev FOR VALUES FROM ('2020-01-01') TO ('2021-01-01') SERVER far")
    (refusal,) = refusals(site, tables={"ev": {"strategy": "in_place"}})
    assert refusal.reason == "Partition ev_far of ev is a foreign table, which is not supported."
    site.sql("ALTER TABLE ev DETACH PARTITION ev_far", FILL[0].replace("100", "50"))
    whole_way(site, tables={"ev": {"strategy": "in_place"}, "ev_far": {"ignore": "its own participant"}})


def test_a_trigger_of_one_partition_does_not_fire_for_the_move(site: Site, tables: dict[str, Any]) -> None:
    empty(
        site,
        *BY_TIME,
        *FILL,
        "CREATE FUNCTION bump() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v = NEW.v + 1; RETURN NEW; END'",
        "CREATE TRIGGER bump BEFORE INSERT OR UPDATE ON ev25 FOR EACH ROW EXECUTE FUNCTION bump()",
    )
    site.sql("REVOKE SET ON PARAMETER session_replication_role FROM zdm", admin=True)
    try:
        (refusal,) = refusals(site, tables=tables)
        assert "bump" in refusal.reason
    finally:
        site.sql("GRANT SET ON PARAMETER session_replication_role TO zdm", admin=True)
    whole_way(site, tables=tables)


def test_a_partition_whose_columns_stand_in_another_order(site: Site, tables: dict[str, Any]) -> None:
    empty(
        site,
        *BY_TIME[:2],
        "CREATE TABLE odd (v int DEFAULT 0, gone int, id int NOT NULL, at date NOT NULL, tenant_id uuid NOT NULL)",
        "ALTER TABLE odd DROP gone",
        "ALTER TABLE ev ATTACH PARTITION odd DEFAULT",
        *FILL,
    )
    whole_way(site, *CHANGES, tables=tables)


def test_a_unique_index_of_one_partition_forbids_twins(site: Site) -> None:
    empty(site, *BY_TIME, *FILL, f"DELETE FROM ev WHERE tenant_id = '{C}'", "CREATE UNIQUE INDEX alone ON ev25 (id)")
    (refusal,) = refusals(site, tables={"ev": {"strategy": "twin"}})
    assert "unique key alone of partition ev25 (id) does not contain tenant_id" in refusal.reason
    whole_way(site, tables={"ev": {"strategy": "in_place"}})


def test_a_check_of_one_partition_is_asked_about_its_rows(site: Site) -> None:
    empty(site, *BY_TIME, *FILL, f"ALTER TABLE ev25 ADD CONSTRAINT not_b CHECK (tenant_id <> '{B}')")
    (refusal,) = refusals(site, tables={"ev": {"strategy": "in_place"}})
    assert refusal.reason == f"Check constraint not_b of ev does not hold for a row of {A} when it stands under {B}."
    site.sql("ALTER TABLE ev25 DROP CONSTRAINT not_b", "ALTER TABLE ev25 ADD CHECK (at >= '2025-01-01')")
    assert refusals(site, tables={"ev": {"strategy": "in_place"}}) == []


def test_a_partition_of_another_owner_is_refused_with_the_grant(site: Site) -> None:
    empty(site, *BY_TIME, *FILL)
    site.sql("ALTER TABLE ev25 OWNER TO postgres", admin=True)
    (refusal,) = refusals(site, tables={"ev": {"strategy": "in_place"}})
    assert refusal.advice == "GRANT postgres TO zdm;"


def test_a_publication_of_a_partition_is_refused(site: Site) -> None:
    empty(site, *BY_TIME, *FILL)
    site.sql("CREATE PUBLICATION feed FOR TABLE ev25", admin=True)
    (refusal,) = refusals(site, tables={"ev": {"strategy": "in_place"}})
    assert "Publication feed sends changes of ev" in refusal.reason


def test_heirs_are_refused_until_they_are_none(site: Site) -> None:
    empty(
        site,
        "CREATE TABLE ev (tenant_id uuid NOT NULL, id int, PRIMARY KEY (tenant_id, id))",
        "CREATE TABLE heir (PRIMARY KEY (tenant_id, id)) INHERITS (ev)",
        f"INSERT INTO ev VALUES ('{A}', 1)",
        f"INSERT INTO heir VALUES ('{A}', 2)",
    )
    found = refusals(site, tables={})
    assert {refusal.object for refusal in found} == {"ev", "heir"}
    assert all("INHERITS" in refusal.reason and "NO INHERIT" in refusal.advice for refusal in found)
    site.sql("ALTER TABLE heir NO INHERIT ev")
    whole_way(site, tables={})
