# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tables hold a tenant's data: by the options, by foreign keys, by the participant's own ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    FOLLOWS,
    IGNORE,
    IN_PLACE,
    RELABEL,
    ROOT,
    TWIN,
    Refusal,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.classify import classify
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import (
    Column,
    Engine,
    ForeignKey,
    TableFacts,
    UniqueKey,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.own_ids import (
    NO_OWN_IDS,
    OwnIds,
    Root,
    answered,
    given,
)

BOTH = Engine("Both", (IN_PLACE, TWIN), cascades_fire_triggers=True)
A, B = "venezia", "venezia-scp"


def table(name: str, *columns: str, key: tuple[str, ...] = ("id",), refers: Any = (), **changes: Any) -> TableFacts:
    """Columns are written ``name type``; references ``column table.column``."""
    found = tuple(Column(*column.split(" ", 1)) for column in columns)
    keys = tuple(
        ForeignKey(f"{name}_{number}", (own,), *_target(target))
        for number, (own, target) in enumerate(reference.split(" ") for reference in refers)
    )
    return TableFacts(name, found, key, foreign_keys=keys, **changes)


def _target(text: str) -> tuple[str, tuple[str, ...]]:
    parent, _dot, column = text.partition(".")
    return parent, (column,)


def run(*facts: TableFacts, ids: OwnIds = NO_OWN_IDS, **options: Any) -> tuple[dict[str, str], dict[str, str], Any]:
    """Strategies and refusals by table, and the plans."""
    plans, refusals = classify(facts, options, BOTH, {}, 20_000, ids=ids)
    found = {plan.table: plan for plan in plans}
    return {name: plan.strategy for name, plan in found.items()}, _reasons(refusals), found


def _reasons(refusals: Sequence[Refusal]) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in refusals:
        found[each.object] = f"{found.get(each.object, '')} {each.reason}".strip()
    return found


TENANTS = table("tenants", "id uuid", "name text")
ITEM = table("item", "id bigint", "tenant_id uuid", refers=["tenant_id tenants.id"])
LINE = table("line", "id bigint", "item_id bigint", refers=["item_id item.id"])
PART = table("part", "id bigint", "line_id bigint", refers=["line_id line.id"])
COUNTRY = table("country", "code char(2)", key=("code",))


def test_foreign_keys_find_root_and_followers() -> None:
    chosen, refused, plans = run(TENANTS, ITEM, LINE, PART)
    assert chosen == {"tenants": ROOT, "item": IN_PLACE, "line": FOLLOWS, "part": FOLLOWS}
    assert not refused
    assert plans["tenants"].tenant_columns == ("id",)
    assert "item_0 of item leads to id from tenant_id" in plans["tenants"].why
    assert "line (item_id) → item" in plans["line"].why
    assert "part (line_id) → line" in plans["part"].why
    assert "not fenced" in plans["part"].why


def test_what_nothing_leads_to_is_unclear() -> None:
    _chosen, refused, _plans = run(TENANTS, ITEM, COUNTRY)
    assert "not classified" in refused["country"]


def test_one_pattern_ignores_many_tables() -> None:
    logs = [table(f"ACT_GE_{name}", "id bigint") for name in ("BYTES", "PROPERTY")]
    chosen, refused, plans = run(ITEM, TENANTS, COUNTRY, *logs, ignore={"country|ACT_GE_.*": "look-ups of the engine"})
    assert not refused
    assert [chosen[name] for name in ("country", "ACT_GE_BYTES", "ACT_GE_PROPERTY")] == [IGNORE] * 3
    assert plans["country"].why == "look-ups of the engine"
    _chosen, refused, _plans = run(ITEM, TENANTS, COUNTRY, ignore={"(": "x"})
    assert "no regular expression" in refused["ignore"]


def test_what_is_said_of_a_table_counts_more_than_a_pattern() -> None:
    chosen, refused, _plans = run(TENANTS, ITEM, tables={"item": {"strategy": "in_place"}}, ignore={".*": "nothing"})
    assert (chosen, refused) == ({"tenants": IGNORE, "item": IN_PLACE}, {})


def test_a_polymorphic_child_is_named_by_hand() -> None:
    comment = table("comment", "id bigint", "subject_type text", "subject_id bigint")
    chosen, refused, plans = run(TENANTS, ITEM, comment, tables={"comment": {"follows": "item"}})
    assert (chosen["comment"], refused) == (FOLLOWS, {})
    assert "item" in plans["comment"].why
    _chosen, refused, _plans = run(TENANTS, ITEM, comment, COUNTRY, tables={"comment": {"follows": ["country"]}})
    assert "neither changes id nor follows" in refused["comment"]


def test_a_root_to_which_nothing_refers_is_named() -> None:
    item = table("item", "id bigint", "tenant_id uuid")
    chosen, refused, _plans = run(TENANTS, item, tables={"tenants": {"tenant_columns": ["id"]}})
    assert (chosen, refused) == ({"tenants": ROOT, "item": IN_PLACE}, {})
    _chosen, refused, _plans = run(TENANTS, item, COUNTRY, tables={"country": {"tenant_columns": ["idd"]}})
    assert "names idd, which it does not have" in refused["country"]


def test_a_root_with_children_of_another_key_moves_itself() -> None:
    tenants = table("tenants", "id bigint", "uid uuid", unique_keys=(UniqueKey("u", ("uid",)),))
    item = table("item", "id bigint", "tenant_id uuid", refers=["tenant_id tenants.uid"])
    setting = table("setting", "id bigint", "owner bigint", refers=["owner tenants.id"])
    chosen, refused, _plans = run(tenants, item, setting)
    assert (chosen, refused) == ({"tenants": IN_PLACE, "item": IN_PLACE, "setting": FOLLOWS}, {})


def test_an_existing_row_of_the_root_is_no_obstacle() -> None:
    _chosen, refused, _plans = run(replace(TENANTS, rows_of_target=1), ITEM)
    assert not refused


def test_keys_that_allow_no_second_row_are_named() -> None:
    slug = replace(
        table("tenants", "id uuid", "slug text", "number bigint"),
        unique_keys=(UniqueKey("slugs", ("slug",)), UniqueKey("numbers", ("number",))),
    )
    _chosen, refused, _plans = run(slug, ITEM)
    assert "Key slugs of tenants (slug) allows no second row" in refused["tenants"]
    numbered = replace(slug, columns=(*slug.columns[:2], replace(slug.columns[2], identity=True)))
    _chosen, refused, _plans = run(numbered, ITEM, tables={"tenants": {"new_row": {"slug": "venezia-scp"}}})
    assert not refused


def test_children_of_a_root_change_each_in_its_own_way() -> None:
    own = table("own", "tenant_id uuid", "no int", key=("tenant_id", "no"), refers=["tenant_id tenants.id"])
    chosen, refused, _plans = run(
        TENANTS, ITEM, own, tables={"own": {"strategy": "twin"}}, no_cross_tenant_readers=True
    )
    assert (chosen, refused) == ({"tenants": ROOT, "item": IN_PLACE, "own": TWIN}, {})


# -- own ids --------------------------------------------------------------------------------------

QUERY = "SELECT id FROM accounts WHERE external_id = :tenant_id"
ACCOUNTS = table("accounts", "id bigint", "external_id uuid", unique_keys=(UniqueKey("u", ("external_id",)),))
INVOICE = table("invoice", "id bigint", "account_id bigint", refers=["account_id accounts.id"])
OUTBOX = table("outbox", "id bigint", "account_id bigint")


def test_one_row_changes_where_the_other_tenant_has_no_own_id() -> None:
    ids, refusals = answered(QUERY, {A: "17", B: None}, A, B, "crm")
    assert not refusals
    chosen, refused, plans = run(ACCOUNTS, INVOICE, OUTBOX, LINE, ids=ids, tenant_columns=["account_id"])
    assert "line" in refused
    assert {**chosen, "line": ""} == {"accounts": RELABEL, "invoice": FOLLOWS, "outbox": FOLLOWS, "line": ""}
    assert plans["accounts"].tenant_columns == ("external_id",)
    assert "own id of accounts" in plans["invoice"].why


def test_rows_move_where_both_have_own_ids() -> None:
    ids, refusals = answered(QUERY, {A: "17", B: "18"}, A, B, "crm")
    assert not refusals
    accounts = replace(ACCOUNTS, rows_of_target=1)
    chosen, refused, _plans = run(accounts, INVOICE, OUTBOX, ids=ids, tenant_columns=["account_id"])
    assert (chosen, refused) == ({"accounts": ROOT, "invoice": IN_PLACE, "outbox": IN_PLACE}, {})
    chosen, refused, _plans = run(ACCOUNTS, OUTBOX, ids=ids, tenant_columns=["account_id"])
    assert (chosen, refused) == ({"accounts": IGNORE, "outbox": IN_PLACE}, {})


def test_a_text_column_may_hold_either_id() -> None:
    ids, _refusals = answered(QUERY, {A: "17", B: "18"}, A, B, "crm")
    note = table("note", "id bigint", "account_id varchar(40)")
    _chosen, refused, _plans = run(ACCOUNTS, note, ids=ids, tenant_columns=["account_id"])
    assert "may hold the tenant's id, or the participant's own" in refused["note"]
    for own in (True, False):
        _chosen, refused, _plans = run(
            ACCOUNTS, note, ids=ids, tenant_columns=["account_id"], tables={"note": {"own_ids": own}}
        )
        assert not refused


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({A: None, B: "18"}, f"does not know {A}"),
        ({A: None, B: None}, f"does not know {A}"),
        ({A: "17", B: "17"}, "the same own id"),
    ],
)
def test_answers_that_help_nobody_are_refused(answers: dict[str, str | None], reason: str) -> None:
    _ids, refusals = answered(QUERY, answers, A, B, "crm")
    assert reason in refusals[0].reason
    assert refusals[0].advice


def test_a_query_that_tells_no_root_relabels_nothing() -> None:
    query = "SELECT a.id FROM accounts a JOIN alias s ON s.account = a.id WHERE s.external = :tenant_id"
    _ids, refusals = answered(query, {A: "17", B: None}, A, B, "crm")
    assert f"does not know {B}" in refusals[0].reason
    assert "SELECT <key> FROM <table>" in refusals[0].advice


@pytest.mark.parametrize(
    ("query", "root"),
    [
        (QUERY, Root("accounts", "id", "external_id")),
        ('select "Id" from crm."Account" where "ExtId" = :tenant_id ;', Root("crm.Account", "Id", "ExtId")),
        ("SELECT `no` FROM `kun``den` WHERE `ext` = :tenant_id", Root("kun`den", "no", "ext")),
        ("SELECT id FROM accounts WHERE external_id = :tenant_id AND active", None),
    ],
)
def test_roots_of_queries(query: str, root: Root | None) -> None:
    assert Root.of_query(query) == root


def test_ids_that_are_given() -> None:
    ids, refusals = given({"own_ids": {A: 17, B: 18}}, (A, B), "crm")
    assert (dict(ids.known), refusals) == ({A: "17", B: "18"}, [])
    _ids, refusals = given({"own_ids": {A: 17}}, (A, B), "crm")
    assert f"none for {B}" in refusals[0].reason
    _ids, refusals = given({"own_ids": {A: 17, B: 17}}, (A, B), "crm")
    assert "the same own id 17" in refusals[0].reason
