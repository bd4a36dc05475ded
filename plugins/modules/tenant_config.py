# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module tenant_config."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: tenant_config
short_description: Edit a tenant's landscape configuration
version_added: 1.0.0
author: zdm.landscape contributors (@zdm-landscape)
description:
  - Sets or removes a tenant's entry in the C(tenants.json) of a landscape repository, in the config store as
    C(tenants/<subdomain>), or in both.
  - In the file only this entry is touched; order, indentation and everything else stay as they are.
  - Other keys of the entry are kept.
extends_documentation_fragment:
  - zdm.landscape.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  store:
    description: The config store to write C(tenants/<subdomain>) to. One of O(store) and O(path) is required.
    type: dict
    suboptions:
      kind:
        description: The kind of config store.
        type: str
        choices: [file]
        default: file
      path:
        description: The folder of a V(file) store.
        type: path
        required: true
  path:
    description: The C(tenants.json) to edit. It is created when it does not exist.
    type: path
  subdomain:
    description: Subdomain of the tenant.
    type: str
    required: true
  onboard_with_mapping_to_tenant:
    description:
      - Subdomain of the tenant whose data this one uses from the moment when it subscribes.
      - Needs O(onboard_with_mapping_to_tenant_id). When both are missing the mapping stays as it is.
    type: str
  onboard_with_mapping_to_tenant_id:
    description: The id that belongs to O(onboard_with_mapping_to_tenant).
    type: str
  decommissioned:
    description: Whether the routers refuse this tenant's requests. Stays as it is when it is not given.
    type: bool
  state:
    description: Whether the entry is there.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: zdm.landscape.tenant_mapping
"""

EXAMPLES = r"""
- name: The new account will use the old tenant's data from its first request
  zdm.landscape.tenant_config:
    path: tenants.json
    store:
      path: /var/lib/zdm/store
    subdomain: venezia-scp
    onboard_with_mapping_to_tenant: venezia
    onboard_with_mapping_to_tenant_id: 1b2f9c1e-7d0d-4c55-8d6f-0f7a5a1f2c11

- name: The old tenant is not used any more
  zdm.landscape.tenant_config:
    path: tenants.json
    subdomain: venezia
    decommissioned: true
"""

RETURN = r"""
config:
  description: The tenant's configuration after the task; empty when it is absent.
  returned: always
  type: dict
  sample: {"onboardWithMappingToTenant": "venezia",
    "onboardWithMappingToTenantId": "1b2f9c1e-7d0d-4c55-8d6f-0f7a5a1f2c11"}
"""

import os
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.zdm.landscape.plugins.module_utils.core import options
from ansible_collections.zdm.landscape.plugins.module_utils.core.edge import create_module, diff, guarded
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, Refused
from ansible_collections.zdm.landscape.plugins.module_utils.core.names import valid_name
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import TENANTS
from ansible_collections.zdm.landscape.plugins.module_utils.store.registry import build_store
from ansible_collections.zdm.landscape.plugins.module_utils.tenants.onboarding import CONFIG_KEYS, pair
from ansible_collections.zdm.landscape.plugins.module_utils.tenants.tenants_file import TenantsFile

SPEC: dict[str, Any] = {
    "store": {**options.STORE["store"], "required": False},
    "path": {"type": "path"},
    "subdomain": {"type": "str", "required": True},
    "onboard_with_mapping_to_tenant": {"type": "str"},
    "onboard_with_mapping_to_tenant_id": {"type": "str"},
    "decommissioned": {"type": "bool"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def wanted(params: dict[str, Any], current: dict[str, Any] | None) -> dict[str, Any] | None:
    """The entry after the task: what is not given stays."""
    if params["state"] == "absent":
        return None
    result = dict(current or {})
    mapping = pair(
        params["onboard_with_mapping_to_tenant"],
        params["onboard_with_mapping_to_tenant_id"],
        "onboard_with_mapping_to_tenant",
    )
    if mapping and mapping.subdomain == params["subdomain"]:
        raise Refused(f"{mapping.subdomain} can't be mapped to itself.", "Give the tenant whose data it is to use.")
    if mapping:
        result.update(zip(CONFIG_KEYS, (mapping.subdomain, mapping.id), strict=True))
    if params["decommissioned"]:
        result["decommissioned"] = "true"  # the routers' configuration has always had a string here
    elif params["decommissioned"] is False:
        result.pop("decommissioned", None)
    return result


def edit_file(module: AnsibleModule) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Edit ``tenants.json``; returns the diff and the entry as it is then."""
    path = module.params["path"]
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            text = stream.read()
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read: {error}.", "Check the path and its permissions.") from error
    tenants = TenantsFile(text, path)
    current = tenants.get(module.params["subdomain"])
    after = wanted(module.params, current)
    changed = current != after
    new = tenants.replaced(module.params["subdomain"], after) if changed else text
    if changed and not module.check_mode:
        write_file(module, path, new)
    return {"before": text, "after": new, "before_header": path, "after_header": path}, after


def write_file(module: AnsibleModule, path: str, text: str) -> None:
    """Replace the file at once; whoever reads it sees the old or the new text."""
    handle, scratch = tempfile.mkstemp(dir=module.tmpdir)
    with open(handle, "w", encoding="utf-8", newline="") as stream:
        stream.write(text)
    if not os.path.exists(path):
        os.chmod(scratch, 0o644)
    module.atomic_move(scratch, path)


def edit_store(module: AnsibleModule) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Edit ``tenants/<subdomain>``; returns the diff and the document as it is then."""
    store = build_store(module.params)
    name = module.params["subdomain"]
    current = store.get(TENANTS, name)
    before = current.body if current else None
    after = wanted(module.params, before)
    if before != after and not module.check_mode:
        if after is not None:
            store.put(TENANTS, name, after, current.revision if current else None)
        elif current:
            store.delete(TENANTS, name, current.revision)
    return diff(before, after, f"tenants/{name}"), after


def main() -> None:
    module = create_module(SPEC, required_one_of=[("store", "path")])
    with guarded(module):
        valid_name(module.params["subdomain"], "subdomain")
        diffs, config = [], None
        for given, edit in (("path", edit_file), ("store", edit_store)):
            if module.params[given]:
                difference, config = edit(module)
                diffs.append(difference)
        changed = any(entry["before"] != entry["after"] for entry in diffs)
        module.exit_json(changed=changed, config=config or {}, diff=diffs)


if __name__ == "__main__":
    main()
