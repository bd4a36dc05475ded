# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Statements of MariaDB's twins, as far as they can be judged without a server."""

from __future__ import annotations

import sqlite3

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import STAGED
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import parameter
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.planned import (
    MariaDBPlanned,
    as_text,
    from_text,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.twin_sql import Range, Twin, beyond
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import State
from hypothesis import given
from hypothesis import strategies as st

KEYS = st.integers(1, 3).flatmap(
    lambda size: st.tuples(*(st.lists(st.integers(0, 2), min_size=size, max_size=size) for _key in range(2)))
)
TABLE = MariaDBPlanned(
    "bill",
    ("tenant_id",),
    strategy="twin",
    index="PRIMARY",
    key=("id",),
    key_types=("int(11)",),
    copied=("id", "note"),
    texts=("note",),
)


def state(live: str) -> State:
    return State("venezia--venezia-scp", 1, STAGED, live, "venezia", "venezia-scp", (TABLE,))


@given(KEYS, st.sampled_from([("<", "<"), ("<", "<="), (">", ">")]))
def test_a_key_comparison_written_out_is_that_of_tuples(
    keys: tuple[list[int], list[int]], operators: tuple[str, str]
) -> None:
    key, bound = map(tuple, keys)
    compare, last = operators
    expected = key > bound if compare == ">" else key < bound or (last == "<=" and key == bound)
    condition = beyond([str(value) for value in key], [str(value) for value in bound], compare, last)
    assert bool(sqlite3.connect(":memory:").execute(f"SELECT {condition}").fetchone()[0]) == expected


@pytest.mark.parametrize(("live", "side"), [("venezia", "s"), ("venezia-scp", "t")])
def test_the_log_is_that_of_the_live_id(live: str, side: str) -> None:
    twin = Twin(state(live), TABLE, str)
    assert twin.log == f"zdm_log_3ea251c9_{side}_0"
    assert f"SELECT '{twin.other}', a.id, a.note" in twin.chunk(Range(None, None), present=False)


def test_texts_are_compared_byte_by_byte() -> None:
    twin = Twin(state("venezia"), TABLE, str)
    for statement in (twin.applied_wrong(), twin.compare(Range(None, None))):
        assert "BINARY a.note <=> BINARY b.note" in statement
        assert "(a.id <=> b.id" in statement


def test_values_of_bounds_are_never_part_of_a_statement() -> None:
    keys = Range(["1"], ["it's 2"])
    statement = Twin(state("venezia"), TABLE, str).chunk(keys, present=True)
    assert parameter(0) in statement
    assert parameter(1) in statement
    assert "it's" not in statement
    assert keys.values == ["1", "it's 2"]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("int(11) unsigned", "CAST(x AS CHAR)", "CAST(? AS UNSIGNED)"),
        ("decimal(6,2)", "CAST(x AS CHAR)", "CAST(? AS decimal(6,2))"),
        ("varbinary(8)", "HEX(x)", "UNHEX(?)"),
        (
            "char(36) CHARACTER SET latin1 COLLATE latin1_bin",
            "CONVERT(x USING utf8mb4)",
            "CONVERT(? USING latin1) COLLATE latin1_bin",
        ),
        ("datetime(6)", "CAST(x AS CHAR)", "?"),
    ],
)
def test_a_key_is_read_and_given_back_as_its_type(kind: str, text: str, value: str) -> None:
    assert as_text("x", kind) == text
    assert from_text(0, kind).replace(parameter(0), "?") == value
