# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows the audit log's lines of a module while the module runs."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.core.names import migration_key
from ansible_collections.zdm.landscape.plugins.module_utils.core.options import LOG_DIR
from ansible_collections.zdm.landscape.plugins.module_utils.migration.audit import log_file
from ansible_collections.zdm.landscape.plugins.module_utils.migration.progress import shown

POLL_S = 0.2


class Follower:
    """Reads what one run appends to a log, from now on until the block ends. A file that can't be read shows nothing.

    :param show: gets each line for a person.
    :param line: makes it from a line of the log; what is empty is not shown.
    """

    def __init__(self, path: Path, run_id: str, show: Any, line: Callable[[Mapping[str, Any]], str] = shown) -> None:
        self._path, self._run_id, self._show, self._line = path, run_id, show, line
        self._offset = 0
        with suppress(OSError):
            self._offset = path.stat().st_size
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="zdm-progress", daemon=True)

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        ended = False
        while not ended:
            ended = self._stop.wait(POLL_S)  # What was written before the end is read after it.
            for line in self._lines():
                self._tell(line)

    def _lines(self) -> list[bytes]:
        """Whole lines only; the rest of one that is being written comes next time."""
        try:
            with open(self._path, "rb") as stream:
                stream.seek(self._offset)
                whole = stream.read().rpartition(b"\n")[0]
        except OSError:
            return []
        self._offset += len(whole) + 1 if whole else 0
        return whole.splitlines()

    def _tell(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            return
        text = self._line(entry) if isinstance(entry, dict) and entry.get("run") == self._run_id else ""
        if text:
            self._show(text)


class LiveAction(ActionBase):
    """Runs the module of the same name and shows its progress, where the log is on this host."""

    _supports_async = True
    line: Callable[[Mapping[str, Any]], str] = staticmethod(shown)

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = dict(self._task.args)
        args["run_id"] = args.get("run_id") or uuid.uuid4().hex[:12]
        path = self._log_here(args) if self._connection.transport == "local" else None
        wrap_async = bool(self._task.async_val) and not self._connection.has_native_async
        if path is None or wrap_async:
            result.update(self._execute_module(module_args=args, task_vars=task_vars, wrap_async=wrap_async))
            return result
        with Follower(path, str(args["run_id"]), self._show, self.line):
            result.update(self._execute_module(module_args=args, task_vars=task_vars))
        return result

    def _log_here(self, args: dict[str, Any]) -> Path | None:
        try:
            path = self.log_of(args)
        except ZdmError:
            return None  # The module says what is wrong with the names.
        return path if path and path.is_absolute() else None

    def log_of(self, args: dict[str, Any]) -> Path | None:
        """The log that the module writes, from its arguments.

        :raises ZdmError: they are wrong.
        """
        source, target = args.get("source"), args.get("target")
        return (
            log_file(str(args.get("log_dir") or LOG_DIR), migration_key(str(source), str(target)))
            if source and target
            else None
        )

    @staticmethod
    def _show(text: str) -> None:
        # Beside the results: a callback that writes JSON to the standard output must stay readable by programs.
        Display().display(f"  {text}", stderr=True)
