# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A router's maps as a pure function of the config store's documents (cutover protocol, rule 5).

The documents of onboarded tenants are derived data; the journals are the truth and are laid over them. A journal that
is idle and whose migration claims nothing any more is history: there the documents win.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError
from ansible_collections.zdm.landscape.plugins.module_utils.core.names import valid_name
from ansible_collections.zdm.landscape.plugins.module_utils.router.base import EPOCH_MAX, FAR_MS, HOLD

Body = Mapping[str, Any]
_MIGRATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

FORMAT = 1
CLOSED_PHASES = frozenset("CUK")
OPEN_PHASES = frozenset("IWVR")


@dataclass(frozen=True)
class Documents:
    """The bodies of the store's documents, by name, of the four collections that routers are made from."""

    tenants: Mapping[str, Body] = field(default_factory=dict)
    onboarded: Mapping[str, Body] = field(default_factory=dict)
    migrations: Mapping[str, Body] = field(default_factory=dict)
    claims: Mapping[str, Body] = field(default_factory=dict)


@dataclass
class Maps:
    """What a router looks up. ``files()`` gives the map files' entries, all of them strings."""

    onboarded: dict[str, str] = field(default_factory=dict)
    subdomains: dict[str, str] = field(default_factory=dict)
    override: dict[str, str] = field(default_factory=dict)
    block: dict[str, str] = field(default_factory=dict)
    decommissioned: dict[str, str] = field(default_factory=dict)
    epochs: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """Documents of single tenants that were left out, each with the reason."""

    def files(self) -> dict[str, dict[str, str]]:
        """Entries by the name of the map."""
        return {
            "onboarded": self.onboarded,
            "subdomains": self.subdomains,
            "override": self.override,
            "block": self.block,
            "decommissioned": self.decommissioned,
            "epochs": self.epochs,
        }


def render(documents: Documents) -> Maps:
    """Make the maps.

    :raises InputError: a journal or a claim can't be understood. One bad tenant's document only leaves that tenant out.
    """
    maps = Maps()
    for name, body in sorted(documents.claims.items()):
        _check_format(f"claims/{name}", body)
    for name, body in documents.tenants.items():
        _check_format(f"tenants/{name}", body)
    mapped = _tenants(documents, maps)
    journaled: dict[str, str] = {}
    for key, body in sorted(documents.migrations.items()):
        _journal(key, body, maps)
        if not _is_history(key, body, documents.claims):
            journaled.update(_journal_overrides(key, body))
    _leave_out_strays(mapped, journaled, maps)
    for canonical in sorted({*journaled.values()} - maps.onboarded.keys()):
        maps.problems.append(
            f"Migrations lead to {canonical}, which is not onboarded: its requests are refused, those of accounts that"
            " lead to it are not."
        )
    maps.override = _without_chains({**mapped, **journaled})
    return maps


def home(body: Body) -> str:
    """``datacenter/channel`` of an onboarded tenant as the router holds it; a missing part is ``-``.

    :raises InputError: a part is no valid name.
    """
    parts = (body.get("datacenter"), body.get("channel"))
    return "/".join("-" if part in (None, "") else valid_name(part, "datacenter or channel") for part in parts)


def _tenants(documents: Documents, maps: Maps) -> dict[str, str]:
    """Fill in the onboarded tenants; answers the overrides that their documents ask for."""
    mapped: dict[str, str] = {}
    for name, body in sorted(documents.onboarded.items()):
        try:
            _check_format(f"onboarded-tenants/{name}", body)
            subdomain = valid_name(name, "subdomain")
            tenant_id = valid_name(body.get("id"), "id")
            where = home(body)
            target = body.get("mapToTenantId")
            if target is not None:
                valid_name(target, "mapToTenantId")
        except InputError as error:
            maps.problems.append(f"onboarded-tenants/{name} is left out: {error.message}")
            continue
        if tenant_id in maps.onboarded:
            maps.problems.append(
                f"onboarded-tenants/{name} is left out: its id {tenant_id} belongs to another document too."
            )
            continue
        maps.onboarded[tenant_id] = where
        maps.subdomains[subdomain] = tenant_id
        if target is not None:
            mapped[tenant_id] = target
        if str(documents.tenants.get(name, {}).get("decommissioned", "")).lower() == "true":
            maps.decommissioned[tenant_id] = "1"
    return mapped


def _leave_out_strays(mapped: dict[str, str], journaled: Mapping[str, str], maps: Maps) -> None:
    """Leave out tenants whose documents lead to nobody or to a tenant that leads elsewhere, as a running router refuses
    the edit.

    Where a journal says where the next one leads, it is followed: documents are derived and may be older.
    """
    strays = {}
    for tenant_id, target in mapped.items():
        if tenant_id in journaled or target == tenant_id:
            continue
        if target in journaled and journaled[target] in maps.onboarded:
            continue
        if target not in maps.onboarded:
            strays[tenant_id] = f"it leads to {target}, which is not onboarded"
        elif mapped.get(target, target) != target:
            strays[tenant_id] = f"it leads to {target}, which leads to {mapped[target]} itself"
    for name, tenant_id in list(maps.subdomains.items()):
        if tenant_id in strays:
            maps.problems.append(f"onboarded-tenants/{name} is left out: {strays[tenant_id]}.")
            del maps.subdomains[name], maps.onboarded[tenant_id], mapped[tenant_id]
            maps.decommissioned.pop(tenant_id, None)


def _is_history(key: str, body: Body, claims: Mapping[str, Body]) -> bool:
    return body.get("phase") == "I" and not any(claim.get("migration") == key for claim in claims.values())


def _ids(key: str, body: Body) -> Iterator[str]:
    """Source, target and aliases of a journal."""
    aliases = body.get("aliases", [])
    if not isinstance(aliases, list):
        raise _unreadable(f"migrations/{key}", f"its aliases are {aliases!r}")
    try:
        ids = [body["source"]["id"], body["target"]["id"], *aliases]
    except (KeyError, TypeError) as error:
        raise _unreadable(f"migrations/{key}", f"{error} is missing or of a wrong type") from error
    for tenant_id in ids:
        yield valid_name(tenant_id, f"id in migrations/{key}")


def _journal(key: str, body: Body, maps: Maps) -> None:
    """Lay a journal's epoch and block over the maps."""
    if not _MIGRATION.fullmatch(key):
        raise _unreadable(f"migrations/{key}", "its name is no key of a migration")
    _check_format(f"migrations/{key}", body)
    phase, epoch = body.get("phase"), body.get("epoch")
    if not isinstance(epoch, int) or isinstance(epoch, bool) or not 0 <= epoch <= EPOCH_MAX:
        raise _unreadable(f"migrations/{key}", f"its epoch is {epoch!r}")
    if not isinstance(phase, str) or phase not in CLOSED_PHASES | OPEN_PHASES:
        raise _unreadable(f"migrations/{key}", f"its phase is {phase!r}")
    maps.epochs[key] = str(epoch)
    if phase in CLOSED_PHASES:
        for tenant_id in _ids(key, body):
            maps.block[tenant_id] = block_value(HOLD, FAR_MS, key)


def _journal_overrides(key: str, body: Body) -> dict[str, str]:
    """Every id of the migration mapped to the canonical one; the canonical one to itself, which undoes what its
    document says.
    """
    canonical = valid_name(body.get("canonical"), f"canonical in migrations/{key}")
    ids = list(_ids(key, body))
    if canonical not in ids[:2]:
        raise _unreadable(f"migrations/{key}", f"{canonical}, which is live, is neither its source nor its target")
    return dict.fromkeys(ids, canonical)


def _without_chains(overrides: Mapping[str, str]) -> dict[str, str]:
    """Follow A → B → C to A → C; an id that is mapped to itself needs no entry."""
    result: dict[str, str] = {}
    for tenant_id in overrides:
        seen, end = {tenant_id}, overrides[tenant_id]
        while end in overrides and end not in seen:
            seen.add(end)
            end = overrides[end]
        if end != tenant_id:
            result[tenant_id] = end
    return result


def block_value(mode: str, until_ms: int, migration: str) -> str:
    """How the block map holds a block."""
    return f"{mode}|{until_ms}|{migration}"


def _check_format(path: str, body: Body) -> None:
    """Refuse what is no document, and one that a newer collection has written; one without a number has format 1."""
    if not isinstance(body, Mapping):
        raise _unreadable(path, f"it is {type(body).__name__}, not an object")
    number = body.get("format", FORMAT)
    if not isinstance(number, int) or isinstance(number, bool) or number > FORMAT:
        raise _unreadable(path, f"its format is {number!r}, this version reads up to {FORMAT}")


def _unreadable(path: str, why: str) -> InputError:
    return InputError(
        f"{path} can't be read: {why}.", "Repair the document, or run a version of zdm.landscape that knows its format."
    )
