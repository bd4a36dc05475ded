# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the demo of a deployment found, for a machine and for a person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .controller import ABORTED, FINISHED, RUNNING, TESTING
from .incidents import OLD
from .platform import TENANTS

FIRST, NEXT, BAD = OLD, "2.0.0", "3.0.0"
STATES = {FIRST: [RUNNING, FINISHED], NEXT: [RUNNING, TESTING, RUNNING, FINISHED], BAD: [RUNNING, TESTING, ABORTED]}
"""The states of each version's operation, when all goes well."""
_WHAT = {
    FIRST: "first deployment",
    NEXT: "tested idle, tenants upgraded, made live",
    BAD: "smoke test red: aborted, live untouched",
}
_EXAMPLES = 10


@dataclass
class Outcome:
    """All that the demo measured.

    :param failures: one text for each request that failed.
    :param sessions: how many users worked.
    :param answered: requests by the version that answered them.
    :param upgraded: the tenants that have the new schema.
    :param states: of the operations, by version.
    :param seconds: of the playbook, by version.
    """

    requests: int
    failures: list[str]
    lost_sessions: int
    sessions: int
    slowest_ms: float
    answered: dict[str, int]
    upgraded: list[str]
    states: dict[str, list[str]]
    seconds: dict[str, float]
    versions: dict[str, str]

    @property
    def problems(self) -> list[str]:
        """What is not as it should be, in plain words."""
        found = []
        if self.failures:
            found.append(f"{len(self.failures)} requests failed")
        if self.lost_sessions:
            found.append(f"sessions were lost {self.lost_sessions} times")
        if set(self.answered) != {FIRST, NEXT}:
            found.append(
                f"requests were answered by {', '.join(sorted(self.answered)) or 'nobody'}, not by {FIRST} and {NEXT}"
            )
        if self.upgraded != list(TENANTS):
            found.append(f"upgraded tenants are {', '.join(self.upgraded) or 'none'}, not {', '.join(TENANTS)}")
        for version, states in STATES.items():
            got = self.states.get(version, [])
            if got != states:
                found.append(f"the operation of {version} was {_arrows(got) or 'not started'}, not {_arrows(states)}")
        return found

    @property
    def ok(self) -> bool:
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "requests": self.requests,
            "failed_requests": len(self.failures),
            "lost_sessions": self.lost_sessions,
            "tenants_upgraded": len(self.upgraded),
            "operation_states": self.states,
            "sessions": self.sessions,
            "tenants": self.upgraded,
            "requests_per_version": self.answered,
            "slowest_request_ms": self.slowest_ms,
            "seconds": self.seconds,
            "problems": self.problems,
            "failures": self.failures[:_EXAMPLES],
            "versions": self.versions,
        }


def summary(outcome: Outcome) -> str:
    """The result in plain words."""
    by_version = ", ".join(f"{count:,} by {version}" for version, count in sorted(outcome.answered.items()))
    lines = [
        "",
        (
            f"Version {NEXT} replaced {FIRST}, and {BAD} was turned away, while {outcome.sessions} users worked."
            f" {'Nobody noticed.' if outcome.ok else 'THIS WENT WRONG: ' + '; '.join(outcome.problems)}"
        ),
        "",
        (
            f"  failed requests   {len(outcome.failures):>6,}   of {outcome.requests:,}; the slowest took"
            f" {outcome.slowest_ms:,.0f} ms"
        ),
        (
            f"  lost sessions     {outcome.lost_sessions:>6,}   of {outcome.sessions}; reads, and changes with the CSRF"
            " token of before"
        ),
        f"  tenants upgraded  {len(outcome.upgraded):>6,}   of {len(TENANTS)}",
        f"  answered          {by_version}",
        "",
        *[
            f"  {version}  {outcome.seconds.get(version, 0.0):>5.1f} s  {_arrows(states)}  ({_WHAT.get(version, '')})"
            for version, states in outcome.states.items()
        ],
        "",
        *[f"  ! {failure}" for failure in outcome.failures[:_EXAMPLES]],
    ]
    return "\n".join(lines)


def _arrows(states: list[str]) -> str:
    return " → ".join(states)
