# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small HTTP/1.1 client with keep-alive that sends every request exactly once.

General clients send an idempotent request again when a kept connection turns out to be closed; a load generator that
must see every failure can't use that.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

IDLE_S = 5.0
"""A connection idle for longer is not used again: the server may be closing it."""


class HttpError(Exception):
    """No complete answer came back.

    :param silence: within the time; else there was no connection, or it ended.
    """

    def __init__(self, message: str, silence: bool = False) -> None:
        super().__init__(message)
        self.silence = silence


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    idle_since: float = 0.0

    def usable(self) -> bool:
        return not self.reader.at_eof() and not self.writer.is_closing() and time.monotonic() - self.idle_since < IDLE_S


class HttpClient:
    """Connections to one address; use it in one event loop."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._idle: list[_Connection] = []

    async def request(
        self, method: str, path: str, headers: dict[str, str], body: Any = None, timeout_s: float = 10.0
    ) -> Answer:
        """Send one request.

        :param body: is sent as JSON when given.
        :raises HttpError: no connection, a connection that ends early, or no answer within *timeout_s*.
        """
        connection: _Connection | None = None
        complete = False
        try:
            async with asyncio.timeout(timeout_s):
                connection = await self._connection()
                payload = b"" if body is None else json.dumps(body).encode()
                lines = [
                    f"{method} {path} HTTP/1.1",
                    f"host: {self._host}:{self._port}",
                    f"content-length: {len(payload)}",
                ]
                lines += ["content-type: application/json"] if payload else []
                lines += [f"{name}: {value}" for name, value in headers.items()]
                connection.writer.write("\r\n".join([*lines, "", ""]).encode() + payload)
                answer = await self._answer(connection.reader)
                complete = answer.headers.get("connection", "").lower() != "close"
                return answer
        except TimeoutError as error:
            raise HttpError(f"no answer within {timeout_s:g} s", silence=True) from error
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            raise HttpError(f"{type(error).__name__}: {error}") from error
        finally:
            if connection is not None:
                self._give_back(connection, complete)

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable():
                return connection
            connection.writer.close()
        return _Connection(*await asyncio.open_connection(self._host, self._port))

    def _give_back(self, connection: _Connection, complete: bool) -> None:
        if complete:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.writer.close()

    @staticmethod
    async def _answer(reader: asyncio.StreamReader) -> Answer:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split(" ", 2)[1])
        headers = {
            name.strip().lower(): value.strip()
            for name, _colon, value in (line.partition(":") for line in head[1:] if line)
        }
        if "content-length" in headers:
            body = await reader.readexactly(int(headers["content-length"]))
        else:
            raise ValueError("an answer without content-length")
        return Answer(status, headers, body)

    def close(self) -> None:
        for connection in self._idle:
            connection.writer.close()
        self._idle.clear()
