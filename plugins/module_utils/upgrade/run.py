# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of upgrades: who is refused before anything begins, a canary first and alone, then batches, each followed to
its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import (
    InputError,
    OutcomeUnknown,
    Refused,
    Timeout,
    Unreachable,
    ZdmError,
)
from ansible_collections.zdm.landscape.plugins.module_utils.core.names import valid_name
from ansible_collections.zdm.landscape.plugins.module_utils.upgrade.base import (
    FAILED,
    PLANNED,
    UNKNOWN,
    UPGRADED,
    Job,
    Outcome,
    Progress,
    TenantState,
    UpgradeFailed,
    Way,
)

LOST_START = "unknown"
"""Stands for the id of a job whose start was sent and never answered."""
_SHOWN = 20
_AGAIN = "Run the same task again: a tenant that has the new schema is upgraded in no time."
_HANDS_OFF = "Until it is known to have ended, neither resume nor abort the deployment."


@dataclass(frozen=True)
class Plan:
    """Who is upgraded together, in order. The first batch is the canary alone when there is one."""

    batches: tuple[tuple[str, ...], ...]
    canary: str = ""

    @property
    def tenants(self) -> tuple[str, ...]:
        return tuple(tenant for batch in self.batches for tenant in batch)


def plan(known: Sequence[str], wanted: Sequence[str] | None, canary: str, batch_size: int) -> Plan:
    """Decide who is upgraded together.

    :param known: all tenants there are.
    :param wanted: ids; ``None`` means all.
    :raises InputError: a tenant is unknown or named twice, the canary is not among the wanted ones, or the size is no
        size.
    """
    if batch_size < 1:
        raise InputError(f"batch_size {batch_size} is too small.", "Give 1 or more.")
    tenants = sorted(set(known)) if wanted is None else [valid_name(tenant, "tenant") for tenant in wanted]
    twice = sorted({tenant for tenant in tenants if tenants.count(tenant) > 1})
    if twice:
        raise InputError(f"tenants names {', '.join(twice)} twice.", "Name every tenant once.")
    unknown = [tenant for tenant in tenants if tenant not in set(known)]
    if unknown:
        there = ", ".join(sorted(known)[:_SHOWN]) or "none"
        more = ", …" if len(known) > _SHOWN else ""
        raise InputError(
            f"Unknown tenants: {', '.join(unknown)}.",
            f"Correct their ids; none was upgraded. Subscribed are: {there}{more}.",
        )
    if canary and canary not in tenants:
        raise InputError(
            f"The canary {canary} is not among the tenants to upgrade.",
            "Name a tenant that is, by its id; none was upgraded.",
        )
    others = [tenant for tenant in tenants if tenant != canary]
    batches = [tuple(others[start : start + batch_size]) for start in range(0, len(others), batch_size)]
    return Plan(tuple([(canary,), *batches] if canary else batches), canary)


@dataclass
class Run:
    """Carries a plan out.

    :param timeout_ms: for all of it, waiting for upgrades of others included.
    :param go_on: whether the next batch starts although a tenant failed; never after the canary.
    :param tell: gets a line for a person.
    """

    way: Way
    plan: Plan
    timeout_ms: int
    poll_ms: int
    go_on: bool
    tell: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    outcome: Outcome = field(default_factory=Outcome)

    def carry_out(self) -> Outcome:
        """Upgrade batch by batch. Whatever happens after the first start is in the outcome, not raised."""
        self.outcome.tenants = {tenant: TenantState(PLANNED) for tenant in self.plan.tenants}
        self._deadline = self.clock() + self.timeout_ms / 1000
        try:
            self._wait_for_others()
            for batch in self.plan.batches:
                self._upgrade(batch)
        except ZdmError as error:
            self.outcome.problem = error
        failed = self.outcome.of(FAILED)
        if failed and self.outcome.problem is None:
            self.outcome.problem = UpgradeFailed(f"Not upgraded: {self._reasons(failed)}", f"Mend the cause. {_AGAIN}")
        return self.outcome

    def settle(self) -> Outcome:
        """Upgrade nobody; wait until no upgrade of the plan's tenants is under way."""
        self._deadline = self.clock() + self.timeout_ms / 1000
        try:
            self._wait_for_others()
        except ZdmError as error:
            self.outcome.problem = error
        return self.outcome

    def _upgrade(self, batch: Sequence[str]) -> None:
        job = self._start(batch)
        self.outcome.open_job = job.id
        self.tell(
            f"job {job.id} upgrades {len(job.tenants)} tenant{'' if len(job.tenants) == 1 else 's'}:"
            f" {', '.join(job.tenants)}"
        )
        progress = self._follow(job)
        more = sorted(set(job.tenants) - set(batch))
        unknown = [tenant for tenant in batch if not self.outcome.tenants[tenant].ended]
        if unknown:
            why = progress.lost or self.outcome.tenants[unknown[0]].error or "its job does not tell"
            self._note({tenant: TenantState(UNKNOWN, self.outcome.tenants[tenant].error or why) for tenant in unknown})
            raise OutcomeUnknown(
                f"Job {job.id} ended, and nobody knows the state of {', '.join(unknown)}: {why}.",
                f"{_AGAIN} {_HANDS_OFF}",
            )
        self.outcome.open_job = ""
        failed = [tenant for tenant in job.tenants if self.outcome.tenants[tenant].status == FAILED]
        if failed and self.plan.canary in failed:
            raise UpgradeFailed(
                f"The canary could not be upgraded: {self._reasons(failed)}",
                f"No other tenant was touched. Mend the cause. {_AGAIN}",
            )
        if more:
            advice = "Let the sidecar take tenants one by one: cds.requires.multitenancy.jobs.clusterSize is 1."
            raise Refused(
                f"Asked for {', '.join(batch)}, job {job.id} upgraded {', '.join(more)} too, so that no canary goes"
                " ahead of others.",
                advice,
            )
        if failed and not self.go_on:
            raise UpgradeFailed(
                f"Not upgraded: {self._reasons(failed)}",
                f"The batches after this one were not touched. Mend the cause. {_AGAIN}",
            )

    def _start(self, batch: Sequence[str]) -> Job:
        """Start a batch. When the answer is lost it is started again, after what may have begun has ended: upgrading
        twice does no harm.
        """
        while True:
            try:
                return self.way.start(batch)
            except (OutcomeUnknown, Unreachable) as error:
                self.outcome.open_job = LOST_START
                self.tell(f"the start of an upgrade was not answered: {error.message}")
                self._pause(error, "a job whose start was not answered")
                self._wait_for_others()

    def _wait_for_others(self) -> None:
        """Wait until upgrades that somebody started before have ended, for example a run that was killed."""
        while True:
            try:
                jobs = self.way.running(self.plan.tenants) if self.plan.tenants else []
            except Unreachable as error:
                self._pause(error, self.outcome.open_job and "a job whose start was not answered")
                continue
            if not jobs:
                return
            for job in jobs:
                self.outcome.open_job = job.id
                self.tell(f"job {job.id} of somebody else still upgrades {', '.join(job.tenants)}: waiting for its end")
                progress = self._follow(job, mine=False)
                self.tell(f"job {job.id} {'is lost: ' + progress.lost if progress.lost else 'has ended'}")
                self.outcome.open_job = ""

    def _follow(self, job: Job, mine: bool = True) -> Progress:
        """Poll until the job has ended.

        :raises Timeout: it has not in time.
        """
        problem: Unreachable | None = None
        while True:
            try:
                progress = job.poll()
                problem = None
            except Unreachable as error:
                problem = error
            except Refused as error:
                raise Refused(f"{error.message} Job {job.id} goes on.", f"{error.advice} {_HANDS_OFF}") from error
            else:
                if mine:
                    self._note(progress.tenants)
                if progress.ended:
                    return progress
            self._pause(problem, f"job {job.id}")

    def _pause(self, problem: ZdmError | None, what: str) -> None:
        if self.clock() >= self._deadline:
            if not what and problem is not None:
                raise problem
            running = [
                tenant for tenant, state in self.outcome.tenants.items() if not state.ended and state.status != PLANNED
            ]
            silent = f" Last: {problem.message}" if problem else ""
            message = (
                f"{what[0].upper()}{what[1:]} has not ended in time; not upgraded so far:"
                f" {', '.join(running) or 'unknown'}.{silent}"
            )
            raise Timeout(message, f"{_HANDS_OFF} Then run the same task again, with a longer timeout.")
        self.sleep(self.poll_ms / 1000)

    def _note(self, states: dict[str, TenantState]) -> None:
        for tenant, state in states.items():
            before = self.outcome.tenants.get(tenant)
            self.outcome.tenants[tenant] = state
            if before == state or (before and before.status == state.status):
                continue
            done = len(self.outcome.of(UPGRADED))
            extra = (
                f" ({done} of {len(self.outcome.tenants)})"
                if state.status == UPGRADED
                else f": {state.error}"
                if state.error
                else ""
            )
            self.tell(f"tenant {tenant} {state.status}{extra}")

    def _reasons(self, tenants: Sequence[str]) -> str:
        return "; ".join(f"{tenant} ({self.outcome.tenants[tenant].error})" for tenant in tenants)
