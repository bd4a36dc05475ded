# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Constraints of PostgreSQL that rows would break when they change their id: found by the plan, not by a window that
holds requests.

A constraint may have been added NOT VALID, or call a function whose answer has changed: old rows break it, and
PostgreSQL checks every row that is changed or copied (manual, ALTER TABLE).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import TWIN, Refusal, TablePlan
from ansible_collections.zdm.landscape.plugins.module_utils.participant.constraints import Dialect, dangling
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute, literal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import TableFacts
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.catalog import Detail
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.partitions import homeless, tree
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.sql import quote

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


def broken_constraints(
    connection: Connection,
    catalog: Mapping[str, TableFacts],
    details: Mapping[str, Detail],
    planned: Sequence[TablePlan],
    unfit: Collection[str],
    value: Callable[[str, str, str], str],
    live_id: str,
    other_id: str,
) -> list[Refusal]:
    """One refusal for each constraint of *planned* tables that a row of *live_id* would break under *other_id*; one
    query each.

    :param value: (table, tenant column, tenant id) → what the column holds, as a literal.
    """
    dialect = Dialect(lambda table: details[table].sql, quote, value)
    found = list(dangling(catalog, planned, unfit, dialect, live_id, other_id))
    for plan in (plan for plan in planned if plan.table not in unfit):
        found += _checks(connection, details[plan.table], plan, dialect, live_id, other_id)
        found += _keys_not_valid(connection, catalog, details[plan.table], plan, dialect, live_id)
    return [
        *(refusal for query, refusal in found if execute(connection, query).first()),
        *_homeless(connection, details, planned, unfit, dialect, live_id, other_id),
    ]


def _homeless(
    connection: Connection,
    details: Mapping[str, Detail],
    planned: Sequence[TablePlan],
    unfit: Collection[str],
    dialect: Dialect,
    live_id: str,
    other_id: str,
) -> Iterator[Refusal]:
    """Rows that no partition would take."""
    for plan in planned:
        partitioned = details[plan.table].partitioned
        if partitioned and plan.table not in unfit and partitioned.key & set(plan.tenant_columns):
            rows = _moved_rows(details[plan.table], plan, dialect, live_id, other_id)
            refusal = homeless(connection, plan.table, partitioned, rows, other_id)
            if refusal:
                yield refusal


def _checks(
    connection: Connection, detail: Detail, plan: TablePlan, dialect: Dialect, live_id: str, other_id: str
) -> Iterator[tuple[str, Refusal]]:
    """Each CHECK of a table, asked about the rows as they will stand under the other id."""
    rows = _moved_rows(detail, plan, dialect, live_id, other_id)
    standing = f"SELECT * FROM {detail.sql} WHERE {_own(plan, dialect, live_id)}"
    tables = f"SELECT {literal(detail.sql)}::regclass::oid"
    # one that reads other rows of the tenant finds them under the other id only when they have moved; then a volatile
    # one sees them, and no other one does
    functions = (
        "ARRAY(SELECT f.provolatile::text FROM pg_depend d JOIN pg_proc f ON f.oid = d.refobjid WHERE d.classid ="
        " 'pg_constraint'::regclass AND d.objid = k.oid AND d.refclassid = 'pg_proc'::regclass)"
    )
    # what a partition inherits is asked of the parent
    checks = (
        "SELECT k.conname, pg_get_expr(k.conbin, k.conrelid), c.relispartition,"
        f" coalesce(pg_get_partition_constraintdef(c.oid), 'true'), {functions} FROM pg_constraint k JOIN pg_class c ON"
        f" c.oid = k.conrelid WHERE k.contype = 'c' AND k.coninhcount = 0 AND k.conrelid IN ({tree(tables)})"
        " ORDER BY 1, c.oid"
    )
    for name, condition, is_partition, bounds, volatile in execute(connection, checks).all():
        source, here = standing if "v" in volatile else rows, f"({bounds}) AND " if is_partition else ""
        query = f"SELECT 1 FROM ({source}) AS {quote(detail.relation)} WHERE {here}({condition}) IS FALSE LIMIT 1"
        reason = (
            f"Check constraint {name} of {plan.table} does not hold for a row of {live_id} when it stands under"
            f" {other_id}."
        )
        yield (
            query,
            Refusal(
                plan.table,
                reason,
                "Correct the rows or the constraint; it is checked for every row that is changed or copied."
                + (" A function that reads other rows for it must be VOLATILE, to see them move." if volatile else ""),
            ),
        )


def _moved_rows(detail: Detail, plan: TablePlan, dialect: Dialect, live_id: str, other_id: str) -> str:
    """Query: the rows of the live id as they will stand under the other one."""
    moved = {}
    for column in plan.tenant_columns:
        before, after = (dialect.value(plan.table, column, tenant_id) for tenant_id in (live_id, other_id))
        moved[column] = f"CASE WHEN {quote(column)} = {before} THEN {after} ELSE {quote(column)} END"
    rows = ", ".join(
        f"{moved[column]} AS {quote(column)}" if column in moved else quote(column) for column in detail.types
    )
    return f"SELECT {rows} FROM {detail.sql} WHERE {_own(plan, dialect, live_id)}"


def _keys_not_valid(
    connection: Connection,
    catalog: Mapping[str, TableFacts],
    detail: Detail,
    plan: TablePlan,
    dialect: Dialect,
    live_id: str,
) -> Iterator[tuple[str, Refusal]]:
    """Foreign keys that were added NOT VALID and that the strategy asks about."""
    tables = f"SELECT {literal(detail.sql)}::regclass::oid"
    names = (
        "SELECT conname, conrelid::regclass::text FROM pg_constraint WHERE contype = 'f' AND NOT convalidated AND"
        f" conrelid IN ({tree(tables)})"
    )
    # a partition may have keys of its own, and until they are all valid the parent has none
    unproven = {row[0]: row[1] for row in execute(connection, names)}
    for key in catalog[plan.table].foreign_keys:
        asked = plan.strategy == TWIN or {*key.columns} & {*plan.tenant_columns}
        if key.name not in unproven or key.table not in catalog or not asked:
            continue
        complete = " AND ".join(f"c.{quote(column)} IS NOT NULL" for column in key.columns)
        same = " AND ".join(f"p.{quote(referred)} = c.{quote(column)}" for column, referred in key.pairs)
        query = (
            f"SELECT 1 FROM {unproven[key.name]} c WHERE ({_own(plan, dialect, live_id, 'c.')}) AND {complete}"
            f" AND NOT EXISTS (SELECT FROM {dialect.table(key.table)} p WHERE {same}) LIMIT 1"
        )
        reason = (
            f"Foreign key {key.name} of {plan.table} is NOT VALID, and a row of {live_id} refers to nothing in"
            f" {key.table}."
        )
        yield (
            query,
            Refusal(
                plan.table,
                reason,
                f"Correct the rows until ALTER TABLE {unproven[key.name]} VALIDATE CONSTRAINT {quote(key.name)}"
                " succeeds.",
            ),
        )


def _own(plan: TablePlan, dialect: Dialect, live_id: str, prefix: str = "") -> str:
    """Condition: a row of the live id."""
    return " OR ".join(
        f"{prefix}{quote(column)} = {dialect.value(plan.table, column, live_id)}" for column in plan.tenant_columns
    )
