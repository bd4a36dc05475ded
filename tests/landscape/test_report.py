# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's result: complete for a machine, plain for a person, and no success where something failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.zdm.landscape.tests.landscape.checker import Verdict
from ansible_collections.zdm.landscape.tests.landscape.report import Outcome, summary

WANTED = {
    "requests",
    "failed_requests",
    "held_requests",
    "max_held_ms",
    "lost_writes",
    "doubled_writes",
    "wrong_tenant",
    "bystander_failed",
    "window_ms",
    "predicted_window_ms",
    "reverse_window_ms",
    "timeline",
    "rows",
    "databases",
    "versions",
}
LOAD: dict[str, Any] = {
    "requests": 5000,
    "failed": 0,
    "bystander_requests": 900,
    "bystander_failed": 0,
    "held_requests": 40,
    "max_held_ms": 321.0,
    "rate": 200.5,
    "p50_ms": 4.2,
    "p99_ms": 20.0,
    "failures": [],
}


def window(direction: str, length: int) -> dict[str, Any]:
    timeline = [{"step": "block", "at_ms": 0.0, "ms": 2.0}, {"step": "journal_idle", "at_ms": float(length), "ms": 5.0}]
    return {"direction": direction, "window_ms": length, "predicted_window_ms": 200, "timeline": timeline}


def outcome(load: Mapping[str, Any] | None = None, verdict: Mapping[str, Any] | None = None) -> Outcome:
    table = {"table": "bill", "strategy": "twin", "rows": 100_000, "why": "many rows"}
    plan = {"databases": [{"participant": "bills", "kind": "postgresql", "version": "15.1", "tables": [table]}]}
    windows = [window("forward", 999), window("forward", 250), window("reverse", 0)]
    return Outcome(
        225_000,
        {**LOAD, **(load or {})},
        Verdict(acknowledged=2000, **(verdict or {})),
        windows,
        plan,
        {"python": "3.13"},
    )


def test_the_result_has_every_figure_of_the_last_window() -> None:
    result = outcome().as_dict()
    assert set(result) >= WANTED
    assert result["ok"]
    assert (result["window_ms"], result["reverse_window_ms"]) == (250, 0)
    assert result["databases"][0]["tables"]["bill"]["strategy"] == "twin"
    text = summary(outcome())
    assert "Nobody noticed." in text
    assert "waited for 250 ms (predicted: 200 ms)" in text


@pytest.mark.parametrize("kind", ["lost_writes", "doubled_writes", "wrong_tenant", "bystander_changed", "damaged_rows"])
def test_what_the_checker_found_is_no_success(kind: str) -> None:
    harmed = outcome(verdict={kind: 1, "findings": [f"{kind}: somewhere"]})
    assert not harmed.ok
    assert "THIS WENT WRONG" in summary(harmed)
    assert f"{kind}: somewhere" in summary(harmed)


@pytest.mark.parametrize("kind", ["failed", "bystander_failed"])
def test_a_failed_request_is_no_success(kind: str) -> None:
    harmed = outcome({kind: 1, "failures": [{"credential": "source", "request": "read", "what": "answer 500"}]})
    assert not harmed.ok
    assert "answer 500" in summary(harmed)


def test_a_window_that_is_missing_is_an_error() -> None:
    without = outcome()
    without.windows.pop()
    with pytest.raises(LookupError, match="reverse"):
        without.as_dict()
