# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of deployments share: a cloud with an archive to deploy, and runs of the engine as the module makes
them.
"""

from __future__ import annotations

import copy
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ansible_collections.zdm.landscape.plugins.module_utils.http.web import Web
from ansible_collections.zdm.landscape.plugins.module_utils.mta.archive import Download, opened_archive, read_extensions
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.cloud_foundry import CloudFoundry
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment import watch
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.deployment import Deployment
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.request import wanted
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.result import Result
from ansible_collections.zdm.landscape.plugins.module_utils.store.file import FileStore
from ansible_collections.zdm.landscape.plugins.modules.mta_deploy import OWN
from ansible_collections.zdm.landscape.tests.cloud.cloud import Cloud
from ansible_collections.zdm.landscape.tests.cloud.controller import Operation
from ansible_collections.zdm.landscape.tests.cloud.mtar import write_mtar
from ansible_collections.zdm.landscape.tests.landscape.processes import PATIENCE_S

MTA = "incidents"
DESCRIPTOR: dict[str, Any] = {
    "_schema-version": "3.3.0",
    "ID": MTA,
    "version": "1.0.0",
    "modules": [
        {
            "name": "mtx",
            "type": "nodejs",
            "provides": [
                {"name": "mtx-api", "properties": {"mtx-url": "${default-url}", "mtx-live": "${default-live-url}"}}
            ],
            "requires": [{"name": "registry"}],
        },
        {
            "name": "approuter",
            "type": "approuter.nodejs",
            "properties": {"TENANT_HOST_PATTERN": "^(.*)-${default-uri}"},
            "requires": [
                {"name": "mtx-api", "group": "destinations", "properties": {"name": "mtx-api", "url": "~{mtx-url}"}}
            ],
        },
    ],
    "resources": [
        {
            "name": "registry",
            "type": "org.cloudfoundry.managed-service",
            "requires": [{"name": "mtx-api"}],
            "parameters": {
                "service": "saas-registry",
                "service-plan": "application",
                "config": {"appUrls": {"getDependencies": "~{mtx-api/mtx-live}/deps"}},
            },
        }
    ],
}
DEFAULTS = {name: option.get("default") for name, option in OWN.items()}


@dataclass
class Clock:
    """A run's clock: it stands until the run pauses and the cloud is *there*; then all time is over."""

    there: threading.Event
    over: bool = False

    def monotonic(self) -> float:
        return math.inf if self.over else 0.0

    def sleep(self, _seconds: float) -> None:
        assert self.there.wait(PATIENCE_S), "the operation does not get there"
        self.over = True


class Bench:
    """A cloud, a config store, and archives; ``told`` is what the runs have told."""

    def __init__(self, cloud: Cloud, folder: Path) -> None:
        self.cloud, self.folder = cloud, folder
        (folder / "store").mkdir()
        self.store = FileStore(folder / "store")
        self.told: list[dict[str, Any]] = []
        self.pauses: list[float] = []

    def archive(self, version: str, change: Callable[[dict[str, Any]], None] | None = None) -> str:
        descriptor = copy.deepcopy(DESCRIPTOR)
        descriptor["version"] = version
        if change:
            change(descriptor)
        return str(write_mtar(self.folder, descriptor))

    def params(self, **changes: Any) -> dict[str, Any]:
        return {**DEFAULTS, "poll_interval": "10ms", "timeout": "5m", "log_dir": str(self.folder / "logs"), **changes}

    def run(
        self, state: str, version: str = "", options: Mapping[str, Any] | None = None, attempts: int = 6, **params: Any
    ) -> Result:
        """Run the engine as the module does."""
        deployment, stack = self.deployment(state, version, options, attempts, **params)
        with stack:
            return deployment.run()

    def run_out_of_time(self, there: threading.Event, state: str, version: str, **params: Any) -> Result:
        """Run the engine with a timeout that ends when the run waits for an operation that is *there*."""
        clock = Clock(there)
        with patch.object(watch, "time", clock):
            deployment, stack = self.deployment(state, version, sleep=clock.sleep, **params)
            with stack:
                return deployment.run()

    def deployment(
        self,
        state: str,
        version: str = "",
        options: Mapping[str, Any] | None = None,
        attempts: int = 6,
        sleep: Callable[[float], None] = time.sleep,
        **params: Any,
    ) -> tuple[Deployment, ExitStack]:
        given = self.params(state=state, **params)
        if version:
            given["archive"] = self.archive(version)
        with ExitStack() as stack:
            location = given["archive"]
            archive = stack.enter_context(opened_archive(location, Download.of(given))) if location else None
            texts = given["extension_texts"]
            extensions = read_extensions(given["extensions"], archive.mta_id, texts) if archive else []
            request = wanted(given, archive, extensions)
            web = Web(self.cloud.ca_file, pause_s=0.01, attempts=attempts, sleep=self.pauses.append)
            cloud = CloudFoundry(options or self.cloud.options(), web)
            return Deployment(
                cloud, self.store, request, lambda entry: self.told.append(dict(entry)), sleep
            ), stack.pop_all()

    def deployed(self, version: str = "1.0.0") -> None:
        """Have this version live."""
        self.run("deployed", version)

    def standing(self, version: str = "1.0.0") -> None:
        """Have this version live, deployed by our user but not by the module: nothing is in the store."""
        operation = self._begin(version, "ci@example.com")
        self.cloud.controller.wait(operation.id, "FINISHED")

    def _begin(self, version: str, user: str) -> Operation:
        path = Path(self.archive(version))
        file = self.cloud.upload(path.name, path.read_bytes())
        body = {"processType": "BLUE_GREEN_DEPLOY", "parameters": {"appArchiveId": file.id, "mtaId": MTA}}
        return self.cloud.controller.start(body, user)

    def operations(self) -> list[Operation]:
        """All of the cloud's operations, in the order of their start."""
        return sorted(self.cloud.controller.operations.values(), key=lambda operation: operation.started_at)

    def foreign(self, version: str = "9.0.0") -> Operation:
        """An operation of somebody else on the same MTA, in its testing phase."""
        operation = self._begin(version, "colleague@example.com")
        return self.cloud.controller.wait(operation.id, "ACTION_REQUIRED", "ERROR", "FINISHED")

    def document(self) -> dict[str, Any]:
        (file,) = (self.folder / "store" / "deployments").glob("*/*.json")
        body: dict[str, Any] = json.loads(file.read_text())
        return body

    def texts(self) -> str:
        return "\n".join(entry["text"] for entry in self.told)

    def sent(self, method: str, path: str) -> int:
        """How many requests came that contain *path*."""
        return sum(request.method == method and path in request.target for request in self.cloud.requests)

    def waiting(self) -> int:
        """How many clients have asked for the operation that was started last more than once."""
        last = self.operations()[-1].id
        asked = Counter(
            request.headers.get("authorization")
            for request in self.cloud.requests
            if f"/{last}?embed" in request.target
        )
        return sum(count > 1 for count in asked.values())

    def live_version(self) -> str:
        """The version that answers on the approuter's live route."""
        route = self.cloud.space.routes[f"my-org-dev-approuter.{self.cloud.space.domain}"]
        return " ".join(
            sorted(
                app.version
                for app in self.cloud.space.apps.values()
                if app.guid in route.apps and app.state == "STARTED"
            )
        )
