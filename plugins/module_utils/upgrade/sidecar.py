# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Upgrades through the MTX sidecar of a CAP application (package @sap/cds-mtxs, its services SaasProvisioning and
Jobs).

The job runs in the memory of the sidecar that took it, its state is in the application's own database. A sidecar that
ends leaves its job RUNNING there until the heartbeat of another one makes it TIMEOUT. Jobs of the same tenants follow
one another within one sidecar.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import OutcomeUnknown, Refused, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.http.web import MAY_HAVE_BEGUN, Answer, shown
from ansible_collections.zdm.landscape.plugins.module_utils.upgrade.base import (
    FAILED,
    RUNNING,
    UNKNOWN,
    UPGRADED,
    Job,
    Progress,
    TenantState,
    Way,
)
from ansible_collections.zdm.landscape.plugins.module_utils.upgrade.session import Api

RIGHTS = "the scope mtcallback (or cds.Subscriber) of the application"
_PROVISIONING = "/-/cds/saas-provisioning"
_JOBS = "/-/cds/jobs"
_OPEN = ("QUEUED", "RUNNING")
_STATES = {"QUEUED": RUNNING, "RUNNING": RUNNING, "FINISHED": UPGRADED, "FAILED": FAILED}
_COMPILER_PLACE = re.compile(r"\s+")


class SidecarJob(Job):
    """One job of the sidecar."""

    def __init__(self, api: Api, job_id: str, tenants: Sequence[str]) -> None:
        super().__init__(job_id, tenants)
        self._api = api

    def poll(self) -> Progress:
        answer = self._api.read(f"{_JOBS}/pollJob(ID='{quote(self.id, safe='')}')")
        if answer.status == 404:
            return Progress({}, ended=True, lost="the sidecar does not know it any more")
        found = _object(answer)
        states = {str(tenant): _state(entry) for tenant, entry in (found.get("tenants") or {}).items()}
        status = str(found.get("status"))
        if status in _OPEN:
            return Progress(states)
        if status in ("FINISHED", "FAILED"):
            rest = _whole(str(found.get("error") or "")) or f"the job is {status} and does not tell"
            left = {tenant: states.get(tenant, TenantState(UNKNOWN, rest)) for tenant in (*self.tenants, *states)}
            return Progress(
                {
                    tenant: state if state.ended else TenantState(UNKNOWN, state.error or rest)
                    for tenant, state in left.items()
                },
                ended=True,
            )
        return Progress(states, ended=True, lost=f"its state is {status}")


class Sidecar(Way):
    """The sidecar's interface for subscriptions."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def tenants(self) -> list[str]:
        answer = self._api.read(f"{_PROVISIONING}/tenant")
        found = _list(answer)
        return [str(entry["subscribedTenantId"]) for entry in found]

    def running(self, tenants: Sequence[str]) -> list[Job]:
        # A sidecar that does not list them, or not to us, lets jobs of the same tenants follow one another all the
        # same.
        try:
            answer = self._api.read(f"{_JOBS}/Jobs")
        except Refused:
            return []
        if not answer.ok:
            return []
        jobs: list[Job] = []
        for entry in _list(answer):
            whom = [str(task.get("tenant")) for task in entry.get("tasks") or ()]
            if entry.get("op") == "upgrade" and entry.get("status") in _OPEN and set(whom) & set(tenants):
                jobs.append(SidecarJob(self._api, str(entry["ID"]), whom))
        return jobs

    def start(self, tenants: Sequence[str]) -> Job:
        # Without it a request would last as long as all the upgrades, and a proxy would cut it off.
        headers = {"Prefer": "respond-async"}
        answer = self._api.write("POST", f"{_PROVISIONING}/upgrade", {"tenants": list(tenants)}, headers)
        if answer.status in MAY_HAVE_BEGUN:
            raise OutcomeUnknown(
                f"{shown(answer.url)} answers with status {answer.status}.", "Look whether the sidecar runs."
            )
        if answer.status != 202:
            raise Refused(
                f"{shown(answer.url)} starts no upgrade, status {answer.status}: {answer.said}",
                "Look at the sidecar's log.",
            )
        found = _object(answer)
        if not found.get("ID"):
            raise Unreachable(
                f"{shown(answer.url)} does not say which job it has started.", "Check that url is the sidecar's."
            )
        return SidecarJob(self._api, str(found["ID"]), [str(tenant) for tenant in found.get("tenants") or tenants])


def _state(entry: Mapping[str, Any]) -> TenantState:
    status = _STATES.get(str(entry.get("status")), UNKNOWN)
    return TenantState(status, _whole(str(entry.get("error") or "")))


def _whole(error: str) -> str:
    """An error of the CDS compiler in one line."""
    return _COMPILER_PLACE.sub(" ", error).strip()


def _object(answer: Answer) -> dict[str, Any]:
    found = _expected(answer)
    if not isinstance(found, dict):
        raise Unreachable(f"{shown(answer.url)} answers with something unexpected.", "Check that url is the sidecar's.")
    return found


def _list(answer: Answer) -> list[dict[str, Any]]:
    found = _expected(answer)
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise Unreachable(f"{shown(answer.url)} answers with something unexpected.", "Check that url is the sidecar's.")
    return found


def _expected(answer: Answer) -> Any:
    if not answer.ok:
        raise Refused(
            f"{shown(answer.url)} answers with status {answer.status}: {answer.said}",
            "Check that url is the sidecar's.",
        )
    return answer.json()
