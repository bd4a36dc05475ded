# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A starting or reloading router is what the config store says, from the first request on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from functools import partial

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Superseded, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.router.base import FAR_MS, HOLD, RouterState
from ansible_collections.zdm.landscape.tests.integration.router.kit import (
    MIGRATION,
    A,
    B,
    Background,
    Deployment,
    journal_body,
    token,
    wait_for,
)
from ansible_collections.zdm.landscape.tests.landscape.processes import Process

C = "guid-c"
BEFORE, AFTER = {B: A, C: A}, {A: B, C: B}


def state_of(router: Deployment) -> RouterState | None:
    """The state, or nothing while HAProxy's master starts itself again, as it does at every start and reload."""
    try:
        return router.client().state()
    except Unreachable:
        return None


def reload_command(router: Deployment) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(router.home / "bin" / "zdm-router"), "reload"], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("phase", "canonical", "closed"),
    [
        ("I", A, False),
        ("W", A, False),
        ("C", A, True),
        ("U", A, True),
        ("V", A, False),
        ("K", B, True),
        ("R", B, False),
        ("I", B, False),
    ],
)
def test_a_start_renders_the_journal(stopped: Deployment, phase: str, canonical: str, closed: bool) -> None:
    """The documents still say the old mapping: the journal is the truth."""
    stopped.fill_store(phase=phase, canonical=canonical, epoch=5)
    stopped.store.put("claims", "a", {"migration": MIGRATION}, None)
    stopped.start()
    client = stopped.client()
    state = client.state()
    assert state.ready
    assert state.epochs == {MIGRATION: 5}
    assert state.overrides == (BEFORE if canonical == A else AFTER)
    assert {tenant: (block.mode, block.until_ms, block.migration) for tenant, block in state.blocks.items()} == (
        dict.fromkeys((A, B, C), (HOLD, FAR_MS, MIGRATION)) if closed else {}
    )
    with pytest.raises(Superseded):
        client.take_over(MIGRATION, 4)
    requests = [Background(partial(stopped.get, "/bills/1", token(tenant))) for tenant in (A, B, C)]
    if closed:
        wait_for(
            lambda: sum(use.held for use in client.state(usage=True).usage.values()) == 3, "three requests are held"
        )
        assert stopped.service.count == 0
        client.release(MIGRATION, 5, [A, B, C])
    assert [request.answer().tenant for request in requests] == [canonical] * 3


def test_the_first_request_already_meets_the_stores_mapping(stopped: Deployment) -> None:
    """Requests that arrive from the very first moment on are held until the router is ready."""
    stopped.fill_store(phase="K", canonical=B)
    stopped.launch()
    statuses: list[int] = []
    while not statuses or statuses[-1] == 0:  # nothing listens yet
        statuses.append(stopped.get("/bills/1", token("guid-d")).status)
    assert statuses[-1] == 200
    assert stopped.service.count == 1
    assert stopped.get("/bills/1", token(A)).status == 503


def test_a_router_that_can_not_read_the_store_does_not_listen(stopped: Deployment) -> None:
    (stopped.store_path / "migrations").mkdir()
    (stopped.store_path / "migrations" / f"{MIGRATION}.json").write_text("{not json")
    process = stopped.launch()
    assert process.popen.wait(30) == 1
    assert f"migrations/{MIGRATION} is not valid JSON" in process.tail()
    assert stopped.get("/.router/health", None).status == 0


def test_a_store_that_is_gone_is_named(stopped: Deployment) -> None:
    hidden = stopped.store_path.with_name("hidden")
    stopped.store_path.rename(hidden)
    try:
        process = stopped.launch()
        assert process.popen.wait(30) == 1
        assert f"{stopped.store_path} does not exist" in process.tail()
    finally:
        hidden.rename(stopped.store_path)


def test_one_bad_document_leaves_out_one_tenant(stopped: Deployment) -> None:
    document = stopped.store.get("onboarded-tenants", "d")
    assert document is not None
    stopped.store.put("onboarded-tenants", "d", {**document.body, "id": "guid d"}, document.revision)
    stopped.start()
    assert stopped.get("/bills/1", token(A)).status == 200
    assert stopped.get("/bills/1", token("guid-d")).why == "unknown"
    assert stopped.process is not None
    assert "onboarded-tenants/d is left out" in stopped.process.tail()


def stop_in_the_start(router: Deployment) -> Process:
    """Start the router and stop its start script between its first reading of the store and its second."""
    for _attempt in range(10):
        process = router.launch()
        wait_for((router.home / "run" / "pid").exists, "HAProxy was started")
        os.kill(process.pid, signal.SIGSTOP)
        wait_for(lambda: state_of(router), "the worker answers")
        if not router.client().state().ready:
            return process
        router.stop()  # It was faster than the signal.
    raise AssertionError("the start script was never stopped in time")


def test_what_changed_in_the_store_during_the_start_is_loaded_last(stopped: Deployment) -> None:
    """The store changes after the first reading; a key that was edited live meanwhile stays as it was edited."""
    stopped.fill_store(phase="C", epoch=5)
    stopped.store.put("claims", "a", {"migration": MIGRATION}, None)
    process, client = stop_in_the_start(stopped), stopped.client()
    held = Background(lambda: stopped.get("/bills/1", token(A)))
    client.map(MIGRATION, 6, {A: B, B: None})
    client.release(MIGRATION, 6, [B])
    journal = stopped.store.get("migrations", MIGRATION)
    assert journal is not None
    stopped.store.put("migrations", MIGRATION, journal_body("R", 6, B), journal.revision)
    os.kill(process.pid, signal.SIGCONT)
    wait_for(lambda: client.state().ready, "the router is ready")
    state = client.state()
    assert (state.overrides, state.blocks, state.epochs) == (AFTER, {}, {MIGRATION: 6})
    assert held.answer().tenant == B


def test_a_reload_serves_the_stores_mapping_and_counts_the_old_worker(router: Deployment) -> None:
    client = router.client()
    before = client.workers()
    slow = Background(lambda: router.get("/bills/slow", token(A)))
    router.service.await_arrival()
    journal = journal_body("R", 3, B)
    router.store.put("migrations", MIGRATION, journal, None)
    done = reload_command(router)
    assert done.returncode == 0, done.stderr
    state = client.state()
    assert client.workers().current != before.current
    assert client.workers().old == (before.current,)
    assert (state.old_workers, state.ready, state.overrides, state.epochs) == (1, True, AFTER, {MIGRATION: 3})
    assert router.get("/bills/1", token(A)).tenant == B
    assert client.in_flight([A]) == 1, "the old worker's request counts"
    client.lease(MIGRATION, 3, [A], 60_000, HOLD)
    client.release(MIGRATION, 3, [A])
    again = reload_command(router)
    assert again.returncode == 1
    assert (
        "Router router-1 can't be reloaded now: 1 old worker(s) of an earlier reload still finish requests. Wait until"
        in again.stderr
    )
    router.service.gate.set()
    assert slow.answer().status == 200
    wait_for(lambda: client.state().old_workers == 0, "the old worker has ended")
    assert client.in_flight([A]) == 0


def test_a_block_reaches_the_old_worker_too(router: Deployment) -> None:
    """A connection that was open before the reload still sends its next request to the old worker."""
    client = router.client()
    slow = Background(lambda: router.get("/bills/slow", token("guid-d")))
    router.service.await_arrival()
    assert reload_command(router).returncode == 0
    client.close(MIGRATION, 1, [A], HOLD)
    old = client.workers().old
    assert len(old) == 1
    answers = client._cli.ask([f"@!{old[0]} show map maps/block.map"], keep=False)
    assert f"{A} hold|{FAR_MS}|{MIGRATION}" in answers[0]
    router.service.gate.set()
    assert slow.answer().status == 200


def test_a_reload_is_refused_while_a_tenant_is_blocked(router: Deployment) -> None:
    client = router.client()
    client.lease(MIGRATION, 1, [A], 60_000, HOLD)
    client.close(MIGRATION, 1, [B], HOLD)
    before = client.workers()
    done = reload_command(router)
    assert done.returncode == 1
    said = re.search(
        rf"Router router-1 can't be reloaded now: a block of migration {MIGRATION} is live, on {A} \((.*)\), {B}"
        r" \((.*)\)\. A lease",
        done.stderr,
    )
    assert said, done.stderr
    assert said[2] == "until released"
    assert 50_000 < int(said[1].removeprefix("a lease of ").removesuffix(" ms more")) <= 60_000
    assert router.process is not None
    os.kill(router.process.pid, signal.SIGHUP)
    wait_for(lambda: router.process and "reload refused" in router.process.tail(), "the signal is refused")
    assert client.workers() == before


def test_a_reload_by_the_master_itself_ends_ready_as_well(router: Deployment) -> None:
    client = router.client()
    before = client.workers().current
    router.store.put("migrations", MIGRATION, journal_body("R", 3, B), None)
    os.kill(master(router), signal.SIGUSR2)

    wait_for(
        lambda: (state := state_of(router)) and state.ready and client.workers().current != before,
        "the new worker is ready",
    )
    assert client.state().overrides == AFTER


def master(router: Deployment) -> int:
    """Process id of HAProxy's master."""
    answer = router.client()._cli.ask(["show proc"])[0]
    return next(int(line.split()[0]) for line in answer.splitlines() if " master " in line)


def test_only_one_router_runs_in_a_directory(router: Deployment) -> None:
    second = subprocess.run(
        [str(router.home / "bin" / "zdm-router")], capture_output=True, text=True, timeout=60, check=False
    )
    assert second.returncode == 1
    assert "already runs" in second.stderr
    assert router.get("/bills/1", token(A)).status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_haproxy_outlives_the_start_script(router: Deployment, number: signal.Signals) -> None:
    pids = [master(router), router.client().workers().current]
    assert router.process is not None
    os.kill(router.process.pid, number)
    router.process.popen.wait(20)
    wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), "HAProxy has ended")


def test_a_lease_that_has_ended_is_no_reason_against_a_reload(router: Deployment) -> None:
    client = router.client()
    client.lease(MIGRATION, 1, [A], 100, HOLD)
    wait_for(lambda: not client.state().blocks, "the lease has ended")
    assert reload_command(router).returncode == 0


def test_a_ready_router_is_not_loaded(router: Deployment) -> None:
    client = router.client()
    with pytest.raises(Unreachable, match="the router is ready"):
        client.load("override", {A: B})
    assert client.state().overrides == BEFORE
