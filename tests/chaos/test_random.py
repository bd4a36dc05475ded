# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``./test chaos --n N --seed S``: N rounds, in each of which the databases are disturbed, or controllers are killed at
random places, or both.
"""

from __future__ import annotations

import os
import random
import signal
from contextlib import nullcontext

from ansible_collections.zdm.landscape.tests.chaos.disturbances import Disturbances
from ansible_collections.zdm.landscape.tests.chaos.places import BARRIER, FAILING, UNDO, WINDOW
from ansible_collections.zdm.landscape.tests.chaos.scene import LEASE_MS, Scene, scene


def test_random_kills() -> None:
    number, seed = int(os.environ.get("ZDM_CHAOS_N", "20")), os.environ.get("ZDM_CHAOS_SEED", "1")
    chance = random.Random(seed)
    killed = 0
    with scene() as stage:
        disturbances = Disturbances(stage, chance)
        for _round in range(number):
            goal = stage.other
            if chance.random() < 0.6:
                disturb(stage, disturbances)
            with disturbances.bystander() if chance.random() < 0.3 else nullcontext():
                for _attempt in range(chance.choice((0, 1, 1, 2))):
                    killed += kill(stage, chance)
                    stage.traffic.run_for(chance.uniform(0, LEASE_MS / 1000 + 2))
                again = stage.run("--checked", state="switched" if goal == stage.landscape.target else "reversed")
            assert again.code == 0, (again.result, disturbances.drawn[-3:])
            stage.assert_agreed(goal)
            disturbances.assert_kept()
        assert killed > 0
        stage.assert_ledger()
        print(f"seed {seed}: {number} rounds, {killed} kills, {len(disturbances.drawn)} disturbances")


def disturb(stage: Scene, disturbances: Disturbances) -> None:
    """What closes the way is refused before anything is touched, and mended by a stage, also after a killed one."""
    closed = disturbances.draw()
    if closed:
        refused = stage.run("--checked")
        assert refused.code == 3, (refused.result, disturbances.drawn[-1])
        assert refused.result["error"] == "Refused", refused.result
    if closed or disturbances.chance.random() < 0.5:
        staged = stage.run(state="staged")
        assert staged.code == 0, (staged.result, disturbances.drawn[-1])
    stage.begin_trace()  # the model knows windows


def kill(stage: Scene, chance: random.Random) -> bool:
    undo = chance.random() < 0.3
    place = chance.choice(UNDO if undo else [*WINDOW, *BARRIER])
    when = chance.choice(("before", "after"))
    ended = stage.run("--stop", "SIGKILL", when, place, *(("--refuse", FAILING) if undo else ()))
    assert ended.code in (-signal.SIGKILL, 0, 3), ended.result
    return ended.code == -signal.SIGKILL
