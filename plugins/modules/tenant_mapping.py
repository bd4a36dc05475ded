# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module tenant_mapping."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: tenant_mapping
short_description: Onboard a tenant, with or without a mapping to another tenant's data
version_added: 1.0.0
author: zdm.landscape contributors (@zdm-landscape)
description:
  - Does what the onboarding and the offboarding callback do to C(onboarded-tenants/<subdomain>) in the config store.
  - The mapping is the given one, or the one in C(tenants/<subdomain>); when both are there they must agree.
  - Refuses whatever could lead a customer to somebody else's data. These are a mapping to itself, chains of mappings, a
    subdomain and an id that
    do not belong together, another datacenter, a tenant that is onboarded already without a mapping or with another
    one, a document that
    a migration holds, and a mapping to the tenant that is not live in a migration.
  - The document of a tenant that is absent stays, and says nothing any more. Where no document is, a write whose answer
    was lost could still land.
  - The routers learn of it from M(zdm.landscape.router_mapping) or when they start.
extends_documentation_fragment:
  - zdm.landscape.store
  - zdm.landscape.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  subdomain:
    description: Subdomain of the tenant.
    type: str
    required: true
  id:
    description: The tenant's id, the C(zid) of its tokens. Required when the tenant is not onboarded yet; else it is
      compared.
    type: str
  datacenter:
    description: The tenant's datacenter. A tenant that is mapped gets the one of O(map_to_tenant) by default.
    type: str
  channel:
    description: The tenant's channel. A tenant that is mapped gets the one of O(map_to_tenant) by default.
    type: str
  map_to_tenant:
    description: Subdomain of the tenant whose data this one uses. Needs O(map_to_tenant_id).
    type: str
  map_to_tenant_id:
    description: The id that belongs to O(map_to_tenant).
    type: str
  adopt_onboarded:
    description: Whether a tenant that is onboarded without a mapping may get one. Be certain that it has neither data
      nor users of its own.
    type: bool
    default: false
  state:
    description: Whether the tenant is onboarded.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: zdm.landscape.tenant_mapping_info
  - module: zdm.landscape.tenant_config
  - module: zdm.landscape.router_mapping
"""

EXAMPLES = r"""
- name: Onboard the new account; it uses the data of venezia
  zdm.landscape.tenant_mapping:
    store:
      path: /var/lib/zdm/store
    subdomain: venezia-scp
    id: 6c1b0a90-40a5-4f1c-9a55-6f4a0f1b7a02
    map_to_tenant: venezia
    map_to_tenant_id: 1b2f9c1e-7d0d-4c55-8d6f-0f7a5a1f2c11

- name: Onboard a tenant as its configuration says
  zdm.landscape.tenant_mapping:
    store:
      path: /var/lib/zdm/store
    subdomain: milano
    id: 0d2f1c3e-95c4-4f57-8f59-5b4c61a6f7d3
    datacenter: US10
    channel: BETA

- name: Offboard a tenant
  zdm.landscape.tenant_mapping:
    store:
      path: /var/lib/zdm/store
    subdomain: milano
    state: absent
"""

RETURN = r"""
tenant:
  description: The document C(onboarded-tenants/<subdomain>) after the task; empty when it is absent.
  returned: success
  type: dict
  sample: {"id": "6c1b0a90-40a5-4f1c-9a55-6f4a0f1b7a02", "subdomain": "venezia-scp", "datacenter": "US10",
  "channel": "BETA",
    "mapToTenant": "venezia", "mapToTenantId": "1b2f9c1e-7d0d-4c55-8d6f-0f7a5a1f2c11"}
"""

from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core import options
from ansible_collections.zdm.landscape.plugins.module_utils.core.edge import create_module, diff, guarded
from ansible_collections.zdm.landscape.plugins.module_utils.store.registry import build_store
from ansible_collections.zdm.landscape.plugins.module_utils.tenants.onboarding import (
    Wanted,
    apply,
    pair,
    plan_absent,
    plan_present,
)

SPEC: dict[str, Any] = {
    "subdomain": {"type": "str", "required": True},
    "id": {"type": "str"},
    "datacenter": {"type": "str"},
    "channel": {"type": "str"},
    "map_to_tenant": {"type": "str"},
    "map_to_tenant_id": {"type": "str"},
    "adopt_onboarded": {"type": "bool", "default": False},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def main() -> None:
    module = create_module(options.STORE, SPEC)
    params = module.params
    with guarded(module):
        store = build_store(params)
        if params["state"] == "absent":
            change = plan_absent(store, params["subdomain"])
        else:
            map_to = pair(params["map_to_tenant"], params["map_to_tenant_id"], "map_to_tenant")
            given = {key: params[key] for key in ("subdomain", "id", "datacenter", "channel", "adopt_onboarded")}
            change = plan_present(store, Wanted(map_to=map_to, **given))
        if not module.check_mode:
            apply(store, change)
        difference = diff(change.former, change.after, f"onboarded-tenants/{change.name}")
        module.exit_json(changed=change.needed, tenant=change.after or {}, diff=difference)


if __name__ == "__main__":
    main()
