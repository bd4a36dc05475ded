# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the option group POLICY."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  policy:
    description: What a window may cost. Durations are written V(500ms), V(20s), V(5m), V(12h) or V(28d).
    type: dict
    suboptions:
      window_budget:
        description: A window that is predicted to be longer is refused.
        type: str
        default: 20s
      drain_timeout:
        description: How long to wait for requests that are in flight, before the window is undone and the slow request named.
        type: str
        default: 2s
      lease:
        description: A controller that dies before the routers are closed blocks the tenants no longer than this and 100 ms.
        type: str
        default: 3s
      mode:
        description: What happens to requests that arrive in the window. V(hold) lets them wait, V(reject) answers 503 with C(Retry-After).
        type: str
        choices: [hold, reject]
        default: hold
"""
