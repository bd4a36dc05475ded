# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Format numbers: every reader refuses what a newer collection wrote, by its name and before anything is touched; none
is the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.migration.claims import Claims
from ansible_collections.zdm.landscape.plugins.module_utils.migration.finalize import finalize
from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import FORMAT
from ansible_collections.zdm.landscape.plugins.module_utils.migration.stage import remove
from ansible_collections.zdm.landscape.plugins.module_utils.migration.status import all_migrations, migration_status
from ansible_collections.zdm.landscape.plugins.module_utils.migration.throttle import Limits, Throttle
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import COPY
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import (
    CLAIMS,
    COLLECTIONS,
    MIGRATIONS,
    ONBOARDED,
    THROTTLES,
)
from ansible_collections.zdm.landscape.plugins.module_utils.tenants.onboarding import Wanted, plan_present

from .conftest import A, B, Small

Command = Callable[[Small], object]
PATHS = [(MIGRATIONS, "a--b"), (CLAIMS, "a"), (ONBOARDED, "a"), (ONBOARDED, "b"), (ONBOARDED, "c")]
COMMANDS: dict[str, Command] = {
    "stage": lambda small: small.stage(),
    "switch": lambda small: (small.parties(), small.cutover().switch(B, lambda: 0)),
    "abort": lambda small: remove(small.store, small.journal(), small.parties(), small.participants),
    "finalize": lambda small: finalize(small.store, small.journal(), small.parties(), small.participants),
}


def set_format(small: Small, collection: str, name: str, number: Any) -> None:
    document = small.store.get(collection, name)
    assert document is not None
    body = {key: value for key, value in document.body.items() if key != "format"}
    small.store.put(collection, name, body if number is None else {**body, "format": number}, document.revision)


def content(small: Small) -> dict[str, Any]:
    documents = [document for collection in COLLECTIONS for document in small.store.list(collection)]
    participants = [(participant.state, participant.epoch) for participant in small.participants]
    return {
        "store": documents,
        "participants": participants,
        "routers": [(router.epochs, dict(router.blocks)) for router in small.routers],
    }


def prepared(small: Small, command: str) -> None:
    """The state in which the command has something to do."""
    if command == "stage":
        remove(small.store, small.journal(), small.parties(), small.participants)
        for tenant in "abc":
            free = small.store.get(CLAIMS, tenant)
            small.store.put(CLAIMS, tenant, {"migration": "a--b"}, free.revision if free else None)
    if command == "finalize":
        small.cutover().switch(B, lambda: 0)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("collection", "name"), PATHS, ids=["/".join(path) for path in PATHS])
@pytest.mark.parametrize("number", [FORMAT + 1, "next"])
def test_a_newer_document_is_refused_before_anything_is_touched(
    small: Small, command: str, collection: str, name: str, number: object
) -> None:
    prepared(small, command)
    set_format(small, collection, name, number)
    before = content(small)
    with pytest.raises(Refused, match=f"{collection}/{name} has format {number!r}"):
        COMMANDS[command](small)
    assert content(small) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_documents_without_a_format_are_read(small: Small, command: str) -> None:
    prepared(small, command)
    for collection, name in PATHS:
        set_format(small, collection, name, None)
    COMMANDS[command](small)


def test_other_readers_refuse_a_newer_journal(small: Small) -> None:
    set_format(small, MIGRATIONS, "a--b", 2)
    for reader in (
        lambda: all_migrations(small.store),
        lambda: migration_status(small.store, small.fleet, small.participants, A, B),
        lambda: plan_present(small.store, Wanted("b", channel="beta")),
    ):
        with pytest.raises(Refused, match="migrations/a--b has format 2"):
            reader()  # type: ignore[no-untyped-call]


def test_a_newer_claim_is_not_given_back(small: Small) -> None:
    set_format(small, CLAIMS, "b", 2)
    with pytest.raises(Refused, match="claims/b has format 2"):
        Claims(small.store, small.journal()).give_back()
    assert len(small.store.list(CLAIMS)) == 3


def test_what_is_written_has_a_number(small: Small) -> None:
    small.cutover().switch(B, lambda: 0)
    for collection in (MIGRATIONS, CLAIMS, ONBOARDED):
        assert [document.body["format"] for document in small.store.list(collection)] == [FORMAT] * len(
            small.store.list(collection)
        )


@pytest.mark.parametrize(("number", "limit"), [(None, 7), (FORMAT, 7), (FORMAT + 1, 0)])
def test_limits_of_a_newer_format_are_told_and_ignored(small: Small, number: Any, limit: int) -> None:
    """They only slow a stage down: one that can't read them goes on as it did."""
    small.store.put(THROTTLES, "a--b", {"rows_per_second": 7, **({} if number is None else {"format": number})}, None)
    told: list[dict[str, Any]] = []
    throttle = Throttle(Limits(), small.store, "a--b", lambda: None, told.append)
    throttle.wait(
        small.participants[0], {"participant": "bills", "table": "bill", "step": COPY, "rows": 0}, lambda: None
    )
    assert throttle.limits.rows_per_second == limit
    assert [entry["step"] for entry in told] == (["limits"] if limit else ["warning"])
    assert limit or "throttles/a--b has format 2" in told[0]["message"]
