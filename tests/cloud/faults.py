# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong when a test says so."""

from __future__ import annotations

import os
import re
import signal
import threading
from dataclasses import dataclass

from .standin import Answer, Request


class Lost(Exception):
    """The connection is closed without an answer."""


@dataclass
class Failure:
    """Why a step fails, and as what: CONTENT or INFRASTRUCTURE."""

    text: str
    kind: str = "CONTENT"
    times: int = 1


@dataclass
class _Fault:
    method: str
    path: re.Pattern[str]
    answer: Answer | None
    executed: bool
    times: int


class Faults:
    """Faults that a test has asked for; each happens as often as it says, then all is well again."""

    def __init__(self) -> None:
        self._faults: list[_Fault] = []
        self._failures: dict[str, Failure] = {}
        self._held: dict[str, threading.Event] = {}
        self._reached: dict[str, threading.Event] = {}
        self._kill = (0, 0)
        self._lock = threading.Lock()

    def lose(self, method: str, path: str, times: int = 1, *, executed: bool = True) -> None:
        """The connection of the next matching requests is closed without an answer.

        :param path: a regular expression that is searched in path and query.
        :param executed: whether the request is executed before.
        """
        self._faults.append(_Fault(method, re.compile(path), None, executed, times))

    def answer(self, method: str, path: str, answer: Answer, times: int = 1, *, executed: bool = False) -> None:
        """The next matching requests get this answer."""
        self._faults.append(_Fault(method, re.compile(path), answer, executed, times))

    def fail(self, name: str, text: str, kind: str = "CONTENT", times: int = 1) -> None:
        """Starting the application *name* fails, or ``service <name>``, or ``switch <name>``."""
        self._failures[name] = Failure(text, kind, times)

    def hold_at(self, step: str) -> threading.Event:
        """The operation waits before this step until :meth:`release`; the event is set when it is there."""
        self._held[step], self._reached[step] = threading.Event(), threading.Event()
        return self._reached[step]

    def release(self, step: str = "") -> None:
        """Let operations go on before this step, or before all that are held."""
        for name in [step] if step else list(self._held):
            self._held.pop(name).set()

    def kill_after(self, requests: int, pid: int) -> None:
        """The process gets SIGKILL when so many requests were executed, before the last one is answered."""
        with self._lock:
            self._kill = (requests, pid)

    def hold(self, step: str) -> None:
        event = self._held.get(step)
        if event is not None:
            self._reached[step].set()
            event.wait()

    def failure(self, name: str) -> Failure | None:
        failure = self._failures.get(name)
        if failure is None or failure.times <= 0:
            return None
        failure.times -= 1
        return failure

    def before(self, request: Request) -> Answer | None:
        """The fault that happens instead of the request.

        :raises Lost: the connection ends.
        """
        return self._happen(request, executed=False)

    def after(self, request: Request) -> Answer | None:
        """The fault that happens to its answer; see :meth:`before`."""
        self._count()
        return self._happen(request, executed=True)

    def _happen(self, request: Request, *, executed: bool) -> Answer | None:
        with self._lock:
            for fault in self._faults:
                if (
                    fault.times > 0
                    and fault.executed is executed
                    and fault.method == request.method
                    and fault.path.search(request.target)
                ):
                    fault.times -= 1
                    break
            else:
                return None
        if fault.answer is None:
            raise Lost
        return fault.answer

    def _count(self) -> None:
        with self._lock:
            left, pid = self._kill
            if not pid:
                return
            self._kill = (left - 1, pid if left > 1 else 0)
        if left == 1:
            os.kill(pid, signal.SIGKILL)
            raise Lost
