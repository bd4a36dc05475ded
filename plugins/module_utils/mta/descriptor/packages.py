# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which modules are application routers by their ``package.json``, the only sure sign: beside a descriptor, or in an
archive.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping

_APPROUTER = "@sap/approuter"
_FILE = "package.json"
_MANIFEST = "META-INF/MANIFEST.MF"
_MAX = 1_000_000
"""Neither file is longer, in bytes."""
_DAMAGED = (OSError, ValueError, KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError)
"""What reading zips and JSON raises; whoever builds or deploys it reports that."""


def beside(folder: str, paths: Mapping[str, str]) -> frozenset[str]:
    """The application routers among modules.

    :param folder: the descriptor's.
    :param paths: the modules' folders below it, by the modules' names.
    """
    return frozenset(name for name, path in paths.items() if _requires_router(_read(os.path.join(folder, path, _FILE))))


def archived(path: str) -> frozenset[str]:
    """The application routers among the modules of an MTA archive. Its manifest says where each of them is."""
    try:
        with zipfile.ZipFile(path) as zipped:
            places = list(_places(zipped))
            return frozenset(name for name, place in places if _requires_router(_packed(zipped, place)))
    except _DAMAGED:
        return frozenset()


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MAX)
    except (OSError, ValueError):  # none, or a path that is none
        return b""


def _places(zipped: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    """Modules and where they are."""
    text = _entry(zipped, _MANIFEST).decode()
    for section in re.split(r"\r?\n\r?\n", re.sub(r"\r?\n ", "", text)):
        pairs = dict(line.split(": ", 1) for line in section.splitlines() if ": " in line)
        for name in pairs.get("MTA-Module", "").split(","):
            if name.strip() and "Name" in pairs:
                yield name.strip(), pairs["Name"]


def _packed(zipped: zipfile.ZipFile, place: str) -> bytes:
    try:
        if place.endswith(".zip"):
            with zipped.open(place) as file, zipfile.ZipFile(file) as module:
                return _entry(module, _FILE)
        return _entry(zipped, f"{place.rstrip('/')}/{_FILE}")
    except _DAMAGED:
        return b""


def _entry(zipped: zipfile.ZipFile, name: str) -> bytes:
    with zipped.open(name) as file:
        return file.read(_MAX)


def _requires_router(text: bytes) -> bool:
    try:
        package = json.loads(text)
    except ValueError:
        return False
    dependencies = package.get("dependencies") if isinstance(package, dict) else None
    return isinstance(dependencies, dict) and _APPROUTER in dependencies
