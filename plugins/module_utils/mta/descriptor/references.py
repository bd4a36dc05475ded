# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where URLs go in a descriptor: references followed to the properties that they name, and what is written only once.

While a blue-green deployment tests, the deploy service resolves ``${default-url}`` to the idle URL, and only then does
it write the configuration of services and bindings, and deploy content: what those got from an idle URL stays wrong
after the switch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import (
    OF_OTHER_MTAS,
    Descriptor,
    required,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.live import (
    PLACEHOLDER,
    REFERENCE,
    Urls,
    is_module_url,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Value, names

USE_LIVE_ROUTES = "use-live-routes"
CONTENT = "com.sap.application.content"
"""The type of modules that are no applications: they are processed while idle is tested, and never again."""
SERVICE_KIND, CONTENT_KIND, BINDING_KIND = "service", "content", "binding"
_DEPTH = 10


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
    def is_known(self) -> bool:
        """Whether the descriptor has all its properties; those of other MTAs are found while it is deployed."""
        return self.is_module or self.entry.string("type") not in OF_OTHER_MTAS

    @property
    def uses_live_routes(self) -> bool:
        flag = self.entry.get("parameters", USE_LIVE_ROUTES)
        return flag is not None and flag.data is True


@dataclass(frozen=True)
class Link:
    """A reference in a string: what it names. ``provider`` is ``None`` when the descriptor has none of that name.

    In a requirement (``in_requires``) it names a property of what is required, never the provider.
    """

    value: Value
    written: str
    name: str
    path: str
    required: bool
    provider: Provider | None
    in_requires: Value | None

    @property
    def target(self) -> Value | None:
        """The provided property. The service looks it up by its whole name and does not go into nested ones."""
        properties = self.provider.properties if self.provider else None
        return properties.get(self.path) if properties else None


@dataclass(frozen=True)
class Wrong:
    """A placeholder of a module that must not be written where it is written once.

    ``kind``: ``idle`` is resolved to the idle URL, ``live`` is a live placeholder that ignores the module's own host or
    routes, ``routes`` needs ``use-live-routes``. ``live`` is what to write instead; ``None`` when there is nothing.
    """

    placeholder: str
    kind: str
    live: str | None


@dataclass(frozen=True)
class Consumer:
    """Something that is configured once, while the idle version is tested.

    :ivar kind: ``service``, ``content`` or ``binding``.
    :ivar name: of the resource or module; ``owner`` is that.
    :ivar place: the part of the owner that is written once.
    :ivar strings: in it.
    :ivar links: the references in those strings.
    """

    kind: str
    name: str
    owner: Value
    place: Value
    strings: tuple[Value, ...]
    links: tuple[Link, ...]

    @property
    def user(self) -> str:
        """Who uses a URL."""
        return {
            SERVICE_KIND: f"the service {self.name}",
            CONTENT_KIND: f"the content module {self.name}",
            BINDING_KIND: f"a binding of {self.name}",
        }[self.kind]

    @property
    def title(self) -> str:
        """The subject of a sentence."""
        return {
            SERVICE_KIND: f"The service {self.name} is configured",
            CONTENT_KIND: f"The content of {self.name} is deployed",
            BINDING_KIND: f"A service is bound to {self.name}",
        }[self.kind]


class Providers:
    """The providers of one descriptor and what their properties resolve to.

    :param namespace: namespace of the deployment.
    """

    def __init__(self, descriptor: Descriptor, namespace: str = "") -> None:
        self.descriptor = descriptor
        self._namespaced = bool(namespace)
        self.providers: dict[str, Provider] = {
            name: Provider(name, resource, resource, False) for name, resource in descriptor.resources.items()
        }
        for module in descriptor.modules.values():
            for name, entry in names(module.get("provides")).items():
                self.providers[name] = Provider(name, module, entry, True)

    def consumers(self) -> Iterator[Consumer]:
        """All that is written once: the configuration of services, content modules, parameters of bindings."""
        services = self.descriptor.services()
        for name, service in services.items():
            yield self._consumer(SERVICE_KIND, name, service, service, ("parameters",))
        for name, module in self.descriptor.modules.items():
            if is_content(module):
                yield self._consumer(CONTENT_KIND, name, module, module, ("parameters", "properties"))
                continue
            for bound, requirement in required(module).items():
                if bound in services:
                    strings = tuple(strings_of(requirement, "parameters"))
                    links = tuple(link for link in self.links(module) if any(link.value is one for one in strings))
                    yield Consumer(BINDING_KIND, name, module, requirement, strings, links)

    def _consumer(self, kind: str, name: str, owner: Value, place: Value, keys: tuple[str, ...]) -> Consumer:
        strings = [*strings_of(place, *keys)]
        for requirement in required(place).values():
            strings += strings_of(requirement, "parameters", "properties")
        return Consumer(kind, name, owner, place, tuple(strings), tuple(self.links(owner)))

    def resource(self, provider: Provider) -> Consumer:
        """A resource as one that refers itself: what it provides may come from others."""
        return self._consumer(SERVICE_KIND, provider.name, provider.owner, provider.owner, ("parameters",))

    def texts(self, value: Value, provider: Provider, depth: int = _DEPTH) -> list[Value]:
        """The strings of a property of a resource, and those of its parameters that they take."""
        found = list(value.strings())
        names_taken = [match[1] for string in found for match in PLACEHOLDER.finditer(string.text)]
        for taken in (provider.owner.get("parameters", name) for name in names_taken) if depth else ():
            found += self.texts(taken, provider, depth - 1) if taken else []
        return found

    def references(self, strings: Iterable[Value], owner: Value) -> Iterator[Link]:
        """The references in strings of a module or resource that stand in none of its requirements."""
        requires = required(owner)
        for string in strings:
            for match in REFERENCE.finditer(string.text):
                name, slash, path = match[1].partition("/")
                if slash:
                    yield Link(string, match[0], name, path, name in requires, self.providers.get(name), None)

    def links(self, owner: Value) -> Iterator[Link]:
        """All references of a module or resource.

        The properties of a resource do not count: they do not configure its service, they only provide.
        """
        keys = ("parameters",) if owner in self.descriptor.resources.values() else ("parameters", "properties")
        yield from self.references(strings_of(owner, *keys), owner)
        for name, requirement in required(owner).items():
            for string in strings_of(requirement, "parameters", "properties"):
                for match in REFERENCE.finditer(string.text):
                    yield Link(string, match[0], name, match[1], True, self.providers.get(name), requirement)

    def module_links(self) -> Iterator[tuple[str, Link]]:
        """References in the environment of applications, which is built anew in every phase, by the module's name."""
        once = {id(string) for consumer in self.consumers() for string in consumer.strings}
        for name, module in self.descriptor.modules.items():
            for link in self.links(module) if not is_content(module) else ():
                if id(link.value) not in once:
                    yield name, link

    def urls(self, provider: Provider) -> Urls:
        """The URLs of a provider's module, with the parameters that hold for its properties."""
        scopes = (provider.entry, provider.owner, self.descriptor.root)
        return Urls(provider.owner, *(scope.get("parameters") for scope in scopes), namespaced=self._namespaced)

    def wrong(self, text: str, provider: Provider, flat: bool = True) -> list[Wrong]:
        """The placeholders of a provider's text that are wrong where it is written once.

        :param flat: whether the text is a property itself; nested ones know no ``use-live-routes``.
        """
        urls = self.urls(provider)
        if not provider.is_module:
            text = urls.expand(text)
            return [Wrong(match[0], "idle", None) for match in PLACEHOLDER.finditer(text) if is_module_url(match[1])]
        found = urls.wrong_placeholders(urls.expand(text), provider.uses_live_routes and flat)
        return list({wrong.placeholder: wrong for wrong in (Wrong(*one) for one in found)}.values())

    def wrong_in(self, value: Value, provider: Provider, depth: int = _DEPTH) -> list[Wrong]:
        """What is wrong in a provided value: in nested strings too, and in what those refer to."""
        found: list[Wrong] = []
        for string in value.strings():
            found += self.wrong(string.text, provider, string is value)
            for match in REFERENCE.finditer(self.urls(provider).expand(string.text)) if depth else ():
                name, _slash, path = match[1].partition("/")
                there = self.providers.get(name)
                target = Link(string, match[0], name, path, True, there, None).target
                if there and target is not None:
                    found += self.wrong_in(target, there, depth - 1)
        return found

    def own_wrong(self, value: Value, consumer: Consumer) -> list[Wrong]:
        """The placeholders that a string of a consumer holds itself and that are wrong there.

        A resource has no URL, and content has none either: nothing can be written in place then.
        """
        names_found = dict.fromkeys(match[1] for match in PLACEHOLDER.finditer(value.text))
        scopes = [scope.get("parameters") for scope in (consumer.place, consumer.owner, self.descriptor.root)]
        urls = Urls(consumer.owner, *scopes, spelled=True, namespaced=self._namespaced)
        found = []
        for name in names_found:
            text = urls.expand(f"${{{name}}}")
            if consumer.kind == SERVICE_KIND:
                if any(is_module_url(match[1]) for match in PLACEHOLDER.finditer(text)):
                    found.append(Wrong(f"${{{name}}}", "idle", None))
                continue
            wrongs = list(urls.wrong_placeholders(text, live_routes=False))
            if any(kind != "live" for _placeholder, kind, _live in wrongs) or (
                wrongs and consumer.kind == BINDING_KIND
            ):
                right = consumer.kind == BINDING_KIND and all(live for _placeholder, _kind, live in wrongs)
                found.append(Wrong(f"${{{name}}}", "idle", urls.live_text(f"${{{name}}}") if right else None))
        return found

    def users(self, name: str) -> list[str]:
        """Names of the applications that require *name*."""
        return [
            module
            for module, value in self.descriptor.modules.items()
            if name in required(value) and not is_content(value)
        ]

    def idle_strings(self) -> set[tuple[int, int]]:
        """Where strings are written that applications need as they are: their text is not to be changed for others."""
        services = self.descriptor.services()
        found = set()
        for module in self.descriptor.modules.values():
            if is_content(module):
                continue
            parts = [entry.value for key, entry in module.mapping.items() if key != "requires"]
            for name, requirement in required(module).items():
                once = ("parameters",) if name in services else ()
                parts += [entry.value for key, entry in requirement.mapping.items() if key not in once]
            found |= {place(string) for part in parts for string in part.strings()}
        return found


def place(value: Value) -> tuple[int, int]:
    """Where a value is written, to compare it with others: aliases of one anchor have one place."""
    return id(value.source), value.written.start


def is_content(module: Value) -> bool:
    """Whether a module is content for a service, not an application."""
    return module.string("type") == CONTENT


def strings_of(owner: Value, *keys: str) -> Iterator[Value]:
    """All strings below the given keys of a module, a resource or a requirement."""
    for key in keys:
        value = owner.get(key)
        if value is not None:
            yield from value.strings()


def check_link(link: Link, owner: str) -> None:
    """Refuse a reference to nothing.

    :raises InputError: provider or property missing.
    """
    if link.provider is None:
        advice = f"Correct {link.written}, or add an entry {link.name} to the provides of a module."
        raise InputError(f"{link.value.place}: {owner} refers to {link.name}, which nothing provides.", advice)
    if not link.required:
        raise InputError(
            f"{link.value.place}: {owner} refers to {link.name} but does not require it.",
            f"Add {link.name} to requires of {owner}.",
        )
    if link.target is None and link.provider.is_known and not (link.in_requires and link.in_requires.get("list")):
        advice = (
            f"Correct {link.written}, or add the property. The deploy service does not look into nested properties."
        )
        short = link.path.removeprefix(f"{link.name}/")
        if link.in_requires is not None and "/" in link.path:
            advice = f"In requires properties are those of {link.name}, without its name" + (
                f": write ~{{{short}}}." if short != link.path else "; move this to properties or parameters."
            )
        raise InputError(f"{link.value.place}: {link.name} provides no property {link.path}.", advice)
