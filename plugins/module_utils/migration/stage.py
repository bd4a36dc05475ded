# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stage: all work that can be done while the tenant is served, before a window and between two, and its way
back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.migration.claims import Claims, claims_of
from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import (
    CLOSED,
    UNDOING,
    Journal,
    begins_again,
)
from ansible_collections.zdm.landscape.plugins.module_utils.migration.mapping import Parties
from ansible_collections.zdm.landscape.plugins.module_utils.migration.plan import Plan
from ansible_collections.zdm.landscape.plugins.module_utils.migration.preflight import expect_idle
from ansible_collections.zdm.landscape.plugins.module_utils.migration.throttle import Throttle, lift
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    ABSENT,
    CAREFUL,
    Care,
    Move,
    Participant,
    Progress,
    Status,
    untold,
)
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import Store

FOLLOW_MS = 600_000
"""How long (milliseconds) the log of one participant is applied while its tenant is busy; the rest is the next call's.
"""


@dataclass(frozen=True)
class Staged:
    """What a call of :func:`stage` did, per participant."""

    copied: dict[str, int] = field(default_factory=dict)
    applied: dict[str, int] = field(default_factory=dict)


def is_staged(journal: Journal, parties: Parties, participants: Sequence[Participant]) -> bool:
    """Whether every participant is ready for a window and the journal says so."""
    return bool(journal.body.get("staged")) and all(
        status.ready for status in _statuses(journal, parties, participants)
    )


def _statuses(journal: Journal, parties: Parties, participants: Sequence[Participant]) -> list[Status]:
    return [participant.status(journal.key, parties.source.id, parties.target.id) for participant in participants]


@begins_again
def stage(
    store: Store,
    journal: Journal,
    parties: Parties,
    participants: Sequence[Participant],
    preflight: Callable[[], Plan],
    progress: Progress,
    *,
    care: Care = CAREFUL,
    force: bool = False,
    throttle: Throttle | None = None,
) -> Staged:
    """Make every participant ready for a window; a stage that was interrupted goes on where it was. Where all are
    ready, and no comparison is due, what was logged since is applied.

    :param preflight: raises to refuse, before anything is touched; returns the plan.
    :param progress: called between two chunks, and while the next one has to wait; what it raises ends the stage.
    :raises Refused: a window is open, the way back has ended, another run is alive, or the plan refuses.
    """
    journal.read()
    expect_idle(journal)
    journal.expect_way_back()
    if nothing_to_stage(journal, parties, participants, care):
        return Staged(applied=_follow(journal, parties, participants, progress, force, throttle))
    plan = preflight()
    claims = Claims(store, journal)
    claims.take(parties)
    copied: dict[str, int] = {}
    applied: dict[str, int] = {}
    with between_windows(journal, parties, force, claims) as move:
        journal.note(plan_digest=plan.digest, staged=False, progress={})
        for participant, inspection in zip(participants, plan.inspections, strict=True):
            participant.take_over(move)
            if participant.status(journal.key, parties.source.id, parties.target.id).ready:
                keys = participant.follow(move, FOLLOW_MS, between_chunks(journal, participant, progress, throttle))
                applied |= {participant.name: keys} if keys else {}
            rows = participant.stage(move, inspection, between_chunks(journal, participant, progress, throttle), care)
            progress({"participant": participant.name, "step": "staged", "rows": rows})
            copied[participant.name] = rows
        journal.note(staged=True, staged_at_ms=int(time.time() * 1000), progress={})
    return Staged(copied, applied)


def nothing_to_stage(journal: Journal, parties: Parties, participants: Sequence[Participant], care: Care) -> bool:
    """Whether every participant is ready and no comparison is due."""
    statuses = _statuses(journal, parties, participants)
    due = care.repair or not all(status.compared_within(care.compare_after_s) for status in statuses)
    return not due and bool(journal.body.get("staged")) and all(status.ready for status in statuses)


def pending(journal: Journal, parties: Parties, participants: Sequence[Participant]) -> dict[str, int]:
    """Logged keys that are not applied yet, of the participants that have any."""
    found = {
        participant.name: participant.status(journal.key, parties.source.id, parties.target.id).pending
        for participant in participants
    }
    return {name: keys for name, keys in found.items() if keys}


def _follow(
    journal: Journal,
    parties: Parties,
    participants: Sequence[Participant],
    progress: Progress,
    force: bool,
    throttle: Throttle | None,
) -> dict[str, int]:
    """Apply what is logged, where anything is. Nothing is touched when nothing is logged."""
    todo = pending(journal, parties, participants)
    return (
        {
            name: keys
            for name, keys in catch_up(journal, parties, participants, progress, force, throttle).items()
            if name in todo
        }
        if todo
        else {}
    )


@begins_again
def catch_up(
    journal: Journal,
    parties: Parties,
    participants: Sequence[Participant],
    progress: Progress = untold,
    force: bool = False,
    throttle: Throttle | None = None,
    unverified: str = "",
) -> dict[str, int]:
    """Apply what is logged of the live id, so that no window has to: after weeks of a transition that is a lot. Keys
    per participant.

    :param unverified: why the next window goes without a recent comparison; kept in the journal.
    """
    journal.read()
    expect_idle(journal)
    applied = {}
    with between_windows(journal, parties, force) as move:
        begin = time.monotonic()
        for participant in participants:
            # all of them: a window under an older epoch must be refused everywhere or nowhere
            participant.take_over(move)
            applied[participant.name] = participant.follow(
                move, FOLLOW_MS, between_chunks(journal, participant, progress, throttle)
            )
            if applied[participant.name]:
                progress({"participant": participant.name, "step": "followed", "rows": applied[participant.name]})
        measured = {"followed": {"keys": sum(applied.values()), "ms": round((time.monotonic() - begin) * 1000)}}
        why = {"unverified": {"reason": unverified, "at_ms": int(time.time() * 1000)}} if unverified else {}
        journal.note(progress={}, **(measured if any(applied.values()) else {}), **why)
    return applied


@begins_again
def remove(
    store: Store,
    journal: Journal,
    parties: Parties,
    participants: Sequence[Participant],
    progress: Progress = untold,
    *,
    force: bool = False,
    throttle: Throttle | None = None,
) -> bool:
    """Take the stage back and give the claims back: all is as before the migration. Returns whether anything was there.

    :raises Refused: a window is open, the target is live, or the way back has ended.
    """
    journal.read()
    expect_idle(journal)
    journal.expect_way_back()
    if journal.canonical != parties.source.id:
        raise Refused(
            f"{parties.target.subdomain} is live: there is no stage to take back.", "Run zdm.landscape.reverse first."
        )
    absent = all(status.state == ABSENT for status in _statuses(journal, parties, participants))
    if not claims_of(store, journal) and not journal.body.get("staged") and absent:
        return False
    claims = Claims(store, journal)
    claims.take(parties)
    with between_windows(journal, parties, force, claims) as move:
        journal.note(staged=False, plan_digest="", progress={})
        for participant in participants:
            participant.take_over(move)
            participant.remove(move, between_chunks(journal, participant, progress, throttle))
        lift(store, journal.key)
        claims.give_back()
        journal.note(progress={})
    return True


def rewrite(
    journal: Journal, parties: Parties, participants: Sequence[Participant], epoch: int, to_id: str, timeout_ms: int
) -> bool:
    """Only the participants' part of a window that another process drives: the rows stand under *to_id* afterwards.

    :param epoch: the epoch of the open window; the caller must know it.
    :raises Refused: the journal does not show these tenants drained and closed under this epoch.
    """
    journal.read()
    body = journal.body
    back = journal.phase == UNDOING and body.get("from") == to_id
    if body.get("epoch") != epoch or not (
        back or (journal.phase == CLOSED and body.get("drained_epoch") == epoch and body.get("to") == to_id)
    ):
        raise Refused(
            f"The journal {journal.key} (phase {journal.phase}, epoch {body.get('epoch', 0)}) does not show these"
            f" tenants drained and closed under epoch {epoch}.",
            "Rows are only rewritten inside a window: run zdm.landscape.migrate or zdm.landscape.reverse.",
        )
    move = Move(journal.key, epoch, parties.source.id, parties.target.id, body["from"], body["to"])
    for participant in participants:
        if back:
            participant.undo(move)
        else:
            participant.barrier(move, timeout_ms)
    return True


@contextmanager
def between_windows(journal: Journal, parties: Parties, force: bool, claims: Claims | None = None) -> Iterator[Move]:
    """Own the migration while no window is open: its live id stays live. Gives the move to the other one.

    :param journal: as it was read when the caller found it idle.
    :raises Refused: another run is alive.
    :raises Beaten: the journal is not any more as it was read.
    """
    live = journal.canonical
    retired = parties.target.id if live == parties.source.id else parties.source.id
    with claims.given_back_without_the_migration() if claims else nullcontext():
        journal.take_over(open_window=False, move_from=live, move_to=retired, force=force)
    try:
        with journal.heartbeat():
            if claims:
                claims.confirm(parties)
            yield Move(journal.key, journal.epoch, parties.source.id, parties.target.id, live, retired)
    finally:
        journal.release_owner()


def between_chunks(
    journal: Journal, participant: Participant, progress: Progress, throttle: Throttle | None
) -> Progress:
    """The progress that a participant gets: it ends the work of a run that was taken over, tells, and waits for the
    limits.
    """
    return partial(_between_chunks, journal, participant, progress, throttle)


def _between_chunks(
    journal: Journal, participant: Participant, progress: Progress, throttle: Throttle | None, entry: dict[str, Any]
) -> None:
    def tell() -> None:
        if journal.lost:
            raise journal.lost
        progress(entry)

    tell()
    if throttle:
        throttle.wait(participant, entry, tell)
