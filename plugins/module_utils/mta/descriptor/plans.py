# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives what is written once live URLs: a property of the module beside the idle one, and a reference to that."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor, required
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.edit import Edits
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.live import REFERENCE, Urls, is_module_url
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.references import (
    SERVICE_KIND,
    USE_LIVE_ROUTES,
    Consumer,
    Link,
    Provider,
    Providers,
    Wrong,
    check_link,
    is_content,
    place,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Value

_OWN_ENTRY = f"Provide the live route under a name of its own, with {USE_LIVE_ROUTES}."
_SUFFIX = re.compile(r"(?i)[-_.]?(?:url|uri)$")


@dataclass(frozen=True)
class Task:
    """The mend of one reference or placeholder in one text, for all who use that text by its anchor.

    :ivar key: the text's place, and what is mended in it.
    :ivar users: where it is used, and by which module or resource.
    :ivar changes: what to do; all of it, or nothing.
    """

    key: tuple[tuple[int, int], str]
    users: tuple[tuple[Value, str], ...]
    changes: tuple[Callable[[], None], ...]

    def __call__(self) -> None:
        """Do it.

        :raises InputError: a reference names nothing.
        :raises Refused: it can't be mended alone; the changes before it have to be taken back.
        """
        for change in self.changes:
            change()


class LivePlans:
    """Mends what is written once; every provided property gets at most one live property."""

    def __init__(self, provided: Providers, edits: Edits) -> None:
        self.provided = provided
        self.edits = edits
        self._created: dict[tuple[str, str], str] = {}
        self._with_routes: set[str] = set()
        self._required: set[tuple[str, str]] = set()
        self._idle = provided.idle_strings()

    def checkpoint(self) -> Callable[[], None]:
        """What takes back every change that is made after this call."""
        created, restore = dict(self._created), self.edits.checkpoint()
        with_routes, required_by = set(self._with_routes), set(self._required)

        def back() -> None:
            self._created, self._with_routes, self._required = dict(created), set(with_routes), set(required_by)
            restore()

        return back

    def tasks(self) -> list[Task]:
        """All that may have to be mended: placeholders first, since they add to what is required."""
        found: dict[tuple[tuple[int, int], str], Task] = {}

        def add(value: Value, written: str, consumer: Consumer, change: Callable[[], None]) -> None:
            key, user = (place(value), written), (value, consumer.name)
            known = found.get(key, Task(key, (), ()))
            found[key] = Task(key, (*known.users, user), (*known.changes, change))

        consumers = list(self.provided.consumers())
        for consumer in consumers:
            for value in consumer.strings:
                for wrong in self.provided.own_wrong(value, consumer):
                    add(value, wrong.placeholder, consumer, partial(self._own, value, wrong, consumer))
        for consumer in consumers:
            for link in consumer.links:
                add(link.value, link.written, consumer, partial(self._link, link, consumer))
        return list(found.values())

    def _link(self, link: Link, consumer: Consumer) -> None:
        """Change what a reference needs to name a live URL; nothing when it does."""
        check_link(replace(link, required=link.required or (consumer.name, link.name) in self._required), consumer.name)
        target, provider = link.target, link.provider
        if target is None or provider is None:
            return
        wrongs = self.provided.wrong_in(target, provider)
        if not wrongs:
            return
        if not provider.is_module or not target.text or REFERENCE.search(target.text):
            advice = "Refer to a property of the module with a live URL."
            raise Refused(f"{link.value.place}: {link.written} leads to an idle URL by way of {link.name}.", advice)
        _check_live(target, wrongs)
        if {wrong.kind for wrong in wrongs} == {"live"} and all(wrong.placeholder in target.text for wrong in wrongs):
            self._in_place(target, provider, wrongs)
            return
        text = self.provided.urls(provider).live_text(target.text, provider.uses_live_routes)
        shared = "${routes/" in text and self._routes_are_shared(provider)
        if text == target.text and not shared:
            self._use_live_routes(provider)
            return
        if shared and link.in_requires is not None:
            raise Refused(f"{link.value.place}: modules use routes of {provider.name}, too.", _OWN_ENTRY)
        name, key = self._provide(link.path, text, target, provider, consumer)
        live = f"~{{{key}}}" if link.in_requires else f"~{{{name}/{key}}}"
        self.edits.replace_in(self._unshared(link.value), link.written, live, everywhere=True)

    def _own(self, value: Value, wrong: Wrong, consumer: Consumer) -> None:
        """Change a placeholder of a URL: to a live one where a module is the owner, else to a reference to a property
        of a module.
        """
        if consumer.kind == SERVICE_KIND:
            self._refer(value, wrong.placeholder, consumer)
        else:
            _check_live(value, [wrong])
            self.edits.replace_in(self._unshared(value), wrong.placeholder, wrong.live or "", everywhere=True)

    def _refer(self, value: Value, placeholder: str, consumer: Consumer) -> None:
        """A resource has no URL: refer to a live property of the only module that can be meant."""
        name = placeholder[2:-1]
        if not is_module_url(name) or any(string is value for string in _in_requires(consumer)):
            raise Refused(
                f"{value.place}: {placeholder} leads to the URL of a module, and a resource has none.",
                "Provide the live URL as a property of the module, and refer to that.",
            )
        self._check_schema(value, "a reference in a resource")
        kind = next((part for part in ("url", "uri") if name.endswith(f"-{part}")), "host")
        module, provider = self._meant(value, placeholder, consumer)
        root = self.provided.descriptor.root
        urls = (
            self.provided.urls(provider) if provider else Urls(module, module.get("parameters"), root.get("parameters"))
        )
        text = urls.live(kind)
        if text is None:
            raise Refused(
                f"{value.place}: {module.string('name')} has no live form of {placeholder}.", "Write the URL out."
            )
        if provider:
            path, target = self._idle_property(provider, f"${{default-{kind}}}")
            entry, key = self._provide(path or kind, text, target, provider, consumer)
        else:
            entry, key = f"{module.string('name')}-api", _free_name(kind, set())
            self._new_entry(entry, key, text, module, consumer)
        self.edits.replace_in(self._unshared(value), placeholder, f"~{{{entry}/{key}}}", everywhere=True)

    def _meant(self, value: Value, placeholder: str, consumer: Consumer) -> tuple[Value, Provider | None]:
        """The module whose URL a resource must mean: the one that it requires, else the only one that has a URL."""
        providers = [self.provided.providers.get(name) for name in required(consumer.owner)]
        found = [provider for provider in providers if provider and provider.is_module]
        if not found:
            descriptor = self.provided.descriptor
            modules = [module for module in descriptor.modules.values() if _has_url(descriptor, module)]
            if len(modules) == 1:
                own = [one for one in self.provided.providers.values() if one.owner is modules[0]]
                return modules[0], own[0] if own else None
        elif len({id(provider.owner) for provider in found}) == 1:
            with_idle = [one for one in found if self._idle_property(one, placeholder)[1] is not None]
            return found[0].owner, (with_idle or found)[0]
        raise Refused(
            f"{value.place}: {placeholder} is the URL of a module, a resource has none, and several can be meant.",
            "Provide the live URL as a property of the right module, and refer to that.",
        )

    def _idle_property(self, provider: Provider, placeholder: str) -> tuple[str, Value | None]:
        """A property that is this placeholder; ``("", None)`` when there is none."""
        urls, properties = self.provided.urls(provider), provider.properties
        for key, entry in properties.mapping.items() if properties else ():
            if urls.expand(entry.value.text) == placeholder:
                return key, entry.value
        return "", None

    def _in_place(self, target: Value, provider: Provider, wrongs: list[Wrong]) -> None:
        """A live placeholder that ignores the module's host is replaced where it stands."""
        if any("${routes/" in (wrong.live or "") for wrong in wrongs):
            if self._routes_are_shared(provider):
                raise Refused(f"{target.place}: modules use routes of {provider.name}, too.", _OWN_ENTRY)
            self._use_live_routes(provider)
        for wrong in wrongs:
            self.edits.replace_in(target, wrong.placeholder, wrong.live or "")

    def _provide(
        self, path: str, text: str, target: Value | None, provider: Provider, consumer: Consumer
    ) -> tuple[str, str]:
        """The entry and the property that offer a live URL; made when there is none.

        :param path: the idle property's name, after which the live one is called.
        """
        name = provider.name
        if "${routes/" in text:
            if self._routes_are_shared(provider):
                return self._entry_of_its_own(path, text, provider, consumer)
            self._use_live_routes(provider)
        key = self._created.get((name, text)) or self._existing(provider, text, target)
        if key is None:
            key = _free_name(path, self._taken(provider))
            properties = provider.properties
            if properties is None or properties.data is None:
                self.edits.put_below(provider.entry, "properties", key, text)
            else:
                self.edits.put(properties, key, text, after=properties.mapping.get(path))
        self._created[(name, text)] = key
        self._require(name, consumer)
        return name, key

    def _entry_of_its_own(self, path: str, text: str, provider: Provider, consumer: Consumer) -> tuple[str, str]:
        """``use-live-routes`` is for a whole entry of ``provides``: where modules use its routes, the live one gets its
        own entry.
        """
        name = f"{provider.name}-live"
        known = self.provided.providers.get(name)
        if known is not None:
            key = (
                self._existing(known, text, None) if known.uses_live_routes and known.owner is provider.owner else None
            )
            if key is None:
                raise Refused(
                    f"{provider.entry.place}: {name} is provided already, without the live URL.",
                    f"Add the live URL to {name} and refer to it.",
                )
            self._require(name, consumer)
        else:
            key = self._created.get((name, text)) or _free_name(path, set())
            self._new_entry(name, key, text, provider.owner, consumer)
        return name, key

    def _new_entry(self, name: str, key: str, text: str, module: Value, consumer: Consumer) -> None:
        entry: dict[str, Any] = {"name": name, "properties": {key: text}}
        if "${routes/" in text:
            self._check_schema(module)
            entry["parameters"] = {USE_LIVE_ROUTES: True}
        if (name, text) not in self._created:
            if name in self.provided.providers or any(name == created for created, _text in self._created):
                raise Refused(f"{module.place}: {name} is provided already.", f"Add the live URL to {name}.")
            self.edits.append(module, "provides", entry)
            self._created[(name, text)] = key
        self._require(name, consumer)

    def _require(self, name: str, consumer: Consumer) -> None:
        if name not in required(consumer.owner):
            self.edits.append(consumer.owner, "requires", {"name": name})
            self._required.add((consumer.name, name))

    def _existing(self, provider: Provider, text: str, target: Value | None) -> str | None:
        """A property that offers the live URL already, or will when its live placeholder is right."""
        properties, urls = provider.properties, self.provided.urls(provider)
        for key, entry in properties.mapping.items() if properties else ():
            if entry.value is target or not entry.value.text:
                continue
            wrongs = self.provided.wrong(entry.value.text, provider)
            live = urls.live_text(entry.value.text, provider.uses_live_routes)
            if urls.canonical(live) == urls.canonical(text) and all(wrong.kind == "live" for wrong in wrongs):
                for wrong in wrongs:
                    self.edits.replace_in(entry.value, wrong.placeholder, wrong.live or "")
                return key
        return None

    def _taken(self, provider: Provider) -> set[str]:
        own = set(provider.properties.mapping) if provider.properties else set()
        return own | {key for (name, _text), key in self._created.items() if name == provider.name}

    def _routes_are_shared(self, provider: Provider) -> bool:
        """Whether modules require the entry: its flag would turn their idle routes into live ones."""
        return not provider.uses_live_routes and bool(self.provided.users(provider.name))

    def _use_live_routes(self, provider: Provider) -> None:
        if provider.uses_live_routes or provider.name in self._with_routes:
            return
        self._check_schema(provider.entry)
        self._with_routes.add(provider.name)
        set_flag(self.edits, provider.entry, USE_LIVE_ROUTES)

    def _check_schema(self, value: Value, what: str = USE_LIVE_ROUTES) -> None:
        if self.provided.descriptor.major < 3:
            raise Refused(
                f"{value.place}: {what} needs schema version 3.", "Raise _schema-version, or write the live URL out."
            )

    def _unshared(self, value: Value) -> Value:
        """The value itself; refused when an application uses the same text through an anchor: it has to call the idle
        version and would change, too.
        """
        if place(value) in self._idle:
            raise Refused(
                f"{value.place}: a module uses this value by its anchor.",
                "Write the value out where it is written once, then run again.",
            )
        return value


def set_flag(edits: Edits, owner: Value, flag: str) -> None:
    """Set a parameter to true."""
    parameters = owner.get("parameters")
    entry = parameters.mapping.get(flag) if parameters else None
    if entry and not entry.merged and entry.value.data is not None:
        edits.set(entry.value, True)
    else:
        edits.put_below(owner, "parameters", flag, True)


def _check_live(target: Value, wrongs: list[Wrong]) -> None:
    without = [wrong.placeholder for wrong in wrongs if wrong.live is None]
    if without:
        raise Refused(
            f"{target.place}: the deploy service has no live form of {without[0]} here.",
            "Give the module routes, or write the live URL out.",
        )


def _in_requires(consumer: Consumer) -> list[Value]:
    """The strings in the requirements of a service: there a reference names a property without its provider."""
    return [string for requirement in required(consumer.owner).values() for string in requirement.strings()]


def _has_url(descriptor: Descriptor, module: Value) -> bool:
    no_route = descriptor.parameter(module, "no-route")
    return not is_content(module) and not (no_route is not None and no_route.data is True)


def _free_name(path: str, taken: set[str]) -> str:
    """Name of a live property: ``mtx-url`` becomes ``mtx-live``; the first free name of a fixed series."""
    idle = path.rpartition("/")[2]
    stem = _SUFFIX.sub("", idle)
    names = [f"{stem}-live" if stem else "live", f"{idle}-live"]
    number = 2
    while names[0] in taken:
        names = [*names[1:], f"{idle}-live-{number}"]
        number += 1
    return names[0]
