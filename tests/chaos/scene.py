# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A staged landscape under load, controllers that are stopped on purpose, and what must hold afterwards."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.migration.stage import remove, stage
from ansible_collections.zdm.landscape.plugins.module_utils.migration.status import MigrationStatus, migration_status
from ansible_collections.zdm.landscape.plugins.module_utils.operation import Operation
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import ABSENT, Progress
from ansible_collections.zdm.landscape.plugins.module_utils.router.base import RouterState
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import CLAIMS
from ansible_collections.zdm.landscape.tests.chaos.controllers import ControllerProcess
from ansible_collections.zdm.landscape.tests.landscape.landscape import Landscape, Tenant
from ansible_collections.zdm.landscape.tests.landscape.processes import wait_until, work_folder
from ansible_collections.zdm.landscape.tests.landscape.traffic import Traffic
from ansible_collections.zdm.landscape.tests.model.replay import check_trace

LEASE_MS = 500
RATE = 20.0
TIMEOUT_S = 25.0
"""Longer than routers hold a request: what they give up is answered, and a busy machine is not a lost request."""
TWINS = {
    "subscriptions": ("product", "subscription", "subscription_item"),
    "bills": ("tax_rule", "bill", "bill_line"),
    "rating": ("rate_plan", "usage_record", "usage_part"),
}


@dataclass
class Run:
    """One controller's end."""

    code: int
    result: dict[str, Any]


@dataclass
class Scene:
    """The landscape, its load and the options of the module tenant_cutover."""

    landscape: Landscape
    options: dict[str, Any]
    traffic: Traffic
    folder: Path
    runs: int = 0
    live: Tenant = field(init=False)

    def __post_init__(self) -> None:
        self.live = self.landscape.source
        self.options_file.touch(0o600)
        self.options_file.write_text(json.dumps(self.options))

    @property
    def options_file(self) -> Path:
        return self.folder / "options.json"

    @property
    def trace(self) -> Path:
        return self.folder / "trace.jsonl"

    @property
    def other(self) -> Tenant:
        return self.landscape.target if self.live == self.landscape.source else self.landscape.source

    def controller(self, *arguments: str, state: str = "") -> ControllerProcess:
        """Start a controller that makes the other tenant live."""
        self.runs += 1
        state = state or ("switched" if self.other == self.landscape.target else "reversed")
        common = ["--options", str(self.options_file), "--trace", str(self.trace), "--controller", f"c{self.runs}", "--state", state]
        return ControllerProcess([*common, *arguments], self.folder / f"c{self.runs}.json")

    def run(self, *arguments: str, state: str = "") -> Run:
        """Run a controller to its end."""
        process = self.controller(*arguments, state=state)
        return self.end_of(process)

    @staticmethod
    def end_of(process: ControllerProcess) -> Run:
        return Run(*process.end())

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.trace.read_text().splitlines()]

    def stage(self, progress: Progress = lambda _entry: None) -> None:
        """Stage the migration in this process."""
        operation = Operation(self.options)
        try:
            stage(operation.store, operation.journal, operation.parties, operation.participants, lambda: operation.checked_plan(for_window=False), progress)
        finally:
            operation.close()
        self.begin_trace()

    def begin_trace(self) -> None:
        """Begin a new trace with what is true now."""
        file = self.landscape.store_path / "migrations" / "venezia--venezia-scp.json"
        epoch = json.loads(file.read_text())["epoch"] if file.exists() else 0
        strategies = {entry["name"]: "twin" if entry["name"] in TWINS else "in_place" for entry in self.options["participants"]}
        start = {
            "system": "env",
            "op": "start",
            "routers": [router["name"] for router in self.options["routers"]],
            "participants": strategies,
            "canonical": "source" if self.live == self.landscape.source else "target",
            "epoch": epoch,
        }
        self.trace.write_text(json.dumps(start) + "\n")

    def unstage(self) -> None:
        """Take the stage back; makes the source live first."""
        if self.live != self.landscape.source:
            ended = self.run()
            assert ended.code == 0, ended.result
            self.assert_agreed(self.landscape.source)
        operation = Operation(self.options)
        try:
            assert remove(operation.store, operation.journal, operation.parties, operation.participants)
        finally:
            operation.close()

    def helpers(self) -> list[str]:
        """Participants, claims and documents that still know of a migration."""
        operation = Operation(self.options)
        ids = (operation.journal.key, operation.parties.source.id, operation.parties.target.id)
        try:
            left = [participant.name for participant in operation.participants if participant.status(*ids).state != ABSENT]
            return left + [document.path for document in operation.store.list(CLAIMS)]
        finally:
            operation.close()

    def wait_in_flight(self) -> None:
        """Wait until a router counts a request of one of the two tenants."""
        operation = Operation(self.options)
        wait_until(lambda: operation.fleet.in_flight(operation.parties.ids) > 0, "a request is in flight", 30)

    def wait_unblocked(self) -> None:
        """Wait until every lease has ended."""
        fleet = Operation(self.options).fleet
        wait_until(lambda: all(block.until_ms < state.clock_ms for state in fleet.states() for block in state.blocks.values()), "the leases end", 30)

    def assert_agreed(self, live: Tenant, *, replay: bool = True) -> None:
        """Every artefact agrees on *live*, the trace is one that the model allows, and no request failed."""
        self.live = live
        status = self.status()
        assert (status.phase, status.live.id, status.problems) == ("I", live.id, [])
        if replay:
            replayed = check_trace(self.entries())
            assert replayed.ok, f"entry {replayed.at}: {replayed.message}"
        self.begin_trace()
        progress = self.traffic.progress()
        assert progress["failed"] == 0, progress["failures"]

    def status(self) -> MigrationStatus:
        """What ``migration_info`` finds."""
        operation = Operation(self.options)
        try:
            return migration_status(operation.store, operation.fleet, operation.participants, operation.parties.source, operation.parties.target)
        finally:
            operation.close()

    def router_states(self) -> list[RouterState]:
        return Operation(self.options).fleet.states()

    def kill_router(self, name: str) -> None:
        """End a router as a crash does, with everything that it knew."""
        self.landscape.fleet.kill(name)
        with self.trace.open("a") as trace:
            trace.write(json.dumps({"t": time.time(), "system": "env", "op": "restart", "target": name}) + "\n")

    def wait_recorded(self, place: str) -> None:
        """Wait until a write has been done."""
        wait_until(lambda: any(entry.get("place") == place for entry in self.entries()), place, 30)

    @staticmethod
    def wait_stopped(process: ControllerProcess) -> None:
        """Wait until a signal has stopped the process."""
        wait_until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "the controller stops", 30)

    def assert_ledger(self, *, twins: bool = True) -> None:
        """Stop the load and compare its ledger with the databases.

        :param twins: whether rows of twin tables may stand under the retired id too.
        """
        self.traffic.stop()
        twins_allowed = {f"{service}.{table}" for service, tables in TWINS.items() for table in tables} if twins else set()
        verdict = self.landscape.check(self.live, [self.traffic], twins_allowed)
        assert verdict.ok, verdict.findings
        assert verdict.acknowledged > 0


@contextmanager
def scene(rows: int = 2_000, chaos: bool = True, staged: bool = True, may_break: bool = False) -> Iterator[Scene]:
    """Bring a landscape up, stage it and put it under load.

    :param chaos: whether a router may answer 503, as it does when requests are held for too long.
    :param may_break: whether a connection to a router may break, as it does when the router is killed.
    """
    folder = work_folder(Path("/nonexistent-so-that-a-temporary-folder-is-made" * 2))
    try:
        strategies = {service: dict.fromkeys(tables, "twin") for service, tables in TWINS.items()}
        with Landscape(folder, rows=rows, strategies=strategies) as landscape:
            tenants = {"source": landscape.source.subdomain, "target": landscape.target.subdomain}
            options = {**landscape.vars, **tenants, "health": []}
            options["policy"] = {**options["policy"], "lease": f"{LEASE_MS}ms"}
            with landscape.traffic(RATE, chaos=chaos, timeout_s=TIMEOUT_S, may_break=may_break) as traffic:
                prepared = Scene(landscape, options, traffic, folder)
                if staged:
                    prepared.stage()
                else:
                    prepared.begin_trace()
                yield prepared
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def kill_and_go_on(stage: Scene, when: str, place: str, *arguments: str) -> None:
    goal = stage.other
    killed = stage.run("--stop", "SIGKILL", when, place, *arguments)
    assert killed.code == -signal.SIGKILL, killed.result
    deadline = time.time() * 1000 + LEASE_MS
    for state in stage.router_states():
        assert all(block.far or block.until_ms <= deadline + 100 for block in state.blocks.values())
    stage.traffic.run_for(LEASE_MS / 1000 + 2)
    again = stage.run()
    assert again.code == 0, again.result
    stage.assert_agreed(goal)
