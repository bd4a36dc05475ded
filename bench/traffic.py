# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Light, constant traffic of the tenant through both routers, from a thread of the benchmark."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from ansible_collections.zdm.landscape.bench.tables import NAME
from ansible_collections.zdm.landscape.tests.landscape.httpclient import HttpClient, HttpError

PATIENCE_S = 20.0


@dataclass(frozen=True)
class Seen:
    """What a stretch of traffic has seen."""

    requests: int
    acknowledged: int
    longest_ms: float

    @property
    def refused(self) -> int:
        return self.requests - self.acknowledged


class Traffic:
    """Writes at a fixed rate, each sent when it is due, whatever became of the one before.

    :param addresses: of the routers.
    :param tokens: of the accounts that share the rows.
    :param rows: writes change rows with a number up to this.
    """

    def __init__(self, addresses: Sequence[tuple[str, int]], tokens: Sequence[str], rate: int, rows: int) -> None:
        self._addresses, self._tokens, self._rate, self._rows = addresses, tokens, rate, rows
        self._samples: list[tuple[float, bool]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="traffic")

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Send no more and wait for the last answer."""
        self._stop.set()
        self._thread.join()

    def seen(self) -> Seen:
        """Everything that was answered so far; end the traffic before, so that nothing is missing."""
        return Seen(
            len(self._samples),
            sum(right for _ms, right in self._samples),
            max((ms for ms, _right in self._samples), default=0.0),
        )

    async def _run(self) -> None:
        loop, clients = asyncio.get_running_loop(), [HttpClient(*address) for address in self._addresses]
        begin = loop.time()

        async def one(number: int, due: float) -> None:
            headers = {"authorization": f"Bearer {self._tokens[number // len(clients) % len(self._tokens)]}"}
            try:
                answer = await clients[number % len(clients)].request(
                    "POST", f"/{NAME}/{random.randint(1, self._rows)}", headers, timeout_s=PATIENCE_S
                )
                right = answer.status == 200
            except HttpError:
                right = False
            self._samples.append(((loop.time() - due) * 1000, right))

        number = 0
        async with asyncio.TaskGroup() as tasks:
            while not self._stop.is_set():
                due = begin + number / self._rate
                await asyncio.sleep(max(0.0, due - loop.time()))
                tasks.create_task(one(number, due))
                number += 1
        for client in clients:
            client.close()
