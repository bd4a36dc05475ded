# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""tenant_upgrade through real MTX sidecars: a live and an idle one with different schemas over the same tenants."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.zdm.landscape.plugins.module_utils.http.web import Web
from ansible_collections.zdm.landscape.plugins.module_utils.upgrade.base import Outcome
from ansible_collections.zdm.landscape.plugins.module_utils.upgrade.run import Run, plan
from ansible_collections.zdm.landscape.plugins.module_utils.upgrade.ways import build_way
from ansible_collections.zdm.landscape.plugins.modules import tenant_upgrade
from ansible_collections.zdm.landscape.tests.cloud.registries import SaasRegistryStandIn
from ansible_collections.zdm.landscape.tests.cloud.sidecar import IDLE, LIVE, Sidecar
from ansible_collections.zdm.landscape.tests.integration.sap.kit import (
    APP,
    APP_NAME,
    OUTSIDER,
    WITH_CERTIFICATE,
    Site,
    running_site,
)
from ansible_collections.zdm.landscape.tests.landscape.processes import IMPORT_ROOT, free_port, wait_until

OLD, NEW = ["ID", "title"], ["ID", "title", "urgency"]
HELD_MS = 600_000
"""An upgrade that waits for this long does not end before the test lets it."""
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running_site(redis=False) as there:
        yield there


@pytest.fixture(scope="module")
def live(site: Site) -> Sidecar:
    sidecar = site.sidecar(LIVE)
    sidecar.start()
    return sidecar


@pytest.fixture(scope="module")
def registry(site: Site) -> Iterator[SaasRegistryStandIn]:
    with SaasRegistryStandIn(site.xsuaa, APP_NAME, {}, {}, APP.id) as there:
        yield there


@pytest.fixture(scope="module")
def _idle(site: Site, live: Sidecar, registry: SaasRegistryStandIn) -> Sidecar:
    sidecar = site.sidecar(IDLE, registry.url)
    sidecar.start()
    return sidecar


@pytest.fixture
def idle(_idle: Sidecar) -> Sidecar:
    _idle.behave()
    return _idle


Subscribe = Callable[[int], list[str]]
Upgrade = Callable[..., dict[str, Any]]


@pytest.fixture
def subscribe(site: Site, live: Sidecar) -> Subscribe:
    """Subscribe new tenants at the live version."""

    def call(count: int) -> list[str]:
        tenants = [f"tenant-{next(_NUMBERS):02}" for _number in range(count)]
        headers = {"Authorization": f"Bearer {site.xsuaa.token(APP.id)}", "Content-Type": "application/json"}
        for tenant in tenants:
            body = {"subscribedTenantId": tenant, "subscribedSubdomain": tenant, "eventType": "CREATE"}
            answer = Web().send(
                "PUT", f"{live.url}/-/cds/saas-provisioning/tenant/{tenant}", headers, json.dumps(body).encode()
            )
            assert answer.status == 200, answer.text
        return tenants

    return call


@pytest.fixture
def nobody(site: Site, live: Sidecar) -> None:
    """Unsubscribe all tenants, for a test of all there are."""
    headers = {"Authorization": f"Bearer {site.xsuaa.token(APP.id)}", "Content-Type": "application/json"}
    place = f"{live.url}/-/cds/saas-provisioning/tenant"
    for entry in json.loads(Web().send("GET", place, headers).text):
        tenant = entry["subscribedTenantId"]
        answer = Web().send("DELETE", f"{place}/{tenant}", headers, json.dumps({"subscribedTenantId": tenant}).encode())
        assert answer.status in (200, 204), answer.text


def options(site: Site, sidecar: Sidecar, **args: Any) -> dict[str, Any]:
    secret = {"token_url": site.xsuaa.url, "client_id": APP.id, "client_secret": APP.secret}
    given = {
        **secret,
        "url": sidecar.url,
        "ca_file": str(site.certificates.authority),
        "poll_interval": "30ms",
        "timeout": "10m",
    }
    return {
        name: value
        for name, value in {**given, "log_dir": str(site.folder / "log"), **args}.items()
        if value is not None
    }


@pytest.fixture
def upgrade(site: Site, idle: Sidecar, capsys: pytest.CaptureFixture[str]) -> Upgrade:
    """Run tenant_upgrade, at the idle sidecar unless another one is named; the result is what it prints."""

    def call(at: Sidecar = idle, check: bool = False, **args: Any) -> dict[str, Any]:
        with patch_module_args({**options(site, at, **args), "_ansible_check_mode": check}), pytest.raises(SystemExit):
            tenant_upgrade.main()
        output = capsys.readouterr().out
        assert APP.secret not in output
        result: dict[str, Any] = json.loads(output)
        return result

    return call


@pytest.mark.usefixtures("nobody")
def test_all_tenants_the_canary_first_then_batches(
    idle: Sidecar, subscribe: Subscribe, upgrade: Upgrade, site: Site
) -> None:
    one, two, three, four = tenants = subscribe(4)
    batches = [[three], [one, two], [four]]
    predicted = upgrade(check=True, canary=three, batch_size=2)
    assert (predicted["changed"], predicted["batches"], predicted["upgraded"]) == (True, batches, [])
    assert {state["status"] for state in predicted["tenants"].values()} == {"planned"}
    assert [idle.columns(tenant) for tenant in tenants] == [OLD] * 4
    done = upgrade(canary=three, batch_size=2, run_id="run-all")
    assert (done["changed"], done["batches"], done["canary"], done["open_job"], done["failed_tenants"]) == (
        True,
        batches,
        three,
        "",
        [],
    )
    assert sorted(done["upgraded"]) == tenants
    assert [idle.columns(tenant) for tenant in tenants] == [NEW] * 4
    lines = [json.loads(line) for line in (site.folder / "log" / "deployments.jsonl").read_text().splitlines()]
    told = [line["text"] for line in lines if line["run"] == "run-all"]
    assert f"tenant {three} upgraded (1 of 4)" in told
    assert [text.partition("upgrades ")[2] for text in told if text.startswith("job ")] == [
        f"1 tenant: {three}",
        f"2 tenants: {one}, {two}",
        f"1 tenant: {four}",
    ]


def test_a_tenant_that_fails_stops_the_batches_after_it_or_not(
    idle: Sidecar, subscribe: Subscribe, upgrade: Upgrade
) -> None:
    one, two, three = tenants = subscribe(3)
    idle.behave(fail_tenants=[two])
    stopped = upgrade(tenants=tenants, batch_size=2)
    assert (
        stopped["failed"],
        stopped["failed_tenants"],
        stopped["upgraded"],
        stopped["changed"],
        stopped["open_job"],
    ) == (True, [two], [one], True, "")
    assert stopped["error"] == "UpgradeFailed"
    assert f"{two} (simulated HDI deployment failure)" in stopped["msg"]
    assert stopped["tenants"][three] == {"status": "planned", "error": ""}
    assert idle.columns(three) == OLD
    went_on = upgrade(tenants=tenants, batch_size=1, on_failure="continue")
    assert [state["status"] for state in went_on["tenants"].values()] == ["upgraded", "failed", "upgraded"]
    assert idle.columns(three) == NEW
    assert "Run the same task again" in went_on["advice"]


def test_a_canary_that_fails_is_the_only_one_touched(idle: Sidecar, subscribe: Subscribe, upgrade: Upgrade) -> None:
    one, two = tenants = subscribe(2)
    idle.behave(fail_tenants=[two])
    stopped = upgrade(tenants=tenants, canary=two, on_failure="continue")
    assert (stopped["changed"], stopped["canary"], stopped["open_job"]) == (False, two, "")
    assert stopped["msg"].startswith(f"The canary could not be upgraded: {two}")
    assert idle.columns(one) == OLD


def test_wrong_input_is_refused_before_anybody_is_touched(
    idle: Sidecar, subscribe: Subscribe, upgrade: Upgrade
) -> None:
    (one,) = subscribe(1)
    unknown = upgrade(tenants=[one, "nobody"])
    assert (unknown["error"], unknown["msg"].partition(". ")[0]) == ("InputError", "Unknown tenants: nobody")
    assert "tenants" not in unknown
    assert "is not among the tenants" in upgrade(tenants=[one], canary="nobody")["msg"]
    assert "twice" in upgrade(tenants=[one, one])["msg"]
    nobody = upgrade(tenants=[])
    assert (nobody["changed"], nobody["tenants"], nobody["batches"]) == (False, {}, [])
    assert idle.columns(one) == OLD


def test_tokens_that_are_not_accepted(site: Site, idle: Sidecar, subscribe: Subscribe, upgrade: Upgrade) -> None:
    plain: dict[str, Any] = {"token_url": None, "client_id": None, "client_secret": None}
    refused = upgrade(**plain, token="nonsense")
    assert (refused["error"], "does not accept the token" in refused["msg"]) == ("Refused", True)
    poor = upgrade(client_id=OUTSIDER.id, client_secret=OUTSIDER.secret)
    assert poor["error"] == "Refused"
    other = upgrade(**plain, token=site.xsuaa.token(APP.id, user="alice@example.com"))
    assert "scope mtcallback" in other["msg"]
    assert "Bad credentials" in upgrade(client_secret="not-the-secret")["msg"]
    assert "no complete client credentials" in upgrade(**plain)["msg"]
    (one,) = subscribe(1)
    certified = upgrade(
        client_id=WITH_CERTIFICATE.id, client_secret=None, cert_file=str(site.certificates.controller), tenants=[one]
    )
    assert certified["upgraded"] == [one], certified["msg"]


def test_there_is_no_way_back_through_the_live_version(
    live: Sidecar, idle: Sidecar, subscribe: Subscribe, upgrade: Upgrade
) -> None:
    (one,) = subscribe(1)
    assert upgrade(tenants=[one])["upgraded"] == [one]
    back = upgrade(live, tenants=[one])
    assert back["tenants"][one]["status"] == "failed"
    assert "Dropping elements is not supported" in back["msg"]
    assert idle.columns(one) == NEW


def _in_thread(
    site: Site, sidecar: Sidecar, pool: ThreadPoolExecutor, told: list[str], tenants: list[str]
) -> Future[Outcome]:
    way = build_way({**options(site, sidecar), "via": "sidecar"})
    return pool.submit(Run(way, plan(way.tenants(), tenants, "", 10), 600_000, 30, False, told.append).carry_out)


def test_a_job_that_is_still_open_is_told_waited_for_and_not_doubled(
    idle: Sidecar, subscribe: Subscribe, upgrade: Upgrade, site: Site
) -> None:
    one, two = tenants = subscribe(2)
    idle.behave(slow_ms=HELD_MS)
    late = upgrade(tenants=tenants, timeout="1ms")
    assert (late["error"], late["changed"], bool(late["open_job"])) == ("Timeout", False, True)
    assert "neither resume nor abort" in late["advice"]
    assert late["tenants"][one]["status"] == "running"

    def end_when_it_is_waited_for() -> None:
        log = site.folder / "log" / "deployments.jsonl"
        wait_until(
            lambda: f"job {late['open_job']} of somebody else still upgrades" in log.read_text(),
            "the job is waited for",
        )
        idle.behave()

    with ThreadPoolExecutor(1) as pool:
        waited_for = pool.submit(end_when_it_is_waited_for)
        again = upgrade(tenants=tenants)
        waited_for.result()
    assert (again["upgraded"], again["open_job"]) == ([one, two], "")


def test_a_sidecar_killed_in_the_middle(site: Site, idle: Sidecar, subscribe: Subscribe, upgrade: Upgrade) -> None:
    one, two = tenants = subscribe(2)
    idle.behave(slow_ms=HELD_MS)
    told: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        running = _in_thread(site, idle, pool, told, tenants)
        wait_until(lambda: f"tenant {one} running" in told, "the upgrade has begun")
        idle.kill()
        idle.behave()
        idle.give_up_jobs_after(500)
        idle.start()
        try:
            outcome = running.result()
        finally:
            idle.stop()
            idle.give_up_jobs_after()
            idle.start()
    assert outcome.problem is not None
    assert type(outcome.problem).__name__ == "OutcomeUnknown"
    assert "TIMEOUT" in outcome.problem.message
    assert outcome.open_job
    assert outcome.of("unknown") == [one, two]
    again = upgrade(tenants=tenants)
    assert (again["upgraded"], again["open_job"]) == (tenants, "")
    assert idle.columns(two) == NEW


def test_the_registry_calls_the_application_at_its_url(
    site: Site, idle: Sidecar, registry: SaasRegistryStandIn, subscribe: Subscribe, upgrade: Upgrade
) -> None:
    """After the resume the new version answers at the live URL; an idle URL that is gone is the error of the seed."""
    one, two = tenants = subscribe(2)
    registry.subscribers = SaasRegistryStandIn(
        site.xsuaa, APP_NAME, {}, {tenant: tenant for tenant in tenants}, APP.id
    ).subscribers
    callback = "/-/cds/saas-provisioning"
    registry.app_urls = {
        "getDependencies": f"{idle.url}{callback}/dependencies",
        "onSubscription": f"{idle.url}{callback}/tenant/{{tenantId}}",
    }
    through = {"via": "saas_registry", "url": registry.url, "app_name": APP_NAME}
    done = upgrade(tenants=[one], **through)
    assert done["upgraded"] == [one], done.get("msg")
    assert idle.columns(one) == NEW
    registry.app_urls["getDependencies"] = f"http://localhost:{free_port()}/gone"
    gone = upgrade(tenants=[two], **through)
    assert gone["tenants"][two]["status"] == "failed"
    assert idle.columns(two) == OLD


def test_the_progress_is_shown_while_it_runs(site: Site, idle: Sidecar, subscribe: Subscribe) -> None:
    (one,) = subscribe(1)
    play = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "tasks": [{"zdm.landscape.tenant_upgrade": options(site, idle, tenants=[one])}],
        }
    ]
    playbook = site.folder / "play.json"
    playbook.write_text(json.dumps(play))
    program = Path(sys.executable).with_name("ansible-playbook")
    env = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(IMPORT_ROOT),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_HOME": str(site.folder / "home"),
    }
    command = [
        str(program),
        "-i",
        "localhost,",
        "-c",
        "local",
        "-e",
        f"ansible_python_interpreter={sys.executable}",
        str(playbook),
    ]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"tenant {one} upgraded (1 of 1)" in done.stderr
