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
    """Which process drives the migration.

    :param boot: id of the running kernel; the host's name says nothing, as containers and machines share names.
    :param pids: the namespace in which the process id counts.
    """

    host: str
    pid: int
    pid_start: str
    user: str
    boot: str = ""
    pids: str = ""

    @classmethod
    def here(cls) -> Owner:
        try:
            user = getpass.getuser()
        except (KeyError, OSError):
            user = str(os.getuid())
        start = _process_start(os.getpid())
        return cls(socket.gethostname(), os.getpid(), start, user, _boot_id(), _pid_namespace())

    def is_dead(self) -> bool:
        """True only when it is certain: this kernel, in this namespace of processes, has no such process any more.
        Otherwise the heartbeat tells.
        """
        here = bool(self.boot and self.pids) and (self.boot, self.pids) == (_boot_id(), _pid_namespace())
        return here and _process_start(self.pid) != self.pid_start

    def __str__(self) -> str:
        return f"{self.user}@{self.host}, process {self.pid}"


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _process_start(pid: int) -> str:
    """Start time of a process in clock ticks since boot; empty when it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stream:
            fields = stream.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
