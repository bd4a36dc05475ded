# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cutover protocol as data: its steps, and which of them a controller takes from which phase.

Phases: I idle, W window, C closed, U undoing, V undone, K committed, R released.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

CLAIMS, JOURNAL, PARTICIPANTS, ROUTERS, DOCUMENTS = "claims", "journal", "participants", "routers", "documents"


class Step(NamedTuple):
    """One line of the protocol's table.

    A step is done at all targets of its kind, in any order, before the next one begins. ``before``: the phases from
    which a journal step may start; ``after``: the phase that it writes; ``back``: a map step leads back to the id live
    before.
    """

    number: str
    name: str
    target: str
    op: str
    before: str = ""
    after: str = ""
    back: bool = False


TABLE = (
    Step("0", "claim", CLAIMS, "claim"),
    Step("1", "take over: the next epoch, I becomes W, any other phase stays", JOURNAL, "take_over"),
    Step("2", "take over", PARTICIPANTS, "take_over"),
    Step("3", "take over", ROUTERS, "take_over"),
    Step("4", "block with leases", ROUTERS, "lease"),
    Step("5a", "drain", ROUTERS, "drain"),
    Step("5b", "prelude", PARTICIPANTS, "prelude"),
    Step("6", "W becomes C, before the first far block", JOURNAL, "phase", "W", "C"),
    Step("7", "close", ROUTERS, "close"),
    Step("8", "drain again", ROUTERS, "drain"),
    Step("9", "barrier; tables in place are fenced in one transaction and moved in the next", PARTICIPANTS, "barrier"),
    Step("10", "commit", JOURNAL, "phase", "C", "K"),
    Step("11", "mapping documents", DOCUMENTS, "mapping_documents"),
    Step("12", "turn", PARTICIPANTS, "turn"),
    Step("13", "map", ROUTERS, "map"),
    Step("14", "K becomes R", JOURNAL, "phase", "K", "R"),
    Step("15", "release", ROUTERS, "release"),
    Step("16", "R becomes I", JOURNAL, "phase", "R", "I"),
    Step("U1", "W or C becomes U, before anything is undone", JOURNAL, "phase", "WC", "U"),
    Step("U2", "undo", PARTICIPANTS, "undo"),
    Step("U3", "map back", ROUTERS, "map", back=True),
    Step("U4", "U becomes V", JOURNAL, "phase", "U", "V"),
    Step("U5", "release", ROUTERS, "release"),
    Step("U6", "V becomes I", JOURNAL, "phase", "V", "I"),
)
STEPS: Mapping[str, Step] = {step.number: step for step in TABLE}

TAKE_OVER = ("2", "3")
"""What every controller does first, after step 1."""

STAGE, UNDO = "stage", "undo"

PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "W": (*TAKE_OVER, "4", "5a", "5b", "6", "7", "8", "9", "10"),
    "C": (*TAKE_OVER, "7", "8", "9", "10"),
    "K": (*TAKE_OVER, "11", "12", "13", "14", "15", "16"),
    "R": (*TAKE_OVER, "13", "15", "16"),
    UNDO: (*TAKE_OVER, "U1", "U2", "U3", "U4", "U5", "U6"),
    "U": (*TAKE_OVER, "U2", "U3", "U4", "U5", "U6"),
    "V": (*TAKE_OVER, "U3", "U5", "U6"),
    STAGE: ("2",),
}
"""Mode of a controller → its steps. A phase's letter is what a run that finds it does, "W" what one does that opened
the window itself: a window that is found is undone. :data:`UNDO` is the decision, in W or C, to undo; :data:`STAGE` the
stage's job, which takes over at I and opens no window."""

FORWARD = ("W", "C")
RENEWING = ("5a", "5b", "6", "7")
"""Steps during which the leases of a window are renewed beside the work."""

COMMIT = "10"
