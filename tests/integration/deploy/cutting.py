# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy that resets connections at random, in the middle of requests and answers."""

from __future__ import annotations

import random
import socket
import struct
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
_BLOCK = 16384
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: close with a reset."""


class CuttingProxy:
    """Passes TCP on to *target*; a share of the connections is reset after at most *most* bytes of both directions."""

    def __init__(self, target: int, share: float, most: int, seed: int) -> None:
        self._target, self._share, self._most = target, share, most
        self._random = random.Random(seed)
        self._server = socket.create_server((HOST, 0), backlog=50)
        self.port = int(self._server.getsockname()[1])
        self._thread = threading.Thread(target=self._accept)
        self.cuts = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _address = self._server.accept()
            except OSError:
                return
            cut = self._random.random() < self._share
            allowed = self._random.randint(0, self._most) if cut else None
            threading.Thread(target=self._serve, args=(client, allowed), daemon=True).start()

    def _serve(self, client: socket.socket, allowed: int | None) -> None:
        with client, socket.create_connection((HOST, self._target)) as server:
            left = [allowed]
            back = threading.Thread(target=self._pump, args=(server, client, left), daemon=True)
            back.start()
            self._pump(client, server, left)
            back.join()

    def _pump(self, reader: socket.socket, writer: socket.socket, left: list[int | None]) -> None:
        with suppress(OSError):
            while block := reader.recv(_BLOCK):
                if left[0] is not None:
                    left[0] -= len(block)
                    if left[0] < 0:
                        self.cuts += 1
                        for side in (reader, writer):
                            side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                            side.shutdown(socket.SHUT_RDWR)
                        return
                writer.sendall(block)
        with suppress(OSError):
            writer.shutdown(socket.SHUT_WR)
