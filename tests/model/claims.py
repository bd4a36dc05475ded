# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small model of claims: three processes of two migrations want one tenant, and any write of the claim may land late.

A claim is a document that is written by compare-and-set. Writes without an answer may land on the revision on which
they were sent; as no revision comes back, only those on the present one matter, beside creates, which land whenever
there is no document.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ansible_collections.zdm.landscape.tests.model.search import Verdict, search
from ansible_collections.zdm.landscape.tests.model.state import NOBODY, put

ABSENT, FREE = -1, 0
"""A claim's holder when it is no migration: there is no document, or one that says "free"."""

UNSTARTED, CLAIM, TAKE_OVER, AGAIN, CLAIM_AGAIN, WORK, GIVE_BACK, LEAVE = range(8)
"""Where a process is: before anything, it writes the claim, takes the journal over, looks at the claim again under its
epoch, writes it again, works; it gives the claim back after an undo, or as it was superseded."""
COMMITTED, GONE, REFUSED, DEAD = range(8, 12)

TWO_COMMITTED = "two migrations of one tenant committed"
HELD_FOR_EVER = "the tenant stays claimed by a migration that gave it back"


class Claim(NamedTuple):
    holder: int
    epoch: int
    writer: int
    place: int


class Process(NamedTuple):
    """``current``: the revision of the claim that it knows is the present one; ``asking``: the answer to a write never
    came.
    """

    place: int
    epoch: int
    current: bool
    asking: bool


class Landscape(NamedTuple):
    """``late``: writes under way, each on no document (true) or on the present one; ``epochs``, ``committed``: of both
    journals.
    """

    claim: Claim
    late: tuple[tuple[bool, Claim], ...]
    epochs: tuple[int, ...]
    committed: tuple[bool, ...]
    processes: tuple[Process, ...]
    losses: int


@dataclass(frozen=True)
class Rules:
    """The rules of claims, each of which can be switched off."""

    carry_epochs: bool = True
    written_again_after_the_take_over: bool = True
    looked_at_after_the_take_over: bool = True
    given_back_by_writing: bool = True
    superseded_gives_back_only_its_own: bool = True
    settled: bool = True


class Claims:
    """The model.

    :param migrations: of each process, 1 or 2.
    :param losses: how many answers are lost.
    """

    def __init__(self, rules: Rules, migrations: tuple[int, ...] = (1, 1, 2), losses: int = 1) -> None:
        self.rules = rules
        self.migrations = migrations
        self.first = Landscape(
            Claim(ABSENT, 0, NOBODY, 0),
            (),
            (0, 0),
            (False, False),
            (Process(UNSTARTED, 0, False, False),) * len(migrations),
            losses,
        )

    def explore(self) -> Verdict:
        return search(self.first, self.transitions, self.broken)

    def broken(self, state: Landscape) -> str:
        if all(state.committed):
            return TWO_COMMITTED
        holder = state.claim.holder
        if holder < 1 or state.late or state.committed[holder - 1]:
            return ""
        places = {
            process.place
            for process, migration in zip(state.processes, self.migrations, strict=True)
            if migration == holder
        }
        return HELD_FOR_EVER if GONE in places and places <= {GONE, REFUSED} else ""

    def transitions(self, state: Landscape) -> list[tuple[str, Landscape]]:
        out = [
            ("a late write of the claim lands", self._landed(state, late[1]))
            for late in state.late
            if late[0] == (state.claim.holder == ABSENT)
        ]
        for index, process in enumerate(state.processes):
            if process.place in (UNSTARTED, AGAIN):
                out.append(self._look(state, index, process))
            elif process.place == TAKE_OVER:
                out.append(self._take_over(state, index))
            elif process.place == WORK:
                out += self._work(state, index, process)
            elif process.place < COMMITTED:
                out += self._write(state, index, process)
        return out

    # ------------------------------------------------------------------------------------------------- one process

    def _say(self, index: int, what: str) -> str:
        return f"process {index + 1} of migration {self.migrations[index]} {what}"

    @staticmethod
    def _become(state: Landscape, index: int, process: Process) -> Landscape:
        return state._replace(processes=put(state.processes, index, process))

    def _look(self, state: Landscape, index: int, process: Process) -> tuple[str, Landscape]:
        """The claim is read: before the take over one of the own migration will do, after it only one under the own
        epoch.
        """
        claim, again = state.claim, process.place == AGAIN
        done, write = (WORK, CLAIM_AGAIN) if again else (TAKE_OVER, CLAIM)
        place, what = write, "finds it free"
        if claim.holder == 3 - self.migrations[index]:
            place, what = REFUSED, "finds the other migration's claim"
        elif claim.holder == self.migrations[index]:
            if again and self.rules.carry_epochs and claim.epoch > process.epoch:
                place, what = REFUSED, "finds a newer epoch's claim: superseded"
            elif (claim.writer, claim.place, claim.epoch) == (index, write, process.epoch):
                place, what = done, "finds the claim that it wrote"
            elif not again or not self.rules.written_again_after_the_take_over:
                place, what = done, "trusts its migration's claim"
            else:
                what = "finds its migration's claim"
        return self._say(index, what), self._become(state, index, Process(place, process.epoch, True, False))

    def _take_over(self, state: Landscape, index: int) -> tuple[str, Landscape]:
        journal = self.migrations[index] - 1
        epoch = state.epochs[journal] + 1
        place = AGAIN if self.rules.looked_at_after_the_take_over else WORK
        taken = state._replace(epochs=put(state.epochs, journal, epoch))
        process = state.processes[index]._replace(place=place, epoch=epoch)
        return self._say(index, f"takes over, epoch {epoch}"), self._become(taken, index, process)

    def _work(self, state: Landscape, index: int, process: Process) -> list[tuple[str, Landscape]]:
        journal = self.migrations[index] - 1
        if state.epochs[journal] != process.epoch:
            return [(self._say(index, "is superseded"), self._become(state, index, process._replace(place=LEAVE)))]
        committed = state._replace(committed=put(state.committed, journal, True))
        out = [(self._say(index, "commits"), self._become(committed, index, process._replace(place=COMMITTED)))]
        if not state.committed[journal]:
            out.append((self._say(index, "undoes"), self._become(state, index, process._replace(place=GIVE_BACK))))
        return out

    def _write(self, state: Landscape, index: int, process: Process) -> list[tuple[str, Landscape]]:
        """It claims, or gives back: the write is done, fails as another was first, or its answer is lost while it is
        under way.
        """
        giving_back = process.place in (GIVE_BACK, LEAVE)
        holder = self.migrations[index] if not giving_back else FREE if self.rules.given_back_by_writing else ABSENT
        new = Claim(holder, process.epoch, index, process.place)
        what = "gives the claim back" if giving_back else "claims"
        following = {CLAIM: TAKE_OVER, CLAIM_AGAIN: WORK}.get(process.place, GONE)
        if not process.current:
            return [self._conflict(state, index, process, what)]
        landed = self._landed(state, new)
        out = [(self._say(index, what), self._become(landed, index, Process(following, process.epoch, True, False)))]
        late = (state.claim.holder == ABSENT, new)
        if state.losses and late not in state.late:
            lost = state._replace(late=tuple(sorted((*state.late, late))), losses=state.losses - 1)
            out.append(
                (self._say(index, f"{what}: no answer"), self._become(lost, index, process._replace(asking=True)))
            )
            if giving_back:
                out.append(
                    (
                        self._say(index, f"{what}: no answer, and dies"),
                        self._become(lost, index, Process(DEAD, 0, False, False)),
                    )
                )
        if process.asking and not self.rules.settled:
            out.append(
                (self._say(index, "gives up: not claimed"), self._become(state, index, Process(GONE, 0, False, False)))
            )
        return out

    def _conflict(self, state: Landscape, index: int, process: Process, what: str) -> tuple[str, Landscape]:
        """Another write was first: read the claim again."""
        claim, mine = state.claim, state.claim.holder == self.migrations[index]
        if process.place in (CLAIM, CLAIM_AGAIN):
            place = UNSTARTED if process.place == CLAIM else AGAIN
            return self._say(index, f"{what}: conflict"), self._become(
                state, index, Process(place, process.epoch, False, False)
            )
        newer = self.rules.carry_epochs and claim.epoch > process.epoch
        again = mine and (
            claim.writer == index or (process.place == GIVE_BACK and self.rules.carry_epochs and not newer)
        )
        again = again or (mine and process.place == LEAVE and not self.rules.superseded_gives_back_only_its_own)
        process = process._replace(current=True) if again else Process(GONE, 0, False, False)
        return self._say(index, f"{what}: conflict, {'again' if again else 'not its own any more'}"), self._become(
            state, index, process
        )

    def _landed(self, state: Landscape, new: Claim) -> Landscape:
        """A new revision: nobody knows it yet; of the writes under way only creates can land later, when it is
        deleted.
        """
        late = tuple(each for each in state.late if each[0] and each[1] != new and not self.rules.given_back_by_writing)
        return state._replace(
            claim=new, late=late, processes=tuple(process._replace(current=False) for process in state.processes)
        )
