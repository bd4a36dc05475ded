# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real SQLite file with a sample schema, and what tests do to it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.participant.sqlite.participant import SQLite
from ansible_collections.zdm.landscape.tests.integration.verb_kit import A, C

SCHEMA = """
CREATE TABLE bill (tenant_id TEXT, id INTEGER, note TEXT, amount REAL, twice REAL GENERATED ALWAYS AS (amount * 2),
 PRIMARY KEY (tenant_id, id));
CREATE TABLE item (tenant_id TEXT NOT NULL, bill INTEGER NOT NULL, pos INTEGER NOT NULL, txt TEXT, data BLOB,
 PRIMARY KEY (tenant_id, bill, pos),
  FOREIGN KEY (tenant_id, bill) REFERENCES bill (tenant_id, id) ON DELETE CASCADE ON UPDATE CASCADE) WITHOUT ROWID;
CREATE TABLE event (id INTEGER PRIMARY KEY AUTOINCREMENT, tenant_id TEXT NOT NULL, txt TEXT, UNIQUE (tenant_id, txt));
CREATE TABLE share (id INTEGER PRIMARY KEY, tenant_id VARCHAR(63) NOT NULL, owner_tenant_id VARCHAR(63) NOT NULL);
CREATE INDEX share_tenant ON share (tenant_id);
CREATE VIEW bills AS SELECT * FROM bill;
"""
TABLES = ("bill", "item", "event", "share")


class Bench:
    """One test's file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: list[Any] = []
        self.admin = self.application()

    def close(self) -> None:
        for thing in self._open:
            thing.close()

    def schema(self, rows: int = 60) -> None:
        self.admin.executescript(SCHEMA)
        self.admin.execute("BEGIN")
        for tenant, first in ((A, 0), (C, 1_000_000)):
            numbers = range(1, rows + 1)
            self.admin.executemany(
                "INSERT INTO bill VALUES (?, ?, ?, ?)", [(tenant, n, "n" * 150, n / 7) for n in numbers]
            )
            self.admin.executemany(
                "INSERT INTO item VALUES (?, ?, 1, ?, ?)", [(tenant, n, "t" * 150, b"\0\xff'") for n in numbers]
            )
            self.admin.executemany(
                "INSERT INTO event VALUES (?, ?, ?)", [(first + n, tenant, f"{n}" + "e" * 150) for n in numbers]
            )
            self.admin.executemany("INSERT INTO share VALUES (?, ?, ?)", [(first + n, tenant, C) for n in numbers])
        self.admin.execute("INSERT INTO share VALUES (9000000, ?, ?), (9000001, ?, ?)", (C, A, A, A))
        self.admin.execute("COMMIT")

    def application(self, timeout: float = 5.0, isolation: str = "") -> sqlite3.Connection:
        """A connection of the application in autocommit, closed at the end of the test."""
        del isolation  # SQLite has only one
        connection = sqlite3.connect(self.path, timeout=timeout, isolation_level=None, check_same_thread=False)
        self._open.append(connection)
        return connection

    def participant(self, **options: Any) -> SQLite:
        participant = SQLite(self.options(**options))
        self._open.append(participant)
        return participant

    def options(self, **options: Any) -> dict[str, Any]:
        return {
            "name": "docs",
            "kind": "sqlite",
            "database": str(self.path),
            "tenant_columns": ["tenant_id", "owner_tenant_id"],
            **options,
        }

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        return self.admin.execute(statement).fetchall()

    def catalog(self) -> list[tuple[Any, ...]]:
        """Everything that must be as before when the migration is gone."""
        return sorted(self.sql("SELECT type, name, tbl_name, sql FROM sqlite_master"), key=repr)

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        return {table: sorted(self.sql(f"SELECT * FROM {table}"), key=repr) for table in TABLES}
