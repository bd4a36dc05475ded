# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Upgrades through the registries of the platform, which call the subscription callback of the application at its live
URL.

Interfaces: SaaS Provisioning (saas-registry, Application Operations) and Subscription Manager (subscription-manager,
Operations for Providers).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import OutcomeUnknown, Refused
from ansible_collections.zdm.landscape.plugins.module_utils.http.web import MAY_HAVE_BEGUN, shown
from ansible_collections.zdm.landscape.plugins.module_utils.upgrade.base import (
    FAILED,
    RUNNING,
    UNKNOWN,
    UPGRADED,
    Job,
    Progress,
    TenantState,
    Way,
)
from ansible_collections.zdm.landscape.plugins.module_utils.upgrade.session import Api

SAAS_RIGHTS = "to be of the saas-registry binding of the application"
MANAGER_RIGHTS = "to be of the subscription-manager binding of the application"
_PAGE = 200
_UPDATABLE = ("SUBSCRIBED", "UPDATE_FAILED")
_IN_PROCESS = "IN_PROCESS"


class Registry(Way):
    """What both registries have in common: a page-wise list, and one job for each tenant.

    :param app_name: the application's name in its registry.
    """

    def __init__(self, api: Api, app_name: str) -> None:
        self._api, self._app_name = api, app_name

    @abstractmethod
    def list_path(self) -> str:
        """The path of the list of subscriptions."""

    @abstractmethod
    def tenant_of(self, entry: Mapping[str, Any]) -> str:
        """The tenant's id in an entry of the list."""

    @abstractmethod
    def state_of(self, entry: Mapping[str, Any]) -> str:
        """The state of an entry of the list."""

    @abstractmethod
    def update_path(self, entry: Mapping[str, Any]) -> str:
        """The path that updates an entry's tenant."""

    @abstractmethod
    def progress_of(self, found: Mapping[str, Any]) -> TenantState:
        """What a job says of its tenant."""

    def tenants(self) -> list[str]:
        return [
            self.tenant_of(entry)
            for entry in self._subscriptions()
            if self.state_of(entry) in (*_UPDATABLE, _IN_PROCESS)
        ]

    def running(self, tenants: Sequence[str]) -> list[Job]:
        busy = [self.tenant_of(entry) for entry in self._subscriptions() if self.state_of(entry) == _IN_PROCESS]
        return [_Busy(self, [tenant]) for tenant in busy if tenant in tenants]

    def start(self, tenants: Sequence[str]) -> Job:
        entries = {self.tenant_of(entry): entry for entry in self._subscriptions()}
        job = _RegistryJob(self, self._api)
        for tenant in tenants:
            job.begin(tenant, entries.get(tenant))
        return job

    def busy(self, tenants: Sequence[str]) -> bool:
        """Whether one of the tenants is still in process."""
        return any(
            self.tenant_of(entry) in tenants for entry in self._subscriptions() if self.state_of(entry) == _IN_PROCESS
        )

    def _subscriptions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        page, more = 1, True
        while more:
            answer = self._api.read(
                f"{self.list_path()}?{urlencode({'appName': self._app_name, 'size': _PAGE, 'page': page})}"
            )
            body = answer.json() if answer.ok else None
            if not isinstance(body, dict) or not isinstance(body.get("subscriptions"), list):
                advice = "Check url and app_name, as the service key has them."
                raise Refused(f"{shown(answer.url)} answers with status {answer.status}: {answer.said}", advice)
            found += body["subscriptions"]
            page, more = page + 1, bool(body.get("morePages"))
        return found


class SaasRegistry(Registry):
    """The service saas-registry."""

    def list_path(self) -> str:
        return "/saas-manager/v1/application/subscriptions"

    def tenant_of(self, entry: Mapping[str, Any]) -> str:
        return str(entry["consumerTenantId"])

    def state_of(self, entry: Mapping[str, Any]) -> str:
        return str(entry.get("state"))

    def update_path(self, entry: Mapping[str, Any]) -> str:
        return f"/saas-manager/v1/application/tenants/{quote(self.tenant_of(entry), safe='')}/subscriptions"

    def progress_of(self, found: Mapping[str, Any]) -> TenantState:
        state = found.get("state")
        if state == "SUCCEEDED":
            return TenantState(UPGRADED)
        error = found.get("error")
        reason = str(error.get("message") if isinstance(error, dict) else error or "the registry gives no reason")
        return TenantState(FAILED, reason) if state == "FAILED" else TenantState(RUNNING)


class SubscriptionManager(Registry):
    """The service subscription-manager."""

    def list_path(self) -> str:
        return "/subscription-manager/v1/subscriptions"

    def tenant_of(self, entry: Mapping[str, Any]) -> str:
        return str(entry["subscriber"]["app_tid"])

    def state_of(self, entry: Mapping[str, Any]) -> str:
        return str(entry.get("subscriptionState"))

    def update_path(self, entry: Mapping[str, Any]) -> str:
        return f"/subscription-manager/v1/subscriptions/{quote(str(entry['subscriptionGUID']), safe='')}"

    def progress_of(self, found: Mapping[str, Any]) -> TenantState:
        state = str(found.get("subscriptionState"))
        if state == "SUBSCRIBED":
            return TenantState(UPGRADED)
        if state == _IN_PROCESS:
            return TenantState(RUNNING)
        return TenantState(FAILED, str(found.get("subscriptionStateDetails") or f"its state is {state}"))


class _RegistryJob(Job):
    """The jobs of some tenants, each with its own address."""

    def __init__(self, registry: Registry, api: Api) -> None:
        super().__init__("", ())
        self._registry, self._api = registry, api
        self._places: dict[str, str] = {}
        self._states: dict[str, TenantState] = {}

    def begin(self, tenant: str, entry: Mapping[str, Any] | None) -> None:
        """Start one; a tenant whose start is refused has failed, the others go on."""
        self.tenants = (*self.tenants, tenant)
        self._states[tenant] = TenantState(RUNNING)
        if entry is None:
            self._states[tenant] = TenantState(FAILED, "it is not subscribed any more")
            return
        try:
            answer = self._api.write("PATCH", self._registry.update_path(entry))
            if answer.status in MAY_HAVE_BEGUN:
                raise OutcomeUnknown(
                    f"{shown(answer.url)} answers with status {answer.status}.", "Look whether the registry is there."
                )
        except OutcomeUnknown as error:
            if not self._places:
                raise
            self._states[tenant] = TenantState(UNKNOWN, f"it is not known whether its update began: {error.message}")
            return
        place = urlsplit(str(answer.headers.get("Location") or "")) if answer.status == 202 else urlsplit("")
        if not place.path:
            self._states[tenant] = TenantState(
                FAILED, f"the registry starts no update, status {answer.status}: {answer.reason}"
            )
            return
        self._places[tenant] = f"{place.path}?{place.query}" if place.query else place.path
        self.id = ", ".join(sorted(path.rpartition("/")[2] for path in self._places.values()))

    def poll(self) -> Progress:
        for tenant, place in self._places.items():
            if self._states[tenant].status != RUNNING:
                continue
            answer = self._api.read(place)
            if not answer.ok:
                return Progress(
                    dict(self._states),
                    ended=True,
                    lost=f"the registry answers with status {answer.status}: {answer.reason}",
                )
            found = answer.json()
            self._states[tenant] = self._registry.progress_of(found if isinstance(found, dict) else {})
        return Progress(dict(self._states), ended=all(state.status != RUNNING for state in self._states.values()))


class _Busy(Job):
    """An update that somebody else started; its address is not known, its subscription's state is."""

    def __init__(self, registry: Registry, tenants: Sequence[str]) -> None:
        super().__init__(f"of {', '.join(tenants)}", tenants)
        self._registry = registry

    def poll(self) -> Progress:
        return Progress({}, ended=not self._registry.busy(self.tenants))
