# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small landscape in memory, its config store a real directory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.migration.cutover import Cutover
from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import Journal
from ansible_collections.zdm.landscape.plugins.module_utils.migration.mapping import Parties, resolve
from ansible_collections.zdm.landscape.plugins.module_utils.migration.policy import Policy
from ansible_collections.zdm.landscape.plugins.module_utils.migration.preflight import Preflight
from ansible_collections.zdm.landscape.plugins.module_utils.migration.stage import stage
from ansible_collections.zdm.landscape.plugins.module_utils.router.fleet import Fleet
from ansible_collections.zdm.landscape.plugins.module_utils.store import settle
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import ONBOARDED, Store
from ansible_collections.zdm.landscape.plugins.module_utils.store.file import FileStore
from ansible_collections.zdm.landscape.plugins.module_utils.tenants.tenant import Tenant

from .doubles import Log, MemoryParticipant, MemoryRouter

DAY_MS = 86_400_000
A, B, C = Tenant("a", "guid-a"), Tenant("b", "guid-b"), Tenant("c", "guid-c")


@dataclass
class Small:
    """Two routers, two participants, source a, target b mapped to a, alias c mapped to a."""

    store: Store
    log: Log = field(default_factory=Log)
    policy: Policy = field(default_factory=lambda: Policy(lease_ms=300, drain_timeout_ms=200))

    def __post_init__(self) -> None:
        self.routers = [MemoryRouter(name, self.log) for name in ("router-1", "router-2")]
        self.participants = [MemoryParticipant(name, self.log, A.id) for name in ("bills", "rating")]
        self.fleet = Fleet(self.routers)
        for tenant in (A, B, C):
            body = {"id": tenant.id, "subdomain": tenant.subdomain, "datacenter": "us10", "channel": "stable"}
            if tenant != A:
                body.update(mapToTenant="a", mapToTenantId="guid-a")
            self.store.put(ONBOARDED, tenant.subdomain, body, None)
        for router in self.routers:
            router.overrides = {"guid-b": "guid-a", "guid-c": "guid-a"}

    def parties(self) -> Parties:
        return resolve(self.store, "a", "b")

    def journal(self) -> Journal:
        return Journal(self.store, A, B).read()

    def preflight(self, live: Tenant | None = None, unverified: str = "") -> Preflight:
        journal, parties = self.journal(), self.parties()
        live = live or (B if journal.canonical == B.id else A)
        return Preflight(
            self.store, self.fleet, self.participants, journal, parties, live, 20_000, DAY_MS, list, unverified
        )

    def stage(self) -> None:
        stage(self.store, self.journal(), self.parties(), self.participants, self.plan, lambda _entry: None)

    def plan(self):  # type: ignore[no-untyped-def]
        preflight = self.preflight()
        findings = preflight.run(for_window=False)
        assert all(finding.ok for finding in findings), findings
        return preflight.plan

    def cutover(self, interrupted: Callable[[], bool] = lambda: False) -> Cutover:
        return Cutover(self.store, self.fleet, self.participants, A, B, self.policy, interrupted)

    def leads_to(self, subdomain: str) -> str | None:
        document = self.store.get(ONBOARDED, subdomain)
        assert document is not None
        return document.body.get("mapToTenant")

    def assert_agreed(self, live: Tenant) -> None:
        """Journal, documents, routers and participants agree that *live* is live, and nothing is blocked."""
        journal = self.journal()
        assert (journal.phase, journal.canonical, journal.body["owner"]) == ("I", live.id, None)
        for tenant in (A, B, C):
            assert self.leads_to(tenant.subdomain) == (None if tenant == live else live.subdomain)
        for router in self.routers:
            assert router.overrides == {tenant.id: live.id for tenant in (A, B, C) if tenant != live}
            assert not router.blocks
        for participant in self.participants:
            assert (participant.state, participant.live, participant.rows_under) == ("staged", live.id, live.id)


@pytest.fixture(autouse=True)
def _settled_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "SETTLE_MS", 300)
    monkeypatch.setattr(settle, "_PAUSE_S", 0.001)


@pytest.fixture
def small(tmp_path: Path) -> Small:
    small = Small(FileStore(tmp_path))
    small.stage()
    small.log.clear()
    return small
