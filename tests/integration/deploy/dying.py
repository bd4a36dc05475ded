# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs that die at a certain step of the switch to version 1.1.0."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from ansible_collections.zdm.landscape.tests.integration.deploy.kit import Bench


class Killed(BaseException):
    """The run ends here."""


def kill_before(bench: Bench, monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    """A run that dies right before it asks for *action*."""
    deployment, stack = bench.deployment("deployed", "1.1.0")

    def die(_operation: str, asked: str) -> bool:
        assert asked == action
        raise Killed

    with stack, monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(deployment._service, "act", die)
        deployment.run()


def kill_after_the_stop(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that dies when the idle applications are stopped."""
    deployment, stack = bench.deployment("deployed", "1.1.0")

    def die(_decision: Any, _own: Any) -> None:
        raise Killed

    with stack, monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(deployment, "_act", die)
        deployment.run()


def idle(bench: Bench) -> dict[str, str]:
    """The states of the idle applications, by name."""
    return {app.name: app.state for app in bench.cloud.space.apps.values() if app.name.endswith("-idle")}
