# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small browser: a user who is logged in at the approuter through the XSUAA's form and keeps working.

It sends every request once. Where a request to the application goes is asked for each of them: that is the platform's
route, which a deployment moves from one approuter to the other while the name of the host stays.
"""

from __future__ import annotations

import html
import http.client
import re
import socket
import ssl
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

from ..landscape.processes import PATIENCE_S, wait_until
from .standin import HOST

_HOPS = 12
_SCRIPT_COOKIE = re.compile(r'document\.cookie="([^="]+)=([^"]*)"')
_SCRIPT_LOCATION = re.compile(r'location="(https?://[^"]+)"')
_INPUT = re.compile(r"<input\b[^>]*>")


class Route:
    """The port behind a host's name; it counts the requests in flight at each port, so that one can be drained."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._lock = threading.Lock()
        self._flying: dict[int, int] = defaultdict(int)
        self.served: dict[int, int] = defaultdict(int)
        """Requests that were sent to each port."""

    def move(self, port: int) -> None:
        """Send new requests to another port."""
        with self._lock:
            self._port = port

    @contextmanager
    def take(self) -> Iterator[int]:
        with self._lock:
            port = self._port
            self._flying[port] += 1
            self.served[port] += 1
        try:
            yield port
        finally:
            with self._lock:
                self._flying[port] -= 1

    def flying(self, port: int) -> int:
        with self._lock:
            return self._flying[port]

    def drain(self, port: int) -> None:
        """Wait until no request is in flight at *port*."""
        wait_until(lambda: not self.flying(port), f"requests at port {port} end")


@dataclass(frozen=True)
class Page:
    """What came back. Names of ``headers`` are in lower case."""

    url: str
    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def wants_login(self) -> bool:
        """Whether this is the approuter's page that leads a browser to the login."""
        return self.status == 200 and "document.cookie" in self.text


class LoginFailed(Exception):
    """The login did not lead back to the page."""


class Browser:
    """One user at one application.

    :param host: the application's name, with port: what stands in the address bar. The name is not looked up.
    :param route: where requests to it go.
    :param authority: PEM file of the authority of the XSUAA's certificate.
    :param password: what the user fills into the form.
    :param scheme: of the application's URLs, ``http`` or ``https``.
    """

    def __init__(
        self,
        host: str,
        route: Route,
        authority: Path,
        user: str = "",
        password: str = "",
        timeout_s: float = PATIENCE_S,
        scheme: str = "http",
    ) -> None:
        self.host, self.route, self.user, self.scheme = host, route, user, scheme
        self.cookies: dict[str, dict[str, str]] = defaultdict(dict)
        self._password, self._timeout_s = password, timeout_s
        self._tls = ssl.create_default_context(cafile=str(authority))

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Page:
        return self.send("GET", f"{self.scheme}://{self.host}{path}", headers)

    def post(self, path: str, headers: Mapping[str, str] | None = None) -> Page:
        return self.send("POST", f"{self.scheme}://{self.host}{path}", headers)

    def ajax(self, path: str) -> Page:
        """What a script in a page asks for: it is told 401 instead of being led to the login."""
        return self.get(path, {"X-Requested-With": "XMLHttpRequest"})

    def csrf_token(self, path: str) -> str:
        """The token that the approuter gives for changes; empty when it gives none."""
        return self.get(path, {"X-CSRF-Token": "Fetch"}).headers.get("x-csrf-token", "")

    def login(self, path: str, begun: Page | None = None) -> Page:
        """Open a page as a person does, with the login on the way when one is asked for.

        :param begun: go on from this answer instead of asking for the page.
        :raises LoginFailed: it does not end at the page; with the hops.
        """
        page = begun or self.get(path)
        hops = [f"{page.status} {page.url}"]
        while len(hops) < _HOPS:
            following = self._next(page)
            if following is None:
                break
            page = following
            hops.append(f"{page.status} {page.url}")
        if urlsplit(page.url).netloc != self.host or page.status != 200 or page.wants_login:
            raise LoginFailed(" → ".join(hops))
        return page

    def _next(self, page: Page) -> Page | None:
        """What a browser does by itself, and a person at the form."""
        if page.status in (302, 303):
            return self.send("GET", urljoin(page.url, page.headers["location"]))
        if page.wants_login:
            mine = self.cookies[urlsplit(page.url).netloc]
            for name, value in _SCRIPT_COOKIE.findall(page.text):
                mine[name] = value.partition(";")[0]
            parts = urlsplit(page.url)
            mine["locationAfterLogin"] = quote(f"{parts.path}?{parts.query}" if parts.query else parts.path, safe="")
            return self.send("GET", _SCRIPT_LOCATION.findall(page.text)[-1])
        if 'type="password"' in page.text and "error" not in urlsplit(page.url).query:
            fields = {name: value for name, value in map(_field, _INPUT.findall(page.text)) if name}
            action = re.findall(r'<form action="([^"]+)"', page.text)[0]
            return self.send(
                "POST", urljoin(page.url, action), form={**fields, "username": self.user, "password": self._password}
            )
        return None

    def send(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, form: Mapping[str, str] | None = None
    ) -> Page:
        """One request; redirects are not followed.

        :raises OSError: there is no connection, or it ends before the answer.
        """
        parts = urlsplit(url)
        if parts.netloc != self.host:
            return self._exchange(
                http.client.HTTPSConnection("localhost", parts.port, timeout=self._timeout_s, context=self._tls),
                method,
                url,
                headers,
                form,
            )
        with self.route.take() as port:
            if self.scheme == "https":
                return self._exchange(
                    http.client.HTTPSConnection(HOST, port, timeout=self._timeout_s, context=self._tls),
                    method,
                    url,
                    headers,
                    form,
                )
            return self._exchange(
                http.client.HTTPConnection(HOST, port, timeout=self._timeout_s), method, url, headers, form
            )

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        form: Mapping[str, str] | None,
    ) -> Page:
        parts = urlsplit(url)
        mine = self.cookies[parts.netloc]
        sent = {"Host": parts.netloc, "User-Agent": "Mozilla/5.0 (test)", **(headers or {})}
        if mine:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in mine.items())
        if form is not None:
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        body = urlencode(form) if form is not None else ("" if method == "POST" else None)
        try:
            connection.request(
                method, f"{parts.path}?{parts.query}" if parts.query else parts.path, body=body, headers=sent
            )
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        finally:
            connection.close()
        for cookie in answer.headers.get_all("set-cookie") or []:
            _keep(mine, cookie)
        return Page(url, answer.status, {name.lower(): value for name, value in answer.getheaders()}, text)


class _RoutedTls(http.client.HTTPSConnection):
    """TLS to a host whose name is not looked up."""

    def connect(self) -> None:
        plain = socket.create_connection((HOST, self.port), self.timeout)
        self.sock = self._context.wrap_socket(plain, server_hostname=self.host)  # type: ignore[attr-defined]


def _keep(jar: dict[str, str], cookie: str) -> None:
    pair, _semicolon, attributes = cookie.partition(";")
    name, _equals, value = pair.strip().partition("=")
    if "max-age=0" in attributes.lower().replace(" ", "") or "1970" in attributes:
        jar.pop(name, None)
    else:
        jar[name] = value


def _field(tag: str) -> tuple[str, str]:
    attributes: dict[str, Any] = dict(re.findall(r'([\w-]+)="([^"]*)"', tag))
    return str(attributes.get("name", "")), html.unescape(str(attributes.get("value", "")))


class Worker:
    """A user who is always waiting for an answer: the next request is sent when the last one is answered, until the
    block ends.

    :param work: one request; its page must have status 200.
    """

    def __init__(self, browser: Browser, work: Callable[[Browser], Page]) -> None:
        self.pages = 0
        self.failures: list[str] = []
        self._browser, self._work = browser, work
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=browser.user, daemon=True)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                page = self._work(self._browser)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                continue
            self.pages += 1
            if page.status != 200 or page.wants_login:
                self.failures.append(f"{page.status} {page.text[:200]}")

    def __enter__(self) -> Worker:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
