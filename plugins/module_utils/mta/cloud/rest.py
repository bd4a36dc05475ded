# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The REST API of the MultiApps deploy service: token, protection against cross-site requests, refusals in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.http.web import Answer, Body
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.cloud_foundry import CloudFoundry


class Rest:
    """The service for the space that *cloud* is logged in to.

    :ivar space: the URL of the space's resources.
    """

    def __init__(self, cloud: CloudFoundry) -> None:
        self.cloud, self._signed = cloud, cloud.signed
        self.web = cloud.signed.web
        self.root = cloud.target.deploy_service
        self.space = f"{self.root}/api/v1/spaces/{cloud.target.space_guid}"
        self._csrf: dict[str, str] = {}

    def post(self, url: str, body: bytes) -> Answer:
        """Send JSON, once.

        :raises OutcomeUnknown: there was no answer; it may have been done.
        """
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        return self.send(url, headers, lambda: body)

    def prepare(self) -> None:
        """Fetch a token against cross-site requests, so that the next POST goes out at once."""
        answer = self.get(f"{self.root}/api/v1/csrf-token", headers={"X-CSRF-TOKEN": "Fetch"})
        header = str(answer.headers.get("X-CSRF-HEADER") or "X-CSRF-TOKEN")
        self._csrf = {header: str(answer.headers.get("X-CSRF-TOKEN") or "")}

    def send(self, url: str, headers: Mapping[str, str], body: Body, timeout_s: float | None = None) -> Answer:
        """POST with a token against cross-site requests; one that is refused is fetched anew, and the request, which
        was not executed, repeated. Raises as :meth:`post`.
        """
        for fetched in (bool(self._csrf), False):
            if not fetched:
                self.prepare()
            result = self._signed.send("POST", url, {**headers, **self._csrf}, body, timeout_s)
            if result.status != 403 or str(result.headers.get("X-CSRF-TOKEN") or "").lower() != "required":
                return result
        raise Refused(
            f"{self.root} refuses its own token against cross-site requests.",
            "Check that a proxy before it keeps cookies.",
        )

    def list(self, url: str, *, missing: bool = False) -> list[dict[str, Any]]:
        """The objects of a list.

        :param missing: whether 404 means that there are none.
        """
        answer = self.get(url, missing=missing)
        body = answer.json() if answer.ok else []
        return [entry for entry in body if isinstance(entry, dict)] if isinstance(body, list) else []

    def get(self, url: str, *, missing: bool = False, headers: Mapping[str, str] | None = None) -> Answer:
        """The answer to a question that may be repeated.

        :param missing: whether 404 is an answer.
        """
        answer = self._signed.ask("GET", url, {"Accept": "application/json, text/plain", **(headers or {})})
        return answer if missing and answer.status == 404 else self.expected(answer, "a question")

    def expected(self, answer: Answer, what: str) -> Answer:
        """Make sure that it is a success.

        :raises Refused: it is not.
        """
        target = self.cloud.target
        if answer.status == 403:
            message = (
                f"The deploy service refuses {what} to {target.user or 'this user'} in {target.org}/{target.space}:"
                f" {answer.said}"
            )
            raise Refused(message, "Give the user the role SpaceDeveloper in the space; nothing was changed.")
        if not answer.ok:
            raise Refused(
                f"The deploy service refuses {what} with status {answer.status}: {answer.said}",
                "Correct what it names; nothing was started.",
            )
        return answer
