# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What others do while the role is at work, and a role that only tells what it would do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.zdm.landscape.tests.cloud.incidents import OLD
from ansible_collections.zdm.landscape.tests.cloud.platform import TENANTS, Platform, Played
from ansible_collections.zdm.landscape.tests.integration.blue_green.kit import running_platform, standing

pytestmark = pytest.mark.thorough
TASKS = """
- name: Wait for the others
  ansible.builtin.wait_for:
    path: %s
    sleep: 1
"""


@pytest.fixture(scope="module", name="platform")
def _platform() -> Iterator[Platform]:
    with running_platform() as platform:
        yield platform


@pytest.fixture(name="old")
def _old(platform: Platform) -> Platform:
    return standing(platform, OLD)


def during_the_tests(platform: Platform, archive: Path, action: str) -> Played:
    """Deploy, while somebody does *action* to the operation between the checks and the upgrade."""
    there, tasks = platform.folder / f"{action}-done", platform.folder / f"{action}.yml"
    there.unlink(missing_ok=True)
    tasks.write_text(TASKS % there)
    running = platform.begin(archive, "-e", f"mta_blue_green_tasks={tasks}")
    platform.work(lambda: "Wait for the others]" in running.tail(200_000))
    identity = list(platform.cloud.controller.operations)[-1]
    platform.cloud.controller.act(identity, action)
    platform.work(lambda: platform.states()[-1] in ("ABORTED", "FINISHED"))
    there.touch()
    return platform.end(running)


def stored(platform: Platform) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in platform.store_path.rglob("*.json")}


def test_check_mode_tells_and_changes_nothing(old: Platform) -> None:
    platform = old
    before, states = stored(platform), platform.states()
    played = platform.play(platform.archive("2.0.0"), "--check", "-vvv")
    assert played.code == 0, played.output
    aborted = platform.play(
        platform.archive("2.0.0"), "--check", "-e", "mta_state=aborted", "-e", "mta_abort_upgraded=true"
    )
    assert aborted.code == 0, aborted.output
    assert (stored(platform), platform.states(), platform.upgraded()) == (before, states, [])


def test_what_somebody_aborts_during_its_tests_does_not_go_live(old: Platform) -> None:
    platform, before = old, old.states()
    played = during_the_tests(platform, platform.archive("2.0.0"), "abort")
    assert played.code == 2
    assert "has ended (ABORTED), and not by us" in played.text
    assert "the live version was not touched" in played.text
    assert (platform.states(), platform.upgraded()) == ([*before, "ABORTED"], [])


def test_what_somebody_resumes_during_its_tests_is_upgraded_live(old: Platform) -> None:
    platform = old
    played = during_the_tests(platform, platform.archive("2.0.0"), "resume")
    assert played.code == 2
    assert "There is nothing to abort any more" in played.text
    assert platform.states()[-1] == "FINISHED"
    again = platform.play(platform.archive("2.0.0"))
    assert again.code == 0, again.output
    assert platform.upgraded() == list(TENANTS)
