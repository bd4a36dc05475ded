# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP as a browser or a REST client sends it: every status is an answer, redirects are told and not followed, a lost
answer is told apart from a refusal, and what may be repeated is repeated while the other side is busy."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPException
from http.cookiejar import CookieJar
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.parse import urlsplit

from ansible.module_utils.urls import ConnectionError as AnsibleConnectionError
from ansible.module_utils.urls import open_url
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import (
    InputError,
    OutcomeUnknown,
    Unreachable,
    sentence,
)

AGENT = "zdm.landscape"
BUSY = frozenset({429, 500, 502, 503, 504})
"""Answers after which the same question may be asked again."""
MAY_HAVE_BEGUN = frozenset({502, 503, 504})
"""A gateway's answers: what is behind it may have taken the request."""
_MAX_BYTES = 50_000_000
_LONGEST_PAUSE_S = 30.0
_LONGEST_ASKED_S = 120.0
_SHOWN_CHARACTERS = 500


class Away(Unreachable):
    """The other side does not answer, or is too busy to, however often it is asked."""


@dataclass(frozen=True)
class Answer:
    """One answer of whatever status. ``body`` may be cut off after fifty million bytes."""

    url: str
    status: int
    headers: Message
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")

    def json(self) -> Any:
        """The body as JSON.

        :raises Unreachable: it is none, for example the page of a proxy.
        """
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise Unreachable(
                f"{shown(self.url)} answers with something that is no JSON.",
                "Check the URL, and whether a proxy stands between.",
            ) from error

    @property
    def reason(self) -> str:
        """Why it is no success, in the server's words.

        Cloud Foundry's ``detail``, UAA's ``error_description``, CAP's and the registries' ``error.message``, else the
        text.
        """
        try:
            found = json.loads(self.body)
        except ValueError:
            found = None
        said: Any = None
        if isinstance(found, dict):
            errors, error = found.get("errors"), found.get("error")
            entries = [entry for entry in errors if isinstance(entry, dict)] if isinstance(errors, list) else []
            said = "; ".join(str(entry.get("detail") or entry.get("title")) for entry in entries)
            if isinstance(error, dict):
                error = error.get("message") or error.get("description")
            said = said or found.get("error_description") or found.get("description") or error
        elif isinstance(found, str):
            said = found
        return str(said or " ".join(self.text.split()))[:_SHOWN_CHARACTERS]

    @property
    def said(self) -> str:
        """:attr:`reason` as a sentence."""
        return sentence(self.reason)


class Upload(Protocol):
    """A body that is read while it is sent; a new attempt needs a new one."""

    def read(self, size: int = -1, /) -> bytes: ...


Body = Callable[[], "bytes | Upload"]


def shown(url: str) -> str:
    """A URL as it may be shown: without user, password and query, where secrets may stand."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def checked_url(value: str, what: str) -> str:
    """Return *value* without a slash at its end.

    :raises InputError: it is no URL of http or https.
    """
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(
            f"{what} {shown(value)!r} is not a URL of http or https.",
            "Write the whole URL, for example https://app.example.com.",
        )
    return value.rstrip("/")


@dataclass
class Web:
    """Sends requests; cookies are kept from one to the next.

    :param timeout_s: how long one answer may take.
    :param cert_file: PEM file with a client certificate, ``key_file`` with its key where it is another file.
    :param attempts: how often what may be repeated is sent before the other side counts as away.
    :param pause_s: the pause before the second attempt; it doubles, unless the answer says ``Retry-After``.
    """

    ca_file: str | None = None
    validate_certs: bool = True
    timeout_s: float = 30.0
    cert_file: str | None = None
    key_file: str | None = None
    cookies: CookieJar = field(default_factory=CookieJar)
    agent: str = AGENT
    attempts: int = 6
    pause_s: float = 0.5
    sleep: Callable[[float], None] = time.sleep

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | Upload | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """One request.

        :raises OutcomeUnknown: there was no answer; the request may have been executed.
        """
        try:
            answer = open_url(
                url,
                method=method,
                data=body,
                headers=dict(headers or {}),
                timeout=timeout_s or self.timeout_s,
                validate_certs=self.validate_certs,
                ca_path=self.ca_file,
                client_cert=self.cert_file,
                client_key=self.key_file,
                cookies=self.cookies,
                http_agent=self.agent,
                follow_redirects="none",
                use_netrc=False,
            )
            return Answer(url, int(answer.getcode()), answer.headers, answer.read(_MAX_BYTES))
        except HTTPError as error:
            try:
                text = error.read(_MAX_BYTES)
            except (OSError, HTTPException):
                text = b""
            return Answer(url, int(error.code), error.headers, text)
        except (OSError, HTTPException, ValueError, AnsibleConnectionError) as error:
            reason = getattr(error, "reason", None) or error
            advice = "Check the URL, the network, proxies and certificates (ca_file), then run it again."
            raise OutcomeUnknown(f"{method} {shown(url)} gets no answer: {reason}.", advice) from error

    def ask(self, method: str, url: str, headers: Mapping[str, str] | None = None, body: Body | None = None) -> Answer:
        """Send a request that may be repeated, and repeat it while the other side is busy or away.

        :param body: makes the body for one attempt.
        :raises Away: every attempt failed.
        """
        problem = ""
        for attempt in range(self.attempts):
            pause = min(self.pause_s * 2**attempt, _LONGEST_PAUSE_S)
            try:
                answer = self.send(method, url, headers, body() if body else None)
            except OutcomeUnknown as error:
                problem = error.message
            else:
                if answer.status not in BUSY:
                    return answer
                problem = f"{method} {shown(url)} answers with status {answer.status}: {answer.said}"
                pause = retry_after_s(answer, pause)
            if attempt + 1 < self.attempts:
                self.sleep(pause)
        raise Away(problem, "Nothing is lost: look at its log, and run the same command again when it answers.")


def retry_after_s(answer: Answer, otherwise: float) -> float:
    """The pause that the answer asks for in seconds, at most two minutes. A date there is not used by these
    services.
    """
    value = str(answer.headers.get("Retry-After") or "")
    return min(float(value), _LONGEST_ASKED_S) if value.isdigit() else otherwise
