# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs the modules of the sample application on the embedded platform."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

from ..landscape.processes import Processes
from .app import App
from .approuter import Approuter
from .backend import Backend
from .sidecar import IDLE, LIVE, Sidecar
from .xsuaa import Xsuaa

SRV, MTX, APPROUTER = "incident-management-srv", "incident-management-mtx", "approuter"
AUTH, REGISTRY = "incident-management-auth", "incident-management-registry"
OLD = "1.0.0"
"""The version whose schema is the old one; every other version has the new one."""


class Incidents:
    """Runs the modules: real approuters and sidecars, and the stand-in for the service; an ``AppRunner`` of the
    embedded platform.

    :param folder: for the tenants' databases and the processes' files.
    :param authority: PEM file of the authority that issued the certificates of XSUAA and router.
    """

    def __init__(self, processes: Processes, folder: Path, xsuaa: Xsuaa, authority: Path) -> None:
        self.running: dict[str, App | Backend] = {}
        self._processes, self._folder, self._xsuaa, self._authority = processes, folder, xsuaa, authority
        self._started = 0

    def start(self, app_name: str, module_name: str, env: Mapping[str, str], content: bytes) -> int:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            version = str(json.loads(packed.read("package.json"))["version"])
        self._started += 1
        name = f"{module_name}-{self._started}"
        app: App | Backend
        if module_name == SRV:
            app = Backend(self._xsuaa, version)
            app.__enter__()
        elif module_name == MTX:
            schema = LIVE if version == OLD else IDLE
            app = Sidecar(
                name,
                self._processes,
                self._folder / name,
                env,
                self._authority,
                version=schema,
                data=self._folder / "tenants",
            )
            app.start()
        else:
            app = Approuter(name, self._processes, self._folder / name, env, self._authority)
            app.start()
        self.running[app_name] = app
        return app.port

    def stop(self, app_name: str) -> None:
        app = self.running.pop(app_name, None)
        if app is not None:
            app.__exit__(None, None, None)

    def rename(self, old: str, new: str) -> None:
        if old in self.running:
            self.running[new] = self.running.pop(old)

    def sidecar(self, app_name: str) -> Sidecar:
        """The sidecar that runs under this name, for the hooks of tests."""
        app = self.running[app_name]
        if not isinstance(app, Sidecar):
            raise KeyError(app_name)
        return app

    def stop_all(self) -> None:
        for name in list(self.running):
            self.stop(name)
