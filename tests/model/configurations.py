# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configurations that are explored: each stresses one kind of accident."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ansible_collections.zdm.landscape.tests.model.config import ABORT, REHEARSE, STAGE_JOB, Config
from ansible_collections.zdm.landscape.tests.model.state import IN_PLACE, SERVICE, SOURCE, TARGET, TWIN
from ansible_collections.zdm.landscape.tests.model.table import COMMIT, JOURNAL, STEPS

JOURNAL_STEPS = frozenset(number for number, step in STEPS.items() if step.target == JOURNAL)

ONE = Config(goals=((TARGET,),))
TURNS = ((TARGET,), (SOURCE, TARGET))
THREE = ((TARGET,), (TARGET,), (SOURCE, TARGET))
ON = ((TARGET,), (TARGET,), (SOURCE,))
BACK = ((TARGET,), (SOURCE,), (ABORT,))
REHEARSED = ((REHEARSE,), (TARGET, REHEARSE), (TARGET, ABORT))
QUIET = Config(routers=1, participants=(IN_PLACE,), requests=0)
SETTLING = replace(QUIET, unknown=JOURNAL_STEPS, losses=2, notes=1)
DRIFTING = replace(QUIET, participants=(TWIN,), drifts=1)

SMALL: Mapping[str, tuple[Config, int]] = {
    "one controller, any journal write without an answer": (replace(ONE, unknown=JOURNAL_STEPS), 30_000),
    "two controllers, any two journal writes without an answer, a note": (SETTLING, 50_000),
    "one controller, leases renewed": (replace(ONE, renew=True), 13_000),
    "one controller, a router crashes": (replace(ONE, restarts=1, repeat=True, participants=(IN_PLACE,)), 22_000),
    "one controller, a router is reloaded": (replace(ONE, reloads=1), 25_000),
    "one controller, a router out of reach": (replace(ONE, cuts=1, participants=(TWIN,)), 14_000),
    "two controllers": (Config(participants=(IN_PLACE,), late=()), 26_000),
    "two controllers, late writers under both ids": (Config(requests=0, late=(SOURCE, TARGET)), 26_000),
    "two controllers, split steps, reverse": (Config(goals=((TARGET,), (SOURCE,)), split=True, requests=0), 37_000),
    "two controllers, a column is added": (DRIFTING, 5_500),
    "two controllers, a trigger is lost": (replace(DRIFTING, drift="trigger"), 7_000),
    "two controllers, two participants in place": (
        replace(QUIET, participants=(IN_PLACE, IN_PLACE), late=(SOURCE, TARGET)),
        9_000,
    ),
    "two controllers, a fence switched off": (replace(QUIET, unfences=1), 2_000),
    "a service, forward and reverse, a call given up": (
        replace(QUIET, participants=(SERVICE,), goals=BACK, calls=1, late=()),
        20_000,
    ),
    "in place, forward and reverse, a call given up": (replace(QUIET, goals=ON, calls=1, late=()), 31_000),
    "two runs and a reverse, a mapping document without an answer": (
        replace(SETTLING, goals=ON, unknown=frozenset({"11"}), losses=1, notes=0, late=()),
        21_000,
    ),
    "a rehearsal, two runs": (replace(QUIET, goals=REHEARSED, late=()), 5_000),
    "a stage's job and an abort": (
        Config(goals=((TARGET,), (STAGE_JOB, ABORT, TARGET)), routers=1, participants=(IN_PLACE,)),
        8_500,
    ),
    "three controllers, forward and reverse": (
        Config(goals=THREE, routers=1, participants=(TWIN,), requests=0),
        25_000,
    ),
}
"""Configurations that are always explored completely, each with a number of states that it has at least."""

LARGE: Mapping[str, Config] = {
    "one controller, everything": replace(ONE, unknown=JOURNAL_STEPS, renew=True, restarts=1, cuts=1, requests=2),
    "two controllers": Config(unknown=frozenset({COMMIT}), renew=True),
    "a run, a guardian, a reverse; journal writes without an answer": replace(
        SETTLING, goals=((TARGET,), (ABORT,), (SOURCE,)), late=()
    ),
    "two controllers, many journal writes without an answer": replace(SETTLING, losses=6, notes=3, requests=1),
    "two controllers, restarts": Config(repeat=True, restarts=1, reloads=1),
    "two controllers, routers out of reach": Config(restarts=1, cuts=1, late=()),
    "forward, then reverse": Config(goals=TURNS, late=(SOURCE, TARGET)),
    "forward, then reverse, restarts": Config(goals=TURNS, restarts=1),
    "a stage's job and an abort": Config(goals=((TARGET,), (STAGE_JOB, ABORT, TARGET))),
    "split steps": Config(split=True, late=(SOURCE, TARGET)),
    "three participants, two mapping documents": Config(participants=(TWIN, IN_PLACE, TWIN), documents=2, routers=1),
    "calls given up, requests, a service and tables": Config(participants=(SERVICE, IN_PLACE), routers=1, calls=2),
    "a service, forward and reverse, two calls given up": replace(QUIET, participants=(SERVICE,), goals=BACK, calls=2),
    "in place, forward and reverse, two calls given up": replace(QUIET, goals=ON, late=(SOURCE, TARGET), calls=2),
    "a rehearsal, two runs, journal writes without an answer": replace(SETTLING, goals=REHEARSED, requests=1),
    "three controllers, two changes of the tables": Config(goals=THREE, routers=1, requests=0, drifts=2),
    "everything at once": Config(
        goals=((TARGET, REHEARSE), (TARGET, ABORT), (SOURCE, TARGET)),
        routers=1,
        calls=1,
        drifts=1,
        unfences=1,
        unknown=JOURNAL_STEPS | {"11"},
        notes=1,
    ),
    "three controllers": Config(goals=THREE, routers=1),
    "three controllers, two routers": Config(goals=THREE, late=()),
}
"""Configurations with up to millions of states: explored up to a limit, and by random walks; completely on request."""
