# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The description of a landscape (``zdm_landscape``): what may stand in it, and which key is wrong.

The schema below is the one place that knows the description's keys. Values of secrets never reach a problem's text.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.zdm.landscape.plugins.module_utils.durations import NO_LIMIT, parse_ms
from ansible_collections.zdm.landscape.plugins.module_utils.errors import InputError, ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.health import check_expression
from ansible_collections.zdm.landscape.plugins.module_utils.names import NAME_PATTERN

ROOT = "zdm_landscape"


@dataclass(frozen=True)
class Problem:
    """One wrong key: where it stands, what is wrong with it, what is expected instead."""

    path: str
    problem: str
    expected: str

    def __str__(self) -> str:
        return f"{self.path} {self.problem}; expected {self.expected}."


Check = Callable[[Any, str], Iterator[Problem]]
Rule = Callable[[Mapping[str, Any], str], Iterator[Problem]]


def _kind_of(value: Any) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "a mapping", type(None): "empty"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), type(value).__name__)


def _is(value: Any, secret: bool = False) -> str:
    return f"is {_kind_of(value)}" if secret or not isinstance(value, (str, int, float, bool)) else f"is {value!r}"


def text(expected: str, pattern: str = r"(?s).+", secret: bool = False) -> Check:
    """A string that matches *pattern* as a whole."""

    def check(value: Any, path: str) -> Iterator[Problem]:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            shape = "does not have the right form" if secret and isinstance(value, str) else _is(value, secret)
            yield Problem(path, shape, expected)

    return check


def one_of(*choices: str) -> Check:
    """One of these strings."""

    def check(value: Any, path: str) -> Iterator[Problem]:
        if value not in choices:
            near = difflib.get_close_matches(str(value), choices, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            yield Problem(path, f"{_is(value)}{hint}", choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}")

    return check


def flag(value: Any, path: str) -> Iterator[Problem]:
    """A boolean."""
    if not isinstance(value, bool):
        yield Problem(path, _is(value), "true or false")


def port(value: Any, path: str) -> Iterator[Problem]:
    """A TCP port."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65_536:
        yield Problem(path, _is(value), "a port between 1 and 65535")


def duration(value: Any, path: str) -> Iterator[Problem]:
    """A duration as :mod:`durations` reads it."""
    try:
        parse_ms(value, path)
    except InputError:
        yield Problem(path, _is(value), "a positive number and a unit: 500ms, 20s, 5m, 12h or 28d")


def rows(value: Any, path: str) -> Iterator[Problem]:
    """A number of rows."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        yield Problem(path, _is(value), "a whole number of rows; 0 is no limit")


def duration_or_none(value: Any, path: str) -> Iterator[Problem]:
    """A duration, or the word for no limit."""
    if value != NO_LIMIT:
        yield from duration(value, path)


def regex(value: Any, path: str) -> Iterator[Problem]:
    """A name or a regular expression for names."""
    try:
        re.compile(value)
    except (re.error, TypeError):
        yield Problem(path, _is(value), "a column's name, or a regular expression for names")


def jmespath(value: Any, path: str) -> Iterator[Problem]:
    """A JMESPath expression."""
    if not isinstance(value, str):
        yield Problem(path, _is(value), "a JMESPath expression")
        return
    try:
        check_expression(value, path)
    except ZdmError as error:
        yield Problem(path, f"can't be used: {error.message.rstrip('.')}", "a JMESPath expression")


def http_url(value: Any, path: str) -> Iterator[Problem]:
    """A URL of http or https; it is not shown, since it may contain a password."""
    parts = urlsplit(value) if isinstance(value, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        yield Problem(path, f"is {'no URL of http or https' if isinstance(value, str) else _kind_of(value)}", "for example https://bills.example.com/health")


def listing(item: Check, least: int = 0) -> Check:
    """A list of at least *least* items."""

    def check(value: Any, path: str) -> Iterator[Problem]:
        if not isinstance(value, list):
            yield Problem(path, f"is {_kind_of(value)}", "a list")
            return
        if len(value) < least:
            yield Problem(path, "is empty", f"at least {least} {'entry' if least == 1 else 'entries'}")
        for number, entry in enumerate(value):
            yield from item(entry, f"{path}[{number}]")

    return check


def by_name(item: Check) -> Check:
    """A mapping whose keys people choose."""

    def check(value: Any, path: str) -> Iterator[Problem]:
        if not isinstance(value, Mapping):
            yield Problem(path, f"is {_kind_of(value)}", "a mapping")
            return
        for key, entry in value.items():
            yield from item(entry, f"{path}.{key}")

    return check


def mapping(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None, *rules: Rule) -> Check:
    """A mapping with known keys; *rules* look at keys together, and run when the keys by themselves are right."""
    known = {**required, **(optional or {})}

    def check(value: Any, path: str) -> Iterator[Problem]:
        if not isinstance(value, Mapping):
            yield Problem(path, f"is {_kind_of(value)}", f"a mapping with {', '.join(required) or ', '.join(known)}")
            return
        found = False
        for problem in _keys(value, path, known, required):
            found = True
            yield problem
        for key in (key for key in value if key in known):
            for problem in known[key](value[key], f"{path}.{key}"):
                found = True
                yield problem
        if not found:
            for rule in rules:
                yield from rule(value, path)

    return check


def _keys(value: Mapping[str, Any], path: str, known: Mapping[str, Check], required: Mapping[str, Check]) -> Iterator[Problem]:
    for key in value:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            yield Problem(f"{path}.{key}", f"is not known{hint}", f"one of {', '.join(sorted(known))}")
    for key in required:
        if key not in value:
            yield Problem(f"{path}.{key}", "is missing", "it to be given")


def by_kind(kinds: Mapping[str, Check], key: str = "kind", default: str | None = None) -> Check:
    """A mapping whose other keys depend on *key*."""

    def check(value: Any, path: str) -> Iterator[Problem]:
        if not isinstance(value, Mapping):
            yield Problem(path, f"is {_kind_of(value)}", f"a mapping with {key}")
            return
        kind = value.get(key, default)
        if kind is None:
            yield Problem(f"{path}.{key}", "is missing", f"one of {', '.join(kinds)}")
        elif kind not in list(kinds):
            yield from one_of(*kinds)(kind, f"{path}.{key}")
        else:
            yield from kinds[kind](value, path)

    return check


def exactly_one(*keys: str) -> Rule:
    """Exactly one of *keys* is given."""

    def rule(value: Mapping[str, Any], path: str) -> Iterator[Problem]:
        given = [key for key in keys if key in value]
        if len(given) != 1:
            yield Problem(path, f"has {' and '.join(given) if given else 'none of ' + ', '.join(keys)}", f"exactly one of {', '.join(keys)}")

    return rule


def unique_names(check: Check) -> Check:
    """A list whose entries have different names."""

    def wrapped(value: Any, path: str) -> Iterator[Problem]:
        yield from check(value, path)
        seen: dict[Any, int] = {}
        for number, entry in enumerate(value if isinstance(value, list) else []):
            name = entry.get("name") if isinstance(entry, Mapping) else None
            if isinstance(name, str) and seen.setdefault(name, number) != number:
                yield Problem(f"{path}[{number}].name", f"is {name!r}, as {path}[{seen[name]}].name", "each name once")

    return wrapped


def _window_fits(value: Mapping[str, Any], path: str) -> Iterator[Problem]:
    budget, drain = value.get("window_budget", "20s"), value.get("drain_timeout", "2s")
    if parse_ms(drain, "drain_timeout") >= parse_ms(budget, "window_budget"):
        yield Problem(f"{path}.drain_timeout", f"is {drain!r} and window_budget {budget!r}", "a drain_timeout that is shorter than window_budget")


def _strategy_or_ignored(value: Mapping[str, Any], path: str) -> Iterator[Problem]:
    if "ignore" in value and len(value) > 1:
        yield Problem(path, "has ignore and more", "ignore with the reason alone, or a strategy")


def _throttle_has_effect(value: Mapping[str, Any], path: str) -> Iterator[Problem]:
    throttle = value.get("policy", {}).get("throttle", {})
    if throttle.get("max_latency", NO_LIMIT) != NO_LIMIT and not value.get("health"):
        yield Problem(f"{path}.policy.throttle.max_latency", "is given, and health is empty", "health endpoints whose answers are timed, or no max_latency")
    kinds = {participant["kind"] for participant in value["participants"]}
    if throttle.get("max_replica_lag", NO_LIMIT) != NO_LIMIT and "postgresql" not in kinds:
        yield Problem(
            f"{path}.policy.throttle.max_replica_lag",
            f"is given, and {' and '.join(sorted(kinds))} can't tell the lag of replicas",
            "rows_per_second or max_latency instead",
        )


def _one_lease(value: Mapping[str, Any], path: str) -> Iterator[Problem]:
    if "lease" in value.get("router", {}) and "lease" in value.get("policy", {}):
        yield Problem(f"{path}.policy.lease", "is given, and router.lease too", "only one of the two")


NAME = text("letters, digits, dots, underscores and hyphens, beginning with a letter or digit, 63 at most", NAME_PATTERN)
ABSOLUTE = text("an absolute path", r"/[^\x00\r\n]*")
FILE = text("the path of a file", r"[^\x00\r\n]+")
WORD = text("text without spaces", r"[^\s\x00]+")
SECRET = text("a string", secret=True)

TABLE = mapping(
    {},
    {
        "strategy": one_of("auto", "in_place", "twin"),
        "ignore": text("the reason why the table holds no data of a tenant"),
        "no_cross_tenant_readers": flag,
        "key": listing(WORD, 1),
        "id_stays": by_name(text("the reason why the id in this column may stay")),
    },
    _strategy_or_ignored,
)
COLUMNS_AND_TABLES = {"tenant_columns": listing(regex, 1), "tables": by_name(TABLE), "no_cross_tenant_readers": flag}
_LOGIN = {"host": WORD, "port": port, "socket": ABSOLUTE, "password": SECRET, "ssl": flag, "ca_file": FILE}


def _server(kind: str, **more: Check) -> Check:
    required = {"name": NAME, "kind": one_of(kind), "database": WORD, "user": WORD}
    return mapping(required, {**_LOGIN, **COLUMNS_AND_TABLES, **more}, exactly_one("host", "socket"))


POSTGRESQL = _server("postgresql")
MARIADB = _server("mariadb", ddl_wait=duration)
SQLITE = mapping({"name": NAME, "kind": one_of("sqlite"), "database": ABSOLUTE}, COLUMNS_AND_TABLES)

_ISSUER = {"issuer": WORD, "algorithm": one_of("RS256", "HS256")}
_CLAIM = {"audience": WORD, "tenant_claim": WORD, "tenant_claim_is": one_of("id", "subdomain")}
ISSUER = by_kind(
    {
        "RS256": mapping({**_ISSUER, "keys_dir": FILE}, _CLAIM),
        "HS256": mapping({**_ISSUER, "secret": text("a string of at least 32 characters", r"(?s).{32,}", secret=True)}, _CLAIM),
    },
    key="algorithm",
)
ROUTER = mapping(
    {},
    {
        "kind": one_of("haproxy"),
        "group": text("the name of an inventory group", r"[A-Za-z_]\w*"),
        "port": port,
        "ca_file": FILE,
        "cert_file": FILE,
        "key_file": FILE,
        "server_name": WORD,
        "lease": duration,
    },
)
POLICY = mapping(
    {},
    {
        "window_budget": duration,
        "drain_timeout": duration,
        "lease": duration,
        "mode": one_of("hold", "reject"),
        "transition": duration,
        "unused_for": duration,
        "throttle": mapping({}, {"rows_per_second": rows, "max_replica_lag": duration_or_none, "max_latency": duration_or_none}),
    },
    _window_fits,
)
HEALTH = mapping({"url": http_url}, {"assert": jmespath, "timeout": duration, "ca_file": FILE, "validate_certs": flag})
STORE = by_kind({"file": mapping({"path": ABSOLUTE}, {"kind": one_of("file")})}, default="file")

LANDSCAPE = mapping(
    {
        "name": NAME,
        "store": STORE,
        "participants": unique_names(listing(by_kind({"postgresql": POSTGRESQL, "mariadb": MARIADB, "sqlite": SQLITE}), 1)),
    },
    {
        "tenants_file": FILE,
        "router": ROUTER,
        "issuers": listing(ISSUER, 1),
        "health": listing(HEALTH),
        "policy": POLICY,
        "log_dir": text("an absolute path, or one that begins with ~", r"[/~][^\x00\r\n]*"),
    },
    _one_lease,
    _throttle_has_effect,
)


def problems(description: Any) -> list[Problem]:
    """Everything that is wrong with a landscape's description, in its order; empty when it is right."""
    return list(LANDSCAPE(description, ROOT))


def expect_valid(description: Any) -> None:
    """Refuse a wrong description.

    :raises InputError: the message names every wrong key with its path and what is expected there.
    """
    found = problems(description)
    if found:
        count = "1 key is" if len(found) == 1 else f"{len(found)} keys are"
        raise InputError(
            f"{count} wrong in the landscape's description: {' '.join(str(problem) for problem in found)}",
            "Correct it, usually in group_vars/all/landscape.yml.",
            problems=[{"path": problem.path, "problem": problem.problem, "expected": problem.expected} for problem in found],
        )
