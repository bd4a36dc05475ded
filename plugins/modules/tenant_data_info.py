# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module tenant_data_info."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: tenant_data_info
short_description: Plan a migration and run its preflight
version_added: 1.0.0
author: zdm.landscape contributors (@zdm-landscape)
description:
  - Classifies every table of every participant, chooses strategies, predicts stage and window, and writes down the
    exact SQL. Changes nothing.
  - Runs the preflight and returns everything that speaks against the migration, each with the way out.
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
  - zdm.landscape.attributes.info
options:
  for_window:
    description: Whether the stage must be ready too, as it must before a window.
    type: bool
    default: false
  plan_digest:
    description:
      - Digest of the plan that was signed. Its strategies are kept, whatever rows and load are now.
      - It is a finding when the plan is another one nevertheless, as a schema or the options have changed.
    type: str
"""

EXAMPLES = r"""
- name: What would happen
  zdm.landscape.tenant_data_info:
    source: venezia
    target: venezia-scp
    store: {kind: file, path: /srv/landscape/store}
    routers: "{{ routers }}"
    participants: "{{ zdm_landscape.participants }}"
  register: planned

- name: Show the tables
  ansible.builtin.debug:
    msg: "{{ planned.plan.text.splitlines() }}"
"""

RETURN = r"""
migration:
  description: Key of the migration's journal.
  returned: success
  type: str
  sample: venezia--venezia-scp
ok:
  description: Whether nothing speaks against the migration.
  returned: success
  type: bool
staged:
  description: Whether every participant is ready for a window.
  returned: success
  type: bool
live:
  description: Subdomain of the tenant whose id is live.
  returned: success
  type: str
plan:
  description: The plan; empty when a participant could not be inspected.
  returned: success
  type: dict
  contains:
    digest:
      description: Digest of schemas and strategies, of nothing that is measured. What was signed is what runs.
      returned: always
      type: str
      sample: 5f1d0c7a9be24f31-12i3t
    predicted_window_ms:
      description: The predicted window.
      returned: always
      type: int
    databases:
      description: Per participant its tables (strategy, reason, rows, predictions), refusals, statements and the rights
        that it needs.
      returned: always
      type: list
      elements: dict
    proposal:
      description: RV(proposal) of all participants as one YAML list; empty when there is none.
      returned: always
      type: str
    text:
      description: The plan to read and sign. Tables that stay are together by their reasons, refusals stand once, each
        with its way out, and the last line is what to sign.
      returned: always
      type: str
refusals:
  description: Tables and objects that refuse the migration (C(object), C(reason), C(advice)).
  returned: success
  type: list
  elements: dict
proposal:
  description:
    - By participant what would lift its refusals, for a person to confirm. Where only a person helps, there is nothing.
    - Each option has its whole new value. A text in angle brackets has to be filled in; the next plan refuses it.
  returned: success
  type: dict
  contains:
    options:
      description: Options of the participant.
      returned: always
      type: dict
      sample: {tenant_columns: [org_id], ignore: {"^(country|currency)$": no tenant data (confirm)}}
    text:
      description: The same as an entry of a YAML list, with comments that say what has to be confirmed.
      returned: always
      type: str
findings:
  description: Everything that the preflight checked (C(check), C(ok), C(object), C(message), C(advice)).
  returned: success
  type: list
  elements: dict
"""

from dataclasses import asdict

from ansible_collections.zdm.landscape.plugins.module_utils.core import options
from ansible_collections.zdm.landscape.plugins.module_utils.core.edge import create_module, guarded
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import MissingRight, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.description.operation import Operation
from ansible_collections.zdm.landscape.plugins.module_utils.migration.stage import is_staged


def main() -> None:
    module = create_module(
        options.STORE,
        options.ROUTERS,
        options.PARTICIPANTS,
        options.POLICY,
        options.HEALTH,
        options.MIGRATION,
        {"for_window": {"type": "bool", "default": False}, "plan_digest": {"type": "str"}},
    )
    with guarded(module):
        operation = Operation(module.params)
        findings, plan = operation.findings(
            for_window=module.params["for_window"], signed=module.params["plan_digest"] or ""
        )
        try:
            staged = is_staged(operation.journal, operation.parties, operation.participants)
        except (MissingRight, Unreachable):
            staged = False  # The findings name the participant that does not answer, or what its user may not do.
        operation.close()
        as_dict = plan.as_dict() if plan else {}
        module.exit_json(
            changed=False,
            migration=operation.journal.key,
            ok=all(finding.ok for finding in findings),
            staged=staged,
            live=operation.live.subdomain,
            plan=as_dict,
            refusals=as_dict.get("refusals", []),
            proposal={
                database["participant"]: database["proposal"]
                for database in as_dict.get("databases", [])
                if database["proposal"]
            },
            findings=[asdict(finding) for finding in findings],
        )


if __name__ == "__main__":
    main()
