# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module router_block."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: router_block
short_description: Block tenants at all routers, or free them
version_added: 1.0.0
author: zdm.landscape contributors (@zdm-landscape)
description:
  - Holds or refuses the requests of tenants at every router, optionally until none is in flight any more.
  - A block belongs to a migration and its epoch. Routers refuse an older epoch and another migration's block.
  - M(zdm.landscape.tenant_cutover) does this itself; this module is for rehearsals and for repairs by hand.
extends_documentation_fragment:
  - zdm.landscape.router
  - zdm.landscape.attributes
attributes:
  check_mode:
    support: full
    details: A lease is not renewed in check mode.
  diff_mode:
    support: full
  idempotent:
    support: full
    details: To renew the lease of a block that is there is no change.
options:
  ids:
    description: Ids of the tenants as they stand in tokens.
    type: list
    elements: str
    required: true
  migration:
    description: Key of the migration that the block belongs to.
    type: str
    required: true
  epoch:
    description: Epoch of the migration.
    type: int
    required: true
  state:
    description: Whether the tenants are blocked.
    type: str
    choices: [present, absent]
    default: present
  mode:
    description: Whether requests are held until the block ends, or refused with 503.
    type: str
    choices: [hold, reject]
    default: hold
  lease:
    description:
      - How long the block lasts by each router's own clock, at least V(100ms), or V(far), until it is removed.
      - A far block never becomes a lease again.
    type: str
    default: 3s
  drained:
    description: Whether to wait until no request of the tenants is in flight. For O(state=present).
    type: bool
    default: false
  timeout:
    description: How long to wait for O(drained).
    type: str
    default: 2s
seealso:
  - module: zdm.landscape.tenant_cutover
  - module: zdm.landscape.router_info
"""

EXAMPLES = r"""
- name: Hold two tenants for at most ten seconds and wait until their requests have ended
  zdm.landscape.router_block:
    routers: "{{ routers }}"
    migration: venezia--venezia-scp
    epoch: 4
    ids: [1b2f9c1e-7d0d-4c55-8d6f-0f7a5a1f2c11, 6c1b0a90-40a5-4f1c-9a55-6f4a0f1b7a02]
    lease: 10s
    drained: true

- name: Free them
  zdm.landscape.router_block:
    routers: "{{ routers }}"
    migration: venezia--venezia-scp
    epoch: 4
    ids: [1b2f9c1e-7d0d-4c55-8d6f-0f7a5a1f2c11, 6c1b0a90-40a5-4f1c-9a55-6f4a0f1b7a02]
    state: absent
"""

RETURN = r"""
drained_ms:
  description: How long it took until no request was in flight.
  returned: when O(drained) and not in check mode
  type: int
  sample: 12
"""

from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core import options
from ansible_collections.zdm.landscape.plugins.module_utils.core.durations import parse_ms
from ansible_collections.zdm.landscape.plugins.module_utils.core.edge import create_module, diff, guarded
from ansible_collections.zdm.landscape.plugins.module_utils.description.build import build_fleet
from ansible_collections.zdm.landscape.plugins.module_utils.router.base import RouterState
from ansible_collections.zdm.landscape.plugins.module_utils.router.fleet import Fleet

FAR = "far"
SPEC: dict[str, Any] = {
    "ids": {"type": "list", "elements": "str", "required": True},
    "migration": {"type": "str", "required": True},
    "epoch": {"type": "int", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "mode": {"type": "str", "choices": ["hold", "reject"], "default": "hold"},
    "lease": {"type": "str", "default": "3s"},
    "drained": {"type": "bool", "default": False},
    "timeout": {"type": "str", "default": "2s"},
}


def main() -> None:
    module = create_module(options.ROUTERS, SPEC)
    params = module.params
    with guarded(module):
        fleet = build_fleet(params)
        lease_ms = 0 if params["lease"] == FAR else parse_ms(params["lease"], "lease")
        timeout_ms = parse_ms(params["timeout"], "timeout")
        before = {state.name: _blocks(state, params) for state in fleet.states()}
        after = {name: _wanted(blocks, params) for name, blocks in before.items()}
        result: dict[str, Any] = {"changed": before != after, "diff": diff(before, after, "blocks")}
        if not module.check_mode:
            _apply(fleet, params, lease_ms)
            if params["drained"] and params["state"] == "present":
                result["drained_ms"] = fleet.drain(params["ids"], timeout_ms)
        module.exit_json(**result)


def _blocks(state: RouterState, params: dict[str, Any]) -> dict[str, str]:
    found = {tenant_id: state.blocks.get(tenant_id) for tenant_id in params["ids"]}
    return {
        tenant_id: f"{block.mode} by {block.migration}{' until released' if block.far else ''}"
        for tenant_id, block in found.items()
        if block
    }


def _wanted(blocks: dict[str, str], params: dict[str, Any]) -> dict[str, str]:
    if params["state"] == "absent":
        return {}
    lease, far = (
        f"{params['mode']} by {params['migration']}",
        f"{params['mode']} by {params['migration']} until released",
    )
    kept = {
        tenant_id
        for tenant_id, block in blocks.items()
        if block.endswith(f" by {params['migration']} until released") and params["lease"] != FAR
    }
    return {
        tenant_id: blocks[tenant_id] if tenant_id in kept else far if params["lease"] == FAR else lease
        for tenant_id in params["ids"]
    }


def _apply(fleet: Fleet, params: dict[str, Any], lease_ms: int) -> None:
    migration, epoch, ids = params["migration"], params["epoch"], params["ids"]
    if params["state"] == "absent":
        fleet.release(migration, epoch, ids)
    elif lease_ms:
        fleet.lease(migration, epoch, ids, lease_ms, params["mode"])
    else:
        fleet.close(migration, epoch, ids, params["mode"])


if __name__ == "__main__":
    main()
