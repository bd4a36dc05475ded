# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every write to the store loses its answer once, in a window and in an undo, under load: whether it has landed or not,
the run goes on.
"""

from __future__ import annotations

import pytest
from ansible_collections.zdm.landscape.tests.chaos.places import FAILING, UNDO, WINDOW
from ansible_collections.zdm.landscape.tests.chaos.recorder import LANDED, LOST
from ansible_collections.zdm.landscape.tests.chaos.scene import Scene


def unanswered(stage: Scene) -> set[str]:
    return {entry["place"] for entry in stage.entries() if entry.get("outcome") == "unknown"}


def of_the_store(places: list[str]) -> set[str]:
    return {place for place in places if place.endswith(":journal") or place.startswith("mapping_documents:")}


@pytest.mark.parametrize("answers", [LANDED, LOST])
def test_a_window_goes_on(stage: Scene, answers: str) -> None:
    goal = stage.other
    ended = stage.run("--lose", answers)
    assert ended.code == 0, ended.result
    assert unanswered(stage) >= of_the_store(WINDOW)
    stage.assert_agreed(goal)


@pytest.mark.parametrize("answers", [LANDED, LOST])
def test_an_undo_goes_on(stage: Scene, answers: str) -> None:
    before = stage.live
    refused = stage.run("--lose", answers, "--refuse", FAILING)
    assert refused.code == 3
    assert refused.result["details"] == {"undone": True}
    assert unanswered(stage) >= of_the_store(UNDO)
    stage.assert_agreed(before)


def test_nothing_was_lost_with_the_answers(stage: Scene) -> None:
    stage.assert_ledger()
