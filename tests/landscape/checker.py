# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares the ledger with the databases: nothing lost, nothing doubled, nothing under a wrong id, the bystander
untouched.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .databases import Database
from .ledger import BYSTANDER, TENANT, Expected, State, expectations, read_ledger, seed_state
from .spec import SEED_OUTBOX, item_id

_KEPT = 20


@dataclass(frozen=True)
class Ids:
    """Which ids the tenants' data may stand under."""

    live: str
    """The id that is canonical now."""
    retired: str
    """The other id of the migration: only twins may stand there."""
    bystander: str

    def of(self, tenant: str) -> str:
        return self.live if tenant == TENANT else self.bystander


@dataclass
class Verdict:
    """What the checker found; all counts are 0 when all is well."""

    acknowledged: int = 0
    unknown: int = 0
    """Writes without an answer: they may be there once, or not at all."""
    lost_writes: int = 0
    doubled_writes: int = 0
    wrong_tenant: int = 0
    bystander_changed: int = 0
    damaged_rows: int = 0
    """First rows of the tenant whose unchanging part is not as it was."""
    findings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not (
            self.lost_writes or self.doubled_writes or self.wrong_tenant or self.bystander_changed or self.damaged_rows
        )

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok}

    def found(self, kind: str, count: int, text: str) -> None:
        """Add to one of the counts."""
        if count:
            setattr(self, kind, getattr(self, kind) + count)
            if len(self.findings) < _KEPT:
                self.findings.append(f"{kind}: {text}")


class Snapshot:
    """Everything of one tenant in one service, read once."""

    def __init__(self, database: Database, tenant_id: str) -> None:
        s, mine = database.service, f"WHERE tenant_id = '{tenant_id}'"
        self._codes, self._heads, self._lines, self._settings, self._outbox = database.queries(
            f"SELECT code, country, title FROM {s.code} {mine}",
            f"SELECT id, number, code, customer, amount, version FROM {s.head} {mine}",
            f"SELECT id, head_id, position, note, quantity FROM {s.line} {mine}",
            f"SELECT name, setting FROM {s.setting} {mine}",
            f"SELECT write_id, item FROM {s.outbox} {mine} AND bucket <= 0",
        )

    def fingerprint(self, heads: int) -> str:
        """Digest of what no write of the load changes in the tenant's first rows; the tenant's id is not in it.

        :param heads: number of the tenant's first items.
        """
        first_heads = [row[:4] for row in self._heads if row[1] <= heads]
        first_lines = [row[:4] for row in self._lines if row[0] < 10 * (heads + 1)]
        # ids before the rest: no two rows of a table are equal in their first columns, so sorting is exact
        tables = [sorted(rows) for rows in (self._codes, first_heads, first_lines, self._settings, self._outbox)]
        return hashlib.sha256(repr(tables).encode()).hexdigest()

    def items(self) -> dict[str, State]:
        """Id → state of all items; a head without lines, or lines without a head, is a state that no write makes."""
        lines: dict[str, list[tuple[int, int]]] = {}
        for _id, head_id, position, _note, quantity in self._lines:
            lines.setdefault(str(head_id), []).append((position, quantity))
        result: dict[str, State] = {}
        for item, _number, _code, _customer, amount, version in self._heads:
            result[str(item)] = (
                amount,
                version,
                *(quantity for _position, quantity in sorted(lines.pop(str(item), []))),
            )
        result.update({item: tuple(quantity for _position, quantity in rows) for item, rows in lines.items()})
        return result


class Checker:
    """Checks one landscape.

    :param databases: of all services.
    :param heads: (tenant, service) → number of first items.
    :param baseline: (tenant, service) → :meth:`Snapshot.fingerprint` of the first state.
    """

    def __init__(
        self,
        databases: Sequence[Database],
        heads: Mapping[tuple[str, str], int],
        baseline: Mapping[tuple[str, str], str],
    ) -> None:
        self._databases, self._heads, self._baseline = databases, dict(heads), baseline

    def check(self, ledgers: Iterable[Path], ids: Ids, twins: Collection[str] = ()) -> Verdict:
        """Compare everything; the load must have ended.

        :param twins: ``service.table`` of tables that may hold rows of the retired id.
        """
        verdict = Verdict()
        expected = expectations(read_ledger(ledgers), self._heads)
        for database in self._databases:
            name = database.service.name
            both = {tenant: expected[tenant, name] for tenant in (TENANT, BYSTANDER)}
            self._check_writes(database, both, ids, verdict)
            for tenant, wanted in both.items():
                verdict.acknowledged += len(wanted.acknowledged)
                verdict.unknown += len(wanted.unknown)
                snapshot = Snapshot(database, ids.of(tenant))
                self._check_items(name, tenant, wanted, snapshot.items(), verdict)
                if snapshot.fingerprint(self._heads[tenant, name]) != self._baseline[tenant, name]:
                    verdict.found(
                        "damaged_rows" if tenant == TENANT else "bystander_changed",
                        1,
                        f"{name}: first rows of the {tenant} are not as they were",
                    )
            self._check_ids(database, ids, twins, verdict)
        return verdict

    @staticmethod
    def _check_writes(database: Database, both: Mapping[str, Expected], ids: Ids, verdict: Verdict) -> None:
        """The outbox has one row per acknowledged write, under the right id; the statistic counts the same."""
        name, outbox = database.service.name, database.service.outbox
        rows = Counter(
            (str(tenant_id), write_id)
            for tenant_id, write_id in database.query(f"SELECT tenant_id, write_id FROM {outbox} WHERE bucket > 0")
        )
        counted = {
            str(tenant_id): count
            for tenant_id, count in database.query(f"SELECT tenant_id, writes FROM {database.service.statistic}")
        }
        legal: set[tuple[str, str]] = set()
        for tenant, wanted in both.items():
            tenant_id = ids.of(tenant)
            legal |= {(tenant_id, write_id) for write_id in (*wanted.acknowledged, *wanted.unknown)}
            lost = [write_id for write_id in wanted.acknowledged if not rows[tenant_id, write_id]]
            verdict.found("lost_writes", len(lost), f"{name}.{outbox}: {lost[:3]} of the {tenant}")
            there = SEED_OUTBOX + sum(count for (owner, _write), count in rows.items() if owner == tenant_id)
            difference = counted.get(tenant_id, 0) - there
            verdict.found(
                "lost_writes",
                max(0, -difference),
                f"{name}: the {tenant}'s statistic counts {-difference} writes too few",
            )
            verdict.found(
                "doubled_writes",
                max(0, difference),
                f"{name}: the {tenant}'s statistic counts {difference} writes too many",
            )
        doubled = [key for key, count in rows.items() if count > 1]
        verdict.found("doubled_writes", len(doubled), f"{name}.{outbox}: {doubled[:3]}")
        strange = [key for key in rows if key not in legal]
        verdict.found("wrong_tenant", len(strange), f"{name}.{outbox}: {strange[:3]}")

    def _check_items(
        self, name: str, tenant: str, wanted: Expected, found: Mapping[str, State], verdict: Verdict
    ) -> None:
        """Every item is in a state that its acknowledged writes led to."""
        heads = self._heads[tenant, name]
        numbers = {item_id(number): number for number in (*range(1, heads + 1), *wanted.items)}
        for item in sorted(numbers.keys() | found.keys()):
            number, state = numbers.get(item), found.get(item)
            if number is None:
                verdict.found("wrong_tenant", 1, f"{name}: item {item} of the {tenant} was never written")
                continue
            known = wanted.items.get(number)
            possible = known.possible if known else [seed_state(number, heads)]
            if state not in possible:
                kind = "doubled_writes" if _is_further(state, possible) else "lost_writes"
                verdict.found(kind, 1, f"{name}: item {number} of the {tenant} is {state}, not {possible}")

    @staticmethod
    def _check_ids(database: Database, ids: Ids, twins: Collection[str], verdict: Verdict) -> None:
        """No row stands under an id that has no business there."""
        name = database.service.name
        for table in database.service.tenant_tables:
            for tenant_id, count in database.query(f"SELECT tenant_id, count(*) FROM {table} GROUP BY tenant_id"):
                allowed = {ids.live, ids.bystander, *({ids.retired} if f"{name}.{table}" in twins else set())}
                if str(tenant_id) not in allowed:
                    verdict.found("wrong_tenant", count, f"{name}.{table}: {count} rows of {tenant_id}")


def _is_further(state: State, possible: Sequence[State]) -> bool:
    """Whether a wrong state has seen more writes than it should: a higher version, or an item that was not to be
    made.
    """
    versions = [candidate[1] for candidate in possible if candidate is not None]
    return state is not None and len(state) > 1 and bool(versions) and state[1] > max(versions)
