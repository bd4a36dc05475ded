# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The robot's login at pages that real servers show seldom: other forms, relays, and whoever is broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.http import login as login_engine
from ansible_collections.zdm.landscape.plugins.module_utils.http.login import Result, log_in
from ansible_collections.zdm.landscape.tests.cloud.standin import Answer, Request, StandIn

Pages = Callable[[Request], Answer]
_FIELDS = (
    '<input type="hidden" name="token" value="a&amp;b"><input name="j_username"><input type="password"'
    ' name="j_password">'
)
FORM = f'<form action="/sso?x=1" method="post">{_FIELDS}</form>'


class Server(StandIn):
    """Answers as the test says."""

    pages: Pages

    def answer(self, request: Request) -> Answer:
        return self.pages(request)


@pytest.fixture(name="servers")
def _servers() -> Iterator[tuple[Server, Server]]:
    """The approuter and the identity provider."""
    with ExitStack() as stack:
        app, provider = stack.enter_context(Server()), stack.enter_context(Server())
        yield app, provider


def to(url: str) -> Answer:
    return Answer(302, None, {"location": url})


def login(app: Server, path: str = "/page") -> Result:
    return log_in(f"http://127.0.0.1:{app.port}{path}", "robot", "secret", timeout_ms=5000)


def approuter(app: Server, provider: Server, page: Answer | None = None, keeps: bool = True) -> Pages:
    """An approuter that redirects to the provider and knows the user after the callback."""
    known = []

    def pages(request: Request) -> Answer:
        if request.path == "/callback":
            known.append("robot")
            return to(f"http://127.0.0.1:{app.port}/page")
        if known:
            answer = page or Answer(200, "hello")
            if not keeps:
                known.clear()
            return answer
        return to(f"{provider.url}/authorize")

    return pages


def test_forms_and_relays_of_another_provider_are_passed(servers: tuple[Server, Server]) -> None:
    app, provider = servers
    app.pages = approuter(app, provider)
    relay = (
        f'<form action="{provider.url}/acs" method="POST"><input type="hidden" name="SAMLResponse" value="x"></form>'
    )

    def pages(request: Request) -> Answer:
        if request.path == "/sso":
            assert request.form == {"token": "a&b", "j_username": "robot", "j_password": "secret"}
            return Answer(200, relay)
        if request.path == "/acs":
            return to(f"http://127.0.0.1:{app.port}/callback?code=1")
        return Answer(200, FORM)

    provider.pages = pages
    found = login(app)
    assert found.logged_in, found
    assert [hop.status for hop in found.hops] == [302, 200, 200, 302, 302, 200, 200]


@pytest.mark.parametrize(
    ("page", "verdict"),
    [
        (Answer(503, {"error": "maintenance"}), "identity_provider_unreachable"),
        (Answer(400, {"error_description": "Invalid redirect"}), "identity_provider_refuses"),
        (Answer(200, "<p>Scan this code with your telephone</p>"), "form_unknown"),
        (Answer(200, FORM), "credentials_refused"),
    ],
)
def test_what_the_provider_does_wrong_is_not_the_applications_fault(
    servers: tuple[Server, Server], page: Answer, verdict: str
) -> None:
    app, provider = servers
    app.pages = approuter(app, provider)
    provider.pages = lambda request: page
    found = login(app)
    assert (found.verdict, found.logged_in) == (verdict, False)
    assert found.advice


def test_a_provider_that_is_away(servers: tuple[Server, Server]) -> None:
    app, _provider = servers
    app.pages = lambda request: to("http://127.0.0.1:1/authorize?client_id=x")
    assert login(app).verdict == "identity_provider_unreachable"


@pytest.mark.parametrize(
    ("page", "keeps", "verdict"),
    [
        (Answer(403, "Forbidden"), True, "forbidden"),
        (Answer(200, "hello"), False, "session_lost"),
        (Answer(502, "Bad gateway"), True, "app_down"),
        (Answer(401, "Unauthorized"), True, "session_lost"),
    ],
)
def test_what_is_wrong_after_the_login(servers: tuple[Server, Server], page: Answer, keeps: bool, verdict: str) -> None:
    app, provider = servers
    app.pages = approuter(app, provider, page, keeps)
    provider.pages = lambda request: to(f"http://127.0.0.1:{app.port}/callback?code=1")
    assert login(app).verdict == verdict


def test_a_callback_that_fails_and_a_login_without_end(
    servers: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login_engine, "_HOPS", 6)
    app, provider = servers
    provider.pages = lambda request: to(f"http://127.0.0.1:{app.port}/callback?code=1")
    app.pages = lambda request: Answer(500, "") if request.path == "/callback" else to(provider.url)
    assert login(app).verdict == "callback_failed"
    app.pages = lambda request: to(provider.url)
    assert login(app).verdict == "session_lost"


@pytest.mark.parametrize(
    ("page", "verdict"), [(Answer(200, "open to all"), "not_protected"), (Answer(404, "no such route"), "app_down")]
)
def test_the_first_page_tells_whether_there_is_anything_to_try(
    servers: tuple[Server, Server], page: Answer, verdict: str
) -> None:
    app, _provider = servers
    app.pages = lambda request: page
    assert login(app).verdict == verdict


def test_an_application_that_is_away() -> None:
    found = log_in("http://127.0.0.1:1/page", "robot", "secret")
    assert (found.verdict, [hop.status for hop in found.hops]) == ("app_down", [0])
