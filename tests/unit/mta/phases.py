# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the deploy service makes of a text in one phase of a blue-green deployment: a second reading of its sources,
made to check the first one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

DOMAIN = "cf.example"
_PLACEHOLDER = re.compile(r"(?<!\\)\$\{(.+?)\}")
_FULL = re.compile(r"(?<!\\)~\{(.+?)/(.+?)\}")
_SHORT = re.compile(r"(?<!\\)~\{(.+?)\}")


class Unresolvable(Exception):
    """The deployment would stop."""


class Phase:
    """A descriptor while its idle version is tested, or after that."""

    def __init__(self, root: Mapping[str, Any], idle: bool) -> None:
        self.root, self.idle = root, idle
        modules = {module["name"]: module for module in root.get("modules") or []}
        self.resources = {resource["name"]: resource for resource in root.get("resources") or []}
        self.provided = {
            entry["name"]: (module, entry) for module in modules.values() for entry in module.get("provides") or []
        }

    def resolve(self, text: str, owner: Mapping[str, Any], requirement: str = "") -> str:
        """A text of a module or resource, or of its requirement.

        :raises Unresolvable: something in it names nothing.
        """
        text = self._filled(text, owner, {})
        required = [item["name"] for item in owner.get("requires") or []]

        def reference(match: re.Match[str]) -> str:
            name, path = (requirement, match[1]) if requirement else (match[1], match[2])
            if name not in required or name not in self.provided:
                raise Unresolvable(match[0])
            module, entry = self.provided[name]
            if path not in (entry.get("properties") or {}):
                raise Unresolvable(match[0])
            return self._property(module, entry, entry["properties"][path])

        return (_SHORT if requirement else _FULL).sub(reference, text)

    def _property(self, module: Mapping[str, Any], entry: Mapping[str, Any], value: Any) -> str:
        if not isinstance(value, str):
            return " ".join(self._property(module, entry, child) for child in value.values())
        parameters = entry.get("parameters") or {}
        if parameters.get("use-live-routes"):
            for number, route in enumerate((module.get("parameters") or {}).get("routes") or []):
                value = value.replace(f"${{routes/{number}/route}}", route["route"])
        return self._filled(value, module, parameters)

    def _filled(self, text: str, owner: Mapping[str, Any], near: Mapping[str, Any], depth: int = 0) -> str:
        if depth > 20:
            raise Unresolvable(text)

        def parameter(match: re.Match[str]) -> str:
            own = owner.get("parameters") or {}
            scopes = [
                near,
                own,
                self._system(owner) if self._is_module(owner) else {},
                self.root.get("parameters") or {},
            ]
            scopes.append({"default-domain": DOMAIN, "protocol": "https"})
            name = own.get("app-name", owner["name"])
            if match[1] == "app-name" and self._is_module(owner):
                return self._filled(f"{name}-idle" if self.idle else name, owner, near, depth + 1)
            route = re.fullmatch(r"routes/(\d+)/route", match[1])
            if route and int(route[1]) < len(own.get("routes") or []):
                written = own["routes"][int(route[1])]["route"]
                path = "/" + written.partition("/")[2] if "/" in written.partition("://")[2] else ""
                value = f"${{idle-host}}.${{idle-domain}}{path}" if self.idle else written
            else:
                value = next((scope[match[1]] for scope in scopes if match[1] in scope), None)
            if value is None:
                raise Unresolvable(match[0])
            return self._filled(str(value), owner, near, depth + 1)

        return _PLACEHOLDER.sub(parameter, text)

    def _is_module(self, owner: Mapping[str, Any]) -> bool:
        return owner["name"] not in self.resources

    def _system(self, module: Mapping[str, Any]) -> dict[str, Any]:
        """The system parameters of a module."""
        own, host = module.get("parameters") or {}, f"org-space-{module['name']}"
        path = "${route-path}" if "route-path" in own else ""
        system = {
            "default-host": f"{host}-idle" if self.idle else host,
            "host": "${default-host}",
            "domain": "${default-domain}",
            "default-url": "${protocol}://${default-uri}",
            "default-uri": ("${idle-host}.${idle-domain}" if self.idle else "${host}.${domain}") + path,
            "default-app-name": module["name"],
            "default-live-app-name": module["name"],
            "default-live-host": host,
            "default-live-domain": DOMAIN,
            "default-live-uri": "${default-live-host}.${domain}" + path,
            "default-live-url": "${protocol}://${default-live-uri}",
        }
        if self.idle:
            system |= {
                "default-idle-host": f"{host}-idle",
                "default-idle-domain": DOMAIN,
                "idle-host": "${default-idle-host}",
                "idle-domain": "${default-idle-domain}",
                "default-idle-uri": "${default-uri}",
                "default-idle-url": "${default-url}",
            }
        for one, several in (("host", "hosts"), ("domain", "domains")):
            if own.get(several):
                system[one] = own[several][0]
        return system
