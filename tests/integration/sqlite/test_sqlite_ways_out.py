# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways out of refusals on SQLite."""

from __future__ import annotations

import pytest
from ansible_collections.zdm.landscape.tests.integration.sqlite.test_sqlite_shapes import SQLiteGround, ground
from ansible_collections.zdm.landscape.tests.integration.ways_out_contract import (
    ITEM,
    ROOT,
    WAYS,
    A,
    B,
    Way,
    WaysOutContract,
    every,
    table,
)

__all__ = ["ground"]

TRIGGER = "CREATE TRIGGER touch AFTER UPDATE ON {} BEGIN SELECT 1; END"

OWN = {
    "a virtual table": Way(
        "Ignore it and fill it again afterwards.",
        (*ITEM, "CREATE VIRTUAL TABLE found USING fts5 (tenant_id)"),
        [{"ignore": {"found.*": "filled again"}}],
        {"ignore": {"found_.*": "of the virtual table"}},
    ),
    "a trigger": Way("Drop the trigger for the migration", (*ITEM, TRIGGER.format("item")), [("DROP TRIGGER touch",)]),
    "a trigger on a root": Way(
        "Insert the row yourself, as the application does",
        (*ROOT, TRIGGER.format("tenants")),
        [(f"INSERT INTO tenants VALUES ('{B}', 'venezia-scp')",)],
        {"tables": {"tenants": {"new_row": {"slug": "x"}}}},
    ),
    "an index over an expression": Way(
        "Drop the index for the migration, or put the tenant column into it.",
        (*ITEM, "CREATE UNIQUE INDEX low ON item (lower(v))"),
        [("DROP INDEX low",), ("DROP INDEX low", "CREATE UNIQUE INDEX low ON item (lower(v), tenant_id)")],
    ),
    "an id in another case": Way(
        "Correct the ids of these rows",
        (
            "CREATE TABLE item (id int NOT NULL PRIMARY KEY, tenant_id text COLLATE NOCASE)",
            f"INSERT INTO item VALUES (1, '{A.upper()}')",
        ),
        [(f"UPDATE item SET tenant_id = '{A}'",)],
    ),
    "a constraint that refuses the other id": Way(
        "Change the constraint that refuses it.",
        (table("item", f"tenant_id text CHECK (tenant_id <> '{B}')"), f"INSERT INTO item VALUES (1, '{A}')"),
        [("DROP TABLE item", table("item", "tenant_id text"), f"INSERT INTO item VALUES (1, '{A}')")],
    ),
}


class TestSQLiteWaysOut(WaysOutContract):
    @pytest.mark.parametrize(("way", "number"), every(WAYS | OWN))
    def test_a_way_out(self, ground: SQLiteGround, way: Way, number: int) -> None:
        self.try_out(ground, way, number)
