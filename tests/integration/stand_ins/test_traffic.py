# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users meet while a version is switched: on the real service a resume loses their requests, unless the idle
applications are stopped before it.
"""

from __future__ import annotations

import http.client
import io
import json
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
from ansible_collections.zdm.landscape.tests.cloud.cloud import Cloud
from ansible_collections.zdm.landscape.tests.cloud.gorouter import Gorouter
from ansible_collections.zdm.landscape.tests.cloud.pace import REAL, Pace
from ansible_collections.zdm.landscape.tests.cloud.space import Cut, Space
from ansible_collections.zdm.landscape.tests.cloud.standin import Answer, Request, StandIn
from ansible_collections.zdm.landscape.tests.integration.stand_ins.kit import Rest, Shop
from ansible_collections.zdm.landscape.tests.landscape.processes import wait_until

USERS = 4


class Srv(StandIn):
    """Answers with its version; ``/slow`` waits for :attr:`go`."""

    go = threading.Event()

    def __init__(self, version: str) -> None:
        super().__init__()
        self.version = version

    def answer(self, request: Request) -> Answer:
        if request.path == "/slow":
            self.go.wait(60)
        return Answer(200, self.version)


class Web(StandIn):
    """Leads every request to the destination that its environment names, through the router, as an approuter does."""

    def __init__(self, destination: str) -> None:
        super().__init__()
        self._to = urlsplit(destination)

    def answer(self, request: Request) -> Answer:
        status, text = ask(int(self._to.port or 0), str(self._to.netloc), request.path)
        return Answer(status, text)


class Apps:
    """Runs the applications as servers of this process."""

    def __init__(self, stack: ExitStack) -> None:
        self.running: dict[str, StandIn] = {}
        self._stack = stack

    def start(self, app_name: str, module_name: str, env: Mapping[str, str], content: bytes) -> int:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            version = str(json.loads(packed.read("package.json"))["version"])
        app = Srv(version) if module_name == "srv" else Web(json.loads(env["destinations"])[0]["url"])
        self.running[app_name] = app.__enter__()
        self._stack.callback(self.stop, app_name)
        return app.port

    def stop(self, app_name: str) -> None:
        app = self.running.pop(app_name, None)
        if app is not None:
            app.__exit__(None, None, None)

    def rename(self, old: str, new: str) -> None:
        if old in self.running:
            self.running[new] = self.running.pop(old)


def ask(port: int, host: str, path: str = "/") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


class Load:
    """Users who ask one thing after the other, and repeat nothing."""

    def __init__(self, port: int, host: str) -> None:
        self.answers: list[tuple[int, str]] = []
        self._port, self._host, self._over = port, host, threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _user in range(USERS)]

    def _work(self) -> None:
        while not self._over.is_set():
            try:
                self.answers.append(ask(self._port, self._host))
            except (OSError, http.client.HTTPException) as error:
                self.answers.append((0, repr(error)))

    def more(self, number: int = 10 * USERS) -> None:
        """Wait for some more answers."""
        wanted = len(self.answers) + number
        wait_until(lambda: len(self.answers) >= wanted, "users are answered")

    @property
    def failures(self) -> list[tuple[int, str]]:
        return [answer for answer in self.answers if answer[0] != 200]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture(name="router")
def _router() -> Iterator[Gorouter]:
    with Gorouter() as router:
        yield router


@pytest.fixture(name="cloud")
def _cloud(tmp_path: Path, router: Gorouter) -> Iterator[Cloud]:
    with ExitStack() as stack:
        space = Space(domain=f"apps.localhost:{router.port}", runner=Apps(stack), router=router)
        yield stack.enter_context(Cloud(tmp_path, space))


@pytest.fixture(name="load")
def _load(rest: Rest, shop: Shop, router: Gorouter) -> Iterator[Load]:
    """Users of version 1.0.0."""
    shop.deploy("1.0.0")
    rest.cloud.space.pace = REAL.scaled(0.01)
    with Load(router.port, f"my-org-dev-web.{rest.cloud.space.domain}") as load:
        load.more()
        yield load


def switched(rest: Rest, shop: Shop, load: Load, version: str, *, stop: bool) -> None:
    """Deploy a version and resume, with users at work in every moment of the consumer's switch."""
    operation = shop.testing(version)
    if stop:
        for name in ("web-idle", "srv-idle"):
            rest.stop(name)
    load.more()
    moments = [f"{step} web" for step in ("switch", "rename", "start", "routes")]
    reached = {moment: rest.cloud.faults.hold_at(moment) for moment in [*moments, "bind web-idle", "delete live"]}
    assert rest.act(operation, "resume") == 202
    for moment in ("switch web", "bind web-idle", "rename web", "start web", "routes web", "delete live"):
        assert reached[moment].wait(60), moment
        load.more()
        rest.cloud.faults.release(moment)
    rest.wait(operation, "FINISHED")
    load.more()


def test_a_resume_of_running_applications_loses_requests(rest: Rest, shop: Shop, load: Load) -> None:
    """The consumer gets live traffic while it still asks for the provider's idle route, which is gone."""
    switched(rest, shop, load, "2.0.0", stop=False)
    assert load.failures
    assert {status for status, _text in load.failures} == {404}
    assert all("my-org-dev-srv-idle.apps.localhost') does not exist" in text for _status, text in load.failures)
    assert load.answers[-1] == (200, "2.0.0")


def test_a_resume_of_stopped_applications_loses_none(rest: Rest, shop: Shop, load: Load) -> None:
    for version in ("2.0.0", "3.0.0"):
        switched(rest, shop, load, version, stop=True)
        assert load.answers[-1] == (200, version)
    assert (load.failures, rest.cloud.space.cuts) == ([], [])


def test_dependency_aware_stop_order_leads_no_traffic_to_deleted_routes(rest: Rest, shop: Shop, load: Load) -> None:
    operation = shop.testing("2.0.0", stopOrderIsDependencyAware="true")
    rest.act(operation, "resume")
    rest.wait(operation, "FINISHED")
    load.more()
    assert load.failures == []


def test_an_application_that_is_stopped_too_early_is_told(rest: Rest, shop: Shop, router: Gorouter) -> None:
    shop.deploy("1.0.0")
    rest.cloud.space.pace, rest.cloud.space.drain_s = Pace(), 0.01
    host = f"my-org-dev-srv.{rest.cloud.space.domain}"
    answers: list[Any] = []
    Srv.go.clear()
    thread = threading.Thread(target=lambda: answers.append(ask(router.port, host, "/slow")))
    thread.start()
    port = rest.cloud.space.apps["srv"].port
    wait_until(lambda: router.in_flight(port), "the request is in flight")
    rest.stop("srv")
    assert rest.cloud.space.cuts == [Cut("srv", 1)]
    Srv.go.set()
    thread.join()
