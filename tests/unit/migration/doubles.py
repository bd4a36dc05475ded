# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Routers and participants in memory that refuse whatever the protocol forbids. The real ones are tested in
tests/integration.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused, Superseded, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    ABSENT,
    CAREFUL,
    MOVED,
    STAGED,
    STAGING,
    Care,
    Inspection,
    Move,
    Participant,
    Progress,
    Status,
    untold,
)
from ansible_collections.zdm.landscape.plugins.module_utils.router.base import FAR_MS, Block, Router, RouterState


class Log(list[tuple[str, str]]):
    """(object, operation) in the order in which they happened, and the operations that shall fail."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: dict[tuple[str, str], list[Exception]] = {}

    def write(self, target: str, operation: str) -> None:
        failures = self.failures.get((target, operation))
        if failures:
            raise failures.pop(0)
        self.append((target, operation))

    def of(self, *operations: str) -> list[str]:
        return [operation for _target, operation in self if operation in operations]


class MemoryRouter(Router):
    def __init__(self, name: str, log: Log) -> None:
        self.name = name
        self.log = log
        self.epochs: dict[str, int] = {}
        self.blocks: dict[str, Block] = {}
        self.overrides: dict[str, str] = {}
        self.busy = 0

    def _write(self, operation: str, migration: str, epoch: int) -> None:
        self.log.write(self.name, operation)
        if epoch < self.epochs.get(migration, 0):
            raise Superseded(f"{self.name} has seen a newer epoch.")
        self.epochs[migration] = epoch

    def take_over(self, migration: str, epoch: int) -> None:
        self._write("take_over", migration, epoch)

    def lease(self, migration: str, epoch: int, ids: Iterable[str], lease_ms: int, mode: str) -> None:
        self._write("lease", migration, epoch)
        until = int(time.time() * 1000) + lease_ms
        self.blocks |= {
            tid: Block(mode, until, migration) for tid in ids if tid not in self.blocks or not self.blocks[tid].far
        }

    def close(self, migration: str, epoch: int, ids: Iterable[str], mode: str) -> None:
        self._write("close", migration, epoch)
        self.blocks |= {tid: Block(mode, FAR_MS, migration) for tid in ids}

    def release(self, migration: str, epoch: int, ids: Iterable[str]) -> None:
        self._write("release", migration, epoch)
        for tid in ids:
            self.blocks.pop(tid, None)

    def map(self, migration: str, epoch: int, overrides: Mapping[str, str | None]) -> None:
        self._write("map", migration, epoch)
        for tid, canonical in overrides.items():
            if canonical is None:
                self.overrides.pop(tid, None)
            else:
                self.overrides[tid] = canonical

    def in_flight(self, ids: Iterable[str]) -> int:
        self.log.write(self.name, "in_flight")
        return self.busy

    def state(self, usage: bool = False) -> RouterState:
        self.log.write(self.name, "state")
        return RouterState(
            self.name,
            "1",
            True,
            int(time.time() * 1000),
            0,
            dict(self.epochs),
            dict(self.blocks),
            dict(self.overrides),
            {},
            {},
            frozenset(),
        )


class MemoryParticipant(Participant):
    kind = "memory"

    def __init__(self, name: str, log: Log, source_id: str) -> None:
        self.name = name
        self.log = log
        self.epoch = 0
        self.state = ABSENT
        self.live = source_id
        self.rows_under = source_id
        self.migration = ""
        self.logged = 0
        self.twins = 0
        self.unready: tuple[str, ...] = ()
        self.compared_s = 0
        self.down = False

    def _verb(self, verb: str, move: Move) -> None:
        if self.down:
            raise Unreachable(f"Database {self.name} does not answer.", "Start it.")
        self.log.write(self.name, verb)
        if move.epoch < self.epoch:
            raise Superseded(f"{self.name} has seen epoch {self.epoch}.")

    def inspect(
        self, migration: str, source_id: str, target_id: str, signed: str = "", live_id: str = ""
    ) -> Inspection:
        return Inspection(self.name, self.kind, "1", window_ms=5, digest="d")

    def stage(self, move: Move, plan: Inspection, progress: Progress, care: Care = CAREFUL) -> int:
        self._verb("stage", move)
        self.unready, self.compared_s = (), 0
        self.state, self.epoch, self.twins, self.migration = STAGED, move.epoch, 1, move.migration
        return 1

    def follow(self, move: Move, timeout_ms: int, progress: Progress = untold) -> int:
        self._verb("follow", move)
        assert (self.state, self.live) == (STAGED, move.from_id)
        applied, self.logged = self.logged, 0
        return applied

    def take_over(self, move: Move) -> None:
        self._verb("take_over", move)
        if self.state != ABSENT:
            self.epoch = move.epoch

    def prelude(self, move: Move, timeout_ms: int) -> int:
        self._verb("prelude", move)
        return 0

    def barrier(self, move: Move, timeout_ms: int) -> dict[str, Any]:
        self._verb("barrier", move)
        if self.state == STAGED and self.live != move.from_id:
            raise Refused(f"{self.name}: {move.from_id} is not live.")
        self.state, self.rows_under = MOVED, move.to_id
        return {"rows": 1}

    def confirm(self, move: Move) -> None:
        assert (self.state, self.rows_under) == (MOVED, move.to_id)

    def turn(self, move: Move) -> None:
        self._verb("turn", move)
        if self.state == MOVED:
            self.state, self.live = STAGED, move.to_id
        assert self.live == move.to_id

    def undo(self, move: Move) -> None:
        self._verb("undo", move)
        self.state, self.rows_under = STAGED, move.from_id
        assert self.live == move.from_id

    def remove(self, move: Move, progress: Progress = untold) -> int:
        self._verb("remove", move)
        assert self.state in (STAGED, STAGING, ABSENT)
        assert self.live == move.from_id
        removed, self.twins = self.twins, 0
        self.state, self.epoch = ABSENT, 0
        return removed

    def status(self, migration: str, source_id: str, target_id: str) -> Status:
        if self.down:
            raise Unreachable(f"Database {self.name} does not answer.", "Start it.")
        if self.migration not in ("", migration):
            return Status(self.name, self.kind, ABSENT)
        other = target_id if self.live == source_id else source_id
        rows = {self.live: 1, other: self.twins}
        return Status(
            self.name,
            self.kind,
            self.state,
            self.epoch,
            self.live if self.state != ABSENT else "",
            pending=self.logged,
            rows=rows,
            unready=self.unready,
            compared_s=self.compared_s,
            has_twins=True,
        )

    def fingerprint(self, tenant_id: str) -> str:
        return "f"
