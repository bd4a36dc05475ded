# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tenant that was migrated before: every account that ever led to it leads to the new live id, at every moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.migration.cutover import Cutover
from ansible_collections.zdm.landscape.plugins.module_utils.migration.finalize import finalize
from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import Journal
from ansible_collections.zdm.landscape.plugins.module_utils.migration.mapping import expect_current, resolve
from ansible_collections.zdm.landscape.plugins.module_utils.migration.preflight import Preflight, refuse_unless_ok
from ansible_collections.zdm.landscape.plugins.module_utils.migration.stage import stage
from ansible_collections.zdm.landscape.plugins.module_utils.migration.status import migration_status
from ansible_collections.zdm.landscape.plugins.module_utils.router.render import Documents, Maps, render
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import CLAIMS, MIGRATIONS, ONBOARDED, Document
from ansible_collections.zdm.landscape.plugins.module_utils.store.file import FileStore
from ansible_collections.zdm.landscape.plugins.module_utils.tenants.tenant import Tenant

from .conftest import A, B, C, Small

D = Tenant("d", "guid-d")


@dataclass
class Leg:
    """One migration of a chain."""

    small: Small
    source: Tenant
    target: Tenant

    def journal(self) -> Journal:
        return Journal(self.small.store, self.source, self.target).read()

    def parties(self) -> Any:
        return resolve(self.small.store, self.source.subdomain, self.target.subdomain)

    def stage(self) -> None:
        small, parties, journal = self.small, self.parties(), self.journal()
        preflight = Preflight(
            small.store, small.fleet, small.participants, journal, parties, self.source, 20_000, 86_400_000, list
        )

        def plan() -> Any:
            findings = preflight.run(for_window=False)
            refuse_unless_ok(findings)
            return preflight.plan

        stage(small.store, journal, parties, small.participants, plan, lambda _entry: None)

    def cutover(self, tell: Any = lambda _step: None) -> Cutover:
        small = self.small
        return Cutover(small.store, small.fleet, small.participants, self.source, self.target, small.policy, tell=tell)

    def finalize(self) -> None:
        finalize(self.small.store, self.journal(), self.parties(), self.small.participants)

    def problems(self) -> list[str]:
        return migration_status(
            self.small.store, self.small.fleet, self.small.participants, self.source, self.target
        ).problems


@pytest.fixture
def moved(small: Small) -> Small:
    """a has moved to b and that is finalized; c leads to b too; d is onboarded with a mapping to b."""
    small.cutover().switch(B, lambda: 0)
    Leg(small, A, B).finalize()
    onboard_d(small)
    return small


def onboard_d(small: Small) -> None:
    body = {
        "id": D.id,
        "subdomain": "d",
        "datacenter": "us10",
        "channel": "stable",
        "mapToTenant": "b",
        "mapToTenantId": B.id,
    }
    small.store.put(ONBOARDED, "d", body, None)
    for router in small.routers:
        router.overrides[D.id] = B.id


def rendered(store: FileStore) -> Maps:
    """What a router that starts now would know."""
    bodies = [
        {document.name: document.body for document in store.list(collection)}
        for collection in (ONBOARDED, MIGRATIONS, CLAIMS)
    ]
    return render(Documents(onboarded=bodies[0], migrations=bodies[1], claims=bodies[2]))


def assert_lead_to(small: Small, live: Tenant, *tenants: Tenant) -> None:
    """Documents, running routers and a router that starts now lead all of them to *live*."""
    for tenant in tenants:
        assert small.leads_to(tenant.subdomain) == (None if tenant == live else live.subdomain)
    for overrides in (*(router.overrides for router in small.routers), rendered(small.store).override):
        assert {tenant.id: overrides.get(tenant.id, tenant.id) for tenant in tenants} == dict.fromkeys(
            (tenant.id for tenant in tenants), live.id
        )


@pytest.mark.parametrize("back", [False, True], ids=["forward", "and back again"])
def test_all_accounts_go_along_at_every_moment(moved: Small, monkeypatch: pytest.MonkeyPatch, back: bool) -> None:
    leg, everybody = Leg(moved, B, D), (A, B, C, D)
    assert {tenant.subdomain for tenant in leg.parties().aliases} == {"a", "c"}
    leg.stage()
    moments: list[tuple[str, str, Maps]] = []
    put = FileStore.put

    def watch(self: FileStore, collection: str, name: str, body: dict[str, Any], revision: str | None) -> Document:
        document = put(self, collection, name, body, revision)
        journal = self.get(MIGRATIONS, "b--d")
        assert journal is not None
        moments.append((journal.body["phase"], journal.body["canonical"], rendered(self)))
        return document

    monkeypatch.setattr(FileStore, "put", watch)
    steps: dict[str, set[frozenset[str]]] = {}

    def tell(step: dict[str, Any]) -> None:
        steps.setdefault(step["step"], set()).update(frozenset(router.blocks) for router in moved.routers)

    leg.cutover(tell).switch(D, lambda: 0)
    assert_lead_to(moved, D, *everybody)
    if back:
        leg.cutover(tell).switch(B, lambda: 0)
        assert_lead_to(moved, B, *everybody)
    ids = {tenant.id for tenant in everybody}
    assert {phase for phase, _canonical, _maps in moments} == set("WCKRI")
    for phase, canonical, maps in moments:
        assert {tenant_id: maps.override.get(tenant_id, tenant_id) for tenant_id in ids} == dict.fromkeys(
            ids, canonical
        ), phase
        assert set(maps.block) == (ids if phase in "CK" else set()), phase
    for step in ("block", "drain", "close", "barrier", "commit", "documents", "turn", "map"):
        assert steps[step] == {frozenset(ids)}, step
    assert steps["release"] == {frozenset()}
    assert Leg(moved, A, B).problems() == leg.problems() == []


def test_an_account_that_is_onboarded_in_the_window_follows(moved: Small) -> None:
    leg, late = Leg(moved, B, D), Tenant("e", "guid-e")
    leg.stage()

    def tell(step: dict[str, Any]) -> None:
        if step["step"] == "close":
            body = {
                "id": late.id,
                "subdomain": "e",
                "datacenter": "us10",
                "channel": "stable",
                "mapToTenant": "b",
                "mapToTenantId": B.id,
            }
            moved.store.put(ONBOARDED, "e", body, None)

    leg.cutover(tell).switch(D, lambda: 0)
    assert_lead_to(moved, D, A, B, C, D, late)


def test_the_next_leg_waits_for_the_end_of_the_one_before(small: Small) -> None:
    small.cutover().switch(B, lambda: 0)
    onboard_d(small)
    with pytest.raises(Refused, match="claimed by the migration a--b"):
        Leg(small, B, D).stage()
    Leg(small, A, B).finalize()
    Leg(small, B, D).stage()


def test_a_source_can_be_a_target_again(moved: Small) -> None:
    back = Leg(moved, B, A)
    back.stage()
    back.cutover().switch(A, lambda: 0)
    assert_lead_to(moved, A, A, B, C, D)
    back.cutover().switch(B, lambda: 0)
    assert_lead_to(moved, B, A, B, C, D)
    back.cutover().switch(A, lambda: 0)
    back.finalize()
    assert_lead_to(moved, A, A, B, C, D)
    assert Leg(moved, A, B).problems() == back.problems() == []


def test_the_same_way_a_second_time_is_refused(moved: Small) -> None:
    expect_current(moved.store, Leg(moved, A, B).journal())
    back = Leg(moved, B, A)
    back.stage()
    back.cutover().switch(A, lambda: 0)
    back.finalize()
    with pytest.raises(Refused, match="the way back has ended"):
        Leg(moved, A, B).stage()
    with pytest.raises(Refused, match="b leads to a today.*migrate a to another tenant"):
        expect_current(moved.store, Leg(moved, A, B).journal())
    onward = Leg(moved, A, D)
    onward.stage()
    onward.cutover().switch(D, lambda: 0)
    assert_lead_to(moved, D, A, B, C, D)
