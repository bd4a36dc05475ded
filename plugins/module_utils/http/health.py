# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Health endpoints: read JSON over HTTP, judge it with a JMESPath expression."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlsplit

from ansible.module_utils.urls import open_url
from ansible_collections.zdm.landscape.plugins.module_utils.core.durations import parse_ms
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, ZdmError

try:
    import jmespath
    from jmespath.exceptions import JMESPathError
except ImportError:
    jmespath = None
    JMESPathError = ValueError

_MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class Endpoint:
    """One endpoint: what to read and what its answer must be.

    :param assertion: a JMESPath expression on the answer's JSON, or empty.
    :param status: the status that it must have, redirects not followed; 0: any of 2xx, redirects followed.
    """

    url: str
    assertion: str = ""
    status: int = 0
    timeout_ms: int = 5_000
    ca_file: str | None = None
    validate_certs: bool = True

    @property
    def shown(self) -> str:
        """The URL as it may be shown: without user, password and query, where secrets may stand."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@dataclass(frozen=True)
class Verdict:
    """What one endpoint said. ``status`` is 0 when there was no answer."""

    url: str
    healthy: bool
    message: str
    advice: str = ""
    status: int = 0
    duration_ms: int = 0


def endpoints_of(options: Iterable[Mapping[str, Any]]) -> list[Endpoint]:
    """Endpoints of the option group HEALTH.

    :raises InputError: a URL that is not http(s), a time-out that is no duration, an expression that is no JMESPath.
    :raises ZdmError: an expression is given and the Python package jmespath is missing.
    """
    result = []
    for number, entry in enumerate(options):
        endpoint = Endpoint(
            url=entry["url"],
            assertion=entry.get("assert") or "",
            status=entry.get("status") or 0,
            timeout_ms=parse_ms(entry.get("timeout") or "5s", f"health[{number}].timeout"),
            ca_file=entry.get("ca_file"),
            validate_certs=entry.get("validate_certs") is not False,
        )
        parts = urlsplit(endpoint.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(
                f"health[{number}].url {endpoint.shown} is not a URL of http or https.",
                "Write the whole URL of the endpoint.",
            )
        if endpoint.status and not 100 <= endpoint.status <= 599:
            raise InputError(
                f"health[{number}].status {endpoint.status} is no status of HTTP.", "Write one between 100 and 599."
            )
        if endpoint.assertion:
            check_expression(endpoint.assertion, f"health[{number}].assert")
        result.append(endpoint)
    return result


def check_expression(expression: str, what: str) -> None:
    """Make sure that *expression* is JMESPath.

    :raises InputError: it is not.
    :raises ZdmError: the Python package jmespath is missing.
    """
    if jmespath is None:
        raise ZdmError(
            "The Python package jmespath is missing.", "Install it where the module runs: pip install jmespath."
        )
    try:
        jmespath.compile(expression)
    except JMESPathError as error:
        raise InputError(
            f"{what} {expression!r} is not a JMESPath expression: {str(error).splitlines()[0]}",
            "See https://jmespath.org.",
        ) from error


def check(endpoint: Endpoint) -> Verdict:
    """Read one endpoint and judge it. An endpoint that does not answer is unhealthy, not an error."""
    start = time.monotonic()
    try:
        status, body = _read(endpoint)
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        status, judged = 0, _Judged(False, f"does not answer: {reason}.", "Start the service, or correct the URL.")
    else:
        judged = _judge(endpoint, status, body)
    duration_ms = round((time.monotonic() - start) * 1000)
    message = f"{endpoint.shown} {judged.message}"
    return Verdict(endpoint.shown, judged.healthy, message, judged.advice, status, duration_ms)


class _Judged(NamedTuple):
    healthy: bool
    message: str
    """What the endpoint does: the rest of a sentence that begins with its URL."""
    advice: str = ""


def _read(endpoint: Endpoint) -> tuple[int, bytes]:
    """Status and body of the answer; raises what ``open_url`` raises when there is none."""
    try:
        answer = open_url(
            endpoint.url,
            timeout=endpoint.timeout_ms / 1000,
            headers={"Accept": "application/json"},
            ca_path=endpoint.ca_file,
            validate_certs=endpoint.validate_certs,
            follow_redirects="none" if endpoint.status else "urllib2",
        )
        return int(answer.getcode()), answer.read(_MAX_BYTES)
    except HTTPError as error:
        return int(error.code), error.read(_MAX_BYTES)


def _judge(endpoint: Endpoint, status: int, body: bytes) -> _Judged:
    log = "Look at the service's log; go on when it is healthy."
    if status != endpoint.status if endpoint.status else not 200 <= status < 300:
        wanted = f", not {endpoint.status}" if endpoint.status else ""
        return _Judged(False, f"answers with status {status}{wanted}.", log)
    if not endpoint.assertion:
        return _Judged(True, f"answers with status {status}.")
    try:
        found = jmespath.search(endpoint.assertion, json.loads(body))
    except ValueError as error:  # JMESPathError is one, and so are errors of JSON and UTF-8
        advice = "Correct the expression, or the service's answer."
        return _Judged(False, f"can't be judged by {endpoint.assertion!r}: {error}.", advice)
    if found is True:
        return _Judged(True, f"fulfils {endpoint.assertion!r}.")
    shown = json.dumps(found, default=str)[:80]
    return _Judged(False, f"does not fulfil {endpoint.assertion!r}: it yields {shown}.", log)


def check_all(endpoints: list[Endpoint]) -> list[Verdict]:
    """Judge all endpoints at the same time, in the order given."""
    if not endpoints:
        return []
    with ThreadPoolExecutor(max_workers=min(8, len(endpoints))) as pool:
        return list(pool.map(check, endpoints))


def slowest_answer_ms(endpoints: list[Endpoint]) -> float | None:
    """How long the slowest of them takes to answer; infinite when one does not answer or can't serve (5xx), ``None``
    when there is none.
    """
    return max(
        (verdict.duration_ms if 0 < verdict.status < 500 else math.inf for verdict in check_all(endpoints)),
        default=None,
    )
