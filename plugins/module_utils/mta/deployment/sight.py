# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run sees: our document, the operations that the service shows, what is live; and the step that follows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.deploy_service import (
    ERROR,
    ROLLBACK,
    DeployService,
    Operation,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment import decision as to
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.decision import (
    Decision,
    Goal,
    check_previous,
    decide,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.document import DeploymentDocument
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.presence import Presence
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.watch import Watch


class Sight:
    """One run's view of its deployment.

    :ivar before: the versions that were live before the run; ``None`` when the MTA was not deployed.
    :ivar ended_by: the run that has ended our operation before this run began; empty when it goes on, or none has.
    :ivar operations: all of this MTA that the service still knows, as they were seen last.
    :ivar own: ours among them; without an id when there is none.
    """

    def __init__(self, document: DeploymentDocument, service: DeployService, presence: Presence, watch: Watch) -> None:
        self._document, self._service, self._presence, self._watch = document, service, presence, watch
        self.before: tuple[str, ...] | None = None
        self.ended_by = ""
        self._split = False
        self.operations: list[Operation] = []
        self.own = Operation("")

    def begin(self) -> None:
        """Read what is remembered and what is live."""
        self._document.read()
        attempt = self._document.attempt
        self.ended_by = self._document.by if attempt and attempt.ended else ""
        self.before = self._presence.versions()
        self._split = bool(self._presence.split())

    def decide(self, goal: Goal, *, note: bool = True) -> Decision:
        """Look, and decide.

        :param note: whether what is seen of our operation is remembered.
        """
        operations = self._presence.operations()
        attempt = self._document.attempt
        pending = attempt.operation if attempt and not attempt.ended else ""
        if pending:
            # the list tells neither messages nor why an operation has stopped, and forgets what has ended
            listed = next((operation for operation in operations if operation.id == pending), None)
            if listed is None or listed.state == ERROR:
                own = self._service.operation(pending)
                others = [operation for operation in operations if operation.id != pending]
                operations = [*others, own] if own.state else others
        self.operations = operations
        now = datetime.now(UTC)
        self.own = next((operation for operation in operations if operation.id == pending), Operation(""))
        if attempt and self.own.active:
            self._watch.told = max(self._watch.told, attempt.told)
            attempt = to.seen(attempt, self.own, now)
            if note:
                self._document.keep(replace(attempt, told=self._watch.told))
        return decide(goal, attempt, operations, now, live=self._is_live(goal))

    def check_start(self, goal: Goal) -> None:
        """What forbids a start, whatever else is under way.

        :raises Refused: something does.
        """
        if goal.state == to.AS_PREVIOUS:
            mark = str(self._document.live.get("fingerprint") or "")
            known = self._document.is_live(mark, self.before or (), self.operations)
            check_previous(self._document, goal, deployed=self.before is not None, known=known)

    def _is_live(self, goal: Goal) -> bool:
        """Whether what is wanted came by us, is what the space has, and nobody has deployed anything since."""
        live, attempt = self._document.live, self._document.attempt
        if goal.state == to.AS_ABSENT:
            return self.before is None
        if goal.state == to.AS_PREVIOUS:
            return attempt is not None and attempt.type == ROLLBACK and attempt.operation == live.get("operation")
        return not self._split and self._document.is_live(goal.fingerprint, self.before or (), self.operations)
