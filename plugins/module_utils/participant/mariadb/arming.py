# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The helper objects of the MariaDB participant: made, looked at, dropped. DDL commits by itself, so every step can be
repeated, and the catalog alone tells what is there.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.core.names import short_hash
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import TWIN, Move, Progress
from ansible_collections.zdm.landscape.plugins.module_utils.participant.copying import STAGE_TIMEOUT_MS
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb import sql
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.marks import Look, look
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.sessions import Deadline
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.triggers import (
    SIDES,
    Triggers,
    create_log,
    create_note,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.twin import MariaDBTwins
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import (
    Planned,
    State,
    StateTable,
    state_name,
)

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

DDL_TIMEOUT_MS = 30_000
"""How long (milliseconds) stage and remove try to get a table for one trigger."""
_ATTEMPTS = 3


class MariaDBArming(MariaDBTwins):
    """Helper objects and what becomes of them."""

    # (transaction, tables) of the last look: one transaction asks more than once
    _last_look: tuple[Any, tuple[Planned, ...], dict[str, Look]] | None = None

    def state_table(self, migration: str) -> StateTable:
        return StateTable(state_name(migration), None, self.planned)

    # -- look -------------------------------------------------------------------------------------

    def look(self, connection: Connection, state: State) -> dict[str, Look]:
        """What the catalog has of the planned tables."""
        transaction = connection.get_transaction()
        if self._last_look and self._last_look[0] is transaction and self._last_look[1] == state.tables:
            return self._last_look[2]
        found = look(connection, str(self.options["database"]), state.migration, state.tables)
        self._last_look = (transaction, state.tables, found) if transaction else None
        return found

    def hold(self, table: Planned) -> str:
        """The statement that keeps every change of a table waiting until the transaction ends, and finds no row."""
        column = self.quote(table.columns[0])
        return f"UPDATE {self.quote(table.name)} SET {column} = {column} WHERE FALSE"

    def marks(self, connection: Connection, state: State) -> dict[str, str]:
        return {name: seen.mark for name, seen in self.look(connection, state).items() if seen.there}

    def fenced(self, connection: Connection, state: State) -> tuple[str, ...]:
        seen, wanted = self.look(connection, state), Triggers(state, self.quote)
        if not all(seen[table.name].has(wanted.of(table).values()) for table in state.tables):
            return ()
        return tuple(tenant for tenant, closed in self._fence_rows(connection, state.migration).items() if closed)

    def _fence_rows(self, connection: Connection, migration: str) -> dict[str, bool]:
        """By id whether it is closed; nothing without the table."""
        if not execute(connection, f"SHOW TABLES LIKE '{sql.fence_name(migration)}'").first():
            return {}
        rows = execute(connection, f"SELECT id, closed FROM {self.quote(sql.fence_name(migration))} ORDER BY id")
        return {str(row[0]): bool(row[1]) for row in rows}

    def ailments(self, connection: Connection, state: State) -> list[str]:
        definers = {row[2] for seen in self.look(connection, state).values() for row in seen.triggers.values()}
        return self.definer_ailments(connection, definers)

    def helpers(self, connection: Connection, migration: str) -> tuple[dict[str, str], list[str], list[str]]:
        """The migration's triggers with their tables, procedures, and tables; the state row's is the last one to go."""
        name = short_hash(migration)
        triggers = {row[0]: row[1] for row in self._own_triggers(connection, migration)}
        routines = [row for row in execute(connection, sql.ROUTINES).scalars() if row.startswith(f"zdm_note_{name}_")]
        own = re.compile(f"zdm_(migration|fence|kept)_{name}|zdm_log_{name}_[st]_[0-9]+")
        tables = sorted(
            (row[0] for row in execute(connection, sql.TABLES) if own.fullmatch(row[0])),
            key=lambda table: (table == state_name(migration), table),
        )
        return triggers, sorted(routines), tables

    @staticmethod
    def _own_triggers(connection: Connection, migration: str) -> list[tuple[str, str, int]]:
        """Name, table and number."""
        found = []
        for name, table in execute(connection, sql.OWN_TRIGGER_TABLES):
            match = re.fullmatch(sql.OWN_TRIGGERS, name)
            if match and match[1] == short_hash(migration):
                found.append((name, table, int(match[2])))
        return sorted(found)

    def trigger_tables(self, connection: Connection, migration: str) -> dict[int, str]:
        return {number: table for _name, table, number in self._own_triggers(connection, migration)}

    def leftovers(self, connection: Connection, migration: str) -> tuple[str, ...]:
        triggers, routines, tables = self.helpers(connection, migration)
        return (*tables, *routines, *sorted(triggers))

    # -- make -------------------------------------------------------------------------------------

    def make_state_table(self, move: Move) -> None:
        self._create(sql.create_state(self.quote(state_name(move.migration))), state_name(move.migration))

    def _create(self, statement: str, name: str) -> None:
        self.ddl(statement, name, Deadline(DDL_TIMEOUT_MS))

    def make_fences(self, move: Move, state: State) -> None:
        name, kept = sql.fence_name(move.migration), sql.kept_name(move.migration)
        self._create(sql.create_fence(self.quote(name)), name)
        if state.twins:
            self._create(sql.create_kept(self.quote(kept)), kept)

        def work(connection: Connection, state: State) -> None:
            self.set_fences(connection, state, state.closed)

        self.in_window(move, STAGE_TIMEOUT_MS, work)
        self._disown(move, state)

    def _disown(self, move: Move, state: State) -> None:
        """Triggers that run as somebody else than they should are made anew, as when their table was changed."""
        with self.transaction() as connection:
            role = self.role(connection)
            mine = f"{role}@" if role else str(execute(connection, "SELECT CURRENT_USER()").scalar())
            others = {
                name
                for name, seen in self.look(connection, state).items()
                if any(row[2] != mine for row in seen.triggers.values())
            }
        if others:
            self.set_state(
                move,
                lambda state: replace(
                    state, marks={name: mark for name, mark in state.marks.items() if name not in others}
                ),
            )

    def arm(self, move: Move, state: State, table: Planned, progress: Progress) -> str:
        del progress
        only = replace(state, tables=(table,))
        wanted = Triggers(state, self.quote).of(table)
        for _attempt in range(_ATTEMPTS):
            with self.transaction() as connection:
                seen = self.look(connection, only)[table.name]
                elsewhere = [
                    (name, other)
                    for name, other, number in self._own_triggers(connection, move.migration)
                    if number == table.number and (other != table.name or name not in wanted)
                ]
            touched = state.marks.get(table.name, "").rpartition("|")[2] != seen.own_mark
            if touched or not seen.has(wanted.values()):
                for name, other in elsewhere:
                    self.drop_trigger(name, other)
                self._make(state, table)
            with self.transaction() as connection:
                # no DDL comes in between: a trigger that is seen here stays until the transaction ends
                execute(connection, self.hold(table))
                seen = self.look(connection, only)[table.name]
            if seen.has(wanted.values()):
                return seen.mark
            state = replace(state, marks={})
        raise Refused(
            f"{self.label}: the migration's triggers on {table.name} are dropped as soon as they are made.",
            "Find out who drops them.",
        )

    def _make(self, state: State, table: Planned) -> None:
        """Logs and procedures first: a trigger without them would refuse the tenant's writes."""
        with self.as_definer() as definer:
            for side in SIDES if table.strategy == TWIN else ():
                log, note = (name(state.migration, side, table.number) for name in (sql.log_name, sql.note_name))
                self._create(create_log(state, table, self.quote, side), log)
                self._create(create_note(state, table, self.quote, side, definer), note)
            for trigger in Triggers(state, self.quote).of(table).values():
                self._create(trigger.create(self.quote, definer), f"trigger {trigger.name} on {trigger.table}")

    def drop_trigger(self, name: str, table: str) -> None:
        """Its table may be gone meanwhile."""
        what = f"trigger {name} on {table}"
        self.ddl(f"DROP TRIGGER IF EXISTS {self.quote(name)}", what, Deadline(DDL_TIMEOUT_MS))

    def disarm(self, move: Move, state: State, table: Planned) -> None:
        with self.transaction() as connection:
            own = self._own_triggers(connection, move.migration)
        for name, where, number in own:
            if number == table.number:
                self.drop_trigger(name, where)
        for side in SIDES:
            note, log = (name(state.migration, side, table.number) for name in (sql.note_name, sql.log_name))
            self.ddl(f"DROP PROCEDURE IF EXISTS {self.quote(note)}", note, Deadline(DDL_TIMEOUT_MS))
            self.ddl(f"DROP TABLE IF EXISTS {self.quote(log)}", log, Deadline(DDL_TIMEOUT_MS))
