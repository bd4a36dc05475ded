# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of the model: everything that survives in some system, as nested tuples that are quick to hash.

The two tenant ids are 0, the migration's source, and 1, its target. Whole numbers used as bit sets: the rows under one
id (bit 0 stands for all rows from before, each further bit for one write) and the sub-steps that a controller has done.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

_T = TypeVar("_T")

SOURCE, TARGET = 0, 1
IDS = ("source", "target")

OPEN, LEASED, CLOSED = 0, 1, 2
"""A router's block of all ids of the migration: none, one that ends by itself, the far deadline."""

DOWN, UNREADY, LOADED, READY, CUT, STARTING = 0, 1, 2, 3, 4, 5
"""A router: not there; takes commands, serves nobody yet; has read the store again; serves; serves, but its control
can't be reached; takes commands, but will serve with what it has read before them (only in a mutant)."""

BLOCK_EDITED, OVERRIDE_EDITED = 1, 2
"""What commands have changed in a router since it started: the store does not replace it."""

NEW, HELD, PASSED, DONE = 0, 1, 2, 3
"""A request: not sent yet, held by a router, past the gates and on its way through the participants, over."""

ABANDONED, COUNTED, UNCOUNTED = 0, 1, 2
"""A request past the gates: its client or router is gone but the service works on; in the drain's count; with a
customer who waits but not in the count (only in a mutant)."""

TWIN, IN_PLACE, SERVICE = "twin", "in_place", "service"
"""Strategies. A service moves its rows in one go."""

STAGED, FENCED, MOVED = 0, 1, 2
"""What an in_place participant notes of a window: nothing, its first transaction, its second."""

BASE = 1
"""The bit of the rows from before."""
COLUMN = 1 << 20
"""The bit of what stands in a column that the plan does not know."""

NOBODY = -1


class Journal(NamedTuple):
    """The migration's document. Its canonical id is ``State.canonical``.

    ``from_window``: the undo began in W, not in C; ``taker``: the controller whose take over began the epoch, as the
    write id tells it (kept only where a take over may stay without an answer); ``note``: the last write was a note,
    such as a heartbeat; ``rehearsal``: the flag in the document; ``rehearsed``: whether its window really was opened as
    a rehearsal.
    """

    epoch: int
    phase: str
    from_window: bool = False
    taker: int = NOBODY
    note: bool = False
    rehearsal: bool = False
    rehearsed: bool = False


class Write(NamedTuple):
    """A write of the journal that was sent on its present revision and whose answer never came."""

    journal: Journal
    canonical: int


class Document(NamedTuple):
    """A mapping document: the id that it leads to and the epoch under which it was written; both are its revision."""

    leads_to: int
    epoch: int


class Router(NamedTuple):
    """A router: see :data:`DOWN`, :data:`OPEN`; the id that requests leave with; the newest epoch that it has seen.

    ``edited``: see :data:`BLOCK_EDITED`.
    """

    up: int
    block: int
    override: int
    epoch: int
    edited: int = 0


class Call(NamedTuple):
    """One transaction of a verb that still waits at the participant: its parts, its epoch, the id live before its
    window.
    """

    parts: tuple[str, ...]
    epoch: int
    source: int


class Participant(NamedTuple):
    """A participant with one strategy. The pairs hold a value for the source id and one for the target id.

    ``log``: keys wait there to be applied to the twin; ``logging``: the trigger that fills the log is there; ``lock``:
    the controller that holds the table lock (only when the steps are split); ``drifted``: its catalog is not the plan's
    any more; ``state``: see :data:`STAGED`; ``finished``: the newest epoch that was undone or turned there; ``calls``:
    those that their caller has given up and that may still be done (``finished`` is kept only where there may be such
    calls).
    """

    epoch: int
    rows: tuple[int, int]
    log: tuple[int, int]
    logging: tuple[int, int]
    fence: tuple[int, int]
    lock: int
    drifted: bool = False
    state: int = STAGED
    finished: int = 0
    calls: tuple[Call, ...] = ()


class Controller(NamedTuple):
    """A process that runs the protocol. A dead or paused one is one that does not move, so there is no state for that.

    ``mode`` names its program, ``step`` is the place in it, ``done`` the set of sub-steps done there, ``source`` the id
    that was live before its window, ``asking`` that the answer to its last write of the journal never came, ``seen``
    the mapping documents that it has read in this step, ``current`` that the revision of the journal that it knows is
    the present one.
    """

    mode: str
    step: int
    done: int
    epoch: int
    source: int
    asking: bool
    seen: tuple[Document | None, ...]
    current: bool = True


class Request(NamedTuple):
    """A customer's request: see :data:`NEW` and :data:`ABANDONED`; ``at`` is the participant that it writes to next."""

    where: int
    router: int
    tenant: int
    at: int
    counted: int


class Budget(NamedTuple):
    """How often the environment may still do what it may do seldom."""

    restarts: int = 0
    reloads: int = 0
    cuts: int = 0
    losses: int = 0
    notes: int = 0
    drifts: int = 0
    unfences: int = 0
    calls: int = 0


class State(NamedTuple):
    """All of it.

    ``pending``: the writes without an answer that may still land. A compare-and-set lands only on the present revision
    and no revision comes back, so that they are those sent on the present one: whichever lands first, the others are
    void. ``accepted``: per participant the writes that it took; ``late``: which late writers are done; ``mappings``:
    writes of mapping documents without an answer, as number, the document that each replaces, and the new one.
    """

    journal: Journal
    pending: tuple[Write, ...]
    documents: tuple[Document, ...]
    routers: tuple[Router, ...]
    participants: tuple[Participant, ...]
    controllers: tuple[Controller, ...]
    requests: tuple[Request, ...]
    late: tuple[bool, ...]
    canonical: int
    accepted: tuple[int, ...]
    budget: Budget
    mappings: tuple[tuple[int, Document, Document], ...] = ()


class Label(NamedTuple):
    """What a transition did. ``actor`` is a controller's number or :data:`NOBODY` for the environment.

    ``system`` is store, router, participant, env, client, or controller for what nobody can see from outside.
    """

    actor: int
    system: str
    target: int
    op: str
    detail: str = ""
    epoch: int = 0
    outcome: str = "ok"
    number: str = ""

    def __str__(self) -> str:
        who = "environment" if self.actor == NOBODY else f"controller {self.actor + 1} (epoch {self.epoch})"
        where = f"{self.system} {self.target + 1}" if self.target != NOBODY else self.system
        step = f"step {self.number}: " if self.number else ""
        return f"{who}: {step}{where} {self.op} {self.detail}".rstrip() + (
            "" if self.outcome == "ok" else f" [{self.outcome}]"
        )


class Transition(NamedTuple):
    """One possible next step, and the invariant that the step itself breaks, or an empty string."""

    label: Label
    state: State
    violation: str = ""


UNSTARTED = Controller("", 0, 0, 0, SOURCE, False, ())
ENDED = Controller("end", 0, 0, 0, SOURCE, False, ())
"""It has finished or was superseded."""
DEAD = Controller("dead", 0, 0, 0, SOURCE, False, ())
IDLE_MODES = (UNSTARTED.mode, ENDED.mode, DEAD.mode)
UNSENT = Request(NEW, NOBODY, NOBODY, 0, ABANDONED)
OVER = Request(DONE, NOBODY, NOBODY, 0, ABANDONED)
EMPTY_ROUTER = Router(DOWN, OPEN, SOURCE, 0)


def pair(values: tuple[int, int], index: int, value: int) -> tuple[int, int]:
    """*values* with one of the two changed."""
    return (value, values[1]) if index == 0 else (values[0], value)


def put(values: tuple[_T, ...], index: int, value: _T) -> tuple[_T, ...]:
    """*values* with one of them changed."""
    return (*values[:index], value, *values[index + 1 :])
