# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan: what will happen to every table, how long it will take, and the exact SQL. Read-only to make."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import Journal
from ansible_collections.zdm.landscape.plugins.module_utils.migration.mapping import Parties
from ansible_collections.zdm.landscape.plugins.module_utils.migration.plan_text import plan_text, proposal_text
from ansible_collections.zdm.landscape.plugins.module_utils.migration.signature import Signature
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    Inspection,
    Participant,
    Refusal,
)
from ansible_collections.zdm.landscape.plugins.module_utils.router.fleet import Fleet

_STORE_WRITES = 4
"""Journal writes inside a window: C, the drain's evidence, K, R."""
_ROUTER_ROUNDS = 6
"""Rounds of commands to all routers inside a window: lease, drain, close, drain, map, release."""
_PARTICIPANT_ROUNDS = 60
"""What prelude, barrier and turn cost whatever the rows, in small transactions: measured with one to four participants,
idle and busy.
"""
_SAMPLES, _ROUTER_SAMPLES = 20, 5
_UNKNOWN_WRITE_MS = 5.0


@dataclass(frozen=True)
class Plan:
    """What every participant would do, and the predicted window."""

    migration: str
    inspections: tuple[Inspection, ...]
    router_ms: float
    """One round of commands to all routers."""
    store_ms: float
    """One write to the config store."""
    documents: int
    participants_ms: float = 0.0
    """One small transaction in every participant, in all of them at the same time."""

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        return tuple(refusal for inspection in self.inspections for refusal in inspection.refusals)

    @property
    def predicted_window_ms(self) -> int:
        """Participants work at the same time; routers and store are served one step after the other."""
        slowest = max((inspection.window_ms for inspection in self.inspections), default=0)
        return round(
            slowest
            + _PARTICIPANT_ROUNDS * self.participants_ms
            + _ROUTER_ROUNDS * self.router_ms
            + (_STORE_WRITES + self.documents) * self.store_ms
        )

    @property
    def signature(self) -> Signature:
        return Signature.of(self.migration, self.inspections)

    @property
    def digest(self) -> str:
        """Of the schemas and the strategies: what a DBA signed is what runs, or it is refused."""
        return str(self.signature)

    def as_dict(self) -> dict[str, Any]:
        return {
            "migration": self.migration,
            "digest": self.digest,
            "predicted_window_ms": self.predicted_window_ms,
            "databases": [inspection.as_dict() for inspection in self.inspections],
            "refusals": [asdict(refusal) for refusal in self.refusals],
            "proposal": proposal_text(self.inspections),
            "text": self.text(),
        }

    def text(self) -> str:
        """For a person to read and sign."""
        return plan_text(self.migration, self.digest, self.predicted_window_ms, self.inspections)


def make_plan(
    journal: Journal, parties: Parties, participants: Sequence[Participant], fleet: Fleet, signed: str = ""
) -> Plan:
    """Inspect every participant and measure routers and store. Changes nothing.

    :param signed: digest of the plan that was signed: its strategies are kept while the schemas are those of it.
    :raises Unreachable: a participant or router does not answer.
    """
    signature = Signature.read(signed)
    strategies = signature.by_participant([participant.name for participant in participants])
    inspections = _inspect(journal, parties, participants, strategies)
    if strategies and Signature.of(journal.key, inspections).structure != signature.structure:
        # signed for other schemas: these get the plan that is theirs, as whoever has to sign it will see it
        inspections = _inspect(journal, parties, participants, {})
    fleet.states()  # The first round pays for the connections.
    router_ms = _median_ms(lambda: fleet.in_flight(parties.ids), _ROUTER_SAMPLES)
    store_ms = float(journal.body.get("write_ms") or _UNKNOWN_WRITE_MS)
    return Plan(journal.key, inspections, router_ms, store_ms, len(parties.all), _measure_together(participants))


def _inspect(
    journal: Journal, parties: Parties, participants: Sequence[Participant], signed: Mapping[str, str]
) -> tuple[Inspection, ...]:
    return tuple(
        participant.inspect(
            journal.key,
            parties.source.id,
            parties.target.id,
            signed.get(participant.name, ""),
            journal.canonical,
        )
        for participant in participants
    )


def _median_ms(action: Callable[[], object], samples: int) -> float:
    """Milliseconds of *action*: the median, as other work on the hosts disturbs single ones."""
    times = []
    for _sample in range(samples):
        begin = time.monotonic()
        action()
        times.append((time.monotonic() - begin) * 1000)
    return statistics.median(times)


def _measure_together(participants: Sequence[Participant]) -> float:
    """Milliseconds of one small transaction in all participants at once: they share this process, and maybe a host."""
    with ThreadPoolExecutor(max(1, len(participants))) as pool:
        return _median_ms(lambda: wait([pool.submit(participant.round_trip) for participant in participants]), _SAMPLES)
