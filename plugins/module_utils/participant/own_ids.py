# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ids by which one participant calls the tenants, where they are not the tenants' ids themselves: account numbers,
binary keys, another spelling of a uuid.

They are asked for once, when the participant is staged, and kept with its planned tables: after a relabel the query
that found them answers the other way round.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import RELABEL, Refusal

if TYPE_CHECKING:
    from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import Planned

_NAME = r'(?:"(?:[^"]|"")+"|`(?:[^`]|``)+`|[A-Za-z_][\w$]*)'
_ROOT_QUERY = re.compile(
    rf"\s*SELECT\s+(?P<key>{_NAME})\s+FROM\s+(?P<table>{_NAME}(?:\.{_NAME})?)\s+WHERE\s+(?P<column>{_NAME})\s*=\s*"
    r":tenant_id\s*;?\s*",
    re.IGNORECASE,
)
_NUMERIC = re.compile(r"(tiny|small|medium|big)?int(eger|[248])?\b|numeric\b|decimal\b|number\b", re.IGNORECASE)
_UUID = re.compile(r"[0-9a-f]{8}(-?)[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True)
class Root:
    """Where a participant's own ids come from: one row per tenant, found by its external id.

    :param key: the column with the own id.
    :param column: the column with the tenant's id.
    """

    table: str
    key: str
    column: str

    @classmethod
    def of_query(cls, query: str) -> Root | None:
        """None when the query does more than read one table by the tenant's id."""
        match = _ROOT_QUERY.fullmatch(query)
        if match is None:
            return None
        table = ".".join(_plain(name) for name in re.findall(_NAME, match["table"]))
        return cls(table, _plain(match["key"]), _plain(match["column"]))


def _plain(name: str) -> str:
    if name[0] in '"`':
        return name[1:-1].replace(name[0] * 2, name[0])
    return name


@dataclass(frozen=True)
class OwnIds:
    """What a participant calls source and target.

    :param known: by tenant id; empty where the participant uses the tenants' ids.
    :param root: where they come from, as far as the query tells.
    :param relabel: only the root's row changes, from the one tenant's id to the other's; own ids stay.
    """

    known: Mapping[str, str] = field(default_factory=dict)
    root: Root | None = None
    relabel: bool = False

    @classmethod
    def staged(cls, tables: Iterable[Planned]) -> OwnIds:
        """As the stage has kept them."""
        known: dict[str, str] = {}
        for table in tables:
            if table.strategy == RELABEL:
                return cls(table.root_ids, Root(table.name, table.root_key, table.columns[0]), True)
            for called in table.ids.values():
                known |= called
        return cls(known)

    def of(self, kind: str, entry: Mapping[str, Any]) -> dict[str, str]:
        """What a tenant column holds for each tenant id; nothing where it holds the id itself.

        :param kind: the column's type.
        :param entry: what the options say of the table.
        """
        wanted = entry.get("own_ids")
        if not self.known or wanted is False:
            return {}
        uuids = all(_UUID.fullmatch(own) for own in self.known.values())
        if not wanted and kind.strip().lower().startswith("uuid") and not uuids:
            return {}
        return dict(self.known)

    def unclear(self, kind: str, entry: Mapping[str, Any]) -> bool:
        """Whether a text column may as well hold the tenant's id: the participant's own ids are numbers, and nobody
        said which.
        """
        numbers = self.root is not None and all(own.isdecimal() for own in self.known.values())
        return numbers and entry.get("own_ids") is None and bool(self.of(kind, entry)) and not is_numeric(kind)

    def keeps(self, kind: str, entry: Mapping[str, Any]) -> bool:
        """Whether values of a tenant column stay as they are, as only the root's row changes."""
        return self.relabel and bool(self.of(kind, entry))


NO_OWN_IDS = OwnIds()
"""The participant uses the tenants' ids."""


def is_numeric(kind: str) -> bool:
    """Whether a column type holds numbers."""
    return _NUMERIC.match(kind.strip()) is not None


def by_tenant(ids: Mapping[str, object], names: Mapping[str, str]) -> dict[str, str]:
    """Own ids by tenant id.

    :param ids: by subdomain.
    :param names: subdomains by tenant id.
    """
    # the empty one makes the participant say whose is missing
    return {tenant: str(ids[name]) for tenant, name in names.items() if name in ids} or {"": ""}


def to_fill_in(value: object) -> bool:
    """Whether a value is the word of a proposal that a person has to replace: ``<value>``."""
    return isinstance(value, str) and re.fullmatch(r"<[^<>]*>", value) is not None


def unfinished(ids: OwnIds, refusals: Iterable[Refusal]) -> tuple[Refusal, ...]:
    """The refusals without those that only say that a word to be replaced is no id."""
    words = {own for own in ids.known.values() if to_fill_in(own)}
    return tuple(refusal for refusal in refusals if not any(f"the id {word}" in refusal.reason for word in words))


def given(options: Mapping[str, Any], ids: tuple[str, str], name: str) -> tuple[OwnIds, list[Refusal]]:
    """The ids that the options give themselves.

    :param ids: source and target.
    :param name: of the participant.
    """
    own = {tenant: str(options["own_ids"][tenant]) for tenant in ids if tenant in options["own_ids"]}
    if any(map(to_fill_in, own.values())):
        reason = f"Nobody has written yet what participant {name} calls {' and '.join(ids)}."
        return OwnIds(own), [Refusal(name, reason, "Write it in `ids`, in place of the word in angle brackets.")]
    refusals = [
        Refusal(
            name,
            f"Participant {name} has own ids of tenants, and none for {tenant}.",
            "Add it to `ids`: `{<subdomain>: <own id>}`.",
        )
        for tenant in ids
        if tenant not in own
    ]
    if len(set(own.values())) < len(own):
        reason = f"Participant {name} has the same own id {own[ids[0]]} for {' and '.join(ids)}."
        refusals.append(Refusal(name, reason, "Correct `ids`: each tenant has its own."))
    return OwnIds(own), refusals


def answered(
    query: str, answers: Mapping[str, str | None], source_id: str, target_id: str, name: str
) -> tuple[OwnIds, list[Refusal]]:
    """The ids that a query has found.

    :param answers: by tenant id, None where it found none.
    """
    root = Root.of_query(query)
    source, target = answers[source_id], answers[target_id]
    if source is None:
        reason = f"Participant {name} does not know {source_id}: `id_query` finds no row."
        advice = "Correct `id_query`, or leave the participant out if it has no data of this tenant."
        return OwnIds(), [Refusal(name, reason, advice)]
    if target is None and root is None:
        reason = f"Participant {name} does not know {target_id}: `id_query` finds no row."
        advice = (
            "Onboard the tenant there; or write `id_query` as SELECT <key> FROM <table> WHERE <column> = :tenant_id,"
            " then that row gets the new id and everything else stays."
        )
        return OwnIds(), [Refusal(name, reason, advice)]
    if target is None:
        return OwnIds({source_id: source, target_id: source}, root, True), []
    if source == target:
        reason = f"`id_query` of participant {name} finds the same own id for {source_id} and {target_id}."
        return OwnIds(), [Refusal(name, reason, "Correct `id_query`: each tenant has its own.")]
    return OwnIds({source_id: source, target_id: target}, root), []


def as_bytes(own: str) -> bytes:
    """An id of a binary column: written as ``0x…``, or the characters of the id themselves."""
    digits = re.fullmatch(r"(?:0x|\\x)((?:[0-9A-Fa-f]{2})+)", own)
    return bytes.fromhex(digits[1]) if digits else own.encode()


def is_binary(kind: str) -> bool:
    """Whether a column type holds bytes."""
    return re.match(r"(var)?binary|bytea|(tiny|medium|long)?blob", kind.strip(), re.IGNORECASE) is not None
