# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module tenant_upgrade."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: tenant_upgrade
short_description: Upgrade the tenants' databases to the version that was deployed
version_added: 1.0.0
author: zdm.landscape contributors (@zdm-landscape)
description:
  - Upgrades tenants through the CAP MTX sidecar of the idle version, while a deployment is in its testing phase, or,
    once the deployment was
    resumed, through the registry to which the application is known (O(via)).
  - Always asynchronous. Every job is followed to its end, and every tenant's own result is read.
  - A canary first and alone; when it fails no other tenant is touched. Then batches.
  - Refused before any tenant is touched when a tenant is not subscribed.
  - The task fails when a tenant could not be upgraded, or when it is not known whether it was.
  - A job that has not ended is never left silently. RV(open_job) is set then, and the deployment must be neither
    resumed nor aborted until it has ended.
    Running the same task again is safe. It waits for jobs that still run, those of a run that was killed included, and
    upgrades again.
    A tenant that has the new schema is upgraded in no time.
  - When the start of a job is not answered, the module waits for what may have begun and starts again.
notes:
  - A sidecar must upgrade tenants one by one, with C(cds.requires.multitenancy.jobs.clusterSize) V(1). Otherwise it
    upgrades all of a database at once,
    the task follows the job, and fails.
  - A sidecar that ends in the middle leaves its job as running until the heartbeat of another one ends it, after 90
    minutes unless
    C(cds.requires.multitenancy.jobs.heartbeatAge) says otherwise.
  - The sidecar of the live version can't upgrade a tenant that the idle one has upgraded. There is no way back for its
    schema.
extends_documentation_fragment:
  - zdm.landscape.attributes
attributes:
  check_mode:
    support: full
    details: Reads the subscribed tenants and tells who would be upgraded, in which batches.
  diff_mode:
    support: none
  idempotent:
    support: none
    details: Nobody tells whether an upgrade found anything to do; the task has changed when at least one tenant was
      upgraded.
options:
  via:
    description:
      - V(sidecar) is the CAP MTX sidecar; O(url) is its idle route.
      - V(saas_registry) and V(subscription_manager) call the application at its live URLs, so they are for the time
        after the resume.
    type: str
    choices: [sidecar, saas_registry, subscription_manager]
    default: sidecar
  url:
    description: URL of the sidecar or of the registry, C(saas_registry_url) or C(subscription_manager_url) of its
      service key.
    type: str
    required: true
  token:
    description: An access token. It can't be renewed, so it must last as long as the upgrades; O(token_url) is better
      for many tenants.
    type: str
  token_url:
    description: Where tokens are issued, C(url) in the credentials of the XSUAA binding; C(certurl) with O(cert_file).
    type: str
  client_id:
    description: Client for O(token_url). Its tokens need the scope C(mtcallback) for a sidecar.
    type: str
  client_secret:
    description: Secret of O(client_id).
    type: str
  cert_file:
    description: PEM file with the X.509 certificate of O(client_id), instead of a secret.
    type: path
  key_file:
    description: PEM file with the key of O(cert_file), where it is not in the same file.
    type: path
  app_name:
    description: The application's name in the registry. Required unless O(via=sidecar).
    type: str
  tenants:
    description: Ids of the tenants to upgrade. All that are subscribed by default; an empty list upgrades nobody.
    type: list
    elements: str
  canary:
    description: Id of the tenant that is upgraded first and alone.
    type: str
  batch_size:
    description: How many tenants are upgraded by one job.
    type: int
    default: 10
  on_failure:
    description: Whether the next batch starts after a tenant of the one before failed. After the canary it never does.
    type: str
    choices: [stop, continue]
    default: stop
  timeout:
    description: How long all of it may take.
    type: str
    default: 1h
  poll_interval:
    description: The pause between two questions for a job's state.
    type: str
    default: 5s
  ca_file:
    description: PEM file with the certificate authorities of O(url) and O(token_url).
    type: path
  validate_certs:
    description: Whether to verify certificates.
    type: bool
    default: true
  state:
    description:
      - With V(upgraded) the tenants are upgraded.
      - With V(settled) nobody is; the task waits until no upgrade of the tenants is under way, for example before a
        deployment is aborted.
    type: str
    choices: [upgraded, settled]
    default: upgraded
  log_dir:
    description: Folder of the log C(deployments.jsonl), from which the progress is shown while the module runs on the
      controller.
    type: path
    default: ~/.local/state/zdm.landscape
  run_id:
    description: How this run is called in the log. The action plugin sets it.
    type: str
seealso:
  - module: zdm.landscape.mta_deploy
  - module: zdm.landscape.approuter_login
"""

EXAMPLES = r"""
- name: Upgrade all tenants on the idle version, one of our own first
  zdm.landscape.tenant_upgrade:
    url: https://incidents-mtx-idle.cfapps.eu10.hana.ondemand.com
    token_url: https://provider.authentication.eu10.hana.ondemand.com
    client_id: sb-incidents!t1
    client_secret: "{{ vault_incidents_secret }}"
    canary: 0d2f1c3e-95c4-4f57-8f59-5b4c61a6f7d3
    batch_size: 20
  register: upgrade

- name: Upgrade two tenants through the registry, after the resume
  zdm.landscape.tenant_upgrade:
    via: saas_registry
    url: https://saas-manager.cfapps.eu10.hana.ondemand.com
    app_name: incidents-prod
    token_url: https://provider.authentication.cert.eu10.hana.ondemand.com
    client_id: sb-registry!b7
    cert_file: registry.pem
    key_file: registry.key
    tenants: [0d2f1c3e-95c4-4f57-8f59-5b4c61a6f7d3, 6c1b0a90-40a5-4f1c-9a55-6f4a0f1b7a02]
"""

RETURN = r"""
tenants:
  description: State of every wanted tenant, by its id.
  returned: when the tenants are known
  type: dict
  contains:
    status:
      description: V(upgraded), V(failed), V(running) at a time-out, V(unknown), or V(planned) when its turn has not
        come.
      type: str
      returned: always
    error:
      description: Why it failed; empty otherwise.
      type: str
      returned: always
  sample: {"t1": {"status": "upgraded", "error": ""}, "t2": {"status": "failed", "error": "HDI deployment failed"}}
upgraded:
  description: Ids of the tenants that were upgraded.
  returned: when the tenants are known
  type: list
  elements: str
failed_tenants:
  description: Ids of the tenants whose upgrade failed.
  returned: when the tenants are known
  type: list
  elements: str
canary:
  description: Id of the canary; empty without one.
  returned: when the tenants are known
  type: str
batches:
  description: Who is upgraded together, in order.
  returned: when the tenants are known
  type: list
  elements: list
open_job:
  description:
    - Empty when no job is open. Otherwise the id of the job that has not ended or of which it is not known, V(unknown)
      when its start was never answered.
    - While it is set the deployment must be neither resumed nor aborted.
  returned: when the tenants are known
  type: str
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.durations import parse_ms
from ansible_collections.zdm.landscape.plugins.module_utils.core.edge import create_module, guarded
from ansible_collections.zdm.landscape.plugins.module_utils.core.options import LOG_DIR
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.log import DeploymentLog
from ansible_collections.zdm.landscape.plugins.module_utils.upgrade.base import (
    FAILED,
    PLANNED,
    UPGRADED,
    Outcome,
    TenantState,
)
from ansible_collections.zdm.landscape.plugins.module_utils.upgrade.run import Plan, Run, plan
from ansible_collections.zdm.landscape.plugins.module_utils.upgrade.ways import WAYS, build_way

SPEC: dict[str, Any] = {
    "via": {"type": "str", "choices": list(WAYS), "default": "sidecar"},
    "url": {"type": "str", "required": True},
    "token": {"type": "str", "no_log": True},
    "token_url": {"type": "str", "no_log": False},
    "client_id": {"type": "str"},
    "client_secret": {"type": "str", "no_log": True},
    "cert_file": {"type": "path"},
    "key_file": {"type": "path", "no_log": False},
    "app_name": {"type": "str"},
    "tenants": {"type": "list", "elements": "str"},
    "canary": {"type": "str"},
    "batch_size": {"type": "int", "default": 10},
    "on_failure": {"type": "str", "choices": ["stop", "continue"], "default": "stop"},
    "timeout": {"type": "str", "default": "1h"},
    "poll_interval": {"type": "str", "default": "5s"},
    "ca_file": {"type": "path"},
    "validate_certs": {"type": "bool", "default": True},
    "state": {"type": "str", "choices": ["upgraded", "settled"], "default": "upgraded"},
    "log_dir": {"type": "path", "default": LOG_DIR},
    "run_id": {"type": "str"},
}


def main() -> None:
    module = create_module(
        SPEC,
        required_if=[("via", "saas_registry", ("app_name",)), ("via", "subscription_manager", ("app_name",))],
        mutually_exclusive=[("token", "token_url"), ("client_secret", "cert_file")],
        required_by={"token_url": ("client_id",), "key_file": ("cert_file",)},
    )
    with guarded(module):
        upgrade(module, module.params)


def upgrade(module: Any, params: Mapping[str, Any]) -> None:
    """Check everything, then upgrade or wait, or say who would be upgraded."""
    timeout_ms, poll_ms = parse_ms(params["timeout"], "timeout"), parse_ms(params["poll_interval"], "poll_interval")
    way = build_way(params)
    who = plan(way.tenants(), params["tenants"], params["canary"] or "", params["batch_size"])
    settle = params["state"] == "settled"
    if module.check_mode:
        planned = Outcome({} if settle else {tenant: TenantState(PLANNED) for tenant in who.tenants})
        planned.open_job = ", ".join(job.id for job in way.running(who.tenants))
        module.exit_json(changed=bool(planned.tenants), **facts(planned, who))
    log = DeploymentLog(params["log_dir"], params["run_id"], module.no_log_values)
    try:
        run = Run(
            way, who, timeout_ms, poll_ms, params["on_failure"] == "continue", lambda text: log.write({"text": text})
        )
        outcome = run.settle() if settle else run.carry_out()
    finally:
        log.close()
    result = {"changed": bool(outcome.of(UPGRADED)), **facts(outcome, who)}
    problem = outcome.problem
    if problem is not None:
        module.fail_json(
            msg=str(problem), advice=problem.advice, error=type(problem).__name__, details=problem.details, **result
        )
    module.exit_json(**result)


def facts(outcome: Outcome, who: Plan) -> dict[str, Any]:
    """What the module returns of a run, or of a plan."""
    return {
        "tenants": {tenant: asdict(state) for tenant, state in outcome.tenants.items()},
        "upgraded": outcome.of(UPGRADED),
        "failed_tenants": outcome.of(FAILED),
        "canary": who.canary,
        "batches": [list(batch) for batch in who.batches],
        "open_job": outcome.open_job,
    }


if __name__ == "__main__":
    main()
