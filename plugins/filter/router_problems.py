# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter router_problems."""

from __future__ import annotations

DOCUMENTATION = r"""
name: router_problems
short_description: What is wrong in the variables of the role landscape_router
version_added: 1.0.0
author: zdm.landscape contributors (@zdm-landscape)
description:
  - Names every wrong variable of the role P(zdm.landscape.landscape_router#role), what is wrong and what is expected
    there.
  - The role asks before it touches the router's host. Values of secrets are never shown.
positional: key_files
options:
  _input:
    description: The role's variables by their full names.
    type: dict
    required: true
  key_files:
    description: Names of the files with issuers' public keys, each as C(<position of the issuer>/<file name>).
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Check what was asked for
  ansible.builtin.assert:
    that: __landscape_router_given | zdm.landscape.router_problems | length == 0
"""

RETURN = r"""
_value:
  description: One sentence per problem; empty when all is right.
  type: list
  elements: str
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.router.variables import problems


def run(variables: Any, key_files: Any = ()) -> list[str]:
    """See DOCUMENTATION."""
    return [str(problem) for problem in problems(variables, key_files)]


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"router_problems": run}
