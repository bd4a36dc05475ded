# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stage of a real database under limits: rows per second, the answers of a real endpoint, the lag of a real
replica.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.http.health import Endpoint, slowest_answer_ms
from ansible_collections.zdm.landscape.plugins.module_utils.migration.throttle import Limits, Throttle
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import STAGED
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import THROTTLES
from ansible_collections.zdm.landscape.plugins.module_utils.store.file import FileStore
from ansible_collections.zdm.landscape.tests.integration.postgresql.pgsite import MIGRATION, Site, make_small_chunks
from ansible_collections.zdm.landscape.tests.landscape.processes import (
    Processes,
    private_folder,
    remove_folder,
    run,
    wait_until,
)
from ansible_collections.zdm.landscape.tests.landscape.servers import HOST, PostgresServer

ALL_ROWS = 1200
CHUNK = 50
MOST_WAITS = 600
"""A minute of short waits: a stage that still waits then would wait for ever."""


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small_chunks(monkeypatch.setattr, CHUNK)


class Throttled:
    """A stage of the site's database under a throttle."""

    def __init__(
        self, site: Site, store: FileStore, limits: Limits, latency: Callable[[], float | None] = lambda: None
    ) -> None:
        self.participant, self.site = site.participant(), site
        self.told: list[dict[str, Any]] = []
        self.waited: list[tuple[str, ...]] = []
        self.copied: list[tuple[float, int]] = []
        self.on_wait: Callable[[], None] = list
        self.throttle = Throttle(limits, store, MIGRATION, latency, self.told.append)

    def stage(self) -> None:
        """Stage the whole database; it must be staged afterwards."""
        assert self.participant.stage(self.site.move(), self.site.plan(self.participant), self.progress) == ALL_ROWS
        assert self.site.status(self.participant).state == STAGED

    def progress(self, entry: dict[str, Any]) -> None:
        if entry["step"] == "copy":
            self.copied.append((time.monotonic(), entry["rows"]))
        self.throttle.wait(self.participant, entry, partial(self.between, entry))

    def between(self, entry: dict[str, Any]) -> None:
        self.waited.append(self.throttle.reasons)
        assert len(self.waited) < MOST_WAITS, f"{entry} waits for {self.throttle.reasons} under {self.throttle.limits}"
        self.on_wait()

    def copying_s(self) -> float:
        """From the end of the first chunk to the end of the last one."""
        return self.copied[-1][0] - self.copied[0][0]


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path)


def test_the_rate_is_honoured(site: Site, store: FileStore) -> None:
    """A quarter of the limit takes the longer; no run is faster than its limit."""
    taken = []
    for limit in (500, 2000):
        throttled = Throttled(site, store, Limits(rows_per_second=limit))
        throttled.stage()
        taken.append(throttled.copying_s())
        assert taken[-1] >= (ALL_ROWS - 2 * CHUNK) / limit
        assert set(throttled.waited) == {("rows_per_second",)}
        throttled.participant.remove(site.move())
    assert taken[0] / taken[1] > 1.5


def test_a_limit_is_changed_while_the_stage_runs(site: Site, store: FileStore) -> None:
    throttled = Throttled(site, store, Limits(rows_per_second=1))

    def lift() -> None:
        if len(throttled.waited) == 3:
            store.put(THROTTLES, MIGRATION, {"rows_per_second": 1_000_000}, None)

    throttled.on_wait = lift
    throttled.stage()
    assert [entry["limits"] for entry in throttled.told] == [{"rows_per_second": 1}, {"rows_per_second": 1_000_000}]


class Service(ThreadingHTTPServer):
    """A health endpoint that answers late while it is busy."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), Health)
        self.idle = threading.Event()
        self.idle.set()


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Service)
        self.server.idle.wait(1.2)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture(name="service")
def _service() -> Iterator[Service]:
    with Service() as service:
        thread = threading.Thread(target=service.serve_forever)
        thread.start()
        try:
            yield service
        finally:
            service.idle.set()
            service.shutdown()
            thread.join()


def test_slow_services_stop_the_copy_until_they_are_fast_again(site: Site, store: FileStore, service: Service) -> None:
    endpoint = Endpoint(f"http://{HOST}:{service.server_port}/health", timeout_ms=5000)
    throttled = Throttled(site, store, Limits(max_latency_ms=800), partial(slowest_answer_ms, [endpoint]))
    service.idle.clear()
    rows_while_slow = []

    def become_fast() -> None:
        rows_while_slow.append(throttled.copied[-1][1])
        if len(throttled.waited) == 3:
            service.idle.set()

    throttled.on_wait = become_fast
    throttled.stage()
    assert set(throttled.waited) == {("latency",)}
    assert set(rows_while_slow[:3]) == {CHUNK}


class Replica(PostgresServer):
    """A streaming replica of another server."""

    def __init__(self, primary: PostgresServer, folder: Path, processes: Processes) -> None:
        super().__init__("replica", folder, processes)
        self.primary, self.admin = primary, primary.admin

    def init(self) -> None:
        private_folder(self.folder, self._user)
        passwords = self.folder / "passwords"
        passwords.touch(0o600)
        passwords.write_text(f"*:*:*:*:{self.admin.password}\n")
        if os.getuid() == 0:
            os.chown(passwords, self._user.uid, self._user.gid)
        primary = f"host={HOST} port={self.primary.port} user={self.admin.user} passfile={passwords}"
        tool = self.program.path.with_name("pg_basebackup")
        run(
            [
                str(tool),
                "--checkpoint=fast",
                "--no-sync",
                "--write-recovery-conf",
                "-d",
                primary,
                "-D",
                str(self._data),
            ],
            user=self._user,
            cwd=self.folder,
        )
        with (self._data / "postgresql.auto.conf").open("a") as config:
            config.write(f"port = {self.port}\nhot_standby_feedback = off\n")

    def execute(self, statement: str) -> None:
        with self.connect() as session:
            session.execute(statement)


@pytest.fixture(name="folder")
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="zdm-replica-"))
    folder.chmod(0o755)
    yield folder
    remove_folder(folder)


def test_a_late_replica_stops_the_copy_until_it_has_caught_up(site: Site, store: FileStore, folder: Path) -> None:
    participant = site.participant()
    assert participant.replica_lag_ms() is None
    with Processes(folder) as processes:
        replica = Replica(site.server, folder / "replica", processes)
        replica.init()
        replica.start()
        wait_until(lambda: participant.replica_lag_ms() == 0, "the replica catches up")
        with pytest.raises(Refused, match="pg_read_all_stats"):
            site.participant(user=site.server.app.user, password=site.server.app.password).replica_lag_ms()
        replica.execute("SELECT pg_wal_replay_pause()")
        # The rate makes the copy last long enough for the replica to fall behind.
        throttled = Throttled(site, store, Limits(rows_per_second=400, max_replica_lag_ms=300))
        lags = []

        def catch_up() -> None:
            if "replica_lag" in throttled.throttle.reasons:
                lags.append(participant.replica_lag_ms())
                replica.execute("SELECT pg_wal_replay_resume()")

        throttled.on_wait = catch_up
        throttled.stage()
        assert lags
        assert lags[0] > 300
        wait_until(lambda: participant.replica_lag_ms() == 0, "the replica catches up again")
