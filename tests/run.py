# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``./test`` runs: every part prints its time, a part that ran no test has failed, the last line counts.

Parts of pytest count their tests; lint, sanity and molecule count one per tool, per sanity test and per scenario.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from landscape import debian

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / ".build"
BIN = BUILD / "venv" / "bin"
COLLECTION = BUILD / "ansible_collections" / "zdm" / "landscape"


@dataclass
class Count:
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, other: Count) -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped


def environment(**extra: str) -> dict[str, str]:
    """Nothing is written outside ``.build``, and the collection is found as Ansible finds it."""
    return {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin",
        "PYTHONPATH": str(BUILD),
        "ANSIBLE_COLLECTIONS_PATH": str(BUILD),
        "ANSIBLE_HOME": str(BUILD / "home"),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "XDG_CACHE_HOME": str(BUILD / "cache"),
        **extra,
    }


def step(name: str, command: Sequence[str], cwd: Path = COLLECTION, env: dict[str, str] | None = None) -> bool:
    """Run one tool; its output appears only when it failed."""
    start = time.monotonic()
    done = subprocess.run(
        command,
        cwd=cwd,
        env=env or environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    verdict = "ok" if done.returncode == 0 else f"FAILED ({done.returncode})"
    output = "" if done.returncode == 0 else f"{done.stdout.rstrip()}\n"
    print(f"{output}  {name}: {verdict}, {time.monotonic() - start:.1f} s", flush=True)
    return done.returncode == 0


def count_steps(results: Iterable[bool]) -> Count:
    outcome = list(results)
    return Count(passed=outcome.count(True), failed=outcome.count(False))


def lint() -> Count:
    """ruff, mypy, ansible-lint, antsibull-docs, antsibull-changelog, and a collection that builds; two at a time."""
    tests = [name for name in ("model", "landscape", "cloud", "chaos") if any((ROOT / "tests" / name).glob("*.py"))]
    packages = ["plugins", *(f"tests.{name}" for name in tests), "bench"]
    steps: list[tuple[str, list[str]]] = [
        ("ansible-lint", ["ansible-lint", "--profile", "production", "--offline", "--strict", "-q"]),
        (
            "mypy",
            [
                "mypy",
                *(word for package in packages for word in ("-p", f"ansible_collections.zdm.landscape.{package}")),
            ],
        ),
        ("ruff", ["ruff", "check", "--quiet", "."]),
        ("ruff format", ["ruff", "format", "--check", "--quiet", "."]),
        (
            "antsibull-docs",
            ["antsibull-docs", "lint-collection-docs", "--plugin-docs", "--validate-collection-refs=all", "."],
        ),
        ("antsibull-changelog", ["antsibull-changelog", "lint"]),
        (
            "ansible-galaxy build",
            ["ansible-galaxy", "collection", "build", "--force", "--output-path", str(BUILD / "dist")],
        ),
    ]
    with ThreadPoolExecutor(max_workers=2) as pool:
        return count_steps(pool.map(lambda item: step(*item), steps))


def pip_stand_in(home: Path) -> None:
    """ansible-test fetches pip's installer from a host that may be out of reach: Python's own ensurepip does the
    same.
    """
    internal = next((BUILD / "venv").glob("lib/python*/site-packages/ansible_test/_internal/python_requirements.py"))
    version = re.search(r"pip='([\d.]+)'", internal.read_text())
    if not version:
        raise SystemExit(
            "This ansible-test does not say which pip it bootstraps; tests/run.py has to learn its new way."
        )
    cache = home / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    script = (
        "import subprocess\nimport sys\n\nsubprocess.run([sys.executable, '-m', 'ensurepip', '--default-pip'],"
        " check=True, stdout=subprocess.DEVNULL)\n"
    )
    (cache / f"get_pip_{version[1].replace('.', '_')}.py").write_text(script)
    for name in (".config/pip/pip.conf", ".pip/pip.conf"):
        mine = Path.home() / name
        if mine.is_file():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(mine, home / name)


NOT_INSTALLED = ("tests/", "bench/")
"""Folders that the collection's archive leaves out (``build_ignore`` in galaxy.yml); ruff and mypy check them."""


def sanity() -> Count:
    """``ansible-test sanity`` on a copy of what is installed: it refuses symbolic links and counts only git's files."""
    base = BUILD / "sanity"
    copy = base / "ansible_collections" / "zdm" / "landscape"
    shutil.rmtree(base, ignore_errors=True)
    copy.mkdir(parents=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(NOT_INSTALLED):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    subprocess.run(["git", "init", "-q", "."], cwd=copy, check=True)
    home = BUILD / "sanity-home"
    pip_stand_in(home)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    env = environment(HOME=str(home))
    del env["PYTHONPATH"]
    command = ["ansible-test", "sanity", "--local", "--color", "no", "--python", python]
    done = subprocess.run(
        command, cwd=copy, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    ran = set(re.findall(r'^Running sanity test "([\w-]+)"', done.stdout, re.MULTILINE))
    head, fatal, listed_below = done.stdout.partition("FATAL: The ")
    failed = {line.split()[0] for line in listed_below.splitlines()[1:] if line.strip()} & ran
    if done.returncode or "All targets skipped" in done.stdout:
        problems = [line for line in head.splitlines() if line.startswith(("ERROR", "FATAL"))] if fatal else [head]
        print("\n".join([*problems, fatal + listed_below]).rstrip())
        failed = failed or {"ansible-test"}
    return Count(passed=len(ran - failed), failed=len(failed))


def pytest(
    name: str, *paths: str, env: dict[str, str] | None = None, workers: int = 2, mark: str = "not thorough"
) -> Count:
    """Run pytest on the paths that exist and count by its JUnit file.

    :param workers: more than two where tests wait most of their time.
    :param mark: which tests, by their markers.
    """
    there = [path for path in paths if (ROOT / path).exists()]
    if not there:
        return Count()
    report = BUILD / f"report-{name}.xml"
    report.unlink(missing_ok=True)
    dist = "load" if "--alone" in os.environ.get("PYTEST_ADDOPTS", "") else "loadfile"
    options = [
        "-q",
        "-m",
        mark,
        "-n",
        str(workers),
        "--dist",
        dist,
        "--durations=8",
        "--durations-min=5",
        f"--junit-xml={report}",
    ]
    command = [str(BIN / "python"), "-m", "pytest", *options, *there]
    done = subprocess.run(command, cwd=COLLECTION, env=env or environment(), check=False)
    count = Count()
    if report.is_file():
        for suite in ElementTree.parse(report).getroot().iter("testsuite"):
            total, failures, errors, skipped = (
                int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")
            )
            count.add(Count(passed=total - failures - errors - skipped, failed=failures + errors, skipped=skipped))
    if done.returncode not in (0, 5) and not count.failed:
        count.failed = 1
    return count


def molecule() -> Count:
    """Every scenario of ``extensions/molecule``, two at a time."""
    scenarios = sorted(path.parent.name for path in (ROOT / "extensions" / "molecule").glob("*/molecule.yml"))
    extensions = COLLECTION / "extensions"

    def run(scenario: str) -> bool:
        # Molecule remembers that it has prepared a scenario, whose cleanup has removed what was prepared.
        shutil.rmtree(BUILD / f"home-{scenario}" / "tmp", ignore_errors=True)
        env = environment(ANSIBLE_HOME=str(BUILD / f"home-{scenario}"), ANSIBLE_FORCE_COLOR="0", NO_COLOR="1")
        return step(f"molecule {scenario}", ["molecule", "test", "-s", scenario], cwd=extensions, env=env)

    with ThreadPoolExecutor(max_workers=2) as pool:
        return count_steps(pool.map(run, scenarios))


PARTS: dict[str, Callable[[], Count]] = {
    "lint": lint,
    "sanity": sanity,
    "unit": lambda: pytest("unit", "tests/unit"),
    "model": lambda: pytest("model", "tests/model"),
    "integration": lambda: pytest("integration", "tests/integration", "tests/landscape", workers=3),
    "kill": lambda: pytest(
        "kill",
        *(
            f"tests/chaos/test_{name}.py"
            for name in ("window", "undo", "stage", "router_restart", "guardian", "lost_answers")
        ),
        workers=4,
    ),
    "molecule": molecule,
}
BESIDE = ("sanity", "molecule")
"""Parts that use one processor; they run beside the others."""
NEED_SERVERS = {"unit", "integration", "kill", "molecule", "thorough", "chaos"}


def install_servers() -> None:
    """As root install what is missing; else say what is missing."""
    lacking = debian.install(debian.SERVERS)
    if lacking:
        print(f"{debian.advice(lacking)}; tests that need them fail or are skipped.")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./test", description="Runs the tests of the collection; without a part all but thorough and chaos."
    )
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)}, thorough or chaos")
    parser.add_argument("--n", type=int, default=100, help="chaos: how many random kills (default 100)")
    parser.add_argument(
        "--seed",
        type=int,
        default=int(time.time()),
        help="of random kills and of a random order; printed, so that a run can be repeated",
    )
    parser.add_argument("-k", metavar="EXPRESSION", help="pytest parts: only the tests that match")
    parser.add_argument(
        "--alone",
        action="store_true",
        help="pytest parts: every test in a process of its own, with nothing that another one has set up",
    )
    parser.add_argument(
        "--order",
        choices=["reverse", "random"],
        help="pytest parts: the modules, and the tests in each, in another order",
    )
    parsed = parser.parse_args()
    unknown = [part for part in parsed.parts if part not in {*PARTS, "thorough", "chaos"}]
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}, thorough and chaos")
    return parsed


def run(name: str, part: Callable[[], Count]) -> tuple[str, Count, float]:
    """Run one part; returns its name, its count and its seconds."""
    print(f"== {name}", flush=True)
    start = time.monotonic()
    count = part()
    if not count.passed and not count.failed:
        print(f"{name} ran no test: that is a failure.")
        count.failed = 1
    seconds = time.monotonic() - start
    print(f"== {name}: {count.passed} passed, {count.failed} failed, {seconds:.1f} s", flush=True)
    return name, count, seconds


def main() -> int:
    chosen = arguments()
    parts = dict(PARTS)
    more = [os.environ.get("PYTEST_ADDOPTS", "")]
    if chosen.k:
        more.append(f"-k '{chosen.k}'")
    if chosen.alone or chosen.order:
        more.append("-p ansible_collections.zdm.landscape.tests.alone")
    if chosen.alone:
        more.append("--alone")
    if chosen.order:
        print(f"--order {chosen.order} --seed {chosen.seed}", flush=True)
        more.append(f"--order {chosen.order} --order-seed {chosen.seed}")
    os.environ["PYTEST_ADDOPTS"] = " ".join(filter(None, more))
    chaos = environment(ZDM_CHAOS_N=str(chosen.n), ZDM_CHAOS_SEED=str(chosen.seed), ZDM_GUARDIAN_KILLS="50")
    parts["thorough"] = lambda: pytest("thorough", "tests/integration", "tests/chaos", mark="thorough")
    parts["chaos"] = lambda: pytest("chaos", "tests/chaos/test_random.py", "tests/chaos/test_guardian.py", env=chaos)
    names = chosen.parts or list(PARTS)
    if NEED_SERVERS & set(names):
        install_servers()
    if "chaos" in names:
        print(f"chaos --n {chosen.n} --seed {chosen.seed}", flush=True)
    results: list[tuple[str, Count, float]] = []

    def lane(lane_names: Sequence[str]) -> None:
        results.extend(run(name, parts[name]) for name in lane_names)

    with ThreadPoolExecutor() as pool:
        for future in [
            pool.submit(lane, [name for name in names if (name in BESIDE) is beside]) for beside in (True, False)
        ]:
            future.result()
    total = Count()
    lines = []
    for name, count, seconds in sorted(results, key=lambda result: names.index(result[0])):
        total.add(count)
        skipped = f", {count.skipped} skipped" if count.skipped else ""
        lines.append(f"{name:12} {seconds:7.1f} s  {count.passed} passed, {count.failed} failed{skipped}")
    print("\n" + "\n".join(lines))
    print(f"{total.passed} passed, {total.failed} failed", flush=True)
    return 1 if total.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
