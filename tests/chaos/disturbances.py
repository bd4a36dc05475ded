# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an ordinary landscape does to the databases between two windows, under load: releases, data fixes, lost
triggers, other defaults of sessions, long transactions of bystanders.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.zdm.landscape.tests.chaos.scene import STRATEGIES, Scene
from ansible_collections.zdm.landscape.tests.landscape.databases import Database, MariaDatabase, PostgresDatabase

HOSTILE = (
    "default_transaction_isolation = 'serializable'",
    "default_transaction_isolation = 'repeatable read'",
    "statement_timeout = '50ms'",
    "lock_timeout = '5ms'",
    "idle_in_transaction_session_timeout = '20ms'",
    "standard_conforming_strings = off",
    "search_path = pg_catalog",
    "enable_indexscan = off",
    "bytea_output = 'escape'",
    "TimeZone = 'Asia/Kolkata'",
)
"""Defaults of the migration's role in PostgreSQL."""


@dataclass
class Disturbances:
    """Draws and makes them; remembers the tables that it has added, with the rows of each tenant."""

    stage: Scene
    chance: random.Random
    added: dict[tuple[str, str], int] = field(default_factory=dict)
    drawn: list[str] = field(default_factory=list)
    _number: int = 0

    def draw(self) -> bool:
        """Make one; whether it closes the way until the next stage."""
        service = self.chance.choice(list(STRATEGIES))
        database = self.stage.landscape.databases[service]
        ways: list[Callable[[Database, str], bool]] = [self._column, self._table, self._trigger]
        if isinstance(database, PostgresDatabase):
            ways += [self._switched, self._defaults]
        way = self.chance.choice(ways)
        table = self.chance.choice(database.service.tenant_tables)
        closes = way(database, table)
        self.drawn.append(f"{way.__name__.strip('_')} {service}.{table}")
        return closes

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _column(self, database: Database, table: str) -> bool:
        """A release adds a column and fills it for every tenant but the retired one, whose rows are fenced."""
        name = f"added_{self._next()}"
        self._ddl(database, f"ALTER TABLE {table} ADD COLUMN {name} varchar(20)")
        retired = self.stage.other.id
        self._ddl(database, f"UPDATE {table} SET {name} = '{name}' WHERE tenant_id <> '{retired}'")
        return True

    def _table(self, database: Database, _table: str) -> bool:
        """A release adds a table of tenants' rows."""
        name, rows = f"extra_{self._next()}", self.chance.randrange(1, 40)
        kind = database.service.tenant_type
        columns = f"tenant_id {kind} NOT NULL, id integer NOT NULL, v integer NOT NULL, PRIMARY KEY (tenant_id, id)"
        self._ddl(database, f"CREATE TABLE {name} ({columns})")
        for tenant in (self.stage.live, self.stage.landscape.bystander):
            values = ", ".join(f"('{tenant.id}', {number}, 0)" for number in range(rows))
            self._ddl(database, f"INSERT INTO {name} VALUES {values}")
        self.added[database.service.name, name] = rows
        return True

    def _trigger(self, database: Database, table: str) -> bool:
        """Somebody, or a tool that builds a table anew, drops triggers."""
        for name in self._triggers(database, table):
            on = f" ON {table}" if isinstance(database, PostgresDatabase) else ""
            self._ddl(database, f"DROP TRIGGER {name}{on}", owner=True)
        return True

    def _switched(self, database: Database, table: str) -> bool:
        """A data fix switches triggers off and on."""
        self._ddl(database, f"ALTER TABLE {table} DISABLE TRIGGER USER", owner=True)
        self._ddl(database, f"ALTER TABLE {table} ENABLE TRIGGER USER", owner=True)
        return True

    def _defaults(self, database: Database, _table: str) -> bool:
        """An administrator sets defaults of the migration's role, for sessions that begin later."""
        role = database.participant()["user"]
        self._ddl(database, f"ALTER ROLE {role} SET {self.chance.choice(HOSTILE)}", owner=True)
        return False

    @staticmethod
    def _triggers(database: Database, table: str) -> list[str]:
        if isinstance(database, PostgresDatabase):
            query = f"SELECT tgname FROM pg_trigger WHERE tgrelid = '{table}'::regclass AND tgname LIKE 'zzz_zdm%'"
        elif isinstance(database, MariaDatabase):
            query = (
                "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = DATABASE() AND"
                f" event_object_table = '{table}' AND trigger_name LIKE 'zdm%'"
            )
        else:
            query = (
                f"SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = '{table}' AND name LIKE 'zdm%'"
            )
        return [str(row[0]) for row in database.query(query)]

    @staticmethod
    def _ddl(database: Database, statement: str, owner: bool = False) -> None:
        """Run it as the service, or as who may do everything; again when the load is in its way."""
        connect = database.connect
        if owner and isinstance(database, (PostgresDatabase, MariaDatabase)):
            server: Any = database.server
            connect = lambda: server.connect(database.service.name, server.admin)  # noqa: E731
        for attempt in range(50):
            try:
                with closing(connect()) as session:
                    session.cursor().execute(statement)
                return
            except Exception:
                if attempt == 49:
                    raise

    @contextmanager
    def bystander(self) -> Iterator[None]:
        """A transaction of another tenant that is open while the block runs, in one of the databases."""
        database = self.stage.landscape.databases[self.chance.choice(("subscriptions", "bills", "rating"))]
        tenant = self.stage.landscape.bystander
        with closing(database.connect()) as session:
            cursor = session.cursor()
            cursor.execute("BEGIN")
            cursor.execute(f"SELECT count(*) FROM {database.service.setting} WHERE tenant_id = '{tenant.id}'")
            cursor.fetchall()
            yield
            with suppress(Exception):
                cursor.execute("ROLLBACK")

    def assert_kept(self) -> None:
        """The tables that were added have their rows under the live id, and the bystander's."""
        for (service, table), rows in self.added.items():
            found: dict[Any, int] = dict(
                self.stage.landscape.databases[service].query(
                    f"SELECT tenant_id, count(*) FROM {table} GROUP BY tenant_id"
                )
            )
            counts = {str(tenant): count for tenant, count in found.items()}
            for tenant in (self.stage.live, self.stage.landscape.bystander):
                assert counts.get(tenant.id) == rows, (service, table, tenant.id, counts, rows)
