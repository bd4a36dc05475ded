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
    FOLLOWS,
    IGNORE,
    MOVING,
    STAYING,
    TWIN,
    Refusal,
    TablePlan,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.choice import Choice
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import (
    Engine,
    Rate,
    TableFacts,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.own_ids import NO_OWN_IDS, OwnIds
from ansible_collections.zdm.landscape.plugins.module_utils.participant.root_row import own_values
from ansible_collections.zdm.landscape.plugins.module_utils.participant.schema import Schema
from ansible_collections.zdm.landscape.plugins.module_utils.participant.table_options import (
    DEFAULT_TENANT_COLUMNS,
    compiled,
    tenant_columns_of,
    wrong_options,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.tenancy import tenancy

_NO_ID = re.compile(
    r"(bool|bit\b|date|time|year|interval|float|real|double|money|json|xml|point|line|box|polygon|geo|vector|inet|cidr)",
    re.IGNORECASE,
)
"""Types that hold no id of a tenant; whether another type can hold this very id, the engine asks its server."""


def classify(
    facts: Sequence[TableFacts],
    options: Mapping[str, Any],
    engine: Engine,
    rates: Mapping[str, Rate],
    budget_ms: int,
    staged: Mapping[str, str] | None = None,
    signed: Mapping[str, str] | None = None,
    ids: OwnIds = NO_OWN_IDS,
) -> tuple[tuple[TablePlan, ...], tuple[Refusal, ...]]:
    """Choose a strategy for every table; parents come before children, tables that stay as they are last.

    :param facts: every table of the database except the migration's own objects.
    :param options: the participant's options: ``tenant_columns``, ``tables``, ``ignore``, ``no_cross_tenant_readers``.
    :param rates: measured rate per table name.
    :param budget_ms: milliseconds that the window may take.
    :param staged: strategy by table, given by the stage: neither rows nor options may change it.
    :param signed: strategy by table of the plan that was signed: rows may not change it, options may.
    :param ids: what the participant calls the tenants.
    """
    job = _Job(facts, options, engine, ids)
    return job.run(Choice(job.schema, rates, budget_ms, staged or {}, signed or {}, job.refuse))


class _Job:
    """State of one classification."""

    def __init__(self, facts: Sequence[TableFacts], options: Mapping[str, Any], engine: Engine, ids: OwnIds) -> None:
        self.facts = {table.name: table for table in sorted(facts, key=lambda table: table.name)}
        self.tenancy = tenancy(self.facts, options, ids)
        self.relabelled = ids.root.table if ids.relabel and ids.root else ""
        self.schema = Schema(self.facts, options, engine, tenant=self.tenancy.columns, roots=self.tenancy.roots)
        self.schema.relabelled = self.relabelled
        self.options, self.ids = options, ids
        self.tables, self.tenant = self.schema.entries, self.schema.tenant
        self.refusals: list[Refusal] = []
        self.strategy: dict[str, str] = {}
        self.why: dict[str, str] = {}

    def refuse(self, name: str, reason: str, advice: str, group: Sequence[str] = ()) -> None:
        """Refuse *name*; every table of *group* shows the reason."""
        self.refusals.append(Refusal(name, reason, advice))
        for table in (name, *group):
            self.why.setdefault(table, f"Refused: {reason}")

    def run(self, choice: Choice) -> tuple[tuple[TablePlan, ...], tuple[Refusal, ...]]:
        self._read_options()
        self._check_patterns()
        self._find_staying()
        for name in self.tenant:
            self._check_table(name)
        choice.run()
        self.strategy |= choice.strategy
        self.why = {name: self._inferred(name) + why for name, why in choice.why.items()} | self.why
        staying = [name for name in self.facts if name not in self.tenant]
        plans = (self._plan(name, choice) for name in (*self.schema.in_order(), *staying))
        return tuple(plans), tuple(self.refusals)

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
        if self.relabelled and self.relabelled not in self.facts:
            reason = f"`id_query` reads a table {self.relabelled} that the database does not have."
            self.refuse(self.relabelled, reason, "Write its name in `id_query` as the plan writes names of tables.")

    def _check_patterns(self) -> None:
        for option in ("tenant_columns", "ignore"):
            for pattern in self.options.get(option) or ():
                if compiled(pattern) is None:
                    reason = f"{pattern!r} is no regular expression."
                    self.refuse(option, reason, f"Correct `{option}`.")

    def _find_staying(self) -> None:
        """Tables that the migration does not touch, and those of which nobody knows what they are."""
        found = self.tenancy
        for name, column in sorted(found.unclear.items()):
            reason = f"Column {column} of {name} may hold the tenant's id, or the participant's own."
            self.refuse(name, reason, f"Say which: `tables: {{{name}: {{own_ids: true}}}}`, or false.")
        for name in self.facts:
            self._check_references(name)
            if name in found.ignored:
                self.strategy[name], self.why[name] = IGNORE, found.ignored[name]
            elif name in found.follows:
                self.strategy[name] = FOLLOWS
                why = f"Goes with rows that keep their keys: {found.follows[name]}. It is not fenced."
                self.why.setdefault(name, why)
                self._check_follows(name)
            elif name not in self.tenant:
                self.strategy[name] = IGNORE
                self.refuse(
                    name,
                    f"Table {name} is not classified: it has no tenant column, and no foreign key leads to rows of a"
                    " tenant.",
                    "Name its tenant column in `tenant_columns`, or a table that its rows belong to"
                    f' (`tables: {{{name}: {{follows: <table>}}}}`), or ignore it: `ignore: {{"{name}": "<reason>"}}`.',
                )

    def _check_follows(self, name: str) -> None:
        named = self.tables.get(name, {}).get("follows") or ()
        for parent in [named] if isinstance(named, str) else named:
            if parent not in self.tenant and parent not in self.tenancy.follows:
                reason = f"Table {name} is said to follow {parent}, which neither changes id nor follows another table."
                self.refuse(name, reason, "Name the table that its rows belong to.")
            elif self._copied(parent):
                reason = f"Table {name} is said to follow {parent}, which is to be a twin: its copies have other keys."
                self.refuse(name, reason, f"Choose `strategy: in_place` for {parent}.")

    def _copied(self, name: str) -> bool:
        return self.schema.asked(name) == TWIN

    def _check_references(self, name: str) -> None:
        """Both sides of a foreign key that carries the tenant's id must move together."""
        patterns = self.options.get("tenant_columns") or DEFAULT_TENANT_COLUMNS
        for key in self.facts[name].foreign_keys:
            parent = self.facts.get(key.table)
            if parent is None or (name in self.tenancy.ignored) == (key.table in self.tenancy.ignored):
                continue
            if name in self.tenancy.ignored:
                # both rows of a root stay, so who is left out still refers to one
                moves = self.tenant.get(key.table, ()) if key.table not in self.tenancy.roots else ()
                tied = any(referred in moves for referred in key.referred)
            else:
                own, other = self.tenant.get(name, ()), tenant_columns_of(parent, patterns)
                tied = any(column in own and referred in other for column, referred in key.pairs)
            if tied:
                ignored, kept = (name, key.table) if name in self.tenancy.ignored else (key.table, name)
                reason = (
                    f"Table {ignored} is ignored, but foreign key {key.name} ties its tenant column to that of {kept}."
                )
                self.refuse(ignored, reason, "Do not ignore it.")

    # -- one table --------------------------------------------------------------------------------

    def _check_table(self, name: str) -> None:
        table = self.facts[name]
        for column in table.columns:
            if column.name not in self.tenant[name]:
                continue
            if _NO_ID.match((column.base or column.type).strip()):
                reason = f"Tenant column {column.name} of {name} is of type {column.type}, which holds no id."
                self.refuse(name, reason, "Narrow `tenant_columns` to the columns that hold tenant ids.")
            if column.generated:
                self.refuse(
                    name,
                    f"Tenant column {column.name} of {name} is generated.",
                    "Name the column that it is computed from.",
                )
        self._check_rows(table)
        if name in self.tenancy.roots and not table.rows_of_target:
            self._check_copy(table)
        if self.tables.get(name, {}).get("key") and not self.schema.key(name):
            reason = f"`key` of table {name} is no unique key of NOT NULL columns."
            self.refuse(name, reason, "Name all columns of one unique key.")
        for note in table.notes:
            if self.schema.forbids_all(note) and not (note.writes and name in self.tenancy.roots):
                self.refuse(name, note.reason, note.advice)

    def _check_copy(self, root: TableFacts) -> None:
        """Whether the other tenant's row can be a copy."""
        (tenant,) = self.tenant[root.name]
        new_row = self.tables.get(root.name, {}).get("new_row") or {}
        for column, reason in own_values(root, root.name, tenant, new_row).items():
            advice = f"Give the value of the new row: `tables: {{{root.name}: {{new_row: {{{column}: <value>}}}}}}`."
            self.refuse(root.name, f"{reason} with the same values.", advice)
        if root.triggers and not self.schema.engine.may_exempt_app_triggers:
            reason = f"Trigger {root.triggers[0]} of {root.name} would fire for the copied row, and the user may not"
            advice = "Insert the row yourself, as the application does when it onboards a tenant."
            self.refuse(root.name, f"{reason} exempt its session.", advice)

    def _check_rows(self, table: TableFacts) -> None:
        name = table.name
        if table.rows_of_target and name not in self.tenancy.roots:
            self.refuse(
                name,
                f"Table {name} already has {table.rows_of_target} rows of the tenant id that is not live.",
                "Remove them, or migrate to a tenant without data: they could not be told from moved rows.",
            )
        root = self.ids.root
        for column in table.ids_inside:
            if root and (name, column) == (root.table, root.column):
                continue  # where `id_query` looks for it
            if column not in self.tables.get(name, {}).get("id_stays", {}):
                self.refuse(
                    name,
                    f"Column {column} of {name} holds the tenant's id inside its text, and nobody said whether it may"
                    " stay.",
                    f'If it may: `{name}: {{id_stays: {{{column}: "<reason>"}}}}` under `tables`; else change the'
                    " application first.",
                )

    def _inferred(self, name: str) -> str:
        """Why a table has tenant columns that no option names, as a sentence."""
        why = self.tenancy.because.get(name, "")
        return f"{why[0].upper()}{why[1:]}. " if why else ""

    # -- result -----------------------------------------------------------------------------------

    def _plan(self, name: str, choice: Choice) -> TablePlan:
        strategy, why = self.strategy[name], self.why[name]
        rows, parts = self.facts[name].rows, self.facts[name].parts
        if strategy in STAYING:
            return TablePlan(name, strategy, why, rows, follows=self.tenancy.follows.get(name, ""))
        key = tuple(column for column in self.schema.key(name) if column not in self.tenant[name])
        stage = choice.copy_ms(name) if strategy == TWIN else 0
        engine, columns = self.schema.engine, self.tenant[name]
        window = parts * engine.table_ms + (choice.update_ms(name) if strategy in MOVING else 0)
        waiting = window if engine.one_writer else parts * engine.fence_ms
        shared = self.schema.shared_keys(name) if strategy in MOVING and not engine.one_writer else ()
        told = self.tenancy.inferred.get(name, ())
        inferred = tuple(column for column in columns if column in told)
        return TablePlan(name, strategy, why, rows, columns, key, stage, window, waiting, shared, inferred)
