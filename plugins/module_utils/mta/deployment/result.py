# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment returns, and how it is told when it has failed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.deploy_service import Deployed, Operation
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment import decision as to
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.document import DeploymentDocument

PREDICTED = {
    to.START: "starts an operation",
    to.RESUME: "resumes {}",
    to.RETRY: "retries {}",
    to.ABORT: "aborts {}",
    to.WAIT: "waits for {}",
    to.ADOPT: "adopts {}",
    to.LOOK: "looks for the operation of an earlier run",
    to.FORGET: "starts an operation",
    to.SETTLE: "notes the end of {}",
}


class DeploymentFailed(ZdmError):
    """The deployment has stopped; ``details`` say where, with the logs' files and the leftovers."""


@dataclass
class Result:
    """What a run has done, as the module returns it."""

    changed: bool
    outcome: str
    operation: dict[str, Any]
    mta: dict[str, Any]
    routes: dict[str, Any]
    leftovers: dict[str, Any]
    previous: dict[str, Any]
    version_before: str
    upgrade: str


def previous_archive(document: DeploymentDocument, fingerprint: str, before: Deployed | None) -> dict[str, Any]:
    """What was live before this archive, for a way back.

    :param fingerprint: of this archive; the one of the last attempt when it is empty.
    :param before: what the space had before this run; its version is all that is known of what did not come by us.
    """
    mark = fingerprint or (document.attempt.fingerprint if document.attempt else "")
    known = document.previous if document.live.get("fingerprint") == mark else document.live
    if known:
        return dict(known["archive"])
    if before is None or document.live:
        return {}
    return {"name": "", "path": "", "digest": "", "md5": "", "mta_id": before.id, "version": before.version}


def operation_facts(own: Operation) -> dict[str, Any]:
    """The operation with its messages."""
    return {**own.facts(), "messages": [asdict(message) for message in own.messages]}


def last_words(own: Operation) -> str:
    """The service's own words."""
    return " ".join(" ".join(own.errors[-2:]).split()) or "It gives no reason."
