# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The model of the cutover protocol: from a state, every transition that a controller or the environment may take."""

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.zdm.landscape.tests.model.config import UNLIMITED, Atom, Work, too_old
from ansible_collections.zdm.landscape.tests.model.environment import environment
from ansible_collections.zdm.landscape.tests.model.journal import TAKING, JournalSteps
from ansible_collections.zdm.landscape.tests.model.participants import run
from ansible_collections.zdm.landscape.tests.model.state import (
    BLOCK_EDITED,
    CLOSED,
    COUNTED,
    DEAD,
    IDLE_MODES,
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
    Call,
    Controller,
    Document,
    Label,
    Participant,
    Router,
    State,
    Transition,
    put,
)
from ansible_collections.zdm.landscape.tests.model.table import (
    DOCUMENTS,
    FORWARD,
    JOURNAL,
    PARTICIPANTS,
    RENEWING,
    ROUTERS,
    UNDO,
)

REACHABLE = (UNREADY, LOADED, READY, STARTING)


class Model(JournalSteps):
    """The transitions of one configuration.

    A step that writes to several targets is a set of sub-steps, done in any order; the next step begins when all are
    done. A controller that is refused ends. As epochs only grow, its sub-steps under way may as well have happened
    before the refusal.
    """

    def transitions(self, state: State) -> list[Transition]:
        """All of them, the controllers' first."""
        out: list[Transition] = []
        for index, controller in enumerate(state.controllers):
            if not controller.mode:
                self.start(state, index, out)
            elif controller.mode.startswith(TAKING):
                self.settle_take_over(state, index, controller, out)
            elif controller.mode not in IDLE_MODES:
                self._work(state, index, controller, out)
        environment(self.config, state, out)
        return out

    def _work(self, state: State, index: int, controller: Controller, out: list[Transition]) -> None:
        work = self.programs[controller.mode][controller.step]
        repeated = controller.done if self.config.repeat and work.step.target in (ROUTERS, PARTICIPANTS) else 0
        for atom in work.atoms:
            if (not controller.done & atom.bit or repeated & atom.bit) and controller.done & atom.needs == atom.needs:
                _HANDLERS[work.step.target](self, state, index, controller, work, atom, out)
        if work.step.op == "undo" and state.journal[:3] == (controller.epoch, "U", True) and not controller.done:
            label = Label(index, "controller", NOBODY, "has nothing to undo: the undo began in W", "", controller.epoch)
            out.append(Transition(label, self.advance(state, index, controller, work, work.full)))
        if state.budget.notes and controller.current:
            self.note(state, index, controller, out)
        if controller.mode in FORWARD:
            self._beside_the_work(state, index, controller, work, out)
        if self.config.split and any(participant.lock == index for participant in state.participants):
            dead = put(self.unlock(state, index).controllers, index, DEAD)
            label = Label(index, "controller", NOBODY, "dies, its lock ends", "", controller.epoch)
            out.append(Transition(label, self.unlock(state, index)._replace(controllers=dead)))

    def _beside_the_work(
        self, state: State, index: int, controller: Controller, work: Work, out: list[Transition]
    ) -> None:
        """A forward controller may decide to undo; while it has leases it renews them."""
        if self.config.undo and state.journal.epoch == controller.epoch:
            label = Label(index, "controller", NOBODY, "decides to undo", "", controller.epoch)
            out.append(Transition(label, self.switch(state, index, controller, UNDO)))
        if not self.config.renew or controller.mode != "W" or work.step.number not in RENEWING:
            return
        for target, router in enumerate(state.routers):
            if router.up in REACHABLE and (router.block == OPEN or self.config.observe):
                label = Label(index, "router", target, "lease", "renew", controller.epoch)
                if self._refuses(router, controller):
                    out.append(Transition(label._replace(outcome="refused"), self.end(state, index)))
                else:
                    out.append(
                        Transition(
                            label,
                            state._replace(
                                routers=put(state.routers, target, self._edited(router, "lease", controller, 0))
                            ),
                        )
                    )

    def _on_router(
        self, state: State, index: int, controller: Controller, work: Work, atom: Atom, out: list[Transition]
    ) -> None:
        op, target = work.step.op, atom.target
        router = state.routers[target]
        towards = 0
        if op == "map":
            towards = controller.source if work.step.back else 1 - controller.source
        label = Label(
            index, "router", target, op, IDS[towards] if op == "map" else "", controller.epoch, number=work.step.number
        )
        if router.up not in REACHABLE:
            if not self.rules.unreachable_routers_are_awaited:
                out.append(
                    Transition(
                        label._replace(outcome="skipped"), self.advance(state, index, controller, work, atom.bit)
                    )
                )
        elif op == "drain":
            if not any(r.where == PASSED and r.router == target and r.counted == COUNTED for r in state.requests):
                out.append(Transition(label, self.advance(state, index, controller, work, atom.bit)))
        elif self._refuses(router, controller):
            out.append(Transition(label._replace(outcome="refused"), self.end(state, index)))
        else:
            changed = state._replace(routers=put(state.routers, target, self._edited(router, op, controller, towards)))
            out.append(Transition(label, self.advance(changed, index, controller, work, atom.bit)))

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

    def _on_participant(
        self, state: State, index: int, controller: Controller, work: Work, atom: Atom, out: list[Transition]
    ) -> None:
        op, target = work.step.op, atom.target
        participant = state.participants[target]
        label = Label(
            index,
            "participant",
            target,
            op,
            f"part {atom.part + 1}" if atom.part else "",
            controller.epoch,
            number=work.step.number,
        )
        if too_old(self.rules, participant, controller.epoch, atom.parts):
            out.append(Transition(label._replace(outcome="refused"), self.end(state, index)))
        elif op == "take_over":  # ends the sessions of an older controller, and so their locks
            epoch = max(participant.epoch, controller.epoch)
            calls = tuple(
                call
                for call in participant.calls
                if not too_old(self.rules, participant._replace(epoch=epoch), call.epoch, call.parts)
            )
            changed = put(state.participants, target, participant._replace(epoch=epoch, lock=NOBODY, calls=calls))
            out.append(
                Transition(label, self.advance(state._replace(participants=changed), index, controller, work, atom.bit))
            )
        elif participant.lock not in (NOBODY, index):
            return
        elif self._lost_its_lock(participant, op, atom, index):
            out.append(Transition(label._replace(outcome="session ended"), self.end(state, index)))
        elif atom.part and controller.mode == "C" and not self.rules.fenced_is_not_moved:
            out.append(Transition(label, self.advance(state, index, controller, work, atom.bit)))
        else:
            self._verb(state, index, controller, work, atom, label, out)

    def _verb(
        self,
        state: State,
        index: int,
        controller: Controller,
        work: Work,
        atom: Atom,
        label: Label,
        out: list[Transition],
    ) -> None:
        """One transaction of a verb: it is done, it is refused, or its caller gives it up while it waits at the
        participant.
        """
        participant = state.participants[atom.target]
        new = run(participant, atom.parts, index, controller.source, controller.epoch)
        if new is None:
            out.append(Transition(label._replace(outcome="failed"), self._after_a_refusal(state, index, controller)))
            return
        new = new._replace(finished=new.finished if self.config.calls else 0)
        if self.rules.participants_note_the_epoch_with_every_verb or new != participant:
            new = new._replace(epoch=max(participant.epoch, controller.epoch))
        changed = state._replace(participants=put(state.participants, atom.target, new))
        out.append(Transition(label, self.advance(changed, index, controller, work, atom.bit)))
        call = Call(atom.parts, controller.epoch, controller.source)
        if state.budget.calls and work.step.op != "prelude" and call not in participant.calls:
            waiting = participant._replace(calls=tuple(sorted((*participant.calls, call))))
            left = state.budget._replace(calls=state.budget.calls - 1)
            given_up = state._replace(participants=put(state.participants, atom.target, waiting), budget=left)
            out.append(Transition(label._replace(outcome="unknown"), given_up))

    def _after_a_refusal(self, state: State, index: int, controller: Controller) -> State:
        """A participant can't do what it was asked: before the commit the window is undone."""
        return self.switch(state, index, controller, UNDO) if controller.mode in FORWARD else self.end(state, index)

    def _lost_its_lock(self, participant: Participant, op: str, atom: Atom, index: int) -> bool:
        first = self.rules.verbs[self.config.participants[atom.target], op][0]
        return self.config.split and atom.part > 0 and "lock" in first and participant.lock != index

    def _on_document(
        self, state: State, index: int, controller: Controller, work: Work, atom: Atom, out: list[Transition]
    ) -> None:
        target = atom.target
        document = state.documents[target]
        label = Label(
            index,
            "store",
            target,
            "mapping_documents",
            IDS[1 - controller.source],
            controller.epoch,
            number=work.step.number,
        )
        if atom.part == 0:
            read = label._replace(system="controller", op="reads the mapping document", detail="")
            if self.rules.documents_refuse_old_epochs and document.epoch > controller.epoch:
                out.append(Transition(read._replace(outcome="refused"), self.end(state, index)))
                return
            seen: tuple[Document | None, ...] = controller.seen or (None,) * len(state.documents)
            reader = controller._replace(seen=put(seen, target, document))
            out.append(Transition(read, self.advance(state, index, reader, work, atom.bit)))
            if document.leads_to == 1 - controller.source:
                nothing = read._replace(op="finds nothing to write in the mapping document")
                out.append(Transition(nothing, self.advance(state, index, controller, work, atom.bit | atom.bit << 1)))
        elif controller.seen[target] == document:
            new = Document(1 - controller.source, controller.epoch)
            changed = state._replace(documents=put(state.documents, target, new))
            out.append(Transition(label, self.advance(changed, index, controller, work, atom.bit)))
            sent = (target, document, new)
            if work.step.number in self.config.unknown and state.budget.losses and sent not in state.mappings:
                left = state.budget._replace(losses=max(state.budget.losses - 1, UNLIMITED))
                under_way = state._replace(mappings=tuple(sorted((*state.mappings, sent))), budget=left)
                if not self.rules.unanswered_mappings_are_written_again:
                    under_way = self.advance(under_way, index, controller, work, atom.bit)
                out.append(Transition(label._replace(outcome="unknown"), under_way))
        else:  # somebody else wrote: read it again
            again = controller._replace(done=controller.done & ~atom.needs, seen=put(controller.seen, target, None))
            out.append(
                Transition(
                    label._replace(outcome="conflict"), state._replace(controllers=put(state.controllers, index, again))
                )
            )


_BLOCKS = {"lease": LEASED, "close": CLOSED, "release": OPEN}
_Handler = Callable[[Model, State, int, Controller, Work, Atom, list[Transition]], None]
_HANDLERS: dict[str, _Handler] = {
    JOURNAL: Model.on_journal,
    ROUTERS: Model._on_router,
    PARTICIPANTS: Model._on_participant,
    DOCUMENTS: Model._on_document,
}
