# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""External session management of an application router: its environment variable, its service, and where its secret is.

Of @sap/approuter 23: mandatory keys, types and the keys that stop it at its start. The secret's 64 characters are
documented and not enforced by it, so they are enforced here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.live import PLACEHOLDER, REFERENCE
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Value
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.written import Raw

VARIABLE = "EXT_SESSION_MGT"
PARAMETER = "session-secret"
"""The module parameter that carries the secret, where none is given."""
SECRET_LENGTH = 64
"""Fewest characters of a secret."""
MANDATORY = ("instanceName", "storageType", "sessionSecret")
INTEGERS = {"defaultRetryTimeout": 2000, "backOffMultiplier": 50}
"""Keys of integers, and the approuter's defaults."""
DRIVER = "externalStoreFilePath"
"""The key of a store's own driver; its settings are its own."""
CRASHING = ("connectTimeout", "commandTimeout", "keepAlive")
"""Keys that stop the application router at its start, although one of them is documented."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_UNQUOTED = re.compile(r"(:\s*)\$\{([^{}]+)\}")
_COMMENT = re.compile(r'("(?:\\.|[^"\\\n])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_PAIR = re.compile(r'"(\w+)"\s*:\s*("(?:\\.|[^"\\])*"|-?\d+\b|true|false|null)')


@dataclass(frozen=True)
class Sessions:
    """What the sessions of application routers need. What is not given leaves a store that is configured as it is.

    :ivar modules: names of the application routers; none means those that are detected.
    :ivar resource: name of the resource; empty means the one that is there, else ``<ID>-session-management``.
    :ivar service: the service's offering, and its plan, for a new resource.
    :ivar retry_timeout_ms: longest time of automatic retries of a Redis operation; the approuter's default is 2000.
    :ivar back_off_multiplier: multiplier of the pause between retries; the approuter's default is 50.
    :ivar parameter: the module parameter that carries the secret; empty means the one that is there, else
        :data:`PARAMETER`.
    """

    modules: tuple[str, ...] = ()
    resource: str = ""
    service: str = "redis-cache"
    plan: str = "development"
    retry_timeout_ms: int | None = None
    back_off_multiplier: int | None = None
    parameter: str = ""

    def checked(self, descriptor: Descriptor, named: Sequence[str] = ()) -> Sessions:
        """The same with the modules filled in; still none when there is no application router.

        :param named: modules that are application routers although nothing tells so.
        :raises InputError: a module that does not exist, or a value that can't be written.
        """
        for what, value in (
            ("resource", self.resource or "x"),
            ("service", self.service),
            ("plan", self.plan),
            ("parameter", self.parameter or "x"),
        ):
            if not _NAME.fullmatch(value):
                raise InputError(
                    f"sessions.{what} {value!r} is not a name.", "Use letters, digits, dots, underscores and hyphens."
                )
        for what, number in (
            ("retry_timeout_ms", self.retry_timeout_ms),
            ("back_off_multiplier", self.back_off_multiplier),
        ):
            if isinstance(number, bool) or (number is not None and number <= 0):
                raise InputError(
                    f"sessions.{what} {number} is not a positive number.", "The approuter's defaults are 2000 and 50."
                )
        descriptor.check_modules("sessions.modules", self.modules)
        return replace(self, modules=self.modules or tuple(descriptor.approuters(named)))

    def numbers(self) -> dict[str, int]:
        """The numbers that are given, by their keys."""
        given = zip(INTEGERS, (self.retry_timeout_ms, self.back_off_multiplier), strict=True)
        return {key: number for key, number in given if number is not None}

    def wanting(self, descriptor: Descriptor) -> list[str]:
        """Names of the modules that take their secret from the parameter of these sessions."""
        found = []
        for name in self.modules or descriptor.modules:
            environment = Environment.of(descriptor, descriptor.modules[name])
            secret = environment.settings.get("sessionSecret") if environment else None
            if secret == f"${{{self.parameter or PARAMETER}}}":
                found.append(name)
        return found


@dataclass(frozen=True)
class Environment:
    """The variable of an application router.

    :ivar value: where it is written.
    :ivar settings: what it says; what could be read of it when it is no JSON.
    :ivar is_json: whether it is a JSON object, or a mapping, which becomes one.
    :ivar opaque: it is a parameter or a property that is not known here; there are no settings then.
    :ivar filled: parameters without quotes stand in it; the settings have their values.
    """

    value: Value
    settings: Mapping[str, Any]
    is_json: bool = True
    opaque: bool = False
    filled: bool = False

    @property
    def has_secret(self) -> bool:
        """Whether the secret itself stands in it, with all that the application router needs to use it."""
        needed = [self.settings.get(key) for key in MANDATORY]
        is_complete = self.is_json and all(isinstance(value, str) and value for value in needed)
        return is_complete and not PLACEHOLDER.search(self.settings["sessionSecret"])

    @classmethod
    def of(cls, descriptor: Descriptor, module: Value) -> Environment | None:
        """The variable of a module; ``None`` when it has none."""
        value = module.get("properties", VARIABLE)
        if value is None or value.data is None:
            return None
        whole = PLACEHOLDER.fullmatch(value.text)
        if whole:
            found = descriptor.parameter(module, whole[1])
            if found is None or PLACEHOLDER.fullmatch(found.text):
                return cls(value, {}, opaque=True)
            value = found
        if REFERENCE.fullmatch(value.text):
            return cls(value, {}, opaque=True)
        settings = _strict(value, value.text)
        if settings is not None:
            return cls(value, settings)
        settings = _strict(value, _filled(descriptor, module, value.text))
        if settings is not None:
            return cls(value, settings, filled=True)
        return cls(value, _salvaged(value), is_json=False)


def instance_name(name: str, resource: Value | None, namespace: str = "") -> str:
    """Name of the service instance of a resource: its ``service-name`` or its own name, behind the namespace where that
    is applied.
    """
    apply = resource.get("parameters", "apply-namespace") if resource else None
    base = (resource.string("parameters", "service-name") if resource else "") or name
    return f"{namespace}-{base}" if namespace and not (apply and apply.data is False) else base


def written(settings: Mapping[str, Any]) -> Raw:
    """The variable as YAML: strict JSON in single quotes, one key a line."""
    pairs = [f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in settings.items()]
    return Raw("'" + "\n".join(["{", ",\n".join(pairs), "}"]).replace("'", "''") + "'")


def _strict(value: Value, text: str) -> dict[str, Any] | None:
    """The settings; ``None`` when the text is neither strict JSON nor the value a mapping."""
    if isinstance(value.data, dict):
        plain: dict[str, Any] = value.plain()
        return plain
    try:
        settings = json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return None
    return settings if isinstance(settings, dict) else None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _filled(descriptor: Descriptor, module: Value, text: str) -> str:
    """The text with values in place of placeholders without quotes; a parameter that is not set here counts as a
    number.
    """

    def value(match: re.Match[str]) -> str:
        found = descriptor.parameter(module, match[2])
        return match[1] + (str(found.data) if found is not None else "0")

    return _UNQUOTED.sub(value, text)


def _salvaged(value: Value) -> dict[str, Any]:
    """What JSON with comments or slips says. It is read line by line as it is written: YAML has folded the comments."""
    raw = value.written.raw
    text = re.sub(r"''|\\\"", lambda match: match[0][-1], raw)
    text = _COMMENT.sub(lambda match: match[1] or "", text)
    return {key: json.loads(found) for key, found in _PAIR.findall(text)}
