# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the option group HEALTH."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  health:
    description: Endpoints that must be healthy.
    type: list
    elements: dict
    default: []
    suboptions:
      url:
        description: The URL to read with GET. Everything but a status 2xx, or O(health[].status), is unhealthy.
        type: str
        required: true
      assert:
        description: A JMESPath expression on the JSON of the answer; healthy means that it yields V(true).
        type: str
      status:
        description: The status that the answer must have, for example 302 or 401; redirects are not followed then.
        type: int
      timeout:
        description: How long to wait for the answer.
        type: str
        default: 5s
      ca_file:
        description: PEM file with the certificate authority of the endpoint's certificate.
        type: path
      validate_certs:
        description: Whether to verify the endpoint's certificate.
        type: bool
        default: true
"""
