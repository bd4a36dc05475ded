# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-ins themselves: descriptors are resolved as the deploy service does, the router answers as the gorouter
does.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from aiohttp import web
from ansible_collections.zdm.landscape.tests.cloud.archive import ContentError
from ansible_collections.zdm.landscape.tests.cloud.gorouter import Gorouter
from ansible_collections.zdm.landscape.tests.cloud.resolve import Resolved, Surroundings, merged
from ansible_collections.zdm.landscape.tests.cloud.runners import MainThread, NoRunner
from ansible_collections.zdm.landscape.tests.cloud.space import App, Space
from ansible_collections.zdm.landscape.tests.landscape.processes import PATIENCE_S

DESCRIPTOR: dict[str, Any] = {
    "ID": "shop",
    "version": "1.0.0",
    "modules": [
        {
            "name": "srv",
            "provides": [
                {"name": "api", "properties": {"url": "${default-url}", "live": "${default-live-url}"}},
                {
                    "name": "fixed",
                    "properties": {"route": "${routes/0/route}"},
                    "parameters": {"use-live-routes": True},
                },
            ],
            "parameters": {"routes": [{"route": "shop.example.com"}]},
            "requires": [{"name": "api", "properties": {"OWN": "~{url}"}}],
        },
        {"name": "job", "parameters": {"no-route": True}, "properties": {"HOST": "${default-host}", "N": 3}},
    ],
    "resources": [
        {
            "name": "reg",
            "requires": [{"name": "api"}, {"name": "fixed"}],
            "parameters": {"config": {"a": ["~{api/url}", "~{api/live}", "~{fixed/route}"]}},
        }
    ],
}


def resolved(descriptor: dict[str, Any], *, idle: bool) -> Resolved:
    return Resolved(descriptor, Surroundings("Org", "dev", "cf.example.com", "ci", idle))


def test_placeholders_in_both_phases() -> None:
    idle, live = resolved(DESCRIPTOR, idle=True), resolved(DESCRIPTOR, idle=False)
    assert idle.config("reg")["a"] == [
        "https://org-dev-srv-idle.cf.example.com",
        "https://org-dev-srv.cf.example.com",
        "shop.example.com",
    ]
    assert live.config("reg")["a"] == [
        "https://org-dev-srv.cf.example.com",
        "https://org-dev-srv.cf.example.com",
        "shop.example.com",
    ]
    assert (idle.hosts("srv"), live.hosts("srv"), idle.hosts("job")) == (
        ["shop-idle.example.com"],
        ["shop.example.com"],
        [],
    )
    assert idle.environment("job") == {"HOST": "org-dev-job-idle", "N": 3}
    assert idle.environment("srv")["OWN"].endswith("srv-idle.cf.example.com")


@pytest.mark.parametrize("text", ["${default-idle-url}", "${unknown}", "~{api/none}", "~{none/url}"])
def test_what_can_not_be_resolved_is_an_error(text: str) -> None:
    descriptor = {**DESCRIPTOR, "modules": [*DESCRIPTOR["modules"], {"name": "bad", "properties": {"X": text}}]}
    with pytest.raises(ContentError):
        resolved(descriptor, idle=False).environment("bad")


@pytest.mark.parametrize(
    ("parameters", "text", "idle", "live"),
    [
        ({}, r"\${tenant}.\~{x} ${default-host}", "${tenant}.~{x} org-dev-m-idle", "${tenant}.~{x} org-dev-m"),
        ({"domain": "my.org"}, "${default-uri} ${default-live-uri} ${domain} ${default-domain}",
         "org-dev-m-idle.my.org org-dev-m.my.org my.org cf.example.com",
         "org-dev-m.my.org org-dev-m.my.org my.org cf.example.com"),
        ({"route-path": "/x"}, "${default-url} ${default-live-url}",
         "https://org-dev-m-idle.cf.example.com/x https://org-dev-m.cf.example.com/x",
         "https://org-dev-m.cf.example.com/x https://org-dev-m.cf.example.com/x"),
        ({"host": "own"}, "${host} ${default-live-host}", "own org-dev-m", "own org-dev-m"),
        ({"secret": {"a": [1]}}, "${secret}", {"a": [1]}, {"a": [1]}),
    ],
)  # fmt: skip
def test_values_of_parameters(parameters: dict[str, Any], text: str, idle: Any, live: Any) -> None:
    descriptor = {**DESCRIPTOR, "modules": [{"name": "m", "parameters": parameters, "properties": {"X": text}}]}
    assert resolved(descriptor, idle=True).environment("m")["X"] == idle
    assert resolved(descriptor, idle=False).environment("m")["X"] == live


def test_live_routes_are_those_of_routes_alone() -> None:
    provided = {"name": "p", "parameters": {"use-live-routes": True}, "properties": {"url": "${default-url}"}}
    descriptor = {**DESCRIPTOR, "modules": [{"name": "m", "provides": [provided], "requires": [{"name": "p"}]}]}
    assert resolved(descriptor, idle=True).value("~{p/url}", "m") == "https://org-dev-m-idle.cf.example.com"


def test_secure_parameters_come_after_every_extension_descriptor() -> None:
    secure = {"ID": "__mta.secure", "extends": "shop", "parameters": {"a": "secret"}}
    other = {"ID": "one", "extends": "shop", "parameters": {"a": "plain", "b": 1}}
    assert merged(DESCRIPTOR, [secure, other])["parameters"] == {"a": "secret", "b": 1}


def test_extension_descriptors_are_merged_in_the_order_of_their_chain() -> None:
    first = {"ID": "one", "extends": "shop", "modules": [{"name": "job", "properties": {"N": 4, "M": 1}}]}
    second = {"ID": "two", "extends": "one", "modules": [{"name": "job", "properties": {"N": 5}}]}
    (job,) = [module for module in merged(DESCRIPTOR, [second, first])["modules"] if module["name"] == "job"]
    assert (job["properties"]["N"], job["properties"]["M"]) == (5, 1)
    with pytest.raises(ContentError):
        merged(DESCRIPTOR, [second])
    with pytest.raises(ContentError):
        merged(DESCRIPTOR, [{"ID": "x", "extends": "shop", "modules": [{"name": "none"}]}])


class Backend(BaseHTTPRequestHandler):
    """Answers with what it got; ``/slow`` waits for :attr:`go`."""

    protocol_version = "HTTP/1.1"
    go = threading.Event()

    def log_message(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/slow":
            self.go.wait(30)
        self.send_response(200)
        text = f"{self.path} {self.headers['Host']} {self.headers['X-Forwarded-Proto']} {body.decode()}".encode()
        self.send_header("Set-Cookie", "JSESSIONID=s; Path=/")
        self.send_header("Set-Cookie", "b=2")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


for _method in ("GET", "POST"):
    setattr(Backend, f"do_{_method}", Backend._any)


@contextmanager
def serving() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()


@pytest.fixture(name="backend")
def _backend() -> Iterator[int]:
    with serving() as port:
        yield port


def ask(
    router: Gorouter, path: str = "/", method: str = "GET", body: bytes | None = None, host: str = "a.apps.localhost"
) -> tuple[int, http.client.HTTPMessage, str]:
    connection = http.client.HTTPConnection("127.0.0.1", router.port, timeout=30)
    connection.request(method, path, body, {"Host": host})
    answer = connection.getresponse()
    result = answer.status, answer.headers, answer.read().decode()
    connection.close()
    return result


def test_the_router_leads_hosts_to_ports(backend: int) -> None:
    with Gorouter() as router:
        status, headers, text = ask(router)
        assert (status, headers["X-Cf-Routererror"]) == (404, "unknown_route")
        assert text == "404 Not Found: Requested route ('a.apps.localhost') does not exist.\n"
        router.switch({"a.apps.localhost": [backend], "b.apps.localhost": []})
        status, headers, text = ask(router, "/x%2Fy?q=a%20b", "POST", b"hello", host="A.apps.localhost:8443")
        assert (status, text) == (200, "/x%2Fy?q=a%20b A.apps.localhost:8443 http hello")
        assert headers.get_all("Set-Cookie") == [
            "JSESSIONID=s; Path=/",
            "b=2",
            f"__VCAP_ID__={backend}; Path=/; HttpOnly; SameSite=Strict",
        ]
        assert ask(router, host="b.apps.localhost")[1]["X-Cf-Routererror"] == "no_endpoints"
        router.switch({"a.apps.localhost": [1, backend]})
        assert {ask(router)[0] for _number in range(4)} == {200}


def test_applications_take_turns_by_route(backend: int) -> None:
    """A request that leads to another one, at another route, does not change whose turn it is at the first."""
    with serving() as other, Gorouter() as router:
        router.switch({f"{name}.apps.localhost": [backend, other] for name in "ab"})
        hosts = [f"{name}.apps.localhost" for name in "abababab"]
        found = [(host, str(ask(router, host=host)[1].get_all("Set-Cookie"))) for host in hosts]
        for host in hosts[:2]:
            turns = [f"__VCAP_ID__={backend};" in cookies for name, cookies in found if name == host]
            assert turns == [True, False, True, False]


def test_a_request_goes_to_no_application_that_was_taken_away_meanwhile(backend: int) -> None:
    class Switching(Gorouter):
        async def _forward(self, request: web.Request, port: int) -> web.StreamResponse:
            if port == 1:
                self._table = {"a.apps.localhost": []}
            return await super()._forward(request, port)

    with Switching() as router:
        router.switch({"a.apps.localhost": [1, backend]})
        assert ask(router)[1]["X-Cf-Routererror"] == "no_endpoints"


def test_requests_in_flight_are_waited_for(backend: int) -> None:
    Backend.go.clear()
    with Gorouter() as router:
        router.switch({"a.apps.localhost": [backend]})
        answers: list[int] = []
        thread = threading.Thread(target=lambda: answers.append(ask(router, "/slow")[0]))
        thread.start()
        while not router.in_flight(backend):
            thread.join(0.005)
        router.switch({})
        assert not router.drain(backend, 0.05)
        assert ask(router)[0] == 404
        Backend.go.set()
        assert router.drain(backend, PATIENCE_S)
        thread.join()
        assert (answers, router.in_flight(backend)) == ([200], 0)


def test_calls_are_handed_to_the_main_thread() -> None:
    class Named(NoRunner):
        def start(self, app_name: str, module_name: str, env: Any, content: bytes) -> int:
            if app_name == "bad":
                raise RuntimeError("no start")
            super().start(app_name, module_name, env, content)
            return 1 if threading.current_thread() is threading.main_thread() else 0

    runner = MainThread(Named())
    space = Space(runner=runner)
    for name in ("good", "bad"):
        space.create(App(name, name, "shop"))
    failed: list[str] = []

    def start() -> None:
        space.start("good")
        try:
            space.start("bad")
        except RuntimeError as error:
            failed.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    runner.work(until=lambda: not thread.is_alive())
    assert (space.apps["good"].port, failed) == (1, ["no start"])
