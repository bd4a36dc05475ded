# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The servers, and npm, that a machine must bring itself: which are missing, and their installation on Debian."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

SERVERS = {
    "haproxy": ("haproxy", ("/usr/sbin/haproxy", "/usr/local/sbin/haproxy")),
    "mariadbd": ("mariadb-server", ("/usr/sbin/mariadbd", "/usr/local/sbin/mariadbd")),
    "postgres": ("postgresql", ("/usr/lib/postgresql/*/bin/postgres", "/usr/local/pgsql/bin/postgres")),
    "redis-server": ("redis-server", ("/usr/bin/redis-server", "/usr/local/bin/redis-server")),
    "pgbouncer": ("pgbouncer", ("/usr/sbin/pgbouncer",)),
    "systemd-analyze": ("systemd", ("/usr/bin/systemd-analyze",)),
    "npm": ("npm", ("/usr/bin/npm", "/usr/local/bin/npm")),
}
"""Program → Debian package and the usual places beside PATH."""
_POLICY = Path("/usr/sbin/policy-rc.d")


def missing(programs: Iterable[str]) -> dict[str, str]:
    """Those of *programs* that are neither on PATH nor in their usual place, with their Debian package."""
    search = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin"

    def there(program: str) -> bool:
        return bool(shutil.which(program, path=search)) or any(
            list(Path("/").glob(place.lstrip("/"))) for place in SERVERS[program][1]
        )

    return {program: SERVERS[program][0] for program in programs if not there(program)}


def install(programs: Iterable[str]) -> dict[str, str]:
    """As root install those of *programs* that are missing, without starting a system service.

    :returns: what is still missing, with its Debian package.
    """
    lacking = missing(programs)
    if not lacking or os.geteuid() != 0 or not shutil.which("apt-get"):
        return lacking
    packages = sorted(lacking.values())
    print(f"Installing {' '.join(packages)}", flush=True)
    own_policy = not _POLICY.exists()
    if own_policy:
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    try:
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
        if subprocess.run(
            command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        ).returncode:
            subprocess.run(["apt-get", "update", "-q"], env=env, stdout=subprocess.DEVNULL, check=False)
            subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=False)
    finally:
        if own_policy:
            _POLICY.unlink()
    return missing(lacking)


def advice(lacking: Mapping[str, str]) -> str:
    """What to do about what is missing, without a full stop."""
    return (
        f"Missing: {', '.join(sorted(lacking))}. Install with: apt-get install {' '.join(sorted(lacking.values()))}"
        " (Debian's names)"
    )
