# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``./test chaos --n N --seed S``: N controllers killed at random places, two in a row now and then."""

from __future__ import annotations

import os
import random
import signal

from ansible_collections.zdm.landscape.tests.chaos.places import FAILING, UNDO, WINDOW
from ansible_collections.zdm.landscape.tests.chaos.scene import LEASE_MS, scene


def test_random_kills() -> None:
    number, seed = int(os.environ.get("ZDM_CHAOS_N", "20")), os.environ.get("ZDM_CHAOS_SEED", "1")
    chance = random.Random(seed)
    killed = 0
    with scene() as stage:
        for _round in range(number):
            goal = stage.other
            for _attempt in range(chance.choice((1, 1, 2))):
                undo = chance.random() < 0.3
                place = chance.choice(UNDO if undo else WINDOW)
                ended = stage.run(
                    "--stop",
                    "SIGKILL",
                    chance.choice(("before", "after")),
                    place,
                    *(("--refuse", FAILING) if undo else ()),
                )
                assert ended.code in (-signal.SIGKILL, 0, 3), ended.result
                killed += ended.code == -signal.SIGKILL
                stage.traffic.run_for(chance.uniform(0, LEASE_MS / 1000 + 2))
            again = stage.run(state="switched" if goal == stage.landscape.target else "reversed")
            assert again.code == 0, again.result
            stage.assert_agreed(goal)
        assert killed > 0
        stage.assert_ledger()
