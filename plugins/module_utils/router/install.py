# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts a router's files in place: all or none, tried by HAProxy first, and never while a migration's window is open.

A reload starts a worker that counts from zero and knows no lease, so a configuration is not replaced while a block is live
or an old worker remains.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.zdm.landscape.plugins.module_utils.errors import InputError, Refused, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.router.haproxy import MAPS, HAProxyRouter
from ansible_collections.zdm.landscape.plugins.module_utils.router.start import refuse_when_busy

CONFIGURATION = "haproxy.cfg"
_OWNED = ("bin", "keys", "lib", "lua", "tls")
"""Folders that hold nothing but files of ours: what is not wanted any more is removed."""
_PRIVATE = ("keys", "maps", "tls")
_PRIVATE_FILES = (CONFIGURATION, "router.json")
_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_RELOADED = (CONFIGURATION, "keys/", "lua/", "tls/")
_SECRET = re.compile(r"str\([A-Za-z0-9+/=]*\),b64dec")
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_PUBLIC_KEY = re.compile(r"-----BEGIN (RSA )?PUBLIC KEY-----")


@dataclass(frozen=True)
class Change:
    """One file that differs. ``None``: it does not exist. Texts are without secrets, for a diff."""

    path: str
    before: str | None
    after: str | None


class Installation:
    """The files of one router's directory.

    :param home: the router's directory.
    :param files: relative path → content; ``haproxy.cfg`` must be among them and name other files relative to itself.
    :param secrets: what ``@secret:<position>@`` in ``haproxy.cfg`` stands for, there in Base64: any character may be in a secret.
    :param haproxy: path of the binary that tries the configuration.
    :raises InputError: a path leads out of *home* or has characters that a configuration could misread, or a key of an issuer
        is no public key.
    """

    def __init__(self, home: Path, files: Mapping[str, str], secrets: Sequence[str], haproxy: str) -> None:
        for path, content in files.items():
            if not _PATH.fullmatch(path):
                raise InputError(
                    f"{path!r} is no path inside of the router's directory.", "Give a relative path of letters, digits, dots, underscores and hyphens."
                )
            if path.startswith("keys/") and (_PRIVATE_KEY.search(content) or not _PUBLIC_KEY.search(content)):
                raise InputError(f"{path} is no public key in PEM form.", "Put public keys only, as <kid>.pem, into the issuer's keys_dir.")
        self.home = home
        configuration = files[CONFIGURATION]
        for position, secret in enumerate(secrets):
            configuration = configuration.replace(f"@secret:{position}@", base64.b64encode(secret.encode()).decode())
        self._files = {**files, CONFIGURATION: configuration}
        self._haproxy = haproxy

    def changes(self) -> list[Change]:
        """What :meth:`apply` would write or remove, sorted by path. A wrong mode counts as a difference too."""
        found = {path: self._read(path) for path in {*self._files, *self._strangers()}}
        result = []
        for path in sorted(found):
            wanted, current = self._files.get(path), found[path]
            if wanted != current or (wanted is not None and self._mode(path) != (self.home / path).stat().st_mode & 0o777):
                result.append(Change(path, _public(path, current), _public(path, wanted)))
        return result

    @staticmethod
    def need_reload(changes: list[Change]) -> bool:
        """Whether a running router has to be reloaded for them; the start script's own files wait for the next start."""
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
        return str(json.loads(self._files.get("router.json", "{}")).get("name", self.home))

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
            command = [self._haproxy, "-c", "-f", f"{scratch}/{CONFIGURATION}"]
            status, _output, complaint = run(command)
            if status != 0:
                words = _SECRET.sub("str(********)", complaint.replace(scratch, str(self.home))).strip()
                raise Refused(
                    f"HAProxy does not accept the configuration; nothing was changed. It says: {words}", "Correct the role's variables.", haproxy=words
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
            # The worker's jail and its way to the control socket, whose own mode says who may use it.
            folder.chmod(0o711 if name == "run" else 0o700 if name in _PRIVATE else 0o755)

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
