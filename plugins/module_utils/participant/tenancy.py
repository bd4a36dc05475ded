# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tables hold a tenant's data, and by which columns: from the options and from foreign keys.

A foreign key tells what nobody needs to write down. A column that a tenant column refers to holds tenants' ids, and so
does one that refers to a tenant column. A table without any that refers to rows which keep their keys follows them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import ForeignKey, TableFacts
from ansible_collections.zdm.landscape.plugins.module_utils.participant.own_ids import OwnIds
from ansible_collections.zdm.landscape.plugins.module_utils.participant.table_options import (
    DEFAULT_TENANT_COLUMNS,
    compiled,
    tenant_columns_of,
)


@dataclass
class Tenancy:
    """The tables of one database.

    :param columns: by name the tenant columns of every table that changes id.
    :param because: by name why a table has tenant columns that no option names.
    :param inferred: by name those columns.
    :param ignored: by name the reason why a table is left out.
    :param follows: by name the path to the rows with which a table goes.
    :param roots: tables with one row per tenant, to which others refer by the tenant's id: the row of the other id is
        made as a copy.
    :param unclear: by name a column that may hold tenants' ids, or the participant's own.
    """

    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    because: dict[str, str] = field(default_factory=dict)
    inferred: dict[str, set[str]] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    follows: dict[str, str] = field(default_factory=dict)
    roots: set[str] = field(default_factory=set)
    unclear: dict[str, str] = field(default_factory=dict)


def tenancy(catalog: Mapping[str, TableFacts], options: Mapping[str, Any], ids: OwnIds) -> Tenancy:
    """What the options and the foreign keys of *catalog* say; wrong options say nothing here."""
    return _Finder(catalog, options, ids).run()


def entries_of(options: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What the options say of single tables."""
    return {name: entry for name, entry in (options.get("tables") or {}).items() if isinstance(entry, Mapping)}


class _Finder:
    def __init__(self, catalog: Mapping[str, TableFacts], options: Mapping[str, Any], ids: OwnIds) -> None:
        self.catalog = {name: catalog[name] for name in sorted(catalog)}
        self.options, self.ids = options, ids
        self.entries = entries_of(options)
        self.found = Tenancy()

    def run(self) -> Tenancy:
        found = self.found
        found.ignored = self._ignored()
        patterns = self.options.get("tenant_columns") or DEFAULT_TENANT_COLUMNS
        for name, table in self.catalog.items():
            columns = self._named(table, patterns)
            if columns and name not in found.ignored and not self._entry(name).get("follows"):
                found.columns[name] = columns
        while self._infer():
            pass
        found.roots = {name for name in found.columns if self._is_root(name)}
        for name, columns in found.columns.items():
            kinds = {column.name: column.type for column in self.catalog[name].columns}
            for column in columns:
                if self.ids.unclear(kinds[column], self._entry(name)):
                    found.unclear[name] = column
        if self.ids.relabel:
            self._keep_own_ids()
        self._find_followers()
        return found

    def _entry(self, name: str) -> Mapping[str, Any]:
        return self.entries.get(name, {})

    def _named(self, table: TableFacts, patterns: Sequence[str]) -> tuple[str, ...]:
        own = self._entry(table.name).get("tenant_columns")
        if not isinstance(own, list | tuple):
            return tenant_columns_of(table, patterns)
        return tuple(column.name for column in table.columns if column.name in own)

    def _ignored(self) -> dict[str, str]:
        patterns = self.options.get("ignore")
        expressions = [
            (expression, str(reason))
            for pattern, reason in (patterns.items() if isinstance(patterns, Mapping) else ())
            if (expression := compiled(pattern))
        ]
        result = {}
        for name in self.catalog:
            own = self._entry(name).get("ignore")
            reasons = [reason for expression, reason in expressions if expression.fullmatch(name)]
            if own or (reasons and not self._entry(name)):
                result[name] = str(own or reasons[0])
        return result

    # -- by foreign keys --------------------------------------------------------------------------

    def _keys(self) -> list[tuple[str, ForeignKey]]:
        """(child, foreign key) between different tables, of which none is left out or said to follow."""
        return [
            (name, key)
            for name, table in self.catalog.items()
            for key in table.foreign_keys
            if key.table in self.catalog and key.table != name and self._open(name) and self._open(key.table)
        ]

    def _open(self, name: str) -> bool:
        return name not in self.found.ignored and not self._entry(name).get("follows")

    def _infer(self) -> bool:
        """Add one column that a foreign key makes a tenant column; whether there was one."""
        columns = self.found.columns
        for child, key in self._keys():
            for own, other in key.pairs:
                is_own, is_other = own in columns.get(child, ()), other in columns.get(key.table, ())
                if is_own and not is_other:
                    self._add(key.table, other, f"foreign key {key.name} of {child} leads to {other} from {own}")
                    return True
                if is_other and not is_own:
                    self._add(child, own, f"foreign key {key.name} leads from {own} to {other} of {key.table}")
                    return True
        return False

    def _add(self, name: str, column: str, why: str) -> None:
        known = {*self.found.columns.get(name, ()), column}
        self.found.columns[name] = tuple(each.name for each in self.catalog[name].columns if each.name in known)
        self.found.inferred.setdefault(name, set()).add(column)
        earlier = self.found.because.get(name)
        self.found.because[name] = f"{earlier}, {why}" if earlier else why

    def _is_root(self, name: str) -> bool:
        """One row per tenant: the tenant column alone is a key, and others refer to it, or the options name it."""
        columns = self.found.columns[name]
        keys = [self.catalog[name].primary_key, *(key.columns for key in self.catalog[name].unique_keys if key.whole)]
        if len(columns) != 1 or columns not in keys:
            return False
        referring = [key for _child, key in self._keys() if key.table == name]
        if any(columns[0] not in key.referred for key in referring):
            return False  # who refers by another key would stay with the old row, so the row itself has to move
        return bool(referring) or "tenant_columns" in self._entry(name)

    def _keep_own_ids(self) -> None:
        """Only the root's row changes: what holds the participant's own ids stays as it is."""
        found, root = self.found, self.ids.root
        for name, columns in list(found.columns.items()):
            kinds = {column.name: column.type for column in self.catalog[name].columns}
            change = tuple(column for column in columns if not self.ids.keeps(kinds[column], self._entry(name)))
            if root and name == root.table:
                change = ()
            if change:
                found.columns[name] = change
                continue
            del found.columns[name]
            if root and name != root.table:
                found.follows[name] = f"{', '.join(columns)} holds the own id of {root.table}, which stays"
        if root and root.table in self.catalog:
            found.columns[root.table] = (root.column,)
            found.because[root.table] = "id_query finds the own id by this column"
            found.roots.discard(root.table)
        found.roots &= found.columns.keys()

    def _find_followers(self) -> None:
        for name in self.catalog:
            if name in self.found.columns or name in self.found.ignored or name in self.found.follows:
                continue
            named = self._entry(name).get("follows")
            if named:
                self.found.follows[name] = ", ".join([named] if isinstance(named, str) else map(str, named))
            elif path := self._path(name):
                self.found.follows[name] = path
        root = self.ids.root
        if root and not self.ids.relabel and root.table in self.catalog and root.table not in self.found.columns:
            self.found.follows.pop(root.table, None)
            self.found.ignored.setdefault(root.table, "id_query reads the own ids here, and both rows stay")

    def _path(self, name: str) -> str:
        """The shortest way by foreign keys to a table that changes id, or whose rows stay with one; empty when there is
        none.
        """
        ways: deque[tuple[str, tuple[str, ...]]] = deque([(name, ())])
        seen = {name}
        while ways:
            table, steps = ways.popleft()
            for key in self.catalog[table].foreign_keys:
                step = (*steps, f"{table} ({', '.join(key.columns)}) → {key.table}")
                if key.table in self.found.columns or key.table in self.found.follows:
                    return ", ".join(step)
                if key.table in self.catalog and key.table not in seen and key.table not in self.found.ignored:
                    seen.add(key.table)
                    ways.append((key.table, step))
        return ""
