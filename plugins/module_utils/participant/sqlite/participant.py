# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SQLite as a participant: rows change id in place, and every verb is one ``BEGIN IMMEDIATE`` transaction.

A fence is a set of triggers. DDL is part of a transaction in SQLite, so the worker takes its own fences away, moves the
rows and puts them back before anybody else can see it: it needs no exemption. Connections of other processes stay open;
they prepare their statements again when the schema has changed. The journal mode stays as the application has set it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote as percent_quote

from ansible_collections.zdm.landscape.plugins.module_utils.core.durations import format_ms
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Timeout, Unreachable, ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.core.names import short_hash
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import Move, Progress
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute, first_line, literal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.sqlite.inspect import (
    SQLiteInspection,
    lock_holders,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import (
    Planned,
    State,
    state_name,
    write_state,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.verbs import VERB_TIMEOUT_MS

with suppress(ImportError):  # Database refuses to be built without it
    import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Connection

BUSY, FULL = 5, 13
"""Primary result codes (SQLite manual, "Result and Error Codes")."""
EVENTS = {"INSERT": ("NEW",), "UPDATE": ("OLD", "NEW"), "DELETE": ("OLD",)}

# no foreign key acts while parents and children move together; nothing is written to the file before the commit, so
# that readers of a file without a write-ahead log read on until then
_SESSION = ("PRAGMA foreign_keys = OFF", "PRAGMA cache_spill = OFF", "PRAGMA synchronous = FULL")

T = TypeVar("T")


class SQLite(SQLiteInspection):
    """A database file; its path is ``options["database"]``. For the other options see :class:`Database`."""

    kind = "sqlite"
    driver = "sqlite3"

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._timeout_ms = VERB_TIMEOUT_MS

    def url(self) -> URL:
        # mode=rw: a missing file is an error, never a new empty database (SQLite manual, "Uniform Resource
        # Identifiers")
        return sa.URL.create(
            "sqlite+pysqlite",
            database=f"file:{percent_quote(str(self.path.absolute()))}",
            query={"mode": "rw", "uri": "true"},
        )

    def connect_args(self) -> dict[str, Any]:
        return {"isolation_level": None, "timeout": VERB_TIMEOUT_MS / 1000}

    def refused_login(self, message: str) -> bool:
        del message  # a file has no users
        return False

    def open(self) -> Connection:
        if not self.path.is_file():
            raise Unreachable(f"{self.label}: there is no such file.", "Correct `database`, the path of the file.")
        connection = super().open()
        with self.translated():
            for statement in _SESSION:
                execute(connection, statement)
            connection.commit()
        return connection

    def no_such_table(self, error: sa.exc.DBAPIError) -> bool:
        return "no such table" in str(error.orig)

    def translate(self, error: sa.exc.DBAPIError) -> ZdmError:
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        if code == BUSY:
            holders = lock_holders(self.path)
            by = f": locked by {', '.join(holders)}" if holders else ""
            reason = f"{self.label}: the file {self.path} was not free within {format_ms(self._timeout_ms)}{by}."
            return Timeout(reason, "Let that process end its transaction, then run the command again.", holders=holders)
        if code == FULL:
            return ZdmError(
                f"{self.label}: the disk of {self.path} is full; nothing was changed.",
                "Make room and run the command again.",
            )
        return ZdmError(
            f"{self.label}: {first_line(error)}.", "Correct the cause in the database and run the same command again."
        )

    # -- one transaction --------------------------------------------------------------------------

    @contextmanager
    def _exclusive(self, timeout_ms: int) -> Iterator[Connection]:
        """One write transaction; waits for others up to *timeout_ms*."""
        self._timeout_ms = timeout_ms
        try:
            with self.transaction(f"PRAGMA busy_timeout = {timeout_ms}", "BEGIN IMMEDIATE") as connection:
                yield connection
            with self.transaction(f"PRAGMA busy_timeout = {VERB_TIMEOUT_MS}"):
                pass
        except BaseException:
            # a COMMIT that finds a reader leaves the transaction open, and SQLAlchemy does not roll it back then
            self.close()
            raise
        finally:
            self._timeout_ms = VERB_TIMEOUT_MS

    def in_window(self, move: Move, timeout_ms: int, work: Callable[[Connection, State], T]) -> T:
        with self._exclusive(timeout_ms) as connection:
            return work(connection, self.staged_state(connection, move))

    def exclude_writers(self, connection: Connection, state: State) -> None:
        """Nothing to do: ``BEGIN IMMEDIATE`` has waited for the only writer that a file can have."""

    def exempt(self, connection: Connection, state: State) -> None:
        self._drop_triggers(connection, state.migration)

    def set_fences(self, connection: Connection, state: State, fenced: Iterable[str]) -> None:
        self._drop_triggers(connection, state.migration)
        for tenant in fenced:
            for statement in self._triggers_of(state, tenant).values():
                execute(connection, statement)

    # -- fences -----------------------------------------------------------------------------------

    def _triggers_of(self, state: State, tenant_id: str) -> dict[str, str]:
        """The statements that fence one id, by the trigger's name; the catalog keeps them as they are."""
        side = "s" if tenant_id == state.source_id else "t"
        result = {}
        for number, table in enumerate(state.tables):
            for event in EVENTS:
                name = f"zdm_{short_hash(state.migration)}_{number}_{side}_{event[0].lower()}"
                result[name] = self._trigger(name, table, event, tenant_id)
        return result

    def _trigger(self, name: str, table: Planned, event: str, tenant_id: str) -> str:
        when = " OR ".join(
            f"{row}.{self.quote(column)} = {literal(tenant_id)}" for column in table.columns for row in EVENTS[event]
        )
        message = literal(f"zdm: tenant id {tenant_id} is closed by a migration")
        return (
            f"CREATE TRIGGER {name} BEFORE {event} ON {self.quote(table.name)} FOR EACH ROW WHEN {when} BEGIN SELECT"
            f" RAISE(ABORT, {message}); END"
        )

    def _own_triggers(self, connection: Connection, migration: str) -> dict[str, str]:
        prefix = re.escape(f"zdm_{short_hash(migration)}_")
        rows = execute(connection, "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name")
        return {row[0]: row[1] for row in rows if re.match(prefix, row[0])}

    def _drop_triggers(self, connection: Connection, migration: str) -> None:
        for name in self._own_triggers(connection, migration):
            execute(connection, f"DROP TRIGGER {name}")

    def fenced(self, connection: Connection, state: State) -> tuple[str, ...]:
        there = self._own_triggers(connection, state.migration).items()
        return tuple(
            sorted(
                tenant
                for tenant in (state.source_id, state.target_id)
                if self._triggers_of(state, tenant).items() <= there
            )
        )

    def leftovers(self, connection: Connection, migration: str) -> tuple[str, ...]:
        name = state_name(migration)
        table = (name,) if sa.inspect(connection).has_table(name) else ()
        return (*table, *self._own_triggers(connection, migration))

    # -- stage and remove -------------------------------------------------------------------------

    def install(self, move: Move, state: State, progress: Progress) -> int:
        with self._exclusive(VERB_TIMEOUT_MS) as connection:
            execute(connection, self._create_state(state.migration))
            stored = self.state(connection, move.migration)
            if stored:
                self.check_epoch(stored, move)
            write_state(connection, state, insert=stored is None)
            self.set_fences(connection, state, (state.other_id,))
        for done, table in enumerate(state.tables, 1):
            progress(
                {"participant": self.name, "table": table.name, "step": "fence", "done": done, "of": len(state.tables)}
            )
        return 0

    def uninstall(self, move: Move, progress: Progress) -> int:
        del progress  # no row is copied, so none is deleted
        with self._exclusive(VERB_TIMEOUT_MS) as connection:
            stored = self.state(connection, move.migration)
            if stored:
                self.check_epoch(stored, move)
                self.refuse_barred_or_turned(stored, move, "remove")
            self._drop_triggers(connection, move.migration)
            execute(connection, f"DROP TABLE IF EXISTS {state_name(move.migration)}")
        return 0

    @staticmethod
    def _create_state(migration: str) -> str:
        return (
            f"CREATE TABLE IF NOT EXISTS {state_name(migration)} (one INTEGER PRIMARY KEY DEFAULT 1 CHECK (one = 1),"
            " format INTEGER NOT NULL, migration TEXT NOT NULL, epoch INTEGER NOT NULL, state TEXT NOT NULL, live_id"
            " TEXT NOT NULL, source_id TEXT NOT NULL, target_id TEXT NOT NULL, digest TEXT NOT NULL, tables TEXT NOT"
            " NULL, progress TEXT NOT NULL)"
        )

    def statements(self, state: State, updates: list[str]) -> tuple[str, ...]:
        stage = self._triggers_of(state, state.other_id)
        both = [
            statement
            for tenant in (state.source_id, state.target_id)
            for statement in self._triggers_of(state, tenant).values()
        ]
        return (
            *("BEGIN IMMEDIATE", self._create_state(state.migration), *stage.values(), "COMMIT"),
            *("BEGIN IMMEDIATE", *(f"DROP TRIGGER {name}" for name in stage), *updates, *both, "COMMIT"),
        )
