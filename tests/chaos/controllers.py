# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controllers as processes of their own. They are forked from a server that has loaded their modules: hundreds are
started.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible_collections.zdm.landscape.tests.chaos import controller
from ansible_collections.zdm.landscape.tests.landscape.processes import PATIENCE_S

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([controller.__name__])


class ControllerProcess:
    """A running controller, in a session of its own.

    :param output: a file for what it prints.
    """

    def __init__(self, arguments: Sequence[str], output: Path) -> None:
        self._output = output
        self._process = _FORKS.Process(target=_run, args=(list(arguments), str(output)), daemon=True)
        self._process.start()
        self.pid = self._process.pid or 0

    def kill(self) -> None:
        self._process.kill()

    @property
    def runs(self) -> bool:
        return self._process.is_alive()

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def end(self, timeout_s: float = PATIENCE_S) -> tuple[int, dict[str, Any]]:
        """Wait for its end; the exit code, negative after a signal, and what it printed.

        :raises TimeoutError: it runs on; it is killed then.
        """
        self._process.join(timeout_s)
        if self._process.exitcode is None:
            self._process.kill()
            raise TimeoutError(f"controller {self.pid} did not end within {timeout_s:g} s")
        printed = self._output.read_text() if self._output.exists() else ""
        return self._process.exitcode, json.loads(printed) if printed.strip() else {}


def _run(arguments: list[str], output: str) -> None:
    os.setsid()
    with open(output, "w", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), 1)
    sys.exit(controller.main(arguments))
