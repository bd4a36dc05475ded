# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a run follows an operation: it asks, tells what is new, waits for conditions, and keeps the logs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.deploy_service import (
    ERROR,
    DeployService,
    Operation,
)

Tell = Callable[[Mapping[str, Any]], None]


class Watch:
    """A run's eyes.

    :param tell: gets what a person and the log should know, as it happens.
    :param log_dir: where an operation's logs go.
    :param timeout_ms: how long the run may take in all.
    """

    def __init__(
        self,
        service: DeployService,
        mta_id: str,
        tell: Tell,
        log_dir: str,
        timeout_ms: int,
        poll_ms: int,
        sleep: Callable[[float], None],
    ) -> None:
        self._service, self._mta_id, self._tell = service, mta_id, tell
        self._log_dir, self._poll_s, self._sleep = Path(log_dir).expanduser(), poll_ms / 1000, sleep
        self._ends = time.monotonic() + timeout_ms / 1000
        self.told = 0
        """The id of the last message that was told."""
        self.logs: list[str] = []
        self.failed = Operation("")
        """The operation as it stopped with an error last."""

    @property
    def late(self) -> bool:
        """Whether the run's time is over."""
        return time.monotonic() > self._ends

    def read(self, identity: str) -> Operation:
        """The operation; its new messages are told."""
        own = self._service.operation(identity)
        for message in own.messages:
            if message.id > self.told:
                self.told = message.id
                self.say(message.text, message.type, operation=identity)
        if own.state == ERROR:
            self.failed = own
        return own

    def wait(self, reached: Callable[[], bool], limit_ms: int | None = None) -> bool:
        """Ask until it is true; whether it is before the run's time, or *limit_ms*, is over."""
        ends = min(self._ends, time.monotonic() + limit_ms / 1000) if limit_ms else self._ends
        while not reached():
            if time.monotonic() > ends:
                return False
            self.pause()
        return True

    def pause(self) -> None:
        self._sleep(self._poll_s)

    def say(self, text: str, kind: str = "INFO", **facts: Any) -> None:
        self._tell({"mta_id": self._mta_id, "type": kind, "text": text, **facts})

    def save_logs(self, identity: str) -> None:
        try:
            self.logs = self._service.save_logs(identity, self._log_dir)
        except (OSError, ZdmError) as error:
            self.say(f"The logs of operation {identity} can't be kept: {error}", "WARNING")
