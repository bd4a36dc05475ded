# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives application routers a store for their sessions. A store that is configured is the user's: only what is missing
or would stop the application router is changed, and what is given.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor, required
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.edit import Edits
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.live import PLACEHOLDER, REFERENCE
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.session import (
    CRASHING,
    DRIVER,
    INTEGERS,
    PARAMETER,
    VARIABLE,
    Environment,
    Sessions,
    instance_name,
    written,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Value


class SessionPlans:
    """Sets up the sessions of one descriptor.

    :param sessions: checked for the descriptor.
    :param namespace: namespace of the deployment.
    """

    def __init__(self, descriptor: Descriptor, sessions: Sessions, namespace: str, edits: Edits) -> None:
        self.descriptor = descriptor
        self.sessions = sessions
        self.namespace = namespace
        self.edits = edits

    def mend(self, name: str) -> None:
        """Set up one application router.

        :raises Refused: it can't be done without touching something else.
        """
        module = self.descriptor.modules[name]
        environment = Environment.of(self.descriptor, module)
        if environment is None:
            resource = self._resource_for_new()
            settings = {
                "instanceName": self._instance(resource),
                "storageType": "redis",
                "sessionSecret": f"${{{self.sessions.parameter or PARAMETER}}}",
                **INTEGERS,
                **self.sessions.numbers(),
            }
            self.edits.put_below(module, "properties", VARIABLE, written(settings))
            self._bind(module, resource)
        elif environment.opaque:
            if self.sessions.resource or self.sessions.parameter or self.sessions.numbers():
                raise Refused(
                    f"{environment.value.place}: {VARIABLE} of {name} comes from elsewhere.",
                    "Set what is wanted where it is written.",
                )
        else:
            self._complete(module, environment)

    def kept_secret(self, name: str) -> Value | None:
        """The variable of an application router in which its secret stays: with another one all users would be logged
        out, and without a parameter that brings it the deployment would stop.
        """
        environment = Environment.of(self.descriptor, self.descriptor.modules[name])
        return environment.value if environment and environment.has_secret and not self.sessions.parameter else None

    def _complete(self, module: Value, environment: Environment) -> None:
        """Fill in what is missing, take away what stops it, set what is given."""
        now, resource = environment.settings, ""
        settings = dict(now)
        refers = PLACEHOLDER.search(str(now.get("sessionSecret")))
        if self.sessions.parameter or not (refers or environment.has_secret):
            settings["sessionSecret"] = f"${{{self.sessions.parameter or PARAMETER}}}"
        settings = {key: value for key, value in settings.items() if key not in CRASHING}
        settings |= {key: _integer(now[key], default) for key, default in INTEGERS.items() if key in now}
        if DRIVER in now:
            missing = [
                key for key in ("instanceName", "storageType") if not isinstance(now.get(key), str) or not now[key]
            ]
            if missing:
                raise Refused(
                    f"{environment.value.place}: {VARIABLE} has its own driver, and no {' and no '.join(missing)}.",
                    "Add what the driver needs.",
                )
        else:
            settings["storageType"] = "redis"
        if DRIVER not in now or self.sessions.resource:
            settings["instanceName"], resource = self._instance_for(module, now.get("instanceName"))
        settings |= self.sessions.numbers()
        if settings != now or not environment.is_json:
            self._write(environment, settings)
        if resource:
            self._bind(module, resource)

    def _write(self, environment: Environment, settings: dict[str, Any]) -> None:
        value = environment.value
        if environment.filled:
            changed = [key for key in settings if settings[key] != environment.settings.get(key)]
            raise Refused(
                f"{value.place}: {VARIABLE} has parameters without quotes.", f"Write by hand: {', '.join(changed)}."
            )
        if not isinstance(value.data, dict):
            self.edits.set(value, written(settings))
            return
        gone = [key for key in environment.settings if key not in settings]
        if gone:
            raise Refused(f"{value.place}: {', '.join(gone)} in {VARIABLE} stop it.", "Remove them, then run again.")
        for key, setting in settings.items():
            entry = value.mapping.get(key)
            if entry is None:
                self.edits.put(value, key, setting)
            elif environment.settings[key] != setting:
                self.edits.set(entry.value, setting)

    def _instance_for(self, module: Value, instance: Any) -> tuple[str, str]:
        """The instance that a variable is to name, and the resource to bind for it; none when nothing is missing."""
        if self.sessions.resource:
            return self._instance(self.sessions.resource), self.sessions.resource
        bound = {name: self._instance(name) for name in required(module) if name in self.descriptor.resources}
        names = {name: self._instance(name) for name in self.descriptor.resources}
        if isinstance(instance, str) and instance:
            unknown = any(PLACEHOLDER.search(text) or REFERENCE.search(text) for text in (instance, *bound.values()))
            if unknown or instance in bound.values():
                return instance, ""
            if instance in names.values():
                return instance, next(name for name, text in names.items() if text == instance)
        offered = [name for name in bound if self._is_offered(name)]
        if offered:
            return bound[offered[0]], offered[0]
        if isinstance(instance, str) and instance:
            prefix = f"{self.namespace}-" if self.namespace else ""
            resource = instance.removeprefix(prefix)
            if resource not in names and self._instance(resource) == instance:
                return instance, resource
        resource = self._default_resource()
        return self._instance(resource), resource

    def _resource_for_new(self) -> str:
        """The resource for a router without a variable: as given, that of another router, one that a router requires
        already, else a new one.
        """
        if self.sessions.resource:
            return self.sessions.resource
        names = {self._instance(name): name for name in self.descriptor.resources}
        modules = [self.descriptor.modules[name] for name in self.sessions.modules]
        for module in modules:
            environment = Environment.of(self.descriptor, module)
            instance = environment.settings.get("instanceName") if environment else None
            if environment and DRIVER not in environment.settings and instance in names:
                return names[instance]
        wanted = [name for module in modules for name in required(module) if self._is_offered(name)]
        return wanted[0] if wanted else self._default_resource()

    def _default_resource(self) -> str:
        return f"{self.descriptor.id}-session-management"

    def _is_offered(self, name: str) -> bool:
        """Whether a resource is a service of the offering that sessions take."""
        resource = self.descriptor.resources.get(name)
        service = resource.get("parameters", "service") if resource else None
        return service is not None and service.text == self.sessions.service

    def _instance(self, name: str) -> str:
        return instance_name(name, self.descriptor.resources.get(name), self.namespace)

    def _bind(self, module: Value, name: str) -> None:
        """Let a module require a resource; a resource that is missing is added."""
        if name not in required(module):
            self.edits.append(module, "requires", {"name": name})
        if name not in self.descriptor.resources:
            parameters = {"service": self.sessions.service, "service-plan": self.sessions.plan}
            resource = {"name": name, "type": "org.cloudfoundry.managed-service", "parameters": parameters}
            self.edits.append(self.descriptor.root, "resources", resource)


def _integer(value: Any, default: int) -> Any:
    """A number as it has to be written; a placeholder stays."""
    if isinstance(value, str) and PLACEHOLDER.fullmatch(value):
        return value
    if isinstance(value, str) and value.strip().isdigit():
        return int(value)
    return default if isinstance(value, bool) or not isinstance(value, int) else value
