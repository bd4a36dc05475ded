# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two runs of one migration at a time, over a store that loses any answer and lets any write land at any later moment.

Each run is a thread; at every access to the store it waits for its turn, so that an example is played again as it was.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import (
    Refused,
    Superseded,
    ZdmError,
)
from ansible_collections.zdm.landscape.plugins.module_utils.migration import window as window_module
from ansible_collections.zdm.landscape.plugins.module_utils.migration.cutover import Cutover
from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import Journal
from ansible_collections.zdm.landscape.plugins.module_utils.store import settle
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import MIGRATIONS, Document
from ansible_collections.zdm.landscape.tests.unit.store.lossy import ANSWERED, LANDED, LATE, LOST, LossyStore, Sent
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from .conftest import A, B, Small

LOSSES = 6
"""Answers that an example may lose."""
COMMITTED, UNDOING = ("K", "R"), ("U", "V")


class DeadError(BaseException):
    """The process has ended here; it does nothing more."""


class Turns:
    """Lets one thread go on at a time, from one access to the store to the next."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._turn: object = None
        self._dead: object = None
        self.waiting: list[int] = []

    def wait(self, run: int) -> None:
        """Called by a run: wait for its next turn."""
        if run == self._dead:
            raise DeadError
        with self._condition:
            self.waiting.append(run)
            self._turn = None
            self._condition.notify_all()
            self._condition.wait_for(lambda: self._turn == run)
        if run == self._dead:
            raise DeadError

    def end(self) -> None:
        with self._condition:
            self._turn = None
            self._condition.notify_all()

    def expect(self, runs: int) -> None:
        """Wait until so many wait for their first turn."""
        with self._condition:
            assert self._condition.wait_for(lambda: len(self.waiting) == runs, 30)

    def kill(self, run: int) -> None:
        """*run* does nothing more."""
        self._dead = run
        if run in self.waiting:
            self.give(run)

    def give(self, run: int) -> None:
        """Let *run* go on, and wait until it waits again or has ended."""
        with self._condition:
            self.waiting.remove(run)
            self._turn = run
            self._condition.notify_all()
            assert self._condition.wait_for(lambda: self._turn is None, 30), "a run hangs"


class Chance(random.Random):
    """What happens by chance in an example."""

    def one_in(self, many: int) -> bool:
        return self.randrange(many) == 0


class SharedStore(LossyStore):
    """What all runs share; each of them sees it as :class:`Seen`."""

    def __init__(self, chance: Chance) -> None:
        super().__init__(self._fate)
        self.chance = chance
        self.losses = 0

    def _fate(self, _sent: Sent) -> str:
        lost = self.losses and self.chance.one_in(3)
        fate = self.chance.choice((LANDED, LOST, LATE)) if lost else ANSWERED
        self.losses -= fate != ANSWERED
        return fate

    def some_land(self) -> None:
        """Writes that are under way may arrive now."""
        for sent in tuple(self.late):
            if self.chance.one_in(4):
                self.land(sent)


class Seen(LossyStore):
    """The store as run number *run* sees it: a look at the journal and every write is a turn."""

    def __init__(self, shared: SharedStore, turns: Turns, run: int) -> None:
        super().__init__()
        self.shared, self.turns, self.run = shared, turns, run

    def get(self, collection: str, name: str) -> Document | None:
        if collection == MIGRATIONS:
            self.turns.wait(self.run)
        return self.shared.get(collection, name)

    def list(self, collection: str) -> list[Document]:
        return self.shared.list(collection)

    def put(self, collection: str, name: str, body: dict[str, Any], revision: str | None) -> Document:
        self.turns.wait(self.run)
        return self.shared.put(collection, name, {**body, "run": self.run}, revision)


class Run:
    """One command in a thread of its own, with heartbeats between its steps."""

    def __init__(self, small: Small, shared: SharedStore, turns: Turns, number: int, wants: str) -> None:
        self.turns, self.number, self.wants = turns, number, wants
        self.error: ZdmError | None = None
        self.crash: BaseException | None = None
        self.died = False
        self.cutover = Cutover(
            Seen(shared, turns, number), small.fleet, small.participants, A, B, small.policy, tell=self._beat
        )
        self.shared = shared
        self.thread = threading.Thread(target=self._go, daemon=True)
        self.thread.start()

    def _beat(self, _step: dict[str, Any]) -> None:
        if self.shared.chance.one_in(3):
            try:
                self.cutover.journal.beat()
            except Superseded as error:
                self.cutover.journal.lost = error
            except ZdmError:
                return

    def _go(self) -> None:
        try:
            if self.wants == "abort":
                self.cutover.abort(force=True)
            else:
                self.cutover.switch(B, int, force=True)
        except ZdmError as error:
            self.error = error
        except DeadError:
            self.died = True
        except BaseException as error:
            self.crash = error
        finally:
            self.turns.end()


@contextmanager
def patched(patient: bool) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settle, "SETTLE_MS", 1_000 if patient else 0.05)
        patch.setattr(settle, "_PAUSE_S", 0)
        patch.setattr(window_module, "PATIENCE_MS", 0)
        patch.setattr(Journal, "heartbeat", lambda _journal: nullcontext())
        yield


def play(chance: Chance, wants: tuple[str, ...], refuses: bool) -> tuple[Small, SharedStore, list[Run]]:
    """Let the runs take turns until all have ended; the first one may die on the way."""
    shared, turns = SharedStore(chance), Turns()
    small = Small(shared)  # type: ignore[arg-type]
    small.stage()
    if refuses:
        small.log.failures["bills", "barrier"] = [Refused("bills refuses.")]
    shared.written.clear()
    shared.losses = LOSSES
    runs = [Run(small, shared, turns, number, what) for number, what in enumerate(wants)]
    turns.expect(len(runs))
    dies, turn = chance.one_in(2), 0
    while turns.waiting:
        shared.some_land()
        if dies and chance.one_in(20):
            dies = False
            turns.kill(0)
            continue
        if turn not in turns.waiting or chance.one_in(4):
            turn = chance.choice(sorted(turns.waiting))
        turns.give(turn)
    shared.losses = 0
    return small, shared, runs


def assert_one_driver_and_one_outcome(shared: SharedStore) -> None:
    """Every epoch is one run's; what it committed it never undoes, and the other way round."""
    drivers: dict[int, int] = {}
    outcomes: dict[int, str] = {}
    window = 0
    before = "I"
    for sent in shared.written:
        if sent.collection != MIGRATIONS:
            continue
        epoch, phase = sent.body["epoch"], sent.body["phase"]
        assert drivers.setdefault(epoch, sent.body.get("run")) == sent.body.get("run"), (
            f"two runs write under epoch {epoch}"
        )
        window += before == "I" and phase == "W"
        before = phase
        for outcome in (COMMITTED, UNDOING):
            if phase in outcome:
                assert outcomes.setdefault(window, str(outcome)) == str(outcome), f"window {window} is done and undone"


def assert_told_the_truth(shared: SharedStore, run: Run) -> None:
    """What a run says when it gives up."""
    if run.crash:
        raise run.crash
    written = [sent.body for sent in shared.written if sent.collection == MIGRATIONS]
    mine = [body["phase"] for body in written if body.get("run") == run.number]
    details = run.error.details if run.error else {}
    if details.get("undone"):
        assert "U" in mine
        assert "K" not in mine
    if isinstance(run.error, Superseded):
        assert any(body.get("run") != run.number for body in written), "superseded by nobody"
    if details.get("unknown", "").startswith(MIGRATIONS):
        assert not details.get("undone")
    elif not run.died:
        now = shared.documents[MIGRATIONS, "a--b"]
        secret = [
            sent.body["phase"]
            for sent in shared.late
            if sent.body.get("run") == run.number and (sent.name, sent.revision) == (now.name, now.revision)
        ]
        assert {*secret} <= {now.body["phase"]}, f"{secret} may still land, and nobody was told"


@hypothesis_settings(max_examples=150, deadline=None, database=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([("switch",), ("switch", "switch"), ("switch", "abort")]),
    st.booleans(),
    st.booleans(),
)
def test_two_runs_never_share_an_epoch_and_never_commit_and_undo(
    seed: int, wants: tuple[str, ...], refuses: bool, patient: bool
) -> None:
    with patched(patient):
        small, shared, runs = play(Chance(seed), wants, refuses)
        assert_one_driver_and_one_outcome(shared)
        for run in runs:
            assert_told_the_truth(shared, run)
        # The same command, alone, brings everything to rest, whatever has landed before it; then all goes back.
        small.log.failures.clear()
        for goal in (B, A):
            shared.some_land()
            small.cutover().switch(goal, int, force=True)
            assert_one_driver_and_one_outcome(shared)
        assert shared.land() == []
        small.assert_agreed(A)
