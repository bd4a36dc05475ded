# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Between two windows: what is logged is applied, the transition is described, and it ends for good."""

from __future__ import annotations

import time
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused, Superseded, Timeout, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.migration.claims import holder_of
from ansible_collections.zdm.landscape.plugins.module_utils.migration.finalize import finalize, is_finalized
from ansible_collections.zdm.landscape.plugins.module_utils.migration.stage import Staged, catch_up, remove, stage
from ansible_collections.zdm.landscape.plugins.module_utils.migration.status import MigrationStatus, migration_status
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import Care
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import CLAIMS, MIGRATIONS, ONBOARDED, THROTTLES
from ansible_collections.zdm.landscape.plugins.module_utils.store.file import FileStore

from .conftest import A, B, Small


@pytest.fixture
def live(small: Small) -> Small:
    """In transition."""
    small.cutover().switch(B, lambda: 40)
    small.log.clear()
    return small


def again(small: Small, **options: Any) -> Staged:
    options = {"care": Care(3600), **options}
    return stage(
        small.store, small.journal(), small.parties(), small.participants, small.plan, lambda _entry: None, **options
    )


def end(small: Small) -> dict[str, int]:
    return finalize(small.store, small.journal(), small.parties(), small.participants)


def status(small: Small, **options: Any) -> MigrationStatus:
    return migration_status(small.store, small.fleet, small.participants, A, B, **options)


def written(small: Small) -> dict[str, Any]:
    return {str(file): file.read_bytes() for file in sorted(small.store.path.rglob("*.json"))}


# -- the log
# --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", [A, B], ids=["before the switch", "in the transition"])
def test_a_second_stage_applies_what_was_logged(small: Small, to: Any) -> None:
    if to == B:
        small.cutover().switch(B, lambda: 0)
    small.participants[1].logged = 500
    epoch = small.journal().body["epoch"]
    small.log.clear()
    assert again(small) == Staged(applied={"rating": 500})
    assert small.log.of("take_over", "follow", "stage") == ["take_over", "follow"] * 2
    assert small.journal().body["epoch"] == epoch + 1
    small.assert_agreed(to)
    before = written(small)
    assert again(small) == Staged()
    assert written(small) == before


def test_right_before_a_window_the_log_of_every_participant_is_applied(live: Small) -> None:
    live.participants[1].logged = 300
    assert catch_up(live.journal(), live.parties(), live.participants) == {"bills": 0, "rating": 300}
    assert live.log.of("take_over", "follow", "prelude") == ["take_over", "follow"] * 2
    followed = live.journal().body["followed"]
    assert (followed["keys"], live.journal().phase) == (300, "I")
    catch_up(live.journal(), live.parties(), live.participants)
    assert live.journal().body["followed"] == followed, "nothing was applied, so nothing was measured"
    live.assert_agreed(B)


def test_a_signal_while_the_log_is_applied_opens_no_window_and_the_same_command_goes_on(live: Small) -> None:
    for participant in live.participants:
        participant.logged = 500

    def interrupted(_entry: dict[str, Any]) -> None:
        raise Timeout("interrupted", "Run it again.")

    with pytest.raises(Timeout, match="interrupted"):
        catch_up(live.journal(), live.parties(), live.participants, interrupted)
    assert [participant.logged for participant in live.participants] == [0, 500]
    assert live.journal().phase == "I"
    assert not live.log.of("lease", "prelude")
    assert catch_up(live.journal(), live.parties(), live.participants) == {
        "bills": 0,
        "rating": 500,
    }, "nobody drives the migration any more"
    live.assert_agreed(B)


def test_the_log_is_not_applied_while_another_run_is_alive(live: Small) -> None:
    live.participants[0].logged = 500
    driver = live.journal()
    driver.take_over(open_window=False, move_from=B.id, move_to=A.id)
    with driver.heartbeat(), pytest.raises(Refused, match="is driven by"):
        again(live)
    assert live.participants[0].logged == 500


def test_the_log_is_not_applied_in_a_window_that_was_taken_over_by_force(
    live: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.participants[0].logged = 500
    driver, journal = live.journal(), live.journal()
    original = type(journal).take_over

    def late(self: Any, **options: Any) -> None:
        if self is journal and driver.epoch == 0:
            driver.take_over(open_window=True, move_from=B.id, move_to=A.id)
        original(self, **options)

    monkeypatch.setattr(type(journal), "take_over", late)
    with pytest.raises(Refused, match="unfinished window"):
        stage(
            live.store,
            journal,
            live.parties(),
            live.participants,
            live.plan,
            lambda _entry: None,
            care=Care(3600),
            force=True,
        )
    assert live.participants[0].logged == 500
    assert live.journal().body["epoch"] == driver.epoch, "the window is the other run's"


def test_status_tells_what_is_left_and_what_a_reverse_costs(live: Small) -> None:
    live.participants[0].logged = 4000
    found = status(live, transition_ms=10 * 86_400_000)
    assert found.pending == {"bills": 4000}
    assert found.transition["days_left"] == 10.0
    assert abs(found.transition["began_at_ms"] - time.time() * 1000) < 60_000
    assert found.transition["reverse_window_ms"] == live.journal().body["windows"][-1]["window_ms"]
    assert found.transition["catch_up_ms"] == 400
    assert "4,000 logged keys" in found.verdict
    assert (found.needs_person, found.problems) == (False, [])
    again(live)
    live.participants[0].logged = 10
    body = live.journal().body
    live.store.put(
        MIGRATIONS,
        "a--b",
        {**body, "committed_at_ms": body["committed_at_ms"] - 12 * 86_400_000},
        live.store.get(MIGRATIONS, "a--b").revision,
    )
    over = status(live, transition_ms=10 * 86_400_000)
    assert over.transition["days_left"] == -2.0
    assert "over for 2.0 days" in over.verdict
    live.cutover().switch(A, lambda: 0)
    assert status(live).transition == {}


# -- the end
# --------------------------------------------------------------------------------------------------------------


def test_finalize_ends_the_transition(live: Small) -> None:
    live.store.put(THROTTLES, "a--b", {"rows_per_second": 5}, None)
    onboarded = {name: live.store.get(ONBOARDED, name) for name in "abc"}
    assert end(live) == {"bills": 1, "rating": 1}
    assert [participant.state for participant in live.participants] == ["absent", "absent"]
    assert [participant.rows_under for participant in live.participants] == [B.id, B.id]
    assert not any(map(holder_of, live.store.list(CLAIMS)))
    assert live.store.list(THROTTLES) == []
    assert {name: live.store.get(ONBOARDED, name) for name in "abc"} == onboarded
    assert live.leads_to("a") == "b"
    journal = live.journal()
    assert (journal.phase, journal.canonical, journal.body["owner"], journal.body["staged"]) == ("I", B.id, None, False)
    assert is_finalized(live.store, journal)
    found = status(live)
    assert (found.needs_person, found.problems, found.next_command, found.transition) == (False, [], "", {})
    assert found.verdict.startswith("Finalized 20")
    before = written(live)
    assert end(live) == {}
    assert written(live) == before


def test_after_finalize_there_is_no_way_back(live: Small) -> None:
    end(live)
    before = written(live)
    with pytest.raises(Refused, match="the way back has ended.*migrate b to another tenant"):
        live.cutover().switch(A, lambda: 0)
    with pytest.raises(Refused, match="the way back has ended"):
        again(live)
    with pytest.raises(Refused, match="the way back has ended"):
        remove(live.store, live.journal(), live.parties(), live.participants)
    assert not live.cutover().switch(B, lambda: 0).changed
    assert written(live) == before


def test_finalize_is_refused_while_the_source_is_live(small: Small) -> None:
    for _state in ("staged", "aborted"):
        before = written(small)
        with pytest.raises(Refused, match="a is live.*zdm.landscape.abort"):
            end(small)
        assert written(small) == before
        remove(small.store, small.journal(), small.parties(), small.participants)


def test_finalize_is_refused_in_an_unfinished_window(live: Small) -> None:
    live.log.failures["router-1", "close"] = [KeyboardInterrupt()]  # type: ignore[list-item]
    with pytest.raises(KeyboardInterrupt):
        live.cutover().switch(A, lambda: 0)
    before = written(live)
    with pytest.raises(Refused, match="unfinished window"):
        end(live)
    assert written(live) == before


@pytest.mark.parametrize("state", ["fenced", "moved", "staging", "staged"])
def test_finalize_is_refused_when_a_participant_disagrees(live: Small, state: str) -> None:
    live.participants[1].state = state
    live.participants[1].live = A.id
    with pytest.raises(Refused, match="rating is .* holds guid-a to be live"):
        end(live)
    assert live.log.of("remove") == []
    assert not live.journal().ended


def test_nothing_is_begun_while_a_participant_is_down(live: Small) -> None:
    live.participants[1].down = True
    with pytest.raises(Unreachable):
        end(live)
    assert live.log.of("remove") == []
    assert not live.journal().ended


def die(small: Small, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finalize in a process that dies right before a write; the owner stays in the journal as a killed process leaves
    it.
    """
    target, _colon, operation = place.partition(":")
    if operation:
        small.log.failures[target, operation] = [KeyboardInterrupt()]  # type: ignore[list-item]
    else:
        put = FileStore.put

        def no_put(self: FileStore, collection: str, name: str, body: dict[str, Any], revision: str | None) -> Any:
            if place in body and body[place] and collection == MIGRATIONS:
                raise KeyboardInterrupt
            if place == "give back" and collection == CLAIMS and name == "b" and not body["migration"]:
                raise KeyboardInterrupt
            return put(self, collection, name, body, revision)

        monkeypatch.setattr(FileStore, "put", no_put)
    with pytest.raises(KeyboardInterrupt):
        end(small)
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("place", "way_back"),
    [
        ("finalizing", True),
        ("bills:remove", False),
        ("rating:remove", False),
        ("finalized_at_ms", False),
        ("give back", False),
    ],
)
def test_finalize_goes_on_where_it_died(
    live: Small, monkeypatch: pytest.MonkeyPatch, place: str, way_back: bool
) -> None:
    die(live, place, monkeypatch)
    if way_back:
        live.assert_agreed(B)
        assert not status(live).needs_person
    else:
        with pytest.raises(Refused, match="is being finalized|the way back has ended"):
            live.cutover().switch(A, lambda: 0)
        found = status(live)
        assert found.needs_person
        assert "zdm.landscape.finalize" in found.next_command
        assert "tenant_finalize_confirm=a" in found.next_command
        assert found.live == B
    end(live)
    assert is_finalized(live.store, live.journal())
    assert [participant.state for participant in live.participants] == ["absent", "absent"]
    assert not status(live).needs_person


def test_an_account_that_is_onboarded_in_between_needs_nothing(live: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    die(live, "rating:remove", monkeypatch)
    body = {
        "id": "guid-d",
        "subdomain": "d",
        "datacenter": "us10",
        "channel": "stable",
        "mapToTenant": "b",
        "mapToTenantId": "guid-b",
    }
    live.store.put(ONBOARDED, "d", body, None)
    end(live)
    assert live.leads_to("d") == "b"
    assert not any(map(holder_of, live.store.list(CLAIMS)))


def test_a_run_that_was_taken_over_deletes_nothing_more(live: Small) -> None:
    def taken_over(_entry: dict[str, Any]) -> None:
        thief = live.journal()
        thief.take_over(open_window=False, move_from=B.id, move_to=A.id, force=True)

    with pytest.raises(Superseded):
        finalize(live.store, live.journal(), live.parties(), live.participants, taken_over)
    assert end(live)
    assert is_finalized(live.store, live.journal())


def test_an_account_whose_document_came_too_late_for_the_window_is_named(live: Small) -> None:
    body = {"id": "guid-d", "subdomain": "d", "mapToTenant": "a", "mapToTenantId": "guid-a"}
    live.store.put(ONBOARDED, "d", body, None)
    found = status(live)
    assert "onboarded-tenants/d leads to a, expected b." in found.problems
    assert found.needs_person


def test_an_account_that_was_offboarded_is_missed_by_nobody(live: Small) -> None:
    document = live.store.get(ONBOARDED, "c")
    assert document
    live.store.put(ONBOARDED, "c", {"format": 1}, document.revision)
    journal = live.journal()
    journal.take_over(open_window=True, move_from=B.id, move_to=A.id)
    journal.note(accounts=[{"subdomain": "c", "id": "guid-c"}])
    journal.release_owner()
    assert not any("onboarded-tenants" in problem for problem in status(live).problems)


# -- a stage that was interrupted
# --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", [A, B], ids=["before the switch", "in the transition"])
@pytest.mark.parametrize("state", ["staging", "staged"])
def test_after_an_interrupted_stage_status_names_stage(
    small: Small, to: Any, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if to == B:
        small.cutover().switch(B, lambda: 0)

    def die(*_arguments: Any) -> int:
        small.participants[1].state = state
        small.participants[1].unready = ("The stage is not finished.",) if state == "staging" else ()
        raise Unreachable("gone", "Run it again.")

    monkeypatch.setattr(small.participants[1], "stage", die)
    with pytest.raises(Unreachable):
        again(small, care=Care(0, repair=True))
    found = status(small)
    if found.problems:
        assert "zdm.landscape.stage" in found.next_command, (found.verdict, found.problems)
    else:
        assert not found.next_command


def test_a_transition_whose_stage_was_interrupted_can_be_ended(live: Small) -> None:
    live.participants[1].state = "staging"
    end(live)
    assert is_finalized(live.store, live.journal())
