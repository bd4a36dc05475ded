# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``./demo``: one switch and one reverse of a tenant on the embedded landscape, while requests flow."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

from .landscape import Landscape
from .processes import ServerError, remove_folder, work_folder
from .report import Outcome, summary
from .traffic import Traffic

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / ".demo"
CALM_S = 5.0
"""Traffic before the switch, between switch and reverse, and after the reverse."""


class Ended(BaseException):
    """The demo was asked to end; everything is stopped on the way out."""


class Demo:
    """The demo's steps; each says what it does and how long it took."""

    def __init__(self, landscape: Landscape, rate: float) -> None:
        self.landscape, self._rate = landscape, rate
        self._plan: dict[str, Any] = {}

    def run(self) -> Outcome:
        landscape = self.landscape
        with step("Start databases, services and routers; the role landscape_router configures the routers"):
            landscape.up()
        rows = sum(landscape.tenant_rows().values())
        print(f"    {landscape.source.subdomain} has {rows:,} rows in {len(landscape.databases)} databases, all under {landscape.source.id}", flush=True)
        with step(f"Start the load: {self._rate:g} requests/s with the credentials of three tenants"):
            traffic = landscape.traffic(self._rate)
            traffic.start(requests=100)
            traffic.run_for(CALM_S)
        with step("ansible-playbook zdm.landscape.plan"):
            self._playbook("plan", traffic, "-e", f"zdm_output_dir={FOLDER}")
            self._plan = json.loads((FOLDER / self._migration / "plan.json").read_text())
        with step("ansible-playbook zdm.landscape.stage"):
            self._playbook("stage", traffic)
        with step("ansible-playbook zdm.landscape.migrate"):
            self._playbook("migrate", traffic)
            traffic.run_for(CALM_S)
        with step("ansible-playbook zdm.landscape.reverse"):
            self._playbook("reverse", traffic)
            traffic.run_for(CALM_S)
        with step("Stop the load; compare its ledger with the databases"):
            load = traffic.stop()
            verdict = landscape.check(landscape.source, [traffic], self._twins())
        return Outcome(rows, load, verdict, self._windows(), self._plan, self._versions())

    @property
    def _migration(self) -> str:
        return f"{self.landscape.source.subdomain}--{self.landscape.target.subdomain}"

    def _playbook(self, name: str, traffic: Traffic, *arguments: str) -> None:
        """Run a playbook as an operator does; the load must live on.

        :raises ServerError: when it fails; with the end of its output.
        """
        command = self.landscape.playbook(name, *arguments)
        process = self.landscape.processes.start(f"playbook-{name}", command, env=self.landscape.environment)
        traffic.watch(process)
        if process.popen.returncode != 0:
            raise ServerError(f"zdm.landscape.{name} ended with code {process.popen.returncode}:\n{process.tail(4000)}\n{traffic.progress()}")

    def _windows(self) -> list[dict[str, Any]]:
        journal = json.loads((self.landscape.store_path / "migrations" / f"{self._migration}.json").read_text())
        windows: list[dict[str, Any]] = journal["windows"]
        return windows

    def _twins(self) -> list[str]:
        """Tables that keep rows of the target's id after the reverse, since the stage is kept."""
        return [
            f"{database['participant']}.{table['table']}" for database in self._plan["databases"] for table in database["tables"] if table["strategy"] == "twin"
        ]

    def _versions(self) -> dict[str, str]:
        haproxy = {"haproxy": self.landscape.fleet.program.version_text}
        databases = {database.service.kind: database.version() for database in self.landscape.databases.values()}
        return {"python": platform.python_version(), "ansible-core": version("ansible-core"), **haproxy, **databases}


@contextmanager
def step(text: str) -> Iterator[None]:
    """Print what is done and how long it took."""
    print(f"» {text}", flush=True)
    begin = time.monotonic()
    yield
    print(f"    {time.monotonic() - begin:.1f} s", flush=True)


def _end(number: int, _frame: FrameType | None) -> None:
    # once is enough: a second signal must not disturb the clean-up
    for again in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(again, signal.SIG_IGN)
    raise Ended(signal.Signals(number).name)


@contextmanager
def alone() -> Iterator[None]:
    """Only one demo at a time in this checkout."""
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("A demo runs in this checkout already.")
        yield


def clean() -> None:
    """Remove the data of the last run; it may lie under the system's temporary folder."""
    record = FOLDER / "folder"
    if record.exists():
        remove_folder(Path(record.read_text()))
    for name in ("data", "result.json", "folder", "venezia--venezia-scp"):
        path = FOLDER / name
        if path.is_dir():
            remove_folder(path)
        else:
            path.unlink(missing_ok=True)


def demonstrate(rows: int, rate: float) -> int:
    clean()
    folder = work_folder(FOLDER / "data")
    (FOLDER / "folder").write_text(str(folder))
    landscape = Landscape(folder, rows=rows)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        outcome = Demo(landscape, rate).run()
    except Ended as end:
        print(f"\nEnded by {end}; everything is stopped.", file=sys.stderr)
        return 130
    except (ServerError, OSError, subprocess.SubprocessError) as error:
        print(f"\n{error}\nLogs are in {folder}/logs.", file=sys.stderr)
        return 1
    finally:
        landscape.down()
    (FOLDER / "result.json").write_text(json.dumps(outcome.as_dict(), indent=2) + "\n")
    print(summary(outcome))
    print(f"All figures: {os.path.relpath(FOLDER / 'result.json', CHECKOUT)}. The plan and its SQL: {os.path.relpath(FOLDER, CHECKOUT)}/venezia--venezia-scp.")
    return 0 if outcome.ok else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="./demo", description="Move a tenant to another id and back on a real landscape, under traffic.")
    parser.add_argument("command", nargs="?", choices=["run", "clean"], default="run")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the tenant in each PostgreSQL database (default %(default)s)")
    parser.add_argument("--rate", type=float, default=210.0, help="requests per second (default %(default)s)")
    arguments = parser.parse_args()
    with alone():
        if arguments.command == "clean":
            clean()
            remove_folder(FOLDER)
            return 0
        return demonstrate(arguments.rows, arguments.rate)


if __name__ == "__main__":
    sys.exit(main())
