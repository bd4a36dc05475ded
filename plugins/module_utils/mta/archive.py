# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MTA archives and extension descriptors: what they are is known, and what is wrong with them told, before anything is
uploaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit

from ansible.module_utils.urls import open_url
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.http.web import AGENT, shown

try:
    import yaml
except ImportError:
    yaml = None

DESCRIPTOR = "META-INF/mtad.yaml"
_SUFFIX = ".mtar"
_MAX_DESCRIPTOR = 10_000_000
_BLOCK = 1 << 20
_ROUNDS = 200_000
"""How often secure parameters are hashed: a tenth of a second for us, too long for who tries all short ones."""


@dataclass(frozen=True)
class Extension:
    """An extension descriptor. ``digest`` is SHA-256 in hexadecimal, ``md5`` as the deploy service writes it."""

    name: str
    id: str
    digest: str
    md5: str
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Archive:
    """An archive on this host, and what its deployment descriptor says.

    :param source: where the caller has it, a path or a URL without its secrets.
    """

    name: str
    path: str
    source: str
    digest: str
    md5: str
    mta_id: str
    version: str
    modules: tuple[str, ...]
    resources: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """What a document may keep of it."""
        known = {
            key: value for key, value in asdict(self).items() if key in ("name", "digest", "md5", "mta_id", "version")
        }
        return {**known, "path": self.source if is_url(self.source) else self.path}


@dataclass(frozen=True)
class Download:
    """How an archive is fetched, and what it must be.

    :param checksum: algorithm and digest in hexadecimal, as in ``sha256:0a1b…``.
    :param source: where the caller has the archive, when it is a copy.
    :param ca_file: PEM file of the authority that the URL's server is trusted by, where it is none of the host's.
    """

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    username: str = ""
    password: str = field(default="", repr=False)
    checksum: str = ""
    source: str = ""
    ca_file: str = ""

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Download:
        """By the option group ARCHIVE."""
        return cls(
            params["archive_headers"] or {},
            *(params[f"archive_{name}"] or "" for name in ("username", "password", "checksum", "source", "ca_file")),
        )


@contextmanager
def opened_archive(location: str, download: Download | None = None) -> Iterator[Archive]:
    """The archive at a path or URL. One from a URL is on this host during the block only.

    :raises InputError: there is none, it is no MTA archive, or another one than *download* names.
    :raises Unreachable: the URL does not answer.
    """
    download = download or Download()
    if not is_url(location):
        local = os.path.expanduser(location)
        _check(local, download.checksum, location)
        source = shown(download.source) if is_url(download.source) else download.source
        yield read_archive(local, source or location)
        return
    with tempfile.TemporaryDirectory(prefix="zdm-mtar-") as folder:
        name = Path(unquote(urlsplit(location).path)).name
        _check_name(name, shown(location))
        path = Path(folder, name)
        _download(location, path, download)
        _check(str(path), download.checksum, shown(location))
        yield read_archive(str(path), shown(location))


def read_archive(path: str, source: str = "") -> Archive:
    """Inspect an archive.

    :raises InputError: it does not exist, is no zip, or has no valid deployment descriptor.
    """
    where = source or path
    _check_name(Path(path).name, where)
    digest, md5 = _digests(path, f"The archive {where}", "Build it with mbt build, or correct archive.")
    try:
        with zipfile.ZipFile(path) as zipped:
            entry = zipped.getinfo(DESCRIPTOR)
            if entry.file_size > _MAX_DESCRIPTOR:
                raise InputError(
                    f"The archive {where} has a {DESCRIPTOR} of {entry.file_size} bytes.",
                    "No descriptor is that long; build it again.",
                )
            text = zipped.read(entry)
    except KeyError as error:
        raise InputError(
            f"The archive {where} has no {DESCRIPTOR}.", "Build it with mbt build: a zip alone is no MTA archive."
        ) from error
    # The last two are zipfile's for a compression and for an encryption that it does not know.
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"The archive {where} is no zip, or is damaged: {error}.", "Build or download it again."
        ) from error
    descriptor = _mapping(text, f"{DESCRIPTOR} of {where}")
    mta_id, version = descriptor.get("ID"), descriptor.get("version")
    if not isinstance(mta_id, str) or not mta_id or not version:
        raise InputError(
            f"{DESCRIPTOR} of {where} has no ID or no version.", "Correct mta.yaml and build the archive again."
        )
    named = [_names(descriptor, key, where) for key in ("modules", "resources")]
    return Archive(Path(path).name, path, where, digest, md5, mta_id, str(version), *named)


def read_extensions(paths: Sequence[str], mta_id: str, texts: Sequence[str] = ()) -> list[Extension]:
    """Inspect extension descriptors, in the order given.

    :param texts: those that are in no file, which come after the others.
    :raises InputError: one does not exist, is no YAML, or has no ID; two have the same; the first of a chain does not
        extend *mta_id*.
    """
    result: list[Extension] = []
    bases = set()
    for name, what, content in [*map(_extension_file, paths), *map(_extension_text, enumerate(texts, 1))]:
        body = _mapping(content, what)
        identity, extends = body.get("ID"), body.get("extends")
        if not identity or not extends:
            raise InputError(
                f"{what} has no ID or no extends.", "Write both: see the manual of MTA extension descriptors."
            )
        if any(other.id == identity for other in result):
            raise InputError(f"Two extension descriptors have the ID {identity}.", "Give each an ID of its own.")
        bases.add(str(extends))
        result.append(extension_of(name or f"{identity}.mtaext", str(identity), content))
    unknown = bases - {mta_id} - {extension.id for extension in result}
    if unknown:
        raise InputError(
            f"An extension descriptor extends {', '.join(sorted(unknown))}, which is neither {mta_id} nor another one.",
            "Correct its extends.",
        )
    return result


def extension_of(name: str, identity: str, content: bytes) -> Extension:
    """An extension descriptor of this content."""
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest().upper()
    return Extension(name, identity, hashlib.sha256(content).hexdigest(), md5, content)


def _extension_file(given: str) -> tuple[str, str, bytes]:
    path, what = Path(given).expanduser(), f"The extension descriptor {given}"
    try:
        return path.name, what, path.read_bytes()
    except OSError as error:
        raise InputError(f"{what} can't be read: {error.strerror}.", "Correct extensions.") from error


def _extension_text(numbered: tuple[int, str]) -> tuple[str, str, bytes]:
    return "", f"Extension descriptor {numbered[0]} of extension_texts", numbered[1].encode()


def check_selection(archive: Archive, modules: Sequence[str], resources: Sequence[str]) -> None:
    """Make sure that the modules and resources that were chosen are in the descriptor.

    :raises InputError: one is not.
    """
    for kind, chosen, there in (("modules", modules, archive.modules), ("resources", resources, archive.resources)):
        unknown = [name for name in chosen if name not in there]
        if unknown:
            advice = f"There are: {', '.join(there) or 'none'}."
            raise InputError(
                f"{', '.join(unknown)} of {kind} {'is' if len(unknown) == 1 else 'are'} not in the descriptor of"
                f" {archive.source}.",
                advice,
            )


def fingerprint(
    archive: Archive,
    extensions: Sequence[Extension],
    modules: Sequence[str] | None = None,
    resources: Sequence[str] | None = None,
    secure: Mapping[str, Any] | None = None,
) -> str:
    """What a deployment brings, as one SHA-256: archive, extension descriptors in their order, the choice of modules
    and resources, and secure parameters, which can't be guessed from it.
    """
    chosen = [
        f"{key}={','.join(sorted(names)) if names else '*'}"
        for key, names in (("modules", modules), ("resources", resources))
    ]
    parts = [archive.digest, *(extension.digest for extension in extensions), *chosen]
    if secure:
        text = json.dumps(secure, sort_keys=True, default=str)
        parts.append(hashlib.pbkdf2_hmac("sha256", text.encode(), archive.mta_id.encode(), _ROUNDS).hex())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def is_url(location: str) -> bool:
    """Whether it is none of this host's paths."""
    return urlsplit(location).scheme in ("http", "https")


def _check_name(name: str, where: str) -> None:
    if not name.lower().endswith(_SUFFIX):
        raise InputError(
            f"{where} is no MTA archive: its name does not end with .mtar.", "Give the .mtar that mbt build has made."
        )


def _check(path: str, checksum: str, where: str) -> None:
    if not checksum:
        return
    algorithm, _colon, wanted = checksum.partition(":")
    if algorithm not in hashlib.algorithms_guaranteed or not re.fullmatch("[0-9a-fA-F]{8,}", wanted):
        raise InputError(
            f"{checksum} is no checksum.", "Write the algorithm, a colon and the digest, as in sha256:0a1b…"
        )
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as error:
        raise InputError(f"The archive {where} can't be read: {error.strerror}.", "Correct archive.") from error
    if found != wanted.lower():
        raise InputError(
            f"The archive {where} has the checksum {algorithm}:{found}, not {checksum}.",
            "Somebody has replaced it, or it did not arrive whole: look which one is right.",
        )


def _download(url: str, path: Path, download: Download) -> None:
    try:
        with (
            open_url(
                url,
                timeout=60,
                http_agent=AGENT,
                use_netrc=True,
                headers=dict(download.headers),
                url_username=download.username or None,
                url_password=download.password or None,
                force_basic_auth=bool(download.username),
                ca_path=download.ca_file or None,
            ) as answer,
            path.open("wb") as file,
        ):
            shutil.copyfileobj(answer, file, _BLOCK)
            length = answer.headers.get("Content-Length")
    except HTTPError as error:
        raise InputError(
            f"{shown(url)} answers with status {error.code}.", "Correct archive, or put the archive there."
        ) from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise Unreachable(
            f"{shown(url)} can't be read: {reason}.", "Check the URL and the network, then run it again."
        ) from error
    if length and length.isdigit() and path.stat().st_size != int(length):
        raise Unreachable(f"{shown(url)} ended before it was read.", "Run the same command again.")


def _digests(path: str, what: str, advice: str) -> tuple[str, str]:
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    try:
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                sha256.update(block)
                md5.update(block)
    except OSError as error:
        raise InputError(f"{what} can't be read: {error.strerror}.", advice) from error
    return sha256.hexdigest(), md5.hexdigest().upper()


def _mapping(text: bytes, what: str) -> dict[str, Any]:
    if yaml is None:
        raise InputError(
            "The Python package PyYAML is missing.", "Install it where the module runs: pip install PyYAML."
        )
    try:
        body = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(
            f"{what} is no YAML{line}: {getattr(error, 'problem', None) or 'it can not be read'}.", "Correct it."
        ) from error
    if not isinstance(body, dict):
        raise InputError(f"{what} is no mapping of YAML.", "Correct it.")
    return body


def _names(descriptor: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    entries = descriptor.get(key) or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and entry.get("name") for entry in entries):
        raise InputError(
            f"{DESCRIPTOR} of {where} has {key} without a name.", "Correct mta.yaml and build the archive again."
        )
    return tuple(str(entry["name"]) for entry in entries)
