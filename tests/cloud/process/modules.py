# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules and resources of a descriptor: what they are called in a space, in which order they come, and how an
application is made of a module.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..archive import ContentError, checksum
from ..resolve import Resolved, Surroundings
from ..space import RUNNING, STARTED, App, Task
from .common import Process, StepError

_HOOKS_SINCE = 3
_PHASES = ("before-stop", "after-stop", "before-unmap-routes", "before-start")
_HOOK_PHASES = {
    *_PHASES,
    *(f"deploy.application.{phase}" for phase in _PHASES),
    *(f"blue-green.application.{phase}.{state}" for phase in _PHASES for state in ("idle", "live")),
}
_NO_APPS = ("com.sap.application.content", "com.sap.html5.application-content", "com.sap.portal.content")


class OfDescriptor(Process):
    """An operation on a descriptor."""

    _descriptor: dict[str, Any]
    _contents: dict[str, bytes]

    def _body(self, module: str) -> dict[str, Any]:
        found: dict[str, Any] = next(entry for entry in self._descriptor["modules"] if entry["name"] == module)
        return found

    def _parameters(self, module: str) -> dict[str, Any]:
        return self._body(module).get("parameters") or {}

    def _modules(self) -> list[str]:
        """All, those that others need before those: what one provides, or is deployed after."""
        bodies = {str(entry["name"]): entry for entry in self._descriptor.get("modules") or ()}
        result: list[str] = []

        def add(name: str, above: tuple[str, ...] = ()) -> None:
            if name in result or name in above:
                return
            for other in self._needed(bodies, name):
                add(other, (*above, name))
            result.append(name)

        for name in bodies:
            add(name)
        return result

    def _needed(self, bodies: Mapping[str, Mapping[str, Any]], name: str) -> list[str]:
        required = {str(entry["name"]) for entry in bodies[name].get("requires") or ()}
        after = bodies[name].get("deployed-after") or ()
        return [
            other
            for other, body in bodies.items()
            if other != name
            and (other in after or required & {other, *(str(entry["name"]) for entry in body.get("provides") or ())})
        ]

    def _dependents(self, module: str) -> list[str]:
        bodies = {str(entry["name"]): entry for entry in self._descriptor.get("modules") or ()}
        return [other for other in bodies if module in self._needed(bodies, other)]

    def _is_app(self, module: str) -> bool:
        return self._body(module).get("type") not in _NO_APPS

    def _name(self, module: str) -> str:
        return self._named(str(self._parameters(module).get("app-name") or module), "applyNamespaceAppNames")

    def _service_name(self, resource: str) -> str:
        body = next(entry for entry in self._descriptor["resources"] if entry["name"] == resource)
        name = str((body.get("parameters") or {}).get("service-name") or resource)
        return self._named(name, "applyNamespaceServiceNames")

    def _named(self, name: str, applies: str) -> str:
        """The name with the namespace, unless the operation says that it has none."""
        namespace, parameters = self._operation.namespace, self._operation.parameters
        if not namespace or parameters.get(applies) == "false":
            return name
        suffixed = parameters.get("applyNamespaceAsSuffix") == "true"
        return f"{name}-{namespace}" if suffixed else f"{namespace}-{name}"

    def _resolved(self, *, idle: bool) -> Resolved:
        around = Surroundings(self._space.org, self._space.name, self._space.domain, self._operation.user, idle)
        return Resolved(self._descriptor, around)

    def _environment(self, module: str, *, idle: bool) -> dict[str, str]:
        found = self._resolved(idle=idle).environment(module)
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in found.items()}

    def _ensure(self, module: str, name: str, *, idle: bool, start: bool) -> None:
        """Create the application or update the one that is there: its routes, environment and bindings, then its
        content. What has not changed is not restarted.
        """
        resolved, app = self._resolved(idle=idle), self._space.apps.get(name)
        env, services = self._environment(module, idle=idle), self._bound(resolved, module)
        content = self._contents.get(module, b"")
        verb = "Creating" if app is None else "Updating"
        self._say(f'{verb} application "{name}" from MTA module "{module}"...', app=name)
        self._expect_hooks(module)
        if app is None:
            app = self._space.create(App(name, module, self._operation.mta_id, self._operation.namespace))
            changed = True
        else:
            changed = (app.env, app.services, app.content) != (env, services, content)
            changed = changed or self._flag("skipAppDigestCalculation")
        self._map(module, app, resolved.hosts(module))
        app.env, app.services, app.content = env, services, content
        self._bind(app)
        app.bindings = {
            self._service_name(resource): resolved.binding(module, resource) for resource in resolved.services(module)
        }
        app.version, app.checksum = str(self._descriptor["version"]), checksum(self._descriptor)
        app.provides = [str(entry["name"]) for entry in self._body(module).get("provides") or ()]
        if changed and app.state == STARTED:
            self._space.stop(name)
        if start and app.instance != RUNNING:
            self._start(name)
        if start:
            self._tasks(module, app)

    def _map(self, module: str, app: App, urls: list[str]) -> None:
        """Map these routes, and no others unless existing ones are kept."""
        for url in urls:
            self._space.map(url, app.name)
        for route in self._space.routes_of(app.name):
            if route.url not in urls and not self._keeps_routes(module):
                self._space.unmap(route.url, app.name)

    def _keeps_routes(self, module: str) -> bool:
        """Three places count: two in the module's parameters and body, and the descriptor's root."""
        places = (self._parameters(module), self._body(module), self._descriptor.get("parameters") or {})
        return any(
            place.get("keep-existing-routes") is True or (place.get("keep-existing") or {}).get("routes") is True
            for place in places
        )

    def _expect_hooks(self, module: str) -> None:
        """Hooks are not executed, but one of a phase that there is not stops the deployment.

        :raises StepError: there is such a hook.
        """
        if int(str(self._descriptor.get("_schema-version", "3")).partition(".")[0]) < _HOOKS_SINCE:
            return
        for hook in self._body(module).get("hooks") or ():
            for phase in hook.get("phases") or ():
                if phase not in _HOOK_PHASES:
                    raise StepError(f'Unsupported hook phase "{phase}"')

    def _bound(self, resolved: Resolved, module: str) -> list[str]:
        return [self._service_name(resource) for resource in resolved.services(module)]

    def _tasks(self, module: str, app: App) -> None:
        for body in self._parameters(module).get("tasks") or ():
            task = Task(str(body.get("name", "")), str(body.get("command", "")))
            self._say(f'Executing task "{task.name}" on application "{app.name}"...', app=app.name)
            self._fail_at(f"task {task.name}")
            app.tasks.append(task)

    def _select(self, key: str, parameter: str) -> list[str]:
        """The modules or resources that the operation is about."""
        names = [str(entry["name"]) for entry in self._descriptor.get(key) or ()]
        chosen = [name for name in self._operation.parameters.get(parameter, "").split(",") if name]
        if set(chosen) - set(names):
            raise ContentError(
                f"{key.capitalize()} {chosen}, specified for deployment, are not part of deployment descriptor {key}"
            )
        return chosen or names
