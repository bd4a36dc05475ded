# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to Cloud Foundry: what may be repeated is repeated, and a lost answer is told apart from a refusal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from http.cookiejar import CookieJar
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.parse import urlsplit

from ansible.module_utils.urls import ConnectionError as AnsibleConnectionError
from ansible.module_utils.urls import open_url
from ansible_collections.zdm.landscape.plugins.module_utils.errors import OutcomeUnknown, Refused, Unreachable

AGENT = "zdm.landscape"
MAX_BYTES = 50_000_000
"""No answer but a log is ever that long."""
BUSY = frozenset({429, 500, 502, 503, 504})
"""Answers after which the same question may be asked again."""
LONGEST_PAUSE_S = 30.0


class CloudAway(Unreachable):
    """Cloud Foundry does not answer, or is too busy to."""


@dataclass(frozen=True)
class Answer:
    """One answer of whatever status."""

    status: int
    headers: Message
    body: bytes
    url: str

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body as JSON.

        :raises Unreachable: it is none, for example the page of a proxy.
        """
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise Unreachable(f"{shown(self.url)} answers with something that is no JSON.", "Check the URL, and whether a proxy stands between.") from error

    def text(self) -> str:
        """The reason in an error's body: Cloud Foundry's ``detail``, UAA's ``error_description``, else the first 500 characters."""
        try:
            body = json.loads(self.body)
        except ValueError:
            return " ".join(self.body.decode(errors="replace").split())[:500]
        if isinstance(body, dict):
            details = [str(error.get("detail") or error.get("title")) for error in body.get("errors") or () if isinstance(error, dict)]
            return "; ".join(details) or str(body.get("error_description") or body.get("description") or body.get("error") or body)[:500]
        return str(body)[:500]


class Upload(Protocol):
    """A body that is read while it is sent; a new attempt needs a new one."""

    def read(self, size: int = -1, /) -> bytes: ...


Body = Callable[[], "bytes | Upload"]


def shown(url: str) -> str:
    """A URL as it may be shown: without user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@dataclass
class Http:
    """Sends requests, with cookies and the certificates to trust.

    :param timeout_s: how long one answer may take.
    :param attempts: how often a question that changes nothing is asked before the other side counts as unreachable.
    :param pause_s: the pause before the second attempt; it doubles, unless the answer says ``Retry-After``.
    """

    ca_file: str | None = None
    validate_certs: bool = True
    timeout_s: float = 30.0
    attempts: int = 6
    pause_s: float = 0.5
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        self._cookies = CookieJar()

    def once(self, method: str, url: str, headers: Mapping[str, str], body: bytes | Upload | None = None, timeout_s: float | None = None) -> Answer:
        """Send one request; every status is an answer.

        :raises OutcomeUnknown: there was no answer; the request may have been executed.
        """
        try:
            answer = open_url(
                url,
                method=method,
                data=body,
                headers=dict(headers),
                timeout=timeout_s or self.timeout_s,
                validate_certs=self.validate_certs,
                ca_path=self.ca_file,
                http_agent=AGENT,
                cookies=self._cookies,
                follow_redirects="safe",
                unredirected_headers=["Authorization"],
                use_netrc=False,
            )
            return Answer(int(answer.getcode()), answer.headers, answer.read(MAX_BYTES), url)
        except HTTPError as error:
            try:
                text = error.read(MAX_BYTES)
            except (OSError, HTTPException):
                text = b""
            return Answer(int(error.code), error.headers, text, url)
        except (OSError, HTTPException, ValueError, AnsibleConnectionError) as error:
            reason = getattr(error, "reason", None) or error
            advice = "Check the URL, the network, proxies and cloud_foundry.ca_file, then run it again."
            raise OutcomeUnknown(f"{method} {shown(url)} gets no answer: {reason}.", advice) from error

    def ask(self, method: str, url: str, headers: Mapping[str, str], body: Body | None = None) -> Answer:
        """Send a request that may be repeated, and repeat it while the other side is busy or away.

        :param body: makes the body for one attempt.
        :raises CloudAway: every attempt failed.
        """
        problem = ""
        for attempt in range(self.attempts):
            pause = min(self.pause_s * 2**attempt, LONGEST_PAUSE_S)
            try:
                answer = self.once(method, url, headers, body() if body else None)
            except OutcomeUnknown as error:
                problem = error.message
            else:
                if answer.status not in BUSY:
                    return answer
                problem = f"{method} {shown(url)} answers with status {answer.status}: {answer.text()}"
                pause = retry_after_s(answer, pause)
            if attempt + 1 < self.attempts:
                self.sleep(pause)
        raise CloudAway(problem, "Nothing is lost: run the same command again when Cloud Foundry answers.")


def retry_after_s(answer: Answer, otherwise: float) -> float:
    """The pause that the answer asks for in seconds, at most two minutes. A date there is not used by these services."""
    value = str(answer.headers.get("Retry-After") or "")
    return min(float(value), 120.0) if value.isdigit() else otherwise


class Tokens(Protocol):
    """A source of access tokens."""

    def token(self) -> str:
        """A token that is believed to be valid."""

    def renewed(self) -> str:
        """A new token, after one was refused.

        :raises Refused: there can't be one.
        """


@dataclass
class Signed:
    """Requests with a token; one that is refused is renewed, and the request is repeated once: it was not executed."""

    http: Http
    tokens: Tokens

    def ask(self, method: str, url: str, headers: Mapping[str, str] | None = None, body: Body | None = None) -> Answer:
        """As :meth:`Http.ask`."""
        return self._twice(lambda token: self.http.ask(method, url, {**(headers or {}), **token}, body))

    def once(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, body: Body | None = None, timeout_s: float | None = None
    ) -> Answer:
        """As :meth:`Http.once`."""
        return self._twice(lambda token: self.http.once(method, url, {**(headers or {}), **token}, body() if body else None, timeout_s))

    def _twice(self, send: Callable[[dict[str, str]], Answer]) -> Answer:
        answer = send({"Authorization": f"Bearer {self.tokens.token()}"})
        if answer.status == 401:
            answer = send({"Authorization": f"Bearer {self.tokens.renewed()}"})
        if answer.status == 401:
            raise Refused(f"{shown(answer.url)} refuses a new token: {answer.text()}", "Check that the token is of this Cloud Foundry.")
        return answer
