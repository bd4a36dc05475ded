# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of the transition: the retired rows and every helper object go, the mapping of the old tenant stays.

=====================================  ================================================================================
step                                   a process that dies right after it
=====================================  ================================================================================
0  claim, take over                    the transition goes on as it was; a reverse is possible
1  the journal says ``finalizing``     no window can be opened any more; finalize goes on
2  each participant: purge, helpers    as after 1. A participant removes its rows in chunks and its state row last, so
                                       that the same call goes on with the next chunk
3  the operator's limits go            as after 1
4  the journal says ``finalized``      the claims are still held; finalize gives them back
5  the claims are given back           done
=====================================  ================================================================================

Step 1 comes before the first row goes: a reverse that began earlier has made the journal leave phase I, which step 0
refuses, and one that begins later is refused. The live rows are never written. The fence of the retired id goes with
the helpers: from then on only the routers' override keeps requests away from it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.migration.claims import Claims, claims_of
from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import Journal, begins_again
from ansible_collections.zdm.landscape.plugins.module_utils.migration.mapping import Parties
from ansible_collections.zdm.landscape.plugins.module_utils.migration.preflight import expect_idle
from ansible_collections.zdm.landscape.plugins.module_utils.migration.stage import between_chunks, between_windows
from ansible_collections.zdm.landscape.plugins.module_utils.migration.throttle import Throttle, lift
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    ABSENT,
    Participant,
    Progress,
    untold,
)
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import Store


def is_finalized(store: Store, journal: Journal) -> bool:
    """Whether nothing is left to do."""
    return bool(journal.body.get("finalized_at_ms")) and not claims_of(store, journal)


@begins_again
def finalize(
    store: Store,
    journal: Journal,
    parties: Parties,
    participants: Sequence[Participant],
    progress: Progress = untold,
    *,
    force: bool = False,
    throttle: Throttle | None = None,
) -> dict[str, int]:
    """End the transition. Returns the rows that this call deleted, per participant; nothing when all had been done.

    :param progress: called between two chunks, and while the next one has to wait; what it raises ends the work.
    :raises Refused: a window is open, the source is live, or a participant disagrees about that; nothing was touched.
    """
    journal.read()
    if journal.body.get("finalized_at_ms"):
        Claims(store, journal).give_back()
        return {}
    check(journal, parties, participants)
    claims = Claims(store, journal)
    claims.take(parties)  # 0
    deleted = {}
    with between_windows(journal, parties, force, claims) as move:
        journal.note(finalizing=True, staged=False, plan_digest="", progress={})  # 1
        for participant in participants:  # 2
            participant.take_over(move)
            deleted[participant.name] = participant.remove(
                move, between_chunks(journal, participant, progress, throttle)
            )
            progress({"participant": participant.name, "step": "finalized", "rows": deleted[participant.name]})
        lift(store, journal.key)  # 3
        journal.note(finalizing=False, finalized_at_ms=int(time.time() * 1000), progress={})  # 4
    claims.give_back()  # 5
    return deleted


def check(journal: Journal, parties: Parties, participants: Sequence[Participant]) -> None:
    """Refuse what would delete rows that somebody needs. Changes nothing.

    :raises Refused: a window is open, the source is live, or a participant holds another id to be live.
    """
    expect_idle(journal)
    source, target = parties.source, parties.target
    if journal.canonical != target.id:
        raise Refused(
            f"{source.subdomain} is live in the migration {journal.key}: its rows are the ones in use.",
            "To end a migration that is not wanted, run zdm.landscape.abort; to finish it, run zdm.landscape.migrate"
            " first.",
        )
    for participant in participants:
        status = participant.status(journal.key, source.id, target.id)
        # a stage that was interrupted is no obstacle: only rows that are the migration's own are deleted
        if status.state != ABSENT and status.live_id not in ("", target.id):
            raise Refused(
                f"{participant.name} is {status.state} and holds {status.live_id} to be live, the journal {target.id}.",
                "Run zdm.landscape.status: it says what to do.",
            )
