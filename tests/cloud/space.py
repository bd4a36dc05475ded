# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A space of Cloud Foundry as a model: applications, routes and services, without any HTTP. What runs the applications
is exchangeable.
"""

from __future__ import annotations

import hashlib
import json
import queue
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

DRAIN_S = 10.0
"""As long as Cloud Foundry waits between SIGTERM and SIGKILL."""


class AppRunner(Protocol):
    """Runs applications. It is called from the deploy service's thread; see :class:`MainThread`."""

    def start(self, app_name: str, module_name: str, env: Mapping[str, str], content: bytes) -> int:
        """Start an application, return when it is healthy, with the port on which it listens.

        :param content: the module's ``data.zip``.
        :raises Exception: it does not start; the text becomes the operation's message.
        """

    def stop(self, app_name: str) -> None:
        """Stop it; what is not running is no error. No route leads to it any more, and no request is in flight."""

    def rename(self, old: str, new: str) -> None:
        """The application has another name from now on."""


class NoRunner:
    """Starts nothing; ``running`` says what would run, with its environment."""

    def __init__(self) -> None:
        self.running: dict[str, dict[str, str]] = {}

    def start(self, app_name: str, module_name: str, env: Mapping[str, str], content: bytes) -> int:
        self.running[app_name] = dict(env)
        return 0

    def stop(self, app_name: str) -> None:
        self.running.pop(app_name, None)

    def rename(self, old: str, new: str) -> None:
        if old in self.running:
            self.running[new] = self.running.pop(old)


class MainThread:
    """Hands the calls for *runner* to the thread that calls :meth:`work`: processes must be started from the main
    thread.
    """

    def __init__(self, runner: AppRunner) -> None:
        self._runner = runner
        self._calls: queue.Queue[tuple[Callable[[], Any], Future[Any]]] = queue.Queue()

    def start(self, app_name: str, module_name: str, env: Mapping[str, str], content: bytes) -> int:
        return int(self._hand(lambda: self._runner.start(app_name, module_name, env, content)))

    def stop(self, app_name: str) -> None:
        self._hand(lambda: self._runner.stop(app_name))

    def rename(self, old: str, new: str) -> None:
        self._hand(lambda: self._runner.rename(old, new))

    def work(self, until: Callable[[], object], pause_s: float = 0.05) -> None:
        """Do what is handed over until *until* is true."""
        while not until():
            try:
                call, future = self._calls.get(timeout=pause_s)
            except queue.Empty:
                continue
            try:
                future.set_result(call())
            except Exception as error:  # it belongs to the caller's thread
                future.set_exception(error)

    def _hand(self, call: Callable[[], Any]) -> Any:
        future: Future[Any] = Future()
        self._calls.put((call, future))
        return future.result()


class Router(Protocol):
    """What leads requests to applications; see :class:`.gorouter.Gorouter`."""

    def switch(self, table: Mapping[str, list[int]]) -> None: ...

    def drain(self, port: int, timeout_s: float) -> bool: ...


@dataclass
class App:
    name: str
    module: str
    mta_id: str
    namespace: str = ""
    version: str = ""
    env: dict[str, str] = field(default_factory=dict)
    content: bytes = b""
    services: list[str] = field(default_factory=list)
    state: str = "STOPPED"
    port: int = 0
    guid: str = field(default_factory=lambda: str(uuid.uuid4()))

    def metadata(self) -> dict[str, Any]:
        labels = {"mta_id": md5(self.mta_id), **({"mta_namespace": md5(self.namespace)} if self.namespace else {})}
        annotations = {
            "mta_id": self.mta_id,
            "mta_version": self.version,
            "mta_module": json.dumps({"name": self.module}),
        }
        return {"labels": labels, "annotations": annotations}


@dataclass
class Route:
    """``apps`` are the names' guids behind it."""

    url: str
    apps: list[str] = field(default_factory=list)
    guid: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def host(self) -> str:
        return self.url.partition(".")[0]


@dataclass
class Service:
    """A service instance; ``config`` is what it was created or updated with, ``writes`` how often."""

    name: str
    offering: str
    plan: str
    config: dict[str, Any]
    credentials: dict[str, Any]
    tags: list[str] = field(default_factory=list)
    writes: int = 1

    def binding(self) -> dict[str, Any]:
        about = {
            "name": self.name,
            "instance_name": self.name,
            "label": self.offering,
            "plan": self.plan,
            "tags": self.tags,
        }
        return {**about, "credentials": self.credentials}


class Space:
    """Applications, routes and services of one space.

    :param domain: of its routes, for example ``apps.localhost:8443``.
    :param credentials: by service name: what a binding brings.
    :param drain_s: how long requests may still take at an application that is stopped.
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
    ) -> None:
        self.drain_s = drain_s
        self.org, self.name, self.domain = org, name, domain
        self.guid, self.org_guid = str(uuid.uuid4()), str(uuid.uuid4())
        self.runner: AppRunner = runner or NoRunner()
        self.router = router
        self.credentials = {key: dict(value) for key, value in (credentials or {}).items()}
        self.apps: dict[str, App] = {}
        self.routes: dict[str, Route] = {}
        self.services: dict[str, Service] = {}
        self.lock = threading.RLock()

    def clear(self) -> None:
        """Forget everything; who runs the applications stops them."""
        with self.lock:
            self.apps.clear()
            self.routes.clear()
            self.services.clear()
        self.publish()

    def apps_of(self, mta_id: str, namespace: str = "") -> list[App]:
        with self.lock:
            return [app for app in self.apps.values() if (app.mta_id, app.namespace) == (mta_id, namespace)]

    def create(self, app: App) -> App:
        """Create an application, or replace the one of the same name with its routes."""
        if app.name in self.apps:
            self.delete(app.name)
        with self.lock:
            self.apps[app.name] = app
        return app

    def rename(self, old: str, new: str) -> None:
        with self.lock:
            app = self.apps.pop(old)
            app.name = new
            self.apps[new] = app
        self.runner.rename(old, new)

    def start(self, name: str) -> None:
        app = self.apps[name]
        app.port = self.runner.start(name, app.module, {**app.env, **self._platform(app)}, app.content)
        app.state = "STARTED"
        self.publish()

    def stop(self, name: str) -> None:
        """Take it out of the router, wait for its requests, and stop it."""
        app = self.apps[name]
        if app.state != "STARTED":
            return
        app.state = "STOPPED"
        self.publish()
        if self.router:
            self.router.drain(app.port, self.drain_s)
        self.runner.stop(name)

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

    def routes_of(self, name: str) -> list[Route]:
        with self.lock:
            return [route for route in self.routes.values() if self.apps[name].guid in route.apps]

    def answers(self, url: str) -> bool:
        """Whether a request to this URL reaches an application; else the router says 404 ``unknown_route``."""
        host = url.partition("://")[2].partition("/")[0] or url
        with self.lock:
            started = {app.guid for app in self.apps.values() if app.state == "STARTED"}
            return host in self.routes and bool(started & set(self.routes[host].apps))

    def publish(self) -> None:
        """Tell the router which host leads where, in one step."""
        if self.router is None:
            return
        with self.lock:
            ports = {app.guid: app.port for app in self.apps.values() if app.state == "STARTED" and app.port}
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


def md5(value: str) -> str:
    """How labels hold an MTA's id."""
    return hashlib.md5(value.encode(), usedforsecurity=False).hexdigest()
