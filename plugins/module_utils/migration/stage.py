# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stage: all work that can be done while the tenant is served, and its way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import CLOSED, UNDOING, Journal
from ansible_collections.zdm.landscape.plugins.module_utils.migration.mapping import Parties, claim, unclaim
from ansible_collections.zdm.landscape.plugins.module_utils.migration.plan import Plan
from ansible_collections.zdm.landscape.plugins.module_utils.migration.preflight import expect_idle
from ansible_collections.zdm.landscape.plugins.module_utils.migration.throttle import Throttle, lift
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import ABSENT, STAGED, Move, Participant, Progress
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import CLAIMS, Store


def is_staged(journal: Journal, parties: Parties, participants: Sequence[Participant]) -> bool:
    """Whether every participant is ready for a window and the journal says so."""
    states = (participant.status(journal.key, parties.source.id, parties.target.id).state for participant in participants)
    return bool(journal.body.get("staged")) and all(state == STAGED for state in states)


def stage(
    store: Store,
    journal: Journal,
    parties: Parties,
    participants: Sequence[Participant],
    preflight: Callable[[], Plan],
    progress: Progress,
    *,
    force: bool = False,
    throttle: Throttle | None = None,
) -> dict[str, int]:
    """Stage every participant; a stage that was interrupted goes on where it was. Returns the rows copied per participant.

    :param preflight: raises to refuse, before anything is touched; returns the plan.
    :param progress: called between two chunks, and while the next one has to wait; what it raises ends the stage.
    :raises Refused: a window is open, another run is alive, or the plan refuses.
    """
    journal.read()
    expect_idle(journal)
    if is_staged(journal, parties, participants):
        return {}
    plan = preflight()
    claim(store, journal, parties)
    live = journal.canonical
    retired = parties.target.id if live == parties.source.id else parties.source.id
    journal.take_over(open_window=False, move_from=live, move_to=retired, force=force)
    copied = {}
    try:
        with journal.heartbeat():
            journal.note(plan_digest=plan.digest, staged=False, progress={})
            move = _move(journal, parties)
            for participant, inspection in zip(participants, plan.inspections, strict=True):
                participant.take_over(move)
                rows = participant.stage(move, inspection, partial(_between_chunks, journal, participant, progress, throttle))
                progress({"participant": participant.name, "step": "staged", "rows": rows})
                copied[participant.name] = rows
            journal.note(staged=True, progress={})
    finally:
        journal.release_owner()
    return copied


def remove(store: Store, journal: Journal, parties: Parties, participants: Sequence[Participant], *, force: bool = False) -> bool:
    """Take the stage back and give the claims back: all is as before the migration. Returns whether anything was there.

    :raises Refused: a window is open, or the target is live.
    """
    journal.read()
    expect_idle(journal)
    if journal.canonical != parties.source.id:
        raise Refused(f"{parties.target.subdomain} is live: there is no stage to take back.", "Run zdm.landscape.reverse first.")
    states = [participant.status(journal.key, parties.source.id, parties.target.id).state for participant in participants]
    claims = [document for document in store.list(CLAIMS) if document.body.get("migration") == journal.key]
    if not claims and not journal.body.get("staged") and all(state == ABSENT for state in states):
        return False
    claim(store, journal, parties)
    journal.take_over(open_window=False, move_from=parties.source.id, move_to=parties.target.id, force=force)
    try:
        with journal.heartbeat():
            journal.note(staged=False, plan_digest="", progress={})
            move = _move(journal, parties)
            for participant in participants:
                participant.take_over(move)
                participant.remove(move)
            lift(store, journal.key)
            unclaim(store, journal)
    finally:
        journal.release_owner()
    return True


def rewrite(journal: Journal, parties: Parties, participants: Sequence[Participant], epoch: int, to_id: str, timeout_ms: int) -> bool:
    """Only the participants' part of a window that another process drives: the rows stand under *to_id* afterwards.

    :param epoch: the epoch of the open window; the caller must know it.
    :raises Refused: the journal does not show these tenants drained and closed under this epoch.
    """
    journal.read()
    body = journal.body
    back = journal.phase == UNDOING and body.get("from") == to_id
    if body.get("epoch") != epoch or not (back or (journal.phase == CLOSED and body.get("drained_epoch") == epoch and body.get("to") == to_id)):
        raise Refused(
            f"The journal {journal.key} (phase {journal.phase}, epoch {body.get('epoch', 0)}) does not show these tenants "
            f"drained and closed under epoch {epoch}.",
            "Rows are only rewritten inside a window: run zdm.landscape.migrate or zdm.landscape.reverse.",
        )
    move = Move(journal.key, epoch, parties.source.id, parties.target.id, body["from"], body["to"])
    for participant in participants:
        if back:
            participant.undo(move)
        else:
            participant.barrier(move, timeout_ms)
    return True


def _between_chunks(journal: Journal, participant: Participant, progress: Progress, throttle: Throttle | None, entry: dict[str, Any]) -> None:
    def tell() -> None:
        if journal.lost:
            raise journal.lost
        progress(entry)

    tell()
    if throttle:
        throttle.wait(participant, entry, tell)


def _move(journal: Journal, parties: Parties) -> Move:
    return Move(journal.key, journal.epoch, parties.source.id, parties.target.id, journal.body["from"], journal.body["to"])
