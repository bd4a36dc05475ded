# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of deployments by the role share: a platform in the state that a test begins with, users at work, and
what they must not notice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ansible_collections.zdm.landscape.tests.cloud.incidents import OLD, SRV
from ansible_collections.zdm.landscape.tests.cloud.platform import PAGE, ROBOT, TENANTS, USERS, VISITOR, Platform
from ansible_collections.zdm.landscape.tests.cloud.users import Users
from ansible_collections.zdm.landscape.tests.landscape.processes import temporary_folder

ENOUGH = 3
"""Requests of every user."""


@contextmanager
def running_platform() -> Iterator[Platform]:
    with temporary_folder() as folder, Platform(folder) as platform:
        yield platform


def deploy(platform: Platform, version: str) -> None:
    played = platform.play(platform.archive(version))
    assert played.code == 0, played.output


def nothing(platform: Platform) -> Platform:
    """Nothing was ever deployed."""
    if platform.states() or platform.space.apps:
        platform.clear()
    platform.configure()
    return platform


def standing(platform: Platform, version: str = "") -> Platform:
    """A version is live and its tenants have its schema; what the tests before left stays when it is just that.

    :param version: whichever it is when it is empty.
    """
    there = platform.live_version
    if not there or version not in ("", there) or platform.upgraded() != ([] if there == OLD else list(TENANTS)):
        platform.clear()
        deploy(platform, OLD)
        platform.subscribe()
        if version not in ("", OLD):
            deploy(platform, version)
    platform.configure()
    return platform


@contextmanager
def users_at_work(platform: Platform) -> Iterator[Users]:
    browsers = [platform.browser(user) for user in USERS if user != ROBOT]
    with Users(browsers, PAGE, [platform.browser(VISITOR)]) as users:
        yield users


def assert_live(users: Users, version: str) -> None:
    """Everybody works with *version* and nobody with another, and nobody has noticed anything so far."""
    users.wait_answers(version, ENOUGH)
    before = users.answered
    users.wait_answers(version, ENOUGH)
    assert {name for name, count in users.answered.items() if count > before.get(name, 0)} == {version}
    assert (users.failures, users.lost_sessions) == (
        [],
        0,
    ), f"{users.failures[:3]}, lost sessions: {users.lost_sessions}"


def red_check(platform: Platform) -> dict[str, Any]:
    """A check that no version passes."""
    return {
        "module": SRV,
        "path": "/public/health",
        "assert": "version == 'red'",
        "retries": 1,
        "ca_file": str(platform.certificates.authority),
    }


def report(platform: Platform) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((platform.folder / "report.json").read_text())
    return found


def reporting(platform: Platform) -> tuple[str, str]:
    return "-e", f"mta_report={platform.folder / 'report.json'}"
