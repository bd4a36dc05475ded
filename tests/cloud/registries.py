# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-ins for the platform's registries of subscribers: saas-registry (SaaS Provisioning) and subscription-manager.

They list subscribers page by page and update one when they are asked to: they call the application's
``getDependencies`` and ``onSubscription`` at the URLs in their configuration, wait for its callback, and keep the
state. They are strict: tokens are verified, unknown tenants and methods refused, a subscriber that is in process is not
updated a second time. They are no registries: they neither subscribe nor offboard.
"""

from __future__ import annotations

import json
import threading
import uuid
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request as Outgoing
from urllib.request import urlopen

import jwt

from .standin import Answer, Request, StandIn
from .xsuaa import Xsuaa

_CALL_S = 30.0
IN_PROCESS, SUBSCRIBED, UPDATE_FAILED = "IN_PROCESS", "SUBSCRIBED", "UPDATE_FAILED"


@dataclass
class Subscriber:
    """One subscription."""

    tenant: str
    subdomain: str
    state: str = SUBSCRIBED
    guid: str = ""
    error: str = ""
    job: str = ""


class RegistryStandIn(StandIn):
    """What both have in common.

    :param app_name: the application it knows.
    :param app_urls: its ``getDependencies`` and ``onSubscription`` (with ``{tenantId}``), which may be changed.
    :param subscribers: subdomain by tenant id.
    :param client: the XSUAA client with whose tokens the application is called.
    """

    LIST: str
    CALLBACK = "/api/v2.0/subscription-callback/"

    def __init__(
        self, xsuaa: Xsuaa, app_name: str, app_urls: Mapping[str, str], subscribers: Mapping[str, str], client: str
    ) -> None:
        super().__init__()
        self.app_name, self.app_urls = app_name, dict(app_urls)
        self.subscribers = {
            tenant: Subscriber(tenant, name, guid=str(uuid.uuid4())) for tenant, name in subscribers.items()
        }
        self.page_size = 200
        self._xsuaa, self._client = xsuaa, client
        self._waiting: dict[str, Subscriber] = {}

    @abstractmethod
    def entry(self, subscriber: Subscriber) -> dict[str, Any]:
        """A subscription as the list shows it."""

    @abstractmethod
    def named(self, path: str) -> Subscriber | None:
        """The subscriber that the path of an update names."""

    @abstractmethod
    def place(self, subscriber: Subscriber) -> str:
        """Where the state of its update is asked for."""

    @abstractmethod
    def told(self, path: str) -> dict[str, Any] | None:
        """The state of an update; ``None`` when there is none at *path*."""

    def answer(self, request: Request) -> Answer:
        try:
            self._xsuaa.claims(request.bearer)
        except jwt.InvalidTokenError as error:
            return Answer(401, {"error": {"message": f"invalid token: {error}"}})
        if request.method == "PUT" and request.path.startswith(self.CALLBACK):
            return self._called_back(request)
        if request.method == "GET" and request.path == self.LIST:
            return self._page(request.query)
        if request.method == "GET":
            found = self.told(request.path)
            return Answer(200, found) if found else Answer(404, {"error": {"message": "no such job"}})
        subscriber = self.named(request.path) if request.method == "PATCH" else None
        if subscriber is None:
            return Answer(404, {"error": {"message": f"nothing at {request.method} {request.path}"}})
        if subscriber.state == IN_PROCESS:
            return Answer(409, {"error": {"message": "The subscription is in process."}})
        subscriber.state, subscriber.error, subscriber.job = IN_PROCESS, "", str(uuid.uuid4())
        threading.Thread(target=self._update, args=(subscriber,), daemon=True).start()
        return Answer(202, None, {"location": self.place(subscriber)})

    def _page(self, query: Mapping[str, str]) -> Answer:
        if query.get("appName") != self.app_name:
            return Answer(400, {"error": {"message": f"unknown application {query.get('appName')}"}})
        size, page = min(int(query.get("size", "20")), self.page_size), int(query.get("page", "1"))
        entries = [self.entry(subscriber) for subscriber in self.subscribers.values()]
        return Answer(
            200, {"subscriptions": entries[(page - 1) * size : page * size], "morePages": page * size < len(entries)}
        )

    def _called_back(self, request: Request) -> Answer:
        subscriber = self._waiting.pop(request.path.removeprefix(self.CALLBACK), None)
        body = request.json()
        if subscriber is None or body.get("status") not in ("SUCCEEDED", "FAILED"):
            return Answer(400, {"error": {"message": "no such callback, or no status"}})
        self._end(subscriber, "" if body["status"] == "SUCCEEDED" else str(body.get("message") or "no message"))
        return Answer(200, {})

    def _update(self, subscriber: Subscriber) -> None:
        """As the platform does: the tree of dependencies first, then the application itself, with a callback."""
        callback = uuid.uuid4().hex
        self._waiting[callback] = subscriber
        try:
            self._call("GET", f"{self.app_urls['getDependencies']}?tenantId={subscriber.tenant}")
            body = {
                "subscribedTenantId": subscriber.tenant,
                "subscribedSubdomain": subscriber.subdomain,
                "eventType": "UPDATE",
            }
            url = self.app_urls["onSubscription"].replace("{tenantId}", subscriber.tenant)
            self._call("PUT", url, body, {"STATUS_CALLBACK": self.CALLBACK + callback})
        except (URLError, OSError) as error:
            self._waiting.pop(callback, None)
            self._end(subscriber, str(error))

    def _call(self, method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None) -> None:
        sent = {
            "Authorization": f"Bearer {self._xsuaa.token(self._client)}",
            "Content-Type": "application/json",
            **(headers or {}),
        }
        try:
            urlopen(
                Outgoing(url, json.dumps(body).encode() if body else None, sent, method=method), timeout=_CALL_S
            ).read()
        except HTTPError as error:
            said = error.read().decode(errors="replace")
            raise OSError(
                f"Failed to call callback. URL: {method} {url}. Callback response: {error.code} {error.reason}: {said}"
            ) from error

    def _end(self, subscriber: Subscriber, error: str) -> None:
        subscriber.error = error
        subscriber.state = UPDATE_FAILED if error else SUBSCRIBED


class SaasRegistryStandIn(RegistryStandIn):
    LIST = "/saas-manager/v1/application/subscriptions"
    _TENANTS = "/saas-manager/v1/application/tenants/"
    _JOBS = "/api/v2.0/jobs/"

    def entry(self, subscriber: Subscriber) -> dict[str, Any]:
        return {
            "consumerTenantId": subscriber.tenant,
            "subdomain": subscriber.subdomain,
            "appName": self.app_name,
            "state": subscriber.state,
        }

    def named(self, path: str) -> Subscriber | None:
        tenant, found, rest = path.removeprefix(self._TENANTS).partition("/subscriptions")
        return self.subscribers.get(tenant) if path.startswith(self._TENANTS) and found and not rest else None

    def place(self, subscriber: Subscriber) -> str:
        return self._JOBS + subscriber.job

    def told(self, path: str) -> dict[str, Any] | None:
        found = next(
            (
                subscriber
                for subscriber in self.subscribers.values()
                if subscriber.job and path == self.place(subscriber)
            ),
            None,
        )
        if found is None:
            return None
        state = {IN_PROCESS: "STARTED", SUBSCRIBED: "SUCCEEDED", UPDATE_FAILED: "FAILED"}[found.state]
        return {"id": found.job, "state": state, **({"error": {"message": found.error}} if found.error else {})}


class SubscriptionManagerStandIn(RegistryStandIn):
    LIST = "/subscription-manager/v1/subscriptions"

    def entry(self, subscriber: Subscriber) -> dict[str, Any]:
        return {
            "subscriptionGUID": subscriber.guid,
            "subscriber": {"app_tid": subscriber.tenant, "subaccountSubdomain": subscriber.subdomain},
            "provider": {"appName": self.app_name},
            "subscriptionState": subscriber.state,
        }

    def named(self, path: str) -> Subscriber | None:
        guid = path.removeprefix(f"{self.LIST}/")
        return next((subscriber for subscriber in self.subscribers.values() if subscriber.guid == guid), None)

    def place(self, subscriber: Subscriber) -> str:
        return f"{self.LIST}/{subscriber.guid}"

    def told(self, path: str) -> dict[str, Any] | None:
        found = self.named(path)
        if found is None:
            return None
        details = {"subscriptionStateDetails": found.error} if found.error else {}
        return {"subscriptionId": found.guid, "subscriptionState": found.state, **details}
