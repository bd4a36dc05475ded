# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small applications that call each other through the router, and callers who come all the time."""

from __future__ import annotations

import http.client
import threading
from typing import Self
from urllib.parse import urlsplit

from ..landscape.processes import PATIENCE_S, wait_until
from .standin import HOST, Answer, Request, StandIn

CALLERS = 4


def ask(port: int, host: str, path: str = "/") -> tuple[int, str]:
    """Status and text of what the router at *port* answers for *host*.

    :raises OSError, HTTPException: there is no answer.
    """
    connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE_S)
    try:
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


class Service(StandIn):
    """Answers with its version; ``/slow`` waits for :attr:`go`."""

    go = threading.Event()

    def __init__(self, version: str) -> None:
        super().__init__()
        self.version = version

    def answer(self, request: Request) -> Answer:
        if request.path == "/slow":
            self.go.wait(PATIENCE_S)
        return Answer(200, self.version)


class Relay(StandIn):
    """Leads every request to one destination, through the router, as an application router does."""

    def __init__(self, destination: str) -> None:
        super().__init__()
        self._to = urlsplit(destination)

    def answer(self, request: Request) -> Answer:
        status, text = ask(self._to.port or 80, self._to.netloc, request.path)
        return Answer(status, text)


class Callers:
    """Ask one thing after the other while the block lasts, and repeat nothing."""

    def __init__(self, port: int, host: str) -> None:
        self.answers: list[tuple[int, str]] = []
        self._port, self._host, self._over = port, host, threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _caller in range(CALLERS)]

    @property
    def failures(self) -> list[tuple[int, str]]:
        return [answer for answer in self.answers if answer[0] != 200]

    def more(self, number: int = 10 * CALLERS) -> None:
        """Wait for some more answers."""
        wanted = len(self.answers) + number
        wait_until(lambda: len(self.answers) >= wanted, f"{number} more answers")

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while not self._over.is_set():
            try:
                self.answers.append(ask(self._port, self._host))
            except (OSError, http.client.HTTPException) as error:
                self.answers.append((0, repr(error)))
