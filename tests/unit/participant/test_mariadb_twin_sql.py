# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Statements of MariaDB's twins, as far as they can be judged without a server."""

from __future__ import annotations

import sqlite3

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import STAGED
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.twin_sql import Twin, beyond
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import Planned, State
from hypothesis import given
from hypothesis import strategies as st

KEYS = st.integers(1, 3).flatmap(
    lambda size: st.tuples(*(st.lists(st.integers(0, 2), min_size=size, max_size=size) for _key in range(2)))
)
TABLE = Planned(
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
    return State("venezia--venezia-scp", 1, STAGED, live, "venezia", "venezia-scp", "", (TABLE,))


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
    twin = Twin(state(live), 0, str)
    assert twin.log == f"zdm_log_3ea251c9_{side}_0"
    assert set(twin.create_logs()) == {"zdm_log_3ea251c9_s_0", "zdm_log_3ea251c9_t_0"}
    assert f"SELECT '{twin.other}', a.id, a.note" in twin.chunk(None, None)


def test_texts_are_compared_byte_by_byte() -> None:
    assert "BINARY a.note <=> BINARY b.note" in Twin(state("venezia"), 0, str).differing()
    assert "(a.id <=> b.id" in Twin(state("venezia"), 0, str).differing()
