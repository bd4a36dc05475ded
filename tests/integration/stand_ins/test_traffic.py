# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users meet while a version is switched: on the real service a resume loses their requests, unless the idle
applications are stopped before it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.zdm.landscape.tests.cloud.callers import Callers, Relay, Service, ask
from ansible_collections.zdm.landscape.tests.cloud.cloud import Cloud
from ansible_collections.zdm.landscape.tests.cloud.gorouter import Gorouter
from ansible_collections.zdm.landscape.tests.cloud.pace import REAL, Pace
from ansible_collections.zdm.landscape.tests.cloud.runners import OwnApps, Runnable, version_of
from ansible_collections.zdm.landscape.tests.cloud.space import Cut, Space
from ansible_collections.zdm.landscape.tests.integration.stand_ins.kit import Rest, Shop
from ansible_collections.zdm.landscape.tests.landscape.processes import wait_until


class Apps(OwnApps):
    def make(self, module_name: str, env: Mapping[str, str], content: bytes) -> Runnable:
        if module_name == "srv":
            return Service(version_of(content))
        return Relay(json.loads(env["destinations"])[0]["url"])


@pytest.fixture(name="router")
def _router() -> Iterator[Gorouter]:
    with Gorouter() as router:
        yield router


@pytest.fixture(name="cloud")
def _cloud(tmp_path: Path, router: Gorouter) -> Iterator[Cloud]:
    with (
        Apps() as apps,
        Cloud(tmp_path, Space(domain=f"apps.localhost:{router.port}", runner=apps, router=router)) as cloud,
    ):
        yield cloud


@pytest.fixture(name="load")
def _load(rest: Rest, shop: Shop, router: Gorouter) -> Iterator[Callers]:
    """Users of version 1.0.0."""
    shop.deploy("1.0.0")
    rest.cloud.space.pace = REAL.scaled(0.01)
    with Callers(router.port, f"my-org-dev-web.{rest.cloud.space.domain}") as load:
        load.more()
        yield load


def switched(rest: Rest, shop: Shop, load: Callers, version: str, *, stop: bool) -> None:
    """Deploy a version and resume, with users at work in every moment of the consumer's switch."""
    operation = shop.testing(version)
    if stop:
        for name in ("web-idle", "srv-idle"):
            rest.stop(name)
    load.more()
    moments = [f"{step} web" for step in ("switch", "rename", "start", "routes")]
    reached = {moment: rest.cloud.faults.hold_at(moment) for moment in [*moments, "bind web-idle", "delete live"]}
    assert rest.act(operation, "resume") == 202
    for moment in ("switch web", "bind web-idle", "rename web", "start web", "routes web", "delete live"):
        assert reached[moment].wait(60), moment
        load.more()
        rest.cloud.faults.release(moment)
    rest.wait(operation, "FINISHED")
    load.more()


def test_a_resume_of_running_applications_loses_requests(rest: Rest, shop: Shop, load: Callers) -> None:
    """The consumer gets live traffic while it still asks for the provider's idle route, which is gone."""
    switched(rest, shop, load, "2.0.0", stop=False)
    assert load.failures
    assert {status for status, _text in load.failures} == {404}
    assert all("my-org-dev-srv-idle.apps.localhost') does not exist" in text for _status, text in load.failures)
    assert load.answers[-1] == (200, "2.0.0")


def test_a_resume_of_stopped_applications_loses_none(rest: Rest, shop: Shop, load: Callers) -> None:
    for version in ("2.0.0", "3.0.0"):
        switched(rest, shop, load, version, stop=True)
        assert load.answers[-1] == (200, version)
    assert (load.failures, rest.cloud.space.cuts) == ([], [])


def test_dependency_aware_stop_order_leads_no_traffic_to_deleted_routes(rest: Rest, shop: Shop, load: Callers) -> None:
    operation = shop.testing("2.0.0", stopOrderIsDependencyAware="true")
    rest.act(operation, "resume")
    rest.wait(operation, "FINISHED")
    load.more()
    assert load.failures == []


def test_an_application_that_is_stopped_too_early_is_told(rest: Rest, shop: Shop, router: Gorouter) -> None:
    shop.deploy("1.0.0")
    rest.cloud.space.pace, rest.cloud.space.drain_s = Pace(), 0.01
    host = f"my-org-dev-srv.{rest.cloud.space.domain}"
    answers: list[Any] = []
    Service.go.clear()
    thread = threading.Thread(target=lambda: answers.append(ask(router.port, host, "/slow")))
    thread.start()
    port = rest.cloud.space.apps["srv"].port
    wait_until(lambda: router.in_flight(port), "the request is in flight")
    rest.stop("srv")
    assert rest.cloud.space.cuts == [Cut("srv", 1)]
    Service.go.set()
    thread.join()
