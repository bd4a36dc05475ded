# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transition: what was written for weeks comes along when it goes back; and its end: the retired rows go, chunk by
chunk.
"""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.participant import copying
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    ABSENT,
    APPLY,
    PURGE,
    STAGED,
    STAGING,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb import twin as mariadb_twin
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.participant import MariaDB
from ansible_collections.zdm.landscape.tests.integration.mariadb.bench import Bench, run
from ansible_collections.zdm.landscape.tests.integration.mariadb.twinsite import (
    ROWS,
    catalog,
    options_of,
    participant_of,
    switch,
)
from ansible_collections.zdm.landscape.tests.integration.verb_kit import (
    KEY,
    WAIT_MS,
    A,
    B,
    C,
    killed,
    move,
    stage,
    status,
)

LATER = 1700
"""Changes of each kind: some 5,000 in all."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "CHUNK_ROWS", 20)
    monkeypatch.setattr(mariadb_twin, "CHUNK_ROWS", 20)
    monkeypatch.setattr(copying, "COMPARE_ROWS", 50)
    monkeypatch.setattr(copying.Pace, "measured", lambda self, run: run(self.rows))


def in_transition(site: Bench) -> MariaDB:
    participant = participant_of(site)
    stage(participant)
    switch(participant, 2)
    return participant


def write_for_weeks(site: Bench, tenant: str) -> None:
    """Customers come, change and go; the last ones keep their changes."""
    session = site.application(autocommit=False)
    for number in range(LATER):
        mine = f"tenant_id = '{tenant}' AND id = 'n{number}'"
        run(
            session,
            f"INSERT INTO customer (tenant_id, id, email, country) VALUES ('{tenant}', 'n{number}', '{number}@later',"
            " 'AT')",
        )
        run(session, f"UPDATE customer SET balance = {number} WHERE {mine}")
        if number % 3 == 0:
            run(session, f"DELETE FROM customer WHERE {mine}")
        if number % 17 == 0:
            session.commit()
    run(session, f"DELETE FROM odd WHERE tenant_id = '{tenant}' ORDER BY at LIMIT 50")
    session.commit()


def test_thousands_of_later_writes_come_along_when_it_goes_back(site: Bench) -> None:
    participant = in_transition(site)
    told: list[dict[str, Any]] = []
    write_for_weeks(site, B)
    pending = participant.status(KEY, A, B).pending
    assert pending > 2 * LATER
    participant.take_over(move(3, forward=False))
    assert participant.follow(move(3, forward=False), 60_000, told.append) == pending
    assert (told[0]["step"], told[-1]["rows"]) == (APPLY, pending)
    assert participant.status(KEY, A, B).pending == 0
    written = participant.fingerprint(B)
    switch(participant, 4, forward=False)
    assert participant.fingerprint(A) == written
    assert stage(participant, move(4)) == 0
    switch(participant, 5)
    assert participant.fingerprint(B) == written


def test_the_retired_rows_go_in_chunks_and_nothing_else_is_touched(site: Bench) -> None:
    before = catalog(site)
    participant = in_transition(site)
    told: list[dict[str, Any]] = []
    site.sql(f"UPDATE customer SET balance = balance + 1 WHERE tenant_id = '{B}'")
    written, bystander = participant.fingerprint(B), participant.fingerprint(C)
    participant.take_over(move(3, forward=False))
    assert participant.remove(move(3, forward=False), told.append) == 3 * ROWS
    assert [entry["step"] for entry in told] == [PURGE] * len(told)
    assert len(told) >= 3 * ROWS // 20
    assert told[-1]["of"] == ROWS
    assert catalog(site) == before
    assert (participant.fingerprint(B), participant.fingerprint(C)) == (written, bystander)
    assert participant.fingerprint(A) == participant.fingerprint("nobody")
    assert participant.remove(move(3, forward=False)) == 0


@pytest.mark.parametrize("chunk", [1, 8])
def test_a_purge_that_was_stopped_goes_on(site: Bench, chunk: int) -> None:
    before = catalog(site)
    participant = in_transition(site)
    told: list[dict[str, Any]] = []
    written = participant.fingerprint(B)

    def stop(entry: dict[str, Any]) -> None:
        told.append(entry)
        if len(told) == chunk:
            raise KeyboardInterrupt

    participant.take_over(move(3, forward=False))
    with pytest.raises(KeyboardInterrupt):
        participant.remove(move(3, forward=False), stop)
    assert participant.status(KEY, A, B).state == STAGING
    with pytest.raises(Refused, match="staging"):
        participant.barrier(move(3, forward=False), WAIT_MS)
    assert 0 < participant.remove(move(3, forward=False)) < 3 * ROWS
    assert participant.status(KEY, A, B).state == ABSENT
    assert catalog(site) == before
    assert participant.fingerprint(B) == written


def test_a_purge_that_is_killed_again_and_again_goes_on(site: Bench) -> None:
    before = catalog(site)
    participant = in_transition(site)
    written = participant.fingerprint(B)
    participant.take_over(move(3, forward=False))
    for statement in killed(MariaDB, options_of(site), "remove", move(3, forward=False), every=9):
        assert participant.status(KEY, A, B).state in (ABSENT, STAGING, STAGED), f"before statement {statement}"
        assert participant.fingerprint(B) == written
    assert participant.status(KEY, A, B).state == ABSENT
    assert catalog(site) == before
    assert participant.fingerprint(A) == participant.fingerprint("nobody")


def test_a_participant_in_transition_agrees_with_itself(site: Bench) -> None:
    participant = in_transition(site)
    assert status(participant)[1:] == (B, (A,))
