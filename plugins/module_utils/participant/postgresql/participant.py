# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL as a participant, with the strategies ``twin`` and ``in_place``.

DDL is part of a transaction here: what the stage makes is there as a whole, with its mark, or not at all.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    STAGING,
    Inspection,
    Move,
    Progress,
    Status,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.copying import STAGE_TIMEOUT_MS
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute, first_line
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.marks import (
    marks_query,
    triggers_query,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.session import (
    REPEATABLE_READ,
    Contended,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.sql import (
    ADVISORY_LOCK,
    SCHEMA,
    STATE_TABLE,
    Scheme,
    Work,
    quote,
    works,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.twin import PostgreSQLTwins
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.twin_sql import Twins
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import Planned, State

with suppress(ImportError):
    import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

READ_TIMEOUT_MS = 10_000
"""How long reading tries to get past somebody's DDL."""

T = TypeVar("T")


class PostgreSQL(PostgreSQLTwins):
    """See :class:`~.database.Database` for the options."""

    # -- reading, past somebody's DDL -------------------------------------------------------------

    def inspect(
        self, migration: str, source_id: str, target_id: str, signed: str = "", live_id: str = ""
    ) -> Inspection:
        read = partial(super().inspect, migration, source_id, target_id, signed, live_id)
        return self.retrying(read, READ_TIMEOUT_MS, (), "inspect")

    def status(self, migration: str, source_id: str, target_id: str) -> Status:
        return self.retrying(
            lambda: super(PostgreSQL, self).status(migration, source_id, target_id), READ_TIMEOUT_MS, (), "status"
        )

    def fingerprint(self, tenant_id: str) -> str:
        return self.retrying(lambda: super(PostgreSQL, self).fingerprint(tenant_id), READ_TIMEOUT_MS, (), "fingerprint")

    # -- transactions -----------------------------------------------------------------------------

    def in_window(
        self, move: Move, timeout_ms: int, work: Callable[[Connection, State], T], *, snapshot: bool = False
    ) -> T:
        tables: list[Work] = []

        def attempt() -> T:
            with self.transaction(*((REPEATABLE_READ,) if snapshot else ())) as connection:
                if self.prologue(connection, move.migration):
                    state = self.staged_state(connection, move, lock=True)
                    tables[:] = works(state.tables)
                    return work(connection, state)
                stored = self.staged_state(connection, move)
            who = self.end_holder(move.migration) if stored.epoch < move.epoch else "another session of this run"
            raise Contended(
                f"{self.label}: {who} works for migration {move.migration}.", "End it, and run the same command again."
            )

        return self.retrying(attempt, timeout_ms, tables, f"migration {move.migration}")

    def exempt(self, connection: Connection, state: State) -> None:
        """The worker's transactions are exempt from fences and logs by their setting ``zdm.worker``."""
        if any(work.triggers for work in works(state.tables)):
            self.exempt_from_triggers(connection)

    def checks_keys(self, state: State) -> bool:
        return not any(work.triggers for work in works(state.tables))

    def exclude_writers(self, connection: Connection, state: State) -> None:
        if not state.tables:
            return
        try:
            execute(connection, Scheme(state).lock())
        except sa.exc.ProgrammingError as error:
            if not self.no_such_table(error):
                raise
            reason = f"{self.label}: a planned table is gone: {first_line(error)}."
            raise Refused(reason, "Run the stage playbook, then the same command again.") from None

    def await_writers(self, move: Move, state: State, timeout_ms: int) -> None:
        del move

        def older() -> set[str]:
            # autovacuum gives way to the barrier's lock
            found = self.writers(works(state.tables)).items()
            return {transaction for transaction, row in found if row["backend"] != "autovacuum worker"}

        deadline = time.monotonic() + timeout_ms / 1000
        waiting = older()
        while waiting:
            if time.monotonic() >= deadline:
                raise self.culprits_error(works(state.tables), "prelude", timeout_ms)
            time.sleep(0.01)
            waiting &= older()

    def set_fences(self, connection: Connection, state: State, fenced: Iterable[str]) -> None:
        execute(connection, Scheme(state).set_fences(fenced))

    # -- catalog ----------------------------------------------------------------------------------

    def marks(self, connection: Connection, state: State) -> dict[str, str]:
        if not state.tables:
            return {}
        query = marks_query(Scheme(state), works(state.tables))
        return {name: f"{structure}|{ours}" for name, structure, ours in execute(connection, query)}

    def fenced(self, connection: Connection, state: State) -> tuple[str, ...]:
        scheme = Scheme(state)
        firing = {tuple(row[:3]) for row in execute(connection, triggers_query(scheme)) if row.always}
        wanted = {(work.schema, work.relation, name) for work in scheme.works for name in scheme.triggers(work)}
        if not wanted <= firing:
            return ()
        return tuple(sorted(scheme.ids[side] for side in execute(connection, scheme.closed()).scalars()))

    def trigger_tables(self, connection: Connection, migration: str) -> dict[int, str]:
        scheme = Scheme(State(migration, 0, STAGING, "", "", "", ()))
        number = re.compile(f"{scheme.trigger_prefix}([0-9]+)_")
        return {
            int(match[1]): self.display_name(row.nspname, row.relname)
            for row in execute(connection, triggers_query(scheme))
            if (match := number.match(row.tgname))
        }

    def renamed(self, table: Planned, name: str) -> Planned:
        schema, _dot, relation = name.rpartition(".")
        return replace(works((table,))[0], name=name, schema=schema or self.default_schema, relation=relation)

    def leftovers(self, connection: Connection, migration: str) -> tuple[str, ...]:
        scheme = Scheme(State(migration, 0, STAGING, "", "", "", ()))
        helpers = (
            f"SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('{SCHEMA}') AND relkind = 'r' AND"
            f" relname ~ '^(log|kept)_{scheme.hash}' ORDER BY 1"
        )
        triggers = execute(connection, triggers_query(scheme)).all()
        return (*(row.tgname for row in triggers), *execute(connection, helpers).scalars())

    # -- stage and remove -------------------------------------------------------------------------

    def make_state_table(self, move: Move) -> None:
        del move

        def make() -> None:
            with self.transaction() as connection:
                execute(connection, f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})")
                if execute(connection, f"SELECT to_regnamespace('{SCHEMA}')").scalar_one() is None:
                    execute(connection, f"CREATE SCHEMA {SCHEMA}")
                execute(connection, STATE_TABLE)

        self.retrying(make, STAGE_TIMEOUT_MS, (), "stage")

    def make_fences(self, move: Move, state: State) -> None:
        del state

        def make(connection: Connection, state: State) -> None:
            execute(connection, Scheme(state).set_fences(state.closed))
            execute(connection, Twins(state).create_kept())

        self.in_window(move, STAGE_TIMEOUT_MS, make)

    def arm(self, move: Move, state: State, table: Planned, progress: Progress) -> str:
        del state, progress
        work = works((table,))[0]

        def arm(connection: Connection, state: State) -> str:
            scheme, alone = Scheme(state), replace(state, tables=(table,))
            now, staged = self.marks(connection, alone)[work.name], state.marks.get(work.name, "|")
            if now.partition("|")[2] != staged.partition("|")[2]:
                self._make_triggers(connection, scheme, work)
            return self.marks(connection, alone)[work.name]

        return self.in_window(move, STAGE_TIMEOUT_MS, arm)

    def _make_triggers(self, connection: Connection, scheme: Scheme, work: Work) -> None:
        for statement in scheme.create_logs(work) if work in scheme.twins else ():
            execute(connection, statement)
        for row in execute(connection, triggers_query(scheme)).all():
            here = (row.nspname, row.relname) == (work.schema, work.relation)
            # a table that was replaced by a copy may keep them under another name
            if here or row.tgname.startswith(f"{scheme.trigger_prefix}{work.number}_"):
                self._drop_trigger(connection, row)
        for statement in scheme.triggers(work).values():
            execute(connection, statement)
        execute(connection, scheme.always(work))

    @staticmethod
    def _drop_trigger(connection: Connection, row: Any) -> None:
        execute(connection, f"DROP TRIGGER IF EXISTS {row.tgname} ON {quote(row.nspname, row.relname)}")

    def disarm(self, move: Move, state: State, table: Planned) -> None:
        del state

        def disarm(connection: Connection, state: State) -> None:
            scheme = Scheme(state)
            for row in execute(connection, triggers_query(scheme)).all():
                if row.tgname.startswith(f"{scheme.trigger_prefix}{table.number}_"):
                    self._drop_trigger(connection, row)
            for statement in scheme.drop_logs(works((table,))[0]):
                execute(connection, statement)

        self.in_window(move, STAGE_TIMEOUT_MS, disarm)

    def drop_helpers(self, move: Move, state: State | None, progress: Progress) -> None:
        del progress
        scheme = Scheme(state or State(move.migration, 0, STAGING, "", "", "", ()))
        with self.transaction() as connection:
            tables = {(row.nspname, row.relname) for row in execute(connection, triggers_query(scheme))}
        for schema, relation in sorted(tables):
            self.retrying(partial(self._drop_triggers, scheme, schema, relation), STAGE_TIMEOUT_MS, (), "remove")
        self.retrying(partial(self._drop_rest, scheme), STAGE_TIMEOUT_MS, (), "remove")

    def _drop_triggers(self, scheme: Scheme, schema: str, relation: str) -> None:
        """Of one table, in one short transaction."""
        with self.transaction() as connection:
            self.prologue(connection, scheme.migration)
            for row in execute(connection, triggers_query(scheme)).all():
                if (row.nspname, row.relname) == (schema, relation):
                    self._drop_trigger(connection, row)

    def _drop_rest(self, scheme: Scheme) -> None:
        """In one transaction; the schema goes with the last migration."""
        helpers = (
            "SELECT format('DROP FUNCTION %s()', oid::regproc) FROM pg_proc WHERE pronamespace ="
            f" to_regnamespace('{SCHEMA}') AND proname ~ '^(note|fence)_{scheme.hash}' UNION ALL SELECT format('DROP"
            f" TABLE %s', oid::regclass) FROM pg_class WHERE relnamespace = to_regnamespace('{SCHEMA}') AND relkind ="
            f" 'r' AND relname ~ '^(log|kept)_{scheme.hash}'"
        )
        with self.transaction() as connection:
            self.prologue(connection, scheme.migration)
            execute(connection, f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})")
            for statement in execute(connection, helpers).scalars().all():
                execute(connection, statement)
            if execute(connection, f"SELECT to_regclass('{SCHEMA}.migration')").scalar_one() is None:
                return
            self.state_table(scheme.migration).delete(connection, scheme.migration)
            if not execute(connection, f"SELECT EXISTS (SELECT FROM {SCHEMA}.migration)").scalar_one():
                execute(connection, f"DROP TABLE {SCHEMA}.migration")
                owned = f"SELECT pg_has_role(nspowner, 'USAGE') FROM pg_namespace WHERE nspname = '{SCHEMA}'"
                if execute(connection, owned).scalar_one():
                    execute(connection, f"DROP SCHEMA {SCHEMA}")
