# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the space has of one MTA: applications, versions, routes, and what an aborted deployment has left."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.apps import (
    App,
    Leftover,
    leftovers_of,
    live_versions,
    split_routes,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.cloud_foundry import CloudFoundry
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.deploy_service import DeployService, Operation

STARTED = "STARTED"


@dataclass(frozen=True)
class Presence:
    """One MTA in the space that *cloud* is logged in to."""

    cloud: CloudFoundry
    service: DeployService
    mta_id: str
    namespace: str

    def apps(self) -> list[App]:
        return self.cloud.apps(self.mta_id, self.namespace)

    def versions(self) -> tuple[str, ...] | None:
        """The versions that are live, by the applications' own annotations; ``None`` when the MTA is not deployed."""
        found = live_versions(self.apps())
        if found:
            return found
        known = next(iter(self.service.deployed(self.mta_id, self.namespace)), None)
        return None if known is None else (known.version,) if known.version else ()

    def operations(self) -> list[Operation]:
        """All operations on it that the service still knows."""
        found = self.service.operations(self.mta_id)
        return [operation for operation in found if operation.namespace == self.namespace]

    def split(self) -> list[str]:
        """See :func:`split_routes`."""
        return split_routes(self.apps())

    def leftovers(self) -> list[Leftover]:
        return leftovers_of(self.apps())

    def busy(self) -> Operation | None:
        """An operation that works on it, or waits."""
        return next((operation for operation in self.operations() if operation.holds), None)

    # -- idle applications ------------------------------------------------------------------------

    def started_idle(self) -> list[App]:
        """Idle applications that nobody has stopped."""
        return [app for app in self.apps() if app.is_idle and app.state == STARTED]

    def stop(self, guids: Collection[str], wait: Callable[[Callable[[], bool]], None]) -> None:
        """Stop these idle applications until no instance of them is left; what is stopped already stays so.

        :param wait: gets a condition, and returns when it is true.
        """
        apps = [app for app in self.apps() if app.guid in guids and app.is_idle]
        for app in apps:
            if app.state == STARTED:
                self.cloud.switch_off(app)
        wait(lambda: not any(self.cloud.running(apps).values()))

    def start(self, guids: Collection[str]) -> None:
        """Start these applications again, if they are idle still; whoever tests them waits until they answer."""
        for app in self.apps():
            if app.guid in guids and app.is_idle and app.state != STARTED:
                self.cloud.switch_on(app)
