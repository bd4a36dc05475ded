# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drain is exact: in 2,000 windows under load no request of the tenant is at the service, and none comes under an old
id.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.router.base import HOLD, REJECT
from ansible_collections.zdm.landscape.plugins.module_utils.router.fleet import Fleet
from ansible_collections.zdm.landscape.plugins.module_utils.router.haproxy import HAProxyRouter
from ansible_collections.zdm.landscape.plugins.module_utils.store.file import FileStore
from ansible_collections.zdm.landscape.tests.integration.router.kit import (
    HOST,
    Deployment,
    deployed,
    is_ready,
    other_token,
)
from ansible_collections.zdm.landscape.tests.integration.router.stress import Config, Record
from ansible_collections.zdm.landscape.tests.landscape.processes import (
    Process,
    free_port,
    module_environment,
    temporary_folder,
    wait_until,
)

FEW, MANY = 100, 500
"""Windows per mode and number of routers: 2,000 in the thorough tests. The mutant is caught within 60."""
BYSTANDER = "bystander"
LEASE_MS = 20_000
WINDOW_S = 0.005
"""How long a tenant is kept drained, for requests that should not come."""
GATE_2 = 'string "blocked" hdr x-router blocked hdr retry-after 1 if blocked !{ var(txn.block) -m end |soft }'
COUNT = "http-request track-sc0 var(txn.id) table inflight"
LUA = "lua-load-per-thread lua/hold.lua"
YIELD = 'core.register_action("zdm_yield", { "http-req" }, function() core.msleep(math.random(60)) end, 0)\n'


@dataclass(frozen=True)
class Window:
    """From the end of the drain to just before the release; ``mapping`` is what was set inside."""

    begin: float
    end: float
    mapping: dict[str, str]


@dataclass
class Pair:
    """Two tenants that are one migration, blocked, drained, mapped to one of them and freed, again and again."""

    mode: str
    windows: list[Window] = field(default_factory=list)

    @property
    def ids(self) -> tuple[str, str]:
        return f"{self.mode}-a", f"{self.mode}-b"

    def cycle(self, fleet: Fleet) -> None:
        migration, epoch, (a, b) = f"{self.mode}-a--{self.mode}-b", 1, self.ids
        live = (a, b)[len(self.windows) % 2]
        wait_until(lambda: fleet.in_flight(self.ids), "requests are in flight", pause_s=0.001)
        fleet.lease(migration, epoch, self.ids, LEASE_MS, self.mode)
        fleet.drain(self.ids, 10_000)
        begin = time.monotonic()
        time.sleep(WINDOW_S)
        fleet.map(migration, epoch, {tenant: None if tenant == live else live for tenant in self.ids})
        end = time.monotonic()
        fleet.release(migration, epoch, self.ids)
        self.windows.append(Window(begin, end, dict.fromkeys(self.ids, live)))

    def overlaps(self, record: Record) -> int:
        """Requests that were at the service in a drained window."""
        ends = [window.end for window in self.windows]
        later = ((request, bisect_right(ends, request.begin)) for request in record.of(self.ids))
        return sum(position < len(ends) and request.end > self.windows[position].begin for request, position in later)

    def wrong_mappings(self, record: Record) -> int:
        """Requests that came under another id than the last window before them had set."""
        ends = [window.end for window in self.windows]
        found = 0
        for request in record.of(self.ids):
            position = bisect_right(ends, request.begin)
            mapping = self.windows[position - 1].mapping if position else dict.fromkeys(self.ids, self.ids[0])
            found += request.tenant != mapping[request.owner]
        return found

    def busy_windows(self, record: Record) -> int:
        """Windows with a request of the tenants between the one before and them."""
        ends = [window.end for window in self.windows]
        return len({bisect_right(ends, request.begin) for request in record.of(self.ids)} & set(range(len(ends))))


@dataclass
class Routers:
    """Copies of a router that the role has rendered, each at a place and ports of its own."""

    deployment: Deployment
    service_port: int

    @contextmanager
    def running(
        self, number: int, change: Mapping[str, str] = MappingProxyType({})
    ) -> Iterator[list[tuple[int, HAProxyRouter]]]:
        """Start *number* copies; answers port and client of each.

        :param change: texts in the configuration and what takes their place.
        """
        started, running, homes = list[tuple[int, HAProxyRouter]](), list[Process](), list[Path]()
        try:
            for position in range(number):
                made = self.deployment.copy_to(f"copy-{position}", lambda text: replaced(text, change))
                home, port = made.home, made.port
                homes.append(home)
                (home / "lua" / "yield.lua").write_text(YIELD)
                running.append(
                    self.deployment.processes.start(f"router-copy-{position}", [str(home / "bin" / "zdm-router")])
                )
                client = HAProxyRouter(f"router-{position + 1}", socket=str(home / "run" / "master.sock"))
                running[-1].wait_ready(partial(is_ready, client))
                started.append((port, client))
            yield started
        finally:
            self.deployment.processes.stop(*running)
            for home in homes:
                shutil.rmtree(home)


def replaced(text: str, change: Mapping[str, str]) -> str:
    for before, after in change.items():
        assert text.count(before) == 1, f"{before!r} is {text.count(before)} times in the configuration"
        text = text.replace(before, after)
    return text


@pytest.fixture(scope="module", name="routers")
def _routers() -> Iterator[Routers]:
    service_port = free_port()
    changes = {
        "landscape_router_hold_max": "10s",
        "landscape_router_held_limit": 500,
        "landscape_router_server_idle": "20s",
    }
    changes["landscape_router_backends"] = [{"name": "bills", "path": "/bills", "servers": [f"{HOST}:{service_port}"]}]
    with temporary_folder() as folder, deployed(folder, **changes) as deployment:
        store = FileStore(deployment.store_path)
        for tenant in (BYSTANDER, *Pair(HOLD).ids, *Pair(REJECT).ids):
            body = {"id": tenant, "subdomain": tenant, "datacenter": "us10", "channel": "stable"}
            mapped = (
                {"mapToTenant": f"{tenant[:-2]}-a", "mapToTenantId": f"{tenant[:-2]}-a"}
                if tenant.endswith("-b")
                else {}
            )
            store.put("onboarded-tenants", tenant, {**body, **mapped}, None)
        yield Routers(deployment, service_port)


@contextmanager
def stressed(routers: Routers, running: list[tuple[int, HAProxyRouter]]) -> Iterator[Path]:
    """Clients of all tenants at all routers; the file that is yielded is a :class:`Record` afterwards."""
    folder, ports = routers.deployment.folder, [port for port, _client in running]
    tokens = {
        tenant: other_token(tenant, exp=int(time.time()) + 3600)
        for tenant in (BYSTANDER, *Pair(HOLD).ids, *Pair(REJECT).ids)
    }
    result = folder / "record.json"
    config = Config(routers.service_port, ports, tokens, 3 - len(ports), str(result))
    (folder / "stress.json").write_text(json.dumps(asdict(config)))
    command = [sys.executable, "-m", Record.__module__, str(folder / "stress.json")]
    process = routers.deployment.processes.start("stress", command, env=module_environment())
    try:
        process.wait_ready(
            lambda: all(client.state(usage=True).usage.keys() >= tokens.keys() for _port, client in running)
        )
        yield result
    finally:
        routers.deployment.processes.stop(process)
    assert process.popen.returncode == 0, process.tail()


@pytest.mark.parametrize("number", [1, 2], ids=["one router", "two routers"])
@pytest.mark.parametrize("windows", [FEW, pytest.param(MANY, marks=pytest.mark.thorough)])
def test_a_drained_tenant_is_nowhere(routers: Routers, number: int, windows: int) -> None:
    with routers.running(number) as running:
        pairs = [Pair(HOLD), Pair(REJECT)]
        fleets = [Fleet([client for _port, client in running]) for _pair in pairs]

        def cycles(pair: Pair, fleet: Fleet) -> None:
            while len(pair.windows) < windows:
                pair.cycle(fleet)

        with stressed(routers, running) as file, ThreadPoolExecutor(2) as pool:
            list(pool.map(cycles, pairs, fleets))
    record = Record.read(file)
    for pair in pairs:
        assert (pair.overlaps(record), pair.wrong_mappings(record)) == (0, 0)
        assert pair.busy_windows(record) > windows * 0.95, "blocks meet requests"
    by_mode = {pair.mode: record.answers[pair.ids[0]] + record.answers[pair.ids[1]] for pair in pairs}
    assert set(by_mode[HOLD]) == {"200"}, "a tenant that is held is never refused"
    assert set(by_mode[REJECT]) == {"200", "503"}
    assert sum(record.held[tenant] for tenant in Pair(HOLD).ids) > windows
    assert set(record.answers[BYSTANDER]) == {"200"}
    assert record.held[BYSTANDER] == 0
    assert min(record.connections["kept"], record.connections["new"]) > windows
    inside = [
        request
        for request in record.of([BYSTANDER])
        if any(w.begin < request.end and request.begin < w.end for pair in pairs for w in pair.windows)
    ]
    assert inside, "the bystander was served while others were drained"


@pytest.mark.parametrize("mode", [HOLD, REJECT])
def test_a_router_that_checks_before_it_counts_is_caught(routers: Routers, mode: str) -> None:
    """The mutant has no second gate, and an action between the first one and the count yields."""
    mutant = {
        GATE_2: f"{GATE_2} FALSE",
        COUNT: f"http-request lua.zdm_yield\n  {COUNT}",
        LUA: f"{LUA}\n  lua-load-per-thread lua/yield.lua",
    }
    with routers.running(1, mutant) as [(port, client)]:
        pair, fleet = Pair(mode), Fleet([client])
        with stressed(routers, [(port, client)]) as file:
            for _cycle in range(60):
                pair.cycle(fleet)
    record = Record.read(file)
    assert pair.overlaps(record) > 0
