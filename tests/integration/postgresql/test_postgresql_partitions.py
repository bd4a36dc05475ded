# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Partitioned tables: in place and as twins, with the tenant in the partition key and without, and partitions that come
and go.
"""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused, Timeout
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql import locks
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.participant import PostgreSQL
from ansible_collections.zdm.landscape.tests.integration.postgresql.pgsite import (
    MIGRATION,
    WAIT_MS,
    A,
    B,
    C,
    Site,
    make_small_chunks,
)
from ansible_collections.zdm.landscape.tests.integration.postgresql.shapes import (
    dump,
    empty,
    go,
    refusals,
    rows,
    whole_way,
)

BY_TIME = (
    (
        "CREATE TABLE ev (tenant_id uuid NOT NULL, id int NOT NULL, at date NOT NULL, v int DEFAULT 0, PRIMARY KEY"
        " (tenant_id, id, at)) PARTITION BY RANGE (at)"
    ),
    "CREATE TABLE ev24 PARTITION OF ev FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')",
    "CREATE TABLE ev25 PARTITION OF ev FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')",
    "CREATE TABLE ev_rest PARTITION OF ev DEFAULT",
)
FILL = tuple(
    f"INSERT INTO ev SELECT '{tenant}', n, '2024-01-01'::date + n * 10 FROM generate_series(1, 100) n"
    for tenant in (A, C)
)
BY_TENANT = (
    (
        "CREATE TABLE ev (tenant_id uuid NOT NULL, id int NOT NULL, at date NOT NULL, v int DEFAULT 0, PRIMARY KEY"
        " (tenant_id, id, at)) PARTITION BY LIST (tenant_id)"
    ),
    f"CREATE TABLE ev_a PARTITION OF ev FOR VALUES IN ('{A}')",
    f"CREATE TABLE ev_c PARTITION OF ev FOR VALUES IN ('{C}')",
)
OF_B = f"CREATE TABLE ev_b PARTITION OF ev FOR VALUES IN ('{B}')"
BY_HASH = (
    BY_TENANT[0].replace("LIST", "HASH"),
    *(f"CREATE TABLE ev_{n} PARTITION OF ev FOR VALUES WITH (MODULUS 7, REMAINDER {n})" for n in range(7)),
)
BY_RANGE = (
    BY_TENANT[0].replace("LIST", "RANGE"),
    f"CREATE TABLE ev_low PARTITION OF ev FOR VALUES FROM (MINVALUE) TO ('{B}')",
    f"CREATE TABLE ev_high PARTITION OF ev FOR VALUES FROM ('{B}') TO (MAXVALUE)",
)
CHANGES = (
    "UPDATE ev SET v = v + 1 WHERE tenant_id = '{t}' AND id < 20",
    "UPDATE ev SET at = at + 400 WHERE tenant_id = '{t}' AND id BETWEEN 10 AND 15",
    "DELETE FROM ev WHERE tenant_id = '{t}' AND id = (SELECT min(id) FROM ev WHERE tenant_id = '{t}' AND id > 30)",
    "INSERT INTO ev SELECT '{t}', max(id) + 1, '2025-06-06' FROM ev WHERE tenant_id = '{t}'",
)


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
