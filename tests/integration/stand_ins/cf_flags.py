# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parameters that the plugin makes of a command's flags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ALWAYS = ("noFailOnMissingPermissions", "abortOnError")
_FLAGS = {
    "noFailOnMissingPermissions": "do_not_fail_on_missing_permissions",
    "isSecurityEnabled": "require_secure_parameters",
    "isDisposableUserProvidedServiceEnabled": "disposable_user_provided_service",
}
_SWITCHES = (
    "deleteServiceKeys", "deleteServices", "noStart", "deleteServiceBrokers", "keepFiles", "noRestartSubscribedApps",
    "skipOwnershipValidation", "isSecurityEnabled", "isDisposableUserProvidedServiceEnabled", *ALWAYS,
)  # fmt: skip
_VALUES = {
    "versionRule": "version_rule",
    "startTimeout": "apps_start_timeout",
    "appsStageTimeout": "apps_stage_timeout",
    "appsUploadTimeout": "apps_upload_timeout",
    "appsTaskExecutionTimeout": "apps_task_execution_timeout",
    "applyNamespaceAppNames": "apply_namespace_app_names",
    "applyNamespaceServiceNames": "apply_namespace_service_names",
    "applyNamespaceAppRoutes": "apply_namespace_app_routes",
    "applyNamespaceAsSuffix": "apply_namespace_as_suffix",
}


def flag(parameter: str) -> str:
    """``--delete-services`` of ``deleteServices``."""
    plain = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in parameter)
    return _FLAGS.get(parameter, plain)


def switch(value: object) -> str:
    return "true" if value else "false"


def deploy_parameters(flags: Mapping[str, Any]) -> dict[str, str]:
    found = {name: switch(flags.get(flag(name))) for name in _SWITCHES}
    found |= {name: str(flags.get(given, "")) for name, given in _VALUES.items()}
    found["modulesForDeployment"] = ",".join(flags.get("m", ()))
    found["resourcesForDeployment"] = ",".join(flags.get("r", ()))
    strategy = flags.get("strategy", "default")
    if strategy != "default":
        idle = flags.get("skip_idle_start")
        found |= {
            "noConfirm": switch(idle or flags.get("skip_testing_phase")),
            "skipIdleStart": switch(idle),
            "keepOriginalAppNamesAfterDeploy": "true",
            "shouldApplyIncrementalInstancesUpdate": switch(strategy == "incremental-blue-green"),
            "shouldBackupPreviousVersion": switch(flags.get("backup_previous_version")),
            "stopOrderIsDependencyAware": switch(flags.get("dependency_aware_stop_order")),
        }
    return found
