# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The preflight: what it finds, and that the finding names the object."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, Refused, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.migration.claims import Claims, holder_of
from ansible_collections.zdm.landscape.plugins.module_utils.migration.mapping import resolve
from ansible_collections.zdm.landscape.plugins.module_utils.migration.preflight import (
    Finding,
    Preflight,
    refuse_unless_ok,
)
from ansible_collections.zdm.landscape.plugins.module_utils.migration.stage import remove, rewrite
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import Refusal
from ansible_collections.zdm.landscape.plugins.module_utils.router.base import Block
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import CLAIMS, ONBOARDED

from .conftest import DAY_MS, A, B, Small
from .doubles import MemoryParticipant, MemoryRouter


def bad(small: Small, *, for_window: bool = True) -> list[Finding]:
    return [finding for finding in small.preflight().run(for_window=for_window) if not finding.ok]


def change(small: Small, subdomain: str, **fields: str | None) -> None:
    document = small.store.get(ONBOARDED, subdomain)
    assert document is not None
    body = {key: value for key, value in {**document.body, **fields}.items() if value is not None}
    small.store.put(ONBOARDED, subdomain, body, document.revision)


def only(findings: list[Finding], check: str, text: str) -> Finding:
    assert [finding.check for finding in findings] == [check], findings
    assert text in findings[0].message
    assert findings[0].advice
    return findings[0]


def test_a_staged_migration_passes(small: Small) -> None:
    assert bad(small) == []


def test_the_target_must_be_mapped_to_the_source(small: Small) -> None:
    change(small, "b", mapToTenant=None, mapToTenantId=None)
    only(bad(small), "mapping", "b leads to itself")


def test_subdomain_and_id_of_the_mapping_must_agree(small: Small) -> None:
    change(small, "b", mapToTenantId="guid-x")
    only(bad(small), "mapping", "guid-x")


def test_a_chain_is_refused(small: Small) -> None:
    change(small, "a", mapToTenant="z", mapToTenantId="guid-z")
    assert any(finding.check == "mapping" and "a is mapped to z itself" in finding.message for finding in bad(small))


def test_datacenters_must_be_equal(small: Small) -> None:
    change(small, "b", datacenter="eu10")
    only(bad(small), "datacenter", "b is in datacenter eu10")


def test_another_migration_that_claims_a_tenant(small: Small) -> None:
    held = small.store.get(CLAIMS, "c")
    assert held is not None
    small.store.put(CLAIMS, "c", {"migration": "c--z"}, held.revision)
    only(bad(small), "claim", "c is claimed by the migration c--z")
    with pytest.raises(Refused, match="c is claimed by the migration c--z"):
        Claims(small.store, small.journal()).take(small.parties())


def test_claims_taken_are_given_back_when_one_is_refused(small: Small) -> None:
    for document in small.store.list(CLAIMS):
        small.store.delete(CLAIMS, document.name, document.revision)
    small.store.put(CLAIMS, "b", {"migration": "other"}, None)
    with pytest.raises(Refused, match="b is claimed"):
        Claims(small.store, small.journal()).take(small.parties())
    assert {document.name: holder_of(document) for document in small.store.list(CLAIMS)} == {"a": "", "b": "other"}


@pytest.mark.parametrize(
    ("change_of", "check", "text"),
    [
        ({"ready": False}, "router", "router-2 is not ready"),
        ({"old_workers": 2}, "workers", "router-2 has 2 old workers"),
        ({"onboarded": {"guid-b": "us10/stable"}}, "routers", "The routers differ in the home of guid-b"),
        ({"blocks": {"guid-a": Block("hold", 1, "a--z")}}, "blocks", "router-2 blocks guid-a for a--z"),
        ({"clock_ms": 5}, "clock", "The clock of router-2 differs"),
    ],
)
def test_routers(small: Small, monkeypatch: pytest.MonkeyPatch, change_of: dict, check: str, text: str) -> None:  # type: ignore[type-arg]
    original = MemoryRouter.state

    def state(self: MemoryRouter, usage: bool = False):  # type: ignore[no-untyped-def]
        found = original(self, usage)
        return replace(found, **change_of) if self.name == "router-2" else found

    monkeypatch.setattr(MemoryRouter, "state", state)
    only(bad(small), check, text)


def test_a_wrong_override_is_found_at_every_router(small: Small) -> None:
    for router in small.routers:
        router.overrides["guid-c"] = "guid-b"
    assert [(finding.check, finding.object) for finding in bad(small)] == [
        ("routing", "router-1"),
        ("routing", "router-2"),
    ]


def test_another_migrations_window_does_not_matter(small: Small) -> None:
    small.routers[0].blocks["guid-y"] = Block("hold", int(time.time() * 1000) + 5000, "y--z")
    small.routers[0].overrides["guid-y"] = "guid-z"
    assert bad(small) == []


def test_a_router_or_database_that_does_not_answer(small: Small) -> None:
    small.log.failures["router-1", "state"] = [Unreachable("router-1 does not answer.", "Start it.")] * 9
    assert {finding.check for finding in bad(small)} == {"routers", "participants"}
    small.log.failures.clear()
    small.participants[1].down = True
    only(bad(small), "stage", "rating does not answer")


def test_refusals_of_a_table_and_health(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    inspect = MemoryParticipant.inspect
    refusal = Refusal("bills.line", "not classified", "Classify it.")
    monkeypatch.setattr(
        MemoryParticipant,
        "inspect",
        lambda self, *args: replace(inspect(self, *args), refusals=(refusal,) if self.name == "bills" else ()),
    )
    red = Finding("health", False, "http://bills/health", "bills is red", "Look.")
    preflight = Preflight(
        small.store, small.fleet, small.participants, small.journal(), small.parties(), A, 20_000, DAY_MS, lambda: [red]
    )
    found = [finding for finding in preflight.run(for_window=False) if not finding.ok]
    assert [(finding.check, finding.object) for finding in found] == [
        ("health", "http://bills/health"),
        ("tables", "bills.line"),
    ]
    with pytest.raises(Refused, match=r"bills is red Look. .tables. not classified Classify it"):
        refuse_unless_ok(found)


def test_the_budget(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    inspect = MemoryParticipant.inspect
    monkeypatch.setattr(
        MemoryParticipant, "inspect", lambda self, *args: replace(inspect(self, *args), window_ms=50_000)
    )
    assert [finding.check for finding in bad(small)] == ["budget"]


def test_a_table_that_has_changed_closes_the_way_and_names_the_stage(small: Small) -> None:
    small.participants[1].unready = ("Table line has a tenant column and is not staged.",)
    found = only(bad(small), "stage", "rating is staged, guid-a live. Table line has a tenant column")
    assert "zdm.landscape.stage" in found.advice
    assert bad(small, for_window=False) == []


def test_a_window_needs_a_comparison_that_is_not_too_old_or_a_reason(small: Small) -> None:
    small.participants[0].compared_s = DAY_MS // 1000
    found = only(bad(small), "verified", "bills was compared as a whole 86400 s ago; 1d are allowed")
    assert "unverified='<reason>'" in found.advice
    assert all(finding.ok for finding in small.preflight(unverified="the shop is down").run(for_window=True))
    small.participants[0].compared_s = DAY_MS // 1000 - 1
    assert bad(small) == []


def test_a_stage_that_is_missing(small: Small) -> None:
    small.participants[0].state = "absent"
    only(bad(small), "stage", "bills is absent")


@pytest.mark.parametrize(
    ("source", "target", "text"),
    [
        ("x", "b", "x is not onboarded"),
        ("a", "a", "both a"),
        ("a\n", "b", "migrate_db_from_tenant"),
        ("a", "../b", "to_tenant"),
    ],
)
def test_wrong_tenants(small: Small, source: str, target: str, text: str) -> None:
    with pytest.raises(InputError, match=text):
        resolve(small.store, source, target)


def test_the_stage_can_be_taken_back_until_the_target_is_live(small: Small) -> None:
    assert remove(small.store, small.journal(), small.parties(), small.participants)
    assert not any(map(holder_of, small.store.list(CLAIMS)))
    assert not remove(small.store, small.journal(), small.parties(), small.participants)
    small.stage()
    small.cutover().switch(B, lambda: 0)
    with pytest.raises(Refused, match="b is live"):
        remove(small.store, small.journal(), small.parties(), small.participants)


def test_rows_are_rewritten_only_when_drained_and_closed_under_this_epoch(small: Small) -> None:
    journal = small.journal()
    with pytest.raises(Refused, match="does not show these tenants drained"):
        rewrite(journal, small.parties(), small.participants, journal.body["epoch"], B.id, 1000)
    journal.take_over(open_window=True, move_from=A.id, move_to=B.id)
    journal.advance("W", "C")
    with pytest.raises(Refused, match="phase C"):
        rewrite(small.journal(), small.parties(), small.participants, journal.epoch, B.id, 1000)
    journal.note(drained_epoch=journal.epoch)
    with pytest.raises(Refused, match="under epoch 99"):
        rewrite(small.journal(), small.parties(), small.participants, 99, B.id, 1000)
    rewrite(small.journal(), small.parties(), small.participants, journal.epoch, B.id, 1000)
    assert all(participant.rows_under == B.id for participant in small.participants)
    journal.release_owner()
    small.cutover().abort()
    small.assert_agreed(A)
