# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is special about a SQLite file: kinds of writes, readers and writers of other processes, locks, odd files."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused, Timeout, Unreachable, ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import STAGED
from ansible_collections.zdm.landscape.plugins.module_utils.participant.sqlite.participant import SQLite
from ansible_collections.zdm.landscape.tests.integration.sqlite.bench import Bench
from ansible_collections.zdm.landscape.tests.integration.verb_kit import (
    KEY,
    WAIT_MS,
    A,
    B,
    C,
    move,
    stage,
    status,
    under,
)

WRITES = (
    f"INSERT INTO bill (tenant_id, id) VALUES ('{C}', 900), ('{A}', 901)",
    f"INSERT OR IGNORE INTO bill (tenant_id, id) VALUES ('{A}', 1)",
    f"INSERT OR REPLACE INTO bill (tenant_id, id) VALUES ('{A}', 1)",
    f"INSERT INTO bill (tenant_id, id) VALUES ('{A}', 1) ON CONFLICT DO UPDATE SET note = 'd'",
    f"INSERT INTO bill (tenant_id, id) VALUES ('{C}', 1) ON CONFLICT DO UPDATE SET tenant_id = '{A}', id = 902",
    f"INSERT INTO event (tenant_id, txt) SELECT '{A}', txt || 'x' FROM event WHERE tenant_id = '{C}'",
    f"INSERT INTO share VALUES (9100000, '{C}', '{A}')",
    f"UPDATE bill SET tenant_id = '{A}', id = id + 5000 WHERE tenant_id = '{C}' AND id = 1",
    f"UPDATE OR IGNORE event SET tenant_id = '{A}' WHERE tenant_id = '{C}'",
    f"UPDATE bill SET note = 'x' WHERE tenant_id = '{B}'",
    f"UPDATE item SET tenant_id = '{C}', bill = bill + 5000 WHERE tenant_id = '{B}'",
    f"DELETE FROM item WHERE tenant_id = '{B}'",
    "DELETE FROM event",
)


def test_every_kind_of_write_is_refused_between_barrier_and_turn(staged: tuple[Bench, SQLite]) -> None:
    bench, participant = staged
    application = bench.application()
    application.execute("PRAGMA foreign_keys = ON")
    application.execute("SELECT * FROM bill").fetchone()  # its schema is from before the barrier
    participant.barrier(move(), WAIT_MS)
    rows = bench.rows()
    for statement in WRITES:
        with pytest.raises(sqlite3.IntegrityError, match="is closed by a migration"):
            application.execute(statement)
    assert bench.rows() == rows
    application.execute(f"UPDATE bill SET note = 'mine' WHERE tenant_id = '{C}'")
    participant.turn(move())
    application.execute(f"UPDATE bill SET note = 'again' WHERE tenant_id = '{B}'")
    with pytest.raises(sqlite3.IntegrityError, match="is closed by a migration"):
        application.execute(f"INSERT INTO bill (tenant_id, id) VALUES ('{A}', 901)")


@pytest.mark.parametrize(
    "key",
    [
        "CREATE UNIQUE INDEX mail ON bill (note)",
        "CREATE UNIQUE INDEX mail ON bill (note COLLATE NOCASE)",
        "CREATE UNIQUE INDEX mail ON bill (note, amount) WHERE amount IS NOT NULL",
    ],
)
def test_a_replace_of_another_tenant_does_not_delete_a_fenced_row(bench: Bench, key: str) -> None:
    """REPLACE deletes what is in its way without firing its triggers."""
    bench.sql("UPDATE bill SET note = tenant_id || id")
    bench.sql(key)
    participant = bench.participant()
    stage(participant)
    participant.barrier(move(), WAIT_MS)
    rows = bench.rows()
    application = bench.application()
    note = f"{A}7".upper() if "NOCASE" in key else f"{A}7"
    for statement in (
        f"REPLACE INTO bill (tenant_id, id, note, amount) VALUES ('{C}', 901, '{note}', 7 / 7.0)",
        f"INSERT OR REPLACE INTO bill (tenant_id, id, note, amount) SELECT '{C}', 902, '{note}', 7 / 7.0",
        f"UPDATE OR REPLACE bill SET note = '{note}', amount = 7 / 7.0 WHERE tenant_id = '{C}' AND id = 1",
        f"REPLACE INTO event (id, tenant_id, txt) VALUES (7, '{C}', 'x')",
        f"UPDATE OR REPLACE event SET id = 7 WHERE tenant_id = '{C}' AND id = 1000001",
        f"REPLACE INTO share VALUES (9000000, '{C}', '{C}')",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="is closed by a migration"):
            application.execute(statement)
    assert bench.rows() == rows
    application.execute(f"REPLACE INTO bill (tenant_id, id, note, amount) VALUES ('{C}', 1, '{C}7', 7 / 7.0)")
    participant.turn(move())
    application.execute(f"REPLACE INTO event (tenant_id, txt) VALUES ('{C}', 'mine')")


def test_the_barrier_asks_for_the_parents_of_moved_rows(bench: Bench) -> None:
    bench.sql("CREATE TABLE tenant (id TEXT PRIMARY KEY)")
    bench.sql(f"INSERT INTO tenant VALUES ('{A}'), ('{B}'), ('{C}')")
    bench.sql("CREATE TABLE note (id INTEGER PRIMARY KEY, tenant_id TEXT NOT NULL REFERENCES tenant)")
    bench.sql(f"INSERT INTO note VALUES (1, '{A}')")
    participant = bench.participant(tables={"tenant": {"ignore": "roots"}})
    stage(participant)
    bench.sql(f"DELETE FROM tenant WHERE id = '{B}'")
    with pytest.raises(Refused, match=rf"to tenant \(id\) of table note: rows of {B} find no row there"):
        participant.barrier(move(), WAIT_MS)
    assert bench.sql(f"SELECT COUNT(*) FROM note WHERE tenant_id = '{A}'") == [(1,)]
    bench.sql(f"INSERT INTO tenant VALUES ('{B}')")
    participant.barrier(move(), WAIT_MS)


def test_a_cascade_meets_the_fence(staged: tuple[Bench, SQLite]) -> None:
    bench, participant = staged
    bench.sql(f"INSERT INTO bill (tenant_id, id) VALUES ('{C}', 5000)")
    participant.barrier(move(), WAIT_MS)
    application = bench.application()
    application.execute("PRAGMA foreign_keys = ON")
    with pytest.raises(sqlite3.IntegrityError, match="is closed by a migration"):
        application.execute(f"DELETE FROM bill WHERE tenant_id = '{B}'")


def test_readers_see_all_or_nothing_and_go_on_until_the_commit(staged: tuple[Bench, SQLite]) -> None:
    bench, participant = staged
    reader = bench.application()
    seen = []

    @sa.event.listens_for(participant.engine(), "before_cursor_execute")
    def _look(*_arguments: object) -> None:
        query = f"SELECT COUNT(*) FILTER (WHERE tenant_id = '{A}'), COUNT(*) FILTER (WHERE tenant_id = '{B}') FROM %s"
        seen.append([reader.execute(query % table).fetchone() for table in ("bill", "item", "event")])

    participant.barrier(move(), WAIT_MS)
    participant.turn(move())
    assert {tuple(entry) for entry in seen} == {((60, 0),) * 3, ((0, 60),) * 3}


@pytest.mark.parametrize("verb", ["prelude", "barrier", "turn", "undo", "take_over"])
def test_a_lock_of_another_process_is_named(
    staged: tuple[Bench, SQLite], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    bench, participant = staged
    monkeypatch.setattr("ansible_collections.zdm.landscape.plugins.module_utils.participant.verbs.VERB_TIMEOUT_MS", 300)
    if verb in ("turn", "undo"):
        participant.barrier(move(), WAIT_MS)
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN IMMEDIATE');"
        " print(1, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(bench.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        other.stdout.readline()
        rows = bench.rows()
        try:
            with pytest.raises(Timeout, match=f"not free within 300ms: locked by .*\\({other.pid}\\)") as caught:
                getattr(participant, verb)(move(), *((300,) if verb in ("prelude", "barrier") else ()))
            assert str(bench.path) in str(caught.value)
        finally:
            other.communicate(b"\n")
    assert bench.rows() == rows
    getattr(participant, verb)(move(), *((300,) if verb in ("prelude", "barrier") else ()))


def test_a_reader_that_does_not_end(staged: tuple[Bench, SQLite]) -> None:
    bench, participant = staged
    rows = bench.rows()
    reader = bench.application()
    reader.execute("BEGIN")
    assert reader.execute(f"SELECT COUNT(*) FROM bill WHERE tenant_id = '{A}'").fetchone() == (60,)
    if bench.sql("PRAGMA journal_mode") == [("wal",)]:
        participant.barrier(move(), WAIT_MS)  # the reader keeps its snapshot
        assert reader.execute(f"SELECT COUNT(*) FROM bill WHERE tenant_id = '{A}'").fetchone() == (60,)
        reader.execute("COMMIT")
        assert bench.rows() == under(rows, A, B)
    else:
        with pytest.raises(Timeout, match=f"\\({os.getpid()}\\)"):
            participant.barrier(move(), 300)
        reader.execute("COMMIT")
        assert bench.rows() == rows
        assert status(participant) == (STAGED, A, (B,))


def test_an_old_transaction_does_not_get_around_the_barrier(staged: tuple[Bench, SQLite]) -> None:
    bench, participant = staged
    old = bench.application()
    old.execute("BEGIN")
    insert = f"INSERT INTO bill (tenant_id, id) VALUES ('{A}', 901)"
    if bench.sql("PRAGMA journal_mode") == [("wal",)]:
        old.execute("SELECT * FROM bill").fetchall()
        participant.barrier(move(), WAIT_MS)
        with pytest.raises(sqlite3.OperationalError, match="locked"):  # its snapshot is old
            old.execute(insert)
        old.execute("ROLLBACK")
    else:
        participant.barrier(move(), WAIT_MS)
    with pytest.raises(sqlite3.IntegrityError, match="is closed by a migration"):
        old.execute(insert)


def test_the_journal_mode_stays(staged: tuple[Bench, SQLite]) -> None:
    bench, participant = staged
    mode = bench.sql("PRAGMA journal_mode")
    participant.barrier(move(), WAIT_MS)
    participant.close()
    assert sqlite3.connect(bench.path).execute("PRAGMA journal_mode").fetchall() == mode


def test_a_missing_file_stays_missing(tmp_path: Path) -> None:
    path = tmp_path / "none.sqlite"
    participant = SQLite({"name": "docs", "kind": "sqlite", "database": str(path)})
    with pytest.raises(Unreachable, match="no such file"):
        participant.inspect(KEY, A, B)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "text.sqlite"
    path.write_text("no database at all, but long enough to be looked at" * 100)
    with pytest.raises(ZdmError, match="not a database"):
        SQLite({"name": "docs", "kind": "sqlite", "database": str(path)}).inspect(KEY, A, B)


@pytest.mark.parametrize(
    ("ddl", "reason"),
    [
        ("CREATE VIRTUAL TABLE odd USING fts5 (tenant_id, txt)", "is virtual"),
        (
            "CREATE TABLE odd (tenant_id INT NOT NULL, id INTEGER, PRIMARY KEY (tenant_id, id))",
            "cannot hold the id",
        ),
        (
            (
                f"CREATE TABLE odd (tenant_id TEXT NOT NULL CHECK (tenant_id <> '{B}'), id INTEGER PRIMARY KEY); INSERT"
                f" INTO odd VALUES ('{A}', 1)"
            ),
            "cannot take the id",
        ),
        (
            (
                "CREATE TABLE odd (tenant_id TEXT COLLATE NOCASE NOT NULL, id INTEGER PRIMARY KEY); INSERT INTO odd"
                f" VALUES ('{A.upper()}', 1)"
            ),
            "only looks like",
        ),
        (
            (
                "CREATE TABLE odd (tenant_id TEXT NOT NULL, id INTEGER PRIMARY KEY, mail TEXT); CREATE UNIQUE INDEX"
                " mails ON odd (lower(mail))"
            ),
            "Unique index mails of odd is over an expression",
        ),
    ],
)
def test_tables_that_are_refused(bench: Bench, ddl: str, reason: str) -> None:
    bench.admin.executescript(ddl)
    ignored = {
        row[0]: {"ignore": "part of a virtual table"}
        for row in bench.sql("SELECT name FROM sqlite_master WHERE name GLOB 'odd_*' AND type = 'table'")
    }
    refusals = bench.participant(tables=ignored).inspect(KEY, A, B).refusals
    assert {refusal.object for refusal in refusals} == {"odd"}
    assert any(reason in refusal.reason for refusal in refusals)
    assert all(refusal.advice for refusal in refusals)


def test_ids_in_another_case(bench: Bench) -> None:
    refusals = bench.participant().inspect(KEY, A, A.upper()).refusals
    assert all("letter case only" in refusal.reason for refusal in refusals)
    assert len(refusals) == 4


def test_a_text_id_is_compared_byte_for_byte(bench: Bench) -> None:
    bench.sql(f"INSERT INTO event (tenant_id, txt) VALUES ('{A.upper()}', 'another tenant')")
    participant = bench.participant()
    stage(participant)
    participant.barrier(move(), WAIT_MS)
    assert bench.sql(f"SELECT tenant_id FROM event WHERE txt = 'another tenant' AND tenant_id <> '{B}'") == [
        (A.upper(),)
    ]
