# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real @sap/approuter."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .app import APPS, App, Launch, service, vcap_services
from .node import Node

SESSIONS = "incident-session-management"
"""The Redis instance's name, by which the approuter finds its binding."""


class Approuter(App):
    """An approuter with the routes of ``apps/approuter/xs-app.json``: ``/api/`` needs a login and a CSRF token for
    changes, ``/public/`` neither.
    """

    def __init__(self, launch: Launch, routes: Path = APPS / "approuter") -> None:
        """:param routes: the folder of another xs-app.json."""
        super().__init__(launch)
        self._routes = routes

    def command(self, node: Node) -> list[str]:
        return [str(node.program), str(node.modules / "@sap" / "approuter" / "approuter.js"), "-w", str(self._routes)]


def session_management(secret: str, instance: str = SESSIONS, **more: Any) -> str:
    """EXT_SESSION_MGT as the descriptor gives it; *more* are other keys."""
    given = {"instanceName": instance, "storageType": "redis", "sessionSecret": secret}
    return json.dumps({**given, "defaultRetryTimeout": 10000, "backOffMultiplier": 10, **more})


def approuter_environment(
    xsuaa: Mapping[str, Any],
    destinations: Sequence[Mapping[str, Any]],
    *,
    redis: Mapping[str, Any] | None = None,
    sessions: str = "",
    **more: str,
) -> dict[str, str]:
    """The environment that Cloud Foundry would give an approuter.

    :param xsuaa: credentials of its XSUAA binding.
    :param destinations: the group ``destinations`` of its required properties.
    :param redis: credentials of a binding to redis-cache called :data:`SESSIONS`; none without.
    :param sessions: EXT_SESSION_MGT; sessions stay in memory when it is empty.
    :param more: variables of the module, for example TENANT_HOST_PATTERN.
    """
    bindings = [service("xsuaa", "incident-management-auth", xsuaa, tags=("xsuaa",))]
    if redis is not None:
        bindings.append(service("redis-cache", SESSIONS, redis, plan="development", tags=("cache",)))
    environment = {
        "VCAP_SERVICES": json.dumps(vcap_services(*bindings)),
        "destinations": json.dumps(list(destinations)),
        "SECURE_SESSION_COOKIE": "false",  # The route is plain HTTP here.
        **more,
    }
    return {**environment, "EXT_SESSION_MGT": sessions} if sessions else environment


def destination(name: str, url: str) -> dict[str, Any]:
    """A destination as the descriptor of the sample gives it."""
    return {"name": name, "url": url, "forwardAuthToken": True, "strictSSL": True}
