# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sidecar's and the registries' interfaces: what they answer, and what is made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import (
    InputError,
    OutcomeUnknown,
    Refused,
    Unreachable,
)
from ansible_collections.zdm.landscape.plugins.module_utils.http.web import Web
from ansible_collections.zdm.landscape.plugins.module_utils.upgrade.base import (
    FAILED,
    RUNNING,
    UNKNOWN,
    UPGRADED,
    TenantState,
    Way,
)
from ansible_collections.zdm.landscape.plugins.module_utils.upgrade.run import Run, plan
from ansible_collections.zdm.landscape.plugins.module_utils.upgrade.ways import build_way
from ansible_collections.zdm.landscape.tests.cloud.registries import (
    IN_PROCESS,
    SUBSCRIBED,
    RegistryStandIn,
    SaasRegistryStandIn,
    SubscriptionManagerStandIn,
)
from ansible_collections.zdm.landscape.tests.cloud.standin import Answer, Request, StandIn
from ansible_collections.zdm.landscape.tests.cloud.xsuaa import Client, Xsuaa
from ansible_collections.zdm.landscape.tests.landscape.keys import Certificates

APP = Client("sb-app!t1", "app-secret", ("mtcallback",))


def way_of(options: Mapping[str, Any]) -> Way:
    """As the module builds it, without long pauses."""
    return build_way(options, Web(options.get("ca_file"), pause_s=0.001))


class Server(StandIn):
    """Answers as the test says."""

    pages: Callable[[Request], Answer]

    def answer(self, request: Request) -> Answer:
        return self.pages(request)


@pytest.fixture(name="server")
def _server() -> Iterator[Server]:
    with Server() as there:
        yield there


def sidecar(server: Server, **options: Any) -> Way:
    return way_of({"via": "sidecar", "url": server.url, "token": "given", **options})


def job(status: str, tenants: dict[str, Any], error: str | None = None) -> Answer:
    return Answer(200, {"ID": "1", "op": "upgrade", "status": status, "error": error, "tenants": tenants})


def polled(server: Server, answer: Answer) -> Any:
    queued = {"ID": "1", "status": "QUEUED", "tenants": {"t1": {"status": "QUEUED"}, "t2": {"status": "QUEUED"}}}
    server.pages = lambda request: Answer(202, queued) if request.method == "POST" else answer
    return sidecar(server).start(["t1", "t2"]).poll()


def test_queued_is_not_finished(server: Server) -> None:
    found = polled(server, job("QUEUED", {"t1": {"status": "QUEUED"}, "t2": {"status": "RUNNING"}}))
    assert (found.ended, found.tenants) == (False, {"t1": TenantState(RUNNING), "t2": TenantState(RUNNING)})
    post = server.requests[0]
    assert (post.json(), post.headers["prefer"], post.bearer) == ({"tenants": ["t1", "t2"]}, "respond-async", "given")
    assert server.requests[1].path == "/-/cds/jobs/pollJob(ID='1')"


def test_the_reason_of_a_failure_is_the_tenants(server: Server) -> None:
    error = "CDS compilation failed\n<recompile>.csn:41: Error: Dropping elements"
    found = polled(server, job("FAILED", {"t1": {"status": "FAILED", "error": error}, "t2": {"status": "FINISHED"}}))
    assert found.ended
    assert found.tenants == {
        "t1": TenantState(FAILED, "CDS compilation failed <recompile>.csn:41: Error: Dropping elements"),
        "t2": TenantState(UPGRADED),
    }


@pytest.mark.parametrize("status", ["FINISHED", "FAILED"])
def test_a_job_that_ended_with_tenants_that_have_not(server: Server, status: str) -> None:
    found = polled(server, job(status, {"t1": {"status": "RUNNING"}}))
    assert found.ended
    assert {state.status for state in found.tenants.values()} == {UNKNOWN}
    assert set(found.tenants) == {"t1", "t2"}


@pytest.mark.parametrize(
    "answer", [Answer(404, {"error": {"message": "No job found"}}), job("TIMEOUT", {}), job("CANCELLED", {})]
)
def test_jobs_that_are_lost(server: Server, answer: Answer) -> None:
    found = polled(server, answer)
    assert (found.ended, bool(found.lost)) == (True, True)


def test_who_else_upgrades_is_read_from_the_list_of_jobs(server: Server) -> None:
    def entry(number: int, op: str, status: str, tenant: str) -> dict[str, Any]:
        return {"ID": str(number), "op": op, "status": status, "tasks": [{"tenant": tenant}]}

    jobs = [
        entry(1, "upgrade", "RUNNING", "t1"),
        entry(2, "upgrade", "FINISHED", "t1"),
        entry(3, "subscribe", "RUNNING", "t1"),
        entry(4, "upgrade", "QUEUED", "t9"),
    ]
    server.pages = lambda request: Answer(200, jobs)
    assert [found.id for found in sidecar(server).running(["t1", "t2"])] == ["1"]
    for status in (403, 404):
        server.pages = lambda request, status=status: Answer(status, {"error": {"message": "not for you"}})
        assert sidecar(server).running(["t1"]) == []


def test_answers_of_something_else_than_a_sidecar(server: Server) -> None:
    server.pages = lambda request: Answer(200, "<html>Welcome</html>")
    with pytest.raises(Unreachable, match="no JSON"):
        sidecar(server).tenants()
    server.pages = lambda request: Answer(404, {"error": "unknown_route"})
    with pytest.raises(Refused, match="status 404: unknown_route"):
        sidecar(server).tenants()
    server.pages = lambda request: Answer(200, {"value": []})
    with pytest.raises(Unreachable, match="unexpected"):
        sidecar(server).tenants()


def test_a_full_queue_starts_nothing_and_a_proxy_that_gave_up_tells_nothing(server: Server) -> None:
    server.pages = lambda request: Answer(429, {"error": {"message": "Tenant operation job queue is full."}})
    with pytest.raises(Refused, match="queue is full"):
        sidecar(server).start(["t1"])
    server.pages = lambda request: Answer(504, "gateway timeout")
    with pytest.raises(OutcomeUnknown):
        sidecar(server).start(["t1"])
    server.pages = lambda request: Answer(202, {"status": "QUEUED"})
    with pytest.raises(Unreachable, match="which job"):
        sidecar(server).start(["t1"])
    assert len(server.requests) == 3, "a start is never repeated below the run"


def test_questions_are_repeated_while_the_sidecar_is_busy(server: Server) -> None:
    answers = [Answer(503, "starting"), Answer(502, "away"), Answer(200, [{"subscribedTenantId": "t1"}])]
    server.pages = lambda request: answers.pop(0)
    assert sidecar(server).tenants() == ["t1"]
    server.pages = lambda request: Answer(503, "starting")
    with pytest.raises(Unreachable, match="503"):
        sidecar(server).tenants()


def test_a_gateway_that_gave_up_does_not_tell_whether_an_update_began(server: Server) -> None:
    """A tenant of which it is not known has not failed: it may still be upgraded."""
    listed = {
        "subscriptions": [{"consumerTenantId": tenant, "state": "SUBSCRIBED"} for tenant in ("t1", "t2")],
        "morePages": False,
    }
    updates = [
        Answer(504, "gateway timeout"),
        Answer(202, None, {"Location": "/jobs/1"}),
        Answer(504, "gateway timeout"),
    ]
    server.pages = lambda request: Answer(200, listed) if request.method == "GET" else updates.pop(0)
    way = way_of({"via": "saas_registry", "app_name": "app", "url": server.url, "token": "given"})
    with pytest.raises(OutcomeUnknown, match="504"):
        way.start(["t1", "t2"])
    server.pages = lambda request: (
        Answer(200, {"state": "SUCCEEDED"} if "/jobs/" in request.path else listed)
        if request.method == "GET"
        else updates.pop(0)
    )
    found = way.start(["t1", "t2"]).poll()
    assert {tenant: state.status for tenant, state in found.tenants.items()} == {"t1": UPGRADED, "t2": UNKNOWN}


@pytest.fixture(name="xsuaa", scope="module")
def _xsuaa(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Xsuaa]:
    certificates = Certificates.make(tmp_path_factory.mktemp("certificates"))
    with Xsuaa(certificates, "app!t1", [APP], {"provider": "p"}, {}) as there:
        yield there


def with_client(xsuaa: Xsuaa) -> dict[str, Any]:
    return {
        "token_url": f"{xsuaa.url}/oauth/token",
        "client_id": APP.id,
        "client_secret": APP.secret,
        "ca_file": str(xsuaa.certificates.authority),
    }


def test_a_token_that_is_refused_is_renewed_once(server: Server, xsuaa: Xsuaa) -> None:
    refused: list[str] = []

    def pages(request: Request) -> Answer:
        if not refused:
            refused.append(request.bearer)
        return Answer(401, "Unauthorized") if request.bearer == refused[0] else Answer(200, [])

    server.pages = pages
    way = way_of({"via": "sidecar", "url": server.url, **with_client(xsuaa)})
    assert way.tenants() == []
    server.pages = lambda request: Answer(401, "Unauthorized")
    with pytest.raises(Refused, match="does not accept the token"):
        way.tenants()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "idle-route"}, "url"),
        ({"token": ""}, "no token"),
        ({"token": "", "token_url": "https://uaa", "client_id": "c"}, "no complete client credentials"),
        ({"via": "saas_registry"}, "app_name is missing"),
        ({"token": "", "token_url": "uaa", "client_id": "c", "client_secret": "s"}, "token_url"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        way_of({"via": "sidecar", "url": "https://idle", "token": "given", **options})


class Application(StandIn):
    """The application's callbacks; ``refuse`` names tenants it answers with an error."""

    def __init__(self) -> None:
        super().__init__()
        self.refuse: set[str] = set()
        self.registry: RegistryStandIn | None = None

    def answer(self, request: Request) -> Answer:
        if request.method == "GET":
            return Answer(200, [])
        tenant = request.json()["subscribedTenantId"]
        if tenant in self.refuse:
            return Answer(500, {"error": "no database"})
        assert request.headers["status_callback"]
        assert self.registry is not None
        callback = request.headers["status_callback"]
        headers = {"authorization": request.headers["authorization"]}
        ended = self.registry.answer(Request("PUT", callback, headers, b'{"status": "SUCCEEDED", "message": "done"}'))
        assert ended.status == 200
        return Answer(202, None)


@pytest.fixture(name="registry", params=[SaasRegistryStandIn, SubscriptionManagerStandIn])
def _registry(request: pytest.FixtureRequest, xsuaa: Xsuaa) -> Iterator[tuple[RegistryStandIn, Application, Way]]:
    with ExitStack() as stack:
        application = stack.enter_context(Application())
        urls = {
            "getDependencies": f"{application.url}/dependencies",
            "onSubscription": f"{application.url}/tenant/{{tenantId}}",
        }
        registry = stack.enter_context(
            request.param(xsuaa, "app", urls, {f"t{number}": f"sub{number}" for number in range(5)}, APP.id)
        )
        registry.page_size = 2
        application.registry = registry
        via = "saas_registry" if request.param is SaasRegistryStandIn else "subscription_manager"
        yield registry, application, way_of({"via": via, "url": registry.url, "app_name": "app", **with_client(xsuaa)})


def test_tenants_are_listed_page_by_page_and_upgraded(registry: tuple[RegistryStandIn, Application, Way]) -> None:
    there, application, way = registry
    assert way.tenants() == ["t0", "t1", "t2", "t3", "t4"]
    application.refuse = {"t3"}
    told: list[str] = []
    outcome = Run(way, plan(way.tenants(), None, "t2", 2), 20_000, 5, True, told.append).carry_out()
    assert outcome.of(UPGRADED) == ["t2", "t0", "t1", "t4"]
    assert outcome.of(FAILED) == ["t3"]
    assert "Failed to call callback" in outcome.tenants["t3"].error
    assert "no database" in outcome.tenants["t3"].error
    assert there.subscribers["t3"].state == "UPDATE_FAILED"
    application.refuse = set()
    again = Run(way, plan(way.tenants(), ["t3"], "", 2), 20_000, 5, True, told.append).carry_out()
    assert (again.problem, again.of(UPGRADED)) == (None, ["t3"])


def test_a_subscription_in_process_is_waited_for(registry: tuple[RegistryStandIn, Application, Way]) -> None:
    there, _application, way = registry
    there.subscribers["t1"].state = IN_PROCESS
    jobs = way.running(["t0", "t1"])
    assert [found.tenants for found in jobs] == [("t1",)]
    assert not jobs[0].poll().ended
    there.subscribers["t1"].state = SUBSCRIBED
    assert jobs[0].poll().ended


def test_a_tenant_that_is_in_process_or_gone_when_its_turn_comes(
    registry: tuple[RegistryStandIn, Application, Way],
) -> None:
    there, _application, way = registry
    there.subscribers["t1"].state = IN_PROCESS
    del there.subscribers["t2"]
    found = way.start(["t1", "t2"]).poll()
    assert found.ended
    assert "in process" in found.tenants["t1"].error
    assert "not subscribed any more" in found.tenants["t2"].error


def test_the_wrong_application_and_jobs_that_vanish(
    registry: tuple[RegistryStandIn, Application, Way], xsuaa: Xsuaa, tmp_path: Path
) -> None:
    there, _application, way = registry
    with pytest.raises(Refused, match="unknown application other"):
        way_of(
            {
                "via": "saas_registry" if isinstance(there, SaasRegistryStandIn) else "subscription_manager",
                "url": there.url,
                "app_name": "other",
                **with_client(xsuaa),
            }
        ).tenants()
    started = way.start(["t0"])
    del there.subscribers["t0"]
    assert "404" in started.poll().lost
