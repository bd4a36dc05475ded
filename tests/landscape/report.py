# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the demo found, for a machine and for a person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .checker import Verdict

_BAR = 40


@dataclass
class Outcome:
    """All that the demo measured.

    :param rows: of the tenant, in all databases.
    :param load: the load generator's summary.
    :param windows: of the migration's journal.
    :param plan: as the playbook ``plan`` wrote it.
    """

    rows: int
    load: dict[str, Any]
    verdict: Verdict
    windows: list[dict[str, Any]]
    plan: dict[str, Any]
    versions: dict[str, str]

    def window(self, direction: str) -> dict[str, Any]:
        """The last window of a direction.

        :raises LookupError: there was none.
        """
        found = [window for window in self.windows if window["direction"] == direction]
        if not found:
            raise LookupError(f"The journal has no {direction} window.")
        return found[-1]

    @property
    def failures(self) -> dict[str, int]:
        """Every count that must be 0."""
        verdict = self.verdict
        return {
            "failed_requests": self.load["failed"],
            "lost_writes": verdict.lost_writes,
            "doubled_writes": verdict.doubled_writes,
            "wrong_tenant": verdict.wrong_tenant,
            "bystander_failed": self.load["bystander_failed"] + verdict.bystander_changed,
            "damaged_rows": verdict.damaged_rows,
        }

    @property
    def ok(self) -> bool:
        return not any(self.failures.values())

    def as_dict(self) -> dict[str, Any]:
        forward, reverse = self.window("forward"), self.window("reverse")
        return {
            "ok": self.ok,
            "requests": self.load["requests"],
            **self.failures,
            "held_requests": self.load["held_requests"],
            "max_held_ms": self.load["max_held_ms"],
            "window_ms": forward["window_ms"],
            "predicted_window_ms": forward["predicted_window_ms"],
            "reverse_window_ms": reverse["window_ms"],
            "predicted_reverse_window_ms": reverse["predicted_window_ms"],
            "timeline": forward["timeline"],
            "reverse_timeline": reverse["timeline"],
            "rows": self.rows,
            "databases": [self._database(database) for database in self.plan["databases"]],
            "versions": self.versions,
            "load": self.load,
            "checker": self.verdict.as_dict(),
        }

    @staticmethod
    def _database(database: dict[str, Any]) -> dict[str, Any]:
        tables = {
            table["table"]: {key: table[key] for key in ("strategy", "rows", "why")} for table in database["tables"]
        }
        rows = sum(table["rows"] for table in tables.values() if table["strategy"] != "ignore")
        return {
            "name": database["participant"],
            "kind": database["kind"],
            "version": database["version"],
            "rows": rows,
            "tables": tables,
        }


def summary(outcome: Outcome) -> str:
    """The result in plain words."""
    load, forward, reverse = outcome.load, outcome.window("forward"), outcome.window("reverse")
    failures, failed = outcome.failures, sum(outcome.failures.values())
    lines = [
        "",
        (
            f"A tenant with {outcome.rows:,} rows got a new id and then its old one back, while {load['requests']:,}"
            f" requests came in ({load['rate']:g}/s)."
        ),
        (
            "Nobody noticed."
            if not failed
            else "THIS WENT WRONG: "
            + ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in failures.items() if count)
        ),
        "",
        (
            f"  failed requests        {failures['failed_requests']:>8,}   of {load['requests']:,},"
            f" {load['bystander_requests']:,} of them of another tenant"
        ),
        (
            f"  writes lost, doubled   {failures['lost_writes']:>5,}, {failures['doubled_writes']}   of"
            f" {outcome.verdict.acknowledged:,} acknowledged ones"
        ),
        f"  rows under a wrong id  {failures['wrong_tenant']:>8,}",
        (
            f"  requests that waited   {load['held_requests']:>8,}   at most {load['max_held_ms']:,.0f} ms; the others"
            f" took {load['p50_ms']:g} ms, 99 % of them under {load['p99_ms']:g} ms"
        ),
        "",
        *_window("The switch", forward),
        "",
        *_window("The way back", reverse),
        "",
        *[_tables(outcome._database(database)) for database in outcome.plan["databases"]],
        "",
        *[f"  ! {finding}" for finding in outcome.verdict.findings],
        *[f"  ! {failure['credential']}: {failure['request']}: {failure['what']}" for failure in load["failures"][:10]],
    ]
    return "\n".join(lines)


def _window(title: str, window: dict[str, Any]) -> list[str]:
    """One line per step, with a bar that shows when in the window it was done."""
    total = max(window["window_ms"], 1)
    lines = [
        f"  {title}: new requests of the tenant waited for {window['window_ms']:,} ms (predicted:"
        f" {window['predicted_window_ms']:,} ms)"
    ]
    for entry in window["timeline"]:
        start = min(_BAR - 1, round(entry["at_ms"] / total * _BAR))
        length = max(1, min(_BAR - start, round(entry["ms"] / total * _BAR)))
        band = f"{' ' * start}{'█' * length}".ljust(_BAR)
        lines.append(f"    {entry['step'].replace('_', ' '):<18} {band} {entry['ms']:>7,.0f} ms")
    return lines


def _tables(database: dict[str, Any]) -> str:
    by_strategy: dict[str, list[str]] = {}
    for table, facts in database["tables"].items():
        by_strategy.setdefault(facts["strategy"], []).append(table)
    chosen = "; ".join(
        f"{strategy}: {', '.join(tables)}" for strategy, tables in sorted(by_strategy.items(), reverse=True)
    )
    return f"  {database['name']} ({database['kind']} {database['version']}, {database['rows']:,} rows): {chosen}"
