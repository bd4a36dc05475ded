# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parameters of the deploy service's operations, as multiapps-controller 2.54 names them.

It drops unknown ones without a word, so a misspelt one would be a default: they are refused here.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.durations import parse_ms
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.deploy_service import (
    BLUE_GREEN,
    DEPLOY,
    ROLLBACK,
    UNDEPLOY,
)

INCREMENTAL = "incremental-blue-green"
SECONDS = {
    "start_timeout": "startTimeout",
    "stage_timeout": "appsStageTimeout",
    "upload_timeout": "appsUploadTimeout",
    "task_timeout": "appsTaskExecutionTimeout",
}
"""Options that are durations, and the parameters, which are seconds."""
_FLAGS = {
    "delete_services": "deleteServices",
    "no_start": "noStart",
    "keep_previous": "shouldBackupPreviousVersion",
    "dependency_aware_stop_order": "stopOrderIsDependencyAware",
}
_COMMON = frozenset(
    {"deleteServiceKeys", "deleteServiceBrokers", "noRestartSubscribedApps", "noFailOnMissingPermissions"}
)
_OF_DEPLOYMENTS = _COMMON | {
    "applyNamespaceAppNames",
    "applyNamespaceServiceNames",
    "applyNamespaceAppRoutes",
    "applyNamespaceAsSuffix",
    "skipAppDigestCalculation",
    "keepFiles",
}
FURTHER: Mapping[str, frozenset[str]] = {
    DEPLOY: _OF_DEPLOYMENTS,
    BLUE_GREEN: _OF_DEPLOYMENTS,
    UNDEPLOY: _COMMON,
    ROLLBACK: frozenset({"processUserProvidedServices"}),
}
"""What may be given beside the options, by type of operation."""
_ELSEWHERE = {
    **{parameter: option for option, parameter in (*SECONDS.items(), *_FLAGS.items())},
    "appArchiveId": "archive",
    "mtaExtDescriptorId": "extensions",
    "mtaId": "mta_id",
    "namespace": "namespace",
    "versionRule": "version_rule",
    "noConfirm": "skip_testing_phase",
    "skipIdleStart": "skip_idle_start",
    "shouldApplyIncrementalInstancesUpdate": "strategy",
    "abortOnError": "on_error",
    "modulesForDeployment": "modules",
    "resourcesForDeployment": "resources",
    "isSecurityEnabled": "secure_parameters",
    "isDisposableUserProvidedServiceEnabled": "secure_parameters",
    "disposableUserProvidedServiceName": "secure_parameters",
}
"""Parameters that options of the module stand for."""


def further(given: Mapping[str, Any], kind: str) -> dict[str, str]:
    """Parameters that are passed through, as the service wants them.

    :param kind: the type of the operation.
    :raises InputError: it knows no such parameter, or there is an option for it.
    """
    known = FURTHER[kind]
    for name, value in given.items():
        if name in _ELSEWHERE:
            raise InputError(f"parameters has {name}.", f"Use the option {_ELSEWHERE[name]}.")
        if name == "keepOriginalAppNamesAfterDeploy":
            raise InputError(f"parameters has {name}.", "Leave it out: the module relies on the original names.")
        if name not in known:
            near = get_close_matches(name, known, 1)
            raise InputError(
                f"The deploy service knows no parameter {name!r} of {kind}, and would drop it.",
                f"Did you mean {near[0]}?" if near else f"It knows {', '.join(sorted(known))}.",
            )
        if not isinstance(value, str | int | float) or value == "":
            raise InputError(
                f"{name} of parameters is no value that the service takes.", "Give a boolean, text or number."
            )
    return {name: text(value) for name, value in given.items()}


def text(value: Any) -> str:
    """Every value is a string for the service."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def of_operation(params: Mapping[str, Any], kind: str, mta_id: str, files: Mapping[str, str]) -> dict[str, str]:
    """All parameters of an operation.

    :param params: the options of the module mta_deploy.
    :param files: parameters that name files in the service.
    """
    fields: dict[str, Any] = {"mtaId": mta_id, **files, "deleteServices": bool(params.get("delete_services"))}
    if kind in (DEPLOY, BLUE_GREEN):
        fields |= {
            "noStart": bool(params.get("no_start")),
            "keepFiles": False,
            "versionRule": params.get("version_rule"),
            "modulesForDeployment": ",".join(params.get("modules") or ()),
            "resourcesForDeployment": ",".join(params.get("resources") or ()),
            "isSecurityEnabled": True if params.get("secure_parameters") else None,
        }
    if kind == BLUE_GREEN:
        idle = bool(params.get("skip_idle_start"))
        fields |= {
            "keepOriginalAppNamesAfterDeploy": True,
            "noConfirm": idle or bool(params.get("skip_testing_phase")),
            "skipIdleStart": idle,
            "shouldApplyIncrementalInstancesUpdate": params.get("strategy") == INCREMENTAL,
            "shouldBackupPreviousVersion": bool(params.get("keep_previous")),
            "stopOrderIsDependencyAware": bool(params.get("dependency_aware_stop_order")),
        }
    if kind != UNDEPLOY:
        for option, parameter in SECONDS.items():
            if params.get(option):
                fields[parameter] = max(1, parse_ms(params[option], option) // 1000)
    fields |= further(params.get("parameters") or {}, kind)
    return {name: text(value) for name, value in fields.items() if value not in (None, "")}
