# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for XSUAA: login form, authorization code with PKCE, client credentials (secret or X.509), refresh; RS256
and JWKS; several zones.

It is strict where XSUAA is: it refuses unknown clients, redirects that the client has not registered, codes used twice
or by another client or with another verifier or redirect, wrong secrets and wrong CSRF tokens. It is no XSUAA: there is
no trust to other identity providers, no role collection and no consent. A zone is the first label of the host name
(``t1.localhost``); ``localhost`` is the application's own zone.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
import secrets
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from ..landscape.keys import Certificates
from .standin import Answer, Request, StandIn

KEY_ID = "key-id-0"
LIFE_S = 43_200
CSRF = "X-Uaa-Csrf"
_FORM = """<!DOCTYPE html>
<html><head><title>Sign in</title></head><body>{error}
<form action="/login.do" method="post" novalidate="novalidate">
<input type="hidden" name="{csrf}" value="{token}"/>
<input name="username" type="text" placeholder="Email" autocomplete="off"/>
<input name="password" type="password" placeholder="Password" autocomplete="off"/>
<input type="submit" value="Sign in"/>
</form></body></html>"""


@dataclass(frozen=True)
class Client:
    """An OAuth client, as a service binding brings it.

    :param scopes: what client credentials bring; local names get the application's name in front.
    :param redirect_uris: as in xs-security.json; ``*`` stands for characters other than a slash, ``**`` for all.
    :param certificate: the common name of its X.509 certificate; then there is no secret.
    """

    id: str
    secret: str = ""
    scopes: tuple[str, ...] = ()
    redirect_uris: tuple[str, ...] = ()
    certificate: str = ""

    def allows(self, uri: str) -> bool:
        return any(_pattern(pattern).fullmatch(uri.partition("?")[0]) for pattern in self.redirect_uris)


def _pattern(text: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", text)
    return re.compile("".join({"**": ".*", "*": "[^/]*"}.get(part, re.escape(part)) for part in parts))


@dataclass
class _Code:
    query: Mapping[str, str]
    zone: str
    user: str


class Xsuaa(StandIn):
    """The identity zone of an application and those of its subscribers.

    :param certificates: what its TLS uses; clients of it must trust ``certificates.authority``.
    :param application: ``xsappname``.
    :param zones: subdomain → id of every zone; the first is the application's own.
    :param users: name → password; they are the same in all zones.
    """

    def __init__(
        self,
        certificates: Certificates,
        application: str,
        clients: Iterable[Client],
        zones: Mapping[str, str],
        users: Mapping[str, str],
    ) -> None:
        super().__init__(str(certificates.router), str(certificates.authority))
        self.certificates, self.application, self.zones, self.users = (
            certificates,
            application,
            dict(zones),
            dict(users),
        )
        self.clients = {client.id: client for client in clients}
        self.own_zone = next(iter(self.zones))
        self.domain = f"localhost:{self.port}"
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._codes: dict[str, _Code] = {}
        self._refreshes: dict[str, _Code] = {}
        self._logins: dict[str, str] = {}
        self._waiting: dict[str, str] = {}

    def credentials(self, client_id: str, *, shared: bool = False) -> dict[str, Any]:
        """The credentials of a service binding; :param shared: the application serves the zones of all subscribers."""
        client = self.clients[client_id]
        own = self.zones[self.own_zone]
        return {
            "clientid": client.id,
            "clientsecret": client.secret,
            "xsappname": self.application,
            "url": self.url,
            "uaadomain": "localhost" if shared else self.domain,
            "identityzone": self.own_zone,
            "identityzoneid": own,
            "tenantid": own,
            "zoneid": own,
            "tenantmode": "shared" if shared else "dedicated",
        }

    def token(self, client_id: str, zone: str = "", user: str = "", life_s: int = LIFE_S) -> str:
        """An access token as a login or client credentials would bring it."""
        return str(self._issue(self.clients[client_id], zone or self.own_zone, user, life_s)["access_token"])

    def claims(self, token: str) -> dict[str, Any]:
        """What a token says.

        :raises jwt.InvalidTokenError: it is not ours, expired, or not for this application.
        """
        return dict(jwt.decode(token, self._key.public_key(), algorithms=["RS256"], audience=self.application))

    def forget_logins(self) -> None:
        """Whoever comes back has to fill in the form again."""
        self._logins.clear()

    def answer(self, request: Request) -> Answer:
        label, dot, _rest = request.host.partition(".")
        zone = label if dot and request.host.endswith(".localhost") else self.own_zone
        pages = {
            ("GET", "/oauth/authorize"): self._authorize,
            ("GET", "/login"): self._form,
            ("POST", "/login.do"): self._login,
            ("POST", "/oauth/token"): self._token,
            ("GET", "/token_keys"): self._keys,
        }
        page = pages.get((request.method, request.path))
        if zone not in self.zones or page is None:
            return Answer(
                404,
                {
                    "error": "not_found",
                    "error_description": f"no zone {zone} or no page {request.method} {request.path}",
                },
            )
        return page(request, zone)

    def _authorize(self, request: Request, zone: str) -> Answer:
        query = request.query
        client = self.clients.get(query.get("client_id", ""))
        if client is None:
            return Answer(401, {"error": "invalid_client", "error_description": "No such client."})
        if not client.allows(query.get("redirect_uri", "")):
            return Answer(
                400, {"error": "invalid_request", "error_description": f"Invalid redirect {query.get('redirect_uri')}."}
            )
        if query.get("response_type") != "code" or query.get("code_challenge_method", "S256") != "S256":
            return Answer(400, {"error": "unsupported_response_type"})
        session = _cookie(request, "JSESSIONID")
        user = self._logins.get(session)
        if user is None:
            session = secrets.token_hex(16)
            self._waiting[session] = request.target
            return Answer(
                302,
                None,
                {
                    "location": f"{self._origin(request)}/login",
                    "set-cookie": f"JSESSIONID={session}; Path=/; HttpOnly; Secure",
                },
            )
        code = secrets.token_urlsafe(12)
        self._codes[code] = _Code(query, zone, user)
        target = query["redirect_uri"]
        answer = urlencode({"code": code, **({"state": query["state"]} if "state" in query else {})})
        return Answer(302, None, {"location": f"{target}{'&' if '?' in target else '?'}{answer}"})

    def _form(self, request: Request, zone: str) -> Answer:
        token = secrets.token_urlsafe(12)
        error = "<p>Unable to verify email or password. Please try again.</p>" if "error" in request.query else ""
        page = _FORM.format(csrf=CSRF, token=html.escape(token), error=error)
        return Answer(200, page, {"set-cookie": f"{CSRF}={token}; Path=/; HttpOnly; Secure"})

    def _login(self, request: Request, zone: str) -> Answer:
        form, session = request.form, _cookie(request, "JSESSIONID")
        if not form.get(CSRF) or form[CSRF] != _cookie(request, CSRF):
            return Answer(403, {"error": "forbidden", "error_description": "invalid CSRF token"})
        if not form.get("password") or self.users.get(form.get("username", "")) != form["password"]:
            return Answer(302, None, {"location": f"{self._origin(request)}/login?error=login_failure"})
        self._logins[session] = form["username"]
        return Answer(302, None, {"location": self._origin(request) + self._waiting.pop(session, "/")})

    def _token(self, request: Request, zone: str) -> Answer:
        form = request.form
        client = self._authenticated(request, form)
        if client is None:
            return Answer(401, {"error": "unauthorized", "error_description": "Bad credentials"})
        grant = form.get("grant_type")
        if grant == "client_credentials":
            return Answer(200, self._issue(client, zone))
        if grant == "authorization_code":
            code = self._codes.pop(form.get("code", ""), None)
            if (
                code is None
                or code.query["client_id"] != client.id
                or code.query["redirect_uri"] != form.get("redirect_uri")
                or not _verified(code, form)
            ):
                return Answer(
                    400,
                    {
                        "error": "invalid_grant",
                        "error_description": "Invalid authorization code, redirect or code verifier",
                    },
                )
            return Answer(200, self._issue(client, code.zone, code.user))
        if grant == "refresh_token":
            known = self._refreshes.get(form.get("refresh_token", ""))
            return (
                Answer(200, self._issue(client, known.zone, known.user))
                if known
                else Answer(401, {"error": "invalid_token"})
            )
        return Answer(400, {"error": "unsupported_grant_type", "error_description": f"Unsupported grant type {grant}"})

    def _authenticated(self, request: Request, form: Mapping[str, str]) -> Client | None:
        given_id, secret = form.get("client_id", ""), form.get("client_secret", "")
        kind, found, encoded = request.headers.get("authorization", "").partition(" ")
        if found and kind.lower() == "basic":
            given_id, _colon, secret = (
                unquote_plus(part) for part in base64.b64decode(encoded).decode().partition(":")
            )
        client = self.clients.get(given_id)
        if client is None:
            return None
        return (
            client
            if (
                request.peer_name == client.certificate
                if client.certificate
                else secrets.compare_digest(secret, client.secret)
            )
            else None
        )

    def _issue(self, client: Client, zone: str, user: str = "", life_s: int = LIFE_S) -> dict[str, Any]:
        now, grant = int(time.time()), "authorization_code" if user else "client_credentials"
        names = ("openid", "User") if user else client.scopes
        scopes = [name if name in ("openid", "uaa.resource") else f"{self.application}.{name}" for name in names]
        claims: dict[str, Any] = {
            "jti": uuid.uuid4().hex,
            "iss": f"https://{zone}.{self.domain}/oauth/token",
            "sub": user or client.id,
            "client_id": client.id,
            "cid": client.id,
            "azp": client.id,
            "grant_type": grant,
            "iat": now,
            "exp": now + life_s,
            "zid": self.zones[zone],
            "aud": [client.id, self.application],
            "scope": scopes,
            "ext_attr": {"enhancer": "XSUAA", "zdn": zone, "subaccountid": self.zones[zone]},
        }
        answer: dict[str, Any] = {
            "token_type": "bearer",
            "expires_in": life_s,
            "scope": " ".join(scopes),
            "jti": claims["jti"],
        }
        if user:
            person = str(uuid.uuid5(uuid.NAMESPACE_DNS, user))
            claims.update(
                user_name=user, email=user, user_uuid=person, origin="sap.default", given_name="A", family_name="B"
            )
            refresh = f"{secrets.token_hex(16)}-r"
            self._refreshes[refresh] = _Code({}, zone, user)
            answer["refresh_token"] = refresh
        header = {"kid": KEY_ID, "jku": f"{self.url}/token_keys"}
        token = jwt.encode(claims, self._key, algorithm="RS256", headers=header)
        return {"access_token": token, **answer, **({"id_token": token} if user else {})}

    def _keys(self, request: Request, zone: str) -> Answer:
        numbers = self._key.public_key().public_numbers()
        key = {
            "kty": "RSA",
            "use": "sig",
            "alg": "RS256",
            "kid": KEY_ID,
            "n": _base64(numbers.n),
            "e": _base64(numbers.e),
        }
        return Answer(200, {"keys": [key]})

    def _origin(self, request: Request) -> str:
        return f"https://{urlsplit('//' + request.headers['host']).netloc}"


def _verified(code: _Code, form: Mapping[str, str]) -> bool:
    """Whether the verifier belongs to the challenge with which the code was asked for (RFC 7636)."""
    challenge = code.query.get("code_challenge")
    if challenge is None:
        return "code_verifier" not in form
    digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
    return secrets.compare_digest(base64.urlsafe_b64encode(digest).rstrip(b"=").decode(), challenge)


def _base64(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8, "big")).rstrip(b"=").decode()


def _cookie(request: Request, name: str) -> str:
    pairs = (part.strip().partition("=") for part in request.headers.get("cookie", "").split(";"))
    return next((value for key, _equals, value in pairs if key == name), "")
