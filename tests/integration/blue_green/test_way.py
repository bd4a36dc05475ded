# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A version's way as an operator goes it, good days and bad ones, while users work and must not notice."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest
import yaml
from ansible_collections.zdm.landscape.tests.chaos.scene import scene
from ansible_collections.zdm.landscape.tests.cloud.incidents import APPROUTER, MTX, OLD, REGISTRY, SRV
from ansible_collections.zdm.landscape.tests.cloud.platform import CANARY, MTA, PAGE, TENANTS, Platform, Played
from ansible_collections.zdm.landscape.tests.cloud.users import Users
from ansible_collections.zdm.landscape.tests.integration.blue_green.kit import (
    assert_live,
    nothing,
    red_check,
    report,
    reporting,
    running_platform,
    standing,
    users_at_work,
)


@pytest.fixture(scope="module", name="platform")
def _platform() -> Iterator[Platform]:
    with running_platform() as platform:
        yield platform


@pytest.fixture(name="nothing")
def _nothing(platform: Platform) -> Platform:
    return nothing(platform)


@pytest.fixture(name="old")
def _old(platform: Platform) -> Platform:
    return standing(platform, OLD)


@pytest.fixture(name="halted")
def _halted(platform: Platform) -> Platform:
    """Version 2.0.0 waits in its testing phase, as the canary could not be upgraded."""
    if platform.states()[-1:] != ["ACTION_REQUIRED"] or platform.upgraded():
        assert fail_the_canary(standing(platform, OLD)).code == 2
    return platform


@pytest.fixture(name="new")
def _new(platform: Platform) -> Platform:
    return standing(platform, "2.0.0")


@pytest.fixture(name="users")
def _users(platform: Platform) -> Iterator[Users]:
    """Asked for after the state of the platform."""
    with users_at_work(platform) as users:
        yield users


@pytest.fixture(autouse=True)
def _no_secret_is_kept(platform: Platform) -> Iterator[None]:
    """Neither the store, the log, nor Ansible's own files hold the session secret."""
    yield
    kept = [
        path
        for folder in ("store", "log", "ansible")
        for path in (platform.folder / folder).rglob("*")
        if path.is_file()
    ]
    assert kept or not platform.states()
    assert not [path for path in kept if platform.session_secret.encode() in path.read_bytes()]


def fail_the_canary(platform: Platform) -> Played:
    running = platform.begin(platform.archive("2.0.0"))
    platform.wait_for(running, "entered testing phase")
    platform.apps.sidecar(f"{MTX}-idle").behave(fail_tenants=[CANARY])
    return platform.end(running)


def test_a_wrong_description_is_refused_before_anything(nothing: Platform) -> None:
    platform = nothing
    platform.configure(login={"module": APPROUTER, "pfad": PAGE})
    played = platform.play(platform.archive())
    assert played.code == 2
    assert "zdm_landscape.deploy.login.pfad is not known" in played.text, played.output
    assert not platform.space.apps


def test_an_unsafe_descriptor_is_refused_before_anything(nothing: Platform) -> None:
    platform = nothing
    played = platform.play(platform.archive("0.9.0", safe=False))
    assert played.code == 2
    assert "mtx-api" in played.text
    assert not platform.space.apps


def test_a_first_deployment_is_live_at_once(nothing: Platform) -> None:
    platform = nothing
    played = platform.play(platform.archive(), *reporting(platform))
    assert played.code == 0, played.output
    assert (report(platform)["outcome"], report(platform)["mta"]["version"]) == ("first_deployment", "1.0.0")
    platform.subscribe()


def test_a_red_smoke_test_aborts_and_live_is_as_it_was(old: Platform, users: Users) -> None:
    platform = old
    assert_live(users, "1.0.0")
    platform.configure(checks=[red_check(platform)])
    played = platform.play(platform.archive("2.0.0"), *reporting(platform))
    assert played.code == 2
    assert "it yields false" in played.text.partition("Say why")[2]
    assert "aborted before a tenant was upgraded, and the live version was not touched" in played.text
    assert f"{SRV}-idle" in played.text
    assert report(platform)["outcome"] == "aborted"
    assert platform.upgraded() == []
    assert_live(users, "1.0.0")


@pytest.mark.thorough
def test_a_session_store_that_does_not_work_is_found_by_the_login(old: Platform, users: Users) -> None:
    platform = old
    service = platform.space.services[f"{MTA}-session-management"]
    right, service.credentials = service.credentials, platform.redis.credentials("wrong")
    try:
        played = platform.play(platform.archive("2.0.0"))
    finally:
        service.credentials = right
    assert played.code == 2
    assert "Log in through the idle approuter" in played.text
    assert "The deployment was aborted" in played.text
    assert_live(users, "1.0.0")


def test_a_canary_that_fails_stops_in_the_testing_phase(old: Platform, users: Users) -> None:
    platform, played = old, fail_the_canary(old)
    assert played.code == 2
    assert "simulated HDI deployment failure" in played.text
    assert "waits in its testing phase; it was not aborted" in played.text
    assert platform.states()[-1] == "ACTION_REQUIRED"
    refused = platform.play(platform.archive("2.0.0"), "-e", "mta_state=aborted")
    assert refused.code == 2
    assert "may not fit their schema" in refused.text
    assert_live(users, "1.0.0")


def test_killed_in_the_upgrade_the_same_command_goes_on_to_live(halted: Platform, users: Users) -> None:
    platform = halted
    platform.apps.sidecar(f"{MTX}-idle").behave(slow_ms=600_000)
    operations = len(platform.states())
    running = platform.begin(platform.archive("2.0.0"))
    platform.wait_for(running, "upgrades 1 tenant")
    os.killpg(running.pid, signal.SIGKILL)
    assert platform.end(running).code == -signal.SIGKILL
    assert not list((platform.folder / "log").glob("*.session*"))  # the session secret is in no file
    platform.apps.sidecar(f"{MTX}-idle").behave()
    played = platform.play(platform.archive("2.0.0"), *reporting(platform))
    assert played.code == 0, played.output
    found = report(platform)
    assert (found["outcome"], found["previous"]["version"]) == ("deployed", "1.0.0")
    assert {tenant: state["status"] for tenant, state in found["tenants"].items()} == dict.fromkeys(TENANTS, "upgraded")
    assert platform.upgraded() == list(TENANTS)
    assert platform.states()[-1] == "FINISHED"
    assert len(platform.states()) == operations
    urls = platform.space.services[REGISTRY].config["appUrls"]
    assert urls["getDependencies"].startswith(f"https://{platform.host(MTX)}/")
    assert_live(users, "2.0.0")


@pytest.mark.thorough
def test_what_is_live_already_is_only_tested(new: Platform, users: Users) -> None:
    platform = new
    played = platform.play(platform.archive("2.0.0"), *reporting(platform))
    assert played.code == 0, played.output
    assert "changed=0" in played.text
    assert report(platform)["outcome"] == "unchanged"


@pytest.mark.thorough
def test_migrate_deploys_first_and_then_moves_a_tenant(new: Platform, users: Users) -> None:
    """One command: the new version is live before the tenant's data moves, and neither the users of one nor those of
    the other notice.
    """
    platform = new
    with scene(rows=200, chaos=False, staged=False) as stage:
        described = stage.landscape.inventory.parent / "group_vars" / "all" / "landscape.yml"
        description = yaml.safe_load(described.read_text())
        description["zdm_landscape"]["deploy"] = platform.deploy_options()
        described.write_text(yaml.safe_dump(description))
        tenants = json.dumps(
            {
                "migrate_db_from_tenant": stage.landscape.source.subdomain,
                "migrate_db_to_tenant": stage.landscape.target.subdomain,
            }
        )
        platform.inventory = stage.landscape.inventory
        red = platform.play(platform.archive("2.0.1", safe=False), "-e", tenants, playbook="migrate")
        assert red.code == 2
        assert (stage.status().phase, stage.status().live.id) == (
            "I",
            stage.landscape.source.id,
        ), "nothing moves onto a version that is not live"
        played = platform.play(platform.archive("2.0.1"), "-e", tenants, playbook="migrate")
        assert played.code == 0, played.output
        assert played.text.index("incidents 2.0.1: deployed") < played.text.index("venezia--venezia-scp: the id")
        stage.assert_agreed(stage.landscape.target, replay=False)
    assert_live(users, "2.0.1")
