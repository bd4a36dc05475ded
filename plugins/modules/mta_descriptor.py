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
    users' sessions in Redis and the routes of their tenants, and the SaaS registry waits long enough. How long it waits
    is raised to O(longest_upgrade), and never lowered.
  - Changes only the lines that it must; all other lines keep their bytes, with comments, anchors, quotes and order.
  - What can't be mended without touching something else is left as it is and listed with its place and what to do by
    hand, in RV(not_mended) and as a warning; all else is mended.
  - Modules keep C(${default-url}) in what they require, since the idle version has to call the idle version.
extends_documentation_fragment:
  - zdm.landscape.descriptor
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
      - Whether services, bindings and content modules get live URLs.
      - A property of a module that is resolved to an idle URL and used by a service
        gets a live one beside it
        (C(mtx-url) gets C(mtx-live)), and the service refers to that one. A live property that is there is used.
      - A URL that a resource holds itself becomes such a property of the only module that can be meant.
      - A module with its own host gets a URL with that host. For a module with its own routes C(use-live-routes) is
        set, at an entry of its own
        in C(provides) when modules require the same.
    type: bool
    default: true
  keep_existing_routes:
    description: Whether application routers with a route for every tenant get C(keep-existing-routes).
    type: bool
    default: true
  sessions:
    description:
      - Application routers get an external session store. The resource, its binding and C(EXT_SESSION_MGT) as strict
        JSON are added.
      - The secret does not get into the descriptor. C(EXT_SESSION_MGT) refers to a module parameter, which an extension
        descriptor sets, see
        P(zdm.landscape.session_extension#filter).
      - A store that is configured stays as it is, with its service, driver, secret parameter and numbers. Only what is
        missing, what would stop the application router, and what is given here is changed.
      - Without this option sessions are left alone.
    type: dict
    suboptions:
      modules:
        description: Names of the application routers. By default those that are found by type, environment, name,
          path or C(package.json), and those in O(approuters).
        type: list
        elements: str
        default: []
      resource:
        description: Name of the resource. By default the one that is in use, else one of O(sessions.service) that an
          application router requires, else C(<ID>-session-management).
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
          C(defaultRetryTimeout). By default what is there, else 2000.
        type: int
      back_off_multiplier:
        description: Multiplier of the pause between retries, C(backOffMultiplier). By default what is there, else 50.
        type: int
      parameter:
        description: Name of the module parameter that carries the session secret. By default the one that is in use,
          else C(session-secret). Without it a secret that is written in a variable that works stays, and is listed in
          RV(not_mended).
        type: str
        default: ""
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
  description: What the descriptor describes, after the task, as M(zdm.landscape.mta_descriptor_info) returns it. Of an
    extension, the descriptor that it extends.
  returned: success
  type: dict
session_modules:
  description: Modules that take the session secret from the parameter O(sessions.parameter), C(session-secret) where
    that is not given; none without O(sessions). A module with a parameter of its own is not among them.
  returned: success
  type: list
  elements: str
  sample: [approuter]
findings:
  description: What M(zdm.landscape.mta_descriptor_info) would still find.
  returned: success
  type: list
  elements: dict
not_mended:
  description: Places that could not be mended without touching something else.
  returned: success
  type: list
  elements: dict
  contains:
    file:
      description: The file, as it was given.
      type: str
      returned: always
    line:
      description: The line, counted from 1.
      type: int
      returned: always
    column:
      description: The column, counted from 1.
      type: int
      returned: always
    object:
      description: The module or resource.
      type: str
      returned: always
    message:
      description: Why it could not be mended.
      type: str
      returned: always
    mend:
      description: What to do by hand.
      type: str
      returned: always
"""

from dataclasses import asdict
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core import options
from ansible_collections.zdm.landscape.plugins.module_utils.core.durations import parse_ms
from ansible_collections.zdm.landscape.plugins.module_utils.core.edge import create_module, guarded, replace_file
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.safe import Wanted, mend
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.secret import masked
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.session import Sessions
from ansible_collections.zdm.landscape.plugins.module_utils.mta.lint.rules import lint

SPEC: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "base": {"type": "path"},
    "live_urls": {"type": "bool", "default": True},
    "keep_existing_routes": {"type": "bool", "default": True},
    "sessions": {
        "type": "dict",
        "options": {
            "modules": {"type": "list", "elements": "str", "default": []},
            "resource": {"type": "str", "default": ""},
            "service": {"type": "str", "default": "redis-cache"},
            "plan": {"type": "str", "default": "development"},
            "retry_timeout_ms": {"type": "int"},
            "back_off_multiplier": {"type": "int"},
            "parameter": {"type": "str", "default": ""},
        },
    },
    "state": {"type": "str", "choices": ["present"], "default": "present"},
}


def wanted(params: dict[str, Any]) -> Wanted:
    """The options as the engine takes them."""
    longest = parse_ms(params["longest_upgrade"], "longest_upgrade") if params["longest_upgrade"] else 0
    given = params["sessions"]
    sessions = Sessions(**{**given, "modules": tuple(given["modules"])}) if given is not None else None
    return Wanted(
        params["live_urls"],
        sessions,
        params["keep_existing_routes"],
        longest,
        params["namespace"],
        tuple(params["approuters"]),
    )


def main() -> None:
    module = create_module(options.DESCRIPTOR, SPEC)
    params = module.params
    with guarded(module):
        want = wanted(params)
        before = Descriptor.load(params["path"])
        base = Descriptor.load(params["base"]) if params["base"] else None
        mended = mend(before, want, base)
        after = before.rewritten(mended.text)
        whole = base.extended([after]) if base else after
        old = base.extended([before]) if base else before
        changed = mended.text != before.source.text
        if changed and not module.check_mode:
            replace_file(module, params["path"], mended.text)
        for place in mended.left:
            module.warn(f"Not mended: {place}")
        findings = lint(whole, want.longest_upgrade_ms, want.namespace, approuters=want.known_approuters())
        module.exit_json(
            changed=changed,
            mta=whole.summary(want.known_approuters()),
            session_modules=want.sessions.wanting(whole) if want.sessions else [],
            findings=[asdict(finding) for finding in findings],
            not_mended=[asdict(place) for place in mended.left],
            diff={
                "before": masked(old, before.source.text),
                "after": masked(whole, mended.text),
                "before_header": params["path"],
                "after_header": params["path"],
            },
        )


if __name__ == "__main__":
    main()
