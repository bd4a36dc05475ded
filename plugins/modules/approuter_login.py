# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module approuter_login."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: approuter_login
short_description: Log a test user in through an approuter
version_added: 1.0.0
author: zdm.landscape contributors (@zdm-landscape)
description:
  - Logs in as a browser does. The protected page leads to the identity provider (UAA or XSUAA), whose form is filled
    in, and from there back to the
    approuter and to the page, which is then asked for once more.
  - Finds what a health check does not. An approuter whose Redis is down or refuses the password starts and serves its
    public routes,
    and every login ends with 401. Run it against the idle version before a deployment is resumed.
  - Fails when the login fails, unless O(fail_when_broken=false). RV(verdict) tells what is broken.
  - The test user must be one of an identity provider with a plain form for user and password, in one page and without a
    second factor.
notes:
  - Cookies marked Secure are sent without TLS to this machine only, as browsers do.
extends_documentation_fragment:
  - zdm.landscape.attributes
  - zdm.landscape.attributes.info
options:
  url:
    description: URL of the approuter, for example its idle route.
    type: str
    required: true
  path:
    description: A path there that needs a login and answers the test user with status 200.
    type: str
    default: /
  username:
    description: The test user.
    type: str
    required: true
  password:
    description: Password of O(username).
    type: str
    required: true
  timeout:
    description: How long one answer may take.
    type: str
    default: 30s
  ca_file:
    description: PEM file with the certificate authorities of the approuter and of the identity provider.
    type: path
  validate_certs:
    description: Whether to verify certificates.
    type: bool
    default: true
  fail_when_broken:
    description: Whether the task fails when the login does not work.
    type: bool
    default: true
seealso:
  - module: zdm.landscape.landscape_health
"""

EXAMPLES = r"""
- name: A login works on the idle version, session store included
  zdm.landscape.approuter_login:
    url: https://incidents-idle.cfapps.eu10.hana.ondemand.com
    path: /api/incidents
    username: robot@example.com
    password: "{{ vault_robot_password }}"
"""

RETURN = r"""
logged_in:
  description: Whether the test user is logged in and the session is kept.
  returned: always
  type: bool
verdict:
  description:
    - What was found. V(logged_in) is the good one.
    - V(session_lost) means that the identity provider accepted the user and the approuter does not know the session, as
      when its session store is broken.
    - V(app_down) and V(identity_provider_unreachable) tell who does not answer.
    - V(identity_provider_refuses) means that the application's client or redirect is refused, V(credentials_refused)
      that the test user is.
    - V(callback_failed) means that the approuter could not exchange the code for a token, V(forbidden) that the user
      lacks a role for the path.
    - V(not_protected) means that the path needs no login, V(form_unknown) that the identity provider's page can't be
      filled in.
  returned: always
  type: str
  sample: logged_in
message:
  description: What was found, in one sentence.
  returned: always
  type: str
advice:
  description: What to do next; empty when the login works.
  returned: always
  type: str
hops:
  description: The requests of the login, in order.
  returned: always
  type: list
  elements: dict
  contains:
    method:
      description: GET or POST.
      type: str
      returned: always
    url:
      description: The URL without its query.
      type: str
      returned: always
    status:
      description: The HTTP status; 0 when there was no answer.
      type: int
      returned: always
    ms:
      description: How long the answer took, in milliseconds.
      type: int
      returned: always
"""

from dataclasses import asdict

from ansible_collections.zdm.landscape.plugins.module_utils.core.durations import parse_ms
from ansible_collections.zdm.landscape.plugins.module_utils.core.edge import create_module, guarded
from ansible_collections.zdm.landscape.plugins.module_utils.http.login import log_in
from ansible_collections.zdm.landscape.plugins.module_utils.http.web import checked_url

SPEC = {
    "url": {"type": "str", "required": True},
    "path": {"type": "str", "default": "/"},
    "username": {"type": "str", "required": True},
    "password": {"type": "str", "required": True, "no_log": True},
    "timeout": {"type": "str", "default": "30s"},
    "ca_file": {"type": "path"},
    "validate_certs": {"type": "bool", "default": True},
    "fail_when_broken": {"type": "bool", "default": True},
}


def main() -> None:
    module = create_module(SPEC)
    params = module.params
    with guarded(module):
        page = f"{checked_url(params['url'], 'url')}/{params['path'].lstrip('/')}"
        found = log_in(
            page,
            params["username"],
            params["password"],
            ca_file=params["ca_file"],
            validate_certs=params["validate_certs"],
            timeout_ms=parse_ms(params["timeout"], "timeout"),
        )
        result = {"changed": False, "logged_in": found.logged_in, **asdict(found)}
        if not found.logged_in and params["fail_when_broken"]:
            module.fail_json(msg=f"{found.message} {found.advice}", **result)
        module.exit_json(**result)


if __name__ == "__main__":
    main()
