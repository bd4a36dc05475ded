# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment returns, and how it is told when it has failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import (
    Conflict,
    Refused,
    Timeout,
    ZdmError,
    sentence,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.apps import (
    leftovers_of,
    live_versions,
    routes_by_module,
    split_routes,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.deploy_service import (
    ABORTED,
    ROLLBACK,
    RUNNING,
    UNDEPLOY,
    Operation,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.decision import AS_ABORTED, Decision
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.document import Attempt, DeploymentDocument
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.info import leftover_facts
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.presence import Presence
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.request import Wanted
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.sight import Sight
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.watch import Watch

OUTCOMES = {ROLLBACK: "rolled_back", UNDEPLOY: "undeployed"}
"""What has happened when an operation that brings no archive has finished."""


def deployed(*, first: bool) -> str:
    """The outcome of a deployment."""
    return "first_deployment" if first else "deployed"


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
    split: list[str]
    leftovers: dict[str, Any]
    previous: dict[str, Any]
    version_before: str
    upgrade: str


class Results:
    """What a run's caller gets to know."""

    def __init__(
        self, wanted: Wanted, document: DeploymentDocument, sight: Sight, presence: Presence, watch: Watch
    ) -> None:
        self._wanted, self._document, self._sight = wanted, document, sight
        self._presence, self._watch = presence, watch

    def make(self, outcome: str, own: Operation, removed: Sequence[str] = (), *, changed: bool) -> Result:
        """The result of a run that ends well.

        :param removed: names of leftovers that it has deleted.
        """
        apps = self._presence.apps()
        archive = self._wanted.archive
        live = live_versions(apps)
        return Result(
            changed=changed,
            outcome=outcome,
            operation=operation_facts(own) if own.id else {},
            mta={
                "id": self._wanted.mta_id,
                "version": archive.version if archive else self._version(outcome, live),
                "digest": archive.digest if archive else "",
            },
            routes=routes_by_module(apps),
            split=[] if own.active else split_routes(apps),
            leftovers={**leftover_facts([] if own.active else leftovers_of(apps)), "removed": list(removed)},
            previous=self._previous(),
            version_before=_shown(self._sight.before or ()),
            upgrade=self._upgrade(),
        )

    def outcome(self, decision: Decision) -> str:
        """What is true where nothing is left to do."""
        attempt = self._document.attempt
        if self._wanted.state == AS_ABORTED:
            meant = attempt is not None and self._wanted.goal.fingerprint in ("", attempt.fingerprint)
            return "aborted" if attempt and meant and attempt.state == ABORTED else "absent"
        return "testing" if decision.operation else "unchanged"

    def refusal(self, decision: Decision) -> ZdmError:
        """The error of a step that must not be done; of two runs the second is told of the first."""
        own, attempt = decision.operation, self._document.attempt
        by = self._document.changed_by() if attempt is None or attempt.ended else ""
        if by:
            return self._document.at_work(by)
        if attempt and self._sight.ended_by and self._wanted.goal.operation == attempt.operation:
            return Conflict(
                f"Operation {attempt.operation} was ended ({attempt.state}) by another run ({self._sight.ended_by}).",
                "Let it end; the same command starts afresh.",
            )
        return Refused(decision.reason, decision.advice, **({"operation": own.facts()} if own else {}))

    def _upgrade(self) -> str:
        """How far the tenants' upgrade by this archive is."""
        attempt = self._document.attempt
        return attempt.upgrade if attempt and attempt.fingerprint == self._wanted.goal.fingerprint else ""

    def _version(self, outcome: str, live: Sequence[str]) -> str:
        """The version that the outcome is about, where the caller has named none."""
        attempt = self._document.attempt
        if attempt and outcome == "aborted":
            return str(attempt.archive.get("version") or "")
        return _shown(live)

    def details(self, own: Operation) -> dict[str, Any]:
        """Facts for whoever must go on by hand; what can't be read is left out."""
        facts = {"operation": operation_facts(own), "logs": self._watch.logs, "previous": self._previous()}
        try:
            apps = self._presence.apps()
        except ZdmError:
            return facts
        if not own.active:
            facts["leftovers"] = leftover_facts(leftovers_of(apps))
        return {**facts, "split": [] if own.state == RUNNING else split_routes(apps)}

    def left(self, details: Mapping[str, Any]) -> str:
        """The leftovers of *details* in words, a sentence's end."""
        names = [
            app["name"]
            for app in (details.get("leftovers") or {}).get("apps") or ()
            if app["name"] not in details.get("removed", ())
        ]
        return f"; it has left {', '.join(names)}." if names else "."

    def _previous(self) -> dict[str, Any]:
        """What was live before this archive, for a way back; of what did not come by us the version is all that is
        known.
        """
        document = self._document
        mark = self._wanted.goal.fingerprint or (document.attempt.fingerprint if document.attempt else "")
        known = document.previous if document.live.get("fingerprint") == mark else document.live
        if known:
            return dict(known["archive"])
        version, live = _shown(self._sight.before or ()), document.live.get("archive") or {}
        if version in ("", str(live.get("version"))):
            return {}
        about = {"mta_id": self._wanted.mta_id, "version": version}
        return {"name": "", "path": "", "digest": "", "md5": "", **about}


def _shown(versions: Sequence[str]) -> str:
    return ", ".join(versions)


def operation_facts(own: Operation) -> dict[str, Any]:
    """The operation with its messages."""
    return {**own.facts(), "messages": [asdict(message) for message in own.messages]}


def failure(
    reason: str, own: Operation, attempt: Attempt | None, logs: Sequence[str], details: Mapping[str, Any]
) -> DeploymentFailed:
    """The error of an operation that has stopped with one.

    :param reason: a sentence.
    """
    kept = f" Logs: {', '.join(logs)}." if logs else ""
    advice = (
        "Live is as it was. When the cause is outside, use on_error retry to go on; else state aborted, then deploy"
    )
    advice += " what is mended."
    if attempt is not None and attempt.may_switch:
        advice = "What is live may be changed in part: mend the cause, and use on_error retry to go on."
    if attempt is not None and attempt.resumed:
        advice = "Routes may be switched in part: mend the cause and use on_error retry; do not abort."
    return DeploymentFailed(f"{reason} {last_words(own)}{_two_versions(details)}{kept}", advice, **details)


def _two_versions(details: Mapping[str, Any]) -> str:
    split = details.get("split")
    return f" Two versions are behind {', '.join(split)}." if split else ""


def abortion(
    own: Operation, why: str, failed: Operation, attempt: Attempt | None, left: str, details: Mapping[str, Any]
) -> ZdmError:
    """The error of an operation that was aborted although it was to go on.

    :param why: why this run has aborted it; empty when somebody else did.
    :param failed: the operation as it stopped with an error before.
    :param left: see :meth:`Results.left`.
    """
    live = "The live version was not touched"
    if attempt and attempt.may_switch and (attempt.resumed or attempt.end_state != "deployed" or details.get("split")):
        live = "What is live may be changed in part, so look which version answers"
    advice = f"{live}{left}{_two_versions(details)} The same command starts afresh."
    if "testing phase" in why:
        return Timeout(f"Operation {own.id} is aborted: {why}.", advice, **details)
    if why:
        return DeploymentFailed(f"Operation {own.id} is aborted: {why}. {last_words(failed)}", advice, **details)
    return DeploymentFailed(f"Operation {own.id} was aborted by somebody else.", f"Ask who did it. {advice}", **details)


def last_words(own: Operation) -> str:
    """The service's own words, as sentences."""
    return " ".join(dict.fromkeys(sentence(error) for error in own.errors[-2:])) or sentence("")
