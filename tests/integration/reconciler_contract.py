# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every engine's stage must do whatever has become of the tables since, in either direction, and what its barrier
must refuse; an engine's tests inherit the classes and give the fixture ``scene``, filled for the source and another
tenant.
"""

from __future__ import annotations

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused, Superseded
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    ABSENT,
    FENCED,
    MOVED,
    STAGED,
    Care,
)
from ansible_collections.zdm.landscape.tests.integration.reconciler_kit import (
    CHANGES,
    Change,
    Play,
    Scene,
    TwinScene,
    writing,
)
from ansible_collections.zdm.landscape.tests.integration.verb_kit import KEY, WAIT_MS, A, B, move

turned = pytest.mark.parametrize("turned", [False, True], ids=["before", "transition"])


class ReconcilerContract:
    """A stage mends what releases and people do to the tables."""

    changes: tuple[Change, ...] = CHANGES

    @turned
    @pytest.mark.parametrize("change", CHANGES, ids=str)
    def test_what_has_changed_is_told_refused_and_mended(self, scene: Scene, change: Change, turned: bool) -> None:
        self.changed_told_refused_mended(scene, change, turned)

    @staticmethod
    def changed_told_refused_mended(scene: Scene, change: Change, turned: bool) -> None:
        play = Play(scene, turned)
        change.make(scene, play.live)
        play.participant.close()
        play.participant = scene.participant(**change.tables)
        unready = play.status().unready
        names = {change.table, *change.tables}
        assert all(any(name in sentence for name in names) for sentence in unready), unready
        assert bool(unready) == bool(change.table)
        if change.table and change.name != "new tenant table":  # only a look at all tables finds a new one
            refused(play, change.table)
        with writing(scene, play.live):
            play.stage()
        found = play.status()
        assert (found.state, found.unready, found.problems) == (STAGED, (), ())
        play.switch()
        with writing(scene, play.live):
            play.stage()
        play.switch()

    @turned
    def test_a_table_that_is_dropped_does_not_stop_the_end(self, scene: Scene, turned: bool) -> None:
        play = Play(scene, turned)
        scene.sql("DROP TABLE line")
        self._ends(play, "line")
        assert scene.sql(f"SELECT COUNT(*) FROM bill WHERE tenant_id = '{play.other}'") == [(0,)]

    @turned
    def test_a_key_column_with_another_name_does_not_stop_the_end(self, scene: Scene, turned: bool) -> None:
        play = Play(scene, turned)
        scene.sql("ALTER TABLE line RENAME COLUMN pos TO place")
        self._ends(play, "line")
        for table in ("bill", "line", "box"):
            assert scene.sql(f"SELECT COUNT(*) FROM {table} WHERE tenant_id = '{play.other}'") == [(0,)]

    @staticmethod
    def _ends(play: Play, table: str) -> None:
        refused(play, table)
        play.participant.take_over(play.now())
        play.participant.remove(play.now())
        play.participant.remove(play.now())
        assert play.status().state == ABSENT
        assert play.status().problems == ()
        for tenant in (A, B):
            play.scene.sql(f"INSERT INTO bill (tenant_id, id, v, mail) VALUES ('{tenant}', 999, 1, 'z')")
            play.scene.sql(f"UPDATE bill SET v = 2 WHERE tenant_id = '{tenant}'")
            play.scene.sql(f"DELETE FROM bill WHERE tenant_id = '{tenant}' AND id = 999")

    def test_staged_first_while_the_target_is_live(self, scene: Scene) -> None:
        for table in ("bill", "line", "box"):
            scene.sql(f"UPDATE {table} SET tenant_id = '{B}' WHERE tenant_id = '{A}'")
        participant, at = scene.participant(), move(4, forward=False)
        participant.stage(at, participant.inspect(KEY, A, B, live_id=B), lambda _step: None)
        found = participant.status(KEY, A, B)
        assert (found.state, found.live_id, found.fenced, found.problems, found.unready) == (STAGED, B, (A,), (), ())
        scene.sql(f"UPDATE bill SET v = 9 WHERE tenant_id = '{B}'")
        with pytest.raises(Exception, match="is closed by a migration|is being migrated"):
            scene.sql(f"INSERT INTO box VALUES (9999, '{A}', 1)")
        content = participant.fingerprint(B)
        participant.prelude(at, WAIT_MS)
        participant.barrier(at, WAIT_MS)
        participant.turn(at)
        assert participant.fingerprint(A) == content

    @pytest.mark.parametrize("table", ["bill", "box"])
    def test_strange_rows_of_the_retired_id_are_counted(self, scene: Scene, table: str) -> None:
        for each in ("bill", "line", "box"):
            scene.sql(f"UPDATE {each} SET tenant_id = '{B}' WHERE tenant_id = '{A}'")
        participant, at = scene.participant(), move(4, forward=False)
        plan = participant.inspect(KEY, A, B, live_id=B)
        strange = {"bill": f"('{A}', 999, 1, 'x', 'z')", "box": f"(9999, '{A}', 1)"}[table]
        scene.sql(f"INSERT INTO {table} VALUES {strange}")
        with pytest.raises(Refused, match=rf"{table}.* 1 rows|{table} \(1\)"):
            participant.stage(at, plan, lambda _step: None)
        assert scene.sql(f"SELECT COUNT(*) FROM {table} WHERE tenant_id = '{A}'") == [(1,)]


class BarrierContract:
    """The barrier's two transactions, and what may come between them."""

    @staticmethod
    def fenced(scene: Scene) -> Play:
        """A controller died right after the first transaction."""
        play = Play(scene, turned=False)
        play.epoch = 2

        def die(*_arguments: object) -> None:
            raise KeyboardInterrupt

        shift, play.participant._shift = play.participant._shift, die  # type: ignore[attr-defined]
        play.participant.take_over(play.now())
        with pytest.raises(KeyboardInterrupt):
            play.participant.barrier(play.now(), WAIT_MS)
        play.participant._shift = shift  # type: ignore[attr-defined]
        found = play.status()
        assert (found.state, found.live_id, found.fenced, found.problems) == (FENCED, A, (A, B), ())
        return play

    def test_a_repeated_barrier_goes_on(self, scene: Scene) -> None:
        play = self.fenced(scene)
        play.participant.barrier(play.now(), WAIT_MS)
        assert play.status().state == MOVED
        play.participant.confirm(play.now())
        play.participant.turn(play.now())
        play.live = B
        play.switch()

    def test_another_controller_goes_on(self, scene: Scene) -> None:
        play = self.fenced(scene)
        play.epoch = 3
        play.participant.take_over(play.now())
        play.participant.barrier(play.now(), WAIT_MS)
        assert play.status().state == MOVED

    def test_undo_goes_back(self, scene: Scene) -> None:
        play = Play(scene, turned=False)
        rows = scene.rows()
        play.participant.close()
        play = self.fenced(scene)
        play.participant.undo(play.now())
        assert (scene.rows(), play.status().state, play.status().fenced) == (rows, STAGED, (B,))
        with pytest.raises(Superseded, match="epoch 2 .* finished"):
            play.participant.barrier(play.now(), WAIT_MS)
        play.switch()

    def test_the_second_transaction_of_an_older_epoch_is_refused(self, scene: Scene) -> None:
        play = self.fenced(scene)
        old = play.now()
        play.epoch = 3
        other = scene.participant()
        other.take_over(play.now())

        def shift(connection: object, state: object) -> object:
            return play.participant._shift(connection, state, old)  # type: ignore[attr-defined]

        with pytest.raises(Superseded, match="epoch 3"):
            play.participant.in_window(old, WAIT_MS, shift)  # type: ignore[attr-defined]
        assert play.status().state == FENCED

    @pytest.mark.parametrize("verb", ["undo", "turn"])
    def test_a_finished_epoch_has_no_barrier(self, scene: Scene, verb: str) -> None:
        play = Play(scene, turned=verb == "turn")
        if verb == "undo":  # it has nothing to do
            play.epoch = 2
            play.participant.take_over(play.now())
            play.participant.undo(play.now())
        with pytest.raises(Superseded, match="epoch 2 .* finished"):
            play.participant.barrier(play.now(), WAIT_MS)
        assert play.status().state == STAGED
        play.switch()

    @pytest.mark.parametrize("table", ["bill", "box"])
    def test_a_fence_that_is_switched_off_is_found(self, scene: Scene, table: str) -> None:
        play = self.fenced(scene)
        scene.drop_trigger(table)
        for _again in range(2):
            with pytest.raises(Refused, match=f"fence of|triggers on {table}"):
                play.participant.barrier(play.now(), WAIT_MS)
        assert play.status().state == FENCED
        play.participant.undo(play.now())
        play.stage()
        play.switch()
        play.epoch += 1
        play.participant.take_over(play.now())
        play.participant.barrier(play.now(), WAIT_MS)
        play.participant.confirm(play.now())
        scene.drop_trigger(table)
        with pytest.raises(Refused, match=f"fence of|triggers on {table}"):
            play.participant.confirm(play.now())


class TwinContract:
    """Twins that differ although no trigger was touched."""

    differences = pytest.mark.parametrize(
        ("table", "key", "statement"),
        [
            ("bill", "7", "UPDATE bill SET v = 55 WHERE tenant_id = LIVE AND id = 7"),
            ("bill", "7", "UPDATE bill SET extra = 'X' WHERE tenant_id = OTHER AND id = 7"),
            ("bill", "7", "DELETE FROM bill WHERE tenant_id = OTHER AND id = 7"),
            ("bill", "7", "DELETE FROM bill WHERE tenant_id = LIVE AND id = 7"),
            ("line", "777, 7", "INSERT INTO line VALUES (OTHER, 777, 7, 0)"),
        ],
    )

    @turned
    @differences
    def test_a_difference_is_named_and_repaired_on_request(
        self, scene: TwinScene, turned: bool, table: str, key: str, statement: str
    ) -> None:
        play = Play(scene, turned)
        scene.unlogged(statement.replace("LIVE", f"'{play.live}'").replace("OTHER", f"'{play.other}'"))
        before = scene.rows()
        for _again in range(2):
            with pytest.raises(Refused, match=rf"rows differ from their copies: {table} \({key}\)") as caught:
                play.stage()
            assert caught.value.details["differing"] == {table: [key]}
            assert scene.rows() == before
            assert any(table in sentence for sentence in play.status().unready)
            refused(play, table)
        had = f"SELECT COUNT(*) FROM {table} WHERE tenant_id = '{play.other}'"
        twins = scene.sql(f"{had} AND {'bill = 777' if table == 'line' else 'id = 7'}") != [(0,)]
        with writing(scene, play.live):
            play.stage(Care(repair=True))
        assert {step["table"]: step["mended"] for step in play.told if "mended" in step} == {table: key}
        kept = scene.kept()
        assert [name for name, _row in kept] == [table] * twins
        assert all(row["tenant_id"] == play.other for _name, row in kept)
        assert (play.status().unready, play.status().problems) == ((), ())
        play.switch()
        play.switch()

    def test_a_fresh_comparison_is_not_repeated(self, scene: TwinScene) -> None:
        play = Play(scene, turned=False)
        assert play.status().compared_s is not None
        scene.unlogged(f"UPDATE bill SET v = 55 WHERE tenant_id = '{A}' AND id = 7")
        play.stage(Care(compare_after_s=3600))
        play.stage(Care(compare_after_s=None))
        with pytest.raises(Refused, match="rows differ"):
            play.stage(Care(compare_after_s=0))


def refused(play: Play, table: str) -> None:
    """No window begins, and nothing is changed by the attempt."""
    tables = [name for name in ("bill", "line", "box") if name != table]
    rows = {name: sorted(play.scene.sql(f"SELECT * FROM {name}"), key=repr) for name in tables}
    for verb in ("prelude", "barrier"):
        at = move(play.epoch + 1, play.live == A)
        if verb == "prelude" or not any("copies" in sentence for sentence in play.status().unready):
            with pytest.raises(Refused, match=table):
                getattr(play.participant, verb)(at, WAIT_MS)
    found = play.status()
    assert (found.state, found.live_id) == (STAGED, play.live)
    assert {name: sorted(play.scene.sql(f"SELECT * FROM {name}"), key=repr) for name in tables} == rows
