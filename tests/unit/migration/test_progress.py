# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of a stage with a clock of its own, the lines that people see, and the audit log on a real file system."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused, Timeout
from ansible_collections.zdm.landscape.plugins.module_utils.migration.audit import AuditLog
from ansible_collections.zdm.landscape.plugins.module_utils.migration.plan import Plan
from ansible_collections.zdm.landscape.plugins.module_utils.migration.progress import Meter, Reporter, shown
from ansible_collections.zdm.landscape.plugins.module_utils.migration.stage import remove, stage
from ansible_collections.zdm.landscape.plugins.module_utils.migration.status import migration_status
from ansible_collections.zdm.landscape.plugins.module_utils.migration.throttle import Limits, Throttle
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    Care,
    Inspection,
    Move,
    Progress,
    TablePlan,
)
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import THROTTLES
from ansible_collections.zdm.landscape.plugins.plugin_utils.live import Follower

from .conftest import A, B, Small


def plan_of(**rows: int) -> Plan:
    tables = tuple(TablePlan(table, "twin", "", count) for table, count in rows.items())
    return Plan(
        "a--b",
        (Inspection("bills", "postgresql", "17", (*tables, TablePlan("outbox", "in_place", "", 999))),),
        1.0,
        1.0,
        2,
    )


class Now:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def copied(table: str, rows: int) -> dict[str, Any]:
    return {"participant": "bills", "table": table, "step": "copy", "rows": rows}


def test_rate_and_time_left_per_table_and_in_sum() -> None:
    now = Now()
    meter = Meter(now)
    meter.expect(plan_of(bill=1000, line=3000))
    now.time = 1.0
    assert meter.facts(copied("bill", 100)) == []
    now.time = 2.0
    [fact] = meter.facts(copied("bill", 200), ["latency"])
    assert fact == {
        **copied("bill", 200),
        "of": 1000,
        "rows_per_second": 100,
        "seconds_left": 8,
        "all_rows": 200,
        "all_of": 4000,
        "all_seconds_left": 38,
        "throttled": ["latency"],
    }
    now.time = 12.0
    [ended, fact] = meter.facts(copied("line", 300))
    assert ended == {"participant": "bills", "table": "bill", "step": "copied", "rows": 200, "seconds": 11.0}
    assert (fact["of"], fact["all_rows"], fact["all_of"], fact["throttled"]) == (3000, 500, 3200, [])
    assert [entry["step"] for entry in meter.facts({"participant": "bills", "step": "staged", "rows": 500})] == [
        "copied",
        "staged",
    ]


def test_the_rate_is_the_one_of_the_last_seconds() -> None:
    now = Now()
    meter = Meter(now)
    meter.expect(plan_of(bill=100_000))
    facts = []
    for second in range(1, 121):
        now.time = float(second)
        facts += meter.facts(copied("bill", second * 1000 if second <= 60 else 60_000 + (second - 60) * 10))
    assert facts[29]["rows_per_second"] == 1000
    assert facts[-1]["rows_per_second"] == 10
    assert len(facts) == 60


def test_a_limit_that_a_wait_was_for_is_told_with_the_next_line() -> None:
    now = Now()
    meter = Meter(now)
    meter.expect(plan_of(bill=1000))
    assert meter.facts(copied("bill", 10), ["rows_per_second"]) == []
    now.time = 5.0
    assert meter.facts(copied("bill", 20))[0]["throttled"] == ["rows_per_second"]


def test_lines_for_people() -> None:
    now = Now()
    meter = Meter(now)
    meter.expect(plan_of(bill=50_000))
    now.time = 10.0
    [fact] = meter.facts(copied("bill", 12_000), ["latency"])
    line = shown({**fact, "limits": {"max_latency": "300ms"}})
    assert (
        line
        == "bills.bill: 12,000 of 50,000 rows, 1,200 rows/s, 32 s left; in all 12,000 of 50,000, 32 s left; throttled:"
        " latency (max_latency 300ms)"
    )
    assert shown({"step": "barrier", "at_ms": 1234.5, "ms": 3.0}) == "   1,234.5 ms  barrier (3.0 ms)"
    assert shown({"step": "begin"}) == shown({"step": "end", "outcome": "ok"}) == ""


def test_a_purge_is_told_as_a_stage_is() -> None:
    now = Now()
    meter = Meter(now)
    now.time = 10.0
    purged = {"participant": "bills", "table": "bill", "step": "purge", "rows": 12_000, "of": 50_000}
    [fact] = meter.facts(purged)
    assert (
        shown(fact)
        == "bills.bill: 12,000 of 50,000 rows deleted, 1,200 rows/s, 32 s left; in all 12,000 of 50,000, 32 s left"
    )
    now.time = 12.5
    lines = [shown(fact) for fact in meter.facts({"participant": "bills", "step": "finalized", "rows": 12_000})]
    assert lines == ["bills.bill: 12,000 rows deleted in 2.5 s", "bills: finalized, 12,000 rows deleted"]


def test_applied_keys_are_told_every_few_seconds() -> None:
    now = Now()
    meter, lines = Meter(now), []
    for second in range(1, 11):
        now.time = float(second)
        lines += [shown(fact) for fact in meter.facts({"participant": "bills", "step": "apply", "rows": second * 1000})]
    assert lines == [f"bills: {count},000 logged keys applied" for count in (2, 4, 6, 8, 10)]


# -- audit log
# -----------------------------------------------------------------------------------------------------------


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_says_who_when_where_and_what(small: Small, tmp_path: Path) -> None:
    log = AuditLog(str(tmp_path / "new" / "log"), small.journal(), "tenant_data staged", "run7", ["hunter2"])
    with log.run(needed=True):
        log.write({"step": "verify", "table": "bill", "text": "password hunter2"})
        log.outcome({"changed": True})
    begin, verify, end = entries(log.path)
    assert (begin["step"], end["step"], end["outcome"], end["changed"]) == ("begin", "end", "ok", True)
    assert (verify["run"], verify["migration"], verify["epoch"], verify["phase"], verify["command"]) == (
        "run7",
        "a--b",
        1,
        "I",
        "tenant_data staged",
    )
    assert verify["host"] == os.uname().nodename
    assert verify["time"].endswith("Z")
    assert {"user", "pid"} < set(verify)
    assert "hunter2" not in log.path.read_text()
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.path.parent.stat().st_mode) == 0o700


def test_a_failure_is_in_the_log(small: Small, tmp_path: Path) -> None:
    log = AuditLog(str(tmp_path), small.journal(), "x")
    with suppress(Timeout), log.run(needed=True):
        raise Timeout("Too slow.", "Again.")
    assert (
        entries(log.path)[-1] | {"outcome": "failed", "error": "Timeout", "message": "Too slow. Again."}
        == entries(log.path)[-1]
    )


def test_a_log_is_never_truncated_and_runs_append_side_by_side(small: Small, tmp_path: Path) -> None:
    code = (
        "import sys; from ansible_collections.zdm.landscape.tests.unit.migration.conftest import FileStore, Journal, A,"
        " B;from ansible_collections.zdm.landscape.plugins.module_utils.migration.audit import AuditLog;log ="
        " AuditLog(sys.argv[1], Journal(FileStore(sys.argv[2]), A, B), 'x', sys.argv[3]);\nwith log.run(needed=True):\n"
        "  for number in range(500): assert log.write({'number': number, 'filler': 'y' * 300})"
    )
    store = str(small.store.path)
    command = [sys.executable, "-c", code, str(tmp_path / "log"), store]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    runs = [subprocess.Popen([*command, name], env=environment) for name in ("one", "two")]
    assert [run.wait(60) for run in runs] == [0, 0]
    lines = entries(tmp_path / "log" / "a--b.jsonl")
    for name in ("one", "two"):
        assert [line["number"] for line in lines if line["run"] == name and "number" in line] == list(range(500))
    assert len(lines) == 2 * 502


def test_a_log_that_can_not_be_opened_refuses_before_the_block(small: Small, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    log = AuditLog(str(tmp_path / "file"), small.journal(), "x")
    with pytest.raises(Refused, match="can't be written"):
        log.check()
    with pytest.raises(Refused, match="log_dir"), log.run(needed=True):
        pytest.fail("the block was entered")


def test_a_window_that_must_go_on_does_so_without_its_log(small: Small, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    log = AuditLog(str(tmp_path / "file"), small.journal(), "x")
    with log.run(needed=False):
        assert not log.write({"step": "commit"})
    assert "can't be opened" in log.problem


@contextmanager
def disk(folder: Path) -> Iterator[Path]:
    """A disk of 256 kB; its file ``ballast`` fills it."""
    if os.getuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "zdm-test", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    with (folder / "ballast").open("ab", buffering=0) as stream, suppress(OSError):
        while stream.write(b"0" * 512):
            continue


def test_a_disk_that_gets_full_loses_lines_but_stops_nothing(small: Small, tmp_path: Path) -> None:
    with disk(tmp_path / "disk") as folder:
        log = AuditLog(str(folder / "log"), small.journal(), "x")
        with log.run(needed=True):
            fill(folder)
            told = [log.write({"number": number}) for number in range(100)]
            assert not all(told)
            (folder / "ballast").unlink()
            assert log.write({"number": 100})
        lines = log.path.read_text().splitlines()
        numbers = []
        for line in lines:
            with suppress(ValueError):
                numbers.append(json.loads(line).get("number"))
        whole = [number for number, ok in enumerate(told) if ok]
        assert numbers == [None, *whole, 100, None]
        fill(folder)
        late = AuditLog(str(folder / "other"), small.journal(), "x")
        with pytest.raises(Refused, match="Make room"), late.run(needed=True):
            pytest.fail("the block was entered")


def test_the_follower_shows_only_whole_new_lines_of_its_run(tmp_path: Path) -> None:
    path, seen = tmp_path / "log", []
    warning = {"run": "mine", "step": "warning"}
    path.write_text(json.dumps({**warning, "message": "old"}) + "\n")
    with Follower(path, "mine", seen.append), path.open("a") as stream:
        stream.write(json.dumps({**warning, "message": "1"}) + "\nno json\n[]\n")
        stream.write(json.dumps({**warning, "run": "other", "message": "2"}) + "\n")
        stream.write(json.dumps({**warning, "message": "3"}) + "\n" + json.dumps({**warning, "message": "torn"})[:20])
    assert seen == ["Warning: 1", "Warning: 3"]


# -- stage and window
# ----------------------------------------------------------------------------------------------------


def test_every_step_of_a_window_is_told_with_its_phase(small: Small, tmp_path: Path) -> None:
    log = AuditLog(str(tmp_path / "log"), small.journal(), "tenant_cutover switched")
    cutover = small.cutover()
    cutover.tell, log.journal = log.write, cutover.journal
    with log.run(needed=True):
        outcome = cutover.switch(B, lambda: 0)
    steps = [line for line in entries(log.path) if "at_ms" in line]
    assert [line["step"] for line in steps] == [step["step"] for step in outcome.timeline]
    assert [line["phase"] for line in steps if line["step"] in ("journal_closed", "commit", "journal_idle")] == [
        "C",
        "K",
        "I",
    ]
    assert {line["epoch"] for line in steps} == {2}


def test_a_stage_ends_between_two_chunks_when_a_signal_came_and_its_progress_is_in_the_status(
    small: Small, tmp_path: Path
) -> None:
    remove(small.store, small.journal(), small.parties(), small.participants)
    seen: list[str] = []

    def chunks(move: Move, plan: Inspection, progress: Progress, care: Care) -> int:
        status = None
        for number in range(1, 4):
            progress(copied("bill", number * 10))
            status = migration_status(small.store, small.fleet, [], A, B)
            seen.append(status.verdict)
        return 30

    small.participants[0].stage = chunks  # type: ignore[method-assign]
    journal = small.journal()
    log = AuditLog(str(tmp_path / "log"), journal, "tenant_data staged")
    throttle = Throttle(Limits(rows_per_second=1_000_000), small.store, journal.key, lambda: None, log.write)
    reporter = Reporter(log, journal, throttle, lambda: len(seen) == 2)
    now = Now()
    reporter.meter = Meter(now)
    now.time = 60.0
    with log.run(needed=True), pytest.raises(Timeout, match="interrupted"):
        stage(small.store, journal, small.parties(), small.participants, small.plan, reporter, throttle=throttle)
    assert "Staging bills.bill: 10 of 10 rows" in seen[0]
    assert len(seen) == 2
    assert small.journal().body["owner"] is None
    assert not small.journal().body["staged"]


def test_abort_removes_the_operators_limits(small: Small) -> None:
    small.store.put(THROTTLES, "a--b", {"rows_per_second": 5}, None)
    remove(small.store, small.journal(), small.parties(), small.participants)
    assert small.store.get(THROTTLES, "a--b") is None
