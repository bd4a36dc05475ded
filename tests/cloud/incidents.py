# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs the modules of the sample application on the embedded platform."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..landscape.processes import Processes
from .app import Launch
from .approuter import Approuter
from .backend import Backend
from .runners import OwnApps, Runnable, version_of
from .sidecar import IDLE, LIVE, Sidecar
from .xsuaa import Xsuaa

SRV, MTX, APPROUTER = "incident-management-srv", "incident-management-mtx", "approuter"
AUTH, REGISTRY = "incident-management-auth", "incident-management-registry"
OLD = "1.0.0"
"""The version whose schema is the old one; every other version has the new one."""


class Incidents(OwnApps):
    """Runs the modules: real approuters and sidecars, and the stand-in for the service; an ``AppRunner`` of the
    embedded platform.

    :param folder: for the tenants' databases and the processes' files.
    :param authority: PEM file of the authority that issued the certificates of XSUAA and router.
    """

    def __init__(self, processes: Processes, folder: Path, xsuaa: Xsuaa, authority: Path) -> None:
        super().__init__()
        self._processes, self._folder, self._xsuaa, self._authority = processes, folder, xsuaa, authority
        self._made = 0

    def make(self, module_name: str, env: Mapping[str, str], content: bytes) -> Runnable:
        version = version_of(content)
        if module_name == SRV:
            return Backend(self._xsuaa, version)
        self._made += 1
        name = f"{module_name}-{self._made}"
        launch = Launch(name, self._processes, self._folder / name, env, self._authority)
        if module_name == MTX:
            schema = LIVE if version == OLD else IDLE
            return Sidecar(launch, version=schema, data=self._folder / "tenants")
        return Approuter(launch)

    def sidecar(self, app_name: str) -> Sidecar:
        """The sidecar that runs under this name, for the hooks of tests."""
        app = self.running[app_name]
        if not isinstance(app, Sidecar):
            raise KeyError(app_name)
        return app
