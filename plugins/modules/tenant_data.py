# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module tenant_data."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: tenant_data
short_description: Stage a tenant's data for its switch, take the stage back, or end the transition
version_added: 1.0.0
author: zdm.landscape contributors (@zdm-landscape)
description:
  - Brings the participants into the state that a migration needs, while the tenant is served.
  - Rows that are live are only rewritten inside a window, see O(state=rewritten).
  - Shows rows, rate and time left while it stages, when the controller's connection is C(local); elsewhere the same
    lines are in the audit log there.
  - C(SIGINT), C(SIGTERM) and C(SIGHUP) end the work between two chunks of rows; a second signal ends it at once.
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
    details: Runs the preflight of a stage, and says what would be copied, applied or deleted; nothing is changed.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description:
      - V(staged) installs fences and logs, copies the rows of twin tables, and verifies them. A stage that was
        interrupted goes on where it was.
      - Where all is staged, V(staged) applies what was logged since, also while the target is live, so that the next
        window is short.
      - V(absent) takes the stage back and gives the claims back; all is as before. Refused while the target is live.
      - V(purged) ends the transition. The rows under the source's id go in chunks, then every helper object, then the
        claims; the source's mapping
        stays. It can be interrupted at any moment and goes on. Refused while the source is live. Afterwards there is no
        way back.
      - V(rewritten) and V(reversed) do only the participants' part of a window that another process drives, so that the
        rows stand under the target's
        or the source's id. Refused unless the journal shows that these tenants are drained and closed under O(epoch).
    type: str
    choices: [staged, rewritten, reversed, purged, absent]
    default: staged
  plan_digest:
    description: Digest of the plan that was signed. Its strategies are kept, whatever rows and load are now; a plan for
      other schemas or options is refused.
    type: str
  compare:
    description:
      - Whether V(staged) compares every row with its copy as a whole. V(due) does when the last comparison is older
        than O(policy.verified_within), V(always) in any case, V(never) only what must be compared, after a change of a
        table for example.
      - Rows are compared in chunks, while the tenant is served. Rows that differ although nothing has touched the
        migration's triggers are refused, with the table and up to 20 keys.
    type: str
    choices: [always, due, never]
    default: due
  repair:
    description: Write the copies of rows that differ anew from the live rows. What is replaced is kept in a helper
      table of the database until the transition ends.
    type: bool
    default: false
  epoch:
    description: Epoch of the open window. Required for O(state=rewritten) and O(state=reversed).
    type: int
  force:
    description: Take over another run that is alive. That run stops at its next step.
    type: bool
    default: false
  run_id:
    description: How this run is called in the audit log; a random name by default.
    type: str
"""

EXAMPLES = r"""
- name: Do all the work that can be done while the tenant is served
  zdm.landscape.tenant_data:
    state: staged
    source: venezia
    target: venezia-scp
    plan_digest: 5f1d0c7a9be24f31-12i3t
    store: {kind: file, path: /srv/landscape/store}
    routers: "{{ routers }}"
    participants: "{{ zdm_landscape.participants }}"

- name: Take it back
  zdm.landscape.tenant_data:
    state: absent
    source: venezia
    target: venezia-scp
    store: {kind: file, path: /srv/landscape/store}
    routers: "{{ routers }}"
    participants: "{{ zdm_landscape.participants }}"

- name: End the transition
  zdm.landscape.tenant_data:
    state: purged
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
copied:
  description: Rows that this run copied, per participant.
  returned: success
  type: dict
  sample: {bills: 120000}
applied:
  description: Logged keys that this run applied, per participant that had any; in check mode those that it would apply.
  returned: success
  type: dict
  sample: {bills: 5200}
deleted:
  description: Rows under the retired id that this run deleted for O(state=purged), per participant; in check mode those
    that it would delete.
  returned: success
  type: dict
  sample: {bills: 120000}
plan_digest:
  description: Digest of the plan that is staged; empty when nothing is.
  returned: success
  type: str
states:
  description: The participants' states afterwards.
  returned: success
  type: dict
  sample: {bills: staged}
details:
  description: On failure, C(findings) is what the preflight found, and C(unknown) names a document of the config store
    of which no answer said whether it was written.
  returned: failure
  type: dict
"""

from dataclasses import asdict
from functools import partial
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core import options
from ansible_collections.zdm.landscape.plugins.module_utils.core.edge import create_module, diff, guarded
from ansible_collections.zdm.landscape.plugins.module_utils.description.operation import Operation, Signals
from ansible_collections.zdm.landscape.plugins.module_utils.http.health import slowest_answer_ms
from ansible_collections.zdm.landscape.plugins.module_utils.migration.audit import AuditLog
from ansible_collections.zdm.landscape.plugins.module_utils.migration.finalize import check, finalize, is_finalized
from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import IDLE
from ansible_collections.zdm.landscape.plugins.module_utils.migration.plan import Plan
from ansible_collections.zdm.landscape.plugins.module_utils.migration.progress import Reporter
from ansible_collections.zdm.landscape.plugins.module_utils.migration.stage import (
    nothing_to_stage,
    pending,
    remove,
    rewrite,
    stage,
)
from ansible_collections.zdm.landscape.plugins.module_utils.migration.throttle import Throttle
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    ABSENT,
    MOVED,
    STAGED,
    Care,
    Participant,
)

OWN: dict[str, Any] = {
    "state": {"type": "str", "choices": ["staged", "rewritten", "reversed", "purged", "absent"], "default": "staged"},
    "plan_digest": {"type": "str"},
    "compare": {"type": "str", "choices": ["always", "due", "never"], "default": "due"},
    "repair": {"type": "bool", "default": False},
    "epoch": {"type": "int"},
    "force": {"type": "bool", "default": False},
    "run_id": {"type": "str"},
}

Did = dict[str, dict[str, int]]


def main() -> None:
    module = create_module(
        options.STORE,
        options.ROUTERS,
        options.PARTICIPANTS,
        options.POLICY,
        options.HEALTH,
        options.MIGRATION,
        OWN,
        required_if=[("state", "rewritten", ("epoch",)), ("state", "reversed", ("epoch",))],
    )
    with guarded(module):
        operation = Operation(module.params)
        before = states(operation, module.params["state"])
        if module.check_mode:
            did, after = predict(operation, module.params, before)
        else:
            did = logged(operation, module)
            after = states(operation, module.params["state"])
        operation.close()
        digest = str(operation.journal.body.get("plan_digest", ""))
        module.exit_json(
            changed=before != after or any(any(entries.values()) for entries in did.values()),
            migration=operation.journal.key,
            **{name: did.get(name, {}) for name in ("copied", "applied", "deleted")},
            plan_digest=digest,
            states={
                name: value
                for name, value in after.items()
                if name in {participant.name for participant in operation.participants}
            },
            diff=diff(before, after, operation.journal.key),
        )


def states(operation: Operation, wanted: str) -> dict[str, Any]:
    """Each participant's state, and the id whose rows it holds to be live; for the end state purged the source's rows
    and the journal too.
    """
    source, target = operation.parties.source.id, operation.parties.target.id
    result: dict[str, Any] = {}
    for participant in operation.participants:
        status = participant.status(operation.journal.key, source, target)
        result[participant.name] = (
            status.state if status.state in (ABSENT, STAGED) else f"{status.state} ({status.live_id})"
        )
        if wanted == "purged":
            result[_rows_of(participant, source)] = 0 if status.state == ABSENT else status.rows[source]
    return result if wanted != "purged" else {**result, "finalized": is_finalized(operation.store, operation.journal)}


def _rows_of(participant: Participant, tenant_id: str) -> str:
    return f"{participant.name}: rows of {tenant_id}"


def logged(operation: Operation, module: Any) -> Did:
    """:func:`run`, told to the audit log. Inside of a window the log must not stop it."""
    log = operation.audit_log(f"tenant_data {module.params['state']}", module.params["run_id"], module.no_log_values)
    with log.run(needed=operation.journal.phase == IDLE):
        did = run(operation, module.params, log)
        log.outcome(dict(did))
    if log.problem:
        module.warn(log.problem)
    return did


def run(operation: Operation, params: dict[str, Any], log: AuditLog) -> Did:
    """Do it; rows copied, keys applied or rows deleted, per participant."""
    store, journal, parties, participants = (
        operation.store,
        operation.journal,
        operation.parties,
        operation.participants,
    )
    if params["state"] in ("rewritten", "reversed"):
        to = parties.target if params["state"] == "rewritten" else parties.source
        rewrite(journal, parties, participants, params["epoch"], to.id, operation.policy.window_budget_ms)
        return {}
    throttle = Throttle(
        operation.policy.throttle, store, journal.key, partial(slowest_answer_ms, operation.endpoints), log.write
    )
    reporter = Reporter(log, journal, throttle, Signals(once=True))
    if params["state"] == "purged":
        return {
            "deleted": finalize(
                store, journal, parties, participants, reporter, force=params["force"], throttle=throttle
            )
        }
    if params["state"] == "absent":
        remove(store, journal, parties, participants, reporter, force=params["force"], throttle=throttle)
        return {}

    def preflight() -> Plan:
        plan = operation.checked_plan(for_window=False, digest=params["plan_digest"])
        reporter.meter.expect(plan)
        return plan

    return asdict(
        stage(
            store,
            journal,
            parties,
            participants,
            preflight,
            reporter,
            care=care(operation, params),
            force=params["force"],
            throttle=throttle,
        )
    )


def care(operation: Operation, params: dict[str, Any]) -> Care:
    """How the stage treats what it finds."""
    after_s = {"always": 0, "due": operation.policy.verified_within_ms // 1000, "never": None}[params["compare"]]
    return Care(after_s, params["repair"])


def predict(operation: Operation, params: dict[str, Any], before: dict[str, Any]) -> tuple[Did, dict[str, Any]]:
    """What :func:`run` would do, and the states that it would leave."""
    journal, parties, participants = operation.journal, operation.parties, operation.participants
    if params["state"] == "staged":
        journal.expect_way_back()
        would: Did = {"applied": pending(journal, parties, participants)}
        if nothing_to_stage(journal, parties, participants, care(operation, params)):
            return would, before
        operation.checked_plan(for_window=False, digest=params["plan_digest"])
        return would, dict.fromkeys(before, STAGED)
    if params["state"] == "purged":
        if not journal.body.get("finalized_at_ms"):
            check(journal, parties, participants)
        rows = {participant.name: _rows_of(participant, parties.source.id) for participant in participants}
        after = {**dict.fromkeys(rows, ABSENT), **dict.fromkeys(rows.values(), 0), "finalized": True}
        return {"deleted": {name: before[key] for name, key in rows.items()}}, {key: after[key] for key in before}
    return {}, dict.fromkeys(before, ABSENT if params["state"] == "absent" else MOVED)


if __name__ == "__main__":
    main()
