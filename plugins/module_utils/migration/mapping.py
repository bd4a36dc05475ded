# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tenants of a migration: who they are, which accounts share their data, who holds them, and their mapping
documents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, Refused, Superseded
from ansible_collections.zdm.landscape.plugins.module_utils.core.names import valid_name
from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import FORMAT, IDLE, Journal, check_format
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import ONBOARDED, Document, Store
from ansible_collections.zdm.landscape.plugins.module_utils.store.settle import decide
from ansible_collections.zdm.landscape.plugins.module_utils.tenants.tenant import Tenant


@dataclass(frozen=True)
class Parties:
    """Source, target and the aliases: other accounts that are mapped to one of the two."""

    source: Tenant
    target: Tenant
    aliases: tuple[Tenant, ...] = ()

    @property
    def all(self) -> tuple[Tenant, ...]:
        return (self.source, self.target, *self.aliases)

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids that are blocked together, as they stand in tokens."""
        return tuple(tenant.id for tenant in self.all)

    def overrides(self, canonical: str) -> dict[str, str | None]:
        """The routers' overrides when *canonical* is live: every other id leads to it."""
        return {tenant.id: None if tenant.id == canonical else canonical for tenant in self.all}


def resolve(store: Store, source: str, target: str) -> Parties:
    """Find the tenants of a migration in the config store.

    :param source: subdomain given as ``migrate_db_from_tenant``.
    :param target: subdomain given as ``migrate_db_to_tenant``.
    :raises InputError: a name is invalid, both are the same, or one is not onboarded.
    """
    valid_name(source, "migrate_db_from_tenant")
    valid_name(target, "migrate_db_to_tenant")
    if source == target:
        raise InputError(f"Source and target are both {source}.", "Give two different tenants.")
    found = {document.name: document for document in store.list(ONBOARDED) if not document.emptied}
    tenants = []
    for role, subdomain in (("migrate_db_from_tenant", source), ("migrate_db_to_tenant", target)):
        if subdomain not in found:
            raise InputError(
                f"{role} {subdomain} is not onboarded: {store.describe()} has no onboarded-tenants/{subdomain}.",
                "Correct the name, or onboard the tenant first (playbook zdm.landscape.map).",
            )
        tenants.append(tenant_of(found[subdomain]))
    if tenants[0].id == tenants[1].id:
        raise InputError(
            f"{source} and {target} both have the id {tenants[0].id}.", "Correct the document of the wrong one."
        )
    return Parties(tenants[0], tenants[1], aliases_of(store, Journal(store, *tenants)))


def aliases_of(store: Store, journal: Journal) -> tuple[Tenant, ...]:
    """Other accounts that lead to source or target now, and those that the journal's window has blocked."""
    ends = (journal.source.subdomain, journal.target.subdomain)
    found = {
        entry["subdomain"]: Tenant(entry["subdomain"], entry["id"])
        for entry in journal.body.get("accounts", [])
        if journal.phase != IDLE
    }
    for document in store.list(ONBOARDED):
        if document.name not in ends and document.body.get("mapToTenant") in ends:
            found[document.name] = tenant_of(document)
    return tuple(found[name] for name in sorted(found))


def expect_current(store: Store, journal: Journal) -> None:
    """Refuse a migration that is history: its data has gone on to another tenant since it was finalized.

    :raises Refused: the target's document leads elsewhere.
    """
    document = store.get(ONBOARDED, journal.target.subdomain) if journal.body.get("finalized_at_ms") else None
    leads_to = document.body.get("mapToTenant") if document else None
    if leads_to:
        raise Refused(
            f"The migration {journal.key} is finalized, and {journal.target.subdomain} leads to {leads_to} today.",
            f"To move the data again, migrate {leads_to} to another tenant.",
        )


def tenant_of(document: Document) -> Tenant:
    """The tenant of an onboarded-tenants document.

    :raises InputError: the document has no valid id, or names another subdomain.
    :raises Refused: a newer collection wrote it.
    """
    check_format(document)
    subdomain = document.body.get("subdomain", document.name)
    if subdomain != document.name:
        raise InputError(
            f"{document.path} names the subdomain {subdomain!r}.",
            "File name and subdomain must agree; correct the document.",
        )
    return Tenant(
        valid_name(document.name, document.path), valid_name(document.body.get("id"), f"id in {document.path}")
    )


def write_documents(store: Store, journal: Journal, parties: Parties, canonical: Tenant) -> list[str]:
    """Step 11: no account leads anywhere but to *canonical*; each document carries the epoch (rule 12).

    Returns the subdomains whose documents were written.

    :raises Superseded: a document was written under a newer epoch of this migration.
    """
    written = []
    for tenant in parties.all:
        for _attempt in range(10):
            document = store.get(ONBOARDED, tenant.subdomain)
            if document is None or document.emptied:
                break  # Offboarded in the meantime: there is no account to lead anywhere.
            check_format(document)
            body = mapped(document.body, journal, None if tenant == canonical else canonical)
            if body == document.body:
                break
            if decide(store, ONBOARDED, tenant.subdomain, body, document.revision).ours:
                written.append(tenant.subdomain)
                break
            # Somebody changed another field: it is read again, and their change stays.
        else:
            raise Refused(
                f"onboarded-tenants/{tenant.subdomain} is changed all the time.",
                "Stop the writer, then run the same command again.",
            )
    return written


def mapped(body: dict[str, Any], journal: Journal, leads_to: Tenant | None) -> dict[str, Any]:
    """An onboarded-tenants body that leads to another tenant, or (``None``) to itself, under the journal's epoch."""
    if body.get("migration") == journal.key and int(body.get("epoch", 0)) > journal.epoch:
        raise Superseded(
            f"onboarded-tenants/{body.get('subdomain')} was written under epoch {body['epoch']}.",
            "Another controller took over.",
        )
    result = {key: value for key, value in body.items() if key not in ("mapToTenant", "mapToTenantId")}
    if leads_to:
        result.update(mapToTenant=leads_to.subdomain, mapToTenantId=leads_to.id)
    result.update(format=FORMAT, migration=journal.key, epoch=journal.epoch)
    return result
