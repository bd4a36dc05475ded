# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs the applications of a space."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Protocol


class AppRunner(Protocol):
    """Runs applications. Threads of the deploy service and of the API call it; see :class:`MainThread`."""

    def start(self, app_name: str, module_name: str, env: Mapping[str, str], content: bytes) -> int:
        """Start an application, return when it is healthy, with the port on which it listens.

        :param content: the module's ``data.zip``.
        :raises Exception: it does not start; the text becomes the operation's message.
        """

    def stop(self, app_name: str) -> None:
        """Stop it; what is not running is no error. No route leads to it any more."""

    def rename(self, old: str, new: str) -> None:
        """The application has another name from now on."""


class NoRunner:
    """Starts nothing; ``running`` says what would run, with its environment."""

    def __init__(self) -> None:
        self.running: dict[str, dict[str, str]] = {}

    def start(self, app_name: str, module_name: str, env: Mapping[str, str], content: bytes) -> int:
        self.running[app_name] = dict(env)
        return 0

    def stop(self, app_name: str) -> None:
        self.running.pop(app_name, None)

    def rename(self, old: str, new: str) -> None:
        if old in self.running:
            self.running[new] = self.running.pop(old)


class MainThread:
    """Hands the calls for *runner* to the thread that calls :meth:`work`: processes must be started from the main
    thread.
    """

    def __init__(self, runner: AppRunner) -> None:
        self._runner = runner
        self._calls: queue.Queue[tuple[Callable[[], Any], Future[Any]]] = queue.Queue()

    def start(self, app_name: str, module_name: str, env: Mapping[str, str], content: bytes) -> int:
        return int(self._hand(lambda: self._runner.start(app_name, module_name, env, content)))

    def stop(self, app_name: str) -> None:
        self._hand(lambda: self._runner.stop(app_name))

    def rename(self, old: str, new: str) -> None:
        self._hand(lambda: self._runner.rename(old, new))

    def work(self, until: Callable[[], object], pause_s: float = 0.05) -> None:
        """Do what is handed over until *until* is true."""
        while not until():
            try:
                call, future = self._calls.get(timeout=pause_s)
            except queue.Empty:
                continue
            try:
                future.set_result(call())
            except Exception as error:  # it belongs to the caller's thread
                future.set_exception(error)

    def _hand(self, call: Callable[[], Any]) -> Any:
        future: Future[Any] = Future()
        self._calls.put((call, future))
        return future.result()
