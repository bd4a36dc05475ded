# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What customers see of a switch, in the order and at the pace of the real deploy service: an application router calls
its service by the address in its environment, which it reads when it starts.
"""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import OutcomeUnknown, Timeout, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.idle import IdleStop
from ansible_collections.zdm.landscape.tests.cloud.cloud import Cloud
from ansible_collections.zdm.landscape.tests.cloud.gorouter import Gorouter
from ansible_collections.zdm.landscape.tests.cloud.pace import REAL
from ansible_collections.zdm.landscape.tests.cloud.space import Space
from ansible_collections.zdm.landscape.tests.integration.deploy.cutting import CuttingProxy
from ansible_collections.zdm.landscape.tests.integration.deploy.kit import Bench
from ansible_collections.zdm.landscape.tests.integration.deploy.runs import LOGIN, killable
from ansible_collections.zdm.landscape.tests.landscape.processes import PATIENCE_S, wait_until

HOST = "127.0.0.1"
CUSTOMERS = 4
KILLS, KILL_SEED, CUT_SEED = 150, 20261201, 7


def get(port: int, host: str) -> tuple[int, str]:
    """Status and text of the gorouter's answer."""
    connection = HTTPConnection(HOST, port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/", headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


class Apps:
    """Runs each application as a small server; a module with a destination passes every request on to it."""

    def __init__(self) -> None:
        self._servers: dict[str, tuple[ThreadingHTTPServer, threading.Thread]] = {}

    def start(self, app_name: str, module_name: str, env: Mapping[str, str], content: bytes) -> int:
        del module_name, content
        destinations = json.loads(env.get("destinations", "[]"))

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, text = 200, "served"
                for destination in destinations:
                    place = urlsplit(destination["url"])
                    status, text = get(place.port or 80, place.netloc)
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_words: object) -> None:
                """Nobody reads it."""

        server = ThreadingHTTPServer((HOST, 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self._servers[app_name] = (server, thread)
        return int(server.server_port)

    def stop(self, app_name: str) -> None:
        server, thread = self._servers.pop(app_name, (None, None))
        if server and thread:
            server.shutdown()
            thread.join()
            server.server_close()

    def rename(self, old: str, new: str) -> None:
        if old in self._servers:
            self._servers[new] = self._servers.pop(old)

    def close(self) -> None:
        for name in list(self._servers):
            self.stop(name)


@dataclass
class Customers:
    """They ask all the time, and note what is no success."""

    port: int
    host: str
    answered: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Customers:
        self._threads = [threading.Thread(target=self._ask) for _number in range(CUSTOMERS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                status, text = get(self.port, self.host)
            except (OSError, HTTPException) as error:
                status, text = 0, repr(error)
            self.answered[status] += 1
            if status != 200:
                self.failures.append(f"{status} {text}")

    def wait_for(self, more: int) -> None:
        wanted = self.answered[200] + more
        wait_until(lambda: self.answered[200] >= wanted, f"{more} more answers")


@contextmanager
def at_work(folder: Path) -> Iterator[tuple[Bench, Customers]]:
    """Version 1.0.0 is live, and customers use it."""
    apps = Apps()
    try:
        with Gorouter() as router:
            space = Space(domain=f"apps.localhost:{router.port}", runner=apps, router=router, pace=REAL.scaled(0.02))
            with Cloud(folder, space) as cloud:
                bench = Bench(cloud, folder)
                bench.run("deployed", archive=bench.archive("1.0.0", bound))
                with Customers(router.port, f"my-org-dev-approuter.{space.domain}") as customers:
                    customers.wait_for(20)
                    yield bench, customers
    finally:
        apps.close()


def bound(descriptor: dict[str, Any]) -> None:
    """The application router has a service too, whose binding takes its time."""
    descriptor["modules"][1]["requires"].append({"name": "registry"})


def switches(bench: Bench, customers: Customers, count: int, requests: int) -> None:
    for number in range(1, count + 1):
        archive = bench.archive(f"1.{number}.0", bound)
        assert bench.run("deployed", archive=archive).outcome == "deployed"
        customers.wait_for(requests)


def test_customers_notice_no_switch(tmp_path: Path) -> None:
    with at_work(tmp_path) as (bench, customers):
        switches(bench, customers, 2, 50)
    assert customers.failures == []


def test_without_the_stop_they_are_led_to_what_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The accident that the stop is there for."""
    monkeypatch.setattr(IdleStop, "stop", lambda _self: True)
    with at_work(tmp_path) as (bench, customers):
        switches(bench, customers, 2, 50)
    assert any(text.startswith("404") and "-idle" in text for text in customers.failures), customers.failures[:3]


def one_operation_each(bench: Bench, before: int, versions: int) -> None:
    assert len(bench.operations()) - before == versions
    assert all(operation.state == "FINISHED" for operation in bench.operations())


@pytest.mark.thorough
def test_a_hundred_and_fifty_random_kills(tmp_path: Path) -> None:
    """One operation for each version, whatever was killed, and nobody notices."""
    dice, kills, number = random.Random(KILL_SEED), 0, 0
    with at_work(tmp_path) as (bench, customers), killable(bench) as runs:
        before = len(bench.operations())
        while kills < KILLS:
            number += 1
            archive = bench.archive(f"1.{number}.0", bound)
            for _again in range(3):
                kills += runs.killed_after(dice.randint(1, LOGIN + 40), dice.choice(("testing", "deployed")), archive)
            assert bench.run("deployed", archive=archive).outcome in ("deployed", "unchanged")
            assert bench.live_version() == f"1.{number}.0"
        one_operation_each(bench, before, number)
        customers.wait_for(50)
    assert customers.failures == []


@pytest.mark.thorough
@pytest.mark.parametrize("share", [0.25, 0.5])
def test_fifteen_runs_through_a_proxy_that_cuts_connections(tmp_path: Path, share: float) -> None:
    with at_work(tmp_path) as (bench, customers):
        before, port = len(bench.operations()), urlsplit(bench.cloud.url).port
        assert port
        with CuttingProxy(port, share, 6000, CUT_SEED) as proxy:
            url = bench.cloud.url.replace(f":{port}", f":{proxy.port}")
            options = {**bench.cloud.options(), "api": url, "deploy_service": url}
            for number in range(1, 16):
                archive = bench.archive(f"1.{number}.0", bound)
                reached = False
                while not reached:  # as a person does who is told to run the same command again
                    with suppress(Unreachable, OutcomeUnknown, Timeout):
                        bench.run("deployed", archive=archive, options=options, attempts=12)
                        reached = True
                assert bench.live_version() == f"1.{number}.0"
        one_operation_each(bench, before, 15)
        customers.wait_for(50)
    assert proxy.cuts > 100 * share
    assert customers.failures == []


@pytest.mark.thorough
def test_twenty_switches_under_five_thousand_requests(tmp_path: Path) -> None:
    with at_work(tmp_path) as (bench, customers):
        switches(bench, customers, 20, 250)
    assert customers.failures == []
    assert customers.answered[200] >= 5000
