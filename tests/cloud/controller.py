# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The deploy service's operations as a model: states, locks, and what a blue-green deployment does to a space, in its
order.
"""

from __future__ import annotations

import io
import threading
import uuid
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import yaml

from ..landscape.processes import PATIENCE_S
from .deploy_steps import Deploy, Stopped
from .faults import Faults
from .resolve import ContentError
from .space import Space

RUNNING, FINISHED, ERROR, ABORTED, TESTING = "RUNNING", "FINISHED", "ERROR", "ABORTED", "ACTION_REQUIRED"
ACTIONS = {RUNNING: ["abort"], ERROR: ["abort", "retry"], TESTING: ["abort", "resume"]}
PARAMETERS = {
    "appArchiveId",
    "mtaId",
    "deleteServices",
    "noStart",
    "keepFiles",
    "versionRule",
    "mtaExtDescriptorId",
    "modulesForDeployment",
    "resourcesForDeployment",
    "keepOriginalAppNamesAfterDeploy",
    "noConfirm",
    "skipIdleStart",
    "shouldApplyIncrementalInstancesUpdate",
    "startTimeout",
    "appsStageTimeout",
    "appsUploadTimeout",
    "appsTaskExecutionTimeout",
    "noRestartSubscribedApps",
    "noFailOnMissingPermissions",
    "abortOnError",
    "deleteServiceKeys",
    "deleteServiceBrokers",
    "verifyArchiveSignature",
    "shouldBackupPreviousVersion",
    "isSecurityEnabled",
    "namespace",
    "applyNamespaceAppNames",
    "applyNamespaceServiceNames",
    "applyNamespaceAppRoutes",
    "applyNamespaceAsSuffix",
    "dependencyAwareStopOrder",
    "retries",
}
"""What an operation of these types takes; whatever else is sent is refused."""
VERSION_RULES = ("HIGHER", "SAME_HIGHER", "ALL")


class BadRequest(Exception):
    """The request is refused; nothing was started."""


@dataclass
class File:
    name: str
    content: bytes
    digest: str
    namespace: str = ""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def view(self, space: str) -> dict[str, Any]:
        about = {
            "id": self.id,
            "name": self.name,
            "size": len(self.content),
            "digest": self.digest,
            "digestAlgorithm": "MD5",
            "space": space,
        }
        return {**about, **({"namespace": self.namespace} if self.namespace else {})}


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
    action: str = ""
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

    def view(self, space: str, *, messages: bool) -> dict[str, Any]:
        """As the service tells it; the parameters are not told."""
        facts = {
            "processId": self.id,
            "processType": self.type,
            "startedAt": self.started_at,
            "endedAt": self.ended_at,
            "spaceId": space,
            "mtaId": self.mta_id,
            "namespace": self.namespace,
            "user": self.user,
            "acquiredLock": self.locked,
            "state": self.state,
            "errorType": self.error_type if self.state == ERROR else "",
            "messages": self.messages if messages else [],
        }
        return {key: value for key, value in facts.items() if value not in ("", None)}


class Controller:
    """Runs operations on a space, each in a thread of its own.

    :param messages_end: how the service's texts are; they are those of the real one where a client reads them.
    """

    def __init__(self, space: Space, faults: Faults) -> None:
        self.space, self.faults = space, faults
        self.files: dict[str, File] = {}
        self.operations: dict[str, Operation] = {}
        self.changed = threading.Condition()
        self.closing = False
        self._last = datetime.now(UTC)
        self._message = 0
        self._threads: list[threading.Thread] = []

    def start(self, body: dict[str, Any], user: str) -> Operation:
        """Start an operation.

        :raises BadRequest: it is none that the service takes.
        """
        parameters = self._checked(body)
        if body["processType"] not in ("DEPLOY", "BLUE_GREEN_DEPLOY"):
            raise BadRequest(f'Unsupported process type "{body["processType"]}"')
        operation = Operation(
            body["processType"], user, parameters, str(body.get("namespace") or ""), parameters.get("mtaId", "")
        )
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
        """Abort, resume or retry.

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
                self._end(operation, ABORTED)
                self.say(operation, f'Process was aborted by user "{operation.user}"')
            else:
                if action == "retry":
                    operation.messages = [message for message in operation.messages if message["type"] != "ERROR"]
                operation.action, operation.state, operation.error_type = action, RUNNING, ""
            self.changed.notify_all()

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

    def say(self, operation: Operation, text: str, kind: str = "INFO") -> None:
        with self.changed:
            self._message += 1
            operation.messages.append(
                {"id": self._message, "text": text, "type": kind, "timestamp": _stamp(datetime.now(UTC))}
            )

    def checkpoint(self, operation: Operation, step: str) -> None:
        """Between two steps: a step that the test holds waits, and an operation that was aborted goes no further."""
        self.faults.hold(step)
        with self.changed:
            if self.closing or operation.state == ABORTED:
                raise Stopped

    def test_phase(self, operation: Operation) -> None:
        """Wait for resume.

        :raises Stopped: it was aborted.
        """
        with self.changed:
            operation.state = TESTING
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.closing or operation.state != TESTING)
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

    def archive(self, operation: Operation) -> tuple[dict[str, Any], dict[str, bytes], list[dict[str, Any]]]:
        """Descriptor, modules' contents and extension descriptors of the uploaded files.

        :raises ContentError: the archive is none.
        """
        parts = [self.files[identity].content for identity in operation.parameters["appArchiveId"].split(",")]
        try:
            with zipfile.ZipFile(io.BytesIO(b"".join(parts))) as zipped:
                descriptor = yaml.safe_load(zipped.read("META-INF/mtad.yaml"))
                contents = {
                    name.partition("/")[0]: zipped.read(name)
                    for name in zipped.namelist()
                    if name.endswith("/data.zip")
                }
        except (zipfile.BadZipFile, KeyError, yaml.YAMLError) as error:
            raise ContentError(f"Error processing MTA archive: {error}") from error
        given = filter(None, operation.parameters.get("mtaExtDescriptorId", "").split(","))
        return descriptor, contents, [yaml.safe_load(self.files[identity].content) for identity in given]

    def _checked(self, body: dict[str, Any]) -> dict[str, str]:
        parameters = body.get("parameters")
        if not isinstance(parameters, dict) or not isinstance(body.get("processType"), str):
            raise BadRequest("processType and parameters are required")
        unknown = set(parameters) - PARAMETERS
        if unknown:
            raise BadRequest(f"Unknown parameters: {sorted(unknown)}")
        wrong = [key for key, value in parameters.items() if not isinstance(value, str)]
        if wrong:
            raise BadRequest(f"Parameters that are no strings: {wrong}")
        if parameters.get("versionRule", "SAME_HIGHER") not in VERSION_RULES:
            raise BadRequest(f'Invalid value "{parameters["versionRule"]}" for parameter "versionRule"')
        files = [
            *parameters.get("appArchiveId", "").split(","),
            *filter(None, parameters.get("mtaExtDescriptorId", "").split(",")),
        ]
        missing = [identity for identity in files if identity not in self.files]
        if missing:
            raise BadRequest(
                f'There is no file associated with the specified file id "{missing[0]}" in space "{self.space.guid}"'
            )
        return dict(parameters)

    def _run(self, operation: Operation) -> None:
        deploy = Deploy(self, operation)
        steps: Sequence[Callable[[], None]] = deploy.steps()
        try:
            for step in steps:
                while not self._did(operation, step):
                    pass
            with self.changed:
                self._end(operation, FINISHED)
        except Stopped:
            return

    def _did(self, operation: Operation, step: Callable[[], None]) -> bool:
        """Do a step; one that fails waits for retry or abort."""
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
            for identity in [
                *operation.parameters["appArchiveId"].split(","),
                *operation.parameters.get("mtaExtDescriptorId", "").split(","),
            ]:
                self.files.pop(identity, None)
        self.changed.notify_all()


def _stamp(time: datetime) -> str:
    return f"{time.isoformat(timespec='milliseconds').replace('+00:00', 'Z')}[UTC]"
