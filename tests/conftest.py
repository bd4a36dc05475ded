# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A busy machine is no failure: Hypothesis does not judge how long an example takes, and leaves no database behind.

A run in the background has SIGINT ignored, and so would every process that a test starts and interrupts.
"""

from __future__ import annotations

import signal

from hypothesis import settings

settings.register_profile("zdm", deadline=None, database=None)
settings.load_profile("zdm")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
