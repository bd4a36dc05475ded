# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No tunnel past token, count and block: on every HAProxy, with a service that changes to whatever it is asked for."""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from ansible_collections.zdm.landscape.tests.integration.router.kit import HOST, A, Deployment, Service, deployed, token
from ansible_collections.zdm.landscape.tests.landscape import programs
from ansible_collections.zdm.landscape.tests.landscape.processes import temporary_folder

WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455, 1.3: what a server adds to the client's key to prove that it speaks the protocol."""
KEY = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
TUNNELLED = b"through the tunnel"


@dataclass
class Switching:
    """A service that answers 101 to the protocol in ``X-Switch-To``, then answers everything with an echo."""

    heads: list[str] = field(default_factory=list)
    tunnelled: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server((HOST, 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _peer = self._listener.accept()
            except OSError:
                return  # closed at the end
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                while head := self._head(connection):
                    self.heads.append(head)
                    wanted = re.search(r"(?im)^x-switch-to: (.*)$", head)
                    if not wanted:
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
                        continue
                    key = re.search(r"(?im)^sec-websocket-key: (.*)$", head)
                    accept = base64.b64encode(
                        hashlib.sha1((key[1] if key else "").strip().encode() + WEBSOCKET_GUID).digest()
                    )
                    also = re.search(r"(?im)^x-also-to: (.*)$", head)
                    second = f"Upgrade: {also[1].strip()}\r\n".encode() if also else b""
                    switch = (
                        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade:"
                        b" %s\r\n%sSec-WebSocket-Accept: %s\r\n\r\n"
                    )
                    connection.sendall(switch % (wanted[1].strip().encode(), second, accept) + b"switched")
                    while data := connection.recv(65536):
                        self.tunnelled.append(data)
                        connection.sendall(b"echo")
            except OSError:
                return  # cut by the router

    @staticmethod
    def _head(connection: socket.socket) -> str:
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                return ""
            data += more
        return data.decode("latin-1")

    def header(self, name: str) -> list[str]:
        """Values of a header in the last request."""
        return [value.strip() for value in re.findall(rf"(?im)^{re.escape(name)}:(.*)$", self.heads[-1])]

    def close(self) -> None:
        self._listener.close()


@dataclass
class Scene:
    router: Deployment
    service: Switching

    def ask(self, *lines: str) -> bytes:
        """One request with *lines* as headers and, after an answer, bytes for a tunnel; all that comes back until the
        router closes or 101.
        """
        head = "\r\n".join(["GET /bills/1 HTTP/1.1", "Host: r", f"Authorization: Bearer {token(A)}", *lines, "", ""])
        with socket.create_connection((HOST, self.router.port), timeout=20) as connection:
            connection.sendall(head.encode())
            answer = connection.recv(65536)
            assert answer, "the router has closed without an answer"
            with suppress(OSError):  # a connection that is not kept may be closed already
                connection.sendall(TUNNELLED)
                connection.shutdown(socket.SHUT_WR)
                while more := connection.recv(65536):
                    answer += more
            return answer


@pytest.fixture(scope="module", name="made")
def _made() -> Iterator[tuple[Deployment, Switching]]:
    service = Switching()
    backends = [{"name": "bills", "path": "/bills", "servers": [f"{HOST}:{service.port}"]}]
    try:
        with temporary_folder() as folder, deployed(folder, landscape_router_backends=backends) as deployment:
            deployment.fill_store()
            yield deployment, service
    finally:
        service.close()


@pytest.fixture(scope="module", params=programs.every_haproxy(), ids=lambda program: program.version_text)
def scene(request: pytest.FixtureRequest, made: tuple[Deployment, Switching]) -> Iterator[Scene]:
    deployment, service = made
    router = deployment.copy_to(f"haproxy-{request.param.version_text}", program=request.param)
    router.start()
    yield Scene(router, service)
    router.stop()


ASKED = {
    "h2c": ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
    "h2c in capitals": ("Connection: upgrade", "Upgrade: H2C", "HTTP2-SETTINGS: AA"),
    "h2c in a list": ("Connection: Upgrade", "Upgrade: foo, h2c"),
    "h2c first in a list": ("Connection: Upgrade", "Upgrade: h2c, foo"),
    "h2c in a second header": ("Connection: Upgrade", "Upgrade: foo", "Upgrade: h2c"),
    "h2c in quotes": ("Connection: Upgrade", 'Upgrade: "h2c"'),
    "h2c without Connection": ("Upgrade: h2c", "HTTP2-Settings: AA"),
    "h2": ("Connection: Upgrade", "Upgrade: h2"),
    "TLS": ("Connection: Upgrade", "Upgrade: TLS/1.0"),
    "an unknown one": ("Connection: Upgrade", "Upgrade: foo"),
    "websocket with a version": ("Connection: Upgrade", "Upgrade: websocket/13", KEY),
    "websocket without Connection": ("Upgrade: websocket", KEY),
    "nothing": (),
}


@pytest.mark.parametrize("lines", ASKED.values(), ids=ASKED.keys())
def test_an_upgrade_that_is_not_named_is_removed(scene: Scene, lines: tuple[str, ...]) -> None:
    """As RFC 9110, 7.8 allows: the service answers as if none had been asked for."""
    answer = scene.ask(*lines)
    assert answer.startswith(b"HTTP/1.1 200"), answer
    for name in ("upgrade", "http2-settings", "connection"):
        assert scene.service.header(name) == []


@pytest.mark.parametrize(
    "settings", ["HTTP2-Settings", "http2-settings", "HTTP2_Settings", "Http2.Settings", "HTTP2Settings"]
)
def test_http2_settings_never_pass(scene: Scene, settings: str) -> None:
    assert scene.ask(f"Connection: close, {settings}", f"{settings}: AA", f"{settings}: BB").startswith(b"HTTP/1.1 200")
    assert not re.search("http2", scene.service.heads[-1], re.IGNORECASE)


@pytest.mark.parametrize("lines", ASKED.values(), ids=ASKED.keys())
@pytest.mark.parametrize("protocol", ["h2c", "websocket", "foo"])
def test_a_service_that_changes_unasked_is_cut(scene: Scene, lines: tuple[str, ...], protocol: str) -> None:
    answer = scene.ask(*lines, f"X-Switch-To: {protocol}")
    assert answer.startswith(b"HTTP/1.1 502"), answer
    assert b"switched" not in answer
    assert scene.service.tunnelled == []


@pytest.mark.parametrize("protocol", ["h2c", "foo", "websocket/13", "foo, websocket", "websocket, foo"])
def test_a_service_that_changes_to_another_protocol_is_cut(scene: Scene, protocol: str) -> None:
    answer = scene.ask("Connection: Upgrade", "Upgrade: websocket", KEY, f"X-Switch-To: {protocol}")
    assert b"echo" not in answer
    assert scene.service.tunnelled == []


@pytest.mark.parametrize("protocol", ["h2c, websocket", "websocket, h2c"])
def test_no_answer_names_h2c(scene: Scene, protocol: str) -> None:
    """HAProxy 2.8 takes h2c out of the list itself, and what is left was asked for; 2.6 leaves it in, and is cut."""
    assert b"h2c" not in scene.ask("Connection: Upgrade", "Upgrade: websocket", KEY, f"X-Switch-To: {protocol}")
    scene.service.tunnelled.clear()


@pytest.mark.parametrize("connection", ["Upgrade", "keep-alive, Upgrade", "upgrade, HTTP2-Settings"])
@pytest.mark.parametrize("name", ["websocket", "WebSocket"])
def test_a_websocket_is_a_tunnel_that_counts(scene: Scene, connection: str, name: str) -> None:
    before = len(scene.service.tunnelled)
    answer = scene.ask(
        f"Connection: {connection}", f"Upgrade: {name}", KEY, "HTTP2-Settings: AA", "X-Switch-To: websocket"
    )
    assert answer.startswith(b"HTTP/1.1 101"), answer
    assert scene.service.header("connection") == ["upgrade"]
    assert scene.service.header("http2-settings") == []
    assert b"".join(scene.service.tunnelled[before:]) == TUNNELLED
    scene.service.tunnelled.clear()


@pytest.mark.parametrize("protocols", [("foo", "websocket"), ("websocket", "foo"), ("websocket", "websocket")])
def test_a_101_that_names_two_protocols_is_cut(scene: Scene, protocols: tuple[str, str]) -> None:
    answer = scene.ask(
        "Connection: Upgrade", "Upgrade: websocket", KEY, "X-Switch-To: " + "\r\nX-Also-To: ".join(protocols)
    )
    assert answer.startswith(b"HTTP/1.1 502"), answer
    assert scene.service.tunnelled == []


def test_http_1_0_has_no_upgrade(scene: Scene) -> None:
    """RFC 9110, 7.8: a server ignores it there."""
    with socket.create_connection((HOST, scene.router.port), timeout=20) as connection:
        lines = [
            "GET /bills/1 HTTP/1.0",
            "Host: r",
            f"Authorization: Bearer {token(A)}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            KEY,
            "",
            "",
        ]
        connection.sendall("\r\n".join(lines).encode())
        assert connection.recv(65536).split(b" ", 2)[1] == b"200"
    assert scene.service.header("upgrade") == []


def test_no_connect(scene: Scene) -> None:
    """A service's 200 to it would be a tunnel."""
    seen = len(scene.service.heads)
    with socket.create_connection((HOST, scene.router.port), timeout=20) as connection:
        connection.sendall(f"CONNECT r:80 HTTP/1.1\r\nHost: r:80\r\nAuthorization: Bearer {token(A)}\r\n\r\n".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 405")
    assert len(scene.service.heads) == seen


def test_nothing_is_in_flight_at_the_end(scene: Scene) -> None:
    scene.ask("Connection: Upgrade", "Upgrade: h2c", "X-Switch-To: h2c")
    assert scene.router.client().in_flight([A]) == 0


def test_no_name_at_all_means_no_upgrade() -> None:
    """With an empty list HAProxy accepts the configuration, and a websocket is not upgraded."""
    service = Service()
    service.gate.set()
    try:
        with temporary_folder() as folder, deployed(folder, landscape_router_upgrades=[]) as deployment:
            deployment.fill_store()
            deployment.start()
            answer = deployment.get(
                "/bills/1",
                token(A),
                {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="},
            )
            assert answer.status == 200
            assert not [name for name, _value in answer.seen["headers"] if name == "upgrade"]
    finally:
        service.close()
