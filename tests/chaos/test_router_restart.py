# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A router is killed at each step of the protocol and started again, under load.

It must be what the journal says from its first request on: clients may lose their connection to it, every answer is
right. The window finishes, or is undone and opened again. Forward and reverse take turns, on one landscape.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.router.render import CLOSED_PHASES
from ansible_collections.zdm.landscape.tests.chaos.scene import Scene, scene

STEPS = {
    "lease:router-2": "router-1",
    "prelude:documents": "router-2",
    "phase W>C:journal": "router-1",
    "close:router-1": "router-2",
    "drained:journal": "router-1",
    "barrier:documents": "router-2",
    "phase C>K:journal": "router-1",
    "mapping_documents:venezia-scp": "router-2",
    "turn:bills": "router-1",
    "map:router-2": "router-2",
    "phase K>R:journal": "router-1",
    "release:router-1": "router-2",
}
"""Place after which the controller waits → the router that is killed there and started before the controller goes on.
"""
LATE = {
    "lease:router-2": "router-1",
    "phase W>C:journal": "router-2",
    "turn:bills": "router-1",
    "phase K>R:journal": "router-2",
}
"""The same, but the controller goes on first: its next step needs the router that is gone."""
ALWAYS = ("close:router-1", "barrier:documents", "phase C>K:journal", "map:router-2", "release:router-1")


def _cases() -> Iterator[Any]:
    for places, order in ((STEPS, "starts first"), (LATE, "starts late")):
        for place, victim in places.items():
            marks = () if place in ALWAYS and order == "starts first" else pytest.mark.thorough
            yield pytest.param(place, victim, order, id=f"{place}-{order}", marks=marks)


@pytest.fixture(scope="module", name="scenery")
def _scenery() -> Iterator[Scene]:
    with scene(may_break=True) as prepared:
        yield prepared


@pytest.fixture(name="stage")
def _stage(scenery: Scene) -> Scene:
    scenery.settle()
    return scenery


def journal(stage: Scene) -> dict[str, str]:
    document: dict[str, str] = json.loads(
        (stage.landscape.store_path / "migrations" / "venezia--venezia-scp.json").read_text()
    )
    return document


def broken_elsewhere(stage: Scene, victim: str) -> dict[str, int]:
    """Connections that broke at routers other than the victim."""
    ports = {f":{router.port}" for router in stage.landscape.fleet.routers if router.name == victim}
    return {
        address: count
        for address, count in stage.traffic.progress()["broken"].items()
        if not address.endswith(tuple(ports))
    }


def assert_as_the_journal_says(stage: Scene, victim: str) -> None:
    body, both = journal(stage), {stage.landscape.source.id, stage.landscape.target.id}
    canonical = body["canonical"]
    state = next(state for state in stage.router_states() if state.name == victim)
    assert {tenant: id_ for tenant, id_ in state.overrides.items() if tenant in both} == dict.fromkeys(
        both - {canonical}, canonical
    )
    far = {tenant for tenant, block in state.blocks.items() if block.far}
    assert far == (both if body["phase"] in CLOSED_PHASES else set())


@pytest.mark.parametrize(("place", "victim", "order"), list(_cases()))
def test_a_killed_router_is_what_the_journal_says(stage: Scene, place: str, victim: str, order: str) -> None:
    goal, go = stage.other, stage.folder / "go"
    before = broken_elsewhere(stage, victim)
    go.unlink(missing_ok=True)
    controller = stage.controller("--hold", place, str(go))
    try:
        stage.wait_recorded(place)
        stage.kill_router(victim)
        if order == "starts late":
            go.touch()
        stage.landscape.fleet.start()
        if order == "starts first":
            assert_as_the_journal_says(stage, victim)
    finally:
        go.touch()
    ended = stage.end_of(controller)
    if ended.code != 0:
        assert (ended.code, ended.result["error"]) == (3, "Unreachable"), ended.result
        again = stage.run()
        assert again.code == 0, again.result
    # A step that is repeated since one router was gone may write to the other one last: the replay knows no such order.
    stage.assert_agreed(goal, replay=order == "starts first")
    stage.traffic.wait_requests(10)
    refused = stage.traffic.progress()["refused"]
    stage.traffic.wait_requests(40)
    assert stage.traffic.progress()["refused"] == refused, "the tenant is served again"
    assert broken_elsewhere(stage, victim) == before


def test_nothing_was_lost_by_killed_routers(stage: Scene) -> None:
    assert len(stage.traffic.progress()["broken"]) == len(stage.landscape.fleet.routers), "kills met requests"
    stage.assert_ledger()
