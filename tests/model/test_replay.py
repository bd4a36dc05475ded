# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replay: what the model can do is accepted, a trace with a mistake in it is refused at the mistake."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from ansible_collections.zdm.landscape.tests.model.config import ABORT, REHEARSE, STAGE_JOB, Config, Rules
from ansible_collections.zdm.landscape.tests.model.configurations import JOURNAL_STEPS
from ansible_collections.zdm.landscape.tests.model.followed import THE_CODE, THE_PROTOCOL
from ansible_collections.zdm.landscape.tests.model.replay import check_trace
from ansible_collections.zdm.landscape.tests.model.state import NOBODY, SOURCE, TARGET, Label
from ansible_collections.zdm.landscape.tests.model.table import COMMIT, PROGRAMS
from ansible_collections.zdm.landscape.tests.model.walks import RECORDED, to_trace, walk
from hypothesis import given, settings
from hypothesis import strategies as st

EVERYTHING = Config(
    rules=THE_CODE,
    goals=((TARGET,), (SOURCE, TARGET, STAGE_JOB, ABORT), (SOURCE, TARGET, ABORT)),
    documents=2,
    unknown=JOURNAL_STEPS,
    losses=2,
    joined=True,
    renew=True,
    repeat=True,
    restarts=1,
    reloads=1,
    requests=1,
)
PLAIN = Config(goals=((TARGET,),), undo=False, requests=0, late=(), joined=True)
SEEDS = st.integers(0, 2**32)
EXAMPLES = settings(max_examples=30, deadline=None, database=None)
SOME_EXAMPLES = settings(EXAMPLES, max_examples=15)
"""For traces of several runs, whose replay takes longer."""


def run(seed: int, config: Config = PLAIN, kill: float = 0.0) -> list[Label]:
    """What a run left behind, as labels of which each is one entry of the trace; of a plain run only what it wrote."""
    labels = walk(config, seed, kill=kill).labels
    return [
        label
        for label in labels
        if label.system in RECORDED or (config != PLAIN and len(to_trace(config, [label])) == 2)
    ]


def check(labels: Iterable[Label], config: Config = PLAIN) -> tuple[bool, int]:
    """The verdict, and the number of the refused label."""
    result = check_trace(to_trace(config, labels))
    assert result.ok or result.message
    return result.ok, result.at - 1


def place(labels: list[Label], number: str) -> int:
    return next(at for at, label in enumerate(labels) if label.number == number)


# -------------------------------------------------------------------------------------------------------- accepted


@SOME_EXAMPLES
@given(SEEDS)
def test_what_the_model_does_is_accepted(seed: int) -> None:
    result = check_trace(to_trace(EVERYTHING, walk(EVERYTHING, seed, kill=0.02).labels))
    assert result.ok, result.message


@SOME_EXAMPLES
@given(SEEDS)
def test_what_the_whole_protocol_does_is_accepted_under_its_rules(seed: int) -> None:
    config = replace(EVERYTHING, rules=THE_PROTOCOL, goals=(*EVERYTHING.goals, (REHEARSE,)), ordered=False)
    result = check_trace(to_trace(config, walk(config, seed, kill=0.02).labels), THE_PROTOCOL)
    assert result.ok, result.message


@SOME_EXAMPLES
@given(SEEDS, st.integers(0, 400))
def test_every_beginning_of_a_trace_is_accepted(seed: int, length: int) -> None:
    labels = run(seed, EVERYTHING, kill=0.02)[:length]
    assert check(labels, EVERYTHING) == (True, len(labels))


@EXAMPLES
@given(SEEDS, st.data())
def test_heartbeats_and_evidence_are_accepted_in_every_phase(seed: int, data: st.DataObject) -> None:
    labels = run(seed)
    begun = place(labels, "1")
    at = data.draw(st.integers(begun + 1, len(labels)))
    heartbeat = Label(0, "store", NOBODY, "heartbeat", "C>C", labels[begun].epoch)
    assert check([*labels[:at], heartbeat, *labels[at:]]) == (True, len(labels) + 1)


def test_a_controller_may_start_again_under_its_old_name_after_a_kill() -> None:
    labels = run(1)
    first = [*labels[: place(labels, "6") + 1], Label(0, "env", NOBODY, "kill")]
    entries = to_trace(PLAIN, first)
    second = [label for label in labels if label.number not in ("4", "5a", "5b", "6")]
    again: list[dict[str, Any]] = [{**entry, "epoch": 2} for entry in to_trace(PLAIN, second)[1:]]
    again[0] = {**again[0], "before": "C", "after": "C"}
    result = check_trace(entries + again)
    assert result.ok, result.message


def test_claims_in_sorted_order_before_the_take_over_are_accepted() -> None:
    labels = to_trace(PLAIN, run(1))
    claims = [
        {"system": "store", "op": "claim", "controller": "c1", "target": f"claims/{name}", "outcome": "ok"}
        for name in "ab"
    ]
    assert check_trace([labels[0], *claims, *labels[1:]]).ok
    assert check_trace([labels[0], *reversed(claims), *labels[1:]]).at == 2
    assert check_trace([labels[0], {**claims[0], "outcome": "unknown"}, *claims, *labels[1:]]).ok


def test_a_failed_write_before_an_undo_is_accepted() -> None:
    labels = run(1)
    at = place(labels, "9")
    failed = labels[at]._replace(outcome="failed")
    undo = Label(0, "store", NOBODY, "phase", "C>U", labels[at].epoch)
    assert check([*labels[:at], failed, undo]) == (True, at + 2)


def test_a_commit_without_an_answer_is_written_again() -> None:
    labels = run(1)
    commit = place(labels, COMMIT)
    settled = [*labels[:commit], labels[commit]._replace(outcome="unknown"), *labels[commit:]]
    assert check_trace(to_trace(PLAIN, settled), THE_PROTOCOL).ok
    conflict = [*settled[: commit + 1], labels[commit]._replace(outcome="refused"), *labels[commit + 1 :]]
    assert check_trace(to_trace(PLAIN, conflict), THE_PROTOCOL).ok


def test_a_take_over_without_an_answer_is_written_again() -> None:
    labels = run(1)
    assert check_trace(to_trace(PLAIN, [labels[0]._replace(outcome="unknown"), *labels]), THE_PROTOCOL).ok


def test_a_take_over_that_landed_without_an_answer_is_the_same_run_when_it_is_sent_again() -> None:
    labels = run(1)
    settled = [labels[0]._replace(outcome="unknown"), labels[0]._replace(outcome="refused"), *labels[1:]]
    assert check(settled) == (True, len(settled))


def test_a_heartbeat_without_an_answer_may_land_before_the_next_write() -> None:
    """Then that write is refused, though nobody else drives, and is written again."""
    labels = run(1)
    commit = place(labels, COMMIT)
    beat = Label(0, "store", NOBODY, "heartbeat", "C>C", labels[0].epoch, outcome="unknown")
    refused = labels[commit]._replace(outcome="refused")
    assert check([*labels[:commit], beat, *labels[commit:]]) == (True, len(labels) + 1)
    assert check([*labels[:commit], beat, refused, *labels[commit:]]) == (True, len(labels) + 2)
    assert check([*labels[:commit], beat, beat._replace(outcome="refused"), *labels[commit:]])[0]
    assert check([*labels[:commit], refused, *labels[commit:]]) == (False, commit)


def test_a_rehearsal_ends_with_an_undo() -> None:
    labels = run(1)
    labels[0] = labels[0]._replace(detail="I>W rehearsal")
    commit = place(labels, COMMIT)
    assert check(labels) == (False, commit)
    assert check([*labels[:commit], Label(0, "store", NOBODY, "phase", "C>U", labels[0].epoch)]) == (True, commit + 1)


# --------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("rules", "goes_on"), [(replace(THE_PROTOCOL, found_windows_are_undone=False), True), (THE_PROTOCOL, False)]
)
def test_refused_a_window_that_was_found_and_goes_on(rules: Rules, goes_on: bool) -> None:
    labels = run(1)
    found = [label._replace(epoch=2) for label in labels]
    found[0] = found[0]._replace(detail="W>W")
    entries = to_trace(PLAIN, [labels[0], Label(0, "env", NOBODY, "kill"), *found])
    result = check_trace(entries, rules)
    assert result.ok == goes_on
    assert goes_on or entries[result.at]["op"] == "lease"


@EXAMPLES
@given(SEEDS, st.data())
def test_refused_two_steps_in_the_wrong_order(seed: int, data: st.DataObject) -> None:
    labels = run(seed, EVERYTHING)
    mine = [at for at, label in enumerate(labels) if label.actor == 0 and label.number and label.outcome == "ok"]
    pairs = [(a, b) for a, b in pairwise(mine) if labels[a].number != labels[b].number]
    if pairs:
        a, b = data.draw(st.sampled_from(pairs))
        labels[a], labels[b] = labels[b], labels[a]
        ok, at = check(labels, EVERYTHING)
        assert not ok
        assert a <= at <= b


@EXAMPLES
@given(SEEDS, st.data())
def test_refused_a_missing_sub_step(seed: int, data: st.DataObject) -> None:
    labels = run(seed)
    missing = data.draw(st.integers(0, len(labels) - 2))
    ok, at = check([*labels[:missing], *labels[missing + 1 :]])
    assert not ok
    assert at >= missing


@EXAMPLES
@given(SEEDS, st.data())
def test_refused_a_sub_step_done_again_after_its_step(seed: int, data: st.DataObject) -> None:
    labels = run(seed)
    twice = data.draw(st.integers(0, len(labels) - 1))
    ok, at = check([*labels[: twice + 1], labels[twice], *labels[twice + 1 :]])
    last = twice + 1 == len(labels) or labels[twice + 1].number != labels[twice].number
    # While another sub-step of the same step is missing the step may be repeated; a lease may be renewed.
    assert ok == (labels[twice].op == "lease" or (not last and labels[twice].system in ("router", "participant")))
    assert ok or at > twice


@EXAMPLES
@given(SEEDS)
def test_refused_the_commit_before_the_last_barrier(seed: int) -> None:
    labels = run(seed)
    commit, barrier = place(labels, COMMIT), place(labels, "9")
    labels.insert(barrier + 1, labels.pop(commit))
    assert check(labels) == (False, barrier + 1)


@EXAMPLES
@given(SEEDS, st.sampled_from(["5a", "8"]))
def test_refused_no_drain(seed: int, number: str) -> None:
    labels = run(seed)
    drained = place(labels, number)
    ok, at = check(label for label in labels if label.number != number)
    assert (ok, at) == (False, drained)


@EXAMPLES
@given(SEEDS)
def test_refused_a_far_block_before_the_journal_is_closed(seed: int) -> None:
    labels = run(seed)
    journal, close = place(labels, "6"), place(labels, "7")
    labels[journal], labels[close] = labels[close], labels[journal]
    assert check(labels) == (False, journal)


@EXAMPLES
@given(SEEDS)
def test_refused_a_map_that_leads_back_after_the_commit(seed: int) -> None:
    labels = run(seed)
    at = place(labels, "13")
    labels[at] = labels[at]._replace(detail="source")
    assert check(labels) == (False, at)


@pytest.mark.parametrize("system", ["router", "participant"])
def test_refused_an_old_epoch_that_is_accepted(system: str) -> None:
    two = Config(requests=0, late=(), joined=True)
    found = 0
    for seed in range(300):
        labels = run(seed, two)
        for at, label in enumerate(labels):
            if label.system == system and label.outcome == "refused":
                labels[at] = label._replace(outcome="ok")
                assert check(labels, two) == (False, at)
                found += 1
                break
    assert found >= 5


@EXAMPLES
@given(SEEDS)
def test_refused_a_write_of_a_superseded_controller_to_the_journal(seed: int) -> None:
    labels = run(seed)
    begun, commit = place(labels, "1"), place(labels, COMMIT)
    take_over = Label(1, "store", NOBODY, "take_over", "C>C", labels[begun].epoch + 1)
    assert check([*labels[:commit], take_over, *labels[commit:]]) == (False, commit + 1)
    heartbeat = Label(0, "store", NOBODY, "heartbeat", "C>C", labels[begun].epoch)
    assert check([*labels[:commit], take_over, heartbeat]) == (False, commit + 1)
    assert check([*labels[:commit], take_over, heartbeat._replace(outcome="refused")]) == (True, commit + 2)


@EXAMPLES
@given(SEEDS, st.data())
def test_refused_a_write_of_a_dead_controller(seed: int, data: st.DataObject) -> None:
    labels = run(seed)
    at = data.draw(st.integers(1, len(labels) - 1))
    assert check([*labels[:at], Label(0, "env", NOBODY, "kill"), *labels[at:]]) == (False, at + 1)


@EXAMPLES
@given(SEEDS)
def test_refused_a_commit_that_a_killed_controller_never_sent(seed: int) -> None:
    labels = run(seed)
    commit = place(labels, COMMIT)
    killed = labels[commit]._replace(outcome="killed-before")
    for phase, possible in (("C", True), ("K", False)):
        take_over = Label(1, "store", NOBODY, "take_over", f"{phase}>{phase}", labels[commit].epoch + 1)
        assert check([*labels[:commit], killed, take_over])[0] == possible
        assert check([*labels[:commit], killed._replace(outcome="killed-after"), take_over])[0] != possible
        assert check([*labels[:commit], killed._replace(outcome="unknown"), take_over])[0]


@EXAMPLES
@given(SEEDS)
def test_refused_a_drain_that_counted_requests(seed: int) -> None:
    labels = run(seed)
    at = place(labels, "8")
    entries = to_trace(PLAIN, labels)
    entries[at + 1]["count"] = 1
    assert check_trace(entries).at == at + 1


def test_refused_a_lease_that_ends_on_a_closed_router() -> None:
    labels = run(1)
    ends = Label(NOBODY, "env", labels[place(labels, "4")].target, "lease_end")
    assert check([*labels[: place(labels, "6")], ends])[0]
    assert not check([*labels[: place(labels, "8")], ends])[0]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"system": "router", "op": "reboot", "controller": "c1", "epoch": 1}, "no op 'reboot'"),
        ({"system": "store", "op": "phase", "controller": "c1", "epoch": 1, "from": "I"}, "does not say to"),
        ({"system": "router", "op": "map", "controller": "c1", "epoch": 1, "to": "b"}, "neither source nor target"),
        ({"system": "router", "op": "close", "controller": "c1"}, "carries no epoch"),
        ({"system": "router", "op": "close", "epoch": 1}, "names no controller"),
        ({"system": "router", "op": "close", "controller": "c1", "epoch": 1, "outcome": "fine"}, "outcome 'fine'"),
    ],
)
def test_refused_what_is_no_entry_of_a_trace(entry: dict[str, Any], words: str) -> None:
    result = check_trace([*to_trace(PLAIN, []), entry])
    assert (result.ok, result.at) == (False, 1)
    assert words in result.message


def test_the_message_says_what_the_model_allows_instead() -> None:
    labels = run(1)
    commit, barrier = place(labels, COMMIT), place(labels, "9")
    labels.insert(barrier, labels.pop(commit))
    message = check_trace(to_trace(PLAIN, labels)).message
    assert f"entry {barrier + 1} (c1 store migrations/a--b phase from C to K epoch 1) is not allowed" in message
    assert "in phase C under epoch 1" in message
    assert "step 9: participant 1 barrier" in message


def test_a_trace_without_a_start_is_read_in_either_direction() -> None:
    forward = to_trace(PLAIN, run(1))[1:]
    backward = [{**entry, "to": "source"} if entry["op"] == "map" else entry for entry in forward]
    assert check_trace(forward).ok
    assert check_trace(backward).ok
    last_map = max(at for at, entry in enumerate(forward) if entry["op"] == "map")
    assert check_trace([*forward[:last_map], backward[last_map], *forward[last_map + 1 :]]).at == last_map


def test_a_plain_run_takes_every_forward_step_at_every_target() -> None:
    written = {(label.number, label.target) for label in run(1)}
    assert {number for number, _target in written} == {"1", *PROGRAMS["W"], *PROGRAMS["K"]}
    assert {target for number, target in written if number == "9"} == {0, 1}
