# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs the applications of a space."""

from __future__ import annotations

import io
import json
import queue
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Protocol, Self


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


class NamedApps:
    """Keeps what runs, by the application's name; ``running`` is what a subclass keeps of each."""

    def __init__(self) -> None:
        self.running: dict[str, Any] = {}

    def rename(self, old: str, new: str) -> None:
        if old in self.running:
            self.running[new] = self.running.pop(old)


class NoRunner(NamedApps):
    """Starts nothing; ``running`` says what would run, with its environment."""

    def start(self, app_name: str, module_name: str, env: Mapping[str, str], content: bytes) -> int:
        self.running[app_name] = dict(env)
        return 0

    def stop(self, app_name: str) -> None:
        self.running.pop(app_name, None)


class Runnable(Protocol):
    """An application that runs while its context lasts."""

    @property
    def port(self) -> int: ...

    def __enter__(self) -> Any: ...

    def __exit__(self, kind: None, error: None, trace: None, /) -> object: ...


class OwnApps(NamedApps, ABC):
    """Runs applications that this process makes; all of them end with the block."""

    running: dict[str, Runnable]

    @abstractmethod
    def make(self, module_name: str, env: Mapping[str, str], content: bytes) -> Runnable:
        """The application that runs a module, not started yet. Arguments as in :meth:`AppRunner.start`."""

    def start(self, app_name: str, module_name: str, env: Mapping[str, str], content: bytes) -> int:
        app = self.make(module_name, env, content)
        app.__enter__()
        self.running[app_name] = app
        return app.port

    def stop(self, app_name: str) -> None:
        app = self.running.pop(app_name, None)
        if app is not None:
            app.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop_all()

    def stop_all(self) -> None:
        for name in list(self.running):
            self.stop(name)


def version_of(content: bytes) -> str:
    """The version in the ``package.json`` of a module's ``data.zip``."""
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        return str(json.loads(packed.read("package.json"))["version"])


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
