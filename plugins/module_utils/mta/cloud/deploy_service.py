# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The REST API of the MultiApps deploy service, in one space."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import OutcomeUnknown
from ansible_collections.zdm.landscape.plugins.module_utils.http.web import BUSY
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.cloud_foundry import CloudFoundry
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.rest import Rest

DEPLOY, BLUE_GREEN, UNDEPLOY, ROLLBACK = "DEPLOY", "BLUE_GREEN_DEPLOY", "UNDEPLOY", "ROLLBACK_MTA"
RUNNING, FINISHED, ERROR, ABORTED, TESTING = "RUNNING", "FINISHED", "ERROR", "ABORTED", "ACTION_REQUIRED"
CONTENT = "CONTENT"
"""The type of an error whose cause lies in the archive or its descriptors; every other one may pass by itself."""
ACTIVE = (RUNNING, ERROR, TESTING)
"""States of an operation that has not ended."""
ACTIONS = {RUNNING: ("abort",), ERROR: ("abort", "retry"), TESTING: ("abort", "resume")}
"""What may be done to an operation in a state."""
_SAFE = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True)
class Message:
    id: int
    text: str
    type: str


@dataclass(frozen=True)
class Operation:
    """An operation as the service tells it; ``state`` is empty when it knows it no longer."""

    id: str
    type: str = ""
    state: str = ""
    mta_id: str = ""
    namespace: str = ""
    user: str = ""
    started_at: str = ""
    ended_at: str = ""
    error_type: str = ""
    locked: bool = False
    messages: tuple[Message, ...] = field(default=(), repr=False)

    @property
    def active(self) -> bool:
        return self.state in ACTIVE

    @property
    def holds(self) -> bool:
        """Whether it has the MTA's lock or is about to take it; one that has stopped without it is in nobody's way."""
        return self.active and (self.state != ERROR or self.locked)

    @property
    def errors(self) -> list[str]:
        return [message.text for message in self.messages if message.type == "ERROR"]

    def facts(self) -> dict[str, Any]:
        """The operation for a module's result, without messages."""
        names = ("id", "type", "state", "mta_id", "namespace", "user", "started_at", "ended_at", "error_type")
        return {name: getattr(self, name) for name in names}

    @property
    def shown(self) -> str:
        return (
            f"operation {self.id} ({self.type}, {self.state}, of {self.user or 'an unknown user'}, started"
            f" {self.started_at or 'at an unknown time'})"
        )


@dataclass(frozen=True)
class Deployed:
    """An MTA that is deployed in the space; ``version`` is empty when its applications and services differ in it."""

    id: str
    version: str
    namespace: str
    modules: tuple[str, ...]


def instant(text: str) -> datetime | None:
    """A time of the service, such as ``2026-11-21T23:00:00.123Z[UTC]``; ``None`` when it is none."""
    try:
        found = datetime.fromisoformat(text.partition("[")[0].replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


class DeployService:
    """Operations, files and MTAs of the space that *cloud* is logged in to."""

    def __init__(self, cloud: CloudFoundry) -> None:
        self.rest = Rest(cloud)
        self._space = self.rest.space

    def operations(self, mta_id: str = "", states: Sequence[str] = ()) -> list[Operation]:
        """The operations that the service still knows, those that have ended included."""
        query = urlencode([*([("mtaId", mta_id)] if mta_id else []), *(("state", state) for state in states)])
        return [_operation(body) for body in self.rest.list(f"{self._space}/operations{'?' if query else ''}{query}")]

    def operation(self, identity: str) -> Operation:
        """One operation with its messages; its state is empty when the service knows it no longer."""
        answer = self.rest.get(f"{self._space}/operations/{quote(identity)}?embed=messages", missing=True)
        return _operation(answer.json()) if answer.ok else Operation(identity)

    def deployed(self, mta_id: str = "", namespace: str | None = None) -> list[Deployed]:
        """The MTAs in the space.

        :param namespace: empty for those without one; ``None`` for all.
        """
        query = urlencode({key: value for key, value in (("name", mta_id), ("namespace", namespace)) if value})
        url = f"{self.rest.root}/api/v2/spaces/{self.rest.cloud.target.space_guid}/mtas{'?' if query else ''}{query}"
        found = [
            _deployed(body) for body in self.rest.list(url, missing=True)
        ]  # 404 means that there is none of that name
        return [mta for mta in found if (not mta_id or mta.id == mta_id) and namespace in (None, mta.namespace)]

    def start(self, body: Mapping[str, Any]) -> str:
        """Start an operation and return its id. Sent once only.

        :raises OutcomeUnknown: it may have been started; look for it.
        :raises Refused: the service takes no such operation.
        """
        answer = self.rest.post(f"{self._space}/operations", json.dumps(body).encode())
        if answer.status in BUSY:
            raise OutcomeUnknown(
                f"The deploy service answers to the start with status {answer.status}: {answer.said}",
                "Look for the operation.",
            )
        location = str(self.rest.expected(answer, "the start of the operation").headers.get("Location") or "")
        identity = location.partition("?")[0].rstrip("/").rpartition("/")[2]
        if not identity:
            raise OutcomeUnknown(
                "The deploy service does not say which operation it has started.", "Look for the operation."
            )
        return identity

    def prepare(self) -> None:
        """Make ready for an action, so that nothing comes between the last look and its request."""
        self.rest.prepare()

    def act(self, operation: str, action: str) -> bool:
        """Abort, resume or retry; false when the operation's state does not allow it, or the answer was lost: read it
        again.

        :raises Refused: the user may not.
        """
        try:
            answer = self.rest.post(
                f"{self._space}/operations/{quote(operation)}?{urlencode({'actionId': action})}", b""
            )
        except OutcomeUnknown:
            return False
        if answer.status in (400, 404, 409) or answer.status in BUSY:
            return False
        self.rest.expected(answer, f"{action} of operation {operation}")
        return True

    def actions(self, operation: str) -> list[str]:
        """What may be done to the operation; nothing when the service knows it no longer."""
        answer = self.rest.get(f"{self._space}/operations/{quote(operation)}/actions", missing=True)
        return [str(action) for action in answer.json()] if answer.ok else []

    def save_logs(self, operation: str, folder: Path) -> list[str]:
        """Write the operation's logs into a folder of its own; returns the files. Empty when there are none (any more).

        :raises OSError: the folder can't be written.
        """
        logs = self.rest.get(f"{self._space}/operations/{quote(operation)}/logs", missing=True)
        files = []
        for log in logs.json() if logs.ok else ():
            content = self.rest.get(
                f"{self._space}/operations/{quote(operation)}/logs/{quote(str(log['id']), safe='')}/content",
                missing=True,
            )
            if content.ok:
                file = folder / _SAFE.sub("_", operation) / _SAFE.sub("_", str(log["id"])).lstrip(".")
                file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                file.write_bytes(content.body)
                files.append(str(file))
        return files


def latest(operations: Iterable[Operation]) -> Operation | None:
    """The operation that was started last."""
    return max(
        operations,
        key=lambda operation: instant(operation.started_at) or datetime.min.replace(tzinfo=UTC),
        default=None,
    )


def _operation(body: Mapping[str, Any]) -> Operation:
    messages = tuple(
        Message(int(entry.get("id") or 0), str(entry.get("text") or ""), str(entry.get("type") or ""))
        for entry in body.get("messages") or ()
    )
    return Operation(
        id=str(body.get("processId") or ""),
        type=str(body.get("processType") or ""),
        state=str(body.get("state") or ""),
        mta_id=str(body.get("mtaId") or ""),
        namespace=str(body.get("namespace") or ""),
        user=str(body.get("user") or ""),
        started_at=str(body.get("startedAt") or ""),
        ended_at=str(body.get("endedAt") or ""),
        error_type=str(body.get("errorType") or ""),
        locked=bool(body.get("acquiredLock")),
        messages=messages,
    )


def _deployed(body: Mapping[str, Any]) -> Deployed:
    about = body.get("metadata") or {}
    modules = tuple(str(module.get("moduleName") or "") for module in body.get("modules") or ())
    return Deployed(
        str(about.get("id") or ""), str(about.get("version") or ""), str(about.get("namespace") or ""), modules
    )
