# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers are durable, come back with their data, and never outlive who started them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest
from ansible_collections.zdm.landscape.tests.landscape import programs
from ansible_collections.zdm.landscape.tests.landscape.databases import MariaDatabase, PostgresDatabase
from ansible_collections.zdm.landscape.tests.landscape.processes import (
    PATIENCE_S,
    Processes,
    ServerError,
    free_port,
    module_environment,
    temporary_folder,
    wait_until,
)
from ansible_collections.zdm.landscape.tests.landscape.servers import MariaServer, PostgresServer, Server
from ansible_collections.zdm.landscape.tests.landscape.spec import BY_NAME

TENANT, HEADS = "aaaaaaaa-0000-4000-8000-000000000000", 50
PACKAGE = Processes.__module__.rpartition(".")[0]

PARENT = f"""
import sys, time
from pathlib import Path
from {PACKAGE}.processes import Processes
from {PACKAGE}.servers import PostgresServer
folder = Path(sys.argv[1])
with Processes(folder / "logs") as processes:
    server = PostgresServer("postgresql", folder / "postgresql", processes)
    server.init()
    server.start()
    sleeper = processes.start("sleeper", [sys.executable, "-c", "import time; time.sleep(600)"])
    print(server.pid, sleeper.pid, flush=True)
    time.sleep(600)
"""


def processes_in(folder: Path) -> list[int]:
    """Processes whose command line names the folder, or that work in it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command, cwd = (entry / "cmdline").read_bytes(), os.readlink(entry / "cwd")
            except OSError:
                continue
            if str(folder).encode() in command or cwd.startswith(str(folder)):
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_outlives_a_parent_that_is_killed(number: signal.Signals) -> None:
    with temporary_folder() as folder:
        (folder / "logs").mkdir()
        script = folder / "parent.py"
        script.write_text(PARENT)
        parent = subprocess.Popen(
            [sys.executable, str(script), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=module_environment(),
            start_new_session=True,
        )
        assert parent.stdout is not None
        try:
            pids = [int(pid) for pid in parent.stdout.readline().split()]
            assert len(pids) == 2
            assert set(pids) < set(processes_in(folder))
            assert len(processes_in(folder)) > 4  # PostgreSQL has children of its own
        finally:
            parent.send_signal(number)
            parent.wait(PATIENCE_S)
            parent.stdout.close()
        wait_until(lambda: not processes_in(folder), f"the processes {processes_in(folder)} end")


def test_postgresql_keeps_its_data_through_a_crash_and_goes_back_to_its_seed(
    folder: Path, processes: Processes
) -> None:
    server = PostgresServer("postgresql", folder / "postgresql", processes)
    database = PostgresDatabase(BY_NAME["bills"], server)
    server.init()
    server.start()
    assert server.connect().execute("SHOW fsync").fetchone() == ("on",)
    database.create()
    database.fill({TENANT: HEADS})
    database.keep_seed()
    database.execute("UPDATE bill SET amount = -1", "CREATE SCHEMA leftover")
    server.kill()
    assert not server.running
    server.start()
    assert database.query("SELECT DISTINCT amount FROM bill") == [(-1,)]
    session = database.connect()
    database.reset()
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    assert database.query("SELECT count(*) FROM bill WHERE amount >= 0") == [(HEADS,)]
    assert database.query("SELECT count(*) FROM pg_namespace WHERE nspname = 'leftover'") == [(0,)]


@pytest.mark.skipif(programs.mariadb() is None, reason="no MariaDB server is installed")
def test_mariadb_goes_back_to_its_seed(folder: Path, processes: Processes) -> None:
    program = programs.mariadb()
    assert program is not None
    server = MariaServer("mariadb", folder / "mariadb", processes, program)
    database = MariaDatabase(BY_NAME["rating"], server)
    server.init()
    server.start()
    database.create()
    database.fill({TENANT: HEADS})
    database.keep_seed()
    session = server.connect(account=server.zdm)
    with session.cursor() as cursor:
        cursor.execute("CREATE DATABASE zdm_leftover")
    session.close()
    database.execute(
        "DELETE FROM usage_part", "CREATE TRIGGER left_over BEFORE DELETE ON usage_part FOR EACH ROW SET @x = 1"
    )
    database.reset()
    assert database.query("SELECT count(*) FROM usage_part") == [(2 * HEADS,)]
    assert database.query("SELECT count(*) FROM information_schema.triggers WHERE trigger_schema = 'rating'") == [(0,)]
    assert [row for row in server_schemas(server) if "leftover" in row] == []


def server_schemas(server: MariaServer) -> list[str]:
    with server.connect() as session, session.cursor() as cursor:
        cursor.execute("SHOW DATABASES")
        return [str(row[0]) for row in cursor.fetchall()]


def test_a_server_that_does_not_start_says_why(folder: Path, processes: Processes) -> None:
    server: Server = PostgresServer("postgresql", folder / "postgresql", processes)
    server.init()
    with (folder / "postgresql" / "data" / "postgresql.conf").open("a") as config:
        config.write("no_such_setting = 1\n")
    with pytest.raises(ServerError, match="no_such_setting"):
        server.start()


def test_a_free_port_can_be_bound_by_a_server_and_is_given_once() -> None:
    ports = [free_port() for _port in range(50)]
    assert len(set(ports)) == len(ports)
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", ports[0]))
        server.listen()


def test_processes_are_started_from_the_main_thread_only(processes: Processes) -> None:
    raised: list[BaseException] = []

    def start() -> None:
        try:
            processes.start("sleeper", ["sleep", "60"])
        except ServerError as error:
            raised.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(raised[0])


def test_a_stopped_process_is_stopped_too(processes: Processes) -> None:
    process = processes.start(
        "stubborn",
        [
            sys.executable,
            "-c",
            "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
        ],
    )
    process.wait_ready(lambda: "up" in process.tail())
    process.signal(signal.SIGSTOP)
    assert process.stop(timeout_s=0.5) == -signal.SIGKILL


@pytest.mark.parametrize("readable", [True, False])
def test_wheels_stand_in_for_servers_that_are_not_installed(
    monkeypatch: pytest.MonkeyPatch, folder: Path, processes: Processes, readable: bool
) -> None:
    monkeypatch.setattr(programs, "_on_path", lambda name, *patterns: [])
    monkeypatch.setattr(programs, "reachable_by_all", lambda path: readable)
    assert programs.haproxy().version >= programs.HAPROXY_MINIMUM
    server = PostgresServer("postgresql", folder / "postgresql", processes)
    assert server.program.path.is_relative_to(folder) == (os.getuid() == 0 and not readable)
    server.init()
    server.start()
    assert server.connect().execute("SELECT 1").fetchone() == (1,)
