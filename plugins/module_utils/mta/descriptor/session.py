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
from dataclasses import dataclass
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor, required
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.edit import Raw
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Value

VARIABLE = "EXT_SESSION_MGT"
PARAMETER = "session-secret"
"""The module parameter that carries the secret."""
SECRET_LENGTH = 64
"""Fewest characters of a secret."""
MANDATORY = ("instanceName", "storageType", "sessionSecret")
INTEGERS = ("defaultRetryTimeout", "backOffMultiplier")
CRASHING = ("connectTimeout", "commandTimeout", "keepAlive")
"""Keys that stop the application router at its start, although one of them is documented."""
_PARAMETER = re.compile(r"\$\{([^{}]+)\}")
_WRITTEN_SECRET = re.compile(r"""(sessionSecret[\\"']*\s*:\s*[\\"']*)(?!\$\{)[^\s"'\\,}]+""")
"""A secret as it stands in JSON inside YAML, quoted in any way; a placeholder is none."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Sessions:
    """What the sessions of application routers need.

    :ivar modules: names of the application routers; none means those that are detected.
    :ivar resource: name of the resource; empty means the one that is there, else ``<ID>-session-management``.
    :ivar service: the service's offering, and its plan.
    :ivar retry_timeout_ms: longest time of automatic retries of a Redis operation; the approuter's default is 2000.
    :ivar back_off_multiplier: multiplier of the pause between retries; the approuter's default is 50.
    :ivar parameter: the module parameter that carries the secret.
    """

    modules: tuple[str, ...] = ()
    resource: str = ""
    service: str = "redis-cache"
    plan: str = "development"
    retry_timeout_ms: int = 2000
    back_off_multiplier: int = 50
    parameter: str = PARAMETER

    def checked(self, descriptor: Descriptor) -> Sessions:
        """The same with the modules filled in.

        :raises InputError: a module that does not exist, no application router, or a value that can't be written.
        """
        for what, value in (
            ("resource", self.resource or "x"),
            ("service", self.service),
            ("plan", self.plan),
            ("parameter", self.parameter),
        ):
            if not _NAME.fullmatch(value):
                raise InputError(
                    f"sessions.{what} {value!r} is not a name.", "Use letters, digits, dots, underscores and hyphens."
                )
        for what, number in (
            ("retry_timeout_ms", self.retry_timeout_ms),
            ("back_off_multiplier", self.back_off_multiplier),
        ):
            if isinstance(number, bool) or number <= 0:
                raise InputError(
                    f"sessions.{what} {number} is not a positive number.", "The approuter's defaults are 2000 and 50."
                )
        unknown = [name for name in self.modules if name not in descriptor.modules]
        if unknown:
            raise InputError(
                f"{descriptor.source.name} has no module {unknown[0]}.",
                f"There are {', '.join(descriptor.modules) or 'none'}.",
            )
        modules = self.modules or tuple(descriptor.approuters())
        if not modules:
            raise InputError(
                f"{descriptor.source.name} has no application router.",
                "Name its module in sessions.modules, or leave out sessions.",
            )
        return Sessions(
            modules,
            self.resource,
            self.service,
            self.plan,
            self.retry_timeout_ms,
            self.back_off_multiplier,
            self.parameter,
        )

    def resource_for(self, descriptor: Descriptor) -> str:
        """The resource's name: as given, else the one that an application router requires already, else a new one."""
        if self.resource:
            return self.resource
        for module in self.modules:
            wanted = [name for name in required(descriptor.modules[module]) if name in descriptor.resources]
            for name in wanted:
                service = descriptor.resources[name].get("parameters", "service")
                if service and service.text == self.service:
                    return name
        return f"{descriptor.id}-session-management"

    def environment(self, instance: str, existing: Mapping[str, Any] | None) -> dict[str, Any]:
        """The wanted value of the environment variable; what else was set and does not stop the approuter is kept."""
        kept = {key: value for key, value in (existing or {}).items() if key not in CRASHING}
        return {
            **kept,
            "instanceName": instance,
            "storageType": "redis",
            "sessionSecret": f"${{{self.parameter}}}",
            "defaultRetryTimeout": self.retry_timeout_ms,
            "backOffMultiplier": self.back_off_multiplier,
        }


def instance_name(name: str, resource: Value | None, namespace: str = "") -> str:
    """Name of the service instance of a resource: its ``service-name`` or its own name, behind the namespace where that
    is applied.
    """
    own = resource.get("parameters", "service-name") if resource else None
    apply = resource.get("parameters", "apply-namespace") if resource else None
    base = own.text if own and own.text else name
    return f"{namespace}-{base}" if namespace and not (apply and apply.data is False) else base


def written(environment: Mapping[str, Any]) -> Raw:
    """The variable as YAML: strict JSON in single quotes, one key a line."""
    pairs = [f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in environment.items()]
    return Raw("'" + "\n".join(["{", ",\n".join(pairs), "}"]).replace("'", "''") + "'")


def parse_environment(value: Value, text: str | None = None) -> dict[str, Any] | None:
    """The variable's settings; ``None`` when it is neither strict JSON nor a mapping.

    :param text: the variable's text with parameters filled in, where it has some.
    """
    if isinstance(value.data, dict):
        plain: dict[str, Any] = value.plain()
        return plain
    try:
        settings = json.loads(value.text if text is None else text, parse_constant=_no_constant)
    except ValueError:
        return None
    return settings if isinstance(settings, dict) else None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def extension(
    mta_id: str,
    schema_version: str,
    modules: Sequence[str],
    secret: str,
    parameter: str = PARAMETER,
    extension_id: str = "",
) -> str:
    """An extension descriptor that gives application routers their session secret.

    :param mta_id: id of the MTA, or of the extension before it.
    :param schema_version: the descriptor's.
    :param modules: names of the application routers.
    :param extension_id: the extension's own id; default ``<mta_id>-session``.
    :raises InputError: the secret is too short or has characters that JSON or placeholders would change; it is never
        shown.
    """
    check_secret(secret)
    own_id = extension_id or f"{mta_id}-session"
    for what, name in (
        ("id of the MTA", mta_id),
        ("parameter", parameter),
        ("id of the extension", own_id),
        *(("module", name) for name in modules),
    ):
        if not isinstance(name, str) or not name.isprintable() or not name.strip():
            raise InputError(f"The {what} {name!r} is not a name.", "Take it from the descriptor.")
    if not modules:
        raise InputError(
            "No module is named that needs the session secret.", "Name the application routers of the descriptor."
        )
    if not re.fullmatch(r"\d+(\.\d+){0,2}", str(schema_version)):
        raise InputError(
            f"The schema version {schema_version!r} is not a version.", "Take _schema-version of the descriptor."
        )
    lines = [
        f"_schema-version: {json.dumps(str(schema_version))}",
        f"ID: {json.dumps(own_id)}",
        f"extends: {json.dumps(mta_id)}",
        "modules:",
    ]
    for name in modules:
        lines += [
            f"  - name: {json.dumps(name)}",
            "    parameters:",
            f"      {json.dumps(parameter)}: {json.dumps(secret, ensure_ascii=False)}",
        ]
    return "\n".join(lines) + "\n"


def check_secret(secret: object) -> None:
    """Refuse a secret that is too short, or that would not arrive as it is; the message never shows it.

    :raises InputError: see above.
    """
    advice = (
        f"Generate one of {SECRET_LENGTH} or more letters and digits, keep it in a vault, and never change it from one"
        " deployment to the next."
    )
    if not isinstance(secret, str):
        raise InputError("The session secret is not a string.", advice)
    if len(secret) < SECRET_LENGTH:
        raise InputError(f"The session secret has {len(secret)} characters, fewer than {SECRET_LENGTH}.", advice)
    if any(mark in secret for mark in ('"', "\\", "${", "~{")) or not secret.isprintable():
        raise InputError(
            'The session secret has a character that JSON or the deploy service would change (", \\, ${, ~{ or a'
            " control character).",
            advice,
        )


def masked(descriptor: Descriptor, text: str) -> str:
    """A text about the descriptor without the session secrets that the descriptor holds."""
    for module in descriptor.modules.values():
        value = module.get("properties", VARIABLE)
        settings = (parse_environment(value) if value is not None else None) or {}
        secret = settings.get("sessionSecret")
        match = _PARAMETER.fullmatch(secret) if isinstance(secret, str) else None
        parameter = (
            (module.get("parameters", match[1]) or descriptor.root.get("parameters", match[1])) if match else None
        )
        for found in (parameter.text if parameter else "", secret if isinstance(secret, str) and not match else ""):
            text = text.replace(found, "********") if found else text
    return _WRITTEN_SECRET.sub(r"\1********", text)
