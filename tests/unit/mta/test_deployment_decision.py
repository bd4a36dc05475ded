# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The decision: never two starts, never a step on somebody else's operation, whatever was lost and whenever a run was
killed.
"""

from __future__ import annotations

import string
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.deploy_service import Operation
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment import decision as to
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.decision import Goal, decide
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.document import Attempt
from hypothesis import given, settings
from hypothesis import strategies as st

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
US, THEM, TYPE = "ci", "colleague", "BLUE_GREEN_DEPLOY"
ATTEMPT = Attempt(
    "print", {"name": "a.mtar"}, [], TYPE, US, NOW - timedelta(minutes=10), seen=frozenset({"old"}), operation="ours"
)
ACTING = (to.WAIT, to.RESUME, to.RETRY, to.ABORT, to.SETTLE)


def operation(identity: str, state: str, user: str = US, *, locked: bool = True, minutes: int = 9) -> Operation:
    started = (NOW - timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z") + "[UTC]"
    return Operation(identity, TYPE, state, "mta", user=user, started_at=started, locked=locked)


OURS = {state: operation("ours", state) for state in ("RUNNING", "ACTION_REQUIRED", "ERROR", "FINISHED", "ABORTED")}
CONTENT, INFRASTRUCTURE = (replace(OURS["ERROR"], error_type=kind) for kind in ("CONTENT", "INFRASTRUCTURE"))
RESUMED = replace(ATTEMPT, resumed=True)
TESTING, DEPLOYED, ABORTED = (Goal(state, "print") for state in ("testing", "deployed", "aborted"))


@pytest.mark.parametrize(
    ("goal", "attempt", "operations", "step"),
    [
        (TESTING, None, [], to.START),
        (TESTING, replace(ATTEMPT, ended=True), [OURS["ABORTED"]], to.START),
        (ABORTED, None, [], to.DONE),
        (TESTING, ATTEMPT, [OURS["RUNNING"]], to.WAIT),
        (DEPLOYED, ATTEMPT, [OURS["RUNNING"]], to.WAIT),
        (ABORTED, ATTEMPT, [OURS["RUNNING"]], to.ABORT),
        # a resume was sent: no abort before its end, and none in the middle of a switch
        (ABORTED, RESUMED, [OURS["RUNNING"]], to.WAIT),
        (ABORTED, RESUMED, [OURS["ERROR"]], to.REFUSE),
        (ABORTED, RESUMED, [OURS["FINISHED"]], to.SETTLE),
        (ABORTED, RESUMED, [OURS["ACTION_REQUIRED"]], to.ABORT),
        (ABORTED, replace(RESUMED, asked_at=NOW - timedelta(seconds=5)), [OURS["ACTION_REQUIRED"]], to.LOOK),
        (ABORTED, replace(RESUMED, asked_at=NOW - timedelta(minutes=1)), [OURS["ACTION_REQUIRED"]], to.ABORT),
        (replace(ABORTED, abort_switched=True), RESUMED, [OURS["ERROR"]], to.ABORT),
        (replace(ABORTED, abort_switched=True), replace(RESUMED, upgrade="done"), [OURS["ERROR"]], to.REFUSE),
        (TESTING, ATTEMPT, [OURS["ACTION_REQUIRED"]], to.DONE),
        (DEPLOYED, ATTEMPT, [OURS["ACTION_REQUIRED"]], to.RESUME),
        (ABORTED, ATTEMPT, [OURS["ACTION_REQUIRED"]], to.ABORT),
        (Goal("aborted"), ATTEMPT, [OURS["ACTION_REQUIRED"]], to.ABORT),
        (Goal("testing", "other"), ATTEMPT, [OURS["ACTION_REQUIRED"]], to.REFUSE),
        (Goal("aborted", "other"), ATTEMPT, [OURS["ACTION_REQUIRED"]], to.REFUSE),
        (Goal("testing", "other"), ATTEMPT, [OURS["FINISHED"]], to.SETTLE),
        (TESTING, ATTEMPT, [OURS["ERROR"]], to.FAIL),
        (replace(TESTING, retries=1), ATTEMPT, [OURS["ERROR"]], to.RETRY),
        (replace(TESTING, retries=1), ATTEMPT, [INFRASTRUCTURE], to.RETRY),
        (replace(TESTING, retries=1, abort_on_error=True), ATTEMPT, [INFRASTRUCTURE], to.RETRY),
        (replace(TESTING, retries=0, abort_on_error=True), ATTEMPT, [INFRASTRUCTURE], to.ABORT),
        (replace(TESTING, retries=1), ATTEMPT, [CONTENT], to.FAIL),
        (replace(TESTING, retries=1, retry_content=True), ATTEMPT, [CONTENT], to.RETRY),
        (replace(TESTING, retries=1, abort_on_error=True), ATTEMPT, [CONTENT], to.ABORT),
        (replace(TESTING, abort_on_error=True), ATTEMPT, [OURS["ERROR"]], to.ABORT),
        (replace(DEPLOYED, abort_on_error=True), replace(ATTEMPT, resumed=True), [OURS["ERROR"]], to.FAIL),
        (replace(DEPLOYED, abort_on_error=True, retries=1), RESUMED, [CONTENT], to.RETRY),
        (replace(DEPLOYED, retries=1), RESUMED, [CONTENT], to.FAIL),
        (replace(DEPLOYED, abort_on_error=True), replace(ATTEMPT, upgrade="begun"), [OURS["ERROR"]], to.FAIL),
        (ABORTED, replace(ATTEMPT, upgrade="begun"), [OURS["ACTION_REQUIRED"]], to.REFUSE),
        (replace(ABORTED, abort_upgraded=True), replace(ATTEMPT, upgrade="done"), [OURS["ACTION_REQUIRED"]], to.ABORT),
        (TESTING, ATTEMPT, [OURS["FINISHED"]], to.SETTLE),
        (TESTING, ATTEMPT, [OURS["ABORTED"]], to.SETTLE),
        (TESTING, ATTEMPT, [], to.SETTLE),
        (TESTING, None, [operation("x", "RUNNING", THEM, locked=False)], to.REFUSE),
        (TESTING, None, [operation("x", "ACTION_REQUIRED", US)], to.REFUSE),
        (ABORTED, None, [operation("x", "ERROR", THEM)], to.REFUSE),
        (TESTING, None, [operation("x", "ERROR", THEM, locked=False)], to.START),
        (TESTING, replace(ATTEMPT, operation=""), [operation("new", "RUNNING")], to.ADOPT),
        (TESTING, replace(ATTEMPT, operation=""), [operation("new", "ABORTED")], to.ADOPT),
        (
            TESTING,
            replace(ATTEMPT, operation=""),
            [operation("old", "RUNNING"), operation("x", "RUNNING", THEM)],
            to.FORGET,
        ),
        (TESTING, replace(ATTEMPT, operation=""), [operation("ancient", "RUNNING", minutes=60)], to.FORGET),
        (TESTING, replace(ATTEMPT, operation=""), [operation("one", "RUNNING"), operation("two", "ERROR")], to.REFUSE),
        (TESTING, replace(ATTEMPT, operation="", at=NOW), [], to.LOOK),
        (TESTING, replace(ATTEMPT, operation="", lost_at=NOW - timedelta(seconds=5)), [], to.LOOK),
        # tenants are being upgraded: an open job is never followed by a resume
        (DEPLOYED, replace(ATTEMPT, upgrade="begun"), [OURS["ACTION_REQUIRED"]], to.REFUSE),
        (DEPLOYED, replace(ATTEMPT, upgrade="begun", resumed=True), [OURS["ACTION_REQUIRED"]], to.REFUSE),
        (TESTING, replace(ATTEMPT, upgrade="begun", resumed=True), [OURS["ACTION_REQUIRED"]], to.DONE),
        (DEPLOYED, replace(ATTEMPT, upgrade="done"), [OURS["ACTION_REQUIRED"]], to.RESUME),
        (replace(DEPLOYED, upgrade="done"), replace(ATTEMPT, upgrade="begun"), [OURS["ACTION_REQUIRED"]], to.RESUME),
        # what was asked for may still arrive, so it is asked for again
        (TESTING, replace(ATTEMPT, resumed=True, requested="resume"), [OURS["ACTION_REQUIRED"]], to.RESUME),
        (TESTING, replace(ATTEMPT, requested="abort"), [OURS["ACTION_REQUIRED"]], to.ABORT),
        (DEPLOYED, replace(ATTEMPT, requested="abort"), [OURS["ACTION_REQUIRED"]], to.ABORT),
        (TESTING, replace(ATTEMPT, requested="abort", upgrade="begun"), [OURS["ACTION_REQUIRED"]], to.DONE),
        # with one operation and no other
        (replace(DEPLOYED, operation="ours"), ATTEMPT, [OURS["ACTION_REQUIRED"]], to.RESUME),
        (
            replace(DEPLOYED, operation="ours"),
            replace(ATTEMPT, ended=True, state="ABORTED"),
            [OURS["ABORTED"]],
            to.REFUSE,
        ),
        (replace(DEPLOYED, operation="first"), ATTEMPT, [OURS["ACTION_REQUIRED"]], to.REFUSE),
        (replace(ABORTED, operation="first"), ATTEMPT, [OURS["ACTION_REQUIRED"]], to.REFUSE),
        (replace(ABORTED, operation="ours"), replace(ATTEMPT, ended=True, state="ABORTED"), [OURS["ABORTED"]], to.DONE),
    ],
)
def test_the_table(goal: Goal, attempt: Attempt | None, operations: list[Operation], step: str) -> None:
    decision = decide(goal, attempt, operations, NOW, live=False)
    assert decision.step == step, decision
    if step == to.REFUSE:
        assert decision.reason
        assert decision.advice


def test_what_is_live_is_left_unless_somebody_is_at_it() -> None:
    assert decide(TESTING, None, [], NOW, live=True).step == to.DONE
    assert decide(TESTING, None, [operation("x", "RUNNING", THEM)], NOW, live=True).step == to.REFUSE


@pytest.mark.parametrize("state", ["testing", "deployed"])
def test_the_deadline_of_the_testing_phase(state: str) -> None:
    attempt = replace(ATTEMPT, testing_since=NOW - timedelta(hours=1, seconds=1))
    goal = Goal(state, "print")
    assert decide(goal, attempt, [OURS["ACTION_REQUIRED"]], NOW, live=False).step == to.ABORT
    assert (
        decide(replace(goal, deadline_ms=7_200_000), attempt, [OURS["ACTION_REQUIRED"]], NOW, live=False).step
        != to.ABORT
    )
    assert (
        decide(replace(goal, abort_on_deadline=False), attempt, [OURS["ACTION_REQUIRED"]], NOW, live=False).step
        != to.ABORT
    )


@pytest.mark.parametrize(
    ("attempt", "state", "resumed"),
    [
        (ATTEMPT, "RUNNING", False),
        (ATTEMPT, "ERROR", False),
        (replace(ATTEMPT, testing_since=NOW), "ACTION_REQUIRED", False),
        (replace(ATTEMPT, testing_since=NOW), "RUNNING", True),
        (replace(ATTEMPT, testing_since=NOW), "ERROR", True),
        (replace(ATTEMPT, testing_since=NOW, requested="abort"), "RUNNING", False),
    ],
)
def test_what_has_left_its_testing_phase_was_resumed_by_whomever(attempt: Attempt, state: str, resumed: bool) -> None:
    """Its routes may be switched, so that nothing aborts it by itself."""
    seen = to.seen(attempt, OURS[state], NOW)
    assert (seen.resumed, seen.state) == (resumed, state)
    goal = Goal("testing", "print", abort_on_error=True)
    if state == "ERROR":
        assert (decide(goal, seen, [OURS[state]], NOW, live=False).step == to.ABORT) is not resumed


states = st.sampled_from(["RUNNING", "ACTION_REQUIRED", "ERROR", "FINISHED", "ABORTED"])
operations_ = st.lists(
    st.builds(
        operation,
        st.sampled_from(string.ascii_lowercase),
        states,
        st.sampled_from([US, THEM]),
        locked=st.booleans(),
        minutes=st.integers(0, 30),
    ),
    max_size=5,
    unique_by=lambda found: found.id,
)
attempts = st.none() | st.builds(
    Attempt,
    st.sampled_from(["print", "other"]),
    st.just({"name": "a.mtar"}),
    st.just([]),
    st.just(TYPE),
    st.just(US),
    st.integers(0, 20).map(lambda minutes: NOW - timedelta(minutes=minutes)),
    seen=st.frozensets(st.sampled_from(string.ascii_lowercase)),
    operation=st.sampled_from(["", *string.ascii_lowercase]),
    requested=st.sampled_from(["", "abort", "resume", "retry"]),
    resumed=st.booleans(),
    upgrade=st.sampled_from(["", "begun", "done"]),
    testing_since=st.none() | st.integers(0, 120).map(lambda minutes: NOW - timedelta(minutes=minutes)),
    ended=st.booleans(),
)
goals = st.builds(
    Goal,
    st.sampled_from(["testing", "deployed", "aborted"]),
    st.sampled_from(["", "print", "other"]),
    st.integers(0, 2),
    st.booleans(),
    abort_on_deadline=st.booleans(),
    upgrade=st.sampled_from(["", "begun", "done"]),
    operation=st.sampled_from(["", *string.ascii_lowercase]),
)


@given(goals, attempts, operations_, st.booleans())
@settings(max_examples=200, deadline=None)
def test_only_our_own_operation_is_acted_on(
    goal: Goal, attempt: Attempt | None, operations: list[Operation], live: bool
) -> None:
    decision = decide(goal, attempt, operations, NOW, live=live)
    if decision.step in ACTING:
        assert attempt is not None
        assert not attempt.ended
        assert decision.operation is not None
        assert decision.operation.id == attempt.operation
    if decision.step == to.START:
        assert attempt is None or attempt.ended
        assert goal.state != "aborted"
        assert not [
            found
            for found in operations
            if found.state in ("RUNNING", "ACTION_REQUIRED") or (found.state == "ERROR" and found.locked)
        ]
    if decision.step in (to.RESUME, to.RETRY, to.WAIT) and goal.fingerprint and attempt:
        assert attempt.fingerprint == goal.fingerprint
    if decision.step == to.ABORT and attempt and goal.state != "aborted":
        assert goal.abort_on_error or goal.abort_on_deadline or attempt.requested == to.ABORT
        assert not attempt.upgrade
    if decision.step == to.RESUME and attempt:
        assert attempt.upgrade != "begun" or goal.upgrade == "done"
    if decision.step in (*ACTING, to.START) and goal.operation and attempt and decision.step != to.SETTLE:
        assert attempt.operation == goal.operation


class Service:
    """The service as far as starts go: a request may be executed without an answer, or never arrive."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.running = 0

    def start(self, now: datetime) -> str:
        identity = f"operation{len(self.operations)}"
        started = now.isoformat().replace("+00:00", "Z")
        self.operations.append(Operation(identity, TYPE, "RUNNING", "mta", user=US, started_at=started, locked=True))
        self.running = max(self.running, sum(found.active for found in self.operations))
        return identity


@given(
    st.lists(
        st.sampled_from(["answered", "lost", "never sent", "killed before", "killed after"]), min_size=1, max_size=8
    ),
    st.integers(0, 40),
)
@settings(max_examples=100, deadline=None)
def test_never_two_operations_at_once(fates: list[str], pause_s: int) -> None:
    """Runs follow each other, each with its fate at the start request and each going on from the document that the one
    before has left.
    """
    service, now = Service(), NOW
    attempt: Attempt | None = None
    goal = Goal("testing", "print")
    for fate in fates:
        for _step in range(6):
            decision = decide(goal, attempt, service.operations, now, live=False)
            if decision.step == to.START:
                attempt = replace(
                    ATTEMPT, at=now, seen=frozenset(found.id for found in service.operations), operation="", ended=False
                )
                identity = "" if fate in ("never sent", "killed before") else service.start(now)
                if fate == "answered":
                    attempt = replace(attempt, operation=identity)
                if fate.startswith("killed"):
                    break
            elif decision.step == to.ADOPT and attempt and decision.operation:
                attempt = replace(attempt, operation=decision.operation.id)
            elif decision.step == to.FORGET and attempt:
                attempt = replace(attempt, ended=True)
            elif decision.step != to.LOOK:
                break
            now += timedelta(seconds=pause_s)
    assert service.running <= 1
    assert len(service.operations) <= 1
