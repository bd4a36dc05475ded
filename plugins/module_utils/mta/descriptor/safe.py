# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a descriptor safe for blue-green deployments: as few lines as possible change, all others keep their bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, Refused, ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor, required
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.edit import STEP, Edits, scalar
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.session import (
    VARIABLE,
    Sessions,
    instance_name,
    parse_environment,
    written,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.urls import (
    PLACEHOLDER,
    REFERENCE,
    USE_LIVE_ROUTES,
    Link,
    Provider,
    Providers,
    Wrong,
    strings_of,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Source, Value

KEEP_ROUTES = "keep-existing-routes"
DIRECT = re.compile(r"\$\{default-(?:idle-)?(url|uri|host)\}")
"""Placeholders of a module's URL that a service's configuration names itself."""
_OWN_ENTRY = f"Provide the live route under a name of its own, with {USE_LIVE_ROUTES}."
_SUFFIX = re.compile(r"(?i)[-_.]?(?:url|uri)$")


@dataclass(frozen=True)
class Wanted:
    """What to make safe.

    :ivar live_urls: services get live URLs.
    :ivar sessions: application routers keep their sessions in Redis; ``None`` leaves them alone.
    :ivar keep_existing_routes: application routers keep the routes of their tenants.
    :ivar longest_upgrade_ms: the SaaS registry waits at least so long for an answer of a subscription; 0 leaves it
    alone.
    :ivar namespace: namespace of the deployment.
    """

    live_urls: bool = True
    sessions: Sessions | None = None
    keep_existing_routes: bool = True
    longest_upgrade_ms: int = 0
    namespace: str = ""


def make_safe(descriptor: Descriptor, wanted: Wanted, base: Descriptor | None = None) -> str:
    """The descriptor's text, made safe; the same text when it is safe already.

    :param base: the descriptor that an extension extends; needed when *descriptor* is an extension, only whose own
        lines change.
    :raises InputError: a module, provider or property that does not exist, or an extension without its descriptor.
    :raises Refused: a change that can't be made without touching something else; it says what to do by hand.
    """
    if descriptor.extends and base is None:
        raise InputError(
            f"{descriptor.source.name} is an extension of {descriptor.extends}.",
            "Give the descriptor that it extends as base.",
        )
    if base is not None and not descriptor.extends:
        raise InputError(
            f"{descriptor.source.name} is not an extension.", "Leave out base, or give an .mtaext as path."
        )
    if base is not None and wanted.sessions is not None:
        raise InputError(
            "Sessions are set up in the descriptor, not in an extension.",
            f"Leave out sessions, and make {base.source.name} safe with them.",
        )
    merged = base.extended([descriptor]) if base else descriptor
    edits = Edits(descriptor.source)
    if wanted.live_urls:
        live_urls(merged, edits)
    if wanted.sessions is not None:
        external_sessions(merged, wanted.sessions, wanted.namespace, edits)
    if wanted.keep_existing_routes:
        keep_routes(merged, edits)
    if wanted.longest_upgrade_ms:
        wait_for_upgrades(merged, wanted.longest_upgrade_ms, edits)
    text = edits.apply()
    if edits:
        try:
            Descriptor.parse(Source(descriptor.source.name, text))
        except InputError as error:
            advice = "Nothing was written. Make the changes that lint names by hand."
            raise ZdmError(f"The changed descriptor would be wrong: {error.message}", advice) from error
    return text


def live_urls(descriptor: Descriptor, edits: Edits) -> None:
    """Let every service's configuration name live URLs; see :func:`make_safe` for errors."""
    plans = LivePlans(Providers(descriptor), edits)
    for name, service in descriptor.services().items():
        for link in plans.provided.links(service):
            check_link(link, name)
            plans.mend(link, service)
        for value in service_strings(service):
            for match in DIRECT.finditer(value.text) if value.source is edits.source else ():
                edits.replace_in(plans.unshared(value), match[0], f"${{default-live-{match[1]}}}")


def service_strings(service: Value) -> Iterator[Value]:
    """The strings that configure a service."""
    yield from strings_of(service, "parameters")
    for requirement in required(service).values():
        yield from strings_of(requirement, "parameters", "properties")


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
    if link.provider.is_module and link.target is None:
        raise InputError(
            f"{link.value.place}: {link.name} provides no property {link.path}.",
            f"Correct {link.written}, or add the property.",
        )


class LivePlans:
    """Mends references of services; every provided property gets at most one live property."""

    def __init__(self, provided: Providers, edits: Edits) -> None:
        self.provided = provided
        self.edits = edits
        self.created: dict[tuple[str, str], str] = {}
        self.with_routes: set[str] = set()
        modules = provided.descriptor.modules.values()
        self.of_modules = {(string.source, string.written.start) for module in modules for string in module.strings()}

    def unshared(self, value: Value) -> Value:
        """The value itself.

        :raises Refused: a module uses the same text through an anchor; it has to call the idle version and would
            change, too.
        """
        if (value.source, value.written.start) in self.of_modules:
            raise Refused(
                f"{value.place}: a module uses this value by its anchor.",
                "Write the value out in the service, then run again.",
            )
        return value

    def mend(self, link: Link, service: Value) -> None:
        """Change what a reference needs to name a live URL; nothing when it does."""
        target, provider = link.target, link.provider
        if target is None or provider is None:
            return
        wrongs = self.provided.wrong_in(target, provider)
        if not wrongs:
            return
        if not provider.is_module or not target.text or REFERENCE.search(target.text):
            advice = "Refer to a property of the module with a live URL."
            raise Refused(f"{link.value.place}: {link.written} leads to an idle URL by way of {link.name}.", advice)
        without = [wrong.placeholder for wrong in wrongs if wrong.live is None]
        if without:
            raise Refused(
                f"{target.place}: the deploy service has no live form of {without[0]} here.",
                "Give the module routes, or write the live URL out.",
            )
        kinds = {wrong.kind for wrong in wrongs}
        if kinds == {"live"} and all(wrong.placeholder in target.text for wrong in wrongs):
            self._in_place(target, provider, wrongs)
        else:
            self._by_property(link, target, provider, service)

    def _in_place(self, target: Value, provider: Provider, wrongs: list[Wrong]) -> None:
        """A live placeholder that ignores the module's host is replaced where it stands."""
        if any("${routes/" in (wrong.live or "") for wrong in wrongs):
            if self._routes_are_shared(provider):
                raise Refused(f"{target.place}: modules use routes of {provider.name}, too.", _OWN_ENTRY)
            self._use_live_routes(provider)
        for wrong in wrongs:
            self.edits.replace_in(target, wrong.placeholder, wrong.live or "")

    def _by_property(self, link: Link, target: Value, provider: Provider, service: Value) -> None:
        """A live property beside the idle one; the service refers to it."""
        text = self.provided.live_text(target.text, provider)
        routes = "${routes/" in text
        name = provider.name
        if routes and self._routes_are_shared(provider):
            name = self._entry_of_its_own(link, text, provider, service)
        elif routes and text == target.text:
            self._use_live_routes(provider)
            return
        elif routes:
            self._use_live_routes(provider)
        key = self.created.get((name, text)) or self._existing(provider, text, target)
        if key is None:
            key = _free_name(link.path, self._taken(provider))
            properties = provider.entry.get("properties")
            first = link.path if properties and link.path in properties.mapping else link.path.partition("/")[0]
            if properties is not None:
                self.edits.put(properties, key, text, after=properties.mapping.get(first))
        self.created[(name, text)] = key
        prefix = "" if link.in_requires is not None and not link.written.startswith(f"~{{{link.name}/") else f"{name}/"
        self.edits.replace_in(self.unshared(link.value), link.written, f"~{{{prefix}{key}}}")

    def _entry_of_its_own(self, link: Link, text: str, provider: Provider, service: Value) -> str:
        """``use-live-routes`` is for a whole entry of ``provides``: where modules use its routes, the live one gets its
        own entry.
        """
        if link.in_requires is not None:
            raise Refused(f"{link.value.place}: modules use routes of {provider.name}, too.", _OWN_ENTRY)
        name = f"{provider.name}-live"
        if (name, text) in self.created:
            key = self.created[(name, text)]
        elif name in self.provided.providers:
            raise Refused(
                f"{link.value.place}: {name} is provided already, without the live URL.",
                f"Add the live URL to {name} and refer to it.",
            )
        else:
            key = self.created[(name, text)] = _free_name(link.path, set())
            self.edits.append(
                provider.owner,
                "provides",
                {"name": name, "properties": {key: text}, "parameters": {USE_LIVE_ROUTES: True}},
            )
        if name not in required(service):
            self.edits.append(service, "requires", {"name": name})
        return name

    def _existing(self, provider: Provider, text: str, target: Value) -> str | None:
        """A property that offers the live URL already, or will when its live placeholder is right."""
        properties, wanted = provider.properties, self.provided.expand(text, provider)
        for key, entry in properties.mapping.items() if properties else ():
            if entry.value is target or not entry.value.text:
                continue
            wrongs = self.provided.wrong(self.provided.expand(entry.value.text, provider), provider)
            live = self.provided.live_text(entry.value.text, provider)
            if self.provided.expand(live, provider) == wanted and all(wrong.kind != "idle" for wrong in wrongs):
                for wrong in wrongs:
                    if wrong.kind == "live":
                        self.edits.replace_in(entry.value, wrong.placeholder, wrong.live or "")
                return key
        return None

    def _taken(self, provider: Provider) -> set[str]:
        own = set(provider.properties.mapping) if provider.properties else set()
        return own | {key for (name, _text), key in self.created.items() if name == provider.name}

    def _routes_are_shared(self, provider: Provider) -> bool:
        """Whether modules require the entry: its flag would turn their idle routes into live ones."""
        return not provider.uses_live_routes and bool(self.provided.users(provider.name))

    def _use_live_routes(self, provider: Provider) -> None:
        if provider.uses_live_routes or provider.name in self.with_routes:
            return
        if self.provided.descriptor.major < 3:
            raise Refused(
                f"{provider.entry.place}: {USE_LIVE_ROUTES} needs schema version 3.",
                "Raise _schema-version, or write the live URL out.",
            )
        self.with_routes.add(provider.name)
        set_flag(self.edits, provider.entry, USE_LIVE_ROUTES)


def set_flag(edits: Edits, owner: Value, flag: str) -> None:
    """Set a parameter to true."""
    parameters = owner.get("parameters")
    entry = parameters.mapping.get(flag) if parameters else None
    if entry and not entry.merged:
        edits.set(entry.value, "true")
    else:
        edits.put_below(owner, "parameters", flag, True)


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


def external_sessions(descriptor: Descriptor, sessions: Sessions, namespace: str, edits: Edits) -> None:
    """Give application routers a Redis, bind it, and tell them; the secret stays a parameter."""
    sessions = sessions.checked(descriptor)
    name = sessions.resource_for(descriptor)
    resource = descriptor.resources.get(name)
    for module_name in sessions.modules:
        module = descriptor.modules[module_name]
        value = module.get("properties", VARIABLE)
        existing = parse_environment(value) if value is not None else None
        environment = sessions.environment(instance_name(name, resource, namespace), existing)
        if value is None:
            edits.put_below(module, "properties", VARIABLE, written(environment))
        elif existing != environment:
            _set_environment(edits, value, environment)
        if name not in required(module):
            edits.append(module, "requires", {"name": name})
    if resource is None:
        parameters = {"service": sessions.service, "service-plan": sessions.plan}
        edits.append(
            descriptor.root,
            "resources",
            {"name": name, "type": "org.cloudfoundry.managed-service", "parameters": parameters},
        )


def _set_environment(edits: Edits, value: Value, environment: dict[str, Any]) -> None:
    if isinstance(value.data, dict):
        raise Refused(
            f"{value.place}: {VARIABLE} is a mapping and not as wanted.",
            "Remove it, then run again: it is written as strict JSON.",
        )
    if edits.is_json:
        edits.set(value, edits.flow(written(environment)))
        return
    line = value.source.text[: value.start].rpartition("\n")[2]
    pad = " " * (len(line) - len(line.lstrip(" -")) + STEP)
    edits.set(value, f"{value.source.newline}{pad}".join(scalar(written(environment)).split("\n")))


def keeps_routes(module: Value) -> bool:
    """Whether a module keeps routes that others have mapped to it."""
    flag, group = module.get("parameters", KEEP_ROUTES), module.get("parameters", "keep-existing", "routes")
    return (flag is not None and flag.data is True) or (flag is None and group is not None and group.data is True)


def routes_of_tenants(descriptor: Descriptor) -> list[str]:
    """Application routers to which every tenant has a route of its own."""
    subscribed = descriptor.is_subscribed()
    return [
        name
        for name in descriptor.approuters()
        if subscribed or descriptor.modules[name].get("properties", "TENANT_HOST_PATTERN")
    ]


def keep_routes(descriptor: Descriptor, edits: Edits) -> None:
    """Keep the routes of tenants when the live application is removed."""
    for name in routes_of_tenants(descriptor):
        module = descriptor.modules[name]
        if not keeps_routes(module):
            set_flag(edits, module, KEEP_ROUTES)


def callbacks(descriptor: Descriptor) -> dict[str, Value]:
    """The callbacks (\\ ``appUrls``) of the SaaS registry's services that are called for subscriptions."""
    found = {}
    for name, service in descriptor.services().items():
        kind, urls = service.get("parameters", "service"), service.get("parameters", "config", "appUrls")
        if kind and kind.text == "saas-registry" and urls is not None and urls.get("onSubscription"):
            found[name] = urls
    return found


def timeout_ms(descriptor: Descriptor, urls: Value) -> int | None:
    """How long the registry waits: 0 when nothing is said, ``None`` when a placeholder says it that is not set here."""
    value = urls.get("callbackTimeoutMillis")
    if value is None or value.data is None:
        return 0
    data = value.data
    match = PLACEHOLDER.fullmatch(value.text)
    if match:
        parameter = descriptor.root.get("parameters", match[1])
        data = parameter.data if parameter else None
    if isinstance(data, str) and data.isdigit():
        return int(data)
    return data if isinstance(data, int) else None


def wait_for_upgrades(descriptor: Descriptor, longest_ms: int, edits: Edits) -> None:
    """Let the registry wait as long as the longest upgrade takes."""
    for urls in callbacks(descriptor).values():
        now = timeout_ms(descriptor, urls)
        entry = urls.mapping.get("callbackTimeoutMillis")
        if now is None or now >= longest_ms:
            continue
        if entry is None or entry.merged:
            edits.put(urls, "callbackTimeoutMillis", longest_ms)
        elif entry.value.data is None:
            raise Refused(f"{urls.place}: callbackTimeoutMillis has no value.", "Remove the key, then run again.")
        else:
            edits.set(entry.value, str(longest_ms))
