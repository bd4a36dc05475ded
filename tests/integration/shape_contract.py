# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shapes of real schemas that nobody designed for a migration; an engine's tests inherit :class:`ShapeContract`.

Fixture: ``ground`` (an empty database, see :class:`Ground`).
"""

from __future__ import annotations

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    FOLLOWS,
    IGNORE,
    IN_PLACE,
    RELABEL,
    ROOT,
)
from ansible_collections.zdm.landscape.tests.integration.shape_kit import A, B, C, Ground, Journey, Rows, renamed
from ansible_collections.zdm.landscape.tests.integration.verb_kit import killed

TENANTS = "CREATE TABLE tenants (id {id} NOT NULL PRIMARY KEY, name {text}, plan int)"
ITEM = (
    "CREATE TABLE item (id int NOT NULL PRIMARY KEY, tenant_id {id} NOT NULL, v {text},"
    " CONSTRAINT item_tenant FOREIGN KEY (tenant_id) REFERENCES tenants (id))"
)
ITEMS = (f"INSERT INTO item VALUES (1, '{A}', 'x'), (2, '{A}', 'y')", f"INSERT INTO item VALUES (3, '{C}', 'z')")
TWO_TENANTS = f"INSERT INTO tenants VALUES ('{A}', 'Venezia', 1), ('{C}', 'other', 2)"


def name_of(ground: Ground, tenant: str) -> list[str]:
    return [row[0] for row in ground.sql(f"SELECT name FROM tenants WHERE id = '{tenant}'")]


class ShapeContract:
    """Every shape lives its whole life, and is found again as it was."""

    # -- columns and keys -------------------------------------------------------------------------

    def test_rows_without_a_tenant_stay(self, ground: Ground) -> None:
        ground.sql(
            "CREATE TABLE note (id int NOT NULL PRIMARY KEY, tenant_id {id}, v {text})",
            f"INSERT INTO note VALUES (1, '{A}', 'x'), (2, NULL, 'shared'), (3, '{C}', 'z')",
        )
        journey = Journey(ground)
        assert journey.strategies() == {"note": IN_PLACE}
        journey.stage()
        with pytest.raises(ground.refused):
            ground.sql(f"UPDATE note SET tenant_id = '{B}' WHERE id = 2")
        journey.switch()
        with pytest.raises(ground.refused):
            ground.sql(f"UPDATE note SET tenant_id = '{A}' WHERE id = 2")
        ground.sql(f"UPDATE note SET tenant_id = '{B}' WHERE id = 2", "UPDATE note SET tenant_id = NULL WHERE id = 2")
        journey.switch()
        journey.remove()
        Journey(ground).life(renamed(A, B))

    def test_two_columns_of_which_either_may_be_empty(self, ground: Ground) -> None:
        ground.sql(
            "CREATE TABLE share (id int NOT NULL PRIMARY KEY, tenant_id {id}, with_tenant {id})",
            f"INSERT INTO share VALUES (1, '{A}', NULL), (2, NULL, '{A}'), (3, '{A}', '{C}'), (4, '{C}', '{A}')",
        )
        Journey(ground, tenant_columns=["tenant_id", "with_tenant"]).life(renamed(A, B))

    def test_no_key_at_all(self, ground: Ground) -> None:
        ground.sql(
            "CREATE TABLE log (tenant_id {id} NOT NULL, v {text})",
            f"INSERT INTO log VALUES ('{A}', 'x'), ('{A}', 'x'), ('{C}', 'x')",
        )
        Journey(ground).life(renamed(A, B))

    def test_tables_without_rows(self, ground: Ground) -> None:
        ground.sql(TENANTS, ITEM, TWO_TENANTS)
        Journey(ground).life(lambda rows: rows, without(A))

    # -- roots ------------------------------------------------------------------------------------

    def test_a_missing_row_of_the_root_is_made_and_goes_again(self, ground: Ground) -> None:
        ground.sql(TENANTS, ITEM, TWO_TENANTS, *ITEMS)
        journey = Journey(ground)
        assert journey.strategies() == {"tenants": ROOT, "item": IN_PLACE}
        journey.life(renamed(A, B, *(name for name in ground.tables() if "item" in name)), without(A))

    def test_the_copy_is_kept_in_step_in_both_directions(self, ground: Ground) -> None:
        ground.sql(TENANTS, ITEM, TWO_TENANTS, *ITEMS)
        journey = Journey(ground)
        journey.stage()
        assert any(entry["step"] == ROOT and B in entry["message"] for entry in journey.told)
        ground.sql(f"UPDATE tenants SET name = 'Venice' WHERE id = '{A}'")
        with pytest.raises(ground.refused):
            ground.sql(f"UPDATE tenants SET name = 'late' WHERE id = '{B}'")
        journey.switch()
        assert (name_of(ground, A), name_of(ground, B)) == (["Venice"], ["Venice"])
        ground.sql(f"UPDATE tenants SET name = 'Venedig' WHERE id = '{B}'")
        journey.switch()
        assert (name_of(ground, A), name_of(ground, B)) == (["Venedig"], ["Venedig"])

    def test_a_row_that_is_there_is_nobodys_copy(self, ground: Ground) -> None:
        ground.sql(TENANTS, ITEM, TWO_TENANTS, *ITEMS, f"INSERT INTO tenants VALUES ('{B}', 'mine', 1)")
        journey = Journey(ground)
        (root,) = (table for table in journey.plan().tables if table.strategy == ROOT)
        assert "is there and stays as it is; it differs in name." in root.why
        journey.stage()
        journey.switch()
        assert name_of(ground, B) == ["mine"]
        journey.switch()
        journey.remove()
        assert (name_of(ground, A), name_of(ground, B)) == (["Venezia"], ["mine"])

    def test_a_row_to_which_others_refer_stays(self, ground: Ground) -> None:
        ground.sql(TENANTS, ITEM, TWO_TENANTS, *ITEMS)
        ground.sql(
            "CREATE TABLE audit (id int NOT NULL PRIMARY KEY, who {id} NOT NULL,"
            " CONSTRAINT audit_who FOREIGN KEY (who) REFERENCES tenants (id) ON DELETE CASCADE)",
            f"INSERT INTO audit VALUES (1, '{A}')",
        )
        journey = Journey(ground, tables={"audit": {"ignore": "history keeps the old id"}})
        journey.stage()
        journey.switch()
        journey.remove()
        assert ground.sql("SELECT count(*) FROM audit") == [(1,)]
        assert name_of(ground, A) == ["Venezia"]
        assert any("foreign key" in entry["message"] and "audit" in entry["message"] for entry in journey.told[-2:])

    def test_values_that_must_differ_are_given(self, ground: Ground) -> None:
        ground.sql(
            "CREATE TABLE tenants (id {id} NOT NULL PRIMARY KEY, name {text} NOT NULL UNIQUE, nr int)",
            ITEM,
            f"INSERT INTO tenants VALUES ('{A}', 'venezia', 5)",
            f"INSERT INTO item VALUES (1, '{A}', 'x')",
        )
        assert "new_row: {name: <value>}" in Journey(ground).refusals()["tenants"]
        journey = Journey(ground, tables={"tenants": {"new_row": {"name": "venezia-scp", "nr": 7}}})
        journey.stage()
        assert ground.sql(f"SELECT name, nr FROM tenants WHERE id = '{B}'") == [("venezia-scp", 7)]
        journey.switch()
        journey.switch()
        assert ground.sql(f"SELECT name, nr FROM tenants WHERE id = '{A}'") == [("venezia", 5)]
        assert ground.sql(f"SELECT name, nr FROM tenants WHERE id = '{B}'") == [("venezia-scp", 7)]

    @pytest.mark.parametrize("verb", ["stage", "barrier", "turn", "undo", "remove"])
    def test_killed_at_work_on_a_root(self, ground: Ground, verb: str) -> None:
        ground.sql(TENANTS, ITEM, TWO_TENANTS, *ITEMS)
        schema, rows = ground.dump(), ground.rows()
        journey = Journey(ground)
        plan = journey.plan()
        if verb != "stage":
            journey.stage()
            ground.sql(f"UPDATE tenants SET name = 'Venice' WHERE id = '{A}'")
        if verb in ("turn", "undo"):
            journey.epoch += 1
            journey.act("take_over")
            journey.act("barrier")
        between = ground.rows()
        for _statement in killed(
            type(journey.participant), journey.participant.options, verb, journey.move(), plan=plan
        ):
            assert ground.sql(f"SELECT count(*) FROM item WHERE tenant_id IN ('{A}', '{B}')") == [(2,)]
            assert name_of(ground, A)
        if verb == "stage":
            assert ground.rows() == {**rows, **{t: f for t, f in ground.rows().items() if "tenants" in t}}
            assert name_of(ground, B) == ["Venezia"]
            journey.whole()
            journey.remove()
            assert (ground.rows(), ground.dump()) == (rows, schema)
        elif verb == "remove":
            assert (name_of(ground, A), name_of(ground, B), ground.dump()) == (["Venice"], [], schema)
        else:
            moved = "item" if verb != "undo" else ""
            tables = [name for name in ground.tables() if moved and moved in name]
            after = ground.rows()
            assert {t: after[t] for t in tables} == {t: r for t, r in renamed(A, B)(between).items() if t in tables}
            assert name_of(ground, B) == ["Venice"]

    def test_cascades_from_a_root_lose_nothing(self, ground: Ground) -> None:
        ground.sql(
            TENANTS,
            "CREATE TABLE item (tenant_id {id} NOT NULL, id int NOT NULL, v {text}, PRIMARY KEY (tenant_id, id),"
            " CONSTRAINT item_tenant FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE"
            " ON UPDATE CASCADE)",
            TWO_TENANTS,
            f"INSERT INTO item VALUES ('{A}', 1, 'x'), ('{C}', 1, 'z')",
        )
        strategy = self.copies or IN_PLACE
        journey = Journey(ground, tables={"item": {"strategy": strategy}}, no_cross_tenant_readers=True)
        journey.stage()
        if self.guards_roots:
            for change in (f"DELETE FROM tenants WHERE id = '{A}'", f"UPDATE tenants SET id = 'x' WHERE id = '{A}'"):
                with pytest.raises(ground.refused, match="needed by a migration"):
                    ground.sql(change)
        ground.sql(f"DELETE FROM tenants WHERE id = '{C}'")
        assert ground.sql(f"SELECT count(*) FROM item WHERE tenant_id = '{C}'") == [(0,)]
        journey.switch()
        journey.switch()
        journey.remove()
        assert ground.sql("SELECT id, v FROM item") == [(1, "x")]

    copies = ""
    """The strategy that makes copies, where the engine has it."""
    guards_roots = False

    # -- tables without a tenant column -----------------------------------------------------------

    def test_children_by_surrogate_keys_follow(self, ground: Ground) -> None:
        ground.sql(TENANTS, ITEM, TWO_TENANTS, *ITEMS)
        ground.sql(
            "CREATE TABLE line (id int NOT NULL PRIMARY KEY, item_id int NOT NULL, above int,"
            " FOREIGN KEY (item_id) REFERENCES item (id), FOREIGN KEY (above) REFERENCES line (id))",
            "CREATE TABLE part (id int NOT NULL PRIMARY KEY, line_id int,"
            " FOREIGN KEY (line_id) REFERENCES line (id) ON DELETE CASCADE)",
            "INSERT INTO line VALUES (1, 1, NULL)",
            "INSERT INTO line VALUES (2, 1, 1)",
            "INSERT INTO part VALUES (1, 2), (2, NULL)",
        )
        journey = Journey(ground)
        assert {journey.strategies()[name] for name in ("line", "part")} == {FOLLOWS}
        journey.life(renamed(A, B, *(name for name in ground.tables() if "item" in name)), without(A))

    # -- own ids ----------------------------------------------------------------------------------

    def test_numbers_of_its_own(self, ground: Ground) -> None:
        ground.sql(
            "CREATE TABLE bill (id int NOT NULL PRIMARY KEY, tenant_id {big} NOT NULL)",
            "INSERT INTO bill VALUES (1, 9007199254740993), (2, 9007199254740992), (3, 9007199254740993)",
        )
        assert "cannot hold the id" in Journey(ground).refusals()["bill"]
        assert "none for" in str(Journey(ground, own_ids={A: 9007199254740993}).refusals())
        journey = Journey(ground, own_ids={A: 9007199254740993, B: 9007199254740991})
        journey.life(renamed(9007199254740993, 9007199254740991))

    def test_bytes(self, ground: Ground) -> None:
        mine, other = "0a" * 16, "0b" * 16
        ground.sql(
            "CREATE TABLE bill (id int NOT NULL PRIMARY KEY, tenant_id {bytes} NOT NULL)",
            f"INSERT INTO bill VALUES (1, {ground.bytes_of(mine)}), (2, {ground.bytes_of('0c' * 16)})",
        )
        assert "bill" in Journey(ground).refusals()
        journey = Journey(ground, own_ids={A: f"0x{mine}", B: f"0x{other}"})
        journey.life(renamed(bytes.fromhex(mine), bytes.fromhex(other)))

    ACCOUNTS = (
        "CREATE TABLE accounts (nr {big} NOT NULL PRIMARY KEY, external_id {id} NOT NULL UNIQUE)",
        "CREATE TABLE bill (id int NOT NULL PRIMARY KEY, account_nr {big} NOT NULL,"
        " FOREIGN KEY (account_nr) REFERENCES accounts (nr))",
        "CREATE TABLE outbox (id int NOT NULL PRIMARY KEY, account_nr {big})",
        f"INSERT INTO accounts VALUES (17, '{A}'), (19, '{C}')",
        "INSERT INTO bill VALUES (1, 17), (2, 17), (3, 19)",
        "INSERT INTO outbox VALUES (1, 17), (2, NULL)",
    )
    QUERY = "SELECT nr FROM accounts WHERE external_id = :tenant_id"

    def test_one_row_changes_where_only_the_source_has_an_own_id(self, ground: Ground) -> None:
        ground.sql(*self.ACCOUNTS)
        journey = Journey(ground, tenant_columns=["account_nr"], id_query=self.QUERY)
        assert journey.strategies() == {"accounts": RELABEL, "bill": FOLLOWS, "outbox": FOLLOWS}
        journey.life(renamed(A, B))

    def test_the_stage_keeps_the_own_ids(self, ground: Ground) -> None:
        ground.sql(*self.ACCOUNTS)
        journey = Journey(ground, tenant_columns=["account_nr"], id_query=self.QUERY)
        journey.stage()
        journey.switch()
        # now the query finds nothing for the source
        journey.participant = ground.participant(tenant_columns=["account_nr"], id_query=self.QUERY)
        assert not journey.refusals()
        assert journey.strategies() == {"accounts": RELABEL, "bill": FOLLOWS, "outbox": FOLLOWS}
        with pytest.raises(ground.refused):
            ground.sql(f"INSERT INTO accounts VALUES (20, '{A}')")
        journey.switch()
        assert ground.sql("SELECT external_id FROM accounts WHERE nr = 17")[0][0] in (A, _uuid(A))

    def test_rows_move_where_both_have_own_ids(self, ground: Ground) -> None:
        ground.sql(*self.ACCOUNTS, f"INSERT INTO accounts VALUES (18, '{B}')")
        journey = Journey(ground, tenant_columns=["account_nr"], id_query=self.QUERY)
        assert journey.strategies() == {"accounts": ROOT, "bill": IN_PLACE, "outbox": IN_PLACE}
        journey.life(renamed(17, 18, *(name for name in ground.tables() if "accounts" not in name)), without(17))

    def test_an_unknown_source_is_refused(self, ground: Ground) -> None:
        ground.sql(*self.ACCOUNTS[:3])
        journey = Journey(ground, tenant_columns=["account_nr"], id_query=self.QUERY)
        assert f"does not know {A}" in str(journey.refusals())
        journey = Journey(ground, tenant_columns=["account_nr"], id_query="SELECT nr FROM nowhere WHERE x = :tenant_id")
        assert "`id_query` of participant" in str(journey.refusals())

    # -- left out ---------------------------------------------------------------------------------

    def test_a_database_in_which_nothing_moves(self, ground: Ground) -> None:
        ground.sql(TENANTS, TWO_TENANTS)
        journey = Journey(ground, ignore={".*": "of all tenants"})
        assert journey.strategies() == {"tenants": IGNORE}
        journey.life(lambda rows: rows)

    def test_a_pattern_leaves_tables_out(self, ground: Ground) -> None:
        ground.sql(TENANTS, ITEM, TWO_TENANTS, *ITEMS)
        ground.sql("CREATE TABLE act_ge_a (id int PRIMARY KEY)", "CREATE TABLE act_ge_b (id int PRIMARY KEY)")
        assert set(Journey(ground).refusals()) == {"act_ge_a", "act_ge_b"}
        journey = Journey(ground, ignore={"act_ge_.*": "the workflow engine's own"})
        assert journey.strategies()["act_ge_a"] == IGNORE
        assert not journey.refusals()


def without(tenant: object):  # type: ignore[no-untyped-def]
    """Finalized: the root's row of the retired tenant is gone."""

    def change(rows: Rows) -> Rows:
        return {
            table: [row for row in found if not (("tenants" in table or "accounts" in table) and _is(row[0], tenant))]
            for table, found in rows.items()
        }

    return change


def _is(value: object, tenant: object) -> bool:
    return str(value) == str(tenant)


def _uuid(text: str) -> object:
    import uuid

    return uuid.UUID(text)
