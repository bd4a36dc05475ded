# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module mta_deploy."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: mta_deploy
short_description: Deploy an MTA blue-green, to its testing phase and on, or abort it
version_added: 1.0.0
author: zdm.landscape contributors (@zdm-landscape)
description:
  - Deploys an MTA archive through the REST API of the MultiApps deploy service, and waits until the wanted state is
    reached.
  - Can be run again at any moment, also after it was killed. It goes on with the operation that an earlier run has
    started with the same
    archive and extension descriptors, and starts a new one only when there is none. What it has asked for stands in the
    config store, in
    C(deployments/<space>/<mta>), before it asks; a lost answer never starts a second operation.
  - Never resumes, retries or aborts an operation that it has not started. Give it a user of its own in Cloud Foundry,
    because an operation whose start request
    got no answer is recognised by its user.
  - An abort is no rollback. It ends the operation and leaves the idle applications, their routes and changed services,
    and the live applications keep
    the suffix C(-live). The next blue-green deployment uses them.
extends_documentation_fragment:
  - zdm.landscape.archive
  - zdm.landscape.cloud_foundry
  - zdm.landscape.store
  - zdm.landscape.attributes
attributes:
  check_mode:
    support: full
    details: Tells the next step and its outcome. What only the deployment shows, an error or a testing phase that is
      skipped, can't be predicted.
  diff_mode:
    support: full
    details: Shows the version of the MTA.
  idempotent:
    support: full
options:
  archive:
    description: Path or URL of the C(.mtar). Required unless O(state) needs none and O(mta_id) is given.
    type: str
  upload:
    description:
      - How the archive gets to the deploy service.
      - With V(parts) this host sends it, in parts of 45 MB; what the service has of it already is not sent again.
      - With V(service) the service fetches the URL itself, with O(archive_username) if that is given, but without
        O(archive_headers). The URL is O(archive), or O(archive_source) when O(archive) is a copy of it. This host reads
        it too, and what the service has fetched must be the same.
    type: str
    choices: [parts, service]
    default: parts
  mta_id:
    description: ID of the MTA. Needed only where there is no O(archive).
    type: str
  extensions:
    description: Paths of extension descriptors, in the order of their chain.
    type: list
    elements: path
    default: []
  extension_texts:
    description: Further extension descriptors, which come after O(extensions), as text. For secrets that are to be in
      no file of this host, see P(zdm.landscape.session_extension#filter).
    type: list
    elements: str
    default: []
  namespace:
    description: Namespace of the MTA.
    type: str
  strategy:
    description: How the new version replaces the old one. V(default) stops the applications that it replaces.
    type: str
    choices: [blue-green, incremental-blue-green, default]
    default: blue-green
  skip_testing_phase:
    description: Whether to switch the routes without a testing phase. Requests may fail for some seconds then, as idle
      applications can't be stopped before the switch.
    type: bool
    default: false
  skip_idle_start:
    description: Whether to start the new applications on their live routes only; there is no testing phase then.
    type: bool
    default: false
  version_rule:
    description: Which versions may replace the deployed one; the service's default is V(SAME_HIGHER).
    type: str
    choices: [HIGHER, SAME_HIGHER, ALL]
  modules:
    description: Names of the only modules to deploy; all by default.
    type: list
    elements: str
  resources:
    description: Names of the only resources to process; all by default.
    type: list
    elements: str
  start_timeout:
    description: How long an application may take to start.
    type: str
  stage_timeout:
    description: How long the staging of an application may take.
    type: str
  upload_timeout:
    description: How long the service may take to upload an application's bits.
    type: str
  task_timeout:
    description: How long an application's task may take.
    type: str
  keep_previous:
    description: Whether the deploy service keeps the applications of the version before, for O(state=previous). They
      stay in the space, stopped.
    type: bool
    default: false
  dependency_aware_stop_order:
    description: Whether the service stops applications in the order of their dependencies while it switches. From 2026.
    type: bool
    default: false
  no_start:
    description: Whether new applications are left stopped.
    type: bool
    default: false
  delete_services:
    description: Whether services that the new descriptor has no longer, or with O(state=absent) all of the MTA, are
      deleted with their data.
    type: bool
    default: false
  secure_parameters:
    description:
      - Parameters with secrets, by name; the descriptor refers to them as V(${name}). The deploy service keeps them
        encrypted, where an extension descriptor is a file that can be read there. From 2026.
      - A user-provided service C(__mta-secure-) and the MTA's ID with the key is made in the space, as the plugin of
        the cf CLI does.
    type: dict
  parameters:
    description: Further parameters of the operation, by the deploy service's names, for example
      V(noRestartSubscribedApps). The service drops names that it does not know, so they are refused here.
    type: dict
  state:
    description:
      - With V(testing) the new version is started on idle routes and waits there.
      - With V(deployed) it is live; a version that waits in its testing phase is resumed.
      - With V(aborted) no operation of ours is under way.
      - With V(previous) the version before is live again, within seconds, by the deploy service's C(ROLLBACK_MTA),
        which it calls experimental. It needs a deployment with O(keep_previous), and is refused when tenants were
        upgraded since, unless O(abort_upgraded) is set.
      - With V(absent) the MTA is not deployed. Services stay, unless O(delete_services) is set.
    type: str
    choices: [testing, deployed, aborted, previous, absent]
    default: deployed
  operation:
    description:
      - Id of the only operation to go on with. The task fails when it has ended without going live, or when another one
        is under way; nothing is started.
      - Give it after the tests of a version that waits in its testing phase. Without it a version whose operation
        somebody has aborted meanwhile would be
        started anew and, with O(state=deployed), go live untested.
    type: str
  retries:
    description:
      - How often one run retries an operation that has stopped with an error.
      - As the plugin of the cf CLI does, it retries by itself what is not the fault of the archive or its descriptors.
    type: int
    default: 3
  on_error:
    description:
      - What to do when the operation stops with an error.
      - One whose cause lies outside of the archive, which the deploy service calls an error of infrastructure, is first
        retried as often as O(retries) says.
      - After that with V(fail) it stays as it is.
      - With V(retry) it is retried as often whatever its cause is.
      - With V(abort) it is aborted. When it was resumed before, routes may be switched in part, and it is retried
        instead.
    type: str
    choices: [fail, retry, abort]
    default: fail
  testing_deadline:
    description: How long the testing phase may last. It is judged when the module runs.
    type: str
    default: 1h
  on_testing_deadline:
    description:
      - With V(abort) an operation that has been in its testing phase for longer is aborted, and the module fails, also
        with O(state=deployed).
      - With V(leave) there is a warning only.
    type: str
    choices: [abort, leave]
    default: abort
  upgrade:
    description:
      - Notes how far the upgrade of the tenants by this archive is. Write V(begun) before the first tenant is upgraded,
        V(done) after the last.
      - From V(begun) on the version that is live may not fit the tenants' schema, so nothing aborts by itself any more,
        and O(state=aborted)
        is refused unless O(abort_upgraded=true).
      - Between V(begun) and V(done) a job may be open, so O(state=deployed) does not resume.
      - After a first deployment it is V(done), as nobody can be subscribed yet.
      - With O(state=testing) V(begun) is noted only while the version is in its testing phase; RV(upgrade) tells.
    type: str
    choices: [begun, done]
  abort_upgraded:
    description: Whether O(state=aborted) aborts, or O(state=previous) goes back, although tenants are upgraded. Make
      certain before that the version which is live then works for them.
    type: bool
    default: false
  abort_switched:
    description:
      - Whether to abort an operation that has begun to switch routes. Both versions then stay behind the routes that
        are switched, RV(split) names them, and the next blue-green deployment deletes the old version at its start.
      - Without it such an operation is waited for, or refused when it has stopped with an error. So is one that has no
        testing phase and runs, as nobody can tell when it switches, and a rollback.
    type: bool
    default: false
  remove_leftovers:
    description:
      - Whether to delete the idle applications that an abort has left, and their idle routes.
      - Only applications with the MTA's label are deleted, and none that has a live route or is the only one of its
        module.
    type: bool
    default: false
  timeout:
    description: How long to wait in all. The operation goes on when the time is over, and the same command goes on with
      it.
    type: str
    default: 2h
  poll_interval:
    description: The pause between two questions about the operation.
    type: str
    default: 3s
  log_dir:
    description:
      - Folder on the host that runs the module. On failure the operation's logs are written into
        C(<log_dir>/<operation>/).
      - C(deployments.jsonl) there gets a line for every message of an operation; the lines are shown as they come.
    type: path
    default: ~/.local/state/zdm.landscape
  run_id:
    description: How this run is called in the log; a random one by default.
    type: str
seealso:
  - module: zdm.landscape.mta_operation_info
"""

EXAMPLES = r"""
- name: Start the new version on idle routes
  zdm.landscape.mta_deploy:
    cloud_foundry:
      api: https://api.cf.us10.hana.ondemand.com
      org: my-org
      space: prod
      username: ci@example.com
      password: "{{ vault_cf }}"
    store:
      path: /var/lib/zdm/store
    archive: incidents_1.1.0.mtar
    extensions: [prod.mtaext]
    state: testing
  register: deployment

- name: Make it live
  zdm.landscape.mta_deploy:
    store:
      path: /var/lib/zdm/store
    archive: incidents_1.1.0.mtar
    extensions: [prod.mtaext]

- name: Or take it back, and delete the idle applications
  zdm.landscape.mta_deploy:
    store:
      path: /var/lib/zdm/store
    mta_id: incidents
    state: aborted
    remove_leftovers: true
"""

RETURN = r"""
outcome:
  description:
    - Where the deployment is. One of V(testing), V(deployed), V(first_deployment), V(unchanged), V(aborted), V(absent),
      V(rolled_back) and V(undeployed).
    - V(first_deployment) means that the MTA was not deployed before, is live now, and had no testing phase.
    - V(unchanged) means that the archive with its extension descriptors is live already.
    - V(absent) means that there was no operation of ours to abort.
  returned: success
  type: str
  sample: testing
operation:
  description: The operation; empty when there is none.
  returned: always
  type: dict
  contains:
    id:
      description: Its id.
      type: str
      returned: always
    type:
      description: C(BLUE_GREEN_DEPLOY) or C(DEPLOY).
      type: str
      returned: always
    state:
      description: C(RUNNING), C(ACTION_REQUIRED), C(ERROR), C(FINISHED) or C(ABORTED).
      type: str
      returned: always
    error_type:
      description: C(CONTENT) or C(INFRASTRUCTURE) after an error.
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
    messages:
      description: What it tells, with C(id), C(text) and C(type).
      type: list
      elements: dict
      returned: always
mta:
  description: The MTA with C(id), C(version) and C(digest), the SHA-256 of the archive.
  returned: success
  type: dict
routes:
  description: For each module the application's name without a suffix (C(app)) and the URLs of its live (C(live)) and
    idle routes (C(idle)).
  returned: success
  type: dict
  sample: {"approuter": {"app": "approuter", "live": ["https://my-org-prod-approuter.cfapps.example.com"],
    "idle": ["https://my-org-prod-approuter-idle.cfapps.example.com"]}}
split:
  description: URLs behind which two versions stand, after an abort with O(abort_switched).
  returned: success
  type: list
  elements: str
leftovers:
  description:
    - What ended operations have left. C(apps) holds the applications with C(name), C(guid), C(module), and the reason
      (C(kept)) why one must stay,
      C(routes) their URLs, and C(removed) the names of the deleted applications.
  returned: success
  type: dict
upgrade:
  description: How far the upgrade of the tenants by this archive is, V(begun), V(done) or empty.
  returned: success
  type: str
previous:
  description:
    - The archive that was live before this one, with C(name), C(path), C(digest), C(mta_id) and C(version); deploy it
      with O(version_rule=ALL) to go back.
    - Only C(version) is known when it was not deployed by this module.
  returned: success
  type: dict
msg:
  description: In check mode, the next step. On failure, what is wrong and what to do.
  returned: in check mode, and on failure
  type: str
  sample: "incidents: starts an operation."
details:
  description: On failure, what is known of C(operation), C(logs) (files), C(previous), C(leftovers) and C(split), the
    URLs behind which two versions stand.
  returned: failure
  type: dict
"""

from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core import options
from ansible_collections.zdm.landscape.plugins.module_utils.core.edge import create_module, guarded
from ansible_collections.zdm.landscape.plugins.module_utils.mta.archive import Download, opened_archive, read_extensions
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.cloud_foundry import CloudFoundry
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.deployment import Deployment
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.log import DeploymentLog
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.request import wanted
from ansible_collections.zdm.landscape.plugins.module_utils.store.registry import build_store

OWN: dict[str, Any] = {
    **options.ARCHIVE,
    "archive": {"type": "str"},
    "upload": {"type": "str", "choices": ["parts", "service"], "default": "parts"},
    "mta_id": {"type": "str"},
    "extensions": {"type": "list", "elements": "path", "default": []},
    "extension_texts": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "namespace": {"type": "str"},
    "strategy": {
        "type": "str",
        "choices": ["blue-green", "incremental-blue-green", "default"],
        "default": "blue-green",
    },
    "skip_testing_phase": {"type": "bool", "default": False},
    "skip_idle_start": {"type": "bool", "default": False},
    "version_rule": {"type": "str", "choices": ["HIGHER", "SAME_HIGHER", "ALL"]},
    "modules": {"type": "list", "elements": "str"},
    "resources": {"type": "list", "elements": "str"},
    "start_timeout": {"type": "str"},
    "stage_timeout": {"type": "str"},
    "upload_timeout": {"type": "str"},
    "task_timeout": {"type": "str"},
    "keep_previous": {"type": "bool", "default": False},
    "dependency_aware_stop_order": {"type": "bool", "default": False},
    "no_start": {"type": "bool", "default": False},
    "delete_services": {"type": "bool", "default": False},
    "secure_parameters": {"type": "dict", "no_log": True},
    "parameters": {"type": "dict"},
    "state": {
        "type": "str",
        "choices": ["testing", "deployed", "aborted", "previous", "absent"],
        "default": "deployed",
    },
    "operation": {"type": "str"},
    "retries": {"type": "int", "default": 3},
    "on_error": {"type": "str", "choices": ["fail", "retry", "abort"], "default": "fail"},
    "testing_deadline": {"type": "str", "default": "1h"},
    "on_testing_deadline": {"type": "str", "choices": ["abort", "leave"], "default": "abort"},
    "upgrade": {"type": "str", "choices": ["begun", "done"]},
    "abort_upgraded": {"type": "bool", "default": False},
    "abort_switched": {"type": "bool", "default": False},
    "remove_leftovers": {"type": "bool", "default": False},
    "timeout": {"type": "str", "default": "2h"},
    "poll_interval": {"type": "str", "default": "3s"},
    "log_dir": {"type": "path", "default": options.LOG_DIR},
    "run_id": {"type": "str"},
}


def main() -> None:
    module = create_module(options.STORE, options.CLOUD_FOUNDRY, OWN)
    with guarded(module), ExitStack() as stack:
        result = deploy(module, stack)
        before, after = result.pop("version_before"), result["mta"]["version"]
        if result["outcome"] not in ("deployed", "first_deployment"):
            after = before
        difference = {
            "before": f"{before}\n",
            "after": f"{after}\n",
            "before_header": "version",
            "after_header": "version",
        }
        module.exit_json(**result, diff=difference)


def deploy(module: Any, stack: ExitStack) -> dict[str, Any]:
    """Check everything that is given, then do it, or say what would be done."""
    params = module.params
    store = build_store(params)
    given = params["archive"]
    archive = stack.enter_context(opened_archive(given, Download.of(params))) if given else None
    mta_id = archive.mta_id if archive else ""
    extensions = read_extensions(params["extensions"], mta_id, params["extension_texts"]) if mta_id else []
    request = wanted(params, archive, extensions)
    cloud = CloudFoundry(params["cloud_foundry"])
    if module.check_mode:
        result, text = Deployment(cloud, store, request, lambda _entry: None).predict()
        return {**asdict(result), "msg": text}
    log = DeploymentLog(params["log_dir"], params["run_id"], module.no_log_values)
    stack.callback(log.close)
    return asdict(Deployment(cloud, store, request, log.write).run())


if __name__ == "__main__":
    main()
