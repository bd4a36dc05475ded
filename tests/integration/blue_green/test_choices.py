# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only a person can decide: the role stops, says what the choices are, and each of them works."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ansible_collections.zdm.landscape.tests.cloud.incidents import OLD, SRV
from ansible_collections.zdm.landscape.tests.cloud.platform import CANARY, Platform, Played
from ansible_collections.zdm.landscape.tests.cloud.users import Users
from ansible_collections.zdm.landscape.tests.integration.blue_green.kit import (
    assert_live,
    red_check,
    report,
    reporting,
    running_platform,
    standing,
    users_at_work,
)

pytestmark = pytest.mark.thorough
TASKS = """
- name: Only the idle version is good
  ansible.builtin.assert:
    that: mta_blue_green_phase == 'idle'
    fail_msg: "{{ mta_blue_green_routes | zdm.landscape.route_url('%s', mta_blue_green_phase) }} shows an error"
"""


@pytest.fixture(scope="module", name="platform")
def _platform() -> Iterator[Platform]:
    with running_platform() as platform:
        yield platform


@pytest.fixture(name="old")
def _old(platform: Platform) -> Platform:
    return standing(platform, OLD)


@pytest.fixture(name="undecided")
def _undecided(platform: Platform) -> Platform:
    """Version 2.0.0 waits in its testing phase: live does not fit the canary, which is upgraded."""
    if platform.states()[-1:] != ["ACTION_REQUIRED"] or platform.upgraded() != [CANARY]:
        assert outgrow_live(standing(platform, OLD)).code == 2
    return platform


@pytest.fixture(name="new")
def _new(platform: Platform) -> Platform:
    """Version 2.0.0 is live, with 1.0.0 before it."""
    return standing(platform, "2.0.0")


@pytest.fixture(name="users")
def _users(platform: Platform) -> Iterator[Users]:
    """Asked for after the state of the platform."""
    with users_at_work(platform) as users:
        yield users


def outgrow_live(platform: Platform) -> Played:
    platform.configure(canary_checks=[red_check(platform)])
    return platform.play(platform.archive("2.0.0"))


def test_live_that_does_not_fit_the_canary_any_more(old: Platform, users: Users) -> None:
    platform, played = old, outgrow_live(old)
    assert played.code == 2
    assert "waits in its testing phase; it was not aborted" in played.text
    assert platform.states()[-1] == "ACTION_REQUIRED"
    assert platform.upgraded() == [CANARY]
    assert_live(users, "1.0.0")


def test_the_choice_to_abort_all_the_same(undecided: Platform, users: Users) -> None:
    platform = undecided
    arguments = ("-e", "mta_state=aborted", "-e", "mta_abort_upgraded=true", "-e", "mta_remove_leftovers=true")
    played = platform.play(platform.archive("2.0.0"), *arguments, *reporting(platform))
    assert played.code == 0, played.output
    assert report(platform)["outcome"] == "aborted"
    assert sorted(report(platform)["leftovers"]["removed"]) == [
        "approuter-idle",
        "incident-management-mtx-idle",
        f"{SRV}-idle",
    ]
    assert platform.states()[-1] == "ABORTED"
    assert_live(users, "1.0.0")
    again = platform.play(platform.archive("2.0.0"), *arguments)
    assert (again.code, "changed=0" in again.text) == (0, True), again.output


def test_tests_of_the_user_that_are_red_on_live_name_the_way_back(old: Platform, users: Users) -> None:
    platform = old
    tasks = platform.folder / "smoke.yml"
    tasks.write_text(TASKS % SRV)
    played = platform.play(platform.archive("2.0.0"), "-e", f"mta_blue_green_tasks={tasks}")
    assert played.code == 2
    assert f"https://{platform.host(SRV)} shows an error" in played.text
    assert "The new version is live." in played.text
    assert "2. Go back to version 1.0.0: deploy " in played.text
    assert "mta_version_rule=ALL -e mta_upgrade=false" in played.text
    assert_live(users, "2.0.0")


def test_the_way_back(new: Platform, users: Users) -> None:
    """The previous archive again; the tenants keep their schema, so nobody is upgraded."""
    platform = new
    played = platform.play(
        platform.archive(), "-e", "mta_version_rule=ALL", "-e", "mta_upgrade=false", *reporting(platform)
    )
    assert played.code == 0, played.output
    assert (report(platform)["outcome"], report(platform)["previous"]["version"]) == ("deployed", "2.0.0")
    assert_live(users, "1.0.0")
