# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting in MariaDB: who is in the way is named, others are not kept waiting, an older controller's session is
ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import (
    Refused,
    Superseded,
    Timeout,
    Unreachable,
    ZdmError,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import FENCED, MOVED, STAGED
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb import arming, server
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb import sessions as mariadb_sessions
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.participant import MariaDB
from ansible_collections.zdm.landscape.tests.integration.mariadb.bench import Bench, run
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
from ansible_collections.zdm.landscape.tests.landscape import processes
from ansible_collections.zdm.landscape.tests.landscape.processes import PATIENCE_S


@pytest.mark.parametrize("verb", ["prelude", "barrier"])
def test_an_open_transaction_of_the_tenant_is_waited_for_and_named(staged: tuple[Bench, MariaDB], verb: str) -> None:
    bench, participant = staged
    rows = bench.rows()
    writer = bench.application(autocommit=False)
    run(writer, f"INSERT INTO bill (tenant_id, id) VALUES ('{A}', 901)")
    with pytest.raises(Timeout, match=f"thread {writer.thread_id()} of root@localhost") as caught:
        getattr(participant, verb)(move(), 900)
    limits = "SELECT @@max_statement_time, @@innodb_lock_wait_timeout"
    with participant.transaction() as connection:  # the time-out is not the session's from now on
        assert tuple(connection.exec_driver_sql(limits).one()) == (0, 1)
    assert caught.value.details["blockers"][0]["thread"] == writer.thread_id()
    assert f"KILL {writer.thread_id()}" in caught.value.advice
    assert status(participant) == (STAGED, A, (B,))
    writer.rollback()
    assert bench.rows() == rows
    participant.prelude(move(), WAIT_MS)


def test_a_transaction_that_wrote_before_the_barrier_is_in(staged: tuple[Bench, MariaDB]) -> None:
    bench, participant = staged
    writer = bench.application(autocommit=False, isolation="REPEATABLE READ")
    run(writer, f"INSERT INTO bill (tenant_id, id) VALUES ('{A}', 901)")
    with running(lambda: participant.barrier(move(), WAIT_MS)) as barrier:
        wait_until(lambda: bench.sql("SELECT COUNT(*) FROM information_schema.innodb_lock_waits") != [(0,)])
        run(
            writer, f"INSERT INTO item (tenant_id, bill, pos) VALUES ('{A}', 901, 1)"
        )  # goes on writing while the barrier waits
        bystander = bench.application()
        run(bystander, f"INSERT INTO bill (tenant_id, id) VALUES ('{C}', 901)")
        assert barrier.is_alive()
        writer.commit()
    assert bench.sql(f"SELECT id FROM bill WHERE tenant_id = '{B}' AND id = 901") == [(901,)]
    assert bench.sql(f"SELECT bill FROM item WHERE tenant_id = '{B}' AND bill = 901") == [(901,)]


def test_a_change_of_a_table_waits_until_the_barrier_has_ended(staged: tuple[Bench, MariaDB]) -> None:
    bench, participant = staged
    looked = participant.marks
    alter = bench.application()
    columns = "SELECT COUNT(*) FROM information_schema.columns WHERE table_schema = DATABASE() AND column_name = 'late'"
    waits = "SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE 'Waiting for table metadata lock'"
    seen: list[Any] = []

    def meanwhile(*arguments: Any) -> dict[str, str]:
        found = looked(*arguments)
        if not seen:
            threading.Thread(target=run, args=(alter, "ALTER TABLE bill ADD COLUMN late INT"), daemon=True).start()
            wait_until(lambda: bench.sql(waits) == [(1,)])
            seen.append(bench.sql(columns))
        return found

    participant.marks = meanwhile  # type: ignore[method-assign, assignment]
    # while the server changes the table its triggers may not be seen at all
    with pytest.raises(Refused, match="Columns, keys or triggers of bill have changed|fence of .* is not on every"):
        participant.barrier(move(), WAIT_MS)
    assert seen == [[(0,)]]  # the fences were set before; the second transaction found the change
    assert status(participant) == (FENCED, A, (A, B))
    participant.undo(move())
    assert status(participant) == (STAGED, A, (B,))


def test_a_refused_writer_that_stays_does_not_keep_the_target_closed(staged: tuple[Bench, MariaDB]) -> None:
    bench, participant = staged
    participant.barrier(move(), WAIT_MS)
    late = bench.application(autocommit=False)
    with pytest.raises(Exception, match="is closed by a migration"):
        run(late, f"INSERT INTO bill (tenant_id, id) VALUES ('{A}', 901)")  # its transaction stays open
    participant.turn(move())
    assert status(participant) == (STAGED, B, (A,))
    run(bench.application(), f"INSERT INTO bill (tenant_id, id) VALUES ('{B}', 901)")
    late.rollback()


def test_transactions_of_other_tenants_are_not_waited_for(staged: tuple[Bench, MariaDB]) -> None:
    bench, participant = staged
    other = bench.application(autocommit=False, isolation="REPEATABLE READ")
    run(other, f"UPDATE bill SET note = 'mine' WHERE tenant_id = '{C}'")
    run(other, f"INSERT INTO event (tenant_id, txt) VALUES ('{C}', 'mine')")
    participant.prelude(move(), WAIT_MS)
    participant.barrier(move(), WAIT_MS)
    participant.turn(move())
    other.commit()


def test_a_row_lock_of_somebody_else_times_out_between_fence_and_move(staged: tuple[Bench, MariaDB]) -> None:
    bench, participant = staged
    rows = bench.rows()
    reader = bench.application(autocommit=False)
    run(reader, f"SELECT * FROM event WHERE tenant_id = '{A}' FOR UPDATE")
    with pytest.raises(Timeout, match=f"thread {reader.thread_id()}"):
        participant.barrier(move(), 700)
    assert (bench.rows(), status(participant)) == (rows, (FENCED, A, (A, B)))
    participant.undo(move())  # waits for no row
    assert (bench.rows(), status(participant)) == (rows, (STAGED, A, (B,)))
    reader.rollback()


def test_stage_does_not_make_others_queue_behind_a_long_transaction(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LONG_TRANSACTION_S", 3600)  # a busy machine may need longer than the plan allows
    monkeypatch.setattr(arming, "DDL_TIMEOUT_MS", 5000)
    long = bench.application(autocommit=False)
    run(long, "SELECT COUNT(*) FROM bill")
    participant = bench.participant()
    plan = participant.inspect(KEY, A, B)
    bystander = bench.application()
    writes = 0
    with running(lambda: participant.stage(move(), plan, lambda _step: None), expect=Timeout) as staging:
        while staging.is_alive():
            run(bystander, f"UPDATE bill SET note = 'b{writes}' WHERE tenant_id = '{C}' AND id = 1")
            writes += 1
            staging.join(0.05)
    assert f"thread {long.thread_id()}" in str(staging.error)
    assert writes > 2  # the second one would have queued behind a statement that waits for the long transaction
    long.rollback()
    stage(participant)
    assert status(participant) == (STAGED, A, (B,))


def test_take_over_ends_the_older_controllers_session(staged: tuple[Bench, MariaDB]) -> None:
    bench, participant = staged
    rows = bench.rows()
    paused = bench.participant()
    inside, go_on = threading.Event(), threading.Event()

    @before_the_fences_close(paused)
    def _pause(_thread: int) -> None:
        inside.set()
        assert go_on.wait(PATIENCE_S)

    with running(lambda: paused.barrier(move(), WAIT_MS), expect=Unreachable) as old:
        assert inside.wait(PATIENCE_S)
        participant.take_over(move(2))
        assert status(participant) == (STAGED, A, (B,))
        assert bench.rows() == rows
        go_on.set()
    assert old.error is not None
    with pytest.raises(Superseded):
        paused.barrier(move(), WAIT_MS)
    participant.barrier(move(2), WAIT_MS)
    assert bench.rows() == under(rows, A, B)


def test_a_second_session_of_the_same_epoch_waits(staged: tuple[Bench, MariaDB]) -> None:
    bench, participant = staged
    first = bench.participant()
    with (
        first.only_session(move(), 1, mariadb_sessions.Deadline(1000)),
        pytest.raises(Timeout, match="same epoch") as caught,
    ):
        participant.barrier(move(), 400)
    assert caught.value.details["blocker"]["thread"] == first.thread_id(first.connection())
    participant.barrier(move(), WAIT_MS)
    assert status(participant)[0] == MOVED


def test_a_session_of_another_user_is_not_ended(staged: tuple[Bench, MariaDB]) -> None:
    bench, participant = staged
    other = bench.participant(user="root", password="")
    with other.only_session(move(), 1, mariadb_sessions.Deadline(1000)), pytest.raises(Refused, match="another user"):
        participant.take_over(move(2))


def test_a_paused_controller_loses_its_transaction(staged: tuple[Bench, MariaDB]) -> None:
    bench, participant = staged
    rows = bench.rows()

    @before_the_fences_close(participant)
    def _pause(thread: int) -> None:
        wait_until(lambda: not bench.sql(f"SELECT 1 FROM information_schema.processlist WHERE id = {thread}"))

    with pytest.raises(Unreachable):
        participant.barrier(move(), WAIT_MS)
    assert bench.rows() == rows
    assert status(bench.participant()) == (STAGED, A, (B,))


def test_a_server_that_is_not_there(bench: Bench) -> None:
    gone = bench.participant(socket="/nonexistent/s.sock")
    with pytest.raises(Unreachable, match="rating") as caught:
        gone.inspect(KEY, A, B)
    assert "secret-of-zdm" not in str(caught.value)
    wrong = bench.participant(password="wrong-secret")
    with pytest.raises(Unreachable, match="wrong user or password") as caught:
        wrong.inspect(KEY, A, B)
    assert "wrong-secret" not in str(caught.value)


def before_the_fences_close(participant: MariaDB) -> Callable[[Callable[[int], None]], None]:
    """Decorator: call a function with the thread's id in the middle of a barrier, when its rows have moved."""

    def decorate(function: Callable[[int], None]) -> None:
        @sa.event.listens_for(participant.engine(), "before_cursor_execute")
        def _statement(connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
            if statement.startswith("UPDATE `zdm_fence_"):
                function(participant.thread_id(connection))

    return decorate


class _Running(threading.Thread):
    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.work = work
        self.error: ZdmError | None = None

    def run(self) -> None:
        try:
            self.work()
        except ZdmError as error:
            self.error = error


@contextmanager
def running(work: Callable[[], object], expect: type[ZdmError] | None = None) -> Iterator[_Running]:
    """Run *work* beside the block; afterwards it must have ended as expected."""
    thread = _Running(work)
    thread.start()
    yield thread
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert isinstance(thread.error, expect or type(None)), thread.error


def wait_until(condition: Callable[[], bool]) -> None:
    # InnoDB makes its information_schema tables anew only when nobody has read them for 0.1 s
    processes.wait_until(condition, "MariaDB says so", pause_s=0.2)


def test_two_migrations_whose_names_begin_alike_do_not_share_a_lock(bench: Bench) -> None:
    """A take over of one ended the other's stage: a lock's name is 64 characters at most."""
    base = "acme-manufacturing-holding-production-europe-central-frank"
    migrations = [f"{base}-{number}--x" for number in (1, 2)]
    names = {mariadb_sessions.lock_name(bench.name, migration) for migration in migrations} | {
        mariadb_sessions.lock_name("other", migrations[0])
    }
    assert len(names) == 3
    holder, other = bench.application(), bench.application()
    held = [
        run(each, f"SELECT GET_LOCK('{name}', 0)") for each, name in zip((holder, other), sorted(names), strict=False)
    ]
    assert held == [[(1,)], [(1,)]]
