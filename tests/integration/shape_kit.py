# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database whose schema a test brings along, and the whole life of a migration on it."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import Inspection, Move
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import Database
from ansible_collections.zdm.landscape.tests.integration.verb_kit import WAIT_MS

A = "0a0a0a0a-0000-4000-8000-00000000000a"
B = "0b0b0b0b-0000-4000-8000-00000000000b"
C = "0c0c0c0c-0000-4000-8000-00000000000c"
MIGRATION = "venezia--venezia-scp"
Rows = dict[str, list[tuple[Any, ...]]]


class Session(Protocol):
    """What a writer uses."""

    def execute(self, statement: str) -> int:
        """Number of rows changed."""

    def query(self, statement: str) -> Any:
        """The first value of the first row."""

    def close(self) -> None: ...


class Ground(ABC):
    """An empty database of one engine.

    :ivar words: the engine's own types: ``{id}`` a tenant's id, ``{bytes}`` sixteen bytes, ``{text}`` a short text,
        ``{big}`` a whole number; and ``{number}`` a column that numbers rows by itself.
    :ivar refused: what the driver raises for a write that a trigger or a constraint refuses.
    """

    words: ClassVar[dict[str, str]]
    refused: type[Exception]

    extras: ClassVar[Mapping[str, str]] = {
        "generated": "w int GENERATED ALWAYS AS (v * 2) STORED",
        "document": "doc json",
        "check": "CONSTRAINT {table}_v CHECK (v >= 0)",
        "unique": "CONSTRAINT {table}_mark UNIQUE (mark)",
    }
    """Of random schemas: what stands between the parentheses of a CREATE TABLE."""

    def bytes_of(self, digits: str) -> str:
        """A literal of bytes."""
        return f"X'{digits}'"

    def create(self, name: str, parts: Sequence[str], extras: Sequence[str]) -> list[str]:
        """The statements that make a table with these columns, constraints and extras."""
        more = [self.extras[extra].replace("{table}", name) for extra in extras]
        # constraints come after the columns
        ordered = sorted(
            [*parts, *more], key=lambda part: part.startswith(("PRIMARY", "UNIQUE", "FOREIGN", "CONSTRAINT"))
        )
        return [f"CREATE TABLE {name} ({', '.join(ordered)})"]

    @abstractmethod
    def session(self) -> Session:
        """A session of the application with commits by itself; the caller closes it."""

    def passing(self, error: Exception) -> bool:
        """Whether an application would simply try again, as it has to at any time: a deadlock, a busy file."""
        del error
        return False

    @abstractmethod
    def run(self, statement: str) -> list[tuple[Any, ...]]:
        """One statement as the application."""

    @abstractmethod
    def participant(self, **options: Any) -> Database:
        """Closed at the end of the test."""

    @abstractmethod
    def dump(self) -> str:
        """The whole schema as the engine itself writes it down."""

    @abstractmethod
    def tables(self) -> list[str]:
        """Names of the application's tables, quoted."""

    def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        result: list[tuple[Any, ...]] = []
        for statement in statements:
            for word, text in self.words.items():
                statement = statement.replace(f"{{{word}}}", text)
            result = self.run(statement)
        return result

    def rows(self) -> Rows:
        return {table: sorted(map(tuple, self.run(f"SELECT * FROM {table}")), key=repr) for table in self.tables()}


class Journey:
    """A migration's life on a ground."""

    def __init__(self, ground: Ground, **options: Any) -> None:
        self.ground, self.options = ground, options
        self.participant = ground.participant(**options)
        self._epochs = itertools.count(1)
        self.epoch = next(self._epochs)
        self.reversed = False
        self.told: list[dict[str, Any]] = []

    def move(self) -> Move:
        live, other = (B, A) if self.reversed else (A, B)
        return Move(MIGRATION, self.epoch, A, B, live, other)

    def plan(self) -> Inspection:
        return self.participant.inspect(MIGRATION, A, B)

    def refusals(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for each in self.plan().refusals:
            found[each.object] = f"{found.get(each.object, '')} {each.reason} {each.advice}".strip()
        return found

    def strategies(self) -> dict[str, str]:
        return {table.table: table.strategy for table in self.plan().tables}

    def stage(self) -> None:
        plan = self.plan()
        assert not plan.refusals, plan.refusals
        self.participant.stage(self.move(), plan, self.told.append)
        self.whole()

    def switch(self) -> None:
        """A window, in either direction; each verb twice, as the same command may run again."""
        self.epoch = next(self._epochs)
        for verb in ("take_over", "prelude", "barrier", "confirm", "turn"):
            for _again in range(2):
                self.act(verb)
        self.reversed = not self.reversed
        self.whole()

    def barrier_and_undo(self) -> None:
        self.epoch = next(self._epochs)
        for verb in ("take_over", "prelude", "barrier"):
            self.act(verb)
        self.epoch = next(self._epochs)
        for verb in ("take_over", "undo"):
            self.act(verb)
        self.whole()

    def act(self, verb: str) -> None:
        if verb in ("prelude", "barrier"):
            getattr(self.participant, verb)(self.move(), WAIT_MS)
        elif verb != "confirm" or self.status().state == "moved":
            getattr(self.participant, verb)(self.move())

    def remove(self) -> None:
        """Abort or finalize, whichever is next: what is live stays."""
        for _again in range(2):
            self.participant.remove(self.move(), self.told.append)

    def status(self) -> Any:
        return self.participant.status(MIGRATION, A, B)

    def whole(self) -> None:
        found = self.status()
        assert (found.problems, found.unready) == ((), ()), found

    def life(self, moved: Callable[[Rows], Rows], finalized: Callable[[Rows], Rows] | None = None) -> None:
        """Stage, undo, migrate, reverse, migrate, finalize; rows and schema are asserted at every stop.

        :param moved: what becomes of the rows by a switch.
        :param finalized: what becomes of the moved rows at the end; nothing by default.
        """
        schema, rows = self.ground.dump(), self.ground.rows()
        self.stage()
        staged = self.ground.rows()
        self.barrier_and_undo()
        assert self.ground.rows() == staged
        self.switch()
        there = self.ground.rows()
        assert there == moved(staged)
        self.switch()
        assert self.ground.rows() == staged
        self.remove()
        assert (self.ground.rows(), self.ground.dump()) == (rows, schema)
        self.stage()
        self.switch()
        self.remove()
        assert self.ground.rows() == (finalized or (lambda rows: rows))(there)
        assert self.ground.dump() == schema


def renamed(old: Any, new: Any, *tables: str) -> Callable[[Rows], Rows]:
    """Rows with one value for another in some tables, all by default."""

    def change(rows: Rows) -> Rows:
        return {
            table: (
                sorted((tuple(_same(value, old, new) for value in row) for row in found), key=repr)
                if not tables or table in tables
                else found
            )
            for table, found in rows.items()
        }

    return change


def _same(value: Any, old: Any, new: Any) -> Any:
    kind = type(value)
    return kind(new) if not isinstance(value, type(None)) and str(value) == str(old) else value
