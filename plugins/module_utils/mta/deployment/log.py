# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run of a deployment tells: lines of JSON in ``deployments.jsonl``, appended and never truncated, which the
action plugin shows as they come.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.common.parameters import remove_values
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.document import whoami

FILE = "deployments.jsonl"


def deployments_log(folder: str) -> Path:
    """Where the log is."""
    return Path(folder).expanduser() / FILE


class DeploymentLog:
    """One run's lines. A line that can't be written later is lost: a deployment that runs must be watched to its end.

    :param folder: made when it is missing, with mode 0700.
    :param secrets: values that must not stand in any line.
    :raises Refused: the log can't be opened.
    """

    def __init__(self, folder: str, run_id: str | None = None, secrets: Iterable[str] = ()) -> None:
        path = deployments_log(folder)
        self._who = {"run": run_id or uuid.uuid4().hex[:12], "by": whoami()}
        self._secrets = frozenset(secrets)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise Refused(
                f"The log {path} can't be opened: {error.strerror}.",
                "Correct its rights, or name another folder with log_dir.",
            ) from error

    def write(self, entry: Mapping[str, Any]) -> None:
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps(remove_values({"time": time, **self._who, **entry}, self._secrets)).encode() + b"\n"
        try:
            os.write(self._handle, line)
        except OSError:
            return

    def close(self) -> None:
        os.close(self._handle)


def shown(entry: Mapping[str, Any]) -> str:
    """One line for a person; an error of the operation is told once, where it ends."""
    if entry.get("type") == "ERROR":
        return ""
    prefix = f"{entry['mta_id']}: " if entry.get("mta_id") else ""
    kind = "" if entry.get("type") in (None, "", "INFO") else f"{entry['type']} "
    return f"{prefix}{kind}{entry['text']}" if entry.get("text") else ""
