# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every rule that a mapping has to keep, against the file store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import (
    Conflict,
    InputError,
    OutcomeUnknown,
    Refused,
)
from ansible_collections.zdm.landscape.plugins.module_utils.store import settle
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import (
    CLAIMS,
    MIGRATIONS,
    ONBOARDED,
    TENANTS,
    WRITE_ID,
    Document,
    Store,
)
from ansible_collections.zdm.landscape.plugins.module_utils.store.file import FileStore
from ansible_collections.zdm.landscape.plugins.module_utils.tenants.onboarding import (
    Wanted,
    apply,
    plan_absent,
    plan_present,
    problems,
)
from ansible_collections.zdm.landscape.plugins.module_utils.tenants.tenant import Tenant
from ansible_collections.zdm.landscape.tests.unit.store.lossy import ANSWERED, LANDED, LATE, LOST, LossyStore, fates

A, B = Tenant("venezia", "guidA"), Tenant("venezia-scp", "guidB")
DOCUMENT_A = {"id": "guidA", "subdomain": "venezia", "datacenter": "US10", "channel": "BETA"}
DOCUMENT_B = {
    **DOCUMENT_A,
    "id": "guidB",
    "subdomain": "venezia-scp",
    "mapToTenant": "venezia",
    "mapToTenantId": "guidA",
}
JOURNAL = {
    "format": 1,
    "migration": "venezia--venezia-scp",
    "source": {"subdomain": "venezia", "id": "guidA"},
    "target": {"subdomain": "venezia-scp", "id": "guidB"},
    "epoch": 3,
    "phase": "I",
    "canonical": "guidA",
}


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    store = FileStore(tmp_path)
    store.put(ONBOARDED, "venezia", DOCUMENT_A, None)
    return store


def wanted(**changes: Any) -> Wanted:
    return Wanted(**{"subdomain": "venezia-scp", "id": "guidB", "map_to": A, **changes})


def put(store: FileStore, collection: str, name: str, body: dict[str, Any]) -> Document:
    current = store.get(collection, name)
    return store.put(collection, name, body, current.revision if current else None)


def body(store: Store, name: str) -> dict[str, Any] | None:
    """What the tenant's document says, without the id of its last write; nothing when it is emptied."""
    document = store.get(ONBOARDED, name)
    if document is None or document.emptied:
        return None
    return {key: value for key, value in document.body.items() if key != WRITE_ID}


def test_a_mapped_tenant_is_onboarded_in_the_datacenter_of_the_other(store: FileStore) -> None:
    assert apply(store, plan_present(store, wanted()))
    assert body(store, "venezia-scp") == DOCUMENT_B
    assert not plan_present(store, wanted()).needed
    assert not apply(store, plan_present(store, Wanted("venezia-scp")))


def test_the_mapping_comes_from_the_configuration(store: FileStore) -> None:
    put(
        store,
        TENANTS,
        "venezia-scp",
        {"onboardWithMappingToTenant": "venezia", "onboardWithMappingToTenantId": "guidA"},
    )
    apply(store, plan_present(store, wanted(map_to=None)))
    assert body(store, "venezia-scp") == DOCUMENT_B


def test_a_tenant_is_onboarded_without_a_mapping(store: FileStore) -> None:
    apply(store, plan_present(store, Wanted("milano", "guidM", "EU10", "STABLE")))
    assert body(store, "milano") == {"id": "guidM", "subdomain": "milano", "datacenter": "EU10", "channel": "STABLE"}


def test_unknown_fields_of_a_document_are_kept(store: FileStore) -> None:
    put(store, ONBOARDED, "venezia-scp", {**DOCUMENT_B, "plan": "gold", "migration": "x--y", "epoch": 7})
    apply(store, plan_present(store, wanted(channel="STABLE")))
    assert body(store, "venezia-scp") == {
        **DOCUMENT_B,
        "plan": "gold",
        "migration": "x--y",
        "epoch": 7,
        "channel": "STABLE",
    }


REFUSED: list[tuple[str, dict[str, dict[str, Any]], dict[str, Any], str]] = [
    ("itself", {}, {"subdomain": "venezia", "id": "guidA"}, "venezia can't be mapped to itself"),
    ("unknown", {}, {"map_to": Tenant("nobody", "guidN")}, "nobody is not onboarded"),
    ("wrong id of the other", {}, {"map_to": Tenant("venezia", "guidX")}, "venezia has the id guidA, given is guidX"),
    ("same id", {}, {"id": "guidA"}, "The id guidA belongs to venezia already"),
    (
        "other id",
        {"onboarded-tenants/venezia-scp": DOCUMENT_B},
        {"id": "guidX"},
        "venezia-scp is onboarded with the id guidB, given is guidX",
    ),
    ("datacenter", {}, {"datacenter": "EU10"}, "venezia-scp is in datacenter EU10, venezia in US10"),
    (
        "chain forward",
        {"onboarded-tenants/venezia": {**DOCUMENT_A, "mapToTenant": "roma", "mapToTenantId": "guidR"}},
        {},
        "venezia is itself mapped to roma, .*Map venezia-scp to roma",
    ),
    (
        "chain backward",
        {
            "onboarded-tenants/napoli": {
                **DOCUMENT_A,
                "id": "guidN",
                "subdomain": "napoli",
                "mapToTenant": "venezia-scp",
                "mapToTenantId": "guidB",
            }
        },
        {},
        "napoli is mapped to venezia-scp, so venezia-scp can't be mapped itself",
    ),
    (
        "another mapping",
        {"onboarded-tenants/venezia-scp": {**DOCUMENT_B, "mapToTenant": "roma", "mapToTenantId": "guidR"}},
        {},
        "venezia-scp is mapped to roma already",
    ),
    (
        "onboarded without mapping",
        {"onboarded-tenants/venezia-scp": {**DOCUMENT_A, "id": "guidB", "subdomain": "venezia-scp"}},
        {},
        "onboarded without a mapping, so it may have data",
    ),
    (
        "configuration says another",
        {"tenants/venezia-scp": {"onboardWithMappingToTenant": "roma", "onboardWithMappingToTenantId": "guidR"}},
        {},
        r"but tenants/venezia-scp says roma \(guidR\)",
    ),
    (
        "decommissioned",
        {"tenants/venezia-scp": {"decommissioned": "true"}},
        {},
        "venezia-scp is decommissioned in tenants/venezia-scp",
    ),
    (
        "the other decommissioned",
        {"tenants/venezia": {"decommissioned": "true"}},
        {},
        "venezia is decommissioned in tenants/venezia",
    ),
    *(
        (
            f"held in phase {phase}",
            {"migrations/venezia--venezia-scp": {**JOURNAL, "phase": phase}},
            {},
            f"holds venezia, venezia-scp .phase {phase}",
        )
        for phase in "WCUVKR"
    ),
    (
        "an alias that a window holds",
        {
            "migrations/venezia--milano": {
                **JOURNAL,
                "target": {"subdomain": "milano", "id": "m"},
                "accounts": [{"subdomain": "venezia-scp", "id": "guidB"}],
                "phase": "C",
            }
        },
        {},
        "holds venezia, venezia-scp",
    ),
    (
        "the one that is not live",
        {
            "migrations/venezia--venezia-scp": {**JOURNAL, "canonical": "guidB"},
            "claims/venezia": {"migration": "venezia--venezia-scp"},
        },
        {},
        r"venezia-scp is to lead to venezia, but .* venezia-scp \(guidB\) is live",
    ),
]


@pytest.mark.parametrize(
    ("documents", "changes", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_what_could_lead_to_other_data_is_refused(
    store: FileStore, documents: dict[str, dict[str, Any]], changes: dict[str, Any], message: str
) -> None:
    for path, content in documents.items():
        put(store, *path.split("/"), content)
    before = {file: file.read_bytes() for file in store.path.rglob("*.json")}
    with pytest.raises(Refused, match=message):
        plan_present(store, wanted(**changes))
    assert {file: file.read_bytes() for file in store.path.rglob("*.json")} == before


def test_a_finished_migration_without_claims_holds_nobody(store: FileStore) -> None:
    put(store, MIGRATIONS, "venezia--venezia-scp", {**JOURNAL, "canonical": "guidB"})
    assert plan_present(store, wanted()).needed


def test_a_tenant_with_users_of_its_own_is_adopted_only_on_demand(store: FileStore) -> None:
    put(store, ONBOARDED, "venezia-scp", {**DOCUMENT_A, "id": "guidB", "subdomain": "venezia-scp"})
    apply(store, plan_present(store, wanted(adopt_onboarded=True)))
    assert body(store, "venezia-scp") == DOCUMENT_B


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subdomain": "a\nb"}, "is not a valid name"),
        ({"subdomain": "../venezia"}, "is not a valid name"),
        ({"id": "gu/id"}, "id of venezia-scp 'gu/id' is not a valid name"),
        ({"id": None}, "venezia-scp is not onboarded yet, and id is not given"),
        ({"map_to": None}, "venezia-scp is not onboarded yet, and datacenter, channel is not given"),
    ],
)
def test_wrong_input_is_refused(store: FileStore, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_present(store, wanted(**changes))


def test_half_a_mapping_in_the_configuration_is_refused(store: FileStore) -> None:
    put(store, TENANTS, "venezia-scp", {"onboardWithMappingToTenant": "venezia"})
    with pytest.raises(InputError, match="needs subdomain and id, only the subdomain is given"):
        plan_present(store, wanted(map_to=None))


class OpensAWindow(FileStore):
    """A store in which a migration opens its window right after the document was written."""

    def put(self, collection: str, name: str, body: dict[str, Any], revision: str | None) -> Document:
        written = super().put(collection, name, body, revision)
        if collection == ONBOARDED and self.get(MIGRATIONS, "venezia--roma") is None:
            journal = {
                **JOURNAL,
                "migration": "venezia--roma",
                "target": {"subdomain": "roma", "id": "guidR"},
                "phase": "W",
            }
            super().put(MIGRATIONS, "venezia--roma", journal, None)
        return written


@pytest.mark.parametrize("before", [None, {**DOCUMENT_B, "channel": "STABLE"}])
def test_a_window_that_opens_meanwhile_wins(store: FileStore, before: dict[str, Any] | None) -> None:
    if before:
        put(store, ONBOARDED, "venezia-scp", before)
    racing = OpensAWindow(store.path)
    with pytest.raises(Refused, match="The migration venezia--roma holds venezia "):
        apply(racing, plan_present(racing, wanted(channel="BETA")))
    assert body(store, "venezia-scp") == before


def test_somebody_else_was_faster(store: FileStore) -> None:
    change = plan_present(store, wanted())
    put(store, ONBOARDED, "venezia-scp", DOCUMENT_B)
    with pytest.raises(Conflict):
        apply(store, change)


def test_a_tenant_is_offboarded_once(store: FileStore) -> None:
    put(store, ONBOARDED, "venezia-scp", DOCUMENT_B)
    assert apply(store, plan_absent(store, "venezia-scp"))
    assert body(store, "venezia-scp") is None
    again = plan_absent(store, "venezia-scp")
    assert (again.before, again.needed) == (None, False)
    assert not apply(store, plan_absent(store, "venezia-scp"))


def test_a_tenant_that_was_offboarded_is_onboarded_anew(store: FileStore) -> None:
    put(store, ONBOARDED, "venezia-scp", DOCUMENT_B)
    apply(store, plan_absent(store, "venezia-scp"))
    change = plan_present(store, wanted(id="guidC"))
    assert change.before is None
    assert apply(store, change)
    assert body(store, "venezia-scp") == {**DOCUMENT_B, "id": "guidC"}


# -- answers that get lost
# ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(name="lossy")
def _lossy(monkeypatch: pytest.MonkeyPatch) -> LossyStore:
    monkeypatch.setattr(settle, "SETTLE_MS", 100)
    monkeypatch.setattr(settle, "_PAUSE_S", 0.001)
    lossy = LossyStore()
    lossy.put(ONBOARDED, "venezia", DOCUMENT_A, None)
    return lossy


@pytest.mark.parametrize("answer", [LANDED, LOST, LATE])
def test_a_create_without_an_answer_is_settled_before_the_journals_are_read(lossy: LossyStore, answer: str) -> None:
    """Else it lands when the window is over, and leads to the retired tenant."""
    lossy.fate = fates([answer])
    change, lists = plan_present(lossy, wanted()), []
    original = lossy.list

    def list_late(collection: str) -> list[Document]:
        if collection == MIGRATIONS:
            lists.append(body(lossy, "venezia-scp"))
            assert lossy.land() == []
        return original(collection)

    lossy.list = list_late  # type: ignore[method-assign]
    assert apply(lossy, change)
    assert lists == [DOCUMENT_B]


@pytest.mark.parametrize("answer", [LANDED, LOST, LATE])
def test_a_tenant_that_was_offboarded_does_not_come_back(lossy: LossyStore, answer: str) -> None:
    lossy.fate = fates([answer])
    apply(lossy, plan_present(lossy, wanted()))
    lossy.fate = fates([answer])
    apply(lossy, plan_absent(lossy, "venezia-scp"))
    assert body(lossy, "venezia-scp") is None
    for sent in tuple(lossy.sent):
        lossy.land(sent)
    assert body(lossy, "venezia-scp") is None


@pytest.mark.parametrize("answer", [LANDED, LOST, LATE])
def test_what_is_taken_back_does_not_come_back(lossy: LossyStore, answer: str) -> None:
    change = plan_present(lossy, wanted())
    lossy.put(MIGRATIONS, "venezia--roma", {**JOURNAL, "migration": "venezia--roma", "phase": "W"}, None)
    lossy.fate = fates([answer, ANSWERED, answer])
    with pytest.raises(Refused, match="The migration venezia--roma holds venezia"):
        apply(lossy, change)
    for sent in tuple(lossy.sent):
        lossy.land(sent)
    assert body(lossy, "venezia-scp") is None


def test_a_write_of_which_nobody_knows_is_told(lossy: LossyStore) -> None:
    lossy.fate = lambda _sent: LATE
    with pytest.raises(OutcomeUnknown, match="whether onboarded-tenants/venezia-scp was written") as caught:
        apply(lossy, plan_present(lossy, wanted()))
    assert caught.value.details == {"unknown": "onboarded-tenants/venezia-scp"}


def test_a_tenant_whose_data_others_use_stays(store: FileStore) -> None:
    put(store, ONBOARDED, "venezia-scp", DOCUMENT_B)
    with pytest.raises(Refused, match="venezia-scp is mapped to venezia"):
        plan_absent(store, "venezia")


def test_a_tenant_that_a_migration_claims_stays(store: FileStore) -> None:
    put(store, CLAIMS, "venezia", {"migration": "venezia--roma"})
    with pytest.raises(Refused, match="venezia is claimed by the migration venezia--roma"):
        plan_absent(store, "venezia")


def test_a_tenant_in_a_window_stays(store: FileStore) -> None:
    put(store, MIGRATIONS, "venezia--venezia-scp", {**JOURNAL, "phase": "K"})
    with pytest.raises(Refused, match="phase K, committed"):
        plan_absent(store, "venezia")


def test_problems_of_documents_are_found() -> None:
    def document(name: str, **changes: Any) -> Document:
        return Document(
            ONBOARDED,
            name,
            json.loads(json.dumps({**DOCUMENT_A, "subdomain": name, "id": f"id-{name}", **changes})),
            "1",
        )

    found = problems(
        [
            document("a"),
            document("b", mapToTenant="a", mapToTenantId="id-a"),
            document("c", mapToTenant="b", mapToTenantId="id-b"),
            document("d", mapToTenant="a", mapToTenantId="id-x"),
            document("e", mapToTenant="z", mapToTenantId="id-z"),
            document("f", mapToTenant="a", mapToTenantId="id-a", datacenter="EU10"),
            document("g", id="id-a"),
        ]
    )
    assert found == {
        "c": ["c is mapped to b, which is itself mapped to a."],
        "d": ["d is mapped to the id id-x, but a has the id id-a."],
        "e": ["e is mapped to z, which is not onboarded."],
        "f": ["f is in datacenter EU10, a in US10."],
        "g": ["g and a have the same id id-a."],
    }
