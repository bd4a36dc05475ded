# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of the engine in another process, which die when the cloud has got so many of their requests."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ansible_collections.zdm.landscape.tests.integration.deploy import killed
from ansible_collections.zdm.landscape.tests.integration.deploy.kit import Bench
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


@contextmanager
def killable(bench: Bench) -> Iterator[Runs]:
    command = [sys.executable, "-m", killed.__name__]
    with subprocess.Popen(
        command, env=module_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Runs(bench, process)
        assert process.stdin
        process.stdin.close()
        process.wait()
