# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mutants: the protocol with one rule switched off, each in the smallest configuration in which its accident can
happen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ansible_collections.zdm.landscape.tests.model.config import REHEARSE, Config, Rules
from ansible_collections.zdm.landscape.tests.model.participants import LOCK, UNLOCK, VERBS, Verb
from ansible_collections.zdm.landscape.tests.model.state import IN_PLACE, MOVED, SERVICE, SOURCE, TARGET, TWIN
from ansible_collections.zdm.landscape.tests.model.table import COMMIT, PROGRAMS, STEPS

Programs = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Mutant:
    """*config* is the amended protocol; :meth:`mutated` the same with the rule switched off."""

    config: Config
    switch_off: Callable[[Rules], Rules] = field(repr=False)

    def mutated(self) -> Config:
        return replace(self.config, rules=self.switch_off(self.config.rules))


def _flag(name: str) -> Callable[[Rules], Rules]:
    return lambda rules: replace(rules, **{name: False})  # type: ignore[arg-type]


def _programs(**changed: str) -> Callable[[Rules], Rules]:
    """Programs given as the numbers of their steps; what stands before them, the take over, stays."""
    programs = {**PROGRAMS, **{mode: ("2", "3", *numbers.split()) for mode, numbers in changed.items()}}
    return lambda rules: replace(rules, programs=programs)


def _verbs(changed: Mapping[tuple[str, str], Verb]) -> Callable[[Rules], Rules]:
    return lambda rules: replace(rules, verbs={**VERBS, **changed})


def _without(part: str, *verbs: tuple[str, str]) -> Callable[[Rules], Rules]:
    """Verbs that leave *part* out."""
    return _verbs(
        {verb: tuple(tuple(each for each in group if each != part) for group in VERBS[verb]) for verb in verbs}
    )


def _moves_that_check(*checks: str) -> Callable[[Rules], Rules]:
    """A second transaction of the barrier in place that makes these checks only."""
    first, second = VERBS[IN_PLACE, "barrier"]
    return _verbs(
        {(IN_PLACE, "barrier"): (first, tuple(part for part in second if not part.endswith("?") or part in checks))}
    )


def _with_moves_of_old_epochs(rules: Rules) -> Rules:
    return replace(_moves_that_check("fenced?", "fence on?")(rules), moves_refuse_old_epochs=False)


def _finishing_only_what_was_begun(rules: Rules) -> Rules:
    return _verbs({(SERVICE, "undo"): (("finish what was begun", "move back", "unfence", "note staged"),)})(rules)


def _rehearsals_going_on(rules: Rules) -> Rules:
    return replace(
        rules, found_rehearsals_are_undone=False, commit_refuses_rehearsals=False, rehearsals_end_by_themselves=True
    )


def _without_a_journaled_undo(rules: Rules) -> Rules:
    steps = {**STEPS, "U4": STEPS["U4"]._replace(before="WCU")}
    return replace(_programs(undo="U2 U3 U4 U5 U6")(rules), steps=steps)


ONE = Config(goals=((TARGET,),), routers=1, participants=(IN_PLACE,), late=())
TWO = replace(ONE, goals=((TARGET,), (TARGET,)))
TWO_QUIET = replace(TWO, requests=0)
GIVEN_UP = replace(TWO_QUIET, participants=(SERVICE,), late=(SOURCE,), calls=1)
REHEARSING = replace(TWO_QUIET, goals=((REHEARSE,), (TARGET,), (TARGET,)))
UNANSWERED = replace(TWO_QUIET, unknown=frozenset(STEPS), notes=1)
DRIFTING = replace(TWO, participants=(TWIN,), requests=0, late=(SOURCE,), drifts=1)
SPLIT = replace(TWO, requests=0, split=True)

MUTANTS: Mapping[str, Mutant] = {
    "no second drain": Mutant(ONE, _programs(W="4 5a 5b 6 7 9 10", C="7 9 10")),
    "barrier before the routers are closed": Mutant(
        replace(ONE, participants=(TWIN,)), _programs(W="4 5a 5b 9 6 7 8 10")
    ),
    "journal written after the far block": Mutant(TWO, _programs(W="4 5a 5b 7 6 8 9 10")),
    "turn after the release": Mutant(ONE, _programs(K="11 13 14 15 12 16")),
    "routers opened before the undo": Mutant(ONE, _programs(undo="U1 U5 U2 U3 U4 U6")),
    "undo not journaled": Mutant(replace(ONE, requests=0, unknown=frozenset({COMMIT})), _without_a_journaled_undo),
    "released before all routers are mapped": Mutant(replace(ONE, routers=2), _programs(K="11 12 14 15 13 16")),
    "commit without compare-and-set": Mutant(TWO, _flag("commit_is_compare_and_set")),
    "routers take old epochs": Mutant(TWO, _flag("routers_refuse_old_epochs")),
    "participants take old epochs": Mutant(TWO, _flag("participants_refuse_old_epochs")),
    "an undo with nothing to undo does not note the epoch": Mutant(
        TWO, _flag("participants_note_the_epoch_with_every_verb")
    ),
    "mapping documents take old epochs": Mutant(
        replace(TWO, goals=((TARGET,), (TARGET,), (SOURCE,)), requests=0), _flag("documents_refuse_old_epochs")
    ),
    "unreachable router skipped": Mutant(replace(ONE, cuts=1), _flag("unreachable_routers_are_awaited")),
    "router serves what it read before the commands that it took": Mutant(
        replace(ONE, restarts=1, undo=False), _flag("routers_read_the_store_last")
    ),
    "router renders from the mapping documents": Mutant(
        replace(ONE, restarts=1), _flag("routers_render_from_the_journal")
    ),
    "old workers not counted": Mutant(replace(ONE, reloads=1), _flag("old_workers_are_counted")),
    "starting router reads a replica that is behind": Mutant(
        replace(ONE, restarts=1), _flag("routers_read_linearizably")
    ),
    "unknown writes settled by reading": Mutant(UNANSWERED, _flag("unknown_writes_are_settled_by_writing")),
    "a conflict taken for somebody else": Mutant(UNANSWERED, _flag("conflicts_are_decided_by_a_read")),
    "own take over known by its epoch": Mutant(UNANSWERED, _flag("take_overs_are_known_by_their_id")),
    "a take over beaten by a late write gives up": Mutant(UNANSWERED, _flag("take_overs_begin_again")),
    "own late note taken for somebody else": Mutant(UNANSWERED, _flag("own_epoch_decides")),
    "a window that is found goes on": Mutant(DRIFTING, _flag("found_windows_are_undone")),
    "barrier trusts the plan: a column": Mutant(DRIFTING, _without("as planned?", (TWIN, "barrier"))),
    "barrier trusts the plan: a lost trigger": Mutant(
        replace(DRIFTING, drift="trigger"), _without("as planned?", (TWIN, "barrier"))
    ),
    "a run that finds a closed window takes fenced as moved": Mutant(TWO_QUIET, _flag("fenced_is_not_moved")),
    "the move does not look at the fence": Mutant(
        replace(TWO_QUIET, late=(SOURCE,), unfences=1), _moves_that_check("unfinished?", "fenced?")
    ),
    "the move looks at its epoch only": Mutant(replace(GIVEN_UP, participants=(IN_PLACE,)), _moves_that_check()),
    "the move takes an older epoch": Mutant(
        replace(GIVEN_UP, participants=(IN_PLACE,), goals=((TARGET,), (TARGET,), (SOURCE,)), late=()),
        _with_moves_of_old_epochs,
    ),
    "turn leaves the fence of the retired id as it is": Mutant(
        replace(TWO_QUIET, unfence=MOVED, unfences=1), _without("fence", (IN_PLACE, "turn"))
    ),
    "undo leaves moved rows": Mutant(TWO_QUIET, _without("move back", (IN_PLACE, "undo"))),
    "a service takes the barrier of an undone epoch": Mutant(GIVEN_UP, _without("finish", (SERVICE, "undo"))),
    "a twin takes the barrier of an undone epoch": Mutant(
        replace(GIVEN_UP, participants=(TWIN,)), _without("finish", (TWIN, "undo"))
    ),
    "tables in place take the barrier of an undone epoch": Mutant(
        replace(GIVEN_UP, participants=(IN_PLACE,)), _without("finish", (IN_PLACE, "undo"))
    ),
    "a service takes the barrier of a turned epoch": Mutant(GIVEN_UP, _without("finish", (SERVICE, "turn"))),
    "tables in place take the barrier of a turned epoch": Mutant(
        replace(GIVEN_UP, participants=(IN_PLACE,)), _without("finish", (IN_PLACE, "turn"))
    ),
    "an undo with nothing to undo does not finish its epoch": Mutant(GIVEN_UP, _finishing_only_what_was_begun),
    "a mapping document without an answer taken as written": Mutant(
        replace(TWO_QUIET, goals=((TARGET,),), unknown=frozenset({"11"})),
        _flag("unanswered_mappings_are_written_again"),
    ),
    "a rehearsal may commit": Mutant(REHEARSING, _flag("commit_refuses_rehearsals")),
    "a fresh window does not write whether it is a rehearsal": Mutant(
        REHEARSING, _flag("fresh_windows_write_the_flag")
    ),
    "a take over writes its own flag over a rehearsal's": Mutant(REHEARSING, _flag("take_overs_keep_the_flag")),
    "a run that finds a rehearsal goes on and commits": Mutant(REHEARSING, _rehearsals_going_on),
    "undo drops the fence first": Mutant(
        replace(SPLIT, late=(SOURCE,)),
        _verbs({(IN_PLACE, "undo"): (("unfence",), ("move back",))}),
    ),
    "rows moved before the fence": Mutant(
        replace(SPLIT, late=(SOURCE,)),
        _verbs({(IN_PLACE, "barrier"): (("move",), ("fence",))}),
    ),
    "forward log dropped at the barrier, the fence last": Mutant(
        replace(SPLIT, participants=(TWIN,), late=(SOURCE,)),
        _verbs({(TWIN, "barrier"): ((LOCK, "apply"), ("drop log",), ("start log back",), ("fence", UNLOCK))}),
    ),
    "target opened at the barrier": Mutant(
        replace(ONE, participants=(TWIN,), requests=0, late=(TARGET,)),
        _verbs({(TWIN, "barrier"): (("fence",), ("apply",), ("start log back",), ("open",))}),
    ),
    "a run that finds R only maps": Mutant(ONE, _programs(R="13")),
    "undo leaves the target's log": Mutant(
        replace(ONE, participants=(TWIN,), requests=0),
        _verbs({(TWIN, "undo"): (("keep log",), ("unfence",))}),
    ),
}
