# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What in a descriptor will hurt in a blue-green deployment: rules, and findings with their place and their mend."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ansible_collections.zdm.landscape.plugins.module_utils.core.durations import format_ms
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.edit import Edits
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.safe import (
    DIRECT,
    KEEP_ROUTES,
    LivePlans,
    callbacks,
    check_link,
    keeps_routes,
    routes_of_tenants,
    service_strings,
    timeout_ms,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.urls import (
    PLACEHOLDER,
    USE_LIVE_ROUTES,
    Link,
    Providers,
    Wrong,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Value
from ansible_collections.zdm.landscape.plugins.module_utils.mta.lint.session import session_findings

ERROR, WARNING = "error", "warning"
RULES = {
    "unknown-reference": ERROR,
    "idle-url-in-service": ERROR,
    "live-property-missing": ERROR,
    "live-url-ignores-host": ERROR,
    "live-routes-not-used": ERROR,
    "idle-calls-live": WARNING,
    "tenant-routes-not-kept": ERROR,
    "session-store-missing": ERROR,
    "session-not-json": ERROR,
    "session-key-missing": ERROR,
    "session-value-wrong": ERROR,
    "session-key-crashes": ERROR,
    "session-secret-short": ERROR,
    "session-secret-in-descriptor": ERROR,
    "session-service-not-bound": ERROR,
    "callback-not-async": WARNING,
    "callback-timeout-missing": WARNING,
    "callback-timeout-short": ERROR,
    "hook-not-in-blue-green": WARNING,
}
"""The rules and how severe they are; docs/descriptor.md describes them."""


@dataclass(frozen=True)
class Finding:
    """One violation of a rule.

    :ivar rule: a key of :data:`RULES`.
    :ivar severity: ``error`` breaks requests, sessions or subscriptions; ``warning`` may.
    :ivar object: the module or resource.
    :ivar mend: what to do.
    :ivar fixable: whether ``mta_descriptor`` mends it.
    """

    rule: str
    severity: str
    file: str
    line: int
    column: int
    object: str
    message: str
    mend: str
    fixable: bool = False

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.severity} {self.rule}: {self.message} {self.mend}"


def lint(
    descriptor: Descriptor, longest_upgrade_ms: int = 0, namespace: str = "", ignore: Sequence[str] = ()
) -> list[Finding]:
    """All findings of a descriptor, by file and line.

    :param descriptor: with its extensions laid over it (:meth:`Descriptor.extended`).
    :param longest_upgrade_ms: how long the longest upgrade of a tenant takes; 0 when that is unknown.
    :param namespace: namespace of the deployment, which becomes part of the names of services.
    :param ignore: rules that are not applied.
    :raises InputError: a rule to ignore that does not exist, or an extension in place of a descriptor.
    """
    unknown = [rule for rule in ignore if rule not in RULES]
    if unknown:
        raise InputError(f"There is no rule {unknown[0]}.", f"There are {', '.join(RULES)}.")
    if descriptor.extends:
        advice = "Give the descriptor as path and this file among its extensions."
        raise InputError(f"{descriptor.source.name} is an extension of {descriptor.extends}.", advice)
    check = _Lint(descriptor, longest_upgrade_ms, namespace)
    found = {finding: None for part in check.parts() for finding in part() if finding.rule not in ignore}
    return sorted(found, key=lambda finding: (finding.file, finding.line, finding.column, finding.rule))


class _Lint:
    def __init__(self, descriptor: Descriptor, longest_upgrade_ms: int, namespace: str) -> None:
        self.descriptor = descriptor
        self.longest_upgrade_ms = longest_upgrade_ms
        self.namespace = namespace
        self.provided = Providers(descriptor)

    def parts(self) -> list[Callable[[], Iterator[Finding]]]:
        return [self.services, self.modules, self.routes, self.sessions, self.callbacks, self.hooks]

    def finding(self, rule: str, value: Value, owner: str, message: str, mend: str, fixable: bool = False) -> Finding:
        return Finding(rule, RULES[rule], value.source.name, value.line, value.column, owner, message, mend, fixable)

    def services(self) -> Iterator[Finding]:
        """Services that get a URL which dies at the end of the testing phase."""
        for name, service in self.descriptor.services().items():
            for link in self.provided.links(service):
                yield from self.reference(link, name)
                target, provider = link.target, link.provider
                wrongs = self.provided.wrong_in(target, provider) if target is not None and provider else []
                if wrongs:
                    fixable = self.fixable(link, service)
                    for wrong in wrongs:
                        yield from self.wrong_url(link, wrong, name, fixable)
            for value in service_strings(service):
                for match in DIRECT.finditer(value.text):
                    message = (
                        f"The service {name} is configured with {match[0]}, an idle URL while a deployment is tested."
                    )
                    yield self.finding(
                        "idle-url-in-service", value, name, message, f"Write ${{default-live-{match[1]}}}.", True
                    )

    def reference(self, link: Link, owner: str) -> Iterator[Finding]:
        try:
            check_link(link, owner)
        except InputError as error:
            yield self.finding(
                "unknown-reference",
                link.value,
                owner,
                error.message.removeprefix(f"{link.value.place}: "),
                error.advice,
            )

    def fixable(self, link: Link, service: Value) -> bool:
        """Whether ``mta_descriptor`` can mend this reference: it is tried."""
        try:
            LivePlans(self.provided, Edits(self.descriptor.source)).mend(link, service)
        except ZdmError:
            return False
        return True

    def wrong_url(self, link: Link, wrong: Wrong, name: str, fixable: bool) -> Iterator[Finding]:
        target, provider = link.target, link.provider
        if target is None or provider is None:
            return
        where = f"{link.name}/{link.path}"
        if wrong.kind == "live":
            message = (
                f"{where} is {wrong.placeholder}, which ignores the module's own host or routes; the service {name}"
                " uses it."
            )
            yield self.finding(
                "live-url-ignores-host", target, link.name, message, f"Write {wrong.live or 'the live URL'}.", fixable
            )
        elif wrong.kind == "routes":
            message = (
                f"{where} is a route of the module without {USE_LIVE_ROUTES}: the service {name} gets the idle route"
                " while a deployment is tested."
            )
            yield self.finding(
                "live-routes-not-used",
                target,
                link.name,
                message,
                f"Set {USE_LIVE_ROUTES}: true in the parameters of {link.name}.",
                fixable,
            )
        else:
            message = (
                f"The service {name} is configured with {link.written}, which is {wrong.placeholder}: an idle URL while"
                " a deployment is tested."
            )
            yield self.finding(
                "idle-url-in-service", link.value, name, message, "Refer to a property with the live URL.", fixable
            )
            if provider.is_module and not self.offers_live(link):
                message = f"{where} is used by the service {name}, and {link.name} provides no live URL."
                mend = f"Add a property with {wrong.live or 'the live URL'} beside it."
                yield self.finding("live-property-missing", target, link.name, message, mend, fixable)

    def offers_live(self, link: Link) -> bool:
        properties = link.provider.properties if link.provider else None
        if properties is None or link.provider is None:
            return False
        texts = [self.provided.expand(string.text, link.provider) for string in properties.strings()]
        return any(
            "${default-live-" in text or ("${routes/" in text and link.provider.uses_live_routes) for text in texts
        )

    def modules(self) -> Iterator[Finding]:
        """Modules that call the live version while they are tested."""
        for name, module in self.descriptor.modules.items():
            for link in self.provided.links(module):
                yield from self.reference(link, name)
                target, provider = link.target, link.provider
                for string in target.strings() if target is not None else ():
                    text = self.provided.expand(string.text, provider) if provider else ""
                    live = [match[0] for match in PLACEHOLDER.finditer(text) if match[1].startswith("default-live-")]
                    if provider and provider.uses_live_routes and "${routes/" in text:
                        live.append("a live route")
                    if live:
                        message = (
                            f"The module {name} uses {link.written}, which is {live[0]}: while it is tested it calls"
                            " the live version."
                        )
                        yield self.finding(
                            "idle-calls-live",
                            link.value,
                            name,
                            message,
                            "Refer to a property with ${default-url} or ${default-uri}.",
                        )

    def routes(self) -> Iterator[Finding]:
        for name in routes_of_tenants(self.descriptor):
            module = self.descriptor.modules[name]
            if not keeps_routes(module):
                value = module.get("parameters", KEEP_ROUTES) or module
                message = f"The routes of the tenants to {name} are deleted with the live application."
                yield self.finding(
                    "tenant-routes-not-kept", value, name, message, f"Set {KEEP_ROUTES}: true in its parameters.", True
                )

    def sessions(self) -> Iterator[Finding]:
        for name in self.descriptor.approuters():
            for rule, value, message, mend, fixable in session_findings(self.descriptor, name, self.namespace):
                yield self.finding(rule, value, name, message, mend, fixable)

    def callbacks(self) -> Iterator[Finding]:
        """Subscriptions that the SaaS registry gives up while a tenant is upgraded."""
        for name, urls in callbacks(self.descriptor).items():
            for key in ("onSubscription", "onUnSubscription", "onUpdateDependencies"):
                flag = urls.get(f"{key}Async")
                mandatory = key == "onSubscription" or key in urls.mapping
                if mandatory and not (flag is not None and flag.data is True):
                    message = (
                        f"{key} of {name} is not asynchronous: the registry waits for its answer on one connection."
                    )
                    yield self.finding(
                        "callback-not-async",
                        flag or urls,
                        name,
                        message,
                        f"Set {key}Async: true if the application answers asynchronously.",
                    )
            yield from self.timeout(name, urls)

    def timeout(self, name: str, urls: Value) -> Iterator[Finding]:
        waits, longest = timeout_ms(self.descriptor, urls), self.longest_upgrade_ms
        value = urls.get("callbackTimeoutMillis") or urls
        mend = (
            f"Set callbackTimeoutMillis: {longest}."
            if longest
            else "Set callbackTimeoutMillis to more than the longest upgrade takes."
        )
        if waits == 0:
            yield self.finding(
                "callback-timeout-missing",
                value,
                name,
                f"{name} does not say how long the registry waits for a callback.",
                mend,
                bool(longest),
            )
        elif waits is not None and waits < longest:
            message = (
                f"The registry waits {format_ms(waits)} for a callback of {name}, the longest upgrade takes"
                f" {format_ms(longest)}."
            )
            yield self.finding("callback-timeout-short", value, name, message, mend, True)

    def hooks(self) -> Iterator[Finding]:
        """Hooks that only a plain deployment runs: their phases begin with ``deploy.``."""
        for name, module in self.descriptor.modules.items():
            hooks = module.get("hooks")
            for hook in hooks.items if hooks else ():
                phases = hook.get("phases")
                texts = [phase.text for phase in phases.items] if phases else []
                if texts and phases is not None and all(text.startswith("deploy.") for text in texts):
                    label = hook.get("name")
                    message = f"The hook {label.text if label else ''} of {name} runs in plain deployments only."
                    mend = "Add the phases with blue-green. in place of deploy. (and .idle or .live at the end)."
                    yield self.finding("hook-not-in-blue-green", phases, name, message, mend)
