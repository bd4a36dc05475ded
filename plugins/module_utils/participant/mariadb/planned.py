# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What MariaDB must know of a planned table, and how values of its keys are read and given back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import TWIN, TablePlan
from ansible_collections.zdm.landscape.plugins.module_utils.participant.constraints import ties
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import parameter
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import TableFacts
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.sql import ColumnInfo
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import Planned

_WHOLE = ("tinyint", "smallint", "mediumint", "int", "bigint", "year")
_BINARY = ("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "bit")
_SPATIAL = ("geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon")


@dataclass(frozen=True)
class MariaDBPlanned(Planned):
    """A planned table of MariaDB.

    :param index: of a twin: the index that holds its key.
    :param texts: of a twin: copied columns that a collation compares.
    :param binaries: of a twin: copied columns of bytes.
    :param uniques: of a twin: the columns of each other unique key without the tenant column, as JSON.
    """

    index: str = ""
    texts: tuple[str, ...] = ()
    binaries: tuple[str, ...] = ()
    uniques: tuple[str, ...] = ()


def planned(
    plan: TablePlan,
    number: int,
    catalog: Mapping[str, TableFacts],
    moving: Mapping[str, Sequence[str]],
    columns: Mapping[str, ColumnInfo],
    quote: Callable[[str], str],
) -> MariaDBPlanned:
    """A planned table by its plan.

    :param moving: tenant columns of the tables that change id.
    :param columns: the table's columns by name.
    """
    table, tenant = catalog[plan.table], plan.tenant_columns
    keep = tuple(name for name, column in columns.items() if "on update" in column.extra.lower())
    led = ties(catalog, moving, plan.table, quote)
    if plan.strategy != TWIN:
        return MariaDBPlanned(plan.table, tenant, number, plan.strategy, keep=keep, ties=led)
    whole = {*plan.key, *tenant}
    index = next((unique.name for unique in table.unique_keys if set(unique.columns) == whole), "")
    copied = tuple(column.name for column in table.columns if column.name not in tenant and not column.generated)
    others = [set(unique.columns) for unique in table.unique_keys] + [set(table.primary_key)]
    return MariaDBPlanned(
        plan.table,
        tenant,
        number,
        TWIN,
        plan.key,
        tuple(columns[name].full_type for name in plan.key),
        copied,
        ties=led,
        index="PRIMARY" if set(table.primary_key) == whole else index,
        texts=tuple(name for name in copied if columns[name].collation),
        binaries=tuple(name for name in copied if columns[name].type in (*_BINARY, *_SPATIAL)),
        uniques=tuple(json.dumps(sorted(each - set(tenant))) for each in others if each and each != whole),
    )


def as_text(column: str, kind: str) -> str:
    """SQL that writes a key column's value as text, so that :func:`from_text` gives it back unchanged."""
    if kind.startswith(_BINARY):
        return f"HEX({column})"
    charset = re.search(r" CHARACTER SET (\w+)", kind)
    return f"CONVERT({column} USING utf8mb4)" if charset else f"CAST({column} AS CHAR)"


def from_text(number: int, kind: str) -> str:
    """SQL of a bound value's text as a value of a key column's type: what is compared as another type may lose digits,
    or the index.
    """
    value = parameter(number)
    if kind.startswith(_BINARY):
        return f"UNHEX({value})"
    if kind.startswith(_WHOLE):
        return f"CAST({value} AS {'UNSIGNED' if 'unsigned' in kind else 'SIGNED'})"
    if match := re.match(r"decimal\([0-9,]+\)", kind):
        return f"CAST({value} AS {match[0]})"
    if match := re.search(r" CHARACTER SET (\w+) COLLATE (\w+)", kind):
        return f"CONVERT({value} USING {match[1]}) COLLATE {match[2]}"
    return value
