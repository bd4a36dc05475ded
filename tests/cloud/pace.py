# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the platform takes. Its steps come in the real order whatever the durations are."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """Durations in seconds, besides the time that the applications need themselves.

    :param bindings_s: the least and the most that managing the bindings of one application takes.
    :param resume_s: how long an operation still says ACTION_REQUIRED after its resume was accepted.
    :param stop_s: how long an instance that was told to stop is still seen, at least.
    """

    bindings_s: tuple[float, float] = (0.0, 0.0)
    resume_s: float = 0.0
    stop_s: float = 0.0

    def scaled(self, factor: float) -> Pace:
        least, most = self.bindings_s
        return Pace((least * factor, most * factor), self.resume_s * factor, self.stop_s * factor)

    def bindings(self) -> float:
        """How long it takes this time."""
        return random.uniform(*self.bindings_s)


REAL = Pace((3.0, 10.0), 0.5, 1.0)
"""Bindings take 3 to 10 seconds on the real platform; how long a resume is seen as ACTION_REQUIRED is a guess."""
