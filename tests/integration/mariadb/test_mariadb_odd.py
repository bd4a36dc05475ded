# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Odd names and keys, long logs, rows whose parents are missing."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.participant import copying
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import APPLY, FENCED, STAGED
from ansible_collections.zdm.landscape.tests.integration.mariadb.bench import Bench, run
from ansible_collections.zdm.landscape.tests.integration.mariadb.twinsite import switch
from ansible_collections.zdm.landscape.tests.integration.verb_kit import KEY, WAIT_MS, A, B, C, move, stage, status


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "CHUNK_ROWS", 7)
    monkeypatch.setattr(copying, "COMPARE_ROWS", 9)
    monkeypatch.setattr(copying.Pace, "measured", lambda self, run: run(self.rows))


def twin_of(bench: Bench, *tables: str, **options: Any) -> Any:
    entries = {table: {"strategy": "twin"} for table in tables}
    return bench.participant(
        **{"tables": entries, "tenant_columns": ["tenant_id"], "no_cross_tenant_readers": True, **options}
    )


@pytest.mark.parametrize(
    "name", ["seq", "zdm_to", "zdm_key_0", "100%", "%s", ":n", "a`b", "select", "k'", 'k"', "Ünit", "a b", "\\\\"]
)
def test_names_of_tables_and_columns(empty: Bench, name: str) -> None:
    quoted = "`" + name.replace("`", "``") + "`"
    admin = empty.application()
    run(
        admin,
        f"CREATE TABLE {quoted} (tenant_id VARCHAR(63) NOT NULL, {quoted} INT NOT NULL, v INT, PRIMARY KEY (tenant_id,"
        f" {quoted}))",
    )
    run(admin, f"INSERT INTO {quoted} SELECT '{A}', seq, 0 FROM seq_1_to_30")
    participant = twin_of(empty, name)
    stage(participant)
    for epoch, live in ((2, A), (3, B)):
        run(admin, f"UPDATE {quoted} SET v = 1 WHERE tenant_id = '{live}'")
        run(admin, f"INSERT INTO {quoted} VALUES ('{live}', {90 + epoch}, 5)")
        run(admin, f"DELETE FROM {quoted} WHERE tenant_id = '{live}' AND {quoted} = {epoch}")
        content = participant.fingerprint(live)
        switch(participant, epoch, forward=live == A)
        assert participant.fingerprint(B if live == A else A) == content
    participant.remove(move(3))
    assert [row[0] for row in run(admin, "SHOW TABLES")] == [name]


def test_a_key_column_with_our_own_name_is_refused(empty: Bench) -> None:
    empty.sql(
        "CREATE TABLE odd (tenant_id VARCHAR(63) NOT NULL, ZDM_Seq INT NOT NULL, PRIMARY KEY (tenant_id, ZDM_Seq))"
    )
    (refusal,) = twin_of(empty, "odd").inspect(KEY, A, B).refusals
    assert "has the name of a column of ours" in refusal.reason


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("VARCHAR(40) COLLATE utf8mb4_general_ci", ["'Ann'", "'bob'", "'é'", "''", "'a''b'", "'a\\\\'", "'%s'", "'☃'"]),
        ("VARCHAR(40) CHARACTER SET latin1 COLLATE latin1_german1_ci", ["'ä'", "'B'", "'ß'", "'\\\\'", "'x'"]),
        ("CHAR(9) CHARACTER SET utf16", ["'a'", "'Ω'", "'z'"]),
        ("VARBINARY(9)", ["X''", "X'00'", "X'27'", "X'5C'", "X'FF00'", "X'25'"]),
        ("DECIMAL(30,15)", ["0.000000000000001", "0.0000001", "-1", "123456789012345.123456789012345"]),
        ("BIGINT UNSIGNED", ["0", "9223372036854775808", "18446744073709551615"]),
        ("BIGINT", ["-9223372036854775808", "0", "9007199254740993"]),
        ("DATETIME(6)", ["'0000-00-00'", "'2020-02-29 23:59:59.999999'", "'1000-01-01'"]),
        ("TIMESTAMP(3)", ["'2021-10-31 01:30:00'", "'2021-10-31 00:30:00.001'"]),
        ("TIME(3)", ["'-838:59:59'", "'00:00:00.001'", "'838:59:59'"]),
        ("YEAR", ["1901", "2155", "0"]),
        ("UUID", ["'ffffffff-0000-1000-8000-00000000000a'", "'00000000-ffff-1000-8000-00000000000a'"]),
        ("INET6", ["'::'", "'::ffff:1.2.3.4'", "'fe80::1'"]),
    ],
)
def test_kinds_of_keys_at_the_edges_of_chunks(
    empty: Bench, monkeypatch: pytest.MonkeyPatch, kind: str, values: list[str]
) -> None:
    monkeypatch.setattr(copying, "CHUNK_ROWS", 1)
    monkeypatch.setattr(copying, "COMPARE_ROWS", 1)
    empty.sql("SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO', time_zone = '+00:00'")
    key = "PRIMARY KEY (tenant_id, k)"
    empty.sql(f"CREATE TABLE odd (tenant_id VARCHAR(63) NOT NULL, k {kind} NOT NULL, v INT, {key})")
    for tenant in (A, C):
        for value in values:
            empty.sql(f"INSERT INTO odd VALUES ('{tenant}', {value}, 1)")
    participant = twin_of(empty, "odd")
    assert stage(participant) == len(values)
    empty.sql(f"UPDATE odd SET v = 2 WHERE tenant_id = '{A}'")
    content = participant.fingerprint(A)
    switch(participant, 2)
    assert participant.fingerprint(B) == content


def test_an_equal_key_that_is_spelt_otherwise(empty: Bench) -> None:
    key = "k VARCHAR(9) COLLATE utf8mb4_general_ci"
    empty.sql(f"CREATE TABLE odd (tenant_id VARCHAR(63), {key}, PRIMARY KEY (tenant_id, k))")
    empty.sql(f"INSERT INTO odd VALUES ('{A}', 'Ann')")
    participant = twin_of(empty, "odd")
    stage(participant)
    empty.sql(f"UPDATE odd SET k = 'ann' WHERE tenant_id = '{A}'")
    switch(participant, 2)
    assert empty.sql(f"SELECT k FROM odd WHERE tenant_id = '{B}'") == [("ann",)]
    empty.sql(f"UPDATE odd SET k = 'ANN' WHERE tenant_id = '{B}'")
    stage(participant, move(2, forward=False))
    switch(participant, 3, forward=False)
    assert empty.sql(f"SELECT k FROM odd WHERE tenant_id = '{A}'") == [("ANN",)]


def test_a_long_log_is_applied_in_batches(empty: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between them the throttle is asked, and others' waits end."""
    monkeypatch.setattr(copying, "LOG_BATCH", 50)
    empty.sql("CREATE TABLE odd (tenant_id VARCHAR(63) NOT NULL, k INT NOT NULL, v INT, PRIMARY KEY (tenant_id, k))")
    empty.sql(f"INSERT INTO odd SELECT '{A}', seq, 0 FROM seq_1_to_500")
    participant = twin_of(empty, "odd")
    told: list[dict[str, Any]] = []
    stage(participant)
    empty.sql(f"UPDATE odd SET v = v + 1 WHERE tenant_id = '{A}'")
    assert participant.follow(move(), WAIT_MS, told.append) == 500
    assert [entry["rows"] for entry in told if entry["step"] == APPLY] == list(range(50, 501, 50))


PARENTS = (
    "CREATE TABLE tenant (id VARCHAR(63) PRIMARY KEY)",
    f"INSERT INTO tenant VALUES ('{A}'), ('{B}'), ('{C}')",
    "CREATE TABLE note (tenant_id VARCHAR(63) NOT NULL, id INT NOT NULL, PRIMARY KEY (tenant_id, id), CONSTRAINT"
    " note_root FOREIGN KEY (tenant_id) REFERENCES tenant (id))",
    f"INSERT INTO note SELECT '{A}', seq FROM seq_1_to_9",
)


def test_the_barrier_asks_for_the_parents_of_rows_in_place(empty: Bench) -> None:
    for statement in PARENTS:
        empty.sql(statement)
    participant = empty.participant(tables={"tenant": {"ignore": "roots"}, "note": {"strategy": "in_place"}})
    stage(participant)
    empty.sql(f"DELETE FROM tenant WHERE id = '{B}'")
    with pytest.raises(Refused, match=rf"key note_root to tenant \(id\) of table note: rows of {B} find no row"):
        participant.barrier(move(2), WAIT_MS)
    assert status(participant) == (FENCED, A, (A, B))
    assert empty.sql(f"SELECT COUNT(*) FROM note WHERE tenant_id = '{A}'") == [(9,)]
    empty.sql(f"INSERT INTO tenant VALUES ('{B}')")
    participant.barrier(move(2), WAIT_MS)


def test_the_last_keys_of_a_twin_have_parents(empty: Bench) -> None:
    for statement in PARENTS:
        empty.sql(statement)
    participant = twin_of(empty, "note", tables={"tenant": {"ignore": "roots"}, "note": {"strategy": "twin"}})
    stage(participant)
    empty.sql(f"INSERT INTO note VALUES ('{A}', 77)")
    empty.sql("SET foreign_key_checks = 0")
    empty.sql(f"DELETE FROM tenant WHERE id = '{B}'")
    with pytest.raises(Refused, match="note_root"):
        participant.barrier(move(2), WAIT_MS)
    assert status(participant)[0] == STAGED
    empty.sql(f"INSERT INTO tenant VALUES ('{B}')")
    participant.barrier(move(2), WAIT_MS)


def test_the_plan_says_which_columns_must_keep_their_names(empty: Bench) -> None:
    empty.sql("CREATE TABLE bill (tenant_id VARCHAR(63) NOT NULL, k INT NOT NULL, v INT, PRIMARY KEY (tenant_id, k))")
    plan = empty.participant(tables={"bill": {"strategy": "twin"}}, no_cross_tenant_readers=True).inspect(KEY, A, B)
    assert plan.cautions == (
        "renaming or dropping one of these columns stops every tenant's writes to its table: bill (tenant_id, k)",
    )
