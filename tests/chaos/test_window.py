# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller is killed right after every write of a window (which is right before the next one), under load.

Until the same command runs again, every answer is right, held or 503; afterwards the invariants hold. Forward and
reverse take turns, as the tests run one after the other on one landscape.
"""

from __future__ import annotations

import pytest
from ansible_collections.zdm.landscape.tests.chaos.places import BARRIER, FAILING, UNDO, WINDOW
from ansible_collections.zdm.landscape.tests.chaos.scene import Scene, kill_and_go_on


@pytest.mark.parametrize(("when", "place"), [("before", WINDOW[0]), *(("after", place) for place in WINDOW)])
def test_killed_in_the_window(stage: Scene, when: str, place: str) -> None:
    kill_and_go_on(stage, when, place)


@pytest.mark.parametrize(("when", "place"), [(when, place) for place in BARRIER for when in ("before", "after")])
def test_killed_inside_a_barrier(stage: Scene, when: str, place: str) -> None:
    """Right before the write of the second transaction the first one has been committed: the fences are set."""
    kill_and_go_on(stage, when, place)


def test_every_write_of_a_window_and_of_an_undo_has_its_kill(stage: Scene) -> None:
    for steps, known, options in ((WINDOW, WINDOW, ()), (UNDO, [*WINDOW, *UNDO], ("--refuse", FAILING))):
        goal = stage.live if options else stage.other
        ended = stage.run(*options)
        assert ended.code == (3 if options else 0), ended.result
        written = {entry["place"] for entry in stage.entries() if entry.get("place")}
        # a heartbeat comes when it is time, a drain writes nothing; of a state row only the barrier's are apart
        rest = {place for place in written if not place.startswith(("heartbeat:", "drain:", "row staged:"))}
        assert rest <= {*known, *BARRIER}
        assert set(steps) <= rest
        stage.assert_agreed(goal)


def test_nothing_was_lost_by_kills_in_the_window(stage: Scene) -> None:
    stage.assert_ledger()
