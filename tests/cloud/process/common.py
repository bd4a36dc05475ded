# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the steps of every operation share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..resolve import IDLE
from ..space import App, Service, Space

if TYPE_CHECKING:
    from ..controller import Controller, Operation

LIVE = "-live"
BACKUP = "mta-backup"
"""The namespace of the applications that a deployment keeps for a rollback."""
Step = Callable[[], None]


class Stopped(Exception):
    """The operation was aborted."""


class StepError(Exception):
    """A step has failed; *kind* is the operation's error type."""

    def __init__(self, text: str, kind: str = "CONTENT") -> None:
        super().__init__(text)
        self.kind = kind


class Process(ABC):
    """The steps of one operation. A step that has failed is done again by a retry, so each can be repeated."""

    def __init__(self, controller: Controller, operation: Operation) -> None:
        self._controller, self._operation = controller, operation
        self._space: Space = controller.space
        self._done: set[str] = set()

    @abstractmethod
    def steps(self) -> list[Step]:
        """In their order."""

    def _flag(self, name: str) -> bool:
        return self._operation.parameters.get(name) == "true"

    def _say(self, text: str, kind: str = "INFO", app: str = "") -> None:
        """Tell it in the operation's log, and in that of the application."""
        self._controller.say(self._operation, text, kind, *([f"{app}.log"] if app else []))

    def _at(self, step: str) -> None:
        self._controller.checkpoint(self._operation, step)

    def _once(self, what: str, do: Step) -> None:
        """A part of a step that was done is not done again when another part is retried."""
        if what not in self._done:
            do()
            self._done.add(what)

    def _fail_at(self, name: str) -> None:
        failure = self._controller.faults.failure(name)
        if failure:
            raise StepError(failure.text, failure.kind)

    def _lock(self) -> None:
        self._at("lock")
        self._controller.lock(self._operation)

    def _apps(self) -> list[App]:
        """Those of the MTA, whatever their suffix."""
        return self._space.apps_of(self._operation.mta_id, self._operation.namespace)

    def _services_there(self) -> list[Service]:
        return self._space.services_of(self._operation.mta_id, self._operation.namespace)

    def _start(self, name: str) -> None:
        self._at(f"start {name}")
        self._say(f'Starting application "{name}"...', app=name)
        self._fail_at(name)
        try:
            self._space.start(name)
        except Exception as error:
            raise StepError(f'Error starting application "{name}": {error}') from error
        urls = ", ".join(route.url for route in self._space.routes_of(name))
        self._say(f'Application "{name}" started and available at "{urls}"', app=name)

    def _bind(self, app: App) -> None:
        """Manage the bindings of an application, which takes its time."""
        if app.services:
            self._at(f"bind {app.name}")
            self._controller.pause(self._operation, self._space.pace.bindings())

    def _undeploy(self, app: App) -> None:
        self._say(f'Deleting application "{app.name}"...', app=app.name)
        self._space.delete(app.name)

    def _release(self, services: list[Service]) -> None:
        """What becomes of services that the MTA needs no longer: they are deleted when that is wanted, else they are
        left and belong to no MTA.
        """
        for service in services:
            if self._flag("deleteServices"):
                self._say(f'Deleting service "{service.name}"...')
                self._fail_at(f"service {service.name}")
                with self._space.lock:
                    self._space.services.pop(service.name, None)
            else:
                self._say(f'Detaching service "{service.name}" from MTA "{self._operation.mta_id}"...')
                service.mta_id = service.namespace = service.version = ""


def backup_namespace(namespace: str) -> str:
    return f"{BACKUP}-{namespace}" if namespace else BACKUP


def bare(name: str) -> str:
    """The name of an application without the suffix of a blue-green deployment."""
    return name.removesuffix(LIVE).removesuffix(IDLE)
