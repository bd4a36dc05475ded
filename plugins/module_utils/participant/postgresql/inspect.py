# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a PostgreSQL participant: facts, speeds, refusals, SQL and rights. Everything that it writes is temporary
and rolled back.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    IGNORE,
    IN_PLACE,
    STAGED,
    STAGING,
    TWIN,
    Inspection,
    Refusal,
    TablePlan,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.classify import classify
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import (
    SAMPLE_ROWS,
    execute,
    literal,
    per_row_us,
    schema_digest,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import Engine, Rate, TableFacts
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.catalog import (
    Detail,
    make_works,
    notes_of,
    read_catalog,
    read_details,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.constraints import broken_constraints
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.sql import (
    SCHEMA,
    STATE_TABLE,
    Scheme,
    assignment,
    quote,
    shifts,
)

with suppress(ImportError):
    import sqlalchemy as sa

if TYPE_CHECKING:
    from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.session import PostgreSQLSession
    from sqlalchemy.engine import Connection

MINIMUM = (13,)
LONG_TRANSACTION_S = 300
BARRIER_MS = 15
"""Cost of a barrier without tables: its statements and the commit's flush."""
TABLE_MS = 2
DISK_FACTOR = 3
"""Free disk that a twin needs, as a multiple of the tenant's rows: they, their indexes and the log, with room to spare.
"""
DURABLE = 1.3
"""A logged table takes this much longer than the temporary one that the probe measures."""
COPYING = 6
"""The same for copies: checks of foreign keys, the write-ahead log, verification and statistics."""
PAGE_US = 5
"""Reading a page of a table that no index helps with."""

_TEXTUAL = re.compile(r"(text|citext|character|json|jsonb|uuid|xml|name|hstore)\b.*", re.DOTALL)


class Inspector:
    """One inspection."""

    def __init__(self, session: PostgreSQLSession, migration: str, source_id: str, target_id: str) -> None:
        self.session, self.migration = session, migration
        self.source_id, self.target_id = source_id, target_id
        self.refusals: list[Refusal] = []
        self.grants: list[str] = []
        self.catalog: dict[str, TableFacts] = {}

    def refuse(self, name: str, reason: str, advice: str) -> None:
        self.refusals.append(Refusal(name, reason, advice))

    def run(self) -> Inspection:
        with self.session.translated():
            connection = self.session.connection()
            transaction = connection.begin()
            try:
                return self._inspect(connection)
            finally:
                transaction.rollback()

    def _inspect(self, connection: Connection) -> Inspection:
        execute(connection, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        execute(connection, "SET LOCAL lock_timeout = '2s'")
        version = ".".join(map(str, connection.dialect.server_version_info or ()))
        state = self.session.read_state(connection, self.migration)
        live = state.live_id if state else self.source_id
        catalog, details = read_catalog(self.session, connection), read_details(self.session, connection)
        self.catalog = catalog
        abilities = self.session.abilities(connection)
        tenant = self.session.tenant_tables(catalog)
        exempt = abilities["session_replication_role"]
        facts = [
            self._facts(connection, table, details[name], tenant.get(name, ()), live, bool(state), exempt)
            for name, table in catalog.items()
        ]
        probed = (
            [table for table in facts if table.rows and details[table.name].row["relkind"] == "r"]
            if self._check_server(connection)
            else []
        )
        rates = {table.name: self._rate(connection, table, details, tenant, live) for table in probed}
        engine = Engine("PostgreSQL", (IN_PLACE, TWIN), exempt, True, TABLE_MS)
        staged = {work.name: work.strategy for work in state.works} if state else {}
        tables, refusals = classify(facts, self.session.options, engine, rates, self.session.budget_ms, staged)
        planned = [plan for plan in tables if plan.strategy != IGNORE]
        self._check_rights(connection, details, planned, bool(state))
        unfit = {refusal.object for refusal in (*refusals, *self.refusals)}
        other = self.target_id if live == self.source_id else self.source_id
        self.refusals += broken_constraints(
            connection, catalog, details, [plan for plan in planned if plan.table not in unfit], live, other
        )
        self._check_disk(connection, facts, planned, bool(state))
        scheme = Scheme(self.migration, self.source_id, self.target_id, make_works(catalog, details, planned))
        return Inspection(
            self.session.name,
            self.session.kind,
            version,
            tables,
            (*refusals, *self.refusals),
            sum(plan.stage_ms for plan in planned),
            BARRIER_MS + sum(plan.window_ms for plan in planned),
            tuple(statements(scheme)),
            tuple(self.grants),
            schema_digest(catalog, tables),
        )

    # -- facts of a table -------------------------------------------------------------------------

    def _facts(
        self,
        connection: Connection,
        table: TableFacts,
        detail: Detail,
        tenant: Sequence[str],
        live: str,
        staged: bool,
        may_exempt: bool,
    ) -> TableFacts:
        """Add rows, size, notes. *staged*: rows of the other id are the migration's own."""
        ids = (self.source_id, self.target_id)
        notes = notes_of(table, detail, tenant, ids, may_exempt) if tenant else ()
        kinds = [detail.types[column] for column in tenant]
        if (
            not tenant
            or detail.row["hidden"]
            or any(not _TEXTUAL.fullmatch(kind) for kind in kinds)
            or any("of type uuid" in note.reason for note in notes)
        ):
            return replace(table, notes=notes)

        def condition(tenant_id: str) -> str:
            return " OR ".join(
                f"{quote(column)} = {literal(tenant_id)}::{kind}" for column, kind in zip(tenant, kinds, strict=True)
            )

        rows = execute(connection, f"SELECT count(*) FROM {detail.sql} WHERE {condition(live)}").scalar_one()
        others = 0
        if not staged:
            others = execute(
                connection,
                f"SELECT count(*) FROM (SELECT FROM {detail.sql} WHERE {condition(self.target_id)} LIMIT 1000) x",
            ).scalar_one()
        size = round(detail.row["size"] * rows / max(detail.row["reltuples"], rows, 1))
        inside = self._ids_inside(connection, table, detail, tenant, condition(live))
        return replace(table, rows=rows, rows_of_target=others, bytes=size, notes=notes, ids_inside=inside)

    def _ids_inside(
        self, connection: Connection, table: TableFacts, detail: Detail, tenant: Sequence[str], condition: str
    ) -> tuple[str, ...]:
        """Other columns in which a sample of the rows holds one of the ids as a word."""
        columns = [
            c.name
            for c in table.columns
            if c.name not in tenant and not c.generated and _TEXTUAL.fullmatch(detail.types[c.name])
        ]
        if not columns:
            return ()
        words = "|".join(re.escape(tenant_id) for tenant_id in (self.source_id, self.target_id))
        word = literal(f"(^|[^A-Za-z0-9])({words})($|[^A-Za-z0-9])")
        checks = ", ".join(f"coalesce(bool_or({quote(column)}::text ~ {word}), false)" for column in columns)
        sample = f"SELECT {', '.join(map(quote, columns))} FROM {detail.sql} WHERE {condition} LIMIT {SAMPLE_ROWS}"
        found = execute(connection, f"SELECT {checks} FROM ({sample}) s").one()
        return tuple(column for column, hit in zip(columns, found, strict=True) if hit)

    # -- speed ------------------------------------------------------------------------------------

    def _rate(
        self,
        connection: Connection,
        table: TableFacts,
        details: Mapping[str, Detail],
        tenant: Mapping[str, Sequence[str]],
        live: str,
    ) -> Rate:
        """Copy up to 2000 of the tenant's rows into a temporary table with the same indexes, change them there, take it
        back.

        Foreign keys that carry the tenant column get a temporary parent or an empty child, so that their checks are
        measured too.
        """
        detail, columns = details[table.name], tenant[table.name]
        sample = min(table.rows, SAMPLE_ROWS)
        names = ", ".join(quote(column.name) for column in table.columns if not column.generated)
        where = " OR ".join(f"{quote(column)} = {literal(live)}::{detail.types[column]}" for column in columns)
        savepoint = connection.begin_nested()
        try:
            execute(
                connection,
                f"CREATE TEMP TABLE zdm_probe (LIKE {detail.sql} INCLUDING INDEXES INCLUDING GENERATED) ON COMMIT DROP",
            )
            insert = f"INSERT INTO zdm_probe ({names}) SELECT {names} FROM {detail.sql} WHERE {where} LIMIT {sample}"
            copy_us = per_row_us(sample, lambda: execute(connection, insert))
            parents = self._temporary_parents(connection, table, tenant)
            self._temporary_children(connection, table, tenant)
            other = self.target_id if live == self.source_id else self.source_id
            update_us = min(
                per_row_us(
                    sample, partial(execute, connection, self._probe_update(detail, columns, parents, *direction))
                )
                for direction in ((live, other), (other, live))  # the first one reads catalogs too
            )
        except sa.exc.ProgrammingError:
            return Rate()  # no right to make temporary tables: the general rate has to do
        finally:
            savepoint.rollback()
        return Rate(update_us * DURABLE + self._scan_us(table, details, columns), copy_us * COPYING)

    @staticmethod
    def _probe_update(
        detail: Detail, columns: Sequence[str], parents: Sequence[Sequence[str]], from_id: str, to_id: str
    ) -> str:
        change = {column: assignment(quote(column), detail.types[column], from_id, to_id) for column in columns}
        updates = [
            f"p{n} AS (UPDATE zdm_probe_{n} SET {', '.join(change[column] for column in moved)})"
            for n, moved in enumerate(parents)
        ]
        return (f"WITH {', '.join(updates)} " if updates else "") + f"UPDATE zdm_probe SET {', '.join(change.values())}"

    def _temporary_parents(
        self, connection: Connection, table: TableFacts, tenant: Mapping[str, Sequence[str]]
    ) -> list[list[str]]:
        """Per temporary parent ``zdm_probe_<n>`` the columns that change."""
        result: list[list[str]] = []
        for key in table.foreign_keys:
            if key.table == table.name or not any(other in tenant.get(key.table, ()) for _own, other in key.pairs):
                continue
            columns = ", ".join(map(quote, key.columns))
            parent = f"zdm_probe_{len(result)}"
            complete = " AND ".join(f"{quote(column)} IS NOT NULL" for column in key.columns)
            execute(
                connection,
                f"CREATE TEMP TABLE {parent} ON COMMIT DROP AS SELECT DISTINCT {columns} FROM zdm_probe WHERE"
                f" {complete}",
            )
            execute(connection, f"ALTER TABLE {parent} ADD UNIQUE ({columns})")
            execute(connection, f"ALTER TABLE zdm_probe ADD FOREIGN KEY ({columns}) REFERENCES {parent} ({columns})")
            result.append([column for column in key.columns if column in tenant[table.name]])
        return result

    def _temporary_children(
        self, connection: Connection, table: TableFacts, tenant: Mapping[str, Sequence[str]]
    ) -> None:
        number = 0
        for child in self.catalog.values():
            for key in child.foreign_keys:
                if (
                    key.table == table.name
                    and child.name != table.name
                    and any(other in tenant[table.name] for _own, other in key.pairs)
                ):
                    columns = ", ".join(map(quote, key.referred))
                    name = f"zdm_probe_child_{number}"
                    execute(
                        connection,
                        f"CREATE TEMP TABLE {name} ON COMMIT DROP AS SELECT {columns} FROM zdm_probe LIMIT 0",
                    )
                    execute(
                        connection, f"ALTER TABLE {name} ADD FOREIGN KEY ({columns}) REFERENCES zdm_probe ({columns})"
                    )
                    number += 1

    def _scan_us(self, table: TableFacts, details: Mapping[str, Detail], columns: Sequence[str]) -> float:
        """Whole-table reads that a sample does not show: no index on the tenant column, none on a child's foreign
        key.
        """
        detail = details[table.name]
        cost = (
            0.0
            if any(detail.indexed([column]) for column in columns)
            else detail.row["relpages"] * PAGE_US / max(table.rows, 1)
        )
        for child in self.catalog.values():
            for key in child.foreign_keys:
                follows = key.table == table.name and any(other in columns for _own, other in key.pairs)
                if follows and not details[child.name].indexed(key.columns):
                    cost += details[child.name].row["relpages"] * PAGE_US
        return cost

    # -- server -----------------------------------------------------------------------------------

    def _check_server(self, connection: Connection) -> bool:
        """Refuse what is wrong with the whole database; returns whether it takes writes."""
        name = self.session.label
        version = connection.dialect.server_version_info or (0,)
        if version < MINIMUM:
            self.refuse(
                name, f"PostgreSQL {'.'.join(map(str, version))} is too old.", f"Use PostgreSQL {MINIMUM[0]} or later."
            )
        standby = bool(execute(connection, "SELECT pg_is_in_recovery()").scalar_one())
        if standby:
            self.refuse(name, "The server is a standby and takes no writes.", "Name the primary server.")
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
            self.refuse(name, reason, "End it, or wait until it is over.")
        for gid in execute(
            connection, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY 1"
        ).scalars():
            reason = f"Prepared transaction {gid!r} keeps its locks until somebody ends it."
            self.refuse(name, reason, f"COMMIT PREPARED {literal(gid)}, or ROLLBACK PREPARED {literal(gid)}.")
        slots = "SELECT slot_name FROM pg_replication_slots WHERE database = current_database() ORDER BY 1"
        for slot in execute(connection, slots).scalars():
            reason = f"Logical replication slot {slot} sends this database's changes to others."
            self.refuse(name, reason, "Drop the slot for the migration, or make its reader follow the new id first.")
        strange = (
            f"SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('{SCHEMA}') AND relkind IN ('r', 'v',"
            " 'm', 'p', 'f')"
        )
        for relation in execute(
            connection, f"{strange} AND relname !~ '^(migration$|log_)' ORDER BY 1 LIMIT 1"
        ).scalars():
            self.refuse(
                name,
                f"Schema {SCHEMA} holds {relation}, which is not the migration's.",
                "Rename that schema: the name is reserved here.",
            )
        return not standby

    def _check_rights(
        self, connection: Connection, details: Mapping[str, Detail], planned: Sequence[TablePlan], staged: bool
    ) -> None:
        user, database = execute(connection, "SELECT current_user || '', current_database() || ''").one()
        create = f"GRANT CREATE ON DATABASE {quote(database)} TO {quote(user)};"
        self.grants.append(create)
        if (
            not staged
            and not execute(connection, "SELECT has_database_privilege(current_database(), 'CREATE')").scalar_one()
        ):
            self.refuse(self.session.label, f"User {user} may not create the schema {SCHEMA}.", create)
        for owner in sorted({str(details[plan.table].row["owner"]) for plan in planned} - {user}):
            self.grants.append(f"GRANT {quote(owner)} TO {quote(user)};")
        for plan in planned:
            row = details[plan.table].row
            if not row["owned"]:
                self.refuse(
                    plan.table,
                    f"User {user} is not an owner of {plan.table}, so it may not switch triggers.",
                    f"GRANT {quote(row['owner'])} TO {quote(user)};",
                )
        if (connection.dialect.server_version_info or (0,)) >= (15,):
            self.grants.append(f"GRANT SET ON PARAMETER session_replication_role, deadlock_timeout TO {quote(user)};")
        self.grants.append(f"GRANT pg_read_all_stats TO {quote(user)};")

    def _check_disk(
        self, connection: Connection, facts: Sequence[TableFacts], planned: Sequence[TablePlan], staged: bool
    ) -> None:
        """Free disk, where the server runs on this machine and lets us see its folder."""
        twins = {plan.table for plan in planned if plan.strategy == TWIN}
        needed = DISK_FACTOR * sum(table.bytes for table in facts if table.name in twins)
        local = self.session.options.get("socket") or self.session.options.get("host") in (
            None,
            "localhost",
            "127.0.0.1",
            "::1",
        )
        folder = execute(
            connection,
            "SELECT current_setting('data_directory', true) WHERE pg_has_role('pg_read_all_settings', 'USAGE')",
        ).scalar()
        if staged or not needed or not local or not folder:
            return
        with suppress(OSError):
            free = shutil.disk_usage(os.fspath(folder)).free
            if free < needed:
                reason = f"{folder} has {free // 2**20} MiB free, the copies need up to {needed // 2**20} MiB."
                self.refuse(self.session.label, reason, "Make room on the database's disk.")


def statements(scheme: Scheme) -> list[str]:
    """Everything that stage, window and abort run, in order, for a person to sign; the keys of chunks are left out."""
    source, target = scheme.ids["s"], scheme.ids["t"]
    staged, turned = shifts(STAGED, "s"), shifts(STAGED, "t")
    every = {kind for work in scheme.works for kind in scheme.triggers(work)}
    result = ["-- stage", f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}", STATE_TABLE, *scheme.create_helpers()]
    for work in scheme.works:
        result += [statement for group in scheme.triggers(work).values() for statement in group.values()]
        result.append(scheme.flip(work, shifts(STAGING, "s"), every - staged))
    result += [scheme.chunk(work, source, target, None, None) for work in scheme.twins]
    if scheme.twins:
        result += [
            scheme.apply(source, target, scheme.twins),
            scheme.differing(source, target, scheme.twins),
            scheme.empty_log("s", scheme.twins),
        ]
        result += [scheme.compare(work, source, target) for work in scheme.twins]
    result += ["-- window: barrier, one transaction", scheme.lock()]
    if scheme.twins:
        result += [scheme.pending("s", scheme.twins), scheme.apply(source, target, scheme.twins)]
    if scheme.in_place:
        result.append(scheme.move(source, target))
    result.append("SET CONSTRAINTS ALL IMMEDIATE")
    result += scheme.flips(staged, shifts("barred", "s"))
    result += ["-- window: turn, one transaction", *scheme.flips(shifts("barred", "s"), turned)]
    return [statement for statement in result if statement]
