# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator says of tables: ``tenant_columns`` and the entries of ``tables``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import AUTO, IN_PLACE, TWIN
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import TableFacts
from ansible_collections.zdm.landscape.plugins.module_utils.participant.own_ids import to_fill_in

DEFAULT_TENANT_COLUMNS = ("tenant_id",)

_TABLE_KEYS = (
    *("strategy", "key", "no_cross_tenant_readers", "ignore", "id_stays"),
    *("tenant_columns", "follows", "own_ids", "new_row"),
)
_STRATEGIES = (AUTO, IN_PLACE, TWIN)


def tenant_columns_of(facts: TableFacts, patterns: Iterable[str]) -> tuple[str, ...]:
    """Columns of a table whose whole name matches one of *patterns*, in the table's order; wrong patterns match
    nothing.
    """
    expressions = [expression for pattern in patterns if (expression := compiled(pattern))]
    return tuple(
        column.name for column in facts.columns if any(expression.fullmatch(column.name) for expression in expressions)
    )


def compiled(pattern: Any) -> re.Pattern[str] | None:
    """The expression of a pattern; None for a wrong one."""
    try:
        return re.compile(pattern)
    except (re.error, TypeError):
        return None


def wrong_options(table: TableFacts, entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Reason and advice for everything that is wrong in a table's entry of the options."""
    unknown = sorted(set(entry) - set(_TABLE_KEYS))
    if unknown:
        yield f"Unknown option {', '.join(unknown)} for table {table.name}.", f"Known are {', '.join(_TABLE_KEYS)}."
    wanted = entry.get("strategy", AUTO)
    if wanted not in _STRATEGIES:
        yield f"Unknown strategy {wanted!r} for table {table.name}.", f"Use one of {', '.join(_STRATEGIES)}."
    if "ignore" in entry and not (isinstance(entry["ignore"], str) and entry["ignore"].strip()):
        yield f"Table {table.name} is ignored without a reason.", 'Write why: `ignore: "<reason>"`.'
    for column, value in (entry.get("new_row") or {}).items():
        if to_fill_in(value):
            reason = f"`new_row` of table {table.name} has no value for {column} yet, only {value}."
            yield reason, "Write what the other tenant's row has there."
    names = {column.name for column in table.columns}
    for option in ("tenant_columns", "new_row"):
        strange = sorted(set(entry.get(option) or ()) - names)
        if strange:
            reason = f"`{option}` of table {table.name} names {', '.join(strange)}, which it does not have."
            yield reason, f"Its columns are {', '.join(sorted(names))}."
    stays = entry.get("id_stays") or {}
    if not isinstance(stays, Mapping) or not all(stays.values()) or not set(stays) <= names:
        advice = 'Write columns of the table, each with a reason: `id_stays: {<column>: "<reason>"}`.'
        yield f"`id_stays` of table {table.name} is wrong.", advice
