# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole runs over a store whose answers get lost: they go on, or say what nobody knows."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import (
    InputError,
    OutcomeUnknown,
    Refused,
    Superseded,
    Unreachable,
)
from ansible_collections.zdm.landscape.plugins.module_utils.migration import guardian as guardian_module
from ansible_collections.zdm.landscape.plugins.module_utils.migration import window as window_module
from ansible_collections.zdm.landscape.plugins.module_utils.migration.finalize import finalize
from ansible_collections.zdm.landscape.plugins.module_utils.migration.guardian import recover
from ansible_collections.zdm.landscape.plugins.module_utils.migration.stage import catch_up, remove
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import CLAIMS, MIGRATIONS, ONBOARDED
from ansible_collections.zdm.landscape.tests.unit.store.lossy import ANSWERED, LANDED, LATE, LOST, LossyStore, Sent

from .conftest import A, B, Small

LOSSES = [LANDED, LOST, LATE]


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_module, "PATIENCE_MS", 300)
    monkeypatch.setattr(guardian_module, "_PAUSE_S", 0.01)


def landscape() -> tuple[Small, LossyStore]:
    store = LossyStore()
    small = Small(store)  # type: ignore[arg-type]
    small.stage()
    small.log.clear()
    store.sent.clear()
    return small, store


@pytest.fixture(name="scene")
def _scene() -> tuple[Small, LossyStore]:
    return landscape()


def phase_of(sent: Sent) -> str:
    return sent.body["phase"] if sent.collection == MIGRATIONS else ""


def unanswered(store: LossyStore, *phases: str, answer: str = LATE) -> None:
    """From now on writes of these phases stay without an answer."""
    store.fate = lambda sent: answer if phase_of(sent) in phases else ANSWERED


def silent(store: LossyStore, phase: str) -> None:
    """From the first write of *phase* on nothing is answered any more."""
    store.fate = lambda _sent: LATE if any(phase_of(sent) == phase for sent in store.sent) else ANSWERED


def each_write_loses_its_answer(run: Any, answer: str, least: int) -> None:
    """*run* gets a landscape in which the n-th write to the store has no answer, for every n."""
    number, number_of_writes = 0, least
    while number < number_of_writes:
        small, store = landscape()
        store.fate = lambda sent, at=number + 1, to=store: answer if len(to.sent) == at else ANSWERED  # type: ignore[misc]
        run(small)
        number_of_writes = len(store.sent)
        assert store.land() == [], f"write {number}, {store.sent[number].what}, lands when all is over"
        number += 1
    assert number > least


# -- every single write
# ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", LOSSES)
def test_a_window_goes_on_whichever_answer_is_lost(answer: str) -> None:
    def run(small: Small) -> None:
        small.cutover().switch(B, int)
        small.assert_agreed(B)

    each_write_loses_its_answer(run, answer, 12)


@pytest.mark.parametrize("answer", LOSSES)
def test_an_undo_goes_on_whichever_answer_is_lost(answer: str) -> None:
    def run(small: Small) -> None:
        small.log.failures["bills", "barrier"] = [Refused("bills refuses.")]
        with pytest.raises(Refused, match="bills refuses") as caught:
            small.cutover().switch(B, int)
        assert caught.value.details == {"undone": True}
        small.assert_agreed(A)

    each_write_loses_its_answer(run, answer, 10)


@pytest.mark.parametrize("answer", LOSSES)
def test_a_found_window_is_undone_whichever_answer_is_lost(answer: str) -> None:
    def run(small: Small) -> None:
        outcome = small.cutover().abort()
        assert outcome.recovered == []
        journal = small.journal()
        journal.take_over(open_window=True, move_from=A.id, move_to=B.id)
        journal.release_owner()
        assert small.cutover().switch(B, int).recovered == ["W"]
        small.assert_agreed(B)

    each_write_loses_its_answer(run, answer, 15)


@pytest.mark.parametrize("answer", LOSSES)
def test_stage_and_its_way_back_go_on_whichever_answer_is_lost(answer: str) -> None:
    def run(small: Small) -> None:
        parties = small.parties()
        assert remove(small.store, small.journal(), parties, small.participants)
        assert not any(document.body["migration"] for document in small.store.list(CLAIMS))
        small.stage()
        small.assert_agreed(A)

    each_write_loses_its_answer(run, answer, 15)


@pytest.mark.parametrize("answer", LOSSES)
def test_the_end_of_the_transition_comes_whichever_answer_is_lost(answer: str) -> None:
    def run(small: Small) -> None:
        small.cutover().switch(B, int)
        finalize(small.store, small.journal(), small.parties(), small.participants)
        assert small.journal().ended
        assert not any(document.body["migration"] for document in small.store.list(CLAIMS))

    each_write_loses_its_answer(run, answer, 20)


# -- heartbeats
# ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lands", ["at once", "before the next write"])
def test_a_window_goes_on_after_heartbeats_without_an_answer(scene: tuple[Small, LossyStore], lands: str) -> None:
    small, store = scene
    cutover = small.cutover()

    def beat(_step: dict[str, Any]) -> None:
        store.fate = lambda _sent: LANDED if lands == "at once" else LATE
        with pytest.raises(OutcomeUnknown):
            cutover.journal.beat()

        def land_first(_sent: Sent) -> str:
            store.fate = lambda _sent: ANSWERED
            store.land()
            return ANSWERED

        store.fate = land_first

    cutover.tell = beat
    cutover.switch(B, int)
    small.assert_agreed(B)
    assert [entry["step"] for entry in cutover.outcome.timeline][-1] == "journal_idle"


# -- the commit
# ------------------------------------------------------------------------------------------------------------------


def test_a_commit_that_lands_while_it_is_to_be_undone_is_finished(scene: tuple[Small, LossyStore]) -> None:
    small, store = scene

    def fate(sent: Sent) -> str:
        if phase_of(sent) == "U":
            store.fate = lambda _sent: ANSWERED
            store.land()
            return ANSWERED
        return LATE if phase_of(sent) == "K" else ANSWERED

    store.fate = fate
    small.cutover().switch(B, int)
    small.assert_agreed(B)
    assert not small.log.of("undo")


@pytest.mark.parametrize("answer", [LOST, LATE])
def test_a_commit_that_can_not_land_any_more_is_undone_and_not_called_unknown(
    scene: tuple[Small, LossyStore], answer: str
) -> None:
    small, store = scene
    unanswered(store, "K", answer=answer)
    with pytest.raises(Unreachable, match="migrations/a--b could not be written") as caught:
        small.cutover().switch(B, int)
    assert caught.value.details == {"undone": True}
    assert "The window was undone: all is as before." in str(caught.value)
    assert store.land() == []
    small.assert_agreed(A)


@pytest.mark.parametrize("lands", ["K", "U", ""])
def test_a_run_that_knows_nothing_of_its_commit_undoes_nothing_and_says_so(
    scene: tuple[Small, LossyStore], lands: str
) -> None:
    small, store = scene
    silent(store, "K")
    with pytest.raises(OutcomeUnknown, match="said whether migrations/a--b was written: it is closed or") as caught:
        small.cutover().switch(B, int)
    assert caught.value.details == {"undone": False, "phase": "C", "unknown": "migrations/a--b"}
    assert "The undo did not finish, the tenants stay held (closed or undoing or committed)" in str(caught.value)
    assert "Run the same command again" in str(caught.value)
    assert not small.log.of("undo", "turn", "map", "release")
    store.fate = lambda _sent: ANSWERED
    if lands:
        store.land(*(sent for sent in tuple(store.late) if phase_of(sent) == lands))
    outcome = small.cutover().switch(B, int, force=True)
    assert outcome.recovered == [lands or "C"]
    small.assert_agreed(B)
    assert store.land() == []


def test_an_undo_without_an_answer_is_not_called_done(scene: tuple[Small, LossyStore]) -> None:
    small, store = scene
    small.log.failures["bills", "barrier"] = [Refused("bills refuses.")]
    unanswered(store, "U")
    with pytest.raises(Refused, match="bills refuses") as caught:
        small.cutover().switch(B, int)
    assert caught.value.details == {"undone": False, "phase": "C", "unknown": "migrations/a--b"}
    assert "it is closed or undoing" in str(caught.value)
    assert not small.log.of("undo")


def test_a_close_without_an_answer_leaves_blocks_that_end_by_themselves(scene: tuple[Small, LossyStore]) -> None:
    small, store = scene
    unanswered(store, "C", "U")
    with pytest.raises(OutcomeUnknown) as caught:
        small.cutover().switch(B, int)
    assert caught.value.details == {"undone": False, "phase": "W", "unknown": "migrations/a--b"}
    assert "Nothing was fenced; the blocks end by themselves" in str(caught.value)
    assert not any(block.far for router in small.routers for block in router.blocks.values())
    store.fate = lambda _sent: ANSWERED
    store.land()
    small.cutover().abort(force=True)
    small.assert_agreed(A)


def test_a_run_that_is_superseded_while_it_undoes_says_so(scene: tuple[Small, LossyStore]) -> None:
    small, store = scene
    small.log.failures["bills", "barrier"] = [Refused("bills refuses.")]

    def fate(sent: Sent) -> str:
        if phase_of(sent) == "U":
            store.fate = lambda _sent: ANSWERED
            small.journal().take_over(open_window=False, move_from=A.id, move_to=B.id, force=True)
        return ANSWERED

    store.fate = fate
    with pytest.raises(Superseded, match="changed by somebody else"):
        small.cutover().switch(B, int)
    assert not small.log.of("undo")


def test_a_step_without_an_answer_is_repeated_after_the_commit(scene: tuple[Small, LossyStore]) -> None:
    small, _store = scene
    small.log.failures["bills", "turn"] = [OutcomeUnknown("bills gives no answer.")]
    small.cutover().switch(B, int)
    small.assert_agreed(B)


@pytest.mark.parametrize("phase", ["R", "I"])
def test_after_the_commit_a_run_that_gives_up_says_what_is_unknown(scene: tuple[Small, LossyStore], phase: str) -> None:
    small, store = scene
    store.fate = lambda sent: LATE if phase_of(sent) == phase and sent.body["canonical"] == B.id else ANSWERED
    with pytest.raises(OutcomeUnknown, match="said whether migrations/a--b was written") as caught:
        small.cutover().switch(B, int)
    assert caught.value.details == {"unknown": "migrations/a--b"}
    store.fate = lambda _sent: ANSWERED
    small.cutover().switch(B, int, force=True)
    small.assert_agreed(B)


# -- the take over
# ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lands", [False, True])
def test_a_run_that_does_not_know_whether_it_took_over_touches_nothing(
    scene: tuple[Small, LossyStore], lands: bool
) -> None:
    small, store = scene
    unanswered(store, "W")
    with pytest.raises(OutcomeUnknown, match="it is idle or window open") as caught:
        small.cutover().switch(B, int)
    assert caught.value.details == {"unknown": "migrations/a--b"}
    assert not small.log.of("take_over", "lease", "undo")
    store.fate = lambda _sent: ANSWERED
    if lands:
        store.land()
    assert small.cutover().switch(B, int, force=True).recovered == (["W"] if lands else [])
    small.assert_agreed(B)


def died_closed(small: Small) -> Any:
    """A run has died in C, while a heartbeat of it is under way."""
    store: Any = small.store
    dead = small.journal()
    dead.take_over(open_window=True, move_from=A.id, move_to=B.id)
    dead.advance("W", "C")
    store.fate = lambda _sent: LATE
    with pytest.raises(OutcomeUnknown):
        dead.beat()
    store.fate = lambda _sent: ANSWERED
    return dead


@pytest.mark.parametrize("way", ["switch", "abort"])
def test_a_beaten_take_over_begins_again(scene: tuple[Small, LossyStore], way: str) -> None:
    small, store = scene
    died_closed(small)

    def fate(sent: Sent) -> str:
        if sent.collection == MIGRATIONS:
            store.fate = lambda _sent: ANSWERED
            store.land()
        return ANSWERED

    store.fate = fate
    if way == "switch":
        assert small.cutover().switch(B, int, force=True).recovered == ["C"]
    else:
        assert small.cutover().abort(force=True).recovered == ["C"]
    small.assert_agreed(B if way == "switch" else A)


@pytest.mark.parametrize("way", ["stage", "catch_up", "remove", "finalize"])
def test_what_comes_between_two_windows_begins_again_too(scene: tuple[Small, LossyStore], way: str) -> None:
    small, store = scene
    if way == "finalize":
        small.cutover().switch(B, int)
    if way == "stage":
        remove(small.store, small.journal(), small.parties(), small.participants)
    dead = small.journal()
    dead.take_over(open_window=False, move_from=A.id, move_to=B.id)
    dead.release_owner()
    store.fate = lambda _sent: LATE
    with pytest.raises(OutcomeUnknown):
        dead.beat()

    def fate(sent: Sent) -> str:
        if sent.collection == MIGRATIONS:
            store.fate = lambda _sent: ANSWERED
            assert store.land()
        return ANSWERED

    store.fate = fate
    rest = (small.journal(), small.parties(), small.participants)
    if way == "stage":
        small.stage()
    elif way == "catch_up":
        assert catch_up(*rest) == {"bills": 0, "rating": 0}
    else:
        (remove if way == "remove" else finalize)(small.store, *rest)
    assert small.journal().body["epoch"] == dead.epoch + 1
    assert small.journal().body["owner"] is None


def test_a_preflight_that_takes_over_itself_does_not_beat_its_own_window(scene: tuple[Small, LossyStore]) -> None:
    small, _store = scene
    asked = []

    def preflight() -> int:
        asked.append(1)
        catch_up(small.journal(), small.parties(), small.participants)
        return 0

    small.cutover().switch(B, preflight)
    small.assert_agreed(B)
    assert asked == [1]


def test_a_switch_that_another_run_has_done_meanwhile_is_not_done_again(scene: tuple[Small, LossyStore]) -> None:
    small, _store = scene

    def preflight() -> int:
        small.cutover().switch(B, int)
        return 0

    assert not small.cutover().switch(B, preflight).changed
    small.assert_agreed(B)


# -- the guardian
# ------------------------------------------------------------------------------------------------------------------


def test_a_guardian_whose_take_over_landed_late_goes_on_with_it(
    scene: tuple[Small, LossyStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ansible_collections.zdm.landscape.plugins.module_utils.migration import journal as journal_module

    monkeypatch.setattr(journal_module, "STALE_MS", 50)
    small, store = scene
    journal = small.journal()
    journal.take_over(open_window=True, move_from=A.id, move_to=B.id)
    journal.advance("W", "C")
    journal.release_owner()
    store.fate = lambda sent: LATE if sent.collection == MIGRATIONS else ANSWERED
    builds = []

    def build() -> Any:
        builds.append(1)
        if len(builds) == 2:
            store.fate = lambda _sent: ANSWERED
            assert store.land()
        return nullcontext(small.cutover())

    recover(build, journal.epoch, 5)
    small.assert_agreed(A)
    assert small.journal().end["outcome"] == "undone"


# -- mapping documents
# ------------------------------------------------------------------------------------------------------------------


def test_an_account_that_is_offboarded_in_the_window_stays_offboarded(scene: tuple[Small, LossyStore]) -> None:
    small, store = scene

    def offboard() -> bool:
        document = store.get(ONBOARDED, "c")
        if small.log[-1][1] == "prelude" and document:
            store.put(ONBOARDED, "c", {"format": 1}, document.revision)
        return False

    small.cutover(offboard).switch(B, int)
    document = store.get(ONBOARDED, "c")
    assert document
    assert document.emptied
    assert small.leads_to("a") == "b"


def test_a_tenant_that_was_offboarded_is_not_onboarded(scene: tuple[Small, LossyStore]) -> None:
    small, store = scene
    document = store.get(ONBOARDED, "b")
    assert document
    store.put(ONBOARDED, "b", {"format": 1}, document.revision)
    with pytest.raises(InputError, match="b is not onboarded"):
        small.parties()


def test_documents_of_a_newer_epoch_end_a_run_whose_write_was_late(scene: tuple[Small, LossyStore]) -> None:
    small, store = scene

    def fate(sent: Sent) -> str:
        if sent.collection == ONBOARDED:
            store.fate = lambda _sent: ANSWERED
            newer = small.journal()
            newer.take_over(open_window=False, move_from=A.id, move_to=B.id, force=True)
            store.write(sent._replace(body={**sent.body, "epoch": newer.epoch}))
            return LOST
        return ANSWERED

    store.fate = fate
    with pytest.raises(Superseded):
        small.cutover().switch(B, int)
    small.cutover().switch(B, int, force=True)
    small.assert_agreed(B)
