# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the stand-ins share: a client that speaks REST and knows nothing of the engine, and an MTA."""

from __future__ import annotations

import copy
import http.client
import json
import secrets
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.zdm.landscape.tests.cloud.cloud import Cloud
from ansible_collections.zdm.landscape.tests.cloud.mtar import Files, write_mtar
from ansible_collections.zdm.landscape.tests.landscape.processes import wait_until

MTA = "shop"
DESCRIPTOR: dict[str, Any] = {
    "_schema-version": "3.3",
    "ID": MTA,
    "version": "1.0.0",
    "modules": [
        {
            "name": "web",
            "type": "approuter.nodejs",
            "requires": [
                {"name": "api", "group": "destinations", "properties": {"name": "api", "url": "~{url}"}},
                {"name": "auth"},
            ],
        },
        {
            "name": "srv",
            "type": "nodejs",
            "provides": [{"name": "api", "properties": {"url": "${default-url}"}}],
            "requires": [{"name": "auth"}],
        },
    ],
    "resources": [
        {
            "name": "auth",
            "type": "org.cloudfoundry.managed-service",
            "requires": [{"name": "api"}],
            "parameters": {"service": "xsuaa", "service-plan": "application", "config": {"url": "~{api/url}"}},
        }
    ],
}
FINAL = ("FINISHED", "ABORTED", "ERROR", "ACTION_REQUIRED")


@dataclass
class Reply:
    status: int
    headers: http.client.HTTPMessage
    raw: bytes

    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def text(self) -> str:
        return self.raw.decode()


class Rest:
    """A user's client: every request with the token, each that changes something with the token against cross-site
    requests.
    """

    def __init__(self, cloud: Cloud, user: str = "ci@example.com") -> None:
        self.cloud, self.user = cloud, user
        self.token = cloud.uaa.tokens(user)["access_token"]
        self.base = f"/api/v1/spaces/{cloud.space.guid}"
        self._context = ssl.create_default_context(cafile=cloud.ca_file)
        self._csrf: dict[str, str] = {}

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """One request, as it is given."""
        connection = http.client.HTTPSConnection("localhost", self.cloud.port, context=self._context, timeout=60)
        try:
            connection.request(method, path, body, {"Authorization": f"bearer {self.token}", **(headers or {})})
            answer = connection.getresponse()
            return Reply(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path: str) -> Reply:
        return self.send("GET", path)

    def post(self, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        """:param body: is sent as JSON unless it is bytes."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        kind = {} if body is None or isinstance(body, bytes) else {"Content-Type": "application/json"}
        return self.send("POST", path, data, {**kind, **self.csrf(), **(headers or {})})

    def csrf(self) -> dict[str, str]:
        if not self._csrf:
            headers = self.send("GET", "/api/v1/csrf-token", None, {"X-CSRF-TOKEN": "Fetch"}).headers
            cookie = str(headers["Set-Cookie"]).partition(";")[0]
            self._csrf = {str(headers["X-CSRF-HEADER"]): str(headers["X-CSRF-TOKEN"]), "Cookie": cookie}
        return self._csrf

    # -- the deploy service -----------------------------------------------------------------------------

    def upload(self, name: str, content: bytes, namespace: str = "") -> Reply:
        boundary = secrets.token_hex(16)
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
        path = f"{self.base}/files" + (f"?namespace={namespace}" if namespace else "")
        return self.post(path, body, {"Content-Type": f"multipart/form-data; boundary={boundary}"})

    def start(self, kind: str, **parameters: Any) -> str:
        """Start an operation; its path. Applications keep their names."""
        given = {"mtaId": MTA, **parameters}
        if kind == "BLUE_GREEN_DEPLOY":
            given = {"keepOriginalAppNamesAfterDeploy": "true", **given}
        reply = self.post(f"{self.base}/operations", {"processType": kind, "parameters": given})
        assert reply.status == 202, reply.text
        return f"/api/v1/{reply.headers['Location'].partition('?')[0]}"

    def act(self, operation: str, action: str) -> int:
        return self.post(f"{operation}?actionId={action}").status

    def operation(self, operation: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"{operation}?embed=messages").json()
        return found

    def wait(self, operation: str, *states: str) -> dict[str, Any]:
        """Wait until the operation is in one of these states, else in any in which it goes no further by itself."""
        wait_until(lambda: self.operation(operation)["state"] in (states or FINAL), f"{operation} gets on")
        found = self.operation(operation)
        assert not states or found["state"] in states, found
        return found

    def run(self, kind: str, **parameters: Any) -> dict[str, Any]:
        return self.wait(self.start(kind, **parameters))

    def mtas(self, query: str = "") -> Reply:
        return self.get(f"/api/v2/spaces/{self.cloud.space.guid}/mtas{query}")

    # -- the API v3 -------------------------------------------------------------------------------------

    def app(self, name: str) -> dict[str, Any]:
        (found,) = self.get(f"/v3/apps?names={name}").json()["resources"]
        return dict(found)

    def instance(self, name: str) -> str:
        """The state of the application's instance."""
        (found,) = self.get(f"/v3/apps/{self.app(name)['guid']}/processes/web/stats").json()["resources"]
        return str(found["state"])

    def stop(self, name: str) -> None:
        """Stop an application and wait until no instance runs."""
        assert self.post(f"/v3/apps/{self.app(name)['guid']}/actions/stop").status == 200
        wait_until(lambda: self.instance(name) == "DOWN", f"{name} ends")


class Shop:
    """An MTA of a service and an approuter before it, deployed by REST.

    :param change: of the descriptor, each time.
    """

    def __init__(self, rest: Rest, folder: Path) -> None:
        self.rest, self.folder = rest, folder
        self.change: Callable[[dict[str, Any]], None] = lambda _descriptor: None

    def archive(self, version: str) -> Path:
        descriptor = copy.deepcopy(DESCRIPTOR)
        descriptor["version"] = version
        self.change(descriptor)
        package: Files = {"package.json": json.dumps({"name": MTA, "version": version})}
        return write_mtar(self.folder, descriptor, {module["name"]: package for module in descriptor["modules"]})

    def uploaded(self, version: str) -> str:
        archive = self.archive(version)
        return str(self.rest.upload(archive.name, archive.read_bytes()).json()["id"])

    def start(self, version: str, kind: str = "BLUE_GREEN_DEPLOY", **parameters: Any) -> str:
        return self.rest.start(kind, appArchiveId=self.uploaded(version), **parameters)

    def deploy(self, version: str, kind: str = "BLUE_GREEN_DEPLOY", **parameters: Any) -> dict[str, Any]:
        """Deploy to the end, without a testing phase."""
        more = {"noConfirm": "true"} if kind == "BLUE_GREEN_DEPLOY" else {}
        return self.rest.wait(self.start(version, kind, **more, **parameters))

    def testing(self, version: str, **parameters: Any) -> str:
        """Deploy to the testing phase."""
        operation = self.start(version, **parameters)
        self.rest.wait(operation, "ACTION_REQUIRED")
        return operation
