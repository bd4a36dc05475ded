# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the verbs do for PostgreSQL's twins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.participant.copying import SHOWN_KEYS, Chunk, Clash, Cursor
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import (
    execute,
    execute_with,
    first_line,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.inspect import PostgreSQLInspection
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.sql import Work, works
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.twin_sql import (
    KEY_LOOKUPS_ONLY,
    Twins,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import Planned, State

with suppress(ImportError):
    import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

PURGE_ROWS = 2000
ANALYZE_TIMEOUT_MS = 60_000
UNIQUE = "23505"
CLASH = (UNIQUE, "23503")
"""unique_violation, foreign_key_violation."""


class PostgreSQLTwins(PostgreSQLInspection):
    """Chunks, log and comparison; each in the caller's transaction, which reads one snapshot or holds the locks."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._brought: set[int] = set()
        """Numbers of tables in which chunks have met rows that the log has brought."""

    def pending(self, connection: Connection, state: State) -> int:
        scheme = Twins(state)
        return sum(execute(connection, scheme.waiting(scheme.twins)).one()) if scheme.twins else 0

    def catch_up(self, connection: Connection, state: State, most: int | None) -> int:
        return self._apply_log(connection, Twins(state), works(state.twins), most)

    def _apply_log(self, connection: Connection, scheme: Twins, tables: tuple[Work, ...], most: int | None) -> int:
        """Apply and verify logged keys of *tables*; how many.

        :raises Refused: twin and original differ afterwards.
        """
        waiting = execute(connection, scheme.waiting(tables)).one() if tables else ()
        todo = [work for work, count in zip(tables, waiting, strict=True) if count]
        if not todo:
            return 0
        execute(connection, KEY_LOOKUPS_ONLY)
        most = self._write_twins(connection, scheme, todo, most, max(waiting))
        wrong = self._applied_wrong(connection, scheme, todo, most)
        fixed = [work for work in todo if work.fixed and work.name in wrong]
        if fixed and self._deletable(connection, scheme, fixed):
            execute(connection, scheme.apply(fixed, most, [work.number for work in fixed]))
            wrong = self._applied_wrong(connection, scheme, todo, most)
        if wrong:
            raise Refused(
                f"{self.label}: rows under {scheme.live} and {scheme.other} differ after their keys were applied:"
                f" {', '.join(f'{name} ({count})' for name, count in wrong.items())}.",
                "Look for triggers or rules that change rows while they are written, and for new values of identity"
                " columns, which only GRANT SET ON PARAMETER session_replication_role lets the migration's user copy.",
            )
        execute(connection, scheme.empty_log(todo, most))
        return sum(min(count, most or count) for count in waiting)

    def _write_twins(
        self, connection: Connection, scheme: Twins, todo: Sequence[Work], most: int | None, longest: int
    ) -> int | None:
        """Write the twins of the oldest *most* entries of each log; returns how many that were in the end.

        A part of the log can clash where the whole would not: a row has the value of a unique key, or refers to a row,
        that an entry further on is about. So a part that clashes is made larger, up to the whole.

        :param longest: entries of the longest log.
        :raises Clash: the whole does not fit either.
        """
        while True:
            clash = self._try(connection, scheme.apply(todo, most))
            if clash is None:
                return most
            if most is None:
                break
            most = most * 10 if most < longest else None
        if _sqlstate(clash) == UNIQUE:
            # rows have exchanged values of a secondary unique key: take all of them away before they are written again
            self.exempt_from_triggers(connection)
            clash = self._try(connection, scheme.apply(todo, None, [work.number for work in todo if work.exchanging]))
        if clash is not None:
            raise Clash(
                f"{self.label}: changed rows do not fit to the copies: {first_line(clash)}.",
                "Run the stage playbook, which compares the copies; then the same command again.",
            )
        return None

    @staticmethod
    def _try(connection: Connection, statement: str) -> sa.exc.IntegrityError | None:
        """Run it, or leave everything as it was; the error when rows were in each other's way."""
        try:
            with connection.begin_nested():
                execute(connection, statement)
        except sa.exc.IntegrityError as error:
            if _sqlstate(error) not in CLASH:
                raise
            return error
        return None

    @staticmethod
    def _applied_wrong(
        connection: Connection, scheme: Twins, works: Sequence[Work], most: int | None
    ) -> dict[str, int]:
        differing = execute(connection, scheme.differing(works, most)).one()
        return {work.name: count for work, count in zip(works, differing, strict=True) if count}

    def _deletable(self, connection: Connection, scheme: Twins, works: Sequence[Work]) -> bool:
        """Whether twins can be taken away without their children; the session's foreign keys do not act then."""
        self.exempt_from_triggers(connection)
        exempt = self.may(connection)["session_replication_role"]
        return exempt or not execute(connection, scheme.followed_by_others(works)).scalar_one()

    def chunk(self, connection: Connection, state: State, table: Planned, after: Cursor, rows: int) -> Chunk:
        scheme, work = Twins(state), works((table,))[0]
        # a row's parent is copied already, or logged, or not visible to this snapshot
        started = [done for done in scheme.twins if done.name in state.progress.done or done.number == table.number]
        # what does not fit yet waits: for a new parent table, for the comparison of stale twins
        with suppress(Clash):
            self._apply_log(connection, scheme, tuple(started), None)
        execute(connection, KEY_LOOKUPS_ONLY)
        if table.number not in self._brought:
            try:
                with connection.begin_nested():
                    fresh = scheme.fresh_chunk(work, bool(after), rows)
                    found = execute_with(connection, fresh, after or ()).one_or_none()
                return Chunk(found[0], list(found[1:]) if found[0] == rows else None) if found else Chunk(0, None)
            except sa.exc.IntegrityError as error:
                if _sqlstate(error) not in CLASH:
                    raise
                self._brought.add(table.number)
        return self._chunk_among_brought(connection, scheme, work, after, rows)

    @staticmethod
    def _chunk_among_brought(connection: Connection, scheme: Twins, work: Work, after: Cursor, rows: int) -> Chunk:
        found = execute_with(connection, scheme.chunk_end(work, bool(after), rows), after or ()).one_or_none()
        end = list(found) if found else None
        bounds = (*(after or ()), *(end or ()))
        try:
            with connection.begin_nested():
                copied = execute_with(connection, scheme.chunk(work, bool(after), bool(end)), bounds).rowcount
        except sa.exc.IntegrityError as error:
            if _sqlstate(error) not in CLASH:
                raise
            copied = execute_with(connection, scheme.log_range(work, bool(after), bool(end)), bounds).rowcount
        return Chunk(int(copied), end)

    def compare_chunk(
        self, connection: Connection, state: State, table: Planned, after: Cursor, rows: int, mend: bool
    ) -> Chunk:
        scheme, work = Twins(state), works((table,))[0]
        found = execute_with(connection, scheme.chunk_end(work, bool(after), rows), after or ()).one_or_none()
        end = list(found) if found else None
        bounds = (*(after or ()), *(end or ()))
        compare = scheme.compare(work, bool(after), bool(end), SHOWN_KEYS + 1, mend)
        count, keys = execute_with(connection, compare, bounds).one()
        return Chunk(int(count), end, tuple(keys))

    def purge_chunk(self, connection: Connection, state: State, table: Planned) -> int:
        work = works((table,))[0]
        columns = (
            "SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = %s AND NOT attisdropped"
        )
        if not connection.exec_driver_sql(columns, (work.sql, work.columns[0])).scalar():
            return 0
        # children are gone already; without an index on their foreign keys each check would read the whole table
        self.exempt_from_triggers(connection)
        return int(execute(connection, Twins(state).purge(work, PURGE_ROWS)).rowcount)

    def analyze(self, table: Planned) -> None:
        def analyze() -> None:
            with self.transaction() as connection:
                execute(connection, "SET LOCAL lock_timeout = '2s'")
                execute(connection, f"ANALYZE {works((table,))[0].sql}")

        self.retrying(analyze, ANALYZE_TIMEOUT_MS, works((table,)), "stage")


def _sqlstate(error: sa.exc.DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", ""))
