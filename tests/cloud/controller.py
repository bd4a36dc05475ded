# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The deploy service's operations: their states, actions, locks and messages. What they do to a space is in
:mod:`.process`.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import yaml

from ..landscape.processes import PATIENCE_S
from .archive import Archive, ContentError, joined
from .faults import Faults
from .parameters import BadRequest, checked
from .process.common import Stopped
from .process.steps import steps_of
from .space import Space
from .uploads import File

RUNNING, FINISHED, ERROR, ABORTED, TESTING = "RUNNING", "FINISHED", "ERROR", "ABORTED", "ACTION_REQUIRED"
STATES = (RUNNING, FINISHED, ERROR, ABORTED, TESTING)
ACTIONS = {RUNNING: ["abort"], ERROR: ["abort", "retry"], TESTING: ["abort", "resume"]}
LOG = "OPERATION.log"


@dataclass
class Operation:
    type: str
    user: str
    parameters: dict[str, str]
    namespace: str = ""
    mta_id: str = ""
    state: str = RUNNING
    error_type: str = ""
    locked: bool = False
    messages: list[dict[str, Any]] = field(default_factory=list)
    logs: dict[str, list[str]] = field(default_factory=dict)
    """The lines of every log."""
    action: str = ""
    """The last one that was executed."""
    started_at: str = ""
    ended_at: str = ""
    id: str = field(default_factory=lambda: str(uuid.uuid1()))
    states: list[str] = field(default_factory=list)
    """Every state that it was in."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "state" and "states" in self.__dict__ and (not self.states or self.states[-1] != value):
            self.states.append(value)

    def __post_init__(self) -> None:
        self.states = [RUNNING]

    def view(self, space: str, *, messages: bool, error_type: bool) -> dict[str, Any]:
        """As the service tells it; the parameters are not told."""
        return {
            "processId": self.id,
            "processType": self.type,
            "startedAt": self.started_at,
            "endedAt": self.ended_at or None,
            "spaceId": space,
            "mtaId": self.mta_id or None,
            "namespace": self.namespace or None,
            "user": self.user,
            "acquiredLock": self.locked,
            "state": self.state,
            "errorType": (self.error_type or None) if error_type and self.state == ERROR else None,
            "messages": list(self.messages) if messages else [],
        }


class Controller:
    """Runs operations on a space, each in a thread of its own; ``backups`` are the descriptors of versions that were
    deployed, by MTA, namespace and checksum.

    :param files: those that were uploaded, by id.
    """

    def __init__(self, space: Space, faults: Faults, files: dict[str, File]) -> None:
        self.space, self.faults, self.files = space, faults, files
        self.operations: dict[str, Operation] = {}
        self.backups: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.changed = threading.Condition()
        self.closing = False
        self._last = datetime.now(UTC)
        self._message = 0
        self._threads: list[threading.Thread] = []

    def start(self, body: dict[str, Any], user: str) -> Operation:
        """Start an operation.

        :raises BadRequest: it is none that the service takes.
        """
        kind, parameters = checked(body)
        namespace = str(body.get("namespace") or parameters.get("namespace") or "")
        operation = Operation(kind, user, parameters, namespace, parameters.get("mtaId", ""))
        with self.changed:
            self._last = max(datetime.now(UTC), self._last + timedelta(milliseconds=1))
            operation.started_at = _stamp(self._last)
            self.operations[operation.id] = operation
        thread = threading.Thread(target=self._run, args=(operation,), name=f"operation {operation.id}", daemon=True)
        self._threads = [*(other for other in self._threads if other.is_alive()), thread]
        thread.start()
        return operation

    @property
    def at_work(self) -> bool:
        """Whether an operation, be it one that was aborted, still does its last step."""
        return any(thread.is_alive() for thread in self._threads)

    def act(self, identity: str, action: str) -> None:
        """Abort, resume or retry. A resume goes on at once, while for some time the state is still ACTION_REQUIRED, in
        which an abort is taken.

        :raises KeyError: there is no such operation.
        :raises BadRequest: its state does not allow it.
        """
        with self.changed:
            operation = self.operations[identity]
            if action not in ACTIONS.get(operation.state, []):
                raise BadRequest(
                    f'Action "{action}" cannot be executed over operation "{identity}" in state "{operation.state}"'
                )
            if action == "abort":
                self._abort(operation)
            elif action == "retry":
                operation.messages = [message for message in operation.messages if message["type"] != "ERROR"]
                operation.action, operation.state, operation.error_type = action, RUNNING, ""
            else:
                operation.action = action
                if self.space.pace.resume_s:
                    late = threading.Timer(self.space.pace.resume_s, self._resumed, (operation,))
                    late.daemon = True
                    late.start()
                else:
                    operation.state = RUNNING
            self.changed.notify_all()

    def _resumed(self, operation: Operation) -> None:
        with self.changed:
            if operation.state == TESTING:
                operation.state = RUNNING
                self.changed.notify_all()

    def _abort(self, operation: Operation) -> None:
        self._end(operation, ABORTED)
        self.say(operation, f'Process was aborted by user "{operation.user}"')

    def forget(self, identity: str) -> None:
        """What happens to an operation some days after its end."""
        with self.changed:
            del self.operations[identity]

    def wait(self, identity: str, *states: str, timeout_s: float = PATIENCE_S) -> Operation:
        """Wait until the operation is in one of these states.

        :raises TimeoutError: it is not.
        """
        operation = self.operations[identity]
        with self.changed:
            if not self.changed.wait_for(lambda: operation.state in states, timeout_s):
                raise TimeoutError(
                    f"{identity} is {operation.state}, not {' or '.join(states)}: {operation.messages[-3:]}"
                )
        return operation

    def close(self) -> None:
        with self.changed:
            self.closing = True
            self.changed.notify_all()
        self.faults.release()

    def say(self, operation: Operation, text: str, kind: str = "INFO", log: str = LOG) -> None:
        with self.changed:
            self._message += 1
            stamp = _stamp(datetime.now(UTC))
            operation.messages.append({"id": self._message, "text": text, "type": kind, "timestamp": stamp})
            for name in dict.fromkeys((LOG, log)):
                operation.logs.setdefault(name, []).append(f"#2.0#{stamp}#{kind}#{text}\n")

    def checkpoint(self, operation: Operation, step: str) -> None:
        """Between two steps: a step that the test holds waits, and an operation that was aborted goes no further.

        :raises Stopped: it was aborted.
        """
        self.faults.hold(step)
        self.pause(operation, 0.0)

    def pause(self, operation: Operation, seconds: float) -> None:
        """Let a step take so long.

        :raises Stopped: it was aborted.
        """
        with self.changed:
            self.changed.wait_for(lambda: self.closing or operation.state == ABORTED, seconds)
            if self.closing or operation.state == ABORTED:
                raise Stopped

    def test_phase(self, operation: Operation) -> None:
        """Wait for resume.

        :raises Stopped: it was aborted.
        """
        with self.changed:
            operation.action, operation.state = "", TESTING
            self.changed.notify_all()
            self.changed.wait_for(
                lambda: self.closing or operation.state == ABORTED or operation.action == "resume",
            )
            if self.closing or operation.state == ABORTED:
                raise Stopped

    def lock(self, operation: Operation) -> None:
        """Take the MTA's lock.

        :raises ContentError: another operation has it.
        """
        with self.changed:
            for other in self.operations.values():
                if (
                    other is not operation
                    and other.locked
                    and (other.mta_id, other.namespace) == (operation.mta_id, operation.namespace)
                ):
                    raise ContentError(f'Conflicting process "{other.id}" found for MTA "{operation.mta_id}"')
            operation.locked = True

    def archive(self, operation: Operation) -> tuple[Archive, list[dict[str, Any]]]:
        """The uploaded archive, whose parts may be listed in any order, and the extension descriptors.

        :raises ContentError: a file is missing or is none of these.
        """
        archive = Archive.read(joined(self._given(operation, "appArchiveId")))
        try:
            extensions = [yaml.safe_load(file.content) for file in self._given(operation, "mtaExtDescriptorId")]
        except yaml.YAMLError as error:
            raise ContentError(f"Error parsing extension descriptor: {error}") from error
        return archive, extensions

    def _given(self, operation: Operation, parameter: str) -> list[File]:
        found: list[File] = []
        for identity in filter(None, operation.parameters.get(parameter, "").split(",")):
            file = self.files.get(identity)
            if file is None:
                raise ContentError(
                    f'There is no file associated with the specified file id "{identity}" in space "{self.space.guid}"'
                )
            found.append(file)
        return found

    def _run(self, operation: Operation) -> None:
        try:
            for step in steps_of(self, operation):
                while not self._did(operation, step):
                    pass
            with self.changed:
                self._end(operation, FINISHED)
        except Stopped:
            return

    def _did(self, operation: Operation, step: Callable[[], None]) -> bool:
        """Do a step; one that fails waits for retry or abort, or ends the operation when that is wanted."""
        try:
            step()
        except Stopped:
            raise
        except Exception as error:  # whatever the runner says
            kind = getattr(error, "kind", "CONTENT")
            self.say(operation, str(error), "ERROR")
            with self.changed:
                if operation.state == ABORTED:
                    raise Stopped from error
                if operation.parameters.get("abortOnError") == "true":
                    self._abort(operation)
                    raise Stopped from error
                operation.state, operation.error_type = ERROR, kind
                self.changed.notify_all()
                self.changed.wait_for(lambda: self.closing or operation.state != ERROR)
                if self.closing or operation.state == ABORTED:
                    raise Stopped from error
            return False
        return True

    def _end(self, operation: Operation, state: str) -> None:
        operation.locked, operation.ended_at, operation.state = False, _stamp(datetime.now(UTC)), state
        if operation.parameters.get("keepFiles") != "true":
            for parameter in ("appArchiveId", "mtaExtDescriptorId"):
                for identity in operation.parameters.get(parameter, "").split(","):
                    self.files.pop(identity, None)
        self.changed.notify_all()


def _stamp(time: datetime) -> str:
    return f"{time.isoformat(timespec='milliseconds').replace('+00:00', 'Z')}[UTC]"
