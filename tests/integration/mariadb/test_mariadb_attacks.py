# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What releases, data fixes and late writers do to a staged database, each found by trying to break it."""

from __future__ import annotations

import pymysql
import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import STAGED
from ansible_collections.zdm.landscape.tests.integration.mariadb.bench import Bench
from ansible_collections.zdm.landscape.tests.integration.mariadb.test_mariadb_reconciler import MariaDBScene
from ansible_collections.zdm.landscape.tests.integration.reconciler_kit import SCHEMA, Play
from ansible_collections.zdm.landscape.tests.integration.verb_kit import WAIT_MS, A, B, C, move
from ansible_collections.zdm.landscape.tests.landscape.processes import wait_until


@pytest.fixture
def scene(empty: Bench) -> MariaDBScene:
    scene = MariaDBScene(empty)
    for statement in SCHEMA:
        scene.sql(statement)
    scene.fill(A)
    scene.fill(C, 1000)
    return scene


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ("INT", "BIGINT", "5000000000"),
        ("VARCHAR(5)", "VARCHAR(50)", "'123456789'"),
        ("DECIMAL(5,2)", "DECIMAL(10,4)", "12345.1234"),
    ],
)
def test_a_wider_key_stops_no_writes(scene: MariaDBScene, old: str, new: str, value: str) -> None:
    scene.sql(f"ALTER TABLE bill MODIFY id {old} NOT NULL")
    play = Play(scene, turned=False)
    scene.sql(f"ALTER TABLE bill MODIFY id {new} NOT NULL")
    scene.sql(f"INSERT INTO bill VALUES ('{A}', {value}, 7, 'x', 'wide')")
    play.stage()
    play.switch()


def later(scene: MariaDBScene) -> None:
    """Wait until the table was made in a second that is over: the catalog counts in seconds."""
    made = (
        "SELECT create_time < CAST(NOW() AS DATETIME) FROM information_schema.tables WHERE table_schema = DATABASE()"
        " AND table_name = 'bill'"
    )
    wait_until(lambda: scene.sql(made) == [(1,)], "the second is over")


def test_a_column_that_was_made_anew_is_a_change(scene: MariaDBScene) -> None:
    column = "ALTER TABLE bill ADD COLUMN token VARCHAR(36) DEFAULT (UUID())"
    scene.sql(column)
    play = Play(scene, turned=False)
    assert play.status().unready == ()
    later(scene)
    scene.sql("ALTER TABLE bill DROP COLUMN token")
    scene.sql(column)
    assert play.status().unready == ("Columns, keys or triggers of bill have changed since the stage.",)
    with pytest.raises(Refused, match="bill have changed"):
        play.participant.barrier(play.now(), WAIT_MS)
    play.stage()
    play.switch()


@pytest.mark.parametrize(
    "statement",
    [
        "ANALYZE TABLE bill",
        "CHECK TABLE bill",
        "FLUSH TABLES bill",
        "UPDATE bill SET v = v + 1 WHERE tenant_id = 'bystander'",
    ],
)
def test_ordinary_maintenance_closes_no_way(scene: MariaDBScene, statement: str) -> None:
    play = Play(scene, turned=False)
    later(scene)
    scene.sql(statement)
    assert play.status().unready == ()
    play.switch()


def moved(scene: MariaDBScene) -> Play:
    play = Play(scene, turned=False)
    play.epoch += 1
    play.participant.take_over(play.now())
    play.participant.barrier(play.now(), WAIT_MS)
    return play


def test_a_write_that_got_past_a_lost_fence_does_not_hold_the_undo(scene: MariaDBScene) -> None:
    play = moved(scene)
    for name, *_rest in scene.sql("SHOW TRIGGERS WHERE `Table` = 'box'"):
        scene.sql(f"DROP TRIGGER {name}")
    scene.sql(f"INSERT INTO box VALUES (9999, '{A}', 1)")
    with pytest.raises(Refused):
        play.participant.confirm(play.now())
    play.participant.undo(play.now())
    assert scene.sql(f"SELECT COUNT(*) FROM box WHERE tenant_id = '{A}'") == [(41,)]
    play.stage()
    play.switch()


@pytest.mark.parametrize("change", ["DROP TABLE box", "RENAME TABLE box TO chest"])
def test_a_table_that_is_gone_does_not_hold_the_undo(scene: MariaDBScene, change: str) -> None:
    play = moved(scene)
    scene.sql(change)
    with pytest.raises(Refused):
        play.participant.confirm(play.now())
    play.participant.undo(play.now())
    assert play.status().state == STAGED
    if "RENAME" in change:
        assert scene.sql(f"SELECT COUNT(*) FROM chest WHERE tenant_id = '{B}'") == [(0,)]


def test_a_renamed_table_and_another_under_its_name(scene: MariaDBScene) -> None:
    """Nobody but a person knows whether the old one is still in use."""
    play = Play(scene, turned=True)
    scene.sql("RENAME TABLE line TO parts")
    scene.sql("CREATE TABLE line (tenant_id VARCHAR(63) NOT NULL, id INT NOT NULL, PRIMARY KEY (tenant_id, id))")
    scene.sql(f"INSERT INTO line VALUES ('{B}', 1)")
    [refusal] = play.participant.inspect("venezia--venezia-scp", A, B).refusals
    assert (refusal.object, "was staged under another name" in refusal.reason) == ("parts", True)
    with pytest.raises(pymysql.MySQLError, match="is closed by a migration"):
        scene.sql(f"DELETE FROM parts WHERE tenant_id = '{A}'")
    ignoring = scene.participant(parts={"ignore": "it goes with the next release"})
    at = move(9, forward=False)
    ignoring.stage(at, ignoring.inspect("venezia--venezia-scp", A, B), lambda _entry: None)
    assert ignoring.status("venezia--venezia-scp", A, B).unready == ()
    scene.sql(f"DELETE FROM parts WHERE tenant_id = '{A}'")
    assert scene.sql(f"SELECT COUNT(*) FROM line WHERE tenant_id = '{A}'") == [(1,)]
