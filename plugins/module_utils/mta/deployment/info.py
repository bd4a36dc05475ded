# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is deployed in a space, what is under way there, and whose it is; changes nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, Refused
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.apps import (
    Leftover,
    leftovers_of,
    live_versions,
    routes_by_module,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.cloud_foundry import CloudFoundry
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.deploy_service import (
    ACTIVE,
    Deployed,
    DeployService,
    Operation,
    instant,
)
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import DEPLOYMENTS, Store


@dataclass
class Info:
    """As the module mta_operation_info returns it."""

    operations: list[dict[str, Any]]
    mtas: list[dict[str, Any]]
    deployments: list[dict[str, Any]]
    routes: dict[str, Any] = field(default_factory=dict)
    leftovers: dict[str, Any] = field(default_factory=dict)
    logs: list[str] = field(default_factory=list)


def keep_logs(cloud: CloudFoundry, operation: str, folder: str) -> list[str]:
    """Write the logs of any operation of the space into a folder of its own; returns the files.

    :raises InputError: the service knows no such operation, or has no logs of it any more.
    :raises Refused: the folder can't be written.
    """
    service = DeployService(cloud)
    if not service.operation(operation).state:
        raise InputError(
            f"The deploy service knows no operation {operation} in {cloud.target.org}/{cloud.target.space}.",
            "It forgets operations after some days; list those that it knows with mta_id alone.",
        )
    try:
        files = service.save_logs(operation, Path(folder).expanduser())
    except OSError as error:
        raise Refused(f"{folder} can't be written: {error.strerror}.", "Correct log_dir.") from error
    if not files:
        raise InputError(f"Operation {operation} has no logs.", "They are deleted some days after its end.")
    return files


def read_info(cloud: CloudFoundry, store: Store, mta_id: str, namespace: str) -> Info:
    """Read it.

    :param mta_id: empty for all MTAs of the space; *namespace* counts only when it is given.
    """
    service = DeployService(cloud)
    found = [
        document.body for document in store.list(DEPLOYMENTS) if document.name.startswith(f"{cloud.target.space_guid}/")
    ]
    documents = [
        body for body in found if not mta_id or (body.get("mta_id"), body.get("namespace")) == (mta_id, namespace)
    ]
    ours = {str((body.get("attempt") or {}).get("operation") or "") for body in found}
    listed = [
        operation for operation in service.operations(mta_id, ACTIVE) if not mta_id or operation.namespace == namespace
    ]
    listed.sort(key=lambda operation: str(instant(operation.started_at)), reverse=True)
    info = Info(
        operations=[_facts(service, operation, ours) for operation in listed],
        mtas=[_mta(cloud, mta) for mta in service.deployed(mta_id, namespace if mta_id else None)],
        deployments=[{key: value for key, value in body.items() if key != "format"} for body in documents],
    )
    if mta_id:
        apps = cloud.apps(mta_id, namespace)
        info.routes = routes_by_module(apps)
        info.leftovers = leftover_facts([] if listed else leftovers_of(apps))
    return info


def leftover_facts(leftovers: list[Leftover]) -> dict[str, Any]:
    """Leftovers as modules return them."""
    apps = [
        {"name": entry.app.name, "guid": entry.app.guid, "module": entry.app.module, "kept": entry.kept}
        for entry in leftovers
    ]
    return {
        "apps": apps,
        "routes": sorted({route.url for entry in leftovers if entry.app.is_idle for route in entry.app.routes}),
    }


def _mta(cloud: CloudFoundry, mta: Deployed) -> dict[str, Any]:
    """The service names no version as soon as applications and services differ in it; those that are live tell."""
    version = mta.version or ", ".join(live_versions(cloud.apps(mta.id, mta.namespace)))
    return {**asdict(mta), "version": version}


def _facts(service: DeployService, operation: Operation, ours: set[str]) -> dict[str, Any]:
    return {**operation.facts(), "ours": operation.id in ours, "actions": service.actions(operation.id)}
