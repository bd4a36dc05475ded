# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two routers: deployed by the role ``landscape_router``, then run in the foreground."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from . import programs
from .keys import Certificates
from .processes import IMPORT_ROOT, Process, Processes, ServerError, User, free_port, private_folder
from .servers import HOST

ROLE = "zdm.landscape.landscape_router"
PATIENCE = "1m"
"""A router that shares two cores with everything else is slow now and then, not gone."""


@dataclass
class Router:
    """One router of the fleet.

    :param folder: where the role puts it.
    :param user: whom its worker runs as.
    :param control_port: of its mutual-TLS endpoint; 0: it is controlled by its unix socket.
    """

    name: str
    folder: Path
    user: User
    port: int
    control_port: int
    process: Process | None = None

    @property
    def socket(self) -> Path:
        return self.folder / "run" / "master.sock"

    def host_vars(self, certificates: Certificates) -> dict[str, Any]:
        control = {
            "landscape_router_control_cert": str(certificates.router),
            "landscape_router_control_ca": str(certificates.authority),
        }
        as_root = {"landscape_router_user": self.user.name} if os.getuid() == 0 else {}
        reached = (
            {"ansible_host": HOST, "zdm_router_port": self.control_port}
            if self.control_port
            else {"zdm_router_socket": str(self.socket)}
        )
        return {
            "ansible_connection": "local",
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            **reached,
            "landscape_router_dir": str(self.folder),
            "landscape_router_port": self.port,
            "landscape_router_control_port": self.control_port,
            **(control if self.control_port else {}),
            **as_root,
        }

    def option(self, certificates: Certificates) -> dict[str, Any]:
        """The router in the form of a module's option."""
        if not self.control_port:
            return {"name": self.name, "socket": str(self.socket), "timeout": PATIENCE}
        own = str(certificates.controller)
        return {
            "name": self.name,
            "host": HOST,
            "port": self.control_port,
            "ca_file": str(certificates.authority),
            "cert_file": own,
            "key_file": own,
            "timeout": PATIENCE,
        }


class Fleet:
    """Both routers. The first is controlled by its socket, the second by mutual TLS alone, in a folder nobody else can
    enter.
    """

    def __init__(self, folder: Path, processes: Processes, hold_max: str = "20s") -> None:
        self._processes, self._folder, self._hold_max = processes, folder, hold_max
        self.program = programs.haproxy()
        hidden = User.unprivileged("nobody")
        private_folder(folder / "router-2", hidden)
        self.routers = [
            Router("router-1", folder / "router-1", User.unprivileged("haproxy"), free_port(), 0),
            Router("router-2", folder / "router-2" / "home", hidden, free_port(), free_port()),
        ]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where clients reach the routers."""
        return [(HOST, router.port) for router in self.routers]

    def group_vars(self, backends: Mapping[str, int]) -> dict[str, Any]:
        """The role's variables that all routers share.

        :param backends: service → port.
        """
        return {
            "landscape_router_bind_address": HOST,
            "landscape_router_control_address": HOST,
            "landscape_router_service": "none",
            "landscape_router_haproxy": str(self.program.path),
            "landscape_router_threads": 2,
            "landscape_router_maxconn": 4000,
            "landscape_router_hold_max": self._hold_max,
            "landscape_router_backends": [
                {"name": name, "path": f"/{name}", "servers": [f"{HOST}:{port}"]} for name, port in backends.items()
            ],
        }

    def begin_deploy(self, inventory: Path, environment: Mapping[str, str]) -> Process:
        """Start applying the role to both routers; :meth:`end_deploy` waits for it."""
        playbook = self._folder / "deploy-routers.yml"
        playbook.write_text(
            yaml.safe_dump([{"hosts": "zdm_routers", "gather_facts": False, "roles": [{"role": ROLE}]}])
        )
        command = [str(ansible_playbook()), "-i", str(inventory), str(playbook)]
        return self._processes.start("deploy-routers", command, env=environment)

    def end_deploy(self, deploy: Process) -> None:
        """Wait for the role's end.

        :raises ServerError: when it failed; with its output.
        """
        try:
            code = deploy.popen.wait(300)
        except subprocess.TimeoutExpired as error:
            raise ServerError(f"The role {ROLE} did not end: {deploy.tail()}") from error
        if code != 0:
            raise ServerError(f"The role {ROLE} failed: {deploy.tail(6000)}")
        self._processes.stop(deploy)

    def start(self) -> None:
        """Start the routers that do not run and wait until they are ready."""
        for router in self.routers:
            if router.process is None:
                router.process = self._processes.start(
                    router.name, [str(router.folder / "bin" / "zdm-router")], death_signal=signal.SIGTERM
                )
        for router in self.routers:
            assert router.process is not None
            router.process.wait_ready(lambda port=router.port: _is_ready(port))  # type: ignore[misc]

    def stop(self, *names: str) -> None:
        """Stop the named routers, all without a name."""
        for router in self.routers:
            if router.process is not None and (not names or router.name in names):
                self._processes.stop(router.process)
                router.process = None

    def kill(self, name: str) -> None:
        """End a router as a crash does; :meth:`start` starts it again."""
        router = next(router for router in self.routers if router.name == name)
        assert router.process is not None
        router.process.kill()
        self._processes.stop(router.process)
        router.process = None


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/.router/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def ansible_playbook() -> Path:
    """The program that belongs to this Python."""
    return Path(sys.executable).with_name("ansible-playbook")


def ansible_environment(folder: Path) -> dict[str, str]:
    """The environment of playbooks: this collection, nothing outside of *folder* written."""
    build = next(
        (
            path
            for path in (IMPORT_ROOT, IMPORT_ROOT / ".build")
            if (path / "ansible_collections" / "zdm" / "landscape").exists()
        ),
        None,
    )
    if build is None:
        raise ServerError(f"{IMPORT_ROOT}/.build/ansible_collections/zdm/landscape does not exist; run ./setup first.")
    config = folder / "ansible.cfg"  # an empty one: nobody's own settings apply
    config.touch()
    own = folder / "ansible"
    return {
        **os.environ,
        "ANSIBLE_CONFIG": str(config),
        "ANSIBLE_COLLECTIONS_PATH": str(build),
        "ANSIBLE_HOME": str(own),
        "ANSIBLE_LOCAL_TEMP": str(own / "tmp"),
        "ANSIBLE_REMOTE_TEMP": str(own / "remote"),
        "ANSIBLE_PIPELINING": "true",
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_FORKS": "2",
        "ANSIBLE_NOCOLOR": "true",
    }
