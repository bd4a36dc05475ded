# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Idle applications are stopped right before a resume, and started again where none follows.

The service switches one application after the other: live routes lead to a running idle instance whose environment
still names idle routes that are deleted already, and then that instance is stopped. One that is stopped before is only
started, with its new environment (multiapps-controller, DetermineDesiredStateAchievingActions).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.document import DeploymentDocument
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.presence import Presence
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.watch import Watch


@dataclass(frozen=True)
class IdleStop:
    """The stop of one attempt's idle applications; which they are is written before."""

    document: DeploymentDocument
    presence: Presence
    watch: Watch

    def stop(self) -> bool:
        """Stop them, and wait; whether no instance of them is left. Nothing is done once a resume may have been sent:
        what was idle may be live.
        """
        attempt = self.document.attempt
        if attempt is None or attempt.resumed:
            return True
        guids = {app.guid for app in self.presence.started_idle()} | set(attempt.stopped)
        if not guids:
            return True
        self.document.update(stopped=tuple(sorted(guids)))
        self.watch.say("Stopping the idle applications: live routes are to lead to none that is not switched")
        gone = False

        def wait(condition: Callable[[], bool]) -> None:
            nonlocal gone
            gone = self.watch.wait(condition)

        self.presence.stop(guids, wait)
        return gone

    def take_back(self, *, aborted: bool = False) -> None:
        """Start what was stopped, unless a resume may have been sent.

        :param aborted: the operation was aborted: where no route leads to two versions there was no resume.
        """
        attempt = self.document.attempt
        if attempt is None or not attempt.stopped:
            return
        if attempt.resumed and not (aborted and not self.presence.split()):
            return
        self.watch.say("Starting the idle applications again")
        self.presence.start(attempt.stopped)
        self.document.update(stopped=())
