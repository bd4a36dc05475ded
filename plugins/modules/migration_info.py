# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module migration_info."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: migration_info
short_description: What is true of a migration, and what to do next
version_added: 1.0.0
author: zdm.landscape contributors (@zdm-landscape)
description:
  - Reads every artefact (journal, claims, mapping documents, routers, databases) and compares them. Changes nothing.
  - Says which tenant id is live, whether anything is lost, and the one command to run next.
requirements:
  - SQLAlchemy >= 2
  - psycopg >= 3 (for PostgreSQL)
  - PyMySQL (for MariaDB)
extends_documentation_fragment:
  - zdm.landscape.store
  - zdm.landscape.router
  - zdm.landscape.database
  - zdm.landscape.policy
  - zdm.landscape.attributes
  - zdm.landscape.attributes.info
options:
  source:
    description: Subdomain of the migration's source. Without it and O(target) all migrations are read.
    type: str
  target:
    description: Subdomain of the migration's target.
    type: str
"""

EXAMPLES = r"""
- name: All migrations of the landscape
  zdm.landscape.migration_info:
    store: {kind: file, path: /srv/landscape/store}
    routers: "{{ routers }}"
    participants: "{{ zdm_landscape.participants }}"
  register: status
"""

RETURN = r"""
exit_code:
  description: 2 when a person must act, else 0.
  returned: success
  type: int
migrations:
  description: The migrations, sorted by key.
  returned: success
  type: list
  elements: dict
  contains:
    migration:
      description: Key of the journal.
      returned: always
      type: str
    phase:
      description: The journal's phase; V(I) is idle.
      returned: always
      type: str
    epoch:
      description: The journal's epoch.
      returned: always
      type: int
    live:
      description: The tenant that is live (C(subdomain), C(id)).
      returned: always
      type: dict
    verdict:
      description: The state in one sentence.
      returned: always
      type: str
    lost:
      description: What is lost; V(nothing) as long as the artefacts agree.
      returned: always
      type: str
    problems:
      description: Artefacts that disagree or do not answer.
      returned: always
      type: list
      elements: str
    next_command:
      description: The one command to run next; empty when there is nothing to do.
      returned: always
      type: str
    needs_person:
      description: Whether a person must act.
      returned: always
      type: bool
    running:
      description: The process that drives the migration now; empty when there is none.
      returned: always
      type: str
    progress:
      description: How far the stage is that runs now, as its audit log says; empty when none runs. The C(verdict) says
        it in words.
      returned: always
      type: dict
      sample: {participant: bills, table: invoice, rows: 12000, of: 50000, rows_per_second: 3100, seconds_left: 12,
        throttled: [latency]}
    ended_by:
      description: How the last run ended, when a guardian or a signal has ended it; else empty. As
        RV(zdm.landscape.tenant_cutover#module:earlier_end).
      returned: always
      type: dict
    pending:
      description: Logged keys that are not applied yet, per participant that has any. The state V(staged) of
        M(zdm.landscape.tenant_data) applies them.
      returned: always
      type: dict
      sample: {bills: 5200}
    transition:
      description: How far the transition is and what a reverse would cost now; empty unless the target is live and the
        way back open.
      returned: always
      type: dict
      contains:
        began_at_ms:
          description: When the tenant was switched, in milliseconds since 1970.
          returned: in a transition
          type: int
        days_left:
          description: Days of O(policy.transition) that are left; negative when it is over.
          returned: in a transition
          type: float
        reverse_window_ms:
          description: Estimate of the window of a reverse, as the last window took; nothing is measured for it.
          returned: in a transition
          type: int
        catch_up_ms:
          description: Estimate of what the logged keys take before that window, while the tenant is served; as long for
            each as the last time.
          returned: in a transition
          type: int
        pending:
          description: Logged keys of all participants.
          returned: in a transition
          type: int
    finalized_at_ms:
      description: When the transition was ended, in milliseconds since 1970; 0 when it was not.
      returned: always
      type: int
    participants:
      description: What each participant says of itself.
      returned: always
      type: list
      elements: dict
"""

from dataclasses import asdict

from ansible_collections.zdm.landscape.plugins.module_utils.core import options
from ansible_collections.zdm.landscape.plugins.module_utils.core.edge import create_module, guarded
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError
from ansible_collections.zdm.landscape.plugins.module_utils.description.build import (
    build_fleet,
    build_participants,
    build_policy,
    build_store,
)
from ansible_collections.zdm.landscape.plugins.module_utils.migration.mapping import resolve
from ansible_collections.zdm.landscape.plugins.module_utils.migration.status import all_migrations, migration_status

OWN = {"source": {"type": "str"}, "target": {"type": "str"}}


def main() -> None:
    module = create_module(
        options.STORE,
        options.ROUTERS,
        options.PARTICIPANTS,
        options.POLICY,
        OWN,
        required_together=[("source", "target")],
    )
    with guarded(module):
        store = build_store(module.params)
        wanted = all_migrations(store)
        if module.params["source"]:
            parties = resolve(store, module.params["source"], module.params["target"])
            wanted = [pair for pair in wanted if pair == (parties.source, parties.target)]
            if not wanted:
                raise InputError(
                    f"There is no migration from {parties.source.subdomain} to {parties.target.subdomain}.",
                    "Run the playbook status without tenants to see all; the order of the two matters.",
                )
        policy = build_policy(module.params)
        fleet, participants = build_fleet(module.params), build_participants(module.params, policy)
        found = [
            migration_status(store, fleet, participants, source, target, policy.transition_ms)
            for source, target in wanted
        ]
        for participant in participants:
            participant.close()
        needs_person = any(entry.needs_person for entry in found)
        module.exit_json(
            changed=False, migrations=[asdict(entry) for entry in found], exit_code=2 if needs_person else 0
        )


if __name__ == "__main__":
    main()
