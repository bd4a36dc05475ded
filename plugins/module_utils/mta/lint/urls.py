# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""URLs that die or change with the switch, where they are written once; and modules that call the wrong version."""

from __future__ import annotations

from collections.abc import Iterator

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.edit import Edits
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.live import LIVE, PLACEHOLDER
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.plans import LivePlans, Task
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.references import (
    SERVICE_KIND,
    USE_LIVE_ROUTES,
    Consumer,
    Link,
    Provider,
    Wrong,
    check_link,
    place,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Value
from ansible_collections.zdm.landscape.plugins.module_utils.mta.lint.findings import Finding, Subject, finding


def once(subject: Subject) -> Iterator[Finding]:
    """Services, bindings and content that get a URL which dies at the end of the testing phase."""
    plans = LivePlans(subject.provided, Edits(subject.descriptor.root))
    can = {task.key: _can(plans, task) for task in plans.tasks()}
    for consumer in subject.provided.consumers():
        rule = f"idle-url-in-{consumer.kind}"
        for link in consumer.links:
            yield from _reference(link, consumer.name)
            target, provider = link.target, link.provider
            wrongs = subject.provided.wrong_in(target, provider) if target is not None and provider else []
            if target is not None and provider is not None:
                fixable = can[place(link.value), link.written]
                for wrong in wrongs:
                    yield from _wrong(subject, consumer, link, target, provider, wrong, fixable)
        for value in consumer.strings:
            for wrong in subject.provided.own_wrong(value, consumer):
                message, mend = _own_text(consumer, wrong)
                yield finding(rule, value, consumer.name, message, mend, can[place(value), wrong.placeholder])


def applications(subject: Subject) -> Iterator[Finding]:
    """Modules that call the live version while they are tested."""
    provided = subject.provided
    for name, link in provided.module_links():
        yield from _reference(link, name)
        target, provider = link.target, link.provider
        for string in target.strings() if target is not None and provider is not None else ():
            text = provided.urls(provider).expand(string.text) if provider else ""
            live = [match[0] for match in PLACEHOLDER.finditer(text) if LIVE.fullmatch(match[1])]
            if provider and provider.uses_live_routes and "${routes/" in text:
                live.append("a live route")
            if live:
                message = (
                    f"The module {name} uses {link.written}, which is {live[0]}: while it is tested it calls the live"
                    " version."
                )
                mend = "Refer to a property with ${default-url} or ${default-uri}."
                yield finding("idle-calls-live", link.value, name, message, mend)


def old_schema(subject: Subject) -> Iterator[Finding]:
    """Services that are configured with references which nobody resolves: before schema version 3 resources require
    nothing.
    """
    for consumer in subject.provided.consumers() if subject.descriptor.major < 3 else ():
        for link in consumer.links[:1] if consumer.kind == SERVICE_KIND else ():
            message = f"{consumer.title} with the text {link.written}: references in resources need schema version 3."
            yield finding(
                "reference-not-resolved", link.value, consumer.name, message, "Raise _schema-version to 3.1 or more."
            )


def _can(plans: LivePlans, task: Task) -> bool:
    """Whether ``mta_descriptor`` can mend this: it is tried."""
    back = plans.offers.checkpoint()
    try:
        task()
    except ZdmError:
        return False
    finally:
        back()
    return True


def _reference(link: Link, owner: str) -> Iterator[Finding]:
    try:
        check_link(link, owner)
    except InputError as error:
        message = error.message.removeprefix(f"{link.value.place}: ")
        yield finding("unknown-reference", link.value, owner, message, error.advice)


def _own_text(consumer: Consumer, wrong: Wrong) -> tuple[str, str]:
    """Message and mend of a placeholder that is written where it is used."""
    if consumer.kind == SERVICE_KIND:
        return (
            f"{consumer.title} with {wrong.placeholder}, a URL of a module: a resource has none, and the deployment"
            " stops.",
            "Refer to a property that the module provides, with its live URL.",
        )
    message = f"{consumer.title} with {wrong.placeholder}, an idle URL while a deployment is tested."
    return message, f"Write {wrong.live}." if wrong.live else "Refer to a property with the live URL."


def _wrong(
    subject: Subject, consumer: Consumer, link: Link, target: Value, provider: Provider, wrong: Wrong, fixable: bool
) -> Iterator[Finding]:
    where = f"{link.name}/{link.path}"
    if wrong.kind == "live":
        message = (
            f"{where} is {wrong.placeholder}, which ignores the module's own host or routes. {consumer.title} with it."
        )
        mend = f"Write {wrong.live or 'the live URL'}."
        yield finding("live-url-ignores-host", target, link.name, message, mend, fixable)
    elif wrong.kind == "routes":
        message = (
            f"{where} is a route of the module without {USE_LIVE_ROUTES}: an idle route while a deployment is tested."
            f" {consumer.title} with it."
        )
        mend = f"Set {USE_LIVE_ROUTES}: true in the parameters of {link.name}."
        yield finding("live-routes-not-used", target, link.name, message, mend, fixable)
    else:
        what = "the idle name" if wrong.placeholder == "${app-name}" else "an idle URL"
        message = (
            f"{consumer.title} with {link.written}, which is {wrong.placeholder}: {what} while a deployment is tested."
        )
        mend = "Refer to a property with the live URL."
        yield finding(f"idle-url-in-{consumer.kind}", link.value, consumer.name, message, mend, fixable)
        if provider.is_module and not _offers_live(subject, provider):
            message = f"{where} is used by {consumer.user}, and {link.name} provides no live URL."
            mend = f"Add a property with {wrong.live or 'the live URL'} beside it."
            yield finding("live-property-missing", target, link.name, message, mend, fixable)


def _offers_live(subject: Subject, provider: Provider) -> bool:
    properties, urls = provider.properties, subject.provided.urls(provider)
    texts = [urls.expand(string.text) for string in properties.strings()] if properties else []
    return any("${default-live-" in text or ("${routes/" in text and provider.uses_live_routes) for text in texts)
