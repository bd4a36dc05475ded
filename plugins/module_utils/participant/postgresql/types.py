# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Domains and enums of PostgreSQL as types of tenant columns."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute, literal

with suppress(ImportError):
    pass

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


def way_out(kind: str, base: str, own: str, given: bool) -> str:
    """What to do about an id that a tenant column cannot hold.

    :param base: the type below a domain or an enum.
    :param given: it is an id that the options give.
    """
    if given:
        return "Correct the participant's `ids`."
    advice = (
        "If this database has ids of its own, give them: `ids: {<subdomain>: <own id>}`, or `id_query`; else correct"
        " the tenant's id, or `tenant_columns`"
    )
    if kind != base:
        advice += f"; or let the type take it: an enum by ALTER TYPE {kind} ADD VALUE {literal(own)}, a domain's checks"
    return f"{advice}."
