# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may stand in the variables of the role ``landscape_router``, and in the names of an issuer's key files.

The role asks before it reads or writes anything on the router's host. Whatever passes is put into the configuration by
:func:`words.quoted` all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.names import NAME_PATTERN
from ansible_collections.zdm.landscape.plugins.module_utils.description.checks import (
    Check,
    Problem,
    by_kind,
    flag,
    listing,
    mapping,
    one_of,
    text,
    unique_names,
)

_PRIVATE_FOLDERS = re.compile(r"/(var/)?tmp(/|$)")
_NAME = text(
    "letters, digits, dots, underscores and hyphens, beginning with a letter or digit, 63 at most", NAME_PATTERN
)
_HOST = r"(?:[A-Za-z0-9._-]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*|\[[0-9A-Fa-f:.]+\])"
_ADDRESS = text("an address or a host's name", rf"\*|{_HOST}")
_SERVER = text("host:port", rf"{_HOST}:[0-9]{{1,5}}")
_SAFE_PATH = text(
    "an absolute path of letters, digits and ._/+@-, 80 characters at most, without . and ..",
    r"(?=.{2,80}$)(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._+@-]+)+",
)
_HOST_PATH = text("an absolute path on the router's host", r"/[^\x00-\x1f\x7f]*")
_FILE = text("the path of a file on the controller, without $", r"[^\x00-\x1f\x7f$]+")
_FOLDER = text("the path of a folder on the controller, without $, *, ? and brackets", r"[^\x00-\x1f\x7f$*?\[\]]+")
_USER = text("the name of a user or group", r"[A-Za-z_][A-Za-z0-9_.-]{0,30}[$]?")
_DURATION = text("a whole number and a unit: 500ms, 20s or 5m", r"[1-9][0-9]{0,8}(ms|s|m)")
_LABEL = r"(?:\*|[A-Za-z0-9_@-]+)"
_ISSUER_NAME = text(
    "the claim iss, in which * stands for a whole label between dots or slashes",
    rf"(?:[A-Za-z][A-Za-z0-9+.-]*://)?{_LABEL}(?:[./:]+{_LABEL})*[./]*",
)
_AUDIENCE = text("letters, digits and !|:/._*@-", r"[A-Za-z0-9!|:/._*@-]+")
_CLAIM = text("the name of a claim; dots lead into objects", r"[A-Za-z0-9_]+([.][A-Za-z0-9_]+)*")
_PROTOCOL = text(
    "the name of a protocol, and none that carries requests past the router as h2c and TLS do",
    r"(?!(?i:h2c?|tls(/.*)?)$)[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9._-]+)?",
)
_KEY_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*[.]pem")


def _or_empty(check: Check) -> Check:
    def wrapped(value: Any, path: str) -> Iterator[Problem]:
        if value != "":
            yield from check(value, path)

    return wrapped


def _count(least: int, most: int, expected: str) -> Check:
    """A whole number, or its digits: a template of Ansible may make text of it."""

    def check(value: Any, path: str) -> Iterator[Problem]:
        digits = isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value)
        if isinstance(value, bool) or not (isinstance(value, int) or digits) or not least <= int(value) <= most:
            yield Problem(path, f"is {value!r}", expected)

    return check


_PORT = _count(1, 65_535, "a port between 1 and 65535")
_CLAIMS = {"audience": _AUDIENCE, "tenant_claim": _CLAIM, "tenant_claim_is": one_of("id", "subdomain")}
_ISSUER = by_kind(
    {
        "RS256": mapping({"issuer": _ISSUER_NAME, "algorithm": one_of("RS256"), "keys_dir": _FOLDER}, _CLAIMS),
        "HS256": mapping(
            {
                "issuer": _ISSUER_NAME,
                "algorithm": one_of("HS256"),
                "secret": text("a string of at least 32 characters", r"(?s).{32,}", secret=True),
            },
            _CLAIMS,
        ),
    },
    key="algorithm",
)
_BACKEND = mapping(
    {
        "name": text(
            "letters, digits, underscores and hyphens, beginning with a letter or digit, 63 at most",
            r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}",
        ),
        "path": text("a path such as /bills, without a slash at its end", r"/|(/[A-Za-z0-9._~-]+)+"),
        "servers": listing(_SERVER, 1),
    },
    {"datacenter": _NAME, "channel": _NAME},
)

VARIABLES: dict[str, Check] = {
    "dir": _SAFE_PATH,
    "name": text(
        "letters, digits and ._:@-, beginning with a letter or digit, 128 at most",
        r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}",
    ),
    "bind_address": _ADDRESS,
    "port": _PORT,
    "tls_cert": _or_empty(_FILE),
    "control_port": _count(0, 65_535, "a port between 1 and 65535, or 0"),
    "control_address": _ADDRESS,
    "control_cert": _or_empty(_FILE),
    "control_ca": _or_empty(_FILE),
    "control_group": _or_empty(_USER),
    "issuers": listing(_ISSUER, 1),
    "backends": unique_names(listing(_BACKEND, 1)),
    "store": by_kind({"file": mapping({"path": _HOST_PATH}, {"kind": one_of("file")})}, default="file"),
    "upgrades": listing(_PROTOCOL),
    **dict.fromkeys(
        (
            "hold_max",
            "timeout_connect",
            "timeout_client",
            "timeout_server",
            "timeout_tunnel",
            "timeout_keep_alive",
            "server_idle",
            "hard_stop_after",
        ),
        _DURATION,
    ),
    "held_limit": _count(1, 1_000_000, "a whole number from 1"),
    "maxconn": _count(1, 10_000_000, "a whole number from 1"),
    "threads": _count(0, 64, "a whole number from 0 to 64"),
    "haproxy": text("the name or path of the binary", r"[A-Za-z0-9._/+@-]+"),
    "python": _or_empty(text("the absolute path of an interpreter", r"/[A-Za-z0-9._/+@-]+")),
    "service": one_of("systemd", "none"),
    "restart": flag,
    "service_name": text("the name of a unit", r"[A-Za-z0-9][A-Za-z0-9._@-]{0,100}"),
    "user": _or_empty(_USER),
    "group": _or_empty(_USER),
    "allow_root": flag,
}
"""The role's variables, without their prefix."""
_PREFIX = "landscape_router_"


def problems(variables: Mapping[str, Any], key_files: Iterable[str] = ()) -> list[Problem]:
    """What is wrong, one problem per variable or file.

    :param variables: the role's variables by their full names; one that is left out is missing.
    :param key_files: files that hold public keys, ``<position of the issuer>/<file name>``.
    """
    found = list(mapping({f"{_PREFIX}{name}": check for name, check in VARIABLES.items()})(variables, ""))
    result = [Problem(problem.path.removeprefix("."), problem.problem, problem.expected) for problem in found]
    return result + list(_key_files(key_files)) + ([] if result else list(_together(variables)))


def _key_files(files: Iterable[str]) -> Iterator[Problem]:
    for file in files:
        position, _slash, name = file.partition("/")
        if not _KEY_FILE.fullmatch(name):
            yield Problem(
                f"{_PREFIX}issuers[{position}].keys_dir",
                f"holds {name!r}, whose name is no key id",
                "<kid>.pem with letters, digits, dots, underscores and hyphens: rename or remove the file",
            )


def _together(variables: Mapping[str, Any]) -> Iterator[Problem]:
    """Rules about more than one variable."""
    value = {name: variables[f"{_PREFIX}{name}"] for name in VARIABLES}
    if int(value["control_port"]) and not (value["control_cert"] and value["control_ca"]):
        yield Problem(
            f"{_PREFIX}control_port",
            f"is {value['control_port']}, without {_PREFIX}control_cert and {_PREFIX}control_ca",
            "both files: control without mutual TLS does not exist; 0 means the unix socket alone",
        )
    if value["user"] in ("", "root") and value["service"] == "systemd" and not value["allow_root"]:
        yield Problem(
            f"{_PREFIX}user",
            f"is {value['user']!r}, and systemd starts the router as root",
            f"an unprivileged user, or {_PREFIX}allow_root: true",
        )
    if value["group"] == "root" and not value["allow_root"]:
        yield Problem(f"{_PREFIX}group", "is 'root'", f"an unprivileged group, or {_PREFIX}allow_root: true")
    seen: dict[str, int] = {}
    for number, issuer in enumerate(value["issuers"]):
        first = seen.setdefault(issuer["issuer"], number)
        if first != number:
            yield Problem(
                f"{_PREFIX}issuers[{number}].issuer",
                f"is {issuer['issuer']!r}, as {_PREFIX}issuers[{first}].issuer",
                "each issuer once",
            )
    if value["service"] == "systemd":
        for name, path in (("dir", value["dir"]), ("store.path", value["store"]["path"])):
            if _PRIVATE_FOLDERS.match(path):
                yield Problem(
                    f"{_PREFIX}{name}",
                    f"is {path!r}, which the unit can't see: it has its own /tmp",
                    "a folder outside of /tmp and /var/tmp",
                )
