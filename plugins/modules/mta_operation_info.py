# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module mta_operation_info."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: mta_operation_info
short_description: Read the deployed MTAs of a space and the operations on them
version_added: 1.0.0
author: zdm.landscape contributors (@zdm-landscape)
description:
  - Reads which MTAs are deployed in a space, which operations are under way, whose they are and what may be done to
    them, and what the config
    store knows of them.
  - For one MTA also its routes and what ended operations have left.
extends_documentation_fragment:
  - zdm.landscape.cloud_foundry
  - zdm.landscape.store
  - zdm.landscape.attributes.info
options:
  mta_id:
    description: ID of the MTA; all of the space by default.
    type: str
  namespace:
    description: Namespace of the MTA.
    type: str
  logs_of:
    description: ID of an operation, whoever has started it, whose logs are written to a folder of their own in
      O(log_dir). No module of this collection changes anything by it in the space.
    type: str
  log_dir:
    description: Folder for O(logs_of) on the host on which the module runs.
    type: path
    default: ~/.local/state/zdm.landscape
seealso:
  - module: zdm.landscape.mta_deploy
"""

EXAMPLES = r"""
- name: What is going on
  zdm.landscape.mta_operation_info:
    cloud_foundry:
      api: https://api.cf.us10.hana.ondemand.com
      org: my-org
      space: prod
      username: ci@example.com
      password: "{{ vault_cf }}"
    store:
      path: /var/lib/zdm/store
    mta_id: incidents
  register: incidents

- name: Nobody may be deploying
  ansible.builtin.assert:
    that: incidents.operations | rejectattr('ours') | length == 0
"""

RETURN = r"""
operations:
  description: The operations that have not ended, the last one first.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: Its id.
      type: str
      returned: always
    type:
      description: C(BLUE_GREEN_DEPLOY), C(DEPLOY), C(UNDEPLOY) or C(ROLLBACK_MTA).
      type: str
      returned: always
    state:
      description: C(RUNNING), C(ACTION_REQUIRED), which is the testing phase, or C(ERROR).
      type: str
      returned: always
    mta_id:
      description: The MTA.
      type: str
      returned: always
    namespace:
      description: Its namespace.
      type: str
      returned: always
    user:
      description: Who has started it.
      type: str
      returned: always
    started_at:
      description: When it was started.
      type: str
      returned: always
    ended_at:
      description: Empty.
      type: str
      returned: always
    error_type:
      description: C(CONTENT) or C(INFRASTRUCTURE) after an error.
      type: str
      returned: always
    ours:
      description: Whether the config store knows it, so that M(zdm.landscape.mta_deploy) goes on with it.
      type: bool
      returned: always
    actions:
      description: What may be done to it.
      type: list
      elements: str
      returned: always
mtas:
  description: The deployed MTAs with C(id), C(version), C(namespace) and C(modules).
  returned: success
  type: list
  elements: dict
deployments:
  description: The documents C(deployments/<space>/<mta>) of the config store, without their format.
  returned: success
  type: list
  elements: dict
routes:
  description: As in M(zdm.landscape.mta_deploy); empty without O(mta_id).
  returned: success
  type: dict
leftovers:
  description: As in M(zdm.landscape.mta_deploy); empty without O(mta_id) and while an operation is under way.
  returned: success
  type: dict
logs:
  description: Files with the logs of O(logs_of).
  returned: success
  type: list
  elements: str
"""

from dataclasses import asdict
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core import options
from ansible_collections.zdm.landscape.plugins.module_utils.core.edge import create_module, guarded
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.cloud_foundry import CloudFoundry
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.info import keep_logs, read_info
from ansible_collections.zdm.landscape.plugins.module_utils.store.registry import build_store

OWN: dict[str, Any] = {
    "mta_id": {"type": "str"},
    "namespace": {"type": "str"},
    "logs_of": {"type": "str"},
    "log_dir": {"type": "path", "default": options.LOG_DIR},
}


def main() -> None:
    module = create_module(options.STORE, options.CLOUD_FOUNDRY, OWN)
    params = module.params
    with guarded(module):
        store = build_store(params)
        cloud = CloudFoundry(params["cloud_foundry"])
        info = read_info(cloud, store, params["mta_id"] or "", params["namespace"] or "")
        if params["logs_of"]:
            info.logs = keep_logs(cloud, params["logs_of"], params["log_dir"])
        module.exit_json(changed=False, **asdict(info))


if __name__ == "__main__":
    main()
