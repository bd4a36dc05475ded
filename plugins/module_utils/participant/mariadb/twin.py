# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Twins of the MariaDB participant: copies of the live id's rows under the other id, kept in step by a log of changed
keys. Nothing is written with IGNORE: what does not fit is an error, not a warning.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from ansible_collections.zdm.landscape.plugins.module_utils.participant.copying import CHUNK_ROWS, Chunk, Cursor
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute, execute_with
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.inspect import MariaDBInspection
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.planned import MariaDBPlanned
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.sessions import (
    DUPLICATE,
    NO_SUCH_COLUMN,
    NO_SUCH_INDEX,
    NO_SUCH_TABLE,
    number,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.twin_sql import SHOWN, Range, Twin
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import Planned, State

with suppress(ImportError):  # Database refuses to be built without it
    import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


class MariaDBTwins(MariaDBInspection):
    """What the verbs do for tables of strategy twin."""

    def twin(self, state: State, table: Planned) -> Twin:
        """The statements of one table."""
        return Twin(state, cast(MariaDBPlanned, table), self.quote)

    def twins(self, state: State) -> tuple[Twin, ...]:
        return tuple(self.twin(state, table) for table in state.twins)

    # -- the log ----------------------------------------------------------------------------------

    def _waiting(self, connection: Connection, twins: tuple[Twin, ...]) -> list[int]:
        """Logged keys of each."""
        if not twins:
            return []
        return list(map(int, execute(connection, "SELECT " + ", ".join(twin.waiting() for twin in twins)).one()))

    def pending(self, connection: Connection, state: State) -> int:
        logged = set(execute(connection, "SHOW TABLES LIKE 'zdm\\_log\\_%'").scalars())
        # a log that is gone is told as a mark that has changed
        there = tuple(twin for twin in self.twins(state) if twin.log.strip("`") in logged)
        return sum(self._waiting(connection, there))

    def catch_up(self, connection: Connection, state: State, most: int | None) -> int:
        twins = self.twins(state)
        waiting = zip(twins, self._waiting(connection, twins), strict=True)
        return sum(self._apply_log(connection, twin, most) for twin, count in waiting if count)

    def _apply_log(self, connection: Connection, twin: Twin, most: int | None) -> int:
        """Apply about *most* keys of a table's log and verify them; returns how many entries the log had of them.

        A row that got the value of a secondary unique key from another one collides unless both are applied together:
        the other one's key is in the log, and more of the log is taken; or its twin is stale, and is rewritten too.

        :raises Refused: a twin differs from its original afterwards, or refers to a row that is not there.
        """
        taken = 0
        while True:
            before, taken = taken, self._take(connection, twin, most)
            try:
                self._write(connection, twin)
                break
            except sa.exc.DBAPIError as error:
                if number(error) != DUPLICATE:
                    raise
                if most is None or taken == before:
                    self._write_with_clashing(connection, twin)
                    break
            most *= 10
        if taken:
            self._verify(connection, twin)
        return taken

    @staticmethod
    def _take(connection: Connection, twin: Twin, most: int | None) -> int:
        for statement in twin.make_taken():
            execute(connection, statement)
        return int(execute(connection, twin.take(most)).rowcount)

    @staticmethod
    def _write(connection: Connection, twin: Twin) -> None:
        with connection.begin_nested():
            for statement in twin.apply():
                execute(connection, statement)

    def _write_with_clashing(self, connection: Connection, twin: Twin) -> None:
        """Write the noted keys together with stale twins that are in their way; these may be in others' way."""
        while True:
            more = sum(int(execute(connection, statement).rowcount) for statement in twin.take_clashing(None))
            try:
                return self._write(connection, twin)
            except sa.exc.DBAPIError as error:
                if number(error) != DUPLICATE or not more:
                    raise

    def _verify(self, connection: Connection, twin: Twin) -> None:
        wrong = _keys(execute(connection, twin.applied_wrong()).all())
        if wrong:
            raise self._different({twin.table.name: wrong})
        for query, key in twin.loose():
            if execute(connection, query).first():
                raise self.loose(twin.table.name, key, twin.other)

    # -- copies -----------------------------------------------------------------------------------

    def chunk(self, connection: Connection, state: State, table: Planned, after: Cursor, rows: int) -> Chunk:
        twin = self.twin(state, table)
        until = self._end(connection, twin, "a", after, rows)
        keys = Range(after, until)
        copied = self._copy_range(connection, twin, keys)
        return Chunk(copied, until)

    def _copy_range(self, connection: Connection, twin: Twin, keys: Range) -> int:
        """A row collides with its own twin, which the log has brought before, or with a stale twin of another row,
        which is rewritten first.
        """

        def copy(present: bool) -> int:
            with connection.begin_nested():
                return int(execute_with(connection, twin.chunk(keys, present), keys.values).rowcount)

        for present in (False, True):
            try:
                return copy(present)
            except sa.exc.DBAPIError as error:
                if number(error) != DUPLICATE:
                    raise
        for statement in twin.make_taken():
            execute(connection, statement)
        for statement in twin.take_clashing(keys):
            execute_with(connection, statement, keys.values)
        self._write_with_clashing(connection, twin)
        return copy(True)

    @staticmethod
    def _end(connection: Connection, twin: Twin, alias: str, after: Cursor, rows: int) -> Cursor:
        end = execute_with(connection, twin.chunk_end(alias, after, rows), after or []).one_or_none()
        return list(map(str, end)) if end else None

    def compare_chunk(
        self, connection: Connection, state: State, table: Planned, after: Cursor, rows: int, mend: bool
    ) -> Chunk:
        twin = self.twin(state, table)
        until = self._end(connection, twin, "a", after, rows)
        keys = Range(after, until)
        row = execute_with(connection, twin.compare(keys), keys.values).one()
        originals, unequal, twins = map(int, row)
        if not unequal and originals == twins:
            return Chunk(originals, until)
        wrong: list[str] = []
        for statement in twin.wrong(keys):
            wrong += _keys(execute_with(connection, statement, keys.values).all())
        if wrong and mend:
            for statement in twin.mend(keys):
                execute_with(connection, statement, keys.values)
        return Chunk(originals, until, tuple(wrong[:SHOWN]))

    def purge_chunk(self, connection: Connection, state: State, table: Planned) -> int:
        twin = self.twin(state, table)
        for purge in (self._purge_range, self._purge_some):
            try:
                return purge(connection, twin)
            except sa.exc.DBAPIError as error:
                if number(error) == NO_SUCH_TABLE:
                    return 0
                if number(error) not in (NO_SUCH_COLUMN, NO_SUCH_INDEX):
                    raise
        return 0

    def _purge_range(self, connection: Connection, twin: Twin) -> int:
        keys = Range(None, self._end(connection, twin, "b", None, CHUNK_ROWS))
        return int(execute_with(connection, twin.purge(keys), keys.values).rowcount)

    @staticmethod
    def _purge_some(connection: Connection, twin: Twin) -> int:
        return int(execute(connection, twin.purge_some(CHUNK_ROWS)).rowcount)


def _keys(rows: Iterable[Iterable[Any]]) -> tuple[str, ...]:
    """Keys in words."""
    return tuple(", ".join(map(str, row)) for row in rows)
