# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run would do first; nothing is changed, in the space or in the config store."""

from __future__ import annotations

from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.deploy_service import Operation
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment import decision as to
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.presence import Presence
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.request import Wanted
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.result import (
    OUTCOMES,
    Result,
    Results,
    deployed,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.sight import Sight

_STEPS = {
    to.START: "starts an operation",
    to.RESUME: "resumes {}",
    to.RETRY: "retries {}",
    to.ABORT: "aborts {}",
    to.WAIT: "waits for {}",
    to.ADOPT: "adopts {}",
    to.LOOK: "looks for the operation of an earlier run",
    to.FORGET: "starts an operation",
    to.SETTLE: "notes the end of {}",
}


def predict(wanted: Wanted, sight: Sight, presence: Presence, results: Results) -> tuple[Result, str]:
    """The first step with its outcome, and a sentence about it.

    :raises Refused: it would be refused.
    """
    goal = wanted.goal
    sight.begin()
    decision = sight.decide(goal, note=False)
    if decision.step in (to.REFUSE, to.FAIL):
        raise results.refusal(decision)
    changed, outcome = decision.step not in (to.DONE, to.ADOPT), goal.state
    if decision.step == to.DONE:
        outcome = results.outcome(decision)
        removes = goal.state == to.AS_ABORTED and wanted.removes_leftovers
        changed = removes and any(not leftover.kept for leftover in presence.leftovers())
    elif decision.step in (to.START, to.FORGET):
        sight.check_start(goal)
        first = sight.before is None
        outcome = OUTCOMES.get(wanted.process_type) or (deployed(first=True) if first else goal.state)
    own = decision.operation or Operation("")
    text = _STEPS.get(decision.step, "does nothing").format(own.shown)
    reason = f", as {decision.reason}" if decision.reason else ""
    return results.make(outcome, own, changed=changed), f"{wanted.mta_id}: {text}{reason}."
