# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings of the lint, and the table of its rules."""

from __future__ import annotations

from dataclasses import dataclass, field

from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.references import Providers
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Value

ERROR, WARNING, HINT = "error", "warning", "hint"
RULES = {
    "unknown-reference": ERROR,
    "reference-not-resolved": WARNING,
    "idle-url-in-service": ERROR,
    "idle-url-in-content": ERROR,
    "idle-url-in-binding": ERROR,
    "live-property-missing": ERROR,
    "live-url-ignores-host": ERROR,
    "live-routes-not-used": ERROR,
    "idle-calls-live": WARNING,
    "service-update-skipped": WARNING,
    "comment-in-value": ERROR,
    "tab-not-read": WARNING,
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
    "hook-phase-unknown": ERROR,
    "hook-never-runs": WARNING,
    "hook-not-in-blue-green": WARNING,
    "resume-loses-requests": HINT,
    "stop-order-not-set": HINT,
    "single-instance": HINT,
    "content-live-before-switch": HINT,
    "database-in-idle-phase": HINT,
    "idle-tests-live": HINT,
}
"""The rules and how severe they are; docs/descriptor.md describes them."""
ALONE = frozenset(
    {
        "idle-url-in-service",
        "idle-url-in-content",
        "idle-url-in-binding",
        "comment-in-value",
        "tab-not-read",
        "session-not-json",
        "session-key-missing",
        "session-value-wrong",
        "session-key-crashes",
        "session-secret-short",
        "callback-timeout-short",
        "hook-phase-unknown",
        "hook-not-in-blue-green",
        "hook-never-runs",
    }
)
"""Rules that hold for an extension without the descriptor that it extends."""


@dataclass(frozen=True)
class Finding:
    """One violation of a rule.

    :ivar rule: a key of :data:`RULES`.
    :ivar severity: ``error`` breaks requests, sessions or subscriptions; ``warning`` may; ``hint`` names what a
        descriptor can't mend, and what to do about it in the deployment.
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


@dataclass(frozen=True)
class Subject:
    """What is linted, and what the caller knows about it.

    :ivar longest_upgrade_ms: how long the longest upgrade of a tenant takes; 0 when that is unknown.
    :ivar namespace: namespace of the deployment.
    :ivar named: modules that are application routers although nothing tells so.
    """

    descriptor: Descriptor
    longest_upgrade_ms: int
    namespace: str
    named: tuple[str, ...]
    provided: Providers = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "provided", Providers(self.descriptor, self.namespace))


def finding(rule: str, value: Value, owner: str, message: str, mend: str, fixable: bool = False) -> Finding:
    """A finding at the place of a value."""
    return Finding(rule, RULES[rule], value.source.name, value.line, value.column, owner, message, mend, fixable)
