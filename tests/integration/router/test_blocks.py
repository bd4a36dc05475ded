# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Blocks: hold, release, refuse, lease, drain; and which commands a router refuses."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from functools import partial

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused, Superseded, Timeout
from ansible_collections.zdm.landscape.plugins.module_utils.router.base import FAR_MS, HOLD, REJECT
from ansible_collections.zdm.landscape.plugins.module_utils.router.fleet import Fleet
from ansible_collections.zdm.landscape.tests.integration.router.kit import (
    HOST,
    MIGRATION,
    A,
    B,
    Background,
    Deployment,
    token,
    wait_for,
)

OTHER = "c--d"
LONG = 60_000


def held(router: Deployment, tenant: str = A) -> int:
    usage = router.client().state(usage=True).usage
    return usage[tenant].held if tenant in usage else 0


def test_a_held_request_goes_on_under_the_new_mapping(router: Deployment) -> None:
    client = router.client()
    client.lease(MIGRATION, 1, [A, B], LONG, HOLD)
    waiting = [Background(lambda: router.get("/bills/1", token(A))) for _unused in range(4)]
    wait_for(lambda: held(router) == 4, "four requests are held")
    assert router.service.count == 0
    assert client.in_flight([A, B]) == 0, "held requests are not in flight"
    client.map(MIGRATION, 1, {A: B, B: None})
    client.release(MIGRATION, 1, [A, B])
    assert [(request.answer().status, request.answer().tenant) for request in waiting] == [(200, B)] * 4


def test_every_answer_of_a_held_request_says_for_how_long(router: Deployment) -> None:
    """Also the router's own answers; what client or service say by that name means nothing."""
    client, claimed = router.client(), {"X-Router-Held": "12345"}
    free = router.get("/bills/held", token(A), headers=claimed)
    assert (free.status, free.headers.get("x-router-held")) == (200, None)
    assert not [name for name, _value in free.seen["headers"] if name == "x-router-held"]
    client.close(MIGRATION, 1, [A, B], HOLD)
    begin = time.monotonic()
    served, unreachable = (
        Background(partial(router.get, path, token(A), headers=claimed)) for path in ("/bills/held", "/dead/1")
    )
    refused = Background(lambda: router.get("/bills/1", token(B)))
    wait_for(lambda: held(router) == 2 and held(router, B) == 1, "three requests are held")
    all_held = time.monotonic()
    wait_for(lambda: time.monotonic() > all_held + 0.2, "some time has passed")
    least = (time.monotonic() - all_held) * 1000
    client.release(MIGRATION, 1, [A])
    answers = [served.answer(), unreachable.answer()]
    most = (time.monotonic() - begin) * 1000
    assert [answer.status for answer in answers] == [200, 503]
    assert all(least - 1 <= int(answer.headers["x-router-held"]) <= most + 1 for answer in answers)
    given_up = refused.answer()
    assert (given_up.status, given_up.why) == (503, "timeout")
    assert 3_000 <= int(given_up.headers["x-router-held"]) < 20_000
    client.close(MIGRATION, 1, [A], REJECT)
    at_once = router.get("/bills/1", token(A))
    assert (at_once.status, at_once.headers.get("x-router-held")) == (503, None)


def test_other_tenants_are_served_meanwhile(router: Deployment) -> None:
    router.client().close(MIGRATION, 1, [A, B], HOLD)
    assert router.get("/bills/1", token("guid-d")).tenant == "guid-d"


def test_a_request_is_held_no_longer_than_the_limit(router: Deployment) -> None:
    router.client().close(MIGRATION, 1, [A], HOLD)
    answer = router.get("/bills/1", token(A))
    assert (answer.status, answer.why, answer.headers["retry-after"]) == (503, "timeout", "1")
    assert router.service.count == 0


def test_no_more_than_the_limit_of_a_tenant_is_held(router: Deployment) -> None:
    router.client().close(MIGRATION, 1, [A], HOLD)
    waiting = [Background(lambda: router.get("/bills/1", token(A))) for _unused in range(5)]
    wait_for(lambda: held(router) == 5, "five requests are held")
    answer = router.get("/bills/1", token(A))
    assert (answer.status, answer.why) == (503, "full")
    router.client().release(MIGRATION, 1, [A])
    assert [request.answer().status for request in waiting] == [200] * 5


def test_reject_refuses_at_once_and_also_those_that_are_held(router: Deployment) -> None:
    client = router.client()
    client.close(MIGRATION, 1, [A], HOLD)
    waiting = Background(lambda: router.get("/bills/1", token(A)))
    wait_for(lambda: held(router) == 1, "a request is held")
    client.close(MIGRATION, 1, [A], REJECT)
    assert [(answer.status, answer.why) for answer in (waiting.answer(), router.get("/bills/1", token(A)))] == [
        (503, "blocked")
    ] * 2
    assert client.in_flight([A]) == 0
    assert router.service.count == 0


def test_a_block_that_was_never_made_hard_ends_like_every_lease(router: Deployment) -> None:
    """A controller that dies between the two steps leaves a lease that gate 1 alone keeps."""
    client = router.client()
    assert client._cli.ask([f"@1 zdm lease {MIGRATION} 1 hold 700 {A}"]) == ["soft 1\n"]
    waiting = Background(lambda: router.get("/bills/1", token(A)))
    wait_for(lambda: held(router) == 1, "the request is held")
    assert client.state().blocks[A].migration == MIGRATION
    assert waiting.answer().status == 200
    assert client.state().blocks == {}
    client.lease(MIGRATION, 1, [A], LONG, HOLD)
    assert client._cli.ask(["@1 show map maps/block.map"])[0].endswith(f"|{MIGRATION}\n")


def test_a_lease_ends_by_itself_by_the_routers_clock(router: Deployment) -> None:
    client = router.client()
    before = client.state().clock_ms
    client.lease(MIGRATION, 1, [A], 700, HOLD)
    until = client.state().blocks[A].until_ms
    assert router.get("/bills/1", token(A)).status == 200
    after = client.state()
    assert before + 700 <= until <= after.clock_ms
    assert after.blocks == {}


def test_a_lease_is_renewed_and_a_far_block_never_becomes_one(router: Deployment) -> None:
    client = router.client()
    client.lease(MIGRATION, 1, [A, B], 5_000, HOLD)
    first = client.state().blocks[A].until_ms
    client.lease(MIGRATION, 1, [A, B], LONG, HOLD)
    assert client.state().blocks[A].until_ms > first + 50_000
    client.close(MIGRATION, 1, [A], HOLD)
    client.lease(MIGRATION, 1, [A, B], 100, HOLD)
    wait_for(lambda: B not in client.state().blocks, "the lease of B has ended")
    block = client.state().blocks[A]
    assert (block.until_ms, block.far, block.migration) == (FAR_MS, True, MIGRATION)


def test_an_older_epoch_is_refused_by_every_command(router: Deployment) -> None:
    client = router.client()
    client.take_over(MIGRATION, 7)
    client.close(MIGRATION, 7, [A], HOLD)
    before = client.state()
    commands: list[Callable[[], None]] = [
        lambda: client.take_over(MIGRATION, 6),
        lambda: client.lease(MIGRATION, 6, [B], LONG, HOLD),
        lambda: client.close(MIGRATION, 6, [B], HOLD),
        lambda: client.release(MIGRATION, 6, [A]),
        lambda: client.map(MIGRATION, 6, {A: B}),
    ]
    for command in commands:
        with pytest.raises(Superseded, match="router-1 has seen epoch 7 of migration a--b"):
            command()
    after = client.state()
    assert (after.blocks, after.overrides, after.epochs) == (before.blocks, before.overrides, {MIGRATION: 7})
    client.release(MIGRATION, 8, [A])
    assert client.state().epochs == {MIGRATION: 8}


def test_a_block_belongs_to_its_migration(router: Deployment) -> None:
    client = router.client()
    client.close(MIGRATION, 1, [A], HOLD)
    commands: list[Callable[[], None]] = [
        lambda: client.lease(OTHER, 9, ["guid-d", A], LONG, HOLD),
        lambda: client.close(OTHER, 9, ["guid-d", A], HOLD),
        lambda: client.release(OTHER, 9, [A]),
        lambda: client.map(OTHER, 9, {"guid-d": A}),
        lambda: client.map(OTHER, 9, {A: "guid-d"}),
    ]
    for command in commands:
        with pytest.raises(Refused, match="guid-a is blocked by migration a--b"):
            command()
    state = client.state()
    assert list(state.blocks) == [A], "a command that is refused for one id does nothing to the others"
    assert state.overrides == {B: A, "guid-c": A}


def test_the_end_of_a_lease_frees_the_id_for_another_migration(router: Deployment) -> None:
    client = router.client()
    client.lease(MIGRATION, 1, [A], 100, HOLD)
    wait_for(lambda: not client.state().blocks, "the lease has ended")
    client.close(OTHER, 1, [A], HOLD)
    assert client.state().blocks[A].migration == OTHER


def test_edits_outside_of_a_migration_are_refused_while_blocked(router: Deployment) -> None:
    client = router.client()
    client.close(MIGRATION, 1, [A], HOLD)
    for table, entries in (
        ("override", {A: "guid-d"}),
        ("override", {"guid-d": A}),
        ("override", {B: None}),
        ("onboarded", {A: None}),
        ("decommissioned", {A: "1"}),
        ("subdomains", {"a": "guid-d"}),
        ("subdomains", {"new": A}),
    ):
        with pytest.raises(Refused, match="guid-a is blocked by migration a--b"):
            client.edit(table, entries)
    client.edit("onboarded", {"guid-e": "us10/stable"})
    assert router.get("/bills/1", token("guid-e")).tenant == "guid-e"
    client.edit("decommissioned", {"guid-e": "1"})
    assert router.get("/bills/1", token("guid-e")).why == "decommissioned"


def test_drain_waits_for_exactly_the_requests_that_passed(router: Deployment) -> None:
    client, fleet = router.client(), Fleet([router.client(), router.client(tls=True)])
    passed = [Background(partial(router.get, "/bills/slow", token(tenant))) for tenant in (A, B, A)]
    for _unused in passed:
        router.service.await_arrival()
    bystander = Background(lambda: router.get("/bills/slow", token("guid-d")))
    router.service.await_arrival()
    client.lease(MIGRATION, 1, [A, B], LONG, HOLD)
    late = Background(lambda: router.get("/bills/1", token(A)))
    wait_for(lambda: held(router) == 1, "the late request is held")
    assert (client.in_flight([A]), client.in_flight([B]), client.in_flight([A, B, "guid-x"])) == (2, 1, 3)
    with pytest.raises(Timeout, match="3 at router router-1") as error:
        fleet.drain([A, B], 50)
    assert error.value.details["in_flight"] == {"router-1": 3}
    router.service.gate.set()
    assert fleet.drain([A, B], 20_000) >= 0
    assert [request.answer().status for request in passed] == [200] * 3
    assert bystander.answer().status == 200
    assert not late.done
    client.release(MIGRATION, 1, [A, B])
    assert late.answer().status == 200
    usage = client.state(usage=True).usage[A]
    assert (usage.requests, usage.in_flight, usage.abandoned) == (3, 0, 0)
    assert usage.idle_ms is not None
    assert 0 <= usage.idle_ms < 60_000


def test_a_client_that_left_during_the_hold_never_reaches_the_service(router: Deployment) -> None:
    client = router.client()
    client.close(MIGRATION, 1, [A], HOLD)
    with socket.create_connection((HOST, router.port)) as connection:
        connection.sendall(f"GET /bills/1 HTTP/1.1\r\nHost: r\r\nAuthorization: Bearer {token(A)}\r\n\r\n".encode())
        wait_for(lambda: held(router) == 1, "the request is held")
    wait_for(lambda: held(router) == 0, "the request is gone")
    client.release(MIGRATION, 1, [A])
    assert router.get("/bills/1", token(A)).status == 200
    assert router.service.count == 1


def test_a_client_that_left_while_the_service_works_is_in_flight_or_abandoned(router: Deployment) -> None:
    client = router.client()
    with socket.create_connection((HOST, router.port)) as connection:
        connection.sendall(f"GET /bills/slow HTTP/1.1\r\nHost: r\r\nAuthorization: Bearer {token(A)}\r\n\r\n".encode())
        router.service.await_arrival()
        assert client.in_flight([A]) == 1
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() resets
    for _unused in range(20):
        usage = client.state(usage=True).usage[A]
        assert usage.in_flight + usage.abandoned == 1, (
            "HAProxy may notice early or late, but it never loses the request"
        )
    router.service.gate.set()
    wait_for(lambda: client.in_flight([A]) == 0, "the request is out of the router")


def test_many_ids_go_in_one_call(router: Deployment) -> None:
    client, ids = router.client(), [f"tenant-{number}" for number in range(130)]
    client.close(MIGRATION, 1, ids, HOLD)
    assert sorted(client.state().blocks) == sorted(ids)
    client.map(MIGRATION, 1, dict.fromkeys(ids, A))
    assert client.in_flight(ids) == 0
    client.release(MIGRATION, 1, ids)
    state = client.state()
    assert state.blocks == {}
    assert [tenant for tenant in ids if state.overrides[tenant] != A] == []


def test_blocks_are_exact_under_load(router: Deployment) -> None:
    """No request reaches the service between a drain that found nothing and the release."""
    client, fleet = router.client(), Fleet([router.client()])
    router.service.gate.set()
    end = time.monotonic() + 4
    answers: list[tuple[int, str | None]] = []

    def load() -> None:
        while time.monotonic() < end:
            answer = router.get("/bills/1", token(A))
            answers.append((answer.status, answer.why))

    workers = [Background(load) for _unused in range(4)]  # type: ignore[arg-type]
    cycles = 0
    while time.monotonic() < end:
        client.lease(MIGRATION, 1, [A, B], LONG, HOLD)
        fleet.drain([A, B], 20_000)
        first = router.service.count
        time.sleep(0.01)
        client.map(MIGRATION, 1, {A: B, B: None} if cycles % 2 else {A: None, B: A})
        assert router.service.count == first
        client.release(MIGRATION, 1, [A, B])
        cycles += 1
    wait_for(lambda: all(worker.done for worker in workers), "the load has ended")
    assert cycles > 5
    assert set(answers) == {(200, None)}
