# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives what is written once live URLs: a property of the module beside the idle one, and a reference to that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor, required
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.edit import Edits
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.live import REFERENCE, Urls, is_module_url
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.offers import (
    OWN_ENTRY,
    Offers,
    free_name,
    live_data,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.references import (
    SERVICE_KIND,
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
    """Mends what is written once."""

    def __init__(self, provided: Providers, edits: Edits) -> None:
        self.provided = provided
        self.edits = edits
        self.offers = Offers(provided, edits)
        self._idle = provided.idle_strings()

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

    def _link(self, link: Link, consumer: Consumer, seen: tuple[Value, ...] = ()) -> None:
        """Change what a reference needs to name a live URL; nothing when it does."""
        check_link(replace(link, required=link.required or self.offers.is_required(consumer, link.name)), consumer.name)
        target, provider = link.target, link.provider
        wrongs = self.provided.wrong_in(target, provider) if target is not None and provider else []
        if target is None or provider is None or not wrongs:
            return
        if not provider.is_module:
            self._by_way(link, target, provider, seen)
            return
        if any(REFERENCE.search(string.text) for string in target.strings()):
            raise _by_way_of(link)
        _check_live(target, wrongs)
        if {wrong.kind for wrong in wrongs} == {"live"} and all(wrong.placeholder in target.text for wrong in wrongs):
            self._in_place(target, provider, wrongs)
            return
        data = live_data(target, self.provided.urls(provider), provider.uses_live_routes)
        if "${routes/" in str(data) and not target.text:
            raise Refused(
                f"{target.place}: in a property that is a whole mapping or list no route is live.",
                "Provide the live route as a property of its own, and refer to that.",
            )
        shared = "${routes/" in str(data) and self.offers.routes_are_shared(provider)
        if data == target.plain() and not shared:
            self.offers.use_live_routes(provider)
            return
        if shared and link.in_requires is not None:
            raise Refused(f"{link.value.place}: modules use routes of {provider.name}, too.", OWN_ENTRY)
        name, key = self.offers.live(link.path, data, target, provider, consumer)
        live = f"~{{{key}}}" if link.in_requires else f"~{{{name}/{key}}}"
        self.edits.replace_in(self._unshared(link.value), link.written, live, everywhere=True)

    def _by_way(self, link: Link, target: Value, provider: Provider, seen: tuple[Value, ...]) -> None:
        """Change the references by which a property of a resource leads to an idle URL, in it and in the parameters of
        the resource that it takes; refused when an application uses the resource, which has to call the idle version.
        """
        texts = [value for value in self.provided.texts(target, provider) if REFERENCE.search(value.text)]
        users = [name for name, other in self.provided.module_links() if self._is_idle_by(other, provider)]
        if not texts or users or any(text in seen for text in texts):
            raise _by_way_of(link, users)
        consumer = self.provided.resource(provider)
        for inner in self.provided.references(texts, consumer.owner):
            self._link(inner, consumer, (*seen, *texts))

    def _is_idle_by(self, link: Link, provider: Provider) -> bool:
        """Whether a reference leads to an idle URL by way of a resource."""
        is_by = link.provider is not None and link.provider.entry is provider.entry and link.target is not None
        return is_by and bool(link.target and self.provided.wrong_in(link.target, provider))

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
        self.offers.check_schema(value, "a reference in a resource")
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
            entry, key = self.offers.live(path or kind, text, target, provider, consumer)
        else:
            entry, key = f"{module.string('name')}-api", free_name(kind, set())
            self.offers.new_entry(entry, key, text, module, consumer)
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
            if self.offers.routes_are_shared(provider):
                raise Refused(f"{target.place}: modules use routes of {provider.name}, too.", OWN_ENTRY)
            self.offers.use_live_routes(provider)
        for wrong in wrongs:
            self.edits.replace_in(target, wrong.placeholder, wrong.live or "")

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


def _check_live(target: Value, wrongs: list[Wrong]) -> None:
    without = [wrong.placeholder for wrong in wrongs if wrong.live is None]
    if without:
        raise Refused(
            f"{target.place}: the deploy service has no live form of {without[0]} here.",
            "Give the module routes, or write the live URL out.",
        )


def _by_way_of(link: Link, users: Sequence[str] = ()) -> Refused:
    also = f", and {users[0]} has to call the idle version" if users else ""
    return Refused(
        f"{link.value.place}: {link.written} leads to an idle URL by way of {link.name}{also}.",
        "Refer to a property of the module with a live URL.",
    )


def _in_requires(consumer: Consumer) -> list[Value]:
    """The strings in the requirements of a service: there a reference names a property without its provider."""
    return [string for requirement in required(consumer.owner).values() for string in requirement.strings()]


def _has_url(descriptor: Descriptor, module: Value) -> bool:
    no_route = descriptor.parameter(module, "no-route")
    return not is_content(module) and not (no_route is not None and no_route.data is True)
