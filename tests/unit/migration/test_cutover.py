# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cutover's steps: their order, and what happens when one of them fails."""

from __future__ import annotations

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import (
    Refused,
    Superseded,
    Timeout,
    Unreachable,
    ZdmError,
)
from ansible_collections.zdm.landscape.plugins.module_utils.migration import window as window_module
from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import Journal
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import MIGRATIONS, ONBOARDED, Document
from ansible_collections.zdm.landscape.plugins.module_utils.store.file import FileStore
from ansible_collections.zdm.landscape.plugins.module_utils.store.settle import Decision

from .conftest import A, B, Small


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_module, "PATIENCE_MS", 300)


def phases_written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Phases of the journal in the order of its writes."""
    written: list[str] = []
    original = FileStore.put

    def put(self: FileStore, collection: str, name: str, body: dict, revision: str | None) -> Document:  # type: ignore[type-arg]
        document = original(self, collection, name, body, revision)
        if collection == MIGRATIONS and (not written or written[-1] != body["phase"]):
            written.append(body["phase"])
        return document

    monkeypatch.setattr(FileStore, "put", put)
    return written


def test_a_switch_runs_the_table_in_order(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    written = phases_written(monkeypatch)
    outcome = small.cutover().switch(B, lambda: 7)
    assert written == ["W", "C", "K", "R", "I"]
    steps = [entry["step"] for entry in outcome.timeline]
    assert steps == [
        "block",
        "drain",
        "prelude",
        "journal_closed",
        "close",
        "drain_again",
        "barrier",
        "confirm",
        "commit",
        "documents",
        "turn",
        "map",
        "journal_released",
        "release",
        "journal_idle",
    ]
    order = [operation for target, operation in small.log if target in ("router-1", "bills") and operation != "state"]
    assert order == [
        "take_over",
        "take_over",
        "lease",
        "in_flight",
        "prelude",
        "close",
        "in_flight",
        "barrier",
        "turn",
        "map",
        "release",
    ]
    small.assert_agreed(B)
    assert small.journal().body["windows"][-1]["predicted_window_ms"] == 7


def test_a_second_switch_changes_nothing(small: Small) -> None:
    small.cutover().switch(B, lambda: 0)
    before = small.journal().body
    assert not small.cutover().switch(B, lambda: 0).changed
    assert small.journal().body == before


def test_reverse_is_the_same_document_and_counter(small: Small) -> None:
    small.cutover().switch(B, lambda: 0)
    epoch = small.journal().body["epoch"]
    small.cutover().switch(A, lambda: 0)
    small.assert_agreed(A)
    assert small.journal().body["epoch"] == epoch + 1


@pytest.mark.parametrize(
    ("target", "operation"),
    [
        ("router-1", "lease"),
        ("router-2", "in_flight"),
        ("bills", "prelude"),
        ("router-2", "close"),
        ("bills", "barrier"),
        ("rating", "barrier"),
    ],
)
def test_an_error_before_the_commit_is_undone(
    small: Small, monkeypatch: pytest.MonkeyPatch, target: str, operation: str
) -> None:
    written = phases_written(monkeypatch)
    small.log.failures[target, operation] = [Refused(f"{target} refuses {operation}.", "Mend it.")]
    with pytest.raises(Refused, match=f"{target} refuses {operation}") as caught:
        small.cutover().switch(B, lambda: 0)
    assert caught.value.details["undone"] is True
    assert written[-3:] == ["U", "V", "I"]
    small.assert_agreed(A)
    small.cutover().switch(B, lambda: 0)
    small.assert_agreed(B)


def test_an_unexpected_exception_is_undone_too(small: Small) -> None:
    small.log.failures["bills", "barrier"] = [KeyError("bug")]
    with pytest.raises(ZdmError, match="Unexpected KeyError"):
        small.cutover().switch(B, lambda: 0)
    small.assert_agreed(A)


@pytest.mark.parametrize(("target", "operation"), [("bills", "turn"), ("router-1", "map"), ("router-2", "release")])
def test_after_the_commit_it_only_goes_forward(small: Small, target: str, operation: str) -> None:
    small.log.failures[target, operation] = [Unreachable(f"{target} does not answer.")]
    small.cutover().switch(B, lambda: 0)
    small.assert_agreed(B)


def test_a_database_that_stays_down_after_the_commit_is_finished_by_the_same_command(small: Small) -> None:
    small.log.failures["bills", "turn"] = [Unreachable("bills does not answer.", "Start it.")] * 10
    with pytest.raises(Unreachable, match="bills does not answer"):
        small.cutover().switch(B, lambda: 0)
    assert small.journal().phase == "K"
    assert all(block.far for router in small.routers for block in router.blocks.values())
    small.log.failures.clear()
    outcome = small.cutover().switch(B, lambda: 0)
    assert outcome.recovered == ["K"]
    small.assert_agreed(B)


def test_a_database_down_in_the_open_window_does_not_keep_the_tenant_blocked(small: Small) -> None:
    small.participants[0].down = True
    with pytest.raises(Unreachable, match="bills does not answer") as caught:
        small.cutover().switch(B, lambda: 0)
    assert caught.value.details["undone"] is True
    small.participants[0].down = False
    small.assert_agreed(A)


def test_an_undo_after_a_failed_take_over_shuts_out_older_epochs(small: Small) -> None:
    """Else a controller that was paused before its barrier could still do it when it wakes."""
    journal = small.journal()
    journal.take_over(open_window=True, move_from=A.id, move_to=B.id)
    journal.advance("W", "C")
    journal.release_owner()
    small.log.failures["bills", "take_over"] = [Unreachable("bills does not answer.")]
    with pytest.raises(Unreachable, match="bills does not answer"):
        small.cutover().switch(B, lambda: 0)
    small.assert_agreed(A)
    assert [participant.epoch for participant in small.participants] == [journal.epoch + 1] * 2


def test_a_router_down_in_the_open_window_leaves_the_lease_to_end(small: Small) -> None:
    for operation in ("lease", "state"):
        small.log.failures["router-2", operation] = [Unreachable("router-2 does not answer.")] * 50
    with pytest.raises(Unreachable, match="router-2 does not answer"):
        small.cutover().switch(B, lambda: 0)
    assert small.journal().phase == "W"
    small.log.failures.clear()
    small.cutover().switch(B, lambda: 0)
    small.assert_agreed(B)


def test_a_drain_that_does_not_end_names_router_and_count(small: Small) -> None:
    small.routers[1].busy = 3
    with pytest.raises(Timeout, match="3 at router router-2"):
        small.cutover().switch(B, lambda: 0)
    small.assert_agreed(A)


def test_an_interrupt_before_the_close_is_undone(small: Small) -> None:
    with pytest.raises(Timeout, match="interrupted"):
        small.cutover(lambda: ("router-1", "lease") in small.log).switch(B, lambda: 0)
    small.assert_agreed(A)


def test_an_interrupt_after_the_close_is_too_late(small: Small) -> None:
    small.cutover(lambda: ("router-1", "close") in small.log).switch(B, lambda: 0)
    small.assert_agreed(B)


def test_a_preflight_that_refuses_touches_nothing(small: Small) -> None:
    before = small.journal().body

    def refuse() -> int:
        raise Refused("red")

    with pytest.raises(Refused, match="red"):
        small.cutover().switch(B, refuse)
    assert small.journal().body == before
    assert not small.log


def test_a_controller_that_was_taken_over_touches_nothing_more(small: Small) -> None:
    def taken_over() -> bool:
        """Asked right before a step: another controller takes over once, when the drain begins."""
        if ("router-1", "lease") in small.log and ("other", "took over") not in small.log:
            small.log.append(("other", "took over"))
            small.journal().take_over(open_window=False, move_from=A.id, move_to=B.id, force=True)
            for router in small.routers:
                router.take_over("a--b", small.journal().body["epoch"])
        return False

    with pytest.raises(Superseded):
        small.cutover(taken_over).switch(B, lambda: 0)
    assert small.journal().phase == "W"
    assert not small.log.of("close", "barrier", "turn", "undo", "release")
    small.cutover().abort(force=True)
    small.assert_agreed(A)


def test_a_live_controller_is_not_taken_over(small: Small) -> None:
    other = small.journal()
    other.take_over(open_window=False, move_from=A.id, move_to=B.id)
    with other.heartbeat(), pytest.raises(Refused, match="is driven by"):
        small.cutover().switch(B, lambda: 0)
    other.release_owner()


@pytest.mark.parametrize(("phase", "live"), [("W", B), ("C", B), ("K", B), ("R", B), ("U", B), ("V", B)])
def test_the_same_command_goes_on_from_every_phase(
    small: Small, monkeypatch: pytest.MonkeyPatch, phase: str, live: object
) -> None:
    class Died(BaseException):
        pass

    original = Journal._write

    def write(self: Journal, body: dict, patience_ms: int | None = None) -> Decision:  # type: ignore[type-arg]
        if self.phase == phase and body["phase"] != phase:
            raise Died
        return Decision(self._document, self._document) if self.phase == phase else original(self, body, patience_ms)

    if phase in "UV":
        small.log.failures["bills", "barrier"] = [Refused("no")]
    monkeypatch.setattr(Journal, "_write", write)
    with pytest.raises(Died):
        small.cutover().switch(B, lambda: 0)
    monkeypatch.undo()
    assert small.journal().phase == phase
    outcome = small.cutover().switch(B, lambda: 0, force=True)
    assert outcome.recovered == [phase]
    small.assert_agreed(B)


def died_open(small: Small) -> None:
    """A run has died in W, and its leases have ended."""
    journal = small.journal()
    journal.take_over(open_window=True, move_from=A.id, move_to=B.id)
    journal.release_owner()


def test_a_window_that_died_open_is_undone_and_begun_anew(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weeks may have passed since its preflight: tables have changed, and what it had found is not true any more."""
    died_open(small)
    written, asked = phases_written(monkeypatch), list[str]()

    def preflight() -> int:
        asked.append(small.journal().phase)
        return 0

    outcome = small.cutover().switch(B, preflight)
    assert (written, asked, outcome.recovered) == (["W", "U", "V", "I", "W", "C", "K", "R", "I"], ["I"], ["W"])
    small.assert_agreed(B)


def test_a_preflight_that_refuses_after_such_an_undo_leaves_all_as_before(small: Small) -> None:
    died_open(small)

    def refuse() -> int:
        raise Refused("bills has a column that was not staged")

    with pytest.raises(Refused, match="not staged"):
        small.cutover().switch(B, refuse)
    small.assert_agreed(A)
    assert small.journal().phase == "I"


def test_abort_undoes_a_window_and_finishes_a_commit(small: Small) -> None:
    assert not small.cutover().abort().changed
    journal = small.journal()
    journal.take_over(open_window=True, move_from=A.id, move_to=B.id)
    journal.release_owner()
    assert small.cutover().abort().recovered == ["W"]
    small.assert_agreed(A)


def test_an_account_onboarded_during_the_window_is_mapped_with_the_rest(small: Small) -> None:
    def onboard() -> bool:
        if ("bills", "prelude") in small.log and small.store.get(ONBOARDED, "d") is None:
            small.store.put(
                ONBOARDED,
                "d",
                {"id": "guid-d", "subdomain": "d", "datacenter": "us10", "mapToTenant": "a", "mapToTenantId": "guid-a"},
                None,
            )
        return False

    small.cutover(onboard).switch(B, lambda: 0)
    assert small.leads_to("d") == "b"
    assert all(router.overrides["guid-d"] == "guid-b" for router in small.routers)
