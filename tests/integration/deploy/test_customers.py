# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What customers see of a switch, in the order and at the pace of the real deploy service: an application router calls
its service by the address in its environment, which it reads when it starts.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import OutcomeUnknown, Timeout, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.idle import IdleStop
from ansible_collections.zdm.landscape.tests.cloud.callers import Callers, Relay, Service
from ansible_collections.zdm.landscape.tests.cloud.cloud import Cloud
from ansible_collections.zdm.landscape.tests.cloud.gorouter import Gorouter
from ansible_collections.zdm.landscape.tests.cloud.pace import REAL
from ansible_collections.zdm.landscape.tests.cloud.runners import OwnApps, Runnable
from ansible_collections.zdm.landscape.tests.cloud.space import Space
from ansible_collections.zdm.landscape.tests.integration.deploy.cutting import CuttingProxy
from ansible_collections.zdm.landscape.tests.integration.deploy.kit import Bench
from ansible_collections.zdm.landscape.tests.integration.deploy.runs import LOGIN, killable

KILLS, KILL_SEED, CUT_SEED = 150, 20261201, 7


class Apps(OwnApps):
    """A module with a destination passes every request on to it."""

    def make(self, module_name: str, env: Mapping[str, str], content: bytes) -> Runnable:
        destinations = json.loads(env.get("destinations", "[]"))
        return Relay(destinations[0]["url"]) if destinations else Service("served")


@contextmanager
def at_work(folder: Path) -> Iterator[tuple[Bench, Callers]]:
    """Version 1.0.0 is live, and customers use it."""
    with Apps() as apps, Gorouter() as router:
        space = Space(domain=f"apps.localhost:{router.port}", runner=apps, router=router, pace=REAL.scaled(0.02))
        with Cloud(folder, space) as cloud:
            bench = Bench(cloud, folder)
            bench.run("deployed", archive=bench.archive("1.0.0", bound))
            with Callers(router.port, f"my-org-dev-approuter.{space.domain}") as customers:
                customers.more(20)
                yield bench, customers


def bound(descriptor: dict[str, Any]) -> None:
    """The application router has a service too, whose binding takes its time."""
    descriptor["modules"][1]["requires"].append({"name": "registry"})


def switches(bench: Bench, customers: Callers, count: int, requests: int) -> None:
    for number in range(1, count + 1):
        archive = bench.archive(f"1.{number}.0", bound)
        assert bench.run("deployed", archive=archive).outcome == "deployed"
        customers.more(requests)


def test_customers_notice_no_switch(tmp_path: Path) -> None:
    with at_work(tmp_path) as (bench, customers):
        switches(bench, customers, 2, 50)
    assert customers.failures == []


def test_without_the_stop_they_are_led_to_what_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The accident that the stop is there for."""
    monkeypatch.setattr(IdleStop, "stop", lambda _self: True)
    with at_work(tmp_path) as (bench, customers):
        switches(bench, customers, 2, 50)
    assert any(status == 404 and "-idle" in text for status, text in customers.failures), customers.failures[:3]


def one_operation_each(bench: Bench, before: int, versions: int) -> None:
    assert len(bench.operations()) - before == versions
    assert all(operation.state == "FINISHED" for operation in bench.operations())


@pytest.mark.thorough
def test_a_hundred_and_fifty_random_kills(tmp_path: Path) -> None:
    """One operation for each version, whatever was killed, and nobody notices."""
    dice, kills, number = random.Random(KILL_SEED), 0, 0
    with at_work(tmp_path) as (bench, customers), killable(bench) as runs:
        before = len(bench.operations())
        while kills < KILLS:
            number += 1
            archive = bench.archive(f"1.{number}.0", bound)
            for _again in range(3):
                kills += runs.killed_after(dice.randint(1, LOGIN + 40), dice.choice(("testing", "deployed")), archive)
            assert bench.run("deployed", archive=archive).outcome in ("deployed", "unchanged")
            assert bench.live_version() == f"1.{number}.0"
        one_operation_each(bench, before, number)
        customers.more(50)
    assert customers.failures == []


@pytest.mark.thorough
@pytest.mark.parametrize("share", [0.25, 0.5])
def test_fifteen_runs_through_a_proxy_that_cuts_connections(tmp_path: Path, share: float) -> None:
    with at_work(tmp_path) as (bench, customers):
        before, port = len(bench.operations()), urlsplit(bench.cloud.url).port
        assert port
        with CuttingProxy(port, share, 6000, CUT_SEED) as proxy:
            url = bench.cloud.url.replace(f":{port}", f":{proxy.port}")
            options = {**bench.cloud.options(), "api": url, "deploy_service": url}
            for number in range(1, 16):
                archive = bench.archive(f"1.{number}.0", bound)
                reached = False
                while not reached:  # as a person does who is told to run the same command again
                    with suppress(Unreachable, OutcomeUnknown, Timeout):
                        bench.run("deployed", archive=archive, options=options, attempts=12)
                        reached = True
                assert bench.live_version() == f"1.{number}.0"
        one_operation_each(bench, before, 15)
        customers.more(50)
    assert proxy.cuts > 100 * share
    assert customers.failures == []


@pytest.mark.thorough
def test_twenty_switches_under_five_thousand_requests(tmp_path: Path) -> None:
    with at_work(tmp_path) as (bench, customers):
        switches(bench, customers, 20, 250)
    assert customers.failures == []
    assert len(customers.answers) >= 5000
