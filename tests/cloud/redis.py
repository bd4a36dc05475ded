# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Redis for the sessions of approuters."""

from __future__ import annotations

import secrets
import shutil
import socket
from pathlib import Path
from typing import Any, Self

from ..landscape.processes import Process, Processes, ServerError, free_port

HOST = "127.0.0.1"


class Redis:
    """A ``redis-server`` on loopback; it keeps nothing on disk. As a context manager it is started and stopped.

    :param name: of its process.
    :param folder: where its configuration is written.
    :param password: of the default user; a random one when it is ``None``, none when it is empty.
    """

    def __init__(self, processes: Processes, folder: Path, name: str = "redis", password: str | None = None) -> None:
        self.port = free_port()
        self.password = secrets.token_urlsafe(18) if password is None else password
        self._processes, self._folder, self._name = processes, folder, name
        self._process: Process | None = None

    def credentials(self, password: str | None = None) -> dict[str, Any]:
        """The credentials of a service binding of redis-cache; with another *password* it is a broken one."""
        word = self.password if password is None else password
        return {
            "hostname": HOST,
            "port": self.port,
            "password": word,
            "uri": f"redis://:{word}@{HOST}:{self.port}",
            "tls": False,
            "cluster_mode": False,
        }

    def start(self) -> None:
        """Start the server and wait until it answers.

        :raises ServerError: it is not installed, or does not start.
        """
        program = shutil.which("redis-server", path="/usr/bin:/usr/local/bin:/usr/sbin") or shutil.which("redis-server")
        if program is None:
            raise ServerError("redis-server is missing. Debian: apt-get install redis-server.")
        configuration = self._folder / f"{self._name}.conf"
        configuration.touch(0o600)
        lines = [
            f"bind {HOST}",
            f"port {self.port}",
            'save ""',
            "appendonly no",
            *([f"requirepass {self.password}"] if self.password else []),
        ]
        configuration.write_text("".join(f"{line}\n" for line in lines))
        self._process = self._processes.start(self._name, [program, str(configuration)])
        self._process.wait_ready(self._ready, 20)

    def stop(self) -> None:
        """Stop it; what it held is gone."""
        if self._process is not None:
            self._processes.stop(self._process)
            self._process = None

    def command(self, *words: str) -> str:
        """The answer to one command as the protocol writes it (RESP), for example ``:3``."""
        lines = [f"AUTH {self.password}"] if self.password else []
        with (
            socket.create_connection((HOST, self.port), 5) as connection,
            connection.makefile("rw", encoding="utf-8", newline="\r\n") as stream,
        ):
            answer = ""
            for line in [*lines, " ".join(words)]:
                stream.write(f"{line}\r\n")
                stream.flush()
                answer = stream.readline().strip()
        return answer

    def _ready(self) -> bool:
        try:
            return self.command("PING") == "+PONG"
        except OSError:
            return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
