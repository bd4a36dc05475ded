# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A blue-green deployment, in the order of the deploy service."""

from __future__ import annotations

from functools import partial

from ..archive import checksum
from ..resolve import IDLE
from ..space import RUNNING, App
from .common import BACKUP, LIVE, Step, backup_namespace
from .deploy import Deploy


class BlueGreen(Deploy):
    """Two versions stand beside each other until the new one has the names and routes of the old one."""

    def steps(self) -> list[Step]:
        return [
            *self._prepare(),
            self._leftovers,
            self._rename,
            self._services,
            self._idle,
            self._confirm,
            self._switch,
            self._finish,
        ]

    def _leftovers(self) -> None:
        """An application that is called live beside one without a suffix is taken for a leftover and deleted, though
        after an abort in the middle of a switch it is the old version that still works.
        """
        self._at("leftovers")
        names = {app.name for app in self._apps()}
        for app in self._apps():
            if app.name.endswith(LIVE) and app.name.removesuffix(LIVE) in names:
                self._undeploy(app)

    def _rename(self) -> None:
        """The live application gets its suffix; one that an aborted deployment has renamed already is used as it is."""
        self._at("rename")
        selected = self._operation.parameters.get("modulesForDeployment")
        for app in self._apps():
            if not app.name.endswith((LIVE, IDLE)) and (not selected or app.module in self._chosen):
                self._say(f'Renaming application "{app.name}" to "{app.name + LIVE}"...')
                self._space.rename(app.name, app.name + LIVE)

    def _idle(self) -> None:
        start = not self._flag("skipIdleStart") and not self._flag("noStart")
        for module in self._chosen:
            self._once(f"idle {module}", partial(self._idle_one, module, start=start))

    def _idle_one(self, module: str, *, start: bool) -> None:
        if self._is_app(module):
            self._ensure(module, self._name(module) + IDLE, idle=True, start=start)
        else:
            self._space.contents[module] = self._resolved(idle=True).value(self._parameters(module), module)

    def _confirm(self) -> None:
        if self._first or self._flag("noConfirm"):
            return
        self._at("confirm")
        self._say(
            "Process has entered testing phase. After testing your new deployment you can resume or abort the process."
        )
        self._controller.test_phase(self._operation)

    def _switch(self) -> None:
        """Application after application, those that others need before those. Services are not touched."""
        for module in self._chosen:
            if self._is_app(module):
                self._once(f"switch {module}", partial(self._switch_one, module, self._name(module)))

    def _switch_one(self, module: str, name: str) -> None:
        """Live routes first, while the instance still has the environment of the idle phase; then environment and
        bindings, the name, stop and start; at last its idle routes go, whoever uses them.
        """
        self._at(f"switch {name}")
        self._fail_at(f"switch {name}")
        idle = name + IDLE
        there = idle if idle in self._space.apps else name  # it was renamed before a failure
        app, live = self._space.apps[there], self._live_routes(module, name)
        self._stop_dependents(module)
        for url in live:
            self._space.map(url, there)
        app.env = self._environment(module, idle=False)
        self._bind(app)
        if there == idle:
            self._at(f"rename {name}")
            self._say(f'Renaming application "{idle}" to "{name}"...', app=name)
            self._space.rename(idle, name)
        if app.instance == RUNNING:
            self._at(f"stop {name}")
            self._say(f'Stopping application "{name}"...', app=name)
            self._space.stop(name)
        if not self._flag("noStart"):
            self._start(name)
        self._at(f"routes {name}")
        for route in self._space.routes_of(name):
            if route.url not in live:
                self._say(f'Deleting idle route "{route.url}"...', app=name)
                self._space.delete_route(route.url)

    def _live_routes(self, module: str, name: str) -> list[str]:
        routes = self._resolved(idle=False).hosts(module)
        if self._keeps_routes(module) and name + LIVE in self._space.apps:
            routes += [route.url for route in self._space.routes_of(name + LIVE)]
        return list(dict.fromkeys(routes))

    def _stop_dependents(self, module: str) -> None:
        """Before a provider is switched, those that need it are stopped, when the order was asked for."""
        root = self._descriptor.get("parameters") or {}
        if not self._flag("stopOrderIsDependencyAware") and root.get("bg-dependency-aware-stop-order") is not True:
            return
        for dependent in self._dependents(module):
            name = self._name(dependent) + IDLE
            if dependent in self._chosen and name in self._space.apps:
                self._say(f'Stopping dependent application "{name}"...', app=name)
                self._space.stop(name)

    def _finish(self) -> None:
        if self._flag("shouldBackupPreviousVersion"):
            self._at("backup")
            self._backup()
        super()._finish()

    def _backup(self) -> None:
        """Keep the old applications, stopped and in a namespace of their own, and drop what was kept before; but not
        those of the same descriptor.
        """
        namespace, now = backup_namespace(self._operation.namespace), checksum(self._descriptor)
        kept = self._space.apps_of(self._operation.mta_id, namespace)
        old = [app for app in self._obsolete() if app.name.endswith(LIVE)]
        same = (bool(apps) and all(app.checksum == now for app in apps) for apps in (old, kept))
        if not old or any(same):
            return
        for app in kept:
            self._undeploy(app)
        for app in old:
            self._keep(app, namespace)

    def _keep(self, app: App, namespace: str) -> None:
        self._space.stop(app.name)
        name = f"{BACKUP}-{app.name}"
        self._say(f'Renaming application "{app.name}" to "{name}" to be used for rollback...', app=app.name)
        self._space.rename(app.name, name)
        app.namespace = namespace
