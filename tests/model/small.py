# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three small models beside the large one: claims, an alias that is onboarded during the window, edits of a router's map.

Each is a handful of processes that run a list of actions over shared variables. Each exists with its rule and without it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

Variables = dict[str, str | int]
Places = tuple[int, ...]


class Action(NamedTuple):
    """One atomic action of a process. ``do`` changes the variables; it answers false when it can't happen yet, or ``END``."""

    name: str
    do: Callable[[Variables], object]


Process = Sequence[Action]
END = "end"
"""The process does nothing more."""


class Small(NamedTuple):
    """A small model. ``broken`` says what is wrong with the variables, given whether all processes are over."""

    variables: Variables
    processes: Sequence[Process]
    broken: Callable[[Variables, bool], str]


class Verdict(NamedTuple):
    """How many states there are, what breaks, and the shortest way to it."""

    states: int
    violation: str
    trace: tuple[str, ...]


def explore_small(model: Small) -> Verdict:
    """Visit every state of *model*, breadth first."""
    names = tuple(model.variables)
    first = (tuple(model.variables.values()), (0,) * len(model.processes))
    ways: dict[tuple[tuple[str | int, ...], Places], tuple[str, ...]] = {first: ()}
    queue = deque([first])
    while queue:
        state = queue.popleft()
        over = all(place == len(process) for place, process in zip(state[1], model.processes, strict=True))
        problem = model.broken(dict(zip(names, state[0], strict=True)), over)
        if problem:
            return Verdict(len(ways), problem, ways[state])
        for index, process in enumerate(model.processes):
            place = state[1][index]
            if place == len(process):
                continue
            variables = dict(zip(names, state[0], strict=True))
            answer = process[place].do(variables)
            if answer is False:
                continue
            following = len(process) if answer is END else place + 1
            new = (tuple(variables[name] for name in names), (*state[1][:index], following, *state[1][index + 1 :]))
            if new not in ways:
                ways[new] = (*ways[state], process[place].name)
                queue.append(new)
    return Verdict(len(ways), "", ())


def _set(**values: str | int) -> Callable[[Variables], object]:
    return lambda variables: variables.update(values)


def two_migrations(claims: bool) -> Small:
    """A to 1 and A to 2, each with a journal of its own, and a client that writes under the live id."""

    def claim(me: int) -> Callable[[Variables], object]:
        def do(v: Variables) -> object:
            if claims and v["claim"] not in (0, me):
                return END
            v["claim"] = me
            return None

        return do

    def barrier(me: int) -> Callable[[Variables], object]:
        def do(v: Variables) -> None:
            v[f"rows{me}"] = v["rows0"]
            v["fence0"] = 1

        return do

    def write(v: Variables) -> object:
        live = v["canonical"]
        if live == 0 and v["fence0"]:
            return False
        v[f"rows{live}"] = 1
        v["accepted"] = 1
        return None

    def migration(me: int) -> Process:
        return (
            Action(f"migration {me} claims tenant A", claim(me)),
            Action(f"migration {me} barrier: copies A to {me}, fences A", barrier(me)),
            Action(f"migration {me} commits: {me} is live", _set(canonical=me)),
        )

    def broken(v: Variables, over: bool) -> str:
        return "an accepted write is lost" if over and v["accepted"] and not v[f"rows{v['canonical']}"] else ""

    variables: Variables = {"claim": 0, "rows0": 0, "rows1": 0, "rows2": 0, "fence0": 0, "canonical": 0, "accepted": 0}
    client = (Action("a client writes under the live id and is answered", write),)
    return Small(variables, (migration(1), migration(2), client), broken)


def _listing(v: Variables) -> None:
    v["listed"] = 1 if v["document"] else 0


def _onboarding(rule: bool) -> Process:
    """The callback that onboards the alias C, mapped to A."""

    def live(v: Variables) -> str:
        return "B" if v["journal"] == "committed" else "A"

    def check(v: Variables) -> object:
        if v["journal"] == "window":
            v["router"] = "held"
            return None
        v["router"] = v["document"] = live(v)
        return END

    def resolve(v: Variables) -> object:
        if v["journal"] == "window":
            return False
        v["router"] = v["document"] = live(v)
        return None

    def push(v: Variables) -> None:
        v["router"] = v["document"] if v["router"] != "held" else v["router"]

    written = Action("the callback writes onboarded-tenants/C: leads to A", _set(document="A"))
    if not rule:
        return (Action("the callback reads that C leads to A", _set()), written, Action("the callback pushes C to the routers", push))
    return (written, Action("the callback reads the journal after its write", check), Action("the callback waits for the window's end", resolve))


def onboarded_alias(rule: bool) -> Small:
    """C is onboarded as an alias of A while A moves to B. With the rule the migration lists aliases after it took over and again
    after the commit, and the callback reads the journal after its write."""

    def block(v: Variables) -> None:
        v["router"] = "held" if v["listed"] else v["router"]

    def lead(v: Variables) -> None:
        if rule:
            _listing(v)
        if v["listed"]:
            v["document"] = v["router"] = "B"

    lists = Action("the migration lists the aliases of A", _listing)
    opens = Action("journal: a window", _set(journal="window"))
    migration = (
        *((opens, lists) if rule else (lists, opens)),
        Action("the migration blocks the listed", block),
        Action("journal: committed", _set(journal="committed")),
        Action("the migration leads the listed to B", lead),
    )

    def broken(v: Variables, over: bool) -> str:
        wrong = over and (v["document"] != "B" or v["router"] != "B")
        return f"C's document leads to {v['document']}, its router to {v['router']}, but B is live" if wrong else ""

    return Small({"document": "", "router": "", "journal": "idle", "listed": 0}, (migration, _onboarding(rule)), broken)


def two_map_edits(per_key: bool) -> Small:
    """Two migrations of different tenants each block their tenant in one router's map: per key, or by replacing the map."""

    def prepare(me: int) -> Callable[[Variables], object]:
        def do(v: Variables) -> None:
            v[f"copy{me}"] = v["map"]

        return do

    def commit(me: int) -> Callable[[Variables], object]:
        def do(v: Variables) -> None:
            v["map"] = int(v["map"] if per_key else v[f"copy{me}"]) | me

        return do

    def migration(me: int) -> Process:
        return (
            Action(f"migration {me} copies the map", prepare(me)),
            Action(f"migration {me} adds its block, the map is set", commit(me)),
            Action(f"migration {me} is told: blocked", _set(**{f"blocked{me}": 1})),
        )

    def broken(v: Variables, over: bool) -> str:
        return next((f"migration {me} believes its tenant blocked, it is not" for me in (1, 2) if v[f"blocked{me}"] and not int(v["map"]) & me), "")

    return Small({"map": 0, "copy1": 0, "copy2": 0, "blocked1": 0, "blocked2": 0}, (migration(1), migration(2)), broken)
