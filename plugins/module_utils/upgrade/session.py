# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests with a token, to the sidecar and to the registries."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from ansible_collections.zdm.landscape.plugins.module_utils.errors import InputError, Refused, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.web import Answer, Web, checked_url, shown

ATTEMPTS = 5
PAUSE_S = 0.2
"""The pause before the second attempt; it doubles."""
MAY_HAVE_BEGUN = (502, 503, 504)
"""A gateway's answers: what is behind it may have taken the request."""
_BUSY = (429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Credentials:
    """How a token is had: it is given, or for the client credentials of a service key (OAuth 2.0 client credentials, RFC 6749 and RFC 8705)."""

    token: str = ""
    token_url: str = ""
    client_id: str = ""
    client_secret: str = ""
    cert_file: str = ""
    key_file: str = ""


class Tokens:
    """Brings tokens; one that was given can't be renewed.

    :raises InputError: neither a token nor complete client credentials are given.
    """

    def __init__(self, credentials: Credentials, web: Web) -> None:
        self._credentials, self._value = credentials, credentials.token
        if not credentials.token:
            if not credentials.token_url or not credentials.client_id or not (credentials.client_secret or credentials.cert_file):
                raise InputError(
                    "There is no token, and no complete client credentials to get one.",
                    "Give token, or token_url, client_id and either client_secret or cert_file, as the service key has them.",
                )
            self._url = checked_url(credentials.token_url, "token_url").removesuffix("/oauth/token") + "/oauth/token"
        self._web = Web(web.ca_file, web.validate_certs, web.timeout_ms, credentials.cert_file or None, credentials.key_file or None)

    def token(self) -> str:
        """A token.

        :raises Refused: the client is refused.
        :raises Unreachable: the token server does not answer.
        """
        if not self._value:
            self._value = self._fetch()
        return self._value

    def renewed(self) -> str:
        """Another token, after one was refused; empty when there is none."""
        if self._credentials.token:
            return ""
        self._value = self._fetch()
        return self._value

    def _fetch(self) -> str:
        given = self._credentials
        form = {"grant_type": "client_credentials"}
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        if given.client_secret:
            headers["Authorization"] = f"Basic {base64.b64encode(f'{given.client_id}:{given.client_secret}'.encode()).decode()}"
        else:
            form["client_id"] = given.client_id
        answer = patiently(lambda: self._web.send("POST", self._url, headers, urlencode(form).encode()))
        if not answer.ok:
            advice = "Correct the client credentials; a service key has them."
            raise Refused(f"{shown(self._url)} gives no token to {given.client_id}: {answer.reason}.", advice)
        found = answer.json()
        if not isinstance(found, dict) or not found.get("access_token"):
            raise Unreachable(f"{shown(self._url)} answers without a token.", "Check token_url: the url in the credentials of the XSUAA binding.")
        return str(found["access_token"])


def patiently(send: Callable[[], Answer]) -> Answer:
    """Send what may be repeated until it is answered by something else than "busy".

    :raises Unreachable: the last attempt failed as well.
    """
    for attempt in range(ATTEMPTS):
        last = attempt + 1 == ATTEMPTS
        try:
            answer = send()
        except Unreachable:
            if last:
                raise
        else:
            if answer.status not in _BUSY:
                return answer
            if last:
                what = f"{shown(answer.url)} answers with status {answer.status}: {answer.reason}."
                raise Unreachable(what, "Look at its log, then run the same task again.")
        time.sleep(PAUSE_S * 2**attempt)
    raise AssertionError("unreachable")


@dataclass(frozen=True)
class Api:
    """A REST interface behind a token.

    :param rights: what a token needs there, for the advice when it is not enough.
    """

    web: Web
    url: str
    tokens: Tokens
    rights: str

    def read(self, path: str) -> Answer:
        """GET, repeated while the other side is busy.

        :raises Unreachable: it does not answer.
        :raises Refused: the token is not accepted.
        """
        return patiently(lambda: self._send("GET", path, {}, None))

    def write(self, method: str, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        """One request that changes something, sent once.

        :raises Unreachable: there was no answer; it may have been executed.
        :raises Refused: the token is not accepted, nothing was done.
        """
        return self._send(method, path, dict(headers or {}), body)

    def _send(self, method: str, path: str, headers: dict[str, str], body: Mapping[str, Any] | None) -> Answer:
        payload = None if body is None else json.dumps(body).encode()
        if payload is not None:
            headers = {**headers, "Content-Type": "application/json"}

        def once(token: str) -> Answer:
            return self.web.send(method, self.url + path, {"Accept": "application/json", "Authorization": f"Bearer {token}", **headers}, payload)

        answer = once(self.tokens.token())
        if answer.status == 401:
            renewed = self.tokens.renewed()
            answer = once(renewed) if renewed else answer
        if answer.status == 401:
            advice = "It has expired, or is of another application: give the right one."
            raise Refused(f"{shown(answer.url)} does not accept the token: {answer.reason}.", advice)
        if answer.status == 403:
            raise Refused(f"{shown(answer.url)} refuses the token: {answer.reason}.", f"The token needs {self.rights}.")
        return answer
