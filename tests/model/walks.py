# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random walks of the model, and the traces that a real run would have left on the same way."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ansible_collections.zdm.landscape.tests.model.config import Config
from ansible_collections.zdm.landscape.tests.model.protocol import Model
from ansible_collections.zdm.landscape.tests.model.state import IDS, NOBODY, Label, State, Transition

KILL = "kill"
RECORDED = ("store", "router", "participant")
WEIGHTS: Mapping[str, float] = {
    "take_over": 0.05,
    "decides to undo": 0.02,
    "restart": 0.2,
    "reload": 0.2,
    "cut": 0.1,
    "dies, its lock ends": 0.05,
}
"""How likely a transition is against another one; what is not named: 1. A take over of routers or participants is not
meant.
"""


class Walk(NamedTuple):
    """A random walk: the first state, then what happened."""

    first: State
    steps: tuple[Transition, ...]

    @property
    def labels(self) -> list[Label]:
        return [step.label for step in self.steps]


def walk(config: Config, seed: int, length: int = 400, kill: float = 0.01) -> Walk:
    """Go *length* random transitions, or until nothing can happen any more.

    :param kill: how likely it is at each step that a controller that has begun is killed: before or after a write, or
        at any time, when what it had under way may still happen.
    """
    generator = random.Random(seed)
    model = Model(config)
    first = state = config.initial()
    steps: list[Transition] = []
    dead: set[int] = set()
    for _step in range(length):
        possible = [t for t in model.transitions(state) if t.label.actor not in dead]
        begun = [
            index
            for index, controller in enumerate(state.controllers)
            if controller.mode not in ("", "end") and index not in dead
        ]
        if begun and generator.random() < kill:
            victim = generator.choice(begun)
            dead.add(victim)
            steps += _kill(state, victim, [t for t in possible if t.label.actor == victim], generator)
        elif possible:
            steps.append(generator.choices(possible, [_weight(t.label) for t in possible])[0])
        if not steps or not possible:
            break
        state = steps[-1].state
    return Walk(first, tuple(steps))


def _kill(state: State, victim: int, possible: list[Transition], generator: random.Random) -> list[Transition]:
    """One of the ways in which *victim* dies."""
    writes = [t for t in possible if t.label.system in RECORDED and t.label.outcome == "ok"]
    way = generator.choice(("killed-before", "killed-after", KILL, "under way")) if writes else KILL
    killed = Transition(Label(victim, "env", NOBODY, KILL), state)
    if way == KILL:
        return [killed]
    last = generator.choice(writes)
    if way == "under way":
        return [killed, last._replace(label=last.label._replace(system="controller"))]
    return [Transition(last.label._replace(outcome=way), state if way == "killed-before" else last.state)]


def _weight(label: Label) -> float:
    return 1.0 if label.op == "take_over" and label.system != "store" else WEIGHTS.get(label.op, 1.0)


def start_entry(config: Config) -> dict[str, Any]:
    """The first entry of a trace of *config*."""
    participants = {f"p{number + 1}": kind for number, kind in enumerate(config.participants)}
    routers = [f"r{number + 1}" for number in range(config.routers)]
    return {
        "system": "env",
        "op": "start",
        "routers": routers,
        "participants": participants,
        "canonical": IDS[config.canonical],
    }


def to_trace(config: Config, labels: Iterable[Label]) -> list[dict[str, Any]]:
    """The entries that a real run would record."""
    entries = [start_entry(config)]
    for label in labels:
        if label.system in RECORDED or (label.system == "env" and label.op in (KILL, "restart", "reload", "lease_end")):
            entries.append({"t": float(len(entries)), **_entry(label)})
    return entries


_OUTCOMES = {"conflict": "refused"}


def _entry(label: Label) -> dict[str, Any]:
    entry: dict[str, Any] = {"system": label.system, "op": label.op}
    if label.actor != NOBODY:
        entry.update(controller=f"c{label.actor + 1}", outcome=_OUTCOMES.get(label.outcome, label.outcome))
    if label.epoch:
        entry["epoch"] = label.epoch
    if label.system == "store" and label.op != "mapping_documents":
        entry["target"] = "migrations/a--b"
        keys = ("before", "after") if label.op == "take_over" else ("from", "to")
        phases, _space, rehearsal = label.detail.partition(" ")
        entry.update(zip(keys, phases.split(">"), strict=True))
        entry.update({"rehearsal": True} if rehearsal else {})
    elif label.op == "mapping_documents":
        entry["target"] = f"onboarded-tenants/t{label.target + 1}"
    elif label.target != NOBODY:
        entry["target"] = f"{'p' if label.system == 'participant' else 'r'}{label.target + 1}"
    if label.op == "map":
        entry["to"] = label.detail
    if label.op == "drain":
        entry["count"] = 0
    return entry
