# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for a Cloud Foundry with its deploy service, over TLS: UAA, API v3, and the REST API of the MultiApps
controller, on one port.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import threading
import urllib.request
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ..landscape.keys import Certificates
from .api import AUDITOR, DEVELOPER, Account, Api, Refusal, Uaa, parameters
from .controller import ACTIONS, BadRequest, Controller, File, Operation
from .faults import Faults
from .space import Space
from .standin import Answer, Request, StandIn

_OPERATION = re.compile(r"operations/([^/]+)(?:/(actions|logs)(?:/([^/]+)/content)?)?")
LOG = "OPERATION.log"


class Cloud(StandIn):
    """Runs in threads of this process, as a context manager.

    ``space`` is what deployments change, ``controller`` holds operations, ``faults`` makes things go wrong, ``uaa``
    holds users and clients: ``ci@example.com`` and ``colleague@example.com`` with the password ``password of <name>``,
    and the client ``deployer``.

    :param folder: where the certificates go.
    :param space: with its runner and router; by default nothing is started.
    """

    def __init__(self, folder: Path, space: Space | None = None) -> None:
        self.certificates = Certificates.make(folder)
        super().__init__(str(self.certificates.router))
        self.ca_file = str(self.certificates.authority)
        self.space, self.faults, self.uaa = space or Space(), Faults(), Uaa()
        self.controller = Controller(self.space, self.faults)
        self.api = Api(self.space, lambda: self.url)
        self._sessions: dict[str, str] = {}
        self._jobs: dict[str, dict[str, Any]] = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.controller.close()
        super().__exit__(kind, error, trace)

    def options(self, **changes: Any) -> dict[str, Any]:
        """The option ``cloud_foundry`` for this cloud and the user ``ci@example.com``."""
        user = (
            {"username": "ci@example.com", "password": "password of ci@example.com"}
            if not {"token", "client_id", "cf_home"} & set(changes)
            else {}
        )
        place = {
            "api": self.url,
            "deploy_service": self.url,
            "org": self.space.org,
            "space": self.space.name,
            "ca_file": self.ca_file,
        }
        return {**place, **user, **changes}

    def answer(self, request: Request) -> Answer:
        instead = self.faults.before(request)
        if instead:
            return instead
        try:
            answer = self._routed(request)
        except Refusal as refusal:
            answer = refusal.answer
        return self.faults.after(request) or answer

    def _routed(self, request: Request) -> Answer:
        path = urlsplit(request.target).path
        if path in ("/", ""):
            return self.api.root()
        if path == "/oauth/token":
            return self.uaa.answer(request)
        account = self.uaa.account(request.bearer)
        if path.startswith("/v3/"):
            return self.api.answer(request, account)
        if path == "/api/v1/info":
            return Answer(200, {"service_version": "2.53.0"})
        if path == "/api/v1/csrf-token" and request.method == "GET":
            return self._csrf(request)
        match = re.fullmatch(r"/api/(v1|v2)/spaces/([^/]+)/(.+)", path)
        if not match:
            return Answer(404, "Not Found")
        self._expect_rights(request, account, match[2])
        if match[1] == "v2":
            return self._mtas(request) if match[3] == "mtas" and request.method == "GET" else Answer(404, "Not Found")
        return self._of_space(request, account, match[3])

    def _of_space(self, request: Request, account: Account, rest: str) -> Answer:
        if request.method == "POST":
            if rest == "files":
                return self._upload(request)
            if rest == "files/async":
                return self._fetch(request)
            if rest == "operations":
                return self._start(request, account)
        elif rest == "files":
            return self._files(request)
        elif rest == "operations":
            return self._operations(request)
        elif rest.startswith("files/jobs/"):
            job = self._jobs.get(rest.rpartition("/")[2])
            return Answer(200, dict(job)) if job else Answer(404, "Job not found")
        match = _OPERATION.fullmatch(rest)
        operation = self.controller.operations.get(match[1]) if match else None
        if match is None or operation is None:
            return Answer(404, f'Operation with id "{match[1]}" not found' if match else "Not Found")
        return (
            self._act(request, operation)
            if request.method == "POST" and not match[2]
            else self._operation(request, operation, match[2], match[3])
        )

    def _csrf(self, request: Request) -> Answer:
        """With a session its token, without one a new session; the token is told to those who ask for it."""
        if request.headers.get("x-csrf-token", "").lower() != "fetch":
            return Answer(204)
        session = _cookie(request)
        headers: dict[str, str | list[str]] = {}
        if session not in self._sessions:
            session = secrets.token_hex(16).upper()
            self._sessions[session] = secrets.token_hex(16)
            headers["set-cookie"] = f"JSESSIONID={session}; Path=/; Secure; HttpOnly"
        return Answer(
            204,
            None,
            {
                **headers,
                "x-csrf-header": "X-CSRF-TOKEN",
                "x-csrf-param": "_csrf",
                "x-csrf-token": self._sessions[session],
            },
        )

    def end_sessions(self) -> None:
        """As when the service was restarted: tokens against cross-site requests are refused."""
        self._sessions.clear()

    def _expect_rights(self, request: Request, account: Account, space: str) -> None:
        if request.method == "POST" and (
            not _cookie(request) or self._sessions.get(_cookie(request)) != request.headers.get("x-csrf-token")
        ):
            raise Refusal(Answer(403, "CSRF nonce validation failed", {"x-csrf-token": "Required"}))
        enough = (DEVELOPER, AUDITOR) if request.method == "GET" else (DEVELOPER,)
        if space != self.space.guid or account.role not in enough:
            raise Refusal(
                Answer(
                    403, f'User "{account.name}" is not authorized to perform operations in space with GUID "{space}"'
                )
            )

    def _upload(self, request: Request) -> Answer:
        query = parse_qs(urlsplit(request.target).query)
        match = re.match(r'multipart/form-data; *boundary="?([^";]+)"?', request.headers.get("content-type", ""))
        parts = request.body.split(b"--" + match[1].encode()) if match else []
        if match is None or len(parts) != 3 or parts[2] not in (b"--\r\n", b"--"):
            return Answer(400, "The request is no multipart form with one file")
        head, _blank, content = parts[1].partition(b"\r\n\r\n")
        named = re.search(rb'name="file"; *filename="([^"]+)"', head)
        if not named:
            return Answer(400, 'There is no field "file" with a file name')
        return Answer(
            201,
            self.upload(named[1].decode(), content.removesuffix(b"\r\n"), query.get("namespace", [""])[0]).view(
                self.space.guid
            ),
        )

    def upload(self, name: str, content: bytes, namespace: str = "") -> File:
        """A file that is there, however it came."""
        file = File(name, content, hashlib.md5(content, usedforsecurity=False).hexdigest().upper(), namespace)
        self.controller.files[file.id] = file
        return file

    def _fetch(self, request: Request) -> Answer:
        """Fetch a file from a URL, in the background."""
        try:
            url = base64.urlsafe_b64decode(request.json()["file_url"]).decode()
        except (KeyError, TypeError, ValueError):
            return Answer(400, "file_url is no URL in base64")
        if not url.startswith("http"):
            return Answer(400, "Invalid URL")
        identity = str(uuid.uuid4())
        job = self._jobs[identity] = {"status": "RUNNING", "bytes_processed": 0}

        def fetch() -> None:
            try:
                with urllib.request.urlopen(url, timeout=10) as answer:
                    content = answer.read()
            except OSError as error:
                job.update(status="ERROR", error=str(error))
                return
            file = self.upload(Path(urlsplit(url).path).name, content)
            job.update(status="FINISHED", bytes_processed=len(content), file=file.view(self.space.guid))

        threading.Thread(target=fetch, name="fetch", daemon=True).start()
        return Answer(202, None, {"location": f"/api/v1/spaces/{self.space.guid}/files/jobs/{identity}"})

    def _files(self, request: Request) -> Answer:
        namespace = parameters(request, "namespace").get("namespace", [""])[0]
        return Answer(
            200, [file.view(self.space.guid) for file in self.controller.files.values() if file.namespace == namespace]
        )

    def _start(self, request: Request, account: Account) -> Answer:
        try:
            operation = self.controller.start(request.json(), account.name)
        except (BadRequest, ValueError, KeyError, TypeError) as error:
            return Answer(400, str(error))
        return Answer(202, None, {"location": f"spaces/{self.space.guid}/operations/{operation.id}?embed=messages"})

    def _operations(self, request: Request) -> Answer:
        query = parameters(request, "mtaId", "state", "last")
        with self.controller.changed:
            found = [
                operation.view(self.space.guid, messages=False)
                for operation in self.controller.operations.values()
                if operation.mta_id in query.get("mtaId", [operation.mta_id])
                and operation.state in query.get("state", [operation.state])
            ]
        found.sort(key=lambda view: str(view["startedAt"]), reverse=True)
        return Answer(200, found[: int(query["last"][0])] if "last" in query else found)

    def _operation(self, request: Request, operation: Operation, part: str | None, log: str | None) -> Answer:
        if request.method != "GET":
            return Answer(405, "Method Not Allowed")
        if part == "actions":
            return Answer(200, ACTIONS.get(operation.state, []))
        lines = "".join(
            f"#2.0#{message['timestamp']}#{message['type']}#{message['text']}\n" for message in operation.messages
        )
        if part == "logs" and log is None:
            return Answer(
                200, [{"id": LOG, "displayName": LOG, "size": len(lines), "lastModified": operation.started_at}]
            )
        if part == "logs":
            return Answer(200, lines) if log == LOG else Answer(404, "Log not found")
        embed = parameters(request, "embed").get("embed") == ["messages"]
        with self.controller.changed:
            return Answer(200, operation.view(self.space.guid, messages=embed))

    def _act(self, request: Request, operation: Operation) -> Answer:
        action = parameters(request, "actionId").get("actionId", [""])[0]
        try:
            self.controller.act(operation.id, action)
        except BadRequest as error:
            return Answer(400, str(error))
        return Answer(202, None, {"location": f"spaces/{self.space.guid}/operations/{operation.id}?embed=messages"})

    def _mtas(self, request: Request) -> Answer:
        query = parameters(request, "name", "namespace")
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for app in sorted(self.space.apps.values(), key=lambda app: app.name.endswith("-idle")):
            key = (app.mta_id, app.namespace)
            if app.mta_id not in query.get("name", [app.mta_id]) or app.namespace not in query.get(
                "namespace", [app.namespace]
            ):
                continue
            about = {
                "id": app.mta_id,
                "version": app.version,
                **({"namespace": app.namespace} if app.namespace else {}),
            }
            mta = found.setdefault(key, {"metadata": about, "modules": [], "services": sorted(self.space.services)})
            mta["modules"].append({"moduleName": app.module, "appName": app.name})
        return Answer(200, list(found.values()))


def _cookie(request: Request) -> str:
    match = re.search(r"JSESSIONID=([0-9A-F]+)", request.headers.get("cookie", ""))
    return match[1] if match else ""
