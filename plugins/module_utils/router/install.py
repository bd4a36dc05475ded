# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts a router's files in place: all or none, tried by HAProxy first, and never while a migration's window is open.

A reload starts a worker that counts from zero and knows no lease, so a configuration is not replaced while a block is
live or an old worker remains.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, Refused, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.router.haproxy import MAPS, HAProxyRouter
from ansible_collections.zdm.landscape.plugins.module_utils.router.start import refuse_when_busy

CONFIGURATION = "haproxy.cfg"
_OWNED = ("bin", "keys", "lib", "lua", "tls")
"""Folders that hold nothing but files of ours: what is not wanted any more is removed."""
_PRIVATE = ("keys", "maps", "tls")
_RESTARTED = ("bin/", "lib/", "router.json")
_PRIVATE_FILES = (CONFIGURATION, "router.json")
_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_RELOADED = (CONFIGURATION, "keys/", "lua/", "tls/")
_SECRET = re.compile(r"str\([A-Za-z0-9+/=]*\),b64dec")
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_PUBLIC_KEY = re.compile(r"-----BEGIN (RSA )?PUBLIC KEY-----")


def _check_file(path: str, content: object) -> None:
    """:raises InputError: no file of a router has this path or content."""
    parts = path.split("/")
    known = path in _PRIVATE_FILES or (parts[0] in _OWNED and len(parts) > 1)
    if not known or not _PATH.fullmatch(path) or any(len(part) > 255 or part.startswith("-") for part in parts):
        raise InputError(
            f"{path!r} is no file of a router.",
            f"Give {CONFIGURATION}, router.json, or a path of letters, digits, dots, underscores and hyphens in"
            f" {', '.join(_OWNED)}.",
        )
    fits = isinstance(content, str) and not any("\ud800" <= character <= "\udfff" for character in content)
    if not fits:
        raise InputError(f"The content of {path} is no text.", "Give the file's content as a string.")


def _folder_mode(name: str) -> int:
    """``run`` is the worker's jail and its way to the control socket, whose own mode says who may use it."""
    return 0o711 if name == "run" else 0o700 if name in _PRIVATE else 0o755


@dataclass(frozen=True)
class Change:
    """One file or folder that differs. ``None``: it does not exist. Texts are without secrets, for a diff."""

    path: str
    before: str | None
    after: str | None


class Installation:
    """The files of one router's directory.

    :param home: the router's directory.
    :param files: relative path → content; ``haproxy.cfg`` must be among them and name other files relative to itself.
    :param secrets: what ``@secret:<position>@`` in ``haproxy.cfg`` stands for, there in Base64: any character may be in
        a secret.
    :param haproxy: path of the binary that tries the configuration.
    :raises InputError: a path leads out of *home* or has characters that a configuration could misread, or a key of an
        issuer is no public key.
    """

    def __init__(self, home: Path, files: Mapping[str, str], secrets: Sequence[str], haproxy: str) -> None:
        for path, content in files.items():
            _check_file(path, content)
            if path.startswith("keys/") and (_PRIVATE_KEY.search(content) or not _PUBLIC_KEY.search(content)):
                raise InputError(
                    f"{path} is no public key in PEM form.",
                    "Put public keys only, as <kid>.pem, into the issuer's keys_dir.",
                )
        if CONFIGURATION not in files:
            raise InputError(f"{CONFIGURATION} is not among the files.", "Give the router's configuration.")
        if above := sorted({path for path in files for other in files if other.startswith(f"{path}/")}):
            raise InputError(f"{above[0]} is a file and a folder at once.", "Give each name once.")
        self.home = home
        configuration = files[CONFIGURATION]
        for position, secret in enumerate(secrets):
            configuration = configuration.replace(f"@secret:{position}@", base64.b64encode(secret.encode()).decode())
        self._files = {**files, CONFIGURATION: configuration}
        self._haproxy = haproxy

    def changes(self) -> list[Change]:
        """What :meth:`apply` would write or remove, sorted by path. A wrong mode counts as a difference too."""
        self._refuse_links()
        found = {path: self._read(path) for path in {*self._files, *self._strangers()}}
        result = [
            Change(f"{name}/", before, after)
            for name, (before, after) in self._folder_rights().items()
            if before != after
        ]
        for path in sorted(found):
            wanted, current = self._files.get(path), found[path]
            if wanted != current or (wanted is not None and not self._has_rights(self.home / path, self._mode(path))):
                result.append(Change(path, _public(path, current), _public(path, wanted)))
        return sorted(result, key=lambda change: change.path)

    @staticmethod
    def need_restart(changes: list[Change]) -> bool:
        """Whether a running router has to be restarted for them: its start script has read these when it began."""
        return any(change.path.startswith(_RESTARTED) for change in changes)

    @staticmethod
    def need_reload(changes: list[Change]) -> bool:
        """Whether a running router has to be reloaded for them; the start script's own files wait for the next
        start.
        """
        return any(change.path.startswith(_RELOADED) for change in changes)

    def refuse_when_busy(self) -> bool:
        """Ask the running router; returns whether one runs.

        :raises Refused: a block is live or an old worker remains.
        :raises Unreachable: something listens at the socket and gives no answer.
        """
        router = HAProxyRouter(self._name(), socket=str(self.home / "run" / "master.sock"))
        try:
            refuse_when_busy(router.state())
        except Unreachable as error:
            if error.details.get("reason") == "absent":
                return False
            raise
        finally:
            router.disconnect()
        return True

    def _name(self) -> str:
        """The router's name in messages."""
        with contextlib.suppress(ValueError, AttributeError):
            return str(json.loads(self._files.get("router.json", "{}")).get("name", self.home))
        return str(self.home)

    def validate(self, run: Callable[[list[str]], tuple[int, str, str]]) -> None:
        """Let HAProxy try the configuration in a folder of its own.

        :param run: runs a command; exit status, standard output, standard error.
        :raises Refused: it is not valid; with HAProxy's words.
        """
        with tempfile.TemporaryDirectory(prefix="zdm-router-") as scratch:
            for path, content in self._files.items():
                self._write(Path(scratch), path, content)
            (Path(scratch) / "maps").mkdir()
            for name in (*MAPS, "router", "epochs"):
                (Path(scratch) / "maps" / f"{name}.map").touch()
            command = ["env", "ZDM_AS_STARTER=1", self._haproxy, "-c", "-f", f"{scratch}/{CONFIGURATION}"]
            status, _output, complaint = run(command)
            if status != 0:
                words = _SECRET.sub("str(********)", complaint.replace(scratch, str(self.home))).strip()
                raise Refused(
                    f"HAProxy does not accept the configuration; nothing was changed. It says: {words}",
                    "Correct the role's variables.",
                    haproxy=words,
                )

    def apply(self) -> None:
        """Write all files, then remove what is not ours any more."""
        self._folders()
        for path in sorted(self._files, key=lambda path: path == CONFIGURATION):
            self._write(self.home, path, self._files[path])
        for path in self._strangers():
            (self.home / path).unlink()

    def _folders(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        for name in (*_OWNED, "maps", "run"):
            folder = self.home / name
            folder.mkdir(exist_ok=True)
            self._give_rights(folder, _folder_mode(name))
        self._give_rights(self.home, stat.S_IMODE(self.home.stat().st_mode) & 0o755)

    def _folder_rights(self) -> dict[str, tuple[str | None, str]]:
        """By folder the rights that it has and those that it is to have."""
        result: dict[str, tuple[str | None, str]] = {}
        for name in (*_OWNED, "maps", "run"):
            folder, after = self.home / name, f"mode {_folder_mode(name):04o}\n"
            if not folder.exists():
                result[name] = (None, after)
            elif not self._has_rights(folder, _folder_mode(name)):
                found = folder.stat()
                result[name] = (f"mode {stat.S_IMODE(found.st_mode):04o}, owner {found.st_uid}\n", after)
        return result

    @staticmethod
    def _has_rights(path: Path, mode: int) -> bool:
        found = path.stat()
        return stat.S_IMODE(found.st_mode) == mode and (os.geteuid() != 0 or found.st_uid == 0)

    @staticmethod
    def _give_rights(path: Path, mode: int) -> None:
        if os.geteuid() == 0:
            os.chown(path, 0, 0)
        path.chmod(mode)

    def _refuse_links(self) -> None:
        """:raises Refused: a folder of the router is a link, or a folder stands where a file is to be."""
        for folder in (self.home, *(self.home / name for name in (*_OWNED, "maps", "run"))):
            if folder.is_symlink():
                raise Refused(
                    f"{folder} is a link; nothing was changed.",
                    "Let the router's folders be folders: what is behind a link may be somebody else's.",
                )
        for path in self._files:
            if (self.home / path).is_dir():
                raise Refused(
                    f"{self.home / path} is a folder, where a file is to be; nothing was changed.", "Remove it."
                )

    def _strangers(self) -> Iterator[str]:
        for name in _OWNED:
            for file in sorted((self.home / name).rglob("*")):
                path = str(file.relative_to(self.home))
                if path not in self._files and "__pycache__" not in file.parts and not file.is_dir():
                    yield path

    def _read(self, path: str) -> str | None:
        try:
            return (self.home / path).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None

    def _write(self, base: Path, path: str, content: str) -> None:
        target = base / path
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(prefix=".new-", dir=target.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(content)
            os.chmod(scratch, self._mode(path))
            os.replace(scratch, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(scratch)
            raise

    @staticmethod
    def _mode(path: str) -> int:
        if path.startswith("bin/"):
            return 0o755
        return 0o600 if path in _PRIVATE_FILES or path.startswith(tuple(f"{name}/" for name in _PRIVATE)) else 0o644


def _public(path: str, content: str | None) -> str | None:
    """The content as a diff may show it."""
    if content is None:
        return None
    if path.startswith("tls/"):
        return "(certificate and key)\n"
    return _SECRET.sub("str(********),b64dec", content)
