# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every way to upgrade tenants offers, and how states are told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import ZdmError

PLANNED = "planned"
RUNNING = "running"
UPGRADED = "upgraded"
FAILED = "failed"
UNKNOWN = "unknown"


class UpgradeFailed(ZdmError):
    """At least one tenant could not be upgraded; its job has ended."""


@dataclass(frozen=True)
class TenantState:
    """How far one tenant's upgrade is; ``error`` is its own reason."""

    status: str
    error: str = ""

    @property
    def ended(self) -> bool:
        return self.status in (UPGRADED, FAILED)


@dataclass(frozen=True)
class Progress:
    """What a job says of itself.

    :param ended: nothing more will come.
    :param lost: it ended, or vanished, without telling what became of its tenants; parts of it may still run.
    """

    tenants: dict[str, TenantState]
    ended: bool = False
    lost: str = ""


class Job(ABC):
    """An upgrade that was started.

    :param id: by which a person finds it.
    :param tenants: whom it upgrades; more than were asked for when the other side decides so.
    """

    def __init__(self, job_id: str, tenants: Sequence[str]) -> None:
        self.id, self.tenants = job_id, tuple(tenants)

    @abstractmethod
    def poll(self) -> Progress:
        """Ask how far it is.

        :raises Unreachable: there is no answer now; ask again.
        :raises Refused: the token is not accepted.
        """


class Way(ABC):
    """Who carries upgrades out."""

    @abstractmethod
    def tenants(self) -> list[str]:
        """The ids of all tenants that can be upgraded.

        :raises Unreachable: there is no answer.
        :raises Refused: the token is not accepted.
        """

    @abstractmethod
    def running(self, tenants: Sequence[str]) -> list[Job]:
        """Upgrades of some of *tenants* that somebody started and that have not ended.

        :raises Unreachable: there is no answer.
        """

    @abstractmethod
    def start(self, tenants: Sequence[str]) -> Job:
        """Start to upgrade *tenants*, asynchronously.

        :raises OutcomeUnknown: there is no answer, and the upgrade may have begun.
        :raises Unreachable: there is none that tells.
        :raises Refused: it is refused, nothing has begun.
        """


@dataclass
class Outcome:
    """How a run ended.

    :param tenants: state by id, of all that were wanted.
    :param open_job: the job that has not ended, or of which it is not known; the deployment must not be resumed or
        aborted while it is set.
    :param problem: why the run is no success.
    """

    tenants: dict[str, TenantState] = field(default_factory=dict)
    open_job: str = ""
    problem: ZdmError | None = None

    def of(self, status: str) -> list[str]:
        """The tenants with that status, in order."""
        return [tenant for tenant, state in self.tenants.items() if state.status == status]
