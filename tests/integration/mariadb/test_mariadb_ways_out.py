# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways out of refusals on MariaDB."""

from __future__ import annotations

import pytest
from ansible_collections.zdm.landscape.tests.integration.mariadb.test_mariadb_shapes import MariaDBGround, ground
from ansible_collections.zdm.landscape.tests.integration.ways_out_contract import (
    ITEM,
    KEYED,
    NO_READERS,
    ROOT,
    TWIN,
    TWINS,
    WAYS,
    A,
    B,
    Way,
    WaysOutContract,
    every,
    table,
)

__all__ = ["ground"]

TRIGGER = "CREATE TRIGGER touch BEFORE UPDATE ON {} FOR EACH ROW SET NEW.id = NEW.id"
IN_PLACE = {"tables": {"item": {"strategy": "in_place"}}}

OWN = {
    "partitions of tenants": Way(
        "ALTER TABLE {} ADD PARTITION (PARTITION <name> VALUES IN ({})).",
        (
            "CREATE TABLE item (tenant_id {id} NOT NULL, id int NOT NULL, PRIMARY KEY (tenant_id, id)) PARTITION BY"
            f" LIST COLUMNS (tenant_id) (PARTITION a VALUES IN ('{A}'))",
            f"INSERT INTO item VALUES ('{A}', 1)",
        ),
        [(f"ALTER TABLE item ADD PARTITION (PARTITION b VALUES IN ('{B}'))",)],
    ),
    "another engine": Way(
        "ALTER TABLE {} ENGINE=InnoDB.",
        (f"{table('item', 'tenant_id {id}')} ENGINE=MyISAM",),
        [("ALTER TABLE item ENGINE=InnoDB",)],
    ),
    "a system-versioned table": Way(
        "Remove the versioning for the migration.",
        (f"{table('item', 'tenant_id {id}')} WITH SYSTEM VERSIONING",),
        [("ALTER TABLE item DROP SYSTEM VERSIONING",)],
    ),
    "a key that covers the beginning of a column": Way(
        "or choose `strategy: in_place`.",
        (KEYED.format("item", ", v varchar(99), UNIQUE (tenant_id, v(3))"),),
        [IN_PLACE],
        {**TWIN, **NO_READERS},
    ),
    "a key column with a name of ours": Way(
        "or choose `strategy: in_place`.",
        ("CREATE TABLE item (tenant_id {id} NOT NULL, zdm_seq int NOT NULL, PRIMARY KEY (tenant_id, zdm_seq))",),
        [IN_PLACE],
        {**TWIN, **NO_READERS},
    ),
    "a key column without an order": Way(
        "or choose `strategy: in_place`.",
        ("CREATE TABLE item (tenant_id {id} NOT NULL, k enum('a') NOT NULL, PRIMARY KEY (tenant_id, k))",),
        [IN_PLACE],
        {**TWIN, **NO_READERS},
    ),
    "a cascade from a table without a tenant column": Way(
        "Make it ON DELETE RESTRICT ON UPDATE RESTRICT, or give {} a tenant column.",
        (
            "CREATE TABLE country (code int PRIMARY KEY)",
            table(
                "item",
                "tenant_id {id}",
                "code int",
                "CONSTRAINT c FOREIGN KEY (code) REFERENCES country (code) ON DELETE CASCADE",
            ),
        ),
        [
            (
                "ALTER TABLE item DROP FOREIGN KEY c",
                "ALTER TABLE item ADD CONSTRAINT c FOREIGN KEY (code) REFERENCES country (code)",
            ),
        ],
        {"ignore": {"country": "x"}},
    ),
    "a parent that gets a tenant column": Way(
        "Make it ON DELETE RESTRICT ON UPDATE RESTRICT, or give {} a tenant column.",
        (
            table("folder", "owner {id}"),
            table(
                "item",
                "tenant_id {id}",
                "folder int",
                "CONSTRAINT c FOREIGN KEY (folder) REFERENCES folder (id) ON DELETE CASCADE",
            ),
        ),
        [("ALTER TABLE folder ADD tenant_id {id}",)],
    ),
    "ids that one collation takes for one": Way(
        "Use a binary collation there.",
        (table("item", "tenant_id {id} COLLATE utf8mb4_general_ci"),),
        [("ALTER TABLE item MODIFY tenant_id varchar(36) COLLATE utf8mb4_bin",)],
        {"own_ids": {A: "x", B: "X"}},
    ),
    "an id in another case": Way(
        "Correct the ids of these rows.",
        (table("item", "tenant_id {id} COLLATE utf8mb4_general_ci"), f"INSERT INTO item VALUES (1, '{A.upper()}')"),
        [(f"UPDATE item SET tenant_id = '{A}'",), {"own_ids": {A: A.upper(), B: B.upper()}}],
    ),
    "a trigger": Way("Drop the trigger for the migration", (*ITEM, TRIGGER.format("item")), [("DROP TRIGGER touch",)]),
    "a trigger on a root": Way(
        "Insert the row yourself, as the application does",
        (*ROOT, TRIGGER.format("tenants")),
        [(f"INSERT INTO tenants VALUES ('{B}', 'venezia-scp')",)],
        {"tables": {"tenants": {"new_row": {"slug": "x"}}}},
    ),
    "a constraint that refuses the other id": Way(
        "Change the constraint that refuses it.",
        (
            table("item", "tenant_id {id}", f"CONSTRAINT known CHECK (tenant_id <> '{B}')"),
            f"INSERT INTO item VALUES (1, '{A}')",
        ),
        [("ALTER TABLE item DROP CONSTRAINT known",)],
    ),
}


class TestMariaDBWaysOut(WaysOutContract):
    @pytest.mark.parametrize(("way", "number"), every(WAYS | TWINS | OWN))
    def test_a_way_out(self, ground: MariaDBGround, way: Way, number: int) -> None:
        self.try_out(ground, way, number)
