# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The entries of a recorded trace: what a real run wrote to which system, in the order in which it happened.

An entry is a JSON object. ``t`` (seconds) is for people; the order of the entries counts.

- ``controller``: the name of a process; a new take over begins a new run, also under an old name.
- ``system``, ``target``, ``op``: store (path of the document): take_over with ``before`` and ``after``, and
  ``rehearsal`` (true when it opens one; may be missing), phase with ``from`` and ``to``, heartbeat, claim,
  mapping_documents; router (its name): take_over, lease, close, drain with ``count``, map with ``to`` = source or
  target, release; participant (its name): take_over, prelude, barrier, turn, undo; env: start with ``routers``,
  ``participants`` (name → strategy), ``canonical`` (source or target) and ``epoch``, all optional; kill, pause and
  resume of ``controller``; lease_end, restart and reload of the router ``target``.
- ``epoch``: the controller's; may be missing for a drain, which writes nothing, and for the claims before the take
  over.
- ``outcome``: ok (also when missing); refused (an older epoch, or a compare-and-set that failed: nothing was written);
  failed (nothing was written, for another reason); unknown (may have been written); killed-before, killed-after.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.zdm.landscape.tests.model.config import ABORT, REHEARSE, STAGE_JOB, UNLIMITED, Config, Rules
from ansible_collections.zdm.landscape.tests.model.state import IDS, IN_PLACE, NOBODY, SOURCE, TARGET
from ansible_collections.zdm.landscape.tests.model.table import JOURNAL, STEPS

OPS: Mapping[str, frozenset[str]] = {
    "store": frozenset({"take_over", "phase", "heartbeat", "claim", "mapping_documents"}),
    "router": frozenset({"take_over", "lease", "close", "drain", "map", "release"}),
    "participant": frozenset({"take_over", "prelude", "barrier", "turn", "undo"}),
    "env": frozenset({"start", "kill", "pause", "resume", "lease_end", "restart", "reload"}),
}
OUTCOMES = frozenset({"ok", "refused", "failed", "unknown", "killed-before", "killed-after"})
HAPPENED = frozenset({"ok", "unknown", "killed-after"})
KILLED = frozenset({"killed-before", "killed-after"})
JOURNAL_STEPS = frozenset(number for number, step in STEPS.items() if step.target == JOURNAL)


class BadTraceError(Exception):
    """The entry *at* can't be read as one of a trace."""

    def __init__(self, at: int, message: str) -> None:
        super().__init__(message)
        self.at = at


class Entry(NamedTuple):
    """One entry, with its names replaced by the model's numbers.

    ``run``: the number of the controller's run; ``detail``: what the model's label says beside the op; ``epoch``: 0
    when it was not given; ``counted``: what a drain counted.
    """

    at: int
    text: str
    run: int
    system: str
    target: int
    op: str
    detail: str
    epoch: int
    outcome: str
    counted: int
    path: str


class Trace(NamedTuple):
    """A trace that could be read. ``epochs``: of each run's take over, 0 when it has none; ``config``: the model for
    it.
    """

    entries: tuple[Entry, ...]
    epochs: tuple[int, ...]
    config: Config
    canonical: tuple[int, ...]
    """The ids of which one was live at the beginning."""


class _Names:
    """Numbers for names, in the order in which they appear."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.known: dict[str, int] = {name: number for number, name in enumerate(names)}

    def number(self, name: str) -> int:
        return self.known.setdefault(name, len(self.known))


class _Runs:
    """Which run of which controller an entry belongs to."""

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self._current: dict[str, int] = {}
        self._over: set[str] = set()

    def of(self, controller: str, op: str, epoch: int, outcome: str, store: bool) -> int:
        taking_over = store and op == "take_over"
        if controller not in self._current or (taking_over and controller in self._over):
            self._current[controller] = len(self.epochs)
            self._over.discard(controller)
            self.epochs.append(0)
        run = self._current[controller]
        if taking_over and outcome in HAPPENED:
            self.epochs[run] = epoch
        # A take over without an answer is sent again by the same run; one after a take over that it got is a new run's.
        begun = outcome == "ok" if taking_over else self.epochs[run] > 0
        if begun or op == "kill" or outcome in KILLED:
            self._over.add(controller)
        return run


def read_trace(raw: Iterable[Mapping[str, Any]], rules: Rules) -> Trace:
    """Read the entries of a trace and make the model with exactly its routers, participants, documents and runs.

    :param rules: those that the run follows.

    :raises BadTraceError: an entry is no entry of a trace.
    """
    entries = list(raw)
    start = entries[0] if entries and entries[0].get("op") == "start" else {}
    strategies: dict[str, str] = dict(start.get("participants", {}))
    names = {"router": _Names(start.get("routers", ())), "participant": _Names(strategies), "document": _Names()}
    runs = _Runs()
    read = tuple(_entry(at, entry, names, runs) for at, entry in enumerate(entries))
    first = next(
        (
            entry.epoch
            for entry in read
            if entry.op == "take_over" and entry.system == "store" and entry.outcome in HAPPENED
        ),
        1,
    )
    count = len(runs.epochs)
    config = Config(
        goals=((SOURCE, TARGET, STAGE_JOB, ABORT, REHEARSE),) * count,
        participants=tuple(strategies.get(name, IN_PLACE) for name in names["participant"].known),
        routers=len(names["router"].known),
        documents=len(names["document"].known),
        requests=0,
        late=(),
        restarts=sum(entry.op == "restart" for entry in read),
        reloads=sum(entry.op == "reload" for entry in read),
        unknown=JOURNAL_STEPS,
        losses=UNLIMITED,
        joined=True,
        renew=True,
        repeat=True,
        observe=True,
        ordered=False,
        epoch=int(start.get("epoch", first - 1)),
        rules=rules,
    )
    known = start.get("canonical")
    return Trace(read, tuple(runs.epochs), config, (SOURCE, TARGET) if known is None else (IDS.index(known),))


def _entry(at: int, raw: Mapping[str, Any], names: Mapping[str, _Names], runs: _Runs) -> Entry:
    system, op, outcome = str(raw.get("system")), str(raw.get("op")), str(raw.get("outcome", "ok"))
    target, controller = str(raw.get("target", "")), str(raw.get("controller", ""))
    if op not in OPS.get(system, ()):
        raise BadTraceError(at, f"system {system!r} has no op {op!r}")
    if outcome not in OUTCOMES:
        raise BadTraceError(at, f"outcome {outcome!r} is none of {', '.join(sorted(OUTCOMES))}")
    by_a_controller = system != "env" or op in ("kill", "pause", "resume")
    if by_a_controller and not controller:
        raise BadTraceError(at, f"{system} {op} names no controller")
    epoch = raw.get("epoch", 0)
    if not isinstance(epoch, int) or (not epoch and system != "env" and op not in ("drain", "claim")):
        raise BadTraceError(at, f"{system} {op} of {controller} carries no epoch")
    number = NOBODY
    if system in ("router", "participant") or op in ("lease_end", "restart", "reload"):
        number = names["participant" if system == "participant" else "router"].number(target)
    elif op == "mapping_documents":
        number = names["document"].number(target)
    run = runs.of(controller, op, epoch, outcome, system == "store") if by_a_controller else NOBODY
    text = " ".join(
        filter(
            None,
            (
                controller,
                system,
                target,
                op,
                _shown(raw),
                f"epoch {epoch}" if epoch else "",
                "" if outcome == "ok" else outcome,
            ),
        )
    )
    return Entry(
        at, text, run, system, number, op, _detail(at, raw, op), epoch, outcome, int(raw.get("count", 0)), target
    )


def _shown(raw: Mapping[str, Any]) -> str:
    return " ".join(f"{key} {raw[key]}" for key in ("before", "after", "from", "to", "count") if key in raw)


_DETAILS: Mapping[str, Sequence[str]] = {"phase": ("from", "to"), "map": ("to",)}


def _detail(at: int, raw: Mapping[str, Any], op: str) -> str:
    keys = ("before", "after") if op == "take_over" and raw.get("system") == "store" else _DETAILS.get(op, ())
    missing = [key for key in keys if key not in raw]
    if missing:
        raise BadTraceError(at, f"{op} does not say {' and '.join(missing)}")
    if op == "map" and raw["to"] not in IDS:
        raise BadTraceError(at, f"map leads to {raw['to']!r}, neither source nor target")
    opens = op == "take_over" and raw.get("rehearsal") and raw["before"] != raw["after"]
    return ">".join(str(raw[key]) for key in keys) + (" rehearsal" if opens else "")
