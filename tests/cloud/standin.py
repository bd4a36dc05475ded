# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An HTTP server in threads of this process: what every stand-in of the embedded platform is built on."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

HOST = "127.0.0.1"
_LIMIT = 8 << 30
_SWALLOWED = 2 << 20
"""So much of a body that is too large is read, as web servers do: a client that is still sending sees no answer."""
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True)
class Request:
    """What a client sent. Names of ``headers`` are in lower case; of several values of a parameter the first counts."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    peer_name: str = ""
    """Common name of the client's certificate."""

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, str]:
        return _first(urlsplit(self.target).query)

    @property
    def form(self) -> dict[str, str]:
        return _first(self.body.decode())

    def json(self) -> Any:
        return json.loads(self.body or b"null")

    @property
    def host(self) -> str:
        """The name in the Host header, without port."""
        return self.headers.get("host", "").partition(":")[0]

    @property
    def bearer(self) -> str:
        kind, found, token = self.headers.get("authorization", "").partition(" ")
        return token if found and kind.lower() == "bearer" else ""


@dataclass(frozen=True)
class Answer:
    """``body`` is sent as JSON unless it is text, bytes or ``None``."""

    status: int
    body: Any = None
    headers: Mapping[str, str | list[str]] = field(default_factory=dict)


def _first(encoded: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(encoded, keep_blank_values=True).items()}


class StandIn(ABC):
    """Answers requests with :meth:`answer`, as a context manager; ``requests`` is what came, in order.

    :param certificate: a PEM file with certificate and key: the server speaks TLS.
    :param authority: a PEM file: certificates of clients are accepted when this authority issued them.
    """

    def __init__(self, certificate: str = "", authority: str = "") -> None:
        self.requests: list[Request] = []
        self._server = _Server((HOST, 0), _handler(self._answer_and_note, self.limit))
        if certificate:
            self._server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._server.tls.load_cert_chain(certificate)
            if authority:
                self._server.tls.load_verify_locations(authority)
                self._server.tls.verify_mode = ssl.CERT_OPTIONAL
        self.port = int(self._server.server_address[1])
        self.url = f"{'https' if certificate else 'http'}://localhost:{self.port}"

    @abstractmethod
    def answer(self, request: Request) -> Answer:
        """What this service says to the request."""

    def limit(self, _method: str, _target: str) -> int:
        """How many bytes the body of a request may have; one with more is answered with 413."""
        return _LIMIT

    def _answer_and_note(self, request: Request) -> Answer:
        self.requests.append(request)
        return self.answer(request)

    def __enter__(self) -> Self:
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name=type(self).__name__, daemon=True
        ).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    tls: ssl.SSLContext | None = None

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self.tls is not None:  # The handshake waits for the connection's own thread.
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away, or that trusts no certificate of ours, is no event."""


def _handler(answer: Callable[[Request], Answer], limit: Callable[[str, str], int]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_args: Any, **_kwargs: Any) -> None:
            pass

        def _any(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            if length > limit(self.command, self.path):
                self.rfile.read(min(length, _SWALLOWED))
                given = Answer(413, "Payload Too Large", {"connection": "close"})
            else:
                given = answer(
                    Request(self.command, self.path, headers, self.rfile.read(length), _peer_name(self.connection))
                )
            body, kind = _encoded(given.body)
            self.send_response(given.status)
            for name, value in {
                **({"content-type": kind} if body else {}),
                **given.headers,
                "content-length": str(len(body)),
            }.items():
                for one in value if isinstance(value, list) else [value]:
                    self.send_header(name, one)
            self.end_headers()
            self.wfile.write(body)

    for method in METHODS:
        setattr(Handler, f"do_{method}", Handler._any)
    return Handler


def _encoded(body: Any) -> tuple[bytes, str]:
    if body is None:
        return b"", ""
    if isinstance(body, bytes):
        return body, "application/octet-stream"
    return (
        (body.encode(), "text/html; charset=utf-8")
        if isinstance(body, str)
        else (json.dumps(body).encode(), "application/json")
    )


def _peer_name(connection: socket.socket) -> str:
    certificate = connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None
    names: Any = certificate.get("subject", ()) if certificate else ()
    return next((value for part in names for key, value in part if key == "commonName"), "")
