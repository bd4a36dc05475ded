# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests with a token, to the sidecar and to the registries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, Refused
from ansible_collections.zdm.landscape.plugins.module_utils.http.tokens import GivenToken, Grant, Signed, Tokens
from ansible_collections.zdm.landscape.plugins.module_utils.http.web import Answer, Web, checked_url, shown


def token_source(options: Mapping[str, Any], web: Web) -> Tokens:
    """The token that the options give, or client credentials.

    :raises InputError: neither a token nor complete client credentials are given.
    """
    if options.get("token"):
        return GivenToken(str(options["token"]))
    url, client, secret, certificate = (
        str(options.get(name) or "") for name in ("token_url", "client_id", "client_secret", "cert_file")
    )
    if not url or not client or not (secret or certificate):
        raise InputError(
            "There is no token, and no complete client credentials to get one.",
            "Give token, or token_url, client_id and either client_secret or cert_file, as the service key has them.",
        )
    place = checked_url(url, "token_url").removesuffix("/oauth/token")
    certified = replace(web, cert_file=certificate or None, key_file=options.get("key_file"))
    return Grant(certified, place, {"grant_type": "client_credentials"}, client, secret)


@dataclass(frozen=True)
class Api:
    """A REST interface behind a token.

    :param rights: what a token needs there, for the advice when it is not enough.
    """

    signed: Signed
    url: str
    rights: str

    def read(self, path: str) -> Answer:
        """GET, repeated while the other side is busy.

        :raises Unreachable: it does not answer.
        :raises Refused: the token is not accepted.
        """
        return self._allowed(self.signed.ask("GET", self.url + path, {"Accept": "application/json"}))

    def write(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request that changes something, sent once.

        :raises OutcomeUnknown: there was no answer; it may have been executed.
        :raises Refused: the token is not accepted, nothing was done.
        """
        kind = {} if body is None else {"Content-Type": "application/json"}
        payload = None if body is None else lambda: json.dumps(body).encode()
        return self._allowed(
            self.signed.send(
                method, self.url + path, {"Accept": "application/json", **kind, **(headers or {})}, payload
            )
        )

    def _allowed(self, answer: Answer) -> Answer:
        if answer.status == 403:
            raise Refused(f"{shown(answer.url)} refuses the token: {answer.said}", f"The token needs {self.rights}.")
        return answer
