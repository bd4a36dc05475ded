# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One migration as a module's options name it: the objects that the migration modules share."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.core.options import LOG_DIR
from ansible_collections.zdm.landscape.plugins.module_utils.description.build import (
    build_fleet,
    build_participants,
    build_policy,
    build_store,
)
from ansible_collections.zdm.landscape.plugins.module_utils.http.health import check_all, endpoints_of
from ansible_collections.zdm.landscape.plugins.module_utils.migration.audit import AuditLog
from ansible_collections.zdm.landscape.plugins.module_utils.migration.cutover import Cutover
from ansible_collections.zdm.landscape.plugins.module_utils.migration.guardian import Guardian, recover
from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import GUARDIAN, Journal
from ansible_collections.zdm.landscape.plugins.module_utils.migration.mapping import resolve
from ansible_collections.zdm.landscape.plugins.module_utils.migration.plan import Plan
from ansible_collections.zdm.landscape.plugins.module_utils.migration.preflight import (
    Finding,
    Preflight,
    refuse_unless_ok,
)
from ansible_collections.zdm.landscape.plugins.module_utils.migration.signature import Signature
from ansible_collections.zdm.landscape.plugins.module_utils.migration.throttle import measurable
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import Database
from ansible_collections.zdm.landscape.plugins.module_utils.tenants.tenant import Tenant


class Operation:
    """Store, fleet, participants, tenants and journal of a module's options.

    :param params: options of the groups STORE, ROUTERS, PARTICIPANTS, POLICY, HEALTH and MIGRATION.
    :raises InputError: for what is wrong in them, before anything was touched.
    """

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.policy = build_policy(params)
        self.store = build_store(params)
        self.parties = resolve(self.store, params["source"], params["target"])
        self.fleet = build_fleet(params)
        self.participants = build_participants(params, self.policy, (self.parties.source, self.parties.target))
        self.endpoints = endpoints_of(params.get("health") or [])
        self.log_dir = str(params.get("log_dir") or LOG_DIR)
        self.journal = Journal(self.store, self.parties.source, self.parties.target).read()

    @property
    def live(self) -> Tenant:
        return self.parties.source if self.journal.canonical == self.parties.source.id else self.parties.target

    def findings(
        self, *, for_window: bool, signed: str = "", unverified: str = ""
    ) -> tuple[list[Finding], Plan | None]:
        """Run the preflight for the tenant that is live now; changes nothing.

        :param signed: digest of the plan that was signed; any other is a finding.
        :param unverified: why twins need not have been compared lately.
        """
        preflight = Preflight(
            self.store,
            self.fleet,
            self.participants,
            self.journal,
            self.parties,
            self.live,
            self.policy.window_budget_ms,
            self.policy.verified_within_ms,
            partial(self._surroundings, for_window),
            unverified,
            signed,
        )
        findings = preflight.run(for_window=for_window)
        if signed and preflight.plan:
            findings.append(_signed(preflight.plan, signed))
        return findings, preflight.plan

    def checked_plan(self, *, for_window: bool, digest: str | None = None, unverified: str = "") -> Plan:
        """The plan, when nothing speaks against it.

        :param digest: of the plan that was signed; any other is refused.
        :param unverified: why twins need not have been compared lately.
        :raises Refused: with every finding.
        """
        findings, plan = self.findings(for_window=for_window, signed=digest or "", unverified=unverified)
        refuse_unless_ok(findings)
        if plan is None:
            raise Refused("No plan could be made.", "Look at the preflight's findings.")
        return plan

    def cutover(self, log: AuditLog) -> Cutover:
        """The window of this process, told to *log*."""
        source, target = self.parties.source, self.parties.target
        cutover = Cutover(self.store, self.fleet, self.participants, source, target, self.policy, tell=log.write)
        log.journal = cutover.journal
        return cutover

    def close(self) -> None:
        for participant in self.participants:
            participant.close()

    def audit_log(self, command: str, run_id: str | None = None, secrets: Iterable[str] = ()) -> AuditLog:
        return AuditLog(self.log_dir, self.journal, command, run_id, secrets)

    def _surroundings(self, for_window: bool) -> list[Finding]:
        """What is neither store, router nor participant: health, limits of the stage, audit log."""
        findings = [
            Finding("health", verdict.healthy, verdict.url, verdict.message, verdict.advice)
            for verdict in check_all(self.endpoints)
        ]
        if not for_window:
            findings += measurable(self.policy.throttle, self.participants, bool(self.endpoints))
        log = self.audit_log("preflight")
        try:
            log.check()
        except Refused as refusal:
            return [*findings, Finding("log", False, str(log.path), refusal.message, refusal.advice)]
        return findings


def _signed(plan: Plan, digest: str) -> Finding:
    difference = plan.signature.difference(Signature.read(digest))
    if not difference:
        return Finding("signature", True, plan.migration, f"The plan is the one that was signed, {digest}.")
    advice = "Read and sign the new plan (playbook zdm.landscape.plan)."
    return Finding("signature", False, plan.migration, difference, advice)


class Signals:
    """From now on SIGINT, SIGTERM and SIGHUP do not end the process: the engine asks whether one came.

    :param once: a second signal ends the process as usual: for work that may be long and can be cut off anywhere.
    """

    _CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self, *, once: bool = False) -> None:
        self._once = once
        self._came: list[int] = []
        for number in self._CAUGHT:
            signal.signal(number, self._remember)

    def __call__(self) -> bool:
        return bool(self._came)

    def first(self) -> str:
        """The name of the signal that came first; empty when none did."""
        return signal.Signals(self._came[0]).name if self._came else ""

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self._came.append(number)
        if self._once:
            for again in self._CAUGHT:
                signal.signal(again, signal.SIG_DFL)


def guard(params: Mapping[str, Any], secrets: Iterable[str] = ()) -> Guardian:
    """A guardian of the window that this process is about to open. It forks: call it before anything else.

    :param secrets: values that must not stand in the guardian's lines of the audit log.
    """
    load_drivers(params)
    return Guardian(partial(recover, partial(_fresh_cutover, params, secrets)))


def load_drivers(params: Mapping[str, Any]) -> None:
    """Load what connections need, and open none: a guardian that has it from its parent recovers sooner."""
    for participant in build_participants(params, build_policy(params)):
        if isinstance(participant, Database):
            participant.engine()


@contextmanager
def _fresh_cutover(params: Mapping[str, Any], secrets: Iterable[str]) -> Iterator[Cutover]:
    operation = Operation(params)
    log = operation.audit_log(GUARDIAN, secrets=secrets)
    with log.run(needed=False):
        yield operation.cutover(log)
