# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of upgrades against a way that does what the test says: who is upgraded when, and what is told when it goes
wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import (
    InputError,
    OutcomeUnknown,
    Refused,
    Timeout,
    Unreachable,
)
from ansible_collections.zdm.landscape.plugins.module_utils.upgrade.base import (
    FAILED,
    PLANNED,
    RUNNING,
    UNKNOWN,
    UPGRADED,
    Job,
    Outcome,
    Progress,
    TenantState,
    UpgradeFailed,
    Way,
)
from ansible_collections.zdm.landscape.plugins.module_utils.upgrade.run import LOST_START, Run, plan
from hypothesis import given
from hypothesis import strategies as st

Answer = Progress | Exception


class ScriptedJob(Job):
    """Answers polls in order; then every tenant is upgraded."""

    def __init__(self, job_id: str, tenants: Sequence[str], answers: Sequence[Answer] = ()) -> None:
        super().__init__(job_id, tenants)
        self._answers = list(answers)

    def poll(self) -> Progress:
        if not self._answers:
            return Progress({tenant: TenantState(UPGRADED) for tenant in self.tenants}, ended=True)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class FakeWay(Way):
    """Keeps what was started; ``script`` gives the answers of the job of a batch, ``lost`` the first starts that are
    not answered.
    """

    def __init__(self, script: Callable[[Sequence[str]], Sequence[Answer]] = lambda batch: ()) -> None:
        self.script, self.started, self.lost = script, [], 0
        self.others: list[list[Job]] = []
        self.extra: tuple[str, ...] = ()

    started: list[tuple[str, ...]]

    def tenants(self) -> list[str]:
        return ["t1", "t2", "t3", "t4"]

    def running(self, tenants: Sequence[str]) -> list[Job]:
        return self.others.pop(0) if self.others else []

    def start(self, tenants: Sequence[str]) -> Job:
        if self.lost:
            self.lost -= 1
            raise Unreachable("POST gets no answer.")
        self.started.append(tuple(tenants))
        return ScriptedJob(f"job-{len(self.started)}", (*tenants, *self.extra), self.script(tenants))


class Clock:
    """A second passes at every pause."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += 1


def run(way: FakeWay, told: list[str] | None = None, **args: Any) -> Outcome:
    clock = Clock()
    who = plan(way.tenants(), args.get("tenants"), args.get("canary", ""), args.get("batch_size", 2))
    lines: list[str] = [] if told is None else told
    return Run(
        way, who, args.get("timeout_ms", 10_000), 10, args.get("go_on", False), lines.append, clock.time, clock.sleep
    ).carry_out()


def ended(**states: TenantState) -> Progress:
    return Progress(dict(states), ended=True)


DONE, BROKEN, BUSY = TenantState(UPGRADED), TenantState(FAILED, "no space left"), TenantState(RUNNING)


@given(st.lists(st.integers(0, 40), unique=True), st.integers(1, 9), st.data())
def test_everybody_is_planned_once_and_the_canary_first(numbers: list[int], size: int, data: st.DataObject) -> None:
    known = [f"t{number}" for number in range(41)]
    wanted = [f"t{number}" for number in numbers]
    canary = data.draw(st.sampled_from(["", *wanted]))
    who = plan(known, wanted, canary, size)
    assert sorted(who.tenants) == sorted(wanted)
    assert all(1 <= len(batch) <= size for batch in who.batches)
    assert not canary or who.batches[0] == (canary,)


def test_all_are_upgraded_in_order_and_told() -> None:
    way, told = FakeWay(lambda batch: [Progress({batch[0]: BUSY}), Unreachable("away"), Progress({batch[0]: BUSY})]), []
    outcome = run(way, told, canary="t3")
    assert (outcome.problem, outcome.open_job, outcome.of(UPGRADED)) == (None, "", ["t3", "t1", "t2", "t4"])
    assert way.started == [("t3",), ("t1", "t2"), ("t4",)]
    assert told[:3] == ["job job-1 upgrades 1 tenant: t3", "tenant t3 running", "tenant t3 upgraded (1 of 4)"]


@pytest.mark.parametrize("size", [0, -1])
def test_no_batch_is_smaller_than_one(size: int) -> None:
    with pytest.raises(InputError, match="too small"):
        plan(["t1"], None, "", size)


def settle(way: FakeWay, timeout_ms: int = 10_000) -> Outcome:
    clock = Clock()
    return Run(
        way, plan(way.tenants(), None, "", 2), timeout_ms, 10, False, [].append, clock.time, clock.sleep
    ).settle()


def test_what_is_under_way_is_followed_to_its_end_and_nobody_is_upgraded() -> None:
    way = FakeWay()
    way.others = [[ScriptedJob("one", ["t1"], [Progress({"t1": BUSY})])], [ScriptedJob("two", ["t2"])]]
    outcome = settle(way)
    assert (outcome.problem, outcome.open_job, way.started, way.others) == (None, "", [], [])
    assert outcome.tenants == {}


def test_what_does_not_end_in_time_is_named() -> None:
    way = FakeWay()
    way.others = [[ScriptedJob("one", ["t1"], [Progress({"t1": BUSY})] * 100)]]
    outcome = settle(way)
    assert isinstance(outcome.problem, Timeout)
    assert (outcome.open_job, way.started) == ("one", [])
    assert "neither resume nor abort" in outcome.problem.advice


def test_nobody_is_nobody() -> None:
    way = FakeWay()
    assert run(way, tenants=[]).tenants == {}
    assert way.started == []


def test_failures_stop_or_not() -> None:
    def script(batch: Sequence[str]) -> list[Answer]:
        return [ended(t1=BROKEN, t2=DONE)] if "t1" in batch else []

    stopped = run(FakeWay(script))
    assert isinstance(stopped.problem, UpgradeFailed)
    assert (stopped.of(FAILED), stopped.of(PLANNED), stopped.open_job) == (["t1"], ["t3", "t4"], "")
    went_on = run(FakeWay(script), go_on=True)
    assert isinstance(went_on.problem, UpgradeFailed)
    assert went_on.problem.message == "Not upgraded: t1 (no space left)"
    assert went_on.of(UPGRADED) == ["t2", "t3", "t4"]
    canary = run(FakeWay(lambda batch: [ended(t1=BROKEN)]), canary="t1", go_on=True)
    assert (canary.of(PLANNED), str(canary.problem).partition(":")[0]) == (
        ["t2", "t3", "t4"],
        "The canary could not be upgraded",
    )


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Progress({"t1": BUSY}, ended=True, lost="its state is TIMEOUT"), "its state is TIMEOUT"),
        (Progress({}, ended=True, lost="the sidecar does not know it any more"), "does not know it"),
        (ended(t1=DONE, t2=TenantState(UNKNOWN, "the job is FAILED and does not tell")), "does not tell"),
        (ended(t1=DONE), "its job does not tell"),
    ],
)
def test_a_job_that_does_not_tell_leaves_nothing_to_guess(answer: Progress, said: str) -> None:
    outcome = run(FakeWay(lambda batch: [answer]))
    assert isinstance(outcome.problem, OutcomeUnknown)
    assert said in outcome.problem.message
    assert "t2" in outcome.of(UNKNOWN)
    assert outcome.open_job == "job-1"
    assert "Run the same task again" in outcome.problem.advice
    assert "neither resume nor abort" in outcome.problem.advice


def test_a_job_that_vanished_after_it_told_everything_is_done() -> None:
    answers = [Progress({"t1": DONE, "t2": DONE, "t3": DONE, "t4": DONE}), Progress({}, ended=True, lost="gone")]
    assert run(FakeWay(lambda batch: answers), batch_size=4).tenants["t4"] == DONE


def test_a_job_that_lasts_longer_is_left_open_and_told() -> None:
    outcome = run(FakeWay(lambda batch: [Progress({"t1": DONE, "t2": BUSY})] * 100))
    assert isinstance(outcome.problem, Timeout)
    assert (outcome.open_job, outcome.of(UPGRADED), outcome.of(RUNNING)) == ("job-1", ["t1"], ["t2"])
    assert "t2" in outcome.problem.message
    assert "t1" not in outcome.problem.message.partition("Last")[0]


def test_a_sidecar_that_stays_away_ends_with_the_time() -> None:
    outcome = run(FakeWay(lambda batch: [Unreachable("GET gets no answer: refused.")] * 100))
    assert isinstance(outcome.problem, Timeout)
    assert (outcome.open_job, "refused" in outcome.problem.message) == ("job-1", True)


def test_a_token_that_ends_in_the_middle_leaves_the_job_open() -> None:
    outcome = run(FakeWay(lambda batch: [Refused("It does not accept the token.", "Give the right one.")]))
    assert isinstance(outcome.problem, Refused)
    assert outcome.open_job == "job-1"
    assert "Job job-1 goes on" in outcome.problem.message
    assert "neither resume nor abort" in outcome.problem.advice


def test_a_start_that_is_not_answered_is_repeated_after_what_may_have_begun() -> None:
    way, told = FakeWay(), []
    way.lost = 1
    way.others = [[], [ScriptedJob("lost-one", ["t1", "t2"], [Progress({"t1": BUSY})])]]
    outcome = run(way, told)
    assert (outcome.problem, way.started[0], outcome.open_job) == (None, ("t1", "t2"), "")
    assert any("lost-one" in line for line in told)
    way = FakeWay()
    way.lost = 100
    never = run(way)
    assert isinstance(never.problem, Timeout)
    assert never.open_job == LOST_START


def test_upgrades_of_others_are_waited_for() -> None:
    way, told = FakeWay(), []
    way.others = [[ScriptedJob("other", ["t2"], [Progress({"t2": BUSY})])]]
    assert run(way, told).problem is None
    assert told[:2] == ["job other of somebody else still upgrades t2: waiting for its end", "job other has ended"]
    way = FakeWay()
    way.others = [[ScriptedJob("other", ["t2"], [Progress({"t2": BUSY})] * 100)]]
    late = run(way)
    assert (type(late.problem), late.open_job, way.started) == (Timeout, "other", [])


def test_a_sidecar_that_upgrades_more_than_it_was_asked_for_is_no_place_for_a_canary() -> None:
    way = FakeWay()
    way.extra = ("t2", "t3", "t4")
    outcome = run(way, canary="t1")
    assert isinstance(outcome.problem, Refused)
    assert "clusterSize" in outcome.problem.advice
    assert (outcome.open_job, len(outcome.of(UPGRADED))) == ("", 4)
