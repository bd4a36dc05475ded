# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter route_url."""

from __future__ import annotations

DOCUMENTATION = r"""
name: route_url
short_description: URL of a module's live or idle route
version_added: 1.0.0
author: zdm.landscape contributors (@zdm-landscape)
description:
  - Picks a URL from the routes that M(zdm.landscape.mta_deploy) returns.
  - Fails when the module is not deployed or has no such route, and says what there is.
positional: module, phase
options:
  _input:
    description: The return value C(routes) of M(zdm.landscape.mta_deploy).
    type: dict
    required: true
  module:
    description: Name of the MTA's module.
    type: str
    required: true
  phase:
    description: Which of its routes.
    type: str
    choices: [idle, live]
    required: true
"""

EXAMPLES = r"""
- name: The idle version must be up
  zdm.landscape.landscape_health:
    health:
      - url: "{{ deployment.routes | zdm.landscape.route_url('srv', 'idle') }}/health"
"""

RETURN = r"""
_value:
  description: The URL, without a slash at its end.
  type: str
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.routes import route_url


def run(routes: Any, module: str, phase: str) -> str:
    """See DOCUMENTATION."""
    try:
        return route_url(routes, module, phase)
    except ZdmError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"route_url": run}
