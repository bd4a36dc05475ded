# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables, columns and keys as SQLAlchemy reads them from any engine's catalog."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import (
    Column,
    ForeignKey,
    TableFacts,
    UniqueKey,
)

with suppress(ImportError):  # Database refuses to be built without it
    import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

Display = Callable[[Any, str], str]
"""(schema or None, table) → the name that an operator writes."""


def reflect(
    connection: Connection, schemas: Sequence[str | None], display: Display, foreign_key_options: Mapping[str, Any]
) -> dict[str, TableFacts]:
    """All tables with columns and keys, by the name that an operator writes.

    :param foreign_key_options: arguments of the engine's dialect for reading foreign keys.
    """
    inspector = sa.inspect(connection)
    result: dict[str, TableFacts] = {}
    with warnings.catch_warnings():
        # types that SQLAlchemy does not know: we never bind values of them
        warnings.simplefilter("ignore", sa.exc.SAWarning)
        for schema in schemas:
            columns = inspector.get_multi_columns(schema=schema)
            primary = inspector.get_multi_pk_constraint(schema=schema)
            unique = inspector.get_multi_unique_constraints(schema=schema)
            indexes = inspector.get_multi_indexes(schema=schema)
            foreign = inspector.get_multi_foreign_keys(schema=schema, **foreign_key_options)
            for key in columns:
                name = display(schema, key[1])
                result[name] = TableFacts(
                    name,
                    tuple(_column(connection, column) for column in columns[key]),
                    tuple(primary[key]["constrained_columns"] or ()) if primary.get(key) else (),
                    _unique_keys(unique.get(key, ()), indexes.get(key, ())),
                    tuple(_foreign_key(entry, display) for entry in foreign.get(key, ())),
                )
    return {name: replace(table, foreign_keys=_with_referred(table, result)) for name, table in result.items()}


def _column(connection: Connection, column: Any) -> Column:
    try:
        kind = column["type"].compile(dialect=connection.dialect)
    except sa.exc.CompileError:
        kind = str(column["type"])
    generated = bool(column.get("computed"))
    identity = bool(column.get("identity") or column.get("autoincrement") is True)
    return Column(column["name"], kind, bool(column["nullable"]), generated, identity)


def _foreign_key(key: Any, display: Display) -> ForeignKey:
    options = key.get("options") or {}
    return ForeignKey(
        key["name"] or "foreign key",
        tuple(key["constrained_columns"]),
        display(key["referred_schema"], key["referred_table"]),
        tuple(key["referred_columns"]),
        options.get("ondelete") or "NO ACTION",
        options.get("onupdate") or "NO ACTION",
    )


def _unique_keys(constraints: Iterable[Any], indexes: Iterable[Any]) -> tuple[UniqueKey, ...]:
    # SQLite's constraints need no name
    found: dict[Any, UniqueKey] = {
        entry["name"] or tuple(entry["column_names"]): UniqueKey(
            entry["name"] or "unique", tuple(entry["column_names"])
        )
        for entry in constraints
    }
    for index in indexes:
        if index.get("unique") and index["name"] not in found:
            names = index["column_names"]
            partial = any(
                key.endswith("_where") and value is not None
                for key, value in (index.get("dialect_options") or {}).items()
            )
            found[index["name"]] = UniqueKey(
                index["name"] or "unique", tuple(name for name in names if name), None not in names and not partial
            )
    return tuple(found[name] for name in sorted(found, key=str))


def _with_referred(table: TableFacts, catalog: Mapping[str, TableFacts]) -> tuple[ForeignKey, ...]:
    """Foreign keys that name no referred columns (legal in SQL) refer to the primary key."""
    return tuple(
        (
            key
            if len(key.referred) == len(key.columns)
            else replace(key, referred=catalog[key.table].primary_key if key.table in catalog else key.columns)
        )
        for key in table.foreign_keys
    )
