# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Option groups: each owns its argument spec, a module assembles what it needs.

The doc fragments of the same names describe them in the same words; ``ansible-test sanity`` compares the two.
"""

from __future__ import annotations

from typing import Any

LOG_DIR = "~/.local/state/zdm.landscape"

STORE: dict[str, Any] = {
    "store": {
        "type": "dict",
        "required": True,
        "options": {
            "kind": {"type": "str", "choices": ["file"], "default": "file"},
            "path": {"type": "path", "required": True},
        },
    },
}

ROUTERS: dict[str, Any] = {
    "routers": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "socket": {"type": "path"},
            "host": {"type": "str"},
            "port": {"type": "int"},
            "ca_file": {"type": "path"},
            "cert_file": {"type": "path"},
            "key_file": {"type": "path"},
            "server_name": {"type": "str"},
            "timeout": {"type": "str", "default": "2s"},
        },
        "mutually_exclusive": [("socket", "host")],
        "required_one_of": [("socket", "host")],
        "required_by": {"host": ("port", "ca_file", "cert_file")},
    },
}

PARTICIPANTS: dict[str, Any] = {
    "participants": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "kind": {"type": "str", "required": True, "choices": ["postgresql", "mariadb", "sqlite"]},
            "host": {"type": "str"},
            "port": {"type": "int"},
            "socket": {"type": "path"},
            "database": {"type": "str", "required": True},
            "user": {"type": "str"},
            "password": {"type": "str", "no_log": True},
            "ssl": {"type": "bool", "default": False},
            "ca_file": {"type": "path"},
            "tenant_columns": {"type": "list", "elements": "str", "default": ["tenant_id"]},
            "tables": {"type": "dict", "default": {}},
            "ignore": {"type": "dict", "default": {}},
            "ids": {"type": "dict"},
            "id_query": {"type": "str"},
            "no_cross_tenant_readers": {"type": "bool", "default": False},
            "ddl_wait": {"type": "str"},
            "definer_role": {"type": "str"},
            "user_rotates": {"type": "bool", "default": False},
        },
        "mutually_exclusive": [("socket", "host"), ("ids", "id_query")],
        "required_if": [("kind", "postgresql", ("user",)), ("kind", "mariadb", ("user",))],
    },
}

THROTTLE: dict[str, Any] = {
    "rows_per_second": {"type": "int"},
    "max_replica_lag": {"type": "str"},
    "max_latency": {"type": "str"},
}

POLICY: dict[str, Any] = {
    "policy": {
        "type": "dict",
        "apply_defaults": True,
        "options": {
            "window_budget": {"type": "str", "default": "20s"},
            "drain_timeout": {"type": "str", "default": "2s"},
            "lease": {"type": "str", "default": "3s"},
            "mode": {"type": "str", "choices": ["hold", "reject"], "default": "hold"},
            "throttle": {"type": "dict", "options": THROTTLE},
            "transition": {"type": "str", "default": "28d"},
            "verified_within": {"type": "str", "default": "24h"},
        },
    },
}

HEALTH: dict[str, Any] = {
    "health": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "url": {"type": "str", "required": True},
            "assert": {"type": "str"},
            "status": {"type": "int"},
            "timeout": {"type": "str", "default": "5s"},
            "ca_file": {"type": "path"},
            "validate_certs": {"type": "bool", "default": True},
        },
    },
}

MIGRATION: dict[str, Any] = {
    "source": {"type": "str", "required": True},
    "target": {"type": "str", "required": True},
    "log_dir": {"type": "path", "default": LOG_DIR},
}

ARCHIVE: dict[str, Any] = {
    "archive_checksum": {"type": "str"},
    "archive_source": {"type": "str"},
    "archive_headers": {"type": "dict", "no_log": True},
    "archive_username": {"type": "str"},
    "archive_password": {"type": "str", "no_log": True},
    "archive_ca_file": {"type": "path"},
}

DESCRIPTOR: dict[str, Any] = {
    "longest_upgrade": {"type": "str"},
    "namespace": {"type": "str", "default": ""},
    "approuters": {"type": "list", "elements": "str", "default": []},
}

CLOUD_FOUNDRY: dict[str, Any] = {
    "cloud_foundry": {
        "type": "dict",
        "default": {},
        "options": {
            "api": {"type": "str"},
            "deploy_service": {"type": "str"},
            "org": {"type": "str"},
            "space": {"type": "str"},
            "token": {"type": "str", "no_log": True},
            "username": {"type": "str"},
            "password": {"type": "str", "no_log": True},
            "origin": {"type": "str"},
            "passcode": {"type": "str", "no_log": True},
            "assertion": {"type": "str", "no_log": True},
            "client_id": {"type": "str"},
            "client_secret": {"type": "str", "no_log": True},
            "cf_home": {"type": "path"},
            "ca_file": {"type": "path"},
            "validate_certs": {"type": "bool", "default": True},
            "timeout": {"type": "str", "default": "30s"},
        },
    },
}
