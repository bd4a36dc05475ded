# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the description and the inventory to the options of the migration modules."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError
from ansible_collections.zdm.landscape.plugins.module_utils.description.module_options import module_options

BASE: dict[str, Any] = {
    "name": "x",
    "store": {"path": "/s"},
    "participants": [{"name": "a", "kind": "sqlite", "database": "/a.db"}],
}
GROUPS = {"zdm_controller": ["here"], "zdm_routers": ["r1", "r2"]}
TLS = {"port": 9443, "ca_file": "ca.pem", "cert_file": "/etc/zdm.pem", "lease": "2s"}


def test_a_router_is_reached_by_socket_or_by_mutual_tls() -> None:
    hostvars = {
        "r1": {"zdm_router_socket": "/run/r1.sock"},
        "r2": {"ansible_host": "127.0.0.2", "zdm_router_server_name": "r2.example"},
    }
    options = module_options({**BASE, "router": TLS}, GROUPS, hostvars, "/inventory")
    assert options["routers"] == [
        {"name": "r1", "socket": "/run/r1.sock"},
        {
            "name": "r2",
            "host": "127.0.0.2",
            "port": 9443,
            "ca_file": "/inventory/ca.pem",
            "cert_file": "/etc/zdm.pem",
            "server_name": "r2.example",
        },
    ]


def test_how_long_a_router_may_take_is_the_fleets() -> None:
    hostvars = {"r1": {"zdm_router_socket": "/run/r1.sock"}, "r2": {"ansible_host": "127.0.0.2"}}
    options = module_options({**BASE, "router": {**TLS, "timeout": "9s"}}, GROUPS, hostvars, "/inventory")
    assert [router["timeout"] for router in options["routers"]] == ["9s", "9s"]


def test_a_hosts_own_port_counts_more_than_the_fleets() -> None:
    options = module_options({**BASE, "router": TLS}, {"zdm_routers": ["r2"]}, {"r2": {"zdm_router_port": "9444"}})
    assert options["routers"][0]["port"] == 9444
    assert options["routers"][0]["host"] == "r2"


def test_the_lease_may_stand_with_the_router_or_in_the_policy() -> None:
    groups, hostvars = {"zdm_routers": ["r1"]}, {"r1": {"zdm_router_socket": "/s"}}
    policy = {"window_budget": "5s", "transition": "28d", "verified_within": "12h"}
    assert module_options({**BASE, "router": TLS, "policy": policy}, groups, hostvars)["policy"] == {
        "lease": "2s",
        **policy,
    }
    assert module_options({**BASE, "policy": {"lease": "1s"}}, groups, hostvars)["policy"] == {"lease": "1s"}


def test_throttle_and_log_folder_are_handed_on_when_they_are_given() -> None:
    description = {**BASE, "policy": {"throttle": {"rows_per_second": 5}}, "log_dir": "/var/log/zdm"}
    options = module_options(description, {"zdm_routers": ["r1"]}, {"r1": {"zdm_router_socket": "/s"}})
    assert (options["policy"], options["log_dir"]) == ({"throttle": {"rows_per_second": 5}}, "/var/log/zdm")


def test_another_group_can_hold_the_routers() -> None:
    options = module_options(
        {**BASE, "router": {"group": "edge"}}, {"edge": ["e1"]}, {"e1": {"zdm_router_socket": "/s"}}
    )
    assert [router["name"] for router in options["routers"]] == ["e1"]


@pytest.mark.parametrize(
    ("description", "groups", "hostvars", "message"),
    [
        (BASE, {"zdm_controller": ["here"]}, {}, "The inventory group zdm_routers has no host"),
        (BASE, {"zdm_controller": [], "zdm_routers": ["r1"]}, {"r1": {}}, "zdm_controller has 0 hosts"),
        (
            BASE,
            {"zdm_controller": ["a", "b"], "zdm_routers": ["r1"]},
            {"r1": {}},
            r"zdm_controller has 2 hosts \(a, b\)",
        ),
        (
            BASE,
            GROUPS,
            {"r1": {}, "r2": {}},
            "Router r1 can't be controlled: .*zdm_landscape.router.port, zdm_landscape.router.ca_file",
        ),
        (
            {**BASE, "router": {"port": 1}},
            GROUPS,
            {"r1": {}, "r2": {}},
            "zdm_landscape.router.ca_file, zdm_landscape.router.cert_file is missing",
        ),
        ({**BASE, "nam": 1}, GROUPS, {}, "zdm_landscape.nam is not known"),
    ],
)
def test_what_is_missing_is_named(
    description: dict[str, Any], groups: dict[str, list[str]], hostvars: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        module_options(description, groups, hostvars)
