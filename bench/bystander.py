# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What another tenant feels of a barrier that moves rows in place: its longest write, against the barrier's length."""

from __future__ import annotations

import statistics
import threading
import time
from contextlib import closing
from typing import Any

from ansible_collections.zdm.landscape.bench.tables import NAME, TABLES, Table, say
from ansible_collections.zdm.landscape.plugins.module_utils.description.build import PARTICIPANTS
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import Move, untold
from ansible_collections.zdm.landscape.tests.landscape.processes import Processes, temporary_folder

ROWS = 100_000
SHARE = 0.1
"""Of the barrier that a bystander's longest write may take."""
SOURCE, TARGET, OTHER = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "abc")
MIGRATION = "venezia--venezia-scp"
TIMEOUT_MS = 120_000
_REST_S = 0.002


class Bystander:
    """Single-row updates of another tenant's rows, each in a transaction of its own, while the block runs."""

    def __init__(self, table: Table, rows: int) -> None:
        self._table, self._rows, self._stop = table, rows, threading.Event()
        self.times_ms: list[float] = []
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> Bystander:
        self._thread.start()
        while len(self.times_ms) < 20:  # its plans and pages are warm
            time.sleep(_REST_S)
        self.times_ms.clear()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _write(self) -> None:
        with closing(self._table.connect()) as session:
            cursor, number = session.cursor(), 0
            while not self._stop.is_set():
                number = number % self._rows + 1
                begin = time.monotonic()
                cursor.execute(
                    f"UPDATE {NAME} SET version = version + 1 WHERE tenant_id = '{OTHER}' AND number = {number}"
                )
                self.times_ms.append((time.monotonic() - begin) * 1000)
                time.sleep(_REST_S)


def measure_bystander(kind: str, rows: int = ROWS, pairs: int = 2) -> dict[str, Any]:
    """Barriers there and back over a table in place, with a bystander's writes."""
    barriers, longest = list[float](), list[float]()
    with temporary_folder() as folder:
        logs = folder / "logs"
        logs.mkdir()
        with Processes(logs) as processes:
            table = TABLES[kind](folder, processes)
            table.start({SOURCE: rows, OTHER: rows})
            options = table.participant()
            options["tables"][NAME] = {"strategy": "in_place"}
            participant = PARTICIPANTS[kind]({**options, "budget_ms": TIMEOUT_MS})
            move = Move(MIGRATION, 1, SOURCE, TARGET, SOURCE, TARGET)
            participant.stage(move, participant.inspect(MIGRATION, SOURCE, TARGET), untold)
            for number in range(2 * pairs):
                ids = (SOURCE, TARGET) if number % 2 == 0 else (TARGET, SOURCE)
                move = Move(MIGRATION, number + 2, SOURCE, TARGET, *ids)
                participant.take_over(move)
                participant.prelude(move, TIMEOUT_MS)
                with Bystander(table, rows) as bystander:
                    begin = time.monotonic()
                    participant.barrier(move, TIMEOUT_MS)
                    barriers.append((time.monotonic() - begin) * 1000)
                longest.append(max(bystander.times_ms))
                participant.turn(move)
                table.settle()
                say(f"{kind}, {rows:,} rows in place: barrier {barriers[-1]:.0f} ms, bystander {longest[-1]:.0f} ms")
            participant.close()
            return {
                "database": kind,
                "version": table.version,
                "rows": rows,
                "barrier_ms": round(statistics.median(barriers)),
                "bystander_longest_ms": [round(value, 1) for value in longest],
                "share": round(statistics.median(b / a for a, b in zip(barriers, longest, strict=True)), 3),
            }
