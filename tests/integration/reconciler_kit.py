# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests of the stage as a reconciler share: a scene with three tables, changes that releases and people make to
them, writers that go on meanwhile.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import CAREFUL, TWIN, Care
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import Database
from ansible_collections.zdm.landscape.tests.integration.verb_kit import KEY, WAIT_MS, A, B, C, move

ROWS = 40
SCHEMA = (
    "CREATE TABLE bill (tenant_id VARCHAR(63) NOT NULL, id INT NOT NULL, v INT NOT NULL, extra VARCHAR(20), mail"
    " VARCHAR(60) NOT NULL, PRIMARY KEY (tenant_id, id), UNIQUE (tenant_id, mail))",
    "CREATE TABLE line (tenant_id VARCHAR(63) NOT NULL, bill INT NOT NULL, pos INT NOT NULL, v INT NOT NULL, PRIMARY"
    " KEY (tenant_id, bill, pos))",
    "CREATE TABLE box (id INT NOT NULL PRIMARY KEY, tenant_id VARCHAR(63) NOT NULL, v INT NOT NULL)",
)
TABLES = ("bill", "line", "box")


class Scene(ABC):
    """One test's database with :data:`SCHEMA`: bill and line are twins where the engine has them, box is in place."""

    strategy = TWIN
    retype = "ALTER TABLE bill ALTER COLUMN v TYPE BIGINT"

    @abstractmethod
    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement as the application does, and commit."""

    @abstractmethod
    def session(self) -> Any:
        """A connection of the application, of the driver, without autocommit; closed with the scene."""

    @abstractmethod
    def connect(self, options: dict[str, Any]) -> Database:
        """The participant with these options beside those of the server."""

    @abstractmethod
    def passing(self, error: Exception) -> bool:
        """Whether a writer that meets the error just tries again: a deadlock, a lock that was not free."""

    @abstractmethod
    def drop_trigger(self, table: str) -> None:
        """Drop a trigger of the migration, one that sees updates."""

    @abstractmethod
    def rebuild(self, table: str) -> None:
        """Copy a table, put the copy in its place and drop the original, as schema tools do."""

    def fill(self, tenant: str, first: int = 0) -> None:
        for number in range(1, ROWS + 1):
            self.sql(f"INSERT INTO bill VALUES ('{tenant}', {number}, 0, 'x', 'm{number}')")
            self.sql(f"INSERT INTO line VALUES ('{tenant}', {number}, 1, 0)")
            self.sql(f"INSERT INTO box VALUES ({first + number}, '{tenant}', 0)")

    def participant(self, **tables: Any) -> Database:
        """The participant; *tables* are entries of the option beside those of bill and line."""
        known: dict[str, Any] = {name: {"strategy": self.strategy} for name in ("bill", "line")}
        known |= {"box": {"strategy": "in_place"}, **tables}
        return self.connect(
            {
                "tenant_columns": ["tenant_id"],
                "tables": {name: entry for name, entry in known.items() if entry},
                "no_cross_tenant_readers": True,
            }
        )

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        return {table: sorted(self.sql(f"SELECT * FROM {table}"), key=repr) for table in TABLES}


class TwinScene(Scene):
    """A scene of an engine that has twins."""

    @abstractmethod
    def unlogged(self, statement: str) -> None:
        """Run a statement that no trigger of the migration sees."""

    @abstractmethod
    def kept(self) -> list[tuple[str, dict[str, Any]]]:
        """Table and row of the twins that a repair has replaced."""


@dataclass(frozen=True)
class Change:
    """What somebody does to a staged database.

    :param make: gets the scene and the live id.
    :param table: which the reasons against a window must name; empty when it is no matter.
    :param tables: entries of the participant's option ``tables`` from then on.
    """

    name: str
    make: Callable[[Scene, str], None]
    table: str
    tables: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def statements(*lines: str) -> Callable[[Scene, str], None]:
    def make(scene: Scene, live: str) -> None:
        for line in lines:
            scene.sql(line.replace("LIVE", f"'{live}'"))

    return make


def _retyped(scene: Scene, live: str) -> None:
    scene.sql(scene.retype)
    scene.sql(f"UPDATE bill SET v = 5000000000 WHERE tenant_id = '{live}' AND id = 3")


def _rebuilt(scene: Scene, live: str) -> None:
    scene.rebuild("line")
    scene.sql(f"UPDATE line SET v = 77 WHERE tenant_id = '{live}' AND bill < 9")
    scene.sql(f"DELETE FROM line WHERE tenant_id = '{live}' AND bill = 9")


def _lost(scene: Scene, live: str) -> None:
    scene.drop_trigger("bill")
    scene.sql(f"UPDATE bill SET v = 78 WHERE tenant_id = '{live}' AND id < 9")
    # values of a unique key change hands: stale twins are in each other's way
    scene.sql(f"UPDATE bill SET mail = 'free' WHERE tenant_id = '{live}' AND id = 1")
    scene.sql(f"UPDATE bill SET mail = 'm1' WHERE tenant_id = '{live}' AND id = {ROWS}")
    scene.sql(f"UPDATE bill SET mail = 'm{ROWS}' WHERE tenant_id = '{live}' AND id = 1")


CHANGES = (
    Change(
        "new column",
        statements("ALTER TABLE bill ADD COLUMN note VARCHAR(50)", "UPDATE bill SET note = 'n' WHERE tenant_id = LIVE"),
        "bill",
    ),
    Change(
        "new column NOT NULL",
        statements(
            "ALTER TABLE bill ADD COLUMN kind VARCHAR(9) NOT NULL DEFAULT 'k'",
            "UPDATE bill SET kind = 'mine' WHERE tenant_id = LIVE AND id < 9",
        ),
        "bill",
    ),
    Change("dropped column", statements("ALTER TABLE bill DROP COLUMN extra"), "bill"),
    Change("changed type", _retyped, "bill"),
    Change(
        "new tenant table",
        statements(
            "CREATE TABLE reminder (tenant_id VARCHAR(63) NOT NULL, id INT NOT NULL, PRIMARY KEY (tenant_id, id))",
            "INSERT INTO reminder VALUES (LIVE, 1)",
        ),
        "reminder",
    ),
    Change(
        "new ignored table",
        statements("CREATE TABLE country (code CHAR(2) NOT NULL PRIMARY KEY)"),
        "",
        {"country": {"ignore": "no tenant data"}},
    ),
    Change(
        "renamed table",
        statements("ALTER TABLE line RENAME TO parts", "UPDATE parts SET v = 79 WHERE tenant_id = LIVE"),
        "line",
        {"line": None, "parts": None},
    ),
    Change("rebuilt table", _rebuilt, "line"),
    Change("dropped trigger", _lost, "bill"),
)
"""An engine with more ways to lose a trigger adds them."""


@contextmanager
def writing(scene: Scene, tenant: str) -> Iterator[None]:
    """Somebody writes as the tenant while the block runs, not to the first ten rows."""
    stop, failures, written = threading.Event(), list[Exception](), 0
    session = scene.session()

    def run() -> None:
        nonlocal written
        number = 100_000
        while not stop.is_set():
            number += 1
            try:
                cursor = session.cursor()
                some = number % (ROWS - 10) + 11
                for statement in (
                    f"UPDATE bill SET v = v + 1 WHERE tenant_id = '{tenant}' AND id = {some}",
                    f"UPDATE box SET v = v + 1 WHERE tenant_id = '{tenant}' AND id % 1000 = {some}",
                    f"DELETE FROM bill WHERE tenant_id = '{tenant}' AND id = {number - 100_000 + 20}",
                    f"INSERT INTO bill (tenant_id, id, v, mail) VALUES ('{tenant}', {number - 100_000 + 20}, 1,"
                    f" 'w{number}')",
                ):
                    cursor.execute(statement)
                session.commit()
                written += 1
            except Exception as error:
                session.rollback()
                if not scene.passing(error):
                    failures.append(error)
                    return
            stop.wait(0.01)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        while not written and thread.is_alive():
            thread.join(0.01)
        stop.set()
        thread.join()
    assert not failures, failures


class Play:
    """A staged scene at one time of its migration.

    :param turned: the target is live, for weeks.
    """

    others: ClassVar[dict[str, str]] = {A: B, B: A}

    def __init__(self, scene: Scene, turned: bool) -> None:
        self.scene = scene
        self.participant = scene.participant()
        self.epoch = 1
        self.live = A
        self.told: list[dict[str, Any]] = []
        self.stage()
        if turned:
            self.switch()

    @property
    def other(self) -> str:
        return self.others[self.live]

    def now(self) -> Any:
        """The move of the next window."""
        return move(self.epoch, self.live == A)

    def stage(self, care: Care = CAREFUL) -> int:
        plan = self.participant.inspect(KEY, A, B)
        self.told.clear()
        return self.participant.stage(self.now(), plan, self.told.append, care)

    def switch(self) -> None:
        """A window; it loses nothing, and leaves other tenants alone."""
        self.epoch += 1
        at, bystander = self.now(), self.participant.fingerprint(C)
        self.participant.take_over(at)
        self.participant.prelude(at, WAIT_MS)
        content = self.participant.fingerprint(self.live)
        self.participant.barrier(at, WAIT_MS)
        self.participant.confirm(at)
        self.participant.turn(at)
        self.live = self.other
        assert self.participant.fingerprint(self.live) == content
        assert self.participant.fingerprint(C) == bystander

    def status(self) -> Any:
        return self.participant.status(KEY, A, B)
