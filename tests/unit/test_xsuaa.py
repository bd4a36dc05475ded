# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in for XSUAA refuses what XSUAA refuses: a client that works against it has done the protocol right."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from http.cookiejar import CookieJar
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.http.web import Answer, Web
from ansible_collections.zdm.landscape.tests.cloud.xsuaa import CSRF, Client, Xsuaa
from ansible_collections.zdm.landscape.tests.landscape.keys import Certificates

APP = Client(
    "sb-app!t1", "app-secret", ("mtcallback",), ("https://*.apps.example.com/login/callback", "http://localhost:*/**")
)
OTHER = Client("sb-other!t1", "other-secret", (), ("https://other.example.com/**",))
CERTIFIED = Client("sb-x509!t1", certificate="controller")
REDIRECT = "https://app.apps.example.com/login/callback"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


@pytest.fixture(name="xsuaa", scope="module")
def _xsuaa(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Xsuaa]:
    certificates = Certificates.make(tmp_path_factory.mktemp("certificates"))
    zones = {"provider": "id-of-provider", "t1": "id-of-t1"}
    with Xsuaa(certificates, "app!t1", [APP, OTHER, CERTIFIED], zones, {"alice": "secret"}) as there:
        yield there


@pytest.fixture(name="web")
def _web(xsuaa: Xsuaa) -> Web:
    return Web(str(xsuaa.certificates.authority), cookies=CookieJar())


def authorize(web: Web, xsuaa: Xsuaa, **query: str) -> Answer:
    asked = {
        "response_type": "code",
        "client_id": APP.id,
        "redirect_uri": REDIRECT,
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        **query,
    }
    return web.send("GET", f"{xsuaa.url}/oauth/authorize?{urlencode(asked)}")


def post(web: Web, url: str, headers: dict[str, str] | None = None, **form: str) -> Answer:
    return web.send(
        "POST", url, {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}, urlencode(form).encode()
    )


def basic(client: Client, secret: str = "") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{client.id}:{secret or client.secret}".encode()).decode()}


def token(web: Web, xsuaa: Xsuaa, client: Client = APP, **form: str) -> Answer:
    return post(web, f"{xsuaa.url}/oauth/token", basic(client), **form)


def csrf(form: Answer) -> str:
    """The token in the form's cookie."""
    return str(form.headers["Set-Cookie"]).partition("=")[2].partition(";")[0]


def code(web: Web, xsuaa: Xsuaa) -> str:
    """A code, with a login on the way where one is needed."""
    answer = authorize(web, xsuaa, state="s1")
    if urlsplit(answer.headers["Location"]).path == "/login":
        form = web.send("GET", answer.headers["Location"])
        answer = post(web, f"{xsuaa.url}/login.do", **{"username": "alice", "password": "secret", CSRF: csrf(form)})
        answer = web.send("GET", answer.headers["Location"])
    assert answer.headers["Location"].startswith(REDIRECT)
    query = parse_qs(urlsplit(answer.headers["Location"]).query)
    assert query["state"] == ["s1"]
    return query["code"][0]


def test_a_code_is_worth_one_token_of_the_user(web: Web, xsuaa: Xsuaa) -> None:
    form = {
        "grant_type": "authorization_code",
        "redirect_uri": REDIRECT,
        "code": code(web, xsuaa),
        "code_verifier": VERIFIER,
    }
    found = token(web, xsuaa, **form).json()
    claims = xsuaa.claims(found["access_token"])
    assert (claims["user_name"], claims["zid"], claims["ext_attr"]["zdn"]) == ("alice", "id-of-provider", "provider")
    assert claims["scope"] == ["openid", "app!t1.User"]
    assert token(web, xsuaa, **form).status == 400, "a code counts once"
    again = token(web, xsuaa, grant_type="refresh_token", refresh_token=found["refresh_token"]).json()
    assert xsuaa.claims(again["access_token"])["user_name"] == "alice"
    assert token(web, xsuaa, grant_type="refresh_token", refresh_token="stolen").status == 401


@pytest.mark.parametrize(
    "wrong",
    [
        {"code_verifier": "w" * 43},
        {"code_verifier": ""},
        {"redirect_uri": "https://evil.apps.example.com/login/callback"},
        {"code": "guess"},
    ],
)
def test_what_does_not_belong_to_the_code(web: Web, xsuaa: Xsuaa, wrong: dict[str, str]) -> None:
    form = {
        "grant_type": "authorization_code",
        "redirect_uri": REDIRECT,
        "code": code(web, xsuaa),
        "code_verifier": VERIFIER,
        **wrong,
    }
    assert (token(web, xsuaa, **form).status, token(web, xsuaa, **form).json()["error"]) == (400, "invalid_grant")


def test_a_code_of_another_client(web: Web, xsuaa: Xsuaa) -> None:
    form = {
        "grant_type": "authorization_code",
        "redirect_uri": REDIRECT,
        "code": code(web, xsuaa),
        "code_verifier": VERIFIER,
    }
    assert token(web, xsuaa, OTHER, **form).status == 400


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"client_id": "nobody"}, 401),
        ({"redirect_uri": "https://a.b.apps.example.com/login/callback/x"}, 400),
        ({"redirect_uri": "https://evil.example.com/"}, 400),
        ({"client_id": OTHER.id}, 400),
        ({"response_type": "token"}, 400),
        ({"code_challenge_method": "plain"}, 400),
    ],
)
def test_who_may_not_ask_for_a_code(web: Web, xsuaa: Xsuaa, query: dict[str, str], status: int) -> None:
    assert authorize(web, xsuaa, **query).status == status


@pytest.mark.parametrize(
    ("fields", "status", "place"),
    [
        ({"password": "wrong"}, 302, "/login"),
        ({"username": "bob"}, 302, "/login"),
        ({CSRF: "forged"}, 403, ""),
        ({CSRF: ""}, 403, ""),
    ],
)
def test_who_may_not_log_in(web: Web, xsuaa: Xsuaa, fields: dict[str, str], status: int, place: str) -> None:
    authorize(web, xsuaa)
    form = web.send("GET", f"{xsuaa.url}/login")
    answer = post(
        web, f"{xsuaa.url}/login.do", **{"username": "alice", "password": "secret", CSRF: csrf(form), **fields}
    )
    assert (answer.status, urlsplit(str(answer.headers["Location"] or "")).path) == (status, place)
    assert urlsplit(authorize(web, xsuaa).headers["Location"]).path == "/login"


def test_clients(web: Web, xsuaa: Xsuaa) -> None:
    def ask(headers: dict[str, str], **form: str) -> Any:
        return post(web, f"{xsuaa.url}/oauth/token", headers, **{"grant_type": "client_credentials", **form})

    claims = xsuaa.claims(ask(basic(APP)).json()["access_token"])
    assert (claims["scope"], claims["cid"], "user_name" in claims) == (["app!t1.mtcallback"], APP.id, False)
    assert ask({}, client_id=APP.id, client_secret=APP.secret).ok
    assert ask(basic(APP, "wrong")).status == 401
    assert ask({}, client_id="nobody", client_secret="x").status == 401
    assert ask({}, client_id=CERTIFIED.id).status == 401, "without its certificate"
    certified = Web(str(xsuaa.certificates.authority), cert_file=str(xsuaa.certificates.controller))
    assert post(certified, f"{xsuaa.url}/oauth/token", grant_type="client_credentials", client_id=CERTIFIED.id).ok
    assert ask(basic(APP), grant_type="password").json()["error"] == "unsupported_grant_type"


def test_its_keys_verify_its_tokens_of_every_zone_and_nothing_else_is_there(web: Web, xsuaa: Xsuaa) -> None:
    (key,) = web.send("GET", f"{xsuaa.url}/token_keys").json()["keys"]
    made = xsuaa.token(APP.id, "t1")
    claims = jwt.decode(made, jwt.PyJWK(json.loads(json.dumps(key))).key, algorithms=["RS256"], audience="app!t1")
    assert (claims["zid"], jwt.get_unverified_header(made)["kid"]) == ("id-of-t1", key["kid"])
    with pytest.raises(jwt.ExpiredSignatureError):
        xsuaa.claims(xsuaa.token(APP.id, life_s=-1))
    assert web.send("GET", f"{xsuaa.url}/users").status == 404
    assert web.send("GET", f"{xsuaa.url}/token_keys", {"Host": f"nobody.localhost:{xsuaa.port}"}).status == 404
