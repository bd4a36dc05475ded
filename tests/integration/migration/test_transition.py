# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""To and fro under load, then the end of the transition and the next migration of the same tenant, on a real
landscape.
"""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.description.operation import Operation
from ansible_collections.zdm.landscape.plugins.module_utils.migration.cutover import Cutover
from ansible_collections.zdm.landscape.plugins.module_utils.migration.stage import stage
from ansible_collections.zdm.landscape.plugins.module_utils.migration.status import migration_status
from ansible_collections.zdm.landscape.plugins.module_utils.router import entries
from ansible_collections.zdm.landscape.plugins.module_utils.router.fleet import Fleet
from ansible_collections.zdm.landscape.plugins.module_utils.tenants.onboarding import Wanted, apply, plan_present
from ansible_collections.zdm.landscape.plugins.module_utils.tenants.tenant import Tenant
from ansible_collections.zdm.landscape.tests.chaos.scene import Scene, scene

FLIPS = 20
NEXT = Tenant("venezia-next", "5e5e5e5e-0000-4000-8000-000000000005")


@pytest.fixture(name="scenery")
def _scenery() -> Iterator[Scene]:
    with scene(rows=1_000, chaos=False) as prepared:
        yield prepared


@pytest.fixture(name="operation")
def _operation(scenery: Scene) -> Iterator[Operation]:
    operation = Operation(scenery.options)
    yield operation
    operation.close()


def restage(operation: Operation) -> dict[str, int]:
    """Stage what is staged; the rows copied."""
    plan = partial(operation.checked_plan, for_window=False)
    return stage(
        operation.store, operation.journal, operation.parties, operation.participants, plan, lambda _entry: None
    ).copied


def switch(operation: Operation, to: Tenant, tell: Any = lambda _step: None) -> None:
    source, target = operation.parties.source, operation.parties.target
    cutover = Cutover(
        operation.store, operation.fleet, operation.participants, source, target, operation.policy, tell=tell
    )
    assert cutover.switch(to, lambda: 0).canonical == to.id
    operation.journal.read()


def make_extra(path: Path, rows: dict[str, int]) -> dict[str, Any]:
    """A database that a release brings, with some rows of each tenant id; the participant of its description."""
    with closing(sqlite3.connect(path)) as session:
        session.execute("CREATE TABLE tag (tenant_id TEXT NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (tenant_id, id))")
        for tenant_id, count in rows.items():
            session.executemany("INSERT INTO tag VALUES (?, ?)", [(tenant_id, number) for number in range(count)])
        session.commit()
    return {"name": "extra", "kind": "sqlite", "database": str(path), "tenant_columns": ["tenant_id"]}


def test_a_database_that_is_added_while_the_target_is_live(
    scenery: Scene, operation: Operation, tmp_path: Path
) -> None:
    source, target = operation.parties.source, operation.parties.target
    switch(operation, target)
    extra = make_extra(tmp_path / "extra.db", {source.id: 2, target.id: 5})
    added = Operation({**scenery.options, "participants": [*scenery.options["participants"], extra]})
    try:
        status = migration_status(added.store, added.fleet, added.participants, source, target)
        assert "extra is absent, expected staged." in status.problems
        assert "zdm.landscape.stage" in status.next_command
        with pytest.raises(Refused, match="extra is absent"):
            added.checked_plan(for_window=True)
        with pytest.raises(Refused, match="tag already has 2 rows"):
            restage(added)
        # the way back is open without it
        switch(operation, source)
        switch(operation, target)
        with closing(sqlite3.connect(tmp_path / "extra.db")) as session:
            session.execute("DELETE FROM tag WHERE tenant_id = ?", (source.id,))
            session.commit()
            restage(added)
            assert added.checked_plan(for_window=True).refusals == ()
            session.execute("INSERT INTO tag VALUES (?, 99)", (target.id,))  # the live id is not fenced
            session.commit()
            for to in (source, target):
                switch(added, to)
                found = dict(session.execute("SELECT tenant_id, count(*) FROM tag GROUP BY 1").fetchall())
                assert found == {to.id: 6}
    finally:
        added.close()
    scenery.assert_agreed(target, replay=False)


def test_twenty_flips_under_load(scenery: Scene, operation: Operation) -> None:
    source, target = operation.parties.source, operation.parties.target
    for flip in range(FLIPS):
        scenery.traffic.wait_requests(5)
        assert sum(restage(operation).values()) == 0
        switch(operation, source if flip % 2 else target)
    scenery.assert_agreed(scenery.landscape.source, replay=False)
    assert len(operation.journal.body["windows"]) == FLIPS
    scenery.assert_ledger()
    content = [participant.fingerprint(source.id) for participant in operation.participants]
    assert sum(restage(operation).values()) == 0
    switch(operation, target)
    assert [participant.fingerprint(target.id) for participant in operation.participants] == content
    scenery.assert_agreed(scenery.landscape.target, replay=False)
    scenery.assert_ledger()


def test_the_next_migration_takes_the_first_source_along(scenery: Scene, operation: Operation) -> None:
    """A has moved to B; its token leads to the live id before, in and after the window of B and C, also at a router
    that starts.
    """
    first, second = operation.parties.source, operation.parties.target
    switch(operation, second)
    scenery.assert_agreed(scenery.landscape.target, replay=False)
    scenery.assert_ledger()
    content = [participant.fingerprint(second.id) for participant in operation.participants]
    for place in ("remove:bills", "remove:rating"):
        killed = scenery.run("--stop", "SIGKILL", "after", place, state="purged")
        assert killed.code == -signal.SIGKILL, killed.result
        assert "zdm.landscape.finalize" in scenery.status().next_command
        with pytest.raises(Refused, match="is being finalized"):
            switch(operation, first)
    ended = scenery.run(state="purged")
    assert ended.code == 0, ended.result
    assert not scenery.status().needs_person
    assert scenery.helpers() == []
    nobody = [participant.fingerprint(NEXT.id) for participant in operation.participants]
    assert [participant.fingerprint(first.id) for participant in operation.participants] == nobody
    onboard(operation, second)
    onward = Operation({**scenery.options, "source": second.subdomain, "target": NEXT.subdomain})
    try:
        assert sum(restage(onward).values()) > 0
        ids = {tenant.id for tenant in (first, second, NEXT)}
        held: list[tuple[set[str], dict[str, str]]] = []

        def look(step: dict[str, Any]) -> None:
            if step["step"] in ("close", "barrier", "commit", "turn"):
                held.extend(
                    (set(state.blocks), {tid: state.overrides.get(tid, tid) for tid in ids})
                    for state in onward.fleet.states()
                )

        assert leads_to(onward.fleet, ids) == {second.id}
        switch(onward, NEXT, look)
        assert held == [(ids, dict.fromkeys(ids, second.id))] * 4 * len(onward.fleet.routers)
        assert leads_to(onward.fleet, ids) == {NEXT.id}
        assert [participant.fingerprint(NEXT.id) for participant in onward.participants] == content
        router = onward.fleet.routers[0].name
        scenery.kill_router(router)
        scenery.landscape.fleet.start()
        assert leads_to(onward.fleet, ids) == {NEXT.id}
    finally:
        onward.close()


def onboard(operation: Operation, live: Tenant) -> None:
    """What the playbook map does."""
    change = plan_present(operation.store, Wanted(NEXT.subdomain, NEXT.id, map_to=live))
    assert apply(operation.store, change)
    assert change.after is not None
    wanted = entries.Wanted(NEXT.id, NEXT.subdomain, f"{change.after['datacenter']}/{change.after['channel']}", live.id)
    for table, edits in entries.plan_present(operation.fleet.states(), wanted).items():
        operation.fleet.edit(table, edits)


def leads_to(fleet: Fleet, ids: set[str]) -> set[str]:
    """Where the ids lead at all routers, none of which blocks one."""
    states = fleet.states()
    assert not any(set(state.blocks) & ids for state in states)
    return {state.overrides.get(tenant_id, tenant_id) for state in states for tenant_id in ids}
