# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``bench/router``: the role's router against plain HAProxy, and what a tenant that is held costs the others.

All routers come from one configuration that the role has rendered, with parts left out, on one thread each. They take
turns in every round, so that a machine whose speed drifts does not change the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.router.base import HOLD
from ansible_collections.zdm.landscape.plugins.module_utils.router.haproxy import HAProxyRouter
from ansible_collections.zdm.landscape.tests.integration.router.kit import (
    HOST,
    MIGRATION,
    A,
    Deployment,
    deployed,
    is_ready,
    other_token,
    token,
)
from ansible_collections.zdm.landscape.tests.landscape.httpclient import HttpClient
from ansible_collections.zdm.landscape.tests.landscape.processes import free_port, temporary_folder, wait_until
from ansible_collections.zdm.landscape.tests.landscape.programs import haproxy

CHECKOUT = Path(__file__).resolve().parents[1]
RESULT = CHECKOUT / ".bench" / "router.json"
CONNECTIONS = 32
HELD = 500
BYSTANDER_RATE = 200
LIFE_S = 3600
SERVICE = """
global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend service
  bind {address}
  http-request return status 200 content-type text/plain string "ok"
"""


@dataclass
class Variant:
    """One kind of router under measurement; ``parts`` are the numbered parts of the configuration that it keeps."""

    name: str
    parts: str
    bearer: str
    port: int = 0
    client: HAProxyRouter | None = None

    def configuration(self, text: str) -> str:
        """The role's configuration without the parts that this variant lacks."""
        if self.parts == "all":
            return text
        head, *parts = re.split(r"^(?=  # \d\. )", text, flags=re.MULTILINE)
        last, rest = parts[-1].split("  use_backend ", 1)
        kept = [part for part in [*parts[:-1], last] if part[4] in self.parts]
        own = re.compile(r"^  (acl ready|http-after-response|http-request return) .*\n", re.MULTILINE)
        return own.sub("", head) + "".join(kept) + "  use_backend service_bench\n" + rest.split("\n", 1)[1]

    def cpu_s(self) -> float:
        """Processor time of the worker so far."""
        assert self.client is not None
        fields = Path(f"/proc/{self.client.workers().current}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wrk(port: int, bearer: str, seconds: int) -> int:
    """Keep the router busy for a time; answers the number of requests.

    :raises SystemExit: an answer was not 200.
    """
    command = [
        "wrk",
        "-t1",
        f"-c{CONNECTIONS}",
        f"-d{seconds}s",
        "-H",
        f"Authorization: Bearer {bearer}",
        f"http://{HOST}:{port}/bench/1",
    ]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 60).stdout
    found = re.search(r"(\d+) requests in", output)
    if found is None or "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(f"wrk was not answered as it should:\n{output}")
    return int(found[1])


def measure_cost(variants: list[Variant], rounds: int, seconds: int) -> list[dict[str, Any]]:
    """Requests per second and processor time per request of every variant, and both against the first one."""
    rates: dict[str, list[float]] = {variant.name: [] for variant in variants}
    costs: dict[str, list[float]] = {variant.name: [] for variant in variants}
    for variant in variants:
        wrk(variant.port, variant.bearer, 1)
    for _round in range(rounds):
        for variant in variants:
            cpu, begin = variant.cpu_s(), time.monotonic()
            requests = wrk(variant.port, variant.bearer, seconds)
            rates[variant.name].append(requests / (time.monotonic() - begin))
            costs[variant.name].append((variant.cpu_s() - cpu) / requests * 1_000_000)
    first = variants[0].name
    return [
        {
            "variant": name,
            "requests_per_s": round(statistics.median(rates[name])),
            "cpu_us_per_request": round(statistics.median(costs[name]), 1),
            "cpu_ratio": ratio(costs[name], costs[first]),
            "rate_ratio": ratio(rates[name], rates[first]),
        }
        for name in rates
    ]


def ratio(values: list[float], base: list[float]) -> float:
    """The median of the rounds' ratios."""
    return round(statistics.median(value / other for value, other in zip(values, base, strict=True)), 2)


async def paced(port: int, bearer: str, seconds: int) -> list[float]:
    """Milliseconds that requests at a fixed rate took, each from the moment at which it was due."""
    client, loop, latencies = HttpClient(HOST, port), asyncio.get_running_loop(), list[float]()

    async def one(due: float) -> None:
        answer = await client.request("GET", "/bench/1", {"authorization": f"Bearer {bearer}"})
        if answer.status != 200:
            raise SystemExit(f"The bystander was answered {answer.status}.")
        latencies.append((loop.time() - due) * 1000)

    begin = loop.time()
    async with asyncio.TaskGroup() as tasks:
        for number in range(BYSTANDER_RATE * seconds):
            due = begin + number / BYSTANDER_RATE
            await asyncio.sleep(max(0.0, due - loop.time()))
            tasks.create_task(one(due))
    client.close()
    return sorted(latencies)


def hold_requests(variant: Variant, bearer: str) -> list[socket.socket]:
    """Block tenant A and send requests of it; returns when the router holds them all."""
    client = variant.client
    assert client is not None
    client.lease(MIGRATION, 1, [A], 60_000, HOLD)
    request = (
        f"GET /bench/1 HTTP/1.1\r\nHost: r\r\nConnection: close\r\nAuthorization: Bearer {bearer}\r\n\r\n".encode()
    )
    connections = []
    for _number in range(HELD):
        connections.append(socket.create_connection((HOST, variant.port), timeout=60))
        connections[-1].sendall(request)
    wait_until(lambda: client.state(usage=True).usage[A].held == HELD, f"{HELD} requests are held")
    return connections


def free_requests(variant: Variant, connections: list[socket.socket]) -> float:
    """Free the tenant; answers the milliseconds until the last request was answered."""
    assert variant.client is not None
    begin = time.monotonic()
    variant.client.release(MIGRATION, 1, [A])
    answers = [b"".join(iter(partial(connection.recv, 65536), b"")) for connection in connections]
    freed_ms = (time.monotonic() - begin) * 1000
    for connection in connections:
        connection.close()
    refused = [answer[:40] for answer in answers if not answer.startswith(b"HTTP/1.1 200")]
    if refused:
        raise SystemExit(f"{len(refused)} held requests were not answered 200, for example {refused[0]!r}.")
    return freed_ms


def measure_bystander(variant: Variant, rounds: int, seconds: int) -> dict[str, Any]:
    """A bystander's latency without and with held requests of another tenant, in turn."""
    held_bearer, other_bearer = (
        other_token("a", exp=int(time.time()) + LIFE_S),
        other_token("d", exp=int(time.time()) + LIFE_S),
    )
    calm, beside, freed, busy = list[list[float]](), list[list[float]](), list[float](), list[float]()
    asyncio.run(paced(variant.port, other_bearer, 1))
    for _round in range(rounds):
        calm.append(asyncio.run(paced(variant.port, other_bearer, seconds)))
        connections = hold_requests(variant, held_bearer)
        cpu = variant.cpu_s()
        beside.append(asyncio.run(paced(variant.port, other_bearer, seconds)))
        busy.append((variant.cpu_s() - cpu) / seconds)
        freed.append(free_requests(variant, connections))

    def quantiles(share: float) -> tuple[list[float], list[float]]:
        return tuple([values[int(len(values) * share)] for values in each] for each in (calm, beside))  # type: ignore[return-value]

    halves, hundredths = quantiles(0.5), quantiles(0.99)
    return {
        "held": HELD,
        "p50_ms": round(statistics.median(halves[0]), 2),
        "p50_beside_held_ms": round(statistics.median(halves[1]), 2),
        "p99_ms": round(statistics.median(hundredths[0]), 2),
        "p99_beside_held_ms": round(statistics.median(hundredths[1]), 2),
        "p99_ratio": ratio(hundredths[1], hundredths[0]),
        "router_cores_while_held": round(statistics.median(busy), 2),
        "freed_ms": round(statistics.median(freed)),
    }


def start(deployment: Deployment, variant: Variant, edit: Callable[[str], str]) -> None:
    made = deployment.copy_to(f"bench-{variant.name.replace(' ', '-')}", edit)
    home, variant.port = made.home, made.port
    variant.client = HAProxyRouter(variant.name, socket=str(home / "run" / "master.sock"))
    deployment.processes.start(variant.name, [str(home / "bin" / "zdm-router")]).wait_ready(
        partial(is_ready, variant.client)
    )


def run(rounds: int, seconds: int) -> dict[str, Any]:
    service_port, life = free_port(), int(time.time()) + LIFE_S
    changes = {
        "landscape_router_threads": 1,
        "landscape_router_hold_max": "1m",
        "landscape_router_held_limit": HELD,
        "landscape_router_server_idle": "1m",
        "landscape_router_backends": [{"name": "bench", "path": "/bench", "servers": [f"{HOST}:{service_port}"]}],
    }
    hs256, rs256 = other_token("d", exp=life), token("guid-d", exp=life)
    variants = [
        Variant("plain", "", hs256), Variant("token HS256", "12", hs256), Variant("router HS256", "all", hs256),
        Variant("token RS256", "12", rs256), Variant("router RS256", "all", rs256),
    ]  # fmt: skip
    with temporary_folder() as folder, deployed(folder, **changes) as deployment:
        deployment.fill_store()
        configuration = folder / "service.cfg"
        configuration.write_text(SERVICE.format(address=f"{HOST}:{service_port}"))
        deployment.processes.start("service", [str(haproxy().path), "-db", "-f", str(configuration)])
        for variant in variants:
            start(deployment, variant, variant.configuration)
        cost = measure_cost(variants, rounds, seconds)
        bystander = measure_bystander(variants[2], rounds, seconds)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return {"at": at, "machine": machine(), "rounds": rounds, "seconds": seconds, "cost": cost, "bystander": bystander}


def machine() -> dict[str, Any]:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "processor": found[1] if found else platform.machine(),
        "processors": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "haproxy": haproxy().version_text,
        "python": platform.python_version(),
        "kernel": platform.release(),
    }


def table(result: dict[str, Any]) -> str:
    facts, other = result["machine"], result["bystander"]
    lines = [
        (
            f"{facts['processor']}, {facts['processors']} processors, load {facts['load']}, HAProxy {facts['haproxy']}"
            " on one thread"
        ),
        f"medians of {result['rounds']} interleaved rounds of {result['seconds']} s",
        "",
        f"{'':14} {'requests/s':>10} {'against plain':>14} {'CPU/request':>12} {'against plain':>14}",
    ]
    lines += [
        f"{row['variant']:14} {row['requests_per_s']:>10,} {row['rate_ratio']:>14.2f} {row['cpu_us_per_request']:>9.1f}"
        f" µs {row['cpu_ratio']:>14.2f}"
        for row in result["cost"]
    ]
    lines += [
        "",
        f"a bystander at {BYSTANDER_RATE} requests/s: p50 {other['p50_ms']} ms, p99 {other['p99_ms']} ms",
        (
            f"beside {other['held']} held requests of another tenant: p50 {other['p50_beside_held_ms']} ms, p99"
            f" {other['p99_beside_held_ms']} ms (ratio {other['p99_ratio']}); the router uses"
            f" {other['router_cores_while_held']:.0%} of a processor"
        ),
        f"released, the {other['held']} requests are answered within {other['freed_ms']} ms",
    ]
    return "\n".join(lines)


def need_wrk() -> None:
    """:raises SystemExit: wrk is missing and can't be installed."""
    if shutil.which("wrk"):
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(
            ["apt-get", "install", "-y", "-q", "--no-install-recommends", "wrk"], stdout=subprocess.DEVNULL, check=False
        )
    if not shutil.which("wrk"):
        raise SystemExit("bench/router needs the load generator wrk (Debian: apt-get install wrk).")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench/router", description="What the landscape router costs, against a plain HAProxy."
    )
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default %(default)s)")
    parser.add_argument("--seconds", type=int, default=2, help="per measurement (default %(default)s)")
    arguments = parser.parse_args()
    need_wrk()
    result = run(arguments.rounds, arguments.seconds)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{table(result)}\n\nAll figures: {RESULT.relative_to(CHECKOUT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
