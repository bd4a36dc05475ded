# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook is killed in every task of the role; the same command finishes what it began, with one operation, while
users work.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import count

import pytest
from ansible_collections.zdm.landscape.tests.cloud.platform import TENANTS, Platform
from ansible_collections.zdm.landscape.tests.cloud.users import Users
from ansible_collections.zdm.landscape.tests.integration.blue_green.kit import (
    assert_live,
    running_platform,
    standing,
    users_at_work,
)

pytestmark = pytest.mark.thorough
PLACES = [
    "Refuse a wrong description]",
    "Lint the descriptor]",
    "Write the session secret]",
    "is started\n",
    'Creating application "incident-management-mtx-idle"',
    "entered testing phase",
    "Check the idle version]",
    "Log in through the idle approuter]",
    "Make certain that the tenants can be upgraded]",
    "Note that tenants are being upgraded]",
    "upgrades 1 tenant",
    "Check the live version]",
    "upgrades 3 tenants",
    "Note that all tenants are upgraded]",
    "Make the new version live]",
    'Renaming application "approuter-idle" to "approuter"',
    "Note what is live]",
    "Log in through the live approuter]",
]
"""Texts that the playbook prints: names of tasks, and messages of those that take longer."""


@pytest.fixture(scope="module", name="platform")
def _platform() -> Iterator[Platform]:
    with running_platform() as platform:
        yield platform


@pytest.fixture(name="live")
def _live(platform: Platform) -> Platform:
    return standing(platform)


@pytest.fixture(name="users")
def _users(live: Platform) -> Iterator[Users]:
    with users_at_work(live) as users:
        yield users


@pytest.fixture(scope="module", name="versions")
def _versions() -> Iterator[str]:
    return (f"2.0.{number}" for number in count())


@pytest.mark.parametrize("place", [pytest.param(place, id=place.strip(" ]\n")) for place in PLACES])
def test_killed_and_run_again(live: Platform, users: Users, versions: Iterator[str], place: str) -> None:
    platform, version, before = live, next(versions), len(live.states())
    archive = platform.archive(version)
    running = platform.begin(archive)
    platform.wait_for(running, place)
    os.killpg(running.pid, signal.SIGKILL)
    assert platform.end(running).code == -signal.SIGKILL
    played = platform.play(archive)
    assert played.code == 0, played.output
    assert platform.states()[before:] == ["FINISHED"]
    assert platform.upgraded() == list(TENANTS)
    assert_live(users, version)
