# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module landscape_health."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: landscape_health
short_description: Judge health endpoints
version_added: 1.0.0
author: zdm.landscape contributors (@zdm-landscape)
description:
  - Reads health endpoints over HTTP, all at the same time, and judges their JSON with JMESPath expressions.
  - Fails when one is unhealthy, unless O(fail_when_unhealthy=false).
requirements:
  - jmespath (for O(health[].assert))
extends_documentation_fragment:
  - zdm.landscape.attributes
  - zdm.landscape.attributes.info
options:
  health:
    description: Endpoints that must be healthy.
    type: list
    elements: dict
    required: true
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
  fail_when_unhealthy:
    description: Whether the task fails when an endpoint is unhealthy.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: The services must be up
  zdm.landscape.landscape_health:
    health:
      - url: https://bills.example.com/health
        assert: status == 'UP'
      - url: https://rating.example.com/health
        assert: components.db.status == 'UP' && components.queue.backlog < `100`
        timeout: 2s
"""

RETURN = r"""
healthy:
  description: Whether all endpoints are healthy.
  returned: always
  type: bool
endpoints:
  description: What each endpoint said, in the order given.
  returned: always
  type: list
  elements: dict
  contains:
    url:
      description: The endpoint's URL without user, password and query.
      type: str
      returned: always
    healthy:
      description: Whether it is healthy.
      type: bool
      returned: always
    message:
      description: What was found, in one sentence.
      type: str
      returned: always
    advice:
      description: What to do next; empty when it is healthy.
      type: str
      returned: always
    status:
      description: The HTTP status; 0 when there was no answer.
      type: int
      returned: always
    duration_ms:
      description: How long the answer took.
      type: int
      returned: always
"""

from dataclasses import asdict

from ansible_collections.zdm.landscape.plugins.module_utils.core import options
from ansible_collections.zdm.landscape.plugins.module_utils.core.edge import create_module, guarded
from ansible_collections.zdm.landscape.plugins.module_utils.http.health import check_all, endpoints_of


def main() -> None:
    health = {key: value for key, value in options.HEALTH["health"].items() if key != "default"}
    module = create_module(
        {"health": {**health, "required": True}, "fail_when_unhealthy": {"type": "bool", "default": True}}
    )
    with guarded(module):
        verdicts = check_all(endpoints_of(module.params["health"]))
        bad = [verdict for verdict in verdicts if not verdict.healthy]
        result = {"changed": False, "healthy": not bad, "endpoints": [asdict(verdict) for verdict in verdicts]}
        if bad and module.params["fail_when_unhealthy"]:
            module.fail_json(msg=" ".join(f"{verdict.message} {verdict.advice}" for verdict in bad), **result)
        module.exit_json(**result)


if __name__ == "__main__":
    main()
