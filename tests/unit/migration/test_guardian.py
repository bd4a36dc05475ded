# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a guardian acts, how long it tries, and what it leaves when it gives up. Real kills are in
tests/chaos/test_guardian.py.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Superseded, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.migration import guardian as guardian_module
from ansible_collections.zdm.landscape.plugins.module_utils.migration import window as window_module
from ansible_collections.zdm.landscape.plugins.module_utils.migration.cutover import Cutover
from ansible_collections.zdm.landscape.plugins.module_utils.migration.guardian import recover
from ansible_collections.zdm.landscape.plugins.module_utils.migration.status import describe_end
from ansible_collections.zdm.landscape.plugins.module_utils.tenants.tenant import Tenant
from ansible_collections.zdm.landscape.tests.landscape.processes import alive, wait_until

from .conftest import A, B, Small

PROGRAM = """
import sys
from pathlib import Path
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.migration.guardian import Guardian

def recover(epoch):
    Path(sys.argv[1]).write_text(str(epoch))

with Guardian(recover) as guardian:
    print(guardian.pid, flush=True)
    {body}
"""


class Dead(BaseException):
    """The process ends here and does nothing more."""


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_module, "PATIENCE_MS", 100)
    monkeypatch.setattr(guardian_module, "_PAUSE_S", 0.01)


def died(small: Small, target: str, operation: str) -> int:
    """Leave a window as a process does that dies before a write; the epoch of its journal."""
    window = small.cutover()
    small.log.failures[target, operation] = [Dead()]  # type: ignore[list-item]
    with pytest.raises(Dead):
        window.switch(B, int)
    small.log.clear()
    return window.journal.epoch


def recovered(small: Small, epoch: int, give_up_s: float = 5.0) -> None:
    def build() -> AbstractContextManager[Cutover]:
        return nullcontext(small.cutover())

    recover(build, epoch, give_up_s)


@pytest.mark.parametrize(
    ("body", "heard"),
    [
        ("guardian.arm(6); guardian.arm(7); raise RuntimeError", "7"),
        ("guardian.arm(7); import os; os._exit(1)", "7"),
        ("raise RuntimeError", ""),
        ("guardian.arm(7)", ""),
        ("guardian.arm(7); raise Refused('No.')", ""),
        ("guardian.arm(7); sys.exit(1)", ""),
    ],
)
def test_it_acts_only_when_an_armed_parent_ends_without_a_goodbye(body: str, heard: str, tmp_path: Path) -> None:
    said = tmp_path / "said"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body), str(said)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    wait_until(lambda: not alive(int(done.stdout)), "the guardian ends")
    assert (said.read_text() if said.exists() else "") == heard


@pytest.mark.parametrize(
    ("target", "operation", "live", "outcome"),
    [
        ("router-1", "close", A, "undone"),
        ("rating", "barrier", A, "undone"),
        ("rating", "turn", B, "finished"),
        ("router-2", "release", B, "finished"),
    ],
)
def test_it_undoes_before_the_commit_and_finishes_after_it(
    small: Small, target: str, operation: str, live: Tenant, outcome: str
) -> None:
    recovered(small, died(small, target, operation))
    small.assert_agreed(live)
    end = small.journal().end
    assert (end["by"], end["outcome"]) == ("guardian", outcome)
    assert describe_end(end).startswith("A run was killed in its window, and its guardian ")
    again = small.cutover().switch(B, int)
    assert again.changed == (outcome == "undone")
    small.assert_agreed(B)
    assert bool(small.journal().end) == (outcome == "finished")


@pytest.mark.parametrize(("operation", "newer"), [("lease", 0), ("barrier", 1)])
def test_it_leaves_leases_and_newer_epochs_alone(small: Small, operation: str, newer: int) -> None:
    epoch = died(small, "router-1" if operation == "lease" else "rating", operation)
    before = small.journal().body
    recovered(small, epoch - newer)
    assert small.journal().body == before
    assert small.log == []


def test_somebody_who_is_faster_is_not_taken_over(small: Small) -> None:
    """Between the guardian's look at the journal and its take over another controller comes."""
    epoch = died(small, "rating", "barrier")
    other = small.journal()
    late = small.cutover()
    late.journal.read()
    other.take_over(open_window=False, move_from=A.id, move_to=B.id)
    other.release_owner()
    with pytest.raises(Superseded):
        late.abort(of_epoch=epoch)
    assert small.journal().body["epoch"] == epoch + 1


def test_it_tries_again_until_a_router_answers(small: Small) -> None:
    epoch = died(small, "rating", "barrier")
    small.log.failures["router-2", "take_over"] = [Unreachable("router-2 does not answer.") for _attempt in range(3)]
    recovered(small, epoch)
    small.assert_agreed(A)


def test_it_gives_up_and_the_same_command_goes_on(small: Small) -> None:
    epoch = died(small, "rating", "turn")
    small.participants[1].down = True
    recovered(small, epoch, give_up_s=0.5)
    journal = small.journal()
    assert (journal.phase, journal.body["owner"], journal.end["outcome"]) == ("K", None, "not finished")
    assert "could neither finish nor undo" in describe_end(journal.end)
    small.participants[1].down = False
    small.cutover().switch(B, int)
    small.assert_agreed(B)
