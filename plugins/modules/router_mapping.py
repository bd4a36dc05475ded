# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module router_mapping."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: router_mapping
short_description: Tell the routers of a tenant, its mapping and its end
version_added: 1.0.0
author: zdm.landscape contributors (@zdm-landscape)
description:
  - Edits what every router knows of one tenant outside of a migration. These are its home, subdomain, mapping and
    decommissioning.
  - The config store is the truth, and a router renders its maps from it whenever it starts. So write the store first,
    with
    M(zdm.landscape.tenant_mapping) or M(zdm.landscape.tenant_config).
  - Routers refuse the edit while the tenant, or one that it leads to, is blocked by a migration.
extends_documentation_fragment:
  - zdm.landscape.router
  - zdm.landscape.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  id:
    description: The tenant's id, as it stands in tokens.
    type: str
    required: true
  subdomain:
    description: The tenant's subdomain, for issuers whose tokens name the subdomain. Left as it is when it is not
      given.
    type: str
  datacenter:
    description: The tenant's datacenter. With O(channel) required for a tenant that a router does not know yet.
    type: str
  channel:
    description: The tenant's channel.
    type: str
  map_to_tenant_id:
    description: The id whose data the tenant uses; an empty string is its own. Left as it is when it is not given.
    type: str
  decommissioned:
    description: Whether all of the tenant's requests are refused with 403. Left as it is when it is not given.
    type: bool
  state:
    description: Whether the routers know the tenant; the requests of an unknown one are refused with 403.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: zdm.landscape.tenant_mapping
  - module: zdm.landscape.router_info
"""

EXAMPLES = r"""
- name: Tell the routers of the new account; it uses the data of another
  zdm.landscape.router_mapping:
    routers: "{{ routers }}"
    id: 6c1b0a90-40a5-4f1c-9a55-6f4a0f1b7a02
    subdomain: venezia-scp
    datacenter: US10
    channel: BETA
    map_to_tenant_id: 1b2f9c1e-7d0d-4c55-8d6f-0f7a5a1f2c11

- name: Decommission a tenant
  zdm.landscape.router_mapping:
    routers: "{{ routers }}"
    id: 0d2f1c3e-95c4-4f57-8f59-5b4c61a6f7d3
    decommissioned: true
"""

RETURN = r"""
tables:
  description: The routers' maps that were edited.
  returned: success
  type: list
  elements: str
  sample: [override, onboarded, subdomains]
"""

from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core import options
from ansible_collections.zdm.landscape.plugins.module_utils.core.edge import create_module, diff, guarded
from ansible_collections.zdm.landscape.plugins.module_utils.description.build import build_fleet
from ansible_collections.zdm.landscape.plugins.module_utils.router.entries import (
    Wanted,
    entries_of,
    plan_absent,
    plan_present,
)
from ansible_collections.zdm.landscape.plugins.module_utils.router.render import home

SPEC: dict[str, Any] = {
    "id": {"type": "str", "required": True},
    "subdomain": {"type": "str"},
    "datacenter": {"type": "str"},
    "channel": {"type": "str"},
    "map_to_tenant_id": {"type": "str"},
    "decommissioned": {"type": "bool"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def main() -> None:
    module = create_module(options.ROUTERS, SPEC, required_together=[("datacenter", "channel")])
    params = module.params
    with guarded(module):
        fleet = build_fleet(params)
        states = fleet.states()
        if params["state"] == "absent":
            edits, after = plan_absent(states, params["id"]), {}
        else:
            where = home(params) if params["datacenter"] is not None else None
            wanted = Wanted(
                params["id"], params["subdomain"], where, params["map_to_tenant_id"], params["decommissioned"]
            )
            edits = plan_present(states, wanted)
            after = wanted.entries()
        before = {state.name: entries_of(state, params["id"]) for state in states}
        if not module.check_mode:
            for table, entries in edits.items():
                fleet.edit(table, entries)
        wished = (
            {name: _known(known, after) if params["state"] == "present" else {} for name, known in before.items()}
            if edits
            else before
        )
        module.exit_json(changed=bool(edits), tables=list(edits), diff=diff(before, wished, f"tenant {params['id']}"))


def _known(before: dict[str, str], after: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in {**before, **after}.items() if value}


if __name__ == "__main__":
    main()
