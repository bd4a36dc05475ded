# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan: what it is signed by, what a signature keeps, how it predicts, and what it says."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import yaml
from ansible_collections.zdm.landscape.plugins.module_utils.migration import plan as plans
from ansible_collections.zdm.landscape.plugins.module_utils.migration.plan import Plan, make_plan
from ansible_collections.zdm.landscape.plugins.module_utils.migration.plan_text import WIDTH
from ansible_collections.zdm.landscape.plugins.module_utils.migration.signature import Signature
from ansible_collections.zdm.landscape.plugins.module_utils.participant import strategies
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    FOLLOWS,
    IGNORE,
    IN_PLACE,
    ROOT,
    TWIN,
    Inspection,
    Proposal,
    Refusal,
    TablePlan,
)

from .conftest import Small
from .doubles import MemoryParticipant

TABLES = ("bill", "line", "note")


class Databases:
    """What the participants of a small landscape answer: a schema, and a choice that load changes."""

    def __init__(self, small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
        self.small = small
        self.digest, self.chosen = "schema", TWIN
        self.asked: list[str] = []
        monkeypatch.setattr(MemoryParticipant, "inspect", lambda this, *args: self.inspect(this.name, *args))

    def inspect(self, name: str, _migration: str, _source: str, _target: str, signed: str, _live: str) -> Inspection:
        self.asked.append(signed)
        kept = strategies.read(signed, TABLES)
        tables = [TablePlan(table, kept.get(table, self.chosen), "why", 5, window_ms=7) for table in TABLES]
        return Inspection(name, "memory", "1", (*tables, TablePlan("log", IGNORE, "why", 1)), digest=self.digest)

    def plan(self, signed: str = "") -> Plan:
        small = self.small
        return make_plan(small.journal(), small.parties(), small.participants, small.fleet, signed)


@pytest.fixture
def databases(small: Small, monkeypatch: pytest.MonkeyPatch) -> Databases:
    return Databases(small, monkeypatch)


def test_a_digest_says_which_strategies_were_signed(databases: Databases) -> None:
    digest = databases.plan().digest
    structure, _hyphen, signed = digest.partition("-")
    assert (len(structure), signed) == (16, "3t.3t")
    assert str(Signature.read(digest)) == digest


def test_a_signed_plan_is_made_again_whatever_the_load_chooses(databases: Databases) -> None:
    at_night = databases.plan()
    databases.chosen = IN_PLACE
    by_day = databases.plan()
    assert by_day.digest != at_night.digest
    assert by_day.signature.structure == at_night.signature.structure
    again = databases.plan(at_night.digest)
    assert again.digest == at_night.digest
    assert again.signature.difference(Signature.read(at_night.digest)) == ""
    assert {table.strategy for table in again.inspections[0].tables} == {TWIN, IGNORE}


def test_a_signature_for_other_schemas_keeps_nothing(databases: Databases) -> None:
    signed = databases.plan().digest
    databases.digest, databases.chosen = "another schema", IN_PLACE
    plan = databases.plan(signed)
    assert plan.digest == databases.plan().digest
    assert "a schema, the participants or what is ignored" in plan.signature.difference(Signature.read(signed))


def test_strategies_that_options_ask_for_are_told_from_a_changed_schema(databases: Databases) -> None:
    plan = databases.plan()
    other = Signature(plan.signature.structure, ("3i", "3t"))
    assert "the stage or the options ask for other strategies" in plan.signature.difference(other)


@pytest.mark.parametrize("signed", ["nonsense", "-", "5f1d0c7a9be24f31", "5f1d0c7a9be24f31-3t", "5f-3t.3t.3t"])
def test_what_is_no_digest_of_these_participants_is_another_plan(databases: Databases, signed: str) -> None:
    plan = databases.plan(signed)
    assert plan.digest == databases.plan().digest
    assert signed in plan.signature.difference(Signature.read(signed))


def test_nothing_measured_is_in_the_digest(databases: Databases) -> None:
    plan = databases.plan()
    inspections = tuple(
        replace(
            inspection,
            tables=tuple(replace(table, rows=9, stage_ms=8, window_ms=7, why="") for table in inspection.tables),
            stage_ms=9,
            window_ms=9,
            bystander_ms=9,
        )
        for inspection in plan.inspections
    )
    assert replace(plan, inspections=inspections, router_ms=99, store_ms=99, participants_ms=99).digest == plan.digest


def test_the_order_of_the_participants_does_not_matter(databases: Databases) -> None:
    plan = databases.plan()
    assert replace(plan, inspections=plan.inspections[::-1]).digest == plan.digest


def test_one_slow_answer_predicts_no_slow_window(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (plans._SAMPLES, plans._ROUTER_SAMPLES):
        assert name >= 3
    calls = itertools.count()
    monkeypatch.setattr(MemoryParticipant, "round_trip", lambda this: time.sleep(0.2) if next(calls) == 3 else None)
    looks = itertools.count()
    monkeypatch.setattr(type(databases.small.fleet), "in_flight", lambda *_: time.sleep(0.2) if next(looks) == 1 else 0)
    plan = databases.plan()
    assert next(calls) > 3
    assert next(looks) > 1
    assert plan.participants_ms < 20
    assert plan.router_ms < 20


def text_of(*inspections: Inspection) -> list[str]:
    return Plan("a--b", inspections, 0, 0, 0).text().splitlines()


def inspected(tables: Iterable[TablePlan], *refusals: Refusal, **more: Any) -> Inspection:
    return Inspection("bills", "memory", "", tuple(tables), refusals, 1500, 32, digest="schema", **more)


def test_the_text_says_what_other_tenants_feel_and_what_is_refused() -> None:
    tables = (
        TablePlan("bill", IN_PLACE, "few", 5, window_ms=30, bystander_ms=2, shared_keys=("primary key", "by_number")),
        TablePlan("line", TWIN, "many", 5, window_ms=2, bystander_ms=2),
    )
    text = text_of(inspected(tables, Refusal("bill", "No.", "Yes."), bystander_ms=4))
    assert text[3:6] == [
        "bills (memory): stage 1.5 s, window 32 ms",
        "  other tenants: writes wait up to 4 ms",
        "  other tenants: a write of a value that moves waits for the move, up to 32 ms: bill (primary key, by_number)",
    ]
    assert text[-5:] == [
        "  refused, 1 time",
        "    bill: No.",
        "      way out: Yes.",
        "",
        "Nothing to sign yet: 1 refusal.",
    ]
    assert any(line.startswith("  bill ") and line.endswith("refused, see below") for line in text)


def test_the_text_ends_with_what_to_sign() -> None:
    text = text_of(inspected([TablePlan("bill", IN_PLACE, "few", 5)]))
    digest = text[0].split()[1]
    assert digest.endswith("-1i")
    assert text[-1] == f"To sign, and to give to stage and migrate as plan_digest: {digest}"


def test_tables_that_stay_are_grouped_by_their_reasons() -> None:
    tables = [
        TablePlan("tenants", ROOT, "Root: …", 1, ("id",), inferred=("id",)),
        TablePlan("item", IN_PLACE, "few", 5, ("org",)),
        *(TablePlan(f"line{n}", FOLLOWS, "Goes with …", 0, follows=f"line{n} (item_id) → item") for n in range(3)),
        TablePlan("part", FOLLOWS, "Goes with …", 0, follows="part (line_id) → line1, line1 (item_id) → item"),
        TablePlan("comment", FOLLOWS, "Goes with …", 0, follows="item, line1"),
        *(TablePlan(f"code{number}", IGNORE, "no tenant data", 0) for number in range(30)),
    ]
    text = text_of(inspected(tables))
    assert text[1].startswith("  1 database, 37 tables: 1 in place, 5 follow, 30 ignored, 1 root; 6 rows")
    assert "  roots, of which the other tenant's row is made as a copy: tenants (id)" in text
    assert "  tenant column by foreign keys alone: id of tenants" in text
    assert "  5 follow, not fenced: a late write to them is not lost, since keys stay" in text
    assert "    line0, line1, line2, part → item; comment → item, line1" in text
    assert "  30 ignored" in text
    assert all(len(line) <= WIDTH for line in text)
    assert len(text) < 22


def test_tables_without_rows_are_told_together() -> None:
    many = [TablePlan(f"item{number}", IN_PLACE, "few", 0, window_ms=2) for number in range(100)]
    text = text_of(inspected([*many, TablePlan("bill", IN_PLACE, "few", 5)]))
    assert "  100 without a row of the tenant, in place, 200 ms of the window together:" in text
    assert all(any(f" {table.table}" in line for line in text) for table in many)
    assert len(text) < 20


def test_refusals_that_differ_in_the_tables_name_only_are_told_once() -> None:
    refusals = [
        Refusal(name, f"Table {name} is not classified.", f'Ignore it: `ignore: {{"{name}": "<reason>"}}`.')
        for name in ("a", "country", "country_name")
    ]
    text = text_of(inspected([TablePlan(refusal.object, IGNORE, "Refused: …", 0) for refusal in refusals], *refusals))
    assert text[1].endswith("3 tables: 3 not classified; 0 rows under the id that is live; stage 1.5 s")
    assert text[-6:-2] == [
        "  refused, 3 times",
        "    a: Table a is not classified.",
        "      the same: country, country_name",
        '      way out: Ignore it: `ignore: {"a": "<reason>"}`.',
    ]


def test_what_is_proposed_stands_after_the_refusals() -> None:
    proposal = Proposal({"ignore": {"^a$": "no"}}, '- name: bills\n  ignore: {"^a$": "no"}')
    plan = Plan("a--b", (inspected([], Refusal("a", "No.", "Yes."), proposal=proposal),), 0, 0, 0)
    assert plan.as_dict()["databases"][0]["proposal"]["options"] == proposal.options
    assert yaml.safe_load(plan.as_dict()["proposal"]) == [{"name": "bills", "ignore": {"^a$": "no"}}]
    lines = plan.text().splitlines()
    assert lines.index("Proposed, for you to confirm:") > lines.index("      way out: Yes.")


def test_twelve_databases_of_a_hundred_and_twenty_tables_are_readable() -> None:
    def database(number: int) -> Inspection:
        tables = [TablePlan(f"entity_{n}", IN_PLACE, f"{n} rows in place take 1 ms.", n % 7) for n in range(40)]
        tables += [
            TablePlan(f"line_{n}", FOLLOWS, "Goes …", 0, follows=f"line_{n} (e) → entity_{n}") for n in range(40)
        ]
        tables += [TablePlan(f"code_{n}", IGNORE, "no tenant data", 0) for n in range(40)]
        return replace(inspected(tables), participant=f"db{number}")

    text = text_of(*(database(number) for number in range(12)))
    assert text[1].startswith("  12 databases, 1,440 tables: 480 in place, 480 follow, 480 ignored;")
    assert len(text) < 12 * 60
    assert max(map(len, text[1:-1])) <= WIDTH
