# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the option group DESCRIPTOR."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  longest_upgrade:
    description: How long the longest upgrade of a tenant takes; the SaaS registry has to wait as long
      (C(callbackTimeoutMillis)).
    type: str
  namespace:
    description: Namespace of the deployment, which becomes part of the names of service instances.
    type: str
    default: ""
  approuters:
    description: Names of modules that are application routers although neither type, environment, name, path nor the
      C(package.json) in their folder tells so.
    type: list
    elements: str
    default: []
requirements:
  - ruamel.yaml
"""
