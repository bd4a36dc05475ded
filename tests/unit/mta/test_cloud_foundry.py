# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cloud Foundry without a server: token sources, URLs, what an answer says, routes and leftovers."""

from __future__ import annotations

import base64
import json
import time
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.http.tokens import GivenToken, claims
from ansible_collections.zdm.landscape.plugins.module_utils.http.web import Answer, Web, retry_after_s, shown
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud import tokens as cloud_tokens
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.apps import (
    App,
    Route,
    leftovers_of,
    routes_by_module,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.cloud_foundry import deploy_service_url, md5_label
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.deploy_service import instant
from hypothesis import given
from hypothesis import strategies as st


def token(**said: Any) -> str:
    body = base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")
    return f"head.{body}.signature"


def test_the_deploy_service_follows_from_the_api() -> None:
    assert (
        deploy_service_url("https://api.cf.us10.hana.ondemand.com")
        == "https://deploy-service.cf.us10.hana.ondemand.com"
    )
    with pytest.raises(InputError, match="cloud_foundry.deploy_service"):
        deploy_service_url("https://localhost")


def test_labels_are_md5_in_lower_case() -> None:
    assert md5_label("incidents") == "347171b02bf61394ae614eb8db9e056c"


@pytest.mark.parametrize(
    ("said", "user"),
    [
        ({"user_name": "ci@example.com", "client_id": "cf"}, "ci@example.com"),
        ({"client_id": "deployer"}, ""),
        ({}, ""),
    ],
)
def test_the_user_of_a_token(said: dict[str, str], user: str) -> None:
    assert cloud_tokens.user_of(token(**said)) == user


@given(st.text())
def test_an_opaque_token_says_nothing(text: str) -> None:
    assert isinstance(claims(text), dict)
    assert claims(f"a.{text}.b") is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token": "x", "username": "u", "password": "p"}, "has token and username"),
        ({"client_id": "x"}, "client_id and cloud_foundry.client_secret belong together"),
        ({"password": "p"}, "username and cloud_foundry.password belong together"),
        ({"origin": "o"}, "origin is given without username"),
        ({"passcode": "p", "assertion": "a"}, "has assertion and passcode"),
        ({"client_id": "x", "client_secret": "y"}, "its token is no user's"),
    ],
)
def test_sources_that_contradict_each_other(options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        cloud_tokens.chosen_source(options)


@pytest.mark.parametrize(
    "said", [{"client_id": "deployer"}, {"sub": "deployer", "user_id": ""}], ids=["client", "empty user"]
)
def test_a_clients_token_is_refused_and_the_ways_of_users_are_named(said: dict[str, str]) -> None:
    with pytest.raises(InputError, match="of client deployer, and of no user") as raised:
        cloud_tokens.check_user(token(**said))
    assert all(way in raised.value.advice for way in ("origin", "passcode", "assertion", "cf CLI"))
    cloud_tokens.check_user(token(user_id="1", client_id="cf"))
    cloud_tokens.check_user("opaque")


def test_the_login_of_the_cli_is_the_default_and_must_be_there(tmp_path: Path) -> None:
    assert cloud_tokens.chosen_source({}) == "cf_home"
    with pytest.raises(InputError, match="does not exist") as raised:
        cloud_tokens.read_login(str(tmp_path))
    assert "cf login" in raised.value.advice
    (tmp_path / ".cf").mkdir()
    for text in ("{", "[]", '{"Target": ""}'):
        (tmp_path / ".cf" / "config.json").write_text(text)
        with pytest.raises(InputError):
            cloud_tokens.read_login(str(tmp_path))


def test_a_token_of_the_cli_that_is_valid_is_used(tmp_path: Path) -> None:
    (tmp_path / ".cf").mkdir()
    valid = token(exp=time.time() + 600)
    (tmp_path / ".cf" / "config.json").write_text(
        json.dumps({"Target": "https://api.x.example", "AccessToken": f"bearer {valid}"})
    )
    login = cloud_tokens.CliLogin(Web(), str(tmp_path))
    assert login.token() == valid
    with pytest.raises(InputError, match="no refresh token"):
        login.renewed()


def test_a_given_token_can_not_be_renewed() -> None:
    assert (GivenToken("t").token(), GivenToken("t").renewed()) == ("t", "")


def answer(body: bytes, **headers: str) -> Answer:
    message = Message()
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    return Answer("https://user:secret@host/path?q=secret", 429, message, body)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"errors": [{"code": 1, "title": "T", "detail": "why"}]}', "why"),
        (b'{"error": "unauthorized", "error_description": "Bad credentials"}', "Bad credentials"),
        (b"<html>\n busy </html>", "<html> busy </html>"),
        (b'"text"', "text"),
        (b'{"error": {"code": "500", "message": "CAP says so"}}', "CAP says so"),
        (b'{"status": 400}', '{"status": 400}'),
    ],
)
def test_the_reason_in_an_answer(body: bytes, text: str) -> None:
    assert answer(body).reason == text


def test_answers_that_are_no_json_and_urls_without_secrets() -> None:
    with pytest.raises(Unreachable, match="no JSON") as raised:
        answer(b"<html>").json()
    assert "secret" not in str(raised.value)
    assert shown("https://user:secret@host:1/path?q=secret") == "https://host:1/path"


def test_the_pause_that_an_answer_asks_for() -> None:
    assert retry_after_s(answer(b"", Retry_After="7"), 1.0) == 7
    assert retry_after_s(answer(b"", Retry_After="9999"), 1.0) == 120
    assert retry_after_s(answer(b"", Retry_After="Sun, 22 Nov 2026 08:00:00 GMT"), 1.5) == 1.5


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-21T23:00:00.123Z[UTC]",
        "2026-11-21T23:00:00.123Z",
        "2026-11-22T00:00:00.123+01:00",
        "2026-11-21T23:00:00.123",
    ],
)
def test_times_of_the_service(text: str) -> None:
    found = instant(text)
    assert found is not None
    assert found.isoformat().replace("+01:00", "")[17:23] == "00.123"
    assert instant("yesterday") is None


def app(name: str, *hosts: str, module: str = "", shared: str = "") -> App:
    routes = tuple(
        Route(host, host, f"https://{host}.example.com", frozenset({name, *([shared] if shared else [])}))
        for host in hosts
    )
    return App(name, name, module or name.removesuffix("-idle").removesuffix("-live"), "STARTED", routes)


def test_routes_are_live_or_idle() -> None:
    apps = [app("web-live", "web"), app("web-idle", "web-idle", "custom"), app("job-idle"), app("new-idle", "new")]
    routes = routes_by_module(apps)
    assert routes["web"] == {
        "app": "web",
        "live": ["https://web.example.com"],
        "idle": ["https://web-idle.example.com", "https://custom.example.com"],
    }
    assert routes["job"] == {"app": "job", "live": [], "idle": []}
    assert routes["new"]["live"] == ["https://new.example.com"]


@pytest.mark.parametrize(
    ("apps", "removable"),
    [
        ([app("web", "web")], []),
        ([app("web-live", "web"), app("web-idle", "web-idle")], ["web-idle"]),
        ([app("web-idle", "web-idle")], []),
        ([app("web-live", "web"), app("web-idle", "web-idle", "web")], []),
        ([app("web-live", "web"), app("web-idle", "web-idle", shared="other")], []),
        ([app("web", "web"), app("web-live")], ["web-live"]),
        ([app("web", "web"), app("web-live", "old")], []),
        ([app("job-live"), app("job-idle")], ["job-idle"]),
        ([app("web-live", "web"), app("api-idle", "api-idle")], []),
    ],
)
def test_only_what_serves_nobody_may_be_removed(apps: list[App], removable: list[str]) -> None:
    assert [leftover.app.name for leftover in leftovers_of(apps) if not leftover.kept] == removable


names = st.builds(
    lambda base, suffix: base + suffix, st.sampled_from(["web", "api"]), st.sampled_from(["", "-live", "-idle"])
)


@given(
    st.dictionaries(names, st.lists(st.sampled_from(["web", "web-idle", "api", "api-idle"]), unique=True), max_size=6)
)
def test_no_removal_takes_a_live_route_or_the_last_application(routes: dict[str, list[str]]) -> None:
    apps = [app(name, *hosts) for name, hosts in routes.items()]
    gone = {leftover.app.name for leftover in leftovers_of(apps) if not leftover.kept}
    for found in apps:
        if found.name in gone:
            assert all(route.host.endswith("-idle") for route in found.routes)
            assert any(other.base == found.base and other.name not in gone for other in apps)
