# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways out of refusals on PostgreSQL."""

from __future__ import annotations

import pytest
from ansible_collections.zdm.landscape.tests.integration.postgresql.test_postgresql_shapes import (
    PostgreSQLGround,
    ground,
)
from ansible_collections.zdm.landscape.tests.integration.ways_out_contract import (
    ACCOUNTS,
    BY_NUMBER,
    ITEM,
    KEYED,
    NO_READERS,
    QUERY,
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

TOUCH = "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$"
TRIGGER = "CREATE TRIGGER touch BEFORE UPDATE ON {} FOR EACH ROW EXECUTE FUNCTION touch()"
IN_PLACE = {"tables": {"item": {"strategy": "in_place"}}}
CHECKED = (*ITEM, "ALTER TABLE item ADD CONSTRAINT known CHECK (v <> 'x') NOT VALID")
PARENT = (
    KEYED.format("parent", ""),
    KEYED.format("item", ""),
    f"INSERT INTO item VALUES ('{A}', 1, 7)",
    "ALTER TABLE item ADD CONSTRAINT item_up FOREIGN KEY (tenant_id, up) REFERENCES parent NOT VALID",
)

OWN = {
    "a root that the query calls otherwise": Way(
        "Write its name in `id_query` as the plan writes names of tables.",
        ACCOUNTS,
        [{"id_query": QUERY}],
        {**BY_NUMBER, "id_query": QUERY.replace("accounts", "public.accounts")},
    ),
    "the id inside a text": Way(
        "If it may: `{}: {id_stays:",
        (*ITEM, table("note", "tenant_id {id}", "body text"), f"INSERT INTO note VALUES (1, '{A}', 'of {A}')"),
        [{"tables": {"note": {"id_stays": {"body": "history"}}}}, ("UPDATE note SET body = 'of us'",)],
    ),
    "a table of another owner": Way(
        "GRANT {} TO {};",
        (*ITEM, "ADMIN CREATE ROLE {role}", "ADMIN ALTER TABLE item OWNER TO {role}"),
        [("ADMIN GRANT {role} TO zdm",)],
    ),
    "row security": Way(
        "Let the table's owner run the migration, or a user with BYPASSRLS.",
        (*ITEM, "ALTER TABLE item ENABLE ROW LEVEL SECURITY", "ALTER TABLE item FORCE ROW LEVEL SECURITY"),
        [("ADMIN ALTER ROLE zdm BYPASSRLS",), ("ALTER TABLE item NO FORCE ROW LEVEL SECURITY",)],
    ),
    "a rule": Way(
        "Replace the rule by a trigger.",
        (*ITEM, TOUCH, "CREATE RULE quiet AS ON DELETE TO item DO INSTEAD NOTHING"),
        [("DROP RULE quiet ON item", TRIGGER.format("item"))],
    ),
    "a publication": Way(
        "Take the table out of it for the migration.",
        (*ITEM, "ADMIN CREATE PUBLICATION feed FOR TABLE item"),
        [("ADMIN ALTER PUBLICATION feed DROP TABLE item",)],
    ),
    "a column with a name of ours": Way(
        "or choose `strategy: in_place`.",
        (KEYED.format("item", "").replace("up int", "zdm_x int"),),
        [IN_PLACE, ("ALTER TABLE item RENAME zdm_x TO x",)],
        {**TWIN, **NO_READERS},
    ),
    "an exclusion constraint": Way(
        "or choose `strategy: in_place`.",
        (KEYED.format("item", ", EXCLUDE USING btree (tenant_id WITH =, up WITH =)"),),
        [IN_PLACE],
        {**TWIN, **NO_READERS},
    ),
    "a deferrable key": Way(
        "or choose `strategy: in_place`.",
        (KEYED.format("item", " DEFERRABLE"),),
        [IN_PLACE],
        {**TWIN, **NO_READERS},
    ),
    "a trigger that fires always": Way(
        "Enable it as an ordinary trigger.",
        (*ITEM, TOUCH, TRIGGER.format("item"), "ALTER TABLE item ENABLE ALWAYS TRIGGER touch"),
        [("ALTER TABLE item ENABLE TRIGGER touch",)],
    ),
    "a trigger, and no right to exempt a session": Way(
        "Grant it: GRANT SET ON PARAMETER session_replication_role",
        (*ITEM, TOUCH, TRIGGER.format("item"), "ADMIN REVOKE SET ON PARAMETER session_replication_role FROM zdm"),
        [("ADMIN GRANT SET ON PARAMETER session_replication_role TO zdm",)],
    ),
    "a trigger on a root, and no right to exempt a session": Way(
        "Insert the row yourself, as the application does",
        (
            *(*ROOT, TOUCH, TRIGGER.format("tenants")),
            "ADMIN REVOKE SET ON PARAMETER session_replication_role FROM zdm",
        ),
        [(f"INSERT INTO tenants VALUES ('{B}', 'venezia-scp')",)],
        {"tables": {"tenants": {"new_row": {"slug": "x"}}}},
    ),
    "a materialised view": Way(
        "Refresh it after each switch and ",
        (*ITEM, "CREATE MATERIALIZED VIEW seen AS SELECT tenant_id, count(*) FROM item GROUP BY 1"),
        [{"tables": {"seen": {"ignore": "refreshed"}}}, {"ignore": {"seen": "refreshed"}}],
    ),
    "inheritance": Way(
        "Choose another way for it and ignore it",
        (*ITEM, "CREATE TABLE old_item () INHERITS (item)"),
        [{"ignore": {"old_item": "by hand", "item": "by hand"}}],
    ),
    "an id in another case": Way(
        "Correct the ids of these rows",
        (
            "ADMIN CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
            table("item", "tenant_id varchar(36) COLLATE ci"),
            f"INSERT INTO item VALUES (1, '{A.upper()}')",
        ),
        [(f"UPDATE item SET tenant_id = '{A}'",)],
    ),
    "a schema of our name": Way(
        "Rename that schema: the name is reserved here.",
        (*ITEM, "CREATE SCHEMA zdm", "CREATE TABLE zdm.mine (id int)"),
        [("ALTER SCHEMA zdm RENAME TO others",)],
        {"ignore": {"others[.].*": "theirs"}},
    ),
    "no right to create a schema": Way(
        "GRANT CREATE ON DATABASE {} TO {};",
        (
            *ITEM,
            "ADMIN ALTER DATABASE {database} OWNER TO postgres",
            "ADMIN REVOKE CREATE ON DATABASE {database} FROM PUBLIC, app, zdm",
        ),
        [("ADMIN GRANT CREATE ON DATABASE {database} TO zdm",)],
    ),
    "rows that break a check": Way(
        "Correct the rows or the constraint",
        CHECKED,
        [("UPDATE item SET v = 'z' WHERE v = 'x'",), ("ALTER TABLE item DROP CONSTRAINT known",)],
    ),
    "rows that break a key that nobody validated": Way(
        "Correct the rows until ALTER TABLE {} VALIDATE CONSTRAINT {} succeeds.",
        PARENT,
        [(f"INSERT INTO parent VALUES ('{A}', 7)", "ALTER TABLE item VALIDATE CONSTRAINT item_up")],
    ),
}


class TestPostgreSQLWaysOut(WaysOutContract):
    @pytest.mark.parametrize(("way", "number"), every(WAYS | TWINS | OWN))
    def test_a_way_out(self, ground: PostgreSQLGround, way: Way, number: int) -> None:
        try:
            self.try_out(ground, way, number)
        finally:
            ground.give_back()
