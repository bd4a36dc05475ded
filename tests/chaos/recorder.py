# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wrappers around the real store, routers and participants: they record every write and can stop the process at one of
them.

A place is ``<operation>:<object>``, for example ``barrier:bills`` or ``phase C>K:journal``. Writes are taken one after
the other, so that right after one of them is right before the next.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import (
    Conflict,
    OutcomeUnknown,
    Refused,
    Superseded,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    CAREFUL,
    Care,
    Inspection,
    Move,
    Participant,
    Progress,
    Status,
    untold,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.planning import Planning
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import State
from ansible_collections.zdm.landscape.plugins.module_utils.router.base import Router, RouterState
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import CLAIMS, MIGRATIONS, Document, Store

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

T = TypeVar("T")
LANDED, LOST = "landed", "lost"
ROW = "row"
"""System of entries about transactions inside of a verb."""


@dataclass
class Recorder:
    """Writes the trace and stops the process where it is told to.

    :param trace: file of JSON lines; each line is on its way to the disk's cache before the next write begins.
    :param controller: how this process is called in the trace.
    :param stop: ``(signal, "before" | "after", place)``.
    :param refuse: places that fail with ``Refused`` instead of being done.
    :param hold: a place after which the step, not the heartbeat, waits until the file exists.
    :param lose: the first write to the store at every place gets no answer: it has :data:`LANDED`, or is :data:`LOST`.
    """

    trace: Path
    controller: str
    stop: tuple[signal.Signals, str, str] | None = None
    refuse: frozenset[str] = frozenset()
    hold: tuple[str, Path] | None = None
    lose: str = ""
    lock: threading.RLock = field(default_factory=threading.RLock)
    _drained: set[str] = field(default_factory=set)
    _lost: set[str] = field(default_factory=set)

    def write(self, action: Callable[[], T], system: str, target: str, op: str, place: str, **facts: Any) -> T:
        entry = {"system": system, "target": target, "op": op, "place": place, **facts}
        with self.lock:
            if place in self.refuse:
                raise Refused(f"{target} is told to refuse {op}.", "This is a test.")
            self._stop_at("before", entry)
            try:
                result = self._answered(action, system, place)
            except (Conflict, Superseded):
                self.record(entry, outcome="refused")
                raise
            except OutcomeUnknown:
                self.record(entry, outcome="unknown")
                raise
            except Exception:
                self.record(entry, outcome="failed")
                raise
            if not self._stop_at("after", entry):
                self.record(entry, outcome="ok")
            if op == "close":
                self._drained.clear()
        while self.hold and self.hold[0] == place and not self.hold[1].exists():
            time.sleep(0.02)
        return result

    def _answered(self, action: Callable[[], T], system: str, place: str) -> T:
        if not self.lose or system != "store" or place in self._lost:
            return action()
        if self.lose == LANDED:
            action()  # one that a heartbeat was faster than has its answer, and comes again
        self._lost.add(place)
        raise OutcomeUnknown(f"The answer to {place} is lost.", "This is a test.")

    def inside(self, action: Callable[[], None], target: str, place: str) -> None:
        """A write of a transaction inside of a verb: a kill right before or after it rolls that transaction back.

        The model knows verbs only, so that the trace has nothing but the death.
        """
        with self.lock:
            for when in ("before", "after"):
                if self.stop == (signal.SIGKILL, when, place):
                    self.record({"system": "env", "op": "kill"})
                    os.kill(os.getpid(), signal.SIGKILL)
                if when == "before":
                    action()
            self.record({"system": ROW, "target": target, "place": place})

    def drained(self, router: str) -> None:
        """Record that a router has been seen drained, once in each of the two drains: it is asked until all are."""
        with self.lock:
            if router not in self._drained:
                self.write(lambda: None, "router", router, "drain", f"drain:{router}", count=0)
                self._drained.add(router)

    def _stop_at(self, when: str, entry: dict[str, Any]) -> bool:
        """Stop here if told to; says whether the entry was recorded on the way."""
        if not self.stop or self.stop[1:] != (when, entry["place"]):
            return False
        number, self.stop = self.stop[0], None
        if number == signal.SIGKILL:
            self.record(entry, outcome=f"killed-{when}")
        elif when == "after":
            self.record(entry, outcome="ok")
        if number == signal.SIGSTOP:
            self.record({"system": "env", "op": "pause"})
        os.kill(os.getpid(), number)
        return when == "after"

    def record(self, entry: dict[str, Any], **more: Any) -> None:
        line = json.dumps({"t": time.time(), "controller": self.controller, **entry, **more}) + "\n"
        handle = os.open(self.trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)


class RecordedStore(Store):
    def __init__(self, inner: Store, recorder: Recorder) -> None:
        self.inner, self.recorder = inner, recorder
        self.known: dict[str, dict[str, Any]] = {}
        """The journals as this controller has last seen them: what a refused write was based on."""

    def describe(self) -> str:
        return self.inner.describe()

    def get(self, collection: str, name: str) -> Document | None:
        document = self.inner.get(collection, name)
        if collection == MIGRATIONS and document:
            self.known[name] = document.body
        return document

    def list(self, collection: str) -> list[Document]:
        return self.inner.list(collection)

    def put(self, collection: str, name: str, body: dict[str, Any], revision: str | None) -> Document:
        if collection != MIGRATIONS:
            claimed = "claim" if body.get("migration") else "free"
            op = claimed if collection == CLAIMS else "mapping_documents"
            epoch = {"epoch": body["epoch"]} if "epoch" in body else {}
            return self.recorder.write(
                lambda: self.inner.put(collection, name, body, revision),
                "store",
                f"{collection}/{name}",
                op,
                f"{op}:{name}",
                **epoch,
            )
        before = self.known.get(name, {"phase": "I", "epoch": 0})
        facts: dict[str, Any] = {"epoch": body["epoch"], "before": before["phase"], "after": body["phase"]}
        if body["epoch"] > before["epoch"]:
            op, place = "take_over", f"take_over {before['phase']}>{body['phase']}:journal"
        elif body["phase"] != before["phase"]:
            op, place = "phase", f"phase {before['phase']}>{body['phase']}:journal"
            facts |= {"from": before["phase"], "to": body["phase"]}
        else:
            op = "heartbeat"
            place = (
                "drained:journal" if body.get("drained_epoch") != before.get("drained_epoch") else "heartbeat:journal"
            )
        written = self.recorder.write(
            lambda: self.inner.put(collection, name, body, revision),
            "store",
            f"{collection}/{name}",
            op,
            place,
            **facts,
        )
        self.known[name] = written.body
        return written

    def delete(self, collection: str, name: str, revision: str) -> None:
        self.recorder.write(
            lambda: self.inner.delete(collection, name, revision),
            "store",
            f"{collection}/{name}",
            "delete",
            f"delete:{name}",
        )


class RecordedRouter(Router):
    def __init__(self, inner: Router, recorder: Recorder, source_id: str) -> None:
        self.inner, self.recorder, self.source_id = inner, recorder, source_id
        self.name = inner.name

    def _write(self, op: str, epoch: int, action: Callable[[], None], **facts: Any) -> None:
        self.recorder.write(action, "router", self.name, op, f"{op}:{self.name}", epoch=epoch, **facts)

    def take_over(self, migration: str, epoch: int) -> None:
        self._write("take_over", epoch, lambda: self.inner.take_over(migration, epoch))

    def lease(self, migration: str, epoch: int, ids: Iterable[str], lease_ms: int, mode: str) -> None:
        self._write("lease", epoch, lambda: self.inner.lease(migration, epoch, ids, lease_ms, mode))

    def close(self, migration: str, epoch: int, ids: Iterable[str], mode: str) -> None:
        self._write("close", epoch, lambda: self.inner.close(migration, epoch, ids, mode))

    def release(self, migration: str, epoch: int, ids: Iterable[str]) -> None:
        self._write("release", epoch, lambda: self.inner.release(migration, epoch, ids))

    def map(self, migration: str, epoch: int, overrides: Mapping[str, str | None]) -> None:
        to = "target" if overrides.get(self.source_id) else "source"
        self._write("map", epoch, lambda: self.inner.map(migration, epoch, overrides), to=to)

    def in_flight(self, ids: Iterable[str]) -> int:
        count = self.inner.in_flight(ids)
        if count == 0:
            self.recorder.drained(self.name)
        return count

    def state(self, usage: bool = False) -> RouterState:
        return self.inner.state(usage)


class RecordedParticipant(Participant):
    def __init__(self, inner: Participant, recorder: Recorder) -> None:
        self.inner, self.recorder = inner, recorder
        self.name, self.kind = inner.name, inner.kind
        if isinstance(inner, Planning):
            self._see_rows(inner)

    def _see_rows(self, inner: Planning) -> None:
        """Every write of the participant's state row has a place of its own, named after the state."""
        write = inner.write_state

        def write_state(connection: Connection, state: State, insert: bool = False) -> None:
            place = f"row {state.state}:{self.name}"
            self.recorder.inside(lambda: write(connection, state, insert), self.name, place)

        inner.write_state = write_state  # type: ignore[method-assign]

    def _write(self, op: str, move: Move, action: Callable[[], T]) -> T:
        return self.recorder.write(action, "participant", self.name, op, f"{op}:{self.name}", epoch=move.epoch)

    def inspect(
        self, migration: str, source_id: str, target_id: str, signed: str = "", live_id: str = ""
    ) -> Inspection:
        return self.inner.inspect(migration, source_id, target_id, signed, live_id)

    def stage(self, move: Move, plan: Inspection, progress: Progress, care: Care = CAREFUL) -> int:
        return self._write("stage", move, lambda: self.inner.stage(move, plan, progress, care))

    def take_over(self, move: Move) -> None:
        self._write("take_over", move, lambda: self.inner.take_over(move))

    def prelude(self, move: Move, timeout_ms: int) -> int:
        return self._write("prelude", move, lambda: self.inner.prelude(move, timeout_ms))

    def barrier(self, move: Move, timeout_ms: int) -> dict[str, Any]:
        return self._write("barrier", move, lambda: self.inner.barrier(move, timeout_ms))

    def turn(self, move: Move) -> None:
        self._write("turn", move, lambda: self.inner.turn(move))

    def confirm(self, move: Move) -> None:
        self.inner.confirm(move)

    def undo(self, move: Move) -> None:
        self._write("undo", move, lambda: self.inner.undo(move))

    def follow(self, move: Move, timeout_ms: int, progress: Progress = untold) -> int:
        return self.inner.follow(move, timeout_ms, progress)

    def remove(self, move: Move, progress: Progress = untold) -> int:
        return self._write("remove", move, lambda: self.inner.remove(move, progress))

    def status(self, migration: str, source_id: str, target_id: str) -> Status:
        return self.inner.status(migration, source_id, target_id)

    def fingerprint(self, tenant_id: str) -> str:
        return self.inner.fingerprint(tenant_id)

    def close(self) -> None:
        self.inner.close()
