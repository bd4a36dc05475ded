# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The document ``deployments/<space>/<mta>``: what we have asked the deploy service for, written before the request
that asks for it.

The service does not say which archive an operation uses and forgets operations after some days; this document
remembers.
"""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Conflict, InputError, Refused
from ansible_collections.zdm.landscape.plugins.module_utils.mta.archive import Extension
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.deploy_service import (
    FINISHED,
    ROLLBACK,
    UNDEPLOY,
    Operation,
    instant,
)
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import DEPLOYMENTS, Document, Store

FORMAT = 1
_TIMES = ("at", "lost_at", "asked_at", "testing_since")
UPGRADE_BEGUN, UPGRADE_DONE = "begun", "done"
"""How far the upgrade of the tenants by a version is."""


@dataclass(frozen=True)
class Attempt:
    """One attempt to deploy.

    :param lost_at: when it was known that the answer to the start request is lost.
    :param seen: the operations that the service knew before the start request.
    :param first: whether the MTA was not deployed before.
    :param kept: whether the version before it is kept for a rollback.
    :param at_once: whether it changes what is live without a testing phase, and at a moment that nobody knows.
    :param operation: its id, once it is known.
    :param requested: the last action that was asked for, written before the request, and when.
    :param stopped: guids of the idle applications that were stopped right before the resume, written before.
    :param resumed: whether a resume was asked for: routes may be switched.
    :param upgrade: ``begun`` before the first tenant is upgraded by this version, ``done`` after the last; live may not
        fit them any more.
    :param state: the operation's state as it was seen last.
    :param told: the id of the last of its messages that a run has told.
    """

    fingerprint: str
    archive: Mapping[str, Any]
    extensions: Sequence[Mapping[str, Any]]
    type: str
    cf_user: str
    at: datetime
    lost_at: datetime | None = None
    seen: frozenset[str] = frozenset()
    first: bool = False
    kept: bool = False
    at_once: bool = False
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))
    by: str = ""
    operation: str = ""
    started_at: str = ""
    requested: str = ""
    asked_at: datetime | None = None
    stopped: Sequence[str] = ()
    resumed: bool = False
    testing_since: datetime | None = None
    upgrade: str = ""
    state: str = ""
    told: int = 0
    ended: bool = False

    @property
    def may_switch(self) -> bool:
        """Whether what is live may be changing as long as the operation runs."""
        return self.resumed or (self.at_once and not self.first)

    @property
    def end_state(self) -> str:
        """The state of the module that goes on with it."""
        return {ROLLBACK: "previous", UNDEPLOY: "absent"}.get(self.type, "deployed")

    @property
    def brought(self) -> str:
        """What is true when it has finished: the end of a sentence."""
        if self.type == UNDEPLOY:
            return "the MTA is undeployed"
        return f"{self.archive.get('name') or 'the version before'} is live"

    @classmethod
    def of(
        cls, fingerprint: str, archive: Mapping[str, Any], extensions: Sequence[Extension], at: datetime, **facts: Any
    ) -> Attempt:
        named = [{"name": extension.name, "id": extension.id, "digest": extension.digest} for extension in extensions]
        return cls(fingerprint, archive, named, at=at, by=whoami(), **facts)


@dataclass(frozen=True)
class Place:
    """Which document: the MTA in its space."""

    space_guid: str
    mta_id: str
    namespace: str
    api: str = ""
    org: str = ""
    space: str = ""

    @property
    def name(self) -> str:
        return f"{self.space_guid}/{self.mta_id}{'@' if self.namespace else ''}{self.namespace}"


class DeploymentDocument:
    """Reads and writes the document; every write is a compare-and-set, so that of two runs at the same time one
    stops.
    """

    def __init__(self, store: Store, place: Place) -> None:
        self._store, self.place = store, place
        self.attempt: Attempt | None = None
        self.live: dict[str, Any] = {}
        """What is live and came by us: fingerprint, archive, operation, started_at; empty when unknown."""
        self.previous: dict[str, Any] = {}
        """The same of what was live before it."""
        self.by = ""
        """Which run wrote it last."""
        self._revision: str | None = None

    def read(self) -> DeploymentDocument:
        """Read it; it is empty when there is none.

        :raises Refused: a newer version of the collection wrote it, or it is of another MTA.
        """
        found = self._store.get(DEPLOYMENTS, self.place.name)
        if found:
            self._revision = found.revision
            self._take(found)
        return self

    def begin(self, attempt: Attempt) -> None:
        """Write what is about to be asked for.

        :raises Conflict: another run was faster; ask for nothing.
        """
        self.attempt = attempt
        self._write()

    def update(self, **changes: Any) -> Attempt:
        """Change the attempt; nothing is written when all is as it was."""
        return self.keep(replace(self._present(), **changes))

    def keep(self, attempt: Attempt) -> Attempt:
        """Replace the attempt; nothing is written when it is the same."""
        if attempt != self.attempt:
            self.attempt = attempt
            if attempt.ended and attempt.operation and attempt.operation == self.live.get("operation"):
                self.live = {**self.live, "upgrade": attempt.upgrade}
            self._write()
        return attempt

    def ask(self, action: str, *, resumed: bool) -> Attempt:
        """Write what is about to be asked for, and return the attempt as it was. Always: what another run has noted
        meanwhile must forbid it.

        :raises Conflict: another run was faster; ask for nothing.
        """
        attempt = self._present()
        at = datetime.now(UTC)
        self.attempt = replace(attempt, requested=action, asked_at=at, resumed=attempt.resumed or resumed)
        self._write()
        return attempt

    def went_live(self, state: str, started_at: str) -> None:
        """The attempt's operation has finished: its archive is live. After a first deployment there is nobody to
        upgrade.
        """
        before = self._present()
        upgrade = UPGRADE_DONE if before.first else before.upgrade
        attempt = self.attempt = replace(before, state=state, started_at=started_at, upgrade=upgrade, ended=True)
        fingerprint = attempt.fingerprint
        if attempt.type == ROLLBACK:
            fingerprint, self.previous = str(self.previous.get("fingerprint") or ""), {}
        elif attempt.type == UNDEPLOY:
            self.previous = {}
        elif self.live.get("fingerprint") != fingerprint:
            self.previous = self.live
        self.live = {
            "fingerprint": fingerprint,
            "archive": dict(attempt.archive),
            "operation": attempt.operation,
            "started_at": attempt.started_at,
            "kept": attempt.kept and not attempt.first,
            "upgrade": "" if attempt.first else upgrade,
        }
        if attempt.type == UNDEPLOY:
            self.live = {}
        self._write()

    def is_live(self, fingerprint: str, versions: Sequence[str], operations: Sequence[Operation]) -> bool:
        """Whether this came by us, is what the space has, and nobody has deployed anything since.

        :param versions: what is live.
        :param operations: what the service still knows of this MTA.
        """
        live = self.live
        if not live or live.get("fingerprint") != fingerprint or str(live["archive"].get("version")) not in versions:
            return False
        ours = instant(str(live.get("started_at") or "")) or datetime.max.replace(tzinfo=UTC)
        later = (one for one in operations if one.state == FINISHED and one.id != live.get("operation"))
        return all((instant(one.started_at) or ours) <= ours for one in later)

    def body(self) -> dict[str, Any]:
        place = self.place
        about = {
            "mta_id": place.mta_id,
            "namespace": place.namespace,
            "api": place.api,
            "org": place.org,
            "space": place.space,
        }
        attempt = _attempt_body(self.attempt) if self.attempt else None
        return {
            "format": FORMAT,
            **about,
            "by": whoami(),
            "attempt": attempt,
            "live": self.live,
            "previous": self.previous,
        }

    def _take(self, found: Document) -> None:
        body = found.body
        if body.get("format") != FORMAT:
            raise Refused(
                f"{found.path} has format {body.get('format')}; this version knows {FORMAT}.",
                "Use the newer version of the collection.",
            )
        if (body.get("mta_id"), body.get("namespace")) != (self.place.mta_id, self.place.namespace):
            raise Refused(
                f"{found.path} is of the MTA {body.get('mta_id')}.",
                "Restore the document from its backup, or remove it when nothing is deployed.",
            )
        self.by = str(body.get("by") or "")
        self.live, self.previous = dict(body.get("live") or {}), dict(body.get("previous") or {})
        self.attempt = _attempt(body["attempt"], found.path) if body.get("attempt") else None

    def _present(self) -> Attempt:
        if self.attempt is None:
            raise ValueError("there is no attempt")
        return self.attempt

    def changed_by(self) -> str:
        """Which run has written the document since this one did; empty when none has."""
        found = self._store.get(DEPLOYMENTS, self.place.name)
        return str(found.body.get("by") or "another run") if found and found.revision != self._revision else ""

    def _write(self) -> None:
        try:
            self._revision = self._store.put(DEPLOYMENTS, self.place.name, self.body(), self._revision).revision
        except Conflict as error:
            raise self.at_work(self.changed_by() or "another run") from error

    def at_work(self, by: str) -> Conflict:
        """The error of a run that was second.

        :param by: the other one.
        """
        return Conflict(
            f"Another run ({by}) is at work on the MTA {self.place.mta_id}.",
            "Let it end; the same command goes on from where it is.",
        )


def whoami() -> str:
    """Who runs this: user, host and process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}:{os.getpid()}"


def _attempt_body(attempt: Attempt) -> dict[str, Any]:
    body = {name: getattr(attempt, name) for name in Attempt.__dataclass_fields__}
    times = {name: time.isoformat() if (time := getattr(attempt, name)) else None for name in _TIMES}
    lists = {"seen": sorted(attempt.seen), "stopped": list(attempt.stopped)}
    return {**body, **times, **lists, "archive": dict(attempt.archive)}


def _attempt(body: Any, path: str) -> Attempt:
    try:
        times: dict[str, Any] = {name: instant(str(body.get(name) or "")) for name in _TIMES}
        if times["at"] is None:
            raise ValueError("at")
        times["at"] = times["at"].astimezone(UTC)
        known = {name: body[name] for name in Attempt.__dataclass_fields__ if name in body}
        lists = {"seen": frozenset(body.get("seen") or ()), "stopped": tuple(body.get("stopped") or ())}
        return Attempt(**{**known, **times, **lists})
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} can't be understood: {error} is missing or wrong.", "Restore it from its backup."
        ) from error
