# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which URL a service's configuration gets: references and placeholders followed to what differs between idle and live.

While a blue-green deployment tests, the deploy service resolves ``${default-url}`` to the idle URL, and it writes the
configuration of services only then: what a service got from an idle URL stays wrong after the switch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor, required
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Value, names

REFERENCE = re.compile(r"~\{([^{}]+)\}")
PLACEHOLDER = re.compile(r"\$\{([^{}]+)\}")
USE_LIVE_ROUTES = "use-live-routes"
_IDLE = re.compile(r"default-(?:idle-)?(url|uri|host)|(host)s?(?:/\d+)?")
_LIVE = re.compile(r"default-live-(url|uri|host)")
_ROUTE = re.compile(r"routes/(\d+)/route")
_OWN_HOST = ("host", "hosts", "domain", "domains")
_DEPTH = 10
_LONGEST = 10_000
"""No URL is longer; parameters that repeat each other end here."""


@dataclass(frozen=True)
class Provider:
    """Something that can be required by its name: an entry of a module's ``provides``, or a resource."""

    name: str
    owner: Value
    entry: Value
    is_module: bool

    @property
    def properties(self) -> Value | None:
        return self.entry.get("properties")

    @property
    def uses_live_routes(self) -> bool:
        flag = self.entry.get("parameters", USE_LIVE_ROUTES)
        return flag is not None and flag.data is True


@dataclass(frozen=True)
class Link:
    """A reference in a string: what it names. ``provider`` is ``None`` when the descriptor has none of that name."""

    value: Value
    written: str
    name: str
    path: str
    required: bool
    provider: Provider | None
    in_requires: Value | None

    @property
    def target(self) -> Value | None:
        """The provided property."""
        properties = self.provider.properties if self.provider else None
        if properties is None:
            return None
        return properties.get(self.path) or properties.get(*self.path.split("/"))


@dataclass(frozen=True)
class Wrong:
    """A placeholder of a module that a service must not be configured with.

    ``kind``: ``idle`` is resolved to the idle URL, ``live`` is a live placeholder that ignores the module's own host or
    routes, ``routes`` needs ``use-live-routes``. ``live`` is what to write instead; ``None`` when there is nothing.
    """

    placeholder: str
    kind: str
    live: str | None


class Providers:
    """The providers of one descriptor and what their properties resolve to."""

    def __init__(self, descriptor: Descriptor) -> None:
        self.descriptor = descriptor
        self.providers: dict[str, Provider] = {
            name: Provider(name, resource, resource, False) for name, resource in descriptor.resources.items()
        }
        for module in descriptor.modules.values():
            for name, entry in names(module.get("provides")).items():
                self.providers[name] = Provider(name, module, entry, True)

    def links(self, owner: Value) -> Iterator[Link]:
        """All references of a module or resource.

        The properties of a resource do not count: they do not configure its service, they only provide.
        """
        requires = required(owner)
        keys = ("parameters",) if owner in self.descriptor.resources.values() else ("parameters", "properties")
        for string in strings_of(owner, *keys):
            for match in REFERENCE.finditer(string.text):
                name, slash, path = match[1].partition("/")
                if slash:
                    yield Link(string, match[0], name, path, name in requires, self.providers.get(name), None)
        for name, requirement in requires.items():
            for string in strings_of(requirement, "parameters", "properties"):
                for match in REFERENCE.finditer(string.text):
                    path = match[1].removeprefix(f"{name}/")
                    yield Link(string, match[0], name, path, True, self.providers.get(name), requirement)

    def expand(self, text: str, provider: Provider) -> str:
        """Replace placeholders of parameters that the descriptor itself sets, but not the hosts and routes that an idle
        application has instead.
        """
        for _round in range(_DEPTH):
            before = text
            for match in PLACEHOLDER.finditer(before):
                parameter = (
                    ""
                    if _IDLE.fullmatch(match[1]) or _LIVE.fullmatch(match[1])
                    else self._parameter(match[1], provider)
                )
                text = text.replace(match[0], parameter or match[0])
            if text == before or len(text) > _LONGEST:
                break
        return text

    def live_text(self, text: str, provider: Provider, depth: int = _DEPTH) -> str:
        """A text of a provider with live placeholders, and with what of its parameters needs them; all else stays as it
        is written.
        """
        lives = {wrong.placeholder: wrong.live for wrong in self.wrong(text, provider)}

        def written(match: re.Match[str]) -> str:
            if match[0] in lives:
                return lives[match[0]] or match[0]
            parameter = self._parameter(match[1], provider)
            live = self.live_text(parameter, provider, depth - 1) if parameter and depth else parameter
            return match[0] if live == parameter else live

        return PLACEHOLDER.sub(written, text)

    def _parameter(self, name: str, provider: Provider) -> str:
        """The text of a parameter that is set for a provider; empty when the descriptor does not set it."""
        scopes = [
            provider.entry.get("parameters"),
            provider.owner.get("parameters"),
            self.descriptor.root.get("parameters"),
        ]
        found = next((scope.get(name) for scope in scopes if scope and scope.get(name)), None)
        return found.text if found else ""

    def wrong(self, text: str, provider: Provider) -> list[Wrong]:
        """The placeholders of an expanded text of a provider that are wrong for a service."""
        found: dict[str, Wrong] = {}
        for match in PLACEHOLDER.finditer(text):
            idle, live, route = (pattern.fullmatch(match[1]) for pattern in (_IDLE, _LIVE, _ROUTE))
            if idle:
                found[match[0]] = Wrong(match[0], "idle", live_form(provider.owner, idle[1] or idle[2]))
            elif live and has_own_host(provider.owner):
                found[match[0]] = Wrong(match[0], "live", live_form(provider.owner, live[1]))
            elif route and not provider.uses_live_routes:
                found[match[0]] = Wrong(
                    match[0], "routes", match[0] if _has_route(provider.owner, int(route[1])) else None
                )
        return list(found.values())

    def wrong_in(self, value: Value, provider: Provider, depth: int = _DEPTH) -> list[Wrong]:
        """What is wrong in a provided value: in nested strings too, and in what those refer to."""
        found: list[Wrong] = []
        for string in value.strings():
            text = self.expand(string.text, provider)
            found += self.wrong(text, provider)
            for match in REFERENCE.finditer(text) if depth else ():
                name, _slash, path = match[1].partition("/")
                there = self.providers.get(name)
                target = Link(string, match[0], name, path, True, there, None).target
                if there and target is not None:
                    found += self.wrong_in(target, there, depth - 1)
        return found

    def users(self, name: str) -> list[str]:
        """Names of the modules that require *name*."""
        return [module for module, value in self.descriptor.modules.items() if name in required(value)]


def strings_of(owner: Value, *keys: str) -> Iterator[Value]:
    """All strings below the given keys of a module, a resource or a requirement."""
    for key in keys:
        value = owner.get(key)
        if value is not None:
            yield from value.strings()


def has_own_host(module: Value) -> bool:
    """Whether the module's live URL is its own: the default live placeholders ignore host, domain and routes."""
    return has_routes(module) or any(module.get("parameters", key) for key in _OWN_HOST)


def has_routes(module: Value) -> bool:
    routes = module.get("parameters", "routes")
    return routes is not None and bool(routes.data)


def live_form(module: Value, kind: str) -> str | None:
    """What names a module's live URL, URI or host.

    :param kind: ``url``, ``uri`` or ``host``.
    :returns: a text with placeholders; ``None`` when the deploy service offers none.
    """
    if has_routes(module):
        route = "${routes/0/route}" if _has_route(module, 0) else None
        return {"url": route and "${protocol}://" + route, "uri": route}.get(kind)
    if not has_own_host(module):
        return f"${{default-live-{kind}}}"
    no_host = module.get("parameters", "no-hostname")
    host, domain = _first(module, "host", "default-live-host"), _first(module, "domain", "default-live-domain")
    if host is None or domain is None or (no_host is not None and no_host.data is True):
        return None
    return {"url": f"${{protocol}}://{host}.{domain}", "uri": f"{host}.{domain}", "host": host}[kind]


def _first(module: Value, key: str, default: str) -> str | None:
    """A module's own host or domain as it is written; ``None`` when it depends on the idle phase itself."""
    for name in (key, f"{key}s"):
        value = module.get("parameters", name)
        if value is not None:
            text = value.items[0].text if value.items else value.text
            wrong = any(_IDLE.fullmatch(match[1]) for match in PLACEHOLDER.finditer(text))
            return None if wrong or not text else text
    return f"${{{default}}}"


def _has_route(module: Value, number: int) -> bool:
    routes = module.get("parameters", "routes")
    route = routes.items[number].get("route") if routes and number < len(routes.items) else None
    return (
        route is not None
        and bool(route.text)
        and not any(_IDLE.fullmatch(match[1]) for match in PLACEHOLDER.finditer(route.text))
    )
