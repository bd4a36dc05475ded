# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan finds what would fail in the window: keys that would refer to nothing, and constraints that old rows
break.
"""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import Refusal
from ansible_collections.zdm.landscape.tests.integration.postgresql.pgsite import MIGRATION, TABLES, A, B, C, Site

ROOT = ("CREATE TABLE tenant (id uuid PRIMARY KEY, name text)", f"INSERT INTO tenant VALUES ('{A}', 'a'), ('{C}', 'c')")
ROOTS = {"tenant": {"ignore": "roots"}}
NOTE = (
    "CREATE TABLE note (tenant_id uuid NOT NULL, id int NOT NULL, customer_id int, text text, PRIMARY KEY (tenant_id,"
    " id))"
)
ROWS = tuple(f"INSERT INTO note SELECT '{tenant}', n, n, 'text' FROM generate_series(1, 5) n" for tenant in (A, C))


def refusals(site: Site, strategy: str, **tables: Any) -> list[Refusal]:
    plan = site.participant(tables={**TABLES, "note": {"strategy": strategy}, **tables}).inspect(MIGRATION, A, B)
    return list(plan.refusals)


@pytest.fixture(params=["twin", "in_place"])
def strategy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_root_row_that_is_missing_is_found_and_mended(site: Site, strategy: str) -> None:
    site.sql(*ROOT, NOTE, *ROWS, "ALTER TABLE note ADD CONSTRAINT note_root FOREIGN KEY (tenant_id) REFERENCES tenant")
    (refusal,) = refusals(site, strategy, **ROOTS)
    assert refusal.object == "note"
    assert (
        refusal.reason
        == f"Foreign key note_root of note refers to tenant (id), whose rows stay, and rows that are to stand under {B}"
        " find none there."
    )
    assert f"Insert the row of {B} into tenant" in refusal.advice
    site.sql(f"INSERT INTO tenant VALUES ('{B}', 'b')")
    assert refusals(site, strategy, **ROOTS) == []
    participant = site.staged(tables={**TABLES, **ROOTS, "note": {"strategy": strategy}})
    site.switch(participant)
    site.switch(participant, reverse=True)


def test_a_root_row_that_goes_between_plan_and_window_is_missed(site: Site) -> None:
    """An application's trigger makes the session exempt, which checks no foreign keys."""
    site.sql(
        *ROOT,
        f"INSERT INTO tenant VALUES ('{B}', 'b')",
        NOTE,
        *ROWS,
        "ALTER TABLE note ADD CONSTRAINT note_root FOREIGN KEY (tenant_id) REFERENCES tenant",
        "CREATE FUNCTION kept() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "CREATE TRIGGER kept BEFORE UPDATE ON note FOR EACH ROW EXECUTE FUNCTION kept()",
    )
    participant = site.staged(tables={**TABLES, **ROOTS, "note": {"strategy": "in_place"}})
    site.sql(f"DELETE FROM tenant WHERE id = '{B}'")
    before = participant.fingerprint(A)
    with pytest.raises(Refused, match=rf"note_root to tenant \(id\) of table note: rows of {B} find no row there"):
        site.switch(participant)
    participant.undo(site.move())
    assert participant.fingerprint(A) == before
    site.sql(f"INSERT INTO tenant VALUES ('{B}', 'b')")
    site.switch(participant)
    assert participant.fingerprint(B) == before


def test_without_rows_of_the_tenant_nothing_can_dangle(site: Site, strategy: str) -> None:
    site.sql(*ROOT, NOTE, ROWS[1], "ALTER TABLE note ADD FOREIGN KEY (tenant_id) REFERENCES tenant")
    assert refusals(site, strategy, **ROOTS) == []


def test_keys_between_tables_that_move_are_no_obstacle(site: Site) -> None:
    site.sql(NOTE, *ROWS, "ALTER TABLE note ADD FOREIGN KEY (tenant_id, customer_id) REFERENCES customer")
    assert refusals(site, "twin") == []
    assert (
        refusals(site, "in_place", **{name: {"strategy": "in_place"} for name in ("customer", "invoice", "line")}) == []
    )


def test_a_part_of_a_key_that_stays_is_found(site: Site, strategy: str) -> None:
    """The parent calls the tenant's column otherwise and is ignored: each child needs a parent under the other id."""
    site.sql(
        "CREATE TABLE kind (account uuid, id int, PRIMARY KEY (account, id))",
        f"INSERT INTO kind SELECT '{A}', n FROM generate_series(1, 5) n",
    )
    site.sql(
        NOTE, ROWS[0], "ALTER TABLE note ADD CONSTRAINT note_kind FOREIGN KEY (tenant_id, customer_id) REFERENCES kind"
    )
    ignored = {"kind": {"ignore": "copied by its own service"}}
    (refusal,) = refusals(site, strategy, **ignored)
    assert "note_kind of note refers to kind (account, id), whose rows stay" in refusal.reason
    site.sql(f"INSERT INTO kind SELECT '{B}', n FROM generate_series(1, 4) n")
    assert len(refusals(site, strategy, **ignored)) == 1, "one of five is missing"
    site.sql(f"INSERT INTO kind VALUES ('{B}', 5)")
    assert refusals(site, strategy, **ignored) == []


@pytest.mark.parametrize("way", ["twin", "in_place"])
def test_a_key_that_is_not_valid_is_asked_about(site: Site, way: str) -> None:
    site.sql(
        "CREATE TABLE kind (tenant_id uuid, id int, PRIMARY KEY (tenant_id, id))",
        f"INSERT INTO kind SELECT '{A}', n FROM generate_series(1, 5) n",
    )
    site.sql(NOTE, *ROWS, f"UPDATE note SET customer_id = 9999 WHERE tenant_id = '{A}' AND id = 3")
    site.sql("ALTER TABLE note ADD CONSTRAINT note_kind FOREIGN KEY (tenant_id, customer_id) REFERENCES kind NOT VALID")
    (refusal,) = refusals(site, way, kind={"strategy": way})
    assert refusal.reason == f"Foreign key note_kind of note is NOT VALID, and a row of {A} refers to nothing in kind."
    assert "VALIDATE CONSTRAINT note_kind" in refusal.advice
    site.sql(f"UPDATE note SET customer_id = 1 WHERE tenant_id = '{A}' AND id = 3")
    assert refusals(site, way, kind={"strategy": way}) == []


@pytest.mark.parametrize(
    "check",
    [
        "CHECK (text <> 'text') NOT VALID",
        f"CHECK (tenant_id <> '{B}')",
        f"CHECK (tenant_id = '{A}' OR id > 100) NOT VALID",
        "CHECK (forbidden(text)) NOT VALID",
    ],
)
def test_a_check_that_old_rows_break_is_found(site: Site, strategy: str, check: str) -> None:
    site.sql("CREATE FUNCTION forbidden(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT $1 IS NULL$$")
    site.sql(NOTE, *ROWS, f"ALTER TABLE note ADD CONSTRAINT odd {check}")
    (refusal,) = refusals(site, strategy)
    assert refusal.reason == f"Check constraint odd of note does not hold for a row of {A} when it stands under {B}."
    site.sql(
        "ALTER TABLE note DROP CONSTRAINT odd", "ALTER TABLE note ADD CHECK (text IS NOT NULL), ADD CHECK (id < 10)"
    )
    assert refusals(site, strategy) == []
