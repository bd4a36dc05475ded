# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a window and its stage behave."""

from __future__ import annotations

from dataclasses import dataclass, field

from ansible_collections.zdm.landscape.plugins.module_utils.migration.throttle import Limits
from ansible_collections.zdm.landscape.plugins.module_utils.router.base import HOLD


@dataclass(frozen=True)
class Policy:
    """What a window may cost, in milliseconds, what happens to requests in it (``hold`` or ``reject``), how fast a
    stage may be, how long the way back is planned to stay open after the switch, and how old the last comparison of all
    copies with their originals may be when a window opens."""

    window_budget_ms: int = 20_000
    drain_timeout_ms: int = 2_000
    lease_ms: int = 3_000
    mode: str = HOLD
    throttle: Limits = field(default_factory=Limits)
    transition_ms: int = 28 * 86_400_000
    verified_within_ms: int = 86_400_000
