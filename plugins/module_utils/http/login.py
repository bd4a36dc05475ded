# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A login through an approuter and XSUAA's form, as a person's browser does it: finds what a health check does not,
above all a broken session store.

An approuter whose Redis is down or refuses its password starts, serves its public routes, and ends every login with
401.
"""

from __future__ import annotations

import html
import re
import time
from dataclasses import dataclass, field
from email.message import Message
from html.parser import HTMLParser
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import quote, urlencode, urljoin, urlsplit
from urllib.request import Request

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import OutcomeUnknown, sentence
from ansible_collections.zdm.landscape.plugins.module_utils.http.web import Answer, Web, shown

OK = "logged_in"
APP_DOWN = "app_down"
NOT_PROTECTED = "not_protected"
IDP_UNREACHABLE = "identity_provider_unreachable"
IDP_REFUSES = "identity_provider_refuses"
CREDENTIALS = "credentials_refused"
FORM = "form_unknown"
CALLBACK = "callback_failed"
SESSION = "session_lost"
FORBIDDEN = "forbidden"
_ADVICE = {
    APP_DOWN: "Look at the application's log, and at its route.",
    NOT_PROTECTED: "Name a path that needs a login.",
    IDP_UNREACHABLE: "Look whether the identity provider is up and reached from here; the application may be well.",
    IDP_REFUSES: (
        "Compare the redirect-uris of the application's security descriptor with its URL, and the client in its"
        " binding."
    ),
    CREDENTIALS: (
        "Correct the user and the password of the test user; look whether it is locked or must change its password."
    ),
    FORM: "Use a test user of the default identity provider: other pages and second factors can't be filled in.",
    CALLBACK: "Look at the approuter's log: it could not exchange the code for a token.",
    SESSION: (
        "The session store is not used as it should: check the Redis binding, its password and EXT_SESSION_MGT. Do not"
        " let users onto this version."
    ),
    FORBIDDEN: "The login works; give the test user the role for this path, or name another one.",
}
_HOPS = 20
_AGENT = "Mozilla/5.0 (zdm.landscape)"  # The approuter treats other programs as no browser.
_SCRIPT_COOKIE = re.compile(r'document\.cookie="([^="]+)=([^"]*)"(\+encodeURIComponent\(location\.(hash|href)[^;]*)?')
_SCRIPT_LOCATION = re.compile(r'[^.\w]location="(https?://[^"]+)"')
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True)
class Hop:
    """One request of the login: ``url`` without its query, ``status`` 0 when there was no answer."""

    method: str
    url: str
    status: int
    ms: int


@dataclass(frozen=True)
class Result:
    """How a login ended. ``verdict`` is :data:`OK` or names what is broken."""

    verdict: str
    message: str
    hops: tuple[Hop, ...]
    advice: str = ""

    @property
    def logged_in(self) -> bool:
        return self.verdict == OK


class _Broken(Exception):
    """The login ends here."""

    def __init__(self, verdict: str, message: str) -> None:
        super().__init__(message)
        self.verdict = verdict


@dataclass
class _Form:
    action: str = ""
    method: str = "GET"
    fields: dict[str, str] = field(default_factory=dict)
    user: str = ""
    password: str = ""
    """Names of the fields for the user and the password."""


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[_Form] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(_Form(given.get("action", ""), given.get("method", "GET").upper()))
        elif tag == "input" and self.forms and given.get("name"):
            form, name, kind = self.forms[-1], given["name"], given.get("type", "text").lower()
            if kind == "password":
                form.password = form.password or name
            elif kind in ("text", "email"):
                form.user = form.user or name
            elif kind == "hidden":
                form.fields[name] = given.get("value", "")


class _Browser:
    def __init__(self, web: Web, start: str, username: str, password: str) -> None:
        self._web, self._start, self._username, self._password = web, start, username, password
        self._app = urlsplit(start).netloc
        self._submitted = False
        self.hops: list[Hop] = []

    def login(self) -> None:
        """Log in and come back to the page.

        :raises _Broken: it does not work.
        """
        page = self._get(self._start)
        if page.status not in (401, *_REDIRECTS) and not _is_login_page(page):
            verdict, what = (
                (NOT_PROTECTED, "answers without a login.")
                if page.ok
                else (APP_DOWN, f"answers with status {page.status}: {page.said}")
            )
            raise _Broken(verdict, f"{shown(self._start)} {what}")
        came_back = False
        while len(self.hops) < _HOPS:
            here = urlsplit(page.url).netloc == self._app
            if came_back and here and (page.status == 401 or _is_login_page(page)):
                raise _Broken(
                    SESSION,
                    f"The identity provider accepted the user, but {shown(page.url)} does not know the session.",
                )
            following = self._next(page, here)
            if following is None:
                return
            came_back = came_back or (not here and urlsplit(following.url).netloc == self._app)
            page = following
        raise _Broken(SESSION, f"The login goes round and round: {_HOPS} requests.")

    def again(self) -> None:
        """Ask for the page once more: what the login brought must be kept.

        :raises _Broken: it is not.
        """
        page = self._get(self._start)
        if page.status == 401 or _is_login_page(page) or page.status in _REDIRECTS:
            raise _Broken(
                SESSION, f"{shown(self._start)} asks for a login again right after one: the session is not kept."
            )
        if page.status != 200:
            raise _Broken(
                APP_DOWN,
                f"{shown(self._start)} answers with status {page.status} at the second request: {page.said}",
            )

    def _next(self, page: Answer, here: bool) -> Answer | None:
        if page.status in _REDIRECTS and page.headers.get("Location"):
            return self._get(urljoin(page.url, str(page.headers["Location"])))
        if here:
            return self._next_of_application(page)
        return self._next_of_provider(page)

    def _next_of_application(self, page: Answer) -> Answer | None:
        if _is_login_page(page):
            self._run_script(page)
            target = _SCRIPT_LOCATION.findall(page.text)
            if not target:
                raise _Broken(FORM, f"The login page of {shown(page.url)} leads nowhere.")
            return self._get(html.unescape(target[-1]))
        if page.status == 403:
            raise _Broken(
                FORBIDDEN,
                f"{shown(page.url)} refuses the user who is logged in: {sentence(page.reason or 'Forbidden')}",
            )
        if page.ok and urlsplit(page.url).path == urlsplit(self._start).path:
            return None
        if urlsplit(page.url).query.find("code=") >= 0:
            raise _Broken(CALLBACK, f"The callback {shown(page.url)} answers with status {page.status}: {page.said}")
        raise _Broken(APP_DOWN, f"{shown(page.url)} answers with status {page.status} after the login: {page.said}")

    def _next_of_provider(self, page: Answer) -> Answer:
        if page.status >= 500:
            raise _Broken(IDP_UNREACHABLE, f"{shown(page.url)} answers with status {page.status}: {page.said}")
        if not page.ok:
            raise _Broken(
                CREDENTIALS if self._submitted else IDP_REFUSES,
                f"{shown(page.url)} answers with status {page.status}: {page.said}",
            )
        parser = _Forms()
        parser.feed(page.text)
        form = next((form for form in parser.forms if form.password), None)
        if form is not None:
            if self._submitted:
                raise _Broken(CREDENTIALS, f"{shown(page.url)} refuses the password of the test user.")
            self._submitted = True
            return self._submit(page, form, {form.user: self._username, form.password: self._password})
        relay = next((form for form in parser.forms if {"SAMLRequest", "SAMLResponse"} & set(form.fields)), None)
        if relay is None:
            raise _Broken(FORM, f"{shown(page.url)} shows neither a form with a password nor a way on.")
        return self._submit(page, relay, {})

    def _submit(self, page: Answer, form: _Form, typed: dict[str, str]) -> Answer:
        fields = {**form.fields, **{name: value for name, value in typed.items() if name}}
        return self._send("POST", urljoin(page.url, form.action), urlencode(fields).encode())

    def _run_script(self, page: Answer) -> None:
        """Set the cookies that the page's script sets: where the user wanted to go, the fragment, and a signature."""
        parts = urlsplit(page.url)
        path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        message = Message()
        for name, literal, _expression, source in _SCRIPT_COOKIE.findall(page.text):
            value = {"hash": "", "href": quote(path, safe="")}.get(source, literal.partition(";")[0])
            message["Set-Cookie"] = f"{name}={value}; path=/"
        self._web.cookies.extract_cookies(_Scripted(message), Request(page.url))  # type: ignore[arg-type]

    def _get(self, url: str) -> Answer:
        return self._send("GET", url)

    def _send(self, method: str, url: str, body: bytes | None = None) -> Answer:
        headers = {"Accept": "text/html,application/json"}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        start = time.monotonic()
        status = 0
        try:
            answer = self._web.send(method, url, headers, body)
            status = answer.status
        except OutcomeUnknown as error:
            raise _Broken(APP_DOWN if urlsplit(url).netloc == self._app else IDP_UNREACHABLE, error.message) from error
        finally:
            self.hops.append(Hop(method, shown(url), status, round((time.monotonic() - start) * 1000)))
        return answer


class _Scripted:
    """What a cookie jar needs of an answer."""

    def __init__(self, message: Message) -> None:
        self._message = message

    def info(self) -> Message:
        return self._message


def _is_login_page(page: Answer) -> bool:
    """Whether this is the approuter's page whose script sets cookies and leads to the identity provider."""
    return page.status == 200 and "document.cookie=" in page.text and "location=" in page.text


def _jar(url: str) -> CookieJar:
    """As browsers do, cookies marked Secure are kept without TLS on this machine only; the approuter marks its own so
    whatever it is told.
    """
    name = urlsplit(url).hostname or ""
    here = name in ("localhost", "127.0.0.1", "::1") or name.endswith(".localhost")
    return CookieJar(DefaultCookiePolicy(secure_protocols=("https", "http") if here else ("https",)))


def log_in(
    url: str,
    username: str,
    password: str,
    *,
    ca_file: str | None = None,
    validate_certs: bool = True,
    timeout_ms: int = 30_000,
) -> Result:
    """Log a test user in at a page that needs it, and ask for the page once more.

    :param url: the page; its host is the approuter's.
    :param timeout_ms: how long one answer may take.
    """
    web = Web(ca_file, validate_certs, timeout_ms / 1000, cookies=_jar(url), agent=_AGENT)
    browser = _Browser(web, url, username, password)
    try:
        browser.login()
        browser.again()
    except _Broken as broken:
        return Result(broken.verdict, str(broken), tuple(browser.hops), _ADVICE[broken.verdict])
    return Result(OK, f"{shown(url)} keeps the session of the user who logged in.", tuple(browser.hops))
