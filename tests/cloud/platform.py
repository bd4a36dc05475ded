# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The embedded platform as a whole: a space in which the sample runs behind routes, its users and tenants, and the
playbooks that deploy to it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.request import Request as Outgoing
from urllib.request import urlopen

import yaml

from ...plugins.module_utils.mta.descriptor.descriptor import Descriptor
from ...plugins.module_utils.mta.descriptor.safe import Wanted, make_safe
from ...plugins.module_utils.mta.descriptor.session import Sessions
from ..landscape.keys import Certificates
from ..landscape.processes import PATIENCE_S, Process, Processes, ServerError
from ..landscape.routers import ansible_environment, ansible_playbook
from .app import APPS
from .browser import Browser, Route
from .cloud import Cloud
from .controller import ACTIONS
from .gorouter import Gorouter
from .incidents import APPROUTER, AUTH, MTX, OLD, REGISTRY, SRV, Incidents
from .mtar import write_mtar
from .pace import REAL, Pace
from .redis import Redis
from .runners import MainThread
from .sidecar import Sidecar
from .space import Space
from .standin import Answer, Request, StandIn
from .xsuaa import Client, Xsuaa

MTA = "incidents"
PAGE = "/api/incidents"
TENANTS = ("t1", "t2", "t3")
CANARY = "t1"
ROBOT = "robot@example.com"
USERS = ("alice@example.com", "bob@example.com", ROBOT)
VISITOR = "a visitor"
PLAYBOOK = "playbook-"
PACE = REAL.scaled(0.1)
"""Slow enough that users meet whatever lies between two steps of the deploy service."""
_DOMAIN = "apps.localhost"
_SECRETS = 32


@dataclass(frozen=True)
class Played:
    """How a playbook ended."""

    code: int
    output: str

    @property
    def text(self) -> str:
        """The output on one line, as Ansible wraps long ones."""
        return " ".join(self.output.split())


class Callbacks(StandIn):
    """Where the sidecar tells the end of a subscription."""

    def answer(self, request: Request) -> Answer:
        return Answer(200, {})


class Platform:
    """As a context manager everything is started and stopped.

    :param pace: of the space.
    """

    def __init__(self, folder: Path, pace: Pace = PACE) -> None:
        self.folder, self._pace = folder, pace
        self.session_secret = secrets.token_hex(_SECRETS)
        self.password = secrets.token_urlsafe(12)
        self._runs = count(1)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _begin(self) -> None:
        enter = self._stack.enter_context
        certificates = self.folder / "certificates"
        certificates.mkdir()
        self.certificates = Certificates.make(certificates, f"*.{_DOMAIN}")
        self.processes = enter(Processes(self.folder))
        client = Client(
            f"sb-{MTA}!t1",
            secrets.token_hex(16),
            ("Callback", "mtcallback", "mtdeployment"),
            (f"https://*.{_DOMAIN}:*/**",),
        )
        users = dict.fromkeys(USERS, self.password)
        self.xsuaa = enter(
            Xsuaa(self.certificates, f"{MTA}!t1", [client], {"provider": "11111111-1111-1111-1111-111111111111"}, users)
        )
        self.redis = enter(Redis(self.processes, self.folder))
        self.gorouter = enter(Gorouter(str(self.certificates.router)))
        self.apps = Incidents(self.processes, self.folder, self.xsuaa, self.certificates.authority)
        self._stack.callback(self.apps.stop_all)
        self._main = MainThread(self.apps)
        credentials = self._credentials(client)
        self.space = Space(
            domain=f"{_DOMAIN}:{self.gorouter.port}",
            runner=self._main,
            router=self.gorouter,
            credentials=credentials,
            drain_s=PATIENCE_S,
            pace=self._pace,
        )
        cloud = self.folder / "cloud"
        cloud.mkdir()
        self.cloud = enter(Cloud(cloud, self.space))
        self.configure()

    def _credentials(self, client: Client) -> dict[str, dict[str, Any]]:
        xsuaa, registry = self.xsuaa.credentials(client.id), self._stack.enter_context(Callbacks()).url
        return {
            AUTH: xsuaa,
            REGISTRY: {**xsuaa, "saas_registry_url": registry, "appName": MTA},
            f"{MTA}-session-management": self.redis.credentials(),
        }

    # -- what is deployed ---------------------------------------------------------------------------

    def archive(self, version: str = OLD, *, safe: bool = True, sessions: bool = True) -> Path:
        """An archive of the sample; every version but :data:`OLD` has the newer schema.

        :param safe: whether its descriptor was made safe; else it is as projects have it.
        :param sessions: whether its sessions are kept in Redis.
        """
        source = self.folder / f"mta-{version}.yaml"
        source.write_text((APPS / "mta.yaml").read_text().replace(f"version: {OLD}", f"version: {version}"))
        text = source.read_text()
        if safe:
            text = make_safe(Descriptor.load(str(source)), Wanted(sessions=Sessions() if sessions else None))
        package = {"package.json": json.dumps({"name": MTA, "version": version})}
        return write_mtar(self.folder, yaml.safe_load(text), dict.fromkeys((SRV, MTX, APPROUTER), package))

    # -- who deploys ----------------------------------------------------------------------------------

    def deploy_options(self) -> dict[str, Any]:
        """The section ``deploy`` of the description."""
        authority, client = str(self.certificates.authority), self.xsuaa.credentials(f"sb-{MTA}!t1")
        return {
            "cloud_foundry": self.cloud.options(),
            "sessions": {"modules": [APPROUTER], "secret": self.session_secret},
            "checks": [
                {
                    "module": SRV,
                    "path": "/public/health",
                    "assert": "path == '/public/health'",
                    "ca_file": authority,
                    "retries": 2,
                    "timeout": "2m",
                },
                {"module": APPROUTER, "path": "/public/health", "ca_file": authority, "retries": 2, "timeout": "2m"},
            ],
            "login": {
                "module": APPROUTER,
                "path": PAGE,
                "username": ROBOT,
                "password": self.password,
                "ca_file": authority,
                "timeout": "2m",
            },
            "upgrade": {
                "via": "sidecar",
                "module": MTX,
                "canary": CANARY,
                "token_url": client["url"],
                "client_id": client["clientid"],
                "client_secret": client["clientsecret"],
                "ca_file": authority,
                "poll_interval": "200ms",
            },
            "canary_checks": [
                {"module": SRV, "path": "/public/health", "ca_file": authority, "retries": 1, "timeout": "2m"}
            ],
            "poll_interval": "100ms",
        }

    def configure(self, **changes: Any) -> None:
        """Write the inventory; *changes* replace keys of the description's section ``deploy``, ``None`` takes one
        away.
        """
        self.inventory = self.folder / "inventory.json"
        deploy = {key: value for key, value in {**self.deploy_options(), **changes}.items() if value is not None}
        landscape = {
            "name": "us10",
            "store": {"kind": "file", "path": str(self.store_path)},
            "log_dir": str(self.folder / "log"),
            "deploy": deploy,
        }
        host = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        self.inventory.touch(0o600)
        self.inventory.write_text(
            json.dumps(
                {"all": {"vars": {"zdm_landscape": landscape}}, "zdm_controller": {"hosts": {"localhost": host}}}
            )
        )

    def clear(self) -> None:
        """Nothing is deployed, nobody has subscribed, nothing is under way, and the controller knows of nothing, as at
        the beginning.
        """
        for process in self.processes.children:
            if process.name.startswith(PLAYBOOK) and process.popen.poll() is None:
                process.kill()
        controller = self.cloud.controller
        for identity, operation in controller.operations.items():
            if "abort" in ACTIONS.get(operation.state, []):
                controller.act(identity, "abort")
        self.work(lambda: not controller.at_work)
        controller.operations.clear()
        self.space.clear()
        self.apps.stop_all()
        for place in (self.folder / "tenants", self.folder / "store", self.folder / "log"):
            shutil.rmtree(place, ignore_errors=True)
        self.configure()

    @property
    def live_version(self) -> str:
        """The version that alone is there and runs; empty while nothing is deployed or something is under way or left
        over.
        """
        apps, versions = self.space.apps.values(), {app.version for app in self.space.apps.values()}
        pending = any(ACTIONS.get(operation.state) for operation in self.cloud.controller.operations.values())
        if (
            pending
            or {app.name for app in apps} != {SRV, MTX, APPROUTER}
            or {app.state for app in apps} != {"STARTED"}
            or len(versions) != 1
        ):
            return ""
        return versions.pop()

    @property
    def store_path(self) -> Path:
        path = self.folder / "store"
        path.mkdir(exist_ok=True)
        return path

    def begin(self, archive: Path, *arguments: str, playbook: str = "deploy") -> Process:
        """Start the playbook; :meth:`end` waits for it. Without :meth:`end` no application of the space is started or
        stopped.
        """
        command = [
            str(ansible_playbook()),
            "-i",
            str(self.inventory),
            f"zdm.landscape.{playbook}",
            "-e",
            f"mta_archive={archive}",
            *arguments,
        ]
        return self.processes.start(f"{PLAYBOOK}{next(self._runs)}", command, env=self.environment)

    def end(self, process: Process) -> Played:
        self.work(lambda: process.popen.poll() is not None)
        output = process.tail(200_000)
        for secret in (self.session_secret, self.password, *self.cloud_secrets()):
            if secret in output:
                raise ServerError("A secret is in the playbook's output.")
        return Played(int(process.popen.returncode), output)

    def wait_for(self, process: Process, text: str) -> None:
        """Wait until the playbook prints *text*.

        :raises ServerError: it ends without it.
        """
        self.work(lambda: text in process.tail(200_000) or process.popen.poll() is not None)
        if text not in process.tail(200_000):
            raise ServerError(f"The playbook ended without {text!r}: {process.tail(4_000)}")

    def play(self, archive: Path, *arguments: str, playbook: str = "deploy") -> Played:
        """Run the playbook to its end."""
        return self.end(self.begin(archive, *arguments, playbook=playbook))

    def work(self, until: Any) -> None:
        """Start and stop the space's applications until *until* is true."""
        self._main.work(until)

    def cloud_secrets(self) -> Sequence[str]:
        return [str(self.cloud.options()["password"]), str(self.xsuaa.credentials(f"sb-{MTA}!t1")["clientsecret"])]

    @property
    def environment(self) -> Mapping[str, str]:
        path = os.pathsep.join(filter(None, [str(APPS / "names"), os.environ.get("PYTHONPATH")]))
        # what a module that is killed leaves goes with the folder
        return {**ansible_environment(self.folder), "PYTHONPATH": path, "TMPDIR": str(self.folder)}

    # -- who uses it ----------------------------------------------------------------------------------

    def host(self, module: str, *, idle: bool = False) -> str:
        return f"{self.space.org}-{self.space.name}-{module}{'-idle' if idle else ''}.{self.space.domain}"

    def browser(self, user: str) -> Browser:
        """A user at the live approuter."""
        route = Route(self.gorouter.port)
        return Browser(self.host(APPROUTER), route, self.certificates.authority, user, self.password, scheme="https")

    def subscribe(self, tenants: Sequence[str] = TENANTS) -> None:
        """Subscribe tenants at the live sidecar."""
        headers = {"Authorization": f"Bearer {self.xsuaa.token(f'sb-{MTA}!t1')}", "Content-Type": "application/json"}
        for tenant in tenants:
            body = {"subscribedTenantId": tenant, "subscribedSubdomain": tenant, "eventType": "CREATE"}
            url = f"{self.apps.sidecar(MTX).url}/-/cds/saas-provisioning/tenant/{tenant}"
            urlopen(Outgoing(url, json.dumps(body).encode(), headers, method="PUT"), timeout=PATIENCE_S).close()

    def states(self) -> list[str]:
        """The states of all operations, in the order in which they were started."""
        return [operation.state for operation in self.cloud.controller.operations.values()]

    def upgraded(self) -> list[str]:
        """The tenants whose tables have the newer schema."""
        sidecar = next(app for app in self.apps.running.values() if isinstance(app, Sidecar))
        return [tenant for tenant in TENANTS if "urgency" in sidecar.columns(tenant)]
