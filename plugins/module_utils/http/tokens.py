# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Access tokens (OAuth 2.0, RFC 6749 and RFC 8705): given, or from UAA for a grant; and requests with them."""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlencode

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.http.web import Answer, Body, Web, shown

SPARE_S = 30
"""A token that ends sooner is renewed before it is used."""


class Tokens(Protocol):
    """A source of access tokens."""

    def token(self) -> str:
        """A token that is believed to be valid.

        :raises Refused: there can't be one.
        :raises Unreachable: nobody issues one now.
        """

    def renewed(self) -> str:
        """A new token, after one was refused; empty when there is none. Raises as :meth:`token`."""


def claims(token: str) -> dict[str, Any]:
    """What a JWT says, unverified: who gets it verifies it. Empty for an opaque token."""
    parts = token.split(".")
    try:
        body = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))) if len(parts) == 3 else {}
    except (ValueError, binascii.Error):
        return {}
    return body if isinstance(body, dict) else {}


def fresh(token: str) -> bool:
    """Whether there is a token, and it does not end soon."""
    ends = claims(token).get("exp")
    return bool(token) and (not isinstance(ends, int | float) or ends - time.time() > SPARE_S)


@dataclass
class GivenToken:
    """A token that the caller brought."""

    value: str

    def token(self) -> str:
        return self.value

    def renewed(self) -> str:
        return ""


@dataclass
class Grant:
    """Tokens from UAA for a password or for client credentials.

    :param web: with the client's certificate where it has no secret.
    :param url: UAA's URL, without ``/oauth/token``.
    :param form: the grant's fields.
    """

    web: Web
    url: str
    form: Mapping[str, str]
    client: str
    secret: str = ""
    _value: str = ""

    def token(self) -> str:
        if not fresh(self._value):
            self._value = str(grant(self.web, self.url, self.form, self.client, self.secret)["access_token"])
        return self._value

    def renewed(self) -> str:
        self._value = ""
        return self.token()


def grant(web: Web, url: str, form: Mapping[str, str], client: str, secret: str) -> dict[str, Any]:
    """Ask UAA for a token. A client whose certificate *web* sends has no secret, and names itself in the form.

    :raises Refused: user, password, client or refresh token are wrong.
    :raises Unreachable: UAA does not answer.
    """
    headers, form = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}, dict(form)
    if web.cert_file:
        form["client_id"] = client
    else:
        headers["Authorization"] = f"Basic {base64.b64encode(f'{client}:{secret}'.encode()).decode()}"
    answer = web.ask("POST", f"{url.rstrip('/')}/oauth/token", headers, lambda: urlencode(form).encode())
    if answer.status in (400, 401, 403):
        advice = (
            "Correct the credentials; those of a client are in its service key, those of the cf CLI come from cf login."
        )
        raise Refused(f"UAA gives no token for {form['grant_type']} to {client}: {answer.said}", advice)
    body = answer.json() if answer.ok else {}
    if not isinstance(body, dict) or not body.get("access_token"):
        raise Unreachable(
            f"{shown(answer.url)} answers with status {answer.status} and without a token.",
            "Check the URL of UAA, or of the API.",
        )
    return body


@dataclass(frozen=True)
class Signed:
    """Requests with a token; one that is refused is renewed, and the request is repeated once: it was not executed."""

    web: Web
    tokens: Tokens

    def ask(self, method: str, url: str, headers: Mapping[str, str] | None = None, body: Body | None = None) -> Answer:
        """As :meth:`Web.ask`.

        :raises Refused: the token is not accepted.
        """
        return self._twice(lambda token: self.web.ask(method, url, {**(headers or {}), **token}, body))

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """As :meth:`Web.send`.

        :raises Refused: the token is not accepted, nothing was done.
        """
        return self._twice(
            lambda token: self.web.send(method, url, {**(headers or {}), **token}, body() if body else None, timeout_s)
        )

    def _twice(self, send: Callable[[dict[str, str]], Answer]) -> Answer:
        answer = send({"Authorization": f"Bearer {self.tokens.token()}"})
        renewed = self.tokens.renewed() if answer.status == 401 else ""
        if renewed:
            answer = send({"Authorization": f"Bearer {renewed}"})
        if answer.status == 401:
            advice = (
                "It has expired, or is of another application or landscape: give the right one, or credentials to get"
                " one."
            )
            raise Refused(f"{shown(answer.url)} does not accept the token: {answer.said}", advice)
        return answer
