# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast rows of one table change their id and are copied, measured in temporary tables that are rolled back."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import (
    SAMPLE_ROWS,
    execute,
    per_row_us,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import Rate, TableFacts
from ansible_collections.zdm.landscape.plugins.module_utils.participant.planning import typical_us
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.catalog import Detail
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.sql import quote

with suppress(ImportError):
    import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

DURABLE = 1.3
"""A logged table takes this much longer than the temporary one that the probe measures."""
COPYING = 6
"""The same for copies: checks of foreign keys, the write-ahead log, verification and statistics."""
PAGE_US = 5
"""Reading a page of a table that no index helps with."""


class Probe:
    """Measurements for one plan.

    :param tenant: tenant columns by table.
    :param change: (table, tenant column, old id, new id) → the value that the column takes.
    """

    def __init__(
        self,
        connection: Connection,
        catalog: Mapping[str, TableFacts],
        details: Mapping[str, Detail],
        tenant: Mapping[str, Sequence[str]],
        change: Callable[[str, str, str, str], str],
    ) -> None:
        self.connection, self.catalog, self.details, self.tenant = connection, catalog, details, tenant
        self.change = change

    def rate(self, table: TableFacts, where: str, live: str, other: str) -> Rate:
        """Copy up to 2000 of the tenant's rows into a temporary table with the same indexes, change them there, take it
        back.

        Foreign keys that carry the tenant column get a temporary parent or an empty child, so that their checks are
        measured too.

        :param where: condition of the tenant's rows.
        """
        connection, detail, columns = self.connection, self.details[table.name], self.tenant[table.name]
        sample = min(table.rows, SAMPLE_ROWS)
        names = ", ".join(quote(column.name) for column in table.columns if not column.generated)
        savepoint = connection.begin_nested()
        try:
            execute(
                connection,
                f"CREATE TEMP TABLE zdm_probe (LIKE {detail.sql} INCLUDING INDEXES INCLUDING GENERATED) ON COMMIT DROP",
            )
            insert = f"INSERT INTO zdm_probe ({names}) SELECT {names} FROM {detail.sql} WHERE {where} LIMIT {sample}"
            copy_us = typical_us(
                sample,
                lambda: execute(connection, insert),
                lambda: execute(connection, "TRUNCATE zdm_probe"),
            )
            parents = self._temporary_parents(table)
            self._temporary_children(table)
            update_us = statistics.median(
                per_row_us(sample, partial(execute, connection, self._update(table.name, columns, parents, *direction)))
                for direction in ((live, other), (other, live), (live, other))  # the first one reads catalogs too
            )
        except sa.exc.ProgrammingError:
            return Rate()  # no right to make temporary tables: the general rate has to do
        finally:
            savepoint.rollback()
        return Rate(update_us * DURABLE + self._scan_us(table), copy_us * COPYING)

    def _update(
        self, table: str, columns: Sequence[str], parents: Sequence[Sequence[str]], from_id: str, to_id: str
    ) -> str:
        change = {column: f"{quote(column)} = {self.change(table, column, from_id, to_id)}" for column in columns}
        updates = [
            f"p{n} AS (UPDATE zdm_probe_{n} SET {', '.join(change[column] for column in moved)})"
            for n, moved in enumerate(parents)
        ]
        return (f"WITH {', '.join(updates)} " if updates else "") + f"UPDATE zdm_probe SET {', '.join(change.values())}"

    def _temporary_parents(self, table: TableFacts) -> list[list[str]]:
        """Per temporary parent ``zdm_probe_<n>`` the columns that change."""
        result: list[list[str]] = []
        for key in table.foreign_keys:
            if key.table == table.name or not any(other in self.tenant.get(key.table, ()) for _own, other in key.pairs):
                continue
            columns = ", ".join(map(quote, key.columns))
            parent = f"zdm_probe_{len(result)}"
            complete = " AND ".join(f"{quote(column)} IS NOT NULL" for column in key.columns)
            execute(
                self.connection,
                f"CREATE TEMP TABLE {parent} ON COMMIT DROP AS SELECT DISTINCT {columns} FROM zdm_probe WHERE"
                f" {complete}",
            )
            execute(self.connection, f"ALTER TABLE {parent} ADD UNIQUE ({columns})")
            execute(
                self.connection, f"ALTER TABLE zdm_probe ADD FOREIGN KEY ({columns}) REFERENCES {parent} ({columns})"
            )
            result.append([column for column in key.columns if column in self.tenant[table.name]])
        return result

    def _temporary_children(self, table: TableFacts) -> None:
        number = 0
        for child in self.catalog.values():
            for key in child.foreign_keys:
                if (
                    key.table == table.name
                    and child.name != table.name
                    and any(other in self.tenant[table.name] for _own, other in key.pairs)
                ):
                    columns = ", ".join(map(quote, key.referred))
                    name = f"zdm_probe_child_{number}"
                    execute(
                        self.connection,
                        f"CREATE TEMP TABLE {name} ON COMMIT DROP AS SELECT {columns} FROM zdm_probe LIMIT 0",
                    )
                    execute(
                        self.connection,
                        f"ALTER TABLE {name} ADD FOREIGN KEY ({columns}) REFERENCES zdm_probe ({columns})",
                    )
                    number += 1

    def _scan_us(self, table: TableFacts) -> float:
        """Whole-table reads that a sample does not show: no index on the tenant column, none on a child's foreign
        key.
        """
        detail, columns = self.details[table.name], self.tenant[table.name]
        cost = (
            0.0
            if any(detail.indexed([column]) for column in columns)
            else detail.row["relpages"] * PAGE_US / max(table.rows, 1)
        )
        for child in self.catalog.values():
            for key in child.foreign_keys:
                follows = key.table == table.name and any(other in columns for _own, other in key.pairs)
                if follows and not self.details[child.name].indexed(key.columns):
                    cost += self.details[child.name].row["relpages"] * PAGE_US
        return cost
