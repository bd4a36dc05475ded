# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module tenant_throttle."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: tenant_throttle
short_description: Limits of a migration's stage, also while it runs
version_added: 1.0.0
author: zdm.landscape contributors (@zdm-landscape)
description:
  - Keeps the document C(throttles/<source>--<target>) of the config store. A running stage reads it within a second.
  - Each limit that is given counts more than the one of C(policy.throttle); one that is not given is as the policy
    says.
  - The document goes away together with the stage.
extends_documentation_fragment:
  - zdm.landscape.store
  - zdm.landscape.migration
  - zdm.landscape.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description:
      - V(present) sets exactly the limits that are given.
      - V(absent) lets the limits of the policy hold again.
    type: str
    choices: [present, absent]
    default: present
  rows_per_second:
    description: Rows per second over all databases; V(0) lifts the policy's limit.
    type: int
  max_replica_lag:
    description: The stage waits while a replica of a PostgreSQL database is further behind; V(none) lifts the policy's
      limit.
    type: str
  max_latency:
    description: The stage waits while a health endpoint takes longer to answer; V(none) lifts the policy's limit.
    type: str
"""

EXAMPLES = r"""
- name: The customers' reports run now, make the stage slow
  zdm.landscape.tenant_throttle:
    source: venezia
    target: venezia-scp
    store: {kind: file, path: /srv/landscape/store}
    rows_per_second: 500
    max_latency: 300ms

- name: As the policy says again
  zdm.landscape.tenant_throttle:
    state: absent
    source: venezia
    target: venezia-scp
    store: {kind: file, path: /srv/landscape/store}
"""

RETURN = r"""
migration:
  description: Key of the migration's journal.
  returned: success
  type: str
  sample: venezia--venezia-scp
throttle:
  description: The document afterwards; empty when there is none.
  returned: success
  type: dict
  sample: {rows_per_second: 500, max_latency: 300ms}
"""

from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core import options
from ansible_collections.zdm.landscape.plugins.module_utils.core.edge import create_module, diff, guarded
from ansible_collections.zdm.landscape.plugins.module_utils.migration.audit import AuditLog
from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import Journal
from ansible_collections.zdm.landscape.plugins.module_utils.migration.mapping import resolve
from ansible_collections.zdm.landscape.plugins.module_utils.migration.throttle import Limits, lift
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import THROTTLES, Store
from ansible_collections.zdm.landscape.plugins.module_utils.store.registry import build_store

OWN: dict[str, Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    **options.THROTTLE,
}


def main() -> None:
    module = create_module(
        options.STORE,
        options.MIGRATION,
        OWN,
        required_if=[("state", "present", tuple(options.THROTTLE), True)],
    )
    with guarded(module):
        store = build_store(module.params)
        parties = resolve(store, module.params["source"], module.params["target"])
        journal = Journal(store, parties.source, parties.target).read()
        given = {name: module.params[name] for name in options.THROTTLE if module.params[name] is not None}
        wanted = given if module.params["state"] == "present" else {}
        Limits.of(wanted, "throttle")
        document = store.get(THROTTLES, journal.key)
        before = document.body if document else {}
        if before != wanted and not module.check_mode:
            log = AuditLog(module.params["log_dir"], journal, "tenant_throttle", secrets=module.no_log_values)
            with log.run(needed=True):
                write(store, journal.key, wanted)
                log.outcome({"throttle": wanted})
        module.exit_json(
            changed=before != wanted,
            migration=journal.key,
            throttle=wanted,
            diff=diff(before, wanted, f"{THROTTLES}/{journal.key}"),
        )


def write(store: Store, migration: str, wanted: dict[str, Any]) -> None:
    if not wanted:
        return lift(store, migration)
    document = store.get(THROTTLES, migration)
    store.put(THROTTLES, migration, wanted, document.revision if document else None)
    return None


if __name__ == "__main__":
    main()
