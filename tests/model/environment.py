# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens without a controller: leases end, routers crash, start and reload, requests come, late writers write."""

from __future__ import annotations

from ansible_collections.zdm.landscape.tests.model.config import Config, too_old
from ansible_collections.zdm.landscape.tests.model.invariants import BESIDE, MET_A_FENCE, RETIRED_ID
from ansible_collections.zdm.landscape.tests.model.participants import drift, repair, run, write
from ansible_collections.zdm.landscape.tests.model.state import (
    ABANDONED,
    BASE,
    BLOCK_EDITED,
    CLOSED,
    COLUMN,
    COUNTED,
    CUT,
    DOWN,
    EMPTY_ROUTER,
    HELD,
    IDLE_MODES,
    IDS,
    IN_PLACE,
    LEASED,
    LOADED,
    NEW,
    NOBODY,
    OPEN,
    OVER,
    OVERRIDE_EDITED,
    PASSED,
    READY,
    STARTING,
    UNCOUNTED,
    UNREADY,
    Budget,
    Document,
    Journal,
    Label,
    Participant,
    Request,
    Router,
    State,
    Transition,
    Write,
    pair,
    put,
)

SERVING = (READY, CUT)
CLOSED_PHASES = "CUK"
"""Phases in which a starting router closes."""


def environment(config: Config, state: State, out: list[Transition]) -> None:
    """Append every transition that the environment may take."""
    for number, router in enumerate(state.routers):
        _router(config, state, number, router, out)
    for sent in state.pending:
        detail = f"lands: {sent.journal.phase} of epoch {sent.journal.epoch}{', a note' if sent.journal.note else ''}"
        out.append(Transition(_label("delayed write", NOBODY, detail), land(state, sent)))
    for mapping in state.mappings:
        _late_mapping(state, mapping, out)
    for at, participant in enumerate(state.participants):
        _table(config, state, at, participant, out)
    for index, request in enumerate(state.requests):
        if request.where == PASSED:
            _serve(config, state, index, request, out)
        elif request.where == HELD:
            _pass(state, index, request.router, out)
        elif request.where == NEW and (index == 0 or state.requests[index - 1].where != NEW):
            for number in range(config.routers):
                _pass(state, index, number, out)
    for index, tenant in enumerate(config.late):
        if not state.late[index]:
            _late(config, state, index, tenant, out)


def render(config: Config, state: State) -> tuple[int, int, int]:
    """Block, override and epoch that a router reads from the store when it starts."""
    rules, journal = config.rules, state.journal
    epoch = journal.epoch if rules.routers_refuse_old_epochs else 0
    if not rules.routers_render_from_the_journal:
        return OPEN, state.documents[0].leads_to, 0
    return (CLOSED if journal.phase in CLOSED_PHASES else OPEN), state.canonical, epoch


def land(state: State, sent: Write, by: int = NOBODY) -> State:
    """The journal has a new revision: what is under way on the old one is void, only controller *by* knows the new
    one.
    """
    controllers = tuple(
        (
            controller
            if index == by or not controller.current or controller.mode in IDLE_MODES
            else controller._replace(current=False)
        )
        for index, controller in enumerate(state.controllers)
    )
    return state._replace(journal=sent.journal, canonical=sent.canonical, pending=(), controllers=controllers)


def after(journal: Journal, phase: str) -> Journal:
    """The journal after a change of phase."""
    kept = phase != "I"
    return journal._replace(
        phase=phase,
        from_window=phase == "U" and journal.phase == "W",
        note=False,
        rehearsal=kept and journal.rehearsal,
        rehearsed=kept and journal.rehearsed,
    )


def _label(op: str, target: int = NOBODY, detail: str = "") -> Label:
    return Label(NOBODY, "env", target, op, detail)


def _router(config: Config, state: State, index: int, router: Router, out: list[Transition]) -> None:
    budget = state.budget

    def become(op: str, new: Router, left: Budget = budget, requests: tuple[Request, ...] = state.requests) -> None:
        out.append(
            Transition(
                _label(op, index),
                state._replace(routers=put(state.routers, index, new), budget=left, requests=requests),
            )
        )

    if router.block == LEASED:
        become("lease_end", router._replace(block=OPEN))
    if router.up == DOWN:
        become("boot", Router(UNREADY, *render(config, state)))
    elif router.up == UNREADY:
        become("load", _loaded(router, *render(config, state)))
        if not config.rules.routers_read_linearizably and state.journal.phase == "C":
            become("load", _loaded(router, OPEN, *render(config, state)[1:]))
    elif router.up in (LOADED, STARTING):
        become("ready", router._replace(up=READY))
    if router.up not in SERVING:
        return
    busy = router.block != OPEN or state.journal.phase != "I"  # at rest a router that restarts comes back as it was
    if router.up == CUT:
        become("reachable", router._replace(up=READY))
    elif budget.cuts and busy:
        become("cut", router._replace(up=CUT), budget._replace(cuts=budget.cuts - 1))
    if budget.restarts and busy:
        new = EMPTY_ROUTER if config.rules.routers_read_the_store_last else Router(STARTING, *render(config, state))
        requests = tuple(_cut_off(request, index, ABANDONED) for request in state.requests)
        become("restart", new, budget._replace(restarts=budget.restarts - 1), requests)
    if budget.reloads and router.block != OPEN:
        counted = COUNTED if config.rules.old_workers_are_counted else UNCOUNTED
        requests = tuple(_cut_off(request, index, counted) for request in state.requests)
        become(
            "reload", Router(router.up, *render(config, state)), budget._replace(reloads=budget.reloads - 1), requests
        )


def _late_mapping(state: State, sent: tuple[int, Document, Document], out: list[Transition]) -> None:
    """A write of a mapping document whose answer never came lands, or finds another revision."""
    number, replaced, new = sent
    lands = state.documents[number] == replaced
    left = state._replace(mappings=tuple(other for other in state.mappings if other != sent))
    label = _label("delayed write", NOBODY, f"of mapping document {number + 1} {'lands' if lands else 'is refused'}")
    out.append(Transition(label, left._replace(documents=put(left.documents, number, new)) if lands else left))


def _table(config: Config, state: State, at: int, participant: Participant, out: list[Transition]) -> None:
    """Somebody changes a table beside the migration; a call that its caller gave up is done. At rest the stage repairs
    tables.
    """
    live, budget = state.canonical, state.budget

    def become(op: str, new: Participant, left: Budget = budget, accepted: int = 0) -> None:
        changed = state._replace(participants=put(state.participants, at, new), budget=left)
        label = Label(NOBODY, "env", NOBODY, op, f"participant {at + 1}")
        out.append(Transition(label, changed._replace(accepted=put(state.accepted, at, state.accepted[at] | accepted))))

    if participant.drifted and state.journal.phase == "I":
        become("stage repairs", repair(participant, config.participants[at], live))
    if budget.drifts and not participant.drifted and not participant.fence[live] and participant.lock == NOBODY:
        accepted = COLUMN if config.drift == "column" else 0
        become(
            f"drift of a {config.drift}",
            drift(participant, config.drift, live),
            budget._replace(drifts=budget.drifts - 1),
            accepted,
        )
    if budget.unfences and participant.fence[live] and participant.state == config.unfence:
        become(
            "fence switched off",
            participant._replace(fence=pair(participant.fence, live, 0)),
            budget._replace(unfences=budget.unfences - 1),
        )
    for call in participant.calls:
        left = participant._replace(calls=tuple(other for other in participant.calls if other != call))
        done = (
            None
            if too_old(config.rules, participant, call.epoch, call.parts)
            else run(left, call.parts, NOBODY, call.source, call.epoch)
        )
        become(f"late call {'done' if done else 'refused'}: {', '.join(call.parts)}; epoch {call.epoch}", done or left)


def _loaded(router: Router, block: int, override: int, epoch: int) -> Router:
    """A starting router when it has read the store once more: what commands have changed since its start stays."""
    block = router.block if router.edited & BLOCK_EDITED else block
    override = router.override if router.edited & OVERRIDE_EDITED else override
    return Router(LOADED, block, override, max(router.epoch, epoch))


def _cut_off(request: Request, router: int, counted: int) -> Request:
    """A request whose worker ends (*counted* ABANDONED) or is an old one now: what it held answers 503, what passed
    works on.
    """
    if request.router != router:
        return request
    if request.where == HELD:
        return OVER
    return request._replace(counted=counted) if request.where == PASSED and request.counted else request


def _with(state: State, index: int, request: Request) -> tuple[Request, ...]:
    return put(state.requests, index, request)


def _pass(state: State, index: int, router_index: int, out: list[Transition]) -> None:
    """A request arrives at, or is held by, a router: it is held or passes the gates with the id that the router's map
    names.
    """
    router, request = state.routers[router_index], state.requests[index]
    if router.up not in SERVING:
        return
    if router.block != OPEN:
        if request.where == NEW:
            held = state._replace(requests=_with(state, index, Request(HELD, router_index, NOBODY, 0, ABANDONED)))
            out.append(Transition(Label(NOBODY, "client", index, "is held", f"by router {router_index + 1}"), held))
        return
    passed = Request(PASSED, router_index, router.override, 0, COUNTED)
    label = Label(NOBODY, "client", index, "passes", f"router {router_index + 1} under {IDS[router.override]}")
    violation = RETIRED_ID if router.override != state.canonical else ""
    out.append(Transition(label, state._replace(requests=_with(state, index, passed)), violation))


def _serve(config: Config, state: State, index: int, request: Request, out: list[Transition]) -> None:
    """A request that has passed writes to one participant after the other, or is abandoned on the way."""
    if request.counted == COUNTED:
        abandoned = request._replace(counted=ABANDONED)
        out.append(
            Transition(
                Label(NOBODY, "client", index, "is abandoned"), state._replace(requests=_with(state, index, abandoned))
            )
        )
    participant = state.participants[request.at]
    if participant.lock != NOBODY:
        return
    label = Label(NOBODY, "client", index, "writes", f"to participant {request.at + 1} under {IDS[request.tenant]}")
    written = write(participant, request.tenant, 2 << index)
    if written is None:
        violation = MET_A_FENCE if request.counted else ""
        out.append(
            Transition(label._replace(outcome="refused"), state._replace(requests=_with(state, index, OVER)), violation)
        )
        return
    more = request.at + 1 < len(state.participants)
    following = request._replace(at=request.at + 1) if more else OVER
    changed = _accept(state, request.at, written, 2 << index)._replace(requests=_with(state, index, following))
    out.append(Transition(label, changed, _beside(config, state, request.at, request.tenant)))


def _late(config: Config, state: State, index: int, tenant: int, out: list[Transition]) -> None:
    """A writer that bypasses the routers writes once, to any participant."""
    bit = 2 << (config.requests + index)
    for at, participant in enumerate(state.participants):
        written = write(participant, tenant, bit) if participant.lock == NOBODY else None
        if written is not None:
            label = Label(
                NOBODY, "client", NOBODY, "a late writer writes", f"to participant {at + 1} under {IDS[tenant]}"
            )
            changed = _accept(state, at, written, bit)._replace(late=put(state.late, index, True))
            out.append(Transition(label, changed, _beside(config, state, at, tenant)))


def _accept(state: State, at: int, written: Participant, bit: int) -> State:
    return state._replace(
        participants=put(state.participants, at, written), accepted=put(state.accepted, at, state.accepted[at] | bit)
    )


def _beside(config: Config, state: State, at: int, tenant: int) -> str:
    """A write that an in_place table takes under an id while the rows stand under the other one."""
    moved = config.participants[at] == IN_PLACE and not state.participants[at].rows[tenant] & BASE
    return BESIDE if moved else ""
