# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of approuter and sidecar share: XSUAA, Redis, two versions of the service, and approuters in front of
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.zdm.landscape.tests.cloud.app import Launch
from ansible_collections.zdm.landscape.tests.cloud.approuter import (
    Approuter,
    approuter_environment,
    destination,
    session_management,
)
from ansible_collections.zdm.landscape.tests.cloud.backend import Backend
from ansible_collections.zdm.landscape.tests.cloud.browser import Browser, Route
from ansible_collections.zdm.landscape.tests.cloud.redis import Redis
from ansible_collections.zdm.landscape.tests.cloud.sidecar import Sidecar, sidecar_environment
from ansible_collections.zdm.landscape.tests.cloud.xsuaa import Client, Xsuaa
from ansible_collections.zdm.landscape.tests.landscape.keys import Certificates
from ansible_collections.zdm.landscape.tests.landscape.processes import Processes, temporary_folder

HOST = "incidents.localhost"
APPLICATION = "incidents!t1"
APP_NAME = "incidents"
SECRET = "VqO446NAgSd795NiBW7SXPvuKKH4pDso3qVcWC1GyLa2Zq6XASh0FNZ3b26ePlZe"
PASSWORD = "s3cret-of-users"
USERS = dict.fromkeys(("alice@example.com", "bob@example.com", "carla@example.com", "robot@example.com"), PASSWORD)
ZONES = {"provider": "11111111-1111-1111-1111-111111111111", "t1": "t1", "t2": "t2", "t3": "t3"}
REDIRECTS = ("http://*.localhost/**", "http://localhost:*/**", "http://127.0.0.1:*/**", "https://*.localhost:*/**")
APP = Client("sb-incidents!t1", "client-secret", ("Callback", "mtcallback", "mtdeployment"), REDIRECTS)
OUTSIDER = Client("sb-outsider!t1", "outsider-secret", ("uaa.resource",))
WITH_CERTIFICATE = Client("sb-x509!t1", "", ("mtcallback",), certificate="controller")


class Site:
    """The parts behind the approuters; an approuter is made and launched when it is asked for."""

    def __init__(
        self, folder: Path, processes: Processes, certificates: Certificates, xsuaa: Xsuaa, live: Backend, idle: Backend
    ) -> None:
        self.folder, self.processes, self.certificates, self.xsuaa = folder, processes, certificates, xsuaa
        self.backends = {"live": live, "idle": idle}
        self.redis = Redis(processes, folder)

    def sidecar(self, version: str, registry_url: str = "") -> Sidecar:
        """A sidecar of one version of the application; all of them share the tenants."""
        registry = {"saas_registry_url": registry_url, "appName": APP_NAME, **self.xsuaa.credentials(APP.id)}
        environment = sidecar_environment(self.xsuaa.credentials(APP.id), registry)
        name, data = f"mtx-{version}", self.folder / "tenants"
        return Sidecar(self._launch(name, environment), version=version, data=data)

    def approuter(
        self, name: str, *, redis: Mapping[str, Any] | None = None, sessions: str = "", tenant_host: str = ""
    ) -> Approuter:
        """Launch an approuter; one whose name ends in ``idle`` stands before the new version of the service.

        :param sessions: EXT_SESSION_MGT; sessions stay in its memory when it is empty.
        :param tenant_host: TENANT_HOST_PATTERN of an approuter for all tenants.
        """
        backend = self.backends["idle" if name.endswith("idle") else "live"]
        pattern = {"TENANT_HOST_PATTERN": tenant_host} if tenant_host else {}
        xsuaa = self.xsuaa.credentials(APP.id, shared=bool(tenant_host))
        destinations = [destination("srv-api", backend.url)]
        environment = approuter_environment(
            xsuaa, destinations, redis=redis or self.redis.credentials(), sessions=sessions, **pattern
        )
        approuter = Approuter(self._launch(name, environment))
        approuter.launch()
        return approuter

    def _launch(self, name: str, environment: Mapping[str, str]) -> Launch:
        return Launch(name, self.processes, self.folder / name, environment, self.certificates.authority)

    def browser(self, route: Route, user: str) -> Browser:
        return Browser(HOST, route, self.certificates.authority, user, USERS[user])


@contextmanager
def running_site(redis: bool = True) -> Iterator[Site]:
    """A site, with a Redis that runs unless it is not needed."""
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        processes = stack.enter_context(Processes(folder))
        certificates = Certificates.make(folder, "*.apps.localhost", "t1.localhost", "t2.localhost")
        xsuaa = stack.enter_context(Xsuaa(certificates, APPLICATION, [APP, OUTSIDER, WITH_CERTIFICATE], ZONES, USERS))
        live, idle = (stack.enter_context(Backend(xsuaa, version)) for version in ("1.0.0", "2.0.0"))
        site = Site(folder, processes, certificates, xsuaa, live, idle)
        if redis:
            site.redis.start()
        yield site


def sessions(secret: str = SECRET) -> str:
    return session_management(secret)
