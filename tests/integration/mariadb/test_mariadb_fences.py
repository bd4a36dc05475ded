# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fences of MariaDB: no kind of write and no isolation level gets around them, and other tenants never meet them."""

from __future__ import annotations

from pathlib import Path

import pymysql
import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import MOVED
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.participant import MariaDB
from ansible_collections.zdm.landscape.tests.integration.mariadb.bench import Bench, run
from ansible_collections.zdm.landscape.tests.integration.verb_kit import KEY, WAIT_MS, A, B, C, move, stage

FENCED = 1644
LEVELS = ("READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")
WRITES = (
    f"INSERT INTO bill (tenant_id, id) VALUES ('{C}', 900), ('{A}', 901)",
    f"INSERT INTO bill (tenant_id, id) VALUES ('{A}', 1) ON DUPLICATE KEY UPDATE note = 'd'",
    f"INSERT INTO bill (tenant_id, id) VALUES ('{C}', 1) ON DUPLICATE KEY UPDATE tenant_id = '{A}', id = 902",
    f"INSERT IGNORE INTO bill (tenant_id, id) VALUES ('{A}', 903)",
    f"INSERT INTO event (tenant_id, txt) SELECT '{A}', txt FROM event WHERE tenant_id = '{C}'",
    f"REPLACE INTO bill (tenant_id, id) VALUES ('{A}', 1)",
    f"INSERT INTO share VALUES (9100000, '{C}', '{A}')",
    f"UPDATE bill SET tenant_id = '{A}', id = id + 5000 WHERE tenant_id = '{C}' AND id = 1",
    f"UPDATE IGNORE event SET tenant_id = '{A}' WHERE tenant_id = '{C}'",
    f"INSERT INTO bill (tenant_id, id) VALUES ('{B}', 904)",
    f"UPDATE bill SET note = 'x' WHERE tenant_id = '{B}'",
    f"UPDATE IGNORE bill SET tenant_id = '{C}', id = id + 5000 WHERE tenant_id = '{B}'",
    f"UPDATE bill JOIN item ON item.bill = bill.id SET bill.note = 'x' WHERE bill.tenant_id = '{B}'",
    f"DELETE FROM item WHERE tenant_id = '{B}'",
    f"DELETE IGNORE FROM event WHERE tenant_id = '{B}'",
    f"DELETE FROM bill WHERE tenant_id = '{B}'",
    f"DELETE bill FROM bill JOIN item ON item.bill = bill.id WHERE bill.tenant_id = '{B}'",
    f"REPLACE INTO share VALUES (9000000, '{C}', '{C}')",
)


def refused(connection: pymysql.Connection, statement: str) -> None:
    with pytest.raises(pymysql.err.MySQLError) as caught:
        run(connection, statement)
    assert caught.value.args[0] == FENCED, caught.value
    assert "is closed by a migration" in caught.value.args[1]


@pytest.fixture(params=["in_place", "twin"])
def either(bench: Bench, request: pytest.FixtureRequest) -> tuple[Bench, MariaDB]:
    """Staged in place, or with twins, whose fence comes after an INSERT."""
    bench.sql("ALTER TABLE item DROP FOREIGN KEY item_ibfk_1")  # it cascades: no twin
    tables = {name: {"strategy": request.param} for name in ("bill", "item")}
    participant = bench.participant(tables=tables, no_cross_tenant_readers=True)
    stage(participant)
    return bench, participant


@pytest.mark.parametrize("level", LEVELS)
def test_every_kind_of_write_is_refused_between_barrier_and_turn(either: tuple[Bench, MariaDB], level: str) -> None:
    bench, participant = either
    participant.barrier(move(), WAIT_MS)
    rows = bench.rows()
    application = bench.application(isolation=level)
    for statement in WRITES:
        refused(application, statement)
    assert bench.rows() == rows


@pytest.mark.parametrize("local", ["", "LOCAL"])
def test_load_data_is_refused(either: tuple[Bench, MariaDB], local: str) -> None:
    bench, participant = either
    participant.barrier(move(), WAIT_MS)
    folder: Path = bench.server.folder
    file = folder / "load.txt"
    file.write_text(f"{A}\t905\tx\n")
    file.chmod(0o644)
    bench.sql("SET GLOBAL local_infile = 1")
    for duplicates in ("", "REPLACE", "IGNORE"):
        refused(
            bench.application(), f"LOAD DATA {local} INFILE '{file}' {duplicates} INTO TABLE bill (tenant_id, id, note)"
        )


@pytest.mark.parametrize("level", LEVELS)
def test_an_old_snapshot_does_not_get_around_the_barrier(either: tuple[Bench, MariaDB], level: str) -> None:
    bench, participant = either
    untouched = bench.application(autocommit=False, isolation=level)
    run(untouched, "START TRANSACTION WITH CONSISTENT SNAPSHOT")
    reader = bench.application(autocommit=False, isolation=level)
    if level != "SERIALIZABLE":  # a serializable read locks its rows, so the barrier would wait for it
        run(reader, "SELECT * FROM bill")
    participant.barrier(move(), WAIT_MS)
    for connection in (untouched, reader):
        refused(connection, f"INSERT INTO bill (tenant_id, id) VALUES ('{A}', 906)")
        refused(connection, f"INSERT INTO bill (tenant_id, id) VALUES ('{B}', 906)")
        connection.commit()
    participant.turn(move())
    for connection in (untouched, reader):
        refused(connection, f"INSERT INTO bill (tenant_id, id) VALUES ('{A}', 907)")
        run(connection, f"INSERT INTO bill (tenant_id, id) VALUES ('{B}', {id(connection) % 10**9})")
        connection.commit()


def test_snapshot_isolation_refuses_an_old_snapshot_too(staged: tuple[Bench, MariaDB]) -> None:
    bench, participant = staged
    writer = bench.application(autocommit=False, isolation="REPEATABLE READ")
    if not run(writer, "SHOW VARIABLES LIKE 'innodb_snapshot_isolation'"):
        pytest.skip("this server has no innodb_snapshot_isolation")
    run(writer, "SET SESSION innodb_snapshot_isolation = ON")
    run(writer, "START TRANSACTION WITH CONSISTENT SNAPSHOT")
    participant.barrier(move(), WAIT_MS)
    with pytest.raises(pymysql.err.MySQLError) as caught:
        run(writer, f"INSERT INTO bill (tenant_id, id) VALUES ('{A}', 906)")
    assert caught.value.args[0] == 1020  # the record has changed since the snapshot


def test_prepared_statements_from_before_the_stage_meet_the_fence(bench: Bench) -> None:
    application = bench.application()
    run(application, f"PREPARE w FROM 'INSERT INTO bill (tenant_id, id) VALUES (''{B}'', ?)'")
    run(application, "SET @id = 908")
    stage(bench.participant())
    refused(application, "EXECUTE w USING @id")


def test_only_the_fenced_id_is_refused_in_each_state(staged: tuple[Bench, MariaDB]) -> None:
    bench, participant = staged
    application = bench.application()

    def is_open(tenant: str) -> bool:
        try:
            run(application, f"INSERT INTO event (tenant_id, txt) VALUES ('{tenant}', 'probe')")
        except pymysql.err.MySQLError as error:
            if error.args[0] != FENCED:
                raise
            return False
        run(application, f"DELETE FROM event WHERE tenant_id = '{tenant}' AND txt = 'probe'")
        return True

    def open_ids() -> set[str]:
        return {tenant for tenant in (A, B, C) if is_open(tenant)}

    assert open_ids() == {A, C}
    participant.barrier(move(), WAIT_MS)
    assert open_ids() == {C}
    participant.undo(move())
    assert open_ids() == {A, C}
    participant.barrier(move(2), WAIT_MS)
    participant.turn(move(2))
    assert open_ids() == {B, C}
    participant.barrier(move(3, forward=False), WAIT_MS)
    assert open_ids() == {C}
    participant.turn(move(3, forward=False))
    assert open_ids() == {A, C}


def test_an_application_cannot_pass_as_the_worker_by_the_variable_alone(staged: tuple[Bench, MariaDB]) -> None:
    bench, _participant = staged
    application = bench.application()
    body = next(entry[2] for entry in bench.catalog() if len(entry) == 3 and str(entry[0]).startswith("zdm_"))
    variable = body.split("(")[1].split(" ")[0]
    for value in ("1", "''", "'zdm'", "TRUE", "'%'"):
        run(application, f"SET {variable} = {value}")
        refused(application, f"INSERT INTO bill (tenant_id, id) VALUES ('{B}', 909)")


def test_columns_that_update_themselves_and_odd_dates_stay(bench: Bench) -> None:
    bench.sql("SET sql_mode = ''")
    bench.sql(
        "CREATE TABLE dated (tenant_id VARCHAR(63) NOT NULL, id INT NOT NULL, at TIMESTAMP NULL, day DATE NOT NULL,"
        " PRIMARY KEY (tenant_id, id))"
    )
    bench.sql("ALTER TABLE dated ADD changed DATETIME(6) NOT NULL DEFAULT NOW(6) ON UPDATE NOW(6)")
    bench.sql(
        f"INSERT INTO dated VALUES ('{A}', 1, '2021-10-31 01:30:00', '0000-00-00', '2001-02-03 04:05:06.000007'),"
        f" ('{A}', 2, NULL, '2020-02-00', 0)"
    )
    before = bench.sql("SELECT id, CAST(at AS CHAR), CAST(day AS CHAR), CAST(changed AS CHAR) FROM dated ORDER BY id")
    participant = bench.participant()
    stage(participant)
    participant.barrier(move(), WAIT_MS)
    assert (
        bench.sql(
            f"SELECT id, CAST(at AS CHAR), CAST(day AS CHAR), CAST(changed AS CHAR) FROM dated WHERE tenant_id = '{B}'"
            " ORDER BY id"
        )
        == before
    )


def test_binary_collations_and_uuid_columns(empty: Bench) -> None:
    source, target = "11111111-2222-4333-8444-555555555555", "66666666-7777-4888-9999-aaaaaaaaaaaa"
    empty.sql("CREATE TABLE u (tenant_id UUID NOT NULL, id INT NOT NULL, PRIMARY KEY (tenant_id, id))")
    empty.sql(
        "CREATE TABLE b (tenant_id CHAR(36) CHARACTER SET latin1 COLLATE latin1_bin NOT NULL, id INT NOT NULL, PRIMARY"
        " KEY (tenant_id, id))"
    )
    empty.sql(
        "CREATE TABLE w (tenant_id VARCHAR(40) CHARACTER SET utf16 NOT NULL, id INT NOT NULL, PRIMARY KEY (tenant_id,"
        " id))"
    )
    for table in "ubw":
        empty.sql(f"INSERT INTO {table} VALUES ('{source}', 1)")
    participant = empty.participant()
    at = move().__class__(KEY, 1, source, target, source, target)
    plan = participant.inspect(KEY, source, target)
    assert plan.refusals == ()
    participant.stage(at, plan, lambda _step: None)
    refused(empty.application(), f"INSERT INTO u VALUES ('{target}', 2)")
    refused(empty.application(), f"INSERT INTO w VALUES ('{target.upper()}', 2)")
    assert participant.barrier(at, WAIT_MS)["rows"] == 3
    assert participant.status(KEY, source, target).state == MOVED
    for table in "ubw":
        assert [(str(row[0]), row[1]) for row in empty.sql(f"SELECT * FROM {table}")] == [(target, 1)]
        refused(empty.application(), f"UPDATE {table} SET id = 5")
