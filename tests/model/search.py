# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Breadth-first search for small models, whose states can be of any type that can be hashed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple, TypeVar

S = TypeVar("S", bound=Hashable)


class Verdict(NamedTuple):
    """How many states there are, what breaks, and the shortest way to it."""

    states: int
    violation: str
    trace: tuple[str, ...]


def search(first: S, transitions: Callable[[S], Iterable[tuple[str, S]]], broken: Callable[[S], str]) -> Verdict:
    """Visit every state that follows from *first*, until one is *broken*."""
    parents: dict[S, tuple[S, str] | None] = {first: None}
    queue = deque([first])
    while queue:
        state = queue.popleft()
        problem = broken(state)
        if problem:
            return Verdict(len(parents), problem, _way(parents, state))
        for label, following in transitions(state):
            if following not in parents:
                parents[following] = (state, label)
                queue.append(following)
    return Verdict(len(parents), "", ())


def _way(parents: dict[S, tuple[S, str] | None], state: S) -> tuple[str, ...]:
    labels: list[str] = []
    step = parents[state]
    while step:
        labels.append(step[1])
        step = parents[step[0]]
    return tuple(reversed(labels))
