# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the store's documents to a router's maps, for every phase of a journal."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError
from ansible_collections.zdm.landscape.plugins.module_utils.router.base import FAR_MS
from ansible_collections.zdm.landscape.plugins.module_utils.router.render import Documents, render
from hypothesis import given
from hypothesis import strategies as st

A, B, C, KEY = "guid-a", "guid-b", "guid-c", "a--b"
PHASES = "IWCUVKR"
CLOSED = "CUK"


def tenant(name: str, leads_to: str | None = None, **changes: Any) -> dict[str, Any]:
    mapping = {"mapToTenant": leads_to, "mapToTenantId": f"guid-{leads_to}"} if leads_to else {}
    return {"id": f"guid-{name}", "subdomain": name, "datacenter": "us10", "channel": "stable", **mapping, **changes}


def journal(phase: str, canonical: str = A, **changes: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "migration": KEY,
        "source": {"subdomain": "a", "id": A},
        "target": {"subdomain": "b", "id": B},
        "epoch": 4,
        "phase": phase,
        "canonical": canonical,
        "aliases": [C],
        **changes,
    }


BEFORE = {"a": tenant("a"), "b": tenant("b", "a"), "c": tenant("c", "a")}
AFTER = {"a": tenant("a", "b"), "b": tenant("b"), "c": tenant("c", "b")}
CLAIMS = {name: {"migration": KEY} for name in "abc"}


def test_without_a_journal_the_documents_count() -> None:
    maps = render(Documents(onboarded=BEFORE))
    assert maps.onboarded == dict.fromkeys((A, B, C), "us10/stable")
    assert maps.subdomains == {"a": A, "b": B, "c": C}
    assert maps.override == {B: A, C: A}
    assert (maps.block, maps.decommissioned, maps.epochs, maps.problems) == ({}, {}, {}, [])


@pytest.mark.parametrize("documents", [BEFORE, AFTER], ids=["documents of before", "documents of after"])
@pytest.mark.parametrize("canonical", [A, B])
@pytest.mark.parametrize("phase", PHASES)
def test_the_journal_counts_and_not_the_documents(phase: str, canonical: str, documents: dict[str, Any]) -> None:
    maps = render(Documents(onboarded=documents, migrations={KEY: journal(phase, canonical)}, claims=CLAIMS))
    assert maps.override == {tenant_id: canonical for tenant_id in (A, B, C) if tenant_id != canonical}
    assert maps.block == (dict.fromkeys((A, B, C), f"hold|{FAR_MS}|{KEY}") if phase in CLOSED else {})
    assert maps.epochs == {KEY: "4"}


@pytest.mark.parametrize(
    ("documents", "left", "said"),
    [
        (
            {"a": tenant("a"), "b": tenant("b", "x")},
            {A},
            "onboarded-tenants/b is left out: it leads to guid-x, which is not onboarded.",
        ),
        (
            {"a": tenant("a"), "b": tenant("b", "a"), "c": tenant("c", "b")},
            {A, B},
            "onboarded-tenants/c is left out: it leads to guid-b, which leads to guid-a itself.",
        ),
    ],
)
def test_a_document_that_leads_to_nobody_or_on_is_left_out(
    documents: dict[str, Any], left: set[str], said: str
) -> None:
    maps = render(Documents(onboarded=documents))
    assert maps.problems == [said]
    assert maps.onboarded.keys() == set(maps.subdomains.values()) == left


def test_a_circle_is_left_out() -> None:
    maps = render(Documents(onboarded={"a": tenant("a", "b"), "b": tenant("b", "a"), "c": tenant("c")}))
    assert (set(maps.onboarded), maps.override, len(maps.problems)) == ({C}, {}, 2)


@pytest.mark.parametrize("body", [None, "text", ["list"], 1])
@pytest.mark.parametrize("collection", ["tenants", "onboarded", "migrations", "claims"])
def test_what_is_no_document_is_named(collection: str, body: Any) -> None:
    documents = Documents(**{"onboarded": BEFORE, collection: {"odd": body}})
    if collection == "onboarded":
        assert "onboarded-tenants/odd is left out" in render(documents).problems[0]
    else:
        with pytest.raises(
            InputError, match=f"{collection}/odd can't be read: it is {type(body).__name__}, not an object"
        ):
            render(documents)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"phase": ["C"]}, "its phase is"),
        ({"aliases": "xyz"}, "its aliases are 'xyz'"),
        ({"canonical": "guid-z"}, "guid-z, which is live, is neither its source nor its target"),
    ],
)
def test_an_odd_journal_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=f"migrations/{KEY} can't be read: {said}"):
        render(Documents(onboarded=BEFORE, migrations={KEY: {**journal("C"), **changes}}, claims=CLAIMS))


@pytest.mark.parametrize("key", ["a b\nx 9", "a|soft", "", "x" * 129, "-a"])
def test_a_name_that_is_no_key_never_reaches_a_map(key: str) -> None:
    with pytest.raises(InputError, match="its name is no key of a migration"):
        render(Documents(onboarded=BEFORE, migrations={key: journal("C")}))


def test_a_migration_whose_live_tenant_is_gone_is_told() -> None:
    """Its journal is the truth: others go on leading there. What only documents say, and leads there, is left out."""
    documents = {"a": tenant("a"), "c": tenant("c", "a"), "d": tenant("d", "b")}
    maps = render(Documents(onboarded=documents, migrations={KEY: journal("R", B)}, claims=CLAIMS))
    assert maps.override == {A: B, C: B}
    assert any("lead to guid-b, which is not onboarded" in problem for problem in maps.problems)
    assert "guid-d" not in maps.onboarded


@pytest.mark.parametrize("phase", PHASES)
def test_a_document_is_followed_to_where_a_journal_leads(phase: str) -> None:
    """D was mapped to A in the middle of the migration; the documents of A, B and C are those of before."""
    documents = {**BEFORE, "d": tenant("d", "a")}
    maps = render(Documents(onboarded=documents, migrations={KEY: journal(phase, B)}, claims=CLAIMS))
    assert maps.override == {A: B, C: B, "guid-d": B}
    assert maps.problems == []


@pytest.mark.parametrize("epoch", [-1, 10**15, 2**63, 1.5, "4", True])
def test_an_epoch_that_no_router_can_hold_is_named(epoch: object) -> None:
    with pytest.raises(InputError, match="its epoch is"):
        render(Documents(onboarded=BEFORE, migrations={KEY: journal("I", epoch=epoch)}))


def test_a_migration_that_claims_nothing_any_more_is_history() -> None:
    """a--b ended with B live; later C became live by documents of another making. The epoch is kept all the same."""
    now = {"a": tenant("a", "c"), "b": tenant("b", "c"), "c": tenant("c")}
    maps = render(Documents(onboarded=now, migrations={KEY: journal("I", B)}))
    assert maps.override == {A: C, B: C}
    assert maps.epochs == {KEY: "4"}


@pytest.mark.parametrize("phase", PHASES.replace("I", ""))
def test_an_unfinished_journal_counts_without_claims_too(phase: str) -> None:
    maps = render(Documents(onboarded=BEFORE, migrations={KEY: journal(phase, B)}))
    assert maps.override == {A: B, C: B}


def test_an_account_that_was_mapped_in_the_window_follows_to_the_live_id() -> None:
    late = {**BEFORE, "d": tenant("d", "a")}
    maps = render(Documents(onboarded=late, migrations={KEY: journal("K", B)}, claims=CLAIMS))
    assert maps.override["guid-d"] == B


def test_two_migrations_do_not_mix() -> None:
    other = {
        **journal("C", "guid-x"),
        "source": {"subdomain": "x", "id": "guid-x"},
        "target": {"subdomain": "y", "id": "guid-y"},
        "aliases": [],
        "epoch": 9,
    }
    onboarded = {**BEFORE, "x": tenant("x"), "y": tenant("y", "x")}
    maps = render(Documents(onboarded=onboarded, migrations={KEY: journal("W"), "x--y": other}))
    assert set(maps.block) == {"guid-x", "guid-y"}
    assert maps.override == {B: A, C: A, "guid-y": "guid-x"}
    assert maps.epochs == {KEY: "4", "x--y": "9"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [("true", True), (True, True), ("True", True), ("false", False), (False, False), (None, False), ("", False)],
)
def test_decommissioned_tenants(value: object, expected: bool) -> None:
    maps = render(
        Documents(tenants={"a": {"decommissioned": value}, "gone": {"decommissioned": "true"}}, onboarded=BEFORE)
    )
    assert maps.decommissioned == ({A: "1"} if expected else {})


BAD_TENANTS = {
    "a newer format": tenant("d", format=2),
    "no id": tenant("d", id=None),
    "an id that is no name": tenant("d", id="guid d"),
    "an id with a new line": tenant("d", id="guid-d\n"),
    "a datacenter that is no name": tenant("d", datacenter="us 10"),
    "a mapping that is no name": tenant("d", mapToTenantId="guid/a"),
    "the id of another": tenant("d", id=A),
}


@pytest.mark.parametrize("body", BAD_TENANTS.values(), ids=BAD_TENANTS.keys())
def test_a_bad_document_leaves_out_its_tenant_alone(body: dict[str, Any]) -> None:
    maps = render(Documents(onboarded={**BEFORE, "d": body}))
    good = render(Documents(onboarded=BEFORE))
    assert maps.files() == good.files()
    assert len(maps.problems) == 1
    assert maps.problems[0].startswith("onboarded-tenants/d is left out")


BAD_JOURNALS = {
    "a newer format": journal("C", format=2),
    "a format that is no number": journal("C", format="1"),
    "an unknown phase": journal("X"),
    "two phases": journal("CU"),
    "an epoch that is no number": journal("C", epoch="4"),
    "no source": {key: value for key, value in journal("C").items() if key != "source"},
    "an alias that is no name": journal("C", aliases=["guid c"]),
    "no canonical id": journal("W", canonical=None),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("body", BAD_JOURNALS.values(), ids=BAD_JOURNALS.keys())
def test_a_bad_journal_stops_the_start(body: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"migrations/{KEY}"):
        render(Documents(onboarded=BEFORE, migrations={KEY: body}))


def test_a_claim_of_a_newer_format_stops_the_start() -> None:
    with pytest.raises(InputError, match="claims/a can't be read: its format is 2"):
        render(Documents(onboarded=BEFORE, claims={"a": {"format": 2, "migration": KEY}}))


@pytest.mark.parametrize("phase", PHASES)
def test_documents_without_a_format_have_the_first_one(phase: str) -> None:
    def without(bodies: dict[str, Any]) -> dict[str, Any]:
        return {name: {key: value for key, value in body.items() if key != "format"} for name, body in bodies.items()}

    def numbered(bodies: dict[str, Any]) -> dict[str, Any]:
        return {name: {**body, "format": 1} for name, body in bodies.items()}

    old, new = (
        render(Documents(onboarded=form(BEFORE), migrations=form({KEY: journal(phase, B)}), claims=form(CLAIMS)))
        for form in (without, numbered)
    )
    assert old == new


names = st.sampled_from("abcdef")


@given(
    mappings=st.dictionaries(names, names),
    phase=st.sampled_from(PHASES),
    canonical=st.sampled_from([A, B]),
    aliases=st.lists(names, max_size=3),
)
def test_every_id_leads_to_one_that_leads_nowhere(
    mappings: dict[str, str], phase: str, canonical: str, aliases: list[str]
) -> None:
    onboarded = {name: tenant(name, mappings.get(name)) for name in "abcdef"}
    ids = [f"guid-{name}" for name in aliases]
    maps = render(
        Documents(onboarded=onboarded, migrations={KEY: journal(phase, canonical, aliases=ids)}, claims=CLAIMS)
    )
    assert not set(maps.override.values()) & set(maps.override) or has_cycle(mappings, {A, B, *ids})
    assert all(maps.override.get(tenant_id, tenant_id) == canonical for tenant_id in (A, B, *ids))
    assert set(maps.block) == ({A, B, *ids} if phase in CLOSED else set())
    for entries in maps.files().values():
        assert all(
            " " not in key + value and "\n" not in key + value and key and value for key, value in entries.items()
        )


def has_cycle(mappings: dict[str, str], settled: set[str]) -> bool:
    """Whether the documents lead in a circle outside of the migration: they name no live id then."""
    for start in mappings:
        seen, name = [start], start
        while name in mappings and f"guid-{name}" not in settled:
            name = mappings[name]
            if name in seen:
                return True
            seen.append(name)
    return False
