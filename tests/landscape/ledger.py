# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was written, kept outside of the system, and what follows from it: the truth that reads and databases are held
against.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TextIO

from .spec import LINES, item_id, seed_amount

TENANT = "tenant"
BYSTANDER = "bystander"

State = tuple[int, ...] | None
"""An item's amount, version and its lines' quantities; ``None`` when it does not exist."""

ACKNOWLEDGED = "acknowledged"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Write:
    """One write of one tenant to one service."""

    write_id: str
    tenant: str
    service: str
    operation: str
    number: int
    amount: int
    bucket: int

    @property
    def item(self) -> str:
        return item_id(self.number)

    def apply(self, state: State) -> State:
        """The item's state after this write."""
        if self.operation == "create":
            return (self.amount, 1, *range(1, LINES + 1))
        if self.operation == "delete":
            return None
        if state is None:
            raise ValueError(f"{self.write_id} changes an item that does not exist")
        return (state[0] + self.amount, state[1] + 1, state[2] + 1, *state[3:])


def seed_state(number: int, heads: int) -> State:
    """The state that item *number* had first, when *heads* items were made."""
    return (seed_amount(number), 1, *range(1, LINES + 1)) if 1 <= number <= heads else None


@dataclass
class Item:
    """The states that an item had or may have; from ``history[known]`` on they are possible now."""

    history: list[State]
    known: int = 0
    busy: bool = False
    """A write is on its way or its outcome is unknown: no further write, so that the order is never in doubt."""

    def sent(self, write: Write) -> None:
        self.history.append(write.apply(self.history[-1]))
        self.busy = True

    def acknowledged(self) -> None:
        self.known = len(self.history) - 1
        self.busy = False

    @property
    def possible(self) -> list[State]:
        return self.history[self.known :]


@dataclass
class Expected:
    """What one tenant's data in one service must be."""

    items: dict[int, Item] = field(default_factory=dict)
    acknowledged: dict[str, Write] = field(default_factory=dict)
    unknown: dict[str, Write] = field(default_factory=dict)


class LedgerWriter:
    """Appends outcomes to a file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("a", buffering=1)

    def record(self, write: Write, outcome: str) -> None:
        self._file.write(json.dumps({**asdict(write), "outcome": outcome}) + "\n")

    def __enter__(self) -> LedgerWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def read_ledger(paths: Iterable[Path]) -> Iterator[tuple[Write, str]]:
    """All recorded writes in the order of their outcomes, ledger after ledger."""
    for path in paths:
        with path.open() as lines:
            for line in lines:
                record = json.loads(line)
                outcome = record.pop("outcome")
                yield Write(**record), outcome


def expectations(
    entries: Iterable[tuple[Write, str]], heads: dict[tuple[str, str], int]
) -> dict[tuple[str, str], Expected]:
    """Replay a ledger.

    :param heads: (tenant, service) → number of first items.
    """
    result = {key: Expected() for key in heads}
    for write, outcome in entries:
        expected = result[write.tenant, write.service]
        item = expected.items.setdefault(
            write.number, Item([seed_state(write.number, heads[write.tenant, write.service])])
        )
        item.sent(write)
        if outcome == ACKNOWLEDGED:
            item.acknowledged()
            expected.acknowledged[write.write_id] = write
        else:
            expected.unknown[write.write_id] = write
    return result
