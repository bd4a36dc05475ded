# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter landscape_problems."""

from __future__ import annotations

DOCUMENTATION = r"""
name: landscape_problems
short_description: What is wrong in a landscape's description
version_added: 1.0.0
author: zdm.landscape contributors (@zdm-landscape)
description:
  - Names every wrong key of C(zdm_landscape) with its path, what is wrong and what is expected there.
  - Values of secrets are never shown.
positional: section
options:
  _input:
    description: The description, C(zdm_landscape), or one section of it.
    type: dict
    required: true
  section:
    description: The section's key, when the input is one section.
    type: str
    choices: [deploy]
"""

EXAMPLES = r"""
- name: Validate the description
  ansible.builtin.assert:
    that: zdm_landscape | zdm.landscape.landscape_problems | length == 0
"""

RETURN = r"""
_value:
  description: One sentence per wrong key; empty when all is right.
  type: list
  elements: str
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.description.keys import problems


def run(description: Any, section: str = "") -> list[str]:
    """See DOCUMENTATION."""
    return [str(problem) for problem in problems(description, section)]


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"landscape_problems": run}
