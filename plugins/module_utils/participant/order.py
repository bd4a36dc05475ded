# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small graph functions over foreign keys. An edge is (child, parent). Results are sorted: equal input, equal plan."""

from __future__ import annotations

from collections.abc import Iterable

Edges = Iterable[tuple[str, str]]


def parents_first(nodes: Iterable[str], edges: Edges) -> tuple[str, ...]:
    """Order *nodes* so that parents come before children; members of a cycle come in the order of their names."""
    waiting = {node: set[str]() for node in sorted(nodes)}
    for child, parent in edges:
        if child != parent:
            waiting[child].add(parent)
    result: list[str] = []
    while waiting:
        ready = [node for node, parents in waiting.items() if not parents & waiting.keys()] or [next(iter(waiting))]
        for node in ready:
            del waiting[node]
        result += ready
    return tuple(result)


def components(nodes: Iterable[str], edges: Edges) -> tuple[tuple[str, ...], ...]:
    """Connected components, each sorted, sorted by their first member."""
    group = {node: {node} for node in nodes}
    for child, parent in edges:
        if group[child] is not group[parent]:
            merged = group[child] | group[parent]
            group.update(dict.fromkeys(merged, merged))
    return tuple(sorted({tuple(sorted(members)) for members in group.values()}))


def cyclic(nodes: Iterable[str], edges: Edges) -> frozenset[str]:
    """The nodes that lie on a cycle; a self reference is one."""
    parents = {node: {parent for child, parent in set(edges) if child == node} for node in nodes}
    return frozenset(node for node in parents if node in _ancestors(node, parents))


def _ancestors(node: str, parents: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    todo = list(parents[node])
    while todo:
        current = todo.pop()
        if current not in seen:
            seen.add(current)
            todo += parents[current]
    return seen
