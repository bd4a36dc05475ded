# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The strategy of each table, and whether the window has time for those in place.

A plan is signed on one day and staged on another, and its digest has the strategies. So a strategy is never chosen by
anything that is measured: a busy hour would turn a signed plan into another one. It is chosen by the engine's general
rate and by rows in coarse steps; what was measured predicts, and decides whether the budget holds. What is staged or
signed keeps its strategies, however many rows there are meanwhile, and is refused when they are not legal any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    AUTO,
    IN_PLACE,
    MOVING,
    RELABEL,
    ROOT,
    TWIN,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import Note, Rate
from ansible_collections.zdm.landscape.plugins.module_utils.participant.schema import Schema

SMALL_MS = 300
"""In place below this sum (milliseconds of the window, at the general rate): a copy does not pay off."""
FEW_ROWS = 1000
"""A table of no more rows is a twin only where it can't be in place, or moves together with a larger one."""
LOOKS = 3
"""How often a table in place is looked at in the window, see ``TableFacts.look_ms``."""
SAFETY = 3
"""The predicted time of all tables in place must fit into the budget this many times."""
_LISTED = 5
"""Tables that a message names."""

Refuse = Callable[[str, str, str, Sequence[str]], None]
"""Gets table, reason, advice, and the tables that show the reason too."""


def coarse(rows: int) -> int:
    """Round up to 1, 2 or 5 times a power of ten: a table that grows keeps its strategy for long."""
    step = 10 ** (len(str(rows)) - 1)
    return next(factor * step for factor in (1, 2, 5, 10) if factor * step >= rows) if rows else 0


class Choice:
    """The strategies of one classification.

    :param rates: measured rate by table.
    :param budget_ms: milliseconds that the window may take.
    :param staged: strategies that the stage has given.
    :param signed: strategies of the plan that was signed; the options, and what is staged, are stronger.
    :param refuse: told what is refused.
    """

    def __init__(
        self,
        schema: Schema,
        rates: Mapping[str, Rate],
        budget_ms: int,
        staged: Mapping[str, str],
        signed: Mapping[str, str],
        refuse: Refuse,
    ) -> None:
        self.schema, self.facts, self.engine = schema, schema.facts, schema.engine
        self.rates, self.budget_ms = rates, budget_ms
        self.staged, self.signed = staged, signed
        self.refuse = refuse
        self.strategy: dict[str, str] = {}
        self.why: dict[str, str] = {}

    def run(self) -> None:
        """Choose for every table that changes id."""
        for name in sorted(self.schema.roots):
            self._take_root(name)
        cost = {group: self._general_ms(group) for group in self.schema.groups()}
        wanted = {group: self._wanted(group) for group in cost}
        explicit = sum(cost[group] for group in cost if wanted[group] == {IN_PLACE})
        small = 0.0
        for group in sorted(cost, key=lambda group: (cost[group], group)):
            if len(wanted[group]) == 2:
                self._refuse_different(group)
            elif wanted[group]:
                self._take_wanted(group, next(iter(wanted[group])))
            else:
                self._take_auto(group, cost[group], small, explicit)
                small += cost[group] if self.strategy[group[0]] == IN_PLACE else 0
        if self.schema.relabelled in self.strategy:
            self.strategy[self.schema.relabelled] = RELABEL
            self.why[self.schema.relabelled] = (
                "Relabel: the participant's own id has no row for the other tenant, so this row gets the other tenant's"
                " id, and all that refers to it stays."
            )
        self._check_budget()

    def update_ms(self, name: str) -> int:
        """Predicted milliseconds of the window for *name* in place."""
        rate = self.rates.get(name, self.engine.rate)
        return round(self.facts[name].rows * rate.update_us / 1000 + LOOKS * self.facts[name].look_ms)

    def copy_ms(self, name: str) -> int:
        """Predicted milliseconds of the stage for *name* as a twin."""
        return round(self.facts[name].rows * self.rates.get(name, self.engine.rate).copy_us / 1000)

    def _general_ms(self, group: Iterable[str]) -> float:
        """What the tables cost in place by what does not depend on the moment."""
        return sum(coarse(self.facts[name].rows) * self.engine.rate.update_us / 1000 for name in group)

    def _take_root(self, name: str) -> None:
        self.strategy[name] = ROOT
        self.why[name] = (
            "Root: one row per tenant, to which others refer. The other tenant's row is made as a copy, and both stay."
        )
        if self.schema.asked(name) not in (AUTO, ROOT):
            reason = (
                f"Table {name} has one row per tenant, to which others refer: it can't be {self.schema.asked(name)}."
            )
            self.refuse(name, reason, "Leave the strategy to `auto`.", ())

    # -- what somebody wants ----------------------------------------------------------------------

    def _asked(self, name: str) -> str:
        return IN_PLACE if name == self.schema.relabelled else self.staged.get(name) or self.schema.asked(name)

    def _wanted(self, group: Sequence[str]) -> set[str]:
        """Strategies that stage, options, or a signature of all tables ask for."""
        asked = {self._asked(name) for name in group} & {IN_PLACE, TWIN}
        signed = {self.signed.get(name, AUTO) for name in group}
        return asked or (signed if len(signed) == 1 and signed <= {IN_PLACE, TWIN} else set())

    def _refuse_different(self, group: Sequence[str]) -> None:
        for name in group:
            self.strategy[name] = IN_PLACE
        reason = (
            f"Tables {', '.join(group)} share foreign keys with the tenant column but ask for different strategies."
        )
        self.refuse(group[0], reason, "Give all of them the same.", group)

    def _take_wanted(self, group: Sequence[str], strategy: str) -> None:
        somebody_asked = any(self._asked(name) == strategy for name in group)
        for name in group:
            self.strategy[name] = strategy
            if strategy == TWIN:
                blocker = self.schema.twin_blocker(name)
                if blocker:
                    advice = way_out(blocker, "Change the table")
                    reason = f"Table {name} cannot be a twin: {blocker}."
                    self.refuse(name, reason, f"{advice}, or choose `strategy: in_place`.", ())
            else:
                self._refuse_in_place_notes(name)
            self.why[name] = self._why_wanted(name, strategy, somebody_asked)

    def _why_wanted(self, name: str, strategy: str, somebody_asked: bool) -> str:
        if name in self.staged:
            return "Staged this way."
        if not somebody_asked:
            return "Signed this way."
        if self._asked(name) == strategy:
            return "The options ask for it."
        return f"Shares foreign keys with the tenant column with a table for which the options ask for {strategy}."

    def _refuse_in_place_notes(self, name: str) -> None:
        for note in self.facts[name].notes:
            if IN_PLACE in note.strategies and not self.schema.forbids_all(note):
                self.refuse(name, note.reason, note.advice, ())

    # -- auto -------------------------------------------------------------------------------------

    def _take_auto(self, group: Sequence[str], cost: float, small: float, explicit: float) -> None:
        """*small* and *explicit*: milliseconds of the tables that are in place already, by auto and by the options."""
        notes = [note for name in group for note in self.facts[name].notes]
        if any(self.schema.forbids_all(note) for note in notes):
            self._set(group, IN_PLACE, "See the refusal.")
            return
        against = [note for note in notes if IN_PLACE in note.strategies]
        blockers = {name: blocker for name in group if (blocker := self.schema.twin_blocker(name))}
        rows, takes_ms = sum(self.facts[name].rows for name in group), sum(map(self.update_ms, group))
        takes = f"{rows} rows in place take about {takes_ms} ms"
        few = all(coarse(self.facts[name].rows) <= FEW_ROWS for name in group)
        allowed = self.budget_ms / SAFETY
        if not against and small + cost <= min(SMALL_MS, allowed):
            self._set(group, IN_PLACE, f"{takes}: a copy would not pay off.")
        elif not against and few and explicit + small + cost <= allowed:
            self._set(group, IN_PLACE, f"{takes}: too few rows for a copy.")
        elif not blockers:
            why = "every unique key contains the tenant column, so copies are made while the tenant is served."
            self._set(group, TWIN, f"{takes}; {why}")
        elif not against:
            self._set(group, IN_PLACE, f"No twin, because {next(iter(blockers.values()))}; {takes}.")
        else:
            self._refuse_both(group, against[0], *next(iter(blockers.items())))

    def _refuse_both(self, group: Sequence[str], against: Note, blocked: str, blocker: str) -> None:
        together = f" together with {', '.join(group[1:])}" if len(group) > 1 else ""
        reason = (
            f"Table {group[0]}{together} cannot change in place ({against.reason.rstrip('.')}), and {blocked} cannot be"
            f" a twin: {blocker}."
        )
        self.strategy.update(dict.fromkeys(group, IN_PLACE))
        self.refuse(blocked, reason, f"{against.advice} Or: {way_out(blocker, 'change the table')}.", group)

    def _set(self, group: Sequence[str], strategy: str, why: str) -> None:
        for name in group:
            self.strategy[name] = strategy
            others = ", ".join(other for other in group if other != name)
            self.why[name] = f"{why} Moves with {others} (foreign keys)." if others else why

    # -- budget -----------------------------------------------------------------------------------

    def _check_budget(self) -> None:
        cost = {name: self.update_ms(name) for name, strategy in self.strategy.items() if strategy in MOVING}
        total = sum(cost.values())
        if total * SAFETY <= self.budget_ms:
            return
        order = sorted(cost, key=lambda name: (-cost[name], name))
        listed = ", ".join(f"{name} {cost[name]} ms" for name in order[:_LISTED])
        more = f" and {len(order) - _LISTED} more" if len(order) > _LISTED else ""
        reason = (
            f"The tables in place take about {total} ms together ({listed}{more}); {SAFETY} times that,"
            f" {total * SAFETY} ms, is over the budget of {self.budget_ms} ms."
        )
        blocker, advice = self.schema.twin_blocker(order[0]), "Choose `strategy: twin` for the large tables"
        if blocker:
            reason += f" No twin of {order[0]}, because {blocker}."
        advice = way_out(blocker, "Change the table" if blocker else advice)
        self.refuse(order[0], reason, f"{advice}, or raise window_budget.", ())


def way_out(blocker: str, otherwise: str) -> str:
    """What to do about a table that can't be a twin because of *blocker*, as the beginning of a sentence."""
    if "no_cross_tenant_readers" in blocker:
        return "Declare `no_cross_tenant_readers: true` for the table or the participant if it is so"
    return otherwise
