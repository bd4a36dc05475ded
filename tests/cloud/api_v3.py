# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for Cloud Foundry's API v3, as much as a deployment, its operator and the cf CLI use."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from .api import DEVELOPER, NOBODY, Account, cf_error, parameters
from .api_services import ServiceInstances
from .space import RUNNING, STARTED, STOPPED, App, Route, Space, md5
from .standin import Answer, Request

_PAGING = ("per_page", "page", "order_by")
Resources = list[dict[str, Any]]


class Api:
    """The API v3.

    :param url: tells its own URL.
    """

    def __init__(self, space: Space, url: Callable[[], str]) -> None:
        self._space, self._url = space, url
        self.jobs: dict[str, list[str]] = {}
        self._services = ServiceInstances(space)
        app = "apps/([^/]+)"
        self._table: list[tuple[str, str, Callable[..., Answer]]] = [
            ("GET", "(organizations|spaces)", self._named),
            ("GET", "apps", self._apps),
            ("GET", app, self._one_app),
            ("DELETE", app, self._delete_app),
            ("POST", f"{app}/actions/(start|stop|restart)", self._act),
            ("GET", f"{app}/routes", self._routes_of),
            ("GET", f"{app}/tasks", self._tasks),
            ("GET", f"{app}/processes", self._processes_of),
            ("GET", f"{app}/processes/web", self._process),
            ("GET", f"{app}/processes/web/stats", self._stats),
            ("GET", "processes", self._processes),
            ("GET", "processes/([^/]+)", self._process),
            ("GET", "processes/([^/]+)/stats", self._stats),
            ("GET", "routes", self._routes),
            ("DELETE", "routes/([^/]+)", self._delete_route),
            ("GET", "service_instances", self._service_instances),
            ("POST", "service_instances", self._create_service),
            ("DELETE", "service_instances/([^/]+)", self._delete_service),
            ("GET", "service_credential_bindings", self._bindings),
            ("GET", "jobs/([^/]+)", self._job),
        ]

    def root(self) -> Answer:
        url = self._url()
        links = {"self": url, "cloud_controller_v3": f"{url}/v3", "login": url, "uaa": url, "log_cache": url}
        return Answer(200, {"links": {name: {"href": href} for name, href in links.items()}})

    def answer(self, request: Request, account: Account) -> Answer:
        path = urlsplit(request.target).path.removeprefix("/v3/").rstrip("/")
        for method, pattern, handler in self._table:
            match = re.fullmatch(pattern, path) if method == request.method else None
            if match:
                if method != "GET" and account.role != DEVELOPER:
                    detail = "You are not authorized to perform the requested action"
                    raise cf_error(403, 10003, "CF-NotAuthorized", detail)
                return handler(request, account, *(unquote(part) for part in match.groups()))
        raise cf_error(404, 10000, "CF-NotFound", "Unknown request")

    # -- organizations and spaces -----------------------------------------------------------------------

    def _named(self, request: Request, account: Account, kind: str) -> Answer:
        own = ("organization_guids", "guids") if kind == "spaces" else ("guids",)
        query = parameters(request, "names", *_PAGING, *own)
        space = self._space
        guid, name = (space.org_guid, space.org) if kind == "organizations" else (space.guid, space.name)
        there = account.role != NOBODY and name in _list(query, "names", name) and guid in _list(query, "guids", guid)
        there = there and space.org_guid in _list(query, "organization_guids", space.org_guid)
        return self._page(request, [{"guid": guid, "name": name}] if there else [])

    # -- applications -----------------------------------------------------------------------------------

    def _apps(self, request: Request, account: Account) -> Answer:
        query = parameters(request, "space_guids", "label_selector", "names", "guids", *_PAGING)
        found = [
            app
            for app in self._seen(account, query)
            if _selected(query, app.metadata()["labels"])
            and app.name in _list(query, "names", app.name)
            and app.guid in _list(query, "guids", app.guid)
        ]
        return self._page(request, [self._app_view(app) for app in found])

    def _seen(self, account: Account, query: Mapping[str, list[str]]) -> list[App]:
        """The applications that the user sees in the spaces that are asked for."""
        here = self._space.guid in _list(query, "space_guids", self._space.guid)
        with self._space.lock:
            return list(self._space.apps.values()) if account.role != NOBODY and here else []

    def _one_app(self, request: Request, account: Account, guid: str) -> Answer:
        parameters(request, "include")
        return Answer(200, self._app_view(self._app(guid, account)))

    def _act(self, _request: Request, account: Account, guid: str, action: str) -> Answer:
        """The answer comes at once; instances start and end afterwards."""
        app = self._app(guid, account)
        app.state = STOPPED if action == "stop" else STARTED

        def settle() -> None:
            with suppress(Exception):  # an application that does not start has crashed, which its statistics tell
                self._space.settle(app, anew=action == "restart")

        threading.Thread(target=settle, name=f"{action} {app.name}", daemon=True).start()
        return Answer(200, self._app_view(app))

    def _delete_app(self, _request: Request, account: Account, guid: str) -> Answer:
        self._space.delete(self._app(guid, account).name)
        return self._done()

    def _app(self, guid: str, account: Account) -> App:
        app = self._space.by_guid(guid) if account.role != NOBODY else None
        if app is None:
            raise cf_error(404, 10010, "CF-ResourceNotFound", "App not found")
        return app

    def _app_view(self, app: App) -> dict[str, Any]:
        return {
            "guid": app.guid,
            "name": app.name,
            "state": app.state,
            "created_at": app.created_at,
            "updated_at": app.created_at,
            "lifecycle": {"type": "buildpack", "data": {"buildpacks": [], "stack": "cflinuxfs4"}},
            "relationships": {"space": {"data": {"guid": self._space.guid}}},
            "metadata": app.metadata(),
            "links": {"self": {"href": f"{self._url()}/v3/apps/{app.guid}"}},
        }

    def _tasks(self, request: Request, account: Account, guid: str) -> Answer:
        query = parameters(request, "states", "names", *_PAGING)
        app = self._app(guid, account)
        found = [
            {
                "guid": task.guid,
                "sequence_id": number,
                "name": task.name,
                "command": task.command,
                "state": task.state,
                "relationships": {"app": {"data": {"guid": app.guid}}},
            }
            for number, task in enumerate(app.tasks, 1)
            if task.state in _list(query, "states", task.state) and task.name in _list(query, "names", task.name)
        ]
        return self._page(request, found)

    # -- processes: one for each application, with its guid, as web processes have ------------------------------

    def _processes(self, request: Request, account: Account) -> Answer:
        query = parameters(
            request, "guids", "app_guids", "types", "space_guids", "organization_guids", "label_selector", *_PAGING
        )
        found = [
            app
            for app in self._seen(account, query)
            if app.guid in _list(query, "guids", app.guid)
            and app.guid in _list(query, "app_guids", app.guid)
            and "web" in _list(query, "types", "web")
        ]
        return self._page(request, [_process_view(app) for app in found])

    def _processes_of(self, request: Request, account: Account, guid: str) -> Answer:
        parameters(request, "types", *_PAGING)
        return self._page(request, [_process_view(self._app(guid, account))])

    def _process(self, request: Request, account: Account, guid: str) -> Answer:
        parameters(request)
        return Answer(200, _process_view(self._app(guid, account)))

    def _stats(self, request: Request, account: Account, guid: str) -> Answer:
        """One instance, whose state is DOWN when the application was stopped and it has ended."""
        parameters(request)
        instance = self._app(guid, account).instance
        usage = {"time": "", "cpu": 0.0, "mem": 128 << 20, "disk": 256 << 20} if instance == RUNNING else {}
        found = {"type": "web", "index": 0, "state": instance, "uptime": 1, "usage": usage, "details": None}
        return Answer(200, {"resources": [found]})

    # -- routes -----------------------------------------------------------------------------------------

    def _routes_of(self, request: Request, account: Account, guid: str) -> Answer:
        parameters(request, *_PAGING)
        app = self._app(guid, account)
        return self._page(request, [self._route(route) for route in self._space.routes_of(app.name)])

    def _routes(self, request: Request, account: Account) -> Answer:
        query = parameters(request, "app_guids", "hosts", "space_guids", *_PAGING)
        with self._space.lock:
            routes = list(self._space.routes.values()) if account.role != NOBODY else []
        found = [
            self._route(route)
            for route in routes
            if ("app_guids" not in query or set(route.apps) & set(_list(query, "app_guids", "")))
            and route.host in _list(query, "hosts", route.host)
        ]
        return self._page(request, found)

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

    def _delete_route(self, _request: Request, _account: Account, guid: str) -> Answer:
        with self._space.lock:
            route = next((route for route in self._space.routes.values() if route.guid == guid), None)
        if route is None:
            raise cf_error(404, 10010, "CF-ResourceNotFound", "Route not found")
        self._space.delete_route(route.url)
        return self._done()

    # -- services ---------------------------------------------------------------------------------------

    def _service_instances(self, request: Request, account: Account) -> Answer:
        fields = [name for name in parse_qs(urlsplit(request.target).query) if name.startswith("fields[")]
        query = parameters(
            request, "names", "guids", "space_guids", "type", "label_selector", "include", *fields, *_PAGING
        )
        found = [
            service
            for service in self._services.seen(account)
            if self._space.guid in _list(query, "space_guids", self._space.guid)
            and service.name in _list(query, "names", service.name)
            and service.guid in _list(query, "guids", service.guid)
            and _selected(query, service.metadata()["labels"])
        ]
        included = self._services.plans(found) if fields else {}
        return self._page(request, [self._services.view(service) for service in found], included)

    def _create_service(self, request: Request, _account: Account) -> Answer:
        return Answer(201, self._services.view(self._services.create(request.json())))

    def _delete_service(self, _request: Request, _account: Account, guid: str) -> Answer:
        self._services.delete(guid)
        return Answer(204)

    def _bindings(self, request: Request, account: Account) -> Answer:
        query = parameters(
            request, "type", "include", "service_instance_names", "service_instance_guids", "app_guids", *_PAGING
        )
        names = _list(query, "service_instance_names", "") if "service_instance_names" in query else None
        found = [
            (service, app)
            for service in self._services.seen(account)
            for app in self._seen(account, {})
            if service.name in app.services
            and (names is None or service.name in names)
            and service.guid in _list(query, "service_instance_guids", service.guid)
            and app.guid in _list(query, "app_guids", app.guid)
        ]
        apps = {app.guid: self._app_view(app) for _service, app in found}
        included = {"apps": list(apps.values())} if "app" in _list(query, "include", "") else {}
        return self._page(request, [self._services.binding(service, app) for service, app in found], included)

    # -- jobs and pages ---------------------------------------------------------------------------------

    def _job(self, _request: Request, _account: Account, guid: str) -> Answer:
        states = self.jobs.get(guid)
        if states is None:
            raise cf_error(404, 10010, "CF-ResourceNotFound", "Job not found")
        return Answer(200, {"guid": guid, "state": states.pop(0) if len(states) > 1 else states[0]})

    def _done(self) -> Answer:
        job = str(uuid.uuid4())
        self.jobs[job] = ["PROCESSING", "COMPLETE"]
        return Answer(202, None, {"location": f"{self._url()}/v3/jobs/{job}"})

    def _page(self, request: Request, resources: Resources, included: Mapping[str, Any] | None = None) -> Answer:
        query = parse_qs(urlsplit(request.target).query)
        size, page = int(query.get("per_page", ["50"])[0]), int(query.get("page", ["1"])[0])
        end = page * size
        following = None
        if end < len(resources):
            again = urlencode({**{name: values[0] for name, values in query.items()}, "page": page + 1})
            following = {"href": f"{self._url()}{urlsplit(request.target).path}?{again}"}
        about = {"total_results": len(resources), "total_pages": -(-len(resources) // size) or 1, "next": following}
        more = {"included": dict(included)} if included else {}
        return Answer(200, {"pagination": about, "resources": resources[end - size : end], **more})


def _process_view(app: App) -> dict[str, Any]:
    return {
        "guid": app.guid,
        "type": "web",
        "instances": 1,
        "memory_in_mb": 256,
        "disk_in_mb": 1024,
        "created_at": app.created_at,
        "relationships": {"app": {"data": {"guid": app.guid}}},
        "metadata": {"labels": {}, "annotations": {}},
    }


def _list(query: Mapping[str, list[str]], name: str, otherwise: str) -> list[str]:
    return query[name][0].split(",") if name in query else [otherwise]


def _selected(query: Mapping[str, list[str]], labels: Mapping[str, str]) -> bool:
    return all(_selects(rule, labels) for rule in _list(query, "label_selector", "") if rule)


def _selects(rule: str, labels: Mapping[str, str]) -> bool:
    if rule.startswith("!"):
        return rule[1:] not in labels
    name, equals, value = rule.partition("=")
    return labels.get(name) == value.lstrip("=") if equals else name in labels
