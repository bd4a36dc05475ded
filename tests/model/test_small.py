# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The small models: each holds with its rule, and shows the accident of a protocol without it."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from ansible_collections.zdm.landscape.tests.model.claims import HELD_FOR_EVER, TWO_COMMITTED, Claims
from ansible_collections.zdm.landscape.tests.model.claims import Rules as RulesOfClaims
from ansible_collections.zdm.landscape.tests.model.small import (
    alias_created_late,
    alias_offboarded,
    explore_small,
    onboarded_alias,
    two_map_edits,
    two_migrations,
)
from ansible_collections.zdm.landscape.tests.model.snapshots import (
    BODY,
    ENABLED,
    HARMED,
    LEFT_BEHIND,
    MISSED,
    PASSED,
    ROW,
    UNCOPIED,
    added_column,
    barrier_snapshot,
    fence,
    fence_switched_off,
)

CLAIMS_WITHOUT = {
    "carry_epochs": (0, TWO_COMMITTED),
    "written_again_after_the_take_over": (0, TWO_COMMITTED),
    "looked_at_after_the_take_over": (0, TWO_COMMITTED),
    "given_back_by_writing": (1, HELD_FOR_EVER),
    "superseded_gives_back_only_its_own": (0, TWO_COMMITTED),
    "settled": (1, HELD_FOR_EVER),
}
"""Rule of claims → how many answers must be lost for its accident, and the accident."""


def test_accident_of_two_migrations_without_claims_an_accepted_write_is_lost() -> None:
    assert not explore_small(two_migrations(claims=True)).violation
    verdict = explore_small(two_migrations(claims=False))
    assert verdict.violation == "an accepted write is lost"
    assert "migration 2 commits: 2 is live" in verdict.trace


@pytest.mark.parametrize("losses", [0, 1, 2])
def test_claims_give_a_tenant_to_one_migration_at_a_time_and_come_back(losses: int) -> None:
    verdict = Claims(RulesOfClaims(), losses=losses).explore()
    assert not verdict.violation, verdict.trace
    assert verdict.states > 1_000


def test_every_rule_of_claims_has_its_accident() -> None:
    assert set(CLAIMS_WITHOUT) == {each.name for each in fields(RulesOfClaims)}


@pytest.mark.parametrize("rule", CLAIMS_WITHOUT)
def test_accident_of_claims_without(rule: str) -> None:
    losses, accident = CLAIMS_WITHOUT[rule]
    verdict = Claims(replace(RulesOfClaims(), **{rule: False}), losses=losses).explore()
    assert verdict.violation == accident
    assert verdict.trace


def test_accident_of_an_alias_onboarded_during_the_window_it_leads_to_the_retired_tenant() -> None:
    assert not explore_small(onboarded_alias(rule=True)).violation
    verdict = explore_small(onboarded_alias(rule=False))
    assert verdict.violation == "C's document leads to A, its router to A, but B is live"


def test_accident_of_an_alias_whose_create_is_not_settled_it_leads_to_the_retired_tenant() -> None:
    assert not explore_small(alias_created_late(settled=True)).violation
    verdict = explore_small(alias_created_late(settled=False))
    assert verdict.violation == "C's document leads to A, but B is live"
    assert verdict.trace[-1] == "the late create arrives"


def test_accident_of_an_alias_that_is_deleted_not_emptied_it_comes_back() -> None:
    assert not explore_small(alias_offboarded(emptied=True)).violation
    assert (
        explore_small(alias_offboarded(emptied=False)).violation == "C was offboarded, but its document is there again"
    )


def test_accident_of_a_whole_map_edit_it_undoes_another_migrations_block() -> None:
    assert not explore_small(two_map_edits(per_key=True)).violation
    verdict = explore_small(two_map_edits(per_key=False))
    assert verdict.violation == "migration 1 believes its tenant blocked, it is not"
    assert verdict.trace[-1] == "migration 2 adds its block, the map is set"


@pytest.mark.parametrize("repeatable_read", [False, True])
def test_a_fence_whose_function_is_replaced_stops_every_snapshot_and_nobody_else(repeatable_read: bool) -> None:
    assert not explore_small(fence(BODY, repeatable_read)).violation


def test_accident_of_a_fence_that_reads_a_row_an_old_snapshot_passes() -> None:
    assert not explore_small(fence(ROW, repeatable_read=False)).violation
    assert explore_small(fence(ROW, repeatable_read=True)).violation == PASSED


def test_accident_of_a_fence_that_is_enabled_by_hand_the_live_id_is_refused() -> None:
    verdict = explore_small(fence(ENABLED, repeatable_read=False))
    assert verdict.violation == HARMED
    assert "somebody enables all triggers of the table" in verdict.trace


def test_accident_of_a_barrier_with_a_snapshot_from_before_its_lock_it_misses_a_write() -> None:
    assert not explore_small(barrier_snapshot(read_committed=True)).violation
    assert explore_small(barrier_snapshot(read_committed=False)).violation == MISSED


def test_accident_of_a_catalog_that_is_read_without_a_lock_a_column_is_lost() -> None:
    assert not explore_small(added_column(held=True)).violation
    assert explore_small(added_column(held=False)).violation == UNCOPIED


def test_accident_of_a_catalog_that_is_not_read_before_the_commit_a_write_is_left_behind() -> None:
    assert not explore_small(fence_switched_off(read_again=True)).violation
    assert explore_small(fence_switched_off(read_again=False)).violation == LEFT_BEHIND
