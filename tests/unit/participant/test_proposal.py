# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is proposed for a participant: names, patterns, spellings, and that a confirmed proposal lifts what it can."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
import yaml
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import IGNORE, IN_PLACE, TWIN, Refusal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.classify import classify
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import (
    Column,
    Engine,
    ForeignKey,
    Note,
    TableFacts,
    UniqueKey,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.own_ids import (
    NO_OWN_IDS,
    OwnIds,
    Root,
    by_tenant,
    given,
    to_fill_in,
    unfinished,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.proposal.bookkeeping import bookkeeping
from ansible_collections.zdm.landscape.plugins.module_utils.participant.proposal.evidence import Evidence
from ansible_collections.zdm.landscape.plugins.module_utils.participant.proposal.names import (
    is_surely_tenant,
    is_tenant_like,
    meant,
    parent,
    polymorphic,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.proposal.patterns import folded
from ansible_collections.zdm.landscape.plugins.module_utils.participant.proposal.propose import (
    Changes,
    Tenants,
    propose,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.proposal.spelling import fitting, spellings
from ansible_collections.zdm.landscape.plugins.module_utils.participant.proposal.written import entry, flow
from hypothesis import given as holds_for
from hypothesis import strategies as st

A, B = "0a0a0a0a-0000-4000-8000-00000000000a", "0b0b0b0b-0000-4000-8000-00000000000b"
TENANTS = Tenants(A, B, {A: "venezia", B: "venezia-scp"})
ENGINE = Engine("Both", (IN_PLACE, TWIN), cascades_fire_triggers=True)

# -- names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *(
            "flyway_schema_history",
            "DATABASECHANGELOG",
            "DATABASECHANGELOGLOCK",
            "alembic_version",
            "schema_migrations",
        ),
        *("ar_internal_metadata", "django_migrations", "knex_migrations_lock", "_prisma_migrations", "SequelizeMeta"),
        *("doctrine_migration_versions", "__EFMigrationsHistory", "schema_migration", "QRTZ_LOCKS", "qrtz_locks"),
        *("ACT_GE_PROPERTY", "act_ge_schema_log", "ACT_DMN_DATABASECHANGELOG", "audit.flyway_schema_history"),
        *("hangfire.lock", "sap_common_currencies_texts", "spatial_ref_sys", "hibernate_sequence", "shedlock"),
    ],
)
def test_frameworks_own_tables_are_known(name: str) -> None:
    assert bookkeeping(name)


@pytest.mark.parametrize(
    "name", ["item", "QRTZ_JOB_DETAILS", "ACT_RU_TASK", "ACT_GE_BYTEARRAY", "my_schema_migrations_of_tenants", "lock"]
)
def test_tables_with_data_are_no_bookkeeping(name: str) -> None:
    assert not bookkeeping(name)


@pytest.mark.parametrize(
    ("name", "like", "surely"),
    [
        *((name, True, True) for name in ("tenant", "tenantid", "tenantId", "TENANT_ID_", "tenant_uuid", "mandt")),
        *((name, True, True) for name in ("workspace_id", "realm_id", "zid", "owner_tenant_id", "subaccount_guid")),
        *((name, True, False) for name in ("org_id", "account_id", "customer_id", "company", "organisation_key")),
        *((name, False, False) for name in ("id", "name", "organ", "tenancy", "accounting_id", "user_id", "realmless")),
    ],
)
def test_names_that_look_like_a_tenants(name: str, like: bool, surely: bool) -> None:
    assert (is_tenant_like(name), is_surely_tenant(name)) == (like, surely)


@pytest.mark.parametrize(
    ("word", "tables", "found"),
    [
        ("Item", ["items"], "items"),
        ("App\\Models\\OrderLine", ["order_lines"], "order_lines"),
        ("Crm::Company", ["companies", "company_x"], "companies"),
        ("com.example.Box", ["sales.boxes"], "sales.boxes"),
        ("item", ["ITEM"], "ITEM"),
        ("nothing", ["items"], ""),
        ("", ["items"], ""),
        ("::", ["items"], ""),
    ],
)
def test_the_table_that_a_word_means(word: str, tables: list[str], found: str) -> None:
    assert meant(word, tables) == found


def test_columns_that_lead_to_other_tables() -> None:
    columns = [Column(name, "text") for name in ("id", "subject_type", "subject_id", "taggableType", "taggableId")]
    assert list(polymorphic(TableFacts("t", tuple(columns)))) == [
        ("subject_type", "subject_id"),
        ("taggableType", "taggableId"),
    ]
    line = TableFacts("line", (Column("id", "int"), Column("mime_type", "text"), Column("itemId", "int")))
    assert not list(polymorphic(line))
    assert parent(line, ["items"]) == ("itemId", "items")
    assert parent(line, ["bills"]) == ("", "")


# -- patterns and YAML --------------------------------------------------------------------------------

NAMES = st.lists(st.text("ab_.(|*$", min_size=1, max_size=9), min_size=1, max_size=12, unique=True)


@holds_for(NAMES, st.data())
def test_a_pattern_matches_these_and_no_other(names: list[str], data: st.DataObject) -> None:
    others = data.draw(st.lists(st.text("ab_.(|*$", min_size=1, max_size=9).filter(lambda name: name not in names)))
    pattern = re.compile(folded(names, others))
    assert all(pattern.fullmatch(name) for name in names)
    assert not any(pattern.fullmatch(name) for name in others)


def test_beginnings_that_many_share_are_one_pattern() -> None:
    names = ["ACT_GE_A", "ACT_GE_B", "ACT_GE_C", "country", "QRTZ_A", "QRTZ_B"]
    assert folded(names, ["ACT_RU_TASK"]) == "^(ACT_GE_.*|QRTZ_A|QRTZ_B|country)$"
    assert folded(names, ["ACT_GE_TENANT"]) == "^(ACT_GE_A|ACT_GE_B|ACT_GE_C|QRTZ_A|QRTZ_B|country)$"
    assert folded(["country"], []) == "^country$"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@holds_for(VALUES)
def test_what_is_written_is_read_again(value: Any) -> None:
    text = flow(value)
    assert "\n" not in text
    assert yaml.safe_load(text) == value


def test_many_things_to_confirm_are_counted() -> None:
    text = entry("bills", {"ignore": {"^a$": "x"}}, {"ignore": [f"a{number}" for number in range(9)]})
    assert text == '- name: bills\n  ignore: {"^a$": x}  # confirm: a0; a1; a2; a3; and 5 more like these'


# -- spellings ----------------------------------------------------------------------------------------


def test_ways_to_write_an_id() -> None:
    assert next(iter(spellings(A))) == ""
    found = spellings(A)
    assert found["without hyphens"] == A.replace("-", "")
    assert found["as bytes"] == f"0x{A.replace('-', '')}"
    assert len(set(found.values())) == len(found)
    assert set(spellings("17")) == {"", "as the bytes of its characters"}


@pytest.mark.parametrize(
    ("kind", "ways"),
    [
        ("uuid", {""}),
        ("bigint", set()),
        ("timestamp", set()),
        ("character varying(36)[]", set()),
        ("binary(16)", {"as bytes", "as the bytes of its characters"}),
        ("varchar(32)", {"without hyphens", "in upper case without hyphens"}),
        ("TEXT", {"", "in upper case", "without hyphens", "in upper case without hyphens"}),
    ],
)
def test_what_a_column_can_hold(kind: str, ways: set[str]) -> None:
    assert set(fitting(kind, A)) == ways


# -- proposals ----------------------------------------------------------------------------------------


def table(name: str, *columns: str, key: tuple[str, ...] = ("id",), refers: Any = (), **changes: Any) -> TableFacts:
    """Columns are written ``name type``; references ``column table.column``."""
    found = tuple(Column(*column.split(" ", 1)) for column in ("id bigint", *columns))
    keys = tuple(
        ForeignKey(f"{name}_{number}", (own,), target.partition(".")[0], (target.partition(".")[2],))
        for number, (own, target) in enumerate(reference.split(" ") for reference in refers)
    )
    return TableFacts(name, found, key, foreign_keys=keys, **changes)


def refusals_of(facts: Sequence[TableFacts], options: dict[str, Any], ids: OwnIds = NO_OWN_IDS) -> Sequence[Refusal]:
    return classify(facts, options, ENGINE, {}, 20_000, ids=ids)[1]


def proposed(
    facts: Sequence[TableFacts], evidence: Evidence | None = None, ids: OwnIds = NO_OWN_IDS, **options: Any
) -> Changes:
    refusals = refusals_of(facts, options, ids)
    by_name = {each.name: each for each in facts}
    return propose(by_name, options, refusals, TENANTS, evidence or Evidence(), ids)


def test_nothing_is_proposed_for_what_only_a_person_changes() -> None:
    facts = [table("item", "tenant_id uuid", rows_of_target=3, notes=(Note("Row security hides rows.", "Let …"),))]
    assert proposed(facts).options == {}


def test_what_a_note_lets_leave_out_is_proposed_with_its_reason() -> None:
    note = Note("Materialised view mv holds the tenant's id.", "Refresh it …", ignorable="refreshed after each switch")
    changes = proposed([table("item", "tenant_id uuid"), table("mv", "tenant_id uuid", notes=(note,))])
    assert changes.options == {"ignore": {"^mv$": "refreshed after each switch (confirm)"}}


def test_a_table_with_a_tenant_like_column_is_never_left_out() -> None:
    facts = [table("item", "tenant_id uuid"), table("invoice", "customer_no bigint"), table("country")]
    changes = proposed(facts)
    assert changes.options == {"ignore": {"^country$": "no tenant data (confirm)"}}


def test_the_operators_word_stays() -> None:
    facts = [table("item", "tenant_id uuid"), table("country"), table("note", "org_id uuid")]
    evidence = Evidence(held={("note", "org_id"): ""})
    changes = proposed(facts, evidence, tenant_columns=["ten.*"], ignore={"old": "x"}, tables={"item": {"key": ["id"]}})
    assert changes.options["tenant_columns"] == ["ten.*", "org_id"]
    assert changes.options["ignore"] == {"old": "x", "^country$": "no tenant data (confirm)"}
    assert "tables" not in changes.options


def test_ids_inside_are_named_for_a_person_to_confirm() -> None:
    facts = [table("item", "tenant_id uuid", "payload jsonb", "note text", ids_inside=("note", "payload"))]
    changes = proposed(facts, tables={"item": {"id_stays": {"note": "history"}}})
    assert changes.options["tables"]["item"]["id_stays"] == {
        "note": "history",
        "payload": "nothing finds the tenant by it (confirm)",
    }
    assert changes.confirm["tables"] == ["nothing finds the tenant by the id inside item.payload"]


def test_a_declaration_that_lifts_a_refusal_is_proposed() -> None:
    facts = [table("item", "tenant_id uuid", key=("tenant_id", "id"))]
    changes = proposed(facts, tables={"item": {"strategy": "twin"}})
    assert changes.options == {"no_cross_tenant_readers": True}


def test_the_root_to_which_most_refer_tells_the_own_ids() -> None:
    accounts, settings = (
        table(name, "external uuid", unique_keys=(UniqueKey("u", ("external",)),)) for name in ("tenants", "setting")
    )
    bill = table("bill", "tenant_id bigint")
    evidence = Evidence(held={("tenants", "external"): "", ("setting", "external"): ""})
    changes = proposed([accounts, settings, bill], evidence)
    assert changes.options["id_query"] == "SELECT id FROM tenants WHERE external = :tenant_id"


def test_own_ids_that_stand_beside_the_tenants_own() -> None:
    ids = OwnIds({A: "17", B: "18"}, Root("accounts", "id", "external"))
    accounts = table("accounts", "external uuid", unique_keys=(UniqueKey("u", ("external",)),))
    facts = [accounts, table("job", "tenant_id text"), table("event", "tenant_id text"), table("log", "tenant_id text")]
    evidence = Evidence(held={("event", "tenant_id"): ""}, own=frozenset({("job", "tenant_id")}))
    changes = proposed(facts, evidence, ids, id_query="x", tables={})
    entries = changes.options["tables"]
    assert {name: entries[name]["own_ids"] for name in entries} == {"event": False, "job": True}


def test_words_to_be_replaced_are_refused() -> None:
    assert [to_fill_in(value) for value in ("<value>", "<own id>", "value", 7, None, "a<b>")] == [True] * 2 + [
        False
    ] * 4
    tenants = table("tenants", "tenant_id uuid", "slug text", key=("tenant_id",))
    found = refusals_of(
        [tenants], {"tables": {"tenants": {"tenant_columns": ["tenant_id"], "new_row": {"slug": "<value>"}}}}
    )
    assert [refusal.reason for refusal in found] == [
        "`new_row` of table tenants has no value for slug yet, only <value>."
    ]
    ids, refused = given({"own_ids": {A: "<own id>", B: "18"}}, (A, B), "crm")
    assert [refusal.reason for refusal in refused] == [
        f"Nobody has written yet what participant crm calls {A} and {B}."
    ]
    more = (Refusal("bill", "Column tenant_id is of type bigint, which cannot hold the id <own id>.", "x"), *refused)
    assert unfinished(ids, more) == tuple(refused)


def test_own_ids_by_tenant() -> None:
    assert by_tenant({"venezia": 17, "other": 3}, TENANTS.names) == {A: "17"}
    assert by_tenant({"other": 3}, TENANTS.names) == {"": ""}


# -- any schema ---------------------------------------------------------------------------------------

TENANT_COLUMNS = ("tenant_id", "org_id", "tenantId", "workspace_uuid", "owner")


@st.composite
def schemas(draw: Any) -> tuple[list[TableFacts], Evidence]:
    """Tables with a tenant column of some name or none, tied to earlier ones or not, with rows of the tenant or not."""
    facts: list[TableFacts] = []
    held = {}
    names = draw(
        st.permutations(["items", "lines", "ref_a", "ref_b", "ref_c", "QRTZ_LOCKS", "country", "comments", "bills"])
    )
    for number, name in enumerate(names[: draw(st.integers(1, len(names)))]):
        columns = draw(st.lists(st.sampled_from(TENANT_COLUMNS), max_size=2, unique=True))
        more = draw(st.sampled_from([(), ("subject_type text", "subject_id bigint"), ("item_id bigint",), ("v text",)]))
        earlier = draw(st.none() | st.integers(0, number - 1)) if number else None
        refers = [] if earlier is None else [f"parent {names[earlier]}.id"]
        inside = draw(st.sampled_from([(), ("v",)])) if "v text" in more and columns else ()
        each = [f"{column} uuid" for column in columns]
        facts.append(table(name, "parent bigint", *each, *more, refers=refers, ids_inside=inside, rows=3))
        held |= {(name, column): "" for column in columns if draw(st.booleans())}
    kinds = {(each.name, "subject_type"): draw(st.sampled_from([(), ("Item",), ("Bill", "Nothing")])) for each in facts}
    return facts, Evidence(held=held, kinds=kinds)


@holds_for(schemas())
def test_a_confirmed_proposal_never_increases_refusals(drawn: tuple[list[TableFacts], Evidence]) -> None:
    facts, evidence = drawn
    options: dict[str, Any] = {}
    before = {refusal.object for refusal in refusals_of(facts, options)}
    changes = proposed(facts, evidence)
    applied = {**options, **changes.options}
    plans, refused = classify(facts, applied, ENGINE, {}, 20_000)
    after = {refusal.object for refusal in refused}
    grown = after - before
    assert all(next(each for each in facts if each.name == name).ids_inside for name in grown)  # only seen now
    for pattern in changes.options.get("ignore", {}):
        assert not [plan.table for plan in plans if plan.strategy != IGNORE and re.fullmatch(pattern, plan.table)]
    again = proposed(facts, evidence, **applied)
    last = {**applied, **again.options}
    assert proposed(facts, evidence, **last).options.items() <= last.items()
    left = {refusal.object for refusal in refusals_of(facts, last)}
    assert len(left) <= len(before)
    unlike = [each for each in facts if each.name in left and not any(is_tenant_like(c.name) for c in each.columns)]
    assert all(any(polymorphic(each)) or (each.name, "owner") in evidence.held for each in unlike)
