# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module router_config."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: router_config
short_description: Put the files of a landscape router in place
version_added: 1.0.0
author: zdm.landscape contributors (@zdm-landscape)
description:
  - Writes configuration, Lua files, keys, certificates and the start script of one router, all or none. The role
    P(zdm.landscape.landscape_router#role) uses it and makes the files.
  - HAProxy tries the configuration before anything is replaced.
  - Refuses to change anything while a tenant is blocked or an old worker remains, as a reload would lose leases and
    counts.
  - Runs on the router's host.
extends_documentation_fragment:
  - zdm.landscape.attributes
attributes:
  check_mode:
    support: full
    details: HAProxy tries the configuration in check mode too.
  diff_mode:
    support: full
    details: Secrets of issuers and certificates are left out.
  idempotent:
    support: full
options:
  home:
    description: The router's directory.
    type: path
    required: true
  files:
    description:
      - Relative path and content of every file. C(haproxy.cfg) must be among them and name other files relative to
        itself.
      - Files in C(bin), C(keys), C(lib), C(lua) and C(tls) that are not named here are removed.
    type: dict
    required: true
  secret_files:
    description: More files, whose content is never shown, such as C(tls/control.pem).
    type: dict
    default: {}
  secrets:
    description: Secrets, which C(@secret:0@), C(@secret:1@) and so on in C(haproxy.cfg) stand for; they are put in in
      Base64.
    type: list
    elements: str
    default: []
  haproxy:
    description: Path of the HAProxy binary.
    type: path
    required: true
seealso:
  - module: zdm.landscape.router_info
"""

EXAMPLES = r"""
- name: Put the router's files in place
  zdm.landscape.router_config:
    home: /etc/zdm-router
    haproxy: /usr/sbin/haproxy
    files:
      haproxy.cfg: "{{ lookup('ansible.builtin.template', 'haproxy.cfg.j2') }}"
      lua/zdm.lua: "{{ lookup('ansible.builtin.file', 'zdm.lua', rstrip=false) }}"
    secrets:
      - "{{ vault_issuer_secret }}"
"""

RETURN = r"""
files:
  description: Paths of the files that were written or removed, relative to O(home).
  returned: success
  type: list
  elements: str
  sample: [haproxy.cfg, lua/zdm.lua]
running:
  description: Whether a router answers at the directory's control socket. Only asked when something is to be changed.
  returned: success
  type: bool
restart:
  description: Whether a running router has to be restarted for what was changed; its start script has read its part
    when it began.
  returned: success
  type: bool
reload:
  description: Whether a running router has to be reloaded for what was changed.
  returned: success
  type: bool
"""

from pathlib import Path
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.edge import create_module, guarded
from ansible_collections.zdm.landscape.plugins.module_utils.router.install import Installation

SPEC: dict[str, Any] = {
    "home": {"type": "path", "required": True},
    "files": {"type": "dict", "required": True},
    "secret_files": {"type": "dict", "default": {}, "no_log": True},
    "secrets": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "haproxy": {"type": "path", "required": True},
}


def main() -> None:
    module = create_module(SPEC)
    params = module.params
    with guarded(module):
        files = {**params["files"], **params["secret_files"]}
        installation = Installation(Path(params["home"]), files, params["secrets"], params["haproxy"])
        changes = installation.changes()
        running = False
        if changes:
            running = installation.refuse_when_busy()
            installation.validate(module.run_command)
            if not module.check_mode:
                installation.apply()
        module.exit_json(
            changed=bool(changes),
            files=[change.path for change in changes],
            running=running,
            restart=running and installation.need_restart(changes),
            reload=running and installation.need_reload(changes),
            diff=[
                {
                    "before": change.before or "",
                    "after": change.after or "",
                    "before_header": change.path,
                    "after_header": change.path,
                }
                for change in changes
            ],
        )


if __name__ == "__main__":
    main()
