# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configurations that are explored: each stresses one kind of accident."""

from __future__ import annotations

from collections.abc import Mapping

from ansible_collections.zdm.landscape.tests.model.config import ABORT, STAGE_JOB, Config
from ansible_collections.zdm.landscape.tests.model.state import IN_PLACE, SOURCE, TARGET, TWIN
from ansible_collections.zdm.landscape.tests.model.table import COMMIT, STEPS

JOURNAL_STEPS = frozenset(number for number, step in STEPS.items() if step.op == "phase")

CONFIGURATIONS: Mapping[str, Config] = {
    "one controller, everything unknown": Config(goals=((TARGET,),), unknown=JOURNAL_STEPS, renew=True, restarts=1, cuts=1, requests=2),
    "two controllers": Config(unknown=frozenset({COMMIT}), renew=True),
    "two controllers, restarts": Config(restarts=1, reloads=1),
    "two controllers, routers out of reach": Config(restarts=1, cuts=1, late=()),
    "forward, then reverse": Config(goals=((TARGET,), (SOURCE, TARGET)), late=(SOURCE, TARGET)),
    "forward, then reverse, restarts": Config(goals=((TARGET,), (SOURCE, TARGET)), restarts=1),
    "stage job and abort": Config(goals=((TARGET,), (STAGE_JOB, ABORT, TARGET))),
    "split steps": Config(split=True, late=(SOURCE, TARGET), requests=0),
    "split steps, reverse": Config(goals=((TARGET,), (SOURCE,)), split=True, requests=0),
    "three participants": Config(participants=(TWIN, IN_PLACE, TWIN), routers=1),
    "three controllers": Config(goals=((TARGET,), (TARGET,), (SOURCE, TARGET)), participants=(TWIN, IN_PLACE), routers=1, late=(SOURCE,)),
    "three controllers, two routers": Config(goals=((TARGET,), (TARGET,), (SOURCE, TARGET)), late=()),
}
