# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MTA archives as the deploy service reads them."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import yaml

SECURE = "__mta.secure"
"""Id of the extension descriptor that brings secure parameters; it comes after all others."""
_PART = re.compile(r"\.part\.(\d+)$")


class ContentError(Exception):
    """The archive or its descriptors are wrong; the operation stops with the error type CONTENT."""


class Named(Protocol):
    name: str
    content: bytes


@dataclass(frozen=True)
class Archive:
    """Descriptor and modules' contents."""

    descriptor: dict[str, Any]
    contents: dict[str, bytes]

    @classmethod
    def read(cls, content: bytes) -> Archive:
        """:raises ContentError: it is none."""
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as zipped:
                descriptor = yaml.safe_load(zipped.read("META-INF/mtad.yaml"))
                contents = {
                    name.partition("/")[0]: zipped.read(name)
                    for name in zipped.namelist()
                    if name.endswith("/data.zip")
                }
        except (zipfile.BadZipFile, KeyError, yaml.YAMLError) as error:
            raise ContentError(f"Error processing MTA archive: {error}") from error
        if not isinstance(descriptor, dict) or not descriptor.get("ID"):
            raise ContentError("Error processing MTA archive: the descriptor has no ID")
        return cls(descriptor, contents)

    @property
    def mta_id(self) -> str:
        return str(self.descriptor["ID"])

    @property
    def schema_version(self) -> str:
        return str(self.descriptor.get("_schema-version", ""))


def joined(files: Sequence[Named]) -> bytes:
    """The content of an archive that was uploaded in parts: in the order of the numbers in their names, in whatever
    order they are listed.

    :raises ContentError: a part has no number.
    """
    if len(files) == 1:
        return files[0].content
    numbered: list[tuple[int, bytes]] = []
    for file in files:
        match = _PART.search(file.name)
        if match is None:
            raise ContentError(f'Invalid file name "{file.name}" of an archive\'s part')
        numbered.append((int(match[1]), file.content))
    return b"".join(content for _number, content in sorted(numbered, key=lambda pair: pair[0]))


def checksum(descriptor: Any) -> str:
    """What tells two descriptors apart."""
    return hashlib.md5(json.dumps(descriptor, sort_keys=True, default=str).encode(), usedforsecurity=False).hexdigest()
