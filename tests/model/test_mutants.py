# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The model finds the accident behind every rule: each mutant has one rule switched off."""

from __future__ import annotations

import pytest
from ansible_collections.zdm.landscape.tests.model.config import Config, Rules
from ansible_collections.zdm.landscape.tests.model.explore import NOT_FINISHED, explore
from ansible_collections.zdm.landscape.tests.model.invariants import (
    BESIDE,
    DISAGREE,
    IN_VAIN,
    LOST,
    MET_A_FENCE,
    NOT_EXACT,
    ORPHANED,
    REHEARSED,
    RETIRED_ID,
    STUCK,
    SUPERSEDED_BY_NOBODY,
)
from ansible_collections.zdm.landscape.tests.model.mutants import MUTANTS

ACCIDENTS = {
    "no second drain": MET_A_FENCE,
    "barrier before the routers are closed": MET_A_FENCE,
    "journal written after the far block": STUCK,
    "turn after the release": MET_A_FENCE,
    "routers opened before the undo": MET_A_FENCE,
    "undo not journaled": LOST,
    "released before all routers are mapped": RETIRED_ID,
    "commit without compare-and-set": LOST,
    "routers take old epochs": STUCK,
    "participants take old epochs": LOST,
    "an undo with nothing to undo does not note the epoch": LOST,
    "mapping documents take old epochs": DISAGREE,
    "unreachable router skipped": MET_A_FENCE,
    "router serves what it read before the commands that it took": MET_A_FENCE,
    "router renders from the mapping documents": MET_A_FENCE,
    "old workers not counted": MET_A_FENCE,
    "starting router reads a replica that is behind": MET_A_FENCE,
    "unknown writes settled by reading": ORPHANED,
    "a conflict taken for somebody else": SUPERSEDED_BY_NOBODY,
    "own take over known by its epoch": STUCK,
    "a take over beaten by a late write gives up": SUPERSEDED_BY_NOBODY,
    "own late note taken for somebody else": SUPERSEDED_BY_NOBODY,
    "a window that is found goes on": IN_VAIN,
    "barrier trusts the plan: a column": LOST,
    "barrier trusts the plan: a lost trigger": LOST,
    "a run that finds a closed window takes fenced as moved": LOST,
    "the move does not look at the fence": BESIDE,
    "the move looks at its epoch only": BESIDE,
    "the move takes an older epoch": LOST,
    "turn leaves the fence of the retired id as it is": DISAGREE,
    "undo leaves moved rows": LOST,
    "a service takes the barrier of an undone epoch": LOST,
    "a twin takes the barrier of an undone epoch": DISAGREE,
    "tables in place take the barrier of an undone epoch": DISAGREE,
    "a service takes the barrier of a turned epoch": DISAGREE,
    "tables in place take the barrier of a turned epoch": DISAGREE,
    "an undo with nothing to undo does not finish its epoch": LOST,
    "a mapping document without an answer taken as written": DISAGREE,
    "a rehearsal may commit": REHEARSED,
    "a fresh window does not write whether it is a rehearsal": REHEARSED,
    "a take over writes its own flag over a rehearsal's": REHEARSED,
    "a run that finds a rehearsal goes on and commits": REHEARSED,
    "undo drops the fence first": BESIDE,
    "rows moved before the fence": BESIDE,
    "forward log dropped at the barrier, the fence last": LOST,
    "target opened at the barrier": LOST,
    "a run that finds R only maps": NOT_FINISHED,
    "undo leaves the target's log": NOT_EXACT,
}

HOLDING: list[tuple[Config, int]] = []
"""Configurations that were explored with all rules: several mutants share one."""


def test_every_mutant_has_its_accident() -> None:
    assert set(ACCIDENTS) == set(MUTANTS)


def test_every_rule_is_switched_off_by_a_mutant() -> None:
    rules = {name for name, value in vars(Rules()).items() if value is True}
    switched_off = {
        name for mutant in MUTANTS.values() for name, value in vars(mutant.mutated().rules).items() if value is False
    }
    assert rules <= switched_off


@pytest.mark.parametrize(
    ("rule", "accident"),
    [pytest.param(rule, accident, id=f"{rule}: {accident}") for rule, accident in ACCIDENTS.items()],
)
def test_accident_of_a_protocol_without_the_rule(rule: str, accident: str) -> None:
    mutant = MUTANTS[rule]
    every = 1 if accident == NOT_FINISHED else 0
    if (mutant.config, every) not in HOLDING:
        with_the_rule = explore(mutant.config, recover_every=every)
        assert with_the_rule.complete
        assert not with_the_rule.violation, str(with_the_rule)
        HOLDING.append((mutant.config, every))
    without = explore(mutant.mutated(), recover_every=every)
    assert without.violation == accident, str(without)
    assert without.trace
