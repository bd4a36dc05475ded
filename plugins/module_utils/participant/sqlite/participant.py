# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SQLite as a participant: rows change id in place, and every transaction that writes is ``BEGIN IMMEDIATE``.

A fence is a set of triggers, by the state row. DDL is part of a transaction in SQLite, so the worker takes its own
fences away, moves the rows and puts them back before anybody else can see it: it needs no exemption. Connections of
other processes stay open; they prepare their statements again when the schema has changed. The journal mode stays as
the application has set it.

REPLACE deletes the rows that are in its way without firing their triggers (SQLite manual, "ON CONFLICT"), so from
barrier to turn the fences refuse every row that has a unique key in common with one of a fenced id.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import quote as percent_quote

from ansible_collections.zdm.landscape.plugins.module_utils.core.durations import format_ms
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Timeout, Unreachable, ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.core.names import short_hash
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import FENCED, IN_WINDOW, Move, Progress
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import (
    digest_of,
    execute,
    first_line,
    literal,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.sqlite.inspect import (
    OWN_TRIGGERS,
    SQLiteInspection,
    SQLitePlanned,
    lock_holders,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import (
    Planned,
    State,
    StateTable,
    state_name,
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
        self._fences_away = False

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

    def in_window(
        self, move: Move, timeout_ms: int, work: Callable[[Connection, State], T], *, snapshot: bool = False
    ) -> T:
        del snapshot  # a file has one writer
        with self._exclusive(timeout_ms) as connection:
            self._fences_away = False
            result = work(connection, self.staged_state(connection, move))
            if self._fences_away:
                state = self.staged_state(connection, move)
                self.set_fences(connection, state, state.closed)
            return result

    def state(self, connection: Connection, migration: str, lock: bool = False) -> State | None:
        if lock:
            execute(connection, "BEGIN IMMEDIATE")
        return super().state(connection, migration)

    def exclude_writers(self, connection: Connection, state: State) -> None:
        """Nothing to do: ``BEGIN IMMEDIATE`` has waited for the only writer that a file can have."""

    def await_writers(self, move: Move, state: State, timeout_ms: int) -> None:
        del move, state  # whoever writes to the file is waited for
        with self._exclusive(timeout_ms):
            pass

    def exempt(self, connection: Connection, state: State) -> None:
        """Until the end of the transaction; :meth:`in_window` puts the fences back."""
        self._fences_away = True
        for name in self._own_triggers(connection, state.migration):
            execute(connection, f"DROP TRIGGER {name}")

    def set_fences(self, connection: Connection, state: State, fenced: Iterable[str]) -> None:
        self._fences_away = False
        there = self._own_triggers(connection, state.migration)
        wanted = {name: sql for tenant in fenced for name, sql in self._triggers_of(state, tenant).items()}
        for name, (_table, sql) in there.items():
            if wanted.get(name) != sql:
                execute(connection, f"DROP TRIGGER {name}")
        for name, sql in wanted.items():
            if name not in there or there[name][1] != sql:
                execute(connection, sql)

    # -- fences -----------------------------------------------------------------------------------

    def _triggers_of(self, state: State, tenant_id: str) -> dict[str, str]:
        """The statements that fence one id, by the trigger's name; the catalog keeps them as they are."""
        return {name: sql for table in state.tables for name, sql in self._of_table(state, table, tenant_id).items()}

    def _of_table(self, state: State, table: Planned, tenant_id: str) -> dict[str, str]:
        prefix = f"zdm_{short_hash(state.migration)}_{table.number}_{state.side(tenant_id)}"
        # before the barrier a fenced id has no rows that a REPLACE could hit
        hits = cast(SQLitePlanned, table).hits if state.state in IN_WINDOW else ()
        return {
            name: self._trigger(name, table, event, tenant_id, hits)
            for event in EVENTS
            for name in [f"{prefix}_{event[0].lower()}"]
        }

    def _trigger(self, name: str, table: Planned, event: str, tenant_id: str, hits: Iterable[str]) -> str:
        refused = [
            f"{row}.{self.quote(column)} = {self.rows.value(table, column, tenant_id)}"
            for column in table.columns
            for row in EVENTS[event]
        ]
        if event != "DELETE":
            own = self.rows.has(table, tenant_id)
            refused += [f"EXISTS (SELECT 1 FROM {self.quote(table.name)} WHERE {hit} AND ({own}))" for hit in hits]
        message = literal(f"zdm: tenant id {tenant_id} is closed by a migration")
        return (
            f"CREATE TRIGGER {name} BEFORE {event} ON {self.quote(table.name)} FOR EACH ROW WHEN"
            f" {' OR '.join(refused)} BEGIN SELECT RAISE(ABORT, {message}); END"
        )

    def _own_triggers(self, connection: Connection, migration: str) -> dict[str, tuple[str, str]]:
        """Table and statement by the trigger's name."""
        rows = execute(connection, "SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name")
        prefix = re.escape(f"zdm_{short_hash(migration)}_")
        return {row[0]: (row[1], row[2]) for row in rows if re.match(prefix, row[0])}

    def fenced(self, connection: Connection, state: State) -> tuple[str, ...]:
        if not state.tables:
            return state.closed  # nothing could be fenced
        there = {name: sql for name, (_table, sql) in self._own_triggers(connection, state.migration).items()}
        return tuple(
            sorted(
                tenant
                for tenant in (state.source_id, state.target_id)
                if self._triggers_of(state, tenant).items() <= there.items()
            )
        )

    def trigger_tables(self, connection: Connection, migration: str) -> dict[int, str]:
        own = self._own_triggers(connection, migration).items()
        return {int(match[2]): table for name, (table, _sql) in own if (match := re.fullmatch(OWN_TRIGGERS, name))}

    def marks(self, connection: Connection, state: State) -> dict[str, str]:
        """Our own triggers differ from state to state, so of them the mark holds what is not as the state wants it."""
        found: dict[str, list[str]] = {table.name: [] for table in state.tables}
        own: dict[str, dict[str, str]] = {table.name: {} for table in state.tables}
        there = set()
        query = "SELECT type, name, tbl_name, COALESCE(sql, '') FROM sqlite_master ORDER BY type, name"
        for kind, name, table, sql in execute(connection, query):
            if table not in found:
                continue
            there |= {table} if kind == "table" else set()
            if kind == "trigger" and re.fullmatch(OWN_TRIGGERS, name):
                own[table] |= {name: sql} if name.startswith(f"zdm_{short_hash(state.migration)}_") else {}
            elif kind != "index" or sql.upper().startswith("CREATE UNIQUE"):
                found[table].append(sql)
        marks = {}
        for planned in state.tables:
            if planned.name in there:
                wanted = {item for tenant in state.closed for item in self._of_table(state, planned, tenant).items()}
                wrong = sorted(wanted ^ set(own[planned.name].items()))
                marks[planned.name] = f"{digest_of(found[planned.name])[:16]}|{digest_of(wrong)[:16]}"
        return marks

    # -- stage and remove -------------------------------------------------------------------------

    def make_state_table(self, move: Move) -> None:
        with self._exclusive(VERB_TIMEOUT_MS) as connection:
            execute(connection, self._create_state(move.migration))

    def make_fences(self, move: Move, state: State) -> None:
        """Nothing to do: a fence is triggers, see :meth:`arm`."""

    def arm(self, move: Move, state: State, table: Planned, progress: Progress) -> str:
        del state, progress  # it may have changed, and one transaction is all

        def work(connection: Connection, state: State) -> str:
            self._drop(connection, move.migration, table.number)
            for tenant in state.closed:
                for statement in self._of_table(state, table, tenant).values():
                    execute(connection, statement)
            return self.marks(connection, state)[table.name]

        return self.in_window(move, VERB_TIMEOUT_MS, work)

    def disarm(self, move: Move, state: State, table: Planned) -> None:
        del state
        self.in_window(
            move, VERB_TIMEOUT_MS, lambda connection, _state: self._drop(connection, move.migration, table.number)
        )

    def _drop(self, connection: Connection, migration: str, number: int) -> None:
        """Drop the triggers of one planned table, wherever they are now."""
        for name in self._own_triggers(connection, migration):
            match = re.fullmatch(OWN_TRIGGERS, name)
            if match and int(match[2]) == number:
                execute(connection, f"DROP TRIGGER {name}")

    def drop_helpers(self, move: Move, state: State | None, progress: Progress) -> None:
        del state, progress
        with self._exclusive(VERB_TIMEOUT_MS) as connection:
            for name in self._own_triggers(connection, move.migration):
                execute(connection, f"DROP TRIGGER {name}")
            execute(connection, f"DROP TABLE IF EXISTS {state_name(move.migration)}")

    def leftovers(self, connection: Connection, migration: str) -> tuple[str, ...]:
        name = state_name(migration)
        table = (name,) if sa.inspect(connection).has_table(name) else ()
        return (*table, *self._own_triggers(connection, migration))

    def server_time_s(self, connection: Connection) -> int:
        return int(execute(connection, "SELECT strftime('%s', 'now')").scalar())

    def state_table(self, migration: str) -> StateTable:
        return StateTable(state_name(migration), None, self.planned)

    @staticmethod
    def _create_state(migration: str) -> str:
        return (
            f"CREATE TABLE IF NOT EXISTS {state_name(migration)} (one INTEGER PRIMARY KEY DEFAULT 1 CHECK (one = 1),"
            " format INTEGER NOT NULL, migration TEXT NOT NULL, epoch INTEGER NOT NULL, state TEXT NOT NULL, live_id"
            " TEXT NOT NULL, source_id TEXT NOT NULL, target_id TEXT NOT NULL, finished INTEGER NOT NULL, digest TEXT"
            " NOT NULL, tables TEXT NOT NULL, marks TEXT NOT NULL, progress TEXT NOT NULL)"
        )

    def statements(self, connection: Connection, state: State, updates: list[str]) -> tuple[str, ...]:
        del connection
        stage = self._triggers_of(state, state.other_id)
        closed = replace(state, state=FENCED)
        both = {name: sql for tenant in closed.closed for name, sql in self._triggers_of(closed, tenant).items()}
        return (
            *("BEGIN IMMEDIATE", self._create_state(state.migration), *stage.values(), "COMMIT"),
            *("BEGIN IMMEDIATE", *(f"DROP TRIGGER {name}" for name in stage), *both.values(), "COMMIT"),
            *("BEGIN IMMEDIATE", *(f"DROP TRIGGER {name}" for name in both), *updates, *both.values(), "COMMIT"),
        )
