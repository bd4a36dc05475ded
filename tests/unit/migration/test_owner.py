# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a process that drives a migration is certainly dead: its host's name decides nothing."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict, replace

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.migration.owner import Owner

from .conftest import Small


@pytest.fixture
def gone() -> Owner:
    """A process of this machine that has ended."""
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    return replace(Owner.here(), pid=child.pid, pid_start="1")


def test_this_process_is_alive() -> None:
    assert not Owner.here().is_dead()


def test_a_process_of_this_kernel_and_namespace_that_is_gone_is_dead(gone: Owner) -> None:
    assert gone.is_dead()
    assert replace(gone, host="renamed").is_dead()


@pytest.mark.parametrize(
    "elsewhere", [{"boot": "another kernel"}, {"pids": "pid:[1]"}, {"boot": "", "pids": ""}], ids=str
)
def test_a_process_elsewhere_that_shares_the_hosts_name_is_not(gone: Owner, elsewhere: dict[str, str]) -> None:
    assert not replace(gone, **elsewhere).is_dead()


def test_a_heartbeat_that_changes_wins_over_a_process_that_is_not_seen(small: Small, gone: Owner) -> None:
    """A controller in another container of the host has process ids that mean nothing here."""
    journal = small.journal()
    journal.take_over(open_window=False, move_from="guid-a", move_to="guid-b")
    journal.note(owner=asdict(replace(gone, pids="pid:[1]")))
    with journal.heartbeat(), pytest.raises(Refused, match="is driven by"):
        small.journal().take_over(open_window=False, move_from="guid-a", move_to="guid-b")


def test_an_owner_of_an_earlier_version_is_judged_by_its_heartbeat() -> None:
    known = {name: value for name, value in asdict(Owner.here()).items() if name not in ("boot", "pids")}
    assert not Owner(**{**known, "pid_start": "1"}).is_dead()
