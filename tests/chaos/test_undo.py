# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills inside of the undo, controllers that sleep or are told to stop, and two at a time, under load."""

from __future__ import annotations

import signal

import pytest
from ansible_collections.zdm.landscape.tests.chaos.places import FAILING, UNDO
from ansible_collections.zdm.landscape.tests.chaos.scene import ENOUGH, Scene, kill_and_go_on

STOPS = [
    "lease:router-2",
    "close:router-1",
    "drained:journal",
    "phase C>K:journal",
    "mapping_documents:venezia",
    "release:router-1",
]


@pytest.mark.parametrize(("when", "place"), [("before", UNDO[0]), *(("after", place) for place in UNDO)])
def test_killed_in_the_undo(stage: Scene, when: str, place: str) -> None:
    kill_and_go_on(stage, when, place, "--refuse", FAILING)


@pytest.mark.parametrize("place", ["phase W>U:journal", "map:router-1", "phase U>V:journal", "release:router-1"])
def test_killed_in_the_undo_of_a_window_that_was_not_closed(stage: Scene, place: str) -> None:
    kill_and_go_on(stage, "after", place, "--refuse", "prelude:documents")


def test_an_error_at_one_participant_undoes_all(stage: Scene) -> None:
    before = stage.live
    refused = stage.run("--refuse", FAILING)
    assert refused.code == 3
    assert refused.result["details"]["undone"] is True
    stage.assert_agreed(before)


@pytest.mark.parametrize("place", STOPS)
def test_a_stopped_controller_wakes_up_after_another_has_finished(stage: Scene, place: str) -> None:
    goal = stage.other
    sleeper = stage.controller("--stop", "SIGSTOP", "after", place)
    try:
        stage.wait_stopped(sleeper)
        stage.wait_unblocked()
        stage.traffic.wait_requests(ENOUGH)
        again = stage.run()
        assert again.code == 0, again.result
    finally:
        sleeper.send_signal(signal.SIGCONT)
    woken = stage.end_of(sleeper)
    assert woken.code == 3
    # A router closes a control connection that is silent for five seconds: who slept in the middle of a request to it
    # finds that first.
    assert woken.result["error"] in ("Superseded", "Unreachable"), woken.result
    stage.assert_agreed(goal)


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_signal_before_the_close_undoes_after_it_finishes(stage: Scene, number: str) -> None:
    before, goal = stage.live, stage.other
    early = stage.run("--stop", number, "after", "lease:router-2")
    assert early.code == 3
    assert "interrupted" in early.result["message"]
    assert early.result["details"]["undone"] is True
    stage.assert_agreed(before)
    late = stage.run("--stop", number, "after", "barrier:bills")
    assert late.code == 0, late.result
    stage.assert_agreed(goal)


def test_a_second_controller_is_refused_while_one_runs(stage: Scene) -> None:
    goal, go = stage.other, stage.folder / "go"
    first = stage.controller("--hold", "lease:router-1", str(go))
    try:
        stage.wait_recorded("lease:router-1")
        second = stage.run()
    finally:
        go.touch()
    assert second.code == 3
    assert "is driven by" in second.result["message"]
    assert stage.end_of(first).code == 0
    stage.assert_agreed(goal)


def test_nothing_was_lost_by_kills_in_the_undo(stage: Scene) -> None:
    stage.assert_ledger()
