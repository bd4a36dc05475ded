# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a database, whatever the engine: what was signed is kept, and rights that are missing are listed at
once.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import MissingRight, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.participant import planning, strategies
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import IN_PLACE, TWIN, Refusal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import Engine, Rate
from ansible_collections.zdm.landscape.plugins.module_utils.participant.planning import Planning
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import Planned, Survey

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

GRANTS = ("GRANT owner TO zdm", "-- once", "SET GLOBAL trust = 1;")


class Simple(Planning):
    """A database that can be planned for: SQLite, told that it can do more."""

    kind = "simple"
    driver = "sqlite3"
    rate = Rate()

    def url(self) -> sa.URL:
        return sa.URL.create("sqlite", database=str(self.options["database"]))

    def refused_login(self, message: str) -> bool:
        return False

    def state(self, connection: Connection, migration: str, lock: bool = False) -> None:
        return None

    def exact(self, column: str, kind: str, tenant_id: str) -> str:
        return f"{column} = '{tenant_id}'"

    def survey(self, connection: Connection, live_id: str, other_id: str, own_rows: Any) -> Survey:
        catalog = {
            name: replace(table, rows=connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar_one())
            for name, table in self.reflect(connection).items()
        }
        return Survey(catalog, lambda table, number: Planned(table.table, table.tenant_columns, number), "3")

    def obstacles(self, connection: Connection) -> tuple[Refusal, ...]:
        return ()

    def measure(self, connection: Connection, table: Any, tenant: Any, live_id: str, other_id: str) -> Rate:
        return self.rate

    def statements(self, connection: Any, state: Any, updates: list[str]) -> tuple[str, ...]:
        return ("-- window", *updates)

    def abilities(self) -> Engine:
        return Engine("Simple", (IN_PLACE, TWIN), fence_ms=3, rate=Rate(1000, 10))

    def grants(self, connection: Connection | None) -> tuple[str, ...]:
        return ("GRANT owner TO zdm",)


Simple.__abstractmethods__ = frozenset()
COLUMNS = "(tenant_id text NOT NULL, id int NOT NULL, PRIMARY KEY (tenant_id, id))"
OPTIONS = {"name": "bills", "user": "zdm", "no_cross_tenant_readers": True}


def simple(folder: Path, **rows: int) -> Simple:
    """A database with tables of so many rows."""
    path = folder / "bills.sqlite"
    with sqlite3.connect(path) as connection:
        for table, count in rows.items():
            connection.execute(f"CREATE TABLE IF NOT EXISTS {table} {COLUMNS}")
            connection.execute(f"DELETE FROM {table}")
            connection.executemany(f"INSERT INTO {table} VALUES ('A', ?)", [(number,) for number in range(count)])
    connection.close()
    return Simple({**OPTIONS, "database": str(path)})  # type: ignore[abstract]


def test_a_plan_predicts_by_what_is_measured_and_chooses_by_what_is_not(tmp_path: Path) -> None:
    database = simple(tmp_path, few=6, many=1500)
    quiet = database.inspect("a--b", "A", "B")
    database.rate = Rate(100_000, 100_000)
    busy = database.inspect("a--b", "A", "B")
    assert [(table.table, table.strategy) for table in quiet.tables] == [("few", IN_PLACE), ("many", TWIN)]
    assert [table.strategy for table in busy.tables] == [table.strategy for table in quiet.tables]
    assert busy.window_ms > quiet.window_ms + 500
    assert busy.digest == quiet.digest
    assert quiet.bystander_ms == busy.bystander_ms == 2 * 3
    assert quiet.grants == ("GRANT owner TO zdm;",)
    assert quiet.sql[0] == "-- window"
    assert all(statement.endswith(";") for statement in quiet.sql[1:])


def test_what_was_signed_is_planned_whatever_became_of_the_rows(tmp_path: Path) -> None:
    before = simple(tmp_path, few=6, many=1500).inspect("a--b", "A", "B")
    grown = simple(tmp_path, few=1500, many=6)
    assert strategies.written(before.tables) == "1i1t"
    assert strategies.written(grown.inspect("a--b", "A", "B").tables) == "1t1i"
    again = grown.inspect("a--b", "A", "B", "1i1t")
    assert strategies.written(again.tables) == "1i1t"
    assert again.digest == before.digest
    assert strategies.written(grown.inspect("a--b", "A", "B", "3i").tables) == "1t1i"


def test_what_is_typical_is_the_median_and_long_work_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 400.0, 20.0, 2_000_000.0])
    monkeypatch.setattr(planning, "per_row_us", lambda rows, action: action() or next(times))
    done: list[str] = []
    assert planning.typical_us(5, lambda: done.append("do"), lambda: done.append("take back")) == 20
    assert done == ["do", "take back", "do", "take back", "do"]
    assert planning.typical_us(1, lambda: None) == 2_000_000


def test_a_changed_schema_changes_the_digest(tmp_path: Path) -> None:
    before = simple(tmp_path, few=6).inspect("a--b", "A", "B")
    assert simple(tmp_path, few=6, more=1).inspect("a--b", "A", "B").digest != before.digest


class Strict(Simple):
    """A database that refuses its user."""

    kind = "strict"
    known: tuple[Any, ...] = ()

    def lacks_right(self, error: sa.exc.DBAPIError) -> bool:
        return "no such table: secret" in str(error.orig) or "unable to open" in str(error.orig)

    def grants(self, connection: Any) -> tuple[str, ...]:
        self.known = (*self.known, connection)
        return GRANTS if connection else GRANTS[:1]

    def state(self, connection: Any, migration: str, lock: bool = False) -> None:
        connection.exec_driver_sql("SELECT 1 FROM secret")


def strict(database: Path) -> Strict:
    return Strict({"name": "bills", "database": str(database), "user": "zdm"})  # type: ignore[abstract]


def test_the_plan_of_a_user_without_rights_lists_all_of_them(tmp_path: Path) -> None:
    inspection = strict(tmp_path / "x").inspect("a--b", "A", "B")
    assert inspection.grants == ("GRANT owner TO zdm;", "-- once", "SET GLOBAL trust = 1;")
    (refusal,) = inspection.refusals
    assert refusal.object == "bills"
    assert "user 'zdm' lacks a right: no such table: secret" in refusal.reason
    assert "GRANT owner TO zdm; SET GLOBAL trust = 1;" in refusal.advice
    assert inspection.tables == ()


def test_a_user_who_may_not_even_use_the_database_is_told_what_is_known(tmp_path: Path) -> None:
    database = strict(tmp_path / "none" / "x")
    inspection = database.inspect("a--b", "A", "B")
    assert database.known == (None,)
    assert inspection.grants == ("GRANT owner TO zdm;",)
    assert "lacks a right" in inspection.refusals[0].reason


def test_what_an_engine_knows_where_it_fails_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def state(*_args: object) -> None:
        raise MissingRight("No.", "Ask.", grants=["GRANT all"])

    monkeypatch.setattr(Strict, "state", state)
    assert strict(tmp_path / "x").inspect("a--b", "A", "B").grants == ("GRANT all;",)


def test_other_verbs_say_where_the_rights_are_listed(tmp_path: Path) -> None:
    database = strict(tmp_path / "x")
    with (
        pytest.raises(MissingRight, match=r"lacks a right.*playbook zdm\.landscape\.plan"),
        database.transaction() as c,
    ):
        c.exec_driver_sql("SELECT 1 FROM secret")


def test_a_server_that_does_not_answer_is_no_missing_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Strict, "lacks_right", lambda *_args: False)
    with pytest.raises(Unreachable):
        strict(tmp_path / "none" / "x").inspect("a--b", "A", "B")
