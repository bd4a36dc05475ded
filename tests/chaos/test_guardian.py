# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controllers with a guardian, killed at random moments while routers fail closed: the tenant is answered again at
once.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.zdm.landscape.tests.chaos.controllers import ControllerProcess
from ansible_collections.zdm.landscape.tests.chaos.places import WINDOW
from ansible_collections.zdm.landscape.tests.chaos.scene import TIMEOUT_S, Scene, scene
from ansible_collections.zdm.landscape.tests.landscape.processes import alive, wait_until

KILLS = int(os.environ.get("ZDM_GUARDIAN_KILLS", "5"))
HELD = WINDOW[WINDOW.index("phase W>C:journal") : WINDOW.index("release:router-2")]
"""Writes after which a router may fail closed."""
AFTER_S = {False: 0.04, True: 0.008}
"""A kill comes up to so long after a write, in the middle of the next ones; those after the commit are quicker."""


@pytest.fixture(scope="module", name="scenery")
def _scenery() -> Iterator[Scene]:
    with scene(chaos=False) as prepared:
        yield prepared


@pytest.fixture(name="stage")
def _stage(scenery: Scene) -> Scene:
    scenery.settle()
    return scenery


@dataclass
class Probe:
    """Customers of both tenants who wait for an answer all the time, one at each router."""

    stage: Scene
    answers: list[tuple[float, float, int]] = field(default_factory=list)
    """Begin, end and status of each request."""

    @contextmanager
    def asking(self) -> Iterator[None]:
        over = threading.Event()
        tenants = (self.stage.landscape.source, self.stage.landscape.target)
        pairs = zip(self.stage.landscape.fleet.addresses, tenants, strict=True)
        threads = [
            threading.Thread(target=self._ask, args=(over, *address, self.stage.landscape.token(tenant)))
            for address, tenant in pairs
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def _ask(self, over: threading.Event, host: str, port: int, token: str) -> None:
        while not over.wait(0.01):
            connection, begin = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S), time.monotonic()
            connection.request("GET", "/bills/writes/0", headers={"Authorization": f"Bearer {token}"})
            status = connection.getresponse().status
            self.answers.append((begin, time.monotonic(), status))
            connection.close()

    def longest_wait(self, since: float) -> float:
        """Seconds that somebody waited for an answer after *since*."""
        assert {status for _begin, _end, status in self.answers} == {200}
        return max(end - max(begin, since) for begin, end, _status in self.answers if end > since)


def guardian_of(process: ControllerProcess) -> int:
    """The process id of the only child."""
    (child,) = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    return child


def wait_gone(pid: int) -> None:
    wait_until(lambda: not alive(pid), "the guardian ends")


def journal_of(stage: Scene) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(
        (stage.landscape.store_path / "migrations" / "venezia--venezia-scp.json").read_text()
    )
    return body


@dataclass
class Kill:
    """What became of a controller that was killed."""

    code: int
    waited_s: float


def kill(stage: Scene, place: str, after_s: float = 0.0) -> Kill:
    """Kill a controller, not its guardian, some time after a write; returns when the guardian is gone and every request
    answered: nobody ran a command.
    """
    probe, go = Probe(stage), stage.trace.with_name(f"go-{stage.runs}")
    with probe.asking():
        process = stage.controller("--guarded", "--hold", place, str(go))
        wait_until(lambda: f'"{place}"' in stage.trace.read_text(), place, pause_s=0.001)
        guardian = guardian_of(process)  # held: it can't have ended meanwhile
        go.touch()
        time.sleep(after_s)
        killed_at = time.monotonic()
        process.kill()
        code = stage.end_of(process).code
        wait_gone(guardian)
    return Kill(code, probe.longest_wait(killed_at))


def finished_by_itself(stage: Scene) -> bool:
    """Whether a run was faster than the signal."""
    body = journal_of(stage)
    return bool(body["phase"] == "I" and body.get("ended_by", {}).get("epoch") != body["epoch"])


def assert_recovered(stage: Scene) -> str:
    """The guardian brought all to an end and said so; returns its outcome."""
    body = journal_of(stage)
    end, tenants = body["ended_by"], (stage.landscape.source, stage.landscape.target)
    assert (body["phase"], end["by"], end["epoch"]) == ("I", "guardian", body["epoch"])
    outcome: str = end["outcome"]
    assert outcome == ("finished" if body["canonical"] == body["to"] else "undone")
    stage.assert_agreed(next(tenant for tenant in tenants if tenant.id == body["canonical"]))
    return outcome


def test_killed_at_random_moments(stage: Scene) -> None:
    chance = random.Random(os.environ.get("ZDM_CHAOS_SEED", "1"))
    waits: list[float] = []
    outcomes: list[str] = []
    while len(waits) < KILLS:
        goal = stage.other
        place = chance.choice(HELD)
        killed = kill(stage, place, chance.uniform(0, AFTER_S[HELD.index(place) >= HELD.index("phase C>K:journal")]))
        if finished_by_itself(stage):
            stage.assert_agreed(goal)
            continue
        assert killed.code == -signal.SIGKILL
        waits.append(killed.waited_s)
        outcomes.append(assert_recovered(stage))
        again = stage.run(state="switched" if goal == stage.landscape.target else "reversed")
        assert (again.code, again.result["changed"]) == (0, outcomes[-1] == "undone")
        stage.assert_agreed(goal)
    print(
        f"{len(waits)} kills, {outcomes.count('undone')} undone: answered after {statistics.median(waits):.2f} s, at"
        f" worst {max(waits):.2f} s"
    )


@pytest.mark.parametrize(("place", "outcome"), [("drained:journal", "undone"), ("phase C>K:journal", "finished")])
def test_undone_before_the_commit_finished_after_it(stage: Scene, place: str, outcome: str) -> None:
    process = stage.controller("--guarded", "--stop", "SIGSTOP", "after", place)
    stage.wait_stopped(process)
    guardian = guardian_of(process)
    process.kill()
    assert stage.end_of(process).code == -signal.SIGKILL
    wait_gone(guardian)
    assert assert_recovered(stage) == outcome
    status = stage.status()
    assert "its guardian" in status.verdict
    assert bool(status.next_command) == (outcome == "undone")


def test_killed_before_the_close_needs_no_guardian(stage: Scene) -> None:
    before, goal = stage.live, stage.other
    process = stage.controller("--guarded", "--stop", "SIGSTOP", "after", "lease:router-2")
    stage.wait_stopped(process)
    guardian = guardian_of(process)
    process.kill()
    assert stage.end_of(process).code == -signal.SIGKILL
    wait_gone(guardian)
    assert (journal_of(stage)["phase"], stage.status().live.id) == ("W", before.id)
    stage.wait_unblocked()
    again = stage.run()
    assert again.code == 0, again.result
    stage.assert_agreed(goal)


def test_a_guardian_that_meets_a_newer_epoch_does_nothing(stage: Scene, tmp_path: Path) -> None:
    """The first controller sleeps, a second has taken over and is between close and commit when the first is killed."""
    goal, go = stage.other, tmp_path / "go"
    sleeper = stage.controller("--guarded", "--stop", "SIGSTOP", "after", "drained:journal")
    stage.wait_stopped(sleeper)
    guardian, slept = guardian_of(sleeper), f"c{stage.runs}"
    second = stage.controller("--hold", "barrier:documents", str(go))
    try:
        stage.wait_recorded("barrier:documents")
        sleeper.kill()
        assert stage.end_of(sleeper).code == -signal.SIGKILL
        wait_gone(guardian)
        assert journal_of(stage)["phase"] == "C"
    finally:
        go.touch()
    assert stage.end_of(second).code == 0
    assert f"{slept}-guardian" not in {entry.get("controller") for entry in stage.entries()}
    stage.assert_agreed(goal)
    assert journal_of(stage).get("ended_by", {}).get("epoch") != journal_of(stage)["epoch"]


def test_a_guardian_ends_with_its_run(stage: Scene, tmp_path: Path) -> None:
    """It is buried by its parent, and holds neither its output nor its session."""
    goal, go = stage.other, tmp_path / "go"
    process = stage.controller("--guarded", "--hold", "lease:router-1", str(go))
    stage.wait_recorded("lease:router-1")
    guardian = guardian_of(process)
    assert os.getsid(guardian) == guardian
    files = {os.readlink(f"/proc/{guardian}/fd/{number}") for number in os.listdir(f"/proc/{guardian}/fd")}
    assert {file.partition(":")[0] for file in files} == {"/dev/null", "pipe"}
    assert len(files) == 2
    go.touch()
    assert stage.end_of(process).code == 0
    assert not Path(f"/proc/{guardian}").exists()
    stage.assert_agreed(goal)


def test_both_killed_the_same_command_goes_on(stage: Scene) -> None:
    goal = stage.other
    process = stage.controller("--guarded", "--stop", "SIGSTOP", "after", "barrier:bills")
    stage.wait_stopped(process)
    guardian = guardian_of(process)
    os.kill(guardian, signal.SIGKILL)
    wait_gone(guardian)
    process.kill()
    assert stage.end_of(process).code == -signal.SIGKILL
    assert journal_of(stage)["phase"] == "C"
    with stage.trace.open("a") as trace:
        trace.write(json.dumps({"system": "env", "op": "kill", "controller": f"c{stage.runs}"}) + "\n")
    again = stage.run()
    assert again.code == 0, again.result
    stage.assert_agreed(goal)


def test_nothing_was_lost(stage: Scene) -> None:
    stage.assert_ledger()
