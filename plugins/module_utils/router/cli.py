# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HAProxy's master command line (HAProxy management guide, "Master CLI") over a unix socket or mutual TLS.

The master keeps a connection open, so that one handshake serves many batches of commands. Every answer ends with an
empty line: one that is missing, cut or too many is an error, never a result.
"""

from __future__ import annotations

import re
import socket as sockets
import ssl
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, Unreachable


@dataclass(frozen=True)
class Endpoint:
    """Where a master answers: a unix socket's path, or host and port with the PEM files of mutual TLS.

    :param ca_file: who signed the router's certificate.
    :param cert_file: the client's certificate; *key_file* may be left out when the key stands in it.
    :param server_name: the name in the router's certificate, when it is not *host*.
    """

    socket: str | None = None
    host: str | None = None
    port: int | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    server_name: str | None = None

    def __str__(self) -> str:
        return str(self.socket) if self.socket else f"{self.host}:{self.port}"

    def check(self, name: str) -> None:
        """:raises InputError: neither or both ways are given, or TLS without its files: bare TCP has no
        authentication.
        """
        if bool(self.socket) == bool(self.host):
            raise InputError(
                f"Router {name} needs either a socket or a host.",
                "Give the path of the master socket, or host and port with certificates.",
            )
        if self.host and not (self.port and self.ca_file and self.cert_file):
            raise InputError(
                f"Router {name} at {self.host} lacks {'ca_file or cert_file' if self.port else 'a port'}.",
                "A router is controlled over mutual TLS only: give port, ca_file, cert_file and, unless it is in"
                " cert_file, key_file.",
            )


class MasterCLI:
    """Sends batches of commands; may be used by several threads. Commands must be safe to repeat.

    :param name: the router's name in errors.
    :param timeout_ms: for one batch.
    """

    def __init__(self, name: str, endpoint: Endpoint, timeout_ms: int) -> None:
        self.name = name
        self.endpoint = endpoint
        self._timeout_ms = timeout_ms
        self._context: ssl.SSLContext | None = None
        self._idle: deque[sockets.socket] = deque()

    def ask(self, commands: Sequence[str], keep: bool = True) -> list[str]:
        """Send *commands* and return as many answers.

        :param keep: whether the connection may be used again; ``False`` ends it, so that an answer without an end is
            noticed at once.
        :raises Unreachable: ``details["reason"]`` is absent (nothing listens), denied, timeout, tls, broken or answer
            (not understood).
        """
        request = "".join(f"{command}\n" for command in commands) + ("" if keep else "quit\n")
        deadline = time.monotonic() + self._timeout_ms / 1000
        try:
            while self._idle and keep:
                try:
                    return self._talk(self._idle.pop(), request, len(commands), deadline, keep)
                except (IndexError, _Gone):
                    continue  # The router closed the idle connection: the next one, or a new one.
            return self._talk(self._connect(), request, len(commands), deadline, keep)
        except _Gone as error:
            raise self.unreachable("the connection was closed without an answer", "broken") from error
        except TimeoutError as error:
            raise self.unreachable(f"no complete answer within {self._timeout_ms} ms", "timeout") from error
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise self.unreachable("nothing listens there", "absent") from error
        except PermissionError as error:
            raise self.unreachable("access to the socket is denied", "denied") from error
        except ssl.SSLError as error:
            raise self.unreachable(f"TLS failed ({_tls_reason(error)})", "tls") from error
        except OSError as error:
            raise self.unreachable(error.strerror or type(error).__name__, "broken") from error

    def disconnect(self) -> None:
        """Close idle connections; the next batch opens a new one."""
        while self._idle:
            self._idle.pop().close()

    def __del__(self) -> None:
        self.disconnect()

    def unreachable(self, why: str, reason: str) -> Unreachable:
        return Unreachable(
            f"Router {self.name} at {self.endpoint} does not answer: {why}.",
            "Check that the router runs, its address and its certificates or socket's permissions.",
            router=self.name,
            endpoint=str(self.endpoint),
            reason=reason,
        )

    def not_understood(self, answer: str) -> Unreachable:
        first = " ".join(answer.split())[:120]
        return Unreachable(
            f"Router {self.name} at {self.endpoint} gave an answer that is not understood: {first!r}.",
            "Apply the role landscape_router of this version to the router.",
            router=self.name,
            endpoint=str(self.endpoint),
            reason="answer",
        )

    def _talk(self, connection: sockets.socket, request: str, count: int, deadline: float, keep: bool) -> list[str]:
        """One batch on a connection, which is kept afterwards if all went well.

        :raises _Gone: the connection ended before the first byte of an answer.
        """
        done = False
        try:
            try:
                connection.settimeout(_left(deadline))
                connection.sendall(request.encode("ascii"))
            except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError) as error:
                raise _Gone from error
            answers = self._read(connection, count, deadline)
            done = True
            return answers
        finally:
            if done and keep:
                self._idle.append(connection)
            else:
                connection.close()

    def _read(self, connection: sockets.socket, count: int, deadline: float) -> list[str]:
        answers: list[str] = []
        text, begin = "", 0
        while True:
            while len(answers) < count and begin < len(text):
                end = begin if text[begin] == "\n" else text.find("\n\n", begin) + 1
                if end == 0:
                    break
                answers.append(text[begin:end])
                begin = end + 1
            if len(answers) == count:
                if text[begin:]:
                    raise self.not_understood(text[begin:])
                return answers
            chunk = self._receive(connection, deadline, first=not text)
            if not chunk:
                raise self.unreachable("the connection was closed before the last answer ended", "broken")
            text += chunk

    @staticmethod
    def _receive(connection: sockets.socket, deadline: float, first: bool) -> str:
        connection.settimeout(_left(deadline))
        try:
            chunk = connection.recv(262144)
        except (ConnectionResetError, BrokenPipeError) as error:
            if first:
                raise _Gone from error
            raise
        if first and not chunk:
            raise _Gone
        return chunk.decode("utf-8", "replace")

    def _connect(self) -> sockets.socket:
        seconds = self._timeout_ms / 1000
        endpoint = self.endpoint
        if endpoint.socket:
            plain = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
            try:
                plain.settimeout(seconds)
                plain.connect(endpoint.socket)
            except BaseException:
                plain.close()
                raise
            return plain
        context = self._tls()
        plain = sockets.create_connection((endpoint.host or "", endpoint.port or 0), timeout=seconds)
        try:
            plain.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
            return context.wrap_socket(plain, server_hostname=endpoint.server_name or endpoint.host)
        except BaseException:
            plain.close()
            raise

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            endpoint = self.endpoint
            try:
                context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=endpoint.ca_file)
                context.minimum_version = ssl.TLSVersion.TLSv1_2
                # An encrypted key would ask at the terminal; an empty password makes it fail instead.
                context.load_cert_chain(str(endpoint.cert_file), endpoint.key_file, password="")
            except (OSError, ValueError) as error:
                files = ", ".join(file for file in (endpoint.ca_file, endpoint.cert_file, endpoint.key_file) if file)
                raise InputError(
                    f"The certificates of router {self.name} can't be loaded ({files}):"
                    f" {getattr(error, 'strerror', None) or error}.",
                    "Give readable PEM files: ca_file, cert_file and an unencrypted key.",
                ) from error
            self._context = context
        return self._context


class _Gone(Exception):
    """The other side closed the connection before it answered."""


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return re.sub(r"_+", " ", error.reason or "handshake").lower()
