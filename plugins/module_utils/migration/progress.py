# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The progress of a stage and of its removal in rows, rate and time left, and how lines of the audit log are shown to a
person.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import OutcomeUnknown, Timeout, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.migration.audit import AuditLog
from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import Journal
from ansible_collections.zdm.landscape.plugins.module_utils.migration.plan import Plan
from ansible_collections.zdm.landscape.plugins.module_utils.migration.throttle import Throttle
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    APPLY,
    COMPARE,
    COMPARED,
    COPY,
    PURGE,
    TWIN,
)

EVERY_S = 2.0
"""A table that is being copied or purged is told about no more often."""
RATE_S = 30.0
"""The rate is that of the last so many seconds: limits change while a stage runs."""

_ENDED = {COPY: "copied", PURGE: "purged"}
Table = tuple[str, str]
Clock = Callable[[], float]


class Meter:
    """Counts what participants say between two chunks. All figures are of this run: what an earlier one had copied
    makes it end sooner.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._expected: dict[Table, int] = {}
        self._rows: dict[Table, int] = {}
        self._current: Table | None = None
        self._step = COPY
        self._began = self._told = clock()
        self._samples: deque[tuple[float, int]] = deque([(self._told, 0)])
        self._throttled: set[str] = set()

    def expect(self, plan: Plan) -> None:
        """Learn how many rows there are to copy; nothing is known before."""
        self._expected = {
            (inspection.participant, table.table): table.rows
            for inspection in plan.inspections
            for table in inspection.tables
            if table.strategy == TWIN
        }
        self._began = self._told = self._clock()
        self._samples = deque([(self._told, 0)])

    def facts(self, entry: Mapping[str, Any], throttled: Sequence[str] = ()) -> list[dict[str, Any]]:
        """What is worth telling after *entry*: every table at its end, the one that is at work every few seconds."""
        if entry.get("step") not in _ENDED:
            return [*self._end_of_table(), *([] if self._is_soon(entry) else [dict(entry)])]
        table = (str(entry["participant"]), str(entry["table"]))
        ended = [] if table == self._current else self._end_of_table()
        now = self._clock()
        if self._current is None:
            self._current, self._began = table, now
        self._step = entry["step"]
        self._rows[table] = int(entry["rows"])
        self._expected.setdefault(table, int(entry.get("of") or 0))
        self._sample(now)
        self._throttled.update(throttled)
        if now - self._told < EVERY_S:
            return ended
        self._told = now
        throttled, self._throttled = sorted(self._throttled), set()
        return [*ended, {**entry, **self._figures(table), "throttled": throttled}]

    def _is_soon(self, entry: Mapping[str, Any]) -> bool:
        """Whether it is too early to tell again how many keys were applied, or rows compared."""
        if entry.get("step") not in (APPLY, COMPARE):
            return False
        soon = self._clock() - self._told < EVERY_S
        self._told = self._told if soon else self._clock()
        return soon

    def _end_of_table(self) -> list[dict[str, Any]]:
        if self._current is None:
            return []
        table, self._current = self._current, None
        self._expected[table] = self._rows[table]
        seconds = round(self._clock() - self._began, 1)
        return [
            {
                "participant": table[0],
                "table": table[1],
                "step": _ENDED[self._step],
                "rows": self._rows[table],
                "seconds": seconds,
            }
        ]

    def _sample(self, now: float) -> None:
        self._samples.append((now, sum(self._rows.values())))
        while len(self._samples) > 2 and now - self._samples[1][0] >= RATE_S:
            self._samples.popleft()

    def _figures(self, table: Table) -> dict[str, Any]:
        (begin, rows_before), (now, rows) = self._samples[0], self._samples[-1]
        rate = (rows - rows_before) / (now - begin) if now > begin else 0.0
        of = max(self._expected.get(table, 0), self._rows[table])
        all_of = sum(max(self._expected.get(key, 0), self._rows.get(key, 0)) for key in {*self._expected, *self._rows})

        def left(of_rows: int, done: int) -> int | None:
            return round((of_rows - done) / rate) if rate else None

        figures = {"of": of, "rows_per_second": round(rate), "seconds_left": left(of, self._rows[table])}
        return {**figures, "all_rows": rows, "all_of": all_of, "all_seconds_left": left(all_of, rows)}


class Reporter:
    """What a participant calls between two chunks: tells the audit log and, for those who ask elsewhere, the journal.

    :param interrupted: asked at every call; true ends the stage, which goes on when the same command runs again.
    """

    def __init__(self, log: AuditLog, journal: Journal, throttle: Throttle, interrupted: Callable[[], bool]) -> None:
        self.meter = Meter()
        self._log, self._journal, self._throttle, self._interrupted = log, journal, throttle, interrupted

    def __call__(self, entry: dict[str, Any]) -> None:
        if self._interrupted():
            raise Timeout(
                f"The work on {self._journal.key} was interrupted.",
                "Run the same command again: it goes on where it was.",
            )
        for fact in self.meter.facts(entry, self._throttle.reasons):
            if fact["step"] in _ENDED:
                fact["limits"] = self._throttle.limits.as_dict()
                with suppress(
                    Unreachable, OutcomeUnknown
                ):  # The next write that matters meets the same error and tells it.
                    self._journal.note(progress=fact)
            self._log.write(fact)


def shown(entry: Mapping[str, Any]) -> str:
    """One line for a person; empty for lines that only the audit log needs."""
    step = entry.get("step")
    if step in _SHOWN:
        return _SHOWN[step](entry)
    return f"{entry['at_ms']:>10,.1f} ms  {step} ({entry['ms']:,.1f} ms)" if "at_ms" in entry else ""


def _copying(entry: Mapping[str, Any]) -> str:
    done = " deleted" if entry["step"] == PURGE else ""
    table = (
        f"{_rows(entry['rows'])} of {_rows(entry['of'])} rows{done}, {_rows(entry['rows_per_second'])}"
        f" rows/s{_left(entry['seconds_left'])}"
    )
    total = f"in all {_rows(entry['all_rows'])} of {_rows(entry['all_of'])}{_left(entry['all_seconds_left'])}"
    throttled = f"; throttled: {', '.join(entry['throttled'])} ({_limits(entry)})" if entry.get("throttled") else ""
    return f"{_table(entry)}: {table}; {total}{throttled}"


def _copied(entry: Mapping[str, Any]) -> str:
    return (
        f"{_table(entry)}: {_rows(entry['rows'])} rows {'copied' if entry['step'] == 'copied' else 'deleted'} in"
        f" {entry['seconds']:,.1f} s"
    )


def _comparing(entry: Mapping[str, Any]) -> str:
    compared = f"{_table(entry)}: {_rows(entry['rows'])} rows compared"
    if "mended" not in entry:
        return compared
    return f"{compared}, copies rewritten that differed (what they were is kept in a helper table): {entry['mended']}"


def _staged(entry: Mapping[str, Any]) -> str:
    return f"{entry['participant']}: staged, {_rows(entry['rows'])} rows copied"


def _applying(entry: Mapping[str, Any]) -> str:
    return f"{entry['participant']}: {_rows(entry['rows'])} logged keys applied"


def _finalized(entry: Mapping[str, Any]) -> str:
    return f"{entry['participant']}: finalized, {_rows(entry['rows'])} rows deleted"


def _new_limits(entry: Mapping[str, Any]) -> str:
    return f"Limits of the {entry['source']}: {_limits(entry)}"


def _warning(entry: Mapping[str, Any]) -> str:
    return f"Warning: {entry['message']}"


def _limits(entry: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in entry["limits"].items()) or "none"


def _table(entry: Mapping[str, Any]) -> str:
    return f"{entry['participant']}.{entry['table']}"


def _rows(value: int) -> str:
    return f"{value:,}"


def _left(seconds: int | None) -> str:
    if seconds is None:
        return ""
    return (
        f", {seconds} s left"
        if seconds < 120
        else f", {seconds // 60} min left"
        if seconds < 7200
        else f", {seconds / 3600:.1f} h left"
    )


_SHOWN: dict[Any, Callable[[Mapping[str, Any]], str]] = {
    COPY: _copying,
    PURGE: _copying,
    "copied": _copied,
    "purged": _copied,
    APPLY: _applying,
    "followed": _applying,
    "finalized": _finalized,
    COMPARE: _comparing,
    COMPARED: _comparing,
    "staged": _staged,
    "limits": _new_limits,
    "warning": _warning,
}
