# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cutover protocol, in the order in which it happens.

==  ===================================================  =======================  ==============================
#   step                                                 writes to                a re-run that finds the phase
==  ===================================================  =======================  ==============================
0   claim                                                store                    claims again
1   take over: epoch + 1, I becomes W                    journal                  next epoch, the phase stays
2   take over                                            participants             an older epoch is refused
3   take over                                            routers                  an older epoch is refused
4   block with leases                                    routers                  W: U1, then a fresh window
5   drain, quiesce, prelude                              nothing
6   W becomes C, before the first far block              journal                  C: goes on at 7
7   close: far deadlines                                 routers
8   drain again                                          journal: the evidence
9   barrier; its fences are looked at once more          participants
10  COMMIT: C becomes K, canonical = to                  journal                  K: goes on at 11
11  mapping documents                                    store
12  turn                                                 participants
13  map                                                  routers
14  K becomes R                                          journal                  R: 13, 15, 16
15  release                                              routers
16  R becomes I                                          journal                  I: nothing, or the next window
U1  W or C becomes U, before anything is undone          journal                  U: goes on at U2
U2  undo                                                 participants
U3  map back                                             routers
U4  U becomes V                                          journal                  V: U3, U5, U6
U5  release                                              routers
U6  V becomes I                                          journal
==  ===================================================  =======================  ==============================

A process that dies before step 6 leaves leases that end by themselves; between 6 and 10 the routers fail closed until
its guardian or the same command finishes or undoes; from 10 on it can only be finished. Each rule stands for an
accident that a model of this table found (tests/model). The window runs in one process; reverse is the same table with
the roles exchanged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import (
    Superseded,
    Unreachable,
    ZdmError,
)
from ansible_collections.zdm.landscape.plugins.module_utils.migration import journal as phases
from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import begins_again
from ansible_collections.zdm.landscape.plugins.module_utils.migration.mapping import write_documents
from ansible_collections.zdm.landscape.plugins.module_utils.migration.window import Outcome, Window
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import Participant
from ansible_collections.zdm.landscape.plugins.module_utils.tenants.tenant import Tenant

Step = Callable[["Cutover"], None]
Steps = tuple[Step, ...]


class Cutover(Window):
    """One migration's window, forward or reverse, run by one process; see :class:`Window` for its parts."""

    # ------------------------------------------------------------------------------------- what a person asks for

    @begins_again
    def switch(self, to: Tenant, preflight: Callable[[], int], *, force: bool = False) -> Outcome:
        """Make *to* the live tenant: finish or undo what an earlier run left, then open at most one window.

        :param preflight: called before a window is opened, changes nothing; raises to refuse, returns the predicted
            window in ms.
        :param force: take over a run that is alive.
        :raises Superseded: another controller took over; nothing more was touched.
        :raises ZdmError: ``details["undone"]`` tells that all is as before, ``details["unknown"]`` names a document of
            which nobody knows whether it was written; in either case the same command goes on later.
        """
        self.journal.read()
        while (found := (self.journal.phase, self.journal.canonical)) != (phases.IDLE, to.id):
            opens = self.journal.phase == phases.IDLE
            if opens:
                self.predicted_window_ms = preflight()
                self.journal.read()  # The preflight may have applied the log, under an epoch of its own.
                if (self.journal.phase, self.journal.canonical) != found:
                    continue
            self._drive(to, force)
            if opens:
                break
        return self._report()

    @begins_again
    def abort(self, *, force: bool = False, of_epoch: int = 0) -> Outcome:
        """Undo an open window; a committed one is finished instead. At I nothing is done. With *of_epoch* only that
        epoch's.
        """
        self.journal.read()
        if self.journal.phase != phases.IDLE:
            self._drive(None, force, of_epoch)
        return self._report()

    # ------------------------------------------------------------------------------------------------ the way to go on

    def _drive(self, to: Tenant | None, force: bool, of_epoch: int = 0) -> None:
        """Take over (steps 0 to 3), then do the one legal next thing of the phase that was found."""
        found = self.journal.phase
        self._list_parties()
        self.claims.take(self.parties)  # 0
        self._owned = False
        live, goal = (self._other(to), to) if to else (self.parties.source, self.parties.target)
        with self.claims.given_back_without_the_migration():
            self.journal.take_over(
                open_window=found == phases.IDLE, move_from=live.id, move_to=goal.id, force=force, of_epoch=of_epoch
            )  # 1
        self.outcome.changed = True
        if found != phases.IDLE:
            self.outcome.recovered.append(found)
        with (
            self.journal.heartbeat(),
            ThreadPoolExecutor(max(1, len(self.participants)), "zdm-participant") as self._pool,
        ):
            try:
                # A window that another run has left in W may be days old, and tables have changed since its preflight:
                # it is undone.
                self._go_on(to is not None and self.journal.body["to"] == to.id and found != phases.WINDOW)
            finally:
                self._lease.stop()
                self._leave()

    def _go_on(self, wanted: bool) -> None:
        phase = self.journal.phase
        if phase in (phases.WINDOW, phases.CLOSED):
            try:
                self._take_over_systems()
                if wanted:
                    self._run((*(self._OPEN if phase == phases.WINDOW else ()), *self._SWITCH))
            except Superseded:
                raise
            except ZdmError as error:
                return self._undo_because(error)
            except Exception as error:  # Whatever went wrong, the tenant must be served again.
                return self._undo_because(
                    ZdmError(f"Unexpected {type(error).__name__}: {error}.", "Report this as a bug.")
                )
            return self._finish(self._FINISH) if wanted else self._undo_because()
        self._take_over_systems()
        if phase in (phases.UNDOING, phases.UNDONE):
            return self._finish(self._UNDO if phase == phases.UNDOING else self._REDO_UNDONE)
        return self._finish(self._FINISH if phase == phases.COMMITTED else self._REDO_RELEASED)

    def _take_over_systems(self) -> None:
        self._list_parties()  # Listed again after step 1: an account may have been onboarded in between.
        self.claims.confirm(self.parties)
        self._each(lambda participant: participant.take_over(self.move))  # 2
        self._owned = True
        self.fleet.take_over(self.journal.key, self.journal.epoch)  # 3

    def _undo_because(self, error: ZdmError | None = None) -> None:
        """Undo; then raise *error*, if there is one, with what became of the window."""
        self._lease.stop()
        try:
            self._undo()
        except Superseded:
            raise
        except ZdmError as obstacle:
            told, why = error or obstacle, f": {obstacle.message}" if error else "."
            raise type(told)(
                told.message,
                f"{self._held()}{why} Run the same command again when that is mended.",
                **{**told.details, **_unknown(obstacle), "undone": False, "phase": self.journal.phase},
            ) from obstacle
        if error is None or self.journal.canonical != self.journal.body["from"]:
            return  # Nothing went wrong; or the commit had happened, and it was finished.
        if _unknown(error).get("unknown") == self.journal.path:  # Since the undo began, that write can't land any more.
            message = f"{self.journal.path} could not be written: {self.store.describe()} gave no answer."
            error = Unreachable(message, "Check the config store, then run the same command again.")
        raise type(error)(
            error.message,
            f"{error.advice} The window was undone: all is as before.".strip(),
            **{**error.details, "undone": True},
        ) from error

    def _held(self) -> str:
        """What a window has come to whose undo met an obstacle."""
        if self.journal.phase == phases.WINDOW:
            return f"Nothing was fenced; the blocks end by themselves within {self.policy.lease_ms} ms"
        return f"The undo did not finish, the tenants stay held ({self.journal.may_be})"

    def _undo(self) -> None:
        """U1, then U2 to U6; when it finds that the commit happened after all, it finishes instead."""
        if self.journal.phase == phases.WINDOW:
            self.fleet.states()  # One that does not answer: stay in W, where the leases end by themselves.
        # Nothing is read before: a commit without an answer could land after the read. U1 is written over it.
        begun = self._patiently(lambda: self.journal.begin_undo(**self._accounts()))  # U1
        return self._finish(self._UNDO if begun else self._FINISH)

    def _finish(self, steps: Sequence[Step]) -> None:
        """Steps that can only go one way: a system that does not answer is asked again for a while."""
        for step in steps:
            self._patiently(partial(self._run, (step,)))

    # --------------------------------------------------------------------------------- the steps, in their order

    def _step_block(self) -> None:  # 4
        self._started = time.monotonic()
        self._lease.start(self.journal.key, self.journal.epoch, self.parties.ids)

    def _step_drain(self) -> None:  # 5
        self.fleet.drain(self.parties.ids, self.policy.drain_timeout_ms)

    def _step_prelude(self) -> None:  # 5
        self._each(lambda participant: participant.prelude(self.move, self.policy.drain_timeout_ms))

    def _step_journal_closed(self) -> None:  # 6
        self._within_budget()
        self.journal.advance(phases.WINDOW, phases.CLOSED, **self._accounts())

    def _step_close(self) -> None:  # 7
        self._started = self._started or time.monotonic()
        self._lease.stop()
        self.fleet.close(self.journal.key, self.journal.epoch, self.parties.ids, self.policy.mode)

    def _step_drain_again(self) -> None:  # 8
        self.fleet.drain(self.parties.ids, self.policy.drain_timeout_ms)
        self.journal.note(drained_epoch=self.journal.epoch)

    def _step_barrier(self) -> None:  # 9
        left = self._within_budget()
        prints = self._each(lambda participant: participant.barrier(self.move, left))
        self._fingerprints = {
            participant.name: value for participant, value in zip(self.participants, prints, strict=True)
        }

    def _step_confirm(self) -> None:  # 9, as late as can be: a fence that was switched off since loses late writes
        self._each(lambda participant: participant.confirm(self.move))

    def _step_commit(self) -> None:  # 10
        self._within_budget()
        self.journal.advance(
            phases.CLOSED,
            phases.COMMITTED,
            canonical=self.journal.body["to"],
            fingerprints=self._fingerprints,
            committed_at_ms=int(time.time() * 1000),
        )

    def _step_documents(self) -> None:  # 11
        self._list_parties()
        self.claims.confirm(self.parties)
        write_documents(self.store, self.journal, self.parties, self._tenant(self.journal.canonical))

    def _step_turn(self) -> None:  # 12
        self._each(lambda participant: participant.turn(self.move))

    def _step_map(self) -> None:  # 13
        self.fleet.map(self.journal.key, self.journal.epoch, self.parties.overrides(self.journal.body["to"]))

    def _step_journal_released(self) -> None:  # 14
        self.journal.advance(phases.COMMITTED, phases.RELEASED, **self._accounts())

    def _step_release(self) -> None:  # 15, U5
        self.fleet.release(self.journal.key, self.journal.epoch, self.parties.ids)

    def _step_journal_idle(self) -> None:  # 16
        self.outcome.window_ms = self._elapsed_ms() if self._started else 0
        self.journal.advance(phases.RELEASED, phases.IDLE, windows=self._with_this_window())

    def _step_undo(self) -> None:  # U2
        # From W nothing was fenced anywhere: a database that is down must not keep the tenant from being served.
        if self.journal.body.get("undo_from") != phases.WINDOW:
            self._each(self._undo_participant)

    def _undo_participant(self, participant: Participant) -> None:
        # When the take over failed somewhere, an undo that finds nothing to do must still shut out older epochs.
        if not self._owned:
            participant.take_over(self.move)
        participant.undo(self.move)

    def _step_map_back(self) -> None:  # U3
        self.fleet.map(self.journal.key, self.journal.epoch, self.parties.overrides(self.journal.body["from"]))

    def _step_journal_undone(self) -> None:  # U4
        self.journal.advance(phases.UNDOING, phases.UNDONE)

    def _step_journal_undone_idle(self) -> None:  # U6
        self.journal.advance(phases.UNDONE, phases.IDLE)

    # What a run does from a phase, in this order.
    _OPEN: ClassVar[Steps] = (_step_block, _step_drain, _step_prelude, _step_journal_closed)
    _SWITCH: ClassVar[Steps] = (_step_close, _step_drain_again, _step_barrier, _step_confirm, _step_commit)
    _FINISH: ClassVar[Steps] = (
        _step_documents,
        _step_turn,
        _step_map,
        _step_journal_released,
        _step_release,
        _step_journal_idle,
    )
    _REDO_RELEASED: ClassVar[Steps] = (_step_map, _step_release, _step_journal_idle)
    _UNDO: ClassVar[Steps] = (
        _step_undo,
        _step_map_back,
        _step_journal_undone,
        _step_release,
        _step_journal_undone_idle,
    )
    _REDO_UNDONE: ClassVar[Steps] = (_step_map_back, _step_release, _step_journal_undone_idle)


def _unknown(error: ZdmError) -> dict[str, Any]:
    """The document of which *error* says that nobody knows whether it was written."""
    return {key: value for key, value in error.details.items() if key == "unknown"}
