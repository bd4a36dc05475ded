# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which strategy each table of a database takes, and what is refused: pure, the same for every engine.

An engine reads its catalog into :class:`TableFacts`, says what it can do with :class:`Engine`, and calls
:func:`classify`.
Nothing is skipped silently: every table is in the result, as a plan or with a refusal and the way out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    IGNORE,
    IN_PLACE,
    TWIN,
    Refusal,
    TablePlan,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import (
    Engine,
    Rate,
    TableFacts,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.schema import Schema
from ansible_collections.zdm.landscape.plugins.module_utils.participant.table_options import (
    DEFAULT_TENANT_COLUMNS,
    compiled,
    tenant_columns_of,
    wrong_options,
)

SMALL_MS = 300
"""In place below this sum (milliseconds of the window): a copy does not pay off."""
LOOKS = 3
"""How often a table in place is looked at in the window, see ``TableFacts.look_ms``."""
SAFETY = 3
"""A predicted in_place time must fit into the budget this many times."""
_TENANT_TYPE = re.compile(
    r"(uuid|citext|(tiny|medium|long)?text|clob|n?(var)?char|bpchar|character( varying)?)\b.*",
    re.IGNORECASE | re.DOTALL,
)


def classify(
    facts: Sequence[TableFacts],
    options: Mapping[str, Any],
    engine: Engine,
    rates: Mapping[str, Rate],
    budget_ms: int,
    staged: Mapping[str, str] | None = None,
) -> tuple[tuple[TablePlan, ...], tuple[Refusal, ...]]:
    """Choose a strategy for every table; parents come before children, ignored tables last.

    :param facts: every table of the database except the migration's own objects.
    :param options: the participant's options: ``tenant_columns``, ``tables``, ``no_cross_tenant_readers``.
    :param rates: measured rate per table name.
    :param budget_ms: milliseconds that the window may take.
    :param staged: strategy by table, given by the stage: neither new rows nor a busy server may change it.
    """
    job = _Job(facts, options, engine, rates, budget_ms, staged or {})
    return job.run()


class _Job:
    """State of one classification."""

    def __init__(
        self,
        facts: Sequence[TableFacts],
        options: Mapping[str, Any],
        engine: Engine,
        rates: Mapping[str, Rate],
        budget_ms: int,
        staged: Mapping[str, str],
    ) -> None:
        self.facts = {table.name: table for table in sorted(facts, key=lambda table: table.name)}
        self.schema = Schema(self.facts, options, engine)
        self.options, self.engine = options, engine
        self.tables, self.tenant = self.schema.entries, self.schema.tenant
        self.rates = rates
        self.budget_ms = budget_ms
        self.staged = staged
        self.refusals: list[Refusal] = []
        self.strategy: dict[str, str] = {}
        self.why: dict[str, str] = {}
        self.over_budget = False

    def refuse(self, name: str, reason: str, advice: str, group: Sequence[str] = ()) -> None:
        """Refuse *name*; every table of *group* shows the reason."""
        self.refusals.append(Refusal(name, reason, advice))
        for table in (name, *group):
            self.why.setdefault(table, f"Refused: {reason}")

    def run(self) -> tuple[tuple[TablePlan, ...], tuple[Refusal, ...]]:
        self._read_options()
        self._find_tenant_tables()
        for name in self.tenant:
            self._check_table(name)
        self._choose()
        self._check_budget()
        return self._plans(), tuple(self.refusals)

    # -- input ------------------------------------------------------------------------------------

    def _read_options(self) -> None:
        given = self.options.get("tables") or {}
        for name in sorted(given):
            entry = given[name] or {}
            if name not in self.facts:
                self.refuse(
                    name,
                    f"The options name a table {name} that the database does not have.",
                    "Correct the name under `tables`, or remove it.",
                )
                continue
            for reason, advice in wrong_options(self.facts[name], entry):
                self.refuse(name, reason, advice)
            stays = entry.get("id_stays") or {}
            self.tables[name] = {**entry, "id_stays": stays if isinstance(stays, Mapping) else {}}
        for name, strategy in self.staged.items():
            self.tables[name] = {**self.tables.get(name, {}), "strategy": strategy}

    def _patterns(self) -> list[str]:
        patterns = list(self.options.get("tenant_columns") or DEFAULT_TENANT_COLUMNS)
        for pattern in patterns:
            if compiled(pattern) is None:
                self.refuse(
                    "tenant_columns",
                    f"{pattern!r} is neither a column name nor a regular expression.",
                    "Correct `tenant_columns`.",
                )
        return patterns

    def _find_tenant_tables(self) -> None:
        patterns = self._patterns()
        columns = {name: tenant_columns_of(table, patterns) for name, table in self.facts.items()}
        self.tenant.update({name: found for name, found in columns.items() if found and not self.schema.ignored(name)})
        for name in self.facts:
            self._check_references(name, columns)
            if self.schema.ignored(name):
                self.strategy[name] = IGNORE
                self.why[name] = str(self.tables[name]["ignore"])
            elif name not in self.tenant:
                self.strategy[name] = IGNORE
                self._refuse_unclassified(name, columns)

    def _refuse_unclassified(self, name: str, columns: Mapping[str, tuple[str, ...]]) -> None:
        parent = self.schema.hangs_on(name, columns)
        hangs = f" but hangs on {parent} by a foreign key" if parent else ""
        self.refuse(
            name,
            f"Table {name} is not classified: it has no tenant column{hangs}.",
            f'Name its tenant column in `tenant_columns`, or add it to `tables`: `{name}: {{ignore: "<reason>"}}`.',
        )

    def _check_references(self, name: str, columns: Mapping[str, tuple[str, ...]]) -> None:
        """A column that refers to a tenant column is one itself; both sides must move together."""
        for key in self.facts[name].foreign_keys:
            parent = columns.get(key.table, ())
            followed = [(own, other) for own, other in key.pairs if other in parent]
            unnamed = [pair for pair in followed if pair[0] not in columns[name]]
            if unnamed and key.table in self.tenant:
                column, referred = unnamed[0]
                reason = (
                    f"Column {column} of {name} refers to tenant column {referred} of {key.table} but is no tenant"
                    " column."
                )
                self.refuse(name, reason, f"Add {column} to `tenant_columns`.")
            elif followed and self.schema.ignored(name) != self.schema.ignored(key.table):
                ignored, other = (name, key.table) if self.schema.ignored(name) else (key.table, name)
                reason = (
                    f"Table {ignored} is ignored, but foreign key {key.name} ties its tenant column to that of {other}."
                )
                self.refuse(ignored, reason, "Do not ignore it.")

    # -- one table --------------------------------------------------------------------------------

    def _check_table(self, name: str) -> None:
        table = self.facts[name]
        for column in table.columns:
            if column.name not in self.tenant[name]:
                continue
            if column.nullable:
                self.refuse(
                    name, f"Tenant column {column.name} of {name} may be null.", f"Make {column.name} NOT NULL."
                )
            if not _TENANT_TYPE.fullmatch(column.type.strip()):
                reason = f"Tenant column {column.name} of {name} is of type {column.type}, not text or uuid."
                self.refuse(name, reason, "Narrow `tenant_columns` to the columns that hold tenant ids.")
            if column.generated:
                self.refuse(
                    name,
                    f"Tenant column {column.name} of {name} is generated.",
                    "Name the column that it is computed from.",
                )
        self._check_rows(table)
        if not self.schema.key(name):
            reason = f"Table {name} has no primary key."
            advice = f"Add one, or name a unique key of NOT NULL columns: `{name}: {{key: [column, …]}}`."
            if self.tables.get(name, {}).get("key"):
                reason, advice = (
                    f"`key` of table {name} is no unique key of NOT NULL columns.",
                    "Name all columns of one unique key.",
                )
            self.refuse(name, reason, advice)
        for note in table.notes:
            if self.schema.forbids_all(note):
                self.refuse(name, note.reason, note.advice)

    def _check_rows(self, table: TableFacts) -> None:
        name = table.name
        if table.rows_of_target:
            self.refuse(
                name,
                f"Table {name} already has {table.rows_of_target} rows of the target tenant.",
                "Remove them, or migrate to a tenant without data: they could not be told from moved rows.",
            )
        for column in table.ids_inside:
            if column not in self.tables.get(name, {}).get("id_stays", {}):
                self.refuse(
                    name,
                    f"Column {column} of {name} holds the tenant's id inside its text, and nobody said whether it may"
                    " stay.",
                    f'If it may: `{name}: {{id_stays: {{{column}: "<reason>"}}}}` under `tables`; else change the'
                    " application first.",
                )

    # -- all tables -------------------------------------------------------------------------------

    def update_ms(self, name: str) -> int:
        """Predicted milliseconds of the window for *name* in place."""
        rate = self.rates.get(name, self.engine.rate)
        return round(self.facts[name].rows * rate.update_us / 1000 + LOOKS * self.facts[name].look_ms)

    def _choose(self) -> None:
        groups = []
        for group in self.schema.groups():
            wanted = {self.schema.asked(name) for name in group} & {IN_PLACE, TWIN}
            groups.append((group, sum(self.update_ms(name) for name in group), wanted))
        explicit = sum(cost for group, cost, wanted in groups if wanted == {IN_PLACE})
        small = 0
        for group, cost, wanted in sorted(groups, key=lambda item: (item[1], item[0])):
            if len(wanted) == 2:
                for name in group:
                    self.strategy[name] = IN_PLACE
                reason = (
                    f"Tables {', '.join(group)} share foreign keys with the tenant column but ask for different"
                    " strategies."
                )
                self.refuse(group[0], reason, "Give all of them the same.", group)
                continue
            if wanted:
                self._take_explicit(group, next(iter(wanted)))
                continue
            self._take_auto(group, cost, small, explicit)
            if self.strategy[group[0]] == IN_PLACE:
                small += cost

    def _take_explicit(self, group: Sequence[str], strategy: str) -> None:
        for name in group:
            asked = self.schema.asked(name) == strategy
            why = (
                "The options ask for it."
                if asked
                else (
                    f"Shares foreign keys with the tenant column with a table for which the options ask for {strategy}."
                )
            )
            self.strategy[name] = strategy
            if name in self.staged:
                self.why.setdefault(name, "Staged this way.")
            if strategy == TWIN:
                blocker = self.schema.twin_blocker(name)
                if blocker:
                    self.refuse(name, f"Table {name} cannot be a twin: {blocker}.", self._way_out(blocker))
            else:
                self._refuse_in_place_notes(name)
            self.why.setdefault(name, why)

    def _take_auto(self, group: Sequence[str], cost: int, small: int, explicit: int) -> None:
        """*small* and *explicit*: milliseconds of the tables that are in place already, by auto and by the options."""
        blockers = {name: blocker for name in group if (blocker := self.schema.twin_blocker(name))}
        if any(self.schema.forbids_all(note) for name in group for note in self.facts[name].notes):
            self._set(group, IN_PLACE, "See the refusal.")
            return
        in_place_ok = not any(IN_PLACE in note.strategies for name in group for note in self.facts[name].notes)
        together = f" together with {', '.join(group[1:])}" if len(group) > 1 else ""
        takes = f"{sum(self.facts[name].rows for name in group)} rows in place take about {cost} ms"
        if in_place_ok and small + cost <= min(SMALL_MS, self.budget_ms / SAFETY):
            self._set(group, IN_PLACE, f"{takes}, so a copy would not pay off.")
        elif not blockers:
            self._set(
                group,
                TWIN,
                f"{takes}; every unique key contains the tenant column, so copies are made while the tenant is served.",
            )
        else:
            blocked, blocker = next(iter(blockers.items()))
            if in_place_ok and (explicit + small + cost) * SAFETY <= self.budget_ms:
                self._set(
                    group,
                    IN_PLACE,
                    f"No twin, because {blocker}; {takes}, which fits the window's budget of {self.budget_ms} ms.",
                )
                return
            self.over_budget = self.over_budget or in_place_ok
            cannot = f"{takes}, {SAFETY} times that is over the budget of {self.budget_ms} ms"
            if not in_place_ok:
                cannot = next(
                    note.reason.rstrip(".")
                    for name in group
                    for note in self.facts[name].notes
                    if IN_PLACE in note.strategies
                )
            reason = (
                f"Table {group[0]}{together} cannot change in place ({cannot}), and {blocked} cannot be a twin:"
                f" {blocker}."
            )
            self.strategy.update(dict.fromkeys(group, IN_PLACE))
            self.refuse(blocked, reason, self._way_out(blocker), group)

    def _set(self, group: Sequence[str], strategy: str, why: str) -> None:
        for name in group:
            self.strategy[name] = strategy
            linked = (
                f" Moves with {', '.join(other for other in group if other != name)} (foreign keys)."
                if len(group) > 1
                else ""
            )
            self.why.setdefault(name, why + linked)

    def _refuse_in_place_notes(self, name: str) -> None:
        for note in self.facts[name].notes:
            if IN_PLACE in note.strategies and not self.schema.forbids_all(note):
                self.refuse(name, note.reason, note.advice)

    def _way_out(self, blocker: str) -> str:
        if "no_cross_tenant_readers" in blocker:
            return (
                "Declare `no_cross_tenant_readers: true` for the table or the participant if it is so, or raise"
                " window_budget."
            )
        return "Change the table, choose `strategy: in_place`, or raise window_budget."

    def _check_budget(self) -> None:
        cost = {name: self.update_ms(name) for name in self.tenant if self.strategy.get(name) == IN_PLACE}
        total = sum(cost.values())
        if total * SAFETY > self.budget_ms and not self.over_budget:
            largest = max(cost, key=lambda name: (cost[name], name))
            reason = (
                f"The tables in place take about {total} ms; {SAFETY} times that is over the budget of {self.budget_ms}"
                f" ms. The largest is {largest}."
            )
            self.refuse(largest, reason, "Choose `strategy: twin` for the large tables, or raise window_budget.")

    def _plans(self) -> tuple[TablePlan, ...]:
        ignored = [name for name in self.facts if name not in self.tenant]
        return tuple(self._plan(name) for name in (*self.schema.in_order(), *ignored))

    def _plan(self, name: str) -> TablePlan:
        strategy, rows = self.strategy[name], self.facts[name].rows
        if strategy == IGNORE:
            return TablePlan(name, IGNORE, self.why[name], rows)
        key = tuple(column for column in self.schema.key(name) if column not in self.tenant[name])
        rate = self.rates.get(name, self.engine.rate)
        stage = round(rows * rate.copy_us / 1000) if strategy == TWIN else 0
        window = self.engine.table_ms + (self.update_ms(name) if strategy == IN_PLACE else 0)
        return TablePlan(name, strategy, self.why[name], rows, self.tenant[name], key, stage, window)
