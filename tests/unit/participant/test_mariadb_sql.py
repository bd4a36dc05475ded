# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Statements and rights of the MariaDB participant, without a server."""

from __future__ import annotations

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import TWIN
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb import sql
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.triggers import Trigger, Triggers
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import Planned, State

TABLES = (Planned("bill", ("tenant_id",)), Planned("a`b", ("tenant_id", "owner_id"), 1, keep=("changed",)))
TWIN_TABLE = Planned("bill", ("tenant_id",), 7, TWIN, ("id", "seq"), ("int(11)", "char(2)"), ("id", "seq", "note"))


def backticks(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def triggers(migration: str, source: str = "a", target: str = "b", *tables: Planned) -> dict[str, Trigger]:
    known = Triggers(State(migration, 1, "staged", source, source, target, tables or TABLES), backticks)
    return {name: trigger for table in tables or TABLES for name, trigger in known.of(table).items()}


def test_three_triggers_for_each_table_with_names_of_the_migration_alone() -> None:
    first = triggers("a--b")
    second = triggers("a--c", "a", "c")
    assert len(first) == 6
    assert not set(first) & set(second)
    assert [trigger.event for trigger in first.values()] == ["INSERT", "UPDATE", "DELETE"] * 2
    assert all(len(name) <= 64 for name in first)


def test_a_trigger_looks_at_the_rows_that_its_event_has() -> None:
    insert, update, delete = list(triggers("a--b").values())[3:]
    assert "OLD." not in insert.body
    assert "NEW." not in delete.body
    for row in ("OLD", "NEW"):
        for column in ("tenant_id", "owner_id"):
            assert f"{row}.`{column}` = 'b'" in update.body
    assert insert.create(backticks).startswith("CREATE OR REPLACE TRIGGER `zdm_")
    assert " ON `a``b` FOR EACH ROW IF NOT (@zdm_worker_" in insert.create(backticks)


def test_each_id_has_one_locking_read() -> None:
    body = next(iter(triggers("a--b").values())).body
    assert body.count("LOCK IN SHARE MODE") == 2
    assert body.count("SIGNAL SQLSTATE '45000'") == 2


def test_no_trigger_of_a_twin_names_its_log() -> None:
    insert, update, delete = triggers("a--b", "a", "b", TWIN_TABLE).values()
    for trigger in (insert, update, delete):
        assert "zdm_log_" not in trigger.body
    assert insert.timing == "AFTER"  # its key may be counted by the server
    assert "CALL `zdm_note_" in insert.body
    assert "_7_s`(NEW.`id`, NEW.`seq`);" in insert.body
    assert update.body.count("CALL") == 2 * 2
    assert delete.body.count("_s`(OLD.`id`, OLD.`seq`);") == 1


def test_the_longest_id_fits_into_the_message() -> None:
    longest = "x" * 63
    body = next(iter(triggers("a--b", longest).values())).body
    message = body.split("MESSAGE_TEXT = '")[1].split("'")[0]
    assert longest in message
    assert len(message) <= 128  # the server cuts longer ones


def test_the_worker_of_another_migration_is_not_exempt() -> None:
    assert sql.worker_token("a--b") != sql.worker_token("a--c")
    assert sql.worker_variable("a--b") != sql.worker_variable("a--c")


@pytest.mark.parametrize(
    ("grants", "everywhere", "here"),
    [
        (
            [
                "GRANT USAGE ON *.* TO `u`@`%` IDENTIFIED BY PASSWORD '*1'",
                "GRANT SELECT, CREATE TEMPORARY TABLES ON `x`.* TO `u`@`%`",
            ],
            {"USAGE"},
            {"SELECT", "CREATE TEMPORARY TABLES"},
        ),
        (["GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION"], {"ALL PRIVILEGES"}, set()),
        (["GRANT SELECT ON `my\\_db`.* TO `u`@`%`"], set(), set()),
        (
            [
                "GRANT SELECT ON `%`.* TO `u`@`%`",
                "GRANT INSERT ON `_`.* TO `u`@`%`",
                "GRANT UPDATE ON `xy`.* TO `u`@`%`",
            ],
            set(),
            {"SELECT", "INSERT"},
        ),
        (
            ["GRANT SELECT ON `x`.`bill` TO `u`@`%`", "GRANT `role` TO `u`@`%`", "GRANT PROXY ON ''@'%' TO `u`@`%`"],
            set(),
            set(),
        ),
    ],
)
def test_rights(grants: list[str], everywhere: set[str], here: set[str]) -> None:
    assert sql.rights_of(grants, "x") == (everywhere, here)


def test_an_escaped_pattern_means_its_characters() -> None:
    assert sql.rights_of(["GRANT SELECT ON `my\\_db`.* TO `u`@`%`"], "my_db")[1] == {"SELECT"}
    assert sql.rights_of(["GRANT SELECT ON `my\\_db`.* TO `u`@`%`"], "myxdb")[1] == set()


def test_names_as_innodb_writes_them() -> None:
    assert sql.decoded("my@002ddb/bill_1") == ["my-db", "bill_1"]


def state(name: str, live: str = "a") -> State:
    return State("a--b", 1, name, live, "a", "b", TABLES)


@pytest.mark.parametrize(
    ("at", "fenced", "rows", "problems"),
    [
        (state("staged"), ("b",), {"a": 3, "b": 0}, 0),
        (state("staged"), ("a", "b"), {"a": 3, "b": 0}, 1),
        (state("staged"), (), {"a": 3, "b": 0}, 1),
        (state("staged"), ("b",), {"a": 3, "b": 1}, 1),
        (state("staged", "b"), ("a",), {"a": 0, "b": 3}, 0),
        (state("fenced"), ("a", "b"), {"a": 3, "b": 0}, 0),
        (state("moved"), ("a", "b"), {"a": 0, "b": 3}, 0),
        (state("moved"), ("a",), {"a": 1, "b": 3}, 2),
        (state("moved", "b"), ("a", "b"), {"a": 3, "b": 0}, 0),
        (state("staging"), (), {"a": 3, "b": 0}, 0),
    ],
)
def test_problems(at: State, fenced: tuple[str, ...], rows: dict[str, int], problems: int) -> None:
    assert len(at.problems(fenced, rows)) == problems
