# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How controllers write the journal: the take over, changes of phase, notes, and what an answer that never comes leads
to.

A write whose answer is lost may land at any later moment, until a write on the same revision is decided. So it is
settled by writing the same intent again on the same revision; a conflict is decided by a read. The take over is known
by the id of its write, all later writes by the epoch.
"""

from __future__ import annotations

from ansible_collections.zdm.landscape.tests.model.config import (
    ABORT,
    REHEARSE,
    STAGE_JOB,
    UNLIMITED,
    Atom,
    Config,
    Work,
    compile_programs,
)
from ansible_collections.zdm.landscape.tests.model.environment import after, land
from ansible_collections.zdm.landscape.tests.model.invariants import IN_VAIN, SUPERSEDED_BY_NOBODY
from ansible_collections.zdm.landscape.tests.model.state import (
    ENDED,
    NOBODY,
    TARGET,
    UNSTARTED,
    Controller,
    Journal,
    Label,
    State,
    Transition,
    Write,
    put,
)
from ansible_collections.zdm.landscape.tests.model.table import COMMIT, FORWARD, STAGE, TAKE_OVER, UNDO

TAKING = "?"
"""What the mode begins with as long as the answer to the take over has not come; the mode after it follows."""
TAKE_OVER_STEP = "1"


class JournalSteps:
    """The part of :class:`protocol.Model` that writes the journal."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.rules = config.rules
        self.programs = compile_programs(config)

    # ------------------------------------------------------------------------------------------ where a run stands

    def switch(self, state: State, index: int, controller: Controller, mode: str) -> State:
        """The controller goes on with another program, behind its take over."""
        changed = controller._replace(mode=mode, step=len(TAKE_OVER), done=0, asking=False, seen=())
        return self.unlock(state, index)._replace(controllers=put(state.controllers, index, changed))

    def end(self, state: State, index: int) -> State:
        """The controller has finished or was superseded."""
        return self.unlock(state, index)._replace(controllers=put(state.controllers, index, ENDED))

    def unlock(self, state: State, index: int) -> State:
        if not self.config.split or all(participant.lock != index for participant in state.participants):
            return state
        return state._replace(
            participants=tuple(p._replace(lock=NOBODY) if p.lock == index else p for p in state.participants)
        )

    def advance(self, state: State, index: int, controller: Controller, work: Work, bits: int) -> State:
        """The state when *controller* has done the sub-steps *bits* of its step."""
        done = controller.done | bits
        if done != work.full:
            return state._replace(controllers=put(state.controllers, index, controller._replace(done=done)))
        if work.step.number == COMMIT:
            return self.switch(state, index, controller, "K")
        if controller.step + 1 == len(self.programs[controller.mode]):
            return self.end(state, index)
        changed = controller._replace(step=controller.step + 1, done=0, asking=False, seen=())
        return state._replace(controllers=put(state.controllers, index, changed))

    # ------------------------------------------------------------------------------------------- step 1, take over

    def start(self, state: State, index: int, out: list[Transition]) -> None:
        """What follows depends on the phase that the journal is in and on what the command wants."""
        if self.config.ordered and index and not state.controllers[index - 1].mode:
            return
        for goal in self.config.goals[index]:
            for mode in self._modes(state, goal):
                self._take_over(state, index, mode, goal == REHEARSE, out)

    def _modes(self, state: State, goal: int) -> tuple[str, ...]:
        phase = state.journal.phase
        if phase == "I":
            if goal == STAGE_JOB:
                return (STAGE,)
            refused = any(participant.drifted for participant in state.participants)  # by the preflight
            there = state.canonical == (TARGET if goal == REHEARSE else goal)
            return () if refused or there or goal == ABORT else ("W",)
        if goal == STAGE_JOB:
            return ()
        if phase not in FORWARD:
            return (phase,)
        undone = phase == "W" and self.rules.found_windows_are_undone
        rehearsal = goal == REHEARSE or (state.journal.rehearsal and self.rules.found_rehearsals_are_undone)
        # A window in the other direction can only be undone, as a rehearsal and a window that was not closed yet.
        return (UNDO,) if undone or rehearsal or goal in (ABORT, state.canonical) else (phase, UNDO)

    def _take_over(self, state: State, index: int, mode: str, rehearse: bool, out: list[Transition]) -> None:
        journal = state.journal
        before, epoch = journal.phase, journal.epoch + 1
        phase = "W" if mode == "W" else before
        source = 1 - state.canonical if mode in ("K", "R") else state.canonical
        opens = before != phase
        rehearsed = rehearse if opens else journal.rehearsed
        writes_the_flag = self.rules.fresh_windows_write_the_flag if opens else not self.rules.take_overs_keep_the_flag
        detail = f"{before}>{phase}{' rehearsal' if opens and rehearse else ''}"
        label = Label(index, "store", NOBODY, "take_over", detail, epoch, number=TAKE_OVER_STEP)
        controller = Controller(mode, 0, 0, epoch, source, False, ())
        may_be_lost = TAKE_OVER_STEP in self.config.unknown
        taker = index if may_be_lost else NOBODY
        body = Journal(
            epoch,
            phase,
            journal.from_window,
            taker,
            False,
            rehearse if writes_the_flag else journal.rehearsal,
            rehearsed,
        )
        sent = Write(body, state.canonical)
        in_vain = mode == "W" and any(participant.drifted for participant in state.participants)
        out.append(Transition(label, _landed(state, sent, index, controller), IN_VAIN if in_vain else ""))
        if may_be_lost and state.budget.losses:
            asking = controller._replace(mode=TAKING + mode, asking=True)
            out.append(Transition(label._replace(outcome="unknown"), self._lost(state, sent, index, asking)))

    def settle_take_over(self, state: State, index: int, controller: Controller, out: list[Transition]) -> None:
        """The answer to the take over never came: write it again; a conflict is decided by the id of the take over that
        is there.
        """
        journal, begun = (
            state.journal,
            controller._replace(mode=controller.mode[len(TAKING) :], asking=False, current=True),
        )
        label = Label(index, "store", NOBODY, "take_over", "", controller.epoch, number=TAKE_OVER_STEP)
        read = label._replace(system="controller", op="reads the journal again")
        if controller.current and self.rules.unknown_writes_are_settled_by_writing:
            sent = next(write for write in state.pending if write.journal.taker == index)
            opens_a_rehearsal = sent.journal.rehearsed and not journal.rehearsed
            again = label._replace(
                detail=f"{journal.phase}>{sent.journal.phase}{' rehearsal' if opens_a_rehearsal else ''}"
            )
            out.append(Transition(again, _landed(state, sent, index, begun)))
        elif controller.current:
            out.append(Transition(read._replace(detail="not taken over"), self.end(state, index)))
        elif journal.epoch == controller.epoch and (
            journal.taker == index or not self.rules.take_overs_are_known_by_their_id
        ):
            out.append(
                Transition(
                    read._replace(detail="it took over"),
                    state._replace(controllers=put(state.controllers, index, begun)),
                )
            )
        elif journal.epoch < controller.epoch and self.rules.take_overs_begin_again:
            began_again = state._replace(controllers=put(state.controllers, index, UNSTARTED))
            out.append(
                Transition(read._replace(detail="a late write of the run that it takes over: again"), began_again)
            )
        else:
            violation = SUPERSEDED_BY_NOBODY if journal.epoch < controller.epoch else ""
            out.append(Transition(read._replace(detail="superseded"), self.end(state, index), violation))

    # -------------------------------------------------------------------------------------------- changes of phase

    def on_journal(
        self, state: State, index: int, controller: Controller, work: Work, atom: Atom, out: list[Transition]
    ) -> None:
        step, journal = work.step, state.journal
        label = Label(
            index, "store", NOBODY, "phase", f"{journal.phase}>{step.after}", controller.epoch, number=step.number
        )
        blind = step.number == COMMIT and not self.rules.commit_is_compare_and_set
        if controller.asking and not self.rules.unknown_writes_are_settled_by_writing:
            label = Label(index, "controller", NOBODY, "reads the journal again", "", controller.epoch)
            out.append(self._read(state, index, controller, work, label))
        elif step.number == COMMIT and controller.current and self._may_not_commit(journal, index):
            label = Label(index, "controller", NOBODY, "ends a rehearsal", "", controller.epoch)
            out.append(Transition(label, self.switch(state, index, controller, UNDO)))
        elif blind or (controller.current and journal.phase in step.before):
            canonical = 1 - controller.source if step.number == COMMIT else state.canonical
            sent = Write(after(journal, step.after)._replace(epoch=controller.epoch), canonical)
            known = controller._replace(current=True)
            landed = _landed(state, sent, index, known)
            out.append(Transition(label, self.advance(landed, index, known, work, atom.bit)))
            if step.number in self.config.unknown and state.budget.losses and sent not in state.pending:
                out.append(
                    Transition(
                        label._replace(outcome="unknown"),
                        self._lost(state, sent, index, controller._replace(asking=True)),
                    )
                )
        else:
            refused = label._replace(detail=f"{step.before[0]}>{step.after}", outcome="refused")
            out.append(self._conflict(state, index, controller, work, refused))

    def _may_not_commit(self, journal: Journal, index: int) -> bool:
        """A rehearsal: the commit looks at the document that it replaces."""
        own = self.rules.rehearsals_end_by_themselves and self.config.goals[index] == (REHEARSE,)
        return own or (journal.rehearsal and self.rules.commit_refuses_rehearsals)

    def _conflict(self, state: State, index: int, controller: Controller, work: Work, label: Label) -> Transition:
        """A compare-and-set failed. It may be the answer to a duplicate, or a late note of its own: only a read
        decides.
        """
        if self.rules.conflicts_are_decided_by_a_read or controller.asking:
            return self._read(state, index, controller, work, label)
        return Transition(
            label, self.end(state, index), SUPERSEDED_BY_NOBODY if state.journal.epoch == controller.epoch else ""
        )

    def _read(self, state: State, index: int, controller: Controller, work: Work, label: Label) -> Transition:
        """The journal is read: the old revision, the own epoch in a phase that tells how to go on, or somebody else's
        epoch.
        """
        step, journal = work.step, state.journal
        if controller.current and journal.phase in step.before:  # only when writes are settled by reading
            back = (
                self.switch(state, index, controller, UNDO)
                if step.number == COMMIT
                else self._again(state, index, controller)
            )
            return Transition(label._replace(detail="it was not written"), back)
        if journal.epoch != controller.epoch:
            return Transition(label, self.end(state, index))
        if journal.note and not self.rules.own_epoch_decides:
            return Transition(label, self.end(state, index), SUPERSEDED_BY_NOBODY)
        known = controller._replace(current=True)
        if journal.phase == step.after:
            return Transition(label, self.advance(state, index, known, work, work.full))
        if journal.phase in step.before:
            return Transition(label, self._again(state, index, known))
        if step.after == "U" and journal.phase == "K":  # its commit happened after all
            return Transition(label, self.switch(state, index, known, "K"))
        alone = self.rules.take_overs_are_known_by_their_id  # else two runs may share the epoch
        return Transition(label, self.end(state, index), SUPERSEDED_BY_NOBODY if alone else "")

    @staticmethod
    def _again(state: State, index: int, controller: Controller) -> State:
        return state._replace(controllers=put(state.controllers, index, controller._replace(asking=False)))

    @staticmethod
    def _lost(state: State, sent: Write, index: int, asking: Controller) -> State:
        """No answer came: *sent* is under way on the journal's present revision."""
        return state._replace(
            pending=tuple(sorted({*state.pending, sent})),
            controllers=put(state.controllers, index, asking),
            budget=state.budget._replace(losses=max(state.budget.losses - 1, UNLIMITED)),
        )

    # ------------------------------------------------------------------------------------------------------- notes

    def note(self, state: State, index: int, controller: Controller, out: list[Transition]) -> None:
        """A heartbeat beside the work. One without an answer is not settled: it may land later, and make the revision a
        new one.
        """
        sent = Write(state.journal._replace(note=True), state.canonical)
        fewer = state._replace(budget=state.budget._replace(notes=state.budget.notes - 1))
        label = Label(
            index, "store", NOBODY, "heartbeat", f"{state.journal.phase}>{state.journal.phase}", controller.epoch
        )
        out.append(Transition(label, _landed(fewer, sent, index, controller)))
        out.append(
            Transition(label._replace(outcome="unknown"), fewer._replace(pending=tuple(sorted({*state.pending, sent}))))
        )


def _landed(state: State, sent: Write, index: int, controller: Controller) -> State:
    """*sent* by controller *index* is written, which is *controller* then."""
    written = land(state, sent, index)
    return written._replace(controllers=put(written.controllers, index, controller))
