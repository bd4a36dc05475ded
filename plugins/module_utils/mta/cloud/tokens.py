# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where access tokens come from: given, a password, client credentials, or the login of the cf CLI."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, Refused
from ansible_collections.zdm.landscape.plugins.module_utils.http.tokens import (
    GivenToken,
    Tokens,
    claims,
    fresh,
    grant,
)
from ansible_collections.zdm.landscape.plugins.module_utils.http.web import Web

CLI_CLIENT = "cf"
"""The public client of the cf CLI; its secret is empty."""
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
"""The grant of RFC 7523: the token of an identity provider that UAA trusts for one of UAA."""
USERS_ONLY = (
    "The deploy service works for users only: give username and password with the origin of a technical user, a"
    " passcode, an assertion (the token of an identity provider), or the login of the cf CLI."
)
_SOURCES = ("token", "assertion", "username", "passcode", "cf_home")


def user_of(token: str) -> str:
    """How the deploy service calls the token's user; empty when unknown."""
    return str(claims(token).get("user_name") or "")


@dataclass
class UserGrant:
    """Tokens of a user, renewed by the refresh token that came with the first: a passcode counts once, an assertion
    ends soon.

    :param uaa: UAA's URL, without ``/oauth/token``.
    :param form: the fields of the first grant.
    """

    web: Web
    uaa: str
    form: Mapping[str, str] = field(repr=False)
    client: str
    secret: str = field(repr=False)
    _value: str = field(default="", repr=False)
    _refresh: str = field(default="", repr=False)

    def token(self) -> str:
        return self._value if fresh(self._value) else self.renewed()

    def renewed(self) -> str:
        got = self._refreshed() if self._refresh else None
        got = got or grant(self.web, self.uaa, self.form, self.client, self.secret)
        self._refresh = str(got.get("refresh_token") or self._refresh)
        self._value = str(got["access_token"])
        return self._value

    def _refreshed(self) -> dict[str, Any] | None:
        form = {"grant_type": "refresh_token", "refresh_token": self._refresh}
        try:
            return grant(self.web, self.uaa, form, self.client, self.secret)
        except Refused:
            self._refresh = ""
            return None


@dataclass
class CliLogin:
    """The login of the cf CLI, in ``.cf/config.json``; its refresh token gives new access tokens.

    :param home: what ``CF_HOME`` is for the CLI, the folder that holds ``.cf``.
    """

    web: Web
    home: str
    config: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.config = read_login(self.home)

    @property
    def file(self) -> Path:
        return login_file(self.home)

    def token(self) -> str:
        value = str(self.config.get("AccessToken") or "").rpartition(" ")[2]
        return value if fresh(value) else self.renewed()

    def renewed(self) -> str:
        url = str(self.config.get("AuthorizationEndpoint") or self.config.get("UaaEndpoint") or "")
        client, secret = (
            str(self.config.get("UAAOAuthClient") or CLI_CLIENT),
            str(self.config.get("UAAOAuthClientSecret") or ""),
        )
        refresh = str(self.config.get("RefreshToken") or "")
        if self.config.get("UAAGrantType") == "client_credentials":
            raise InputError(f"{self.file} holds the login of client {client}, and of no user.", USERS_ONLY)
        if refresh:
            form = {"grant_type": "refresh_token", "refresh_token": refresh}
        else:
            raise InputError(f"{self.file} holds no refresh token.", "Log in with cf login.")
        got = grant(self.web, url, form, client, secret)
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
            raise Refused(
                f"{self.file} can't be written: {error.strerror}.",
                "Make it writable: the cf CLI's login has a new refresh token.",
            ) from error


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
        advice = "Log in with cf login, or give a token, a passcode, an assertion, or username with password."
        raise InputError(f"There is no login of the cf CLI: {file} does not exist.", advice) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{file} can't be read: {error}.", "Log in with cf login again.") from error
    if (
        not isinstance(config, dict)
        or not config.get("Target")
        or not (config.get("AccessToken") or config.get("RefreshToken"))
    ):
        raise InputError(f"{file} holds no login.", "Log in with cf login.")
    return config


def chosen_source(options: Mapping[str, Any]) -> str:
    """Which of the sources the options name: ``token``, ``assertion``, ``username``, ``passcode`` or ``cf_home``, the
    default.

    :raises InputError: more than one, half of one, or credentials of a client alone.
    """
    given = [name for name in _SOURCES if options.get(name)]
    if len(given) > 1:
        raise InputError(f"cloud_foundry has {' and '.join(given)}.", "Give one source of tokens only.")
    for one, other in (("client_id", "client_secret"), ("username", "password")):
        if bool(options.get(one)) != bool(options.get(other)):
            raise InputError(
                f"cloud_foundry.{one} and cloud_foundry.{other} belong together.", "Give both, or none of them."
            )
    if options.get("client_id") and not options.get("assertion"):
        raise InputError("cloud_foundry.client_id is given without assertion: its token is no user's.", USERS_ONLY)
    if options.get("origin") and not {"username", "assertion"} & set(given):
        raise InputError(
            "cloud_foundry.origin is given without username.",
            "It names the identity provider of a user: give username and password.",
        )
    return given[0] if given else "cf_home"


def token_source(options: Mapping[str, Any], web: Web, uaa: str) -> Tokens:
    """The source that the options name, except the CLI's login.

    :param uaa: the login endpoint in the API's root document.
    """
    source = chosen_source(options)
    if source == "token":
        return GivenToken(str(options["token"]).rpartition(" ")[2])
    client, secret = CLI_CLIENT, ""
    form = {"grant_type": "password"}
    if source == "username":
        form |= {"username": options["username"], "password": options["password"]}
    elif source == "passcode":
        form |= {"passcode": options["passcode"]}
    else:
        form = {"grant_type": JWT_BEARER, "assertion": options["assertion"]}
        client, secret = options.get("client_id") or client, options.get("client_secret") or ""
    if options.get("origin"):
        form["login_hint"] = json.dumps({"origin": options["origin"]})
    return UserGrant(web, uaa, form, client, secret)


def check_user(token: str) -> None:
    """Refuse a token that is no user's, before anything is uploaded: the deploy service looks up the rights of the
    token's ``user_id`` (multiapps-controller), and fails with status 500 where there is none.

    :raises InputError: it is a client's. An opaque token can't be judged.
    """
    said = claims(token)
    if said and not said.get("user_id"):
        client = said.get("client_id") or said.get("sub") or "unknown"
        raise InputError(f"The access token is of client {client}, and of no user.", USERS_ONLY)
