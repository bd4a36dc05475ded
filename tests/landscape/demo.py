# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``./demo``: one switch and one reverse of a tenant on the embedded landscape, while requests flow; ``deploy`` is the
deployment's demo.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..cloud import demo as deployment
from .landscape import Landscape
from .processes import ServerError, remove_folder
from .report import Outcome, summary
from .terminal import FOLDER, alone, clear, perform, shown, step
from .traffic import Traffic

RESULT = FOLDER / "result.json"
COMMANDS = """\
commands:
  run     move a tenant to another id and back on a whole landscape, under traffic; result in .demo/result.json
          (the default)
  deploy  deploy new versions of a multi-tenant application blue-green while users work; result in .demo/deploy.json
  clean   remove what the others left
"""
CALM_S = 5.0
"""Traffic before the switch, between switch and reverse, and after the reverse."""


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
        print(
            f"    {landscape.source.subdomain} has {rows:,} rows in {len(landscape.databases)} databases, all under"
            f" {landscape.source.id}",
            flush=True,
        )
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
            raise ServerError(
                f"zdm.landscape.{name} ended with code"
                f" {process.popen.returncode}:\n{process.tail(4000)}\n{traffic.progress()}"
            )

    def _windows(self) -> list[dict[str, Any]]:
        journal = json.loads((self.landscape.store_path / "migrations" / f"{self._migration}.json").read_text())
        windows: list[dict[str, Any]] = journal["windows"]
        return windows

    def _twins(self) -> list[str]:
        """Tables that keep rows of the target's id after the reverse, since the stage is kept."""
        return [
            f"{database['participant']}.{table['table']}"
            for database in self._plan["databases"]
            for table in database["tables"]
            if table["strategy"] == "twin"
        ]

    def _versions(self) -> dict[str, str]:
        haproxy = {"haproxy": self.landscape.fleet.program.version_text}
        databases = {database.service.kind: database.version() for database in self.landscape.databases.values()}
        return {"python": platform.python_version(), "ansible-core": version("ansible-core"), **haproxy, **databases}


def clean() -> None:
    """Remove the data of the last run."""
    clear(FOLDER, RESULT, FOLDER / "venezia--venezia-scp")


def show(folder: Path, rows: int, rate: float) -> bool:
    """The demo in a folder of its own; says whether all went well."""
    landscape = Landscape(folder, rows=rows)
    try:
        outcome = Demo(landscape, rate).run()
    finally:
        landscape.down()
    RESULT.write_text(json.dumps(outcome.as_dict(), indent=2) + "\n")
    print(summary(outcome))
    print(f"All figures: {shown(RESULT)}. The plan and its SQL: {shown(FOLDER / 'venezia--venezia-scp')}.")
    return outcome.ok


def main() -> int:
    kept_lines = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="./demo", description="Zero downtime, shown on this machine.", formatter_class=kept_lines, epilog=COMMANDS
    )
    parser.add_argument("command", nargs="?", choices=["run", "deploy", "clean"], default="run")
    group = parser.add_argument_group("options of run")
    group.add_argument(
        "--rows", type=int, default=100_000, help="rows of the tenant in each PostgreSQL database (default %(default)s)"
    )
    group.add_argument("--rate", type=float, default=210.0, help="requests per second (default %(default)s)")
    arguments = parser.parse_args()
    with alone():
        if arguments.command == "clean":
            clean()
            deployment.clean()
            remove_folder(FOLDER)
            return 0
        if arguments.command == "deploy":
            deployment.clean()
            return perform(deployment.PLACE, deployment.show)
        clean()
        return perform(FOLDER, lambda folder: show(folder, arguments.rows, arguments.rate))


if __name__ == "__main__":
    sys.exit(main())
