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
    is_url,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.deploy_service import (
    BLUE_GREEN,
    DEPLOY,
    ROLLBACK,
    UNDEPLOY,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.decision import (
    AS_ABORTED,
    AS_ABSENT,
    AS_DEPLOYED,
    AS_PREVIOUS,
    AS_TESTING,
    Goal,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.parameters import of_operation

RESUME_SETTLE_MS = 20_000
"""The service executes a resume before it tells so; seen is less than a second."""
SETTLE_POLLS = 10
"""After a lost answer to a start request its operation is looked for so often before a new one is started."""
PREVIOUS, ABSENT = "previous", "absent"
"""Fingerprints of operations that bring no archive."""
_DEPLOYMENTS_ONLY = (
    "extensions",
    "extension_texts",
    "skip_testing_phase",
    "skip_idle_start",
    "modules",
    "resources",
    "version_rule",
    "keep_previous",
    "dependency_aware_stop_order",
    "no_start",
    "secure_parameters",
    "upgrade",
)
"""Options that only a deployment can have."""


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
        if self.state in (AS_PREVIOUS, AS_ABSENT):
            return ROLLBACK if self.state == AS_PREVIOUS else UNDEPLOY
        return DEPLOY if self.params.get("strategy") == "default" else BLUE_GREEN

    @property
    def skips_testing(self) -> bool:
        """Whether it is blue-green without a testing phase."""
        skips = self.params.get("skip_testing_phase") or self.params.get("skip_idle_start")
        return self.process_type == BLUE_GREEN and bool(skips)

    @property
    def switches_at_once(self) -> bool:
        """Whether what is live is changed at a moment that nobody knows, as there is no testing phase."""
        return self.process_type != BLUE_GREEN or self.skips_testing

    @property
    def removes_leftovers(self) -> bool:
        """Whether what an abort leaves is deleted."""
        return bool(self.params.get("remove_leftovers"))

    @property
    def settle_ms(self) -> int:
        return self.goal.settle_ms

    def request(self, archive_files: str = "", extension_files: Sequence[str] = ()) -> dict[str, Any]:
        """The body that starts the operation.

        :param archive_files: ids of the archive's parts, joined by commas.
        """
        files = {"appArchiveId": archive_files, "mtaExtDescriptorId": ",".join(extension_files)}
        parameters = of_operation(self.params, self.process_type, self.mta_id, files)
        body: dict[str, Any] = {"processType": self.process_type, "parameters": parameters}
        return {**body, "namespace": self.namespace} if self.namespace else body


def wanted(params: Mapping[str, Any], archive: Archive | None, extensions: Sequence[Extension]) -> Wanted:
    """Check the options of a deployment.

    :param params: the options of the module mta_deploy.
    :raises InputError: they contradict each other, or the archive.
    """
    state = params["state"]
    _check_archive(params, archive)
    _check_options(params)
    mark = {AS_PREVIOUS: PREVIOUS, AS_ABSENT: ABSENT}.get(state, "")
    if archive is not None and not mark:
        check_selection(archive, params.get("modules") or (), params.get("resources") or ())
        chosen = params.get("modules"), params.get("resources")
        mark = fingerprint(archive, extensions, *chosen, params.get("secure_parameters"))
    poll_ms = parse_ms(params["poll_interval"], "poll_interval")
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
        resume_settle_ms=max(RESUME_SETTLE_MS, SETTLE_POLLS * poll_ms),
        upgrade=params.get("upgrade") or "",
        operation=params.get("operation") or "",
    )
    mta_id = archive.mta_id if archive else str(params["mta_id"])
    timeout_ms = parse_ms(params["timeout"], "timeout")
    result = Wanted(params, mta_id, archive, tuple(extensions), goal, timeout_ms, poll_ms)
    result.request()  # what is wrong with the parameters shows before anything is uploaded
    return result


def _check_archive(params: Mapping[str, Any], archive: Archive | None) -> None:
    state = params["state"]
    if archive is None and state in (AS_TESTING, AS_DEPLOYED):
        raise InputError("archive is missing.", f"Give the archive that is to be {state}.")
    if archive is None and not params.get("mta_id"):
        raise InputError("archive and mta_id are missing.", f"State {state} needs one of them.")
    if archive is not None and params.get("mta_id") not in (None, "", archive.mta_id):
        raise InputError(
            f"The archive {archive.source} is of the MTA {archive.mta_id}, not {params['mta_id']}.",
            "Correct archive or mta_id.",
        )
    if archive is None and (params.get("extensions") or params.get("extension_texts")):
        raise InputError(
            "Extension descriptors are given without archive.", "Give the archive that they belong to, or mta_id alone."
        )


def _check_options(params: Mapping[str, Any]) -> None:
    state, blue_green = params["state"], params.get("strategy") != "default"
    if state in (AS_PREVIOUS, AS_ABSENT):
        given = next((name for name in _DEPLOYMENTS_ONLY if params.get(name)), "")
        if given:
            raise InputError(f"{given} is given with state {state}.", "Leave it out: nothing is deployed by it.")
    without = [name for name in ("skip_testing_phase", "skip_idle_start") if params.get(name)]
    if not blue_green:
        foreign = [*without, *(n for n in ("keep_previous", "dependency_aware_stop_order") if params.get(n))]
        if foreign:
            raise InputError(
                f"{foreign[0]} has no meaning with strategy default.", "Leave it out, or choose blue-green."
            )
        without = ["strategy default"]
    if state == AS_TESTING and without:
        raise InputError(f"There is no testing phase with {without[0]}.", "Use state deployed, or leave it out.")
    if params.get("no_start") and state == AS_TESTING:
        raise InputError("no_start is given with state testing.", "An application that is not started can't be tested.")
    if params["retries"] < 0:
        raise InputError(f"retries is {params['retries']}.", "Give a number from 0.")
    if state == AS_ABORTED and params.get("upgrade"):
        raise InputError("upgrade is given with state aborted.", "Note an upgrade with state testing or deployed.")
    if params.get("upload") == "service":
        _check_service_upload(params)


def _check_service_upload(params: Mapping[str, Any]) -> None:
    if params.get("archive") and not is_url(location_of(params)):
        advice = "Give a URL that the deploy service can reach, as archive or as archive_source."
        raise InputError("upload is service, but archive is no URL.", advice)
    if params.get("archive_headers"):
        advice = "The deploy service sends none: give archive_username and archive_password, or let this host upload."
        raise InputError("archive_headers are given with upload service.", advice)


def location_of(params: Mapping[str, Any]) -> str:
    """Where the caller has the archive, with the secrets that a URL may hold."""
    return str(params.get("archive_source") or params.get("archive") or "")
