# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo of a deployment: its result, what it counts as a lost session, what it shows of a playbook, and what it says
is missing.
"""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.zdm.landscape.tests.cloud import demo
from ansible_collections.zdm.landscape.tests.cloud.browser import Browser, Page
from ansible_collections.zdm.landscape.tests.cloud.demo_report import BAD, FIRST, NEXT, STATES, Outcome, summary
from ansible_collections.zdm.landscape.tests.cloud.platform import TENANTS
from ansible_collections.zdm.landscape.tests.cloud.playbook_output import Shown
from ansible_collections.zdm.landscape.tests.cloud.users import User
from ansible_collections.zdm.landscape.tests.landscape import debian
from ansible_collections.zdm.landscape.tests.landscape.processes import ServerError

LEADS_TO_LOGIN = Page("", 200, {}, '<script>document.cookie="fragmentAfterLogin="</script>')


def outcome(**changes: Any) -> Outcome:
    facts: dict[str, Any] = {
        "requests": 1200,
        "failures": [],
        "lost_sessions": 0,
        "sessions": 4,
        "slowest_ms": 612.0,
        "answered": {FIRST: 700, NEXT: 500},
        "upgraded": list(TENANTS),
        "states": STATES,
        "seconds": {FIRST: 20.0, NEXT: 40.0, BAD: 15.0},
        "versions": {},
    }
    return Outcome(**{**facts, **changes})


def test_the_result_for_a_machine_and_for_a_person() -> None:
    found = outcome().as_dict()
    wanted = {
        "ok": True,
        "requests": 1200,
        "failed_requests": 0,
        "lost_sessions": 0,
        "tenants_upgraded": 3,
        "operation_states": STATES,
    }
    assert {key: found[key] for key in wanted} == wanted
    assert json.loads(json.dumps(found)) == found
    assert "Nobody noticed." in summary(outcome())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"failures": ["alice@example.com: 502 Bad Gateway"]}, "! alice@example.com: 502 Bad Gateway"),
        ({"lost_sessions": 1}, "sessions were lost 1 times"),
        ({"upgraded": ["t1"]}, "upgraded tenants are t1, not t1, t2, t3"),
        ({"answered": {FIRST: 700, NEXT: 500, BAD: 1}}, "answered by 1.0.0, 2.0.0, 3.0.0"),
        (
            {"states": {**STATES, BAD: STATES[NEXT]}},
            "the operation of 3.0.0 was RUNNING → ACTION_REQUIRED → RUNNING → FINISHED, not",
        ),
        ({"states": {}}, "the operation of 2.0.0 was not started"),
    ],
)
def test_what_went_wrong_is_no_success(changes: dict[str, Any], said: str) -> None:
    harmed = outcome(**changes)
    assert not harmed.ok
    assert not harmed.as_dict()["ok"]
    assert "THIS WENT WRONG" in summary(harmed)
    assert said in summary(harmed)


class Answers(Browser):
    """A browser that gets these answers; its logins work."""

    def __init__(self, *pages: Page) -> None:
        self.pages, self.tokens, self.logins = list(pages), [], 0

    def get(self, path: str, headers: Any = None) -> Page:
        return self.pages.pop(0)

    def post(self, path: str, headers: Any = None) -> Page:
        self.tokens.append(dict(headers or {})["X-CSRF-Token"])
        return self.pages.pop(0)

    def login(self, path: str, begun: Page | None = None) -> Page:
        self.logins += 1
        return Page("", 200, {}, "")

    def csrf_token(self, path: str) -> str:
        return f"token {self.logins}"


@pytest.mark.parametrize(
    "lost", [LEADS_TO_LOGIN, Page("", 401, {}, ""), Page("", 403, {"x-csrf-token": "Required"}, "")]
)
def test_who_has_to_log_in_again_has_lost_the_session_once(lost: Page) -> None:
    fine = Page("", 200, {}, json.dumps({"version": NEXT}))
    browser = Answers(fine, lost, fine, fine)
    user = User(browser, "/api")
    user.log_in()
    assert [user.work(browser) for _request in range(4)][1] is lost
    assert (user.requests, user.lost_sessions, user.answered) == (4, 1, {NEXT: 3})
    assert browser.tokens == ["token 1", "token 2"]


def test_a_failed_request_is_no_lost_session_and_a_foreign_page_no_answer() -> None:
    browser = Answers(Page("", 502, {}, ""), Page("", 200, {}, "<html>"))
    user = User(browser, "/api")
    assert user.work(browser).status == 502
    with pytest.raises(http.client.HTTPException, match="no answer of the application: <html>"):
        user.work(browser)
    assert (user.requests, user.lost_sessions, user.answered) == (2, 0, {})


def test_of_a_playbook_the_tasks_that_did_something_are_shown() -> None:
    output = """
PLAY [Deploy an MTA blue-green] ************************************************

TASK [zdm.landscape.mta_blue_green : Abort] ************************************
skipping: [localhost]

TASK [zdm.landscape.mta_blue_green : Prepare] **********************************
included: prepare.yml for localhost

TASK [zdm.landscape.mta_blue_green : Bring the new version to its testing phase] ***
  incidents: Uploading incidents_3.0.0.mtar
changed: [localhost]

TASK [zdm.landscape.mta_blue_green : Check the idle version] *******************
ok: [localhost] => (item=approuter/public/health)
FAILED - RETRYING: [localhost]: zdm.landscape.mta_blue_green : Check the idle version (0 retries left).
[ERROR]: Task failed: Module failed: It yields false.
Origin: check.yml:2:3

1 ---
2 - name: Check the version
    ^ column 3

failed: [localhost] (item=srv/public/health) => {"msg": "It yields false."}

TASK [zdm.landscape.mta_blue_green : Say where the deployment is] **************
ok: [localhost] => {
    "msg": "incidents 3.0.0: aborted"
}
"""
    shown = Shown()
    assert [line for text in output.splitlines() for line in shown.line(text)] == [
        "Bring the new version to its testing phase",
        "  incidents: Uploading incidents_3.0.0.mtar",
        "Check the idle version",
        "  ok: approuter/public/health",
        "  ! It yields false.",
        "Say where the deployment is",
        "  incidents 3.0.0: aborted",
    ]


def test_all_that_is_missing_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_node() -> None:
        raise ServerError("npm is missing. Debian: apt-get install npm.")

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(debian.SERVERS, "redis-server", ("redis-server", ()))
    monkeypatch.setattr(debian.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(demo, "ensure_node", no_node)
    with pytest.raises(ServerError) as raised:
        demo.require_programs()
    assert str(raised.value).splitlines() == [
        "Missing: redis-server. Install with: apt-get install redis-server (Debian's names).",
        "npm is missing. Debian: apt-get install npm.",
    ]
