# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Onboarded tenants: what the onboarding callback writes, and every rule that a mapping has to keep.

A mapping gives one tenant all data of another, so subdomain and id are both given and compared, and whatever could lead
a customer to somebody else's data is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Conflict, InputError, Refused
from ansible_collections.zdm.landscape.plugins.module_utils.core.names import valid_name
from ansible_collections.zdm.landscape.plugins.module_utils.migration.claims import holder_of
from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import FORMAT, IDLE, PHASES, check_format
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import (
    CLAIMS,
    MIGRATIONS,
    ONBOARDED,
    TENANTS,
    WRITE_ID,
    Document,
    Store,
)
from ansible_collections.zdm.landscape.plugins.module_utils.store.settle import decide
from ansible_collections.zdm.landscape.plugins.module_utils.tenants.tenant import Tenant

MAPPING_KEYS = ("mapToTenant", "mapToTenantId")
CONFIG_KEYS = ("onboardWithMappingToTenant", "onboardWithMappingToTenantId")
EMPTY = {"format": FORMAT}
"""The document of a tenant that is not onboarded any more. It is never deleted: where none is, a create whose answer
was lost could still land.
"""


@dataclass(frozen=True)
class Wanted:
    """An onboarded tenant as it is to be. What is ``None`` is taken from the document, the configuration or the mapped
    tenant.

    :param adopt_onboarded: a tenant that is onboarded without a mapping may get one. It may have data and users of its
        own.
    """

    subdomain: str
    id: str | None = None
    datacenter: str | None = None
    channel: str | None = None
    map_to: Tenant | None = None
    adopt_onboarded: bool = False


@dataclass(frozen=True)
class Change:
    """A document before and after; equal when nothing has to be done. ``None``: it does not exist.

    :param revision: what it is written over; an emptied document has one too.
    """

    before: Document | None
    after: dict[str, Any] | None
    name: str
    revision: str | None = None

    @property
    def former(self) -> dict[str, Any] | None:
        """What the document says before, without the id of its last write."""
        return _said(self.before) if self.before else None

    @property
    def needed(self) -> bool:
        return self.former != self.after


def pair(subdomain: object, tenant_id: object, what: str) -> Tenant | None:
    """A tenant of which subdomain and id are given together, or ``None`` when neither is.

    :raises InputError: only one of the two is given, or one is no valid name.
    """
    if not subdomain and not tenant_id:
        return None
    if not subdomain or not tenant_id:
        raise InputError(
            f"{what} needs subdomain and id, only the {'subdomain' if subdomain else 'id'} is given.",
            "Give both: they are compared.",
        )
    return Tenant(valid_name(subdomain, f"subdomain of {what}"), valid_name(tenant_id, f"id of {what}"))


def plan_present(store: Store, wanted: Wanted) -> Change:
    """What has to be written to onboard *wanted*, as the onboarding callback does. Changes nothing.

    :raises InputError: values are missing or disagree.
    :raises Refused: a rule of mappings forbids it; the message names the document and the way out.
    """
    valid_name(wanted.subdomain, "subdomain")
    stored = {document.name: document for document in store.list(ONBOARDED)}
    documents = {name: document for name, document in stored.items() if not document.emptied}
    current = documents.get(wanted.subdomain)
    config = _config(store, wanted.subdomain)
    map_to = _mapping(wanted, config)
    body: dict[str, Any] = _said(current) if current else {}
    _refuse_other_id(wanted, body, documents)
    given = {"id": wanted.id, "subdomain": wanted.subdomain, "datacenter": wanted.datacenter, "channel": wanted.channel}
    body.update({key: value for key, value in given.items() if value})
    if map_to:
        _refuse_bad_target(store, wanted, map_to, documents, current)
        for key in ("datacenter", "channel"):
            body.setdefault(key, documents[map_to.subdomain].body.get(key))
        body.update(mapToTenant=map_to.subdomain, mapToTenantId=map_to.id)
        if body.get("id") == map_to.id:
            raise Refused(
                f"{wanted.subdomain} and {map_to.subdomain} have the same id {map_to.id}.",
                "Correct the id of the wrong one.",
            )
        theirs = documents[map_to.subdomain].body.get("datacenter")
        if body["datacenter"] != theirs:
            raise Refused(
                f"{wanted.subdomain} is in datacenter {body['datacenter']}, {map_to.subdomain} in {theirs}.",
                "A tenant can only be mapped and migrated within one datacenter.",
            )
    missing = [key for key in ("id", "datacenter", "channel") if not body.get(key)]
    if missing:
        raise InputError(
            f"{wanted.subdomain} is not onboarded yet, and {', '.join(missing)} is not given.",
            "Give what the subscription said.",
        )
    valid_name(body["id"], f"id of {wanted.subdomain}")
    change = Change(current, body, wanted.subdomain, _revision(stored.get(wanted.subdomain)))
    if change.needed:
        _refuse_held(store, change)
    return change


def plan_absent(store: Store, subdomain: str) -> Change:
    """What offboarding does to the tenant's document. Changes nothing.

    :raises Refused: other accounts lead to it, or a migration holds it.
    """
    valid_name(subdomain, "subdomain")
    stored = store.get(ONBOARDED, subdomain)
    current = None if stored and stored.emptied else stored
    change = Change(current, None, subdomain, _revision(stored))
    if current:
        others = sorted(
            document.name for document in store.list(ONBOARDED) if document.body.get("mapToTenant") == subdomain
        )
        if others:
            raise Refused(
                f"{', '.join(others)} is mapped to {subdomain}.", "Offboard these accounts first: they use its data."
            )
        held = holder_of(store.get(CLAIMS, subdomain))
        if held:
            raise Refused(
                f"{subdomain} is claimed by the migration {held}.",
                "Finish or abort that migration first.",
            )
        _refuse_held(store, change)
    return change


def apply(store: Store, change: Change) -> bool:
    """Write or empty the document, then read the journals once more: a window may have opened in between. The write is
    settled first: one without an answer could land when the window is over.

    Returns whether something was written.

    :raises Conflict: somebody else changed the document since it was planned.
    :raises Refused: a migration opened its window; the document is again as it was.
    :raises OutcomeUnknown: no answer said whether it was written; the same call goes on.
    """
    if not change.needed:
        return False
    written = decide(store, ONBOARDED, change.name, change.after or EMPTY, change.revision).ours
    if not written:
        raise Conflict(
            f"{ONBOARDED}/{change.name} was changed by somebody else.", "Read it again and repeat the command."
        )
    if change.after is not None:
        try:
            _refuse_held(store, change)
        except Refused:
            # Whoever has written since is the migration itself: then it is right as it is.
            decide(store, ONBOARDED, change.name, change.before.body if change.before else EMPTY, written.revision)
            raise
    return True


def problems(documents: list[Document]) -> dict[str, list[str]]:
    """What is wrong with mappings that are in the store, per subdomain; empty when all is well."""
    found: dict[str, list[str]] = {}
    by_name = {document.name: document.body for document in documents}
    owner: dict[str, str] = {}
    for name, body in by_name.items():
        mine = found.setdefault(name, [])
        other = owner.setdefault(str(body.get("id")), name)
        if other != name:
            mine.append(f"{name} and {other} have the same id {body.get('id')}.")
        leads_to = body.get("mapToTenant")
        if not leads_to:
            continue
        there = by_name.get(leads_to)
        if there is None:
            mine.append(f"{name} is mapped to {leads_to}, which is not onboarded.")
        elif there.get("mapToTenant"):
            mine.append(f"{name} is mapped to {leads_to}, which is itself mapped to {there['mapToTenant']}.")
        elif there.get("id") != body.get("mapToTenantId"):
            mine.append(
                f"{name} is mapped to the id {body.get('mapToTenantId')}, but {leads_to} has the id {there.get('id')}."
            )
        elif there.get("datacenter") != body.get("datacenter"):
            mine.append(f"{name} is in datacenter {body.get('datacenter')}, {leads_to} in {there.get('datacenter')}.")
    return {name: texts for name, texts in found.items() if texts}


def _config(store: Store, subdomain: str) -> dict[str, Any]:
    document = store.get(TENANTS, subdomain)
    return document.body if document else {}


def _mapping(wanted: Wanted, config: dict[str, Any]) -> Tenant | None:
    """The mapping that is asked for, or the one in the landscape's configuration; both must agree."""
    configured = pair(
        config.get(CONFIG_KEYS[0]), config.get(CONFIG_KEYS[1]), f"tenants/{wanted.subdomain}: {CONFIG_KEYS[0]}"
    )
    if wanted.map_to and configured and wanted.map_to != configured:
        raise Refused(
            f"{wanted.subdomain} is to be mapped to {wanted.map_to.subdomain} ({wanted.map_to.id}), "
            f"but tenants/{wanted.subdomain} says {configured.subdomain} ({configured.id}).",
            "Correct the wrong one of the two.",
        )
    if str(config.get("decommissioned", "")).lower() == "true":
        raise Refused(
            f"{wanted.subdomain} is decommissioned in tenants/{wanted.subdomain}.",
            "Remove decommissioned there if it is to be used again.",
        )
    return wanted.map_to or configured


def _refuse_other_id(wanted: Wanted, body: dict[str, Any], documents: dict[str, Document]) -> None:
    if wanted.id:
        valid_name(wanted.id, f"id of {wanted.subdomain}")
        if body.get("id") not in (None, wanted.id):
            raise Refused(
                f"{wanted.subdomain} is onboarded with the id {body['id']}, given is {wanted.id}.",
                "Subdomain and id must belong together: correct the wrong one.",
            )
        same = sorted(
            name
            for name, document in documents.items()
            if document.body.get("id") == wanted.id and name != wanted.subdomain
        )
        if same:
            raise Refused(
                f"The id {wanted.id} belongs to {', '.join(same)} already.", f"Give the id of {wanted.subdomain}."
            )


def _refuse_bad_target(
    store: Store, wanted: Wanted, map_to: Tenant, documents: dict[str, Document], current: Document | None
) -> None:
    name = wanted.subdomain
    if map_to.subdomain == name:
        raise Refused(f"{name} can't be mapped to itself.", "Give the tenant whose data it is to use.")
    target = documents.get(map_to.subdomain)
    if target is None:
        raise Refused(
            f"{map_to.subdomain} is not onboarded, so {name} can't be mapped to it.",
            "Correct the name, or onboard it first.",
        )
    if target.body.get("id") != map_to.id:
        raise Refused(
            f"{map_to.subdomain} has the id {target.body.get('id')}, given is {map_to.id}.",
            "Subdomain and id must belong together: correct the wrong one.",
        )
    if target.body.get("mapToTenant"):
        raise Refused(
            f"{map_to.subdomain} is itself mapped to {target.body['mapToTenant']}, so {name} can't be mapped to it.",
            f"Map {name} to {target.body['mapToTenant']}: there are no chains.",
        )
    if str(_config(store, map_to.subdomain).get("decommissioned", "")).lower() == "true":
        raise Refused(
            f"{map_to.subdomain} is decommissioned in tenants/{map_to.subdomain}.", "Map to a tenant that is in use."
        )
    lead_here = sorted(document.name for document in documents.values() if document.body.get("mapToTenant") == name)
    if lead_here:
        raise Refused(
            f"{', '.join(lead_here)} is mapped to {name}, so {name} can't be mapped itself.",
            f"Map them to {map_to.subdomain} first.",
        )
    if current and current.body.get("mapToTenant", map_to.subdomain) != map_to.subdomain:
        raise Refused(
            f"{name} is mapped to {current.body['mapToTenant']} already.",
            "Offboard it first, then onboard it with the other mapping.",
        )
    if current and "mapToTenant" not in current.body and not wanted.adopt_onboarded:
        raise Refused(
            f"{name} is onboarded without a mapping, so it may have data and users of its own.",
            "If it is certain that it has none, set adopt_onboarded; its users then work with the data of"
            f" {map_to.subdomain}.",
        )


def _refuse_held(store: Store, change: Change) -> None:
    """A document that a migration holds is the migration's to write (cutover protocol, rule 12)."""
    leads_to = (change.after or {}).get("mapToTenant")
    names = {change.name, *([leads_to] if leads_to else [])}
    claimed = {holder_of(store.get(CLAIMS, name)) for name in names}
    for document in store.list(MIGRATIONS):
        check_format(document)
        body = document.body
        if not names & set(_subdomains(body)):
            continue
        key = body["migration"]
        if body["phase"] != IDLE:
            raise Refused(
                f"The migration {key} holds {', '.join(sorted(names & set(_subdomains(body))))} (phase {body['phase']},"
                f" {PHASES[body['phase']]}).",
                "Wait until its window is over, or finish it: playbook zdm.landscape.status says how.",
            )
        if key in claimed:
            _refuse_against(change, body)


def _refuse_against(change: Change, journal: dict[str, Any]) -> None:
    live = next(journal[role] for role in ("source", "target") if journal[role]["id"] == journal["canonical"])
    after = change.after or {}
    expected = None if change.name == live["subdomain"] else live["id"]
    if after.get("mapToTenantId") != expected:
        wanted = after.get("mapToTenant") or "itself"
        raise Refused(
            f"{change.name} is to lead to {wanted}, but in the migration {journal['migration']} {live['subdomain']}"
            f" ({live['id']}) is live.",
            "The migration writes this document; reverse it if the other tenant is to be live.",
        )


def _subdomains(journal: dict[str, Any]) -> Iterator[str]:
    for party in (journal["source"], journal["target"], *journal.get("accounts", [])):
        yield party["subdomain"]


def _said(document: Document) -> dict[str, Any]:
    return {key: value for key, value in document.body.items() if key != WRITE_ID}


def _revision(document: Document | None) -> str | None:
    return document.revision if document else None
