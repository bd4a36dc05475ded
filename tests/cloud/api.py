# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for UAA, as much as a deployment and its operator use, and what it shares with the API v3."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlsplit

import jwt

from .standin import Answer, Request

DEVELOPER, AUDITOR, NOBODY = "space_developer", "space_auditor", ""
CLI = "cf"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class Refusal(Exception):
    """The request ends with this answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(str(answer.body))
        self.answer = answer


def cf_error(status: int, code: int, title: str, detail: str) -> Refusal:
    return Refusal(Answer(status, {"errors": [{"code": code, "title": title, "detail": detail}]}))


def parameters(request: Request, *allowed: str) -> dict[str, list[str]]:
    """The query; a parameter that is not known is refused, as the API v3 does."""
    found = parse_qs(urlsplit(request.target).query, keep_blank_values=True)
    unknown = [name for name in found if name not in allowed]
    if unknown:
        detail = f"The query parameter is invalid: Unknown query parameter(s): '{', '.join(unknown)}'"
        raise cf_error(400, 10005, "CF-BadQueryParameter", detail)
    return found


@dataclass
class Account:
    """A user or a client, with its role in the space.

    :param origin: the identity provider that knows the user.
    """

    name: str
    secret: str
    role: str = DEVELOPER
    guid: str = field(default_factory=lambda: str(uuid.uuid4()))
    origin: str = "uaa"
    client: bool = False


class Uaa:
    """Grants tokens for a password, a one-time passcode, an assertion, client credentials and a refresh token.

    :param rotates: whether a refresh token is used up by its use.
    """

    def __init__(self, life_s: float = 600.0, *, rotates: bool = False) -> None:
        self.life_s, self.rotates = life_s, rotates
        self.users = {
            name: Account(name, f"password of {name}") for name in ("ci@example.com", "colleague@example.com")
        }
        self.clients = {"deployer": Account("deployer", "secret of deployer", client=True)}
        self.grants: list[str] = []
        self._passcodes: dict[str, Account] = {}
        self._key, self._epoch = secrets.token_urlsafe(32), 0
        self._refresh: dict[str, Account] = {}

    def expire(self) -> None:
        """Every access token that was given is refused from now on."""
        self._epoch += 1

    def tokens(self, name: str) -> dict[str, Any]:
        """An access token and a refresh token, as after ``cf login``."""
        return self._issue(self.users[name], CLI)

    def passcode(self, name: str) -> str:
        """A passcode for this user, good for one login."""
        code = secrets.token_urlsafe(6)
        self._passcodes[code] = self.users[name]
        return code

    def assertion(self, name: str, life_s: float = 600.0) -> str:
        """What an identity provider that is trusted says about this user."""
        user = self.users[name]
        claims = {"iss": user.origin, "sub": user.name, "aud": "uaa", "exp": time.time() + life_s}
        return jwt.encode(claims, self._key, algorithm="HS256")

    def account(self, token: str) -> Account:
        """Whose token it is.

        :raises Refusal: it is none of ours, or has expired.
        """
        try:
            claims = jwt.decode(token, self._key, algorithms=["HS256"], audience="cloud_controller")
        except jwt.InvalidTokenError as error:
            raise cf_error(401, 1000, "CF-InvalidAuthToken", "Invalid Auth Token") from error
        if claims["epoch"] != self._epoch:
            raise cf_error(401, 1000, "CF-InvalidAuthToken", "Invalid Auth Token")
        return self.users.get(claims.get("user_name", "")) or self.clients[claims["client_id"]]

    def answer(self, request: Request) -> Answer:
        if (
            request.method != "POST"
            or request.headers.get("content-type", "").partition(";")[0] != "application/x-www-form-urlencoded"
        ):
            return _uaa_error(400, "invalid_request", "Missing grant type")
        client, secret = _basic(request)
        form = request.form
        kind = form.get("grant_type", "")
        if kind == "client_credentials":
            account = self.clients.get(client)
            if account is None or account.secret != secret:
                return _uaa_error(401, "unauthorized", "Bad credentials")
        elif client != CLI or secret:
            return _uaa_error(401, "unauthorized", "Bad credentials")
        elif kind in ("password", JWT_BEARER):
            account = self._user(form)
            if account is None:
                return _uaa_error(401, "unauthorized", "Bad credentials")
        elif kind == "refresh_token":
            account = self._refresh.get(form.get("refresh_token", ""))
            if account is None:
                return _uaa_error(401, "invalid_token", "The refresh token is invalid")
        else:
            return _uaa_error(401, "invalid_client", f"Unauthorized grant type: {kind}")
        self.grants.append(kind)
        return Answer(200, self._issue(account, client, form.get("refresh_token", "")))

    def _user(self, form: Mapping[str, str]) -> Account | None:
        """Who proves to be a user: by password, of the identity provider that the hint names, by passcode or by an
        assertion.
        """
        if "assertion" in form:
            try:
                claims = jwt.decode(form["assertion"], self._key, algorithms=["HS256"], audience="uaa")
            except jwt.InvalidTokenError:
                return None
            return self.users.get(str(claims.get("sub", "")))
        if "passcode" in form:
            return self._passcodes.pop(form["passcode"], None)
        user = self.users.get(form.get("username", ""))
        try:
            origin = json.loads(form.get("login_hint") or "{}").get("origin") or "uaa"
        except (ValueError, AttributeError):
            return None
        return user if user and (user.secret, user.origin) == (form.get("password"), origin) else None

    def _issue(self, account: Account, client: str, refresh: str = "") -> dict[str, Any]:
        now = time.time()
        claims = {
            "iat": int(now),
            "exp": now + self.life_s,
            "aud": ["cloud_controller"],
            "client_id": client,
            "epoch": self._epoch,
            "jti": str(uuid.uuid4()),
        }
        if client == CLI:
            claims |= {"user_name": account.name, "user_id": account.guid}
        result = {
            "access_token": jwt.encode(claims, self._key, algorithm="HS256"),
            "token_type": "bearer",
            "expires_in": int(self.life_s),
        }
        if client != CLI:
            return result
        if not refresh or self.rotates:
            self._refresh.pop(refresh, None)
            refresh = f"{secrets.token_hex(16)}-r"
            self._refresh[refresh] = account
        return {**result, "refresh_token": refresh}


def _basic(request: Request) -> tuple[str, str]:
    kind, _space, value = request.headers.get("authorization", "").partition(" ")
    try:
        client, _colon, secret = base64.b64decode(value).decode().partition(":") if kind == "Basic" else ("", "", "")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return unquote_plus(client), unquote_plus(secret)


def _uaa_error(status: int, error: str, description: str) -> Answer:
    return Answer(status, {"error": error, "error_description": description})


def cli_config(url: str, tokens: Mapping[str, Any], org: str = "", space: str = "") -> str:
    """``.cf/config.json`` as ``cf login`` writes it."""
    body = {
        "ConfigVersion": 4,
        "Target": url,
        "APIVersion": "3.215.0",
        "AuthorizationEndpoint": url,
        "UaaEndpoint": url,
        "UAAOAuthClient": CLI,
    }
    body |= {
        "UAAOAuthClientSecret": "",
        "UAAGrantType": "",
        "AccessToken": f"bearer {tokens['access_token']}",
        "RefreshToken": tokens["refresh_token"],
    }
    return json.dumps(
        {**body, "OrganizationFields": {"Name": org}, "SpaceFields": {"Name": space}, "SSLDisabled": False}
    )
