# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Node.js 22 and the npm packages of the application that is deployed: @sap/approuter and the CAP MTX sidecar.

They are installed from the npm registry that the machine is configured for, with the lock file of
``requirements/node``, into ``.build/node``; none of them is part of this repository. Run as a module, it only installs.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ..landscape.processes import ServerError, run

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements" / "node"
FOLDER = ROOT / ".build" / "node"
MINIMUM = (22, 5)
"""The first Node.js with ``node:sqlite``, which the sidecar's database driver uses."""
_INSTALL_S = 900.0


@dataclass(frozen=True)
class Node:
    """A Node.js that runs the packages, and the folder ``node_modules`` in which they are."""

    program: Path
    modules: Path


def _version(program: Path | str) -> tuple[int, ...]:
    """Major and minor version; empty when it does not run."""
    try:
        done = subprocess.run([str(program), "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    match = re.match(r"v(\d+)\.(\d+)", done.stdout)
    return (int(match[1]), int(match[2])) if match and done.returncode == 0 else ()


def _fingerprint(machine: tuple[int, ...]) -> str:
    """Changes with what is asked for and with the machine's Node.js."""
    digest = hashlib.sha256(repr((str(FOLDER), machine >= MINIMUM)).encode())
    for name in ("package.json", "package-lock.json"):
        digest.update((REQUIREMENTS / name).read_bytes())
    return digest.hexdigest()


def _install(machine: tuple[int, ...]) -> None:
    """npm's clean install; Node.js itself is the optional dependency, left out where the machine's is new enough."""
    npm = shutil.which("npm")
    if npm is None or not machine:
        raise ServerError(
            "node and npm are missing: they install what the tests and the demo of a deployment run. Debian: apt-get"
            " install npm."
        )
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(REQUIREMENTS / name, FOLDER / name)
    omit = ["--omit=optional"] if machine >= MINIMUM else []
    print("Installing Node.js packages", flush=True)
    run(
        [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", *omit],
        timeout_s=_INSTALL_S,
        cwd=FOLDER,
    )


@functools.cache
def ensure_node() -> Node:
    """Install what is missing; does nothing when nothing changed. Processes that call it at the same time wait for each
    other.

    :raises ServerError: node or npm is missing, or the packages can't be installed; with npm's words.
    """
    machine_program = shutil.which("node") or ""
    machine = _version(machine_program) if machine_program else ()
    stamp, wanted = FOLDER / "zdm-installed", _fingerprint(machine)
    FOLDER.parent.mkdir(exist_ok=True)
    with (FOLDER.parent / "node.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_text() != wanted:
            stamp.unlink(missing_ok=True)
            _install(machine)
            stamp.write_text(wanted)
    modules = FOLDER / "node_modules"
    candidates = [Path(machine_program)] if machine >= MINIMUM else sorted(modules.glob("node-linux-*/bin/node"))
    program = next((path for path in candidates if _version(path) >= MINIMUM), None)
    if program is None:
        raise ServerError(
            f"No Node.js {MINIMUM[0]} or later runs here; npm has none for this processor. Install one so that it is"
            " first on PATH."
        )
    return Node(program, modules)


if __name__ == "__main__":
    print(ensure_node().program)
