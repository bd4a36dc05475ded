# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users who are logged in and keep working while a version is deployed: what they were answered, and what went
wrong.
"""

from __future__ import annotations

import http.client
import json
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Self

from ..landscape.processes import wait_until
from .browser import Browser, LoginFailed, Page, Worker

WAIT_MS = 500
"""How long the application works on each request: at any time every user has one in flight."""
PUBLIC, PUBLIC_WAIT_MS = "/public/health", 50
"""What visitors ask for, and how long the application works on it."""


class User:
    """One session. Reads and changes in turn, the changes with the CSRF token that was fetched after the login.

    :param path: of the application, behind the login.
    """

    def __init__(self, browser: Browser, path: str) -> None:
        self.browser = browser
        self.requests = self.lost_sessions = 0
        self.answered: Counter[str] = Counter()
        """How many requests each version of the application answered."""
        self.slowest_s = 0.0
        self._path, self._token = path, ""

    def log_in(self) -> None:
        self.browser.login(self._path)
        self._token = self.browser.csrf_token(self._path)

    def work(self, browser: Browser) -> Page:
        """One request. Who is asked to log in again, or refused, has lost the session, and logs in again.

        :raises HTTPException: the answer is none of the application's.
        """
        self.requests += 1
        path, begin = f"{self._path}?wait_ms={WAIT_MS}", time.monotonic()
        page = browser.post(path, {"X-CSRF-Token": self._token}) if self.requests % 2 else browser.get(path)
        self.slowest_s = max(self.slowest_s, time.monotonic() - begin)
        if page.wants_login or page.status in (302, 401, 403):
            self.lost_sessions += 1
            with suppress(LoginFailed):
                self.log_in()
        elif page.status == 200:
            self.answered[_version(page)] += 1
        return page


class Visitor(User):
    """Somebody without a session. A session stays with its application as long as that is behind the route, so only
    those who have none meet the new version as soon as it gets live traffic.
    """

    def log_in(self) -> None:
        """There is nothing to log in to."""

    def work(self, browser: Browser) -> Page:
        self.requests += 1
        browser.cookies.clear()
        page = browser.get(f"{PUBLIC}?wait_ms={PUBLIC_WAIT_MS}")
        if page.status == 200:
            self.answered[_version(page)] += 1
        return page


class Users:
    """As a context manager they log in and work until the block ends. Nobody repeats a request.

    :param visitors: those of them who do not log in.
    """

    def __init__(self, browsers: Sequence[Browser], path: str, visitors: Sequence[Browser] = ()) -> None:
        self.users = [User(browser, path) for browser in browsers] + [Visitor(browser, path) for browser in visitors]
        self._workers: list[Worker] = []
        self._stack = ExitStack()

    @property
    def requests(self) -> int:
        return sum(user.requests for user in self.users)

    @property
    def failures(self) -> list[str]:
        """Every request that was not answered by the application, those that met a lost session among them."""
        return [
            f"{user.browser.user}: {failure}"
            for user, worker in zip(self.users, self._workers, strict=True)
            for failure in worker.failures
        ]

    @property
    def lost_sessions(self) -> int:
        return sum(user.lost_sessions for user in self.users)

    @property
    def slowest_ms(self) -> float:
        return round(max(user.slowest_s for user in self.users) * 1000, 1)

    @property
    def answered(self) -> dict[str, int]:
        """Requests by the version that answered them."""
        return dict(sum((user.answered for user in self.users), Counter()))

    def wait_answers(self, version: str, more: int) -> None:
        """Wait until *version* has answered *more* requests of every user from now on.

        :raises ServerError: it does not.
        """
        before = [user.answered[version] for user in self.users]
        wait_until(
            lambda: all(user.answered[version] >= count + more for user, count in zip(self.users, before, strict=True)),
            f"Version {version} answers {more} requests of every user",
        )

    def __enter__(self) -> Self:
        for user in self.users:
            user.log_in()
        self._workers = [self._stack.enter_context(Worker(user.browser, user.work)) for user in self.users]
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()


def _version(page: Page) -> str:
    try:
        return str(json.loads(page.text)["version"])
    except (ValueError, TypeError, KeyError) as error:
        raise http.client.HTTPException(f"no answer of the application: {page.text[:200]}") from error
