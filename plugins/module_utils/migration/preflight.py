# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that must be true before a tenant is touched. Changes nothing; every finding names an object and the way
out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.durations import format_ms
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused, ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.migration.claims import holder_of
from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import IDLE, Journal
from ansible_collections.zdm.landscape.plugins.module_utils.migration.mapping import Parties
from ansible_collections.zdm.landscape.plugins.module_utils.migration.plan import Plan, make_plan
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import Participant, Status
from ansible_collections.zdm.landscape.plugins.module_utils.router.base import RouterState
from ansible_collections.zdm.landscape.plugins.module_utils.router.fleet import Fleet
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import CLAIMS, ONBOARDED, Store
from ansible_collections.zdm.landscape.plugins.module_utils.tenants.tenant import Tenant

CLOCK_SKEW_MS = 500


@dataclass(frozen=True)
class Finding:
    """One thing that was checked; ``advice`` is empty when it is in order."""

    check: str
    ok: bool
    object: str
    message: str
    advice: str = ""


Health = Callable[[], list[Finding]]


class Preflight:
    """The checks before a stage or a window.

    :param live: the tenant whose id is live and stays so until the commit.
    :param health: asks the health endpoints.
    :param verified_within_ms: how old (milliseconds) the last comparison of a participant's twins may be.
    :param unverified: why a window may be opened although the twins were not compared for long; empty: it may not.
    :param signed: digest of the plan that was signed, see :func:`make_plan`.
    """

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        participants: Sequence[Participant],
        journal: Journal,
        parties: Parties,
        live: Tenant,
        window_budget_ms: int,
        verified_within_ms: int,
        health: Health,
        unverified: str = "",
        signed: str = "",
    ) -> None:
        self.store = store
        self.fleet = fleet
        self.participants = participants
        self.journal = journal
        self.parties = parties
        self.live = live
        self.window_budget_ms = window_budget_ms
        self.verified_within_ms = verified_within_ms
        self.health = health
        self.unverified = unverified
        self.signed = signed
        self.plan: Plan | None = None

    def run(self, *, for_window: bool) -> list[Finding]:
        """All findings, in the order in which a person would look. An object that can't be checked is a finding, not an
        error.
        """
        findings = [*self._mapping(), *self._claims(), *self._routers(), *self.health()]
        try:
            self.plan = make_plan(self.journal, self.parties, self.participants, self.fleet, self.signed)
        except ZdmError as error:
            return [*findings, Finding("participants", False, "plan", error.message, error.advice)]
        findings += [
            Finding("tables", False, refusal.object, refusal.reason, refusal.advice) for refusal in self.plan.refusals
        ]
        if for_window:
            findings += self._staged()
        return [*findings, self._budget(self.plan)]

    def _mapping(self) -> Iterator[Finding]:
        """Phase 1 is complete: every account leads to the live tenant, in one datacenter."""
        documents = {document.name: document.body for document in self.store.list(ONBOARDED)}
        live = documents.get(self.live.subdomain, {})
        if "mapToTenant" in live:
            yield Finding(
                "mapping",
                False,
                f"onboarded-tenants/{self.live.subdomain}",
                f"{self.live.subdomain} is mapped to {live['mapToTenant']} itself, so its data stands under"
                " another id.",
                "Migrate between the tenants at the ends of the chain, or remove the mapping.",
            )
        for tenant in self.parties.all:
            if tenant == self.live:
                continue
            body, name = documents.get(tenant.subdomain, {}), f"onboarded-tenants/{tenant.subdomain}"
            leads_to = (body.get("mapToTenant"), body.get("mapToTenantId"))
            right = leads_to == (self.live.subdomain, self.live.id)
            message = (
                f"{tenant.subdomain} leads to {leads_to[0] or 'itself'} (id {leads_to[1]}), expected"
                f" {self.live.subdomain} (id {self.live.id})."
            )
            yield Finding(
                "mapping", right, name, message, "" if right else "Complete phase 1 first: playbook zdm.landscape.map."
            )
            same = body.get("datacenter") == live.get("datacenter")
            message = (
                f"{tenant.subdomain} is in datacenter {body.get('datacenter')}, {self.live.subdomain} in"
                f" {live.get('datacenter')}."
            )
            yield Finding(
                "datacenter",
                same,
                name,
                message,
                "" if same else "A tenant can only be migrated within one datacenter.",
            )

    def _claims(self) -> Iterator[Finding]:
        for tenant in self.parties.all:
            holder = holder_of(self.store.get(CLAIMS, tenant.subdomain)) or self.journal.key
            mine = holder == self.journal.key
            message = (
                f"{tenant.subdomain} is {'free for this migration' if mine else f'claimed by the migration {holder}'}."
            )
            yield Finding(
                "claim", mine, f"claims/{tenant.subdomain}", message, "" if mine else f"Finish or abort {holder} first."
            )

    def _routers(self) -> Iterator[Finding]:
        before = time.time() * 1000
        try:
            states = self.fleet.states()
        except ZdmError as error:
            yield Finding("routers", False, "fleet", error.message, error.advice)
            return
        middle, slack = (before + time.time() * 1000) / 2, (time.time() * 1000 - before) / 2
        for state in states:
            yield from self._router(state, state.clock_ms - middle, slack)
        for difference in self.fleet.compare(self._without_others(states)):
            yield Finding(
                "routers",
                False,
                "fleet",
                difference,
                "Restart the router that is wrong: it renders its maps from the config store.",
            )

    def _without_others(self, states: Sequence[RouterState]) -> list[RouterState]:
        """The states without what another migration's window is changing right now: its routers differ for a moment."""
        foreign = {
            tenant_id
            for state in states
            for tenant_id, block in state.blocks.items()
            if block.migration != self.journal.key
        }
        return [
            replace(
                state,
                blocks={tenant_id: block for tenant_id, block in state.blocks.items() if tenant_id not in foreign},
                overrides={
                    tenant_id: canonical for tenant_id, canonical in state.overrides.items() if tenant_id not in foreign
                },
            )
            for state in states
        ]

    def _router(self, state: RouterState, skew_ms: float, slack_ms: float) -> Iterator[Finding]:
        message = f"{state.name} is {'' if state.ready else 'not '}ready."
        yield Finding("router", state.ready, state.name, message, "" if state.ready else "Wait, or look at its log.")
        near = abs(skew_ms) <= CLOCK_SKEW_MS + slack_ms
        message = f"The clock of {state.name} differs by {skew_ms:.0f} ms (within {slack_ms:.0f} ms)."
        yield Finding(
            "clock",
            near,
            state.name,
            message,
            "" if near else f"Synchronise the clocks; {CLOCK_SKEW_MS} ms are allowed.",
        )
        alone = state.old_workers == 0
        message = f"{state.name} has {state.old_workers} old workers."
        yield Finding(
            "workers",
            alone,
            state.name,
            message,
            "" if alone else "Wait until the reload's old workers have ended, or stop them.",
        )
        for tenant_id, expected in self.parties.overrides(self.live.id).items():
            found = state.overrides.get(tenant_id)
            right = found == expected
            message = f"{state.name} leads {tenant_id} to {found or 'itself'}, expected {expected or 'itself'}."
            yield Finding(
                "routing",
                right,
                state.name,
                message,
                "" if right else "Run the playbook zdm.landscape.map, or restart the router.",
            )
        for tenant_id in self.parties.ids:
            block = state.blocks.get(tenant_id)
            if block and block.migration != self.journal.key:
                message = f"{state.name} blocks {tenant_id} for {block.migration}."
                yield Finding(
                    "blocks", False, state.name, message, "Wait for that migration, or free it with its own command."
                )

    def _staged(self) -> Iterator[Finding]:
        for participant in self.participants:
            try:
                status = participant.status(self.journal.key, self.parties.source.id, self.parties.target.id)
            except ZdmError as error:
                yield Finding("stage", False, participant.name, error.message, error.advice)
                continue
            ready = status.ready and status.live_id == self.live.id and not status.problems
            message = (
                f"{participant.name} is {status.state}"
                + (f", {status.live_id} live" if status.live_id else "")
                + f". {' '.join((*status.problems, *status.unready))}"
            )
            yield Finding(
                "stage",
                ready,
                participant.name,
                message.strip(),
                "" if ready else "Run the playbook zdm.landscape.stage.",
            )
            if ready:
                yield self._compared(status)

    def _compared(self, status: Status) -> Finding:
        """Twins that nobody has compared for long may differ without anything that their triggers could tell."""
        within_ms = self.verified_within_ms
        recent = status.compared_within(within_ms // 1000)
        message = f"{status.participant} was compared as a whole within {format_ms(within_ms)}."
        if not recent:
            ago = f"{status.compared_s} s ago" if status.compared_s is not None else "never"
            message = f"{status.participant} was compared as a whole {ago}; {format_ms(within_ms)} are allowed."
        advice = (
            "Run the playbook zdm.landscape.stage, which compares while the tenant is served; if that can't be waited"
            " for, pass -e unverified='<reason>'."
        )
        passes = recent or bool(self.unverified)
        return Finding("verified", passes, status.participant, message, "" if passes else advice)

    def _budget(self, plan: Plan) -> Finding:
        budget_ms = self.window_budget_ms
        fits = plan.predicted_window_ms <= budget_ms
        message = f"The predicted window is {plan.predicted_window_ms} ms, the budget {budget_ms} ms."
        return Finding(
            "budget",
            fits,
            self.journal.key,
            message,
            "" if fits else "Choose twin for the largest tables, or raise policy.window_budget.",
        )


def refuse_unless_ok(findings: Sequence[Finding]) -> None:
    """Raise when something was found.

    :raises Refused: the message has every finding, ``details["findings"]`` too.
    """
    bad = [finding for finding in findings if not finding.ok]
    if bad:
        text = " ".join(f"[{finding.check}] {finding.message} {finding.advice}".rstrip() for finding in bad)
        details: list[dict[str, Any]] = [asdict(finding) for finding in bad]
        raise Refused(f"The preflight refuses, nothing was changed: {text}", "", findings=details)


def expect_idle(journal: Journal) -> None:
    """Refuse what is only legal between windows.

    :raises Refused: a window is open or was left by a run that died.
    """
    if journal.phase != IDLE:
        message = f"The migration {journal.key} has an unfinished window (phase {journal.phase})."
        raise Refused(message, "Run zdm.landscape.migrate or zdm.landscape.abort first.")
