# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The throttle with a clock of its own: what it lets through in the long run, when it waits, and what it tells."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, Refused, Superseded
from ansible_collections.zdm.landscape.plugins.module_utils.migration.throttle import (
    Limits,
    RowRate,
    Throttle,
    lift,
    measurable,
)
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import THROTTLES
from ansible_collections.zdm.landscape.plugins.module_utils.store.file import FileStore
from hypothesis import given
from hypothesis import strategies as st

from .doubles import Log, MemoryParticipant

KEY = "a--b"
CHUNKS = st.lists(st.tuples(st.integers(0, 10_000), st.floats(0, 5)), max_size=60)


class FakeClock:
    """Time passes only by waiting."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits = 0

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        assert 0 < seconds <= 0.1
        self.now += seconds
        self.waits += 1


class LaggingParticipant(MemoryParticipant):
    knows_replica_lag = True

    def __init__(self, lags: list[float | Exception | None]) -> None:
        super().__init__("bills", Log(), "guid-a")
        self.lags = lags

    def replica_lag_ms(self) -> float | None:
        lag = self.lags.pop(0) if len(self.lags) > 1 else self.lags[0]
        if isinstance(lag, Exception):
            raise lag
        return lag


class Bench:
    """A throttle over a real store, its clock, and what it told."""

    def __init__(self, store: FileStore, policy: Limits, answers: list[float | None] | None = None) -> None:
        self.store, self.clock, self.answers = store, FakeClock(), answers or [None]
        self.told: list[dict[str, Any]] = []
        self.reasons: list[tuple[str, ...]] = []
        self.throttle = Throttle(policy, store, KEY, self.answer, self.told.append, self.clock, self.clock.pause)
        self.participant = MemoryParticipant("bills", Log(), "guid-a")
        self.rows = 0

    def answer(self) -> float | None:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def between(self) -> None:
        self.reasons.append(self.throttle.reasons)

    def chunk(self, rows: int, step: str = "copy") -> float:
        """Write a chunk in no time; returns how long the next one had to wait."""
        self.rows += rows
        begin = self.clock.now
        self.throttle.wait(
            self.participant, {"participant": "bills", "table": "t", "step": step, "rows": self.rows}, self.between
        )
        return self.clock.now - begin

    def write(self, body: dict[str, Any]) -> None:
        document = self.store.get(THROTTLES, KEY)
        self.store.put(THROTTLES, KEY, body, document.revision if document else None)


@pytest.fixture(name="store")
def _store(tmp_path: Any) -> FileStore:
    return FileStore(tmp_path)


@given(CHUNKS, st.integers(1, 100_000))
def test_in_the_long_run_the_rate_is_never_over_the_limit(chunks: list[tuple[int, float]], limit: int) -> None:
    clock, total = FakeClock(), 0
    rate = RowRate(clock)
    for rows, took in chunks:
        clock.now += took
        rate.pay(rows)
        total += rows
        clock.now += rate.seconds_left(limit)
        while (left := rate.seconds_left(limit)) > 0:
            clock.now += max(left, 1e-9)
        assert total <= limit * clock.now * (1 + 1e-9) + 1e-6


@given(CHUNKS, st.integers(1, 100_000))
def test_nothing_waits_that_is_slower_than_the_limit(chunks: list[tuple[int, float]], limit: int) -> None:
    clock = FakeClock()
    rate = RowRate(clock)
    for rows, took in chunks:
        clock.now += rows / limit + took + 1e-6
        rate.pay(rows)
        assert rate.seconds_left(limit) == 0


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 10_000)), max_size=40))
def test_a_changed_limit_holds_for_what_is_still_to_wait(steps: list[tuple[int, int]]) -> None:
    """The rows are never more than the limits of each moment allowed, summed over time."""
    clock, total, allowed = FakeClock(), 0, 0.0
    rate = RowRate(clock)
    for rows, limit in steps:
        rate.pay(rows)
        total += rows
        while (left := rate.seconds_left(limit)) > 0:
            step = min(max(left, 1e-9), 60.0)
            clock.now += step
            allowed += limit * step
        assert total <= allowed * (1 + 1e-9) + 1e-3


def test_without_limits_nothing_waits_and_nothing_is_told(store: FileStore) -> None:
    bench = Bench(store, Limits())
    assert bench.chunk(1_000_000) == 0
    assert bench.told == []


def test_rows_per_second_spread_the_chunks(store: FileStore) -> None:
    bench = Bench(store, Limits(rows_per_second=1000))
    assert [bench.chunk(500), bench.chunk(2000), bench.chunk(0)] == pytest.approx([0.5, 2.0, 0.0], abs=0.01)
    assert set(bench.reasons) == {("rows_per_second",)}
    assert bench.told == [{"step": "limits", "limits": {"rows_per_second": 1000}, "source": "policy"}]


def test_other_steps_do_not_wait(store: FileStore) -> None:
    bench = Bench(store, Limits(rows_per_second=1))
    bench.throttle.wait(bench.participant, {"participant": "bills", "table": "t", "step": "compared"}, bench.between)
    assert bench.clock.now == 0


def test_the_store_changes_the_limits_within_a_second_of_waiting(store: FileStore) -> None:
    bench = Bench(store, Limits(rows_per_second=10))
    bench.between = lambda: bench.write({"rows_per_second": 100_000}) if bench.clock.waits == 20 else None  # type: ignore[method-assign]
    assert bench.chunk(10_000) < 4
    assert bench.told[-1] == {
        "step": "limits",
        "limits": {"rows_per_second": 100_000},
        "source": f"config store (throttles/{KEY})",
    }
    lift(store, KEY)
    bench.clock.now += 1
    bench.chunk(1)
    assert bench.told[-1] == {"step": "limits", "limits": {"rows_per_second": 10}, "source": "policy"}


def test_the_store_lifts_a_limit_of_the_policy(store: FileStore) -> None:
    bench = Bench(store, Limits(rows_per_second=10, max_latency_ms=100), [500.0])
    bench.write({"rows_per_second": 0, "max_latency": "none"})
    assert bench.chunk(10_000) == 0


@pytest.mark.parametrize(
    "body",
    [{"rows_per_second": -1}, {"rows_per_second": "5"}, {"rows_per_second": True}, {"max_latency": "5"}, {"speed": 5}],
)
def test_invalid_content_of_the_store_is_told_once_and_changes_nothing(store: FileStore, body: dict[str, Any]) -> None:
    bench = Bench(store, Limits(rows_per_second=1000))
    bench.write(body)
    assert [bench.chunk(2000), bench.chunk(2000)] == pytest.approx([2, 2], abs=0.01)
    warnings = [entry["message"] for entry in bench.told if entry["step"] == "warning"]
    assert len(warnings) == 1
    assert f"throttles/{KEY}" in warnings[0]


def test_a_store_that_does_not_answer_keeps_the_limits(store: FileStore) -> None:
    bench = Bench(store, Limits(rows_per_second=1000))
    bench.chunk(1)
    (store.path / THROTTLES).mkdir(exist_ok=True)
    (store.path / THROTTLES / f"{KEY}.json").write_text("{")
    assert bench.chunk(3000) == pytest.approx(3, abs=0.01)
    assert [entry["step"] for entry in bench.told] == ["limits", "warning"]


def test_a_late_replica_stops_the_copy_until_it_has_caught_up(store: FileStore) -> None:
    bench = Bench(store, Limits(max_replica_lag_ms=1000))
    bench.participant = LaggingParticipant([0.0, 5000.0, 3000.0, 1000.0])
    assert bench.chunk(1) == 0
    bench.clock.now += 1
    assert bench.chunk(1) == pytest.approx(2, abs=0.2)
    assert set(bench.reasons) == {("replica_lag",)}


def test_a_participant_without_knowledge_of_replicas_is_told_once(store: FileStore) -> None:
    bench = Bench(store, Limits(max_replica_lag_ms=1))
    assert bench.chunk(1) + bench.chunk(1) == 0
    assert ["can't tell the lag" in entry["message"] for entry in bench.told if entry["step"] == "warning"] == [True]


def test_a_lag_that_can_not_be_measured_any_more_does_not_stop_the_stage(store: FileStore) -> None:
    bench = Bench(store, Limits(max_replica_lag_ms=1))
    bench.participant = LaggingParticipant([Refused("bills: no right.", "Grant it.")])
    assert bench.chunk(1) == 0
    assert bench.told[-1]["message"] == "bills: no right. Grant it. Until then max_replica_lag has no effect on bills."


def test_slow_answers_stop_the_copy_and_fast_ones_let_it_go_on(store: FileStore) -> None:
    bench = Bench(store, Limits(max_latency_ms=200), [100.0, 201.0, float("inf"), 200.0])
    assert bench.chunk(1) == 0
    bench.clock.now += 1
    assert bench.chunk(1) == pytest.approx(2, abs=0.2)
    assert set(bench.reasons) == {("latency",)}


def test_what_is_raised_between_two_waits_ends_them(store: FileStore) -> None:
    bench = Bench(store, Limits(rows_per_second=1))

    def lost() -> None:
        raise Superseded("Another controller took over.")

    bench.between = lost  # type: ignore[method-assign]
    with pytest.raises(Superseded):
        bench.chunk(1000)
    assert bench.clock.waits == 0


def test_a_limit_without_effect_is_refused_before_the_stage() -> None:
    blind, knowing = MemoryParticipant("rating", Log(), "a"), LaggingParticipant([None])
    both = Limits(max_replica_lag_ms=1, max_latency_ms=1)
    assert [finding.object for finding in measurable(both, [blind], False) if not finding.ok] == [
        "policy.throttle.max_latency",
        "policy.throttle.max_replica_lag",
    ]
    assert all(finding.ok for finding in measurable(both, [blind, knowing], True))
    assert not list(measurable(Limits(rows_per_second=5), [blind], False))
    hidden = LaggingParticipant([Refused("bills: no right.", "Grant it.")])
    assert [(finding.ok, finding.advice) for finding in measurable(both, [hidden], True)] == [(False, "Grant it.")]


def test_limits_are_shown_as_they_are_written() -> None:
    written = {"rows_per_second": 5, "max_replica_lag": "2s", "max_latency": "300ms"}
    assert Limits.of(written, "policy").as_dict() == written
    assert Limits.of({"max_latency": "none", "rows_per_second": None}, "policy", Limits(7, 8, 9)) == Limits(7, 8, 0)
    with pytest.raises(InputError, match="policy has the unknown limit 'max_lag'"):
        Limits.of({"max_lag": "2s"}, "policy")


@pytest.mark.parametrize(
    ("step", "waited"), [("copy", 2.0), ("purge", 2.0), ("apply", 2.0), ("compare", 0.0), ("compared", 0.0)]
)
def test_whatever_writes_in_chunks_keeps_to_the_limits(store: FileStore, step: str, waited: float) -> None:
    assert Bench(store, Limits(rows_per_second=100)).chunk(200, step) == pytest.approx(waited, abs=0.01)
