# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cloud Foundry's API v3, as much as a deployment needs: organisation and space by name, an MTA's applications and
their routes.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from ansible_collections.zdm.landscape.plugins.module_utils.core.durations import parse_ms
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, Refused, Timeout, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.http.tokens import Signed, Tokens
from ansible_collections.zdm.landscape.plugins.module_utils.http.web import Answer, Web
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.apps import IDLE, LIVE, App, Leftover, Route
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.tokens import (
    CliLogin,
    check_user,
    chosen_source,
    token_source,
    user_of,
)

_GONE, _UNPROCESSABLE = 404, 422
_JOB_S = 300.0
_ALIVE = ("RUNNING", "STARTING", "STOPPING")
_BATCH = 50
"""Applications whose routes or processes are asked for at once: their guids must fit into a URL."""


@dataclass(frozen=True)
class Target:
    """Where a deployment goes."""

    api: str
    deploy_service: str
    org: str
    space: str
    space_guid: str
    user: str
    """How the deploy service calls us; empty when the token does not say."""


def md5_label(value: str) -> str:
    """How the deploy service writes an MTA's id or namespace into a label."""
    return hashlib.md5(value.encode(), usedforsecurity=False).hexdigest()


def deploy_service_url(api: str) -> str:
    """The deploy service of an API: ``deploy-service.`` and the API's host after its first dot.

    :raises InputError: the host has no dot.
    """
    parts = urlsplit(api)
    _first, dot, rest = parts.netloc.rpartition("@")[2].partition(".")
    if not dot:
        raise InputError(
            f"The deploy service's URL does not follow from {api}.", "Give it in cloud_foundry.deploy_service."
        )
    return f"https://deploy-service.{rest}"


class CloudFoundry:
    """A space of a Cloud Foundry, logged in to.

    :param options: the option group CLOUD_FOUNDRY.
    :raises InputError: wrong options; organisation or space do not exist, or the user can't see them.
    :raises Refused: the credentials are refused.
    :raises Unreachable: the API does not answer.
    """

    def __init__(self, options: Mapping[str, Any], web: Web | None = None) -> None:
        timeout_s = parse_ms(options.get("timeout") or "30s", "cloud_foundry.timeout") / 1000
        self.web = web or Web(options.get("ca_file"), options.get("validate_certs") is not False, timeout_s)
        login: CliLogin | None = None
        if chosen_source(options) == "cf_home":
            login = CliLogin(self.web, options.get("cf_home") or os.environ.get("CF_HOME") or "~")
        api = _api(options, login)
        links = self._root(api)
        self.tokens: Tokens = login or token_source(options, self.web, _link(links, "login") or _link(links, "uaa"))
        check_user(self.tokens.token())
        self.signed = Signed(self.web, self.tokens)
        self._api = api
        org, space = _names(options, login)
        guid = self._space(org, space)
        service = str(options.get("deploy_service") or deploy_service_url(api)).rstrip("/")
        self.target = Target(
            api, _https(service, "cloud_foundry.deploy_service"), org, space, guid, user_of(self.tokens.token())
        )

    def apps(self, mta_id: str, namespace: str = "") -> list[App]:
        """The MTA's applications by their label, sorted by name."""
        label = f"mta_id={md5_label(mta_id)}," + (
            f"mta_namespace={md5_label(namespace)}" if namespace else "!mta_namespace"
        )
        query = urlencode({"space_guids": self.target.space_guid, "label_selector": label, "per_page": 100})
        found = list(self._pages(f"/v3/apps?{query}"))
        # one that leads to applications of two batches comes twice
        bodies = {str(body["guid"]): body for body in self._of_apps("routes", [str(body["guid"]) for body in found])}
        routes = [_route(body) for body in bodies.values()]
        return sorted((_app(body, routes) for body in found), key=lambda app: app.name)

    def switch_off(self, app: App) -> None:
        """Stop the application; its instances end after that, see :meth:`running`. It keeps its routes.

        :raises Refused: the user may not.
        """
        self._act(app, "stop")

    def switch_on(self, app: App) -> None:
        """Start the application; raises as :meth:`switch_off`."""
        self._act(app, "start")

    def running(self, apps: Collection[App]) -> dict[str, int]:
        """How many instances of each application run, begin or end, by its name."""
        names = {app.guid: app.name for app in apps}
        found = dict.fromkeys(names.values(), 0)
        for process in self._of_apps("processes", list(names)):
            stats = self._page(f"/v3/processes/{process['guid']}/stats")["resources"]
            app = str(process["relationships"]["app"]["data"]["guid"])
            found[names[app]] += sum(str(instance.get("state")) in _ALIVE for instance in stats)
        return found

    def ensure_key_service(self, name: str) -> None:
        """Make a user-provided service with a new key of 32 characters for secure parameters, unless it is there.

        :raises Refused: the user may not.
        """
        query = urlencode({"names": name, "space_guids": self.target.space_guid})
        if next(self._pages(f"/v3/service_instances?{query}"), None):
            return
        body = {
            "type": "user-provided",
            "name": name,
            "credentials": {"encryptionKey": secrets.token_hex(16)},
            "relationships": {"space": {"data": {"guid": self.target.space_guid}}},
        }
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        content = json.dumps(body).encode()
        answer = self.signed.send("POST", f"{self._api}/v3/service_instances", headers, lambda: content)
        if answer.status != _UNPROCESSABLE:  # another run was faster
            self._expected(answer, f"to make service {name}")

    def remove(self, leftovers: Iterable[Leftover]) -> list[str]:
        """Delete what may be removed, routes first; returns the applications' names. What is already gone is no error.

        :raises Refused: the user may not.
        :raises Timeout: a deletion does not end.
        """
        removed = []
        for leftover in leftovers:
            if leftover.kept:
                continue
            for route in leftover.app.routes:
                self._delete(f"/v3/routes/{route.guid}", f"route {route.url}")
            self._delete(f"/v3/apps/{leftover.app.guid}", f"application {leftover.app.name}")
            removed.append(leftover.app.name)
        return removed

    def _root(self, api: str) -> dict[str, Any]:
        answer = self.web.ask("GET", f"{api}/", {"Accept": "application/json"})
        body = answer.json() if answer.ok else None
        if not isinstance(body, dict) or not (_link(body, "login") or _link(body, "uaa")):
            raise InputError(
                f"{api} is no API of Cloud Foundry: GET / answers with status {answer.status}.",
                "Correct cloud_foundry.api.",
            )
        return body

    def _space(self, org: str, space: str) -> str:
        org_guid = self._guid(
            "organization", org, f"/v3/organizations?{urlencode({'names': org})}", "/v3/organizations?per_page=10"
        )
        of_org = {"organization_guids": org_guid}
        named = f"/v3/spaces?{urlencode({'names': space, **of_org})}"
        return self._guid("space", space, named, f"/v3/spaces?{urlencode({**of_org, 'per_page': 10})}")

    def _guid(self, kind: str, name: str, named: str, all_of_them: str) -> str:
        for body in self._pages(named):
            return str(body["guid"])
        user = user_of(self.tokens.token()) or "this user"
        seen = [str(body["name"]) for body in self._page(all_of_them)["resources"]]
        if not seen:
            raise InputError(
                f"{user} can't see any {kind}, so {kind} {name!r} neither.",
                f"Give {user} a role there, or correct api and credentials.",
            )
        advice = (
            f"Correct cloud_foundry.{'org' if kind == 'organization' else 'space'}, or give {user} the role"
            " SpaceDeveloper there."
        )
        raise InputError(f"There is no {kind} {name!r} that {user} can see; there are: {', '.join(seen)}.", advice)

    def _of_apps(self, kind: str, guids: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The routes or processes of these applications."""
        for start in range(0, len(guids), _BATCH):
            query = {"app_guids": ",".join(guids[start : start + _BATCH]), "per_page": 100}
            yield from self._pages(f"/v3/{kind}?{urlencode(query)}")

    def _pages(self, path: str) -> Iterator[dict[str, Any]]:
        while path:
            page = self._page(path)
            yield from page["resources"]
            following = (page.get("pagination") or {}).get("next") or {}
            parts = urlsplit(str(following.get("href") or ""))
            path = f"{parts.path}?{parts.query}" if parts.path else ""

    def _page(self, path: str) -> dict[str, Any]:
        answer = self.signed.ask("GET", self._api + path, {"Accept": "application/json"})
        body = self._expected(answer, path).json()
        if not isinstance(body, dict) or not isinstance(body.get("resources"), list):
            raise Unreachable(f"{self._api}{path} answers with something else than a list.", "Check cloud_foundry.api.")
        return body

    def _act(self, app: App, action: str) -> None:
        path = f"/v3/apps/{app.guid}/actions/{action}"
        answer = self.signed.ask("POST", self._api + path, {"Accept": "application/json"})
        if answer.status != _GONE:
            self._expected(answer, f"{action} of application {app.name}")

    def _delete(self, path: str, what: str) -> None:
        answer = self.signed.ask("DELETE", self._api + path)
        if answer.status == _GONE:
            return
        job = str(self._expected(answer, what).headers.get("Location") or "")
        ends = time.monotonic() + _JOB_S
        while job:
            state = self._expected(self.signed.ask("GET", self._api + urlsplit(job).path), what).json().get("state")
            if state == "COMPLETE":
                return
            if state == "FAILED" or time.monotonic() > ends:
                raise Timeout(
                    f"The {what} is not deleted: its job is {state}.",
                    "Look at the job, delete it with the cf CLI, or run the command again.",
                )
            self.web.sleep(self.web.pause_s)

    def _expected(self, answer: Answer, what: str) -> Answer:
        if answer.status == 403:
            raise Refused(
                f"Cloud Foundry refuses {what} to {self.target.user or 'this user'}: {answer.said}",
                "Give the user the role SpaceDeveloper.",
            )
        if not answer.ok:
            raise Unreachable(
                f"Cloud Foundry answers to {what} with status {answer.status}: {answer.said}",
                "See Cloud Foundry's log, then run it again.",
            )
        return answer


def _app(body: Mapping[str, Any], routes: Iterable[Route]) -> App:
    guid, name = str(body["guid"]), str(body["name"])
    annotations = (body.get("metadata") or {}).get("annotations") or {}
    module = _module(str(annotations.get("mta_module") or "")) or name.removesuffix(IDLE).removesuffix(LIVE)
    return App(
        guid,
        name,
        module,
        str(body.get("state") or ""),
        tuple(route for route in routes if guid in route.apps),
        str(annotations.get("mta_version") or ""),
    )


def _route(body: Mapping[str, Any]) -> Route:
    apps = frozenset(str((entry.get("app") or {}).get("guid")) for entry in body.get("destinations") or ())
    return Route(str(body["guid"]), str(body.get("host") or ""), f"https://{body['url']}", apps)


def _module(annotation: str) -> str:
    """The annotation is JSON with the module's name."""
    try:
        body = json.loads(annotation)
    except ValueError:
        return annotation
    return str(body.get("name") or "") if isinstance(body, dict) else annotation


def _link(body: Mapping[str, Any], name: str) -> str:
    links = body.get("links")
    link = links.get(name) if isinstance(links, dict) else None
    return str(link.get("href") or "").rstrip("/") if isinstance(link, dict) else ""


def _api(options: Mapping[str, Any], login: CliLogin | None) -> str:
    given, logged_in = (
        str(options.get("api") or "").rstrip("/"),
        str(login.config["Target"]).rstrip("/") if login else "",
    )
    if not given and not logged_in:
        raise InputError("cloud_foundry.api is missing.", "Give the API's URL, or use the login of the cf CLI.")
    if given and logged_in and given != logged_in:
        raise InputError(
            f"The cf CLI is logged in to {logged_in}, not to {given}.",
            "Log in there with cf login, or correct cloud_foundry.api.",
        )
    return _https(given or logged_in, "cloud_foundry.api")


def _https(url: str, what: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.username:
        raise InputError(
            f"{what} {parts.scheme}://{parts.hostname} is not a URL of https.",
            "Write https:// and the host: it gets a token.",
        )
    return url.rstrip("/")


def _names(options: Mapping[str, Any], login: CliLogin | None) -> tuple[str, str]:
    config = login.config if login else {}
    org = options.get("org") or (config.get("OrganizationFields") or {}).get("Name")
    space = options.get("space") or (config.get("SpaceFields") or {}).get("Name")
    for name, value in (("org", org), ("space", space)):
        if not value:
            raise InputError(f"cloud_foundry.{name} is missing.", "Give its name, or choose it with cf target.")
    return str(org), str(space)
