# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A space of Cloud Foundry as a model: applications, routes and services, without any HTTP. What runs the applications
is exchangeable.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from .pace import Pace
from .runners import AppRunner, NoRunner

DRAIN_S = 10.0
"""As long as Cloud Foundry waits between SIGTERM and SIGKILL."""
STARTED, STOPPED = "STARTED", "STOPPED"
STARTING, RUNNING, STOPPING, DOWN, CRASHED = "STARTING", "RUNNING", "STOPPING", "DOWN", "CRASHED"


class Router(Protocol):
    """What leads requests to applications; see :class:`.gorouter.Gorouter`."""

    def switch(self, table: Mapping[str, list[int]]) -> None: ...

    def drain(self, port: int, timeout_s: float) -> bool: ...

    def in_flight(self, port: int) -> int: ...


@dataclass(frozen=True)
class Cut:
    """An application was stopped while it worked on requests."""

    app: str
    requests: int


@dataclass
class Task:
    """A one-off task of an application."""

    name: str
    command: str
    state: str = "SUCCEEDED"
    guid: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass
class App:
    """``state`` is what is wanted of it, ``instance`` what its instance does."""

    name: str
    module: str
    mta_id: str
    namespace: str = ""
    version: str = ""
    env: dict[str, str] = field(default_factory=dict)
    content: bytes = b""
    services: list[str] = field(default_factory=list)
    bindings: dict[str, Any] = field(default_factory=dict)
    """What it was bound with, by service."""
    provides: list[str] = field(default_factory=list)
    checksum: str = ""
    tasks: list[Task] = field(default_factory=list)
    state: str = STOPPED
    instance: str = DOWN
    port: int = 0
    guid: str = field(default_factory=lambda: str(uuid.uuid4()))
    created_at: str = field(default_factory=lambda: now())
    lock: Any = field(default_factory=threading.RLock, repr=False)

    def metadata(self) -> dict[str, Any]:
        """Labels and annotations as the deploy service writes them."""
        found = mta_metadata(self.mta_id, self.namespace, self.version)
        if self.checksum:
            found["labels"]["mta_descriptor_checksum"] = self.checksum
        found["annotations"] |= {
            "mta_module": json.dumps({"name": self.module}),
            "mta_module_public_provided_dependencies": json.dumps(self.provides),
            "mta_module_bound_services": json.dumps(self.services),
        }
        return found


@dataclass
class Route:
    """``apps`` are the guids of the applications behind it."""

    url: str
    apps: list[str] = field(default_factory=list)
    guid: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def host(self) -> str:
        return self.url.partition(".")[0]


@dataclass
class Service:
    """A service instance; ``config`` is what it was created or updated with, ``writes`` how often. Without an MTA's id
    it belongs to none.
    """

    name: str
    offering: str
    plan: str
    config: dict[str, Any]
    credentials: dict[str, Any]
    tags: list[str] = field(default_factory=list)
    writes: int = 1
    managed: bool = True
    resource: str = ""
    mta_id: str = ""
    namespace: str = ""
    version: str = ""
    guid: str = field(default_factory=lambda: str(uuid.uuid4()))
    created_at: str = field(default_factory=lambda: now())

    def binding(self) -> dict[str, Any]:
        about = {
            "name": self.name,
            "instance_name": self.name,
            "label": self.offering,
            "plan": self.plan,
            "tags": self.tags,
        }
        return {**about, "credentials": self.credentials}

    def metadata(self) -> dict[str, Any]:
        if not self.mta_id:
            return {"labels": {}, "annotations": {}}
        found = mta_metadata(self.mta_id, self.namespace, self.version)
        found["annotations"]["mta_resource"] = json.dumps({"name": self.resource})
        return found


class Space:
    """Applications, routes and services of one space.

    :param domain: of its routes, for example ``apps.localhost:8443``.
    :param credentials: by service name: what a binding brings.
    :param drain_s: how long requests may still take at an application that is stopped; ``cuts`` tells who took longer.
    """

    def __init__(
        self,
        org: str = "my-org",
        name: str = "dev",
        domain: str = "apps.localhost",
        runner: AppRunner | None = None,
        router: Router | None = None,
        credentials: Mapping[str, Mapping[str, Any]] | None = None,
        drain_s: float = DRAIN_S,
        pace: Pace | None = None,
    ) -> None:
        self.drain_s, self.pace = drain_s, pace or Pace()
        self.org, self.name, self.domain = org, name, domain
        self.guid, self.org_guid = str(uuid.uuid4()), str(uuid.uuid4())
        self.runner: AppRunner = runner or NoRunner()
        self.router = router
        self.credentials = {key: dict(value) for key, value in (credentials or {}).items()}
        self.apps: dict[str, App] = {}
        self.routes: dict[str, Route] = {}
        self.services: dict[str, Service] = {}
        self.contents: dict[str, Any] = {}
        """The parameters that modules which are no applications were deployed with."""
        self.cuts: list[Cut] = []
        self.lock = threading.RLock()

    def clear(self) -> None:
        """Forget everything; who runs the applications stops them."""
        with self.lock:
            self.apps.clear()
            self.routes.clear()
            self.services.clear()
            self.contents.clear()
            self.cuts.clear()
        self.publish()

    def apps_of(self, mta_id: str, namespace: str = "") -> list[App]:
        with self.lock:
            return [app for app in self.apps.values() if (app.mta_id, app.namespace) == (mta_id, namespace)]

    def services_of(self, mta_id: str, namespace: str = "") -> list[Service]:
        with self.lock:
            return [one for one in self.services.values() if (one.mta_id, one.namespace) == (mta_id, namespace)]

    def versions(self, mta_id: str, namespace: str = "") -> set[str]:
        """The versions that applications and services of the MTA carry; empty when there is none of them."""
        parts: list[App | Service] = [*self.apps_of(mta_id, namespace), *self.services_of(mta_id, namespace)]
        return {part.version for part in parts}

    def by_guid(self, guid: str) -> App | None:
        with self.lock:
            return next((app for app in self.apps.values() if app.guid == guid), None)

    def create(self, app: App) -> App:
        """Create an application, or replace the one of the same name with its routes."""
        if app.name in self.apps:
            self.delete(app.name)
        with self.lock:
            self.apps[app.name] = app
        return app

    def rename(self, old: str, new: str) -> None:
        """Give it another name, whether it runs or not."""
        app = self.apps[old]
        with app.lock:
            with self.lock:
                app.name = new
                self.apps[new] = self.apps.pop(old)
            self.runner.rename(old, new)

    def start(self, name: str) -> None:
        """Start it and wait until it is healthy; what runs is left alone.

        :raises Exception: it does not start: its state is STARTED, its instance has crashed.
        """
        self.settle(self.apps[name], STARTED)

    def stop(self, name: str) -> None:
        """Take it out of the router, wait for its requests, and stop it."""
        self.settle(self.apps[name], STOPPED)

    def settle(self, app: App, state: str = "", *, anew: bool = False) -> None:
        """Bring the instance to the state that is wanted, and wait for it.

        :param state: what is wanted from now on; empty when it is known.
        :param anew: whether the instance that runs ends in any case.
        """
        app.state = state or app.state
        with app.lock:
            if anew:
                self._halt(app)
            if app.state == STARTED:
                self._launch(app)
            else:
                self._halt(app)

    def _launch(self, app: App) -> None:
        if app.instance == RUNNING:
            return
        app.instance = STARTING
        try:
            app.port = self.runner.start(app.name, app.module, {**app.env, **self._platform(app)}, app.content)
        except Exception:
            app.instance = CRASHED
            raise
        app.instance = RUNNING
        self.publish()

    def _halt(self, app: App) -> None:
        if app.instance != RUNNING:
            app.instance = DOWN
            return
        app.instance = STOPPING
        self.publish()
        gone = time.monotonic() + self.pace.stop_s
        if self.router and not self.router.drain(app.port, self.drain_s):
            self.cuts.append(Cut(app.name, self.router.in_flight(app.port)))
        time.sleep(max(0.0, gone - time.monotonic()))
        self.runner.stop(app.name)
        app.instance = DOWN

    def delete(self, name: str) -> None:
        """Delete it and the routes that lead to nothing else."""
        app = self.apps[name]
        with self.lock:
            for route in [route for route in self.routes.values() if app.guid in route.apps]:
                self.unmap(route.url, app.name)
        self.stop(name)
        with self.lock:
            self.apps.pop(name, None)

    def map(self, url: str, name: str) -> None:
        with self.lock:
            route = self.routes.setdefault(url, Route(url))
            if self.apps[name].guid not in route.apps:
                route.apps.append(self.apps[name].guid)
        self.publish()

    def unmap(self, url: str, name: str) -> None:
        """Unmap; a route that leads to nothing is deleted."""
        with self.lock:
            route = self.routes[url]
            route.apps = [guid for guid in route.apps if guid != self.apps[name].guid]
            if not route.apps:
                del self.routes[url]
        self.publish()

    def delete_route(self, url: str) -> None:
        """Delete a route, whatever is behind it and whoever uses it."""
        with self.lock:
            self.routes.pop(url, None)
        self.publish()

    def routes_of(self, name: str) -> list[Route]:
        with self.lock:
            return [route for route in self.routes.values() if self.apps[name].guid in route.apps]

    def answers(self, url: str) -> bool:
        """Whether a request to this URL reaches an application; else the router says 404 ``unknown_route``."""
        host = url.partition("://")[2].partition("/")[0] or url
        with self.lock:
            running = {app.guid for app in self.apps.values() if app.instance == RUNNING}
            return host in self.routes and bool(running & set(self.routes[host].apps))

    def publish(self) -> None:
        """Tell the router which host leads where, in one step."""
        if self.router is None:
            return
        with self.lock:
            ports = {app.guid: app.port for app in self.apps.values() if app.instance == RUNNING and app.port}
            table = {route.url: [ports[guid] for guid in route.apps if guid in ports] for route in self.routes.values()}
            self.router.switch(table)

    def _platform(self, app: App) -> dict[str, str]:
        """What Cloud Foundry adds to the environment."""
        bound: dict[str, list[dict[str, Any]]] = {}
        for name in app.services:
            if name in self.services:
                bound.setdefault(self.services[name].offering, []).append(self.services[name].binding())
        about = {
            "application_name": app.name,
            "application_id": app.guid,
            "uris": [route.url for route in self.routes_of(app.name)],
        }
        about |= {"organization_name": self.org, "space_name": self.name, "space_id": self.guid}
        return {"VCAP_SERVICES": json.dumps(bound), "VCAP_APPLICATION": json.dumps(about)}


def mta_metadata(mta_id: str, namespace: str, version: str) -> dict[str, Any]:
    """What tells that an application or a service belongs to an MTA."""
    labels, annotations = {"mta_id": md5(mta_id)}, {"mta_id": mta_id, "mta_version": version}
    if namespace:
        labels["mta_namespace"], annotations["mta_namespace"] = md5(namespace), namespace
    return {"labels": labels, "annotations": annotations}


def md5(value: str) -> str:
    """How labels hold an MTA's id."""
    return hashlib.md5(value.encode(), usedforsecurity=False).hexdigest()


def now() -> str:
    """The time as the API v3 writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
