# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a database whose user lacks rights: it lists all of them, whatever fails first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import MissingRight, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.participant.planning import Planning

GRANTS = ("GRANT owner TO zdm", "-- once", "SET GLOBAL trust = 1;")


class Strict(Planning):
    """A database that refuses its user."""

    kind = "strict"
    driver = "sqlite3"
    known: tuple[Any, ...] = ()

    def url(self) -> sa.URL:
        return sa.URL.create("sqlite", database=str(self.options["database"]))

    def refused_login(self, message: str) -> bool:
        return False

    def lacks_right(self, error: sa.exc.DBAPIError) -> bool:
        return "no such table: secret" in str(error.orig) or "unable to open" in str(error.orig)

    def grants(self, connection: Any) -> tuple[str, ...]:
        self.known = (*self.known, connection)
        return GRANTS if connection else GRANTS[:1]

    def state(self, connection: Any, migration: str, lock: bool = False) -> None:
        connection.exec_driver_sql("SELECT 1 FROM secret")


Strict.__abstractmethods__ = frozenset()


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
