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
9   barrier                                              participants
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
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import (
    Superseded,
    Timeout,
    Unreachable,
    ZdmError,
)
from ansible_collections.zdm.landscape.plugins.module_utils.migration import journal as phases
from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import Journal, Tenant
from ansible_collections.zdm.landscape.plugins.module_utils.migration.lease import LeaseKeeper
from ansible_collections.zdm.landscape.plugins.module_utils.migration.mapping import (
    Parties,
    aliases_of,
    claim,
    write_documents,
)
from ansible_collections.zdm.landscape.plugins.module_utils.migration.policy import Policy
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import Move, Participant
from ansible_collections.zdm.landscape.plugins.module_utils.router.fleet import Fleet
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import Store

_OPEN = ("block", "drain", "prelude", "journal_closed")
_SWITCH = ("close", "drain_again", "barrier", "commit")
_FINISH = ("documents", "turn", "map", "journal_released", "release", "journal_idle")
_REDO_RELEASED = ("map", "release", "journal_idle")
_UNDO = ("undo", "map_back", "journal_undone", "release", "journal_undone_idle")
_REDO_UNDONE = ("map_back", "release", "journal_undone_idle")

PATIENCE_MS = 10_000
"""How long a step that can only go one way is repeated while a system does not answer."""


@dataclass
class Outcome:
    """What a run did. ``window_ms`` is 0 when it switched nothing."""

    changed: bool = False
    phase: str = phases.IDLE
    canonical: str = ""
    epoch: int = 0
    window_ms: int = 0
    timeline: list[dict[str, Any]] = field(default_factory=list)
    recovered: list[str] = field(default_factory=list)
    """The phases that earlier runs had left and that this run finished or undid."""


class Cutover:
    """One migration's window, forward or reverse, run by one process.

    :param store: the config store.
    :param fleet: all routers.
    :param participants: all participants.
    :param source, target: the migration's tenants, the same in both directions.
    :param policy: leases, time-outs, budget.
    :param interrupted: asked before every step up to the close; true undoes the window.
    :param tell: gets every step when it is done, as in the timeline; it must neither raise nor take time.
    """

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        participants: Sequence[Participant],
        source: Tenant,
        target: Tenant,
        policy: Policy,
        interrupted: Callable[[], bool] = lambda: False,
        tell: Callable[[dict[str, Any]], object] = lambda _step: None,
    ) -> None:
        self.store = store
        self.fleet = fleet
        self.participants = participants
        self.policy = policy
        self.interrupted = interrupted
        self.tell = tell
        self.journal = Journal(store, source, target)
        self.parties = Parties(source, target)
        self.outcome = Outcome()
        self.predicted_window_ms = 0
        self._pool: ThreadPoolExecutor
        self._fingerprints: dict[str, Any] = {}
        self._owned = False
        self._lease = LeaseKeeper(fleet, policy.lease_ms, policy.mode)
        self._started = 0.0

    # ------------------------------------------------------------------------------------- what a person asks for

    def switch(self, to: Tenant, preflight: Callable[[], int], *, force: bool = False) -> Outcome:
        """Make *to* the live tenant: finish or undo what an earlier run left, then open at most one window.

        :param preflight: called before a window is opened, changes nothing; raises to refuse, returns the predicted
            window in ms.
        :param force: take over a run that is alive.
        :raises Superseded: another controller took over; nothing more was touched.
        :raises ZdmError: ``details["undone"]`` tells that all is as before; otherwise the same command goes on later.
        """
        self.journal.read()
        while not (self.journal.phase == phases.IDLE and self.journal.canonical == to.id):
            opens = self.journal.phase == phases.IDLE
            if opens:
                self.predicted_window_ms = preflight()
            self._drive(to, force)
            if opens:
                break
        return self._report()

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
        self.outcome.changed = True
        if found != phases.IDLE:
            self.outcome.recovered.append(found)
        self._list_parties()
        claim(self.store, self.journal, self.parties)  # 0
        self._owned = False
        live, goal = (self._other(to), to) if to else (self.parties.source, self.parties.target)
        self.journal.take_over(
            open_window=found == phases.IDLE, move_from=live.id, move_to=goal.id, force=force, of_epoch=of_epoch
        )  # 1
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
                if not wanted:
                    return self._undo()
                self._run((*(_OPEN if phase == phases.WINDOW else ()), *_SWITCH))
            except Superseded:
                raise
            except ZdmError as error:
                return self._undo_because(error)
            except Exception as error:  # Whatever went wrong, the tenant must be served again.
                return self._undo_because(
                    ZdmError(f"Unexpected {type(error).__name__}: {error}.", "Report this as a bug.")
                )
            return self._finish(_FINISH)
        self._take_over_systems()
        if phase in (phases.UNDOING, phases.UNDONE):
            return self._finish(_UNDO if phase == phases.UNDOING else _REDO_UNDONE)
        return self._finish(_FINISH if phase == phases.COMMITTED else _REDO_RELEASED)

    def _take_over_systems(self) -> None:
        self._list_parties()  # Listed again after step 1: an account may have been onboarded in between.
        claim(self.store, self.journal, self.parties)
        self._each(lambda participant: participant.take_over(self.move))  # 2
        self._owned = True
        self.fleet.take_over(self.journal.key, self.journal.epoch)  # 3

    def _undo_because(self, error: ZdmError) -> None:
        """Undo, then raise *error* with what became of the window."""
        self._lease.stop()
        try:
            self._undo()
        except ZdmError as obstacle:
            if self.journal.phase == phases.WINDOW:
                held = f"Nothing was fenced; the blocks end by themselves within {self.policy.lease_ms} ms"
            else:
                held = f"The undo did not finish, the tenants stay held ({phases.PHASES[self.journal.phase]})"
            raise type(error)(
                error.message,
                f"{held}: {obstacle.message} Run the same command again when that is mended.",
                **{**error.details, "undone": False, "phase": self.journal.phase},
            ) from obstacle
        if self.journal.canonical != self.journal.body["from"]:
            return  # The commit had happened; it was finished.
        raise type(error)(
            error.message,
            f"{error.advice} The window was undone: all is as before.".strip(),
            **{**error.details, "undone": True},
        ) from error

    def _undo(self) -> None:
        """U1, then U2 to U6; when it finds that the commit happened after all, it finishes instead."""
        self._patiently(self.journal.reread_own)
        if self.journal.phase == phases.COMMITTED:
            return self._finish(_FINISH)
        phase = self.journal.phase
        if phase == phases.WINDOW:
            self.fleet.states()  # One that does not answer: stay in W, where the leases end by themselves.
        self._patiently(lambda: self.journal.advance(phase, phases.UNDOING, undo_from=phase, **self._accounts()))  # U1
        return self._finish(_UNDO)

    def _finish(self, steps: Sequence[str]) -> None:
        """Steps that can only go one way: a system that does not answer is asked again for a while."""
        for step in steps:
            self._patiently(lambda step=step: self._run((step,)))  # type: ignore[misc]

    # ------------------------------------------------------------------------------------------ the steps, in their
    # order

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
        claim(self.store, self.journal, self.parties)
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

    # ------------------------------------------------------------------------------------------------------- machinery

    @property
    def move(self) -> Move:
        """The direction of the journal's window under this controller's epoch."""
        body, parties = self.journal.body, self.parties
        return Move(
            self.journal.key, self.journal.epoch, parties.source.id, parties.target.id, body["from"], body["to"]
        )

    def _run(self, steps: Sequence[str]) -> None:
        for step in steps:
            if self.journal.lost:
                raise self.journal.lost
            if self.interrupted() and self.journal.phase == phases.WINDOW:
                raise Timeout(
                    f"The window of {self.journal.key} was interrupted before {step}.",
                    "Run the same command again when you like.",
                )
            begin = time.monotonic()
            getattr(self, f"_step_{step}")()
            at = (begin - self._started) * 1000 if self._started else 0.0
            self.outcome.timeline.append(
                {"step": step, "at_ms": round(at, 1), "ms": round((time.monotonic() - begin) * 1000, 1)}
            )
            self.tell(self.outcome.timeline[-1])

    def _each(self, verb: Callable[[Participant], Any]) -> list[Any]:
        """Do the same at all participants at once and wait for all, also when one fails."""
        futures = [self._pool.submit(verb, participant) for participant in self.participants]
        wait(futures)
        errors = [error for error in (future.exception() for future in futures) if error]
        if errors:
            raise next((error for error in errors if isinstance(error, Superseded)), errors[0])
        return [future.result() for future in futures]

    def _patiently(self, action: Callable[[], None]) -> None:
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while True:
            try:
                return action()
            except (Unreachable, Timeout):
                if time.monotonic() > deadline or self.journal.lost:
                    raise
                time.sleep(0.2)

    def _list_parties(self) -> None:
        """The accounts that share the data now, and those that an earlier run has blocked."""
        found = aliases_of(self.store, self.journal)
        self.parties = Parties(self.parties.source, self.parties.target, found)

    def _accounts(self) -> dict[str, Any]:
        """What the journal must know of the aliases: routers that start block them, a later run releases them."""
        accounts = [asdict(alias) for alias in self.parties.aliases]
        return {"aliases": [account["id"] for account in accounts], "accounts": accounts}

    def _tenant(self, tenant_id: str) -> Tenant:
        return self.parties.source if tenant_id == self.parties.source.id else self.parties.target

    def _other(self, tenant: Tenant) -> Tenant:
        return self.parties.target if tenant == self.parties.source else self.parties.source

    def _elapsed_ms(self) -> int:
        return round((time.monotonic() - self._started) * 1000)

    def _within_budget(self) -> int:
        """Milliseconds left of the budget; the undo must fit in it too."""
        left = self.policy.window_budget_ms - self._elapsed_ms()
        if left <= 0:
            message = f"The window of {self.journal.key} went over its budget of {self.policy.window_budget_ms} ms."
            raise Timeout(message, "Find out what was slow in the timeline.", timeline=self.outcome.timeline)
        return left

    def _with_this_window(self) -> list[dict[str, Any]]:
        return self.journal.record_window(
            {
                "direction": "forward" if self.journal.canonical == self.parties.target.id else "reverse",
                "epoch": self.journal.epoch,
                "window_ms": self.outcome.window_ms,
                "predicted_window_ms": self.predicted_window_ms,
                "timeline": self.outcome.timeline,
            }
        )

    def _leave(self) -> None:
        """Let the next run begin at once; whoever was superseded leaves no trace."""
        try:
            self.journal.release_owner()
        except ZdmError:
            return  # The owner's heartbeat goes stale by itself.

    def _report(self) -> Outcome:
        self.outcome.phase = self.journal.phase
        self.outcome.canonical = self.journal.canonical
        self.outcome.epoch = self.journal.epoch
        return self.outcome
