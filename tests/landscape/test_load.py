# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The load generator sees every kind of failure, and a system without one passes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp import web
from ansible_collections.zdm.landscape.tests.landscape.bench import LIVE, OTHER, Bench, Front
from ansible_collections.zdm.landscape.tests.landscape.ledger import BYSTANDER
from ansible_collections.zdm.landscape.tests.landscape.processes import Processes

NTH = 10
"""The write that harm is done to."""


@pytest.fixture(name="bench")
def _bench(folder: Path, processes: Processes) -> Bench:
    return Bench(folder, processes)


def is_nth_write(front: Front, request: web.Request) -> bool:
    return request.method == "POST" and front.writes == NTH


def is_bystander(request: web.Request) -> bool:
    return request.headers["authorization"].endswith(BYSTANDER)


def test_a_right_system_passes_and_every_request_is_sent_once(bench: Bench) -> None:
    first, second = bench.load(), bench.load()
    assert first["requests"] >= 100
    assert first["failed"] == second["failed"] == 0, first["failures"] + second["failures"]
    assert second["requests"] + 2 == bench.front.seen  # two baselines
    verdict = bench.check()
    assert verdict.ok, verdict.findings
    assert verdict.acknowledged == first["writes"] + second["writes"]
    assert verdict.unknown == 0


def test_an_error_is_a_failure(bench: Bench) -> None:
    async def harm(front: Front, request: web.Request, body: bytes) -> web.StreamResponse | None:
        return web.json_response({}, status=500) if is_nth_write(front, request) else None

    summary = bench.load(harm)
    assert summary["failed"] == summary["unknown"] == 1
    assert "answer 500" in summary["failures"][0]["what"]
    assert bench.check().ok  # it was not acknowledged, so it need not be there


@pytest.mark.parametrize("status", [201, 301, 404])
def test_any_other_answer_is_a_failure(bench: Bench, status: int) -> None:
    async def harm(front: Front, request: web.Request, body: bytes) -> web.StreamResponse | None:
        return web.json_response({}, status=status) if is_nth_write(front, request) else None

    assert bench.load(harm)["failed"] == 1


def test_a_connection_that_breaks_is_a_failure_and_the_request_is_not_sent_again(bench: Bench) -> None:
    async def harm(front: Front, request: web.Request, body: bytes) -> web.StreamResponse | None:
        if request.method == "GET" and front.seen % 20 == 0:
            assert request.transport is not None
            request.transport.close()
        return None

    summary = bench.load(harm, failures=3)
    assert summary["failed"] >= 3
    assert summary["requests"] + 2 == bench.front.seen


def test_where_a_router_may_be_killed_a_broken_connection_is_counted_apart_and_silence_is_not(bench: Bench) -> None:
    async def harm(front: Front, request: web.Request, body: bytes) -> web.StreamResponse | None:
        if is_nth_write(front, request):
            await asyncio.Event().wait()
        elif request.method == "GET" and front.seen % 5 == 0 and not request.path.endswith("/0"):
            assert request.transport is not None
            request.transport.close()
        return None

    summary = bench.load(harm, may_break=True, timeout_s=5)
    assert [summary["failed"], len(summary["broken"])] == [1, 1]
    assert sum(summary["broken"].values()) > 0
    assert "no answer" in summary["failures"][0]["what"]


def test_silence_is_a_failure(bench: Bench) -> None:
    async def harm(front: Front, request: web.Request, body: bytes) -> web.StreamResponse | None:
        if is_nth_write(front, request):
            await asyncio.Event().wait()
        return None

    summary = bench.load(harm, timeout_s=5)
    assert summary["unknown"] >= 1
    assert any("no answer within 5 s" in failure["what"] for failure in summary["failures"])


def test_only_in_chaos_a_router_may_refuse(bench: Bench) -> None:
    async def harm(front: Front, request: web.Request, body: bytes) -> web.StreamResponse | None:
        return web.Response(status=503, headers={"x-router": "blocked"}) if is_nth_write(front, request) else None

    assert bench.load(harm)["failed"] == 1
    summary = bench.load(harm, chaos=True)
    assert (summary["failed"], summary["refused"], summary["unknown"]) == (0, 1, 1)


def test_a_service_may_not_refuse_in_chaos_either(bench: Bench) -> None:
    async def harm(front: Front, request: web.Request, body: bytes) -> web.StreamResponse | None:
        return web.Response(status=503) if is_nth_write(front, request) else None

    assert bench.load(harm, chaos=True)["failed"] == 1


def test_a_stale_read_is_a_failure(bench: Bench) -> None:
    async def harm(front: Front, request: web.Request, body: bytes) -> web.StreamResponse | None:
        """Answer every read of a bucket after the first as the first one was."""
        if request.method == "POST" or "/writes/" not in request.path or request.path.endswith("/0"):
            return None
        key = f"{request.path} {is_bystander(request)}"
        if key not in front.kept:
            answer = await front.forward(request, body)
            front.kept[key] = bytes(answer.body or b"")  # type: ignore[arg-type]
        return web.Response(body=front.kept[key], content_type="application/json")

    summary = bench.load(harm, failures=1)
    assert summary["failed"] > 0
    assert all("missing" in failure["what"] or "counted" in failure["what"] for failure in summary["failures"])


def test_a_stale_item_is_a_failure(bench: Bench) -> None:
    async def harm(front: Front, request: web.Request, body: bytes) -> web.StreamResponse | None:
        """The answer of the first change, for all changes."""
        if request.method == "POST" and json.loads(body)["operation"] == "change":
            answer = await front.forward(request, body)
            kept = front.kept.setdefault("change", bytes(answer.body or b""))  # type: ignore[arg-type]
            return web.Response(body=kept, content_type="application/json")
        return None

    summary = bench.load(harm, failures=1)
    assert summary["failed"] > 0
    assert "change made" in summary["failures"][0]["what"]


def test_a_lost_write_is_found_by_reads_and_by_the_checker(bench: Bench) -> None:
    async def harm(front: Front, request: web.Request, body: bytes) -> web.StreamResponse | None:
        if not is_nth_write(front, request):
            return None
        answer = await front.forward(request, body)
        bench.database.execute(f"DELETE FROM outbox WHERE write_id = '{json.loads(body)['write_id']}'")
        return answer

    summary = bench.load(harm, failures=1)
    assert any("missing" in failure["what"] for failure in summary["failures"])
    verdict = bench.check()
    assert verdict.lost_writes >= 1
    assert verdict.wrong_tenant == 0


def test_a_doubled_write_is_found_by_its_answer_and_by_the_checker(bench: Bench) -> None:
    async def harm(front: Front, request: web.Request, body: bytes) -> web.StreamResponse | None:
        if request.method == "POST" and json.loads(body)["operation"] == "change" and not front.kept:
            front.kept["done"] = body
            await front.forward(request, body)
        return None

    summary = bench.load(harm, failures=1)
    assert any("change made" in failure["what"] for failure in summary["failures"])
    verdict = bench.check()
    assert verdict.doubled_writes >= 1
    assert verdict.lost_writes == 0


def test_a_write_under_a_wrong_id_is_found_by_its_answer_and_by_the_checker(bench: Bench) -> None:
    async def harm(front: Front, request: web.Request, body: bytes) -> web.StreamResponse | None:
        # late enough that the bystander has no item of this number
        if (
            front.writes > 40
            and request.method == "POST"
            and json.loads(body)["operation"] == "create"
            and not is_bystander(request)
            and not front.kept
        ):
            front.kept["done"] = body
            return await front.forward(request, body, tenant_id=OTHER)
        return None

    summary = bench.load(harm, failures=1)
    assert any(f"served under the id {OTHER}" in failure["what"] for failure in summary["failures"])
    verdict = bench.check()
    assert verdict.wrong_tenant >= 1
    assert verdict.lost_writes >= 1


def test_a_bystanders_failure_is_counted_apart(bench: Bench) -> None:
    async def harm(front: Front, request: web.Request, body: bytes) -> web.StreamResponse | None:
        if is_bystander(request) and request.method == "GET" and not request.path.endswith("/0"):
            return await front.forward(request, body, tenant_id=LIVE)
        return None

    summary = bench.load(harm, failures=1)
    assert summary["failed"] == summary["bystander_failed"] > 0


def test_what_the_router_says_it_held_is_counted_as_held(bench: Bench) -> None:
    async def harm(front: Front, request: web.Request, body: bytes) -> web.StreamResponse | None:
        number = front.seen
        answer = await front.forward(request, body)
        if number % 30 == 0:
            answer.headers["x-router-held"] = str(number)
        elif number % 7 == 0:
            await asyncio.sleep(0.1)
        return answer

    summary = bench.load(harm)
    assert summary["held_requests"] == bench.front.seen // 30, "a slow request is not a held one"
    assert summary["max_held_ms"] == bench.front.seen // 30 * 30
    assert summary["max_ms"] >= 100
    assert summary["failed"] == 0
