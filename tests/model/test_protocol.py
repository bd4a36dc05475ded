# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cutover protocol holds: no reachable state breaks an invariant, and every run can be finished by the same
command.
"""

from __future__ import annotations

import os

import pytest
from ansible_collections.zdm.landscape.tests.model.configurations import LARGE, SMALL
from ansible_collections.zdm.landscape.tests.model.explore import explore
from ansible_collections.zdm.landscape.tests.model.invariants import broken
from ansible_collections.zdm.landscape.tests.model.table import CLAIMS, PROGRAMS, STEPS, TABLE
from ansible_collections.zdm.landscape.tests.model.walks import walk

LIMIT = int(os.environ.get("ZDM_MODEL_STATES", "3000"))
"""How many states of each large configuration are explored; 0: all."""


@pytest.mark.parametrize("name", SMALL)
def test_no_reachable_state_of_the_protocol_breaks_an_invariant(name: str) -> None:
    config, least = SMALL[name]
    result = explore(config, recover_every=300)
    assert not result.violation, str(result)
    assert result.complete
    assert result.states >= least
    assert result.recoveries >= result.states // 300


def test_the_complete_explorations_are_more_than_100_000_states_together() -> None:
    assert sum(least for _config, least in SMALL.values()) >= 100_000


@pytest.mark.parametrize("name", LARGE)
def test_no_early_state_of_a_large_configuration_breaks_an_invariant(name: str) -> None:
    result = explore(LARGE[name], limit=LIMIT, recover_every=200)
    assert not result.violation, str(result)
    assert result.complete or result.states >= LIMIT


@pytest.mark.parametrize("name", LARGE)
def test_no_late_state_of_a_large_configuration_breaks_an_invariant(name: str) -> None:
    config = LARGE[name]
    phases: set[str] = set()
    for seed in range(40):
        for step in walk(config, seed, kill=0.0).steps:
            problem = step.violation or broken(config, step.state)
            assert not problem, f"seed {seed}: {problem} at {step.label}"
            phases.add(step.state.journal.phase)
    assert phases == set("IWCUVKR")


def test_every_step_of_the_table_is_taken() -> None:
    taken: set[str] = set()
    for name in ("two controllers", "forward, then reverse"):
        for seed in range(40):
            taken.update(label.number for label in walk(LARGE[name], seed).labels)
    assert taken - {""} == {step.number for step in TABLE if step.target != CLAIMS}


def test_the_programs_follow_the_order_of_the_table() -> None:
    order = {step.number: place for place, step in enumerate(TABLE)}
    for mode, numbers in PROGRAMS.items():
        places = [order[number] for number in numbers]
        assert places == sorted(places), mode
    assert len(STEPS) == len(TABLE)


def test_an_exploration_that_stops_early_says_so() -> None:
    result = explore(LARGE["two controllers"], limit=500)
    assert not result.complete
    assert 500 <= result.states < 600
    assert "(not all)" in str(result)
