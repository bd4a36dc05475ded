# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts and stops the load generator and reads what it says."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from .processes import PATIENCE_S, Process, Processes, module_command, module_environment, wait_until


class Traffic:
    """One run of the load generator; as a context manager it ends with the block, its ``summary`` is there afterwards.

    :param config: the fields of :class:`.load.Config`, without ledger and progress.
    """

    def __init__(self, processes: Processes, folder: Path, config: dict[str, Any]) -> None:
        self._processes = processes
        self._name = f"load-{config['run']}"
        self._folder = folder
        self._config = {**config, "ledger": str(self.ledger), "progress": str(self._progress)}
        self._process: Process | None = None
        self.summary: dict[str, Any] = {}

    @property
    def ledger(self) -> Path:
        """Every write with its outcome, one JSON object a line."""
        return self._folder / f"{self._name}.ledger"

    @property
    def _progress(self) -> Path:
        return self._folder / f"{self._name}.progress"

    @property
    def _output(self) -> Path:
        return self._folder / f"{self._name}.json"

    def start(self, requests: int = 1) -> None:
        """Start the load and wait until it has sent *requests* requests."""
        config = self._folder / f"{self._name}.config"
        config.touch(0o600)
        config.write_text(json.dumps(self._config))
        self._process = self._processes.start(
            self._name, module_command("load", str(config)), env=module_environment(), stdout=self._output
        )
        self._process.wait_ready(lambda: self.progress()["requests"] >= requests)

    @property
    def runs(self) -> bool:
        return self._process is not None

    def progress(self) -> dict[str, Any]:
        """The counts so far, at most some tenths of a second old."""
        try:
            progress: dict[str, Any] = json.loads(self._progress.read_text())
        except FileNotFoundError:
            return {"requests": 0, "failed": 0, "refused": 0, "unknown": 0, "broken": {}, "failures": []}
        return progress

    def wait_requests(self, more: int) -> None:
        """Wait until *more* requests have been sent from now on."""
        wanted = self.progress()["requests"] + more
        assert self._process is not None
        self._process.wait_ready(lambda: self.progress()["requests"] >= wanted)

    def run_for(self, seconds: float) -> None:
        """Let the load go on for a time."""
        assert self._process is not None
        end = time.monotonic() + seconds
        self._process.wait_ready(lambda: time.monotonic() >= end, seconds + PATIENCE_S)

    def watch(self, process: Process, timeout_s: float = 900.0) -> None:
        """Wait until *process* ends.

        :raises ServerError: when the load ends before, or the time is over.
        """
        assert self._process is not None
        self._process.wait_ready(lambda: process.popen.poll() is not None, timeout_s)

    def stop(self) -> dict[str, Any]:
        """Stop sending, wait for the last answers and return the summary."""
        if self._process is not None:
            process, self._process = self._process, None
            process.popen.terminate()
            wait_until(lambda: process.popen.poll() is not None, f"{self._name} ends")
            self._processes.stop(process)
            if process.popen.returncode != 0:
                raise RuntimeError(f"{self._name} ended with code {process.popen.returncode}: {process.tail()}")
            self.summary = json.loads(self._output.read_text())
        return self.summary

    def __enter__(self) -> Traffic:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
