# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``bench/window``: how long a tenant is held while its rows change id, against a playbook written by hand, by number
of rows.

Both ways run in one go, behind the same two routers, under the same light traffic of the tenant: first by hand on the
fresh table, there and back; then ours, staged once and switched there and back some times, the numbers of rows taking
turns. A window is counted from the first block to the last release. Then what another tenant feels of a barrier that
moves rows in place.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.zdm.landscape.bench.bystander import SHARE, measure_bystander
from ansible_collections.zdm.landscape.bench.tables import KINDS, NAME, TABLES, Table, machine, rows_of, say
from ansible_collections.zdm.landscape.bench.traffic import Seen, Traffic
from ansible_collections.zdm.landscape.tests.landscape.landscape import Landscape, Tenant, service_is_up
from ansible_collections.zdm.landscape.tests.landscape.processes import free_port, module_environment, temporary_folder
from ansible_collections.zdm.landscape.tests.landscape.routers import ansible_playbook

CHECKOUT = Path(__file__).resolve().parents[1]
RESULT = CHECKOUT / ".bench" / "window.json"
OTHERS_MOST = 500_000
"""Rows of the other tenant in the same table: as many as the tenant's, up to this."""
RATE = 50
FLAT = 1.5
SHORTER = 20.0
LARGE = 2_000_000
"""From this number of rows on ours must be so many times shorter."""


@dataclass
class Scene:
    """One table behind the routers of a landscape."""

    landscape: Landscape
    table: Table
    rows: int
    folder: Path
    epoch: int = 0
    stage_s: float = 0.0
    changes_before: int = 0
    windows: list[dict[str, Any]] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)

    # -- what both ways use -----------------------------------------------------------------------

    def tenants(self, back: bool) -> tuple[Tenant, Tenant]:
        """The tenant that is live before, and the one that is live after."""
        there = (self.landscape.source, self.landscape.target)
        return there[::-1] if back else there

    def traffic(self) -> Traffic:
        tokens = [self.landscape.token(tenant) for tenant in self.tenants(back=False)]
        return Traffic(self.landscape.fleet.addresses, tokens, RATE, self.rows)

    def play(self, name: str, tasks: list[dict[str, Any]]) -> float:
        """Run a playbook of these tasks on the controller; answers its seconds.

        :raises SystemExit: it failed.
        """
        path = self.folder / f"{name}.yml"
        path.touch(0o600)
        play = {"name": name, "hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}
        path.write_text(yaml.safe_dump([play], sort_keys=False))
        command = [
            str(ansible_playbook()),
            "-i",
            "localhost,",
            "-e",
            f"ansible_python_interpreter={sys.executable}",
            str(path),
        ]
        begin = time.monotonic()
        done = subprocess.run(command, env=self.landscape.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"The playbook {name} failed:\n{done.stdout[-4000:]}{done.stderr[-2000:]}")
        return time.monotonic() - begin

    def changes(self, live: Tenant) -> int:
        """How often the live tenant's rows have been changed by a request."""
        return int(self.table.execute(f"SELECT sum(version - 1) FROM {NAME} WHERE tenant_id = '{live.id}'")[0][0])

    # -- ours -------------------------------------------------------------------------------------

    def ours(self, module: str, state: str) -> float:
        options = {"state": state, "source": self.landscape.source.subdomain, "target": self.landscape.target.subdomain}
        return self.play(
            state,
            [
                {
                    "name": state,
                    f"zdm.landscape.{module}": {
                        **options,
                        **self.landscape.vars,
                        "participants": [self.table.participant()],
                    },
                }
            ],
        )

    def last_window(self) -> dict[str, Any]:
        journal = next((self.landscape.store_path / "migrations").glob("*.json"))
        window: dict[str, Any] = json.loads(journal.read_text())["windows"][-1]
        return window

    def stage(self) -> None:
        """Stage while the tenant is served."""
        self.landscape.reset()
        with self.traffic():
            self.stage_s = self.ours("tenant_data", "staged")
        self.table.settle()
        self.changes_before = self.changes(self.landscape.source)

    def window(self, back: bool) -> None:
        """One window of ours.

        :raises SystemExit: a request was refused, or an acknowledged write is missing.
        """
        with self.traffic() as traffic:
            self.ours("tenant_cutover", "reversed" if back else "switched")
        seen = traffic.seen()
        if seen.refused:
            raise SystemExit(f"{seen.refused} of {seen.requests} requests were not answered 200 in a window of ours.")
        self.seen.append(seen)
        self.windows.append(self.last_window())
        acknowledged, found = (
            sum(run.acknowledged for run in self.seen),
            self.changes(self.tenants(back)[1]) - self.changes_before,
        )
        if found != acknowledged:
            raise SystemExit(f"{acknowledged} writes were acknowledged, {found} are in the table.")

    def result_of_ours(self) -> dict[str, Any]:
        lengths = [window["window_ms"] for window in self.windows]
        return {
            "window_ms": statistics.median(lengths),
            "windows_ms": lengths,
            "longest_answer_ms": round(max(run.longest_ms for run in self.seen)),
            "requests": sum(run.requests for run in self.seen),
            "stage_s": round(self.stage_s, 1),
            "steps_ms": _steps(self.windows),
        }

    # -- by hand ----------------------------------------------------------------------------------

    def by_hand(self, back: bool) -> float:
        """One window of a playbook as one would write it; answers its milliseconds."""
        live, goal = self.tenants(back)
        self.epoch += 1
        events, config = self.folder / f"events-{self.epoch}", self.folder / "hand.json"
        parties = {
            role: {"subdomain": tenant.subdomain, "id": tenant.id}
            for role, tenant in {"live": goal, "other": live}.items()
        }
        places = {
            "routers": self.landscape.vars["routers"],
            "store": str(self.landscape.store_path),
            "events": str(events),
        }
        config.write_text(json.dumps({**places, **parties, "epoch": self.epoch}))
        move, environment = self.table.command(self.table.move(live.id, goal.id), self.folder)
        step = {
            name: [sys.executable, "-m", "ansible_collections.zdm.landscape.bench.hand", name, str(config)]
            for name in ("block", "map", "free")
        }
        tasks = [
            {
                "name": "Block the tenants in both routers",
                "ansible.builtin.command": {"argv": step["block"]},
                "environment": _path(),
            },
            {"name": "Move the rows", "ansible.builtin.command": {"argv": move}, "environment": environment},
            {
                "name": "Swap the mapping in store and routers",
                "ansible.builtin.command": {"argv": step["map"]},
                "environment": _path(),
            },
            {"name": "Free the tenants", "ansible.builtin.command": {"argv": step["free"]}, "environment": _path()},
        ]
        self.play("by-hand", tasks)
        times = {event["step"]: event for event in map(json.loads, events.read_text().splitlines())}
        return float(times["free"]["end"] - times["block"]["begin"]) * 1000

    def measure_hand(self) -> dict[str, Any]:
        lengths, seen = list[float](), list[Seen]()
        for back in (False, True):
            with self.traffic() as traffic:
                lengths.append(round(self.by_hand(back)))
            seen.append(traffic.seen())
            self.table.settle()
        return {
            "window_ms": statistics.median(lengths),
            "windows_ms": lengths,
            "longest_answer_ms": round(max(run.longest_ms for run in seen)),
            "requests": sum(run.requests for run in seen),
            "refused": sum(run.refused for run in seen),
        }


def _path() -> dict[str, str]:
    return {"PYTHONPATH": module_environment()["PYTHONPATH"]}


def _steps(windows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The median of each step of the window."""
    names = [step["step"] for step in windows[0]["timeline"]]
    steps = {
        name: [step["ms"] for window in windows for step in window["timeline"] if step["step"] == name]
        for name in names
    }
    return {name: round(statistics.median(values), 1) for name, values in steps.items()}


@contextmanager
def scene(landscape: Landscape, kind: str, rows: int) -> Iterator[Scene]:
    """A filled table in a server of its own, with the service in front of it."""
    with temporary_folder() as folder:
        table = TABLES[kind](folder, landscape.processes)
        table.need_client()
        table.start({landscape.source.id: rows, landscape.bystander.id: min(rows, OTHERS_MOST)})
        config = folder / "service.json"
        config.touch(0o600)
        config.write_text(json.dumps({"kind": kind, "port": landscape.ports[NAME], "database": table.login("app")}))
        command = [sys.executable, "-m", "ansible_collections.zdm.landscape.bench.records", str(config)]
        service = landscape.processes.start("service", command, env=module_environment())
        service.wait_ready(lambda: service_is_up(landscape.ports[NAME], NAME))
        landscape.reset()
        yield Scene(landscape, table, rows, folder)
        landscape.processes.stop(service)
        table.server.stop()


def measure(landscapes: dict[int, Landscape], kind: str, pairs: int) -> list[dict[str, Any]]:
    """Both ways at all numbers of rows; in the windows of ours they take turns, so that a machine whose speed drifts
    does not change the ratios.
    """
    results = []
    with ExitStack() as stack:
        scenes = [stack.enter_context(scene(landscape, kind, rows)) for rows, landscape in landscapes.items()]
        hands = []
        for one in scenes:
            say(f"{kind}, {one.rows:,} rows: by hand")
            hands.append(one.measure_hand())
            say(f"{kind}, {one.rows:,} rows: {hands[-1]['windows_ms']} ms by hand; stage")
            one.stage()
        for number in range(2 * pairs):
            for one in scenes:
                one.window(back=number % 2 == 1)
            say(f"{kind}: windows of ours {[one.windows[-1]['window_ms'] for one in scenes]} ms")
        for one, hand in zip(scenes, hands, strict=True):
            ours = one.result_of_ours()
            table = {
                "database": kind,
                "version": one.table.version,
                "rows": one.rows,
                "others": min(one.rows, OTHERS_MOST),
                "row_bytes": one.table.row_bytes(),
            }
            results.append(
                {
                    **table,
                    "ours": ours,
                    "by_hand": hand,
                    "hand_against_ours": round(hand["window_ms"] / ours["window_ms"], 1),
                }
            )
    return results


def verdicts(results: Sequence[dict[str, Any]], bystanders: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was promised, and whether it is so."""
    found = []
    for felt in bystanders:
        what = (
            f"{felt['database']}: a bystander's longest write is {felt['share']:.1%} of a barrier that moves"
            f" {felt['rows']:,} rows in place in {felt['barrier_ms']} ms (at most {SHARE:.0%})"
        )
        found.append({"what": what, "value": felt["share"], "pass": felt["share"] <= SHARE})
    for kind in dict.fromkeys(result["database"] for result in results):
        own = sorted(
            (result for result in results if result["database"] == kind), key=lambda result: int(result["rows"])
        )
        least, most = own[0], own[-1]
        if least is not most:
            growth = round(most["ours"]["window_ms"] / least["ours"]["window_ms"], 2)
            what = f"{kind}: ours at {most['rows']:,} rows is {growth} times ours at {least['rows']:,} (at most {FLAT})"
            found.append({"what": what, "value": growth, "pass": growth <= FLAT})
        if most["rows"] >= LARGE:
            what = (
                f"{kind}: by hand at {most['rows']:,} rows is {most['hand_against_ours']} times ours (at least"
                f" {SHORTER:g})"
            )
            found.append(
                {"what": what, "value": most["hand_against_ours"], "pass": most["hand_against_ours"] >= SHORTER}
            )
    return found


def report(result: dict[str, Any]) -> str:
    facts = result["machine"]
    lines = [
        (
            f"{facts['at']}, {facts['processor']}, {facts['processors']} processors, load {facts['load']}, HAProxy"
            f" {facts['haproxy']}, Python {facts['python']}"
        ),
        f"{RATE} writes/s of the tenant through two routers; windows in ms, medians",
        "",
        (
            f"{'':19} {'rows':>10} {'ours':>8} {'(least to most)':>14} {'longest answer':>15} {'by hand':>9}"
            f" {'refused':>9} {'by hand/ours':>13}"
        ),
    ]
    for row in result["results"]:
        ours, hand = row["ours"], row["by_hand"]
        spread = f"{min(ours['windows_ms'])} to {max(ours['windows_ms'])}"
        lines.append(
            f"{row['version']:19} {row['rows']:>10,} {ours['window_ms']:>8.0f} {spread:>14}"
            f" {ours['longest_answer_ms']:>15} {hand['window_ms']:>9,.0f} {hand['refused']:>4}/{hand['requests']:<4}"
            f" {row['hand_against_ours']:>13}"
        )
    lines += ["", "medians of the steps of ours in ms:"]
    lines += [
        f"{row['database']:11} {row['rows']:>10,} "
        f" {', '.join(f'{k} {v:g}' for k, v in row['ours']['steps_ms'].items())}"
        for row in result["results"]
    ]
    lines += ["", *(f"{'PASS' if verdict['pass'] else 'FAIL'}  {verdict['what']}" for verdict in result["verdicts"])]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench/window",
        description="How long a tenant is held while its rows change id, against a playbook by hand.",
    )
    parser.add_argument(
        "rows",
        nargs="*",
        type=rows_of,
        default=[50_000, 500_000, LARGE],
        help="rows of the tenant, for example 50k 500k 2m (the default)",
    )
    parser.add_argument(
        "--database", choices=KINDS, action="append", help="only this kind of database; may be repeated"
    )
    parser.add_argument("--pairs", type=int, default=4, help="windows of ours there and back (default %(default)s)")
    arguments = parser.parse_args()
    facts, results, result = machine(), list[dict[str, Any]](), dict[str, Any]()
    RESULT.parent.mkdir(exist_ok=True)
    with temporary_folder() as folder, ExitStack() as stack:
        landscapes = {}
        for rows in sorted(set(arguments.rows)):
            place = folder / str(rows)
            place.mkdir()
            landscapes[rows] = Landscape(place, services=())
            landscapes[rows].ports[NAME] = free_port()
            stack.enter_context(landscapes[rows])
        bystanders = [measure_bystander(kind) for kind in arguments.database or KINDS]
        for kind in arguments.database or KINDS:
            results += measure(landscapes, kind, arguments.pairs)
            result = {
                "bystanders": bystanders,
                "machine": {**facts, "load_after": machine()["load"]},
                "rate": RATE,
                "results": results,
                "verdicts": verdicts(results, bystanders),
            }
            RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{report(result)}\n\nAll figures: {RESULT.relative_to(CHECKOUT)}")
    return 0 if all(verdict["pass"] for verdict in result["verdicts"]) else 1


if __name__ == "__main__":
    sys.exit(main())
