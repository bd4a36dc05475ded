# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``bench/databases``: how long a tenant is held whose rows lie in many databases at once, or in many tables of one.

Two servers hold all databases. Each set-up is staged once and switched there and back some times, behind two routers;
a window is counted from the first block to the last release, as the journal has it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import yaml
from ansible_collections.zdm.landscape.bench.tables import TABLES, MariaTable, PostgresTable, machine, rows_of, say
from ansible_collections.zdm.landscape.tests.landscape.landscape import Landscape
from ansible_collections.zdm.landscape.tests.landscape.processes import free_port, temporary_folder
from ansible_collections.zdm.landscape.tests.landscape.routers import ansible_playbook
from ansible_collections.zdm.landscape.tests.landscape.servers import HOST

CHECKOUT = Path(__file__).resolve().parents[1]
RESULT = CHECKOUT / ".bench" / "databases.json"
MEDIAN_MS, P99_MS, FLAT = 100, 250, 1.5
"""Aims for twelve databases, on a quiet machine."""
FEW = 50_000
DDL = {
    "postgresql": (
        "CREATE TABLE {t} (tenant_id uuid NOT NULL, id integer NOT NULL, note varchar(200) NOT NULL, PRIMARY KEY"
        " (tenant_id, id))",
        "INSERT INTO {t} SELECT '{tenant}', n, repeat('x', 150) FROM generate_series(1, {rows}) n",
    ),
    "mariadb": (
        "CREATE TABLE {t} (tenant_id varchar(36) NOT NULL, id integer NOT NULL, note varchar(200) NOT NULL, PRIMARY KEY"
        " (tenant_id, id)) ENGINE=InnoDB",
        "INSERT INTO {t} SELECT '{tenant}', seq, repeat('x', 150) FROM seq_1_to_{rows}",
    ),
}


@dataclass(frozen=True)
class SetUp:
    """Databases of each kind, tables of each, rows of the tenant in all of them together."""

    title: str
    databases: dict[str, int]
    tables: int
    rows: int


class Servers:
    """One server of each kind, and the databases of a set-up."""

    def __init__(self, folder: Path, landscape: Landscape) -> None:
        self.landscape = landscape
        self.servers: dict[str, PostgresTable | MariaTable] = {}
        for kind, table in TABLES.items():
            (folder / kind).mkdir()
            self.servers[kind] = table(folder / kind, landscape.processes)
            self.servers[kind].server.init()
            self.servers[kind].server.start()
            self.servers[kind].tune()
            self.servers[kind].server.create("first")

    @contextmanager
    def made(self, setup: SetUp) -> Iterator[list[dict[str, Any]]]:
        """The databases, filled, as options of participants."""
        names = [(kind, f"{kind}_{n}") for kind, count in setup.databases.items() for n in range(count)]
        rows = setup.rows // (len(names) * setup.tables)
        for kind, name in names:
            self._make(kind, name)
            with closing(self._session(kind, name)) as session:
                self._fill(session, kind, setup.tables, rows)
        yield [self._participant(kind, name, setup.tables) for kind, name in names]
        for kind, name in names:
            with closing(self._session(kind, None)) as session:
                session.cursor().execute(f"DROP DATABASE {name}{' WITH (FORCE)' if kind == 'postgresql' else ''}")

    def _session(self, kind: str, name: str | None) -> Any:
        server = self.servers[kind].server
        session: Any = server.connect(name) if name else server.connect()
        if isinstance(session, psycopg.Connection):
            session.autocommit = True
        return session

    def _make(self, kind: str, name: str) -> None:
        server = self.servers[kind].server
        if kind == "postgresql":
            server.copy_database("first", name)  # type: ignore[union-attr]
            return
        with closing(self._session(kind, None)) as session:
            for statement in (f"CREATE DATABASE {name}", f"GRANT ALL ON {name}.* TO 'zdm'@'{HOST}'"):
                session.cursor().execute(statement)

    def _fill(self, session: Any, kind: str, tables: int, rows: int) -> None:
        create, fill = DDL[kind]
        cursor = session.cursor()
        for number in range(tables):
            cursor.execute(create.format(t=f"t{number}"))
            if kind == "postgresql":
                cursor.execute(f"ALTER TABLE t{number} OWNER TO app")
            for tenant in (self.landscape.source.id, self.landscape.bystander.id):
                cursor.execute(fill.format(t=f"t{number}", tenant=tenant, rows=rows))
            cursor.execute(f"ANALYZE{' TABLE' if kind == 'mariadb' else ''} t{number}")
            cursor.fetchall() if kind == "mariadb" else None

    def _participant(self, kind: str, name: str, tables: int) -> dict[str, Any]:
        server = self.servers[kind].server
        return {
            "name": name.replace("_", "-"),
            "kind": kind,
            "host": HOST,
            "port": server.port,
            "database": name,
            "user": "zdm",
            "password": server.zdm.password,
            "no_cross_tenant_readers": True,
            "tables": {f"t{number}": {"strategy": "twin"} for number in range(tables)},
        }


class Migration:
    """Stage and windows of one set-up."""

    def __init__(self, landscape: Landscape, participants: list[dict[str, Any]], folder: Path) -> None:
        self.landscape, self.participants, self.folder = landscape, participants, folder

    def play(self, module: str, state: str) -> None:
        """:raises SystemExit: it failed."""
        options = {
            **self.landscape.vars,
            "state": state,
            "source": self.landscape.source.subdomain,
            "target": self.landscape.target.subdomain,
            "participants": self.participants,
            "health": [],
        }
        path = self.folder / "play.yml"
        path.touch(0o600)
        task = {"name": state, f"zdm.landscape.{module}": options}
        play = {"name": state, "hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task]}
        path.write_text(yaml.safe_dump([play], sort_keys=False))
        python = f"ansible_python_interpreter={sys.executable}"
        command = [str(ansible_playbook()), "-i", "localhost,", "-e", python, str(path)]
        done = subprocess.run(command, env=self.landscape.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{state} failed:\n{done.stdout[-4000:]}{done.stderr[-2000:]}")

    def window(self, back: bool) -> float:
        self.play("tenant_cutover", "reversed" if back else "switched")
        journal = next((self.landscape.store_path / "migrations").glob("*.json"))
        return float(json.loads(journal.read_text())["windows"][-1]["window_ms"])


def measure(servers: Servers, setup: SetUp, pairs: int, folder: Path) -> dict[str, Any]:
    say(f"{setup.title}: {setup.rows:,} rows")
    with servers.made(setup) as participants:
        servers.landscape.reset()
        migration = Migration(servers.landscape, participants, folder)
        migration.play("tenant_data", "staged")
        windows = [migration.window(back) for _pair in range(pairs) for back in (False, True)]
        migration.play("tenant_data", "absent")
    say(f"{setup.title}: windows {[round(window) for window in windows]} ms")
    return {
        "title": setup.title,
        "rows": setup.rows,
        "median_ms": round(statistics.median(windows), 1),
        "p99_ms": round(max(windows), 1),
        "windows_ms": windows,
    }


def verdicts(results: Sequence[dict[str, Any]], rows: int) -> list[dict[str, Any]]:
    """What was aimed at, and whether it is so."""
    few, many = (next(r for r in results if "12 databases" in r["title"] and r["rows"] == n) for n in (FEW, rows))
    growth = round(many["median_ms"] / few["median_ms"], 2)
    return [
        {
            "what": f"12 databases, {rows:,} rows: median {many['median_ms']} ms (at most {MEDIAN_MS})",
            "pass": many["median_ms"] <= MEDIAN_MS,
        },
        {
            "what": f"12 databases, {rows:,} rows: longest {many['p99_ms']} ms (99 of 100 at most {P99_MS})",
            "pass": many["p99_ms"] <= P99_MS,
        },
        {
            "what": f"12 databases: {growth} times as long at {rows:,} rows as at {FEW:,} (at most {FLAT})",
            "pass": growth <= FLAT,
        },
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench/databases", description="How long a tenant is held whose rows lie in many databases."
    )
    parser.add_argument("rows", nargs="?", type=rows_of, default=1_000_000, help="rows of the tenant (default 1m)")
    parser.add_argument("--pairs", type=int, default=10, help="windows there and back (default %(default)s)")
    arguments = parser.parse_args()
    facts = machine()
    twelve = {"postgresql": 8, "mariadb": 4}
    setups = [
        SetUp("1 database, 1 table", {"postgresql": 1}, 1, FEW),
        SetUp("12 databases of 5 tables", twelve, 5, FEW),
        SetUp("12 databases of 5 tables", twelve, 5, arguments.rows),
        SetUp("120 tables of one PostgreSQL database", {"postgresql": 1}, 120, FEW),
        SetUp("120 tables of one MariaDB database", {"mariadb": 1}, 120, FEW),
    ]
    with temporary_folder() as folder:
        (folder / "landscape").mkdir()
        landscape = Landscape(folder / "landscape", services=())
        landscape.ports["nobody"] = free_port()  # routers want a backend, and no request comes
        with landscape:
            servers = Servers(folder, landscape)
            results = [measure(servers, setup, arguments.pairs, folder) for setup in setups]
            for table in servers.servers.values():
                table.server.stop()
    found = verdicts(results, arguments.rows)
    RESULT.parent.mkdir(exist_ok=True)
    result = {"machine": {**facts, "load_after": machine()["load"]}, "results": results, "verdicts": found}
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{facts['at']}, {facts['processor']}, {facts['processors']} processors, load {facts['load']}\n")
    for row in results:
        print(
            f"{row['title']:40} {row['rows']:>10,} rows  median {row['median_ms']:>7} ms  longest {row['p99_ms']:>7} ms"
        )
    print("", *(f"{'PASS' if one['pass'] else 'FAIL'}  {one['what']}" for one in found), sep="\n")
    print(f"\nAll figures: {RESULT.relative_to(CHECKOUT)}")
    return 0 if all(one["pass"] for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
