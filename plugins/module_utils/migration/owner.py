# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process that drives a migration, as the journal names it."""

from __future__ import annotations

import getpass
import os
import socket
from dataclasses import dataclass


@dataclass(frozen=True)
class Owner:
    """Which process drives the migration."""

    host: str
    pid: int
    pid_start: str
    user: str

    @classmethod
    def here(cls) -> Owner:
        try:
            user = getpass.getuser()
        except (KeyError, OSError):
            user = str(os.getuid())
        return cls(socket.gethostname(), os.getpid(), _process_start(os.getpid()), user)

    def is_dead(self) -> bool:
        """True only when it is certain: a process of this host that does not exist any more."""
        return self.host == socket.gethostname() and _process_start(self.pid) != self.pid_start

    def __str__(self) -> str:
        return f"{self.user}@{self.host}, process {self.pid}"


def _process_start(pid: int) -> str:
    """Start time of a process in clock ticks since boot; empty when it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stream:
            fields = stream.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
