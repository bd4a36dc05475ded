# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills inside of the stage and while it is taken back, under load."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from ansible_collections.zdm.landscape.tests.chaos.places import REMOVE, STAGE
from ansible_collections.zdm.landscape.tests.chaos.scene import Scene, scene


@pytest.fixture(scope="module", name="scenery")
def _scenery() -> Iterator[Scene]:
    with scene(staged=False) as prepared:
        yield prepared


@pytest.fixture(name="unstaged")
def _unstaged(scenery: Scene) -> Scene:
    scenery.settle()
    return scenery


@pytest.mark.parametrize("place", STAGE)
def test_killed_in_the_stage(unstaged: Scene, place: str) -> None:
    """The same command goes on; then the stage is taken back for the next place."""
    killed = unstaged.run("--stop", "SIGKILL", "after", place, state="staged")
    assert killed.code == -signal.SIGKILL, killed.result
    again = unstaged.run(state="staged")
    assert again.code == 0, again.result
    unstaged.assert_agreed(unstaged.landscape.source, replay=False)
    unstaged.unstage()


@pytest.mark.parametrize("place", REMOVE)
def test_killed_while_the_stage_is_taken_back(unstaged: Scene, place: str) -> None:
    staged = unstaged.run(state="staged")
    assert staged.code == 0, staged.result
    killed = unstaged.run("--stop", "SIGKILL", "after", place, state="absent")
    assert killed.code == -signal.SIGKILL, killed.result
    again = unstaged.run(state="absent")
    assert again.code == 0, again.result
    assert unstaged.helpers() == []
    unstaged.assert_agreed(unstaged.landscape.source, replay=False)


def test_nothing_was_lost_by_kills_in_the_stage(unstaged: Scene) -> None:
    unstaged.assert_ledger(twins=False)
