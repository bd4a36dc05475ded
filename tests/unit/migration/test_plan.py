# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan: what it is signed by, what a signature keeps, how it predicts, and what it says."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.migration import plan as plans
from ansible_collections.zdm.landscape.plugins.module_utils.migration.plan import Plan, make_plan
from ansible_collections.zdm.landscape.plugins.module_utils.migration.signature import Signature
from ansible_collections.zdm.landscape.plugins.module_utils.participant import strategies
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    IGNORE,
    IN_PLACE,
    TWIN,
    Inspection,
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


def test_the_text_says_what_other_tenants_feel_and_what_is_refused(databases: Databases) -> None:
    tables = (
        TablePlan("bill", IN_PLACE, "few", 5, window_ms=30, bystander_ms=2, shared_keys=("primary key", "by_number")),
        TablePlan("line", TWIN, "many", 5, window_ms=2, bystander_ms=2),
    )
    refusals = (Refusal("bill", "No.", "Yes."),)
    inspection = Inspection("bills", "memory", "", tables, refusals, 1500, 32, bystander_ms=4)
    text = Plan("a--b", (inspection,), 0, 0, 0).text().splitlines()
    assert text[2:5] == [
        "bills (memory): stage 1.5 s, window 32 ms",
        "  other tenants: writes wait up to 4 ms",
        "  other tenants: a write of a value that moves waits for the move, up to 32 ms: bill (primary key, by_number)",
    ]
    assert text[-1] == "  REFUSED bill: No. Yes."
