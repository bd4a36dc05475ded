# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What names of columns and tables promise."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import TableFacts

_SUFFIX = r"(_?(id|uuid|guid|key|code|no|nr|num|number|ref))?_?"
_SURE = re.compile(rf"(\w*_)?(tenant|mandant|mandt|zid|realm|workspace|subaccount){_SUFFIX}", re.IGNORECASE)
_LIKELY = re.compile(rf"(\w*_)?(org|organi[sz]ation|account|customer|company|client|team|site){_SUFFIX}", re.IGNORECASE)
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")


def is_tenant_like(column: str) -> bool:
    """Whether a column's name looks like a tenant's, or like that of what a product calls one."""
    return bool(_SURE.fullmatch(column) or _LIKELY.fullmatch(column))


def is_surely_tenant(column: str) -> bool:
    """Whether a column's name means a tenant in every product."""
    return bool(_SURE.fullmatch(column))


def polymorphic(table: TableFacts) -> Iterator[tuple[str, str]]:
    """Pairs of columns ``<x>_type`` and ``<x>_id``: the kind of a row elsewhere, and its key."""
    names = {column.name.lower(): column.name for column in table.columns}
    for lower, name in names.items():
        match = re.fullmatch(r"(\w+?)_?type", lower)
        reference = match and (names.get(f"{match[1]}_id") or names.get(f"{match[1]}id"))
        if reference:
            yield name, reference


def meant(word: str, tables: Iterable[str]) -> str:
    """The table that a word in singular means, for example a class's name; empty when there is none.

    >>> meant("App\\Models\\OrderLine", ["order_lines"])
    'order_lines'
    """
    parts = [part for part in re.split(r"[\\\\/.:]+", word) if part]
    snake = "_".join(part for part in _WORDS.split(parts[-1]) if part).lower() if parts else ""
    if not snake:
        return ""
    wanted = (snake, f"{snake}s", f"{snake}es", f"{snake[:-1]}ies" if snake.endswith("y") else snake)
    by_name = {table.rpartition(".")[2].lower(): table for table in tables}
    return next((by_name[name] for name in wanted if name in by_name), "")


def parent(table: TableFacts, parents: Collection[str]) -> tuple[str, str]:
    """A column that names another table by its name, ``item_id``, and that table; empty when there is none."""
    for column in table.columns:
        match = re.fullmatch(r"(\w+?)_?(id|uuid|guid|key|ref)", column.name, re.IGNORECASE)
        found = match and meant(match[1], parents)
        if found:
            return column.name, found
    return "", ""
