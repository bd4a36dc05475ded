# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back to the applications that a blue-green deployment has kept."""

from __future__ import annotations

from functools import partial

from ..archive import ContentError
from ..space import App
from .common import LIVE, Step, backup_namespace, bare
from .modules import OfDescriptor


class Rollback(OfDescriptor):
    """The kept applications get their names, routes and environment back and are started; then the newer ones go. No
    upload, no staging; services are not touched.
    """

    def steps(self) -> list[Step]:
        return [self._prepare, self._rename, self._restore, self._remove]

    def _kept(self) -> list[App]:
        return self._space.apps_of(self._operation.mta_id, backup_namespace(self._operation.namespace))

    def _prepare(self) -> None:
        mta, namespace = self._operation.mta_id, self._operation.namespace
        self._say(f'Preparing to roll back MTA "{mta}"...')
        self._lock()
        kept = self._kept()
        if not kept or not self._apps():
            raise ContentError(f'Rollback of MTA "{mta}" can not be done: there is no deployed MTA or no backup of it')
        if len({app.checksum for app in kept}) != 1:
            raise ContentError("Rollback can not be done: the backup applications have different checksums")
        descriptor = self._controller.backups.get((mta, namespace, kept[0].checksum))
        if descriptor is None:
            raise ContentError(f'Rollback of MTA "{mta}" can not be done: its descriptor was not kept')
        self._descriptor = descriptor

    def _rename(self) -> None:
        self._at("rename")
        for app in self._apps():
            if bare(app.name) == app.name:
                self._say(f'Renaming application "{app.name}" to "{app.name + LIVE}"...')
                self._space.rename(app.name, app.name + LIVE)

    def _restore(self) -> None:
        kept = {app.module: app for app in self._kept()}
        for module in self._modules():
            if module in kept:
                self._once(f"restore {module}", partial(self._restore_one, module, kept[module]))

    def _restore_one(self, module: str, app: App) -> None:
        name = self._name(module)
        self._at(f"rollback {name}")
        self._fail_at(f"rollback {name}")
        if app.name != name:
            self._say(f'Renaming application "{app.name}" to "{name}"...', app=name)
            self._space.rename(app.name, name)
        resolved = self._resolved(idle=False)
        for url in resolved.hosts(module):
            self._space.map(url, name)
        app.env, app.services = self._environment(module, idle=False), self._bound(resolved, module)
        self._bind(app)
        self._start(name)

    def _remove(self) -> None:
        """Undeploy the newer version; what was kept belongs to the MTA again."""
        self._at("delete live")
        kept = self._kept()
        for app in self._apps():
            if app not in kept:
                self._undeploy(app)
        needed = {name for app in kept for name in app.services}
        needed |= {self._service_name(str(body["name"])) for body in self._descriptor.get("resources") or ()}
        self._release([service for service in self._services_there() if service.name not in needed])
        for app in kept:
            app.namespace = self._operation.namespace
