# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a PostgreSQL participant says of itself: the state row, checked against the triggers that the catalog shows; its
replicas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.core.names import short_hash
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    ABSENT,
    IN_PLACE,
    STAGING,
    Status,
    TablePlan,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute, literal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.catalog import (
    make_works,
    read_catalog,
    read_details,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.session import READ_ONLY
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.sql import (
    FENCE,
    SCHEMA,
    TRIGGER_PREFIX,
    Scheme,
    shifts,
)

if TYPE_CHECKING:
    from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.session import (
        PostgreSQLSession,
        State,
    )
    from sqlalchemy.engine import Connection


def read_status(session: PostgreSQLSession, migration: str, source_id: str, target_id: str) -> Status:
    """See :meth:`~.base.Participant.status`; takes no lock that a controller waits for."""
    with session.transaction(READ_ONLY) as connection:
        state = session.read_state(connection, migration)
        if state is None:
            return _absent(session, connection, migration, source_id, target_id)
        scheme = state.scheme
        enabled = _enabled(connection, scheme)
        fenced = tuple(
            tenant_id
            for role, tenant_id in sorted(scheme.ids.items())
            if scheme.works and all((FENCE, role, work.name) in enabled for work in scheme.works)
        )
        problems = _disagreements(state, enabled)
        pending = 0
        if scheme.twins and not any("missing" in problem for problem in problems):
            pending = sum(execute(connection, scheme.pending(scheme.role(state.live_id), scheme.twins)).one())
        return Status(
            session.name,
            session.kind,
            state.state,
            state.epoch,
            state.live_id,
            fenced,
            pending,
            _rows(connection, scheme),
            tuple(problems),
        )


def read_replica_lag(session: PostgreSQLSession) -> float | None:
    """See :meth:`~.base.Participant.replica_lag_ms`.

    :raises Refused: the user may not see replication.
    """
    # The last lag stays visible for a while after a replica has caught up; its position tells the truth.
    query = (
        "SELECT count(*) FILTER (WHERE state IS NULL) AS hidden, count(*) FILTER (WHERE state IN ('streaming',"
        " 'catchup')) AS replicas, max(CASE WHEN state NOT IN ('streaming', 'catchup') OR replay_lsn >="
        " pg_current_wal_flush_lsn() THEN 0 ELSE extract(epoch FROM replay_lag) * 1000 END) AS lag_ms FROM"
        " pg_stat_replication"
    )
    with session.transaction() as connection:
        row = execute(connection, query).one()
    if row.hidden:
        raise Refused(
            f"{session.label}: user {session.options.get('user')!r} may not see the lag of replicas.",
            "Grant it the role pg_read_all_stats.",
        )
    return float(row.lag_ms or 0) if row.replicas else None


def _rows(connection: Connection, scheme: Scheme) -> dict[str, int]:
    return {
        tenant_id: sum(
            execute(connection, f"SELECT count(*) FROM {work.sql} WHERE {work.is_id(tenant_id)}").scalar_one()
            for work in scheme.works
        )
        for tenant_id in scheme.ids.values()
    }


def _absent(
    session: PostgreSQLSession, connection: Connection, migration: str, source_id: str, target_id: str
) -> Status:
    """No state row: count the tenant tables' rows, and report helper objects that have lost their row."""
    catalog, details = read_catalog(session, connection), read_details(session, connection)
    plans = [TablePlan(name, IN_PLACE, "", 0, columns) for name, columns in session.tenant_tables(catalog).items()]
    scheme = Scheme(migration, source_id, target_id, make_works(catalog, details, plans))
    name = short_hash(migration)
    left = execute(
        connection,
        f"SELECT tgname FROM pg_trigger WHERE tgname LIKE {literal(f'{TRIGGER_PREFIX}{name}%')} UNION ALL SELECT"
        f" c.relname FROM pg_class c WHERE c.relnamespace = to_regnamespace('{SCHEMA}') AND c.relname LIKE"
        f" {literal(f'log_{name}%')} AND c.relkind = 'r' ORDER BY 1",
    ).scalars()
    problems = tuple(f"{item} is left of a migration that has no state here." for item in left)
    return Status(session.name, session.kind, ABSENT, rows=_rows(connection, scheme), problems=problems)


def _enabled(connection: Connection, scheme: Scheme) -> set[tuple[str, str, str]]:
    """(kind, role, table) whose triggers are all there and all enabled; (kind, role, "-table") when none is enabled but
    all are there.
    """
    query = (
        "SELECT n.nspname, c.relname, t.tgname, t.tgenabled FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE t.tgname LIKE"
        f" {literal(f'{TRIGGER_PREFIX}{scheme.hash}%')}"
    )
    found = {(row.nspname, row.relname, row.tgname): row.tgenabled for row in execute(connection, query)}
    result = set()
    for work in scheme.works:
        for (kind, role), names in scheme.triggers(work).items():
            states = {found.get((work.schema, work.relation, name)) for name in names}
            if states == {"A"}:
                result.add((kind, role, work.name))
            elif states == {"D"}:
                result.add((kind, role, f"-{work.name}"))
    return result


def _disagreements(state: State, enabled: set[tuple[str, str, str]]) -> list[str]:
    scheme, problems = state.scheme, []
    wanted = shifts(state.state, scheme.role(state.live_id))
    for work in scheme.works:
        for kind, role in scheme.triggers(work):
            on, off = (kind, role, work.name) in enabled, (kind, role, f"-{work.name}") in enabled
            what = f"the {kind} of {scheme.ids[role]} on {work.name}"
            if not on and not off and state.state != STAGING:
                problems.append(f"Triggers are missing or changed: {what}.")
            elif on != ((kind, role) in wanted) and (on or off):
                problems.append(f"While {state.state}, {what} is {'on' if on else 'off'}.")
    return problems
