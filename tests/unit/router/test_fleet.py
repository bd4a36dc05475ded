# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet: all routers or an error that names those that failed."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import (
    Refused,
    Superseded,
    Timeout,
    Unreachable,
    ZdmError,
)
from ansible_collections.zdm.landscape.plugins.module_utils.router.base import FAR_MS, HOLD, Block, Router, RouterState
from ansible_collections.zdm.landscape.plugins.module_utils.router.fleet import Fleet


def state(name: str, **changes: object) -> RouterState:
    known = {
        "version": "1",
        "ready": True,
        "clock_ms": 1000,
        "old_workers": 0,
        "epochs": {},
        "blocks": {},
        "overrides": {},
        "onboarded": {},
        "subdomains": {},
    }
    return RouterState(**{"name": name, **known, "decommissioned": frozenset(), **changes})  # type: ignore[arg-type]


class Fake(Router):
    """Fails with *error*, meets others at *barrier*, counts down *flights*."""

    def __init__(
        self,
        name: str,
        error: ZdmError | None = None,
        barrier: threading.Barrier | None = None,
        flights: list[int] | None = None,
    ) -> None:
        self.name, self.error, self.barrier, self.flights = name, error, barrier, flights or [0]
        self.calls: list[tuple[object, ...]] = []

    def _call(self, *call: object) -> None:
        self.calls.append(call)
        if self.barrier:
            self.barrier.wait(10)
        if self.error:
            raise self.error

    def take_over(self, migration: str, epoch: int) -> None:
        self._call("take_over", migration, epoch)

    def lease(self, migration: str, epoch: int, ids: Iterable[str], lease_ms: int, mode: str) -> None:
        self._call("lease", migration, epoch, list(ids), lease_ms, mode)

    def close(self, migration: str, epoch: int, ids: Iterable[str], mode: str) -> None:
        self._call("close", migration, epoch, list(ids), mode)

    def release(self, migration: str, epoch: int, ids: Iterable[str]) -> None:
        self._call("release", migration, epoch, list(ids))

    def map(self, migration: str, epoch: int, overrides: Mapping[str, str | None]) -> None:
        self._call("map", migration, epoch, dict(overrides))

    def in_flight(self, ids: Iterable[str]) -> int:
        self._call("in_flight", list(ids))
        return self.flights.pop(0) if len(self.flights) > 1 else self.flights[0]

    def state(self, usage: bool = False) -> RouterState:
        self._call("state", usage)
        return state(self.name)


def test_every_verb_reaches_every_router_with_all_ids() -> None:
    routers = [Fake("one"), Fake("two")]
    fleet = Fleet(routers)
    fleet.take_over("m", 1)
    fleet.lease("m", 1, iter(["a", "b"]), 5, HOLD)
    fleet.close("m", 1, iter(["a", "b"]), HOLD)
    fleet.map("m", 1, {"a": "b"})
    fleet.release("m", 1, iter(["a", "b"]))
    assert fleet.in_flight(iter(["a", "b"])) == 0
    assert [known.name for known in fleet.states(usage=True)] == ["one", "two"]
    assert routers[0].calls == routers[1].calls
    assert routers[0].calls == [
        ("take_over", "m", 1),
        ("lease", "m", 1, ["a", "b"], 5, HOLD),
        ("close", "m", 1, ["a", "b"], HOLD),
        ("map", "m", 1, {"a": "b"}),
        ("release", "m", 1, ["a", "b"]),
        ("in_flight", ["a", "b"]),
        ("state", True),
    ]


def test_routers_are_asked_at_the_same_time() -> None:
    barrier = threading.Barrier(3)
    Fleet([Fake(name, barrier=barrier) for name in "abc"]).take_over("m", 1)
    assert not barrier.broken


@pytest.mark.parametrize(
    ("errors", "kind", "message"),
    [
        ([Unreachable("a is down."), None], Unreachable, "a is down."),
        ([Unreachable("a is down."), Unreachable("b is down.")], Unreachable, "a is down. b is down."),
        ([Unreachable("a is down."), Superseded("b has seen more.")], Superseded, "b has seen more."),
        ([Refused("a refuses."), Unreachable("b is down.")], Refused, "a refuses."),
        ([None, ZdmError("b is odd.")], ZdmError, "b is odd."),
    ],
)
def test_errors_are_put_together(errors: list[ZdmError | None], kind: type[ZdmError], message: str) -> None:
    routers = [Fake(f"r{position}", error) for position, error in enumerate(errors)]
    with pytest.raises(kind) as caught:
        Fleet(routers).release("m", 1, ["x"])
    assert caught.value.message == message
    assert [len(router.calls) for router in routers] == [1] * len(errors), (
        "no router is left out because another failed"
    )


def test_drain_waits_for_all_and_names_who_is_late() -> None:
    slow = Fake("slow", flights=[3, 2, 0])
    assert Fleet([slow, Fake("idle")]).drain(["a"], 10_000) >= 0
    assert len(slow.calls) == 3
    with pytest.raises(Timeout, match="4 at router stuck") as caught:
        Fleet([Fake("idle"), Fake("stuck", flights=[4])]).drain(["a"], 20)
    assert caught.value.details == {"in_flight": {"stuck": 4}, "ids": ["a"]}


def test_drain_does_not_take_an_error_for_zero() -> None:
    with pytest.raises(Unreachable):
        Fleet([Fake("idle"), Fake("dead", Unreachable("dead is down."))]).drain(["a"], 10_000)


def test_equal_routers_do_not_differ() -> None:
    lease = {"blocks": {"a": Block(HOLD, 2000, "m")}, "overrides": {"b": "a"}}
    other = {"blocks": {"a": Block(HOLD, 2300, "m")}, "overrides": {"b": "a"}}
    assert Fleet.compare([state("one", **lease), state("two", **other, clock_ms=7, epochs={"m": 3})]) == []
    assert Fleet.compare([state("one")]) == Fleet.compare([]) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"overrides": {"b": "a"}}, "the override of b: one has nothing, two has a"),
        ({"onboarded": {"b": "us10/x"}}, "the home of b: one has nothing, two has us10/x"),
        ({"subdomains": {"sub": "b"}}, "the subdomain of sub: one has nothing, two has b"),
        ({"decommissioned": frozenset({"b"})}, "the decommissioning of b: one has nothing, two has yes"),
        (
            {"blocks": {"b": Block(HOLD, FAR_MS, "m")}},
            "the block of b: one has nothing, two has hold by m until released",
        ),
    ],
)
def test_differences_are_named(changes: dict[str, object], words: str) -> None:
    assert Fleet.compare([state("one"), state("two", **changes)]) == [f"The routers differ in {words}."]
