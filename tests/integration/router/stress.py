# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients and their service in one process of their own: ``python -m …stress <configuration file>``; SIGTERM ends it.

The service notes begin and end of every request by the machine's monotonic clock, which other processes read too.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from ansible_collections.zdm.landscape.tests.landscape.httpclient import HttpClient, HttpError
from ansible_collections.zdm.landscape.tests.landscape.servers import HOST

WORK_S = 0.003
"""How long the service takes for a request at most."""
THINK_S = 0.012
"""How long a client waits after an answer at most."""


@dataclass(frozen=True)
class Seen:
    """One request at the service: whose it is, under which id it came, when."""

    owner: str
    tenant: str
    begin: float
    end: float


@dataclass(frozen=True)
class Config:
    """:param tokens: owner → bearer token; an owner's requests go to ``/bills/<owner>``. :param clients: per owner,
    router and kind of connection.
    """

    port: int
    routers: list[int]
    tokens: dict[str, str]
    clients: int
    result: str


@dataclass
class Record:
    """All that clients and service saw. ``answers``: owner → status or error → count; the others count an owner's
    answers.
    """

    seen: list[Seen] = field(default_factory=list)
    answers: dict[str, Counter[str]] = field(default_factory=dict)
    held: Counter[str] = field(default_factory=Counter)
    connections: Counter[str] = field(default_factory=Counter)

    @classmethod
    def read(cls, path: Path) -> Record:
        raw = json.loads(path.read_text())
        answers = {owner: Counter(counts) for owner, counts in raw["answers"].items()}
        return cls([Seen(**item) for item in raw["seen"]], answers, Counter(raw["held"]), Counter(raw["connections"]))

    def write(self, path: Path) -> None:
        # not by asdict, which can't copy a Counter
        path.write_text(json.dumps({**vars(self), "seen": [vars(item) for item in self.seen]}))

    def of(self, owners: Iterable[str]) -> list[Seen]:
        """The requests of *owners*, the first one first."""
        return sorted((item for item in self.seen if item.owner in owners), key=lambda item: item.begin)


class ServiceConnection(asyncio.Protocol):
    """One connection of a router to the service; GET requests one after the other."""

    def __init__(self, record: Record, connections: list[asyncio.Transport]) -> None:
        self._record, self._connections = record, connections
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.append(transport)

    def data_received(self, data: bytes) -> None:
        begin = monotonic()
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if end:
            self._received = rest
            asyncio.get_running_loop().call_later(random.uniform(0, WORK_S), self._answer, head.decode(), begin)

    def _answer(self, head: str, begin: float) -> None:
        request, *lines = head.split("\r\n")
        owner = request.split(" ")[1].rpartition("/")[2]
        ids = [
            value.strip()
            for name, _colon, value in (line.partition(":") for line in lines)
            if name.lower() == "x-tenant-id"
        ]
        # Noted before it is sent: the router counts the request for longer than this.
        self._record.seen.append(Seen(owner, ",".join(ids), begin, monotonic()))
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


class Stress:
    """All clients; the first half of an owner's keeps its connections, the other half makes a new one for each
    request.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self.record = Record()
        self.connections: list[asyncio.Transport] = []
        self.stopping = asyncio.Event()

    async def run(self) -> None:
        service = await asyncio.get_running_loop().create_server(
            lambda: ServiceConnection(self.record, self.connections), HOST, self._config.port
        )
        clients = [
            self._client(owner, HttpClient(HOST, port), keep)
            for owner in self._config.tokens
            for port in self._config.routers
            for keep in (True, False)
            for _number in range(self._config.clients)
        ]
        await asyncio.gather(*clients)
        service.close()
        for transport in self.connections:
            transport.abort()

    async def _client(self, owner: str, client: HttpClient, keep: bool) -> None:
        counts = self.record.answers.setdefault(owner, Counter())
        headers = {"authorization": f"Bearer {self._config.tokens[owner]}"}
        while not self.stopping.is_set():
            try:
                answer = await client.request("GET", f"/bills/{owner}", headers)
                counts[str(answer.status)] += 1
                self.record.held[owner] += "x-router-held" in answer.headers
                self.record.connections["kept" if keep else "new"] += 1
            except HttpError as error:
                counts[str(error)] += 1
            if not keep:
                client.close()
            await asyncio.sleep(random.uniform(0, THINK_S))
        client.close()


async def _main(config: Config) -> Record:
    stress = Stress(config)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stress.stopping.set)
    await stress.run()
    return stress.record


def main() -> None:
    config = Config(**json.loads(Path(sys.argv[1]).read_text()))
    asyncio.run(_main(config)).write(Path(config.result))


if __name__ == "__main__":
    main()
