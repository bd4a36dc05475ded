# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller as the modules tenant_cutover and tenant_data are one, with every write recorded and a place where it is
stopped.

Exit code 0: done; 3: an error of the engine, printed as JSON on standard output.
"""

from __future__ import annotations

import argparse
import json
import signal
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.description.operation import (
    Operation,
    Signals,
    load_drivers,
)
from ansible_collections.zdm.landscape.plugins.module_utils.migration.cutover import Cutover
from ansible_collections.zdm.landscape.plugins.module_utils.migration.finalize import finalize
from ansible_collections.zdm.landscape.plugins.module_utils.migration.guardian import Guardian, recover
from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import Journal
from ansible_collections.zdm.landscape.plugins.module_utils.migration.stage import remove, stage
from ansible_collections.zdm.landscape.plugins.module_utils.router.fleet import Fleet
from ansible_collections.zdm.landscape.tests.chaos.recorder import (
    LANDED,
    LOST,
    RecordedParticipant,
    RecordedRouter,
    RecordedStore,
    Recorder,
)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--options", type=Path, required=True, help="JSON: the module's options")
    parser.add_argument(
        "--state", choices=["switched", "reversed", "aborted", "staged", "absent", "purged"], required=True
    )
    parser.add_argument("--trace", type=Path, required=True)
    parser.add_argument("--controller", required=True)
    parser.add_argument("--stop", nargs=3, metavar=("SIGNAL", "before|after", "PLACE"))
    parser.add_argument("--refuse", action="append", default=[], metavar="PLACE")
    parser.add_argument("--guarded", action="store_true", help="with a guardian, whose writes are recorded too")
    parser.add_argument("--hold", nargs=2, metavar=("PLACE", "FILE"))
    parser.add_argument("--lose", choices=[LANDED, LOST], default="", help="answers of the store, once at every place")
    arguments = parser.parse_args(argv)
    signals = Signals()
    options = json.loads(arguments.options.read_text())
    stop = (signal.Signals[arguments.stop[0]], arguments.stop[1], arguments.stop[2]) if arguments.stop else None
    hold = (arguments.hold[0], Path(arguments.hold[1])) if arguments.hold else None
    recorder = Recorder(arguments.trace, arguments.controller, stop, frozenset(arguments.refuse), hold, arguments.lose)
    load_drivers(options)
    watched = (
        Guardian(partial(take_over_from, arguments.controller, options, arguments.trace))
        if arguments.guarded
        else nullcontext()
    )
    try:
        with watched as guardian:
            outcome = run(options, arguments.state, recorder, signals, guardian)
    except ZdmError as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error), "details": error.details}), flush=True)
        return 3
    print(json.dumps(outcome), flush=True)
    return 0


def take_over_from(dead: str, options: dict[str, Any], trace: Path, epoch: int) -> None:
    """What the guardian of :func:`run` does; its entries follow the death of its parent."""
    recorder = Recorder(trace, f"{dead}-guardian")
    Recorder(trace, dead).record({"system": "env", "op": "kill"})
    recover(lambda: nullcontext(recorded_cutover(Operation(options), recorder)), epoch)


def recorded_cutover(operation: Operation, recorder: Recorder) -> Cutover:
    source, target = operation.parties.source, operation.parties.target
    participants = [RecordedParticipant(participant, recorder) for participant in operation.participants]
    fleet = Fleet([RecordedRouter(router, recorder, source.id) for router in operation.fleet.routers])
    return Cutover(RecordedStore(operation.store, recorder), fleet, participants, source, target, operation.policy)


def run(
    options: dict[str, Any], state: str, recorder: Recorder, signals: Signals, guardian: Guardian | None
) -> dict[str, Any]:
    """What the modules tenant_cutover and tenant_data do, over recorded systems."""
    operation = Operation(options)
    source, target = operation.parties.source, operation.parties.target
    cutover = recorded_cutover(operation, recorder)
    store, participants = cutover.store, cutover.participants
    if state in ("staged", "absent", "purged"):
        journal = Journal(store, source, target)
        if state == "purged":
            return {"deleted": finalize(store, journal, operation.parties, participants)}
        if state == "absent":
            return {"changed": remove(store, journal, operation.parties, participants)}
        return asdict(
            stage(
                store,
                journal,
                operation.parties,
                participants,
                lambda: operation.checked_plan(for_window=False),
                lambda _entry: None,
            )
        )
    cutover.interrupted = signals
    cutover.journal.ended_by = signals.first
    if guardian:
        cutover.journal.taken_over = guardian.arm
    if state == "aborted":
        return asdict(cutover.abort())

    # The preflight changes nothing and has tests of its own; without it a kill test takes half the time.
    return asdict(cutover.switch(target if state == "switched" else source, lambda: 0))
