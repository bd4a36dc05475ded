# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sessions of logged-in users while the route moves from the live approuter to the idle one, and logins of a robot:
real approuters, real Redis.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.zdm.landscape.plugins.modules import approuter_login
from ansible_collections.zdm.landscape.tests.cloud.approuter import Approuter
from ansible_collections.zdm.landscape.tests.cloud.browser import Browser, LoginFailed, Page, Route, Worker
from ansible_collections.zdm.landscape.tests.integration.sap.kit import (
    PASSWORD,
    SECRET,
    USERS,
    Site,
    running_site,
    sessions,
)
from ansible_collections.zdm.landscape.tests.landscape.processes import free_port, wait_until

PAGE = "/api/incidents"
TENANTS = "^(.*)-incidents.localhost"
ENOUGH = 12
"""Requests of every user after the switch."""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running_site() as there:
        yield there


@pytest.fixture(scope="module")
def approuters(site: Site) -> dict[str, Approuter]:
    """All of them start at the same time."""
    wrong = site.redis.credentials("wrong-password")
    down = {**site.redis.credentials(), "port": free_port()}
    started = {
        "live": site.approuter("live", sessions=sessions()),
        "idle": site.approuter("idle", sessions=sessions()),
        "other-secret": site.approuter("other-secret-idle", sessions=sessions("another" + SECRET)),
        "memory-live": site.approuter("memory-live"),
        "memory-idle": site.approuter("memory-idle"),
        "wrong-password": site.approuter("wrong-password", sessions=sessions(), redis=wrong),
        "tenants-live": site.approuter("tenants-live", sessions=sessions(), tenant_host=TENANTS),
        "tenants-idle": site.approuter("tenants-idle", sessions=sessions(), tenant_host=TENANTS),
        "redis-down": site.approuter("redis-down", sessions=sessions(), redis=down),
    }
    for approuter in started.values():
        approuter.wait()
    return started


def _work(token: str) -> Callable[[Browser], Page]:
    """A user who reads and changes, in turn, with the CSRF token that was fetched before."""
    turn = iter(range(10**9))

    def request(browser: Browser) -> Page:
        path = f"{PAGE}?wait_ms=30"
        return browser.post(path, {"X-CSRF-Token": token}) if next(turn) % 2 else browser.get(path)

    return request


def test_sessions_and_csrf_tokens_survive_the_switch_without_one_failed_request(
    site: Site, approuters: dict[str, Approuter]
) -> None:
    live, idle = approuters["live"], approuters["idle"]
    route = Route(live.port)
    browsers = [site.browser(route, user) for user in USERS]
    late = site.browser(route, "carla@example.com")
    tokens = []
    for browser in browsers:
        page = browser.login(PAGE)
        assert json.loads(page.text) == {
            "version": "1.0.0",
            "method": "GET",
            "path": PAGE,
            "user": browser.user,
            "zone": site.xsuaa.zones["provider"],
        }
        tokens.append(browser.csrf_token(PAGE))
    assert all(tokens)
    cookies = [browser.cookies[browser.host]["JSESSIONID"] for browser in browsers]
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker(browser, _work(token))) for browser, token in zip(browsers, tokens, strict=True)
        ]
        wait_until(lambda: min(worker.pages for worker in workers) >= 3, "everybody works on live")
        leads_to_login = late.get(PAGE)
        wait_until(lambda: route.flying(live.port) >= 2, "requests are in flight")
        route.move(idle.port)
        route.drain(live.port)
        live.stop()
        before = [worker.pages for worker in workers]
        wait_until(
            lambda: all(worker.pages >= pages + ENOUGH for worker, pages in zip(workers, before, strict=True)),
            "everybody works on idle",
        )
    assert [worker.failures for worker in workers] == [[] for _worker in workers]
    assert route.served[idle.port] >= ENOUGH * len(workers)
    assert [browser.cookies[browser.host]["JSESSIONID"] for browser in browsers] == cookies
    assert json.loads(browsers[0].post(PAGE, {"X-CSRF-Token": tokens[0]}).text)["version"] == "2.0.0"
    assert leads_to_login.wants_login
    assert json.loads(late.login(PAGE, leads_to_login).text)["user"] == late.user


def test_every_tenant_logs_in_at_its_own_zone_and_stays(site: Site, approuters: dict[str, Approuter]) -> None:
    route = Route(approuters["tenants-live"].port)
    browsers = [
        Browser(f"{tenant}-incidents.localhost", route, site.certificates.authority, "alice@example.com", PASSWORD)
        for tenant in ("t1", "t2")
    ]
    assert [json.loads(browser.login(PAGE).text)["zone"] for browser in browsers] == ["t1", "t2"]
    route.move(approuters["tenants-idle"].port)
    assert [json.loads(browser.get(PAGE).text) for browser in browsers] == [
        {"version": "2.0.0", "method": "GET", "path": PAGE, "user": "alice@example.com", "zone": zone}
        for zone in ("t1", "t2")
    ]


def test_sessions_in_memory_are_lost_at_the_switch(site: Site, approuters: dict[str, Approuter]) -> None:
    route = Route(approuters["memory-live"].port)
    browser = site.browser(route, "alice@example.com")
    browser.login(PAGE)
    token = browser.csrf_token(PAGE)
    assert browser.post(PAGE, {"X-CSRF-Token": token}).status == 200
    route.move(approuters["memory-idle"].port)
    assert browser.ajax(PAGE).status == 401
    assert browser.post(PAGE, {"X-CSRF-Token": token}).status in (401, 403)
    assert browser.get(PAGE).wants_login
    assert json.loads(browser.login(PAGE).text)["version"] == "2.0.0", "the XSUAA still knows the user: no form"
    assert browser.post(PAGE, {"X-CSRF-Token": token}).status == 403, "the Forbidden that the page of the user meets"


def test_another_secret_loses_the_sessions(site: Site, approuters: dict[str, Approuter]) -> None:
    route = Route(approuters["idle"].port)
    browser = site.browser(route, "bob@example.com")
    browser.login(PAGE)
    route.move(approuters["other-secret"].port)
    assert browser.ajax(PAGE).status == 401
    assert browser.get(PAGE).wants_login


@pytest.mark.parametrize("name", ["wrong-password", "redis-down"])
def test_an_approuter_without_its_redis_looks_healthy_and_nobody_can_log_in(
    site: Site, approuters: dict[str, Approuter], name: str
) -> None:
    browser = site.browser(Route(approuters[name].port), "alice@example.com")
    assert browser.get("/public/health").status == 200
    with pytest.raises(LoginFailed, match="401"):
        browser.login(PAGE)


@pytest.fixture
def log_in(
    site: Site, approuters: dict[str, Approuter], capsys: pytest.CaptureFixture[str]
) -> Callable[..., dict[str, Any]]:
    """Run approuter_login against one of the approuters; the result is what it prints."""

    def call(name: str, **args: Any) -> dict[str, Any]:
        # Cookies know no ports: the approuter has another name than the XSUAA.
        url = f"http://127.0.0.1:{approuters[name].port}"
        given = {
            "url": url,
            "path": PAGE,
            "username": "robot@example.com",
            "password": PASSWORD,
            "ca_file": str(site.certificates.authority),
            **args,
        }
        with patch_module_args(given), pytest.raises(SystemExit):
            approuter_login.main()
        output = capsys.readouterr().out
        assert PASSWORD not in output
        result: dict[str, Any] = json.loads(output)
        return result

    return call


def test_a_robot_logs_in(log_in: Callable[..., dict[str, Any]]) -> None:
    found = log_in("idle")
    assert (found["changed"], found["logged_in"], found["verdict"], found["advice"]) == (False, True, "logged_in", "")
    assert [(hop["method"], hop["url"].rpartition("/")[2], hop["status"]) for hop in found["hops"]] == [
        ("GET", "incidents", 200),
        ("GET", "authorize", 302),
        ("GET", "login", 200),
        ("POST", "login.do", 302),
        ("GET", "authorize", 302),
        ("GET", "callback", 302),
        ("GET", "incidents", 200),
        ("GET", "incidents", 200),
    ]


@pytest.mark.parametrize("name", ["wrong-password", "redis-down"])
def test_a_robot_finds_the_broken_session_store(log_in: Callable[..., dict[str, Any]], name: str) -> None:
    found = log_in(name)
    assert (found["failed"], found["logged_in"], found["verdict"]) == (True, False, "session_lost")
    assert "accepted the user" in found["msg"]
    assert "check the Redis binding" in found["msg"]
    assert found["hops"][-1]["status"] == 401


def test_a_robot_with_a_wrong_password_is_told_apart(log_in: Callable[..., dict[str, Any]]) -> None:
    found = log_in("idle", password="wrong-" + PASSWORD[::-1], fail_when_broken=False)
    assert ("failed" in found, found["verdict"]) == (False, "credentials_refused")


def test_a_path_that_needs_no_login_proves_nothing(log_in: Callable[..., dict[str, Any]]) -> None:
    assert log_in("idle", path="/public/health", fail_when_broken=False)["verdict"] == "not_protected"
