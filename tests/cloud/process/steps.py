# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which process an operation runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..parameters import BLUE_GREEN, DEPLOY, ROLLBACK, UNDEPLOY
from .blue_green import BlueGreen
from .common import Process, Step
from .deploy import Deploy
from .rollback import Rollback
from .undeploy import Undeploy

if TYPE_CHECKING:
    from ..controller import Controller, Operation

_PROCESSES: dict[str, type[Process]] = {
    DEPLOY: Deploy,
    BLUE_GREEN: BlueGreen,
    UNDEPLOY: Undeploy,
    ROLLBACK: Rollback,
}


def steps_of(controller: Controller, operation: Operation) -> list[Step]:
    """The steps of an operation, in their order."""
    return _PROCESSES[operation.type](controller, operation).steps()
