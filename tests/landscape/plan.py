# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which requests the load sends to one service for one tenant, and whether the answers are right."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .ledger import TENANT, Item, Write, seed_state
from .spec import item_id

BUCKET = 25
"""Writes per bucket: a read returns one bucket's writes."""


class Wrong(Exception):
    """An answer that a correct system does not give; the text says what is wrong with it."""


@dataclass
class Bucket:
    sent: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Read:
    """A read and the check of its answer; what must be in it was noted before it was sent."""

    path: str
    check: Callable[[Any], None]


class Plan:
    """One tenant in one service.

    :param tenant: ``tenant`` (both credentials) or ``bystander``, whose first items are never changed.
    :param heads: number of the tenant's first items.
    :param run: number of this load run: its new items and buckets never meet those of another run.
    :param items: what earlier runs left.
    """

    def __init__(
        self, tenant: str, service: str, heads: int, run: int, chance: random.Random, items: Mapping[int, Item]
    ) -> None:
        self.tenant, self.service = tenant, service
        self._heads, self._chance = heads, chance
        self._first_number, self._first_bucket = 10_000_000 * run, 100_000 * run
        self._items: dict[int, Item] = dict(items)
        self._alive: list[int] = []
        self._buckets: list[Bucket] = []
        self._sent = self._acknowledged = self._base = 0

    def start_from(self, count: int) -> None:
        """Take the service's number of writes before the load as the base that later counts are compared with."""
        self._base = count

    def baseline_path(self) -> str:
        return f"/{self.service}/writes/0"

    def _item(self, number: int) -> Item:
        return self._items.setdefault(number, Item([seed_state(number, self._heads)]))

    def _idle(self, numbers: list[int] | range) -> int | None:
        for _attempt in range(8):
            number = self._chance.choice(numbers) if numbers else 0
            if number and not self._item(number).busy and self._item(number).history[-1] is not None:
                return number
        return None

    def next_write(self) -> Write:
        """Choose the next write and note it as sent."""
        roll = self._chance.random()
        number: int | None = None
        operation = "change"
        if roll < 0.2 and self.tenant == TENANT:
            number = self._idle(range(1, self._heads + 1))
        elif roll < 0.45:
            number = self._idle(self._alive)
        elif roll < 0.6:
            number, operation = self._idle(self._alive), "delete"
        if number is None:
            number, operation = self._first_number + self._sent + 1, "create"
            self._alive.append(number)
        elif operation == "delete":
            self._alive.remove(number)
        if self._sent % BUCKET == 0:
            self._buckets.append(Bucket())
        write_id, bucket = str(uuid.UUID(int=self._chance.getrandbits(128))), self._first_bucket + len(self._buckets)
        # the amounts differ, so that a doubled change rarely looks like two others
        write = Write(write_id, self.tenant, self.service, operation, number, 1 + self._sent % 97, bucket)
        self._item(number).sent(write)
        self._buckets[-1].sent.add(write.write_id)
        self._sent += 1
        return write

    def acknowledged(self, write: Write, body: Any) -> None:
        """Note an acknowledged write.

        :raises Wrong: when the item is not what the write must have made of it.
        """
        item = self._item(write.number)
        item.acknowledged()
        self._buckets[write.bucket - self._first_bucket - 1].acknowledged.add(write.write_id)
        self._acknowledged += 1
        state = _state(body)
        if state != item.history[-1]:
            raise Wrong(f"{write.operation} made {state}, not {item.history[-1]}")

    def next_read(self) -> Read:
        """Choose the next read: an item or a bucket, the newest one often."""
        if self._chance.random() < 0.4:
            numbers = self._alive[-50:] if self._alive and self._chance.random() < 0.6 else range(1, self._heads + 1)
            return self._item_read(self._chance.choice(numbers))
        newest = len(self._buckets)
        return self._bucket_read(
            newest if newest < 2 or self._chance.random() < 0.6 else self._chance.randint(1, newest)
        )

    def _item_read(self, number: int) -> Read:
        item = self._item(number)
        known = item.known

        def check(body: Any) -> None:
            state = _state(body)
            if state not in item.history[known:]:
                raise Wrong(f"item {number} is {state}, not one of {item.history[known:]}")

        return Read(f"/{self.service}/items/{item_id(number)}", check)

    def _bucket_read(self, number: int) -> Read:
        bucket = self._buckets[number - 1] if number else Bucket()
        required, least = set(bucket.acknowledged), self._base + self._acknowledged

        def check(body: Any) -> None:
            writes = [str(write) for write in body["writes"]]
            seeds = {write for write in writes if write.startswith("seed-")} if number == 0 else set()
            if missing := required - set(writes):
                raise Wrong(f"{len(missing)} acknowledged writes are missing, for example {min(missing)}")
            if len(writes) != len(set(writes)):
                raise Wrong("a write is there twice")
            if strange := set(writes) - bucket.sent - seeds:
                raise Wrong(f"{len(strange)} writes of somebody else, for example {min(strange)}")
            if not least <= body["count"] <= self._base + self._sent:
                raise Wrong(f"{body['count']} writes counted, not {least} to {self._base + self._sent}")

        return Read(f"/{self.service}/writes/{self._first_bucket + number if number else 0}", check)


def _state(body: Any) -> tuple[int, ...] | None:
    return tuple(body["item"]) if body["item"] is not None else None
