# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The invariants of the cutover protocol."""

from __future__ import annotations

from ansible_collections.zdm.landscape.tests.model.config import Config
from ansible_collections.zdm.landscape.tests.model.state import CLOSED, ENDED, READY, TWIN, Participant, State

LOST = "an accepted write is lost"
BESIDE = "a write was accepted beside the rows, which stand under the other id"
DOUBLED = "rows stand under both ids"
RETIRED_ID = "a request passes under the retired id"
MET_A_FENCE = "a customer's request met a fence"
STUCK = "a router is closed, but the journal obliges nobody to open it"
DISAGREE = "at rest the parts disagree"
SUPERSEDED_BY_NOBODY = "a run ends as superseded, though nobody has taken over"
ORPHANED = "every run has ended by itself, but the journal is not at rest"
IN_VAIN = "a run goes on with a window that its preflight would have refused"
REHEARSED = "a rehearsal was committed"
NOT_EXACT = "at rest a participant is not as its stage left it"

SETTLED = "IWKRV"
"""Phases in which the canonical id's rows are complete."""


def broken(config: Config, state: State) -> str:
    """The invariant that *state* breaks, or an empty string."""
    phase, canonical = state.journal.phase, state.canonical
    if phase in SETTLED:
        for participant, accepted in zip(state.participants, state.accepted, strict=True):
            if accepted & ~participant.rows[canonical]:
                return LOST
    if phase in "KR" and state.journal.rehearsed:
        return REHEARSED
    if phase in "IW":
        for router in state.routers:
            if router.up == READY and router.block == CLOSED:
                return STUCK
    if phase == "I":
        return at_rest(config, state)
    return ORPHANED if all(controller.mode == ENDED.mode for controller in state.controllers) else ""


def at_rest(config: Config, state: State) -> str:
    """What must agree in phase I."""
    canonical = state.canonical
    if any(document.leads_to != canonical for document in state.documents):
        return DISAGREE
    if any(router.up == READY and router.override != canonical for router in state.routers):
        return DISAGREE
    for kind, participant in zip(config.participants, state.participants, strict=True):
        found = _participant_at_rest(kind, participant, canonical)
        if found:
            return found
    return ""


def _participant_at_rest(kind: str, participant: Participant, canonical: int) -> str:
    other = 1 - canonical
    if participant.fence[canonical] or not participant.fence[other] or participant.state:
        return DISAGREE
    if kind == TWIN:
        if participant.drifted:
            return NOT_EXACT if participant.logging[other] or participant.log[other] else ""
        if not participant.logging[canonical] or participant.logging[other] or participant.log[other]:
            return NOT_EXACT
        return LOST if participant.rows[0] != participant.rows[1] and not participant.log[canonical] else ""
    return DOUBLED if participant.rows[other] else ""
