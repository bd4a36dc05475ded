# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the other tenant's row of a root may share with the row of which it is a copy: pure."""

from __future__ import annotations

from collections.abc import Mapping

from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import TableFacts, UniqueKey


def own_values(facts: TableFacts, table: str, tenant: str, new_row: Mapping[str, object]) -> dict[str, str]:
    """Columns of a root whose value the copy cannot share, each with what is wrong; empty when all is said.

    A column that the server numbers gets its own value by itself.
    """
    numbered = {column.name for column in facts.columns if column.identity}
    wrong = {}
    for key in (UniqueKey("primary key", facts.primary_key), *facts.unique_keys):
        columns = set(key.columns)
        if columns and tenant not in columns and not columns & (numbered | set(new_row)):
            wrong[sorted(columns)[0]] = f"Key {key.name} of {table} ({', '.join(key.columns)}) allows no second row"
    return wrong


def shared_columns(facts: TableFacts, tenant: str, new_row: Mapping[str, object]) -> tuple[str, ...]:
    """Columns that the copy takes from the row of the live id."""
    unique = {
        column
        for key in (facts.primary_key, *(key.columns for key in facts.unique_keys))
        if tenant not in key
        for column in key
    }
    return tuple(
        column.name
        for column in facts.columns
        if column.name not in (tenant, *new_row)
        and not column.generated
        and not (column.identity and column.name in unique)
    )
