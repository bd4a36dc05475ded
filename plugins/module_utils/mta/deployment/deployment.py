# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings a deployment to its end state: does the step that :mod:`deployment_decision` decides, until none is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import (
    OutcomeUnknown,
    Refused,
    Timeout,
    ZdmError,
)
from ansible_collections.zdm.landscape.plugins.module_utils.http.web import Away
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.cloud_foundry import (
    CloudFoundry,
    Leftover,
    leftovers_of,
    routes_by_module,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.deploy_service import (
    ABORTED,
    ERROR,
    FINISHED,
    RUNNING,
    Deployed,
    DeployService,
    Operation,
    instant,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment import decision as to
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.decision import Decision, Goal, decide
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.document import (
    UPGRADE_DONE,
    Attempt,
    DeploymentDocument,
    Place,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.info import leftover_facts
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.request import Wanted
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.result import (
    PREDICTED,
    DeploymentFailed,
    Result,
    last_words,
    operation_facts,
    previous_archive,
)
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import Store

Tell = Callable[[Mapping[str, Any]], None]


class Deployment:
    """One MTA in one space.

    :param tell: gets what a person and the log should know, as it happens.
    """

    def __init__(
        self, cloud: CloudFoundry, store: Store, wanted: Wanted, tell: Tell, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._cloud, self._wanted, self._tell_all, self._sleep = cloud, wanted, tell, sleep
        self._service = DeployService(cloud)
        self._goal: Goal = wanted.goal
        target = cloud.target
        self.place = Place(target.space_guid, wanted.mta_id, wanted.namespace, target.api, target.org, target.space)
        self.document = DeploymentDocument(store, self.place)
        self._ends = time.monotonic() + wanted.timeout_ms / 1000
        self._changed = self._joined = self._predicts = False
        self._why = ""
        self._told = 0
        self._files: list[str] | None = None
        self._logs: list[str] = []
        self._before: Deployed | None = None
        self._seen = self._failed = Operation("")
        self._operations: list[Operation] = []

    def run(self) -> Result:
        """Go on until the end state is reached.

        :raises Refused: a rule of safety forbids the next step; nothing was changed by it.
        :raises DeploymentFailed: the operation has stopped with an error, or somebody else has aborted it.
        :raises Timeout: it takes longer than allowed; the same command goes on. Or the testing phase did, and was
            aborted.
        """
        self._begin()
        steps: dict[str, Callable[[Decision], Result | None]] = {
            to.START: self._start,
            to.ADOPT: self._adopt,
            to.LOOK: self._look,
            to.FORGET: self._forget,
            to.WAIT: self._watch,
            to.RESUME: self._act,
            to.RETRY: self._act,
            to.ABORT: self._act,
            to.SETTLE: self._settle,
            to.REFUSE: self._refuse,
            to.FAIL: self._fail,
            to.DONE: self._done,
        }
        while True:
            try:
                decision = self._decide()
                result = steps[decision.step](decision)
            except Away as error:
                self._away(error)
            else:
                if result is not None:
                    return result
            if time.monotonic() > self._ends:
                advice = "The operation goes on without us: run the same command again to go on."
                raise Timeout(
                    f"{self.place.mta_id} has not reached state {self._goal.state} in time.",
                    advice,
                    **self._details(self._seen),
                )

    def predict(self) -> tuple[Result, str]:
        """What :meth:`run` would do first; nothing is changed.

        :raises Refused: it would be refused.
        """
        self._predicts = True
        self._begin()
        decision = self._decide(note=False)
        if decision.step in (to.REFUSE, to.FAIL):
            self._refuse(decision)
        self._changed = decision.step not in (to.DONE, to.ADOPT)
        result = self._result(self._goal.state, decision.operation or Operation(""))
        if decision.step == to.DONE:
            result.outcome = self._outcome(decision)
            result.changed = (
                self._goal.state == to.AS_ABORTED
                and self._removes()
                and any(not leftover.kept for leftover in self._leftovers())
            )
        elif decision.step in (to.START, to.FORGET) and self._before is None:
            result.outcome = "first_deployment"
        text = PREDICTED.get(decision.step, "does nothing").format(
            decision.operation.shown if decision.operation else ""
        )
        return result, f"{self.place.mta_id}: {text}{f', as {decision.reason}' if decision.reason else ''}."

    def _begin(self) -> None:
        self.document.read()
        self._before = next(iter(self._service.deployed(self.place.mta_id, self.place.namespace)), None)

    def _decide(self, *, note: bool = True) -> Decision:
        operations = [
            operation
            for operation in self._service.operations(self.place.mta_id)
            if operation.namespace == self.place.namespace
        ]
        attempt = self.document.attempt
        pending = attempt.operation if attempt and not attempt.ended else ""
        if pending and all(operation.id != pending for operation in operations):
            own = self._service.operation(pending)
            operations += [own] if own.state else []
        self._operations = operations
        now = datetime.now(UTC)
        own = next((operation for operation in operations if operation.id == pending), Operation(""))
        if attempt and own.active:
            self._told = max(self._told, attempt.told)
            attempt = to.seen(attempt, own, now)
            if note:
                self.document.keep(replace(attempt, told=self._told))
        self._seen = own
        return decide(self._goal, attempt, operations, now, live=self._is_live(operations))

    def _is_live(self, operations: list[Operation]) -> bool:
        """Whether what is wanted came by us, is what the space has, and nobody has deployed anything since."""
        live = self.document.live
        if not live or live.get("fingerprint") != self._goal.fingerprint:
            return False
        if self._before is None or self._before.version != str(live["archive"].get("version")):
            return False
        ours = instant(str(live.get("started_at") or "")) or datetime.max.replace(tzinfo=UTC)
        later = (
            operation
            for operation in operations
            if operation.state == FINISHED and operation.id != live.get("operation")
        )
        return all((instant(operation.started_at) or ours) <= ours for operation in later)

    def _start(self, _decision: Decision) -> None:
        """Upload first, and decide again, as an upload takes time; then write what is asked for, and ask once."""
        wanted = self._wanted
        if wanted.archive is None:
            raise ValueError("a start without an archive")
        if self._files is None:
            self._say(f"Uploading {wanted.archive.name}")
            files = [
                (wanted.archive.path, wanted.archive.md5),
                *((extension.path, extension.md5) for extension in wanted.extensions),
            ]
            self._files = [self._service.ensure_file(path, md5, wanted.namespace) for path, md5 in files]
            return
        seen = frozenset(operation.id for operation in self._operations)
        facts = {
            "type": wanted.process_type,
            "cf_user": self._cloud.target.user,
            "seen": seen,
            "first": self._before is None,
        }
        self.document.begin(
            Attempt.of(wanted.goal.fingerprint, wanted.archive, wanted.extensions, datetime.now(UTC), **facts)
        )
        self._joined = self._changed = True
        try:
            identity = self._service.start(wanted.request(self._files[0], self._files[1:]))
        except OutcomeUnknown as error:
            self._say(f"{error.message} Looking whether it was started.", "WARNING")
            self.document.update(lost_at=datetime.now(UTC))
            return
        except ZdmError:
            self.document.update(ended=True, state="REFUSED")
            raise
        self.document.update(operation=identity)
        self._say(f"Operation {identity} is started")

    def _adopt(self, decision: Decision) -> None:
        own = _of(decision)
        self.document.update(operation=own.id, started_at=own.started_at)
        self._say(f"Going on with {own.shown}")

    def _look(self, _decision: Decision) -> None:
        self._pause()

    def _forget(self, _decision: Decision) -> None:
        self.document.update(ended=True, state="NEVER_STARTED")

    def _watch(self, decision: Decision) -> None:
        """Poll until the operation's state is another one."""
        self._joined = True
        own = _of(decision)
        self._await(own.id, lambda state: state != RUNNING)

    def _act(self, decision: Decision) -> None:
        own, attempt = _of(decision), self.document.attempt
        self._changed = True
        earlier = not self._joined and attempt is not None and attempt.requested == to.ABORT == decision.step
        if decision.step == to.ABORT and self._goal.state != to.AS_ABORTED and not earlier:
            self._why = self._why or decision.reason
            self._save_logs(self._read(own.id))
        self._joined = not earlier  # What an earlier run has decided is no failure of this one.
        if decision.step == to.RETRY:
            self._goal = replace(self._goal, retries=self._goal.retries - 1)
        self.document.ask(decision.step, resumed=decision.step == to.RESUME)
        self._say(
            f"{decision.step.capitalize()} of operation {own.id}{f': {decision.reason}' if decision.reason else ''}"
        )
        if not self._service.act(own.id, decision.step):
            self._pause()
            return
        limit = self._wanted.settle_ms if decision.step != to.ABORT else self._wanted.timeout_ms
        self._await(own.id, lambda state: state != own.state, limit)

    def _settle(self, decision: Decision) -> Result | None:
        own = self._read(_of(decision).id)
        if own.active:
            return None
        attempt = self.document.attempt
        if own.state == FINISHED and attempt:
            self.document.went_live(own.state, own.started_at)
            if self._goal.state != to.AS_ABORTED and self._goal.fingerprint == attempt.fingerprint:
                self._changed = True
                return self._result("first_deployment" if attempt.first else "deployed", own)
            return None
        self.document.update(ended=True, state=own.state or "UNKNOWN")
        if own.state == ABORTED:
            self._aborted(own)
        elif self._joined:
            advice = "Look with cf mtas what is deployed, then run the same command again: it starts afresh."
            raise OutcomeUnknown(
                f"The deploy service knows operation {own.id} no longer.", advice, **self._details(own)
            )
        return None

    def _aborted(self, own: Operation) -> None:
        """Tell an abort that nobody has asked this run for."""
        if self._goal.state == to.AS_ABORTED or not self._joined:
            return
        if not self._logs:
            self._save_logs(own)
        details = self._details(own)
        details["removed"] = self._remove()
        attempt = self.document.attempt
        live = (
            "Routes may be switched in part, so look which version answers"
            if attempt and attempt.resumed
            else "The live version was not touched"
        )
        advice = f"{live}{self._left(details)} The same command starts afresh."
        if "testing phase" in self._why:
            raise Timeout(f"Operation {own.id} is aborted: {self._why}.", advice, **details)
        if self._why:
            raise DeploymentFailed(
                f"Operation {own.id} is aborted: {self._why}. {last_words(self._failed)}", advice, **details
            )
        raise DeploymentFailed(
            f"Operation {own.id} was aborted by somebody else.", f"Ask who did it. {advice}", **details
        )

    def _refuse(self, decision: Decision) -> None:
        own = decision.operation
        raise Refused(decision.reason, decision.advice, **({"operation": own.facts()} if own else {}))

    def _fail(self, decision: Decision) -> None:
        own = self._read(_of(decision).id)
        self._save_logs(own)
        logs = f" Logs: {', '.join(self._logs)}." if self._logs else ""
        attempt = self.document.attempt
        switching = attempt is not None and attempt.resumed
        way = (
            "Routes may be switched in part: mend the cause and use on_error retry; do not abort." if switching else ""
        )
        advice = (
            way
            or "Live is as it was. When the cause is outside, use on_error retry to go on; else state aborted, then"
            " deploy what is mended."
        )
        kind = "" if own.error_type == "CONTENT" else f" ({own.error_type.lower()})" if own.error_type else ""
        raise DeploymentFailed(f"{decision.reason}{kind} {last_words(own)}{logs}", advice, **self._details(own))

    def _done(self, decision: Decision) -> Result:
        own = decision.operation or Operation("")
        if own.id:
            own = self._read(own.id)
            self.document.update(told=self._told)
            self._warn_deadline()
        removed: list[str] = []
        if self._goal.state == to.AS_ABORTED:
            removed = self._remove()
            self._changed = self._changed or bool(removed)
        return self._result(self._outcome(decision), own, removed)

    def _outcome(self, decision: Decision) -> str:
        attempt = self.document.attempt
        if self._goal.state == to.AS_ABORTED:
            return "aborted" if attempt and attempt.state == ABORTED else "absent"
        return "testing" if decision.operation else "unchanged"

    def _warn_deadline(self) -> None:
        attempt = self.document.attempt
        if attempt and to.deadline_passed(self._goal, attempt, datetime.now(UTC)):
            self._say("The testing phase is longer than testing_deadline; it was left as it is.", "WARNING")

    def _await(self, identity: str, reached: Callable[[str], bool], limit_ms: int | None = None) -> None:
        ends = min(self._ends, time.monotonic() + limit_ms / 1000) if limit_ms else self._ends
        while True:
            if reached(self._read(identity).state) or time.monotonic() > ends:
                return
            self._pause()

    def _read(self, identity: str) -> Operation:
        own = self._service.operation(identity)
        for message in own.messages:
            if message.id > self._told:
                self._told = message.id
                self._say(message.text, message.type, operation=identity)
        self._seen = own
        if own.state == ERROR:
            self._failed = own
        return own

    def _away(self, error: Away) -> None:
        """An API that is away for a while stops nothing where our operation goes on.

        :raises Away: there is none.
        """
        attempt = self.document.attempt
        if attempt is None or not attempt.operation or (attempt.ended and not self._joined):
            raise error
        self._say(f"{error.message} The operation goes on; asking again.", "WARNING")
        self._pause()

    def _pause(self) -> None:
        self._sleep(self._wanted.poll_ms / 1000)

    def _say(self, text: str, kind: str = "INFO", **facts: Any) -> None:
        self._tell_all({"mta_id": self.place.mta_id, "type": kind, "text": text, **facts})

    def _save_logs(self, own: Operation) -> None:
        try:
            self._logs = self._service.save_logs(own.id, Path(self._wanted.params["log_dir"]).expanduser())
        except (OSError, ZdmError) as error:
            self._say(f"The logs of operation {own.id} can't be kept: {error}", "WARNING")

    def _removes(self) -> bool:
        return bool(self._wanted.params.get("remove_leftovers"))

    def _remove(self) -> list[str]:
        """Delete the leftovers if that was asked for, and nobody has begun to use them meanwhile."""
        if not self._removes():
            return []
        busy = next(
            (
                found
                for found in self._service.operations(self.place.mta_id)
                if found.namespace == self.place.namespace and found.holds
            ),
            None,
        )
        if busy:
            self._say(f"Leftovers stay: {busy.shown} is under way.", "WARNING")
            return []
        return self._cloud.remove(self._leftovers())

    def _leftovers(self) -> list[Leftover]:
        return leftovers_of(self._cloud.apps(self.place.mta_id, self.place.namespace))

    def _details(self, own: Operation) -> dict[str, Any]:
        """Facts for whoever must go on by hand; what can't be read is left out."""
        facts = {"operation": operation_facts(own), "logs": self._logs, "previous": self._previous()}
        try:
            return {**facts, "leftovers": leftover_facts(self._leftovers())} if not own.active else facts
        except ZdmError:
            return facts

    def _left(self, details: Mapping[str, Any]) -> str:
        names = [
            app["name"]
            for app in (details.get("leftovers") or {}).get("apps") or ()
            if app["name"] not in details.get("removed", ())
        ]
        return f"; it has left {', '.join(names)}." if names else "."

    def _previous(self) -> dict[str, Any]:
        return previous_archive(self.document, self._goal.fingerprint, self._before)

    def _result(self, outcome: str, own: Operation, removed: list[str] | None = None) -> Result:
        apps = self._cloud.apps(self.place.mta_id, self.place.namespace)
        archive = self._wanted.archive
        now = (
            next(iter(self._service.deployed(self.place.mta_id, self.place.namespace)), None)
            if archive is None
            else None
        )
        mta = {
            "id": self.place.mta_id,
            "version": archive.version if archive else now.version if now else "",
            "digest": archive.digest if archive else "",
        }
        leftovers = [] if own.active else leftovers_of(apps)
        return Result(
            changed=self._changed,
            outcome=outcome,
            operation=operation_facts(own) if own.id else {},
            mta=mta,
            routes=routes_by_module(apps),
            leftovers={**leftover_facts(leftovers), "removed": removed or []},
            previous=self._previous(),
            version_before=self._before.version if self._before else "",
            upgrade=self._upgrade(outcome),
        )

    def _upgrade(self, outcome: str) -> str:
        """How far the tenants' upgrade by this archive is; what the caller knows of it is written first.

        Nothing begins in a testing phase that is over.
        """
        attempt = self.document.attempt
        if attempt is None or attempt.fingerprint != self._goal.fingerprint:
            return ""
        noted, state = self._goal.upgrade, self._goal.state
        if noted and not self._predicts and (noted == UPGRADE_DONE or state != to.AS_TESTING or outcome == state):
            attempt = self.document.update(upgrade=noted)
        return attempt.upgrade


def _of(decision: Decision) -> Operation:
    if decision.operation is None:
        raise ValueError(f"{decision.step} without an operation")
    return decision.operation
