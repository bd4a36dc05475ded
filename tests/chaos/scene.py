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

from ansible_collections.zdm.landscape.plugins.module_utils.description.operation import Operation
from ansible_collections.zdm.landscape.plugins.module_utils.migration.claims import holder_of
from ansible_collections.zdm.landscape.plugins.module_utils.migration.stage import remove, stage
from ansible_collections.zdm.landscape.plugins.module_utils.migration.status import MigrationStatus, migration_status
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import ABSENT, Progress
from ansible_collections.zdm.landscape.plugins.module_utils.router.base import RouterState
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import CLAIMS
from ansible_collections.zdm.landscape.tests.chaos.controllers import ControllerProcess
from ansible_collections.zdm.landscape.tests.chaos.recorder import ROW
from ansible_collections.zdm.landscape.tests.landscape.landscape import Landscape, Tenant
from ansible_collections.zdm.landscape.tests.landscape.processes import wait_until, work_folder
from ansible_collections.zdm.landscape.tests.landscape.spec import SERVICES
from ansible_collections.zdm.landscape.tests.landscape.traffic import Traffic
from ansible_collections.zdm.landscape.tests.model.replay import check_trace

LEASE_MS = 500
RATE = 20.0
ENOUGH = 40
"""Requests that have met what a test looks at: some to each service, of each credential."""
HOLD_MAX_S = 240
TIMEOUT_S = 300.0
"""Longer than routers hold a request: what they give up is answered, and a busy machine is not a lost request."""
POLICY = {"window_budget": "10m", "drain_timeout": "2m"}
"""No step of a window is given up on a busy machine; tests of a step that does not end say how long it may take."""
TWINS = {
    "subscriptions": ("product", "subscription", "subscription_item"),
    "bills": ("tax_rule", "bill", "bill_line"),
    "rating": ("rate_plan", "usage_record", "usage_part"),
}
STRATEGIES = {
    service.name: {
        table: "twin" if table in TWINS.get(service.name, ()) else "in_place" for table in service.tenant_tables
    }
    for service in SERVICES
}
"""Of every table: what ``auto`` chooses depends on how fast the machine is at the moment."""


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
    load: dict[str, Any]
    folder: Path
    staged: bool
    runs: int = 0
    traffic: Traffic = field(init=False)
    live: Tenant = field(init=False)

    def __post_init__(self) -> None:
        self.live = self.landscape.source
        self.options_file.touch(0o600)
        self.options_file.write_text(json.dumps(self.options))
        self._controllers: list[ControllerProcess] = []
        self._loads: list[Traffic] = []
        self._failed_before = 0
        self._checked = True

    def begin_load(self) -> None:
        """Start the load, the next run of it when there was one."""
        self.traffic = self.landscape.traffic(RATE, timeout_s=TIMEOUT_S, **self.load)
        self._loads.append(self.traffic)
        self._failed_before = 0
        self.traffic.start()

    def settle(self) -> None:
        """What a test begins with, whatever the one before did: no run under way, a migration that is staged if it has
        to be, and no failure yet.
        """
        for process in self._controllers:
            if process.runs:
                process.kill()
                process.end()
        self._controllers.clear()
        self._checked = False
        if not self.traffic.runs:
            self.landscape.wait_healthy()
            self.begin_load()
        journal = self.journal()
        if journal and journal["phase"] != "I":
            ended = self.run(state="aborted")
            assert ended.code == 0, ended.result
        self.read_live()
        claims = (self.landscape.store_path / CLAIMS).glob("*.json")
        claimed = any(json.loads(claim.read_text())["migration"] for claim in claims)
        if claimed and not self.staged:
            self.unstage()
        elif self.staged and not claimed:
            self.stage()
        self.begin_trace()
        self._failed_before = self.traffic.progress()["failed"]

    def journal(self) -> dict[str, Any]:
        """The migration's journal; empty when there is none."""
        file = self.landscape.store_path / "migrations" / "venezia--venezia-scp.json"
        found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        return found

    def read_live(self) -> None:
        """The journal says which tenant is live; who asks for it may have failed before it was told."""
        journal = self.journal()
        if journal:
            live = journal["canonical"] == self.landscape.source.id
            self.live = self.landscape.source if live else self.landscape.target

    @contextmanager
    def policy(self, **changes: str) -> Iterator[None]:
        """Another policy for the controllers of the block."""
        self.options_file.write_text(json.dumps({**self.options, "policy": {**self.options["policy"], **changes}}))
        try:
            yield
        finally:
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
        common = [
            "--options",
            str(self.options_file),
            "--trace",
            str(self.trace),
            "--controller",
            f"c{self.runs}",
            "--state",
            state,
        ]
        process = ControllerProcess([*common, *arguments], self.folder / f"c{self.runs}.json")
        self._controllers.append(process)
        return process

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
            stage(
                operation.store,
                operation.journal,
                operation.parties,
                operation.participants,
                lambda: operation.checked_plan(for_window=False),
                progress,
            )
        finally:
            operation.close()
        self.begin_trace()

    def begin_trace(self) -> None:
        """Begin a new trace with what is true now."""
        epoch = self.journal().get("epoch", 0)
        strategies = {
            entry["name"]: "twin" if entry["name"] in TWINS else "in_place" for entry in self.options["participants"]
        }
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
        """Take the stage back, whole or not; makes the source live first."""
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
            left = [
                participant.name for participant in operation.participants if participant.status(*ids).state != ABSENT
            ]
            return left + [document.path for document in operation.store.list(CLAIMS) if holder_of(document)]
        finally:
            operation.close()

    def wait_in_flight(self) -> None:
        """Wait until a router counts a request of one of the two tenants."""
        operation = Operation(self.options)
        wait_until(lambda: operation.fleet.in_flight(operation.parties.ids) > 0, "a request is in flight")

    def wait_unblocked(self) -> None:
        """Wait until every lease has ended; what is closed stays so."""
        fleet = Operation(self.options).fleet

        def ended() -> bool:
            return all(
                block.far or block.until_ms < state.clock_ms
                for state in fleet.states()
                for block in state.blocks.values()
            )

        wait_until(ended, "the leases end")

    def assert_agreed(self, live: Tenant, *, replay: bool = True) -> None:
        """Every artefact agrees on *live*, the trace is one that the model allows, and no request failed."""
        self.live = live
        status = self.status()
        assert (status.phase, status.live.id, status.problems) == ("I", live.id, [])
        if replay:
            replayed = check_trace(entry for entry in self.entries() if entry["system"] != ROW)
            assert replayed.ok, f"entry {replayed.at}: {replayed.message}"
        self.begin_trace()
        progress = self.traffic.progress()
        failed = progress["failed"] - self._failed_before
        assert failed == 0, progress["failures"][-failed:]

    def status(self) -> MigrationStatus:
        """What ``migration_info`` finds."""
        operation = Operation(self.options)
        try:
            return migration_status(
                operation.store,
                operation.fleet,
                operation.participants,
                operation.parties.source,
                operation.parties.target,
            )
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

        def done() -> bool:
            return any(entry.get("place") == place for entry in self.entries())

        wait_until(lambda: done() or not any(process.runs for process in self._controllers), place)
        assert done(), f"the controller ended before {place}"

    @staticmethod
    def wait_stopped(process: ControllerProcess) -> None:
        """Wait until a signal has stopped the process."""
        wait_until(
            lambda: (
                not process.runs or Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
            ),
            "the controller stops",
        )
        assert process.runs, process.end()

    def assert_ledger(self, *, twins: bool = True) -> None:
        """Stop the load and compare its ledger with the databases.

        :param twins: whether rows of twin tables may stand under the retired id too.
        """
        if self.traffic.runs:
            self.traffic.wait_requests(ENOUGH)
            self.traffic.stop()
        twins_allowed = (
            {f"{service}.{table}" for service, tables in TWINS.items() for table in tables} if twins else set()
        )
        self._checked = True
        verdict = self.landscape.check(self.live, self._loads, twins_allowed)
        assert verdict.ok, verdict.findings
        assert verdict.acknowledged > 0

    def end(self) -> None:
        """Stop the load, with a last look at its ledger when a test ran since the last one."""
        try:
            if not self._checked and self.journal().get("phase", "I") == "I":
                self.read_live()
                self.assert_ledger()
        finally:
            self.traffic.stop()


@contextmanager
def scene(rows: int = 2_000, chaos: bool = True, staged: bool = True, may_break: bool = False) -> Iterator[Scene]:
    """Bring a landscape up, stage it and put it under load.

    :param chaos: whether a router may answer 503, as it does when requests are held for too long.
    :param may_break: whether a connection to a router may break, as it does when the router is killed.
    """
    folder = work_folder(Path("/nonexistent-so-that-a-temporary-folder-is-made" * 2))
    try:
        with Landscape(folder, rows=rows, strategies=STRATEGIES, policy=POLICY, hold_max=f"{HOLD_MAX_S}s") as landscape:
            tenants = {"source": landscape.source.subdomain, "target": landscape.target.subdomain}
            options = {**landscape.vars, **tenants, "health": []}
            options["policy"] = {**options["policy"], "lease": f"{LEASE_MS}ms"}
            prepared = Scene(landscape, options, {"chaos": chaos, "may_break": may_break}, folder, staged)
            prepared.begin_load()
            if staged:
                prepared.stage()
            else:
                prepared.begin_trace()
            try:
                yield prepared
            finally:
                prepared.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def kill_and_go_on(stage: Scene, when: str, place: str, *arguments: str) -> None:
    """A killed controller, load until its leases have ended and longer, and the same command again."""
    goal = stage.other
    killed = stage.run("--stop", "SIGKILL", when, place, *arguments)
    assert killed.code == -signal.SIGKILL, killed.result
    deadline = time.time() * 1000 + LEASE_MS
    for state in stage.router_states():
        assert all(block.far or block.until_ms <= deadline + 100 for block in state.blocks.values())
    stage.wait_unblocked()
    stage.traffic.wait_requests(ENOUGH)
    again = stage.run()
    assert again.code == 0, again.result
    stage.assert_agreed(goal)
