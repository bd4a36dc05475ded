# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare-and-sets whose answer may get lost (cutover protocol, amendment 16).

A write without an answer may land at any later moment, until a write on the same revision is decided: whatever a read
shows before that settles nothing. So the same intent is sent again, under a new id, on the same old revision. Once one
of them wins, or loses to another write, none of them can land any more.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Conflict, OutcomeUnknown, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import WRITE_ID, Document, Store

SETTLE_MS = 10_000
"""How long one intent is sent again before its outcome stays unknown."""

_PAUSE_S = 0.1


@dataclass(frozen=True)
class Decision:
    """How an intent was decided; none of its writes can land any more.

    :param found: what stands in the store; ``None`` when somebody has deleted it.
    :param ours: the same when this intent wrote it, ``None`` when another write was first, or has replaced it.
    """

    found: Document | None
    ours: Document | None


def decide(
    store: Store,
    collection: str,
    name: str,
    body: dict[str, Any],
    revision: str | None,
    patience_ms: int | None = None,
) -> Decision:
    """Write *body* if the document's revision is still *revision* (``None``: if there is none), and find out whether it
    was written. It gets a :data:`WRITE_ID` that no other write has.

    :param patience_ms: how long to try, :data:`SETTLE_MS` when not given; with 0 the write is sent once.
    :raises OutcomeUnknown: no answer said whether it was written: it may land at any later moment.
    :raises Unreachable: nothing was written, and nothing is under way.
    """
    patience_ms = SETTLE_MS if patience_ms is None else patience_ms
    deadline = time.monotonic() + patience_ms / 1000
    ids = set[str]()
    under_way = False
    while True:
        write_id = uuid.uuid4().hex
        ids.add(write_id)
        try:
            decision = _send(store, collection, name, {**body, WRITE_ID: write_id}, revision, ids)
            if decision:
                return decision
        except OutcomeUnknown:
            under_way = True
        except Unreachable:
            if not under_way:
                raise
        if time.monotonic() >= deadline:
            raise OutcomeUnknown(
                f"No answer of the {store.describe()} said whether {collection}/{name} was written.",
                "Check the config store, then run the same command again: it finds out.",
                unknown=f"{collection}/{name}",
            )
        time.sleep(_PAUSE_S)


def _send(
    store: Store, collection: str, name: str, body: dict[str, Any], revision: str | None, ids: set[str]
) -> Decision | None:
    """One compare-and-set. A conflict may be the answer to a write of our own that landed: a read decides, unless it
    still shows the old revision.
    """
    try:
        written = store.put(collection, name, body, revision)
        return Decision(written, written)
    except Conflict:
        found = store.get(collection, name)
    if (found.revision if found else None) == revision:
        return None
    return Decision(found, found if found and found.body.get(WRITE_ID) in ids else None)
