# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings a deployment to its end state: does the step that :mod:`deployment_decision` decides, until none is left."""

from __future__ import annotations

import time
from collections.abc import Callable
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
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.decision import (
    Decision,
    Goal,
    check_previous,
    decide,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.document import (
    UPGRADE_DONE,
    Attempt,
    DeploymentDocument,
    Place,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.idle import IdleStop
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.presence import Presence
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.request import Wanted
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.result import (
    OUTCOMES,
    PREDICTED,
    Result,
    Results,
    abortion,
    deployed,
    failure,
    last_words,
)
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
        self._results = Results(wanted, self.document, self._presence, self._watch)
        self._changed = self._joined = self._predicts = False
        self._why = ""
        self._seen = Operation("")
        self._operations: list[Operation] = []

    def run(self) -> Result:
        """Go on until the end state is reached.

        :raises Refused: a rule of safety forbids the next step; nothing was changed by it.
        :raises DeploymentFailed: the operation has stopped with an error, or somebody else has aborted it.
        :raises Conflict: another run is at work on this MTA.
        :raises Timeout: it takes longer than allowed; the same command goes on. Or the testing phase did, and was
            aborted.
        """
        self._begin()
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
                decision = self._decide()
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
                    **self._results.details(self._seen),
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
        state = self._goal.state
        result = self._result(state, decision.operation or Operation(""))
        if decision.step == to.DONE:
            result.outcome = self._outcome(decision)
            result.changed = (
                self._goal.state == to.AS_ABORTED
                and self._removes
                and any(not leftover.kept for leftover in self._presence.leftovers())
            )
        elif decision.step in (to.START, to.FORGET):
            self._check_start()
            first = self._results.before is None
            result.outcome = OUTCOMES.get(self._wanted.process_type) or (deployed(first=True) if first else state)
        text = PREDICTED.get(decision.step, "does nothing").format(
            decision.operation.shown if decision.operation else ""
        )
        return result, f"{self.place.mta_id}: {text}{f', as {decision.reason}' if decision.reason else ''}."

    def _begin(self) -> None:
        self.document.read()
        self._results.before = self._presence.versions()

    def _decide(self, *, note: bool = True) -> Decision:
        operations = self._presence.operations()
        attempt = self.document.attempt
        pending = attempt.operation if attempt and not attempt.ended else ""
        if pending:
            # the list tells neither messages nor why an operation has stopped, and forgets what has ended
            listed = next((operation for operation in operations if operation.id == pending), None)
            if listed is None or listed.state == ERROR:
                own = self._service.operation(pending)
                others = [operation for operation in operations if operation.id != pending]
                operations = [*others, own] if own.state else others
        self._operations = operations
        now = datetime.now(UTC)
        own = next((operation for operation in operations if operation.id == pending), Operation(""))
        if attempt and own.active:
            self._watch.told = max(self._watch.told, attempt.told)
            attempt = to.seen(attempt, own, now)
            if note:
                self.document.keep(replace(attempt, told=self._watch.told))
        self._seen = own
        return decide(self._goal, attempt, operations, now, live=self._is_live(operations))

    def _is_live(self, operations: list[Operation]) -> bool:
        """Whether what is wanted came by us, is what the space has, and nobody has deployed anything since."""
        live, attempt = self.document.live, self.document.attempt
        if self._goal.state == to.AS_ABSENT:
            return self._results.before is None
        if self._goal.state == to.AS_PREVIOUS:
            return attempt is not None and attempt.type == ROLLBACK and attempt.operation == live.get("operation")
        return self.document.is_live(self._goal.fingerprint, self._results.before or (), operations)

    # -- starting ---------------------------------------------------------------------------------

    def _start(self, _decision: Decision) -> None:
        """Upload first, and decide again, as an upload takes time; then write what is asked for, and ask once."""
        wanted = self._wanted
        self._check_start()
        if self._bring.there is None:
            self._bring.upload()
            return
        facts = {
            "type": wanted.process_type,
            "cf_user": self._cloud.target.user,
            "seen": frozenset(operation.id for operation in self._operations),
            "first": self._results.before is None,
            "kept": bool(wanted.params.get("keep_previous")),
        }
        archive = wanted.archive.facts() if wanted.archive else self.document.previous.get("archive") or {}
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

    def _check_start(self) -> None:
        if self._goal.state == to.AS_PREVIOUS:
            check_previous(self.document, self._goal, deployed=self._results.before is not None)

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
        self._until(_of(decision), lambda state: state != RUNNING)

    # -- actions ----------------------------------------------------------------------------------

    def _resume(self, decision: Decision) -> None:
        if self._idle.stop():
            self._act(decision, _of(decision))

    def _retry(self, decision: Decision) -> None:
        own = self._watch.read(_of(decision).id)
        self._watch.say(f"Retrying, {self._goal.retries} times at most: {last_words(own)}", "WARNING")
        self._goal = replace(self._goal, retries=self._goal.retries - 1)
        self._act(decision, _of(decision))

    def _abort(self, decision: Decision) -> None:
        own, attempt = _of(decision), self.document.attempt
        split = self._presence.split()
        if split and not self._goal.abort_switched:
            raise Refused(
                f"Two versions are behind {', '.join(split)}: the {own.shown} is switching, or was interrupted.",
                to.SWITCHED,
                operation=own.facts(),
                split=split,
            )
        earlier = not self._joined and attempt is not None and attempt.requested == to.ABORT
        if self._goal.state != to.AS_ABORTED and not earlier:
            self._why = self._why or decision.reason
            self._watch.read(own.id)
            self._watch.save_logs(own.id)
        self._act(decision, own, joined=not earlier)  # What an earlier run has decided is no failure of this one.

    def _act(self, decision: Decision, own: Operation, *, joined: bool = True) -> None:
        self._changed, self._joined = True, joined
        self.document.ask(decision.step, resumed=decision.step == to.RESUME)
        self._watch.say(
            f"{decision.step.capitalize()} of operation {own.id}{f': {decision.reason}' if decision.reason else ''}"
        )
        if not self._service.act(own.id, decision.step):
            self._watch.pause()
            return
        limit = self._wanted.settle_ms if decision.step != to.ABORT else self._wanted.timeout_ms
        self._until(own, lambda state: state != own.state, limit)

    def _until(self, own: Operation, reached: Callable[[str], bool], limit_ms: int | None = None) -> None:
        def look() -> bool:
            self._seen = self._watch.read(own.id)
            return reached(self._seen.state)

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
            if self._goal.state == to.AS_ABORTED and attempt.resumed:
                raise Refused(
                    f"The {own.shown} has ended meanwhile: {attempt.archive.get('name')} is live.",
                    "Test it; to go back, deploy the archive that was live before.",
                    **self._results.details(own),
                )
            return None
        if own.state == ABORTED and not self._removes:
            self._idle.take_back()
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
        own, attempt = decision.operation, self.document.attempt
        by = self.document.changed_by() if attempt is None or attempt.ended else ""
        if by:
            raise self.document.at_work(by)
        raise Refused(decision.reason, decision.advice, **({"operation": own.facts()} if own else {}))

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
        return self._result(self._outcome(decision), own, removed)

    def _outcome(self, decision: Decision) -> str:
        attempt = self.document.attempt
        if self._goal.state == to.AS_ABORTED:
            return "aborted" if attempt and attempt.state == ABORTED else "absent"
        return "testing" if decision.operation else "unchanged"

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

    @property
    def _removes(self) -> bool:
        return bool(self._wanted.params.get("remove_leftovers"))

    def _remove(self) -> list[str]:
        """Delete the leftovers if that was asked for, and nobody has begun to use them meanwhile."""
        if not self._removes:
            return []
        busy = self._presence.busy()
        if busy:
            self._watch.say(f"Leftovers stay: {busy.shown} is under way.", "WARNING")
            return []
        return self._cloud.remove(self._presence.leftovers())

    def _result(self, outcome: str, own: Operation, removed: list[str] | None = None) -> Result:
        return self._results.make(outcome, own, removed or [], self._upgrade(outcome), changed=self._changed)

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
