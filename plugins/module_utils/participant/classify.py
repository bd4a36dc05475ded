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
from ansible_collections.zdm.landscape.plugins.module_utils.participant.choice import Choice
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
    signed: Mapping[str, str] | None = None,
) -> tuple[tuple[TablePlan, ...], tuple[Refusal, ...]]:
    """Choose a strategy for every table; parents come before children, ignored tables last.

    :param facts: every table of the database except the migration's own objects.
    :param options: the participant's options: ``tenant_columns``, ``tables``, ``no_cross_tenant_readers``.
    :param rates: measured rate per table name.
    :param budget_ms: milliseconds that the window may take.
    :param staged: strategy by table, given by the stage: neither rows nor options may change it.
    :param signed: strategy by table of the plan that was signed: rows may not change it, options may.
    """
    job = _Job(facts, options, engine)
    return job.run(Choice(job.schema, rates, budget_ms, staged or {}, signed or {}, job.refuse))


class _Job:
    """State of one classification."""

    def __init__(self, facts: Sequence[TableFacts], options: Mapping[str, Any], engine: Engine) -> None:
        self.facts = {table.name: table for table in sorted(facts, key=lambda table: table.name)}
        self.schema = Schema(self.facts, options, engine)
        self.options = options
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
        self._find_tenant_tables()
        for name in self.tenant:
            self._check_table(name)
        choice.run()
        self.strategy |= choice.strategy
        self.why = choice.why | self.why
        ignored = [name for name in self.facts if name not in self.tenant]
        plans = (self._plan(name, choice) for name in (*self.schema.in_order(), *ignored))
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
            if not _TENANT_TYPE.fullmatch((column.base or column.type).strip()):
                reason = f"Tenant column {column.name} of {name} is of type {column.type}, not text or uuid."
                self.refuse(name, reason, "Narrow `tenant_columns` to the columns that hold tenant ids.")
            if column.generated:
                self.refuse(
                    name,
                    f"Tenant column {column.name} of {name} is generated.",
                    "Name the column that it is computed from.",
                )
        self._check_rows(table)
        if self.tables.get(name, {}).get("key") and not self.schema.key(name):
            self.refuse(
                name,
                f"`key` of table {name} is no unique key of NOT NULL columns.",
                "Name all columns of one unique key.",
            )
        for note in table.notes:
            if self.schema.forbids_all(note):
                self.refuse(name, note.reason, note.advice)

    def _check_rows(self, table: TableFacts) -> None:
        name = table.name
        if table.rows_of_target:
            self.refuse(
                name,
                f"Table {name} already has {table.rows_of_target} rows of the tenant id that is not live.",
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

    # -- result -----------------------------------------------------------------------------------

    def _plan(self, name: str, choice: Choice) -> TablePlan:
        strategy, rows, parts = self.strategy[name], self.facts[name].rows, self.facts[name].parts
        if strategy == IGNORE:
            return TablePlan(name, IGNORE, self.why[name], rows)
        key = tuple(column for column in self.schema.key(name) if column not in self.tenant[name])
        stage = choice.copy_ms(name) if strategy == TWIN else 0
        engine, columns = self.schema.engine, self.tenant[name]
        window = parts * engine.table_ms + (choice.update_ms(name) if strategy == IN_PLACE else 0)
        waiting = window if engine.one_writer else parts * engine.fence_ms
        shared = self.schema.shared_keys(name) if strategy == IN_PLACE and not engine.one_writer else ()
        return TablePlan(name, strategy, self.why[name], rows, columns, key, stage, window, waiting, shared)
