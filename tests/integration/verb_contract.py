# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every in-place participant must do, whatever its engine; an engine's tests inherit :class:`VerbContract`.

Fixtures: ``bench`` (a database with the sample schema), ``staged`` (the bench and a participant that has staged).
"""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused, Superseded
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    ABSENT,
    FENCED,
    MOVED,
    STAGED,
    STAGING,
    Move,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import Database
from ansible_collections.zdm.landscape.tests.integration.verb_kit import (
    FIRST_KEY,
    KEY,
    WAIT_MS,
    A,
    B,
    C,
    Writer,
    act,
    killed,
    move,
    stage,
    status,
    under,
    wait_for_writes,
)


class VerbContract:
    """The verbs of base.Participant."""

    kill_every = 1

    def test_inspect_changes_nothing_and_repeats(self, bench: Any) -> None:
        catalog, rows = bench.catalog(), bench.rows()
        participant = bench.participant()
        first, second = participant.inspect(KEY, A, B), participant.inspect(KEY, A, B)
        assert first.refusals == ()
        assert first.digest == second.digest
        assert {table.table: (table.strategy, table.rows) for table in first.tables} == dict.fromkeys(
            ("bill", "item", "event"), ("in_place", 60)
        ) | {"share": ("in_place", 62)}
        assert first.window_ms == sum(table.window_ms for table in first.tables) > 0
        assert any(statement.startswith("UPDATE") and "owner_tenant_id" in statement for statement in first.sql)
        assert (bench.catalog(), bench.rows()) == (catalog, rows)
        assert participant.status(KEY, A, B).state == ABSENT

    def test_round_trip_is_exact(self, staged: tuple[Any, Database]) -> None:
        bench, participant = staged
        rows, digest, other = bench.rows(), participant.fingerprint(A), participant.fingerprint(C)
        participant.take_over(move(2))
        assert participant.prelude(move(2), WAIT_MS) == 0
        assert participant.barrier(move(2), WAIT_MS) == {
            "rows": 242,
            "tables": {"bill": 60, "item": 60, "event": 60, "share": 62},
        }
        assert status(participant) == (MOVED, A, tuple(sorted((A, B))))
        participant.turn(move(2))
        assert status(participant) == (STAGED, B, (A,))
        assert bench.rows() == under(rows, A, B)
        assert participant.fingerprint(B) == digest != participant.fingerprint(A)
        participant.take_over(move(3, forward=False))
        participant.barrier(move(3, forward=False), WAIT_MS)
        participant.turn(move(3, forward=False))
        assert status(participant) == (STAGED, A, (B,))
        assert bench.rows() == rows
        assert (participant.fingerprint(A), participant.fingerprint(C)) == (digest, other)

    def test_five_flips(self, staged: tuple[Any, Database]) -> None:
        bench, participant = staged
        rows = bench.rows()
        for epoch in range(2, 12):
            forward = epoch % 2 == 0
            participant.take_over(move(epoch, forward))
            participant.barrier(move(epoch, forward), WAIT_MS)
            participant.turn(move(epoch, forward))
            assert bench.rows() == (under(rows, A, B) if forward else rows)
        assert status(participant) == (STAGED, A, (B,))

    def test_each_verb_twice_is_once(self, staged: tuple[Any, Database]) -> None:
        bench, participant = staged
        staged_catalog, rows = bench.catalog(), bench.rows()
        for verb in ("stage", "take_over", "prelude", "undo"):
            act(participant, verb, move(1))
            act(participant, verb, move(1))
            assert (bench.catalog(), bench.rows()) == (staged_catalog, rows)
        assert participant.barrier(move(2), WAIT_MS) == participant.barrier(move(2), WAIT_MS)
        act(participant, "take_over", move(3))
        participant.undo(move(3))
        participant.undo(move(3))
        assert bench.rows() == rows
        participant.barrier(move(4), WAIT_MS)
        participant.confirm(move(4))
        participant.turn(move(4))
        participant.turn(move(4))
        assert status(participant) == (STAGED, B, (A,))

    def test_undo_is_exact(self, staged: tuple[Any, Database]) -> None:
        bench, participant = staged
        catalog, rows = bench.catalog(), bench.rows()
        participant.barrier(move(2), WAIT_MS)
        participant.undo(move(2))
        assert (bench.catalog(), bench.rows()) == (catalog, rows)
        assert status(participant) == (STAGED, A, (B,))

    def test_remove_leaves_nothing(self, bench: Any) -> None:
        catalog, rows = bench.catalog(), bench.rows()
        participant = bench.participant()
        stage(participant)
        assert bench.catalog() != catalog
        assert participant.remove(move(1)) == participant.remove(move(1)) == 0
        assert (bench.catalog(), bench.rows()) == (catalog, rows)
        assert participant.status(KEY, A, B).state == ABSENT

    def test_remove_after_the_switch_retires_the_source(self, bench: Any) -> None:
        catalog, rows = bench.catalog(), bench.rows()
        participant = bench.participant()
        stage(participant)
        participant.barrier(move(2), WAIT_MS)
        participant.turn(move(2))
        with pytest.raises(Refused, match="live"):
            participant.remove(move(2))
        participant.remove(move(2, forward=False))
        assert (bench.catalog(), bench.rows()) == (catalog, under(rows, A, B))

    @pytest.mark.parametrize("verb", ["stage", "take_over", "prelude", "barrier", "turn", "undo", "remove"])
    def test_older_epoch_is_refused(self, staged: tuple[Any, Database], verb: str) -> None:
        bench, participant = staged
        participant.take_over(move(5))
        if verb in ("turn", "undo"):
            participant.barrier(move(5), WAIT_MS)
        catalog, rows = bench.catalog(), bench.rows()
        with pytest.raises(Superseded, match="epoch 4 .* epoch 5"):
            act(participant, verb, move(4))
        assert (bench.catalog(), bench.rows()) == (catalog, rows)
        assert participant.status(KEY, A, B).epoch == 5

    def test_wrong_order_is_refused(self, staged: tuple[Any, Database]) -> None:
        bench, participant = staged
        rows = bench.rows()
        for verb, at in (
            ("turn", move(1)),
            ("barrier", move(1, forward=False)),
            ("undo", move(1, forward=False)),
            ("stage", move(1, forward=False)),
        ):
            with pytest.raises(Refused, match=r"(?s)staged.*live"):
                act(participant, verb, at)
        participant.barrier(move(1), WAIT_MS)
        for verb, at in (
            ("remove", move(1)),
            ("turn", move(1, forward=False)),
            ("undo", move(1, forward=False)),
            ("barrier", move(1, forward=False)),
        ):
            with pytest.raises(Refused, match="moved"):
                act(participant, verb, at)
        participant.turn(move(1))
        for verb in ("undo", "barrier"):
            with pytest.raises(Refused, match=f"{B} is live"):
                act(participant, verb, move(1))
        assert bench.rows() == under(rows, A, B)

    def test_absent(self, bench: Any) -> None:
        participant = bench.participant()
        catalog = bench.catalog()
        for verb in ("take_over", "undo", "remove"):
            act(participant, verb, move(1))
        for verb in ("prelude", "barrier", "turn"):
            with pytest.raises(Refused, match="not staged"):
                act(participant, verb, move(1))
        assert bench.catalog() == catalog

    def test_two_migrations_side_by_side(self, bench: Any) -> None:
        bench.sql("DELETE FROM share")
        catalog, rows = bench.catalog(), bench.rows()
        first, second = bench.participant(), bench.participant()
        back, forth = Move("other", 1, C, "cloud", C, "cloud"), Move("other", 2, C, "cloud", "cloud", C)
        second.stage(back, second.inspect("other", C, "cloud"), lambda _step: None)
        stage(first)
        second.barrier(back, WAIT_MS)
        first.barrier(move(), WAIT_MS)
        second.turn(back)
        first.undo(move())
        assert bench.rows() == under(rows, C, "cloud")
        assert second.status("other", C, "cloud").problems == ()
        assert status(first) == (STAGED, A, (B,))
        second.barrier(forth, WAIT_MS)
        first.remove(move())
        second.turn(forth)
        second.remove(Move("other", 2, C, "cloud", C, "cloud"))
        assert (bench.catalog(), bench.rows()) == (catalog, rows)

    def test_schema_drift_is_refused(self, bench: Any) -> None:
        participant = bench.participant()
        plan = participant.inspect(KEY, A, B)
        bench.sql("ALTER TABLE event ADD COLUMN late VARCHAR(9)")
        with pytest.raises(Refused, match="schema has changed"):
            participant.stage(move(1), plan, lambda _step: None)
        assert participant.status(KEY, A, B).state == ABSENT
        stage(participant)
        bench.sql(
            "CREATE TABLE latecomer (tenant_id VARCHAR(63) NOT NULL, id INT NOT NULL, PRIMARY KEY (tenant_id, id))"
        )
        assert participant.inspect(KEY, A, B).digest != plan.digest  # what the preflight compares right before a window
        with pytest.raises(Refused, match="schema has changed"):
            participant.stage(move(1), plan, lambda _step: None)

    def test_a_lost_fence_is_reported_refused_and_mended(self, staged: tuple[Any, Database]) -> None:
        bench, participant = staged
        catalog = bench.catalog()
        trigger = next(
            name for entry in catalog for name in entry if str(name).startswith("zdm_") and str(name).endswith("_i")
        )
        bench.sql(f"DROP TRIGGER {trigger}")
        assert participant.status(KEY, A, B).problems == (
            f"State staged, but {B} is not fenced on every planned table.",
        )
        with pytest.raises(Refused, match=r"triggers on \w+ were switched, dropped or made anew"):
            participant.prelude(move(1), WAIT_MS)
        stage(participant)
        assert bench.catalog() == catalog
        assert status(participant) == (STAGED, A, (B,))

    def test_newer_format_is_refused(self, staged: tuple[Any, Database]) -> None:
        bench, participant = staged
        table = next(name for entry in bench.catalog() for name in entry if str(name).startswith("zdm_migration_"))
        bench.sql(f"UPDATE {table} SET format = 2")
        for verb in ("stage", "take_over", "barrier", "remove"):
            with pytest.raises(Refused, match="newer version"):
                act(participant, verb, move(1))

    def test_rows_of_the_target_are_refused(self, bench: Any) -> None:
        bench.sql(f"INSERT INTO event (id, tenant_id, txt) VALUES (77777, '{B}', 'x')")
        plan = bench.participant().inspect(KEY, A, B)
        assert [
            (refusal.object, "1 rows of the tenant id that is not live" in refusal.reason) for refusal in plan.refusals
        ] == [("event", True)]
        with pytest.raises(Refused, match="rows of the tenant id that is not live"):
            bench.participant().stage(move(1), plan, lambda _step: None)

    def test_unclassified_tables_are_refused(self, bench: Any) -> None:
        bench.sql("CREATE TABLE country (code CHAR(2) NOT NULL PRIMARY KEY)")
        bench.sql("CREATE TABLE loose (tenant_id DATE, id INT)")
        found = {refusal.object: refusal.reason for refusal in bench.participant().inspect(KEY, A, B).refusals}
        assert "not classified" in found["country"]
        assert "holds no" in found["loose"]
        options = {"tables": {"country": {"ignore": "no tenant data"}, "loose": {"ignore": "scratch"}}}
        assert bench.participant(**options).inspect(KEY, A, B).refusals == ()

    def test_a_table_without_any_key_moves(self, bench: Any) -> None:
        bench.sql("CREATE TABLE loose (tenant_id VARCHAR(63) NOT NULL, id INT)")
        for tenant in (A, A, C):
            bench.sql(f"INSERT INTO loose VALUES ('{tenant}', 1)")
        catalog, loose = bench.catalog(), "SELECT tenant_id, COUNT(*) FROM loose GROUP BY tenant_id ORDER BY tenant_id"
        participant = bench.participant()
        stage(participant)
        for epoch, forward, live in ((2, True, B), (3, False, A), (4, True, B)):
            participant.take_over(move(epoch, forward))
            participant.barrier(move(epoch, forward), WAIT_MS)
            participant.turn(move(epoch, forward))
            assert sorted(map(tuple, bench.sql(loose))) == sorted([(live, 2), (C, 1)])
        participant.remove(move(4, forward=False))
        assert bench.catalog() == catalog

    def test_application_triggers_are_refused(self, bench: Any) -> None:
        bench.sql(self.application_trigger)
        found = bench.participant().inspect(KEY, A, B).refusals
        assert [refusal.object for refusal in found] == ["event"]
        assert "app_trigger" in found[0].reason

    application_trigger = ""

    @pytest.mark.parametrize("verb", ["barrier", "undo", "turn"])
    def test_killed_inside_a_verb(self, staged: tuple[Any, Database], verb: str) -> None:
        bench, participant = staged
        rows = bench.rows()
        moved = under(rows, A, B)
        ends = {"barrier": (MOVED, moved), "undo": (STAGED, rows), "turn": (STAGED, moved)}[verb]
        begin = (STAGED, rows) if verb == "barrier" else (MOVED, moved)
        if verb != "barrier":
            participant.barrier(move(1), WAIT_MS)
        for epoch in killed(type(participant), bench.options(), verb, move(1), self.kill_every):
            participant.take_over(move(1))
            found = (participant.status(KEY, A, B).state, bench.rows())
            between = ((FENCED, rows),) if verb == "barrier" else ()
            assert found in (begin, *between, ends), f"before statement {epoch}"
            status(participant)
        assert (participant.status(KEY, A, B).state, bench.rows()) == ends
        assert (
            status(participant)
            == {
                "barrier": (MOVED, A, tuple(sorted((A, B)))),
                "undo": (STAGED, A, (B,)),
                "turn": (STAGED, B, (A,)),
            }[verb]
        )

    @pytest.mark.parametrize("verb", ["stage", "remove"])
    def test_killed_inside_stage_and_remove(self, bench: Any, verb: str) -> None:
        participant = bench.participant()
        rows, before = bench.rows(), bench.catalog()
        writer = bench.application()
        if verb == "remove":
            stage(participant)
        for statement in killed(type(participant), bench.options(), verb, move(1), self.kill_every):
            assert participant.status(KEY, A, B).state in (ABSENT, STAGING, STAGED), f"before statement {statement}"
            writer.cursor().execute(
                f"UPDATE share SET owner_tenant_id = '{A}' WHERE tenant_id = '{A}' AND owner_tenant_id = '{A}'"
            )
            assert bench.rows() == rows
        if verb == "stage":
            assert status(participant) == (STAGED, A, (B,))
            participant.remove(move(1))
        assert bench.catalog() == before

    def test_no_acknowledged_write_is_lost(self, staged: tuple[Any, Database]) -> None:
        """Writers that no router holds back: what was acknowledged is there once, under the live id; what was not is
        refused.
        """
        bench, participant = staged
        writers = [Writer(bench, number, tenant) for number, tenant in enumerate((A, A, A, B, C))]
        for writer in writers:
            writer.start()
        try:
            for epoch in range(2, 10, 2):
                forward = epoch % 4 == 2
                wait_for_writes(writers)
                participant.take_over(move(epoch, forward))
                participant.barrier(move(epoch, forward), WAIT_MS)
                if epoch == 4:
                    participant.undo(move(epoch, forward))
                    wait_for_writes(writers)
                    participant.take_over(move(epoch + 1, forward))
                    participant.barrier(move(epoch + 1, forward), WAIT_MS)
                participant.turn(move(epoch + 1, forward))
        finally:
            for writer in writers:
                writer.stop()
        assert [writer.failure for writer in writers] == [None] * len(writers)
        assert status(participant) == (STAGED, A, (B,))
        acknowledged = sorted(key for writer in writers[:4] for key in writer.acknowledged)
        for table, column in (("bill", "id"), ("item", "bill")):
            there = [
                row[0]
                for row in bench.sql(
                    f"SELECT {column} FROM {table} WHERE tenant_id = '{A}' AND {column} >= {FIRST_KEY} ORDER BY"
                    f" {column}"
                )
            ]
            assert there == acknowledged
            assert bench.sql(f"SELECT COUNT(*) FROM {table} WHERE tenant_id = '{B}'")[0][0] == 0
            theirs = bench.sql(f"SELECT COUNT(*) FROM {table} WHERE tenant_id = '{C}' AND {column} >= {FIRST_KEY}")[0][
                0
            ]
            assert theirs == len(writers[4].acknowledged) > 0
        assert writers[3].acknowledged, "the target's writer got through while the target was live"
        assert all(writer.refused for writer in writers[:4])
        assert not writers[4].refused
