# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for a Cloud Foundry with its deploy service, over TLS: UAA, API v3, and the REST API of the MultiApps
controller, on one port.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from ..landscape.keys import Certificates
from .api import AUDITOR, DEVELOPER, Account, Refusal, Uaa
from .api_v3 import Api
from .controller import Controller
from .faults import Faults
from .operations import Operations
from .space import Space
from .standin import Answer, Request, StandIn
from .uploads import MAX_BODY, File, Uploads

VERSION = "2.54.0"
_FILES = re.compile(r"/api/v1/spaces/[^/]+/files(?:\?|$)")


class Cloud(StandIn):
    """Runs in threads of this process, as a context manager.

    ``space`` is what deployments change, ``controller`` holds operations, ``uploads`` files, ``faults`` makes things go
    wrong, ``uaa`` holds users and clients: ``ci@example.com`` and ``colleague@example.com`` with the password
    ``password of <name>``, and the client ``deployer``.

    :param folder: where the certificates go.
    :param space: with its runner, its router and its pace; by default nothing is started and all is done at once.
    """

    def __init__(self, folder: Path, space: Space | None = None) -> None:
        self.certificates = Certificates.make(folder)
        super().__init__(str(self.certificates.router))
        self.ca_file = str(self.certificates.authority)
        self.space, self.faults, self.uaa = space or Space(), Faults(), Uaa()
        self.uploads = Uploads(self.space.guid, self.ca_file)
        self.controller = Controller(self.space, self.faults, self.uploads.files)
        self.api = Api(self.space, lambda: self.url)
        self._operations = Operations(self.controller)
        self._sessions: dict[str, str] = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.controller.close()
        super().__exit__(kind, error, trace)

    def options(self, **changes: Any) -> dict[str, Any]:
        """The option ``cloud_foundry`` for this cloud and the user ``ci@example.com``."""
        user = (
            {"username": "ci@example.com", "password": "password of ci@example.com"}
            if not {"token", "client_id", "cf_home", "passcode", "assertion"} & set(changes)
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

    def limit(self, method: str, target: str) -> int:
        return self.uploads.max_file if method == "POST" and _FILES.match(target) else MAX_BODY

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
        if account.client:  # the service looks rights up by the id of the token's user
            return Answer(500, "Internal Server Error")
        if path == "/api/v1/info":
            return Answer(200, {"service_version": VERSION})
        if path == "/api/v1/csrf-token" and request.method == "GET":
            return self._csrf(request)
        match = re.fullmatch(r"/api/(v1|v2)/spaces/([^/]+)/(.+)", path)
        if not match:
            return Answer(404, "Not Found")
        self._expect_rights(request, account, match[2])
        return self._of_space(request, account, match[1], match[3])

    def _of_space(self, request: Request, account: Account, version: str, rest: str) -> Answer:
        if rest == "mtas" and request.method == "GET":
            return self._operations.mtas(request)
        if version == "v2":
            return Answer(404, "Not Found")
        if rest.startswith("mtas/") and request.method == "GET":
            return self._operations.mta(unquote(rest.removeprefix("mtas/")))
        if rest == "files" or rest.startswith("files/"):
            return self.uploads.answer(request, account.name, rest.removeprefix("files"))
        return self._operations.answer(request, account.name, rest)

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

    def upload(self, name: str, content: bytes, namespace: str = "") -> File:
        """A file that is there, however it came."""
        return self.uploads.add(name, content, namespace)


def _cookie(request: Request) -> str:
    match = re.search(r"JSESSIONID=([0-9A-F]+)", request.headers.get("cookie", ""))
    return match[1] if match else ""
