# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal: the one document that decides what is true of a migration (cutover protocol, rules 5 and 8).

Phases: I idle, W window, C closed, U undoing, V undone, K committed, R released. Every change is a compare-and-set
under the controller's epoch. One without an answer is settled by writing (:mod:`settle`), and what was written first
decides: by its id in the take over, by its epoch after it. Under another epoch somebody else took over, and this
controller must touch nothing any more; under the own one it is a late write of this controller's.
"""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import (
    OutcomeUnknown,
    Refused,
    Superseded,
    ZdmError,
)
from ansible_collections.zdm.landscape.plugins.module_utils.core.names import migration_key
from ansible_collections.zdm.landscape.plugins.module_utils.migration.owner import Owner
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import MIGRATIONS, WRITE_ID, Document, Store
from ansible_collections.zdm.landscape.plugins.module_utils.store.settle import Decision, decide
from ansible_collections.zdm.landscape.plugins.module_utils.tenants.tenant import Tenant

FORMAT = 1
IDLE, WINDOW, CLOSED, UNDOING, UNDONE, COMMITTED, RELEASED = "I", "W", "C", "U", "V", "K", "R"
PHASES = {
    IDLE: "idle",
    WINDOW: "window open",
    CLOSED: "closed",
    UNDOING: "undoing",
    UNDONE: "undone",
    COMMITTED: "committed",
    RELEASED: "released",
}
HEARTBEAT_MS = 1000
STALE_MS = 3500
"""A heartbeat that does not change for so long belongs to a controller that is dead or stopped (rule 14)."""

GUARDIAN = "guardian"
FINISHED, UNDONE_ALL, NOT_FINISHED = "finished", "undone", "not finished"
"""Outcomes of a run that a guardian or a signal has ended."""

_KEPT_WINDOWS = 20
_TAKE_OVERS = 10
"""Take overs in a row that are beaten before a run gives up."""

P = ParamSpec("P")
T = TypeVar("T")


class Beaten(Superseded):
    """The journal is not any more as it was read when the run chose what to do. Nothing was taken over."""


def begins_again(run: Callable[P, T]) -> Callable[P, T]:
    """*run* reads the journal, chooses and takes over; when it is beaten it does so again from the beginning."""

    @wraps(run)
    def again(*args: P.args, **kwargs: P.kwargs) -> T:
        for _attempt in range(_TAKE_OVERS - 1):
            with contextlib.suppress(Beaten):
                return run(*args, **kwargs)
        return run(*args, **kwargs)

    return again


class Journal:
    """The journal of one migration, for both directions. Safe for the main thread and the heartbeat's.

    :param store: the config store.
    :param source: the migration's source tenant.
    :param target: the migration's target tenant.
    """

    def __init__(self, store: Store, source: Tenant, target: Tenant) -> None:
        self.store = store
        self.source = source
        self.target = target
        self.key = migration_key(source.subdomain, target.subdomain)
        self.epoch = 0
        self._document: Document | None = None
        self._lock = threading.RLock()
        self._written_at = 0.0
        self._under_way = set[str]()
        """Phases of writes on the known revision that nobody has decided."""
        self.lost: Superseded | None = None
        self.write_ms: list[float] = []
        """How long each write took, in milliseconds: what a window's writes will take."""
        self.taken_over: Callable[[int], None] | None = None
        """Told the epoch of every take over: a guardian must know it."""
        self.ended_by: Callable[[], str] = str
        """Who ends this run, a guardian or a signal; empty when it ends by itself."""

    @property
    def body(self) -> dict[str, Any]:
        """The document as this controller knows it; empty when there is none."""
        return self._document.body if self._document else {}

    @property
    def path(self) -> str:
        return f"{MIGRATIONS}/{self.key}"

    @property
    def phase(self) -> str:
        return str(self.body.get("phase", IDLE))

    @property
    def may_be(self) -> str:
        """The name of the phase; of several, while nobody has decided writes that had no answer."""
        return " or ".join(name for phase, name in PHASES.items() if phase in {self.phase, *self._under_way})

    @property
    def canonical(self) -> str:
        """The id that is live."""
        return str(self.body.get("canonical", self.source.id))

    def read(self) -> Journal:
        """Read the document afresh.

        :raises Refused: it was written by a newer collection, or names other tenant ids.
        """
        with self._lock:
            self._document = self.store.get(MIGRATIONS, self.key)
            check_format(self._document)
            for role, tenant in (("source", self.source), ("target", self.target)):
                if self._document and self.body[role]["id"] != tenant.id:
                    raise Refused(
                        f"migrations/{self.key} names {self.body[role]['id']} as the {role}'s id,"
                        f" onboarded-tenants/{tenant.subdomain} says {tenant.id}.",
                        "A tenant was onboarded again under another id: finish or abort the migration with the old id"
                        " restored first.",
                    )
        return self

    @property
    def ended(self) -> bool:
        """Whether the way back has ended, or its end has begun: retired rows may be gone already."""
        return bool(self.body.get("finalizing") or self.body.get("finalized_at_ms"))

    def expect_way_back(self) -> None:
        """:raises Refused: the migration is finalized, or its finalizing has begun."""
        if self.body.get("finalizing"):
            reason = (
                f"The migration {self.key} is being finalized: rows of {self.source.subdomain}'s id may be gone"
                " already."
            )
            raise Refused(reason, "Run zdm.landscape.finalize again: it goes on.")
        if self.ended:
            reason = (
                f"The migration {self.key} is finalized: the way back has ended, nothing stands under"
                f" {self.source.subdomain}'s id."
            )
            raise Refused(reason, f"To move the data again, migrate {self.target.subdomain} to another tenant.")

    def take_over(
        self, *, open_window: bool, move_from: str, move_to: str, force: bool = False, of_epoch: int = 0
    ) -> None:
        """Step 1: the next epoch; I becomes W when *open_window*, any other phase stays.

        :param of_epoch: take over this epoch's run and no other.
        :raises Refused: another controller is alive (rule 14), or a window is to be opened after the end of the way
            back.
        :raises Beaten: the journal was read in another epoch or phase, or the run that is taken over wrote once more.
        :raises Superseded: somebody else was faster.
        :raises OutcomeUnknown: no answer said whether it was taken over.
        """
        chosen = self._standing
        self.read()
        self._refuse_live_owner(force)
        if of_epoch and self.body.get("epoch") != of_epoch:
            message = f"The journal {self.key} is at epoch {self.body.get('epoch')}, not {of_epoch}."
            raise Superseded(message, "Another controller took over.")
        if self._standing != chosen:
            raise self._changed(Beaten)
        if open_window:
            self.expect_way_back()
        body = dict(self.body) or self._new()
        end = self.end
        body.update(epoch=int(body["epoch"]) + 1, owner=asdict(Owner.here()))
        if body["phase"] == IDLE:
            body.update({"from": move_from, "to": move_to})
            if open_window:
                body.update(phase=WINDOW, drained_epoch=0, aliases=[], accounts=[])
            elif end:  # what comes between two windows leaves how the last one ended for the next one to tell
                body["ended_by"] = {**end, "epoch": body["epoch"]}
        decision = self._write(body)
        if not decision.ours:
            # The number alone proves nothing: another run may have written it. Its predecessor's means that the run
            # which is taken over has written late.
            if decision.found and self._document and decision.found.body.get("epoch") == self.body["epoch"]:
                raise self._changed(Beaten)
            raise self._changed()
        self.epoch = body["epoch"]
        if self.taken_over:
            self.taken_over(self.epoch)

    def advance(self, before: str, after: str, **changes: Any) -> None:
        """Change the phase from *before* to *after* in one compare-and-set.

        :raises Superseded: the document is not this controller's any more; nothing was written.
        :raises OutcomeUnknown: no answer said whether it was written.
        """
        with self._lock:
            self._expect_own()
            while self.phase == before:
                self._write_own({"phase": after, **changes})
            if self.phase != after:
                raise Superseded(
                    f"The journal {self.key} is in phase {self.phase}, not {before}.", "Run the command again."
                )

    def begin_undo(self, **changes: Any) -> bool:
        """U1: W or C becomes U, and a commit without an answer can't land any more. False when it has landed: then
        nothing may be undone.

        :raises Superseded: the document is not this controller's any more; nothing was written.
        :raises OutcomeUnknown: no answer said which of the two was written: nothing may be undone or finished.
        """
        with self._lock:
            self._expect_own()
            while self.phase in (WINDOW, CLOSED):
                self._write_own({"phase": UNDOING, "undo_from": self.phase, **changes})
            return self.phase == UNDOING

    def note(self, **changes: Any) -> None:
        """Write facts without a change of phase."""
        with self._lock:
            self._expect_own()
            while not self._write_own(changes):
                pass

    def beat(self) -> None:
        """One heartbeat. Without an answer it is not sent again: the next write accepts the revision that it may have
        made.
        """
        with self._lock:
            self._expect_own()
            self._write_own({}, patience_ms=0)

    def release_owner(self) -> None:
        """Say that no process drives the migration now, so that the next one need not wait."""
        with self._lock:
            if self.body.get("owner") and self.body.get("epoch") == self.epoch:
                self.note(owner=None, write_ms=round(statistics.median(self.write_ms), 1), **self._end())

    def _end(self) -> dict[str, Any]:
        """How a run ended that a guardian or a signal has ended."""
        by, body = self.ended_by(), self.body
        if not by:
            return {}
        outcome = NOT_FINISHED if body["phase"] != IDLE else FINISHED if body["canonical"] == body["to"] else UNDONE_ALL
        return {"ended_by": {"by": by, "epoch": self.epoch, "at_ms": int(time.time() * 1000), "outcome": outcome}}

    @property
    def end(self) -> dict[str, Any]:
        """How the last run ended when a guardian or a signal ended it; empty when it ended by itself."""
        end: dict[str, Any] = self.body.get("ended_by") or {}
        return end if end.get("epoch") == self.body.get("epoch") else {}

    def record_window(self, window: dict[str, Any]) -> list[dict[str, Any]]:
        """The list of windows with *window* appended, the oldest dropped."""
        return [*self.body.get("windows", []), window][-_KEPT_WINDOWS:]

    @contextlib.contextmanager
    def heartbeat(self) -> Iterator[None]:
        """Write a heartbeat every second while the block runs; a lost epoch is kept in :attr:`lost`."""
        stop = threading.Event()
        thread = threading.Thread(target=self._beat, args=(stop,), name="zdm-heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _beat(self, stop: threading.Event) -> None:
        while not stop.wait(HEARTBEAT_MS / 1000 / 4):
            with self._lock:
                if (time.monotonic() - self._written_at) * 1000 < HEARTBEAT_MS:
                    continue
                try:
                    self.beat()
                except Superseded as error:
                    self.lost = error
                    return
                except ZdmError:
                    continue  # A heartbeat that can't be written is a missed one; the next step's write tells.

    def _new(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "migration": self.key,
            "source": asdict(self.source),
            "target": asdict(self.target),
            "epoch": 0,
            "phase": IDLE,
            "canonical": self.source.id,
            "from": self.source.id,
            "to": self.target.id,
            "aliases": [],
            "accounts": [],
            "plan_digest": "",
            "staged": False,
            "drained_epoch": 0,
            "fingerprints": {},
            "windows": [],
        }

    def _expect_own(self) -> None:
        if self.lost:
            raise self.lost
        if not self.epoch or self.body.get("epoch") != self.epoch:
            message = f"The journal {self.key} is at epoch {self.body.get('epoch')}, this controller's is {self.epoch}."
            raise Superseded(message, "Another controller took over.")

    def _write_own(self, changes: dict[str, Any], patience_ms: int | None = None) -> bool:
        """Write under the own epoch. False when another write of this controller was there first, such as a heartbeat
        without an answer: the document is as that one has left it.
        """
        decision = self._write({**self.body, **changes}, patience_ms)
        if decision.ours:
            return True
        found = decision.found.body if decision.found else {}
        # An edit by hand keeps the id of the write that it edits: nobody knows what its author wants.
        if found.get("epoch") != self.epoch or found.get(WRITE_ID) == self.body.get(WRITE_ID):
            raise self._changed()
        self._document = decision.found
        return False

    def _write(self, body: dict[str, Any], patience_ms: int | None = None) -> Decision:
        body = {**body, "heartbeat_ms": int(time.time() * 1000)}
        revision = self._document.revision if self._document else None
        begin = time.monotonic()
        try:
            decision = decide(self.store, MIGRATIONS, self.key, body, revision, patience_ms)
        except OutcomeUnknown as error:
            self._under_way.add(body["phase"])
            message = f"{error.message.removesuffix('.')}: it is {self.may_be}."
            raise OutcomeUnknown(message, error.advice, **error.details) from error
        self._under_way.clear()
        if decision.ours:
            self._document = decision.ours
            self._written_at = time.monotonic()
            self.write_ms.append((self._written_at - begin) * 1000)
        return decision

    def _changed(self, kind: type[Superseded] = Superseded) -> Superseded:
        return kind(
            f"The journal {self.key} was changed by somebody else.",
            "Look at `zdm.landscape.status`, then run the command again.",
        )

    @property
    def _standing(self) -> tuple[int, str]:
        return int(self.body.get("epoch", 0)), self.phase

    def _refuse_live_owner(self, force: bool) -> None:
        if force or not self.body.get("owner"):
            return
        owner = Owner(**self.body["owner"])
        deadline = time.monotonic() + STALE_MS / 1000
        while not owner.is_dead() and time.monotonic() < deadline:
            seen = self._document
            time.sleep(0.1)
            self.read()
            if not self.body.get("owner"):
                return
            if seen and self._document and seen.revision != self._document.revision:
                raise Refused(
                    f"The migration {self.key} is driven by {owner}, epoch {self.body['epoch']}.",
                    "Wait until it ends; force takes over, and then the other run stops at its next step.",
                )


def check_format(document: Document | None) -> None:
    """Refuse a document that a newer collection has written. One without a number has format 1.

    :raises Refused: its format number is newer than this collection's, or is none.
    """
    number = document.body.get("format", FORMAT) if document else FORMAT
    if document and (not isinstance(number, int) or number > FORMAT):
        raise Refused(
            f"{document.path} has format {number!r}, this collection reads up to {FORMAT}.",
            "Update the collection zdm.landscape on this controller.",
        )
