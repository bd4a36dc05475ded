# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random schemas within the shapes that real ones have, a model of their rows, and writers who never stop."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.zdm.landscape.tests.integration.shape_kit import A, B, C, Ground, Journey
from ansible_collections.zdm.landscape.tests.landscape.processes import wait_until

NUMBERS = {A: "17", B: "18", C: "19"}
BYTES = {A: "0a" * 16, B: "0b" * 16, C: "0c" * 16}
ENOUGH = 6
"""Writes of each writer between two steps of a migration."""


@dataclass
class Table:
    """A table of a random schema; every row has a ``mark`` of its own and a value ``v`` that changes."""

    name: str
    key: str
    kind: str
    nullable: bool = False
    second: bool = False
    root: bool = False
    parent: Table | None = None
    own_tenant: bool = True
    extras: tuple[str, ...] = ()
    children: int = 0
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By mark: what was acknowledged."""

    @property
    def sql(self) -> str:
        return self.name


class Random:
    """One random schema on a ground."""

    def __init__(self, ground: Ground, seed: int) -> None:
        self.ground, self.dice = ground, random.Random(seed)
        self.lock = threading.Lock()
        self._numbers = itertools.count(1)
        self.kind = self.dice.choice(("id", "id", "big", "bytes"))
        self.root = self.dice.random() < 0.5
        self.tables: list[Table] = []
        self.statements: list[str] = []
        for number in range(self.dice.randint(2, 5)):
            self.tables.append(self._table(number))
        if self.root:
            self._make("CREATE TABLE tenants (id " + self._kind() + " NOT NULL PRIMARY KEY, title {text})")
        for table in self.tables:
            self._create(table)
        self._make("CREATE TABLE look_up (id int NOT NULL PRIMARY KEY)")
        session = ground.session()
        for tenant in (A, C):
            if self.root:
                self.ground.sql(f"INSERT INTO tenants VALUES ({self.value(tenant)}, 'x')")
            for table in self.tables:
                for _row in range(self.dice.randint(0, 30)):
                    self.insert(session, table, tenant)
        session.close()

    def options(self) -> dict[str, Any]:
        result: dict[str, Any] = {
            "tenant_columns": ["tenant_id", "owner_tenant_id"],
            "ignore": {"look_.*": "no tenant data"},
            "no_cross_tenant_readers": self.dice.random() < 0.7,
        }
        if self.root and not any(table.root for table in self.tables):
            result["tables"] = {"tenants": {"tenant_columns": ["id"]}}
        if self.kind == "big":
            result["own_ids"] = {A: NUMBERS[A], B: NUMBERS[B]}
        if self.kind == "bytes":
            result["own_ids"] = {A: f"0x{BYTES[A]}", B: f"0x{BYTES[B]}"}
        return result

    # -- schema -----------------------------------------------------------------------------------

    def _kind(self) -> str:
        return f"{{{self.kind}}}"

    def value(self, tenant: str | None) -> str:
        """A tenant in a tenant column."""
        if tenant is None:
            return "NULL"
        if self.kind == "big":
            return NUMBERS[tenant]
        return self.ground.bytes_of(BYTES[tenant]) if self.kind == "bytes" else f"'{tenant}'"

    def _table(self, number: int) -> Table:
        dice = self.dice
        key = dice.choice(("tenant", "surrogate", "surrogate", "numbered", "unique", "none"))
        table = Table(f"t{number}", key, self.kind)
        keyed = [each for each in self.tables if each.key != "none" and not each.nullable]
        if keyed and dice.random() < 0.6:
            table.parent = dice.choice(keyed)
        surrogate = table.parent is not None and table.parent.key in ("surrogate", "numbered")
        if surrogate and dice.random() < 0.5:
            table.own_tenant, table.key = False, dice.choice(("surrogate", "none"))
        elif table.key in ("surrogate", "numbered", "none") and (surrogate or table.parent is None):
            table.nullable = dice.random() < 0.3
        table.second = table.own_tenant and dice.random() < 0.2
        table.root = self.root and table.own_tenant and dice.random() < 0.7
        table.extras = tuple(extra for extra in self.ground.extras if dice.random() < 0.2)
        if table.parent:
            table.parent.children += 1
        return table

    def _create(self, table: Table) -> None:
        null = "" if table.nullable else " NOT NULL"
        number = {"numbered": "{number}"}.get(table.key, "int NOT NULL")
        columns = [f"id {number}{' PRIMARY KEY' if table.key in ('surrogate', 'numbered') else ''}"]
        rules = []
        if table.own_tenant:
            columns.append(f"tenant_id {self._kind()}{null}")
        if table.second:
            columns.append(f"owner_tenant_id {self._kind()}")
        columns += ["mark {text} NOT NULL", "v int NOT NULL"]
        if table.key == "tenant":
            rules.append("PRIMARY KEY (tenant_id, id)")
        if table.key == "unique":
            rules.append("UNIQUE (tenant_id, id)")
        if table.root:
            rules.append(
                f"FOREIGN KEY (tenant_id) REFERENCES tenants (id){self.dice.choice(('', ' ON DELETE CASCADE'))}"
            )
        if table.parent:
            columns.append("parent_id int")
            both = table.parent.key in ("tenant", "unique")
            rules.append(
                f"FOREIGN KEY ({'tenant_id, ' if both else ''}parent_id) REFERENCES {table.parent.sql}"
                f" ({'tenant_id, ' if both else ''}id)"
            )
        alone = not (table.parent or table.children or table.root)
        extras = [extra for extra in table.extras if extra != "unlogged" or alone]
        self._make(*self.ground.create(table.name, [*columns, *rules], extras))

    def _make(self, *statements: str) -> None:
        self.statements += statements
        self.ground.sql(*statements)

    # -- rows -------------------------------------------------------------------------------------

    def insert(self, session: Any, table: Table, tenant: str) -> None:
        dice = random.Random(next(self._numbers))
        number = next(self._numbers)
        mark = f"m{number}"
        owner = tenant if not table.nullable or dice.random() < 0.8 else None
        values = {"mark": f"'{mark}'", "v": str(number % 7)}
        row: dict[str, Any] = {"v": number % 7, "tenant": owner, "id": number}
        if table.key != "numbered":
            values["id"] = str(number)
        if table.own_tenant:
            values["tenant_id"] = self.value(owner)
        if table.second:
            row["owner"] = dice.choice((tenant, None))
            values["owner_tenant_id"] = self.value(row["owner"])
        if table.parent:
            parents = [each for each in list(table.parent.rows.values()) if each["of"] == tenant and each.get("id")]
            parent = dice.choice(parents) if parents and dice.random() < 0.8 else None
            values["parent_id"] = str(parent["id"]) if parent else "NULL"
        names = ", ".join(values)
        statement = f"INSERT INTO {table.sql} ({names}) VALUES ({', '.join(values.values())})"
        if session.execute(statement) == 1:
            row["of"] = tenant
            if table.key == "numbered":
                row["id"] = session.query(f"SELECT id FROM {table.sql} WHERE mark = '{mark}'")
            with self.lock:
                table.rows[mark] = row

    def change(self, session: Any, table: Table, tenant: str, dice: random.Random) -> None:
        marks = [mark for mark, row in list(table.rows.items()) if row["of"] == tenant]
        if not marks:
            return
        mark = dice.choice(marks)
        if dice.random() < 0.2 and not table.children:
            if session.execute(f"DELETE FROM {table.sql} WHERE mark = '{mark}'{self._own(table, mark)}") == 1:
                with self.lock:
                    del table.rows[mark]
            return
        v = dice.randint(0, 1000)
        # MariaDB counts no row that stays as it is
        if session.execute(
            f"UPDATE {table.sql} SET v = {v} WHERE mark = '{mark}' AND v <> {v}{self._own(table, mark)}"
        ):
            with self.lock:
                table.rows[mark]["v"] = v

    def _own(self, table: Table, mark: str) -> str:
        """As every statement of an application, it names the tenant."""
        tenant = table.rows[mark]["tenant"]
        return f" AND tenant_id = {self.value(tenant)}" if table.own_tenant and tenant else ""

    def switched(self, old: str, new: str) -> None:
        for table in self.tables:
            for row in table.rows.values():
                for name in ("tenant", "owner", "of"):
                    if row.get(name) == old:
                        row[name] = new

    def wrong(self) -> list[str]:
        """Where the tables are not what was acknowledged."""
        return [wrong for table in self.tables for wrong in self._wrong_rows(table)]

    def _wrong_rows(self, table: Table) -> Iterator[str]:
        columns = [("tenant", "tenant_id")] if table.own_tenant else []
        columns += [("owner", "owner_tenant_id")] if table.second else []
        names = ", ".join(["mark", "v", *(column for _name, column in columns)])
        rows = self.ground.sql(f"SELECT {names} FROM {table.sql}")
        there = {row[0]: tuple(map(self._plain, row[1:])) for row in rows}
        for mark, row in table.rows.items():
            wanted = tuple(map(self._plain, [row["v"], *(self._named(row[name]) for name, _column in columns)]))
            if there.get(mark) != wanted:
                yield f"{table.sql} {mark}: {there.get(mark)} is not {wanted}"
        yield from (f"{table.sql} {mark}: nobody was told" for mark in there.keys() - table.rows.keys())
        if len(there) != len(rows):
            yield f"{table.sql}: rows are doubled"

    def _named(self, tenant: str | None) -> Any:
        if tenant is None:
            return None
        return {"big": NUMBERS, "bytes": BYTES}.get(self.kind, {}).get(tenant, tenant)

    @staticmethod
    def _plain(value: Any) -> Any:
        return value.hex() if isinstance(value, bytes) else None if value is None else str(value)


class Writers:
    """One writer of the tenant that migrates, one of another; the latter is never refused."""

    def __init__(self, schema: Random) -> None:
        self.schema, self.live = schema, A
        self.done = {A: 0, C: 0}
        self.refused = 0
        self.errors: list[str] = []
        self._stop, self._pause = threading.Event(), threading.Lock()

    @contextmanager
    def running(self) -> Iterator[Writers]:
        threads = [threading.Thread(target=self._write, args=(tenant,), daemon=True) for tenant in (A, C)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    @contextmanager
    def held(self) -> Iterator[None]:
        """No writer is in the middle of a statement of which nobody knows yet whether it counts."""
        with self._pause:
            yield

    def await_writes(self) -> None:
        before = dict(self.done)
        wait_until(
            lambda: self.errors or all(self.done[tenant] >= before[tenant] + ENOUGH for tenant in before), "writes", 120
        )

    def _write(self, who: str) -> None:
        dice, session = random.Random(who), self.schema.ground.session()
        while not self._stop.wait(0.005):
            tenant = self.live if who == A else who
            table = dice.choice(self.schema.tables)
            with self._pause if who == A else threading.Lock():
                try:
                    if dice.random() < 0.5:
                        self.schema.insert(session, table, tenant)
                    else:
                        self.schema.change(session, table, tenant, dice)
                except self.schema.ground.refused as error:
                    self._failed(who, table, error)
                except Exception as error:
                    self.errors.append(f"{who}: {error!r}")
            self.done[who] += 1
        session.close()

    def _failed(self, who: str, table: Table, error: Exception) -> None:
        if self.schema.ground.passing(error):
            return
        self.refused += 1
        if who == C:
            self.errors.append(f"another tenant's write to {table.sql} failed: {error}")


def whole_life(ground: Ground, seed: int) -> None:
    """Stage, migrate, reverse, migrate, finalize under writes; rows are what was acknowledged, the schema is itself."""
    schema = Random(ground, seed)
    dump = ground.dump()
    journey = Journey(ground, **schema.options())
    described = "; ".join(schema.statements)
    plan = journey.plan()
    assert not plan.refusals, (plan.refusals, described)
    writers = Writers(schema)
    with writers.running():
        journey.stage()
        for new, old in ((B, A), (A, B), (B, A)):
            writers.await_writes()
            _switch(journey, writers, schema, old, new)
            assert not writers.errors, (writers.errors[:3], described)
            journey.stage()
        writers.await_writes()
        journey.remove()
        writers.await_writes()
    assert not writers.errors, (writers.errors[:3], described)
    assert not schema.wrong(), (schema.wrong()[:5], described, [(t.table, t.strategy) for t in plan.tables])
    assert ground.dump() == dump, described


def _switch(journey: Journey, writers: Writers, schema: Random, old: str, new: str) -> None:
    """A window into which the tenant's writer goes on writing, as one that no router holds back."""
    journey.epoch += 1
    for verb in ("take_over", "prelude", "barrier"):
        journey.act(verb)
    with writers.held():
        journey.act("confirm")
        journey.act("turn")
        schema.switched(old, new)
        writers.live = new
    journey.reversed = not journey.reversed
