# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a module's options to the engine's objects. A new kind is one import and one line in a registry here."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.durations import parse_ms
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, Refused
from ansible_collections.zdm.landscape.plugins.module_utils.migration.policy import Policy
from ansible_collections.zdm.landscape.plugins.module_utils.migration.throttle import Limits
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import Participant
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.participant import MariaDB
from ansible_collections.zdm.landscape.plugins.module_utils.participant.own_ids import by_tenant
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.participant import PostgreSQL
from ansible_collections.zdm.landscape.plugins.module_utils.participant.sqlite.participant import SQLite
from ansible_collections.zdm.landscape.plugins.module_utils.router.base import Router
from ansible_collections.zdm.landscape.plugins.module_utils.router.fleet import Fleet
from ansible_collections.zdm.landscape.plugins.module_utils.router.haproxy import HAProxyRouter
from ansible_collections.zdm.landscape.plugins.module_utils.store.registry import build_store
from ansible_collections.zdm.landscape.plugins.module_utils.tenants.tenant import Tenant

__all__ = ["PARTICIPANTS", "build_fleet", "build_participants", "build_policy", "build_store"]

Options = Mapping[str, Any]

PARTICIPANTS: dict[str, Callable[[dict[str, Any]], Participant]] = {
    "mariadb": MariaDB,
    "postgresql": PostgreSQL,
    "sqlite": SQLite,
}


def build_fleet(params: Options) -> Fleet:
    """All routers of ``params["routers"]``.

    :raises InputError: without a router, or with two of one name.
    :raises Refused: a router on another host beside a store that only the controller's host can read: when it starts
        again it could not render its maps from the journal (cutover protocol, rule 5).
    """
    routers = params["routers"]
    if not routers:
        raise InputError(
            "No router is given.", "Name every router of the landscape: what is not blocked goes on writing."
        )
    _unique([options["name"] for options in routers], "routers")
    local_store = (params.get("store") or {}).get("kind", "file") == "file"
    for options in routers:
        if local_store and options.get("host") and not _loopback(options["host"]):
            raise Refused(
                f"Router {options['name']} is on host {options['host']}, but the config store is a folder of the"
                " controller.",
                "Run the playbook on the router's host, or use a config store that both can reach.",
            )
    return Fleet([_router(options) for options in routers])


def build_participants(params: Options, policy: Policy, tenants: Sequence[Tenant] = ()) -> list[Participant]:
    """All participants of ``params["participants"]``, in the order given.

    :param tenants: source and target, by whose subdomains the options name a participant's own ids.
    :raises InputError: without a participant, with two of one name, or for a kind that does not exist.
    """
    participants = params["participants"]
    if not participants:
        raise InputError("No participant is given.", "Name every database that holds rows of the tenant.")
    _unique([options["name"] for options in participants], "participants")
    unknown = [options for options in participants if options["kind"] not in PARTICIPANTS]
    if unknown:
        raise InputError(
            f"Participant {unknown[0]['name']} has the unknown kind {unknown[0]['kind']!r}.",
            f"Use one of: {', '.join(sorted(PARTICIPANTS))}.",
        )
    return [
        PARTICIPANTS[options["kind"]](
            {
                **options,
                "budget_ms": policy.window_budget_ms,
                "ddl_wait_ms": _ddl_wait(options),
                "own_ids": _own_ids(options, tenants),
                "subdomains": {tenant.id: tenant.subdomain for tenant in tenants},
            }
        )
        for options in participants
    ]


def _own_ids(options: Options, tenants: Sequence[Tenant]) -> dict[str, str] | None:
    """By tenant id what the participant calls it; None where it uses the tenants' ids."""
    ids = options.get("ids")
    if not ids:
        return None
    return by_tenant(ids, {tenant.id: tenant.subdomain for tenant in tenants})


def _ddl_wait(options: Options) -> int:
    return parse_ms(options["ddl_wait"], f"ddl_wait of participant {options['name']}") if options.get("ddl_wait") else 0


def build_policy(params: Options) -> Policy:
    """The durations of ``params["policy"]``.

    :raises InputError: for what is no duration.
    """
    options = params.get("policy") or {}
    default = Policy()

    def duration(name: str, otherwise: int) -> int:
        return parse_ms(options[name], f"policy.{name}") if options.get(name) is not None else otherwise

    return Policy(
        window_budget_ms=duration("window_budget", default.window_budget_ms),
        drain_timeout_ms=duration("drain_timeout", default.drain_timeout_ms),
        lease_ms=duration("lease", default.lease_ms),
        mode=options.get("mode") or default.mode,
        transition_ms=duration("transition", default.transition_ms),
        verified_within_ms=duration("verified_within", default.verified_within_ms),
        throttle=Limits.of(options.get("throttle") or {}, "policy.throttle"),
    )


def _router(options: Options) -> Router:
    return HAProxyRouter(
        options["name"],
        socket=options.get("socket"),
        host=options.get("host"),
        port=options.get("port"),
        ca_file=options.get("ca_file"),
        cert_file=options.get("cert_file"),
        key_file=options.get("key_file"),
        server_name=options.get("server_name"),
        timeout_ms=parse_ms(options.get("timeout") or "2s", f"timeout of router {options['name']}"),
    )


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _unique(names: list[str], what: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{what} names {', '.join(twice)} more than once.", "Give each its own name.")
