# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for Cloud Foundry's gorouter: host names lead to applications' ports, changed in one step, with its
answers for what leads nowhere.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections import Counter
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import Any, Self

from aiohttp import ClientConnectorError, ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web
from yarl import URL

from .standin import HOST

_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
_STICKY, _SESSION = "__VCAP_ID__", "JSESSIONID"
_MAX_HEADER = 65_536


class Gorouter:
    """Runs in a thread of its own, as a context manager.

    A host without a route is unknown; several applications behind a route take turns, and a session that has
    the cookie JSESSIONID stays with its application as long as that is behind the route.

    :param certificate: PEM file with certificate and key; with it the router speaks TLS.
    """

    def __init__(self, certificate: str = "") -> None:
        self._tls: ssl.SSLContext | None = None
        if certificate:
            self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._tls.load_cert_chain(certificate)
        self.scheme = "https" if certificate else "http"
        self.port = 0
        self.answers: Counter[int] = Counter()
        """How often each status was answered."""
        self._table: dict[str, list[int]] = {}
        self._flying: Counter[int] = Counter()
        self._turns: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gorouter", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._begin())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def switch(self, table: Mapping[str, list[int]]) -> None:
        """Replace all routes at once: no request sees a part of it."""
        self._call(self._switch({host.lower(): list(ports) for host, ports in table.items()}))

    def drain(self, port: int, timeout_s: float) -> bool:
        """Wait until no request is in flight to this port; says whether that came true in time."""
        return bool(self._call(self._drain(port, timeout_s)))

    def in_flight(self, port: int) -> int:
        return self._flying[port]

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _begin(self) -> None:
        self._changed = asyncio.Condition()
        self._client = ClientSession(
            connector=TCPConnector(limit=0, force_close=True),
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            timeout=ClientTimeout(total=None),
            max_line_size=_MAX_HEADER,
            max_field_size=_MAX_HEADER,
        )
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            application,
            access_log=None,
            auto_decompress=False,
            shutdown_timeout=1,
            max_line_size=_MAX_HEADER,
            max_field_size=_MAX_HEADER,
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, 0, ssl_context=self._tls)
        await site.start()
        self.port = int(self._runner.addresses[0][1])

    async def _end(self) -> None:
        await self._runner.cleanup()
        await self._client.close()

    async def _switch(self, table: dict[str, list[int]]) -> None:
        self._table = table

    async def _drain(self, port: int, timeout_s: float) -> bool:
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(lambda: not self._flying[port]), timeout_s)
            except TimeoutError:
                return False
        return True

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        host = request.headers.get("Host", "").lower()
        name, sticky = host.partition(":")[0], request.cookies.get(_STICKY, "")
        turn = self._turns[host]
        self._turns[host] += 1
        tried: set[int] = set()
        while (port := self._next(host, sticky, turn, tried)) is not None:
            tried.add(port)
            self._flying[port] += 1  # nothing was awaited since the table was read: a switch never comes between
            try:
                return await self._forward(request, port)
            except ClientConnectorError:
                continue  # it was not sent: another instance may have it
            except (ClientError, ConnectionResetError) as error:
                return self._own(
                    502,
                    f"endpoint_failure ({error})",
                    "502 Bad Gateway: Registered endpoint failed to handle the request.\n",
                )
            finally:
                self._flying[port] -= 1
                async with self._changed:
                    self._changed.notify_all()
        if self._ports(host) is None:
            return self._own(404, "unknown_route", f"404 Not Found: Requested route ('{name}') does not exist.\n")
        return self._own(
            503, "no_endpoints", f"503 Service Unavailable: Requested route ('{name}') has no available endpoints.\n"
        )

    def _ports(self, host: str) -> list[int] | None:
        """What is behind the host now; ``None`` when there is no such route."""
        found = self._table.get(host)
        return self._table.get(host.partition(":")[0]) if found is None else found

    def _next(self, host: str, sticky: str, turn: int, tried: set[int]) -> int | None:
        """The application whose turn it is, of those that are behind the host now and were not tried."""
        ports = self._ports(host) or []
        first = turn % len(ports) if ports else 0
        left = [port for port in ports[first:] + ports[:first] if port not in tried]
        return next((port for port in left if str(port) == sticky), left[0] if left else None)

    def _own(self, status: int, error: str, text: str) -> web.Response:
        self.answers[status] += 1
        headers = {
            "X-Cf-Routererror": error,
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-cache, no-store",
        }
        return web.Response(status=status, text=text, headers=headers)

    async def _forward(self, request: web.Request, port: int) -> web.StreamResponse:
        headers = [
            (name, value) for name, value in request.headers.items() if name.lower() not in _HOP | {"x-forwarded-proto"}
        ]
        headers += [("X-Forwarded-For", request.remote or HOST), ("X-Forwarded-Proto", self.scheme)]
        body = request.content if request.body_exists else None
        url = URL(f"http://{HOST}:{port}{request.raw_path}", encoded=True)  # as the client wrote it
        skipped = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
        async with self._client.request(
            request.method, url, headers=headers, data=body, allow_redirects=False, skip_auto_headers=skipped
        ) as answer:
            response = web.StreamResponse(status=answer.status, reason=answer.reason)
            for name, value in answer.headers.items():
                if name.lower() not in _HOP:
                    response.headers.add(name, value)
            if any(cookie.startswith(f"{_SESSION}=") for cookie in answer.headers.getall("Set-Cookie", [])):
                response.headers.add("Set-Cookie", f"{_STICKY}={port}; Path=/; HttpOnly; SameSite=Strict")
            await response.prepare(request)
            async for block in answer.content.iter_any():
                await response.write(block)
            await response.write_eof()
            self.answers[answer.status] += 1
            return response
