# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings a deployment to its end state: does what :mod:`decision` says, until nothing is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import (
    OutcomeUnknown,
    Refused,
    Timeout,
    ZdmError,
)
from ansible_collections.zdm.landscape.plugins.module_utils.http.web import Away
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.cloud_foundry import CloudFoundry
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.deploy_service import (
    ABORTED,
    ERROR,
    FINISHED,
    ROLLBACK,
    RUNNING,
    DeployService,
    Operation,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.files import Files
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment import decision as to
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.bring import Bring
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.decision import Decision, Goal
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.document import (
    UPGRADE_DONE,
    Attempt,
    DeploymentDocument,
    Place,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.idle import IdleStop
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.prediction import predict
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.presence import Presence
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.request import Wanted
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.result import (
    OUTCOMES,
    Result,
    Results,
    abortion,
    deployed,
    failure,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.sight import Sight
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.watch import Tell, Watch
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import Store


class Deployment:
    """One MTA in one space.

    :param tell: gets what a person and the log should know, as it happens.
    """

    def __init__(
        self, cloud: CloudFoundry, store: Store, wanted: Wanted, tell: Tell, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._cloud, self._wanted = cloud, wanted
        self._service = DeployService(cloud)
        self._goal: Goal = wanted.goal
        target, mta = cloud.target, wanted.mta_id
        self.place = Place(target.space_guid, mta, wanted.namespace, target.api, target.org, target.space)
        self.document = DeploymentDocument(store, self.place)
        self._presence = Presence(cloud, self._service, mta, wanted.namespace)
        log_dir = str(wanted.params["log_dir"])
        self._watch = Watch(self._service, mta, tell, log_dir, wanted.timeout_ms, wanted.poll_ms, sleep)
        self._idle = IdleStop(self.document, self._presence, self._watch)
        self._bring = Bring(cloud, Files(self._service.rest, wanted.namespace), wanted, self._watch)
        self.sight = Sight(self.document, self._service, self._presence, self._watch)
        self._results = Results(wanted, self.document, self.sight, self._presence, self._watch)
        self._changed = self._joined = False
        self._why = ""

    def run(self) -> Result:
        """Go on until the end state is reached.

        :raises Refused: a rule of safety forbids the next step; nothing was changed by it.
        :raises DeploymentFailed: the operation has stopped with an error, or somebody else has aborted it.
        :raises Conflict: another run is at work on this MTA.
        :raises Timeout: it takes longer than allowed; the same command goes on. Or the testing phase did, and was
            aborted.
        """
        self.sight.begin()
        steps: dict[str, Callable[[Decision], Result | None]] = {
            to.START: self._start,
            to.ADOPT: self._adopt,
            to.LOOK: self._look,
            to.FORGET: self._forget,
            to.WAIT: self._await,
            to.RESUME: self._resume,
            to.RETRY: self._retry,
            to.ABORT: self._abort,
            to.SETTLE: self._settle,
            to.REFUSE: self._refuse,
            to.FAIL: self._fail,
            to.DONE: self._done,
        }
        while True:
            try:
                decision = self.sight.decide(self._goal)
                result = steps[decision.step](decision)
            except Away as error:
                self._away(error)
            else:
                if result is not None:
                    return result
            if self._watch.late:
                advice = "The operation goes on without us: run the same command again to go on."
                raise Timeout(
                    f"{self.place.mta_id} has not reached state {self._goal.state} in time.",
                    advice,
                    **self._results.details(self.sight.own),
                )

    def predict(self) -> tuple[Result, str]:
        """What :meth:`run` would do first, with a sentence about it; nothing is changed.

        :raises Refused: it would be refused.
        """
        return predict(self._wanted, self.sight, self._presence, self._results)

    # -- starting ---------------------------------------------------------------------------------

    def _start(self, _decision: Decision) -> None:
        """Upload first, and decide again, as an upload takes time; then write what is asked for, and ask once."""
        wanted = self._wanted
        self.sight.check_start(self._goal)
        if self._bring.there is None:
            self._bring.upload()
            return
        facts = {
            "type": wanted.process_type,
            "cf_user": self._cloud.target.user,
            "seen": frozenset(operation.id for operation in self.sight.operations),
            "first": self.sight.before is None,
            "kept": bool(wanted.params.get("keep_previous")),
            "at_once": wanted.switches_at_once,
        }
        archive = wanted.archive.facts() if wanted.archive else {}
        if wanted.process_type == ROLLBACK:
            archive = self.document.previous.get("archive") or {}
        self.document.begin(Attempt.of(wanted.goal.fingerprint, archive, wanted.extensions, datetime.now(UTC), **facts))
        self._joined = self._changed = True
        try:
            identity = self._service.start(wanted.request(*self._bring.there))
        except OutcomeUnknown as error:
            self._watch.say(f"{error.message} Looking whether it was started.", "WARNING")
            self.document.update(lost_at=datetime.now(UTC))
            return
        except ZdmError:
            self.document.update(ended=True, state="REFUSED")
            raise
        self.document.update(operation=identity)
        self._watch.say(f"Operation {identity} is started")

    def _adopt(self, decision: Decision) -> None:
        own = _of(decision)
        self.document.update(operation=own.id, started_at=own.started_at)
        self._watch.say(f"Going on with {own.shown}")

    def _look(self, _decision: Decision) -> None:
        self._watch.pause()

    def _forget(self, _decision: Decision) -> None:
        self.document.update(ended=True, state="NEVER_STARTED")

    def _await(self, decision: Decision) -> None:
        """Poll until the operation's state is another one."""
        self._joined = True
        if decision.reason:
            self._watch.say(f"Waiting for the end of operation {_of(decision).id}: {decision.reason}")
        self._until(_of(decision), lambda state: state != RUNNING)

    # -- actions ----------------------------------------------------------------------------------

    def _resume(self, decision: Decision) -> None:
        if self._idle.stop():
            self._act(decision, _of(decision))

    def _retry(self, decision: Decision) -> None:
        own = self._watch.read(_of(decision).id)
        kind, left = f" of {own.error_type.lower()}" if own.error_type else "", self._goal.retries
        # the service's words are in the log, and at the end when it is of no use
        self._watch.say(f"Retrying after an error{kind}, {left} time{'s' if left > 1 else ''} at most", "WARNING")
        self._goal = replace(self._goal, retries=left - 1)
        self._act(decision, own)

    def _abort(self, decision: Decision) -> None:
        """Abort what is as it was when that was decided, and has not begun to switch routes."""
        self._service.prepare()  # so that the request follows the last look at once
        own, attempt = self._watch.read(_of(decision).id), self.document.attempt
        if own.state != _of(decision).state:
            return
        split = self._presence.split()
        if split and not self._goal.abort_switched:
            if self._goal.state != to.AS_ABORTED and own.state == ERROR:
                self.document.update(resumed=True)
                return
            raise Refused(
                f"Two versions are behind {', '.join(split)}: the {own.shown} is switching, or was interrupted.",
                to.SWITCHED.format(attempt.end_state if attempt else to.AS_DEPLOYED),
                operation=own.facts(),
                split=split,
            )
        earlier = not self._joined and attempt is not None and attempt.requested == to.ABORT
        if self._goal.state != to.AS_ABORTED and not earlier:
            self._why = self._why or decision.reason
            self._watch.save_logs(own.id)
        self._act(decision, own, joined=not earlier)  # What an earlier run has decided is no failure of this one.

    def _act(self, decision: Decision, own: Operation, *, joined: bool = True) -> None:
        self._changed, self._joined = True, joined
        before = self.document.ask(decision.step, resumed=decision.step == to.RESUME)
        self._watch.say(
            f"{decision.step.capitalize()} of operation {own.id}{f': {decision.reason}' if decision.reason else ''}"
        )
        try:
            done = self._service.act(own.id, decision.step)
        except Refused:  # nothing was done, so nothing was asked for
            self.document.keep(before)
            self._idle.take_back()
            raise
        if not done:
            self._watch.pause()
            return
        limit = self._wanted.settle_ms if decision.step != to.ABORT else self._wanted.timeout_ms
        self._until(own, lambda state: state != own.state, limit)

    def _until(self, own: Operation, reached: Callable[[str], bool], limit_ms: int | None = None) -> None:
        def look() -> bool:
            self.sight.own = self._watch.read(own.id)
            return reached(self.sight.own.state)

        self._watch.wait(look, limit_ms)

    # -- ends -------------------------------------------------------------------------------------

    def _settle(self, decision: Decision) -> Result | None:
        own = self._watch.read(_of(decision).id)
        if own.active:
            return None
        attempt = self.document.attempt
        if own.state == FINISHED and attempt:
            self.document.went_live(own.state, own.started_at)
            if self._goal.state != to.AS_ABORTED and self._goal.fingerprint == attempt.fingerprint:
                self._changed = True
                return self._result(OUTCOMES.get(attempt.type) or deployed(first=attempt.first), own)
            if self._goal.state == to.AS_ABORTED and attempt.may_switch:
                raise Refused(
                    f"The {own.shown} has ended meanwhile: {attempt.brought}.",
                    "Test it; to go back, deploy the archive that was live before.",
                    **self._results.details(own),
                )
            return None
        if own.state == ABORTED and not self._wanted.removes_leftovers:
            self._idle.take_back(aborted=True)
        self.document.update(ended=True, state=own.state or "UNKNOWN")
        if own.state == ABORTED:
            self._aborted(own)
        elif self._joined:
            advice = "Look with cf mtas what is deployed, then run the same command again: it starts afresh."
            raise OutcomeUnknown(
                f"The deploy service knows operation {own.id} no longer.", advice, **self._results.details(own)
            )
        return None

    def _aborted(self, own: Operation) -> None:
        """Tell an abort that nobody has asked this run for."""
        if self._goal.state == to.AS_ABORTED or not self._joined:
            return
        if not self._watch.logs:
            self._watch.save_logs(own.id)
        details = self._results.details(own)
        details["removed"] = self._remove()
        raise abortion(own, self._why, self._watch.failed, self.document.attempt, self._results.left(details), details)

    def _refuse(self, decision: Decision) -> None:
        raise self._results.refusal(decision)

    def _fail(self, decision: Decision) -> None:
        own = self._watch.read(_of(decision).id)
        self._watch.save_logs(own.id)
        raise failure(decision.reason, own, self.document.attempt, self._watch.logs, self._results.details(own))

    def _done(self, decision: Decision) -> Result:
        own = decision.operation or Operation("")
        if own.id:
            self._idle.take_back()
            own = self._watch.read(own.id)
            self.document.update(told=self._watch.told)
            self._warn_deadline()
        removed: list[str] = []
        if self._goal.state == to.AS_ABORTED:
            removed = self._remove()
            self._changed = self._changed or bool(removed)
        return self._result(self._results.outcome(decision), own, removed)

    def _warn_deadline(self) -> None:
        attempt = self.document.attempt
        if attempt and to.deadline_passed(self._goal, attempt, datetime.now(UTC)):
            self._watch.say("The testing phase is longer than testing_deadline; it was left as it is.", "WARNING")

    def _away(self, error: Away) -> None:
        """An API that is away for a while stops nothing where our operation goes on.

        :raises Away: there is none.
        """
        attempt = self.document.attempt
        if attempt is None or not attempt.operation or (attempt.ended and not self._joined):
            raise error
        self._watch.say(f"{error.message} The operation goes on; asking again.", "WARNING")
        self._watch.pause()

    def _remove(self) -> list[str]:
        """Delete the leftovers if that was asked for, and nobody has begun to use them meanwhile."""
        if not self._wanted.removes_leftovers:
            return []
        busy = self._presence.busy()
        if busy:
            self._watch.say(f"Leftovers stay: {busy.shown} is under way.", "WARNING")
            return []
        return self._cloud.remove(self._presence.leftovers())

    def _result(self, outcome: str, own: Operation, removed: Sequence[str] = ()) -> Result:
        self._note_upgrade(outcome)
        return self._results.make(outcome, own, removed, changed=self._changed)

    def _note_upgrade(self, outcome: str) -> None:
        """Write what the caller knows of the tenants' upgrade; nothing begins in a testing phase that is over."""
        attempt, noted, state = self.document.attempt, self._goal.upgrade, self._goal.state
        ours = attempt is not None and attempt.fingerprint == self._goal.fingerprint
        if noted and ours and (noted == UPGRADE_DONE or state != to.AS_TESTING or outcome == state):
            self.document.update(upgrade=noted)


def _of(decision: Decision) -> Operation:
    if decision.operation is None:
        raise ValueError(f"{decision.step} without an operation")
    return decision.operation
