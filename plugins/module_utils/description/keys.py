# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The description of a landscape (``zdm_landscape``): what may stand in it, and which key is wrong.

The schema below is the one place that knows the description's keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.durations import NO_LIMIT, parse_ms
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError
from ansible_collections.zdm.landscape.plugins.module_utils.core.names import NAME_PATTERN
from ansible_collections.zdm.landscape.plugins.module_utils.description.checks import (
    Check,
    Problem,
    by_kind,
    by_name,
    by_pattern,
    duration,
    duration_or_none,
    exactly_one,
    flag,
    http_url,
    jmespath,
    listing,
    mapping,
    number,
    one_of,
    one_or_more,
    own_id,
    port,
    regex,
    rows,
    scalar,
    scalar_or_none,
    text,
    unique_names,
)

ROOT = "zdm_landscape"


def _window_fits(value: Mapping[str, Any], path: str) -> Iterator[Problem]:
    budget, drain = value.get("window_budget", "20s"), value.get("drain_timeout", "2s")
    if parse_ms(drain, "drain_timeout") >= parse_ms(budget, "window_budget"):
        yield Problem(
            f"{path}.drain_timeout",
            f"is {drain!r} and window_budget {budget!r}",
            "a drain_timeout that is shorter than window_budget",
        )


def _strategy_or_ignored(value: Mapping[str, Any], path: str) -> Iterator[Problem]:
    if "ignore" in value and len(value) > 1:
        yield Problem(path, "has ignore and more", "ignore with the reason alone, or a strategy")


def _follows_alone(value: Mapping[str, Any], path: str) -> Iterator[Problem]:
    more = sorted(set(value) & {"strategy", "key", "tenant_columns", "own_ids", "new_row"})
    if "follows" in value and "ignore" not in value and more:
        yield Problem(path, f"has follows and {', '.join(more)}", "follows alone, as its rows keep their keys")


def _throttle_has_effect(value: Mapping[str, Any], path: str) -> Iterator[Problem]:
    throttle = value.get("policy", {}).get("throttle", {})
    if throttle.get("max_latency", NO_LIMIT) != NO_LIMIT and not value.get("health"):
        yield Problem(
            f"{path}.policy.throttle.max_latency",
            "is given, and health is empty",
            "health endpoints whose answers are timed, or no max_latency",
        )
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


def _one_source_of_ids(value: Mapping[str, Any], path: str) -> Iterator[Problem]:
    if "ids" in value and "id_query" in value:
        yield Problem(f"{path}.id_query", "is given, and ids too", "only one of the two")


NAME = text(
    "letters, digits, dots, underscores and hyphens, beginning with a letter or digit, 63 at most", NAME_PATTERN
)
ABSOLUTE = text("an absolute path", r"/[^\x00\r\n]*")
FILE = text("the path of a file", r"[^\x00\r\n]+")
WORD = text("text without spaces", r"[^\s\x00]+")
SECRET = text("a string", secret=True)
TITLE = text("a name", r"\S(.*\S)?")

TABLE = mapping(
    {},
    {
        "strategy": one_of("auto", "in_place", "twin"),
        "ignore": text("the reason why the table holds no data of a tenant"),
        "no_cross_tenant_readers": flag,
        "key": listing(WORD, 1),
        "id_stays": by_name(text("the reason why the id in this column may stay")),
        "tenant_columns": listing(WORD, 1),
        "follows": one_or_more(WORD),
        "own_ids": flag,
        "new_row": by_name(scalar_or_none),
    },
    _strategy_or_ignored,
    _follows_alone,
)
COLUMNS_AND_TABLES = {
    "tenant_columns": listing(regex, 1),
    "tables": by_name(TABLE),
    "ignore": by_pattern(text("the reason why these tables hold no data of a tenant")),
    "ids": by_name(own_id),
    "id_query": text("a SELECT of one value with :tenant_id", r"(?is)\s*(SELECT|WITH)\b.*:tenant_id\b.*"),
    "no_cross_tenant_readers": flag,
}
_LOGIN = {"host": WORD, "port": port, "socket": ABSOLUTE, "password": SECRET, "ssl": flag, "ca_file": FILE}


def _server(kind: str, **more: Check) -> Check:
    required = {"name": NAME, "kind": one_of(kind), "database": WORD, "user": WORD}
    return mapping(
        required, {**_LOGIN, **COLUMNS_AND_TABLES, **more}, exactly_one("host", "socket"), _one_source_of_ids
    )


POSTGRESQL = _server("postgresql")
MARIADB = _server("mariadb", ddl_wait=duration, definer_role=WORD, user_rotates=flag)
SQLITE = mapping({"name": NAME, "kind": one_of("sqlite"), "database": ABSOLUTE}, COLUMNS_AND_TABLES, _one_source_of_ids)

_ISSUER = {"issuer": WORD, "algorithm": one_of("RS256", "HS256")}
_CLAIM = {"audience": WORD, "tenant_claim": WORD, "tenant_claim_is": one_of("id", "subdomain")}
ISSUER = by_kind(
    {
        "RS256": mapping({**_ISSUER, "keys_dir": FILE}, _CLAIM),
        "HS256": mapping(
            {**_ISSUER, "secret": text("a string of at least 32 characters", r"(?s).{32,}", secret=True)}, _CLAIM
        ),
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
        "timeout": duration,
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
        "verified_within": duration,
        "unused_for": duration,
        "throttle": mapping(
            {}, {"rows_per_second": rows, "max_replica_lag": duration_or_none, "max_latency": duration_or_none}
        ),
    },
    _window_fits,
)
_CERTIFICATES = {"ca_file": FILE, "validate_certs": flag}
STATUS = number(100, "a status of HTTP", 599)
URL_PATH = text("a path that begins with /", r"/\S*")
HEALTH = mapping({"url": http_url}, {"assert": jmespath, "status": STATUS, "timeout": duration, **_CERTIFICATES})
CHECK = mapping(
    {},
    {
        "url": http_url,
        "module": WORD,
        "path": URL_PATH,
        "status": STATUS,
        "assert": jmespath,
        "timeout": duration,
        "retries": number(1, "a whole number of attempts"),
        **_CERTIFICATES,
    },
    exactly_one("url", "module"),
)
CLOUD_FOUNDRY = mapping(
    {"api": http_url, "org": TITLE, "space": TITLE},
    {
        "deploy_service": http_url,
        "token": SECRET,
        "username": TITLE,
        "password": SECRET,
        "origin": WORD,
        "passcode": SECRET,
        "assertion": SECRET,
        "client_id": WORD,
        "client_secret": SECRET,
        "cf_home": FILE,
        "timeout": duration,
        **_CERTIFICATES,
    },
)
SESSIONS = mapping(
    {"modules": listing(WORD, 1), "secret": text("a string of at least 64 characters", r"(?s).{64,}", secret=True)},
    {"secure": flag},
)
ARCHIVE = mapping({}, {"headers": by_name(SECRET), "username": TITLE, "password": SECRET})
LOGIN = mapping(
    {"module": WORD, "path": URL_PATH, "username": TITLE, "password": SECRET}, {"timeout": duration, **_CERTIFICATES}
)
UPGRADE = mapping(
    {"via": one_of("sidecar", "saas_registry", "subscription_manager")},
    {
        "module": WORD,
        "url": http_url,
        "token": SECRET,
        "token_url": http_url,
        "client_id": WORD,
        "client_secret": SECRET,
        "cert_file": FILE,
        "key_file": FILE,
        "app_name": TITLE,
        "tenants": listing(NAME),
        "canary": NAME,
        "batch_size": number(1, "a whole number of tenants"),
        "on_failure": one_of("stop", "continue"),
        "timeout": duration,
        "poll_interval": duration,
        **_CERTIFICATES,
    },
    exactly_one("url", "module"),
)
DEPLOY = mapping(
    {"cloud_foundry": CLOUD_FOUNDRY},
    {
        "extensions": listing(FILE),
        "namespace": WORD,
        "strategy": one_of("blue-green", "incremental-blue-green"),
        "archive": ARCHIVE,
        "upload": one_of("parts", "service"),
        "keep_previous": flag,
        "dependency_aware_stop_order": flag,
        "delete_services": flag,
        "retries": number(0, "a whole number of attempts"),
        "parameters": by_name(scalar),
        "sessions": SESSIONS,
        "checks": listing(CHECK),
        "canary_checks": listing(CHECK),
        "login": LOGIN,
        "upgrade": UPGRADE,
        "testing_deadline": duration,
        "timeout": duration,
        "poll_interval": duration,
    },
)
STORE = by_kind({"file": mapping({"path": ABSOLUTE}, {"kind": one_of("file")})}, default="file")

SECTIONS = {"deploy": DEPLOY}
LANDSCAPE = mapping(
    {
        "name": NAME,
        "store": STORE,
        "participants": unique_names(
            listing(by_kind({"postgresql": POSTGRESQL, "mariadb": MARIADB, "sqlite": SQLITE}), 1)
        ),
    },
    {
        "tenants_file": FILE,
        "router": ROUTER,
        "issuers": listing(ISSUER, 1),
        "health": listing(HEALTH),
        "policy": POLICY,
        **SECTIONS,
        "log_dir": text("an absolute path, or one that begins with ~", r"[/~][^\x00\r\n]*"),
    },
    _one_lease,
    _throttle_has_effect,
)


def problems(description: Any, section: str = "") -> list[Problem]:
    """Everything that is wrong with a landscape's description, in its order; empty when it is right.

    :param section: the description is only this section of one.
    """
    return list(SECTIONS[section](description, f"{ROOT}.{section}") if section else LANDSCAPE(description, ROOT))


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
            problems=[
                {"path": problem.path, "problem": problem.problem, "expected": problem.expected} for problem in found
            ],
        )
