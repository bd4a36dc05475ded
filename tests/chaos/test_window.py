# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller is killed right after every write of a window (which is right before the next one), under load.

Until the same command runs again, every answer is right, held or 503; afterwards the invariants hold. Forward and
reverse take turns, as the tests run one after the other on one landscape.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ansible_collections.zdm.landscape.tests.chaos.places import WINDOW
from ansible_collections.zdm.landscape.tests.chaos.scene import Scene, kill_and_go_on, scene


@pytest.fixture(scope="module", name="scenery")
def _scenery() -> Iterator[Scene]:
    with scene() as prepared:
        yield prepared


@pytest.fixture(name="stage")
def _stage(scenery: Scene) -> Scene:
    scenery.settle()
    return scenery


@pytest.mark.parametrize(("when", "place"), [("before", WINDOW[0]), *(("after", place) for place in WINDOW)])
def test_killed_in_the_window(stage: Scene, when: str, place: str) -> None:
    kill_and_go_on(stage, when, place)


def test_nothing_was_lost_by_kills_in_the_window(stage: Scene) -> None:
    stage.assert_ledger()
