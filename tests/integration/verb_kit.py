# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests of the verbs share: moves, kills inside of a verb, writers that no router holds back."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import Inspection, Move
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import Database

A, B, C = "venezia", "venezia-scp", "bystander"
KEY = f"{A}--{B}"
WAIT_MS = 60_000
"""For a verb that nothing is in the way of, however busy the machine is."""
WRITES = ("INSERT", "UPDATE", "DELETE", "CREATE", "DROP")

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    [__name__, "ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.participant"]
)


def move(epoch: int = 1, forward: bool = True) -> Move:
    return Move(KEY, epoch, A, B, A if forward else B, B if forward else A)


def stage(
    participant: Database, at: Move | None = None, progress: Callable[[dict[str, Any]], None] = lambda _step: None
) -> int:
    return participant.stage(at or move(), participant.inspect(KEY, A, B), progress)


def under(rows: dict[str, list[tuple[Any, ...]]], old: str, new: str) -> dict[str, list[tuple[Any, ...]]]:
    """The same rows with one id for another."""
    return {
        table: sorted((tuple(new if value == old else value for value in row) for row in of), key=repr)
        for table, of in rows.items()
    }


def status(participant: Database) -> tuple[str, str, tuple[str, ...]]:
    """State, live id and fences; asserts that the participant agrees with itself."""
    found = participant.status(KEY, A, B)
    assert found.problems == ()
    return found.state, found.live_id, found.fenced


def act(participant: Database, verb: str, at: Move) -> None:
    """Run a verb by its name."""
    if verb in ("prelude", "barrier"):
        getattr(participant, verb)(at, WAIT_MS)
    elif verb == "stage":
        stage(participant, at)
    else:
        getattr(participant, verb)(at)


def act_and_die(
    kind: type[Database], options: dict[str, Any], verb: str, at: Move, statement: int, plan: Inspection | None
) -> None:
    """Run a verb and kill this process right before its n-th writing statement or commit."""
    participant = kind(options)
    if plan is None and verb == "stage":
        plan = participant.inspect(KEY, A, B)
    left = statement

    def count() -> None:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    @sa.event.listens_for(participant.engine(), "before_cursor_execute")
    def _statement(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if statement.split(None, 1)[0] in WRITES:
            count()

    @sa.event.listens_for(participant.engine(), "commit")
    def _commit(_connection: Any) -> None:
        count()

    if verb == "stage":
        participant.stage(at, plan, lambda _step: None)
    else:
        act(participant, verb, at)


def killed(
    kind: type[Database],
    options: dict[str, Any],
    verb: str,
    at: Move,
    every: int = 1,
    plan: Inspection | None = None,
) -> Iterator[int]:
    """Run a verb in processes that die before its first, second, … write; ends when one lives to its end.

    :param plan: stage this one.
    """
    statement = 1
    while True:
        process = _PROCESSES.Process(target=act_and_die, args=(kind, options, verb, at, statement, plan))
        process.start()
        process.join()
        if process.exitcode == 0:
            assert statement > 1  # else nothing was counted
            return
        assert process.exitcode == -signal.SIGKILL
        yield statement
        statement += every


FIRST_KEY = 5_000_000


class Writer(threading.Thread):
    """Inserts a bill and its item in one transaction, again and again, and notes what was acknowledged."""

    def __init__(self, bench: Any, number: int, tenant: str) -> None:
        super().__init__(daemon=True)
        self.connection = bench.application(isolation=("REPEATABLE READ", "READ COMMITTED")[number % 2])
        self.tenant = tenant
        self.key = FIRST_KEY + number * 1_000_000
        self.acknowledged: list[int] = []
        self.refused = 0
        self.failure: Exception | None = None
        self._stop_now = threading.Event()

    def run(self) -> None:
        while not self._stop_now.is_set():
            self.key += 1
            cursor = self.connection.cursor()
            try:
                cursor.execute("BEGIN")
                cursor.execute(f"INSERT INTO bill (tenant_id, id, note) VALUES ('{self.tenant}', {self.key}, 'w')")
                cursor.execute(
                    f"INSERT INTO item (tenant_id, bill, pos, txt) VALUES ('{self.tenant}', {self.key}, 1, 'w')"
                )
                cursor.execute("COMMIT")
                self.acknowledged.append(self.key)
            except Exception as error:
                self.connection.rollback()
                if "is closed by a migration" not in str(error):
                    self.failure = error
                    return
                self.refused += 1
            self._stop_now.wait(0.002)

    def stop(self) -> None:
        self._stop_now.set()
        self.join()


def wait_for_writes(writers: list[Writer]) -> None:
    """Wait until each writer has had an answer since now."""
    for writer in writers:
        key = writer.key
        while writer.key < key + 3 and writer.is_alive():
            writer.join(0.002)
