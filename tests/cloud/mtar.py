# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes MTA archives: the zip that ``mbt build`` makes, without a build."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

Files = Mapping[str, str | bytes]
_STAMP = (2020, 1, 1, 0, 0, 0)


def write_mtar(
    folder: Path, descriptor: Mapping[str, Any], modules: Mapping[str, Files] | None = None, name: str = ""
) -> Path:
    """Write ``<ID>_<version>.mtar``; the same input gives the same bytes.

    :param descriptor: of the deployment, mtad.yaml.
    :param modules: the files of a module's ``data.zip``; a module that is not named has one empty file.
    :param name: of the file, when it is another one.
    """
    contents = {
        str(module["name"]): zipped((modules or {}).get(module["name"]) or {"empty": ""})
        for module in descriptor.get("modules") or ()
    }
    sections = [
        _section(f"{module}/data.zip", f"MTA-Module: {module}", "Content-Type: application/zip") for module in contents
    ]
    head, last = (
        _section("", "Manifest-Version: 1.0", "Created-By: zdm.landscape tests"),
        _section("META-INF/mtad.yaml", "Content-Type: text/plain"),
    )
    manifest = "".join([head, *sections, last])
    files: dict[str, str | bytes] = {
        "META-INF/MANIFEST.MF": manifest,
        "META-INF/mtad.yaml": yaml.safe_dump(dict(descriptor), sort_keys=False),
    }
    files.update({f"{module}/data.zip": content for module, content in contents.items()})
    path = folder / (name or f"{descriptor['ID']}_{descriptor['version']}.mtar")
    path.write_bytes(zipped(files))
    return path


def zipped(files: Files) -> bytes:
    """A zip of these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _STAMP)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def _section(name: str, *lines: str) -> str:
    return "".join(_folded(line) for line in ([f"Name: {name}"] if name else []) + list(lines)) + "\r\n"


def _folded(line: str) -> str:
    """Lines of a manifest have at most 72 bytes; a continuation begins with a space."""
    first, rest = line[:70], line[70:]
    return "".join([first, "\r\n", *(f" {rest[start : start + 69]}\r\n" for start in range(0, len(rest), 69))])
