# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens around the switch that a descriptor alone can't mend: whoever deploys has to know it."""

from __future__ import annotations

from collections.abc import Iterator

from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import required
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.live import PLACEHOLDER
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.references import (
    CONTENT_KIND,
    SERVICE_KIND,
    Consumer,
    Link,
    is_content,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Value
from ansible_collections.zdm.landscape.plugins.module_utils.mta.lint.findings import Finding, Subject, finding

STOP_ORDER = "bg-dependency-aware-stop-order"
_UI_SERVICES = ("html5-apps-repo", "portal", "build-workzone-standard", "build-workzone-advanced")
_UI_TYPES = ("com.sap.html5.application-content", "com.sap.portal.content", "com.sap.portal.site-content")
_DEPLOYERS = ("hdb", "com.sap.xs.hdi", "com.sap.xs.hdi-dynamic")


def resume(subject: Subject) -> Iterator[Finding]:
    """Modules that call another one's idle route: after the resume for as long as they have their old environment."""
    callers: dict[str, Link] = {}
    for name, link in subject.provided.module_links():
        target, provider = link.target, link.provider
        if target is not None and provider is not None and provider.is_module:
            kinds = {wrong.kind for wrong in subject.provided.wrong_in(target, provider)}
            if kinds & {"idle", "routes"} and provider.owner is not subject.descriptor.modules[name]:
                callers.setdefault(name, link)
    for name, link in callers.items():
        message = (
            f"When an operation is resumed, {name} gets live traffic while it still calls the idle route of"
            f" {link.name}, which is deleted already: its users see errors for seconds."
        )
        mend = (
            "Stop all idle applications right before the resume, as the role mta_blue_green does; without a testing"
            " phase there is no moment for it."
        )
        yield finding("resume-loses-requests", link.value, name, message, mend)
    parameters = subject.descriptor.root.get("parameters")
    flag = parameters.get(STOP_ORDER) if parameters else None
    after = [module.get("deployed-after") for module in subject.descriptor.modules.values()]
    depends = callers or any(value is not None and value.data for value in after)
    if depends and (flag is None or flag.data is not True):
        message = "At the switch the modules are restarted one by one, whatever depends on them."
        mend = f"Set {STOP_ORDER}: true in the parameters of the descriptor, and keep the original names."
        place = flag or parameters or subject.descriptor.root
        yield finding("stop-order-not-set", place, subject.descriptor.id, message, mend)


def instances(subject: Subject) -> Iterator[Finding]:
    """Modules with one instance, which the resume restarts: all application routers, through which everybody comes, and
    others that say so.
    """
    routers = subject.descriptor.approuters(subject.named)
    for name, module in subject.descriptor.modules.items():
        value, route = (subject.descriptor.parameter(module, key) for key in ("instances", "no-route"))
        unset = value is None or value.data is None
        if is_content(module) or (route is not None and route.data is True) or (unset and name not in routers):
            continue
        if unset or _count(subject, value) == 1:
            message = f"{name} has one instance: whenever that is restarted or moved, nobody answers."
            yield finding("single-instance", value or module, name, message, "Set instances: 2 or more.")


def content(subject: Subject) -> Iterator[Finding]:
    """User interfaces that are live before the switch."""
    for name, module in subject.descriptor.modules.items():
        targets = [*_targets(subject, module, _UI_SERVICES)] if is_content(module) else []
        if targets or module.string("type") in _UI_TYPES:
            message = (
                f"What {name} uploads is live before the switch: users get the new user interface while the old version"
                " answers."
            )
            mend = "Let the new user interface work with the old version, or deploy it after the switch."
            yield finding("content-live-before-switch", module, name, message, mend)


def databases(subject: Subject) -> Iterator[Finding]:
    """What changes live databases while idle is tested."""
    for name, module in subject.descriptor.modules.items():
        tasks = module.get("parameters", "tasks")
        if module.string("type") in _DEPLOYERS:
            what, place = f"{name} deploys its artifacts", module
        elif tasks is not None and tasks.data:
            what, place = f"The tasks of {name} run", tasks
        else:
            continue
        message = f"{what} while idle is tested, in the database of the live version; an abort does not take it back."
        mend = "Change the schema only in ways that the old version can live with: add first, remove one version later."
        yield finding("database-in-idle-phase", place, name, message, mend)


def destinations(subject: Subject) -> Iterator[Finding]:
    """Application routers whose tests reach the live version by way of the destination service."""
    filled = set()
    for consumer in subject.provided.consumers():
        if any(link.provider and link.provider.is_module for link in consumer.links):
            filled |= set(_destinations(subject, consumer))
    for name in subject.descriptor.approuters(subject.named):
        for wanted, requirement in required(subject.descriptor.modules[name]).items():
            if wanted in filled:
                message = f"While idle is tested, {name} finds the live version by the destinations of {wanted}."
                mend = "Test the idle version by requiring its property with group: destinations, or by its own route."
                yield finding("idle-tests-live", requirement, name, message, mend)


def skipped_updates(subject: Subject) -> Iterator[Finding]:
    """Services that never get the URLs that they are configured with."""
    for consumer in subject.provided.consumers():
        flag = consumer.owner.get("parameters", "skip-service-updates", "parameters")
        if consumer.kind == SERVICE_KIND and flag is not None and flag.data is True and consumer.links:
            message = (
                f"{consumer.name} skips updates of its parameters: an existing instance keeps the URLs that it has."
            )
            mend = "Leave skip-service-updates out until the instance has its live URLs."
            yield finding("service-update-skipped", flag, consumer.name, message, mend)


def _count(subject: Subject, value: Value | None) -> object:
    """How many instances, as far as it is known here."""
    match = PLACEHOLDER.fullmatch(value.text) if value else None
    value = subject.descriptor.root.get("parameters", match[1]) if match else value
    return value.data if value else None


def _targets(subject: Subject, module: Value, services: tuple[str, ...]) -> Iterator[str]:
    """The services to which a content module is deployed."""
    for name, requirement in required(module).items():
        flag, resource = requirement.get("parameters", "content-target"), subject.descriptor.resources.get(name)
        service = resource.get("parameters", "service") if resource else None
        if flag is not None and flag.data is True and service is not None and service.text in services:
            yield name


def _destinations(subject: Subject, consumer: Consumer) -> Iterator[str]:
    """The destination services that a consumer fills."""
    service = consumer.owner.get("parameters", "service")
    if consumer.kind == CONTENT_KIND:
        yield from _targets(subject, consumer.owner, ("destination",))
    elif consumer.kind == SERVICE_KIND and service is not None and service.text == "destination":
        yield consumer.name
