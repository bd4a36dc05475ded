# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment does to a space, step by step. A step that has failed is done again by a retry, so each can be
repeated.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .resolve import IDLE, ContentError, Resolved, Surroundings, merged
from .space import App, Service

if TYPE_CHECKING:
    from .controller import Controller, Operation

LIVE = "-live"
_MANAGED, _PROVIDED = "org.cloudfoundry.managed-service", "org.cloudfoundry.user-provided-service"


class Stopped(Exception):
    """The operation was aborted."""


class StepError(Exception):
    """A step has failed; *kind* is the operation's error type."""

    def __init__(self, text: str, kind: str = "CONTENT") -> None:
        super().__init__(text)
        self.kind = kind


class Deploy:
    """The steps of one operation."""

    def __init__(self, controller: Controller, operation: Operation) -> None:
        self._controller, self._operation, self._space = controller, operation, controller.space
        self._descriptor: dict[str, Any] = {}
        self._contents: dict[str, bytes] = {}
        self._chosen: list[str] = []
        self._resources: list[str] = []
        self._first = False
        self._blue_green = operation.type == "BLUE_GREEN_DEPLOY"

    def steps(self) -> list[Callable[[], None]]:
        common = [self._validate, self._lock, self._detect]
        if not self._blue_green:
            return [*common, self._services, self._replace]
        return [*common, self._rename, self._services, self._idle, self._confirm, self._switch, self._delete_live]

    def _flag(self, name: str) -> bool:
        return self._operation.parameters.get(name) == "true"

    def _say(self, text: str, kind: str = "INFO") -> None:
        self._controller.say(self._operation, text, kind)

    def _at(self, step: str) -> None:
        self._controller.checkpoint(self._operation, step)

    def _resolved(self, *, idle: bool) -> Resolved:
        around = Surroundings(self._space.org, self._space.name, self._space.domain, self._operation.user, idle)
        return Resolved(self._descriptor, around)

    def _validate(self) -> None:
        self._say(f"Operation ID: {self._operation.id}")
        self._say(f'Deploying in org "{self._space.org}" and space "{self._space.name}"')
        self._at("validate")
        descriptor, self._contents, extensions = self._controller.archive(self._operation)
        self._descriptor = merged(descriptor, extensions)
        wanted = self._operation.mta_id
        if wanted and wanted != self._descriptor["ID"]:
            raise ContentError(f'The archive is of MTA "{self._descriptor["ID"]}", not "{wanted}"')
        self._operation.mta_id = str(self._descriptor["ID"])
        self._chosen = self._select("modules", "modulesForDeployment")
        self._resources = self._select("resources", "resourcesForDeployment")

    def _select(self, key: str, parameter: str) -> list[str]:
        names = [str(entry["name"]) for entry in self._descriptor.get(key) or ()]
        chosen = [name for name in self._operation.parameters.get(parameter, "").split(",") if name]
        if set(chosen) - set(names):
            raise ContentError(
                f"{key.capitalize()} {chosen}, specified for deployment, are not part of deployment descriptor {key}"
            )
        return chosen or names

    def _lock(self) -> None:
        self._at("lock")
        self._controller.lock(self._operation)

    def _detect(self) -> None:
        mta = self._operation.mta_id
        deployed = [app for app in self._space.apps_of(mta, self._operation.namespace) if not app.name.endswith(IDLE)]
        self._first = not deployed
        if self._first:
            self._say(f'No deployed MTA detected - this is initial deployment of MTA with ID "{mta}"')
            return
        version, new = deployed[0].version, str(self._descriptor["version"])
        self._say(f'Detected deployed MTA with ID "{mta}" and version "{version}"')
        rule = self._operation.parameters.get("versionRule", "SAME_HIGHER")
        if rule != "ALL" and _numbers(new) < _numbers(version):
            raise ContentError(
                'A higher version of your MTA is already deployed. Include the command line option "--version-rule ALL"'
                " in your deploy command."
            )
        if rule == "HIGHER" and _numbers(new) == _numbers(version):
            raise ContentError(
                'The same version of your MTA is already deployed. Include the command line option "--version-rule'
                ' SAME_HIGHER".'
            )

    def _name(self, module: str) -> str:
        body = next(entry for entry in self._descriptor["modules"] if entry["name"] == module)
        name = str((body.get("parameters") or {}).get("app-name") or module)
        return f"{self._operation.namespace}-{name}" if self._operation.namespace else name

    def _rename(self) -> None:
        """The live application gets its suffix; one that an aborted deployment has renamed already is used as it is."""
        self._at("rename")
        for module in self._chosen:
            name = self._name(module)
            if name in self._space.apps and name + LIVE not in self._space.apps:
                self._say(f'Renaming application "{name}" to "{name + LIVE}"...')
                self._space.rename(name, name + LIVE)

    def _services(self) -> None:
        """Every service is created or updated once, with what the placeholders are now; nothing does it again after the
        switch.
        """
        self._at("services")
        resolved = self._resolved(idle=self._blue_green)
        for body in self._descriptor.get("resources") or ():
            name = str(body["name"])
            if name not in self._resources or body.get("type") not in (_MANAGED, _PROVIDED):
                continue
            parameters = body.get("parameters") or {}
            offering = str(parameters.get("service") or "user-provided")
            config, known = resolved.config(name), self._space.services.get(name)
            self._fail_at(f"service {name}")
            if known is None:
                self._say(f'Creating service "{name}" from MTA resource "{name}"...')
                credentials = self._space.credentials.get(name, config if body["type"] == _PROVIDED else {})
                tags = [str(tag) for tag in parameters.get("service-tags") or ()]
                self._space.services[name] = Service(
                    name, offering, str(parameters.get("service-plan") or ""), config, credentials, tags
                )
            elif known.config != config:
                self._say(f'Updating service "{name}"...')
                known.config, known.writes = config, known.writes + 1

    def _create(self, module: str, name: str, *, idle: bool, start: bool) -> None:
        resolved = self._resolved(idle=idle)
        self._say(f'Creating application "{name}" from MTA module "{module}"...')
        env = {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in resolved.environment(module).items()
        }
        app = App(
            name,
            module,
            self._operation.mta_id,
            self._operation.namespace,
            str(self._descriptor["version"]),
            env,
            self._contents.get(module, b""),
        )
        app.services = resolved.services(module)
        self._space.create(app)
        for url in resolved.hosts(module):
            self._space.map(url, name)
        if start:
            self._start(name)

    def _start(self, name: str) -> None:
        self._at(f"start {name}")
        self._say(f'Starting application "{name}"...')
        self._fail_at(name)
        try:
            self._space.start(name)
        except Exception as error:
            raise StepError(f'Error starting application "{name}": {error}') from error
        self._say(
            f'Application "{name}" started and available at'
            f' "{", ".join(route.url for route in self._space.routes_of(name))}"'
        )

    def _fail_at(self, name: str) -> None:
        failure = self._controller.faults.failure(name)
        if failure:
            raise StepError(failure.text, failure.kind)

    def _idle(self) -> None:
        for module in self._chosen:
            name = self._name(module) + IDLE
            there = self._space.apps.get(name)
            fresh = (
                there is not None
                and there.state == "STARTED"
                and there.content == self._contents.get(module)
                and self._operation.action == "retry"
            )
            if not fresh:
                self._create(
                    module, name, idle=True, start=not self._flag("skipIdleStart") and not self._flag("noStart")
                )

    def _confirm(self) -> None:
        if self._first or self._flag("noConfirm"):
            return
        self._at("confirm")
        self._say(
            "Process has entered testing phase. After testing your new deployment you can resume or abort the process."
        )
        self._controller.test_phase(self._operation)

    def _switch(self) -> None:
        """Routes from idle to live, the environment rebuilt, renamed, restarted, idle routes deleted: application after
        application.
        """
        for module in self._chosen:
            name = self._name(module)
            if name + IDLE in self._space.apps:
                self._switch_one(module, name)
            elif name in self._space.apps and self._space.apps[name].state != "STARTED":
                self._start(name)

    def _switch_one(self, module: str, name: str) -> None:
        self._at(f"switch {name}")
        resolved, idle = self._resolved(idle=False), name + IDLE
        self._fail_at(f"switch {name}")
        body = next(entry for entry in self._descriptor["modules"] if entry["name"] == module)
        live = resolved.hosts(module)
        if (body.get("parameters") or {}).get("keep-existing-routes") and name + LIVE in self._space.apps:
            live = list(dict.fromkeys([*live, *(route.url for route in self._space.routes_of(name + LIVE))]))
        old = [route.url for route in self._space.routes_of(idle) if route.url not in live]
        for url in live:
            self._space.map(url, idle)
        app = self._space.apps[idle]
        app.env = {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in resolved.environment(module).items()
        }
        if name in self._space.apps:  # left by an abort in the middle of a switch
            self._space.delete(name)
        self._space.stop(idle)
        self._say(f'Renaming application "{idle}" to "{name}"...')
        self._space.rename(idle, name)
        self._start(name)
        for url in old:
            self._say(f'Deleting idle route "{url}"...')
            self._space.unmap(url, name)

    def _delete_live(self) -> None:
        self._at("delete live")
        for app in self._space.apps_of(self._operation.mta_id, self._operation.namespace):
            if app.name.endswith(LIVE) and app.module in self._chosen:
                self._say(f'Deleting application "{app.name}"...')
                self._space.delete(app.name)

    def _replace(self) -> None:
        """A plain deployment: every application is stopped and comes again under its name."""
        for module in self._chosen:
            self._create(module, self._name(module), idle=False, start=not self._flag("noStart"))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.partition("-")[0].split("."))
