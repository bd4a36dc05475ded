# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replay a recorded trace of the real system as a path of the model.

A controller's entries must match its transitions one by one; what nobody sees (a decision, a delayed write that lands,
a router that has started, what a killed process still had under way) is inserted where it is needed. All paths that fit
are followed at once; the trace is refused at the first entry that fits none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ansible_collections.zdm.landscape.tests.model.config import Rules
from ansible_collections.zdm.landscape.tests.model.followed import THE_CODE
from ansible_collections.zdm.landscape.tests.model.protocol import Model
from ansible_collections.zdm.landscape.tests.model.state import (
    IDLE_MODES,
    NOBODY,
    Label,
    State,
    Transition,
    Write,
    put,
)
from ansible_collections.zdm.landscape.tests.model.trace import KILLED, BadTraceError, Entry, Trace, read_trace

MAX_PATHS = 50_000
CLAIMING = ("2", "3", "4", "11")
"""Steps in which accounts are listed and claimed."""


@dataclass(frozen=True)
class TraceResult:
    """``ok``: the model allows the whole trace. Else ``at`` is the number of the first entry that it does not, from
    0.
    """

    ok: bool
    at: int
    message: str


class Halt(NamedTuple):
    """Why a run goes no further than the sub-steps that it had under way in one step of one program.

    ``dead``: it was killed, nothing of it is recorded any more; else it was refused. ``excluded``: system and target of
    the write before which it was killed, so that this one did not happen.
    """

    dead: bool
    mode: str
    step: int
    excluded: tuple[str, int]


class Path(NamedTuple):
    """One way to read the trace so far; per run its :class:`Halt`, if any."""

    state: State
    halts: tuple[Halt | None, ...]


def check_trace(entries: Iterable[Mapping[str, Any]], rules: Rules = THE_CODE) -> TraceResult:
    """Whether the model allows the trace under *rules*; see :mod:`trace` for the form of its entries."""
    try:
        trace = read_trace(entries, rules)
    except BadTraceError as error:
        return TraceResult(False, error.at, f"entry {error.at} is not one of a trace: {error}")
    return _Replay(trace).run()


class _Replay:
    """One replay."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.model = Model(trace.config)
        initial = trace.config.initial()
        halts: tuple[Halt | None, ...] = (None,) * len(trace.epochs)
        self.paths = {Path(_live(initial, canonical), halts) for canonical in trace.canonical}
        self._known: dict[State, list[Transition]] = {}
        self._claimed: dict[int, str] = {}
        """Per run the last claim, as long as it has done nothing else since."""

    def run(self) -> TraceResult:
        for entry in self.trace.entries:
            before = self._closure(self.paths)
            if len(before) > MAX_PATHS:
                return TraceResult(
                    False, entry.at, f"entry {entry.at}: more than {MAX_PATHS} ways to read the trace so far"
                )
            self.paths = {after for path in before for after in self._follow(path, entry)}
            if not self.paths or not self._sorted(entry):
                return TraceResult(False, entry.at, self._complaint(before, entry))
        return TraceResult(True, len(self.trace.entries), "")

    def _transitions(self, state: State) -> list[Transition]:
        found = self._known.get(state)
        if found is None:
            found = self._known[state] = self.model.transitions(state)
        return found

    # ----------------------------------------------------------------------------------------------- what nobody sees

    def _closure(self, paths: set[Path]) -> set[Path]:
        """*paths* and all that follow from them by transitions that leave no entry."""
        seen, waiting = set(paths), list(paths)
        while waiting and len(seen) <= MAX_PATHS:
            path = waiting.pop()
            for transition in self._transitions(path.state):
                if self._unseen(path, transition.label):
                    following = path._replace(state=transition.state)
                    if following not in seen:
                        seen.add(following)
                        waiting.append(following)
        return seen

    @staticmethod
    def _unseen(path: Path, label: Label) -> bool:
        if label.actor == NOBODY:
            return label.op in ("boot", "load", "ready", "delayed write")
        halt = path.halts[label.actor]
        if halt is None:
            return label.system == "controller"
        under_way = halt.dead and _place(path, label.actor) == (halt.mode, halt.step)
        return under_way and label.outcome in ("ok", "unknown") and (label.system, label.target) != halt.excluded

    # -------------------------------------------------------------------------------------------------------- one entry

    def _follow(self, path: Path, entry: Entry) -> list[Path]:
        """The paths on which *entry* may come next after *path*."""
        if entry.system == "env":
            return self._environment(path, entry)
        halt = path.halts[entry.run]
        if halt and (halt.dead or (_place(path, entry.run) != (halt.mode, halt.step) and entry.op != "heartbeat")):
            return []
        if entry.epoch not in (0, self.trace.epochs[entry.run]) and (entry.system, entry.op) != ("store", "take_over"):
            return []
        if entry.op in ("heartbeat", "claim"):
            return self._heartbeat(path, entry) if entry.op == "heartbeat" else self._claim(path, entry)
        if entry.outcome == "failed":
            return [path] if self._matching(path, entry) else []
        return self._refused(path, entry) if entry.outcome == "refused" else self._written(path, entry)

    def _environment(self, path: Path, entry: Entry) -> list[Path]:
        if entry.op in ("start", "pause", "resume"):
            return [path] if entry.op != "start" or entry.at == 0 else []
        if entry.op == "kill":
            return [self._dead(path, entry.run)]
        found = [
            path._replace(state=t.state)
            for t in self._transitions(path.state)
            if t.label[:4] == (NOBODY, "env", entry.target, entry.op)
        ]
        at_rest = path.state.journal.phase == "I" and entry.op != "lease_end"  # there a router comes back as it was
        return found or ([path] if at_rest else [])

    def _heartbeat(self, path: Path, entry: Entry) -> list[Path]:
        """A write to the journal without a change of phase. One without an answer may land, now or later; then the next
        write is refused, and its sender reads what has landed.
        """
        state, controller = path.state, path.state.controllers[entry.run]
        own = state.journal.epoch == entry.epoch == self.trace.epochs[entry.run]
        if entry.outcome == "refused" and own:
            if controller.current and controller.mode not in IDLE_MODES:
                return []
            known = put(state.controllers, entry.run, controller._replace(current=True))
            return [path._replace(state=state._replace(controllers=known))]
        if entry.outcome in ("ok", "killed-after") and not own:
            return []
        if entry.outcome == "unknown" and own and controller.current:
            sent = Write(state.journal._replace(note=True), state.canonical)
            return [path._replace(state=state._replace(pending=tuple(sorted({*state.pending, sent}))))]
        return [self._dead(path, entry.run) if entry.outcome in KILLED else path]

    def _claim(self, path: Path, entry: Entry) -> list[Path]:
        """Claims are taken before the take over (then they carry no epoch), or for accounts that are found later."""
        if entry.epoch:
            mode, step = _place(path, entry.run)
            if mode not in self.model.programs or self.model.programs[mode][step].step.number not in CLAIMING:
                return []
        return [self._dead(path, entry.run) if entry.outcome in KILLED else path]

    def _sorted(self, entry: Entry) -> bool:
        """Claims that follow one another are taken in sorted order, so that two migrations can't each hold what the
        other needs.
        """
        last = self._claimed.pop(entry.run, "")
        if entry.op == "claim":
            self._claimed[entry.run] = entry.path
        return entry.op != "claim" or last <= entry.path  # One without an answer is written again.

    def _refused(self, path: Path, entry: Entry) -> list[Path]:
        """Nothing was written. A refusal for a newer epoch ends the run, except for sub-steps under way."""
        journal = path.state.journal
        if entry.op == "mapping_documents" or (entry.op == "take_over" and entry.system == "store"):
            return [path]
        if entry.op == "phase":
            if journal.epoch != entry.epoch:
                return [self._halted(path, entry.run)]
            # Its own write, of which it had no answer, was there first.
            return [path._replace(state=t.state) for t in self._conflicts(path, entry)]
        if any(t.label.outcome == "refused" for t in self._matching(path, entry)):
            return [self._halted(path, entry.run)]
        return []

    def _written(self, path: Path, entry: Entry) -> list[Path]:
        """It was written, or may have been, or would have been."""
        matching = self._matching(path, entry)
        if entry.outcome == "killed-before":
            return [self._dead(path, entry.run, (entry.system, entry.target))] if matching else []
        happened = [t for t in matching if t.label.outcome == "ok"]
        if entry.op == "drain" and entry.counted:
            return []
        if entry.outcome == "killed-after":
            # What it had under way beside this belongs to the same step: the place is the one before.
            return [self._dead(path, entry.run)._replace(state=t.state) for t in happened]
        after = [path._replace(state=t.state) for t in happened]
        if entry.outcome == "unknown" and happened:
            after += [path._replace(state=t.state) for t in matching if t.label.outcome == "unknown"] or [path]
        return after

    def _matching(self, path: Path, entry: Entry) -> list[Transition]:
        wanted = (entry.run, entry.system, entry.target, entry.op)
        return [t for t in self._transitions(path.state) if t.label[:4] == wanted and _agree(t.label, entry)]

    def _conflicts(self, path: Path, entry: Entry) -> list[Transition]:
        """How a run goes on whose compare-and-set from its own epoch failed; what it took for the phase before plays no
        part.
        """
        mine = (
            t for t in self._transitions(path.state) if t.label[:4] == (entry.run, entry.system, entry.target, entry.op)
        )
        return [t for t in mine if t.label.outcome == "refused" and t.label.detail[-1:] == entry.detail[-1:]]

    @staticmethod
    def _dead(path: Path, run: int, excluded: tuple[str, int] = ("", NOBODY)) -> Path:
        return path._replace(halts=put(path.halts, run, Halt(True, *_place(path, run), excluded)))

    @staticmethod
    def _halted(path: Path, run: int) -> Path:
        return path._replace(halts=put(path.halts, run, Halt(False, *_place(path, run), ("", NOBODY))))

    # ---------------------------------------------------------------------------------------------------- messages

    def _complaint(self, before: set[Path], entry: Entry) -> str:
        journals = sorted({f"{path.state.journal.phase} under epoch {path.state.journal.epoch}" for path in before})
        allowed: set[str] = set()
        for path in before:
            if entry.run != NOBODY and not path.halts[entry.run]:
                labels = (
                    t.label
                    for t in self._transitions(path.state)
                    if t.label.actor == entry.run and t.label.system != "controller"
                )
                allowed.update(
                    f"{label} (expected {label.outcome})" if label.outcome != "ok" else str(label) for label in labels
                )
        may = "; ".join(sorted(allowed)) or "nothing"
        return (
            f"entry {entry.at} ({entry.text}) is not allowed. The journal is in phase {' or '.join(journals)}; this"
            f" controller may: {may}."
        )


def _agree(label: Label, entry: Entry) -> bool:
    """Whether epoch and detail of an entry are those of a transition."""
    if entry.epoch and label.epoch != entry.epoch:
        return False
    return not entry.detail or label.detail == entry.detail


def _place(path: Path, run: int) -> tuple[str, int]:
    controller = path.state.controllers[run]
    return controller.mode, controller.step


def _live(state: State, canonical: int) -> State:
    """The initial state with another id live; strategies play no part in what a trace may contain."""
    return state._replace(
        canonical=canonical,
        documents=tuple(document._replace(leads_to=canonical) for document in state.documents),
        routers=tuple(router._replace(override=canonical) for router in state.routers),
    )
