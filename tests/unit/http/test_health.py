# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Health endpoints, against a real HTTP server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.http import health
from ansible_collections.zdm.landscape.plugins.module_utils.http.health import (
    Endpoint,
    check,
    check_all,
    endpoints_of,
    slowest_answer_ms,
)

ANSWERS = {
    "/up": (200, b'{"status": "UP", "queue": {"backlog": 3}}'),
    "/down": (200, b'{"status": "DOWN"}'),
    "/error": (503, b'{"status": "UP"}'),
    "/text": (200, b"all is well"),
    "/binary": (200, b"\xff\xfe"),
    "/empty": (204, b""),
    "/login": (302, b'{"to": "uaa"}'),
}


class Handler(BaseHTTPRequestHandler):
    release = threading.Event()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/slow":
            self.release.wait(30)
        status, body = ANSWERS.get(path, (404, b""))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 302:
            self.send_header("Location", "/nowhere")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Be quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    Handler.release.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        Handler.release.set()
        running.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "assertion", "healthy", "message"),
    [
        ("/up", "status == 'UP'", True, "fulfils \"status == 'UP'\""),
        ("/up", "status == 'UP' && queue.backlog < `10`", True, "fulfils"),
        ("/up", "", True, "answers with status 200"),
        ("/empty", "", True, "answers with status 204"),
        ("/up", "queue.backlog < `3`", False, "it yields false"),
        ("/up", "status", False, 'it yields "UP"'),
        ("/up", "missing", False, "it yields null"),
        ("/up", "length(queue.backlog)", False, "can't be judged"),
        ("/down", "status == 'UP'", False, "it yields false"),
        ("/error", "status == 'UP'", False, "answers with status 503"),
        ("/nowhere", "", False, "answers with status 404"),
        ("/text", "status == 'UP'", False, "can't be judged"),
        ("/binary", "status == 'UP'", False, "can't be judged"),
    ],
)
def test_an_endpoint_is_judged(server: str, path: str, assertion: str, healthy: bool, message: str) -> None:
    verdict = check(Endpoint(server + path, assertion))
    assert (verdict.healthy, verdict.url) == (healthy, server + path)
    assert message in verdict.message
    assert bool(verdict.advice) is not healthy


@pytest.mark.parametrize(
    ("path", "status", "assertion", "healthy", "message"),
    [
        ("/error", 503, "", True, "answers with status 503"),
        ("/error", 503, "status == 'UP'", True, "fulfils"),
        ("/login", 302, "to == 'uaa'", True, "fulfils"),
        ("/up", 302, "", False, "answers with status 200, not 302"),
        ("/error", 200, "", False, "answers with status 503, not 200"),
    ],
)
def test_the_status_may_be_named(
    server: str, path: str, status: int, assertion: str, healthy: bool, message: str
) -> None:
    verdict = check(Endpoint(server + path, assertion, status))
    assert (verdict.healthy, message in verdict.message) == (healthy, True)


def test_a_silent_endpoint_is_unhealthy(server: str) -> None:
    verdict = check(Endpoint(f"{server}/slow", timeout_ms=200))
    assert not verdict.healthy
    assert verdict.status == 0
    assert "does not answer" in verdict.message


def test_a_closed_port_is_unhealthy() -> None:
    verdict = check(Endpoint("http://127.0.0.1:1/health"))
    assert not verdict.healthy
    assert "does not answer: " in verdict.message


def test_all_are_asked_in_the_order_given(server: str) -> None:
    found = check_all([Endpoint(f"{server}/down"), Endpoint(f"{server}/error"), Endpoint(f"{server}/up")])
    assert [(verdict.url.rpartition("/")[2], verdict.healthy) for verdict in found] == [
        ("down", True),
        ("error", False),
        ("up", True),
    ]
    assert check_all([]) == []


def test_a_secret_in_the_url_is_not_shown(server: str) -> None:
    url = server.replace("http://", "http://user:hunter2@") + "/error?token=hunter3"
    verdict = check(Endpoint(url))
    assert verdict.status == 503
    assert "hunter" not in f"{verdict}"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"url": "bills"}, r"health\[0\].url"),
        ({"url": "file:///etc/passwd"}, "is not a URL of http or https"),
        ({"url": "http://a/", "status": 99}, r"health\[0\].status 99 is no status of HTTP"),
        ({"url": "http://a/", "timeout": "5"}, r"health\[0\].timeout '5' is not a duration"),
        ({"url": "http://a/", "assert": "status =="}, r"health\[0\].assert 'status ==' is not a JMESPath expression"),
    ],
)
def test_a_wrong_endpoint_is_refused_before_it_is_asked(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        endpoints_of([entry])


def test_the_slowest_answer_counts_and_none_is_the_slowest(server: str) -> None:
    quick = Endpoint(f"{server}/up")
    assert slowest_answer_ms([]) is None
    assert 0 <= (slowest_answer_ms([quick]) or 0) < float("inf")
    late = slowest_answer_ms([quick, Endpoint(f"{server}/slow", timeout_ms=200)])
    assert late == slowest_answer_ms([quick, Endpoint(f"{server}/error")]) == float("inf")


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "jmespath", None)
    assert endpoints_of([{"url": "http://a/"}]) == [Endpoint("http://a/")]
    with pytest.raises(ZdmError, match="pip install jmespath"):
        endpoints_of([{"url": "http://a/", "assert": "a"}])
