# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit log: who did what to a migration, when and from where; one JSON object per line, appended and never
truncated.

The same lines are the live display: the action plugins of the long modules read them while the module runs.
"""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.common.parameters import remove_values
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import Journal
from ansible_collections.zdm.landscape.plugins.module_utils.migration.owner import Owner


def log_file(folder: str, migration: str) -> Path:
    """Where a migration's log is."""
    return Path(folder).expanduser() / f"{migration}.jsonl"


class AuditLog:
    """One run's part of a migration's log.

    A line is one write to a file that was opened for appending, so that runs may write at the same time. Nothing is
    flushed to the disk by force, and a line that can't be written is lost: a window must not wait for its log, and a
    full disk must not stop it.

    :param folder: the folder of the logs; it is made when it is missing.
    :param journal: lines carry its key, epoch and phase.
    :param command: what runs, for example ``tenant_data staged``.
    :param run_id: how this run is called in its lines; a random one when empty.
    :param secrets: values that must not stand in any line.
    """

    def __init__(
        self, folder: str, journal: Journal, command: str, run_id: str | None = None, secrets: Iterable[str] = ()
    ) -> None:
        self.path = log_file(folder, journal.key)
        self.journal = journal
        self.problem = ""
        """Why nothing is written, when it could not be opened and the run had to go on all the same."""
        owner = Owner.here()
        self._who = {
            "run": run_id or uuid.uuid4().hex[:12],
            "user": owner.user,
            "host": owner.host,
            "pid": owner.pid,
            "command": command,
        }
        self._secrets = frozenset(secrets)
        self._outcome: dict[str, Any] = {}
        self._handle = -1
        self._torn = False

    def check(self) -> None:
        """Refuse what could not be written to; makes nothing.

        :raises Refused: the file or its folder can't be written.
        """
        there = self.path
        while not os.path.exists(there) and there != there.parent:  # What may not be looked at counts as missing.
            there = there.parent
        if not os.access(there, os.W_OK) or os.path.isdir(there) == (there == self.path):
            raise self._refusal(f"{there} can't be written")

    @contextmanager
    def run(self, *, needed: bool) -> Iterator[AuditLog]:
        """Write the run's first and last line around the block.

        :param needed: false where the tenants wait for this run, whatever the log's disk says; see :attr:`problem`.
        :raises Refused: the log can't be opened or written, before the block has begun.
        """
        try:
            self._open()
            if not self.write({"step": "begin"}):
                raise self._refusal("its disk is full or failing")
        except Refused as refusal:
            if needed:
                raise
            self.problem = str(refusal)
        try:
            yield self
        except BaseException as error:
            self.write({"step": "end", "outcome": "failed", "error": type(error).__name__, "message": str(error)})
            raise
        else:
            self.write({"step": "end", "outcome": "ok", **self._outcome})
        finally:
            if self._handle >= 0:
                os.close(self._handle)
                self._handle = -1

    def outcome(self, facts: dict[str, Any]) -> None:
        """What the last line says when the run ends well."""
        self._outcome = facts

    def write(self, entry: dict[str, Any]) -> bool:
        """Append one line; says whether it is whole in the file."""
        if self._handle < 0:
            return False
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        about = {
            "migration": self.journal.key,
            "epoch": int(self.journal.body.get("epoch", 0)),
            "phase": self.journal.phase,
        }
        try:
            line = (
                json.dumps(remove_values({"time": time, **self._who, **about, **entry}, self._secrets)).encode() + b"\n"
            )
            if self._torn:
                line = b"\n" + line  # What a full disk cut off must not swallow this line.
            self._torn = os.write(self._handle, line) < len(line)
        except (OSError, TypeError, ValueError):
            return False
        return not self._torn

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            what = "is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else f"can't be written: {error.strerror}"
            raise self._refusal(f"{error.filename or self.path} {what}") from error

    def _refusal(self, what: str) -> Refused:
        return Refused(
            f"The audit log {self.path} can't be opened: {what}.",
            "Make room or correct its rights, or name another folder with log_dir.",
        )
