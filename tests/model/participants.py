# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the verbs of a participant do to it, as small parts in the order in which they happen.

A real participant does each verb in one transaction. Split, as on a database where DDL commits by itself, a crash may
leave it between two parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ansible_collections.zdm.landscape.tests.model.state import (
    BASE,
    COLUMN,
    FENCED,
    IN_PLACE,
    MOVED,
    NOBODY,
    SERVICE,
    SOURCE,
    STAGED,
    TARGET,
    TWIN,
    Participant,
    pair,
)

Part = Callable[[Participant, int, int, int], "Participant | None"]
"""From, to and epoch: the id live before and the one live after the window. A part that ends in a question mark refuses
with ``None``.
"""

Verb = tuple[tuple[str, ...], ...]
"""Groups of parts; what stands in one group always happens at once. A group that begins with :data:`NEXT` is a
transaction of its own, all others of a verb are one unless the steps are split."""


def staged(kind: str, canonical: int) -> Participant:
    """A participant after its stage: the retired id is fenced, a twin exists and changes are logged."""
    other = 1 - canonical
    rows = (BASE, BASE) if kind == TWIN else pair((0, 0), canonical, BASE)
    logging = pair((0, 0), canonical, 1) if kind == TWIN else (0, 0)
    return Participant(0, rows, (0, 0), logging, pair((0, 0), other, 1), NOBODY)


def _apply(p: Participant, frm: int, to: int, _epoch: int) -> Participant:
    if not p.log[frm]:
        return p
    copied = p.rows[frm] & ~COLUMN | p.rows[to] & COLUMN if p.drifted else p.rows[frm]
    return p._replace(rows=pair(p.rows, to, copied), log=pair(p.log, frm, 0))


def drift(p: Participant, kind: str, live: int) -> Participant:
    """Somebody changes a table that is served: a column that is filled at once, or a lost trigger that fills the
    log.
    """
    if kind == "column":
        p = p._replace(rows=pair(p.rows, live, p.rows[live] | COLUMN))
    return p._replace(drifted=True, logging=pair(p.logging, live, 0) if kind == "trigger" else p.logging)


def repair(p: Participant, strategy: str, live: int) -> Participant:
    """The stage has compared the tables with the plan, and copied anew what differs."""
    rows, logging = (
        (pair(p.rows, 1 - live, p.rows[live]), pair((0, 0), live, 1)) if strategy == TWIN else (p.rows, p.logging)
    )
    return p._replace(drifted=False, rows=rows, logging=logging, log=(0, 0))


def _drop_log(p: Participant, frm: int, _to: int, _epoch: int) -> Participant:
    return p._replace(logging=pair(p.logging, frm, 0), log=pair(p.log, frm, 0))


def _drop_log_back(p: Participant, _frm: int, to: int, _epoch: int) -> Participant:
    return p._replace(logging=pair(p.logging, to, 0), log=pair(p.log, to, 0), fence=pair(p.fence, to, 1))


def _move(p: Participant, frm: int, to: int, _epoch: int) -> Participant:
    if p.state == MOVED:
        return p
    return p._replace(rows=pair(pair(p.rows, to, p.rows[to] | p.rows[frm]), frm, 0))


def _move_back(p: Participant, frm: int, to: int, _epoch: int) -> Participant:
    rows = pair(pair(p.rows, frm, p.rows[to] | p.rows[frm]), to, 0)
    return p._replace(rows=rows, fence=pair(p.fence, to, 1))


PARTS: Mapping[str, Part] = {
    "unfinished?": lambda p, frm, to, epoch: None if p.finished >= epoch else p,
    "fenced?": lambda p, frm, to, epoch: None if p.state == STAGED else p,
    "fence on?": lambda p, frm, to, epoch: p if p.fence[frm] else None,
    "as planned?": lambda p, frm, to, epoch: None if p.drifted else p,
    "apply": _apply,
    "fence": lambda p, frm, to, epoch: p._replace(fence=pair(p.fence, frm, 1)),
    "unfence": lambda p, frm, to, epoch: p._replace(fence=pair(p.fence, frm, 0)),
    "open": lambda p, frm, to, epoch: p._replace(fence=pair(p.fence, to, 0)),
    "start log back": lambda p, frm, to, epoch: p._replace(logging=pair(p.logging, to, 1)),
    "drop log back": _drop_log_back,
    "keep log": lambda p, frm, to, epoch: p._replace(logging=pair(p.logging, frm, 1)),
    "drop log": _drop_log,
    "move": _move,
    "note fenced": lambda p, frm, to, epoch: p._replace(state=max(p.state, FENCED)),
    "note moved": lambda p, frm, to, epoch: p._replace(state=MOVED),
    "note staged": lambda p, frm, to, epoch: p._replace(state=STAGED),
    "finish": lambda p, frm, to, epoch: p._replace(finished=epoch),
    "finish what was begun": lambda p, frm, to, epoch: p._replace(finished=epoch) if p.fence[frm] else p,
    "move back": _move_back,
}
LOCK, UNLOCK, NEXT = "lock", "unlock", "next transaction"

VERBS: Mapping[tuple[str, str], Verb] = {
    (TWIN, "prelude"): (("apply",),),
    (TWIN, "barrier"): ((LOCK, "unfinished?", "as planned?", "fence"), ("apply",), ("start log back",), (UNLOCK,)),
    (TWIN, "turn"): (("drop log",), ("fence", "open", "finish")),
    (TWIN, "undo"): (("keep log",), ("drop log back",), ("unfence", "finish")),
    (IN_PLACE, "prelude"): ((),),
    (IN_PLACE, "barrier"): (
        ("unfinished?", "as planned?", "fence", "note fenced"),
        (NEXT, "unfinished?", "as planned?", "fenced?", "fence on?", "move", "note moved"),
    ),
    (IN_PLACE, "turn"): (("fence", "open", "note staged", "finish"),),
    (IN_PLACE, "undo"): (("move back",), ("unfence", "note staged", "finish")),
    (SERVICE, "prelude"): ((),),
    (SERVICE, "barrier"): (("unfinished?", "fence", "move", "note moved"),),
    (SERVICE, "turn"): (("fence", "open", "note staged", "finish"),),
    (SERVICE, "undo"): (("move back", "unfence", "note staged", "finish"),),
}


def groups(verbs: Mapping[tuple[str, str], Verb], kind: str, op: str, split: bool, joined: bool = False) -> Verb:
    """The parts of a verb in the groups that happen at once: all of a transaction unless *split*, all of the verb if
    *joined*.
    """
    if op == "take_over":
        return ((),)
    if split:
        return tuple(tuple(part for part in group if part != NEXT) for group in verbs[kind, op])
    transactions: list[tuple[str, ...]] = [()]
    for group in verbs[kind, op]:
        if NEXT in group and not joined:
            transactions.append(())
        transactions[-1] += tuple(part for part in group if part not in (LOCK, UNLOCK, NEXT))
    return tuple(transactions)


def run(p: Participant, parts: tuple[str, ...], controller: int, frm: int, epoch: int) -> Participant | None:
    """*p* after these parts, which are one transaction; ``None`` when one of them refuses."""
    to = TARGET if frm == SOURCE else SOURCE
    for part in parts:
        changed = (
            PARTS[part](p, frm, to, epoch) if part in PARTS else p._replace(lock=controller if part == LOCK else NOBODY)
        )
        if changed is None:
            return None
        p = changed
    return p


def write(p: Participant, tenant: int, bit: int) -> Participant | None:
    """*p* after a write under *tenant*; ``None`` when the fence refuses it. Not to be called while a lock is held."""
    if p.fence[tenant]:
        return None
    log = pair(p.log, tenant, 1) if p.logging[tenant] else p.log
    return p._replace(rows=pair(p.rows, tenant, p.rows[tenant] | bit), log=log)
