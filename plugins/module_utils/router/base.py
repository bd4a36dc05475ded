# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the cutover needs of a router.

Every writing command carries the migration and its epoch; a router that has seen a newer epoch of the same migration
refuses it (cutover protocol, rule 3). Ids are tenant ids as they stand in tokens, not subdomains.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused

FAR_MS = 9_999_999_999_999
"""The deadline of a far block: a literal, never computed from a clock (cutover protocol, step 7)."""

EPOCH_MAX = 999_999_999_999_999
"""Fifteen digits: exact wherever an epoch is held, in JSON, Lua and a router's map."""

HOLD = "hold"
REJECT = "reject"


@dataclass(frozen=True)
class Block:
    """A tenant id's block in one router: ``mode`` is hold or reject, ``until_ms`` a Unix time of the router's clock."""

    mode: str
    until_ms: int
    migration: str

    @property
    def far(self) -> bool:
        return self.until_ms >= FAR_MS


@dataclass(frozen=True)
class Usage:
    """What one router counted for one original tenant id since its worker started."""

    requests: int
    in_flight: int
    held: int
    abandoned: int
    idle_ms: int | None
    """Time since the last request, ``None`` when there was none."""


@dataclass(frozen=True)
class RouterState:
    """One router's live state."""

    name: str
    version: str
    ready: bool
    clock_ms: int
    old_workers: int
    epochs: Mapping[str, int]
    blocks: Mapping[str, Block]
    """Live blocks; a lease that has ended is none."""
    overrides: Mapping[str, str]
    onboarded: Mapping[str, str]
    """Tenant id → ``datacenter/channel``."""
    subdomains: Mapping[str, str]
    """Subdomain → tenant id, for issuers whose tokens name the subdomain."""
    decommissioned: frozenset[str]
    usage: Mapping[str, Usage] = field(default_factory=dict)


class Router(ABC):
    """One router of the fleet. Every method raises ``Unreachable`` when the router does not answer."""

    name: str

    @abstractmethod
    def take_over(self, migration: str, epoch: int) -> None:
        """Make the router refuse older epochs of *migration* from now on.

        :raises Superseded: the router has seen a newer epoch. So do all writing methods.
        """

    @abstractmethod
    def lease(self, migration: str, epoch: int, ids: Iterable[str], lease_ms: int, mode: str) -> None:
        """Block *ids* until *lease_ms* from now by the router's own clock; also renews. Never turns a far block into a
        lease.
        """

    @abstractmethod
    def close(self, migration: str, epoch: int, ids: Iterable[str], mode: str) -> None:
        """Block *ids* with the far deadline: fail closed until released."""

    @abstractmethod
    def release(self, migration: str, epoch: int, ids: Iterable[str]) -> None:
        """Remove the blocks of *ids*."""

    @abstractmethod
    def map(self, migration: str, epoch: int, overrides: Mapping[str, str | None]) -> None:
        """Set (or with ``None`` remove) overrides ``token's id → canonical id`` and verify them by reading back."""

    def edit(self, table: str, entries: Mapping[str, str | None]) -> None:
        """Set (or with ``None`` remove) entries of a map outside of a migration.

        :param table: onboarded (id → datacenter/channel), subdomains (subdomain → id), override or decommissioned (id →
            1).
        :raises Refused: an id that the edit touches has a live block, or this kind of router has no such maps.
        """
        raise Refused(
            f"Router {self.name} can't edit {table} of {', '.join(entries)}.",
            "Restart it; it renders its maps from the config store.",
        )

    @abstractmethod
    def in_flight(self, ids: Iterable[str]) -> int:
        """Requests of *ids* that passed the gates and are not answered yet, old workers included."""

    @abstractmethod
    def state(self, usage: bool = False) -> RouterState:
        """Everything the router knows; with *usage* also the counters per tenant."""
