# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Partitioned tables and other odd shapes: each goes the whole way, or is refused by the plan with a way out that
works.
"""

from __future__ import annotations

import threading
from typing import Any

import pymysql
import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.participant import copying
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import Refusal
from ansible_collections.zdm.landscape.tests.integration.mariadb.bench import Bench, run
from ansible_collections.zdm.landscape.tests.integration.mariadb.twinsite import catalog, participant_of, switch
from ansible_collections.zdm.landscape.tests.integration.verb_kit import KEY, A, B, C, move, stage, status

Rows = dict[str, list[tuple[str, ...]]]
IN_PLACE, TWIN = {"strategy": "in_place"}, {"strategy": "twin"}
COLUMNS = "tenant_id VARCHAR(63) NOT NULL, id INT NOT NULL, at DATE NOT NULL, v INT NOT NULL DEFAULT 0"
EV = f"CREATE TABLE ev ({COLUMNS}, PRIMARY KEY (tenant_id, id, at))"
FILL = tuple(
    f"INSERT INTO ev SELECT '{tenant}', seq, '2024-01-01' + INTERVAL seq * 10 DAY, 0 FROM seq_1_to_100"
    for tenant in (A, C)
)
CHANGES = (
    "UPDATE ev SET v = v + 1 WHERE tenant_id = '{t}' AND id < 20",
    "UPDATE ev SET at = at + INTERVAL 400 DAY WHERE tenant_id = '{t}' AND id BETWEEN 10 AND 15",
    "DELETE FROM ev WHERE tenant_id = '{t}' AND id > 30 ORDER BY id LIMIT 1",
    "INSERT INTO ev SELECT '{t}', MAX(id) + 1, '2025-06-06', 0 FROM ev WHERE tenant_id = '{t}'",
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "CHUNK_ROWS", 7)
    monkeypatch.setattr(copying, "COMPARE_ROWS", 9)
    monkeypatch.setattr(copying.Pace, "measured", lambda self, run: run(self.rows))


@pytest.fixture(params=["in_place", "twin"])
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"strategy": request.param}


def make(bench: Bench, *statements: str) -> Bench:
    for statement in statements:
        bench.sql(statement)
    return bench


def rows(bench: Bench, tenant: str = "") -> Rows:
    """All rows by table, or those in which an id stands."""
    tables = [row[0] for row in bench.sql("SHOW TABLES") if not row[0].startswith("zdm_")]
    found = {name: [tuple(map(repr, row)) for row in bench.sql(f"SELECT * FROM `{name}`")] for name in tables}
    return {name: sorted(row for row in of if any(tenant in text for text in row)) for name, of in found.items()}


def under(found: Rows, old: str, new: str) -> Rows:
    """The same rows with one id for another, which none of them is a part of."""
    texts = (
        (name, (tuple(text.replace(f"'{old}", f"'{new}") for text in row) for row in of)) for name, of in found.items()
    )
    return {name: sorted(of) for name, of in texts}


def live(bench: Bench, tenant: str) -> Rows:
    """The rows of an id, which may be the beginning of another one."""
    return {
        name: [row for row in of if any(text.startswith((f"'{tenant}'", f"'{tenant}/")) for text in row)]
        for name, of in rows(bench).items()
    }


def whole_way(bench: Bench, *changes: str, **options: Any) -> None:
    """Migrate, reverse, migrate, finalize; with rows and ``SHOW CREATE TABLE`` compared."""
    structure = catalog(bench)
    participant = participant_of(bench, **options)
    plan = participant.inspect(KEY, A, B)
    assert plan.refusals == ()
    stage(participant)
    for epoch, forward in ((2, True), (3, False), (4, True)):
        old, new = (A, B) if forward else (B, A)
        for change in changes:
            bench.sql(change.replace("{t}", old))
        before = live(bench, old)
        switch(participant, epoch, forward)
        assert live(bench, new) == under(before, old, new)
        assert status(participant)[1] == new
    participant.remove(move(4, forward=False))
    assert catalog(bench) == structure
    assert not any(live(bench, A).values())


def refusals(bench: Bench, **options: Any) -> list[Refusal]:
    return list(participant_of(bench, **options).inspect(KEY, A, B).refusals)


# -- partitions -------------------------------------------------------------------------------------

BY_TIME = (
    "PARTITION BY RANGE COLUMNS (at) (PARTITION p24 VALUES LESS THAN ('2025-01-01'), PARTITION p25 VALUES LESS THAN"
    " (MAXVALUE))"
)
BY_YEAR = (
    "PARTITION BY RANGE (YEAR(at)) (PARTITION p24 VALUES LESS THAN (2025), PARTITION p25 VALUES LESS THAN MAXVALUE)"
)
BY_TENANT = f"PARTITION BY LIST COLUMNS (tenant_id) (PARTITION a VALUES IN ('{A}'), PARTITION c VALUES IN ('{C}'))"
OF_B = f"ALTER TABLE ev ADD PARTITION (PARTITION b VALUES IN ('{B}'))"
WITH_DEFAULT = BY_TENANT.replace("))", "), PARTITION d DEFAULT)")
BY_KEY = "PARTITION BY KEY (tenant_id) PARTITIONS 7"
BOTH = (
    f"PARTITION BY RANGE COLUMNS (tenant_id, at) (PARTITION c VALUES LESS THAN ('{C}', MAXVALUE), PARTITION a VALUES"
    f" LESS THAN ('{B}', '2025-01-01'), PARTITION b VALUES LESS THAN ('{B}', '2026-01-01'))"
)
REST = "ALTER TABLE ev ADD PARTITION (PARTITION rest VALUES LESS THAN (MAXVALUE, MAXVALUE))"
SUB = "PARTITION BY RANGE (id) SUBPARTITION BY KEY (tenant_id) SUBPARTITIONS 3 (PARTITION low VALUES LESS THAN (50),"
SUB += " PARTITION high VALUES LESS THAN MAXVALUE)"


@pytest.mark.parametrize(
    "parts",
    [(BY_TIME,), (BY_YEAR,), (BY_TENANT, OF_B), (WITH_DEFAULT,), (BY_KEY,), (BOTH, REST), (SUB,)],
    ids=["time", "year", "tenant", "default", "key", "both", "sub"],
)
def test_a_partitioned_table_goes_the_whole_way(empty: Bench, way: dict[str, Any], parts: tuple[str, ...]) -> None:
    make(empty, f"{EV} {parts[0]}", *parts[1:], *FILL)
    whole_way(empty, *CHANGES, tables={"ev": way})
    assert empty.sql(f"SELECT COUNT(*), SUM(v) FROM ev WHERE tenant_id = '{C}'") == [(100, 0)]


def test_without_a_partition_for_the_other_id_the_plan_refuses(empty: Bench, way: dict[str, Any]) -> None:
    make(empty, f"{EV} {BY_TENANT}", *FILL)
    refusal = refusals(empty, tables={"ev": way})[0]
    assert refusal.reason == f"Table ev has no partition for rows of {B}: it is partitioned by tenant_id."
    assert refusal.advice == f"ALTER TABLE `ev` ADD PARTITION (PARTITION <name> VALUES IN ('{B}'))."
    empty.sql(refusal.advice.rstrip(".").replace("<name>", "b"))
    whole_way(empty, *CHANGES, tables={"ev": way})


def test_a_part_that_the_other_id_lacks_is_found(empty: Bench) -> None:
    make(empty, f"{EV} {BOTH}", *FILL[1:], f"INSERT INTO ev VALUES ('{A}', 1, '2024-02-02', 0)")
    assert refusals(empty, tables={"ev": IN_PLACE}) == []
    empty.sql(f"INSERT INTO ev VALUES ('{A}', 2, '2026-02-02', 0)")
    (refusal,) = refusals(empty, tables={"ev": IN_PLACE})
    assert "no partition for rows of" in refusal.reason
    empty.sql(REST)
    whole_way(empty, tables={"ev": IN_PLACE})


def test_the_plan_says_that_rows_are_written_anew(empty: Bench) -> None:
    make(empty, f"{EV} {BY_KEY}", *FILL)
    for way, anew in ((IN_PLACE, True), (TWIN, False)):
        cautions = participant_of(empty, tables={"ev": way}).inspect(KEY, A, B).cautions
        assert any("rows of ev anew in other partitions" in caution for caution in cautions) == anew


def test_values_with_quotes_and_lists_of_several_columns(empty: Bench) -> None:
    parts = (
        f"PARTITION BY LIST COLUMNS (tenant_id, note) (PARTITION a VALUES IN (('{A}', 'o''c'), ('{A}', 'b\\\\'),"
        f" ('{B}', 'o''c')))"
    )
    columns = "tenant_id VARCHAR(63) NOT NULL, note VARCHAR(9) NOT NULL, PRIMARY KEY (tenant_id, note)"
    make(empty, f"CREATE TABLE ev ({columns}) {parts}", f"INSERT INTO ev VALUES ('{A}', 'o''c')")
    assert refusals(empty, tables={"ev": IN_PLACE}) == []
    empty.sql(f"INSERT INTO ev VALUES ('{A}', 'b\\\\')")
    (refusal,) = refusals(empty, tables={"ev": IN_PLACE})
    assert "no partition for rows of" in refusal.reason
    empty.sql(f"ALTER TABLE ev ADD PARTITION (PARTITION b VALUES IN (('{B}', 'b\\\\')))")
    whole_way(empty, tables={"ev": IN_PLACE})


@pytest.mark.parametrize("parts", [BY_TIME, BY_KEY], ids=["time", "key"])
def test_other_tenants_meet_no_error_while_rows_move(empty: Bench, way: dict[str, Any], parts: str) -> None:
    """They write rows of their own, from one partition to another too, in the partitions in which ours move."""
    make(empty, f"{EV} {parts}", *FILL)
    participant = participant_of(empty, tables={"ev": way})
    stage(participant)
    ended, written, errors = threading.Event(), [0, 0, 0], list[Exception]()

    def write(session: pymysql.Connection[Any], number: int) -> None:
        change = "at = IF(at < '2025-01-01', at + INTERVAL 9 YEAR, at - INTERVAL 9 YEAR), v = v + 1"
        while not ended.is_set() and not errors:
            try:
                run(session, f"UPDATE ev SET {change} WHERE tenant_id = '{C}' AND id = {number + 1}")
                written[number] += 1
            except pymysql.err.Error as error:
                errors.append(error)

    writers = [threading.Thread(target=write, args=(empty.application(), number)) for number in range(3)]
    for writer in writers:
        writer.start()
    for epoch, forward in ((2, True), (3, False), (4, True)):
        assert switch(participant, epoch, forward)["rows"] == 100
        seen = list(written)
        while not errors and any(now == before for now, before in zip(written, seen, strict=True)):
            pass
    ended.set()
    for writer in writers:
        writer.join()
    assert errors == []
    found = empty.sql(f"SELECT v FROM ev WHERE tenant_id = '{C}' AND id <= 3 ORDER BY id")
    assert [row[0] for row in found] == written


# -- keys and columns -------------------------------------------------------------------------------


def test_a_table_without_any_key_is_in_place(empty: Bench) -> None:
    make(empty, EV.replace(", PRIMARY KEY (tenant_id, id, at)", ""), *FILL, *FILL)
    refusal = refusals(empty, tables={"ev": TWIN})[0]
    assert "neither a primary key nor a unique key of NOT NULL columns with tenant_id" in refusal.reason
    whole_way(empty, tables={"ev": IN_PLACE})


def test_a_unique_key_serves_where_there_is_no_primary_key(empty: Bench, way: dict[str, Any]) -> None:
    make(empty, EV.replace("PRIMARY KEY", "UNIQUE KEY"), *FILL)
    whole_way(empty, *CHANGES, tables={"ev": way})


def test_several_tenant_columns_of_one_meaning(empty: Bench) -> None:
    make(
        empty,
        "CREATE TABLE bill (id INT PRIMARY KEY, tenant_id VARCHAR(63) NOT NULL, `tenantId` VARCHAR(63) NOT NULL)",
        f"INSERT INTO bill SELECT seq, '{A}', '{A}' FROM seq_1_to_9",
        f"INSERT INTO bill VALUES (99, '{A}', '{C}'), (100, '{C}', '{A}'), (101, '{C}', '{C}')",
    )
    options = {"tenant_columns": ["tenant_id", "tenantId"]}
    assert any("several tenant columns" in found.reason for found in refusals(empty, tables={"bill": TWIN}, **options))
    whole_way(empty, tables={"bill": IN_PLACE}, **options)
    assert empty.sql("SELECT tenant_id, `tenantId` FROM bill WHERE id = 99") == [(B, C)]


@pytest.mark.parametrize("kind", ["STORED", "VIRTUAL"])
def test_generated_columns(empty: Bench, way: dict[str, Any], kind: str) -> None:
    """One that is computed from the tenant's id is computed anew."""
    generated = f"path VARCHAR(99) AS (CONCAT(tenant_id, '/', id)) {kind}, doubled INT AS (v * 2) {kind}, KEY (path)"
    make(
        empty,
        EV.replace(", PRIMARY", f", {generated}, PRIMARY"),
        *(statement.replace("INSERT INTO ev", "INSERT INTO ev (tenant_id, id, at, v)") for statement in FILL),
    )
    changes = [change.replace("INSERT INTO ev", "INSERT INTO ev (tenant_id, id, at, v)") for change in CHANGES]
    whole_way(empty, *changes, tables={"ev": way})
    found = f"SELECT COUNT(*) FROM ev WHERE tenant_id = '{B}' AND path = CONCAT('{B}/', id) AND doubled = v * 2"
    assert empty.sql(found) == [(100,)]


def test_a_row_of_a_megabyte_and_a_table_without_rows(empty: Bench, way: dict[str, Any]) -> None:
    make(
        empty,
        "CREATE TABLE doc (tenant_id VARCHAR(63) NOT NULL, id INT NOT NULL, v LONGBLOB, t LONGTEXT, PRIMARY KEY"
        " (tenant_id, id))",
        f"INSERT INTO doc SELECT '{A}', seq, REPEAT(UNHEX('00FF275C'), 262144), REPEAT('x', 1048576) FROM seq_1_to_3",
        EV,
    )
    change = "UPDATE doc SET v = CONCAT(v, v) WHERE tenant_id = '{t}' AND id = 2"
    whole_way(empty, change, tables={"doc": way, "ev": way})


def test_names_in_mixed_case_that_are_keywords(empty: Bench, way: dict[str, Any]) -> None:
    make(
        empty,
        "CREATE TABLE `Select From` (`Tenant Id` VARCHAR(63) NOT NULL, `Key` INT NOT NULL, `Value` INT, PRIMARY KEY"
        " (`Tenant Id`, `Key`))",
        f"INSERT INTO `Select From` SELECT '{A}', seq, 0 FROM seq_1_to_20",
    )
    change = "UPDATE `Select From` SET `Value` = `Value` + 1 WHERE `Tenant Id` = '{t}' AND `Key` < 5"
    whole_way(empty, change, tables={"Select From": way}, tenant_columns=["Tenant Id"])
