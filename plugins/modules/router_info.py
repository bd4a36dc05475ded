# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module router_info."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: router_info
short_description: Read what the landscape routers know and count
version_added: 1.0.0
author: zdm.landscape contributors (@zdm-landscape)
description:
  - Reads the maps, blocks, epochs, workers and clock of every router, and compares the routers with each other.
  - With O(usage) also how often and when each tenant's own credentials were last used. Counters start with a router's
    worker.
  - Fails when a router does not answer.
extends_documentation_fragment:
  - zdm.landscape.router
  - zdm.landscape.attributes.info
options:
  usage:
    description: Whether to read the counters as well.
    type: bool
    default: false
seealso:
  - module: zdm.landscape.router_block
  - module: zdm.landscape.router_mapping
"""

EXAMPLES = r"""
- name: Read the routers
  zdm.landscape.router_info:
    routers:
      - name: router-1
        socket: /etc/zdm-router/run/master.sock
    usage: true
  register: routers

- name: See whether the old credentials are still used
  ansible.builtin.debug:
    msg: "Last request {{ routers.usage['1b2f9c1e-7d0d-4c55-8d6f-0f7a5a1f2c11'].idle_ms }} ms ago"
"""

RETURN = r"""
routers:
  description: Every router, in the order of O(routers).
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The router's name.
      type: str
    version:
      description: Version of HAProxy.
      type: str
    ready:
      description: Whether it serves; a router that has not read the config store yet holds all requests.
      type: bool
    clock_ms:
      description: The router's clock, a Unix time in milliseconds.
      type: int
    old_workers:
      description: Workers of earlier reloads that still finish requests.
      type: int
    epochs:
      description: Migration to the newest epoch that the router has seen; it refuses older ones.
      type: dict
    blocks:
      description: Tenant id to its live block, with C(mode), C(migration), C(until_ms) and C(far) (until released).
      type: dict
    overrides:
      description: Tenant id in tokens to the id whose data it uses.
      type: dict
    onboarded:
      description: Tenant id to C(datacenter/channel).
      type: dict
    subdomains:
      description: Subdomain to tenant id.
      type: dict
    decommissioned:
      description: Ids of decommissioned tenants.
      type: list
      elements: str
    usage:
      description: Tenant id to its counters in this router.
      type: dict
  sample:
    - {name: router-1, version: 2.6.12, ready: true, clock_ms: 1795312817060, old_workers: 0, epochs:
      {venezia--venezia-scp: 3}, blocks: {},
       overrides: {guid-b: guid-a}, onboarded: {guid-a: US10/BETA, guid-b: US10/BETA}, subdomains: {venezia: guid-a,
       venezia-scp: guid-b},
       decommissioned: [], usage: {}}
usage:
  description:
    - Tenant id to the counters of all routers together, C(requests), C(in_flight), C(held), C(abandoned) and
      C(idle_ms), the milliseconds since
      the last request (none if there was none).
  returned: success
  type: dict
  sample: {guid-a: {requests: 812, in_flight: 0, held: 0, abandoned: 0, idle_ms: 140}}
differences:
  description: In what the routers' maps differ, one sentence each.
  returned: success
  type: list
  elements: str
  sample: []
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core import options
from ansible_collections.zdm.landscape.plugins.module_utils.core.edge import create_module, guarded
from ansible_collections.zdm.landscape.plugins.module_utils.description.build import build_fleet
from ansible_collections.zdm.landscape.plugins.module_utils.router.base import RouterState, Usage

SPEC: dict[str, Any] = {"usage": {"type": "bool", "default": False}}


def main() -> None:
    module = create_module(options.ROUTERS, SPEC)
    with guarded(module):
        fleet = build_fleet(module.params)
        states = fleet.states(module.params["usage"])
        module.exit_json(
            changed=False,
            routers=[_result(state) for state in states],
            usage=_total(states),
            differences=fleet.compare(states),
        )


def _result(state: RouterState) -> dict[str, Any]:
    result = asdict(state)
    for tenant_id, block in state.blocks.items():
        result["blocks"][tenant_id]["far"] = block.far
    return {**result, "decommissioned": sorted(state.decommissioned)}


def _total(states: Sequence[RouterState]) -> dict[str, dict[str, Any]]:
    result = {}
    for tenant_id in sorted({tenant_id for state in states for tenant_id in state.usage}):
        used: list[Usage] = [state.usage[tenant_id] for state in states if tenant_id in state.usage]
        total: dict[str, Any] = {
            field: sum(getattr(usage, field) for usage in used)
            for field in ("requests", "in_flight", "held", "abandoned")
        }
        total["idle_ms"] = min((usage.idle_ms for usage in used if usage.idle_ms is not None), default=None)
        result[tenant_id] = total
    return result


if __name__ == "__main__":
    main()
