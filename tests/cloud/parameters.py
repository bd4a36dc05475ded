# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parameters of operations: the names that each type knows, and what their values may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEPLOY, BLUE_GREEN, UNDEPLOY, ROLLBACK = "DEPLOY", "BLUE_GREEN_DEPLOY", "UNDEPLOY", "ROLLBACK_MTA"
VERSION_RULES = ("HIGHER", "SAME_HIGHER", "ALL")
_COMMON = {"mtaId": str, "namespace": str, "noFailOnMissingPermissions": bool, "abortOnError": bool}
_TIMEOUTS = dict.fromkeys(("startTimeout", "appsStageTimeout", "appsUploadTimeout", "appsTaskExecutionTimeout"), int)
_SECURE: dict[str, type] = {
    "isSecurityEnabled": bool,
    "isDisposableUserProvidedServiceEnabled": bool,
    "disposableUserProvidedServiceName": str,
}
_SERVICES = dict.fromkeys(("deleteServices", "deleteServiceKeys", "deleteServiceBrokers"), bool)
_DEPLOY: dict[str, type] = {
    **_COMMON,
    **_TIMEOUTS,
    **_SERVICES,
    **_SECURE,
    **dict.fromkeys(("appArchiveId", "mtaExtDescriptorId", "versionRule"), str),
    **dict.fromkeys(("modulesForDeployment", "resourcesForDeployment"), str),
    **dict.fromkeys(("noStart", "keepFiles", "noRestartSubscribedApps", "skipAppDigestCalculation"), bool),
    **dict.fromkeys(
        (
            "applyNamespaceAppNames",
            "applyNamespaceServiceNames",
            "applyNamespaceAppRoutes",
            "applyNamespaceAsSuffix",
        ),
        bool,
    ),
}
NAMES: Mapping[str, Mapping[str, type]] = {
    DEPLOY: _DEPLOY,
    BLUE_GREEN: {
        **_DEPLOY,
        **dict.fromkeys(("noConfirm", "skipIdleStart", "keepOriginalAppNamesAfterDeploy"), bool),
        **dict.fromkeys(
            (
                "shouldApplyIncrementalInstancesUpdate",
                "stopOrderIsDependencyAware",
                "shouldBackupPreviousVersion",
            ),
            bool,
        ),
    },
    UNDEPLOY: {**_COMMON, **_SERVICES, "noRestartSubscribedApps": bool},
    ROLLBACK: {
        **_COMMON,
        **_TIMEOUTS,
        **_SECURE,
        **dict.fromkeys(("deleteServices", "processUserProvidedServices"), bool),
        "versionRule": str,
    },
}
"""Whatever else is sent is dropped without a word."""
_REQUIRED = {DEPLOY: "appArchiveId", BLUE_GREEN: "appArchiveId", UNDEPLOY: "mtaId", ROLLBACK: "mtaId"}


class BadRequest(Exception):
    """The request is refused; nothing was started.

    :param status: of the answer.
    """

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


def checked(body: Any) -> tuple[str, dict[str, str]]:
    """The type of an operation and those of its parameters that the service knows, as text.

    :raises BadRequest: the service starts none of it.
    """
    if not isinstance(body, dict) or not isinstance(body.get("parameters") or {}, dict):
        raise BadRequest("The body is no operation")
    kind = body.get("processType")
    if not isinstance(kind, str) or kind not in NAMES:
        raise BadRequest(f'Unsupported process type "{kind}"')
    given = body.get("parameters") or {}
    known = {name: _text(given[name]) for name in NAMES[kind] if given.get(name) is not None}
    for name, value in known.items():
        wanted = NAMES[kind][name]
        if wanted is bool and value not in ("true", "false"):
            raise BadRequest(f"Parameter is not boolean {value}", 500)
        if wanted is int and not value.isdecimal():
            raise BadRequest(f'Value "{value}" of parameter "{name}" is no number of seconds')
    if known.get("versionRule", "ALL") not in VERSION_RULES:
        raise BadRequest(f'Invalid value "{known["versionRule"]}" for parameter "versionRule"')
    if _REQUIRED[kind] not in known:
        raise BadRequest(f"Required parameters {_REQUIRED[kind]} are not set!")
    return kind, known


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
