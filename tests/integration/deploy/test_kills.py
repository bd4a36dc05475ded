# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is killed after any of its requests is gone on with: one operation, the same end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.zdm.landscape.tests.integration.deploy import killed
from ansible_collections.zdm.landscape.tests.integration.deploy.kit import MTA, Bench
from ansible_collections.zdm.landscape.tests.landscape.processes import module_environment

LOGIN = 4
"""Requests of a run before it comes to the deployment: API, token, organisation, space."""


class Runs:
    """Runs in another process; see :mod:`killed`."""

    def __init__(self, bench: Bench, process: subprocess.Popen[str]) -> None:
        self._bench, self._process = bench, process

    def killed_after(self, requests: int, state: str, archive: str) -> bool:
        """Run and be killed; false when the run came to its end before."""
        bench = self._bench
        params = bench.params(state=state, archive=archive, poll_interval="20ms")
        self._write({"params": params, "options": bench.cloud.options(), "store": str(bench.folder / "store")})
        bench.cloud.faults.kill_after(requests, int(self._read()))
        self._write("go")
        status = int(self._read())
        bench.cloud.faults.kill_after(0, 0)
        assert status in (0, 9)
        return status == 9

    def _write(self, given: Any) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(given) + "\n")
        self._process.stdin.flush()

    def _read(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()


@pytest.fixture(name="runs")
def _runs(bench: Bench) -> Iterator[Runs]:
    command = [sys.executable, "-m", killed.__name__]
    with subprocess.Popen(
        command, env=module_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Runs(bench, process)
        assert process.stdin
        process.stdin.close()
        process.wait()


def test_a_deployment_that_is_killed_after_each_request(bench: Bench, runs: Runs) -> None:
    bench.standing()
    requests, alive = LOGIN, True
    while alive:
        requests += 1
        before, version = len(bench.operations()), f"1.{requests}.0"
        alive = runs.killed_after(requests, "deployed", bench.archive(version))
        result = bench.run("deployed", version)
        assert result.outcome in ("deployed", "unchanged"), requests
        assert len(bench.operations()) - before == 1, requests
        assert bench.live_version() == version, requests
        assert bench.operations()[-1].states.count("ACTION_REQUIRED") == 1, requests
    assert requests > LOGIN + 12


def test_an_abort_that_is_killed_after_each_request(bench: Bench, runs: Runs) -> None:
    bench.standing()
    archive = bench.archive("1.1.0")
    for requests in range(LOGIN + 1, LOGIN + 7):
        bench.run("testing", "1.1.0")
        assert runs.killed_after(requests, "aborted", archive)
        result = bench.run("aborted", mta_id=MTA)
        assert result.outcome == "aborted", requests
        assert bench.operations()[-1].states == ["RUNNING", "ACTION_REQUIRED", "ABORTED"], requests
        assert bench.live_version() == "1.0.0", requests
    assert len(bench.operations()) == 7
