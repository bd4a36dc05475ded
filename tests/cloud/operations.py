# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The deploy service's requests about operations and deployed MTAs; query parameters that it does not know are
ignored.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .controller import ACTIONS, STATES, Controller, Operation
from .parameters import BadRequest
from .space import App, Service
from .standin import Answer, Request

_OPERATION = re.compile(r"operations/([^/]+)(?:/(actions|logs)(?:/([^/]+)/content)?)?")
_TEXT = {"content-type": "text/plain; charset=utf-8"}


class Operations:
    """Answers the requests of one space."""

    def __init__(self, controller: Controller) -> None:
        self._controller, self._space = controller, controller.space

    def answer(self, request: Request, user: str, rest: str) -> Answer:
        """:param rest: the path behind the space."""
        if rest == "operations":
            return self._start(request, user) if request.method == "POST" else self._list(request)
        match = _OPERATION.fullmatch(rest)
        operation = self._controller.operations.get(match[1]) if match else None
        if match is None or operation is None:
            return Answer(404, f'Operation with id "{match[1]}" not found' if match else "Not Found")
        if request.method == "POST" and not match[2]:
            return self._act(request, operation)
        if request.method != "GET":
            return Answer(405, "Method Not Allowed")
        return self._one(request, operation, match[2], match[3])

    def _start(self, request: Request, user: str) -> Answer:
        try:
            operation = self._controller.start(request.json(), user)
        except BadRequest as error:
            return Answer(error.status, str(error))
        except ValueError as error:
            return Answer(400, str(error))
        return self._accepted(operation)

    def _accepted(self, operation: Operation) -> Answer:
        place = f"spaces/{self._space.guid}/operations/{operation.id}?embed=messages"
        return Answer(202, None, {"location": place})

    def _list(self, request: Request) -> Answer:
        """Oldest first; the last ones, newest first, when only some are asked for. Error types are not told."""
        query = parse_qs(urlsplit(request.target).query)
        states, mta = query.get("state", []), query.get("mtaId", [""])[0]
        last = query.get("last", [""])[0]
        if set(states) - set(STATES) or (last and not last.isdecimal()):
            return Answer(400, f"Illegal query {urlsplit(request.target).query}")
        with self._controller.changed:
            found = [
                operation.view(self._space.guid, messages=False, error_type=False)
                for operation in self._controller.operations.values()
                if mta in ("", operation.mta_id) and operation.state in (states or STATES)
            ]
        found.sort(key=lambda view: str(view["startedAt"]), reverse=bool(last))
        return Answer(200, found[: int(last)] if last else found)

    def _one(self, request: Request, operation: Operation, part: str | None, log: str | None) -> Answer:
        with self._controller.changed:
            if part == "actions":
                return Answer(200, ACTIONS.get(operation.state, []))
            if part == "logs" and log is None:
                return Answer(200, [{"id": name} for name in operation.logs])
            if part == "logs":
                lines = operation.logs.get(str(log))
                return Answer(404, "Log not found") if lines is None else Answer(200, "".join(lines), _TEXT)
            embed = request.query.get("embed") == "messages"
            return Answer(200, operation.view(self._space.guid, messages=embed, error_type=True))

    def _act(self, request: Request, operation: Operation) -> Answer:
        try:
            self._controller.act(operation.id, request.query.get("actionId", ""))
        except BadRequest as error:
            return Answer(error.status, str(error))
        return self._accepted(operation)

    # -- what is deployed -------------------------------------------------------------------------------

    def mtas(self, request: Request) -> Answer:
        """All, or those of a name, a namespace or both; who asks for some of which there are none gets 404."""
        query = parse_qs(urlsplit(request.target).query, keep_blank_values=True)
        name, namespace = query.get("name", [None])[0], query.get("namespace", [None])[0]
        found = [
            mta
            for mta in self._found()
            if name in (None, mta["metadata"]["id"]) and namespace in (None, mta["metadata"]["namespace"] or "")
        ]
        if not found and (name is not None or namespace is not None):
            about = [f'name "{name}"'] * (name is not None) + [f'namespace "{namespace}"'] * (namespace is not None)
            return Answer(404, f"MTA with {' and '.join(about)} does not exist")
        return Answer(200, found)

    def mta(self, identity: str) -> Answer:
        found = [mta for mta in self._found() if mta["metadata"]["id"] == identity]
        if len(found) > 1:
            return Answer(409, f'There are several MTAs with id "{identity}"')
        return Answer(200, found[0]) if found else Answer(404, f'MTA with id "{identity}" does not exist')

    def _found(self) -> list[dict[str, Any]]:
        """The MTAs that applications or services belong to. As soon as these carry different versions, an MTA has
        none.
        """
        with self._space.lock:
            apps, services = list(self._space.apps.values()), list(self._space.services.values())
        parts: list[App | Service] = [*apps, *(service for service in services if service.mta_id)]
        return [
            {
                "metadata": {"id": mta_id, "version": self._version(mta_id, namespace), "namespace": namespace or None},
                "modules": [self._module(app) for app in apps if (app.mta_id, app.namespace) == (mta_id, namespace)],
                "services": sorted(one.name for one in services if (one.mta_id, one.namespace) == (mta_id, namespace)),
            }
            for mta_id, namespace in dict.fromkeys((part.mta_id, part.namespace) for part in parts)
        ]

    def _version(self, mta_id: str, namespace: str) -> str | None:
        versions = self._space.versions(mta_id, namespace)
        return versions.pop() if len(versions) == 1 else None

    def _module(self, app: App) -> dict[str, Any]:
        return {
            "moduleName": app.module,
            "appName": app.name,
            "services": list(app.services),
            "providedDendencyNames": list(app.provides),
            "uris": [route.url for route in self._space.routes_of(app.name)],
        }
