# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage a migration in PostgreSQL and take the stage back; both go on where they were stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    BARRED,
    COPY,
    FORMAT,
    PURGE,
    STAGED,
    STAGING,
    Inspection,
    Move,
    Progress,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute, literal, schema_digest
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.catalog import (
    make_works,
    read_catalog,
    read_details,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.session import (
    READ_ONLY,
    REPEATABLE_READ,
    State,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.sql import (
    ADVISORY_LOCK,
    KEY_LOOKUPS_ONLY,
    SCHEMA,
    STATE_TABLE,
    TRIGGER_PREFIX,
    Scheme,
    Work,
    shifts,
)

with suppress(ImportError):
    import sqlalchemy as sa

if TYPE_CHECKING:
    from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.participant import PostgreSQL
    from sqlalchemy.engine import Connection

CHUNK_ROWS = 2000
CHUNK_MS = 250
"""A chunk that takes longer makes the next ones smaller: other tenants' writes wait for its I/O."""
DDL_TIMEOUT_MS = 60_000
"""How long to try for one table's locks while the tenant is served."""
CATCH_UP_ROUNDS = 20


class Stager:
    """One call of ``stage``."""

    def __init__(self, session: PostgreSQL, move: Move, plan: Inspection, progress: Progress) -> None:
        self.session, self.move, self.plan, self.progress = session, move, plan, progress
        self.chunk_rows = CHUNK_ROWS

    def run(self) -> int:
        if self.plan.refusals:
            first = self.plan.refusals[0]
            raise Refused(f"{self.session.label}: {first.reason}", first.advice, refusals=len(self.plan.refusals))
        state = self.session.retrying(self._begin, DDL_TIMEOUT_MS, (), "stage")
        if state.state == STAGED:
            # during a transition the log grows for weeks: what is applied here no window has to apply
            self._catch_up(state.scheme.twins)
            return 0
        for work in state.works:
            self.session.retrying(partial(self._install, work), DDL_TIMEOUT_MS, (work,), "stage")
        if not state.progress.get("copying"):
            self.session.retrying(self._check_target_empty, DDL_TIMEOUT_MS, state.works, "stage")
        copied = sum(self._copy(state.scheme.twins, number) for number in range(len(state.scheme.twins)))
        self._catch_up(state.scheme.twins)
        self._analyze(state.scheme.twins)
        rows = self._verify()
        self._finish(rows)
        return copied

    # -- helper objects ---------------------------------------------------------------------------

    def _begin(self) -> State:
        """Make or take the state row and the helper functions and logs."""
        session, move = self.session, self.move
        with session.transaction() as connection:
            session.prologue(connection, move.migration)
            state = session.read_state(connection, move.migration, lock=True)
            if state is None:
                self._create(connection)
                state = session.owned_state(connection, move)
            self._check(connection, state)
            session.write_state(connection, move, state.state, state.live_id, state.progress)
            session.record_session(connection, move.migration)
            return state

    def _check(self, connection: Connection, state: State) -> None:
        self.session.check_owner(state, self.move)
        label = self.session.label
        if state.state == BARRED:
            raise Refused(
                f"{label} is between barrier and turn.", "Finish or undo the window first: run the migration again."
            )
        if state.digest != self.plan.digest:
            raise Refused(
                f"{label}: the plan is not the one that was staged.", "Remove the stage (abort) and stage again."
            )
        catalog = read_catalog(self.session, connection)
        if schema_digest(catalog, self.plan.tables) != self.plan.digest:
            raise Refused(
                f"{label}: the schema has changed since the plan was made.", "Make a new plan, then stage again."
            )

    def _create(self, connection: Connection) -> None:
        session, move, plan = self.session, self.move, self.plan
        execute(connection, f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})")
        works = make_works(read_catalog(session, connection), read_details(session, connection), plan.tables)
        if execute(connection, f"SELECT to_regnamespace('{SCHEMA}')").scalar_one() is None:
            execute(connection, f"CREATE SCHEMA {SCHEMA}")
        execute(connection, STATE_TABLE)
        values = {
            "migration": move.migration,
            "format": FORMAT,
            "epoch": move.epoch,
            "state": STAGING,
            "live_id": move.source_id,
            "source_id": move.source_id,
            "target_id": move.target_id,
            "digest": plan.digest,
            "plan": json.dumps([work.dump() for work in works]),
            "progress": "{}",
        }
        named = ", ".join(f"CAST(:{name} AS jsonb)" if name in ("plan", "progress") else f":{name}" for name in values)
        connection.execute(sa.text(f"INSERT INTO {SCHEMA}.migration ({', '.join(values)}) VALUES ({named})"), values)
        state = session.owned_state(connection, move)
        for statement in state.scheme.create_helpers():
            execute(connection, statement)

    def _install(self, work: Work) -> None:
        """All triggers of one table in one short transaction; those that only a window needs are disabled."""
        session, move = self.session, self.move
        with session.transaction() as connection:
            session.prologue(connection, move.migration)
            state = session.owned_state(connection, move)
            scheme = state.scheme
            groups = scheme.triggers(work)
            query = (
                f"SELECT tgname FROM pg_trigger WHERE tgrelid = {literal(work.sql)}::regclass AND tgname LIKE"
                f" '{TRIGGER_PREFIX}%'"
            )
            there = set(execute(connection, query).scalars())
            missing = [sql for group in groups.values() for name, sql in group.items() if name not in there]
            if not missing:
                return
            for statement in missing:
                execute(connection, statement)
            on = shifts(STAGING, scheme.role(state.live_id))
            execute(connection, scheme.flip(work, on, set(groups) - on))

    def _check_target_empty(self) -> None:
        """Behind the target's fence nobody can add rows to it any more; note that from now on its rows are ours."""
        session, move = self.session, self.move
        with session.transaction() as connection:
            session.prologue(connection, move.migration)
            state = session.owned_state(connection, move)
            for work in state.works:
                if execute(
                    connection, f"SELECT EXISTS (SELECT FROM {work.sql} WHERE {work.is_id(move.target_id)})"
                ).scalar_one():
                    raise Refused(
                        f"{session.label}: table {work.name} has rows of the target id {move.target_id}.",
                        "Take back the stage (abort), then remove the rows or migrate to a tenant without data.",
                    )
            session.write_state(connection, move, STAGING, state.live_id, {**state.progress, "copying": True})

    # -- copies -----------------------------------------------------------------------------------

    def _copy(self, twins: Sequence[Work], number: int) -> int:
        """Copy one table in chunks, from where an earlier run stopped; parents have been copied before."""
        work, total, done = twins[number], 0, False
        while not done:
            begin = time.monotonic()
            rows, done = self.session.retrying(
                partial(self._chunk, twins[: number + 1]), DDL_TIMEOUT_MS, (work,), "stage"
            )
            total += rows
            self._adapt((time.monotonic() - begin) * 1000)
            self.progress({"participant": self.session.name, "table": work.name, "step": COPY, "rows": total})
        return total

    def _adapt(self, took_ms: float) -> None:
        if took_ms > CHUNK_MS:
            self.chunk_rows = max(100, self.chunk_rows // 2)
        elif took_ms < CHUNK_MS / 4:
            self.chunk_rows = min(CHUNK_ROWS * 5, self.chunk_rows * 2)

    def _chunk(self, started: Sequence[Work]) -> tuple[int, bool]:
        """One chunk of the last of the *started* tables.

        The logged keys of all of them are applied first, at the same snapshot: a row's parent is then either copied
        already or not visible to this chunk.
        """
        session, move, work = self.session, self.move, started[-1]
        with session.transaction(REPEATABLE_READ) as connection:
            session.prologue(connection, move.migration)
            session.exempt(connection, started)
            state = session.owned_state(connection, move)
            progress = state.progress
            if work.name in progress.get("done", []):
                return 0, True
            session.apply(connection, state, started)
            execute(connection, KEY_LOOKUPS_ONLY)
            last = progress.get("cursor", {}).get(work.name)
            end = execute(connection, state.scheme.chunk_end(work, move.source_id, last, self.chunk_rows)).one_or_none()
            rows = execute(connection, state.scheme.chunk(work, move.source_id, move.target_id, last, end)).rowcount
            if end is None:
                progress = {**progress, "done": [*progress.get("done", []), work.name]}
            else:
                progress = {**progress, "cursor": {**progress.get("cursor", {}), work.name: list(end)}}
            session.write_state(connection, move, STAGING, state.live_id, progress)
            return rows, end is None

    def _catch_up(self, twins: Sequence[Work]) -> None:
        """Apply what was logged during the copy; the rest is the prelude's, so a busy tenant cannot keep us here."""
        for _round in range(CATCH_UP_ROUNDS):
            if not self.session.retrying(
                lambda: self.session.apply_log(self.move, twins), DDL_TIMEOUT_MS, twins, "stage"
            ):
                return

    def _analyze(self, twins: Sequence[Work]) -> None:
        """The planner must know the copies before they are used."""
        for work in twins:
            self.session.retrying(partial(self._analyze_one, work), DDL_TIMEOUT_MS, (work,), "stage")

    def _analyze_one(self, work: Work) -> None:
        with self.session.transaction() as connection:
            execute(connection, "SET LOCAL lock_timeout = '2s'")
            execute(connection, f"ANALYZE {work.sql}")

    def _verify(self) -> dict[str, int]:
        """Compare originals and copies as a whole at one snapshot, but for keys that wait in the log.

        :raises Refused: they differ.
        """
        session, move = self.session, self.move
        rows: dict[str, int] = {}
        wrong = []
        with session.transaction(READ_ONLY) as connection:
            state = session.read_state(connection, move.migration)
            scheme = state.scheme if state else Scheme(move.migration, move.source_id, move.target_id, ())
            for work in scheme.twins:
                self.progress({"participant": session.name, "table": work.name, "step": "verify"})
                found = execute(connection, scheme.compare(work, move.source_id, move.target_id)).one()
                rows[work.name] = found[0]
                wrong += [f"{work.name} ({found[1]})"] if found[1] else []
        if wrong:
            raise Refused(
                f"{session.label}: copies differ from their originals: {', '.join(wrong)}.",
                "Look for triggers or rules that change rows while they are written; take back the stage (abort) and"
                " stage again.",
            )
        return rows

    def _finish(self, rows: dict[str, int]) -> None:
        session, move = self.session, self.move

        def finish() -> None:
            with session.transaction() as connection:
                session.prologue(connection, move.migration)
                state = session.owned_state(connection, move)
                session.write_state(connection, move, STAGED, state.live_id, {"copying": True, "rows": rows})

        session.retrying(finish, DDL_TIMEOUT_MS, (), "stage")


class Remover:
    """One call of ``remove``."""

    def __init__(self, session: PostgreSQL, move: Move, progress: Progress) -> None:
        self.session, self.move, self.progress = session, move, progress
        self.known: dict[str, int] = {}

    def run(self) -> int:
        works = self.session.retrying(self._begin, DDL_TIMEOUT_MS, (), "remove")
        if works is None:
            return 0
        removed = sum(self._purge(work) for work in reversed(works))
        for work in works:
            self.session.retrying(partial(self._drop_triggers, work), DDL_TIMEOUT_MS, (work,), "remove")
        self.session.retrying(self._drop_helpers, DDL_TIMEOUT_MS, (), "remove")
        return removed

    def _begin(self) -> Sequence[Work] | None:
        """Back to staging with nothing copied: a window cannot begin any more, and a new stage would start from the
        first row.
        """
        session, move = self.session, self.move
        with session.transaction() as connection:
            session.prologue(connection, move.migration)
            if session.read_state(connection, move.migration) is None:
                return None
            state = session.owned_state(connection, move)
            if state.state not in (STAGED, STAGING) or state.live_id != move.from_id:
                raise Refused(
                    f"{session.label} is {state.state} and {state.live_id} is live: {move.to_id} can't be retired.",
                    "Run the status playbook: it says which id is live and what to do.",
                )
            progress = {key: value for key, value in state.progress.items() if key in ("copying", "rows")}
            self.known = progress.get("rows", {})
            session.write_state(connection, move, STAGING, state.live_id, progress)
            session.record_session(connection, move.migration)
            return state.works

    def _purge(self, work: Work) -> int:
        """Delete the copies of one table, children come first; rows that are not ours are never here (see the
        stage).
        """
        total = 0
        while rows := self.session.retrying(partial(self._purge_chunk, work), DDL_TIMEOUT_MS, (work,), "remove"):
            total += rows
            of = self.known.get(work.name, 0)
            self.progress(
                {"participant": self.session.name, "table": work.name, "step": PURGE, "rows": total, "of": of}
            )
        return total

    def _purge_chunk(self, work: Work) -> int:
        session, move = self.session, self.move
        with session.transaction() as connection:
            session.prologue(connection, move.migration)
            # children are gone already; without an index on their foreign keys each check would read the whole table
            session.exempt(connection, (work,), always=True)
            state = session.owned_state(connection, move)
            if work not in state.scheme.twins or not state.progress.get("copying"):
                return 0
            return int(execute(connection, state.scheme.purge(work, move.to_id, CHUNK_ROWS)).rowcount)

    def _drop_triggers(self, work: Work) -> None:
        session, move = self.session, self.move
        with session.transaction() as connection:
            session.prologue(connection, move.migration)
            scheme = session.owned_state(connection, move).scheme
            if execute(connection, f"SELECT to_regclass({literal(work.sql)})").scalar_one() is None:
                return
            for group in scheme.triggers(work).values():
                for name in group:
                    execute(connection, f"DROP TRIGGER IF EXISTS {name} ON {work.sql}")

    def _drop_helpers(self) -> None:
        """The rest in one transaction; the schema goes with the last migration."""
        session, move = self.session, self.move
        with session.transaction() as connection:
            session.prologue(connection, move.migration)
            execute(connection, f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})")
            scheme = session.owned_state(connection, move).scheme
            for statement in scheme.drop_helpers():
                execute(connection, statement)
            connection.execute(
                sa.text(f"DELETE FROM {SCHEMA}.migration WHERE migration = :migration"), {"migration": move.migration}
            )
            if not execute(connection, f"SELECT EXISTS (SELECT FROM {SCHEMA}.migration)").scalar_one():
                execute(connection, f"DROP TABLE {SCHEMA}.migration")
                if execute(
                    connection, f"SELECT pg_has_role(nspowner, 'USAGE') FROM pg_namespace WHERE nspname = '{SCHEMA}'"
                ).scalar_one():
                    execute(connection, f"DROP SCHEMA {SCHEMA}")
