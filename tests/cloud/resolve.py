# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deployment descriptors as the deploy service reads them: extension descriptors merged, ``${parameters}`` and
``~{properties}`` resolved.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .archive import SECURE, ContentError

IDLE = "-idle"
_REFERENCE = re.compile(r"(\\?)([$~])\{([^}]+)\}")
_DEPTH = 20


@dataclass(frozen=True)
class Surroundings:
    """What the descriptor does not say itself."""

    org: str
    space: str
    domain: str
    user: str
    idle: bool
    protocol: str = "https"


def merged(descriptor: Mapping[str, Any], extensions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The descriptor with its extension descriptors, in the order of their chain; secure parameters come last.

    :raises ContentError: one extends something else, or a module or resource that is not there.
    """
    result = copy.deepcopy(dict(descriptor))
    end, waiting = str(descriptor["ID"]), [entry for entry in extensions if entry.get("ID") != SECURE]
    while waiting:
        extension = next((entry for entry in waiting if entry.get("extends") == end), None)
        if extension is None:
            raise ContentError(
                f'Extension descriptors "{", ".join(str(entry.get("ID")) for entry in waiting)}" do not extend "{end}"'
            )
        waiting.remove(extension)
        end = str(extension["ID"])
        _extend(result, extension)
    for extension in extensions:
        if extension.get("ID") == SECURE:
            _extend(result, extension)
    return result


def _extend(result: dict[str, Any], extension: Mapping[str, Any]) -> None:
    body = {key: value for key, value in extension.items() if key not in ("ID", "extends", "_schema-version")}
    _merge(result, body, str(extension["ID"]))


def _merge(target: dict[str, Any], source: Mapping[str, Any], where: str) -> None:
    for key, value in source.items():
        known = target.get(key)
        if isinstance(value, list) and value and all(isinstance(entry, Mapping) and "name" in entry for entry in value):
            for entry in value:
                there = next((other for other in known or () if other.get("name") == entry["name"]), None)
                if there is None:
                    raise ContentError(f'Unknown "{entry["name"]}" in {key} of extension descriptor "{where}"')
                _merge(there, entry, where)
        elif isinstance(value, Mapping) and isinstance(known, dict):
            _merge(known, value, where)
        else:
            target[key] = copy.deepcopy(value)


class Resolved:
    """The descriptor as it is in one phase.

    :raises ContentError: by the methods, for what can't be resolved.
    """

    def __init__(self, descriptor: Mapping[str, Any], around: Surroundings) -> None:
        self.descriptor, self._around = descriptor, around
        self._modules = {str(module["name"]): module for module in descriptor.get("modules") or ()}
        self._resources = {str(resource["name"]): resource for resource in descriptor.get("resources") or ()}
        self._providers = {name: (name, resource) for name, resource in self._resources.items()} | {
            str(entry["name"]): (name, entry)
            for name, module in self._modules.items()
            for entry in module.get("provides") or ()
        }

    def hosts(self, module: str, *, idle: bool | None = None) -> list[str]:
        """The hosts of the module's routes, with their domain; without idle routes when *idle* is false."""
        around = self._around if idle is None else Surroundings(**{**self._around.__dict__, "idle": idle})
        parameters = self._modules[module].get("parameters") or {}
        if parameters.get("no-route"):
            return []
        suffix = IDLE if around.idle else ""
        if parameters.get("routes"):
            written = [str(self.value(entry["route"], module, live=True)) for entry in parameters["routes"]]
            return [f"{host}{suffix}.{rest}" for host, _dot, rest in (route.partition(".") for route in written)]
        named = [str(self.value(host, module, live=True)) for host in _listed(parameters, "host", "hosts")]
        hosts = [f"{host}{suffix}" for host in named] or [self._default_host(module, idle=around.idle)]
        return [f"{host}.{domain}" for host in hosts for domain in self._domains(module)]

    def _domains(self, module: str) -> list[str]:
        """The module's own domains, else the space's."""
        own = _listed(self._modules[module].get("parameters") or {}, "domain", "domains")
        return [str(self.value(domain, module, live=True)) for domain in own] or [self._around.domain]

    def environment(self, module: str) -> dict[str, Any]:
        """The module's properties, and those of its requirements: with a group as a list, else by their names."""
        body = self._modules[module]
        result: dict[str, Any] = {
            key: self.value(value, module) for key, value in (body.get("properties") or {}).items()
        }
        for requirement in body.get("requires") or ():
            properties = requirement.get("properties")
            if not properties:
                continue
            own = {key: self.value(value, module, str(requirement["name"])) for key, value in properties.items()}
            if requirement.get("group"):
                result.setdefault(str(requirement["group"]), []).append(own)
            else:
                result.update(own)
        return result

    def services(self, module: str) -> list[str]:
        """The resources that the module requires."""
        return [
            str(entry["name"])
            for entry in self._modules[module].get("requires") or ()
            if entry["name"] in self._resources
        ]

    def binding(self, module: str, resource: str) -> dict[str, Any]:
        """The configuration of the module's binding to a service."""
        bodies = (entry for entry in self._modules[module].get("requires") or () if entry["name"] == resource)
        found = self.value((next(bodies).get("parameters") or {}).get("config") or {}, module, resource)
        return dict(found)

    def config(self, resource: str) -> dict[str, Any]:
        """The configuration of a service."""
        found = self.value((self._resources[resource].get("parameters") or {}).get("config") or {}, resource)
        return dict(found)

    def value(
        self,
        value: Any,
        owner: str,
        requirement: str = "",
        *,
        live: bool = False,
        live_routes: bool = False,
        depth: int = 0,
    ) -> Any:
        """A value with everything in it resolved; ``\\${…}`` and ``\\~{…}`` are text.

        :param requirement: in which the value stands: whose properties ``~{property}`` means.
        :param live: as if there were no idle routes.
        :param live_routes: the same for ``${routes/N/route}`` alone.
        """
        if depth > _DEPTH:
            raise ContentError(f'Circular reference in "{owner}"')

        def again(entry: Any) -> Any:
            return self.value(entry, owner, requirement, live=live, live_routes=live_routes, depth=depth)

        def resolved(match: re.Match[str]) -> Any:
            if match[1]:
                return match[0][1:]
            if match[2] == "~":
                return self._property(match[3], owner, requirement, depth + 1)
            return self._parameter(match[3], owner, live=live, live_routes=live_routes, depth=depth + 1)

        if isinstance(value, Mapping):
            return {key: again(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [again(entry) for entry in value]
        if not isinstance(value, str):
            return value
        whole = _REFERENCE.fullmatch(value)
        return resolved(whole) if whole else _REFERENCE.sub(lambda match: str(resolved(match)), value)

    def _property(self, reference: str, owner: str, requirement: str, depth: int) -> Any:
        provider, _slash, name = (requirement, "/", reference) if requirement else reference.partition("/")
        required = {
            str(entry["name"])
            for entry in (self._modules.get(owner) or self._resources.get(owner) or {}).get("requires") or ()
        }
        if provider not in required or provider not in self._providers:
            raise ContentError(f'Unable to resolve "{owner}#{reference}"')
        module, entry = self._providers[provider]
        if name not in (entry.get("properties") or {}):
            raise ContentError(f'Unable to resolve "{owner}#{reference}"')
        live = bool((entry.get("parameters") or {}).get("use-live-routes"))
        return self.value(entry["properties"][name], module, live_routes=live, depth=depth)

    def _parameter(self, name: str, owner: str, *, live: bool, live_routes: bool, depth: int) -> Any:
        """The owner's own parameters come first, then those that the service sets, then those of the descriptor."""
        own = (self._modules.get(owner) or self._resources.get(owner) or {}).get("parameters") or {}
        match = re.fullmatch(r"routes/(\d+)/route", name)
        if match and owner in self._modules:
            return self.hosts(owner, idle=False if live or live_routes else None)[int(match[1])]
        if name in own:
            return self.value(own[name], owner, live=live, depth=depth)
        system = self._system(owner, idle=self._around.idle and not live)
        if name in system:
            return system[name]
        if name in (self.descriptor.get("parameters") or {}):
            return self.value(self.descriptor["parameters"][name], owner, live=live, depth=depth)
        raise ContentError(f'Unable to resolve "{owner}#{name}"')

    def _system(self, owner: str, *, idle: bool) -> dict[str, str]:
        around = self._around
        result = {
            "org": around.org,
            "space": around.space,
            "user": around.user,
            "protocol": around.protocol,
            "default-domain": around.domain,
        }
        result |= {
            "domain": around.domain,
            "mta-id": str(self.descriptor["ID"]),
            "mta-version": str(self.descriptor["version"]),
        }
        if owner not in self._modules:
            return {**result, "service-name": owner}
        result["domain"] = self._domains(owner)[0]
        result |= self._urls("default", owner, idle=idle) | {"default-app-name": f"{owner}{IDLE if idle else ''}"}
        result |= self._urls("default-live", owner, idle=False) | {
            "default-live-app-name": owner,
            "default-live-domain": around.domain,
        }
        if idle:
            result |= self._urls("default-idle", owner, idle=True) | {"default-idle-domain": around.domain}
            result |= {"idle-host": result["default-idle-host"], "idle-domain": around.domain}
        return {**result, "host": result["default-host"]}

    def _urls(self, prefix: str, module: str, *, idle: bool) -> dict[str, str]:
        """They follow the module's own domain and its route-path, not its own hosts and routes."""
        host = self._default_host(module, idle=idle)
        path = str((self._modules[module].get("parameters") or {}).get("route-path") or "")
        uri = f"{host}.{self._domains(module)[0]}{path}"
        return {f"{prefix}-host": host, f"{prefix}-uri": uri, f"{prefix}-url": f"{self._around.protocol}://{uri}"}

    def _default_host(self, module: str, *, idle: bool) -> str:
        return f"{self._around.org}-{self._around.space}-{module}{IDLE if idle else ''}".lower()


def _listed(parameters: Mapping[str, Any], one: str, many: str) -> list[Any]:
    return list(parameters.get(many) or ([parameters[one]] if parameters.get(one) else []))
