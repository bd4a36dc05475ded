# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the option group STORE."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  store:
    description: The config store that holds landscape configuration, onboarded tenants, migrations and claims.
    type: dict
    required: true
    suboptions:
      kind:
        description:
          - The kind of config store.
          - V(file) is a folder of JSON documents on the controller's host. Every router must then be on the same host.
        type: str
        choices: [file]
        default: file
      path:
        description: The folder of a V(file) store.
        type: path
        required: true
"""
