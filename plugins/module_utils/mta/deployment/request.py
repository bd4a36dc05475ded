# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a caller asks a deployment for: options that are checked before anything is touched, and the request that starts
the operation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.durations import parse_ms
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError
from ansible_collections.zdm.landscape.plugins.module_utils.mta.archive import (
    Archive,
    Extension,
    check_selection,
    fingerprint,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.deploy_service import BLUE_GREEN, DEPLOY
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.decision import AS_ABORTED, AS_TESTING, Goal

INCREMENTAL = "incremental-blue-green"
SETTLE_POLLS = 10
"""After a lost answer to a start request its operation is looked for so often before a new one is started."""
_LIMITS = {
    "start_timeout": "startTimeout",
    "stage_timeout": "appsStageTimeout",
    "upload_timeout": "appsUploadTimeout",
    "task_timeout": "appsTaskExecutionTimeout",
}


@dataclass(frozen=True)
class Wanted:
    """A checked request."""

    params: Mapping[str, Any]
    mta_id: str
    archive: Archive | None
    extensions: tuple[Extension, ...]
    goal: Goal
    timeout_ms: int
    poll_ms: int

    @property
    def state(self) -> str:
        return self.goal.state

    @property
    def namespace(self) -> str:
        return str(self.params.get("namespace") or "")

    @property
    def process_type(self) -> str:
        return DEPLOY if self.params.get("strategy") == "default" else BLUE_GREEN

    @property
    def settle_ms(self) -> int:
        return self.goal.settle_ms

    def request(self, archive_file: str, extension_files: Sequence[str]) -> dict[str, Any]:
        """The body that starts the operation; every value is a string, as the service wants it."""
        params = self.params
        fields = {
            "appArchiveId": archive_file,
            "mtaId": self.mta_id,
            "deleteServices": "false",
            "noStart": "false",
            "keepFiles": "false",
            "versionRule": params.get("version_rule"),
            "mtaExtDescriptorId": ",".join(extension_files),
            "modulesForDeployment": ",".join(params.get("modules") or ()),
            "resourcesForDeployment": ",".join(params.get("resources") or ()),
        }
        if self.process_type == BLUE_GREEN:
            fields["keepOriginalAppNamesAfterDeploy"] = "true"
            fields["noConfirm"] = _flag(bool(params.get("skip_testing_phase") or params.get("skip_idle_start")))
            fields["skipIdleStart"] = _flag(bool(params.get("skip_idle_start")))
            fields["shouldApplyIncrementalInstancesUpdate"] = _flag(params.get("strategy") == INCREMENTAL)
        for option, field in _LIMITS.items():
            if params.get(option):
                fields[field] = str(max(1, parse_ms(params[option], option) // 1000))
        body: dict[str, Any] = {
            "processType": self.process_type,
            "parameters": {key: value for key, value in fields.items() if value},
        }
        return {**body, "namespace": self.namespace} if self.namespace else body


def wanted(params: Mapping[str, Any], archive: Archive | None, extensions: Sequence[Extension]) -> Wanted:
    """Check the options of a deployment.

    :param params: the options of the module mta_deploy.
    :raises InputError: they contradict each other, or the archive.
    """
    state = params["state"]
    if archive is None and (state != AS_ABORTED or not params.get("mta_id")):
        raise InputError(
            "archive is missing." if state != AS_ABORTED else "archive and mta_id are missing.",
            "Only state aborted can do with mta_id alone.",
        )
    if archive is not None and params.get("mta_id") not in (None, "", archive.mta_id):
        raise InputError(
            f"The archive {archive.source} is of the MTA {archive.mta_id}, not {params['mta_id']}.",
            "Correct archive or mta_id.",
        )
    if archive is None and extensions:
        raise InputError(
            "extensions are given without archive.", "Give the archive that they belong to, or mta_id alone."
        )
    without = [name for name in ("skip_testing_phase", "skip_idle_start") if params.get(name)]
    if params.get("strategy") == "default":
        if without:
            raise InputError(
                f"{without[0]} has no meaning with strategy default.", "Leave it out, or choose blue-green."
            )
        without = ["strategy default"]
    if state == AS_TESTING and without:
        raise InputError(f"There is no testing phase with {without[0]}.", "Use state deployed, or leave it out.")
    if params["retries"] < 0:
        raise InputError(f"retries is {params['retries']}.", "Give a number from 0.")
    if state == AS_ABORTED and params.get("upgrade"):
        raise InputError("upgrade is given with state aborted.", "Note an upgrade with state testing or deployed.")
    mark = ""
    if archive is not None:
        check_selection(archive, params.get("modules") or (), params.get("resources") or ())
        mark = fingerprint(archive, extensions, params.get("modules"), params.get("resources"))
    poll_ms = parse_ms(params["poll_interval"], "poll_interval")
    for option in _LIMITS:
        if params.get(option):
            parse_ms(params[option], option)
    goal = Goal(
        state=state,
        fingerprint=mark,
        retries=params["retries"],
        retry_content=params["on_error"] == "retry",
        abort_on_error=params["on_error"] == "abort",
        deadline_ms=parse_ms(params["testing_deadline"], "testing_deadline"),
        abort_on_deadline=params["on_testing_deadline"] == "abort",
        abort_upgraded=bool(params.get("abort_upgraded")),
        abort_switched=bool(params.get("abort_switched")),
        settle_ms=SETTLE_POLLS * poll_ms,
        upgrade=params.get("upgrade") or "",
        operation=params.get("operation") or "",
    )
    mta_id = archive.mta_id if archive else str(params["mta_id"])
    return Wanted(params, mta_id, archive, tuple(extensions), goal, parse_ms(params["timeout"], "timeout"), poll_ms)


def _flag(value: bool) -> str:
    return "true" if value else "false"
