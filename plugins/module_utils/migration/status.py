# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is true of a migration, read from every artefact, and the one command to run next. Changes nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.migration.claims import claims_of, holder_of
from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import (
    CLOSED,
    COMMITTED,
    FINISHED,
    GUARDIAN,
    IDLE,
    PHASES,
    STALE_MS,
    UNDOING,
    UNDONE,
    UNDONE_ALL,
    WINDOW,
    Journal,
    check_format,
)
from ansible_collections.zdm.landscape.plugins.module_utils.migration.mapping import Parties, aliases_of
from ansible_collections.zdm.landscape.plugins.module_utils.migration.owner import Owner
from ansible_collections.zdm.landscape.plugins.module_utils.migration.policy import Policy
from ansible_collections.zdm.landscape.plugins.module_utils.migration.progress import shown
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    ABSENT,
    COPY,
    IN_WINDOW,
    STAGED,
    STAGING,
    Participant,
    Status,
)
from ansible_collections.zdm.landscape.plugins.module_utils.router.base import RouterState
from ansible_collections.zdm.landscape.plugins.module_utils.router.fleet import Fleet
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import (
    CLAIMS,
    MIGRATIONS,
    ONBOARDED,
    Document,
    Store,
)
from ansible_collections.zdm.landscape.plugins.module_utils.tenants.tenant import Tenant

_DAY_MS = 86_400_000
_UNKNOWN_KEY_MS = 0.1
"""Per logged key, before any was applied; PostgreSQL and MariaDB were measured at 0.04 to 0.07."""


@dataclass
class MigrationStatus:
    """One migration as all artefacts show it."""

    migration: str
    phase: str
    epoch: int
    live: Tenant
    verdict: str = ""
    lost: str = "nothing"
    problems: list[str] = field(default_factory=list)
    next_command: str = ""
    needs_person: bool = False
    running: str = ""
    progress: dict[str, Any] = field(default_factory=dict)
    """How far the stage is that runs now, as its audit log says; empty when none does or nothing is known yet."""
    participants: list[Status] = field(default_factory=list)
    ended_by: dict[str, Any] = field(default_factory=dict)
    """How the last run ended when a guardian or a signal has ended it."""
    pending: dict[str, int] = field(default_factory=dict)
    """Logged keys that are not applied to the twins yet, by participant."""
    transition: dict[str, Any] = field(default_factory=dict)
    """While the target is live and the way back open, see :func:`_transition`; else empty."""
    finalized_at_ms: int = 0


def describe_end(end: Mapping[str, Any]) -> str:
    """One sentence on how a run ended that a guardian or a signal has ended; see :attr:`Journal.end`."""
    who = (
        "A run was killed in its window, and its guardian"
        if end["by"] == GUARDIAN
        else f"{end['by']} came to a run, which"
    )
    did = {FINISHED: "finished the window", UNDONE_ALL: "undid the window"}.get(
        end["outcome"], "could neither finish nor undo the window"
    )
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(end["at_ms"] / 1000))
    return f"{who} {did} (epoch {end['epoch']}, {when} UTC)."


def all_migrations(store: Store) -> list[tuple[Tenant, Tenant]]:
    """Source and target of every migration in the store; the key is never parsed."""
    result = []
    for document in store.list(MIGRATIONS):
        check_format(document)
        result.append((Tenant(**document.body["source"]), Tenant(**document.body["target"])))
    return result


def migration_status(
    store: Store,
    fleet: Fleet,
    participants: Sequence[Participant],
    source: Tenant,
    target: Tenant,
    transition_ms: int = Policy().transition_ms,
) -> MigrationStatus:
    """Read journal, claims, mapping documents, routers and participants, and compare them.

    An artefact that can't be read is a problem in the result, not an error; only the store must answer. Of a finalized
    migration nothing but its leftovers can be wrong: its tenants may have gone on to others.

    :param transition_ms: how long the way back is planned to stay open.
    """
    journal = Journal(store, source, target).read()
    live = source if journal.canonical == source.id else target
    status = MigrationStatus(journal.key, journal.phase, int(journal.body.get("epoch", 0)), live, ended_by=journal.end)
    status.finalized_at_ms = int(journal.body.get("finalized_at_ms", 0))
    parties = Parties(source, target, aliases_of(store, journal))
    owner = _alive(journal)
    for participant in participants:
        try:
            status.participants.append(participant.status(journal.key, source.id, target.id))
        except ZdmError as error:
            status.problems.append(f"{participant.name}: {error.message}")
            status.lost = "not known before every participant answers"
    try:
        states = fleet.states()
    except ZdmError as error:
        states = []
        status.problems.append(error.message)
    if owner:
        status.running = str(owner)
        status.progress = journal.body.get("progress") or {} if journal.phase == IDLE else {}
        status.problems = []
    elif status.finalized_at_ms:
        status.problems += [f"{document.path} is still this migration's." for document in claims_of(store, journal)]
        status.problems += [
            f"{entry.participant} is {entry.state}, expected {ABSENT}."
            for entry in status.participants
            if entry.state != ABSENT
        ]
    else:
        status.problems += _documents(store, journal, parties, live)
        status.problems += [problem for state in states for problem in _router(state, journal, parties)]
        status.problems += [problem for entry in status.participants for problem in _participant(entry, journal)]
    status.pending = {entry.participant: entry.pending for entry in status.participants if entry.pending}
    status.transition = _transition(journal, parties, sum(status.pending.values()), transition_ms)
    _conclude(status, journal, parties)
    return status


def _transition(journal: Journal, parties: Parties, pending: int, planned_ms: int) -> dict[str, Any]:
    """How far the transition is, and what a reverse would cost now.

    Nothing is measured for it: the window is taken from the last one, which had the same to do the other way round; the
    logged keys, which are applied before it, from the last call that applied some.
    """
    began = journal.body.get("committed_at_ms")
    if journal.phase != IDLE or journal.canonical != parties.target.id or journal.ended or not began:
        return {}
    windows = journal.body.get("windows") or [{}]
    window_ms = windows[-1].get("window_ms") or windows[-1].get("predicted_window_ms", 0)
    followed = journal.body.get("followed") or {}
    key_ms = followed["ms"] / followed["keys"] if followed.get("keys") else _UNKNOWN_KEY_MS
    left_days = (began + planned_ms - time.time() * 1000) / _DAY_MS
    return {
        "began_at_ms": began,
        "days_left": round(left_days, 1),
        "reverse_window_ms": window_ms,
        "catch_up_ms": round(pending * key_ms),
        "pending": pending,
    }


def _alive(journal: Journal) -> Owner | None:
    """The controller that drives the migration now; a stale heartbeat is nobody's."""
    if not journal.body.get("owner"):
        return None
    owner = Owner(**journal.body["owner"])
    fresh = time.time() * 1000 - journal.body["heartbeat_ms"] < STALE_MS
    return owner if fresh and not owner.is_dead() else None


def _documents(store: Store, journal: Journal, parties: Parties, live: Tenant) -> list[str]:
    problems = []
    documents: dict[str, Document] = {document.name: document for document in store.list(ONBOARDED)}
    for tenant in parties.all:
        document = documents.get(tenant.subdomain)
        expected = None if tenant == live else live.subdomain
        if document and not document.emptied and document.body.get("mapToTenant") != expected:
            problems.append(
                f"{document.path} leads to {document.body.get('mapToTenant') or 'itself'}, expected"
                f" {expected or 'itself'}."
            )
    if journal.phase != IDLE or journal.body.get("staged"):
        names = [tenant.subdomain for tenant in parties.all]
        lost = [name for name in names if holder_of(store.get(CLAIMS, name)) != journal.key]
        problems += [f"claims/{name} is not this migration's." for name in lost]
    return problems


def _router(state: RouterState, journal: Journal, parties: Parties) -> list[str]:
    problems = [] if state.ready else [f"{state.name} is not ready."]
    for tenant_id, expected in parties.overrides(journal.canonical).items():
        found = state.overrides.get(tenant_id)
        if found != expected:
            problems.append(f"{state.name} leads {tenant_id} to {found or 'itself'}, expected {expected or 'itself'}.")
    for tenant_id in parties.ids:
        block = state.blocks.get(tenant_id)
        if block and (block.far or block.until_ms > state.clock_ms):
            problems.append(
                f"{state.name} {'holds' if block.far else 'blocks'}"
                f" {tenant_id}{'' if block.far else ' until its lease ends'}."
            )
    return problems


def _participant(status: Status, journal: Journal) -> list[str]:
    problems = [f"{status.participant}: {problem}" for problem in (*status.problems, *status.unready)]
    if journal.body.get("finalizing"):
        return []
    expected = STAGED if journal.body.get("staged") else None
    if expected and status.state != expected:
        problems.append(f"{status.participant} is {status.state}, expected {expected}.")
    if status.state == STAGED and status.live_id != journal.canonical:
        problems.append(f"{status.participant} holds {status.live_id} to be live, the journal {journal.canonical}.")
    if status.state in IN_WINDOW:
        problems.append(f"{status.participant} refuses writes of both ids until the window is finished or undone.")
    return problems


def _conclude(status: MigrationStatus, journal: Journal, parties: Parties) -> None:
    if status.running:
        doing = "Staging" if status.progress.get("step") == COPY else "Deleting"
        staging = f" {doing} {shown(status.progress)}." if status.progress else ""
        driver = f"{PHASES[journal.phase]}, driven by {status.running} (epoch {status.epoch})"
        status.verdict = f"{driver}; {status.live.subdomain} is live.{staging}"
        return
    conclude = _at_rest if journal.phase == IDLE else _in_window
    status.verdict, command = conclude(status, journal, parties)
    status.needs_person = journal.phase != IDLE or bool(status.problems) or bool(journal.body.get("finalizing"))
    if status.ended_by:
        status.verdict += f" {describe_end(status.ended_by)}"
        if status.ended_by["outcome"] == UNDONE_ALL and not status.needs_person:
            command = "zdm.landscape.migrate" if journal.body["to"] == parties.target.id else "zdm.landscape.reverse"
    confirm = f" -e tenant_finalize_confirm={parties.source.subdomain}" if command == "zdm.landscape.finalize" else ""
    arguments = (
        f"-e migrate_db_from_tenant={parties.source.subdomain} -e migrate_db_to_tenant={parties.target.subdomain}"
    )
    status.next_command = f"ansible-playbook {command} {arguments}{confirm}" if command else ""


def _in_window(status: MigrationStatus, journal: Journal, parties: Parties) -> tuple[str, str]:
    """What is true of a window whose run has died, and the command that ends it."""
    live, epoch = status.live.subdomain, f"epoch {status.epoch}"
    command = _command(journal, parties, status.participants)
    if journal.phase == WINDOW:
        return f"A run died before the close ({epoch}); nothing was changed, {live} is live and served.", command
    if journal.phase == CLOSED:
        return f"A run died between close and commit ({epoch}); {live} is live and its requests are held.", command
    if journal.phase in (UNDOING, UNDONE):
        return f"An undo is not finished ({epoch}); {live} is live.", "zdm.landscape.abort"
    committed = "requests are held" if journal.phase == COMMITTED else "routers are being opened"
    return f"Committed, not finished ({epoch}): {live} is live, {committed}.", command


def _at_rest(status: MigrationStatus, journal: Journal, parties: Parties) -> tuple[str, str]:
    """What is true between two windows, and the command that is needed; empty when none is."""
    live, epoch = status.live.subdomain, f"epoch {status.epoch}"
    if status.finalized_at_ms:
        done = f"Finalized {_date(status.finalized_at_ms)}: {parties.source.subdomain}'s requests work with the data of"
        left = " Something is left of it." if status.problems else ""
        return f"{done} {parties.target.subdomain}.{left}", "zdm.landscape.finalize" if status.problems else ""
    if journal.ended:
        verdict = (
            f"The end of the transition is not finished ({epoch}): {live} is live and served, the way back has ended."
        )
        return verdict, "zdm.landscape.finalize"
    if status.problems:
        command = _command(journal, parties, status.participants)
        closed = _closed_words(status, journal, parties) if command == "zdm.landscape.stage" else ""
        return f"{live} is live; some artefacts disagree ({epoch}).{closed}", command
    if status.live == parties.target:
        words = _transition_words(status.transition)
        return f"In transition: {live} is live, both credentials work. {words}".rstrip(), ""
    return f"{live} is live; {_stage_words(journal, status)}.", ""


def _closed_words(status: MigrationStatus, journal: Journal, parties: Parties) -> str:
    way, staged = "back" if status.live == parties.target else "forward", journal.body.get("staged_at_ms")
    since = f" of {_date(staged)}" if staged else ""
    return f" The way {way} is closed until stage has mended what changed since the stage{since}."


def _transition_words(transition: Mapping[str, Any]) -> str:
    if not transition:
        return ""
    days = transition["days_left"]
    left = f"{days} days are left" if days >= 0 else f"its time has been over for {-days} days"
    log = (
        f", after {transition['catch_up_ms']} ms while it is served for {transition['pending']:,} logged keys"
        if transition["pending"]
        else ""
    )
    return (
        f"Since {_date(transition['began_at_ms'])}, {left}. A reverse would hold requests for about"
        f" {transition['reverse_window_ms']} ms{log}."
    )


def _date(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at_ms / 1000))


def _stage_words(journal: Journal, status: MigrationStatus) -> str:
    if journal.body.get("staged"):
        return "the stage is ready"
    states: set[Any] = {entry.state for entry in status.participants}
    return (
        "the stage is not finished"
        if states & {STAGING, STAGED}
        else "nothing is staged"
        if states <= {ABSENT}
        else "the stage is unclear"
    )


def _command(journal: Journal, parties: Parties, participants: Sequence[Status]) -> str:
    goal = journal.body.get("to") if journal.phase != IDLE else journal.canonical
    if journal.phase == IDLE and not journal.body.get("staged"):
        # a stage was interrupted, not the way back from one: that is only there while the source is live
        begun = journal.body.get("plan_digest") or journal.canonical == parties.target.id
        return "zdm.landscape.stage" if begun else "zdm.landscape.abort"
    if journal.phase == IDLE and not all(entry.ready for entry in participants):
        return "zdm.landscape.stage"
    return "zdm.landscape.migrate" if goal == parties.target.id else "zdm.landscape.reverse"
