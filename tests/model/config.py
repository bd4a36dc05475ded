# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a model is set up: how many of everything, what the environment may do, and which rules hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ansible_collections.zdm.landscape.tests.model.participants import VERBS, Verb, groups, staged
from ansible_collections.zdm.landscape.tests.model.state import (
    BASE,
    FENCED,
    IN_PLACE,
    OPEN,
    READY,
    SOURCE,
    TARGET,
    TWIN,
    UNSENT,
    UNSTARTED,
    Budget,
    Document,
    Journal,
    Participant,
    Router,
    State,
)
from ansible_collections.zdm.landscape.tests.model.table import DOCUMENTS, JOURNAL, PARTICIPANTS, PROGRAMS, STEPS, Step

STAGE_JOB, ABORT, REHEARSE = 2, 3, 4
"""What a command may want, beside making :data:`SOURCE` or :data:`TARGET` the live id. A guardian or watcher wants what
an abort wants; a rehearsal is one of the way from source to target."""
UNLIMITED = -1
"""A budget that does not end."""


@dataclass(frozen=True)
class Rules:
    """The protocol's rules. A mutant switches off one of them, or two that stand behind one another.

    With ``rehearsals_end_by_themselves`` a rehearsal's own run never gets to the commit, which matters only in a
    mutant.
    """

    steps: Mapping[str, Step] = field(default_factory=lambda: STEPS)
    programs: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: PROGRAMS)
    verbs: Mapping[tuple[str, str], Verb] = field(default_factory=lambda: VERBS)
    commit_is_compare_and_set: bool = True
    unknown_writes_are_settled_by_writing: bool = True
    conflicts_are_decided_by_a_read: bool = True
    take_overs_are_known_by_their_id: bool = True
    take_overs_begin_again: bool = True
    own_epoch_decides: bool = True
    found_windows_are_undone: bool = True
    found_rehearsals_are_undone: bool = True
    fresh_windows_write_the_flag: bool = True
    take_overs_keep_the_flag: bool = True
    commit_refuses_rehearsals: bool = True
    rehearsals_end_by_themselves: bool = False
    routers_refuse_old_epochs: bool = True
    participants_refuse_old_epochs: bool = True
    participants_note_the_epoch_with_every_verb: bool = True
    moves_refuse_old_epochs: bool = True
    fenced_is_not_moved: bool = True
    documents_refuse_old_epochs: bool = True
    unanswered_mappings_are_written_again: bool = True
    unreachable_routers_are_awaited: bool = True
    routers_read_the_store_last: bool = True
    routers_read_linearizably: bool = True
    routers_render_from_the_journal: bool = True
    old_workers_are_counted: bool = True


@dataclass(frozen=True)
class Config:
    """One model.

    :param goals: per controller, what its command may want; a later controller starts after an earlier one if
        *ordered*.
    :param participants: the strategy of each.
    :param routers: how many.
    :param documents: how many mapping documents.
    :param requests: how many customers' requests.
    :param late: the id under which each late writer, which bypasses the routers, writes.
    :param restarts: how many router crashes. :param reloads: how many reloads. :param cuts: how often a router that
        serves can't be reached for a while.
    :param split: participants do their verbs in parts that a crash can separate.
    :param unknown: numbers of the journal steps whose write may stay without an answer and land later: the take over
        and changes of phase, *losses* times in all.
    :param drift: what somebody changes in a table that is served, *drifts* times: a "column" that is filled at once, or
        the "trigger" that fills the log is lost.
    :param unfence: the state of an in_place participant in which somebody switches off the fence of its live id,
        *unfences* times.
    :param calls: how many calls of a participant their caller gives up, while they wait there to be done later.
    :param joined: a verb is one sub-step, also where it has two transactions.
    :param notes: how many notes (heartbeats) may be written beside the work, with an answer or without.
    :param undo: controllers may decide to undo at any time before the commit.
    :param renew: leases are renewed beside the work.
    :param repeat: a controller may repeat a sub-step while others of the same step are not done.
    :param observe: also report transitions that change nothing.
    :param canonical: the live id at the beginning. :param epoch: the journal's epoch there.
    """

    goals: tuple[tuple[int, ...], ...] = ((TARGET,), (TARGET,))
    participants: tuple[str, ...] = (TWIN, IN_PLACE)
    routers: int = 2
    documents: int = 1
    requests: int = 1
    late: tuple[int, ...] = (SOURCE,)
    restarts: int = 0
    reloads: int = 0
    cuts: int = 0
    split: bool = False
    unknown: frozenset[str] = frozenset()
    losses: int = 1
    notes: int = 0
    drift: str = "column"
    drifts: int = 0
    unfence: int = FENCED
    unfences: int = 0
    calls: int = 0
    joined: bool = False
    undo: bool = True
    renew: bool = False
    repeat: bool = False
    observe: bool = False
    ordered: bool = True
    canonical: int = SOURCE
    epoch: int = 0
    rules: Rules = field(default_factory=Rules)

    def initial(self) -> State:
        """At rest, staged: every part agrees on the canonical id."""
        here = self.canonical
        return State(
            journal=Journal(self.epoch, "I"),
            pending=(),
            documents=(Document(here, 0),) * self.documents,
            routers=(Router(READY, OPEN, here, 0),) * self.routers,
            participants=tuple(staged(kind, here) for kind in self.participants),
            controllers=(UNSTARTED,) * len(self.goals),
            requests=(UNSENT,) * self.requests,
            late=(False,) * len(self.late),
            canonical=here,
            accepted=(BASE,) * len(self.participants),
            budget=Budget(
                self.restarts, self.reloads, self.cuts, self.losses, self.notes, self.drifts, self.unfences, self.calls
            ),
        )


class Atom(NamedTuple):
    """One sub-step: at one target, after the sub-steps in ``needs`` (a bit set); ``parts`` of a participant's verb."""

    bit: int
    needs: int
    target: int
    part: int
    parts: tuple[str, ...] = ()


class Work(NamedTuple):
    """A step and its sub-steps; it is over when all bits of ``full`` are done."""

    step: Step
    atoms: tuple[Atom, ...]
    full: int


def too_old(rules: Rules, participant: Participant, epoch: int, parts: tuple[str, ...]) -> bool:
    """Whether *participant* refuses a transaction for its epoch."""
    a_move = "move" in parts and "fence" not in parts
    return (
        rules.participants_refuse_old_epochs
        and participant.epoch > epoch
        and (rules.moves_refuse_old_epochs or not a_move)
    )


def compile_programs(config: Config) -> dict[str, tuple[Work, ...]]:
    """The programs of the controllers with the sub-steps that this model's numbers of targets give."""
    rules = config.rules
    return {
        mode: tuple(_work(config, rules.steps[number]) for number in numbers)
        for mode, numbers in rules.programs.items()
    }


def _work(config: Config, step: Step) -> Work:
    if step.target == JOURNAL:
        chains: list[tuple[tuple[str, ...], ...]] = [((),)]
    elif step.target == PARTICIPANTS:
        chains = [
            groups(config.rules.verbs, kind, step.op, config.split, config.joined) for kind in config.participants
        ]
    elif step.target == DOCUMENTS:
        chains = [((), ())] * config.documents  # read, then compare and set
    else:
        chains = [((),)] * config.routers
    atoms: list[Atom] = []
    for target, chain in enumerate(chains):
        needs = 0
        for part, parts in enumerate(chain):
            atom = Atom(1 << len(atoms), needs, target, part, parts)
            needs = atom.bit
            atoms.append(atom)
    return Work(step, tuple(atoms), (1 << len(atoms)) - 1)
