# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast a stage, its removal and finalize may be: rows per second, the lag of replicas, the answer time of the
services.

The limits of the policy hold until the config store has a document ``throttles/<migration>``. It is nobody's but the
operator's, so that a change never meets a compare-and-set of the journal, and is read while the stage runs, at most
once a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.durations import NO_LIMIT, format_ms, parse_ms
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import check_format
from ansible_collections.zdm.landscape.plugins.module_utils.migration.preflight import Finding
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    APPLY,
    COMPARE,
    COPY,
    PURGE,
    Participant,
)
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import THROTTLES, Store

ROWS, LAG, LATENCY = "rows_per_second", "replica_lag", "latency"
TICK_S = 0.1
"""A wait is this long at most, so that signals and changed limits are noticed."""
SAMPLE_S = 1.0
_SHORTEST_S = 0.001

Clock = Callable[[], float]


@dataclass(frozen=True)
class Limits:
    """0 is no limit."""

    rows_per_second: int = 0
    max_replica_lag_ms: int = 0
    max_latency_ms: int = 0

    @classmethod
    def of(cls, options: Mapping[str, Any], what: str, default: Limits | None = None) -> Limits:
        """Limits as people write them; what is not given, or empty, is as *default* says.

        :param what: where they stand, for the error.
        :raises InputError: an unknown limit, no number, or no duration.
        """
        known = (ROWS, "max_replica_lag", "max_latency")
        options = {name: value for name, value in options.items() if name != "format"}
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise InputError(f"{what} has the unknown limit {unknown[0]!r}.", f"The limits are {', '.join(known)}.")
        default = default or cls()
        return cls(
            _number(options.get(ROWS), f"{what}.{ROWS}", default.rows_per_second),
            _duration(options.get("max_replica_lag"), f"{what}.max_replica_lag", default.max_replica_lag_ms),
            _duration(options.get("max_latency"), f"{what}.max_latency", default.max_latency_ms),
        )

    def as_dict(self) -> dict[str, Any]:
        """The limits that there are, as people write them."""
        result: dict[str, Any] = {ROWS: self.rows_per_second} if self.rows_per_second else {}
        durations = {"max_replica_lag": self.max_replica_lag_ms, "max_latency": self.max_latency_ms}
        return {**result, **{name: format_ms(value) for name, value in durations.items() if value}}


def _number(value: Any, what: str, default: int) -> int:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(f"{what} {value!r} is not a number of rows.", "Write a whole number; 0 is no limit.")
    return value


def _duration(value: Any, what: str, default: int) -> int:
    return default if value is None else 0 if value == NO_LIMIT else parse_ms(value, what)


class RowRate:
    """Whenever :meth:`seconds_left` says 0, the rows so far are not more than what the limit allowed for the time so
    far.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._debt = 0.0
        self._since = clock()

    def pay(self, rows: int) -> None:
        """Rows were copied."""
        self._debt += rows

    def seconds_left(self, limit: int) -> float:
        """How long the next chunk must wait under *limit*. The time since the last call counts as time under this
        limit.
        """
        now = self._clock()
        self._debt = max(0.0, self._debt - limit * (now - self._since)) if limit else 0.0
        self._since = now
        return self._debt / limit if limit else 0.0


class Sampled:
    """A figure that is measured at most once a second; ``None`` while it can't be measured."""

    def __init__(self, measure: Callable[[], float | None], clock: Clock) -> None:
        self._measure, self._clock = measure, clock
        self._at = -SAMPLE_S
        self._value: float | None = None

    def value(self) -> float | None:
        if self._clock() - self._at >= SAMPLE_S:
            self._value = self._measure()
            self._at = self._clock()
        return self._value


class Throttle:
    """Lets the next chunk begin when all limits allow it.

    :param policy: the limits without a document in the store.
    :param latency: the slowest answer of the health endpoints in ms; ``None`` without endpoints.
    :param tell: gets new limits and warnings, each once.
    """

    def __init__(
        self,
        policy: Limits,
        store: Store,
        migration: str,
        latency: Callable[[], float | None],
        tell: Callable[[dict[str, Any]], object],
        clock: Clock = time.monotonic,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self.limits = policy
        self.reasons: tuple[str, ...] = ()
        """Which limits the last chunk waits, or waited, for."""
        self._policy, self._store, self._migration, self._tell = policy, store, migration, tell
        self._clock, self._pause = clock, pause or Event().wait
        self._rate = RowRate(clock)
        self._told: set[str] = set()
        self._told_limits = Limits()
        self._rows: dict[tuple[str, str], int] = {}
        self._read_at = -SAMPLE_S
        self._latency = Sampled(latency, clock)
        self._lags: dict[str, Sampled] = {}

    def wait(self, participant: Participant, entry: Mapping[str, Any], between: Callable[[], None]) -> None:
        """Wait until the next chunk may begin; nothing for entries of other steps.

        :param between: called before every short wait; what it raises ends the wait.
        """
        if entry.get("step") not in (COPY, PURGE, APPLY, COMPARE):
            return
        if entry["step"] != COMPARE:  # reading costs the services their time, but no row is written
            self._rate.pay(self._new_rows(entry))
        while True:
            self._read_limits()
            left = self._rate.seconds_left(self.limits.rows_per_second)
            self.reasons = tuple(self._reasons(participant, left))
            if not self.reasons:
                return
            between()
            only_rate = self.reasons == (ROWS,)
            self._pause(min(TICK_S, max(left, _SHORTEST_S)) if only_rate else TICK_S)

    def _new_rows(self, entry: Mapping[str, Any]) -> int:
        table, rows = (str(entry["participant"]), str(entry.get("table", ""))), int(entry["rows"])
        before, self._rows[table] = self._rows.get(table, 0), rows
        return max(0, rows - before)

    def _reasons(self, participant: Participant, left: float) -> Iterator[str]:
        limits = self.limits
        if left > 0:
            yield ROWS
        if limits.max_replica_lag_ms and (self._lag_of(participant) or 0) > limits.max_replica_lag_ms:
            yield LAG
        if limits.max_latency_ms:
            slowest = self._latency.value()
            if slowest is None:
                self._warn(
                    f"max_latency is set for {self._migration}, but there is no health endpoint: it has no effect."
                )
            elif slowest > limits.max_latency_ms:
                yield LATENCY

    def _lag_of(self, participant: Participant) -> float | None:
        if not participant.knows_replica_lag:
            self._warn(f"{participant.name} can't tell the lag of replicas: max_replica_lag has no effect on it.")
            return None

        def measure() -> float | None:
            try:
                return participant.replica_lag_ms()
            except ZdmError as error:
                self._warn(f"{error} Until then max_replica_lag has no effect on {participant.name}.")
                return None

        return self._lags.setdefault(participant.name, Sampled(measure, self._clock)).value()

    def _read_limits(self) -> None:
        if self._clock() - self._read_at < SAMPLE_S:
            return
        self._read_at = self._clock()
        try:
            document = self._store.get(THROTTLES, self._migration)
            check_format(document)
            limits = Limits.of(document.body, document.path, self._policy) if document else self._policy
        except ZdmError as error:
            self._warn(f"{error} The limits stay as they are.")
            return
        self.limits = limits
        if limits != self._told_limits:
            self._told_limits = limits
            self._tell(
                {
                    "step": "limits",
                    "limits": limits.as_dict(),
                    "source": f"config store ({document.path})" if document else "policy",
                }
            )

    def _warn(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            self._tell({"step": "warning", "message": message})


def measurable(limits: Limits, participants: Sequence[Participant], has_endpoints: bool) -> Iterator[Finding]:
    """Whether the limits of the policy can have an effect: one that silently has none is a mistake."""
    if limits.max_latency_ms and not has_endpoints:
        message = "max_latency is set, and there is no health endpoint whose answers could be timed."
        yield Finding(
            "throttle", False, "policy.throttle.max_latency", message, "Name health endpoints, or leave it out."
        )
    if not limits.max_replica_lag_ms:
        return
    able = [participant for participant in participants if participant.knows_replica_lag]
    if not able:
        message = "max_replica_lag is set, and no participant can tell the lag of its replicas."
        yield Finding(
            "throttle", False, "policy.throttle.max_replica_lag", message, "Use rows_per_second or max_latency instead."
        )
    for participant in able:
        try:
            lag = participant.replica_lag_ms()
        except ZdmError as error:
            yield Finding("throttle", False, participant.name, error.message, error.advice)
            continue
        yield Finding(
            "throttle",
            True,
            participant.name,
            f"{participant.name} has {'no replica' if lag is None else f'replicas, at most {lag:.0f} ms late'}.",
        )


def lift(store: Store, migration: str) -> None:
    """Remove the operator's limits together with the migration's stage."""
    document = store.get(THROTTLES, migration)
    if document:
        store.delete(THROTTLES, migration, document.revision)
