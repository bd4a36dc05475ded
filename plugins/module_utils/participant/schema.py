# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What follows from the catalog and an operator's options before any strategy is chosen: keys, links, what is possible.

Nothing here depends on rows or on time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import AUTO, TWIN
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import (
    Engine,
    ForeignKey,
    Note,
    TableFacts,
    UniqueKey,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.order import components, cyclic, parents_first


@dataclass
class Schema:
    """Tables with their options.

    :param facts: by name every table of the database.
    :param options: the participant's options.
    :param entries: by name what the options say of a table, checked.
    :param tenant: by name the tenant columns of the tables that change id.
    :param roots: tables of which the row of the other id is a copy, and both stay.
    :param relabelled: the root of which only the row changes, if any.
    """

    facts: dict[str, TableFacts]
    options: Mapping[str, Any]
    engine: Engine
    entries: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    tenant: dict[str, tuple[str, ...]] = field(default_factory=dict)
    roots: set[str] = field(default_factory=set)
    relabelled: str = ""

    def asked(self, name: str) -> str:
        """The strategy that the options ask for."""
        return str(self.entries.get(name, {}).get("strategy", AUTO))

    def forbids_all(self, note: Note) -> bool:
        return set(note.strategies) >= set(self.engine.strategies)

    def key(self, name: str) -> tuple[str, ...]:
        """The columns that identify a row: the unique key named by ``key``, the primary key, or the first unique key
        with a tenant column; empty when there is none.
        """
        table, tenant = self.facts[name], set(self.tenant.get(name, ()))
        wanted = set(self.entries.get(name, {}).get("key") or ())
        if table.primary_key and not wanted:
            return table.primary_key
        nullable = {column.name for column in table.columns if column.nullable}
        for unique in (UniqueKey("primary key", table.primary_key), *table.unique_keys):
            columns = set(unique.columns)
            fits = columns == wanted if wanted else bool(tenant & columns)
            if unique.whole and fits and not nullable & columns:
                return unique.columns
        return ()

    def shared_keys(self, name: str) -> tuple[str, ...]:
        """Unique keys over all tenants: none of their columns is a tenant column."""
        table, tenant = self.facts[name], set(self.tenant[name])
        keys = (UniqueKey("primary key", table.primary_key), *table.unique_keys)
        return tuple(key.name for key in keys if key.columns and not tenant & set(key.columns))

    # -- links ------------------------------------------------------------------------------------

    def follows_tenant(self, child: str, key: ForeignKey) -> bool:
        """The foreign key carries a tenant column between two planned tables."""
        if key.table not in self.tenant:
            return False
        return any(own in self.tenant[child] and other in self.tenant[key.table] for own, other in key.pairs)

    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Tables that can only change id in the same way, as foreign keys carry the tenant column between them. Rows
        of a root stand under both ids, so its children may change in any way.
        """
        return components(self._changing, self._edges())

    @property
    def _changing(self) -> list[str]:
        return [name for name in self.tenant if name not in self.roots]

    def in_order(self) -> tuple[str, ...]:
        """The tables that change id, parents before children."""
        edges = {
            (name, key.table)
            for name in self.tenant
            for key in self.facts[name].foreign_keys
            if key.table in self.tenant
        }
        return parents_first(self.tenant, edges)

    def _edges(self) -> set[tuple[str, str]]:
        """(child, parent) for foreign keys that carry the tenant column; not those to roots."""
        return {
            (name, key.table)
            for name in self._changing
            for key in self.facts[name].foreign_keys
            if key.table not in self.roots and self.follows_tenant(name, key)
        }

    @cached_property
    def _cycles(self) -> frozenset[str]:
        return cyclic(self._changing, self._edges())

    # -- twins ------------------------------------------------------------------------------------

    def twin_blocker(self, name: str) -> str:
        """Why *name* cannot be a twin; empty when it can."""
        table, tenant = self.facts[name], self.tenant[name]
        if TWIN not in self.engine.strategies:
            return f"{self.engine.name} has no twin strategy"
        if len(tenant) > 1:
            return f"it has several tenant columns ({', '.join(tenant)})"
        if not self.key(name):
            return f"it has neither a primary key nor a unique key of NOT NULL columns with {tenant[0]}"
        for unique in (UniqueKey("primary key", table.primary_key or self.key(name)), *table.unique_keys):
            if tenant[0] not in unique.columns:
                return f"unique key {unique.name} ({', '.join(unique.columns)}) does not contain {tenant[0]}"
        if set(self.key(name)) == set(tenant):
            return f"its key is {tenant[0]} alone"
        nullable = [column.name for column in table.columns if column.name in tenant and column.nullable]
        if nullable:
            return f"its tenant column {nullable[0]} may be null"
        if table.triggers and not self.engine.may_exempt_app_triggers:
            return f"its trigger {table.triggers[0]} would fire for the copies, and the user may not exempt its session"
        for note in table.notes:
            if TWIN in note.strategies:
                return note.reason.rstrip(".")
        return self._foreign_key_blocker(name) or self._reader_blocker(name)

    def _foreign_key_blocker(self, name: str) -> str:
        if name in self._cycles:
            return "its foreign keys form a cycle"
        for key in self.facts[name].foreign_keys:
            follows = self.follows_tenant(name, key)
            if key.table in self.tenant and not follows:
                return (
                    f"foreign key {key.name} refers to {key.table} without the tenant column, so a copy would keep rows"
                    " there from being deleted"
                )
            # the rows of a root that are the migration's are guarded where a cascade would fire no trigger
            if key.acts and not (follows and (self.engine.cascades_fire_triggers or key.table in self.roots)):
                return (
                    f"foreign key {key.name} changes rows by itself (ON DELETE {key.on_delete}, ON UPDATE"
                    f" {key.on_update}), which the log would miss"
                )
        return ""

    def _reader_blocker(self, name: str) -> str:
        if self.options.get("no_cross_tenant_readers") or self.entries.get(name, {}).get("no_cross_tenant_readers"):
            return ""
        return (
            "readers across tenants would see the copies, and nobody declared that there are none"
            " (`no_cross_tenant_readers: true`)"
        )
