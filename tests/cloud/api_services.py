# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Service instances and their bindings, as the API v3 tells and takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .api import NOBODY, Account, cf_error
from .space import App, Service, Space, md5

USER_PROVIDED = "user-provided"


class ServiceInstances:
    """The service instances of a space; what a plan or an offering is called makes its guid."""

    def __init__(self, space: Space) -> None:
        self._space = space

    def seen(self, account: Account) -> list[Service]:
        with self._space.lock:
            return list(self._space.services.values()) if account.role != NOBODY else []

    def create(self, body: Any) -> Service:
        """Create a user-provided service instance.

        :raises Refusal: the body is none of one, or the name is taken.
        """
        given = body if isinstance(body, Mapping) else {}
        name, kind = given.get("name"), given.get("type")
        try:
            here = given["relationships"]["space"]["data"]["guid"] == self._space.guid
        except (KeyError, TypeError):
            here = False
        if not isinstance(name, str) or not name or kind != USER_PROVIDED or not here:
            raise cf_error(422, 10008, "CF-UnprocessableEntity", "Name, type and space of the service are needed")
        with self._space.lock:
            if name in self._space.services:
                detail = f"The service instance name is taken: {name}."
                raise cf_error(422, 10008, "CF-UnprocessableEntity", detail)
            service = Service(name, USER_PROVIDED, "", {}, dict(given.get("credentials") or {}), managed=False)
            self._space.services[name] = service
        return service

    def delete(self, guid: str) -> None:
        """:raises Refusal: there is none, or applications are bound to it."""
        with self._space.lock:
            service = next((one for one in self._space.services.values() if one.guid == guid), None)
            if service is None:
                raise cf_error(404, 10010, "CF-ResourceNotFound", "Service instance not found")
            if any(service.name in app.services for app in self._space.apps.values()):
                detail = "Service instance has bindings"
                raise cf_error(422, 10008, "CF-UnprocessableEntity", detail)
            del self._space.services[service.name]

    def view(self, service: Service) -> dict[str, Any]:
        relationships: dict[str, Any] = {"space": {"data": {"guid": self._space.guid}}}
        if service.managed:
            relationships["service_plan"] = {"data": {"guid": md5(f"{service.offering} {service.plan}")}}
        return {
            "guid": service.guid,
            "name": service.name,
            "type": "managed" if service.managed else USER_PROVIDED,
            "tags": service.tags,
            "created_at": service.created_at,
            "updated_at": service.created_at,
            "last_operation": {
                "type": "create" if service.writes == 1 else "update",
                "state": "succeeded",
                "description": "",
                "created_at": service.created_at,
                "updated_at": service.created_at,
            },
            "relationships": relationships,
            "metadata": service.metadata(),
        }

    def plans(self, services: Sequence[Service]) -> dict[str, Any]:
        """The plans and offerings of these, for the answer's ``included``."""
        pairs = dict.fromkeys((service.offering, service.plan) for service in services if service.managed)
        plans = [
            {
                "guid": md5(f"{offering} {plan}"),
                "name": plan,
                "relationships": {"service_offering": {"data": {"guid": md5(offering)}}},
            }
            for offering, plan in pairs
        ]
        offerings = [{"guid": md5(name), "name": name} for name in dict.fromkeys(pair[0] for pair in pairs)]
        return {"service_plans": plans, "service_offerings": offerings}

    def binding(self, service: Service, app: App) -> dict[str, Any]:
        return {
            "guid": md5(service.guid + app.guid),
            "name": None,
            "type": "app",
            "relationships": {
                "app": {"data": {"guid": app.guid}},
                "service_instance": {"data": {"guid": service.guid}},
            },
        }
