# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the external session management of an application router."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor, required
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.session import (
    CRASHING,
    INTEGERS,
    MANDATORY,
    SECRET_LENGTH,
    VARIABLE,
    instance_name,
    parse_environment,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.urls import PLACEHOLDER, REFERENCE
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Value

_UNQUOTED = re.compile(r"(:\s*)\$\{([^{}]+)\}")
Found = tuple[str, Value, str, str, bool]


def session_findings(descriptor: Descriptor, name: str, namespace: str) -> Iterator[Found]:
    """Rule, place, message, mend and whether it can be mended, for one application router. No message shows a
    secret.
    """
    module = descriptor.modules[name]
    value = module.get("properties", VARIABLE)
    if value is None:
        message = f"{name} keeps sessions in its memory: all users are logged out when the idle version takes over."
        yield "session-store-missing", module, message, f"Bind a Redis and set {VARIABLE}.", True
        return
    settings = parse_environment(value)
    if settings is None:
        settings = parse_environment(value, _filled(descriptor, module, value.text))
    if settings is None:
        yield (
            "session-not-json",
            value,
            f"{VARIABLE} of {name} is no JSON object: it stops at its start.",
            "Write strict JSON, without comments.",
            True,
        )
        return
    yield from _keys(name, value, settings)
    yield from _secret(descriptor, module, name, value, settings.get("sessionSecret"))
    instance = settings.get("instanceName")
    if isinstance(instance, str) and instance and not PLACEHOLDER.search(instance) and not REFERENCE.search(instance):
        yield from _instance(descriptor, module, name, value, instance, namespace)


def _filled(descriptor: Descriptor, module: Value, text: str) -> str:
    """The text with values in place of placeholders without quotes; a parameter that is not set here counts as a
    number.
    """

    def value(match: re.Match[str]) -> str:
        parameter = _parameter(descriptor, module, match[2])
        return match[1] + (str(parameter.data) if parameter is not None else "0")

    return _UNQUOTED.sub(value, text)


def _parameter(descriptor: Descriptor, module: Value, name: str) -> Value | None:
    return module.get("parameters", name) or descriptor.root.get("parameters", name)


def _keys(name: str, value: Value, settings: dict[str, Any]) -> Iterator[Found]:
    for key in MANDATORY:
        if settings.get(key) in (None, ""):
            yield (
                "session-key-missing",
                value,
                f"{VARIABLE} of {name} has no {key}: it stops at its start.",
                f"Add {key}.",
                True,
            )
        elif not isinstance(settings[key], str):
            yield (
                "session-value-wrong",
                value,
                f"{key} in {VARIABLE} of {name} is not a string.",
                "Write it in double quotes.",
                True,
            )
    storage = settings.get("storageType")
    if isinstance(storage, str) and storage not in ("", "redis") and "externalStoreFilePath" not in settings:
        yield (
            "session-value-wrong",
            value,
            f"storageType in {VARIABLE} of {name} is not redis: it stops at its start.",
            'Write "redis".',
            True,
        )
    for key in INTEGERS:
        number = settings.get(key)
        if (
            key in settings
            and not PLACEHOLDER.fullmatch(str(number))
            and (isinstance(number, bool) or not isinstance(number, int))
        ):
            yield (
                "session-value-wrong",
                value,
                f"{key} in {VARIABLE} of {name} is not an integer.",
                "Write a number without quotes.",
                True,
            )
    for key in CRASHING:
        if key in settings:
            yield (
                "session-key-crashes",
                value,
                f"{key} in {VARIABLE} stops {name} at its start.",
                f"Remove {key}.",
                True,
            )


def _secret(descriptor: Descriptor, module: Value, name: str, value: Value, secret: Any) -> Iterator[Found]:
    if not isinstance(secret, str) or not secret:
        return
    match = PLACEHOLDER.fullmatch(secret)
    place = _parameter(descriptor, module, match[1]) if match else value
    if place is None:
        return
    text = place.text if match else secret
    if PLACEHOLDER.search(text):
        return
    if len(text) < SECRET_LENGTH:
        message = f"The session secret of {name} has fewer than {SECRET_LENGTH} characters."
        yield (
            "session-secret-short",
            place,
            message,
            f"Generate one of {SECRET_LENGTH} or more; all users log in again.",
            False,
        )
    if place.source is descriptor.source:
        message = (
            f"The session secret of {name} is written in the descriptor, for everyone who may read the archive or the"
            " repository."
        )
        yield (
            "session-secret-in-descriptor",
            place,
            message,
            "Refer to a parameter that an extension descriptor sets, and change the secret.",
            match is None,
        )


def _instance(
    descriptor: Descriptor, module: Value, name: str, value: Value, instance: str, namespace: str
) -> Iterator[Found]:
    """The approuter finds its Redis by the name of the service instance only, and stops at its start when it is not
    bound.
    """
    bound = [required_name for required_name in required(module) if required_name in descriptor.resources]
    names = [instance_name(one, descriptor.resources[one], namespace) for one in bound]
    if instance in names or any(PLACEHOLDER.search(one) for one in names):
        return
    message = (
        f"{name} has no service instance {instance} among those that it"
        f" requires{f' in the namespace {namespace}' if namespace else ''}."
    )
    yield (
        "session-service-not-bound",
        value,
        message,
        f"Require its resource, or write one of: {', '.join(names) or 'none is required'}.",
        True,
    )
