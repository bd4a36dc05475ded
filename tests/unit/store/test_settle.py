# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare-and-sets without an answer: what was decided stays so, whatever lands later."""

from __future__ import annotations

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import OutcomeUnknown, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.store import settle
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import CLAIMS, WRITE_ID, Document
from ansible_collections.zdm.landscape.plugins.module_utils.store.settle import Decision, decide
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
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "SETTLE_MS", 100)
    monkeypatch.setattr(settle, "_PAUSE_S", 0.001)


def ask(store: LossyStore, revision: str | None = None) -> Decision:
    return decide(store, CLAIMS, "a", {"n": 1}, revision)


def others(store: LossyStore, revision: str | None = None) -> Document:
    return store.write(Sent(CLAIMS, "a", {"n": 2, WRITE_ID: "another's"}, revision))


def test_a_write_with_an_answer_is_sent_once_under_an_id_of_its_own() -> None:
    store = LossyStore()
    first = ask(store)
    assert first.found == first.ours
    assert first.ours
    second = ask(store, first.ours.revision)
    assert second.ours
    assert first.ours.body[WRITE_ID] != second.ours.body[WRITE_ID]
    assert [sent.body["n"] for sent in store.sent] == [1, 1]


@pytest.mark.parametrize("answer", [LANDED, LOST, LATE])
@pytest.mark.parametrize("times", [1, 3])
def test_a_write_without_an_answer_is_sent_again_on_the_same_revision(answer: str, times: int) -> None:
    store = LossyStore()
    before = others(store)
    store.fate = fates([answer] * times)
    decision = ask(store, before.revision)
    assert decision.ours
    assert decision.ours == decision.found == store.get(CLAIMS, "a")
    assert {sent.revision for sent in store.sent} == {before.revision}
    assert len({sent.body[WRITE_ID] for sent in store.sent}) == times + 1
    assert store.land() == []


def test_the_first_of_its_writes_may_be_the_one_that_lands() -> None:
    store = LossyStore()

    def fate(sent: Sent) -> str:
        if len(store.sent) == 1:
            return LATE
        store.land()
        return ANSWERED

    store.fate = fate
    decision = ask(store)
    assert decision.ours
    assert decision.ours.body[WRITE_ID] == store.sent[0].body[WRITE_ID]


@pytest.mark.parametrize("answer", [LOST, LATE, ANSWERED])
def test_a_write_that_somebody_else_was_faster_than_is_lost_for_good(answer: str) -> None:
    store = LossyStore()

    def fate(sent: Sent) -> str:
        if len(store.sent) == 1:
            if answer == ANSWERED:
                others(store)
            return answer
        if not store.documents:
            others(store)
        return ANSWERED

    store.fate = fate
    decision = ask(store)
    assert decision.ours is None
    assert decision.found
    assert decision.found.body[WRITE_ID] == "another's"
    assert store.land() == []


def test_a_document_that_somebody_deletes_is_lost_too() -> None:
    store = LossyStore()
    before = others(store)
    store.delete(CLAIMS, "a", before.revision)
    assert ask(store, before.revision) == Decision(None, None)


def test_whoever_gives_up_says_what_nobody_knows() -> None:
    store = LossyStore(lambda _sent: LATE)
    with pytest.raises(OutcomeUnknown, match="No answer of the store in memory said whether claims/a was written") as e:
        ask(store)
    assert e.value.details == {"unknown": "claims/a"}
    assert "run the same command again" in e.value.advice
    assert len(store.sent) > 2
    assert len(store.land()) == 1


def test_without_patience_a_write_is_sent_once() -> None:
    store = LossyStore(lambda _sent: LOST)
    with pytest.raises(OutcomeUnknown):
        decide(store, CLAIMS, "a", {}, None, patience_ms=0)
    assert len(store.sent) == 1


def test_a_store_that_is_not_there_has_written_nothing() -> None:
    store = LossyStore(lambda _sent: REFUSED)
    with pytest.raises(Unreachable):
        ask(store)
    assert len(store.sent) == 1


def test_a_store_that_goes_away_while_a_write_is_under_way_has_decided_nothing() -> None:
    store = LossyStore(fates([LATE, REFUSED, REFUSED]))
    assert ask(store).ours
    store = LossyStore(fates([LATE, *[REFUSED] * 10_000]))
    with pytest.raises(OutcomeUnknown):
        ask(store)


def test_a_conflict_whose_read_shows_the_old_revision_decides_nothing() -> None:
    """A replica that is behind."""
    store = LossyStore()
    before = others(store)
    newer = others(store, before.revision)
    stale, get = [before, before], store.get
    store.get = lambda *name: stale.pop() if stale else get(*name)  # type: ignore[method-assign]
    assert ask(store, before.revision) == Decision(newer, None)
    assert len(store.sent) == 3


@hypothesis_settings(deadline=None, database=None)
@given(st.lists(st.sampled_from([LANDED, LOST, LATE, REFUSED, "another", "late lands"]), max_size=8))
def test_what_is_decided_stays_so(answers: list[str]) -> None:
    store, left = LossyStore(), list(answers)

    def fate(sent: Sent) -> str:
        answer = left.pop(0) if left else ANSWERED
        if answer == "another" and not store.documents:
            others(store)
        elif answer == "late lands" and store.late:
            store.land(store.late[-1])
        return answer if answer in (LANDED, LOST, LATE, REFUSED) else ANSWERED

    store.fate = fate
    try:
        decision = ask(store)
    except Unreachable:
        assert (store.late, store.written) == ([], [])
        return
    assert store.land() == []
    assert decision.found == store.get(CLAIMS, "a")
    assert len(store.written) == 1
    assert bool(decision.ours) == (store.written[0].body["n"] == 1)
