# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Subscriptions that the SaaS registry or the subscription manager gives up while a tenant is upgraded."""

from __future__ import annotations

from collections.abc import Iterator

from ansible_collections.zdm.landscape.plugins.module_utils.core.durations import format_ms
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.callbacks import Callbacks, callbacks
from ansible_collections.zdm.landscape.plugins.module_utils.mta.lint.findings import Finding, Subject, finding


def subscriptions(subject: Subject) -> Iterator[Finding]:
    """Callbacks that wait on one connection, and times that are too short."""
    for found in callbacks(subject.descriptor):
        for flag in found.flags:
            if flag.value is None or flag.value.data is not True:
                message = f"{flag.callback} of {found.name} is not asynchronous: one connection waits for its answer."
                mend = f"Set {flag.key}: true if the application answers asynchronously."
                yield finding("callback-not-async", flag.value or found.urls, found.name, message, mend)
        yield from _time(subject, found)


def _time(subject: Subject, found: Callbacks) -> Iterator[Finding]:
    waits, longest = found.waits_ms(subject.descriptor), subject.longest_upgrade_ms
    value, key = found.timeout or found.urls, ".".join(filter(None, (found.group, found.timeout_key)))
    mend = f"Set {key}: {longest}." if longest else f"Set {key} to more than the longest upgrade takes."
    if waits == 0:
        message = f"{found.name} does not say how long an answer to a callback may take."
        yield finding("callback-timeout-missing", value, found.name, message, mend, bool(longest))
    elif waits is not None and waits < longest:
        message = (
            f"An answer to a callback of {found.name} may take {format_ms(waits)}, the longest upgrade takes"
            f" {format_ms(longest)}."
        )
        yield finding("callback-timeout-short", value, found.name, message, mend, True)
