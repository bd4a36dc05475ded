# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may stand in a description that people write: small checks, put together, that name every wrong key.

Values of secrets never reach a problem's text.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.zdm.landscape.plugins.module_utils.core.durations import NO_LIMIT, parse_ms
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.http.health import check_expression


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
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "a mapping",
        type(None): "empty",
    }
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
            yield Problem(
                path, f"{_is(value)}{hint}", choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
            )

    return check


def flag(value: Any, path: str) -> Iterator[Problem]:
    """A boolean."""
    if not isinstance(value, bool):
        yield Problem(path, _is(value), "true or false")


def scalar(value: Any, path: str) -> Iterator[Problem]:
    """A text, number or boolean."""
    if not isinstance(value, str | int | bool):
        yield Problem(path, _is(value), "a text, a number, true or false")


def own_id(value: Any, path: str) -> Iterator[Problem]:
    """The id by which one participant calls a tenant."""
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        yield Problem(path, _is(value), "an id: a text or a whole number")


def port(value: Any, path: str) -> Iterator[Problem]:
    """A TCP port."""
    yield from number(1, "a port between 1 and 65535", 65_535)(value, path)


def duration(value: Any, path: str) -> Iterator[Problem]:
    """A duration as :mod:`durations` reads it."""
    try:
        parse_ms(value, path)
    except InputError:
        yield Problem(path, _is(value), "a positive number and a unit: 500ms, 20s, 5m, 12h or 28d")


def rows(value: Any, path: str) -> Iterator[Problem]:
    """A number of rows."""
    yield from number(0, "a whole number of rows; 0 is no limit")(value, path)


def number(least: int, expected: str, most: int = 2**31) -> Check:
    """A whole number from *least* to *most*."""

    def check(value: Any, path: str) -> Iterator[Problem]:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            yield Problem(path, _is(value), expected)

    return check


def duration_or_none(value: Any, path: str) -> Iterator[Problem]:
    """A duration, or the word for no limit."""
    if value != NO_LIMIT:
        yield from duration(value, path)


def regex(value: Any, path: str) -> Iterator[Problem]:
    """A name or a regular expression for names."""
    try:
        re.compile(value)
    except (re.error, TypeError):
        yield Problem(path, _is(value), "a name, or a regular expression for names")


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
        yield Problem(
            path,
            f"is {'no URL of http or https' if isinstance(value, str) else _kind_of(value)}",
            "for example https://bills.example.com/health",
        )


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


def scalar_or_none(value: Any, path: str) -> Iterator[Problem]:
    """Text, a number or nothing."""
    return iter(()) if value is None else scalar(value, path)


def one_or_more(item: Check) -> Check:
    """One, or a list of them."""

    def check(value: Any, path: str) -> Iterator[Problem]:
        return listing(item, 1)(value, path) if isinstance(value, list) else item(value, path)

    return check


def by_pattern(item: Check) -> Check:
    """A mapping whose keys are regular expressions."""

    def check(value: Any, path: str) -> Iterator[Problem]:
        yield from by_name(item)(value, path)
        for pattern in value if isinstance(value, Mapping) else ():
            yield from regex(pattern, f"{path}.{pattern}")

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


def _keys(
    value: Mapping[str, Any], path: str, known: Mapping[str, Check], required: Mapping[str, Check]
) -> Iterator[Problem]:
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
            yield Problem(
                path,
                f"has {' and '.join(given) if given else 'none of ' + ', '.join(keys)}",
                f"exactly one of {', '.join(keys)}",
            )

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
