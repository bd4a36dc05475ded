# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Room in PostgreSQL's lock table, which all sessions share: a window locks every planned table, partition and index at
once, and where no room is left other tenants' statements fail too (measured with 3,000 partitions and the defaults).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute, literal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import Note
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.partitions import tree

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

SHARE = 0.5
"""Of the server's lock table for one window."""
MANY = 100
"""Locks of a table that is named, when there are too many in all."""


def crowded(connection: Connection, tables: Mapping[str, str]) -> dict[str, Note]:
    """Tables with the most locks, when there are more than the server has room for; empty when all is well.

    :param tables: the planned tables by name, in SQL.
    """
    if not tables:
        return {}
    named = ", ".join(f"({literal(name)}, {literal(table)}::regclass::oid)" for name, table in tables.items())
    members = f"({tree('SELECT w.oid')})"
    query = (
        f"SELECT w.name, (SELECT count(*) FROM {members} m) + (SELECT count(*) FROM pg_index i WHERE i.indrelid IN"
        f" {members}) AS locks FROM (VALUES {named}) AS w(name, oid)"
    )
    locks = {row[0]: int(row[1]) for row in execute(connection, query)}
    most = "current_setting('max_locks_per_transaction')::int"
    sessions = "current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int"
    each, of = execute(connection, f"SELECT {most}, {sessions}").one()
    total, room = sum(locks.values()), each * of
    if total <= room * SHARE:
        return {}
    needed = round(total / SHARE / of) + 1
    note = Note(
        f"The window locks {total} tables, partitions and indexes at once, and the server has room for {room} locks of"
        " all sessions.",
        f"Set max_locks_per_transaction to {needed} or more and restart the server; or merge or detach partitions.",
    )
    largest = max(locks, key=lambda name: (locks[name], name))
    return {name: note for name, count in locks.items() if count > MANY or name == largest}
