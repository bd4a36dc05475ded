# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One tenant's entries in the routers' maps outside of a migration: home, subdomain, override, decommissioning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, Refused
from ansible_collections.zdm.landscape.plugins.module_utils.core.names import valid_name
from ansible_collections.zdm.landscape.plugins.module_utils.router.base import RouterState

Edits = dict[str, dict[str, "str | None"]]
"""Map → key → value, ``None`` to remove; to be made in this order."""


@dataclass(frozen=True)
class Wanted:
    """A tenant as the routers are to know it. ``None`` leaves a part as it is.

    :param home: ``datacenter/channel``.
    :param leads_to: the id whose data the tenant uses; empty: its own.
    """

    id: str
    subdomain: str | None = None
    home: str | None = None
    leads_to: str | None = None
    decommissioned: bool | None = None

    def entries(self) -> dict[str, str]:
        """The given parts in the form of :func:`entries_of`; an empty one is to be removed."""
        leads_to = "" if self.leads_to == self.id else self.leads_to
        gone = None if self.decommissioned is None else "yes" if self.decommissioned else ""
        parts = {"home": self.home, "leads_to": leads_to, "subdomain": self.subdomain, "decommissioned": gone}
        return {key: value for key, value in parts.items() if value is not None}


def entries_of(state: RouterState, tenant_id: str) -> dict[str, str]:
    """What a router knows of a tenant, as a diff shows it."""
    found = {"home": state.onboarded.get(tenant_id), "leads_to": state.overrides.get(tenant_id)}
    names = sorted(name for name, value in state.subdomains.items() if value == tenant_id)
    found |= {"subdomain": ", ".join(names), "decommissioned": "yes" if tenant_id in state.decommissioned else None}
    return {key: value for key, value in found.items() if value}


def plan_present(states: Sequence[RouterState], wanted: Wanted) -> Edits:
    """The edits that make every router know the tenant; empty when all do.

    The override comes first: no request may be served under an id that is to lead elsewhere.

    :raises InputError: a name is invalid, or a router does not know the tenant and its home is not given.
    :raises Refused: the tenant would lead to one that leads elsewhere or is not onboarded, or others lead to it.
    """
    _check(wanted)
    for state in states:
        _refuse_leads(state, wanted)
    edits: Edits = {}
    if wanted.leads_to is not None:
        edits["override"] = {wanted.id: None if wanted.leads_to in ("", wanted.id) else wanted.leads_to}
    if wanted.decommissioned is not None:
        edits["decommissioned"] = {wanted.id: "1" if wanted.decommissioned else None}
    if wanted.home is not None:
        edits["onboarded"] = {wanted.id: wanted.home}
    else:
        strangers = [state.name for state in states if wanted.id not in state.onboarded]
        if strangers:
            raise InputError(
                f"Tenant id {wanted.id} is not onboarded at {', '.join(strangers)}.", "Give its datacenter and channel."
            )
    if wanted.subdomain is not None:
        edits["subdomains"] = {wanted.subdomain: wanted.id}
    return {
        table: entries for table, entries in edits.items() if any(_differs(state, table, entries) for state in states)
    }


def plan_absent(states: Sequence[RouterState], tenant_id: str) -> Edits:
    """The edits that make every router forget the tenant; the override goes last.

    :raises Refused: others lead to it.
    """
    valid_name(tenant_id, "id")
    for state in states:
        for other in sorted(other for other, target in state.overrides.items() if target == tenant_id):
            raise leads_to_nobody(state.name, other, tenant_id)
    names = sorted({name for state in states for name, value in state.subdomains.items() if value == tenant_id})
    edits: Edits = {
        "subdomains": dict.fromkeys(names),
        **{table: {tenant_id: None} for table in ("onboarded", "decommissioned", "override")},
    }
    return {
        table: entries for table, entries in edits.items() if any(_differs(state, table, entries) for state in states)
    }


def chain(router: str, first: str, second: str, third: str) -> Refused:
    """The error of a chain of mappings; a router looks a mapping up once, and one that starts would see another."""
    return Refused(
        f"Router {router} refuses: tenant id {first} would lead to {second}, which leads to {third} itself.",
        f"Let {first} lead to {third}, or remove the mapping of {second} first.",
        router=router,
        ids=[first, second, third],
    )


def leads_to_nobody(router: str, first: str, second: str) -> Refused:
    """The error of a mapping to an id that the router does not know."""
    return Refused(
        f"Router {router} refuses: tenant id {first} would lead to {second}, which is not onboarded.",
        f"Onboard {second} first, or let {first} lead to another tenant.",
        router=router,
        ids=[first, second],
    )


def _refuse_leads(state: RouterState, wanted: Wanted) -> None:
    """What the router itself refuses, before the first router is edited and in check mode too."""
    if wanted.leads_to in (None, "", wanted.id):
        return
    if wanted.leads_to not in state.onboarded:
        raise leads_to_nobody(state.name, wanted.id, str(wanted.leads_to))
    if wanted.leads_to in state.overrides:
        raise chain(state.name, wanted.id, str(wanted.leads_to), state.overrides[str(wanted.leads_to)])
    for other in sorted(other for other, target in state.overrides.items() if target == wanted.id):
        raise chain(state.name, other, wanted.id, str(wanted.leads_to))


def _check(wanted: Wanted) -> None:
    valid_name(wanted.id, "id")
    if wanted.subdomain is not None:
        valid_name(wanted.subdomain, "subdomain")
    if wanted.leads_to:
        valid_name(wanted.leads_to, "map_to_tenant_id")


def _differs(state: RouterState, table: str, entries: Mapping[str, str | None]) -> bool:
    tables: dict[str, Mapping[str, str]] = {
        "override": state.overrides,
        "decommissioned": dict.fromkeys(state.decommissioned, "1"),
        "onboarded": state.onboarded,
        "subdomains": state.subdomains,
    }
    return any(tables[table].get(key) != value for key, value in entries.items())
