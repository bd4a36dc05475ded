# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator's options lack until the plan of a participant is green: pure.

Nothing is decided here: a proposal is text that a person reads, confirms and pastes. Where only a person knows, there
is a word in angle brackets, which the next plan refuses until a value stands there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import Refusal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import TableFacts
from ansible_collections.zdm.landscape.plugins.module_utils.participant.own_ids import NO_OWN_IDS, OwnIds
from ansible_collections.zdm.landscape.plugins.module_utils.participant.proposal.bookkeeping import bookkeeping
from ansible_collections.zdm.landscape.plugins.module_utils.participant.proposal.evidence import (
    Evidence,
    unique_columns,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.proposal.names import (
    is_surely_tenant,
    is_tenant_like,
    meant,
    parent,
    polymorphic,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.proposal.own import OwnIdsProposal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.proposal.patterns import MANY, folded
from ansible_collections.zdm.landscape.plugins.module_utils.participant.proposal.spelling import AS_IT_IS, fitting
from ansible_collections.zdm.landscape.plugins.module_utils.participant.root_row import own_values
from ansible_collections.zdm.landscape.plugins.module_utils.participant.table_options import (
    DEFAULT_TENANT_COLUMNS,
    tenant_columns_of,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.tenancy import Tenancy, entries_of, tenancy

NO_DATA = "no tenant data (confirm)"
STAYS = "nothing finds the tenant by it (confirm)"
VALUE, TABLE = "<value>", "<table>"


@dataclass(frozen=True)
class Tenants:
    """The tenants of a migration.

    :param names: subdomains by id.
    """

    source_id: str
    target_id: str
    names: Mapping[str, str] = field(default_factory=dict)

    def named(self, tenant_id: str) -> str:
        """What `ids` call a tenant."""
        return self.names.get(tenant_id, tenant_id)


@dataclass
class Changes:
    """Options with their new values, and by option what has to be confirmed."""

    options: dict[str, Any] = field(default_factory=dict)
    confirm: dict[str, list[str]] = field(default_factory=dict)

    def put(self, option: str, value: Any, *confirm: str) -> None:
        self.options[option] = value
        told = self.confirm.setdefault(option, [])
        told += [each for each in confirm if each not in told]


def propose(
    facts: Mapping[str, TableFacts],
    options: Mapping[str, Any],
    refusals: Sequence[Refusal],
    tenants: Tenants,
    evidence: Evidence,
    ids: OwnIds = NO_OWN_IDS,
) -> Changes:
    """The options that would lift *refusals*, each with its whole new value; nothing where only a person can help.

    :param facts: every table of the database, as :func:`.classify.classify` gets them.
    :param evidence: what a sample of the rows says.
    :param ids: what the participant calls the tenants.
    """
    return _Proposer(facts, options, refusals, tenants, evidence, ids).run()


def unclassified(facts: Mapping[str, TableFacts], found: Tenancy) -> list[str]:
    """Tables of which nothing says what they are."""
    known = (found.columns, found.ignored, found.follows)
    return [name for name in sorted(facts) if not any(name in tables for tables in known)]


class _Proposer:
    def __init__(
        self,
        facts: Mapping[str, TableFacts],
        options: Mapping[str, Any],
        refusals: Sequence[Refusal],
        tenants: Tenants,
        evidence: Evidence,
        ids: OwnIds,
    ) -> None:
        self.facts, self.refusals, self.tenants = facts, refusals, tenants
        self.evidence, self.ids = evidence, ids
        self.given = dict(options)
        self.changes = Changes()
        self.found = tenancy(facts, self.options, ids)

    @property
    def options(self) -> dict[str, Any]:
        return {**self.given, **self.changes.options}

    def put(self, option: str, value: Any, *confirm: str) -> None:
        self.changes.put(option, value, *confirm)
        self.found = tenancy(self.facts, self.options, self.ids)

    def say(self, table: str, option: str, value: Any, confirm: str) -> None:
        """Say something of one table."""
        entries = self.options.get("tables") or {}
        entry = entries.get(table) or {}
        self.put("tables", {**entries, table: {**entry, option: value}}, confirm)

    def run(self) -> Changes:
        refused = {refusal.object for refusal in self.refusals}
        own = OwnIdsProposal(self.facts, self.options, self.found, self.evidence, self.tenants, self.ids, refused)
        for option, value, confirm in own.options():
            self.put(option, value, confirm)
        for name in own.plain:
            self.say(name, "own_ids", False, f"{name} holds the tenant's id")
        root = own.query or self.ids.root
        self._tenant_columns(own.references(), root.table if root else "")
        if own.is_new:
            return self.changes  # what the participant calls the tenants has to be asked for first
        self._unclear()
        self._follow()
        self._ignore()
        self._rows_of_roots()
        self._inside()
        if any("no_cross_tenant_readers" in refusal.advice for refusal in self.refusals):
            self.put("no_cross_tenant_readers", True, "nothing reads rows of several tenants at once")
        return self.changes

    # -- tenant columns ---------------------------------------------------------------------------

    def _open(self) -> list[str]:
        """Tables of which nothing says what they are, and of which the options say nothing."""
        return [name for name in unclassified(self.facts, self.found) if name not in entries_of(self.options)]

    def _tenant_columns(self, references: Collection[str], root: str) -> None:
        """Columns that hold the id; where no row of the tenant is there, columns whose name leaves no doubt.

        :param references: columns that hold the participant's own ids.
        :param root: the table where they come from.
        """
        tables = self._open()
        holding: dict[str, list[str]] = {}
        for name in tables:
            for column in self.facts[name].columns if name != root else ():
                if self.evidence.held.get((name, column.name)) == AS_IT_IS:
                    holding.setdefault(column.name, []).append(name)
        wide = [column for column in holding if self._is_wide(column, holding[column])]
        wide += [column for column in references if column not in wide]
        empty = [column for column in self._promising(tables) if column not in wide]
        self._wide(wide, empty, holding)
        for each_column, names in sorted(holding.items()):
            for name in names if each_column not in wide else ():
                if name in self._open():  # else a foreign key has told by now
                    held = [each.name for each in self.facts[name].columns if name in holding.get(each.name, ())]
                    self.say(name, "tenant_columns", held, f"{name}.{held[0]} holds the tenant's id")

    def _wide(self, wide: Sequence[str], empty: Sequence[str], holding: Mapping[str, Sequence[str]]) -> None:
        if not wide and not empty:
            return
        patterns = self.given.get("tenant_columns")
        known = [
            pattern
            for pattern in patterns or DEFAULT_TENANT_COLUMNS
            if (patterns and tuple(patterns) != DEFAULT_TENANT_COLUMNS) or self._occurs(pattern)
        ]
        added = [column for column in (*wide, *empty) if column not in known]
        if not added:
            return
        told = [
            f"{column} holds the tenant's id ({len(holding[column])} times)"
            if column in holding
            else f"{column} holds what this database calls a tenant"
            for column in wide
        ]
        told += [f"{column} holds a tenant's id (no row of this one was seen)" for column in empty]
        self.put("tenant_columns", [*known, *added], *told)

    def _occurs(self, pattern: str) -> bool:
        return any(tenant_columns_of(table, [pattern]) for table in self.facts.values())

    def _is_wide(self, column: str, tables: Collection[str]) -> bool:
        """Whether the name alone can stand for a tenant's id, in whatever table."""
        elsewhere = [
            table
            for name, table in self.facts.items()
            if name not in tables and any(each.name == column for each in table.columns)
        ]
        if is_surely_tenant(column):
            return True
        if any(column in unique_columns(table) for table in elsewhere):
            return False  # the key of something else
        return is_tenant_like(column) or (len(tables) >= MANY and len(tables) > len(elsewhere))

    def _promising(self, tables: Iterable[str]) -> list[str]:
        """Columns of tables without rows of the tenant, whose names leave no doubt and whose types hold the id."""
        source = self.tenants.source_id
        called = {source, self.ids.known.get(source, source)}
        found = []
        for name in tables:
            held = any((name, each.name) in self.evidence.held for each in self.facts[name].columns)
            for column in self.facts[name].columns if not held and not bookkeeping(name) else ():
                fits = any(AS_IT_IS in fitting(column.type, text) for text in called)
                if fits and is_surely_tenant(column.name) and column.name not in found:
                    found.append(column.name)
        return found

    def _unclear(self) -> None:
        for name, column in sorted(self.found.unclear.items()):
            own = (name, column) in self.evidence.own
            if own != ((name, column) in self.evidence.held):
                what = "the participant's own ids" if own else "the tenant's id"
                self.say(name, "own_ids", own, f"{name}.{column} holds {what}")

    # -- tables without tenant columns ------------------------------------------------------------

    def _follow(self) -> None:
        """Children that no foreign key ties to their parents, as long as there are any: they may have children."""
        changed = True
        while changed:
            changed = False
            for name in self._open():
                parents, why = self._parents(name)
                if parents and not bookkeeping(name):
                    self.say(name, "follows", parents[0] if len(parents) == 1 else parents, why)
                    changed = True
        for name in self._open():
            for kind, reference in polymorphic(self.facts[name]) if not bookkeeping(name) else ():
                if name in self._open():
                    self.say(name, "follows", TABLE, f"{name}.{reference} leads to the table that {kind} names")

    def _parents(self, name: str) -> tuple[list[str], str]:
        table, moving = self.facts[name], {**self.found.columns, **self.found.follows}
        for kind, reference in polymorphic(table):
            words = self.evidence.kinds.get((name, kind), ())
            parents = sorted({found for word in words if (found := meant(word, moving))})
            if parents:
                return parents, f"{name}.{reference} leads to the tables that {kind} names"
        column, found = parent(table, [each for each in moving if each != name])
        return ([found], f"{name}.{column} leads to {found}") if found else ([], "")

    def _ignore(self) -> None:
        reasons: dict[str, list[str]] = {}
        for name in self._open():
            columns = self.facts[name].columns
            reason = bookkeeping(name) or NO_DATA
            doubtful = any((name, each.name) in {*self.evidence.held, *self.evidence.inside} for each in columns)
            if not doubtful and (reason != NO_DATA or not any(is_tenant_like(each.name) for each in columns)):
                reasons.setdefault(reason, []).append(name)
        for name, table in self.facts.items():
            for note in table.notes if name not in entries_of(self.options) else ():
                if note.ignorable:
                    reasons.setdefault(f"{note.ignorable} (confirm)", []).append(name)
        patterns = self.options.get("ignore") or {}
        for reason, names in sorted(reasons.items()):
            kept = set(self.facts) - set(names)
            patterns = {**patterns, folded(names, kept): reason}
        if reasons:
            told = ["none of these tables holds data of a tenant"] if NO_DATA in reasons else []
            self.put("ignore", patterns, *told)

    # -- values -----------------------------------------------------------------------------------

    def _rows_of_roots(self) -> None:
        for name in sorted(self.found.roots):
            table, entry = self.facts[name], entries_of(self.options).get(name, {})
            if table.rows_of_target:
                continue
            new_row = dict(entry.get("new_row") or {})
            target = self.tenants.named(self.tenants.target_id)
            for column in own_values(table, name, self.found.columns[name][0], new_row):
                new_row[column] = target if (name, column) in self.evidence.named else VALUE
            if new_row != (entry.get("new_row") or {}):
                self.say(name, "new_row", new_row, f"{name} has these values for {target}")

    def _inside(self) -> None:
        root = self.ids.root
        for name in sorted(self.found.columns):
            entry = entries_of(self.options).get(name, {})
            given = entry.get("id_stays")
            stays = dict(given) if isinstance(given, Mapping) else {}
            missing = [
                column
                for column in self.facts[name].ids_inside
                if column not in stays and not (root and (name, column) == (root.table, root.column))
            ]
            if missing:
                where = f"{name}.{', '.join(missing)}"
                stays |= dict.fromkeys(missing, STAYS)
                self.say(name, "id_stays", stays, f"nothing finds the tenant by the id inside {where}")
