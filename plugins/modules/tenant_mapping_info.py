# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module tenant_mapping_info."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: tenant_mapping_info
short_description: List onboarded tenants and their mappings
version_added: 1.0.0
author: zdm.landscape contributors (@zdm-landscape)
description:
  - Reads the documents C(onboarded-tenants/*) of the config store and says what is wrong with them.
extends_documentation_fragment:
  - zdm.landscape.store
  - zdm.landscape.attributes
  - zdm.landscape.attributes.info
options:
  subdomain:
    description: Only this tenant. All tenants by default.
    type: str
seealso:
  - module: zdm.landscape.tenant_mapping
"""

EXAMPLES = r"""
- name: Read all mappings
  zdm.landscape.tenant_mapping_info:
    store:
      path: /var/lib/zdm/store
  register: mappings

- name: No mapping may be wrong
  ansible.builtin.assert:
    that: mappings.problems | length == 0
    fail_msg: "{{ mappings.problems | join(' ') }}"
"""

RETURN = r"""
tenants:
  description: The onboarded tenants, sorted by subdomain.
  returned: always
  type: list
  elements: dict
  contains:
    subdomain:
      description: The tenant's subdomain.
      type: str
      returned: always
    id:
      description: The tenant's id.
      type: str
      returned: always
    datacenter:
      description: The tenant's datacenter.
      type: str
      returned: always
    channel:
      description: The tenant's channel.
      type: str
      returned: always
    map_to_tenant:
      description: Subdomain of the tenant whose data it uses; empty when it uses its own.
      type: str
      returned: always
    map_to_tenant_id:
      description: Id of the tenant whose data it uses; empty when it uses its own.
      type: str
      returned: always
    canonical_id:
      description: The id that its requests carry behind the routers.
      type: str
      returned: always
    migration:
      description: The migration that wrote the document last; empty when none did.
      type: str
      returned: always
    problems:
      description: What is wrong with it, in sentences.
      type: list
      elements: str
      returned: always
problems:
  description: The problems of all listed tenants.
  returned: always
  type: list
  elements: str
"""

from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core import options
from ansible_collections.zdm.landscape.plugins.module_utils.core.edge import create_module, guarded
from ansible_collections.zdm.landscape.plugins.module_utils.core.names import valid_name
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import ONBOARDED, Document
from ansible_collections.zdm.landscape.plugins.module_utils.store.registry import build_store
from ansible_collections.zdm.landscape.plugins.module_utils.tenants.onboarding import problems


def entry(document: Document, wrong: list[str]) -> dict[str, Any]:
    """One tenant as RETURN describes it."""
    body = document.body
    return {
        "subdomain": document.name,
        "id": body.get("id", ""),
        "datacenter": body.get("datacenter", ""),
        "channel": body.get("channel", ""),
        "map_to_tenant": body.get("mapToTenant", ""),
        "map_to_tenant_id": body.get("mapToTenantId", ""),
        "canonical_id": body.get("mapToTenantId") or body.get("id", ""),
        "migration": body.get("migration", ""),
        "problems": wrong,
    }


def main() -> None:
    module = create_module(options.STORE, {"subdomain": {"type": "str"}})
    with guarded(module):
        only = module.params["subdomain"]
        if only is not None:
            valid_name(only, "subdomain")
        documents = [document for document in build_store(module.params).list(ONBOARDED) if not document.emptied]
        wrong = problems(documents)
        tenants = [
            entry(document, wrong.get(document.name, [])) for document in documents if only in (None, document.name)
        ]
        module.exit_json(
            changed=False, tenants=tenants, problems=[text for tenant in tenants for text in tenant["problems"]]
        )


if __name__ == "__main__":
    main()
