# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Strategies in a few characters, and statements as a database's client reads them."""

from __future__ import annotations

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.participant import strategies
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import IGNORE, IN_PLACE, TWIN, TablePlan
from ansible_collections.zdm.landscape.plugins.module_utils.participant.script import script
from hypothesis import given
from hypothesis import strategies as st


def tables(**chosen: str) -> list[TablePlan]:
    return [TablePlan(name, strategy, "", 0) for name, strategy in chosen.items()]


def test_strategies_are_written_in_the_order_of_the_names() -> None:
    assert strategies.written(tables(c=TWIN, a=IN_PLACE, b=IN_PLACE, x=IGNORE)) == "2i1t"
    assert strategies.written(tables(x=IGNORE)) == "0"


@given(st.dictionaries(st.text(max_size=5), st.sampled_from([IN_PLACE, TWIN]), min_size=1, max_size=40))
def test_what_was_written_can_be_read(chosen: dict[str, str]) -> None:
    assert strategies.read(strategies.written(tables(**chosen)), list(chosen)) == chosen


@pytest.mark.parametrize("text", ["", "0", "1i", "3i", "2x", "i2", "1i1t ", "0i2t", "9999999i", "1i-1t"])
def test_what_does_not_fit_is_nothing(text: str) -> None:
    assert strategies.read(text, ["a", "b"]) == {}


def test_every_statement_ends_in_one_semicolon_and_comments_in_none() -> None:
    assert script(["-- stage", "GRANT x TO y", " SELECT 1; ", "", "SELECT ';'\n"]) == (
        *("-- stage", "GRANT x TO y;", "SELECT 1;", "SELECT ';';"),
    )


def test_bodies_get_a_delimiter_where_the_client_wants_one() -> None:
    trigger = "CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW BEGIN SET @x = '//'; SET @y = 2; END"
    assert script([trigger]) == (f"{trigger};",)
    assert script([trigger, "BEGIN"], delimiter=True) == (f"DELIMITER $$\n{trigger}$$\nDELIMITER ;", "BEGIN;")
    one = "CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW SET @x = 1"
    assert script([one], delimiter=True) == (f"{one};",)
