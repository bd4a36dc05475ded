# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the steps of a cutover work with: the systems, the journal, the parties, time, and how steps are run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import (
    OutcomeUnknown,
    Superseded,
    Timeout,
    Unreachable,
    ZdmError,
)
from ansible_collections.zdm.landscape.plugins.module_utils.migration import journal as phases
from ansible_collections.zdm.landscape.plugins.module_utils.migration.claims import Claims
from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import Journal
from ansible_collections.zdm.landscape.plugins.module_utils.migration.lease import LeaseKeeper
from ansible_collections.zdm.landscape.plugins.module_utils.migration.mapping import Parties, aliases_of
from ansible_collections.zdm.landscape.plugins.module_utils.migration.policy import Policy
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import Move, Participant
from ansible_collections.zdm.landscape.plugins.module_utils.router.fleet import Fleet
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import Store
from ansible_collections.zdm.landscape.plugins.module_utils.tenants.tenant import Tenant

PATIENCE_MS = 10_000
"""How long a step that can only go one way is repeated while a system does not answer."""

T = TypeVar("T")


@dataclass
class Outcome:
    """What a run did. ``window_ms`` is 0 when it switched nothing."""

    changed: bool = False
    phase: str = phases.IDLE
    canonical: str = ""
    epoch: int = 0
    window_ms: int = 0
    timeline: list[dict[str, Any]] = field(default_factory=list)
    recovered: list[str] = field(default_factory=list)
    """The phases that earlier runs had left and that this run finished or undid."""


class Window:
    """The parts of one migration's window, forward or reverse, that one process runs.

    :param store: the config store.
    :param fleet: all routers.
    :param participants: all participants.
    :param source, target: the migration's tenants, the same in both directions.
    :param policy: leases, time-outs, budget.
    :param interrupted: asked before every step up to the close; true undoes the window.
    :param tell: gets every step when it is done, as in the timeline; it must neither raise nor take time.
    """

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        participants: Sequence[Participant],
        source: Tenant,
        target: Tenant,
        policy: Policy,
        interrupted: Callable[[], bool] = lambda: False,
        tell: Callable[[dict[str, Any]], object] = lambda _step: None,
    ) -> None:
        self.store = store
        self.fleet = fleet
        self.participants = participants
        self.policy = policy
        self.interrupted = interrupted
        self.tell = tell
        self.journal = Journal(store, source, target)
        self.parties = Parties(source, target)
        self.claims = Claims(store, self.journal)
        self.outcome = Outcome()
        self.predicted_window_ms = 0
        self._pool: ThreadPoolExecutor
        self._fingerprints: dict[str, Any] = {}
        self._owned = False
        self._lease = LeaseKeeper(fleet, policy.lease_ms, policy.mode)
        self._started = 0.0

    @property
    def move(self) -> Move:
        """The direction of the journal's window under this controller's epoch."""
        body, parties = self.journal.body, self.parties
        return Move(
            self.journal.key, self.journal.epoch, parties.source.id, parties.target.id, body["from"], body["to"]
        )

    def _run(self, steps: Sequence[Callable[[Any], None]]) -> None:
        for step in steps:
            name = step.__name__.removeprefix("_step_")
            if self.journal.lost:
                raise self.journal.lost
            if self.interrupted() and self.journal.phase == phases.WINDOW:
                raise Timeout(
                    f"The window of {self.journal.key} was interrupted before {name}.",
                    "Run the same command again when you like.",
                )
            begin = time.monotonic()
            step(self)
            at = (begin - self._started) * 1000 if self._started else 0.0
            self.outcome.timeline.append(
                {"step": name, "at_ms": round(at, 1), "ms": round((time.monotonic() - begin) * 1000, 1)}
            )
            self.tell(self.outcome.timeline[-1])

    def _each(self, verb: Callable[[Participant], Any]) -> list[Any]:
        """Do the same at all participants at once and wait for all, also when one fails."""
        futures = [self._pool.submit(verb, participant) for participant in self.participants]
        wait(futures)
        errors = [error for error in (future.exception() for future in futures) if error]
        if errors:
            raise next((error for error in errors if isinstance(error, Superseded)), errors[0])
        return [future.result() for future in futures]

    def _patiently(self, action: Callable[[], T]) -> T:
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while True:
            try:
                return action()
            except (Unreachable, OutcomeUnknown, Timeout):
                if time.monotonic() > deadline or self.journal.lost:
                    raise
                time.sleep(0.2)

    def _list_parties(self) -> None:
        """The accounts that share the data now, and those that an earlier run has blocked."""
        found = aliases_of(self.store, self.journal)
        self.parties = Parties(self.parties.source, self.parties.target, found)

    def _accounts(self) -> dict[str, Any]:
        """What the journal must know of the aliases: routers that start block them, a later run releases them."""
        accounts = [asdict(alias) for alias in self.parties.aliases]
        return {"aliases": [account["id"] for account in accounts], "accounts": accounts}

    def _tenant(self, tenant_id: str) -> Tenant:
        return self.parties.source if tenant_id == self.parties.source.id else self.parties.target

    def _other(self, tenant: Tenant) -> Tenant:
        return self.parties.target if tenant == self.parties.source else self.parties.source

    def _elapsed_ms(self) -> int:
        return round((time.monotonic() - self._started) * 1000)

    def _within_budget(self) -> int:
        """Milliseconds left of the budget; the undo must fit in it too."""
        left = self.policy.window_budget_ms - self._elapsed_ms()
        if left <= 0:
            message = f"The window of {self.journal.key} went over its budget of {self.policy.window_budget_ms} ms."
            raise Timeout(message, "Find out what was slow in the timeline.", timeline=self.outcome.timeline)
        return left

    def _with_this_window(self) -> list[dict[str, Any]]:
        return self.journal.record_window(
            {
                "direction": "forward" if self.journal.canonical == self.parties.target.id else "reverse",
                "epoch": self.journal.epoch,
                "window_ms": self.outcome.window_ms,
                "predicted_window_ms": self.predicted_window_ms,
                "timeline": self.outcome.timeline,
            }
        )

    def _leave(self) -> None:
        """Let the next run begin at once; whoever was superseded leaves no trace."""
        try:
            self.journal.release_owner()
        except ZdmError:
            return  # The owner's heartbeat goes stale by itself.

    def _report(self) -> Outcome:
        self.outcome.phase = self.journal.phase
        self.outcome.canonical = self.journal.canonical
        self.outcome.epoch = self.journal.epoch
        return self.outcome
