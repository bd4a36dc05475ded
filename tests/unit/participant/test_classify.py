# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which strategy a table gets, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import IGNORE, IN_PLACE, TWIN
from ansible_collections.zdm.landscape.plugins.module_utils.participant.choice import FEW_ROWS, SAFETY, coarse
from ansible_collections.zdm.landscape.plugins.module_utils.participant.classify import classify
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import (
    Column,
    Engine,
    ForeignKey,
    Note,
    Rate,
    TableFacts,
    UniqueKey,
)
from hypothesis import given
from hypothesis import strategies as st

BOTH = Engine("Both", (IN_PLACE, TWIN), cascades_fire_triggers=True, table_ms=2, rate=Rate(update_us=10, copy_us=50))
PLAIN = Engine("Plain", (IN_PLACE,), rate=Rate(update_us=10, copy_us=50))
BUDGET = 20_000
DECLARED = {"no_cross_tenant_readers": True}


def table(name: str, rows: int = 1000, **changes: Any) -> TableFacts:
    given: dict[str, Any] = {
        "columns": (Column("tenant_id", "uuid"), Column("id", "integer"), Column("parent", "integer")),
        "primary_key": ("tenant_id", "id"),
        "rows": rows,
    }
    return TableFacts(name, **(given | changes))


def child(name: str, parent: str, rows: int = 1000, **changes: Any) -> TableFacts:
    key = ForeignKey(f"{name}_fk", ("tenant_id", "parent"), parent, ("tenant_id", "id"), **changes)
    return table(name, rows, foreign_keys=(key,))


def run(
    *facts: TableFacts,
    engine: Engine = BOTH,
    budget_ms: int = BUDGET,
    rates: Any = None,
    staged: Any = None,
    signed: Any = None,
    **options: Any,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Plans by table, and reasons of refusals by object."""
    plans, refusals = classify(facts, options, engine, rates or {}, budget_ms, staged, signed)
    assert all(refusal.reason and refusal.advice for refusal in refusals)
    assert all(plan.why for plan in plans)
    return {plan.table: plan for plan in plans}, {refusal.object: refusal.reason for refusal in refusals}


LARGE = 100_000  # at 10 µs a row: one second


def test_small_tables_change_in_place() -> None:
    plans, refusals = run(table("a"), **DECLARED)
    assert plans["a"].strategy == IN_PLACE
    assert plans["a"].window_ms == 10 + BOTH.table_ms
    assert "10 ms" in plans["a"].why
    assert not refusals


def test_large_tables_become_twins() -> None:
    plans, refusals = run(table("a", LARGE), **DECLARED)
    assert (plans["a"].strategy, plans["a"].key, plans["a"].tenant_columns) == (TWIN, ("id",), ("tenant_id",))
    assert (plans["a"].stage_ms, plans["a"].window_ms) == (5000, BOTH.table_ms)
    assert not refusals


def test_the_sum_of_small_tables_counts() -> None:
    facts = [table(name, 20_000) for name in "abc"]  # 200 ms each
    plans, _refusals = run(*facts, **DECLARED)
    assert sorted(plan.strategy for plan in plans.values()) == [IN_PLACE, TWIN, TWIN]


@pytest.mark.parametrize("update_us", [0.1, 1.0, 10.0, 1000.0, 100_000.0])
@pytest.mark.parametrize(("rows", "strategy"), [(6, IN_PLACE), (LARGE, TWIN)])
def test_what_is_measured_decides_no_strategy(rows: int, strategy: str, update_us: float) -> None:
    facts = table("a", rows, look_ms=update_us)
    plans, _refusals = run(facts, rates={"a": Rate(update_us=update_us)}, **DECLARED)
    assert plans["a"].strategy == strategy
    if strategy == IN_PLACE:
        assert plans["a"].window_ms == BOTH.table_ms + round(rows * update_us / 1000 + 3 * update_us)


def test_rows_count_in_coarse_steps() -> None:
    assert [coarse(rows) for rows in (0, 1, 3, 10, 11, 400, 501, 1000, 1001, 99_999)] == [
        *(0, 1, 5, 10, 20, 500, 1000, 1000, 2000, 100_000)
    ]
    chosen = [
        {name: plan.strategy for name, plan in run(table("a", rows), table("b", 9_000), **DECLARED)[0].items()}
        for rows in range(10_100, 20_000, 900)
    ]
    assert all(choice == chosen[0] for choice in chosen)


def test_tables_of_few_rows_are_no_twins() -> None:
    slow = Engine("Slow", (IN_PLACE, TWIN), rate=Rate(update_us=1000))
    few = [table(f"t{number}", FEW_ROWS) for number in range(4)]
    plans, refusals = run(*few, table("z", FEW_ROWS * 2), engine=slow, **DECLARED)
    assert {plan.table for plan in plans.values() if plan.strategy == TWIN} == {"z"}
    assert not refusals


def test_many_tables_of_few_rows_that_do_not_fit_become_twins() -> None:
    slow = Engine("Slow", (IN_PLACE, TWIN), rate=Rate(update_us=1000))
    few = [table(f"t{number}", FEW_ROWS) for number in range(9)]  # one second each, 20 s / 3 have room for six
    plans, refusals = run(*few, engine=slow, **DECLARED)
    assert sorted(plan.strategy for plan in plans.values()) == [IN_PLACE] * 6 + [TWIN] * 3
    assert not refusals


def test_a_signed_plan_keeps_its_strategies() -> None:
    facts = (table("a", 10), table("b", LARGE), child("c", "b", 10))
    signed = {"a": TWIN, "b": IN_PLACE, "c": IN_PLACE}
    plans, refusals = run(*facts, signed=signed, **DECLARED)
    assert {name: plan.strategy for name, plan in plans.items()} == signed
    assert {plan.why for plan in plans.values()} == {"Signed this way."}
    assert not refusals


def test_options_and_the_stage_are_stronger_than_a_signature() -> None:
    tables = {"a": {"strategy": IN_PLACE}}
    plans, _refusals = run(table("a"), child("b", "a"), signed={"a": TWIN, "b": TWIN}, tables=tables, **DECLARED)
    assert {plan.strategy for plan in plans.values()} == {IN_PLACE}
    plans, _refusals = run(table("a"), signed={"a": TWIN}, staged={"a": IN_PLACE}, **DECLARED)
    assert (plans["a"].strategy, plans["a"].why) == (IN_PLACE, "Staged this way.")


def test_a_signed_strategy_that_is_not_legal_any_more_is_refused() -> None:
    _plans, refusals = run(table("a"), signed={"a": TWIN})
    assert "readers across tenants" in refusals["a"]
    _plans, refusals = run(table("a", LARGE), signed={"a": IN_PLACE}, budget_ms=2_999)
    assert "over the budget" in refusals["a"]


def test_auto_takes_no_twin_without_a_declaration() -> None:
    plans, refusals = run(table("a", LARGE))
    assert plans["a"].strategy == IN_PLACE
    assert "no_cross_tenant_readers" in plans["a"].why
    assert not refusals
    plans, _refusals = run(table("a", LARGE), tables={"a": {"no_cross_tenant_readers": True}})
    assert plans["a"].strategy == TWIN


def test_auto_refuses_what_is_neither_quick_nor_a_twin() -> None:
    _plans, refusals = run(table("a", LARGE), engine=PLAIN, budget_ms=2_999)
    assert refusals["a"] == (
        "The tables in place take about 1000 ms together (a 1000 ms); 3 times that, 3000 ms, is over the budget of 2999"
        " ms. No twin of a, because Plain has no twin strategy."
    )
    _plans, refusals = run(table("a", LARGE), engine=PLAIN, budget_ms=3_000)
    assert not refusals


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"unique_keys": (UniqueKey("by_id", ("id",)),)}, "unique key by_id (id) does not contain tenant_id"),
        ({"primary_key": ("id",)}, "unique key primary key (id)"),
        ({"primary_key": ("tenant_id",)}, "tenant_id alone"),
        ({"triggers": ("audit",)}, "trigger audit"),
        ({"notes": (Note("No copies here.", "Do it otherwise.", (TWIN,)),)}, "No copies here"),
        ({"foreign_keys": (ForeignKey("up", ("tenant_id", "parent"), "a", ("tenant_id", "id")),)}, "cycle"),
    ],
)
def test_unsafe_twins_are_refused_when_asked_for(changes: dict[str, Any], reason: str) -> None:
    facts = table("a", LARGE, **changes)
    _plans, refusals = run(facts, tables={"a": {"strategy": TWIN}}, **DECLARED)
    assert reason in refusals["a"]
    plans, refusals = run(facts, **DECLARED)
    assert plans["a"].strategy == IN_PLACE
    assert reason in plans["a"].why
    assert not refusals


def test_twin_needs_the_engine() -> None:
    _plans, refusals = run(table("a"), engine=PLAIN, tables={"a": {"strategy": TWIN}}, **DECLARED)
    assert "Plain has no twin strategy" in refusals["a"]


def test_explicit_twin_needs_the_declaration() -> None:
    _plans, refusals = run(table("a"), tables={"a": {"strategy": TWIN}})
    assert "readers across tenants" in refusals["a"]


def test_application_triggers_may_be_exempted() -> None:
    engine = Engine("Both", (IN_PLACE, TWIN), may_exempt_app_triggers=True, rate=BOTH.rate)
    plans, refusals = run(table("a", LARGE, triggers=("audit",)), engine=engine, **DECLARED)
    assert plans["a"].strategy == TWIN
    assert not refusals


def test_actions_of_foreign_keys_need_triggers_that_fire() -> None:
    facts = (table("a", LARGE), child("b", "a", LARGE, on_delete="CASCADE"))
    plans, _refusals = run(*facts, **DECLARED)
    assert {plan.strategy for plan in plans.values()} == {TWIN}
    plans, _refusals = run(*facts, engine=Engine("Deaf", (IN_PLACE, TWIN), rate=BOTH.rate), **DECLARED)
    assert {plan.strategy for plan in plans.values()} == {IN_PLACE}
    assert "ON DELETE CASCADE" in plans["b"].why


def test_foreign_key_without_the_tenant_column_forbids_a_twin() -> None:
    parent = table("a", 100, unique_keys=(UniqueKey("by_id", ("id",)),))
    facts = table("b", LARGE, foreign_keys=(ForeignKey("up", ("parent",), "a", ("id",)),))
    plans, _refusals = run(parent, facts, **DECLARED)
    assert plans["b"].strategy == IN_PLACE
    assert "refers to a without the tenant column" in plans["b"].why


def test_tables_linked_by_the_tenant_column_move_alike() -> None:
    plans, _refusals = run(child("b", "a", LARGE), table("a", 10), child("c", "b", 10), table("z", 10), **DECLARED)
    assert list(plans) == ["a", "z", "b", "c"]
    assert [plans[name].strategy for name in "abcz"] == [TWIN, TWIN, TWIN, IN_PLACE]
    assert "Moves with b, c" in plans["a"].why


def test_linked_tables_with_different_wishes_are_refused() -> None:
    tables = {"a": {"strategy": IN_PLACE}, "b": {"strategy": TWIN}}
    _plans, refusals = run(table("a"), child("b", "a"), tables=tables, **DECLARED)
    assert "different strategies" in refusals["a"]


def test_linked_tables_follow_the_explicit_one() -> None:
    plans, refusals = run(table("a"), child("b", "a"), tables={"b": {"strategy": TWIN}}, **DECLARED)
    assert {plan.strategy for plan in plans.values()} == {TWIN}
    assert not refusals


def test_explicit_in_place_over_the_budget_is_refused() -> None:
    _plans, refusals = run(table("a", LARGE), table("b", 10), budget_ms=2_999, tables={"a": {"strategy": IN_PLACE}})
    assert "take about 1000 ms together (a 1000 ms, b 0 ms)" in refusals["a"]


def test_the_budget_is_of_the_sum_and_names_the_tables_that_make_it_up() -> None:
    facts = [table(f"t{number}", rows * 1000) for number, rows in enumerate((1, 60, 50, 40, 30, 20, 10))]
    plans, refusals = run(*facts, rates={"t6": Rate(update_us=100)}, engine=PLAIN, budget_ms=5_000)
    listed = "(t6 1000 ms, t1 600 ms, t2 500 ms, t3 400 ms, t4 300 ms and 2 more)"
    assert list(refusals) == ["t6"]
    assert (
        f"take about 3010 ms together {listed}; 3 times that, 9030 ms, is over the budget of 5000 ms" in refusals["t6"]
    )
    assert sum(plan.window_ms - PLAIN.table_ms for plan in plans.values()) == 3010


def test_several_tenant_columns_change_in_place() -> None:
    columns = (Column("tenant_id", "varchar(36)"), Column("peer_tenant", "text"), Column("id", "integer"))
    options = {"tenant_columns": ["tenant_id", ".*_tenant"]}
    plans, refusals = run(table("a", LARGE, columns=columns), **options, **DECLARED)
    assert (plans["a"].strategy, plans["a"].tenant_columns) == (IN_PLACE, ("tenant_id", "peer_tenant"))
    assert not refusals
    _plans, refusals = run(table("a", columns=columns), tables={"a": {"strategy": TWIN}}, **options, **DECLARED)
    assert "several tenant columns" in refusals["a"]


@pytest.mark.parametrize(
    "kind",
    [
        "uuid",
        "TEXT",
        "varchar(36)",
        "character varying(36)",
        "character(36)",
        "VARCHAR(36) COLLATE x",
        "citext",
        "longtext",
    ],
)
def test_types_that_hold_a_tenant_id(kind: str) -> None:
    _plans, refusals = run(table("a", columns=(Column("tenant_id", kind), Column("id", "integer"))))
    assert not refusals


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (Column("tenant_id", "timestamp"), "type timestamp"),
        (Column("tenant_id", "jsonb"), "type jsonb"),
        (Column("tenant_id", "double precision"), "type double"),
        (Column("tenant_id", "uuid", generated=True), "generated"),
    ],
)
def test_unfit_tenant_columns_are_refused(column: Column, reason: str) -> None:
    _plans, refusals = run(table("a", columns=(column, Column("id", "integer"))))
    assert reason in refusals["a"]


def test_rows_of_the_target_are_refused() -> None:
    _plans, refusals = run(table("a", rows_of_target=1))
    assert "1 rows of the tenant id that is not live" in refusals["a"]


def test_rows_without_a_tenant_stay_where_they_are() -> None:
    column = Column("tenant_id", "uuid", nullable=True)
    facts = table("a", columns=(column, Column("id", "integer")), primary_key=("id",))
    plans, refusals = run(facts)
    assert (plans["a"].strategy, refusals) == (IN_PLACE, {})
    facts = replace(facts, primary_key=("tenant_id", "id"))
    _plans, refusals = run(facts, tables={"a": {"strategy": "twin"}}, **DECLARED)
    assert "tenant_id may be null" in refusals["a"]


def test_without_a_primary_key_a_unique_key_is_the_key() -> None:
    unique = (UniqueKey("part", ("tenant_id", "parent"), whole=False), UniqueKey("uk", ("tenant_id", "id")))
    facts = table("a", primary_key=(), unique_keys=unique)
    plans, refusals = run(facts)
    assert plans["a"].key == ("id",)
    assert not refusals
    plans, refusals = run(facts, tables={"a": {"key": ["id", "tenant_id"]}})
    assert plans["a"].key == ("id",)
    assert not refusals
    _plans, refusals = run(facts, tables={"a": {"key": ["tenant_id", "parent"]}})
    assert "no unique key" in refusals["a"]


def test_without_any_key_a_table_is_in_place_and_no_twin() -> None:
    facts = table("a", primary_key=(), unique_keys=(UniqueKey("part", ("tenant_id", "parent"), whole=False),))
    plans, refusals = run(facts)
    assert (plans["a"].strategy, plans["a"].key) == (IN_PLACE, ())
    assert not refusals
    _plans, refusals = run(facts, tables={"a": {"strategy": "twin"}})
    assert "it has neither a primary key nor a unique key of NOT NULL columns with tenant_id" in refusals["a"]


def test_each_partition_costs_what_a_table_costs() -> None:
    plans, _refusals = run(table("a", rows=0, parts=7), table("b", rows=0))
    assert [plans[name].window_ms for name in "ab"] == [7 * BOTH.table_ms, BOTH.table_ms]
    assert [plans[name].bystander_ms for name in "ab"] == [7 * BOTH.fence_ms, BOTH.fence_ms]


def test_unclassified_tables_are_refused_not_skipped() -> None:
    lost = TableFacts("lost", (Column("id", "integer"),), ("id",))
    plans, refusals = run(table("a"), lost)
    assert set(plans) == {"a", "lost"}
    assert set(refusals) == {"lost"}
    assert "no tenant column, and no foreign key" in refusals["lost"]
    plans, refusals = run(table("a"), lost, tables={"lost": {"ignore": "no tenant data"}})
    assert not refusals
    assert (plans["lost"].strategy, plans["lost"].why) == (IGNORE, "no tenant data")


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        ({"nope": {"ignore": "gone"}}, "does not have"),
        ({"a": {"stratgy": "twin"}}, "Unknown option stratgy"),
        ({"a": {"strategy": "shadow"}}, "Unknown strategy 'shadow'"),
        ({"a": {"ignore": " "}}, "without a reason"),
        ({"a": {"ignore": True}}, "without a reason"),
    ],
)
def test_wrong_options_are_named(tables: dict[str, Any], reason: str) -> None:
    _plans, refusals = run(table("a"), tables=tables)
    assert reason in refusals[next(iter(tables))]


def test_a_wrong_pattern_is_named() -> None:
    _plans, refusals = run(table("a"), tenant_columns=["tenant_id", "("])
    assert "'('" in refusals["tenant_columns"]


def test_a_column_that_refers_to_a_tenant_column_is_one() -> None:
    owner = TableFacts(
        "owner", (Column("org", "uuid"),), ("org",), foreign_keys=(ForeignKey("f", ("org",), "a", ("tenant_id",)),)
    )
    plans, refusals = run(table("a"), owner)
    assert not refusals
    assert plans["owner"].tenant_columns == ("org",)
    assert "Foreign key f leads from org to tenant_id of a" in plans["owner"].why
    _plans, refusals = run(table("a"), owner, tables={"owner": {"ignore": "mine"}})
    assert "is ignored, but foreign key f" in refusals["owner"]


@pytest.mark.parametrize("ignored", ["a", "b"])
def test_linked_tables_cannot_be_ignored_alone(ignored: str) -> None:
    _plans, refusals = run(table("a"), child("b", "a"), tables={ignored: {"ignore": "mine"}})
    assert "is ignored, but foreign key b_fk" in refusals[ignored]


def test_ids_inside_other_columns_must_be_classified() -> None:
    columns = (Column("tenant_id", "uuid"), Column("id", "integer"), Column("payload", "jsonb"))
    facts = table("a", columns=columns, ids_inside=("payload",))
    _plans, refusals = run(facts)
    assert "Column payload of a" in refusals["a"]
    _plans, refusals = run(facts, tables={"a": {"id_stays": {"payload": "history"}}})
    assert not refusals
    for wrong in ({"payload": ""}, {"nope": "history"}, ["payload"]):
        _plans, refusals = run(facts, tables={"a": {"id_stays": wrong}})
        assert "`id_stays` of table a is wrong" in refusals["a"] or "holds the tenant's id" in refusals["a"]


def test_notes_that_forbid_everything_refuse() -> None:
    _plans, refusals = run(table("a", notes=(Note("Row security hides rows.", "Exempt the user."),)))
    assert refusals == {"a": "Row security hides rows."}


def test_notes_that_forbid_in_place_lead_to_a_twin() -> None:
    note = Note("Not in place.", "Make a twin.", (IN_PLACE,))
    plans, refusals = run(table("a", notes=(note,)), **DECLARED)
    assert plans["a"].strategy == TWIN
    assert not refusals
    _plans, refusals = run(table("a", notes=(note,)), tables={"a": {"strategy": IN_PLACE}})
    assert refusals == {"a": "Not in place."}
    _plans, refusals = run(table("a", notes=(note,)))
    assert "cannot change in place (Not in place)" in refusals["a"]


NAMES = "abcdefgh"


@st.composite
def schemas(draw: Any) -> list[TableFacts]:
    result = []
    for index, name in enumerate(NAMES[: draw(st.integers(1, len(NAMES)))]):
        parents = draw(st.sets(st.sampled_from(NAMES[:index]), max_size=2)) if index else set()
        keys = tuple(
            ForeignKey(f"{name}_{parent}", ("tenant_id", "parent"), parent, ("tenant_id", "id"))
            for parent in sorted(parents)
        )
        unique = (UniqueKey("u", ("id",)),) if draw(st.integers(0, 4)) == 0 else ()
        facts = table(name, draw(st.integers(0, 300_000)), foreign_keys=keys, unique_keys=unique)
        if draw(st.integers(0, 5)) == 0:
            facts = TableFacts(name, (Column("id", "integer"),), ("id",))
        result.append(facts)
    tenant = {facts.name for facts in result if facts.columns[0].name == "tenant_id"}
    return [
        TableFacts(
            f.name,
            f.columns,
            f.primary_key,
            f.unique_keys,
            tuple(key for key in f.foreign_keys if key.table in tenant),
            rows=f.rows,
        )
        for f in result
    ]


@given(schemas(), st.randoms(), st.booleans(), st.integers(100, 30_000))
def test_every_table_is_planned_or_refused(
    facts: list[TableFacts], random: Any, declared: bool, budget_ms: int
) -> None:
    options = {"no_cross_tenant_readers": declared}
    plans, refusals = classify(facts, options, BOTH, {}, budget_ms)
    shuffled = list(facts)
    random.shuffle(shuffled)
    assert classify(shuffled, options, BOTH, {}, budget_ms) == (plans, refusals)

    by_name = {plan.table: plan for plan in plans}
    assert set(by_name) == {table.name for table in facts}
    assert all(
        table.name in {refusal.object for refusal in refusals}
        for table in facts
        if table.columns[0].name != "tenant_id"
    )
    position = {plan.table: index for index, plan in enumerate(plans)}
    for facts_of in facts:
        for key in facts_of.foreign_keys:
            assert by_name[facts_of.name].strategy == by_name[key.table].strategy
            assert position[key.table] < position[facts_of.name]
        if by_name[facts_of.name].strategy == TWIN:
            assert declared
            assert not facts_of.unique_keys
    if not refusals:
        in_place = sum(plan.window_ms - BOTH.table_ms for plan in plans if plan.strategy == IN_PLACE)
        assert in_place * SAFETY <= budget_ms


@given(schemas(), st.booleans(), st.lists(st.floats(0.01, 10_000), min_size=len(NAMES), max_size=len(NAMES)))
def test_load_changes_no_strategy(facts: list[TableFacts], declared: bool, measured: list[float]) -> None:
    options = {"no_cross_tenant_readers": declared}
    rates = {name: Rate(update_us=us) for name, us in zip(NAMES, measured, strict=True)}
    busy = [replace(table, look_ms=measured[0]) for table in facts]
    quiet_plans, _refusals = classify(facts, options, BOTH, {}, BUDGET)
    busy_plans, _refusals = classify(busy, options, BOTH, rates, BUDGET)
    assert [(plan.table, plan.strategy) for plan in quiet_plans] == [(plan.table, plan.strategy) for plan in busy_plans]
    fewer = {plan.table: plan.strategy for plan in quiet_plans if plan.strategy != IGNORE}
    grown = [replace(table, rows=table.rows * 10) for table in facts]
    kept, _refusals = classify(grown, options, BOTH, rates, BUDGET, signed=fewer)
    assert {plan.table: plan.strategy for plan in kept if plan.strategy != IGNORE} == fewer
