# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small models beside the large one: claims, aliases that are onboarded during the window or late, edits of a router's
map.

Each is a handful of processes that run a list of actions over shared variables. Each exists with its rule and without
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ansible_collections.zdm.landscape.tests.model.search import Verdict, search
from ansible_collections.zdm.landscape.tests.model.state import put

Variables = dict[str, str | int]
Places = tuple[int, ...]


class Action(NamedTuple):
    """One atomic action of a process. ``do`` changes the variables; it answers false when it can't happen yet, or
    ``END``.
    """

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


State = tuple[tuple[str | int, ...], Places]
"""The values of the variables, and the place of each process."""


def explore_small(model: Small) -> Verdict:
    """Visit every state of *model*, breadth first."""
    names = tuple(model.variables)

    def transitions(state: State) -> Iterator[tuple[str, State]]:
        for index, process in enumerate(model.processes):
            place = state[1][index]
            if place == len(process):
                continue
            variables = dict(zip(names, state[0], strict=True))
            answer = process[place].do(variables)
            if answer is not False:
                following = len(process) if answer is END else place + 1
                yield process[place].name, (tuple(variables[name] for name in names), put(state[1], index, following))

    def broken(state: State) -> str:
        over = all(place == len(process) for place, process in zip(state[1], model.processes, strict=True))
        return model.broken(dict(zip(names, state[0], strict=True)), over)

    return search((tuple(model.variables.values()), (0,) * len(model.processes)), transitions, broken)


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
        return (
            Action("the callback reads that C leads to A", _set()),
            written,
            Action("the callback pushes C to the routers", push),
        )
    return (
        written,
        Action("the callback reads the journal after its write", check),
        Action("the callback waits for the window's end", resolve),
    )


def onboarded_alias(rule: bool) -> Small:
    """C is onboarded as an alias of A while A moves to B. With the rule the migration lists aliases after it took over
    and again after the commit, and the callback reads the journal after its write."""

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


def alias_created_late(settled: bool) -> Small:
    """The answer to the create of C's document never came. *settled*: it is written again before the callback reads the
    journal.
    """

    def send(v: Variables) -> None:
        v["under way"] = 1

    def land(v: Variables) -> object:
        if v["under way"] and not v["document"]:  # a create finds no document
            v["document"] = "A"
        v["under way"] = 0
        return None

    def settle(v: Variables) -> None:
        v["document"] = v["document"] or "A"

    def check(v: Variables) -> object:
        if v["journal"] == "window":
            return None
        v["router"] = "B" if v["journal"] == "committed" else "A"
        v["document"] = v["document"] and v["router"]
        return END

    def resolve(v: Variables) -> object:
        return False if v["journal"] == "window" else check(v)

    def lead(v: Variables) -> None:
        if v["document"]:
            v["document"] = v["router"] = "B"

    sends = Action("the callback creates onboarded-tenants/C: no answer", send)
    settles = Action("the callback creates it again", settle)
    reads = (
        Action("the callback reads the journal", check),
        Action("the callback waits for the window's end", resolve),
    )
    migration = (
        Action("journal: a window", _set(journal="window")),
        Action("journal: committed", _set(journal="committed")),
        Action("the migration leads the aliases that it lists to B", lead),
    )
    network = (Action("the late create arrives", lambda v: land(v) if v["under way"] else False),)

    def broken(v: Variables, over: bool) -> str:
        return "C's document leads to A, but B is live" if over and v["document"] == "A" else ""

    callback = (sends, *((settles,) if settled else ()), *reads)
    return Small(
        {"document": "", "router": "", "journal": "idle", "under way": 0}, (migration, callback, network), broken
    )


def alias_offboarded(emptied: bool) -> Small:
    """C's document is created, with a duplicate of the create under way, and taken back: emptied, or deleted."""

    def create(v: Variables) -> None:
        v["document"] = v["document"] or "A"

    callback = (
        Action("the callback creates onboarded-tenants/C", create),
        Action("offboarding takes it back", _set(document="empty" if emptied else "")),
    )
    network = (Action("a late duplicate of the create arrives", create),)

    def broken(v: Variables, over: bool) -> str:
        return "C was offboarded, but its document is there again" if over and v["document"] == "A" else ""

    return Small({"document": ""}, (callback, network), broken)


def two_map_edits(per_key: bool) -> Small:
    """Two migrations of different tenants each block their tenant in one router's map: per key, or by replacing the
    map.
    """

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
        return next(
            (
                f"migration {me} believes its tenant blocked, it is not"
                for me in (1, 2)
                if v[f"blocked{me}"] and not int(v["map"]) & me
            ),
            "",
        )

    return Small({"map": 0, "copy1": 0, "copy2": 0, "blocked1": 0, "blocked2": 0}, (migration(1), migration(2)), broken)
