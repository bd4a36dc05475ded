# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Domains and enums of PostgreSQL as types of tenant columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute, literal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import Note

with suppress(ImportError):
    import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

ENUM = "text"
"""What stands below an enum: its labels are compared and written as text."""

_BASES = f"""
WITH RECURSIVE base(oid, type, typmod) AS (
 SELECT oid, typbasetype, typtypmod FROM pg_type WHERE typtype = 'd'
 UNION ALL SELECT b.oid, t.typbasetype, t.typtypmod FROM base b JOIN pg_type t ON t.oid = b.type AND t.typtype = 'd')
SELECT format_type(b.oid, NULL), CASE t.typtype WHEN 'e' THEN '{ENUM}' ELSE format_type(b.type, b.typmod) END
 FROM base b JOIN pg_type t ON t.oid = b.type WHERE t.typtype <> 'd'
UNION ALL SELECT format_type(oid, NULL), '{ENUM}' FROM pg_type WHERE typtype = 'e'"""


def read_bases(connection: Connection) -> dict[str, str]:
    """By name of a domain or an enum the type below it."""
    return {row[0]: row[1] for row in execute(connection, _BASES)}


def untaken(
    connection: Connection, table: str, types: Mapping[str, str], columns: Sequence[str], ids: Sequence[str]
) -> Iterator[Note]:
    """Ids that the type of a tenant column, a domain or an enum, refuses.

    :param types: types by column.
    :param columns: the tenant columns of such types.
    """
    for column in columns:
        for tenant_id in ids:
            kind = types[column]
            try:
                with connection.begin_nested():
                    execute(connection, f"SELECT {literal(tenant_id)}::{kind}")
            except sa.exc.DBAPIError as error:
                if error.connection_invalidated:
                    raise
                enum = getattr(error.orig, "sqlstate", "") == "22P02"
                advice = f"ALTER TYPE {kind} ADD VALUE {literal(tenant_id)}." if enum else "Change the domain's checks."
                yield Note(f"The type {kind} of column {column} of {table} does not take the id {tenant_id}.", advice)
