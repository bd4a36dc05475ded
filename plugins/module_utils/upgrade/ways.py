# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the options of tenant_upgrade to the way that carries it out; the only list of the ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError
from ansible_collections.zdm.landscape.plugins.module_utils.http.tokens import Signed
from ansible_collections.zdm.landscape.plugins.module_utils.http.web import Web, checked_url
from ansible_collections.zdm.landscape.plugins.module_utils.upgrade.base import Way
from ansible_collections.zdm.landscape.plugins.module_utils.upgrade.registry import (
    MANAGER_RIGHTS,
    SAAS_RIGHTS,
    SaasRegistry,
    SubscriptionManager,
)
from ansible_collections.zdm.landscape.plugins.module_utils.upgrade.session import Api, token_source
from ansible_collections.zdm.landscape.plugins.module_utils.upgrade.sidecar import RIGHTS, Sidecar

WAYS = ("sidecar", "saas_registry", "subscription_manager")


def build_way(options: Mapping[str, Any], web: Web | None = None) -> Way:
    """The way that the options name.

    :raises InputError: they don't fit together.
    """
    web = web or Web(options.get("ca_file"), options.get("validate_certs") is not False)
    signed = Signed(web, token_source(options, web))
    url, via, app_name = checked_url(options["url"], "url"), options["via"], options.get("app_name") or ""
    if via == "sidecar":
        return Sidecar(Api(signed, url, RIGHTS))
    if not app_name:
        raise InputError(
            f"app_name is missing: {via} keeps many applications.",
            "Give appName or app_name, as the service key has it.",
        )
    if via == "saas_registry":
        return SaasRegistry(Api(signed, url, SAAS_RIGHTS), app_name)
    return SubscriptionManager(Api(signed, url, MANAGER_RIGHTS), app_name)
