# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The model of the cutover protocol: from a state, every transition that a controller or the environment may take."""

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.zdm.landscape.tests.model.config import ABORT, STAGE_JOB, Atom, Config, Work, compile_programs
from ansible_collections.zdm.landscape.tests.model.environment import after, environment
from ansible_collections.zdm.landscape.tests.model.participants import run
from ansible_collections.zdm.landscape.tests.model.state import (
    BLOCK_EDITED,
    CLOSED,
    COUNTED,
    ENDED,
    IDS,
    LEASED,
    LOADED,
    NOBODY,
    OPEN,
    OVERRIDE_EDITED,
    PASSED,
    READY,
    STARTING,
    UNREADY,
    Controller,
    Document,
    Journal,
    Label,
    Participant,
    Router,
    State,
    Transition,
    Write,
    put,
)
from ansible_collections.zdm.landscape.tests.model.table import (
    COMMIT,
    DOCUMENTS,
    FORWARD,
    JOURNAL,
    PARTICIPANTS,
    RENEWING,
    ROUTERS,
    STAGE,
    TAKE_OVER,
    UNDO,
)

REACHABLE = (UNREADY, LOADED, READY, STARTING)


class Model:
    """The transitions of one configuration.

    A step that writes to several targets is a set of sub-steps, done in any order; the next step begins when all are done. A
    controller that is refused ends. As epochs only grow, its sub-steps under way may as well have happened before the refusal.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.rules = config.rules
        self.programs = compile_programs(config)

    def transitions(self, state: State) -> list[Transition]:
        """All of them, the controllers' first."""
        out: list[Transition] = []
        for index, controller in enumerate(state.controllers):
            if not controller.mode:
                self._start(state, index, out)
            elif controller.asking:
                self._ask(state, index, controller, out)
            elif controller != ENDED:
                self._work(state, index, controller, out)
        environment(self.config, state, out)
        return out

    # ----------------------------------------------------------------------------------------------------- begin and decide

    def _start(self, state: State, index: int, out: list[Transition]) -> None:
        """Step 1, take over. What follows depends on the phase that the journal is in and on what the command wants."""
        if self.config.ordered and index and not state.controllers[index - 1].mode:
            return
        for goal in self.config.goals[index]:
            for mode in self._modes(state, goal):
                self._take_over(state, index, mode, out)

    @staticmethod
    def _modes(state: State, goal: int) -> tuple[str, ...]:
        phase = state.journal.phase
        if phase == "I":
            if goal == STAGE_JOB:
                return (STAGE,)
            return () if goal in (ABORT, state.canonical) else ("W",)
        if goal == STAGE_JOB:
            return ()
        if phase in FORWARD:  # a window in the other direction can only be undone
            return (UNDO,) if goal in (ABORT, state.canonical) else (phase, UNDO)
        return (phase,)

    def _take_over(self, state: State, index: int, mode: str, out: list[Transition]) -> None:
        before, epoch = state.journal.phase, state.journal.epoch + 1
        phase = "W" if mode == "W" else before
        source = 1 - state.canonical if mode in ("K", "R") else state.canonical
        label = Label(index, "store", NOBODY, "take_over", f"{before}>{phase}", epoch, number="1")
        controller = Controller(mode, 0, 0, epoch, source, False, ())
        journal = Journal(epoch, phase, state.journal.from_window)
        out.append(Transition(label, state._replace(journal=journal, controllers=put(state.controllers, index, controller))))

    def _switch(self, state: State, index: int, controller: Controller, mode: str) -> State:
        """The controller goes on with another program, behind its take over."""
        changed = controller._replace(mode=mode, step=len(TAKE_OVER), done=0, asking=False, seen=())
        return self._unlock(state, index)._replace(controllers=put(state.controllers, index, changed))

    def _end(self, state: State, index: int) -> State:
        return self._unlock(state, index)._replace(controllers=put(state.controllers, index, ENDED))

    def _unlock(self, state: State, index: int) -> State:
        if not self.config.split or all(participant.lock != index for participant in state.participants):
            return state
        return state._replace(participants=tuple(p._replace(lock=NOBODY) if p.lock == index else p for p in state.participants))

    def _ask(self, state: State, index: int, controller: Controller, out: list[Transition]) -> None:
        """The answer to a journal write never came: read the journal again."""
        work = self.programs[controller.mode][controller.step]
        journal = state.journal
        if journal[:2] == (controller.epoch, work.step.after):
            done = controller._replace(asking=False)
            found, changed = "it was written", self._advance(state, index, done, work, work.full)
        elif journal.epoch == controller.epoch and journal.phase in work.step.before:
            found = "it was not written"
            if work.step.number == COMMIT:
                changed = self._switch(state, index, controller, UNDO)
            else:
                changed = state._replace(controllers=put(state.controllers, index, controller._replace(asking=False)))
        else:
            found, changed = "superseded", self._end(state, index)
        out.append(Transition(Label(index, "controller", NOBODY, "reads the journal again", found, controller.epoch), changed))

    # ------------------------------------------------------------------------------------------------------------ one step

    def _work(self, state: State, index: int, controller: Controller, out: list[Transition]) -> None:
        work = self.programs[controller.mode][controller.step]
        repeated = controller.done if self.config.repeat and work.step.target in (ROUTERS, PARTICIPANTS) else 0
        for atom in work.atoms:
            if (not controller.done & atom.bit or repeated & atom.bit) and controller.done & atom.needs == atom.needs:
                _HANDLERS[work.step.target](self, state, index, controller, work, atom, out)
        if work.step.op == "undo" and state.journal == (controller.epoch, "U", True) and not controller.done:
            label = Label(index, "controller", NOBODY, "has nothing to undo: the undo began in W", "", controller.epoch)
            out.append(Transition(label, self._advance(state, index, controller, work, work.full)))
        if controller.mode in FORWARD:
            self._beside_the_work(state, index, controller, work, out)
        if self.config.split and any(participant.lock == index for participant in state.participants):
            out.append(Transition(Label(index, "controller", NOBODY, "dies, its lock ends", "", controller.epoch), self._end(state, index)))

    def _beside_the_work(self, state: State, index: int, controller: Controller, work: Work, out: list[Transition]) -> None:
        """A forward controller may decide to undo; while it has leases it renews them."""
        if self.config.undo and state.journal.epoch == controller.epoch:
            label = Label(index, "controller", NOBODY, "decides to undo", "", controller.epoch)
            out.append(Transition(label, self._switch(state, index, controller, UNDO)))
        if not self.config.renew or controller.mode != "W" or work.step.number not in RENEWING:
            return
        for target, router in enumerate(state.routers):
            if router.up in REACHABLE and (router.block == OPEN or self.config.observe):
                label = Label(index, "router", target, "lease", "renew", controller.epoch)
                if self._refuses(router, controller):
                    out.append(Transition(label._replace(outcome="refused"), self._end(state, index)))
                else:
                    out.append(Transition(label, state._replace(routers=put(state.routers, target, self._edited(router, "lease", controller, 0)))))

    def _advance(self, state: State, index: int, controller: Controller, work: Work, bits: int) -> State:
        """The state when *controller* has done the sub-steps *bits* of its step."""
        done = controller.done | bits
        if done != work.full:
            return state._replace(controllers=put(state.controllers, index, controller._replace(done=done)))
        if work.step.number == COMMIT:
            return self._switch(state, index, controller, "K")
        if controller.step + 1 == len(self.programs[controller.mode]):
            return self._end(state, index)
        changed = controller._replace(step=controller.step + 1, done=0, seen=())
        return state._replace(controllers=put(state.controllers, index, changed))

    def _on_journal(self, state: State, index: int, controller: Controller, work: Work, atom: Atom, out: list[Transition]) -> None:
        step, journal = work.step, state.journal
        own = journal.epoch == controller.epoch
        label = Label(index, "store", NOBODY, "phase", f"{journal.phase}>{step.after}", controller.epoch, number=step.number)
        blind = step.number == COMMIT and not self.rules.commit_is_compare_and_set
        if (own and journal.phase in step.before) or blind:
            canonical = 1 - controller.source if step.number == COMMIT else state.canonical
            written = state._replace(journal=after(journal, controller.epoch, step.after), canonical=canonical)
            out.append(Transition(label, self._advance(written, index, controller, work, atom.bit)))
            if step.number in self.config.unknown and not state.pending:
                sent = Write(controller.epoch, journal.phase, step.after)
                asking = put(state.controllers, index, controller._replace(asking=True))
                out.append(Transition(label._replace(outcome="unknown"), state._replace(pending=sent, controllers=asking)))
        elif own and step.after == "U" and journal.phase == "K":
            found = Label(index, "controller", NOBODY, "finds that its commit happened", "", controller.epoch)
            out.append(Transition(found, self._switch(state, index, controller, "K")))
        else:
            refused = label._replace(detail=f"{step.before[0]}>{step.after}", outcome="refused")
            out.append(Transition(refused, self._end(state, index)))

    def _on_router(self, state: State, index: int, controller: Controller, work: Work, atom: Atom, out: list[Transition]) -> None:
        op, target = work.step.op, atom.target
        router = state.routers[target]
        towards = 0
        if op == "map":
            towards = controller.source if work.step.back else 1 - controller.source
        label = Label(index, "router", target, op, IDS[towards] if op == "map" else "", controller.epoch, number=work.step.number)
        if router.up not in REACHABLE:
            if not self.rules.unreachable_routers_are_awaited:
                out.append(Transition(label._replace(outcome="skipped"), self._advance(state, index, controller, work, atom.bit)))
        elif op == "drain":
            if not any(r.where == PASSED and r.router == target and r.counted == COUNTED for r in state.requests):
                out.append(Transition(label, self._advance(state, index, controller, work, atom.bit)))
        elif self._refuses(router, controller):
            out.append(Transition(label._replace(outcome="refused"), self._end(state, index)))
        else:
            changed = state._replace(routers=put(state.routers, target, self._edited(router, op, controller, towards)))
            out.append(Transition(label, self._advance(changed, index, controller, work, atom.bit)))

    def _refuses(self, router: Router, controller: Controller) -> bool:
        return self.rules.routers_refuse_old_epochs and controller.epoch < router.epoch

    def _edited(self, router: Router, op: str, controller: Controller, towards: int) -> Router:
        """The router after a command. A lease never replaces a far block."""
        if router.up == STARTING:
            return router
        block, override, edited = router.block, router.override, 0
        if op == "map":
            override, edited = towards, OVERRIDE_EDITED
        elif op in _BLOCKS:
            block, edited = _BLOCKS[op], BLOCK_EDITED
            if op == "lease":
                block = max(router.block, LEASED)
        epoch = controller.epoch if self.rules.routers_refuse_old_epochs else 0
        return Router(router.up, block, override, epoch, router.edited | edited if router.up == UNREADY else 0)

    def _on_participant(self, state: State, index: int, controller: Controller, work: Work, atom: Atom, out: list[Transition]) -> None:
        op, target = work.step.op, atom.target
        participant = state.participants[target]
        label = Label(index, "participant", target, op, f"part {atom.part + 1}" if atom.part else "", controller.epoch, number=work.step.number)
        if self.rules.participants_refuse_old_epochs and participant.epoch > controller.epoch:
            out.append(Transition(label._replace(outcome="refused"), self._end(state, index)))
            return
        if op == "take_over":  # ends the sessions of an older controller, and so their locks
            new = participant._replace(epoch=max(participant.epoch, controller.epoch), lock=NOBODY)
        elif participant.lock not in (NOBODY, index):
            return
        elif self._lost_its_lock(participant, op, atom, index):
            out.append(Transition(label._replace(outcome="session ended"), self._end(state, index)))
            return
        else:
            new = run(participant, atom.parts, index, controller.source)
            if self.rules.participants_note_the_epoch_with_every_verb or new != participant:
                new = new._replace(epoch=max(participant.epoch, controller.epoch))
        changed = state._replace(participants=put(state.participants, target, new))
        out.append(Transition(label, self._advance(changed, index, controller, work, atom.bit)))

    def _lost_its_lock(self, participant: Participant, op: str, atom: Atom, index: int) -> bool:
        first = self.rules.verbs[self.config.participants[atom.target], op][0]
        return self.config.split and atom.part > 0 and "lock" in first and participant.lock != index

    def _on_document(self, state: State, index: int, controller: Controller, work: Work, atom: Atom, out: list[Transition]) -> None:
        target = atom.target
        document = state.documents[target]
        label = Label(index, "store", target, "mapping_documents", IDS[1 - controller.source], controller.epoch, number=work.step.number)
        if atom.part == 0:
            read = label._replace(system="controller", op="reads the mapping document", detail="")
            if self.rules.documents_refuse_old_epochs and document.epoch > controller.epoch:
                out.append(Transition(read._replace(outcome="refused"), self._end(state, index)))
                return
            seen: tuple[Document | None, ...] = controller.seen or (None,) * len(state.documents)
            reader = controller._replace(seen=put(seen, target, document))
            out.append(Transition(read, self._advance(state, index, reader, work, atom.bit)))
            if document.leads_to == 1 - controller.source:
                nothing = read._replace(op="finds nothing to write in the mapping document")
                out.append(Transition(nothing, self._advance(state, index, controller, work, atom.bit | atom.bit << 1)))
        elif controller.seen[target] == document:
            changed = state._replace(documents=put(state.documents, target, Document(1 - controller.source, controller.epoch)))
            out.append(Transition(label, self._advance(changed, index, controller, work, atom.bit)))
        else:  # somebody else wrote: read it again
            again = controller._replace(done=controller.done & ~atom.needs, seen=put(controller.seen, target, None))
            out.append(Transition(label._replace(outcome="conflict"), state._replace(controllers=put(state.controllers, index, again))))


_BLOCKS = {"lease": LEASED, "close": CLOSED, "release": OPEN}
_Handler = Callable[[Model, State, int, Controller, Work, Atom, list[Transition]], None]
_HANDLERS: dict[str, _Handler] = {
    JOURNAL: Model._on_journal,
    ROUTERS: Model._on_router,
    PARTICIPANTS: Model._on_participant,
    DOCUMENTS: Model._on_document,
}
