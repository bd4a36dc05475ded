# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module mta_descriptor."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: mta_descriptor
short_description: Make the descriptor of a multi-target application safe for blue-green deployments
version_added: 1.0.0
author: zdm.landscape contributors (@zdm-landscape)
description:
  - Changes C(mta.yaml), C(mtad.yaml) or an extension descriptor so that services are configured with live URLs,
    application routers keep their
    users' sessions in Redis and the routes of their tenants, and the SaaS registry waits long enough.
  - Changes only the lines that it must; all other lines keep their bytes, with comments, anchors, quotes and order.
  - Refuses what it can't change alone, and says what to do by hand; nothing was changed then.
  - Modules keep C(${default-url}) in what they require, since the idle version has to call the idle version.
requirements:
  - ruamel.yaml
extends_documentation_fragment:
  - zdm.landscape.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Session secrets that the descriptor holds are masked.
  idempotent:
    support: full
options:
  path:
    description: The descriptor, or an extension descriptor (C(.mtaext)). Mode and owner of the file are kept.
    type: path
    required: true
  base:
    description: The descriptor that the extension in O(path) extends. Required for an extension; the descriptor itself
      must be safe already.
    type: path
  live_urls:
    description:
      - Whether services get live URLs. A property of a module that is resolved to an idle URL and used by a service
        gets a live one beside it
        (C(mtx-url) gets C(mtx-live)), and the service refers to that one. A live property that is there is used.
      - A module with its own host gets a URL with that host. For a module with its own routes C(use-live-routes) is
        set, at an entry of its own
        in C(provides) when modules require the same.
    type: bool
    default: true
  keep_existing_routes:
    description: Whether application routers with a route for every tenant get C(keep-existing-routes).
    type: bool
    default: true
  longest_upgrade:
    description: How long the longest upgrade of a tenant takes. The SaaS registry's C(callbackTimeoutMillis) is raised
      to it; never lowered.
    type: str
  namespace:
    description: Namespace of the deployment, which becomes part of the names of service instances.
    type: str
    default: ""
  sessions:
    description:
      - Application routers get an external session store. The resource, its binding and C(EXT_SESSION_MGT) as strict
        JSON are added.
      - The secret does not get into the descriptor. C(EXT_SESSION_MGT) refers to a module parameter, which an extension
        descriptor sets, see
        P(zdm.landscape.session_extension#filter).
      - Without this option sessions are left alone.
    type: dict
    suboptions:
      modules:
        description: Names of the application routers. By default those that are found by type, environment, name or
          path.
        type: list
        elements: str
        default: []
      resource:
        description: Name of the resource. By default the one of O(sessions.service) that an application router
          requires, else C(<ID>-session-management).
        type: str
        default: ""
      service:
        description: The service offering of a new resource.
        type: str
        default: redis-cache
      plan:
        description: The service plan of a new resource.
        type: str
        default: development
      retry_timeout_ms:
        description: Longest time of automatic retries of a failed Redis operation in milliseconds,
          C(defaultRetryTimeout).
        type: int
        default: 2000
      back_off_multiplier:
        description: Multiplier of the pause between retries, C(backOffMultiplier).
        type: int
        default: 50
      parameter:
        description: Name of the module parameter that carries the session secret.
        type: str
        default: session-secret
  state:
    description: What is wanted is in the descriptor.
    type: str
    choices: [present]
    default: present
seealso:
  - module: zdm.landscape.mta_descriptor_info
  - plugin: zdm.landscape.session_extension
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Live URLs, routes of tenants, and time for an upgrade of half an hour
  zdm.landscape.mta_descriptor:
    path: mta.yaml
    longest_upgrade: 30m

- name: Sessions in Redis as well
  zdm.landscape.mta_descriptor:
    path: mta.yaml
    sessions:
      resource: incident-session-management
      plan: standard
      retry_timeout_ms: 10000
      back_off_multiplier: 10

- name: Show what would change in an extension
  zdm.landscape.mta_descriptor:
    path: production.mtaext
    base: mta.yaml
  check_mode: true
  diff: true
"""

RETURN = r"""
mta:
  description: What the descriptor describes, after the task. Of an extension, the descriptor that it extends.
  returned: success
  type: dict
  contains:
    id:
      description: The MTA's id.
      type: str
      returned: always
    version:
      description: The MTA's version.
      type: str
      returned: always
    schema_version:
      description: Its schema version.
      type: str
      returned: always
    extends:
      description: The id that a further extension descriptor extends. The last extension's, else the MTA's.
      type: str
      returned: always
    modules:
      description: Names of the modules.
      type: list
      elements: str
      returned: always
    resources:
      description: Names of the resources.
      type: list
      elements: str
      returned: always
    approuters:
      description: Names of the modules that are application routers.
      type: list
      elements: str
      returned: always
session_modules:
  description: Modules that need the session secret in the parameter O(sessions.parameter); none without O(sessions).
  returned: success
  type: list
  elements: str
  sample: [approuter]
findings:
  description: What M(zdm.landscape.mta_descriptor_info) would still find.
  returned: success
  type: list
  elements: dict
"""

import os
import tempfile
from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.zdm.landscape.plugins.module_utils.core.durations import parse_ms
from ansible_collections.zdm.landscape.plugins.module_utils.core.edge import create_module, guarded
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.safe import Wanted, make_safe
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.session import Sessions, masked
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Source
from ansible_collections.zdm.landscape.plugins.module_utils.mta.lint.rules import lint

SPEC: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "base": {"type": "path"},
    "live_urls": {"type": "bool", "default": True},
    "keep_existing_routes": {"type": "bool", "default": True},
    "longest_upgrade": {"type": "str"},
    "namespace": {"type": "str", "default": ""},
    "sessions": {
        "type": "dict",
        "options": {
            "modules": {"type": "list", "elements": "str", "default": []},
            "resource": {"type": "str", "default": ""},
            "service": {"type": "str", "default": "redis-cache"},
            "plan": {"type": "str", "default": "development"},
            "retry_timeout_ms": {"type": "int", "default": 2000},
            "back_off_multiplier": {"type": "int", "default": 50},
            "parameter": {"type": "str", "default": "session-secret"},
        },
    },
    "state": {"type": "str", "choices": ["present"], "default": "present"},
}


def wanted(params: dict[str, Any]) -> Wanted:
    """The options as the engine takes them."""
    longest = parse_ms(params["longest_upgrade"], "longest_upgrade") if params["longest_upgrade"] else 0
    given = params["sessions"]
    sessions = Sessions(**{**given, "modules": tuple(given["modules"])}) if given is not None else None
    return Wanted(params["live_urls"], sessions, params["keep_existing_routes"], longest, params["namespace"])


def write(module: AnsibleModule, path: str, text: str) -> None:
    """Replace the file in one step; mode and owner stay."""
    handle, temporary = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    module.atomic_move(temporary, os.path.realpath(path))


def main() -> None:
    module = create_module(SPEC)
    params = module.params
    with guarded(module):
        want = wanted(params)
        before = Descriptor.load(params["path"])
        base = Descriptor.load(params["base"]) if params["base"] else None
        text = make_safe(before, want, base)
        after = Descriptor.parse(Source(params["path"], text))
        whole = base.extended([after]) if base else after
        old = base.extended([before]) if base else before
        changed = text != before.source.text
        if changed and not module.check_mode:
            write(module, params["path"], text)
        module.exit_json(
            changed=changed,
            mta=whole.summary(),
            session_modules=list(want.sessions.checked(whole).modules) if want.sessions else [],
            findings=[asdict(finding) for finding in lint(whole, want.longest_upgrade_ms, want.namespace)],
            diff={
                "before": masked(old, before.source.text),
                "after": masked(old, text),
                "before_header": params["path"],
                "after_header": params["path"],
            },
        )


if __name__ == "__main__":
    main()
