# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the preflight refuses in MariaDB, each with its reason and the way out."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb import server as mariadb_server
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb import sql as mariadb_sql
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.participant import MariaDB
from ansible_collections.zdm.landscape.tests.integration.mariadb.bench import Bench, run
from ansible_collections.zdm.landscape.tests.integration.verb_kit import KEY, WAIT_MS, A, B, C, move, stage

KEYS = "tenant_id VARCHAR(63) NOT NULL, id INT NOT NULL, PRIMARY KEY (tenant_id, id)"


def found(bench: Bench, source: str = A, target: str = B, **options: Any) -> dict[str, str]:
    """Reasons by object."""
    refusals = bench.participant(**options).inspect(KEY, source, target).refusals
    assert all(refusal.advice for refusal in refusals)
    return {refusal.object: refusal.reason for refusal in refusals}


@pytest.mark.parametrize(
    ("ddl", "reason"),
    [
        (f"CREATE TABLE odd ({KEYS}) ENGINE=MyISAM", "engine MyISAM, which has no transactions"),
        (f"CREATE TABLE odd ({KEYS}) WITH SYSTEM VERSIONING", "system-versioned"),
        (
            "CREATE TABLE odd (tenant_id VARCHAR(9) NOT NULL, id INT NOT NULL, PRIMARY KEY (tenant_id, id))",
            f"the id {B} has 11 characters",
        ),
        (
            "CREATE TABLE odd (tenant_id UUID NOT NULL, id INT NOT NULL, PRIMARY KEY (tenant_id, id))",
            "of type uuid, and",
        ),
        (
            "CREATE TABLE odd (tenant_id INT NOT NULL, id INT NOT NULL, PRIMARY KEY (tenant_id, id))",
            "cannot hold the id",
        ),
        (
            (
                "CREATE TABLE odd (x VARCHAR(63), tenant_id VARCHAR(63) AS (LOWER(x)) PERSISTENT, id INT NOT NULL"
                " PRIMARY KEY)"
            ),
            "is generated",
        ),
    ],
)
def test_tables(bench: Bench, ddl: str, reason: str) -> None:
    bench.sql(ddl)
    reasons = found(bench)
    assert set(reasons) == {"odd"}
    assert reason in reasons["odd"]


@pytest.mark.parametrize("action", ["ON DELETE CASCADE", "ON UPDATE CASCADE", "ON DELETE SET NULL"])
def test_actions_of_parents_that_no_fence_sees(bench: Bench, action: str) -> None:
    bench.sql("CREATE TABLE country (code INT NOT NULL PRIMARY KEY)")
    bench.sql(
        f"CREATE TABLE odd ({KEYS}, code INT, CONSTRAINT to_country FOREIGN KEY (code) REFERENCES country (code)"
        f" {action})"
    )
    tables = {"country": {"ignore": "the same for all"}}
    assert "to_country changes rows of odd when country changes" in found(bench, tables=tables)["odd"]
    bench.sql("ALTER TABLE odd DROP FOREIGN KEY to_country")
    bench.sql("ALTER TABLE odd ADD CONSTRAINT to_country FOREIGN KEY (code) REFERENCES country (code)")
    assert found(bench, tables=tables) == {}


def test_foreign_keys_of_another_database(bench: Bench) -> None:
    other = f"{bench.name}-b"
    bench.sql(f"CREATE DATABASE `{other}`")
    try:
        bench.sql(
            f"CREATE TABLE `{other}`.spy (id INT NOT NULL PRIMARY KEY, CONSTRAINT far FOREIGN KEY (id) REFERENCES"
            f" {bench.name}.event (id))"
        )
        assert f"Foreign key far of {other}.spy in another database" in found(bench)["event"]
    finally:
        bench.sql(f"DROP DATABASE `{other}`")


def test_ids_that_only_look_alike(bench: Bench) -> None:
    bench.sql(f"UPDATE bill SET note = 'x', tenant_id = '{A.upper()}', id = 9000 WHERE tenant_id = '{C}' AND id = 2")
    reasons = found(bench)
    assert "1 rows whose id only looks like venezia" in reasons["bill"]
    bench.sql(f"DELETE FROM bill WHERE tenant_id = '{A}' AND id = 9000")
    assert found(bench) == {}
    assert "both ids are the same" in found(bench, A, A.upper())["bill"]


def test_a_look_alike_that_comes_later_stops_the_barrier(staged: tuple[Bench, MariaDB]) -> None:
    bench, participant = staged
    bench.sql(f"INSERT INTO event (tenant_id, txt) VALUES ('{A.upper()}', 'late')")
    rows = bench.rows()
    with pytest.raises(Refused, match="event holds 1 rows whose id only looks like"):
        participant.barrier(move(), WAIT_MS)
    assert bench.rows() == rows


def test_constraints_that_refuse_the_other_id(bench: Bench) -> None:
    bench.sql(f"ALTER TABLE event ADD CONSTRAINT only_known CHECK (tenant_id IN ('{A}', '{C}'))")
    assert "cannot take the id venezia-scp" in found(bench)["event"]


def test_prepared_xa_transactions(bench: Bench) -> None:
    application = bench.application()
    run(application, f"XA START '{bench.name}'")
    run(application, f"INSERT INTO event (tenant_id, txt) VALUES ('{A}', 'x')")
    run(application, f"XA END '{bench.name}'")
    run(application, f"XA PREPARE '{bench.name}'")
    try:
        assert "a prepared XA transaction is left over" in found(bench)["rating"]
    finally:
        run(application, f"XA ROLLBACK '{bench.name}'")


def test_long_transactions(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mariadb_server, "LONG_TRANSACTION_S", 0)
    application = bench.application(autocommit=False)
    run(application, "SELECT COUNT(*) FROM bill")
    assert f"thread {application.thread_id()} of root@localhost" in found(bench)["rating"]
    application.rollback()


@pytest.mark.parametrize("right", mariadb_sql.RIGHTS)
def test_missing_rights(bench: Bench, right: str) -> None:
    bench.sql(f"REVOKE {right} ON {bench.name}.* FROM {bench.name}")
    plan = bench.participant().inspect(KEY, A, B)
    reason = "lacks a right" if right == "SELECT" else f"the rights {right}"
    assert any(reason in refusal.reason for refusal in plan.refusals), plan.refusals
    for statement in plan.grants:
        if statement.startswith("GRANT") and "zdm_definer" not in statement:
            bench.sql(statement.rstrip(";"))
    assert found(bench) == {}


def test_a_user_who_may_not_even_see_the_database(bench: Bench) -> None:
    """It is a missing right, no wrong password, and the plan says all that is needed at once."""
    bench.sql(f"REVOKE ALL, GRANT OPTION FROM {bench.name}")
    participant = bench.participant()
    with pytest.raises(Refused, match="lacks a right: .1044, "):
        participant.status(KEY, A, B)
    plan = participant.inspect(KEY, A, B)
    assert [refusal.object for refusal in plan.refusals] == ["rating"]
    assert "wrong user or password" not in plan.refusals[0].reason
    for statement in plan.grants:
        if statement.startswith("GRANT") and "zdm_definer" not in statement:
            bench.sql(statement.rstrip(";"))
    assert participant.inspect(KEY, A, B).refusals == ()


def test_missing_process_right(bench: Bench) -> None:
    bench.sql(f"REVOKE PROCESS ON *.* FROM {bench.name}")
    (refusal,) = bench.participant().inspect(KEY, A, B).refusals
    assert "PROCESS" in refusal.reason
    bench.sql(refusal.advice)
    assert found(bench) == {}


def test_a_binary_log(logged: Bench) -> None:
    participant = logged.participant()
    refusals = participant.inspect(KEY, A, B).refusals
    assert "lets only SUPER make triggers" in refusals[-1].reason
    if len(refusals) > 1:
        assert "logs statements" in refusals[0].reason
        logged.sql("SET GLOBAL binlog_format = 'MIXED'")
        participant.close()
    logged.sql("SET GLOBAL log_bin_trust_function_creators = 1")
    rows = logged.rows()
    stage(participant)
    participant.barrier(move(), WAIT_MS)
    participant.undo(move())
    assert logged.rows() == rows
    logged.sql("SET GLOBAL log_bin_trust_function_creators = 0")
    with pytest.raises(Refused, match="SUPER"):
        participant.remove(move())
    logged.sql("SET GLOBAL log_bin_trust_function_creators = 1")
    participant.remove(move())
    assert participant.status(KEY, A, B).problems == ()


def test_grants_are_what_is_needed(empty: Bench) -> None:
    empty.schema()
    empty.sql(f"REVOKE ALL, GRANT OPTION FROM {empty.name}")
    empty.sql(f"GRANT SELECT ON {empty.name}.* TO {empty.name}")
    for grant in empty.participant().inspect(KEY, A, B).grants:
        empty.sql(grant)
    participant = empty.participant()
    stage(participant)
    participant.barrier(move(), WAIT_MS)
    participant.undo(move())
    participant.remove(move())


def test_a_right_that_is_lost_later_is_named(bench: Bench) -> None:
    participant = bench.participant()
    plan = participant.inspect(KEY, A, B)
    participant.close()
    bench.sql(f"REVOKE TRIGGER ON {bench.name}.* FROM {bench.name}")
    with pytest.raises(Refused, match="TRIGGER"):
        participant.stage(move(), plan, lambda _step: None)
    assert participant.status(KEY, A, B).state == "absent"


def test_the_prediction_takes_an_index_into_account(bench: Bench) -> None:
    bench.sql(f"INSERT INTO event (tenant_id, txt) SELECT '{C}', REPEAT('e', 150) FROM seq_1_to_200000")
    indexed = bench.participant().inspect(KEY, A, B).window_ms
    bench.sql("ALTER TABLE event DROP KEY tenant_id")
    assert bench.participant().inspect(KEY, A, B).window_ms > indexed


def test_a_window_over_the_budget(bench: Bench) -> None:
    reasons = found(bench, budget_ms=1)
    assert reasons
    assert all("budget" in reason and " 1 ms" in reason for reason in reasons.values()), reasons
