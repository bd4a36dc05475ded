# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ctrl-C, SIGTERM, a closed terminal and SIGKILL on real playbooks, before and after the close, with traffic that must
not notice.

The window is stopped where it has to be: before the close by a request that does not end (the drain waits for it),
after the close by the config store's lock (the next write of the journal waits for it).
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.zdm.landscape.tests.chaos.scene import Scene, scene
from ansible_collections.zdm.landscape.tests.landscape.processes import PATIENCE_S, wait_until


@pytest.fixture(scope="module", name="scenery")
def _scenery() -> Iterator[Scene]:
    with scene(rows=500) as prepared:
        yield prepared


@pytest.fixture(name="stage")
def _stage(scenery: Scene) -> Scene:
    scenery.settle()
    return scenery


def name_of(stage: Scene) -> str:
    """The playbook that makes the other tenant live."""
    return "migrate" if stage.other == stage.landscape.target else "reverse"


def hear_all() -> None:
    """A terminal's job ignores no signal; one of nohup or of a shell's background ignores some, as do its children."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def started(stage: Scene) -> Iterator[subprocess.Popen[str]]:
    """That playbook, in a process group of its own as a terminal's foreground job; nothing of it outlives the block."""
    output: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    command = stage.landscape.playbook(name_of(stage))
    process = subprocess.Popen(
        command,
        env=stage.landscape.environment,
        cwd=stage.folder,
        start_new_session=True,
        preexec_fn=hear_all,
        **output,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def journal_of(stage: Scene) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(
        (stage.landscape.store_path / "migrations" / "venezia--venezia-scp.json").read_text()
    )
    return body


def wait_phase(stage: Scene, process: subprocess.Popen[str], phases: str) -> None:
    """Wait until the playbook's window is in one of the phases."""
    wait_until(
        lambda: journal_of(stage)["phase"] in phases or process.poll() is not None, f"phase {phases}", pause_s=0.001
    )
    assert process.poll() is None, process.communicate()[0]


def wait_end(stage: Scene) -> dict[str, Any]:
    """Wait until no process drives the migration any more; returns how the last run ended."""
    wait_until(lambda: not journal_of(stage)["owner"], "the run ends")
    end: dict[str, Any] = journal_of(stage).get("ended_by", {})
    return end


@contextmanager
def stopped_before_the_close(stage: Scene) -> Iterator[subprocess.Popen[str]]:
    """A playbook whose window has begun and waits for a request that does not end while the block runs."""
    with closing(socket.create_connection(stage.landscape.fleet.addresses[0])) as connection:
        token = stage.landscape.token(stage.landscape.target)
        head = (
            f"POST /bills/writes HTTP/1.1\r\nHost: bills\r\nAuthorization: Bearer {token}\r\nContent-Length:"
            " 500\r\n\r\n"
        )
        connection.sendall(head.encode() + b"{")
        stage.wait_in_flight()
        with started(stage) as process:
            wait_phase(stage, process, "W")
            yield process


@contextmanager
def stopped_after_the_close(stage: Scene) -> Iterator[subprocess.Popen[str]]:
    """A playbook whose window is closed and can't write the journal."""
    with started(stage) as process:
        wait_phase(stage, process, "CKR")
        with (stage.landscape.store_path / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert journal_of(stage)["phase"] in "CKR"
            yield process


def parents_of(pid: int, last: int) -> list[int]:
    """The processes above *pid* up to *last*."""
    found = [pid]
    while found[-1] != last:
        found.append(int(Path(f"/proc/{found[-1]}/stat").read_text().rpartition(")")[2].split()[1]))
    return found[1:]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 99), pytest.param(signal.SIGTERM, -signal.SIGTERM, marks=pytest.mark.thorough)]
)
def test_a_signal_before_the_close_undoes(stage: Scene, number: signal.Signals, code: int) -> None:
    before, name = stage.live, name_of(stage)
    with stopped_before_the_close(stage) as process:
        os.killpg(process.pid, number)
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == code
    end = wait_end(stage)
    assert (end["by"], end["outcome"], end["epoch"]) == (number.name, "undone", journal_of(stage)["epoch"])
    status = stage.status()
    assert f"{number.name} came to a run, which undid the window" in status.verdict
    assert f"zdm.landscape.{name} -e migrate_db_from_tenant=venezia" in status.next_command
    stage.assert_agreed(before, replay=False)


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGINT, 99, marks=pytest.mark.thorough), (signal.SIGTERM, -signal.SIGTERM)]
)
def test_a_signal_after_the_close_finishes(stage: Scene, number: signal.Signals, code: int) -> None:
    goal = stage.other
    with stopped_after_the_close(stage) as process:
        os.killpg(process.pid, number)
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == code
        assert journal_of(stage)["phase"] != "I"
    end = wait_end(stage)
    assert (end["by"], end["outcome"]) == (number.name, "finished")
    assert stage.status().next_command == ""
    stage.assert_agreed(goal, replay=False)


@pytest.mark.thorough
def test_a_closed_terminal_after_the_close_finishes(stage: Scene) -> None:
    """The playbook is gone, nobody reads the module's output any more, and the module is told by SIGHUP too."""
    goal = stage.other
    with stopped_after_the_close(stage) as process:
        module = journal_of(stage)["owner"]["pid"]
        workers = parents_of(module, process.pid)[:-1]
        os.killpg(process.pid, signal.SIGHUP)
        assert process.wait(PATIENCE_S) == -signal.SIGHUP
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        os.kill(module, signal.SIGHUP)
    end = wait_end(stage)
    assert (end["by"], end["outcome"]) == ("SIGHUP", "finished")
    stage.assert_agreed(goal, replay=False)


@pytest.mark.thorough
def test_a_killed_module_is_recovered_and_the_playbook_does_not_wait_for_it(stage: Scene) -> None:
    goal = stage.other
    with stopped_after_the_close(stage) as process:
        os.kill(journal_of(stage)["owner"]["pid"], signal.SIGKILL)
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 2
        assert journal_of(stage)["phase"] in "CKR"
    wait_until(lambda: journal_of(stage)["phase"] == "I", "the guardian recovers")
    end = wait_end(stage)
    assert end["by"] == "guardian"
    if end["outcome"] == "undone":
        with started(stage) as again:
            output = again.communicate(timeout=PATIENCE_S)[0]
        assert again.returncode == 0, output
        assert "its guardian undid the window" in re.sub(r"\s+", " ", output)
    stage.assert_agreed(goal, replay=False)


def test_nobody_noticed(stage: Scene) -> None:
    stage.assert_ledger()
