# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Applications that run on Node.js: started with the environment that Cloud Foundry would give them, and a port."""

from __future__ import annotations

import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ..landscape.processes import PATIENCE_S, Process, Processes, free_port
from .node import Node, ensure_node
from .standin import HOST

APPS = Path(__file__).parent / "apps"


@dataclass(frozen=True)
class Launch:
    """How an application is launched.

    :param name: of its process and its log.
    :param folder: for its files.
    :param environment: what the platform gives it: VCAP_SERVICES and the module's own variables. PORT is added.
    :param authority: PEM file of the authority that it trusts besides the usual ones.
    """

    name: str
    processes: Processes
    folder: Path
    environment: Mapping[str, str]
    authority: Path


class App(ABC):
    """One instance of an application: ``launch`` and ``wait`` (or ``start``), then ``stop`` or ``kill``, on the same
    port.
    """

    def __init__(self, launch: Launch) -> None:
        self.name, self.folder, self.environment = launch.name, launch.folder, dict(launch.environment)
        self.port = free_port()
        self.url = f"http://localhost:{self.port}"
        self._processes, self._authority = launch.processes, launch.authority
        self._process: Process | None = None

    @abstractmethod
    def command(self, node: Node) -> list[str]:
        """What runs it; also makes the files that it needs in :attr:`folder`."""

    @property
    def process(self) -> Process:
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running.")
        return self._process

    def launch(self) -> None:
        """Start the process, without waiting for it.

        :raises ServerError: Node.js or its packages can't be installed.
        """
        node = ensure_node()
        self.folder.mkdir(parents=True, exist_ok=True)
        own = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder),
            "NODE_ENV": "production",
            "NODE_EXTRA_CA_CERTS": str(self._authority),
            "NODE_OPTIONS": (
                f"--disable-warning=ExperimentalWarning --disable-warning=DEP0005 --require {APPS / 'localhost.js'}"
            ),
        }
        self._process = self._processes.start(
            self.name, self.command(node), env={**own, **self.environment, "PORT": str(self.port)}
        )

    def wait(self, timeout_s: float = PATIENCE_S) -> None:
        """Wait until it accepts connections.

        :raises ServerError: it ended, or takes longer; with the end of its log.
        """
        self.process.wait_ready(self.listens, timeout_s)

    def start(self) -> None:
        self.launch()
        self.wait()

    def stop(self) -> None:
        """Ask it to end (SIGTERM) and wait; what is not running is no error."""
        if self._process is not None:
            self._processes.stop(self._process)
            self._process = None

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()
        self.stop()

    def listens(self) -> bool:
        try:
            socket.create_connection((HOST, self.port), 1).close()
        except OSError:
            return False
        return True

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def service(
    label: str, name: str, credentials: Mapping[str, Any], plan: str = "application", tags: tuple[str, ...] = ()
) -> dict[str, Any]:
    """One entry of VCAP_SERVICES."""
    return {
        "label": label,
        "name": name,
        "instance_name": name,
        "plan": plan,
        "tags": list(tags),
        "credentials": dict(credentials),
    }


def vcap_services(*services: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """VCAP_SERVICES of these bindings: by label."""
    return {
        label: [entry for entry in services if entry["label"] == label]
        for label in dict.fromkeys(entry["label"] for entry in services)
    }
