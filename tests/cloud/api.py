# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-ins for UAA and Cloud Foundry's API v3, as much as a deployment and its operator use."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, unquote_plus, urlencode, urlsplit

import jwt

from .space import App, Route, Space, md5
from .standin import Answer, Request

DEVELOPER, AUDITOR, NOBODY = "space_developer", "space_auditor", ""
CLI = "cf"


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
    """A user or a client, with its role in the space."""

    name: str
    secret: str
    role: str = DEVELOPER
    guid: str = field(default_factory=lambda: str(uuid.uuid4()))


class Uaa:
    """Grants tokens for a password, for client credentials and for a refresh token.

    :param rotates: whether a refresh token is used up by its use.
    """

    def __init__(self, life_s: float = 600.0, *, rotates: bool = False) -> None:
        self.life_s, self.rotates = life_s, rotates
        self.users = {
            name: Account(name, f"password of {name}") for name in ("ci@example.com", "colleague@example.com")
        }
        self.clients = {"deployer": Account("deployer", "secret of deployer")}
        self.grants: list[str] = []
        self._key, self._epoch = secrets.token_urlsafe(32), 0
        self._refresh: dict[str, Account] = {}

    def expire(self) -> None:
        """Every access token that was given is refused from now on."""
        self._epoch += 1

    def tokens(self, name: str) -> dict[str, Any]:
        """An access token and a refresh token, as after ``cf login``."""
        return self._issue(self.users[name], CLI)

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
        elif kind == "password":
            account = self.users.get(form.get("username", ""))
            if account is None or account.secret != form.get("password"):
                return _uaa_error(401, "unauthorized", "Bad credentials")
        elif kind == "refresh_token":
            account = self._refresh.get(form.get("refresh_token", ""))
            if account is None:
                return _uaa_error(401, "invalid_token", "The refresh token is invalid")
        else:
            return _uaa_error(401, "invalid_client", f"Unauthorized grant type: {kind}")
        self.grants.append(kind)
        return Answer(200, self._issue(account, client, form.get("refresh_token", "")))

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


class Api:
    """The API v3.

    :param url: tells its own URL.
    """

    def __init__(self, space: Space, url: Callable[[], str]) -> None:
        self._space, self._url = space, url
        self.jobs: dict[str, list[str]] = {}

    def root(self) -> Answer:
        url = self._url()
        links = {"self": url, "cloud_controller_v3": f"{url}/v3", "login": url, "uaa": url, "log_cache": url}
        return Answer(200, {"links": {name: {"href": href} for name, href in links.items()}})

    def answer(self, request: Request, account: Account) -> Answer:
        parts = [unquote(part) for part in urlsplit(request.target).path.strip("/").split("/")][1:]
        if request.method == "DELETE" and len(parts) == 2 and parts[0] in ("apps", "routes"):
            return self._delete(parts[0], parts[1], account)
        if request.method != "GET":
            raise cf_error(404, 10000, "CF-NotFound", "Unknown request")
        if parts in (["organizations"], ["spaces"]):
            return self._named(parts[0], request, account)
        if parts == ["apps"]:
            return self._apps(request, account)
        if len(parts) == 3 and parts[0] == "apps" and parts[2] == "routes":
            parameters(request, "per_page", "page")
            app = self._app(parts[1], account)
            return self._page(request, [self._route(route) for route in self._space.routes_of(app.name)])
        if parts == ["routes"]:
            query = parameters(request, "app_guids", "hosts", "space_guids", "per_page", "page")
            routes = list(self._space.routes.values()) if account.role != NOBODY else []
            found = [
                route
                for route in routes
                if "app_guids" not in query or set(route.apps) & set(query["app_guids"][0].split(","))
            ]
            return self._page(
                request, [self._route(route) for route in found if route.host in _list(query, "hosts", route.host)]
            )
        if len(parts) == 2 and parts[0] == "jobs" and parts[1] in self.jobs:
            states = self.jobs[parts[1]]
            return Answer(200, {"guid": parts[1], "state": states.pop(0) if len(states) > 1 else states[0]})
        raise cf_error(404, 10000, "CF-NotFound", "Unknown request")

    def _named(self, kind: str, request: Request, account: Account) -> Answer:
        query = parameters(
            request,
            "names",
            "per_page",
            "page",
            "order_by",
            *(["organization_guids", "guids"] if kind == "spaces" else ["guids"]),
        )
        space = self._space
        guid, name = (space.org_guid, space.org) if kind == "organizations" else (space.guid, space.name)
        there = account.role != NOBODY and name in _list(query, "names", name) and guid in _list(query, "guids", guid)
        there = there and space.org_guid in _list(query, "organization_guids", space.org_guid)
        return self._page(request, [{"guid": guid, "name": name}] if there else [])

    def _apps(self, request: Request, account: Account) -> Answer:
        query = parameters(request, "space_guids", "label_selector", "names", "guids", "per_page", "page", "order_by")
        selector = _list(query, "label_selector", "")
        apps = (
            list(self._space.apps.values())
            if account.role != NOBODY and self._space.guid in _list(query, "space_guids", self._space.guid)
            else []
        )
        found = [
            app
            for app in apps
            if all(_selects(rule, app) for rule in selector if rule) and app.name in _list(query, "names", app.name)
        ]
        return self._page(
            request,
            [{"guid": app.guid, "name": app.name, "state": app.state, "metadata": app.metadata()} for app in found],
        )

    def _app(self, guid: str, account: Account) -> App:
        for app in self._space.apps.values():
            if app.guid == guid and account.role != NOBODY:
                return app
        raise cf_error(404, 10010, "CF-ResourceNotFound", "App not found")

    def _route(self, route: Route) -> dict[str, Any]:
        destinations = [
            {"guid": md5(route.guid + guid), "app": {"guid": guid, "process": {"type": "web"}}, "port": 8080}
            for guid in route.apps
        ]
        return {
            "guid": route.guid,
            "protocol": "http",
            "host": route.host,
            "path": "",
            "url": route.url,
            "destinations": destinations,
        }

    def _delete(self, kind: str, guid: str, account: Account) -> Answer:
        if account.role != DEVELOPER:
            raise cf_error(403, 10003, "CF-NotAuthorized", "You are not authorized to perform the requested action")
        if kind == "apps":
            self._space.delete(self._app(guid, account).name)
        else:
            route = next((route for route in self._space.routes.values() if route.guid == guid), None)
            if route is None:
                raise cf_error(404, 10010, "CF-ResourceNotFound", "Route not found")
            with self._space.lock:
                del self._space.routes[route.url]
            self._space.publish()
        job = str(uuid.uuid4())
        self.jobs[job] = ["PROCESSING", "COMPLETE"]
        return Answer(202, None, {"location": f"{self._url()}/v3/jobs/{job}"})

    def _page(self, request: Request, resources: list[dict[str, Any]]) -> Answer:
        query = parse_qs(urlsplit(request.target).query)
        size, page = int(query.get("per_page", ["50"])[0]), int(query.get("page", ["1"])[0])
        end = page * size
        following = None
        if end < len(resources):
            again = urlencode({**{name: values[0] for name, values in query.items()}, "page": page + 1})
            following = {"href": f"{self._url()}{urlsplit(request.target).path}?{again}"}
        about = {"total_results": len(resources), "total_pages": -(-len(resources) // size) or 1, "next": following}
        return Answer(200, {"pagination": about, "resources": resources[end - size : end]})


def _list(query: Mapping[str, list[str]], name: str, otherwise: str) -> list[str]:
    return query[name][0].split(",") if name in query else [otherwise]


def _selects(rule: str, app: App) -> bool:
    labels = app.metadata()["labels"]
    if rule.startswith("!"):
        return rule[1:] not in labels
    name, equals, value = rule.partition("=")
    return labels.get(name) == value.lstrip("=") if equals else name in labels


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
