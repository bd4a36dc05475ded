# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter module_options."""

from __future__ import annotations

DOCUMENTATION = r"""
name: module_options
short_description: Options of the migration modules, from the landscape's description and the inventory
version_added: 1.0.0
author: zdm.landscape contributors (@zdm-landscape)
description:
  - Validates the description and computes the options O(zdm.landscape.tenant_cutover#module:store), C(routers),
    C(participants), C(policy) and C(health).
  - The result is meant for C(module_defaults) of the action group C(zdm.landscape.migration).
positional: groups, hostvars, base
options:
  _input:
    description: The description, C(zdm_landscape).
    type: dict
    required: true
  groups:
    description: The variable C(groups).
    type: dict
    required: true
  hostvars:
    description:
      - The variable C(hostvars).
      - A router's host has C(zdm_router_socket), or it is reached by mutual TLS at C(ansible_host) and
        C(zdm_router_port).
    type: dict
    required: true
  base:
    description: Folder of relative paths of certificates.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Move the data of venezia to the id of venezia-scp
  zdm.landscape.tenant_cutover:
    source: venezia
    target: venezia-scp
  module_defaults:
    group/zdm.landscape.migration: "{{ zdm_landscape | zdm.landscape.module_options(groups, hostvars, inventory_dir) }}"
"""

RETURN = r"""
_value:
  description: The options, by their names.
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.description.module_options import module_options


def run(description: Any, groups: Any, hostvars: Any, base: str | None = "") -> dict[str, Any]:
    """See DOCUMENTATION."""
    try:
        return module_options(description, groups, hostvars, base or "")
    except ZdmError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"module_options": run}
