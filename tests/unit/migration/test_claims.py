# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One tenant, one migration, whoever gives a claim back at which moment, and whatever answers get lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import OutcomeUnknown, Refused, Superseded
from ansible_collections.zdm.landscape.plugins.module_utils.migration.claims import Claims, claims_of, holder_of
from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import Journal
from ansible_collections.zdm.landscape.plugins.module_utils.migration.mapping import Parties
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import CLAIMS, Document
from ansible_collections.zdm.landscape.plugins.module_utils.store.file import FileStore
from ansible_collections.zdm.landscape.tests.unit.store.lossy import ANSWERED, LATE, LOST, LossyStore, Sent

from .conftest import A, B, C

PARTIES = Parties(A, B)
OTHER = Parties(B, C)


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    """A store in which nothing is claimed."""
    (tmp_path / "store").mkdir()
    return FileStore(tmp_path / "store")


def run(store: FileStore, parties: Parties = PARTIES) -> tuple[Journal, Claims]:
    journal = Journal(store, parties.source, parties.target).read()
    return journal, Claims(store, journal)


def take_over(journal: Journal) -> None:
    journal.take_over(open_window=False, move_from=journal.source.id, move_to=journal.target.id, force=True)


def holders(store: FileStore) -> dict[str, tuple[str, int]]:
    return {document.name: (holder_of(document), document.body["epoch"]) for document in store.list(CLAIMS)}


def test_claims_are_taken_then_written_under_the_own_epoch(store: FileStore) -> None:
    journal, claims = run(store)
    claims.take(PARTIES)
    assert holders(store) == {"a": ("a--b", 0), "b": ("a--b", 0)}
    take_over(journal)
    claims.confirm(PARTIES)
    assert holders(store) == {"a": ("a--b", 1), "b": ("a--b", 1)}
    revisions = [document.revision for document in store.list(CLAIMS)]
    claims.confirm(PARTIES)
    assert [document.revision for document in store.list(CLAIMS)] == revisions, "what is written is not written again"
    claims.give_back()
    assert holders(store) == {"a": ("", 1), "b": ("", 1)}
    assert claims_of(store, journal) == []


def test_a_run_that_gives_back_does_not_take_what_a_newer_run_has_found(store: FileStore) -> None:
    """The accident: the first run is about to give back, the second finds its migration's claims, a third comes."""
    first_journal, first = run(store)
    first.take(PARTIES)
    take_over(first_journal)
    first.confirm(PARTIES)
    second_journal, second = run(store)
    second.take(PARTIES)
    take_over(second_journal)
    second.confirm(PARTIES)
    first.give_back()
    assert holders(store) == {"a": ("a--b", 2), "b": ("a--b", 2)}
    with pytest.raises(Refused, match="Tenant b is claimed by the migration a--b"):
        run(store, OTHER)[1].take(OTHER)


def test_a_claim_that_was_given_back_in_between_is_taken_again_or_found_lost(store: FileStore) -> None:
    first_journal, first = run(store)
    first.take(PARTIES)
    take_over(first_journal)
    first.confirm(PARTIES)
    second_journal, second = run(store)
    second.take(PARTIES)
    first.give_back()
    take_over(second_journal)
    second.confirm(PARTIES)
    assert holders(store) == {"a": ("a--b", 2), "b": ("a--b", 2)}
    second.give_back()
    third_journal, third = run(store)
    third.take(PARTIES)
    third.give_back()
    run(store, OTHER)[1].take(OTHER)
    take_over(third_journal)
    with pytest.raises(Refused, match="Tenant b is claimed by the migration b--c"):
        third.confirm(PARTIES)


def test_an_older_run_does_not_write_over_a_newer_ones_claim(store: FileStore) -> None:
    journal, claims = run(store)
    claims.take(PARTIES)
    take_over(journal)
    newer_journal, newer = run(store)
    take_over(newer_journal)
    newer.confirm(PARTIES)
    with pytest.raises(Superseded, match="Tenant a is claimed under epoch 2 of a--b"):
        claims.confirm(PARTIES)


def test_a_run_that_does_not_get_the_migration_gives_back_what_it_wrote_itself(store: FileStore) -> None:
    store.put(CLAIMS, "a", {"format": 1, "migration": "a--b", "epoch": 0}, None)
    _journal, claims = run(store)
    claims.take(PARTIES)
    with pytest.raises(Superseded), claims.given_back_without_the_migration():
        raise Superseded("somebody was faster")
    assert holders(store) == {"a": ("a--b", 0), "b": ("", 0)}
    claims.take(PARTIES)
    with pytest.raises(OutcomeUnknown), claims.given_back_without_the_migration():
        raise OutcomeUnknown("the take over may have happened")
    assert holders(store)["b"] == ("a--b", 0), "it may own the migration: what it claims stays claimed"


@pytest.mark.parametrize("landed", [True, False])
def test_a_claim_without_an_answer_is_settled_by_writing(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, landed: bool
) -> None:
    put, lost = FileStore.put, list[str]()

    def lossy(self: FileStore, collection: str, name: str, body: dict[str, Any], revision: str | None) -> Document:
        if collection == CLAIMS and name not in lost:
            lost.append(name)
            if landed:
                put(self, collection, name, body, revision)
            raise OutcomeUnknown("no answer")
        return put(self, collection, name, body, revision)

    monkeypatch.setattr(FileStore, "put", lossy)
    journal, claims = run(store)
    claims.take(PARTIES)
    assert lost == ["a", "b"]
    assert holders(store) == {"a": ("a--b", 0), "b": ("a--b", 0)}
    lost.clear()
    claims.give_back()
    assert claims_of(store, journal) == []


def test_a_write_that_lands_late_does_not_take_a_tenant(store: FileStore) -> None:
    """Its revision is gone: a document that is free is there, where one that was deleted would not be."""
    _journal, claims = run(store)
    before = store.get(CLAIMS, "a")
    claims.take(PARTIES)
    claims.give_back()
    with pytest.raises(Exception, match="already exists"):
        store.put(CLAIMS, "a", {"format": 1, "migration": "a--b", "epoch": 0}, before.revision if before else None)
    run(store, Parties(A, C))[1].take(Parties(A, C))
    assert holders(store)["a"] == ("a--c", 0)


@pytest.mark.parametrize(("faster", "refused"), [("b--c", True), ("a--b", False), ("", False)])
@pytest.mark.parametrize("answer", [ANSWERED, LOST, LATE])
def test_a_claim_that_somebody_else_has_written_meanwhile_is_looked_at_again(
    faster: str, refused: bool, answer: str
) -> None:
    store = LossyStore()

    def fate(sent: Sent) -> str:
        if sent.name == "b":
            store.fate = lambda _sent: ANSWERED
            store.write(sent._replace(body={"format": 1, "migration": faster, "epoch": 0}))
            return answer
        return ANSWERED

    store.fate = fate
    claims = Claims(store, Journal(store, A, B).read())
    if refused:
        with pytest.raises(Refused, match="Tenant b is claimed by the migration b--c"):
            claims.take(PARTIES)
    else:
        claims.take(PARTIES)
    found = {document.name: holder_of(document) for document in store.list(CLAIMS)}
    assert found == ({"a": "", "b": "b--c"} if refused else {"a": "a--b", "b": "a--b"})
    assert store.land() == []
