# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What in a descriptor will hurt in a blue-green deployment: findings with their place and their mend."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.tenant_routes import (
    KEEP_ROUTES,
    keeps_routes,
    routes_of_tenants,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Value
from ansible_collections.zdm.landscape.plugins.module_utils.mta.lint import callbacks, hooks, session, switch, urls
from ansible_collections.zdm.landscape.plugins.module_utils.mta.lint.findings import (
    ALONE,
    RULES,
    Finding,
    Subject,
    finding,
)

_SLASHES = re.compile(r"\S+\s+//(?:\s.*)?", re.DOTALL)
_AS_IT_IS = re.compile(r"(?:^|[/\\])mtad[^/\\]*$|\.mtaext$")
"""Names of files that the deploy service reads itself."""
_FOR_PEOPLE = re.compile(r"(?i)(?:description|title|text|displayname)$")


def lint(
    descriptor: Descriptor,
    longest_upgrade_ms: int = 0,
    namespace: str = "",
    ignore: Sequence[str] = (),
    approuters: Sequence[str] = (),
) -> list[Finding]:
    """All findings of a descriptor, by file and line.

    :param descriptor: with its extensions laid over it (:meth:`Descriptor.extended`), or an extension alone, for which
        only the rules hold that need nothing else.
    :param longest_upgrade_ms: how long the longest upgrade of a tenant takes; 0 when that is unknown.
    :param namespace: namespace of the deployment, which becomes part of the names of services.
    :param ignore: rules that are not applied.
    :param approuters: modules that are application routers although nothing tells so.
    :raises InputError: a rule to ignore or a module that does not exist.
    """
    unknown = [rule for rule in ignore if rule not in RULES]
    if unknown:
        raise InputError(f"There is no rule {unknown[0]}.", f"There are {', '.join(RULES)}.")
    descriptor.check_modules("approuters", approuters)
    subject = Subject(descriptor, longest_upgrade_ms, namespace, tuple(approuters))
    kept = {rule for rule in RULES if rule not in ignore and (not descriptor.extends or rule in ALONE)}
    found = {one: None for part in _PARTS for one in part(subject) if one.rule in kept}
    return sorted(found, key=lambda one: (one.file, one.line, one.column, one.rule))


def _comments(subject: Subject) -> Iterator[Finding]:
    """Comments with slashes, which YAML takes for a part of the value."""
    for value in _words(subject.descriptor.root):
        if value.style is None and _SLASHES.fullmatch(value.text):
            message = "// begins no comment in YAML: what follows is a part of the value."
            yield finding("comment-in-value", value, value.text.split()[0], message, "Write # in place of //.")


def _tabs(subject: Subject) -> Iterator[Finding]:
    """Tabs in files that get to the deploy service as they are: the builder of archives writes others anew."""
    for tab in subject.descriptor.root.tabs:
        if _AS_IT_IS.search(tab.source.name):
            message = "The deploy service reads no tab here: the deployment stops."
            yield finding("tab-not-read", tab, subject.descriptor.id, message, "Write spaces.")


def _words(value: Value) -> Iterator[Value]:
    """Strings that are no texts for people."""
    if value.text:
        yield value
    inner = [entry.value for key, entry in value.mapping.items() if not _FOR_PEOPLE.search(key)]
    for child in [*value.items, *inner]:
        yield from _words(child)


def _routes(subject: Subject) -> Iterator[Finding]:
    for name in routes_of_tenants(subject.descriptor, subject.named):
        module = subject.descriptor.modules[name]
        if not keeps_routes(subject.descriptor, module):
            value = module.get("parameters", KEEP_ROUTES) or module
            message = f"The routes of the tenants to {name} are deleted with the live application."
            mend = f"Set {KEEP_ROUTES}: true in its parameters."
            yield finding("tenant-routes-not-kept", value, name, message, mend, True)


_PARTS = (
    urls.once,
    urls.applications,
    urls.old_schema,
    _comments,
    _tabs,
    _routes,
    session.sessions,
    callbacks.subscriptions,
    hooks.hooks,
    switch.resume,
    switch.instances,
    switch.content,
    switch.databases,
    switch.destinations,
    switch.skipped_updates,
)
