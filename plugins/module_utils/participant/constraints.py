# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Foreign keys that would refer to nothing when rows change their id: asked in the plan, by one query for each.

Where the server checks keys the window would fail with requests held; where it does not, as in the sessions of MariaDB
and SQLite, the rows would dangle and nobody would look. So there the barrier asks again for the keys that :func:`ties`
names, when the rows have moved.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import STAYING, Refusal, TablePlan
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import ForeignKey, TableFacts


@dataclass(frozen=True)
class Dialect:
    """How an engine writes it.

    :param table: name of a table as the operator writes it → SQL.
    :param column: name of a column → SQL.
    :param value: (table, tenant column, id) → SQL of the id as the column's type.
    """

    table: Callable[[str], str]
    column: Callable[[str], str]
    value: Callable[[str, str, str], str]


def dangling(
    catalog: Mapping[str, TableFacts],
    plans: Sequence[TablePlan],
    unfit: Collection[str],
    dialect: Dialect,
    live_id: str,
    other_id: str,
) -> Iterator[tuple[str, Refusal]]:
    """For every foreign key that leads from moving rows to rows that stay: a query that has a row when one would
    dangle, and the refusal.

    :param unfit: tables of which nothing is asked.
    """
    moving = {plan.table: plan.tenant_columns for plan in plans if plan.strategy not in STAYING}
    for table, tenant in moving.items():
        for key in _leading_out(catalog, moving, table) if table not in unfit else ():
            yield _query(table, tenant, key, dialect, live_id, other_id), _refusal(table, key, other_id)


def ties(
    catalog: Mapping[str, TableFacts], moving: Mapping[str, Sequence[str]], table: str, sql: Callable[[str], str]
) -> tuple[str, ...]:
    """The foreign keys of *table* that lead from moving rows to rows that stay, each as one text for a state row.

    :param moving: tenant columns of the tables that change id.
    :param sql: name of a table as the operator writes it → SQL.
    """
    return tuple(
        json.dumps([key.name, key.table, key.columns, key.referred, sql(key.table)])
        for key in _leading_out(catalog, moving, table)
    )


def loose(tie: str, source: str, column: Callable[[str], str]) -> tuple[str, str]:
    """A query that has a row when a row of *source* refers to nothing, and the key in words.

    :param tie: one of :func:`ties`.
    :param source: FROM and WHERE of the referring rows, whose alias is ``c``.
    """
    name, parent, columns, referred, table = json.loads(tie)
    own = ", ".join(f"c.{column(each)}" for each in columns)
    complete = " AND ".join(f"d.{column(each)} IS NOT NULL" for each in columns)
    same = " AND ".join(f"p.{column(to)} = d.{column(each)}" for each, to in zip(columns, referred, strict=True))
    query = (
        f"SELECT 1 FROM (SELECT DISTINCT {own} {source}) d WHERE {complete} AND NOT EXISTS (SELECT 1 FROM"
        f" {table} p WHERE {same}) LIMIT 1"
    )
    return query, f"foreign key {name} to {parent} ({', '.join(referred)})"


def _leading_out(
    catalog: Mapping[str, TableFacts], moving: Mapping[str, Sequence[str]], table: str
) -> Iterator[ForeignKey]:
    """Foreign keys whose values change and whose parents stay."""
    tenant = moving[table]
    for key in catalog[table].foreign_keys:
        changes = key.table in catalog and any(own in tenant for own in key.columns)
        if changes and not _moves_along(key, tenant, moving.get(key.table, ())):
            yield key


def _moves_along(key: ForeignKey, tenant: Sequence[str], parents: Sequence[str]) -> bool:
    """Whether the id of the referred row changes together with the referring one's."""
    return all(referred in parents for own, referred in key.pairs if own in tenant)


def _query(table: str, tenant: Sequence[str], key: ForeignKey, dialect: Dialect, live_id: str, other_id: str) -> str:
    column = dialect.column
    own = ", ".join(column(name) for name in key.columns)
    of_tenant = " OR ".join(f"{column(name)} = {dialect.value(table, name, live_id)}" for name in tenant)
    complete = " AND ".join(f"{column(name)} IS NOT NULL" for name in key.columns)

    def moved(name: str) -> str:
        if name not in tenant:
            return f"c.{column(name)}"
        before, after = (dialect.value(table, name, tenant_id) for tenant_id in (live_id, other_id))
        return f"CASE WHEN c.{column(name)} = {before} THEN {after} ELSE c.{column(name)} END"

    same = " AND ".join(f"p.{column(referred)} = {moved(name)}" for name, referred in key.pairs)
    return (
        f"SELECT 1 FROM (SELECT DISTINCT {own} FROM {dialect.table(table)} WHERE ({of_tenant}) AND {complete}) c"
        f" WHERE NOT EXISTS (SELECT 1 FROM {dialect.table(key.table)} p WHERE {same}) LIMIT 1"
    )


def _refusal(table: str, key: ForeignKey, other_id: str) -> Refusal:
    referred = ", ".join(key.referred)
    return Refusal(
        table,
        f"Foreign key {key.name} of {table} refers to {key.table} ({referred}), whose rows stay, and rows that are to"
        f" stand under {other_id} find none there.",
        f"Insert the row of {other_id} into {key.table}, as the application does when it onboards a tenant, or let its"
        " rows move too.",
    )
