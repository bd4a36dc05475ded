# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Partitioned tables of MariaDB. Triggers, keys and locks are the table's, so a partitioned table is one like another,
but for rows that no partition takes under the other id: LIST and RANGE COLUMNS by the tenant column may have none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute, literal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import Note
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb import sql

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


def partition_notes(
    connection: Connection,
    tenant: Mapping[str, Sequence[str]],
    quote: Callable[[str], str],
    value: Callable[[str, str, str], str],
    live_id: str,
    other_id: str,
) -> tuple[dict[str, list[Note]], dict[str, str]]:
    """What forbids moving rows of partitioned tables; and by table the tenant column in its partition key.

    :param tenant: tenant columns by table.
    :param value: (table, tenant column, tenant id) → what the column holds, as a literal.
    """
    notes: dict[str, list[Note]] = {}
    keys: dict[str, str] = {}
    for name, method, expression in execute(connection, sql.PARTITIONS).all():
        columns = [column.replace("``", "`") for column in re.findall(r"`((?:[^`]|``)+)`", expression or "")]
        moving = [column for column in columns if column in tenant.get(name, ())]
        if not moving:
            continue
        keys[name] = moving[0]
        if method.startswith(("LIST", "RANGE")) and _homeless(
            connection, name, columns, tenant[name], quote, value, live_id, other_id
        ):
            reason = f"Table {name} has no partition for rows of {other_id}: it is partitioned by {moving[0]}."
            notes.setdefault(name, []).append(Note(reason, _way_out(name, method, columns, quote, value, other_id)))
    return notes, keys


def _way_out(
    name: str,
    method: str,
    columns: Sequence[str],
    quote: Callable[[str], str],
    value: Callable[[str, str, str], str],
    other_id: str,
) -> str:
    if method.startswith("LIST") and len(columns) == 1:
        missing = value(name, columns[0], other_id)
        return f"ALTER TABLE {quote(name)} ADD PARTITION (PARTITION <name> VALUES IN ({missing}))."
    return "Add a partition that takes them (ALTER TABLE … ADD or REORGANIZE PARTITION)."


def _homeless(
    connection: Connection,
    name: str,
    columns: Sequence[str],
    tenant: Sequence[str],
    quote: Callable[[str], str],
    value: Callable[[str, str, str], str],
    live_id: str,
    other_id: str,
) -> bool:
    """Whether no partition takes a row of *live_id* under *other_id*.

    The bounds are compared here. To ask EXPLAIN, which partitions it would read, is no way: where it finds none, a
    later UPDATE or DELETE without WHERE, by any session, can find no row either (10.11, measured).
    """
    values = [
        f"IF({quote(column)} = {value(name, column, live_id)}, {value(name, column, other_id)}, {quote(column)})"
        if column in tenant
        else quote(column)
        for column in columns
    ]
    bounds = execute(connection, sql.BOUNDS.format(table=literal(name))).all()
    if any(method.startswith("LIST") for method, _bound in bounds):
        fits = " OR ".join(_in_list(values, bound) for _method, bound in bounds)
    else:
        fits = _below(values, _split(bounds[-1][1]))
    own = " OR ".join(f"{quote(column)} = {value(name, column, live_id)}" for column in tenant)
    query = f"SELECT 1 FROM {quote(name)} WHERE ({own}) AND NOT ({fits}) LIMIT 1"
    return execute(connection, query).first() is not None


def _in_list(values: Sequence[str], bound: str) -> str:
    # what MariaDB says of a DEFAULT partition
    return "TRUE" if bound in ("DEFAULT", "MAXVALUE") else f"({', '.join(values)}) IN ({bound})"


def _below(values: Sequence[str], bounds: Sequence[str]) -> str:
    """Condition: the values come before the last bound of all, column by column."""
    if not values:
        return "FALSE"
    if bounds[0] == "MAXVALUE":
        return "TRUE"
    rest = _below(values[1:], bounds[1:])
    return f"({values[0]} < {bounds[0]} OR ({values[0]} = {bounds[0]} AND {rest}))"


def _split(bound: str) -> list[str]:
    return re.findall(r"'(?:[^'\\]|''|\\.)*'|[^,]+", bound)
