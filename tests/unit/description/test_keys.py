# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The validator of the landscape's description: every wrong key is named, with what is expected."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError
from ansible_collections.zdm.landscape.plugins.module_utils.description.keys import expect_valid, problems

GOOD: dict[str, Any] = {
    "name": "us10",
    "tenants_file": "tenants.json",
    "store": {"kind": "file", "path": "/srv/landscape/store"},
    "router": {
        "kind": "haproxy",
        "group": "zdm_routers",
        "port": 9443,
        "ca_file": "ca.pem",
        "cert_file": "zdm.pem",
        "lease": "3s",
    },
    "issuers": [
        {
            "issuer": "https://*.authentication.example/oauth/token",
            "algorithm": "RS256",
            "keys_dir": "keys",
            "audience": "rc!b1",
            "tenant_claim": "zid",
        },
        {
            "issuer": "https://api.example",
            "algorithm": "HS256",
            "secret": "s" * 32,
            "tenant_claim": "tenant",
            "tenant_claim_is": "subdomain",
        },
    ],
    "participants": [
        {
            "name": "bills",
            "kind": "postgresql",
            "host": "db1",
            "port": 5432,
            "database": "bills",
            "user": "zdm",
            "password": "hunter2",
            "tenant_columns": ["tenant_id", "zid_.*"],
            "tables": {"outbox": {"strategy": "in_place"}, "country": {"ignore": "no tenant data"}},
        },
        {
            "name": "rating",
            "kind": "mariadb",
            "socket": "/run/mysqld/mysqld.sock",
            "database": "rating",
            "user": "zdm",
            "ssl": False,
        },
        {"name": "docs", "kind": "sqlite", "database": "/srv/docs.db"},
    ],
    "health": [{"url": "https://bills.example.com/health", "assert": "status == 'UP'", "timeout": "2s"}],
    "policy": {
        "window_budget": "20s",
        "drain_timeout": "2s",
        "mode": "hold",
        "transition": "28d",
        "verified_within": "24h",
        "unused_for": "7d",
        "throttle": {"rows_per_second": 5000, "max_replica_lag": "2s", "max_latency": "none"},
    },
    "deploy": {
        "cloud_foundry": {
            "api": "https://api.cf.example.com",
            "org": "my org",
            "space": "prod",
            "username": "ci",
            "password": "hunter2",
        },
        "extensions": ["prod.mtaext"],
        "sessions": {"modules": ["approuter"], "secret": "s" * 64},
        "checks": [
            {"module": "srv", "path": "/health", "assert": "status == 'UP'", "retries": 5},
            {"url": "https://x.example.com/", "status": 401},
        ],
        "login": {"module": "approuter", "path": "/api/hello", "username": "robot", "password": "hunter2"},
        "upgrade": {"via": "sidecar", "module": "mtx", "canary": "t1", "batch_size": 20, "token": "hunter2"},
        "testing_deadline": "1h",
    },
    "log_dir": "~/zdm",
}


def test_a_whole_description_is_right() -> None:
    expect_valid(copy.deepcopy(GOOD))


def test_the_smallest_description_is_right() -> None:
    expect_valid(
        {"name": "x", "store": {"path": "/s"}, "participants": [{"name": "a", "kind": "sqlite", "database": "/a.db"}]}
    )


def _set(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(description: dict[str, Any]) -> None:
        node: Any = description
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value

    return change


def _drop(*path: Any) -> Callable[[dict[str, Any]], None]:
    def change(description: dict[str, Any]) -> None:
        node: Any = description
        for key in path[:-1]:
            node = node[key]
        del node[path[-1]]

    return change


WRONG = [
    (_drop("deploy", "cloud_foundry", "space"), "zdm_landscape.deploy.cloud_foundry.space is missing"),
    (
        _set("deploy", "cloud_foundry", "api", value="api.cf.example.com"),
        "zdm_landscape.deploy.cloud_foundry.api is no URL",
    ),
    (
        _set("deploy", "sessions", "secret", value="hunter2"),
        "deploy.sessions.secret does not have the right form; expected a string of at least 64",
    ),
    (
        _set("deploy", "checks", 0, "url", value="https://a.example.com/"),
        "zdm_landscape.deploy.checks[0] has url and module; expected exactly one",
    ),
    (
        _set("deploy", "checks", 1, "status", value=1000),
        "zdm_landscape.deploy.checks[1].status is 1000; expected a status of HTTP",
    ),
    (
        _set("deploy", "checks", 0, "retries", value=0),
        "zdm_landscape.deploy.checks[0].retries is 0; expected a whole number of attempts",
    ),
    (
        _set("deploy", "login", "path", value="api"),
        "zdm_landscape.deploy.login.path is 'api'; expected a path that begins with /",
    ),
    (
        _set("deploy", "upgrade", "via", value="saas-registry"),
        "zdm_landscape.deploy.upgrade.via is 'saas-registry' (did you mean saas_registry?)",
    ),
    (
        _set("deploy", "upgrade", "batch_size", value=True),
        "zdm_landscape.deploy.upgrade.batch_size is True; expected a whole number of tenants",
    ),
    (_drop("name"), "zdm_landscape.name is missing"),
    (_set("name", value="a\nb"), "zdm_landscape.name is 'a\\nb'"),
    (_set("name", value="../etc"), "zdm_landscape.name is '../etc'"),
    (_drop("store"), "zdm_landscape.store is missing"),
    (_set("store", value="/srv"), "zdm_landscape.store is a string; expected a mapping with kind"),
    (_set("store", "kind", value="flie"), "zdm_landscape.store.kind is 'flie' (did you mean file?)"),
    (_set("store", "path", value="store"), "zdm_landscape.store.path is 'store'; expected an absolute path"),
    (_set("store", "url", value="x"), "zdm_landscape.store.url is not known"),
    (_set("particpants", value=[]), "zdm_landscape.particpants is not known (did you mean participants?)"),
    (_set("participants", value=[]), "zdm_landscape.participants is empty; expected at least 1 entry"),
    (_set("participants", value={}), "zdm_landscape.participants is a mapping; expected a list"),
    (_set("participants", 0, value="bills"), "zdm_landscape.participants[0] is a string"),
    (
        _drop("participants", 0, "kind"),
        "zdm_landscape.participants[0].kind is missing; expected one of postgresql, mariadb, sqlite",
    ),
    (
        _set("participants", 0, "kind", value="postgres"),
        "zdm_landscape.participants[0].kind is 'postgres' (did you mean postgresql?)",
    ),
    (_set("participants", 0, "kind", value=["x"]), "zdm_landscape.participants[0].kind is a list"),
    (
        _set("participants", 0, "usr", value="zdm"),
        "zdm_landscape.participants[0].usr is not known (did you mean user?)",
    ),
    (_drop("participants", 0, "user"), "zdm_landscape.participants[0].user is missing"),
    (
        _set("participants", 0, "port", value="5432"),
        "zdm_landscape.participants[0].port is '5432'; expected a port between",
    ),
    (_set("participants", 0, "port", value=70000), "zdm_landscape.participants[0].port is 70000"),
    (_set("participants", 0, "port", value=True), "zdm_landscape.participants[0].port is True"),
    (
        _set("participants", 0, "socket", value="/run"),
        "zdm_landscape.participants[0] has host and socket; expected exactly one of host, socket",
    ),
    (_drop("participants", 1, "socket"), "zdm_landscape.participants[1] has none of host, socket"),
    (_set("participants", 1, "ssl", value="no"), "zdm_landscape.participants[1].ssl is 'no'; expected true or false"),
    (
        _set("participants", 1, "name", value="bills"),
        "zdm_landscape.participants[1].name is 'bills', as zdm_landscape.participants[0].name",
    ),
    (_set("participants", 2, "host", value="db3"), "zdm_landscape.participants[2].host is not known"),
    (
        _set("participants", 2, "database", value="docs.db"),
        "zdm_landscape.participants[2].database is 'docs.db'; expected an absolute path",
    ),
    (
        _set("participants", 0, "tenant_columns", value="tenant_id"),
        "zdm_landscape.participants[0].tenant_columns is a string; expected a list",
    ),
    (_set("participants", 0, "tenant_columns", 0, value="("), "zdm_landscape.participants[0].tenant_columns[0] is '('"),
    (
        _set("participants", 0, "tables", "outbox", "strategy", value="inplace"),
        "tables.outbox.strategy is 'inplace' (did you mean in_place?)",
    ),
    (_set("participants", 0, "tables", "outbox", "ignore", value="why"), "tables.outbox has ignore and more"),
    (
        _set("participants", 0, "tables", "country", "ignore", value=True),
        "tables.country.ignore is True; expected the reason why",
    ),
    (_set("router", "kind", value="nginx"), "zdm_landscape.router.kind is 'nginx'; expected haproxy"),
    (_set("router", "lease", value="3"), "zdm_landscape.router.lease is '3'; expected a positive number and a unit"),
    (_set("router", "lease", value=3), "zdm_landscape.router.lease is 3"),
    (_set("policy", "lease", value="3s"), "zdm_landscape.policy.lease is given, and router.lease too"),
    (_set("policy", "drain_timeout", value="20s"), "a drain_timeout that is shorter than window_budget"),
    (_set("policy", "window_budget", value="-1s"), "zdm_landscape.policy.window_budget is '-1s'"),
    (_set("policy", "mode", value="held"), "zdm_landscape.policy.mode is 'held' (did you mean hold?)"),
    (
        _set("policy", "window_bugdet", value="1s"),
        "zdm_landscape.policy.window_bugdet is not known (did you mean window_budget?)",
    ),
    (
        _set("policy", "throttle", "rows_per_second", value="5"),
        "zdm_landscape.policy.throttle.rows_per_second is '5'; expected a whole number of rows",
    ),
    (
        _set("policy", "throttle", "max_latency", value="5"),
        "zdm_landscape.policy.throttle.max_latency is '5'; expected a positive number and a unit",
    ),
    (
        _set("policy", "throttle", "max_lag", value="5s"),
        "zdm_landscape.policy.throttle.max_lag is not known (did you mean max_latency?)",
    ),
    (_set("log_dir", value="log"), "zdm_landscape.log_dir is 'log'; expected an absolute path"),
    (_set("issuers", value=[]), "zdm_landscape.issuers is empty"),
    (_set("issuers", 0, "algorithm", value="none"), "zdm_landscape.issuers[0].algorithm is 'none'"),
    (_drop("issuers", 0, "keys_dir"), "zdm_landscape.issuers[0].keys_dir is missing"),
    (_set("issuers", 1, "keys_dir", value="k"), "zdm_landscape.issuers[1].keys_dir is not known"),
    (_set("issuers", 1, "tenant_claim_is", value="name"), "zdm_landscape.issuers[1].tenant_claim_is is 'name'"),
    (_set("health", 0, "url", value="bills/health"), "zdm_landscape.health[0].url is no URL of http or https"),
    (_set("health", 0, "url", value="file:///etc/passwd"), "zdm_landscape.health[0].url is no URL of http or https"),
    (_set("health", 0, "assert", value="status =="), "zdm_landscape.health[0].assert can't be used"),
    (_set("health", 0, "asert", value="x"), "zdm_landscape.health[0].asert is not known (did you mean assert?)"),
    (_set("health", 0, "timeout", value="2"), "zdm_landscape.health[0].timeout is '2'"),
]


@pytest.mark.parametrize(("change", "expected"), WRONG, ids=[expected for _change, expected in WRONG])
def test_the_wrong_key_is_named(change: Callable[[dict[str, Any]], None], expected: str) -> None:
    description = copy.deepcopy(GOOD)
    change(description)
    found = problems(description)
    assert len(found) == 1, [str(problem) for problem in found]
    assert expected in str(found[0])
    assert "; expected " in str(found[0])


def test_a_limit_that_nothing_can_measure_is_named() -> None:
    description = copy.deepcopy(GOOD)
    description["participants"] = description["participants"][1:]
    description["policy"]["throttle"]["max_latency"] = "1s"
    del description["health"]
    assert [problem.path for problem in problems(description)] == [
        "zdm_landscape.policy.throttle.max_latency",
        "zdm_landscape.policy.throttle.max_replica_lag",
    ]


@pytest.mark.parametrize("value", [None, [], "us10", 3])
def test_what_is_no_mapping_is_refused(value: Any) -> None:
    assert str(problems(value)[0]).startswith("zdm_landscape is ")


def test_all_problems_are_told_at_once() -> None:
    description = {**copy.deepcopy(GOOD), "name": "", "stoer": 1}
    with pytest.raises(InputError, match="2 keys are wrong") as caught:
        expect_valid(description)
    assert [problem["path"] for problem in caught.value.details["problems"]] == [
        "zdm_landscape.stoer",
        "zdm_landscape.name",
    ]


@pytest.mark.parametrize(
    ("path", "secret"),
    [
        (("participants", 0, "password"), 987654321),
        (("issuers", 1, "secret"), "too-short-secret"),
        (("health", 0, "url"), "ftp://user:hunter2@host/"),
    ],
)
def test_a_secret_never_reaches_the_message(path: tuple[Any, ...], secret: Any) -> None:
    description = copy.deepcopy(GOOD)
    _set(*path, value=secret)(description)
    with pytest.raises(InputError) as caught:
        expect_valid(description)
    assert str(path[-1]) in str(caught.value)
    for part in (str(secret), "hunter2"):
        assert part not in f"{caught.value} {caught.value.details}"
