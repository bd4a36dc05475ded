# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module tenant_cutover."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: tenant_cutover
short_description: Switch a tenant to another tenant id, in one short window
version_added: 1.0.0
author: zdm.landscape contributors (@zdm-landscape)
description:
  - Runs the whole window in one process. It blocks both tenants in all routers, drains them, rewrites every database
    atomically or not at all,
    commits with one compare-and-set, changes the mapping and lets the held requests go on.
  - Run again after a crash, it does the one legal next thing. Before the close it starts a fresh window, between close
    and commit it finishes or undoes,
    after the commit it finishes.
  - An error before the commit undoes the window, so that all is as before.
  - Shows every step of the window when it is done, when the controller's connection is C(local); elsewhere the same
    lines are in the audit log there.
  - C(SIGINT), C(SIGTERM) and C(SIGHUP) undo the window before the close; after it the window is finished first.
  - A child process, the guardian, stays beside the window. When the module is killed while routers hold the tenant's
    requests, the guardian
    undoes or finishes the window at once; it gives up after a minute, and the same command goes on.
requirements:
  - SQLAlchemy >= 2
  - psycopg >= 3 (for PostgreSQL)
  - PyMySQL (for MariaDB)
  - jmespath (for O(health[].assert))
extends_documentation_fragment:
  - zdm.landscape.store
  - zdm.landscape.router
  - zdm.landscape.database
  - zdm.landscape.policy
  - zdm.landscape.health
  - zdm.landscape.migration
  - zdm.landscape.attributes
attributes:
  check_mode:
    support: full
    details: Runs the preflight and predicts the window; nothing is changed.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description:
      - V(switched) makes the target live; V(reversed) makes the source live again.
      - V(aborted) undoes an open window; a committed one is finished, since nothing else is safe.
    type: str
    choices: [switched, reversed, aborted]
    default: switched
  force:
    description: Take over another run that is alive. That run stops at its next step.
    type: bool
    default: false
  unverified:
    description: Why the window may be opened although the last comparison of rows and their copies is older than
      O(policy.verified_within). The reason is kept in the journal. Meant for a way back that can't wait for it.
    type: str
  run_id:
    description: How this run is called in the audit log; a random name by default.
    type: str
"""

EXAMPLES = r"""
- name: Move the data of venezia to the id of venezia-scp
  zdm.landscape.tenant_cutover:
    source: venezia
    target: venezia-scp
    store: {kind: file, path: /srv/landscape/store}
    routers: "{{ routers }}"
    participants: "{{ zdm_landscape.participants }}"
    policy: {window_budget: 20s, drain_timeout: 2s, lease: 3s}

- name: And back again, any day of the transition
  zdm.landscape.tenant_cutover:
    state: reversed
    source: venezia
    target: venezia-scp
    store: {kind: file, path: /srv/landscape/store}
    routers: "{{ routers }}"
    participants: "{{ zdm_landscape.participants }}"
"""

RETURN = r"""
migration:
  description: Key of the migration's journal.
  returned: success
  type: str
  sample: venezia--venezia-scp
phase:
  description: The journal's phase afterwards; V(I) is idle.
  returned: success
  type: str
  sample: I
canonical:
  description: The tenant id that is live.
  returned: success
  type: str
epoch:
  description: The epoch of the journal.
  returned: success
  type: int
recovered:
  description: Phases that an earlier run had left and that this run finished or undid.
  returned: success
  type: list
  elements: str
window_ms:
  description: From the first block to the last release; 0 when no window was needed.
  returned: success
  type: int
predicted_window_ms:
  description: What the preflight predicted; 0 when no window was opened.
  returned: success
  type: int
earlier_end:
  description: How the run before this one ended, when a guardian or a signal has ended it; else empty.
  returned: success
  type: dict
  contains:
    by:
      description: V(guardian), or the name of the signal.
      returned: when a guardian or a signal has ended the run
      type: str
      sample: guardian
    epoch:
      description: The epoch under which it ended.
      returned: when a guardian or a signal has ended the run
      type: int
    at_ms:
      description: When it ended, in milliseconds since 1970.
      returned: when a guardian or a signal has ended the run
      type: int
    outcome:
      description: V(undone), V(finished), or V(not finished) when a system did not answer.
      returned: when a guardian or a signal has ended the run
      type: str
timeline:
  description: Every step of the window.
  returned: success
  type: list
  elements: dict
  contains:
    step:
      description: The step of the cutover protocol.
      returned: always
      type: str
    at_ms:
      description: When it began, from the first block on.
      returned: always
      type: float
    ms:
      description: How long it took.
      returned: always
      type: float
details:
  description: On failure, C(undone) tells whether all is as before, C(findings) what the preflight found, and
    C(unknown) names a document of the config store of which no answer said whether it was written.
  returned: failure
  type: dict
"""

from dataclasses import asdict
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core import options
from ansible_collections.zdm.landscape.plugins.module_utils.core.edge import create_module, diff, guarded
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Timeout
from ansible_collections.zdm.landscape.plugins.module_utils.description.operation import Operation, Signals, guard
from ansible_collections.zdm.landscape.plugins.module_utils.migration.cutover import Cutover
from ansible_collections.zdm.landscape.plugins.module_utils.migration.guardian import Guardian
from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import IDLE
from ansible_collections.zdm.landscape.plugins.module_utils.migration.mapping import expect_current
from ansible_collections.zdm.landscape.plugins.module_utils.migration.stage import catch_up, is_staged
from ansible_collections.zdm.landscape.plugins.module_utils.migration.status import describe_end

OWN: dict[str, Any] = {
    "state": {"type": "str", "choices": ["switched", "reversed", "aborted"], "default": "switched"},
    "force": {"type": "bool", "default": False},
    "unverified": {"type": "str"},
    "run_id": {"type": "str"},
}


def main() -> None:
    module = create_module(
        options.STORE, options.ROUTERS, options.PARTICIPANTS, options.POLICY, options.HEALTH, options.MIGRATION, OWN
    )
    signals = Signals()
    with guarded(module), guard(module.params, module.no_log_values) as guardian:
        operation = Operation(module.params)
        expect_current(operation.store, operation.journal)
        before, earlier = live_diff(operation), operation.journal.end
        if earlier:
            module.warn(describe_end(earlier))
        result = (
            predict(operation, module.params["state"], module.params["unverified"] or "")
            if module.check_mode
            else logged(operation, module, signals, guardian)
        )
        operation.close()
        if signals() and result["changed"]:
            module.warn(
                f"{signals.first()} came too late to stop the run: it went on to its end, nothing is left to do."
            )
        after = {"live": result["canonical"], "phase": result["phase"]}
        module.exit_json(**result, earlier_end=earlier, diff=diff(before, after, operation.journal.key))


def live_diff(operation: Operation) -> dict[str, Any]:
    return {"live": operation.journal.canonical, "phase": operation.journal.phase}


def logged(operation: Operation, module: Any, signals: Signals, guardian: Guardian) -> dict[str, Any]:
    """:func:`run`, told to the audit log. A window that is open already must go on, whether the log can be written or
    not.
    """
    log = operation.audit_log(f"tenant_cutover {module.params['state']}", module.params["run_id"], module.no_log_values)
    cutover = operation.cutover(log)
    cutover.interrupted = signals
    cutover.journal.ended_by = signals.first
    cutover.journal.taken_over = guardian.arm
    with log.run(needed=operation.journal.phase == IDLE):
        result = run(cutover, operation, module.params)
        log.outcome({key: result[key] for key in ("changed", "canonical", "recovered", "window_ms")})
    if log.problem:
        module.warn(log.problem)
    return result


def run(cutover: Cutover, operation: Operation, params: dict[str, Any]) -> dict[str, Any]:
    """Do it, and say what was done."""

    def stop_when_told(_entry: dict[str, Any]) -> None:
        if cutover.interrupted():
            reason = f"The run on {operation.journal.key} was interrupted before its window; nothing was changed."
            raise Timeout(reason, "Run the same command again when you like.")

    def preflight() -> int:
        operation.journal.read().expect_way_back()
        unverified = params["unverified"] or ""
        predicted = operation.checked_plan(for_window=True, unverified=unverified).predicted_window_ms
        catch_up(
            operation.journal,
            operation.parties,
            operation.participants,
            stop_when_told,
            force=params["force"],
            unverified=unverified,
        )
        return predicted

    if params["state"] == "aborted":
        outcome = cutover.abort(force=params["force"])
    else:
        to = operation.parties.target if params["state"] == "switched" else operation.parties.source
        outcome = cutover.switch(to, preflight, force=params["force"])
    return {**asdict(outcome), "migration": operation.journal.key, "predicted_window_ms": cutover.predicted_window_ms}


def predict(operation: Operation, state: str, unverified: str) -> dict[str, Any]:
    """What :func:`run` would do; changes nothing."""
    journal = operation.journal
    goal = {
        "switched": operation.parties.target.id,
        "reversed": operation.parties.source.id,
        "aborted": journal.canonical,
    }[state]
    changed = journal.phase != IDLE or journal.canonical != goal
    predicted = 0
    if changed and journal.phase == IDLE:
        journal.expect_way_back()
        staged = is_staged(journal, operation.parties, operation.participants)
        predicted = operation.checked_plan(for_window=staged, unverified=unverified).predicted_window_ms
    return {
        "changed": changed,
        "migration": journal.key,
        "phase": IDLE,
        "canonical": goal,
        "epoch": int(journal.body.get("epoch", 0)),
        "recovered": [],
        "window_ms": 0,
        "predicted_window_ms": predicted,
        "timeline": [],
    }


if __name__ == "__main__":
    main()
