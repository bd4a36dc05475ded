# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the landscape's description and the inventory to the options of the migration modules."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError
from ansible_collections.zdm.landscape.plugins.module_utils.description.keys import expect_valid

CONTROLLER_GROUP = "zdm_controller"
ROUTER_GROUP = "zdm_routers"
_POLICY = ("window_budget", "drain_timeout", "lease", "mode", "throttle", "transition", "verified_within")
_FILES = ("ca_file", "cert_file", "key_file")


def module_options(
    description: Any, groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Any], base: str = ""
) -> dict[str, Any]:
    """The option groups STORE, ROUTERS, PARTICIPANTS, POLICY and HEALTH that a description and an inventory stand for.

    :param description: ``zdm_landscape``.
    :param groups: the inventory's groups; the routers are the hosts of ``zdm_landscape.router.group``.
    :param hostvars: ``zdm_router_socket`` of a host is the router's control socket; else it is reached by mutual TLS at
        ``ansible_host`` and ``zdm_router_port``, with the certificates of ``zdm_landscape.router``.
    :param base: relative paths of certificates are taken from this folder, usually the inventory's.
    :raises InputError: the description is wrong, there is not exactly one controller, or there is no router.
    """
    expect_valid(description)
    controllers = groups.get(CONTROLLER_GROUP)
    if controllers is not None and len(controllers) != 1:
        raise InputError(
            f"The inventory group {CONTROLLER_GROUP} has {len(controllers)} hosts ({', '.join(controllers)}).",
            "The window runs on one host: leave exactly one in the group.",
        )
    router = description.get("router") or {}
    group = router.get("group", ROUTER_GROUP)
    hosts = list(groups.get(group) or [])
    if not hosts:
        raise InputError(
            f"The inventory group {group} has no host.",
            "Put every router of the landscape into it: what is not blocked goes on writing.",
        )
    policy = {**({"lease": router["lease"]} if "lease" in router else {}), **(description.get("policy") or {})}
    return {
        "store": dict(description["store"]),
        "routers": [_router(host, hostvars[host], router, base) for host in hosts],
        "participants": [_with_files(entry, base) for entry in description["participants"]],
        "policy": {key: policy[key] for key in _POLICY if key in policy},
        "health": [_with_files(entry, base) for entry in description.get("health") or []],
        **({"log_dir": description["log_dir"]} if "log_dir" in description else {}),
    }


def _router(host: str, variables: Mapping[str, Any], router: Mapping[str, Any], base: str) -> dict[str, Any]:
    patience = {"timeout": router["timeout"]} if "timeout" in router else {}
    if variables.get("zdm_router_socket"):
        return {"name": host, "socket": variables["zdm_router_socket"], **patience}
    port = variables.get("zdm_router_port") or router.get("port")
    needed = {"port": port, "ca_file": router.get("ca_file"), "cert_file": router.get("cert_file")}
    missing = [name for name, value in needed.items() if not value]
    if not port or missing:
        raise InputError(
            f"Router {host} can't be controlled: it has no zdm_router_socket, and"
            f" {', '.join(f'zdm_landscape.router.{name}' for name in missing)} is missing.",
            "Give the host zdm_router_socket, or the fleet its port and certificates.",
        )
    options = {"name": host, "host": variables.get("ansible_host") or host, "port": int(port), **patience}
    options.update({name: router[name] for name in _FILES if name in router})
    server_name = variables.get("zdm_router_server_name") or router.get("server_name")
    if server_name:
        options["server_name"] = server_name
    return _with_files(options, base)


def _with_files(options: Mapping[str, Any], base: str) -> dict[str, Any]:
    return {
        key: os.path.join(base, os.path.expanduser(value)) if key in _FILES and value else value
        for key, value in options.items()
    }
