# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The reading half of the PostgreSQL participant: catalog, rights, obstacles, the statements to sign. What it writes is
temporary.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import IN_PLACE, TWIN, Refusal, TablePlan
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import SAMPLE_ROWS, execute, literal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import Engine, Note, Rate, TableFacts
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.catalog import (
    Detail,
    make_work,
    notes_of,
    read_catalog,
    read_details,
    table_digest,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.cautions import cautions_of
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.constraints import broken_constraints
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.locks import crowded
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.partitions import were_partitions
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.probe import Probe
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.session import (
    READ_ONLY,
    PostgreSQLSession,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.sql import (
    SCHEMA,
    STATE_TABLE,
    Work,
    WorkRows,
    quote,
    spell,
    works,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.twin_sql import Twins
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.types import way_out
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import State, StateTable, Survey
from ansible_collections.zdm.landscape.plugins.module_utils.participant.verbs import Verbs

with suppress(ImportError):
    import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

MINIMUM = (13,)
LONG_TRANSACTION_S = 300
TABLE_MS = 2
DISK_FACTOR = 3
"""Free disk that a twin needs, as a multiple of the tenant's rows: they, their indexes and the log, with room to spare.
"""

_TEXTUAL = re.compile(r"(text|citext|character|json|jsonb|uuid|xml|name|hstore)\b.*", re.DOTALL)


class PostgreSQLInspection(Verbs, PostgreSQLSession):
    """See :class:`~.database.Database` for the options."""

    planned = Work

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.rows: WorkRows = WorkRows(quote, self.spell, self.exact, self.label)
        # of the last survey
        self._catalog: dict[str, TableFacts] = {}
        self._details: dict[str, Detail] = {}
        self._own: frozenset[str] = frozenset()
        self._fits: dict[tuple[str, str], str] = {}

    # -- what the engine is -----------------------------------------------------------------------

    def state_table(self, migration: str) -> StateTable:
        del migration
        return StateTable("migration", SCHEMA, Work)

    def state(self, connection: Connection, migration: str, lock: bool = False) -> State | None:
        # an error would end the transaction
        there = execute(connection, f"SELECT to_regclass('{SCHEMA}.migration')").scalar_one()
        return super().state(connection, migration, lock) if there else None

    def no_such_table(self, error: sa.exc.DBAPIError) -> bool:
        return getattr(error.orig, "sqlstate", "") == "42P01"

    def spell(self, kind: str, tenant_id: str) -> str:
        return spell(kind, tenant_id)

    def exact(self, column: str, kind: str, tenant_id: str) -> str:
        # a cast keeps the collation, and one that is not deterministic takes different texts for equal
        return f'({column}::text COLLATE "C") = ({spell(kind, tenant_id)})::text'

    def moved(self, table: TableFacts, columns: Sequence[str]) -> Work:
        detail = self._details[table.name]
        work = works((super().moved(table, columns),))[0]
        return replace(work, schema=detail.schema, relation=detail.relation)

    def quote(self, *names: str) -> str:
        return quote(*names)

    def snapshot(self) -> tuple[str, ...]:
        return (READ_ONLY, "SET LOCAL lock_timeout = '2s'")

    def catalog(self, connection: Connection) -> dict[str, TableFacts]:
        return read_catalog(self, connection)

    def display_name(self, schema: str | None, table: str) -> str:
        return table if schema in (None, self.default_schema) else f"{schema}.{table}"

    def table_digest(
        self, connection: Connection, table: TableFacts, tenant: Sequence[str], tenant_id: str
    ) -> tuple[int, str]:
        return table_digest(self, connection, table, tenant, tenant_id)

    def server_time_s(self, connection: Connection) -> int:
        return int(execute(connection, "SELECT extract(epoch FROM clock_timestamp())::bigint").scalar_one())

    def abilities(self) -> Engine:
        return Engine("PostgreSQL", (IN_PLACE, TWIN), self._may["session_replication_role"], True, TABLE_MS)

    def replica_lag_ms(self) -> float | None:
        # The last lag stays visible for a while after a replica has caught up; its position tells the truth.
        query = (
            "SELECT count(*) FILTER (WHERE state IS NULL) AS hidden, count(*) FILTER (WHERE state IN ('streaming',"
            " 'catchup')) AS replicas, max(CASE WHEN state NOT IN ('streaming', 'catchup') OR replay_lsn >="
            " pg_current_wal_flush_lsn() THEN 0 ELSE extract(epoch FROM replay_lag) * 1000 END) AS lag_ms FROM"
            " pg_stat_replication"
        )
        with self.transaction() as connection:
            row = execute(connection, query).one()
        if row.hidden:
            raise Refused(
                f"{self.label}: user {self.options.get('user')!r} may not see the lag of replicas.",
                "Grant it the role pg_read_all_stats.",
            )
        return float(row.lag_ms or 0) if row.replicas else None

    # -- tables -----------------------------------------------------------------------------------

    def survey(self, connection: Connection, live_id: str, other_id: str, own_rows: Collection[str]) -> Survey:
        execute(connection, "SET LOCAL lock_timeout = '2s'")
        exempt = self.may(connection)["session_replication_role"]
        catalog, self._details = read_catalog(self, connection), read_details(self, connection)
        self._catalog, self._own = catalog, frozenset(own_rows)
        moving = self.tenant_tables(catalog)
        full = crowded(connection, {name: self._details[name].sql for name in moving})
        for name, tenant in moving.items():
            detail = self._details[name]
            work = self.moved(catalog[name], tenant)
            unfit = self._unfit(connection, work, detail, (live_id, other_id))
            notes = (*notes_of(catalog[name], detail, tenant, exempt), *unfit)
            notes += (full[name],) if name in full else ()
            catalog[name] = replace(catalog[name], notes=notes)
            if not full and not unfit and self._countable(detail):
                catalog[name] = self._counted(connection, catalog[name], work, live_id, other_id, name in own_rows)

        def make(plan: TablePlan, number: int) -> Work:
            return make_work(catalog, self._details, moving, plan, number)

        version = ".".join(map(str, connection.dialect.server_version_info or ()))
        return Survey(catalog, make, version)

    @staticmethod
    def _countable(detail: Detail) -> bool:
        """Whether the ids can be looked for: an unpopulated view cannot be read, a foreign table only as its server
        lets us.
        """
        rows = (detail.row, *(detail.partitioned.rows if detail.partitioned else ()))
        return bool(detail.row["readable"]) and not detail.row["hidden"] and not any(r["relkind"] == "f" for r in rows)

    def _unfit(self, connection: Connection, work: Work, detail: Detail, ids: Sequence[str]) -> tuple[Note, ...]:
        """Ids that a tenant column cannot hold."""
        notes = []
        for column, kind in zip(work.columns, work.kinds, strict=True):
            for tenant_id in ids:
                own = work.called(column, tenant_id)
                reason = self._misfit(connection, kind, detail.base(column), own)
                if reason:
                    where = f"Column {column} of {work.name} is of type {kind}"
                    notes.append(
                        Note(f"{where}, {reason}.", way_out(kind, detail.base(column), own, column in work.ids))
                    )
                    break
        return tuple(notes)

    def _misfit(self, connection: Connection, kind: str, base: str, own: str) -> str:
        """Why a type cannot hold an id; empty when it can. It would be cut off without an error by a cast.

        :param base: the type below a domain.
        """
        digits = re.search(r"^character(?: varying)?\(([0-9]+)\)", base)
        if digits and len(own) > int(digits[1]):
            return f"and the id {own} has {len(own)} characters"
        if base == "bytea" and not re.fullmatch(r"(0x|\\x)([0-9A-Fa-f]{2})+", own):
            return f"and the id {own} is not written as bytes, 0x…"
        if (kind, own) not in self._fits:
            try:
                with connection.begin_nested():
                    execute(connection, f"SELECT {spell(kind, own)}")
                self._fits[kind, own] = ""
            except sa.exc.DBAPIError as error:
                if error.connection_invalidated:
                    raise
                self._fits[kind, own] = f"which cannot hold the id {own}"
        return self._fits[kind, own]

    def _counted(
        self, connection: Connection, facts: TableFacts, work: Work, live_id: str, other_id: str, own: bool
    ) -> TableFacts:
        """Add rows, size, and where the ids stand inside of values. *own*: rows of the other id are the migration's."""
        detail = self._details[work.name]
        count = self.rows.count(connection, (work,), live_id, other_id)[work.name]
        notes = facts.notes
        if count.old != count.exact:
            reason = (
                f"Table {work.name} holds {count.old - count.exact} rows whose id only looks like {live_id} (letter"
                " case, or an equal value that is written differently)."
            )
            notes = (*notes, Note(reason, "Correct the ids of these rows: a way back could not restore them."))
        size = round(detail.row["size"] * count.old / max(detail.row["reltuples"], count.old, 1))
        inside = self._ids_inside(connection, facts, work, live_id, other_id)
        others = 0 if own else count.new
        return replace(facts, rows=count.old, rows_of_target=others, bytes=size, notes=notes, ids_inside=inside)

    def _ids_inside(
        self, connection: Connection, facts: TableFacts, work: Work, live_id: str, other_id: str
    ) -> tuple[str, ...]:
        """Other columns in which a sample of the rows holds one of the ids as a word."""
        base = self._details[facts.name].base
        columns = [
            c.name
            for c in facts.columns
            if c.name not in work.columns and not c.generated and _TEXTUAL.fullmatch(base(c.name))
        ]
        if not columns:
            return ()
        words = "|".join(re.escape(tenant_id) for tenant_id in sorted((live_id, other_id)))
        word = literal(f"(^|[^A-Za-z0-9])({words})($|[^A-Za-z0-9])")
        # regular expressions know no nondeterministic collation
        checks = ", ".join(
            f'coalesce(bool_or({quote(column)}::text COLLATE "C" ~ {word}), false)' for column in columns
        )
        sample = (
            f"SELECT {', '.join(map(quote, columns))} FROM {work.sql} WHERE {work.is_id(live_id)} LIMIT {SAMPLE_ROWS}"
        )
        found = execute(connection, f"SELECT {checks} FROM ({sample}) s").one()
        return tuple(column for column, hit in zip(columns, found, strict=True) if hit)

    def measure(
        self, connection: Connection, table: TableFacts, tenant: Sequence[str], live_id: str, other_id: str
    ) -> Rate | Refusal | None:
        if not table.rows or self._details[table.name].row["relkind"] not in "rp" or self._standby(connection):
            return None
        moving = self.tenant_tables(self._catalog)
        probe = Probe(connection, self._catalog, self._details, moving, self._change)
        return probe.rate(table, self.moved(table, tenant).is_id(live_id), live_id, other_id)

    def _known_again(
        self, connection: Connection, survey: Survey, state: State, refusals: Sequence[Refusal]
    ) -> tuple[Refusal, ...]:
        known = super()._known_again(connection, survey, state, refusals)
        return were_partitions(known, survey.catalog, works(state.tables))

    def cautions(self, state: State) -> tuple[str, ...]:
        return cautions_of(works(state.tables), self._details, self._catalog)

    def broken(
        self,
        connection: Connection,
        survey: Survey,
        tables: Sequence[TablePlan],
        unfit: Collection[str],
        live_id: str,
        other_id: str,
    ) -> list[Refusal]:
        return [
            *broken_constraints(
                connection, survey.catalog, self._details, tables, unfit, self._value, live_id, other_id
            ),
            *self._disk(connection, survey.catalog, tables),
        ]

    def _value(self, table: str, column: str, tenant_id: str) -> str:
        """What a tenant column holds for a tenant, as a literal."""
        return self.rows.value(self.moved(self._catalog[table], [column]), column, tenant_id)

    def _change(self, table: str, column: str, old: str, new: str) -> str:
        """Map one id of a tenant column; a row may hold another tenant's id in its other tenant columns."""
        name, before, after = quote(column), self._value(table, column, old), self._value(table, column, new)
        return f"CASE WHEN {name} = {before} THEN {after} ELSE {name} END"

    # -- server -----------------------------------------------------------------------------------

    def _standby(self, connection: Connection) -> bool:
        return bool(execute(connection, "SELECT pg_is_in_recovery()").scalar_one())

    def obstacles(self, connection: Connection) -> tuple[Refusal, ...]:
        found = []
        version = connection.dialect.server_version_info or (0,)
        if version < MINIMUM:
            reason = f"PostgreSQL {'.'.join(map(str, version))} is too old."
            found.append(Refusal(self.label, reason, f"Use PostgreSQL {MINIMUM[0]} or later."))
        if self._standby(connection):
            found.append(
                Refusal(self.label, "The server is a standby and takes no writes.", "Name the primary server.")
            )
        return (*found, *self._in_the_way(connection), *self._schema(connection))

    def _in_the_way(self, connection: Connection) -> list[Refusal]:
        found = []
        long = execute(
            connection,
            "SELECT pid, application_name, extract(epoch FROM now() - xact_start)::int AS age FROM pg_stat_activity"
            " WHERE datname = current_database() AND backend_type = 'client backend'"
            f" AND xact_start < now() - interval '{LONG_TRANSACTION_S} s' ORDER BY 3 DESC",
        )
        for row in long:
            reason = (
                f"Process {row.pid} ({row.application_name or 'without a name'}) has had a transaction open for"
                f" {row.age} s."
            )
            found.append(Refusal(self.label, reason, "End it, or wait until it is over."))
        prepared = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY 1"
        for gid in execute(connection, prepared).scalars():
            reason = f"Prepared transaction {gid!r} keeps its locks until somebody ends it."
            advice = f"COMMIT PREPARED {literal(gid)}, or ROLLBACK PREPARED {literal(gid)}."
            found.append(Refusal(self.label, reason, advice))
        slots = "SELECT slot_name FROM pg_replication_slots WHERE database = current_database() ORDER BY 1"
        for slot in execute(connection, slots).scalars():
            reason = f"Logical replication slot {slot} sends this database's changes to others."
            advice = "Drop the slot for the migration, or make its reader follow the new id first."
            found.append(Refusal(self.label, reason, advice))
        return found

    def _schema(self, connection: Connection) -> list[Refusal]:
        """What stands in the way of our own schema."""
        found = []
        strange = (
            f"SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('{SCHEMA}') AND relkind IN ('r', 'v',"
            " 'm', 'p', 'f') AND relname !~ '^(migration$|log_|kept_)' ORDER BY 1 LIMIT 1"
        )
        for relation in execute(connection, strange).scalars():
            reason = f"Schema {SCHEMA} holds {relation}, which is not the migration's."
            found.append(Refusal(self.label, reason, "Rename that schema: the name is reserved here."))
        there, create, user = execute(
            connection,
            f"SELECT to_regnamespace('{SCHEMA}') IS NOT NULL, has_database_privilege(current_database(), 'CREATE'),"
            " current_user || ''",
        ).one()
        if not there and not create:
            reason = f"User {user} may not create the schema {SCHEMA}."
            found.append(Refusal(self.label, reason, self._create_grant(connection)))
        return found

    def _create_grant(self, connection: Connection) -> str:
        user, database = execute(connection, "SELECT current_user || '', current_database() || ''").one()
        return f"GRANT CREATE ON DATABASE {quote(database)} TO {quote(user)};"

    def grants(self, connection: Connection | None) -> tuple[str, ...]:
        if connection is None:  # it may not even connect: what the options say
            user, database = (quote(str(self.options.get(name) or "")) for name in ("user", "database"))
            return (
                f"GRANT CONNECT, CREATE ON DATABASE {database} TO {user};",
                f"GRANT pg_read_all_stats TO {user};",
            )
        user = execute(connection, "SELECT current_user || ''").scalar_one()
        version = connection.dialect.server_version_info or (0,)
        create = self._create_grant(connection)
        details, catalog = read_details(self, connection), read_catalog(self, connection)
        owners = sorted({str(details[name].row["owner"]) for name in self.tenant_tables(catalog)} - {user})
        parameters = "session_replication_role, deadlock_timeout"
        return (
            create,
            *(f"GRANT {quote(owner)} TO {quote(user)};" for owner in owners),
            *([f"GRANT SET ON PARAMETER {parameters} TO {quote(user)};"] if version >= (15,) else []),
            f"GRANT pg_read_all_stats TO {quote(user)};",
        )

    def _disk(
        self, connection: Connection, catalog: Mapping[str, TableFacts], tables: Sequence[TablePlan]
    ) -> list[Refusal]:
        """Free disk, where the server runs on this machine and lets us see its folder."""
        twins = [plan.table for plan in tables if plan.strategy == TWIN and plan.table not in self._own]
        needed = DISK_FACTOR * sum(catalog[name].bytes for name in twins)
        here = (None, "localhost", "127.0.0.1", "::1")
        folder = execute(
            connection,
            "SELECT current_setting('data_directory', true) WHERE pg_has_role('pg_read_all_settings', 'USAGE')",
        ).scalar()
        if not needed or not folder or not (self.options.get("socket") or self.options.get("host") in here):
            return []
        with suppress(OSError):
            free = shutil.disk_usage(os.fspath(folder)).free
            if free < needed:
                reason = f"{folder} has {free // 2**20} MiB free, the copies need up to {needed // 2**20} MiB."
                return [Refusal(self.label, reason, "Make room on the database's disk.")]
        return []

    # -- for a person to sign ---------------------------------------------------------------------

    def statements(self, connection: Connection, state: State, updates: list[str]) -> tuple[str, ...]:
        """The keys of chunks are left out."""
        del connection
        scheme = Twins(state)
        window = replace(state, state="fenced")
        turned = replace(state, live_id=state.other_id)
        result = ["-- stage", f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}", STATE_TABLE, scheme.set_fences(state.closed)]
        for work in scheme.works:
            logs = scheme.create_logs(work) if work.strategy == TWIN else ()
            result += [*logs, *scheme.triggers(work).values(), scheme.always(work)]
        result += [self.root_insert(table, state) for table in state.roots]
        result += [scheme.chunk(work, False, False) for work in scheme.twins]
        last: list[str] = []
        if scheme.twins:
            last = [
                scheme.waiting(scheme.twins),
                scheme.apply(scheme.twins, None),
                scheme.differing(scheme.twins, None),
            ]
            last.append(scheme.empty_log(scheme.twins, None))
            result += [*last, *(scheme.compare(work, False, False, 20, False) for work in scheme.twins)]
        synced = [self.root_update(table, state) for table in state.roots if table.copied]
        lock = [scheme.lock()] if scheme.works else []
        result += ["-- window: barrier, first transaction", *lock, *last, *synced]
        result += [scheme.set_fences(window.closed)]
        if updates:
            move = self.rows.move_statement(works(state.in_place), state.live_id, state.other_id)
            result += ["-- window: barrier, second transaction", move]
        return (*result, "-- window: turn", scheme.set_fences(turned.closed))
