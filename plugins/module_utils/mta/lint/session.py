# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the external session management of an application router."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor, required
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.live import PLACEHOLDER, REFERENCE
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.session import (
    CRASHING,
    DRIVER,
    INTEGERS,
    MANDATORY,
    PARAMETER,
    SECRET_LENGTH,
    VARIABLE,
    Environment,
    instance_name,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Value
from ansible_collections.zdm.landscape.plugins.module_utils.mta.lint.findings import Finding, Subject, finding


def sessions(subject: Subject) -> Iterator[Finding]:
    """What is wrong with the sessions of the application routers. No message shows a secret."""
    descriptor = subject.descriptor
    for name in descriptor.approuters(subject.named):
        module = descriptor.modules[name]
        environment = Environment.of(descriptor, module)
        if environment is None:
            message = f"{name} keeps sessions in its memory: all users are logged out when the idle version takes over."
            yield finding("session-store-missing", module, name, message, f"Bind a Redis and set {VARIABLE}.", True)
            continue
        if environment.opaque:
            continue
        value, settings = environment.value, environment.settings
        if environment.is_json:
            yield from _keys(name, value, settings)
            instance = settings.get("instanceName")
            if isinstance(instance, str) and DRIVER not in settings:
                yield from _instance(subject, module, name, value, instance)
        else:
            message = f"{VARIABLE} of {name} is no JSON object: it stops at its start."
            yield finding("session-not-json", value, name, message, "Write strict JSON, without comments.", True)
        yield from _secret(descriptor, module, name, environment)
    if descriptor.extends:
        for name, module in descriptor.modules.items():
            secret = module.get("parameters", PARAMETER)
            if secret is not None:
                yield from _short(secret, name)


def _keys(name: str, value: Value, settings: Mapping[str, Any]) -> Iterator[Finding]:
    for key in MANDATORY:
        known = DRIVER not in settings or key == "sessionSecret"
        if settings.get(key) in (None, ""):
            message = f"{VARIABLE} of {name} has no {key}: it stops at its start."
            yield finding("session-key-missing", value, name, message, f"Add {key}.", known)
        elif not isinstance(settings[key], str):
            message = f"{key} in {VARIABLE} of {name} is not a string."
            yield finding("session-value-wrong", value, name, message, "Write it in double quotes.", known)
    storage = settings.get("storageType")
    if isinstance(storage, str) and storage not in ("", "redis") and DRIVER not in settings:
        message = f"storageType in {VARIABLE} of {name} is not redis: it stops at its start."
        yield finding("session-value-wrong", value, name, message, 'Write "redis".', True)
    for key in INTEGERS:
        number = settings.get(key)
        is_number = isinstance(number, int) and not isinstance(number, bool)
        if key in settings and not is_number and not PLACEHOLDER.fullmatch(str(number)):
            message = f"{key} in {VARIABLE} of {name} is not an integer."
            yield finding("session-value-wrong", value, name, message, "Write a number without quotes.", True)
    for key in CRASHING:
        if key in settings:
            message = f"{key} in {VARIABLE} stops {name} at its start."
            yield finding("session-key-crashes", value, name, message, f"Remove {key}.", True)


def _secret(descriptor: Descriptor, module: Value, name: str, environment: Environment) -> Iterator[Finding]:
    value, secret = environment.value, environment.settings.get("sessionSecret")
    if not isinstance(secret, str) or not secret:
        return
    match = PLACEHOLDER.fullmatch(secret)
    place = descriptor.parameter(module, match[1]) if match else value
    if place is None or PLACEHOLDER.search(place.text if match else secret):
        return
    if match:
        yield from _short(place, name)
    elif len(secret) < SECRET_LENGTH:
        yield _too_short(place, name)
    if place.source is descriptor.source:
        message = (
            f"The session secret of {name} is written in the descriptor, for everyone who may read the archive or the"
            " repository."
        )
        mend = "Refer to a parameter that an extension descriptor sets, and change the secret."
        fixable = match is None and not environment.has_secret
        yield finding("session-secret-in-descriptor", place, name, message, mend, fixable)


def _short(place: Value, name: str) -> Iterator[Finding]:
    """A parameter that carries the secret."""
    if len(place.text) < SECRET_LENGTH and not PLACEHOLDER.search(place.text):
        yield _too_short(place, name)


def _too_short(place: Value, name: str) -> Finding:
    message = f"The session secret of {name} has fewer than {SECRET_LENGTH} characters."
    mend = f"Generate one of {SECRET_LENGTH} or more; all users log in again."
    return finding("session-secret-short", place, name, message, mend)


def _instance(subject: Subject, module: Value, name: str, value: Value, instance: str) -> Iterator[Finding]:
    """The approuter finds its Redis by the name of the service instance only, and stops at its start when it is not
    bound.
    """
    resources, namespace = subject.descriptor.resources, subject.namespace
    names = [instance_name(one, resources[one], namespace) for one in required(module) if one in resources]
    unknown = any(PLACEHOLDER.search(one) or REFERENCE.search(one) for one in (instance, *names))
    if not instance or instance in names or unknown:
        return
    inside = f" in the namespace {namespace}" if namespace else ""
    message = f"{name} has no service instance {instance} among those that it requires{inside}."
    mend = f"Require its resource, or write one of: {', '.join(names) or 'none is required'}."
    yield finding("session-service-not-bound", value, name, message, mend, True)
