# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The embedded config store: a directory of plain JSON files, ``<path>/<collection>/<name>.json``.

A write replaces the file by an atomic rename and is on disk before it is acknowledged; writers take turns by a lock
file.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import (
    Conflict,
    InputError,
    OutcomeUnknown,
    Unreachable,
)
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import COLLECTIONS, DEPLOYMENTS, Document, Store

# A migration's key is two names of up to 63 characters and "--".
_DOCUMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# A space's folder, and in it an MTA's id (at most 128 characters), after "@" its namespace.
_DEPLOYMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}/[A-Za-z0-9][A-Za-z0-9._@-]{0,199}")
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class FileStore(Store):
    """Config store in a directory on the controller's host.

    :param path: the directory; it must exist, so that a misspelt path is not taken for an empty landscape.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def describe(self) -> str:
        return f"file store {self.path}"

    def get(self, collection: str, name: str) -> Document | None:
        self._check_root()
        return self._read(collection, self._file(collection, name))

    def list(self, collection: str) -> list[Document]:
        self._check_root()
        folder = self.path / collection
        try:
            found = [
                (self._name(collection, file), file)
                for file in folder.glob("*/*.json" if collection == DEPLOYMENTS else "*.json")
            ]
        except OSError as error:
            raise Unreachable(
                f"The {self.describe()} can't list {collection}: {error.strerror}.", "Check the folder's permissions."
            ) from error
        documents = (self._read(collection, file) for _name, file in sorted(found))
        return [document for document in documents if document is not None]

    def put(self, collection: str, name: str, body: dict[str, Any], revision: str | None) -> Document:
        file = self._file(collection, name)
        with self._locked():
            self._expect(collection, name, revision)
            self._replace(file, json.dumps(body, indent=2, sort_keys=True).encode() + b"\n")
            written = self._read(collection, file)
        if written is None:
            raise OutcomeUnknown(
                f"{collection}/{name} was written and is not there any more.",
                "Somebody deletes files in the store by hand; stop that.",
            )
        return written

    def delete(self, collection: str, name: str, revision: str) -> None:
        file = self._file(collection, name)
        with self._locked():
            self._expect(collection, name, revision)
            try:
                file.unlink()
            except OSError as error:
                raise Unreachable(
                    f"{collection}/{name} can't be deleted: {error.strerror}.", "Check the store's permissions."
                ) from error
            self._sync_folder(file.parent)

    def _file(self, collection: str, name: str) -> Path:
        if collection not in COLLECTIONS:
            raise ValueError(f"unknown collection {collection!r}")
        if not (_DEPLOYMENT if collection == DEPLOYMENTS else _DOCUMENT).fullmatch(name):
            raise InputError(
                f"{name!r} is no valid name of a document in {collection}.",
                "Use letters, digits, dots, underscores and hyphens.",
            )
        return self.path / collection / f"{name}.json"

    def _name(self, collection: str, file: Path) -> str:
        return file.relative_to(self.path / collection).as_posix().removesuffix(".json")

    def _check_root(self) -> None:
        if not self.path.is_dir():
            raise Unreachable(
                f"The {self.describe()} does not exist or is no directory.",
                "Correct zdm_landscape.store.path, or create the directory.",
            )

    def _read(self, collection: str, file: Path) -> Document | None:
        name = self._name(collection, file)
        try:
            with open(file, "rb") as stream:
                raw = stream.read()
                stat = os.fstat(stream.fileno())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unreachable(f"{collection}/{name} can't be read: {error.strerror}.", f"Check {file}.") from error
        try:
            body = json.loads(raw)
        except ValueError as error:
            raise Unreachable(
                f"{collection}/{name} is not valid JSON: {error}.", f"Repair {file} by hand or restore it."
            ) from error
        if not isinstance(body, dict):
            raise Unreachable(f"{collection}/{name} is no JSON object.", f"Repair {file} by hand or restore it.")
        # The inode and time make the revision unique even when somebody writes the same text again.
        revision = hashlib.sha256(b"%d %d " % (stat.st_ino, stat.st_mtime_ns) + raw).hexdigest()[:32]
        return Document(collection, name, body, revision)

    def _expect(self, collection: str, name: str, revision: str | None) -> None:
        current = self._read(collection, self._file(collection, name))
        found = current.revision if current else None
        if found != revision:
            what = (
                "was deleted"
                if found is None
                else "already exists"
                if revision is None
                else "was changed by somebody else"
            )
            raise Conflict(f"{collection}/{name} {what}.", "Read it again and repeat the command.")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._check_root()
        try:
            handle = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o660)
        except OSError as error:
            raise Unreachable(
                f"The {self.describe()} can't be locked: {error.strerror}.",
                "Check the folder's permissions and free space.",
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _replace(self, file: Path, raw: bytes) -> None:
        scratch = ""
        try:
            if not file.parent.is_dir():
                file.parent.mkdir(parents=True, exist_ok=True)
                self._sync_folder(file.parent.parent)
            handle, scratch = tempfile.mkstemp(prefix=".new-", dir=file.parent)
            with os.fdopen(handle, "wb") as stream:
                stream.write(raw)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(scratch, file.stat().st_mode & 0o777 if file.exists() else 0o640)
            os.rename(scratch, file)
        except OSError as error:
            with suppress(OSError):
                os.unlink(scratch)
            advice = "Free some space on its disk." if error.errno in _NO_SPACE else "Check the folder's permissions."
            raise Unreachable(f"{file.parent.name}/{file.stem} can't be written: {error.strerror}.", advice) from error
        self._sync_folder(file.parent)

    @staticmethod
    def _sync_folder(folder: Path) -> None:
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise OutcomeUnknown(
                f"The rename in {folder} may not be on disk: {error.strerror}.",
                "Check the disk, then run the command again.",
            ) from error
