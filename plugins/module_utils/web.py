# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP as a browser or a REST client sends it: one request at a time, every status is an answer, redirects are told and not followed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from http.cookiejar import CookieJar
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from ansible.module_utils.urls import ConnectionError as AnsibleConnectionError
from ansible.module_utils.urls import open_url
from ansible_collections.zdm.landscape.plugins.module_utils.errors import InputError, Unreachable

_MAX_BYTES = 50_000_000
_SHOWN_CHARACTERS = 500


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
            raise Unreachable(f"{shown(self.url)} answers with something that is no JSON.", "Check the URL, and whether a proxy stands between.") from error

    @property
    def reason(self) -> str:
        """Why it is no success, in the server's words: CAP's and the registries' ``error.message``, UAA's ``error_description``, else the text."""
        try:
            found = json.loads(self.body)
        except ValueError:
            found = None
        error = found.get("error") if isinstance(found, dict) else None
        if isinstance(error, dict):
            error = error.get("message") or error.get("description")
        said = (found.get("error_description") if isinstance(found, dict) else None) or error or " ".join(self.text.split())
        return str(said)[:_SHOWN_CHARACTERS]


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
        raise InputError(f"{what} {shown(value)!r} is not a URL of http or https.", "Write the whole URL, for example https://app.example.com.")
    return value.rstrip("/")


@dataclass(frozen=True)
class Web:
    """Sends requests.

    :param timeout_ms: how long one answer may take.
    :param cookies: kept from one request to the next when given.
    :param cert_file: PEM file with a client certificate, ``key_file`` with its key where it is another file.
    """

    ca_file: str | None = None
    validate_certs: bool = True
    timeout_ms: int = 30_000
    cert_file: str | None = None
    key_file: str | None = None
    cookies: CookieJar | None = None
    agent: str = "zdm.landscape"

    def send(self, method: str, url: str, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> Answer:
        """One request.

        :raises Unreachable: there was no answer; the request may have been executed.
        """
        try:
            answer = open_url(
                url,
                method=method,
                data=body,
                headers=dict(headers or {}),
                timeout=self.timeout_ms / 1000,
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
            raise Unreachable(f"{method} {shown(url)} gets no answer: {reason}.", "Check the URL, the network, proxies and certificates.") from error
