# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proposals for a participant that calls the tenants by ids of its own: pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import TableFacts
from ansible_collections.zdm.landscape.plugins.module_utils.participant.own_ids import OwnIds, Root
from ansible_collections.zdm.landscape.plugins.module_utils.participant.proposal.evidence import (
    Evidence,
    unique_columns,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.proposal.names import is_tenant_like, meant
from ansible_collections.zdm.landscape.plugins.module_utils.participant.proposal.spelling import (
    AS_IT_IS,
    family,
    fitting,
    spellings,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.tenancy import Tenancy

if TYPE_CHECKING:
    from ansible_collections.zdm.landscape.plugins.module_utils.participant.proposal.propose import Tenants

OWN_ID = "<own id>"


def misfits(facts: Mapping[str, TableFacts], found: Tenancy, tenant_id: str, ids: OwnIds) -> dict[str, tuple[str, ...]]:
    """Tenant columns by table whose types cannot hold the tenant's id, where nothing else is known to stand there."""
    if ids.known:
        return {}
    result = {}
    for name, columns in found.columns.items():
        kinds = {column.name: column.type for column in facts[name].columns}
        unfit = tuple(column for column in columns if AS_IT_IS not in fitting(kinds[column], tenant_id))
        if unfit:
            result[name] = unfit
    return result


class OwnIdsProposal:
    """What the participant calls the tenants, as far as its rows tell."""

    def __init__(
        self,
        facts: Mapping[str, TableFacts],
        options: Mapping[str, Any],
        found: Tenancy,
        evidence: Evidence,
        tenants: Tenants,
        ids: OwnIds,
        refused: Collection[str],
    ) -> None:
        self.facts, self.found, self.evidence, self.tenants = facts, found, evidence, tenants
        self.ids, self.refused = ids, refused
        self.told = bool(options.get("id_query") or options.get("ids") or options.get("own_ids"))
        self.misfits = {} if self.told else misfits(facts, found, tenants.source_id, ids)
        self.query = None if self.told else self._root()
        self.is_new = False
        self.plain: list[str] = []

    def options(self) -> Iterator[tuple[str, Any, str]]:
        """Option, value, and what has to be confirmed."""
        if self.told:
            return
        source, target = self.tenants.source_id, self.tenants.target_id
        ways = {self.evidence.held[place] for place in self._doubted() if place in self.evidence.held}
        if self.query:
            self.is_new = True
            root = self.query
            query = f"SELECT {root.key} FROM {root.table} WHERE {root.column} = :tenant_id"
            yield "id_query", query, f"{root.table}.{root.key} is what this database calls a tenant"
        elif len(ways) == 1 and AS_IT_IS not in ways:
            self.is_new = True
            (way,) = ways
            self.plain = self._plain()
            ids = {self.tenants.named(tenant): spellings(tenant)[way] for tenant in (source, target)}
            yield "ids", ids, f"the ids are written {way} here"
        elif self.misfits and not ways:
            self.is_new = True
            ids = dict.fromkeys((self.tenants.named(source), self.tenants.named(target)), OWN_ID)
            yield "ids", ids, "write what this database calls them"

    def _plain(self) -> list[str]:
        """Tables that hold the tenants' ids themselves, beside others that do not."""
        kinds = {name: {each.name: each.type for each in self.facts[name].columns} for name in self.found.columns}
        return [
            name
            for name, columns in self.found.columns.items()
            if self.facts[name].rows
            and all(family(kinds[name][column]) == "text" for column in columns)
            and not any((name, column) in self._doubted() for column in columns)
        ]

    def references(self) -> list[str]:
        """Columns that lead to a root's own ids, as foreign keys or names tell, and that no option names."""
        root = self.query or self.ids.root
        if root is None or root.table not in self.facts:
            return []
        kinds = {column.name: column.type for column in self.facts[root.table].columns}
        named = {column for columns in self.found.columns.values() for column in columns}
        tied = {own for own, _kind in self._ties(root)}
        found = list[str]()
        for name, table in self.facts.items():
            for column in table.columns if name != root.table else ():
                same = family(column.type) == family(kinds.get(root.key, ""))
                meets = column.name in tied or (is_tenant_like(column.name) and self._leads(column.name, root))
                if same and meets and column.name not in named | set(found) and name not in self.found.ignored:
                    found.append(column.name)
        return found

    def _doubted(self) -> set[tuple[str, str]]:
        """Tenant columns, without roots, that should hold the id."""
        empty = all(not self.facts[name].rows for name in self.found.columns)
        return {
            (name, column)
            for name, columns in self.found.columns.items()
            for column in columns
            if empty or name in self.refused or column in self.misfits.get(name, ())
        }

    def _ties(self, root: Root) -> list[tuple[str, str]]:
        """Columns with a foreign key to the root's key, and their tables."""
        return [
            (own, name)
            for name, table in self.facts.items()
            for key in table.foreign_keys
            for own, other in key.pairs
            if key.table == root.table and other == root.key and name != root.table
        ]

    @staticmethod
    def _leads(column: str, root: Root) -> bool:
        word = column[: -len(root.key)].rstrip("_") if column.endswith(root.key) else column.rpartition("_")[0]
        return bool(meant(word, [root.table]))

    def _root(self) -> Root | None:
        """A table with a key of its own and a column that holds the source's id, to which other tables refer."""
        found = []
        for (name, column), way in sorted(self.evidence.held.items()):
            table = self.facts[name]
            key = table.primary_key
            if way != AS_IT_IS or len(key) != 1 or key[0] == column or column not in unique_columns(table):
                continue
            root = Root(name, key[0], column)
            if not self.misfits and any(name in tables for tables in (self.found.columns, self.found.ignored)):
                continue  # nothing is refused for it
            score = self._score(root)
            if score:
                found.append((-score, name, root))
        return min(found, key=lambda each: each[:2])[2] if found else None

    def _score(self, root: Root) -> int:
        """How many columns refer to a root's key: such that should hold the id and can't, or foreign keys."""
        kinds = {column.name: column.type for column in self.facts[root.table].columns}
        wanted = family(kinds[root.key])
        unfit = [
            column.name
            for name, columns in self.misfits.items()
            for column in self.facts[name].columns
            if column.name in columns and family(column.type) == wanted
        ]
        return len(unfit) + sum(self._leads(column, root) for column in unfit) + len(self._ties(root))
