# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transition: what was written for weeks comes along when it goes back; and its end: the retired rows go, chunk by
chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    ABSENT,
    APPLY,
    PURGE,
    STAGING,
    untold,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.participant import PostgreSQL
from ansible_collections.zdm.landscape.tests.integration.postgresql.pgsite import (
    MIGRATION,
    TABLES,
    A,
    B,
    C,
    Site,
    killed,
    make_small_chunks,
)

WAIT_MS = 30_000
LATER = 1700
"""Changes of each kind: some 5,000 in all."""


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small_chunks(monkeypatch.setattr)


@pytest.fixture
def live(site: Site) -> tuple[Site, PostgreSQL]:
    """In transition: B is live, A's rows are its twins."""
    participant = site.staged()
    site.switch(participant)
    return site, participant


def write_for_weeks(site: Site, tenant: str) -> None:
    """Customers come, change and go, one by one in transactions of 17; the last ones keep their changes."""
    with site.connect() as session:
        for start in range(0, LATER, 17):
            with session.transaction():
                for number in range(10_000 + start, 10_000 + min(LATER, start + 17)):
                    session.execute(
                        "INSERT INTO customer VALUES (%s, %s, %s, 'AT')", (tenant, number, f"{number}@later.example")
                    )
                    session.execute(
                        "UPDATE customer SET country = 'IT' WHERE tenant_id = %s AND id = %s", (tenant, number)
                    )
                    session.execute(
                        "DELETE FROM customer WHERE tenant_id = %s AND id = %s AND id %% 3 = 0", (tenant, number)
                    )
        session.execute("DELETE FROM line WHERE tenant_id = %s AND position = 2", (tenant,))


def test_thousands_of_later_writes_come_along_when_it_goes_back(live: tuple[Site, PostgreSQL]) -> None:
    site, participant = live
    write_for_weeks(site, B)
    pending = site.status(participant).pending
    assert pending > 2 * LATER
    told: list[dict[str, Any]] = []
    site.epoch += 1
    participant.take_over(site.move(reverse=True))
    assert participant.follow(site.move(reverse=True), WAIT_MS, told.append) == pending
    assert {entry["step"] for entry in told} == {APPLY}
    rows = [entry["rows"] for entry in told]
    assert rows == sorted(rows)
    assert (len(rows) > 3, rows[-1]) == (True, pending)
    assert site.status(participant).pending == 0
    written = participant.fingerprint(B)
    site.switch(participant, reverse=True)
    assert participant.fingerprint(A) == written
    assert participant.stage(site.move(), site.plan(participant), lambda _entry: None) == 0
    site.switch(participant)
    assert participant.fingerprint(B) == written


def test_a_log_is_not_followed_in_the_wrong_direction(live: tuple[Site, PostgreSQL]) -> None:
    site, participant = live
    with pytest.raises(Refused, match="does not fit state staged, in which"):
        participant.follow(site.move(), WAIT_MS)


def purge(site: Site, participant: PostgreSQL, progress: Any = lambda _entry: None) -> int:
    site.epoch += 1
    participant.take_over(site.move(reverse=True))
    return participant.remove(site.move(reverse=True), progress)


def test_the_retired_rows_go_in_chunks_and_nothing_else_is_touched(site: Site) -> None:
    before, participant = site.catalog(), site.participant()
    participant.stage(site.move(), site.plan(participant), lambda _entry: None)
    site.switch(participant)
    bystander = participant.fingerprint(C)
    site.sql(f"UPDATE invoice SET amount = amount + 1 WHERE tenant_id = '{B}'")
    written, told = participant.fingerprint(B), []
    assert purge(site, participant, told.append) == 1200
    tables = [entry["table"] for entry in told]
    assert [entry["step"] for entry in told] == [PURGE] * 24
    assert tables == sorted(tables, key=["line", "invoice", "customer"].index)
    assert told[-1] == {"participant": "bills", "table": "customer", "step": PURGE, "rows": 300, "of": 300}
    assert site.catalog() == before
    assert (participant.fingerprint(B), participant.fingerprint(C)) == (written, bystander)
    assert participant.fingerprint(A) == participant.fingerprint("0e0e0e0e-0000-4000-8000-000000000009")
    assert purge(site, participant) == 0


@pytest.mark.parametrize("chunk", [1, 9, 24])
def test_a_purge_that_was_stopped_goes_on(site: Site, chunk: int) -> None:
    before, participant = site.catalog(), site.participant()
    participant.stage(site.move(), site.plan(participant), lambda _entry: None)
    site.switch(participant)
    written, told = participant.fingerprint(B), []

    def stop(entry: dict[str, Any]) -> None:
        told.append(entry)
        if len(told) == chunk:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        purge(site, participant, stop)
    assert site.status(participant).state == STAGING
    with pytest.raises(Refused, match="does not fit state staging"):
        participant.barrier(site.move(reverse=True), WAIT_MS)
    for email in ("meanwhile", "c1@example.com"):
        site.sql(f"UPDATE customer SET email = '{email}' WHERE tenant_id = '{B}' AND id = 1")
    assert purge(site, participant) == 1200 - 50 * chunk
    assert site.status(participant).state == ABSENT
    assert site.catalog() == before
    assert participant.fingerprint(B) == written


@pytest.mark.parametrize("number", [1, 2, 13, 25])
def test_a_purge_that_was_killed_goes_on(site: Site, number: int) -> None:
    """Killed while its first transaction runs, and after the first, the twelfth and the last chunk."""
    before, participant = site.catalog(), site.participant()
    participant.stage(site.move(), site.plan(participant), lambda _entry: None)
    site.switch(participant)
    written = participant.fingerprint(B)
    assert killed(site, "remove", number, reverse=True)
    assert participant.fingerprint(B) == written
    assert purge(site, participant) == 1200 - 50 * max(0, number - 1)
    assert site.catalog() == before
    assert participant.fingerprint(B) == written


def test_helper_objects_of_a_newer_format_are_refused_by_their_name(site: Site) -> None:
    participant = site.staged()
    move, plan = site.move(), site.plan(participant)
    site.sql("UPDATE zdm.migration SET format = 2", admin=True)
    before, rows = site.catalog(), participant.fingerprint(A)
    verbs: dict[str, Callable[[], object]] = {
        "stage": lambda: participant.stage(move, plan, untold),
        "follow": lambda: participant.follow(move, WAIT_MS),
        "take_over": lambda: participant.take_over(move),
        "prelude": lambda: participant.prelude(move, WAIT_MS),
        "barrier": lambda: participant.barrier(move, WAIT_MS),
        "turn": lambda: participant.turn(move),
        "undo": lambda: participant.undo(move),
        "remove": lambda: participant.remove(move),
        "status": lambda: site.status(participant),
        "inspect": lambda: participant.inspect(MIGRATION, A, B),
    }
    for verb in verbs.values():
        with pytest.raises(Refused, match=f"a newer version of the collection staged migration {MIGRATION}"):
            verb()
    assert (site.catalog(), participant.fingerprint(A)) == (before, rows)


EQUAL = {
    "numeric": ("numeric", "1.0", "1.00"),
    "interval": ("interval", "'1 day'", "'24 hours'"),
    "float": ("float8", "'0'", "'-0'"),
    "jsonb": ("jsonb", "'{\"a\": 1.0}'", "'{\"a\": 1.00}'"),
    "citext": ("citext", "'Ann@x'", "'ann@x'"),
}
"""Values of a key that are equal and are not the same."""


@pytest.mark.parametrize(("kind", "before", "after"), EQUAL.values(), ids=EQUAL.keys())
def test_a_key_that_is_written_in_another_way_comes_along(site: Site, kind: str, before: str, after: str) -> None:
    """There and back, and while the tenant is served: neither window is refused because two spellings differ."""
    if kind == "citext":
        available = site.sql("SELECT count(*) FROM pg_available_extensions WHERE name = 'citext'", admin=True)
        if available == [(0,)]:
            pytest.skip("this PostgreSQL has no citext")
        site.sql("CREATE EXTENSION citext", admin=True)
    site.sql(
        f"CREATE TABLE login (tenant_id uuid NOT NULL, k {kind} NOT NULL, v int, PRIMARY KEY (tenant_id, k))",
        f"INSERT INTO login VALUES ('{A}', {before}, 0)",
    )
    participant = site.staged(tables={**TABLES, "login": {"strategy": "twin"}})

    def spelled(tenant: str) -> list[tuple[str]]:
        return [tuple(row) for row in site.sql(f"SELECT k::text FROM login WHERE tenant_id = '{tenant}'")]

    site.sql(f"UPDATE login SET k = {after} WHERE tenant_id = '{A}'")
    written = spelled(A)
    site.switch(participant)
    assert spelled(B) == written
    site.sql(f"UPDATE login SET k = {before} WHERE tenant_id = '{B}'")
    participant.follow(site.move(reverse=True), 5000)
    assert spelled(A) == spelled(B) != written
    site.switch(participant, reverse=True)
    assert site.status(participant).problems == ()
