# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a session of ours with PostgreSQL is, whatever role, database and server have as their defaults.

Above all READ COMMITTED: at a higher level the first statement of a transaction takes its snapshot, and what others
commit while the barrier waits for its lock is never seen (manual 13.2).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute, literal

with suppress(ImportError):
    import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

SETTINGS = {
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    # waits are limited where they are made; these would end what must not end, or never end what must
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    # how our statements are read
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "array_nulls": "on",
    "xmloption": "content",
    # the plan asks which tables hide rows from us; where rows are moved a hidden one is an error
    "row_security": "on",
    # how values are written as text, the same in every session that compares them
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "quote_all_identifiers": "off",
    # how statements run: plans are made for small transactions
    "jit": "off",
    **{
        f"enable_{node}": "on"
        for node in (
            "seqscan",
            "indexscan",
            "indexonlyscan",
            "bitmapscan",
            "hashjoin",
            "mergejoin",
            "nestloop",
            "sort",
            "material",
        )
    },
    "check_function_bodies": "on",
    "default_tablespace": "",
    "default_table_access_method": "heap",
    "client_min_messages": "warning",
}
"""Every setting that changes what our statements mean, how long they may take or what is left of them (manual 20.11).
"""


def configure(connection: Connection) -> str:
    """Make the session ours; returns the schema of tables that an operator names without one.

    Nothing but ``pg_catalog`` is searched before the operator's own schemas: a function there that is called like the
    server's would be run in its place.
    """
    schemas = (
        execute(connection, "SELECT schema FROM pg_catalog.unnest(pg_catalog.current_schemas(false)) AS path(schema)")
        .scalars()
        .all()
    )
    own = [schema for schema in schemas if schema != "pg_catalog"]
    path = ", ".join('"' + schema.replace('"', '""') + '"' for schema in ("pg_catalog", *own))
    values = ", ".join(
        f"({literal(name)}, {literal(value)})" for name, value in {**SETTINGS, "search_path": path}.items()
    )
    execute(
        connection,
        # only known settings (they differ by version), and only those that differ: an unprivileged user may not set all
        # of them
        f"SELECT pg_catalog.set_config(wanted.name, wanted.value, false) FROM (VALUES {values}) AS wanted(name, value)"
        " JOIN pg_catalog.pg_settings there ON there.name OPERATOR(pg_catalog.=) wanted.name WHERE there.setting IS"
        " DISTINCT FROM wanted.value",
    ).all()
    # what is acknowledged is on this server's disk: a crash right after the commit must not lose the barrier
    execute(
        connection,
        "SELECT pg_catalog.set_config('synchronous_commit', 'on', false) WHERE"
        " pg_catalog.current_setting('synchronous_commit') = 'off'",
    ).all()
    connection.commit()
    return next((schema for schema in own if schema != "zdm"), "public")


def refuse_pooler(connection: Connection, second: Connection, label: str) -> None:
    """Refuse a pooler or proxy that gives a session's next transaction to another session of the server.

    Settings would be lost or, worse, left to the application's sessions. Such a pooler shows itself: two open
    connections are served by one process of the server.

    :param second: another connection, open at the same time; neither is in a transaction.
    :raises Refused: so it is.
    """
    first_pid, second_pid = (_server_process(each) for each in (connection, second))
    if first_pid == second_pid or first_pid != _server_process(connection):
        raise Refused(
            f"{label}: a pooler or proxy (PgBouncer in transaction mode, for example) changes sessions between"
            " transactions.",
            "Give host and port of the server itself, or of a pool in session mode.",
        )


def behind_a_pooler(connection: Connection) -> bool:
    """Whether somebody in between has given the connection another process id than the server's."""
    told = getattr(getattr(connection.connection.driver_connection, "info", None), "backend_pid", 0)
    return bool(told != _server_process(connection))


def _server_process(connection: Connection) -> int:
    try:
        return int(execute(connection, "SELECT pg_catalog.pg_backend_pid()").scalar_one())
    finally:
        with suppress(sa.exc.DBAPIError):
            connection.rollback()
