# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``bench/stage``: how fast a stage copies rows, against one ``INSERT … SELECT``, and what its triggers cost every
write.

Both ways of copying take turns in one server; so do writes to the staged table and to an equal one without triggers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from ansible_collections.zdm.landscape.bench.tables import KINDS, NAME, TABLES, Table, machine, rows_of, say
from ansible_collections.zdm.landscape.plugins.module_utils.description.build import PARTICIPANTS
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import COMPARE, COPY, Move, Participant
from ansible_collections.zdm.landscape.tests.landscape.processes import Processes, temporary_folder

CHECKOUT = Path(__file__).resolve().parents[1]
RESULT = CHECKOUT / ".bench" / "stage.json"
SOURCE, TARGET, OTHER = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "abc")
MIGRATION = "venezia--venezia-scp"
BARE = f"{NAME}_bare"
"""A copy of the table that is never staged."""
WRITES = 150
"""Rows that are inserted, changed and deleted per round, table and tenant, each in a transaction of its own."""
KINDS_OF_WRITES = ("insert", "update", "delete")

Figure = Callable[[list[float]], float]


# -- copies -----------------------------------------------------------------------------------------


def timed(action: Callable[[], object]) -> float:
    begin = time.monotonic()
    action()
    return time.monotonic() - begin


def stage(participant: Participant, epoch: int) -> dict[str, float]:
    """Stage, and say how many seconds each part took; helpers may have to wait for the table, as any DDL."""
    move = Move(MIGRATION, epoch, SOURCE, TARGET, SOURCE, TARGET)
    plan = participant.inspect(MIGRATION, SOURCE, TARGET)
    marks: dict[str, float] = {}

    def note(entry: dict[str, Any]) -> None:
        if entry["step"] == "fence":
            marks["armed"] = time.monotonic()
        elif entry["step"] == COPY:
            marks["copied"] = time.monotonic()
        elif entry["step"] == COMPARE:
            marks.setdefault("verifying", time.monotonic())

    begin = time.monotonic()
    participant.stage(move, plan, note)
    end = time.monotonic()
    return {
        "helpers": marks["armed"] - begin,
        "copy": marks["copied"] - marks["armed"],
        "settle": marks["verifying"] - marks["copied"],
        "verify": end - marks["verifying"],
    }


def measure_copies(table: Table, participant: Participant, rows: int, rounds: int) -> dict[str, Any]:
    """Rows per second of both ways; the last round's stage stays."""
    plain, ours = list[float](), list[dict[str, float]]()
    for number in range(1, rounds + 1):
        plain.append(timed(lambda: table.execute(table.copy(SOURCE, TARGET))))
        table.execute(f"DELETE FROM {NAME} WHERE tenant_id = '{TARGET}'")
        table.settle()
        ours.append(stage(participant, number))
        parts = ", ".join(f"{part} {seconds:.1f} s" for part, seconds in ours[-1].items())
        say(f"{table.kind}: one statement {plain[-1]:.1f} s, stage {parts}")
        if number < rounds:
            participant.remove(Move(MIGRATION, number, SOURCE, TARGET, SOURCE, TARGET))
        table.settle()
    return {
        "one_statement_rows_per_s": round(rows / statistics.median(plain)),
        "copy_rows_per_s": round(rows / statistics.median(run["copy"] for run in ours)),
        "verify_rows_per_s": round(rows / statistics.median(run["verify"] for run in ours)),
        "stage_rows_per_s": round(rows / statistics.median(sum(run.values()) for run in ours)),
        "copy_against_one_statement": round(
            statistics.median(run["copy"] / seconds for run, seconds in zip(ours, plain, strict=True)), 2
        ),
        "one_statement_s": plain,
        "stage_s": ours,
    }


# -- writes -----------------------------------------------------------------------------------------


def write_rows(session: Any, table: str, tenant_id: str, first: int) -> dict[str, list[float]]:
    """Milliseconds of single-row transactions of one session."""
    cursor, found = session.cursor(), {kind: list[float]() for kind in KINDS_OF_WRITES}
    statements = {
        "insert": (
            f"INSERT INTO {table} (tenant_id, id, number, code, customer, amount, version, note) VALUES (%s, %s, %s,"
            " 'C1', 'new', 1, 1, 'new')"
        ),
        "update": f"UPDATE {table} SET amount = amount + 1, version = version + 1 WHERE tenant_id = %s AND id = %s",
        "delete": f"DELETE FROM {table} WHERE tenant_id = %s AND id = %s",
    }
    for number in range(first, first + WRITES):
        row_id = f"10000000-0000-4000-8000-{number:012x}"
        for kind, statement in statements.items():
            values = (tenant_id, row_id, number) if kind == "insert" else (tenant_id, row_id)
            found[kind].append(timed(partial(cursor.execute, statement, values)) * 1000)
    return found


def measure_writes(table: Table, rows: int, rounds: int) -> list[dict[str, Any]]:
    """Latency and throughput with and without the triggers, for the live tenant and for another one."""
    tenants = {"live tenant": SOURCE, "bystander": OTHER}
    samples: dict[tuple[str, str], list[dict[str, list[float]]]] = {
        (who, name): [] for who in tenants for name in (BARE, NAME)
    }
    with closing(table.connect()) as session:
        for number in range(-1, rounds):  # the first one warms up
            for (who, name), found in samples.items():
                seen = write_rows(session, name, tenants[who], rows + 1 + (number + 1) * WRITES)
                if number >= 0:
                    found.append(seen)
    return [
        _compare(who, kind, samples[who, BARE], samples[who, NAME])
        for who in tenants
        for kind in (*KINDS_OF_WRITES, "all")
    ]


def _compare(
    who: str, kind: str, bare: list[dict[str, list[float]]], staged: list[dict[str, list[float]]]
) -> dict[str, Any]:
    def rounds(samples: list[dict[str, list[float]]]) -> list[list[float]]:
        return [sorted(ms for name, values in run.items() if kind in (name, "all") for ms in values) for run in samples]

    def ratio(figure: Figure) -> float:
        return round(
            statistics.median(
                figure(with_) / figure(without) for without, with_ in zip(rounds(bare), rounds(staged), strict=True)
            ),
            2,
        )

    def medians(samples: list[dict[str, list[float]]]) -> dict[str, float]:
        runs = rounds(samples)
        figures: dict[str, Figure] = {"p50_ms": _p50, "p99_ms": _p99, "per_s": _rate}
        return {name: round(statistics.median(figure(run) for run in runs), 3) for name, figure in figures.items()}

    return {
        "tenant": who, "write": kind, "without": medians(bare), "with": medians(staged),
        "p50_ratio": ratio(_p50), "p99_ratio": ratio(_p99), "rate_ratio": ratio(_rate),
    }  # fmt: skip


def _p50(values: list[float]) -> float:
    return statistics.median(values)


def _p99(values: list[float]) -> float:
    return values[int(len(values) * 0.99)]


def _rate(values: list[float]) -> float:
    return 1000 * len(values) / sum(values)


# -- the whole --------------------------------------------------------------------------------------


def measure(kind: str, rows: int, rounds: int) -> dict[str, Any]:
    with temporary_folder() as folder:
        logs = folder / "logs"
        logs.mkdir()
        with Processes(logs) as processes:
            table = TABLES[kind](folder, processes)
            table.start({SOURCE: rows, OTHER: rows})
            table.execute(table.like(BARE), f"INSERT INTO {BARE} SELECT * FROM {NAME}")
            options = table.participant()
            options["tables"][BARE] = {"ignore": "it is what the staged table is compared with"}
            participant = PARTICIPANTS[kind](options)
            copies = measure_copies(table, participant, rows, rounds)
            writes = measure_writes(table, rows, 2 * rounds)
            participant.close()
            return {
                "database": kind,
                "version": table.version,
                "rows": rows,
                "row_bytes": table.row_bytes(),
                "copies": copies,
                "writes": writes,
            }


def report(result: dict[str, Any]) -> str:
    facts = result["machine"]
    lines = [
        (
            f"{facts['at']}, {facts['processor']}, {facts['processors']} processors, load {facts['load']}, Python"
            f" {facts['python']}"
        ),
        f"medians of {result['rounds']} interleaved rounds; rows/s",
        "",
        (
            f"{'':18} {'rows':>9} {'one statement':>14} {'copy':>9} {'verify':>9} {'stage':>9}"
            f" {'copy time against one statement':>32}"
        ),
    ]
    for row in result["results"]:
        copies = row["copies"]
        rates = " ".join(f"{copies[f'{name}_rows_per_s']:>9,}" for name in ("copy", "verify", "stage"))
        lines.append(
            f"{row['version']:18} {row['rows']:>9,} {copies['one_statement_rows_per_s']:>14,} {rates}"
            f" {copies['copy_against_one_statement']:>32}"
        )
    lines += [
        "",
        (
            f"{'single-row transactions':30} {'p50 ms':>16} {'ratio':>6} {'p99 ms':>16} {'ratio':>6} {'per second':>14}"
            f" {'ratio':>6}"
        ),
    ]
    for row in result["results"]:
        for write in row["writes"]:
            what, bare, staged = (
                f"{row['database']} {write['tenant']} {write['write']}",
                write["without"],
                write["with"],
            )
            lines.append(
                f"{what:30} {bare['p50_ms']:>7.2f} {staged['p50_ms']:>8.2f} {write['p50_ratio']:>6}"
                f" {bare['p99_ms']:>7.2f} {staged['p99_ms']:>8.2f} {write['p99_ratio']:>6} {bare['per_s']:>7,.0f}"
                f" {staged['per_s']:>6,.0f} {write['rate_ratio']:>6}"
            )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench/stage", description="How fast a stage copies rows, and what its triggers cost every write."
    )
    parser.add_argument(
        "rows", nargs="?", type=rows_of, default=200_000, help="rows of the tenant, and of a bystander (default 200k)"
    )
    parser.add_argument(
        "--database", choices=KINDS, action="append", help="only this kind of database; may be repeated"
    )
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default %(default)s)")
    arguments = parser.parse_args()
    facts = machine()
    results = [measure(kind, arguments.rows, arguments.rounds) for kind in arguments.database or KINDS]
    result = {"machine": {**facts, "load_after": machine()["load"][0]}, "rounds": arguments.rounds, "results": results}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{report(result)}\n\nAll figures: {RESULT.relative_to(CHECKOUT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
