# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A version's way as an operator goes it, good days and bad ones one after the other, while users work and must not notice."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from ansible_collections.zdm.landscape.tests.cloud.browser import Browser, Page, Worker
from ansible_collections.zdm.landscape.tests.cloud.incidents import APPROUTER, MTX, REGISTRY, SRV
from ansible_collections.zdm.landscape.tests.cloud.platform import CANARY, MTA, PAGE, ROBOT, TENANTS, USERS, Platform
from ansible_collections.zdm.landscape.tests.landscape.processes import temporary_folder, wait_until

RED = {"module": SRV, "path": "/public/health", "assert": "version == 'red'", "retries": 1}


class Users:
    """People who read and change all the time, each with the session and the CSRF token of one login."""

    def __init__(self, platform: Platform, stack: ExitStack) -> None:
        self.versions: set[str] = set()
        self._browsers = [platform.browser(user) for user in USERS if user != ROBOT]
        tokens = [browser.csrf_token(PAGE) for browser in self._browsers if browser.login(PAGE)]
        self._sessions = self._cookies()
        self._workers = [stack.enter_context(Worker(browser, self._work(token))) for browser, token in zip(self._browsers, tokens, strict=True)]

    def _cookies(self) -> list[str]:
        return [browser.cookies[browser.host]["JSESSIONID"] for browser in self._browsers]

    def _work(self, token: str) -> Callable[[Browser], Page]:
        turn = itertools.count()

        def work(browser: Browser) -> Page:
            path = f"{PAGE}?wait_ms=100"
            page = browser.post(path, {"X-CSRF-Token": token}) if next(turn) % 2 else browser.get(path)
            if page.status == 200 and not page.wants_login:
                self.versions.add(json.loads(page.text)["version"])
            return page

        return work

    def wait(self, version: str) -> None:
        """Wait until everybody works with this version, and nobody with another."""
        self.versions.clear()
        before = [worker.pages for worker in self._workers]
        wait_until(lambda: all(worker.pages > pages + 2 for worker, pages in zip(self._workers, before, strict=True)), "everybody works")
        assert self.versions == {version}

    def assert_undisturbed(self) -> None:
        assert [worker.failures for worker in self._workers] == [[] for _worker in self._workers]
        assert self._cookies() == self._sessions


@pytest.fixture(scope="module", name="platform")
def _platform() -> Iterator[Platform]:
    with temporary_folder() as folder, Platform(folder) as running:
        yield running


@pytest.fixture(scope="module", name="users")
def _users(platform: Platform) -> Iterator[Users]:
    with ExitStack() as stack:
        yield Users(platform, stack)


def report(platform: Platform) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((platform.folder / "report.json").read_text())
    return found


def reporting(platform: Platform) -> tuple[str, str]:
    return "-e", f"mta_report={platform.folder / 'report.json'}"


def assert_no_secret_is_kept(platform: Platform) -> None:
    """Neither the store, the log, nor Ansible's own files hold the session secret."""
    kept = [path for folder in ("store", "log", "ansible") for path in (platform.folder / folder).rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if platform.session_secret.encode() in path.read_bytes()]


def test_a_wrong_description_is_refused_before_anything(platform: Platform) -> None:
    platform.configure(login={"module": APPROUTER, "pfad": PAGE})
    played = platform.play(platform.archive())
    assert played.code == 2
    assert "zdm_landscape.deploy.login.pfad is not known" in played.text, played.output
    assert not platform.space.apps


def test_an_unsafe_descriptor_is_refused_before_anything(platform: Platform) -> None:
    platform.configure()
    played = platform.play(platform.archive("0.9.0", safe=False))
    assert played.code == 2
    assert "mtx-api" in played.text
    assert not platform.space.apps


def test_a_first_deployment_is_live_at_once(platform: Platform) -> None:
    played = platform.play(platform.archive(), *reporting(platform))
    assert played.code == 0, played.output
    assert (report(platform)["outcome"], report(platform)["mta"]["version"]) == ("first_deployment", "1.0.0")
    platform.subscribe()
    assert_no_secret_is_kept(platform)


def test_a_red_smoke_test_aborts_and_live_is_as_it_was(platform: Platform, users: Users) -> None:
    users.wait("1.0.0")
    platform.configure(checks=[{**RED, "ca_file": str(platform.certificates.authority)}])
    played = platform.play(platform.archive("2.0.0"), *reporting(platform))
    assert played.code == 2
    assert "aborted before a tenant was upgraded, and the live version was not touched" in played.text
    assert f"{SRV}-idle" in played.text
    assert report(platform)["outcome"] == "aborted"
    assert platform.upgraded() == []
    users.wait("1.0.0")
    assert_no_secret_is_kept(platform)


def test_a_session_store_that_does_not_work_is_found_by_the_login(platform: Platform, users: Users) -> None:
    platform.configure()
    service = platform.space.services[f"{MTA}-session-management"]
    right, service.credentials = service.credentials, platform.redis.credentials("wrong")
    try:
        played = platform.play(platform.archive("2.0.0"))
    finally:
        service.credentials = right
    assert played.code == 2
    assert "Log in through the idle approuter" in played.text
    assert "The deployment was aborted" in played.text
    users.wait("1.0.0")


def test_a_canary_that_fails_stops_in_the_testing_phase(platform: Platform, users: Users) -> None:
    running = platform.begin(platform.archive("2.0.0"))
    platform.work(lambda: "entered testing phase" in running.tail(20_000))
    platform.apps.sidecar(f"{MTX}-idle").behave(fail_tenants=[CANARY])
    played = platform.end(running)
    assert played.code == 2
    assert "simulated HDI deployment failure" in played.text
    assert "waits in its testing phase; it was not aborted" in played.text
    assert platform.states()[-1] == "ACTION_REQUIRED"
    refused = platform.play(platform.archive("2.0.0"), "-e", "mta_state=aborted")
    assert refused.code == 2
    assert "may not fit their schema" in refused.text
    users.wait("1.0.0")


def test_killed_in_the_upgrade_the_same_command_goes_on_to_live(platform: Platform, users: Users) -> None:
    platform.apps.sidecar(f"{MTX}-idle").behave(slow_ms=1500)
    running = platform.begin(platform.archive("2.0.0"))
    platform.work(lambda: "upgrades 1 tenant" in running.tail(20_000))
    os.killpg(running.pid, signal.SIGKILL)
    assert platform.end(running).code == -signal.SIGKILL
    assert [path.stat().st_mode & 0o777 for path in (platform.folder / "log").glob("*.session/*")] == [0o600]
    platform.apps.sidecar(f"{MTX}-idle").behave()
    played = platform.play(platform.archive("2.0.0"), *reporting(platform))
    assert played.code == 0, played.output
    found = report(platform)
    assert (found["outcome"], found["previous"]["version"]) == ("deployed", "1.0.0")
    assert {tenant: state["status"] for tenant, state in found["tenants"].items()} == dict.fromkeys(TENANTS, "upgraded")
    assert platform.upgraded() == list(TENANTS)
    assert platform.states().count("FINISHED") == 2
    urls = platform.space.services[REGISTRY].config["appUrls"]
    assert urls["getDependencies"].startswith(f"https://{platform.host(MTX)}/")
    users.wait("2.0.0")


def test_what_is_live_already_is_only_tested(platform: Platform, users: Users) -> None:
    played = platform.play(platform.archive("2.0.0"), *reporting(platform))
    assert played.code == 0, played.output
    assert "changed=0" in played.text
    assert report(platform)["outcome"] == "unchanged"


def test_nobody_noticed(platform: Platform, users: Users) -> None:
    users.assert_undisturbed()
    assert_no_secret_is_kept(platform)
