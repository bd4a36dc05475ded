# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Properties of modules that offer live URLs: the ones that are there, and new ones beside the idle ones."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import required
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.edit import Edits
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.live import Urls
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.references import (
    USE_LIVE_ROUTES,
    Consumer,
    Provider,
    Providers,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Value

OWN_ENTRY = f"Provide the live route under a name of its own, with {USE_LIVE_ROUTES}."
_SUFFIX = re.compile(r"(?i)[-_.]?(?:url|uri)$")


class Offers:
    """Finds and makes what is referred to; every provided property gets at most one live property.

    What a property is may be a string, or a mapping or list of such.
    """

    def __init__(self, provided: Providers, edits: Edits) -> None:
        self.provided = provided
        self.edits = edits
        self._created: dict[tuple[str, str], str] = {}
        self._with_routes: set[str] = set()
        self._required: set[tuple[str, str]] = set()

    def checkpoint(self) -> Callable[[], None]:
        """What takes back every change that is made after this call."""
        created, restore = dict(self._created), self.edits.checkpoint()
        with_routes, required_by = set(self._with_routes), set(self._required)

        def back() -> None:
            self._created, self._with_routes, self._required = dict(created), set(with_routes), set(required_by)
            restore()

        return back

    def is_required(self, consumer: Consumer, name: str) -> bool:
        """Whether a consumer was made to require a provider."""
        return (consumer.name, name) in self._required

    def live(
        self, path: str, data: Any, target: Value | None, provider: Provider, consumer: Consumer
    ) -> tuple[str, str]:
        """The entry and the property that offer what is live; made when there is none.

        :param path: the idle property's name, after which the live one is called.
        :param data: what is live.
        :param target: the idle property.
        """
        name = provider.name
        if "${routes/" in _text(data):
            if self.routes_are_shared(provider):
                return self._entry_of_its_own(path, data, provider, consumer)
            self.use_live_routes(provider)
        made = name, _text(data)
        key = self._created.get(made) or self._existing(provider, data, target)
        if key is None:
            key = free_name(path, self._taken(provider))
            properties = provider.properties
            if properties is None or properties.data is None:
                self.edits.put_below(provider.entry, "properties", key, data)
            else:
                self.edits.put(properties, key, data, after=properties.mapping.get(path))
        self._created[made] = key
        self._require(name, consumer)
        return name, key

    def new_entry(self, name: str, key: str, data: Any, module: Value, consumer: Consumer) -> None:
        """Let a module provide a property under a name of its own.

        :raises Refused: the name is taken.
        """
        entry: dict[str, Any] = {"name": name, "properties": {key: data}}
        if "${routes/" in _text(data):
            self.check_schema(module)
            entry["parameters"] = {USE_LIVE_ROUTES: True}
        made = name, _text(data)
        if made not in self._created:
            if name in self.provided.providers or any(name == created for created, _text in self._created):
                raise Refused(f"{module.place}: {name} is provided already.", f"Add the live URL to {name}.")
            self.edits.append(module, "provides", entry)
            self._created[made] = key
        self._require(name, consumer)

    def routes_are_shared(self, provider: Provider) -> bool:
        """Whether modules require the entry: its flag would turn their idle routes into live ones."""
        return not provider.uses_live_routes and bool(self.provided.users(provider.name))

    def use_live_routes(self, provider: Provider) -> None:
        """Let the routes in the properties of an entry be live ones.

        :raises Refused: the schema version knows no such flag.
        """
        if provider.uses_live_routes or provider.name in self._with_routes:
            return
        self.check_schema(provider.entry)
        self._with_routes.add(provider.name)
        self.edits.set_flag(provider.entry, USE_LIVE_ROUTES)

    def check_schema(self, value: Value, what: str = USE_LIVE_ROUTES) -> None:
        """Refuse what the deploy service knows from schema version 3 on.

        :raises Refused: the descriptor has an older one.
        """
        if self.provided.descriptor.major < 3:
            raise Refused(
                f"{value.place}: {what} needs schema version 3.", "Raise _schema-version, or write the live URL out."
            )

    def _entry_of_its_own(self, path: str, data: Any, provider: Provider, consumer: Consumer) -> tuple[str, str]:
        """``use-live-routes`` is for a whole entry of ``provides``: where modules use its routes, the live one gets its
        own entry.
        """
        name = f"{provider.name}-live"
        known = self.provided.providers.get(name)
        if known is not None:
            key = (
                self._existing(known, data, None) if known.uses_live_routes and known.owner is provider.owner else None
            )
            if key is None:
                raise Refused(
                    f"{provider.entry.place}: {name} is provided already, without the live URL.",
                    f"Add the live URL to {name} and refer to it.",
                )
            self._require(name, consumer)
        else:
            key = self._created.get((name, _text(data))) or free_name(path, set())
            self.new_entry(name, key, data, provider.owner, consumer)
        return name, key

    def _require(self, name: str, consumer: Consumer) -> None:
        if name not in required(consumer.owner):
            self.edits.append(consumer.owner, "requires", {"name": name})
            self._required.add((consumer.name, name))

    def _existing(self, provider: Provider, data: Any, target: Value | None) -> str | None:
        """A property that offers what is live already, or will when its live placeholder is right."""
        properties, urls = provider.properties, self.provided.urls(provider)
        for key, entry in properties.mapping.items() if properties else ():
            if entry.value is target or not list(entry.value.strings()):
                continue
            wrongs = self.provided.wrong_in(entry.value, provider)
            live = live_data(entry.value, urls, provider.uses_live_routes)
            if _canonical(live, urls) == _canonical(data, urls) and all(wrong.kind == "live" for wrong in wrongs):
                for wrong in wrongs:
                    self.edits.replace_in(entry.value, wrong.placeholder, wrong.live or "")
                return key
        return None

    def _taken(self, provider: Provider) -> set[str]:
        own = set(provider.properties.mapping) if provider.properties else set()
        return own | {key for (name, _data), key in self._created.items() if name == provider.name}


def live_data(value: Value, urls: Urls, live_routes: bool) -> Any:
    """The data of a property, with live placeholders in its strings."""
    if isinstance(value.data, dict):
        return {key: live_data(entry.value, urls, live_routes) for key, entry in value.data.items()}
    if isinstance(value.data, list):
        return [live_data(item, urls, live_routes) for item in value.data]
    return urls.live_text(value.text, live_routes) if value.text else value.data


def free_name(path: str, taken: set[str]) -> str:
    """Name of a live property: ``mtx-url`` becomes ``mtx-live``; the first free name of a fixed series."""
    idle = path.rpartition("/")[2]
    stem = _SUFFIX.sub("", idle)
    names = [f"{stem}-live" if stem else "live", f"{idle}-live"]
    number = 2
    while names[0] in taken:
        names = [*names[1:], f"{idle}-live-{number}"]
        number += 1
    return names[0]


def _text(data: Any) -> str:
    return data if isinstance(data, str) else json.dumps(data)


def _canonical(data: Any, urls: Urls) -> Any:
    """Live data with every name for the same thing made one, to compare two of them."""
    if isinstance(data, dict):
        return {key: _canonical(item, urls) for key, item in data.items()}
    if isinstance(data, list):
        return [_canonical(item, urls) for item in data]
    return urls.canonical(data) if isinstance(data, str) else data
