# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal over a store whose answers get lost: whose write it is that stands there, and what may follow from it."""

from __future__ import annotations

import time
from contextlib import nullcontext

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import OutcomeUnknown, Refused, Superseded
from ansible_collections.zdm.landscape.plugins.module_utils.migration import journal as journal_module
from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import Beaten, Journal, begins_again
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import MIGRATIONS, WRITE_ID
from ansible_collections.zdm.landscape.tests.unit.store.lossy import (
    ANSWERED,
    LANDED,
    LATE,
    LOST,
    REFUSED,
    LossyStore,
    Sent,
    fates,
)

from .conftest import A, B

LOSSES = [LANDED, LOST, LATE]


@pytest.fixture
def store() -> LossyStore:
    return LossyStore()


def read(store: LossyStore) -> Journal:
    return Journal(store, A, B).read()


def take_over(journal: Journal, *, opens: bool = False, force: bool = False) -> Journal:
    journal.take_over(open_window=opens, move_from=A.id, move_to=B.id, force=force)
    return journal


def closed(store: LossyStore) -> Journal:
    """A run that has closed its window."""
    journal = take_over(read(store), opens=True)
    journal.advance("W", "C")
    return journal


def stands(store: LossyStore) -> tuple[int, str]:
    body = store.documents[MIGRATIONS, "a--b"].body
    return body["epoch"], body["phase"]


def late_heartbeat(store: LossyStore, journal: Journal) -> Sent:
    """A heartbeat of *journal* is under way."""
    store.fate = fates([LATE])
    with pytest.raises(OutcomeUnknown):
        journal.beat()
    return store.late[-1]


# -- the take over: ids decide
# ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", LOSSES)
@pytest.mark.parametrize("existing", [False, True])
def test_a_take_over_without_an_answer_is_settled(store: LossyStore, answer: str, existing: bool) -> None:
    if existing:
        take_over(read(store)).release_owner()
    store.fate = fates([answer, answer])
    journal = take_over(read(store), opens=True)
    assert (journal.epoch, journal.phase) == stands(store) == (2 if existing else 1, "W")
    assert store.land() == []
    journal.advance("W", "C")


def test_another_run_under_the_same_number_is_somebody_else(store: LossyStore) -> None:
    """Both have read epoch 1. The number alone would make two owners of epoch 2."""
    take_over(read(store)).release_owner()
    mine, other = read(store), read(store)

    def fate(_sent: Sent) -> str:
        store.fate = lambda _sent: ANSWERED
        take_over(other)
        return LOST

    store.fate = fate
    with pytest.raises(Superseded, match="changed by somebody else") as caught:
        take_over(mine)
    assert not isinstance(caught.value, Beaten)
    assert (mine.epoch, other.epoch) == (0, 2)
    with pytest.raises(Superseded):
        mine.note()


def test_another_run_that_makes_the_journal_first_is_somebody_else(store: LossyStore) -> None:
    mine, other = read(store), read(store)

    def fate(_sent: Sent) -> str:
        store.fate = lambda _sent: ANSWERED
        take_over(other)
        return ANSWERED

    store.fate = fate
    with pytest.raises(Superseded) as caught:
        take_over(mine)
    assert not isinstance(caught.value, Beaten)


def test_a_run_that_was_taken_over_at_once_does_not_take_its_own_id_for_granted(store: LossyStore) -> None:
    """Its take over has landed, but the next run's stands there when it is settled."""

    def fate(sent: Sent) -> str:
        store.fate = lambda _sent: ANSWERED
        store.land(sent)
        take_over(read(store), force=True)
        return LOST

    store.fate = fate
    with pytest.raises(Superseded):
        take_over(read(store))
    assert stands(store) == (2, "I")


@pytest.mark.parametrize("answer", [ANSWERED, LOST, LATE])
def test_a_late_write_of_the_run_that_is_taken_over_begins_the_take_over_again(store: LossyStore, answer: str) -> None:
    former = closed(store)
    heartbeat = late_heartbeat(store, former)
    journal = read(store)

    def fate(_sent: Sent) -> str:
        store.fate = lambda _sent: ANSWERED
        store.land(heartbeat)
        return answer

    store.fate = fate
    with pytest.raises(Beaten):
        take_over(journal, force=True)
    assert stands(store) == (1, "C")
    assert take_over(journal.read(), force=True).epoch == 2


def test_it_chooses_again_by_what_it_reads_then(store: LossyStore) -> None:
    """A run that found W would undo it; by now it is committed."""
    former = closed(store)
    store.fate = fates([LATE] * 1_000)
    with pytest.raises(OutcomeUnknown):
        former.advance("C", "K", canonical=B.id)
    store.fate = lambda _sent: ANSWERED
    journal, found = Journal(store, A, B), list[str]()

    def fate(_sent: Sent) -> str:
        store.fate = lambda _sent: ANSWERED
        store.land()
        return LOST

    store.fate = fate

    @begins_again
    def run() -> None:
        found.append(journal.read().phase)
        take_over(journal, force=True)

    run()
    assert found == ["C", "K"]
    assert stands(store) == (2, "K")


def test_before_it_begins_again_it_looks_for_a_live_owner(store: LossyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that seemed to be dead wakes: its late heartbeat beats the take over, and more follow."""
    monkeypatch.setattr(journal_module, "STALE_MS", 150)
    monkeypatch.setattr(journal_module, "HEARTBEAT_MS", 10)
    former = closed(store)
    heartbeat, attempts = late_heartbeat(store, former), list[int]()

    def fate(_sent: Sent) -> str:
        store.fate = lambda _sent: ANSWERED
        store.land(heartbeat)
        return LOST

    store.fate = fate

    @begins_again
    def run() -> None:
        attempts.append(1)
        with former.heartbeat() if len(attempts) > 1 else nullcontext():
            take_over(read(store))

    with pytest.raises(Refused, match="is driven by"):
        run()
    assert (len(attempts), stands(store)) == (2, (1, "C"))


def test_a_run_that_is_beaten_again_and_again_gives_up(store: LossyStore) -> None:
    former, attempts = closed(store), list[int]()

    def fate(sent: Sent) -> str:
        if sent.body["epoch"] == 2:
            former.beat()
        return ANSWERED

    store.fate = fate

    @begins_again
    def run() -> None:
        attempts.append(1)
        take_over(read(store), force=True)

    with pytest.raises(Beaten, match="changed by somebody else"):
        run()
    assert len(attempts) == 10
    assert stands(store) == (1, "C")


@pytest.mark.parametrize("step", ["another take over", "another phase"])
def test_what_was_chosen_by_an_older_journal_is_chosen_again(store: LossyStore, step: str) -> None:
    former = closed(store)
    journal = read(store)
    if step == "another phase":
        former.advance("C", "K", canonical=B.id)
    else:
        take_over(read(store), force=True)
    before = stands(store)
    with pytest.raises(Beaten):
        take_over(journal, force=True)
    assert stands(store) == before


@pytest.mark.parametrize("landing", [False, True])
def test_a_take_over_that_gives_up_names_the_journal_and_what_it_may_be(store: LossyStore, landing: bool) -> None:
    store.fate = lambda _sent: LATE
    journal = read(store)
    with pytest.raises(OutcomeUnknown, match="said whether migrations/a--b was written: it is idle or window") as e:
        take_over(journal, opens=True)
    assert e.value.details == {"unknown": "migrations/a--b"}
    assert journal.epoch == 0
    store.fate = lambda _sent: ANSWERED
    if landing:
        store.land()
    assert take_over(read(store), force=True).epoch == (2 if landing else 1)


# -- after it: the epoch decides
# ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", LOSSES)
def test_a_change_of_phase_without_an_answer_is_settled(store: LossyStore, answer: str) -> None:
    journal = closed(store)
    store.fate = fates([answer])
    journal.advance("C", "K", canonical=B.id)
    assert stands(store) == (1, "K")
    assert store.land() == []
    journal.advance("K", "R")


@pytest.mark.parametrize("answer", [ANSWERED, *LOSSES])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_an_own_heartbeat_that_landed_is_not_somebody_else(store: LossyStore, answer: str, when: str) -> None:
    journal = closed(store)
    heartbeat = late_heartbeat(store, journal)
    if when == "before":
        store.land()

    def fate(_sent: Sent) -> str:
        store.fate = lambda _sent: ANSWERED
        if heartbeat in store.late:
            store.land(heartbeat)
        return answer

    store.fate = fate
    journal.advance("C", "K", canonical=B.id)
    assert stands(store) == (1, "K")
    assert journal.canonical == B.id
    assert store.land() == []


@pytest.mark.parametrize("write", ["note", "beat", "advance", "begin_undo"])
@pytest.mark.parametrize("answer", [ANSWERED, LOST])
def test_under_another_epoch_nothing_is_written(store: LossyStore, write: str, answer: str) -> None:
    journal = closed(store)
    other = take_over(read(store), force=True)
    store.fate = fates([answer])
    what = {
        "note": lambda: journal.note(staged=True),
        "beat": journal.beat,
        "advance": lambda: journal.advance("C", "K"),
        "begin_undo": journal.begin_undo,
    }[write]
    # A heartbeat is sent once: without an answer it has learnt nothing yet.
    unanswered = write == "beat" and answer == LOST
    with pytest.raises(OutcomeUnknown if unanswered else Superseded):
        what()
    assert stands(store) == (2, "C")
    other.advance("C", "K")


@pytest.mark.parametrize("answer", [ANSWERED, LOST])
def test_an_edit_by_hand_is_not_taken_for_an_own_write(store: LossyStore, answer: str) -> None:
    journal = closed(store)
    document = store.documents[MIGRATIONS, "a--b"]
    store.write(Sent(MIGRATIONS, "a--b", {**document.body, "remark": "by hand"}, document.revision))
    store.fate = fates([answer])
    with pytest.raises(Superseded, match="changed by somebody else"):
        journal.advance("C", "K")
    assert stands(store) == (1, "C")


def test_a_note_is_written_on_what_a_late_heartbeat_has_left(store: LossyStore) -> None:
    journal = closed(store)
    late_heartbeat(store, journal)
    store.land()
    journal.note(drained_epoch=1)
    assert store.documents[MIGRATIONS, "a--b"].body["drained_epoch"] == 1


def test_a_heartbeat_without_an_answer_is_not_sent_again(store: LossyStore) -> None:
    journal = closed(store)
    sent = len(store.sent)
    late_heartbeat(store, journal)
    assert len(store.sent) == sent + 1


@pytest.mark.parametrize("taken_over", [False, True])
def test_heartbeats_end_only_when_another_epoch_is_read(
    store: LossyStore, monkeypatch: pytest.MonkeyPatch, taken_over: bool
) -> None:
    monkeypatch.setattr(journal_module, "HEARTBEAT_MS", 10)
    journal = closed(store)
    store.fate = fates([LANDED, LOST, LATE, REFUSED])
    with journal.heartbeat():
        deadline = time.monotonic() + 5
        while len(store.sent) < 10 and time.monotonic() < deadline:
            time.sleep(0.005)
        if taken_over:
            take_over(read(store), force=True)
            while not journal.lost and time.monotonic() < deadline:
                time.sleep(0.005)
    assert bool(journal.lost) == taken_over
    if taken_over:
        with pytest.raises(Superseded):
            journal.note()
    else:
        journal.advance("C", "K")


def test_every_write_has_an_id_of_its_own(store: LossyStore) -> None:
    store.fate = fates([LOST, ANSWERED, LANDED, LATE])
    journal = closed(store)
    journal.beat()
    journal.note(drained_epoch=1)
    journal.advance("C", "K")
    journal.release_owner()
    ids = [sent.body[WRITE_ID] for sent in store.sent]
    assert len(ids) == len(set(ids)) > 6


# -- U1 over a commit that nobody has decided
# ------------------------------------------------------------------------------------------------------------------


def unknown_commit(store: LossyStore, answer: str = LATE) -> Journal:
    journal = closed(store)
    store.fate = lambda _sent: answer
    with pytest.raises(OutcomeUnknown, match="it is closed or committed"):
        journal.advance("C", "K", canonical=B.id)
    store.fate = lambda _sent: ANSWERED
    return journal


def test_the_undo_is_written_over_the_commit_which_can_not_land_then(store: LossyStore) -> None:
    journal = unknown_commit(store)
    assert store.late
    assert {sent.revision for sent in store.late} == {store.documents[MIGRATIONS, "a--b"].revision}
    assert journal.begin_undo()
    assert stands(store) == (1, "U")
    assert store.land() == []


@pytest.mark.parametrize("answer", [ANSWERED, *LOSSES])
def test_a_commit_that_has_landed_is_not_undone(store: LossyStore, answer: str) -> None:
    journal = unknown_commit(store)

    def fate(_sent: Sent) -> str:
        store.fate = lambda _sent: ANSWERED
        store.land()
        return answer

    store.fate = fate
    assert not journal.begin_undo()
    assert stands(store) == (1, "K")
    assert (journal.phase, journal.canonical) == ("K", B.id)
    journal.advance("K", "R")


def test_a_heartbeat_that_finds_the_commit_does_not_make_the_undo_a_strangers(store: LossyStore) -> None:
    journal = unknown_commit(store)
    store.land()
    journal.beat()
    assert not journal.begin_undo()
    assert stands(store) == (1, "K")


def test_a_heartbeat_that_lands_first_leaves_the_undo_legal(store: LossyStore) -> None:
    journal = unknown_commit(store)
    assert journal.may_be == "closed or committed"
    journal.beat()
    assert journal.may_be == "closed"
    assert store.land() == []
    assert journal.begin_undo()
    assert stands(store) == (1, "U")


def test_an_undo_without_an_answer_undoes_nothing(store: LossyStore) -> None:
    journal = unknown_commit(store)
    store.fate = lambda _sent: LATE
    with pytest.raises(OutcomeUnknown, match="it is closed or undoing or committed"):
        journal.begin_undo()
    assert journal.phase == "C"


@pytest.mark.parametrize("landed", [False, True])
def test_the_undo_of_a_window_whose_close_may_have_landed_knows_where_it_began(store: LossyStore, landed: bool) -> None:
    journal = take_over(read(store), opens=True)
    store.fate = lambda _sent: LATE
    with pytest.raises(OutcomeUnknown, match="it is window open or closed"):
        journal.advance("W", "C")
    store.fate = lambda _sent: ANSWERED
    if landed:
        store.land()
    assert journal.begin_undo()
    assert journal.body["undo_from"] == ("C" if landed else "W")
