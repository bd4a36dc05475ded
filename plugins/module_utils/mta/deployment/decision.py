# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one legal next step of a deployment, decided from our document and the operations that the service shows. Nothing
is done here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ansible_collections.zdm.landscape.plugins.module_utils.core.durations import format_ms
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.deploy_service import (
    CONTENT,
    ERROR,
    ROLLBACK,
    RUNNING,
    TESTING,
    Operation,
    instant,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.document import (
    UPGRADE_BEGUN,
    UPGRADE_DONE,
    Attempt,
    DeploymentDocument,
)

START, ADOPT, LOOK, FORGET = "start", "adopt", "look", "forget"
WAIT, RESUME, RETRY, ABORT = "wait", "resume", "retry", "abort"
SETTLE, DONE, REFUSE, FAIL = "settle", "done", "refuse", "fail"

AS_TESTING, AS_DEPLOYED, AS_ABORTED = "testing", "deployed", "aborted"
AS_PREVIOUS, AS_ABSENT = "previous", "absent"
SWITCHED = (
    "Mend the cause, and go on with state {} and on_error retry. An abort with abort_switched leaves both"
    " versions behind the routes that are switched, and the next deployment deletes the old one at its start."
)
"""What to do about an operation that has begun to switch routes, with the state that goes on with it."""
_BEFORE = {"resume": ", after cf stop of every application whose name ends with -idle"}
"""What else to do for an action by hand: a resume loses requests while idle applications run."""
SKEW = timedelta(minutes=5)
"""How far the service's clock may be behind ours."""


@dataclass(frozen=True)
class Goal:
    """What the caller wants.

    :param fingerprint: of archive, extension descriptors and choice; empty when an abort names the MTA only.
    :param retries: how often an operation that has stopped with an error may still be retried. One whose cause lies
        in what is deployed (CONTENT) is retried only with *retry_content*, or when nothing else is left.
    """

    state: str
    fingerprint: str = ""
    retries: int = 0
    retry_content: bool = False
    abort_on_error: bool = False
    deadline_ms: int = 3_600_000
    abort_on_deadline: bool = True
    abort_upgraded: bool = False
    """Whether to abort although tenants are upgraded."""
    abort_switched: bool = False
    """Whether to abort although routes are being switched."""
    settle_ms: int = 20_000
    """How long an operation may take to be seen after its start request was sent, or after the answer to it was lost.
    """
    resume_settle_ms: int = 20_000
    """How long an operation may still be in its testing phase after its resume was sent, which then never arrived."""
    upgrade: str = ""
    """What the caller knows of the upgrade of the tenants."""
    operation: str = ""
    """The only operation to go on with; none is started then."""


@dataclass(frozen=True)
class Decision:
    """The step, the operation it is about, and why; ``advice`` goes with a refusal."""

    step: str
    operation: Operation | None = None
    reason: str = ""
    advice: str = ""


def decide(
    goal: Goal, attempt: Attempt | None, operations: Sequence[Operation], now: datetime, *, live: bool
) -> Decision:
    """The next step.

    :param attempt: our last one in the document, ended or not.
    :param operations: all of this MTA and namespace that the service still knows.
    :param live: whether what the goal brings is live already, and came by us.
    """
    if attempt is None or attempt.ended:
        return _without_operation(goal, attempt, operations, live)
    if not attempt.operation:
        return _lost_start(goal, attempt, operations, now)
    own = next(
        (operation for operation in operations if operation.id == attempt.operation), Operation(attempt.operation)
    )
    if not own.active:
        return Decision(SETTLE, own)
    if goal.operation and goal.operation != own.id:
        reason = f"Operation {goal.operation} has ended, and the {own.shown} is another one."
        return Decision(REFUSE, own, reason, "Run the whole command again: it tests that one.")
    if goal.fingerprint and goal.fingerprint != attempt.fingerprint:
        return _another(attempt, own)
    return _own(goal, attempt, own, now)


def check_previous(document: DeploymentDocument, goal: Goal, *, deployed: bool, known: bool) -> None:
    """Whether the version before may come back.

    :param known: whether what is live came by us, so that the document tells how far its tenants are.
    :raises Refused: the MTA is not deployed, the version was not kept, or tenants were upgraded since.
    """
    live, mta_id = document.live, document.place.mta_id
    if not deployed:
        raise Refused(
            f"The MTA {mta_id} is not deployed here.", "Correct mta_id; mta_operation_info lists what is deployed."
        )
    other = "Deploy the archive of the version before with version_rule ALL"
    if live and not live.get("kept"):
        raise Refused(f"The version before of {mta_id} was not kept.", f"{other}; keep_previous keeps the next one.")
    upgraded = "Tenants were upgraded" if live.get("upgrade") else "" if known else "Tenants may have been upgraded"
    if upgraded and not goal.abort_upgraded:
        raise Refused(
            f"{upgraded} since the version before of {mta_id}, which may not fit them.",
            "When it works for the upgraded tenants, use abort_upgraded.",
        )


def seen(attempt: Attempt, own: Operation, now: datetime) -> Attempt:
    """The attempt with what is seen of its operation. One that has left its testing phase was resumed, by whomever."""
    since = attempt.testing_since or (now if own.state == TESTING else None)
    left = attempt.testing_since is not None and own.state in (RUNNING, ERROR) and attempt.requested != ABORT
    return replace(
        attempt, started_at=own.started_at, state=own.state, testing_since=since, resumed=attempt.resumed or left
    )


def candidates(attempt: Attempt, operations: Iterable[Operation]) -> list[Operation]:
    """The operations that our start request may have started: of our user and type, unknown before it was sent, and not
    older.
    """
    earliest = attempt.at - SKEW
    return [
        operation
        for operation in operations
        if operation.id not in attempt.seen
        and operation.type == attempt.type
        and (not attempt.cf_user or operation.user == attempt.cf_user)
        and (instant(operation.started_at) or attempt.at) >= earliest
    ]


def deadline_passed(goal: Goal, attempt: Attempt, now: datetime) -> bool:
    return attempt.testing_since is not None and now - attempt.testing_since > timedelta(milliseconds=goal.deadline_ms)


def _without_operation(goal: Goal, attempt: Attempt | None, operations: Sequence[Operation], live: bool) -> Decision:
    """Somebody else's operation is never touched; one that has stopped without the MTA's lock is in nobody's way."""
    foreign = [operation for operation in operations if operation.holds]
    if foreign:
        other = foreign[0]
        advice = "\n".join(
            [
                f"Ask {other.user or 'its user'} to finish it, or end it yourself with the cf CLI:",
                *(f"- cf deploy -i {other.id} -a {action}{_BEFORE.get(action, '')}" for action in _possible(other)),
            ]
        )
        return Decision(
            REFUSE, other, f"The {other.shown} holds the MTA {other.mta_id} and is not ours; it is not touched.", advice
        )
    if goal.state == AS_ABORTED:
        return Decision(DONE)
    if live:
        return Decision(DONE, reason="it is live already")
    if goal.operation:
        end = f" ({attempt.state})" if attempt and attempt.operation == goal.operation else ""
        reason = f"Operation {goal.operation} has ended{end}, and not by us."
        return Decision(REFUSE, None, reason, "Ask who ended it, then run the whole command again: it starts afresh.")
    return Decision(START)


def _possible(operation: Operation) -> tuple[str, ...]:
    return {RUNNING: ("abort",), ERROR: ("retry", "abort"), TESTING: ("resume", "abort")}.get(operation.state, ())


def _lost_start(goal: Goal, attempt: Attempt, operations: Sequence[Operation], now: datetime) -> Decision:
    found = candidates(attempt, operations)
    if len(found) > 1:
        names = "; ".join(operation.shown for operation in found)
        advice = (
            "Look which of them is ours (its messages name the archive's version), end the others with the cf CLI, then"
            " run it again."
        )
        return Decision(
            REFUSE,
            found[0],
            f"The answer to our start request was lost and {len(found)} operations may be ours: {names}.",
            advice,
        )
    if found:
        return Decision(ADOPT, found[0])
    young = now - (attempt.lost_at or attempt.at) < timedelta(milliseconds=goal.settle_ms)
    return Decision(LOOK if young else FORGET)


def _another(attempt: Attempt, own: Operation) -> Decision:
    """Something else is under way, by a run of ours that is at work or has died."""
    name, by = attempt.archive.get("name"), f"which the run {attempt.by or 'of an earlier version'} has started"
    reason = f"Another archive or other extension descriptors ({name}) are in {own.shown}, {by}."
    finish = "deploy that archive with state deployed"
    if attempt.end_state != "deployed":
        reason, finish = f"The {own.shown} is under way, {by}.", f"use state {attempt.end_state}"
    choices = [
        "Let it end first, then run the same command again. When that run is not at work any more, choose:",
        f"- finish it: {finish}",
        "- abort it with state aborted and its mta_id",
    ]
    return Decision(REFUSE, own, reason, "\n".join(choices))


def _own(goal: Goal, attempt: Attempt, own: Operation, now: datetime) -> Decision:
    if goal.state == AS_ABORTED:
        return _aborting(goal, attempt, own, now)
    if own.state == RUNNING:
        return Decision(WAIT, own)
    if own.state == TESTING:
        return _testing(goal, attempt, own, now)
    if goal.retries > 0 and (
        own.error_type != CONTENT or goal.retry_content or (attempt.resumed and goal.abort_on_error)
    ):
        return Decision(RETRY, own)
    if goal.abort_on_error and not attempt.resumed and not attempt.upgrade and attempt.type != ROLLBACK:
        return Decision(ABORT, own, "it has stopped with an error")
    kind = f" of {own.error_type.lower()}" if own.error_type not in ("", CONTENT) else ""
    return Decision(FAIL, own, f"The {own.shown} has stopped with an error{kind}.")


def _aborting(goal: Goal, attempt: Attempt, own: Operation, now: datetime) -> Decision:
    """Once a resume was sent its end is awaited: the service executes it before it tells so, and takes an abort in the
    middle of a switch, which leaves two versions behind one route. What has no testing phase is awaited, too; once it
    has stopped with an error its routes tell, except those of a rollback.
    """
    if attempt.may_switch and not goal.abort_switched:
        if own.state == RUNNING:
            return Decision(WAIT, own, "it may be switching routes; abort_switched aborts it all the same")
        if own.state == TESTING and now - (attempt.asked_at or attempt.at) < timedelta(
            milliseconds=goal.resume_settle_ms
        ):
            return Decision(LOOK, own)
        if own.state == ERROR and (attempt.resumed or attempt.type == ROLLBACK):
            reason = f"The {own.shown} has stopped while routes were being switched."
            return Decision(REFUSE, own, reason, SWITCHED.format(attempt.end_state))
    if attempt.upgrade and not goal.abort_upgraded:
        reason = (
            f"Tenants are upgraded for the version in {own.shown}; the version that is live may not fit their schema."
        )
        return Decision(
            REFUSE,
            own,
            reason,
            "Go on with state deployed; or, when live works for the upgraded tenants, abort with abort_upgraded.",
        )
    return Decision(ABORT, own, "it was asked for")


def _testing(goal: Goal, attempt: Attempt, own: Operation, now: datetime) -> Decision:
    """No resume while a job may be upgrading tenants. What was asked for before is asked for again: it may be on its
    way.
    """
    if attempt.upgrade == UPGRADE_BEGUN and goal.upgrade != UPGRADE_DONE:
        if goal.state == AS_TESTING:
            return Decision(DONE, own)
        reason = (
            f"The upgrade of tenants for the version in {own.shown} has begun and is not known to be done; a job may"
            " still run."
        )
        return Decision(
            REFUSE,
            own,
            reason,
            "Upgrade the tenants again, which waits for such a job, then use state deployed with upgrade done.",
        )
    if attempt.resumed:
        return Decision(RESUME, own)
    if attempt.requested == ABORT and not attempt.upgrade:
        return Decision(ABORT, own, "an earlier run has asked for it")
    if goal.abort_on_deadline and not attempt.upgrade and deadline_passed(goal, attempt, now):
        return Decision(ABORT, own, f"its testing phase is longer than {format_ms(goal.deadline_ms)}")
    return Decision(RESUME, own) if goal.state == AS_DEPLOYED else Decision(DONE, own)
