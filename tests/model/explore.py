# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Breadth-first exploration with the shortest trace to an accident, and the check that every run can be finished.

``python -m ansible_collections.zdm.landscape.tests.model.explore [--limit N] [--only NAME]`` explores all
configurations.
"""

from __future__ import annotations

import argparse
import sys
import time
from array import array
from dataclasses import dataclass, replace

from ansible_collections.zdm.landscape.tests.model.config import STAGE_JOB, Config
from ansible_collections.zdm.landscape.tests.model.configurations import LARGE, SMALL
from ansible_collections.zdm.landscape.tests.model.invariants import at_rest, broken
from ansible_collections.zdm.landscape.tests.model.protocol import Model
from ansible_collections.zdm.landscape.tests.model.state import (
    CLOSED,
    DEAD,
    HELD,
    NOBODY,
    PASSED,
    READY,
    UNSTARTED,
    Budget,
    Label,
    State,
)

OWED = ("boot", "load", "ready", "reachable", "delayed write", "stage repairs", "late call")
"""What the environment does sooner or later."""
NOT_FINISHED = "the same command, run alone, does not bring everything to rest"


@dataclass(frozen=True)
class Exploration:
    """What an exploration found. ``complete``: every reachable state was visited; ``trace`` leads to ``violation``."""

    states: int
    edges: int
    complete: bool
    recoveries: int
    seconds: float
    violation: str = ""
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        rate = self.states / self.seconds if self.seconds else 0
        head = (
            f"{self.states:,} states{'' if self.complete else ' (not all)'}, {self.edges:,} transitions, "
            f"{self.recoveries:,} recoveries, {self.seconds:.1f} s, {rate:,.0f} states/s"
        )
        return "\n  ".join([head, *((f"VIOLATED: {self.violation}",) if self.violation else ()), *self.trace])


class Explorer:
    """One exploration.

    :param config: the model.
    :param limit: stop after so many states; 0: never.
    :param recover_every: from every n-th state, check that the same command run alone brings everything to rest; 0:
        never.
    """

    def __init__(self, config: Config, limit: int = 0, recover_every: int = 0) -> None:
        self.model = Model(config)
        self.limit = limit
        self.recover_every = recover_every
        self._recovery = Recovery(config)
        self._states: list[State] = [config.initial()]
        self._parents = array("l", [-1])

    def run(self) -> Exploration:
        """Explore until an invariant breaks, the limit is reached or no state is left."""
        model, states, parents, started = self.model, self._states, self._parents, time.monotonic()
        index = {states[0]: 0}
        edges = recoveries = at = 0
        violation, trace = "", ()  # type: str, tuple[str, ...]
        while at < len(states) and not violation and not (self.limit and len(states) >= self.limit):
            state = states[at]
            for label, new, broken_by_step in model.transitions(state):
                edges += 1
                found = broken_by_step
                if new not in index:
                    index[new] = len(states)
                    states.append(new)
                    parents.append(at)
                    found = found or broken(model.config, new)
                if found:
                    violation, trace = found, (*self._trace(at), str(label))
                    break
            if not violation and self.recover_every and at % self.recover_every == 0:
                recoveries += 1
                problem = self._recovery.check(state)
                if problem:
                    violation, trace = NOT_FINISHED, (*self._trace(at), problem)
            at += 1
        return Exploration(
            len(states),
            edges,
            at == len(states) and not violation,
            recoveries,
            time.monotonic() - started,
            violation,
            trace,
        )

    def _trace(self, at: int) -> tuple[str, ...]:
        labels: list[str] = []
        while self._parents[at] >= 0:
            before = self._parents[at]
            target = self._states[at]
            labels.append(str(next(t.label for t in self.model.transitions(self._states[before]) if t.state == target)))
            at = before
        return tuple(reversed(labels))


def explore(config: Config, limit: int = 0, recover_every: int = 0) -> Exploration:
    """Explore *config*, see :class:`Explorer`."""
    return Explorer(config, limit, recover_every).run()


class Recovery:
    """Checks from one state on: all controllers are dead, one of the commands is run alone."""

    def __init__(self, config: Config) -> None:
        commands = sorted({goal for goals in config.goals for goal in goals} - {STAGE_JOB})
        calm = replace(config, undo=False, renew=False, repeat=False, unknown=frozenset(), late=())
        self._models = [Model(replace(calm, goals=((goal,),) * len(config.goals))) for goal in commands]

    def check(self, state: State) -> str:
        """What does not come to rest, or breaks an invariant on the way; an empty string when all is well."""
        left = state._replace(
            controllers=(*(DEAD,) * (len(state.controllers) - 1), UNSTARTED),
            participants=tuple(participant._replace(lock=NOBODY) for participant in state.participants),
            budget=Budget(),
            late=(),
        )
        owes = (
            bool(state.pending or state.mappings)
            or any(participant.calls for participant in state.participants)
            or any(router.up != READY for router in state.routers)
        )
        runs = ((model, first, begun) for model in self._models for first, begun in _begin(model, left))
        return next(
            filter(
                None,
                (
                    _finish(model, begun, first, early)
                    for model, first, begun in runs
                    for early in sorted({False, owes})
                ),
            ),
            "",
        )


def _begin(model: Model, state: State) -> list[tuple[str, State]]:
    """Every way in which the command may begin; when it finds nothing to do, the state as it is."""
    starts = [(str(t.label), t.state) for t in model.transitions(state) if t.label.actor != NOBODY]
    return starts or [("nothing to do", state)]


def _finish(model: Model, state: State, first: str, early: bool) -> str:
    """Go on to the end; what the environment owes (a delayed write, a router's start) comes as *early* or as late as
    possible.
    """
    for _round in range(300):
        transitions = model.transitions(state)
        mine = [t for t in transitions if t.label.actor != NOBODY]
        owed = [t for t in transitions if t.label.op.startswith(OWED) or _moves_a_request(t.label, state)]
        ways = owed + mine if early else mine + owed
        if not ways:
            break
        label, state, problem = ways[0]
        problem = problem or broken(model.config, state)
        if problem:
            return f"{first}, then {label}: {problem}"
    if state.journal.phase != "I" or any(router.block == CLOSED for router in state.routers):
        return f"{first}: ends in phase {state.journal.phase}"
    problem = at_rest(model.config, state)
    return f"{first}: {problem}" if problem else ""


def _moves_a_request(label: Label, state: State) -> bool:
    return label.system == "client" and label.target != NOBODY and state.requests[label.target].where in (HELD, PASSED)


def main(arguments: list[str] | None = None) -> int:
    """Explore all configurations and print what was found."""
    configurations = {**{f"small: {name}": config for name, (config, _states) in SMALL.items()}, **LARGE}
    parser = argparse.ArgumentParser(description="Explore the model of the cutover protocol.")
    parser.add_argument(
        "--limit", type=int, default=0, help="states per configuration; 0: all (needs about 1 KiB of memory per state)"
    )
    parser.add_argument("--recover-every", type=int, default=50, help="check recovery from every n-th state; 0: never")
    parser.add_argument("--only", choices=sorted(configurations), help="explore one configuration")
    options = parser.parse_args(arguments)
    failed = False
    for name, config in configurations.items():
        if options.only in (None, name):
            result = explore(config, options.limit, options.recover_every)
            print(f"{name}: {result}", flush=True)
            failed = failed or bool(result.violation)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
