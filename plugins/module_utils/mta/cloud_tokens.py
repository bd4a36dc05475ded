# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where access tokens come from: given, a password, client credentials, or the login of the cf CLI."""

from __future__ import annotations

import base64
import binascii
import json
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from ansible_collections.zdm.landscape.plugins.module_utils.errors import InputError, Refused, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud_http import Http, Tokens

CLI_CLIENT = "cf"
"""The public client of the cf CLI; its secret is empty."""
SPARE_S = 30
"""A token that ends sooner is renewed before it is used."""
_SOURCES = ("token", "client_id", "username", "cf_home")


def claims(token: str) -> dict[str, Any]:
    """What a JWT says, unverified: Cloud Foundry verifies it. Empty for an opaque token."""
    parts = token.split(".")
    try:
        body = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))) if len(parts) == 3 else {}
    except (ValueError, binascii.Error):
        return {}
    return body if isinstance(body, dict) else {}


def user_of(token: str) -> str:
    """How the deploy service calls the token's user: ``user_name``, or the client of client credentials; empty when unknown."""
    said = claims(token)
    return str(said.get("user_name") or said.get("client_id") or "")


def _fresh(token: str) -> bool:
    ends = claims(token).get("exp")
    return bool(token) and (not isinstance(ends, int | float) or ends - time.time() > SPARE_S)


@dataclass
class GivenToken:
    """A token that the caller brought."""

    value: str

    def token(self) -> str:
        return self.value

    def renewed(self) -> str:
        raise Refused("The given token is refused: it has expired, or it is of another Cloud Foundry.", "Give a new one, or let the module log in by itself.")


@dataclass
class Grant:
    """Tokens from UAA for a password or for client credentials.

    :param url: UAA's token endpoint, without ``/oauth/token``.
    :param form: the grant's fields.
    """

    http: Http
    url: str
    form: dict[str, str]
    client: str = CLI_CLIENT
    secret: str = ""
    _value: str = ""

    def token(self) -> str:
        if not _fresh(self._value):
            self._value = str(grant(self.http, self.url, self.form, self.client, self.secret)["access_token"])
        return self._value

    def renewed(self) -> str:
        self._value = ""
        return self.token()


def grant(http: Http, url: str, form: Mapping[str, str], client: str, secret: str) -> dict[str, Any]:
    """Ask UAA for a token.

    :raises Refused: user, password, client or refresh token are wrong.
    :raises Unreachable: UAA does not answer.
    """
    basic = base64.b64encode(f"{client}:{secret}".encode()).decode()
    headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    answer = http.ask("POST", f"{url.rstrip('/')}/oauth/token", headers, lambda: urlencode(form).encode())
    if answer.status in (400, 401, 403):
        raise Refused(f"UAA gives no token for {form['grant_type']}: {answer.text()}.", "Correct the credentials in cloud_foundry, or log in with cf login.")
    body = answer.json() if answer.ok else {}
    if not isinstance(body, dict) or not body.get("access_token"):
        raise Unreachable(f"UAA answers with status {answer.status} and no token.", "Check the API's URL.")
    return body


@dataclass
class CliLogin:
    """The login of the cf CLI, in ``.cf/config.json``; its refresh token gives new access tokens.

    :param home: what ``CF_HOME`` is for the CLI, the folder that holds ``.cf``.
    """

    http: Http
    home: str
    config: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.config = read_login(self.home)

    @property
    def file(self) -> Path:
        return login_file(self.home)

    def token(self) -> str:
        value = str(self.config.get("AccessToken") or "").rpartition(" ")[2]
        return value if _fresh(value) else self.renewed()

    def renewed(self) -> str:
        url = str(self.config.get("AuthorizationEndpoint") or self.config.get("UaaEndpoint") or "")
        client, secret = str(self.config.get("UAAOAuthClient") or CLI_CLIENT), str(self.config.get("UAAOAuthClientSecret") or "")
        refresh = str(self.config.get("RefreshToken") or "")
        if self.config.get("UAAGrantType") == "client_credentials":
            form = {"grant_type": "client_credentials"}
        elif refresh:
            form = {"grant_type": "refresh_token", "refresh_token": refresh}
        else:
            raise InputError(f"{self.file} holds no refresh token.", "Log in with cf login.")
        got = grant(self.http, url, form, client, secret)
        self.config["AccessToken"] = f"{got.get('token_type') or 'bearer'} {got['access_token']}"
        if got.get("refresh_token") and got["refresh_token"] != refresh:
            self.config["RefreshToken"] = got["refresh_token"]
            self._save()
        return str(got["access_token"])

    def _save(self) -> None:
        """Keep a refresh token that replaces the old one: without it the CLI's login would be lost."""
        try:
            handle, scratch = tempfile.mkstemp(prefix="config.", dir=self.file.parent)
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(self.config, stream, indent=2)
            os.replace(scratch, self.file)
        except OSError as error:
            with suppress(OSError, UnboundLocalError):
                os.unlink(scratch)
            raise Refused(f"{self.file} can't be written: {error.strerror}.", "Make it writable: the cf CLI's login has a new refresh token.") from error


def login_file(home: str) -> Path:
    return Path(home).expanduser() / ".cf" / "config.json"


def read_login(home: str) -> dict[str, Any]:
    """What ``cf login`` has left.

    :raises InputError: there is no login.
    """
    file = login_file(home)
    try:
        config = json.loads(file.read_bytes())
    except FileNotFoundError as error:
        advice = "Log in with cf login, or give a token, client_id with client_secret, or username with password."
        raise InputError(f"There is no login of the cf CLI: {file} does not exist.", advice) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{file} can't be read: {error}.", "Log in with cf login again.") from error
    if not isinstance(config, dict) or not config.get("Target") or not (config.get("AccessToken") or config.get("RefreshToken")):
        raise InputError(f"{file} holds no login.", "Log in with cf login.")
    return config


def chosen_source(options: Mapping[str, Any]) -> str:
    """Which of the sources the options name: ``token``, ``client_id``, ``username`` or ``cf_home``, the default.

    :raises InputError: more than one, or half of one.
    """
    given = [name for name in _SOURCES if options.get(name)]
    if len(given) > 1:
        raise InputError(f"cloud_foundry has {' and '.join(given)}.", "Give one source of tokens only.")
    for one, other in (("client_id", "client_secret"), ("username", "password")):
        if bool(options.get(one)) != bool(options.get(other)):
            raise InputError(f"cloud_foundry.{one} and cloud_foundry.{other} belong together.", "Give both, or none of them.")
    if options.get("origin") and not options.get("username"):
        raise InputError("cloud_foundry.origin is given without username.", "It names the identity provider of a user: give username and password.")
    return given[0] if given else "cf_home"


def token_source(options: Mapping[str, Any], http: Http, uaa: str) -> Tokens:
    """The source that the options name, except the CLI's login.

    :param uaa: the login endpoint in the API's root document.
    """
    source = chosen_source(options)
    if source == "token":
        return GivenToken(str(options["token"]).rpartition(" ")[2])
    if source == "client_id":
        return Grant(http, uaa, {"grant_type": "client_credentials"}, options["client_id"], options["client_secret"])
    form = {"grant_type": "password", "username": options["username"], "password": options["password"]}
    if options.get("origin"):
        form["login_hint"] = json.dumps({"origin": options["origin"]})
    return Grant(http, uaa, form)
