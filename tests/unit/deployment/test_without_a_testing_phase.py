# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decisions about operations that change what is live at a moment that nobody knows."""

from __future__ import annotations

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
TYPES = ("DEPLOY", "BLUE_GREEN_DEPLOY", "UNDEPLOY", "ROLLBACK_MTA")
ATTEMPT = Attempt(
    "print", {"name": "a.mtar"}, [], "DEPLOY", "ci", NOW - timedelta(minutes=10), at_once=True, operation="ours"
)
ROLLBACK = replace(ATTEMPT, type="ROLLBACK_MTA")
DEPLOYED, ABORTED = Goal("deployed", "print"), Goal("aborted", "print")


def operation(state: str, kind: str = "DEPLOY") -> Operation:
    return Operation("ours", kind, state, "mta", user="ci", locked=True)


@pytest.mark.parametrize(
    ("goal", "attempt", "state", "step"),
    [
        (ABORTED, ATTEMPT, "RUNNING", to.WAIT),
        (ABORTED, ATTEMPT, "ERROR", to.ABORT),
        (ABORTED, replace(ATTEMPT, first=True), "RUNNING", to.ABORT),
        (ABORTED, ROLLBACK, "ERROR", to.REFUSE),
        (replace(ABORTED, abort_switched=True), ATTEMPT, "RUNNING", to.ABORT),
        (replace(ABORTED, abort_switched=True), ROLLBACK, "ERROR", to.ABORT),
        (replace(DEPLOYED, abort_on_error=True), ATTEMPT, "ERROR", to.ABORT),
        (replace(DEPLOYED, abort_on_error=True), ROLLBACK, "ERROR", to.FAIL),
    ],
)
def test_the_table(goal: Goal, attempt: Attempt, state: str, step: str) -> None:
    decision = decide(goal, attempt, [operation(state)], NOW, live=False)
    assert decision.step == step, decision


goals = st.builds(
    Goal,
    st.sampled_from(["testing", "deployed", "aborted"]),
    st.sampled_from(["", "print"]),
    st.integers(0, 2),
    abort_on_error=st.booleans(),
    abort_on_deadline=st.booleans(),
    abort_upgraded=st.booleans(),
)
attempts = st.builds(
    replace,
    st.just(ATTEMPT),
    type=st.sampled_from(TYPES),
    at_once=st.booleans(),
    first=st.booleans(),
    resumed=st.booleans(),
    requested=st.sampled_from(["", "abort", "resume", "retry"]),
    upgrade=st.sampled_from(["", "begun", "done"]),
)


@given(goals, attempts, st.sampled_from(["RUNNING", "ERROR", "ACTION_REQUIRED"]))
@settings(max_examples=300, deadline=None)
def test_what_may_be_switching_is_not_aborted(goal: Goal, attempt: Attempt, state: str) -> None:
    decision = decide(goal, attempt, [operation(state, attempt.type)], NOW, live=False)
    if decision.step == to.ABORT and state == "RUNNING":
        assert not attempt.may_switch
    if decision.step == to.ABORT and state == "ERROR":
        assert not attempt.resumed
        assert attempt.type != "ROLLBACK_MTA" or not attempt.may_switch
