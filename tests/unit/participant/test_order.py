# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Orders of tables by their foreign keys."""

from __future__ import annotations

from ansible_collections.zdm.landscape.plugins.module_utils.participant.order import components, cyclic, parents_first
from hypothesis import given
from hypothesis import strategies as st

NODES = "abcdef"
EDGES = st.sets(st.tuples(st.sampled_from(NODES), st.sampled_from(NODES)))


@given(EDGES)
def test_parents_come_first_unless_they_are_on_a_cycle(edges: set[tuple[str, str]]) -> None:
    order = parents_first(NODES, edges)
    assert sorted(order) == sorted(NODES)
    loops = cyclic(NODES, edges)
    if not loops:
        assert all(order.index(parent) < order.index(child) for child, parent in edges)


@given(EDGES)
def test_components_hold_every_edge_and_every_node_once(edges: set[tuple[str, str]]) -> None:
    groups = components(NODES, edges)
    assert sorted(node for group in groups for node in group) == sorted(NODES)
    group_of = {node: group for group in groups for node in group}
    assert all(group_of[child] == group_of[parent] for child, parent in edges)


def test_small_cases() -> None:
    assert parents_first("abc", {("a", "c"), ("c", "b")}) == ("b", "c", "a")
    assert components("abcd", {("a", "c"), ("c", "d")}) == (("a", "c", "d"), ("b",))
    assert cyclic("abcd", {("a", "b"), ("b", "a"), ("c", "a"), ("d", "d")}) == frozenset("abd")
