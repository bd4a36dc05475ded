# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the option group POLICY."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  policy:
    description: What a window may cost, and how fast a stage may be. Durations are written V(500ms), V(20s), V(5m),
      V(12h) or V(28d).
    type: dict
    suboptions:
      window_budget:
        description: A window that is predicted to be longer is refused.
        type: str
        default: 20s
      drain_timeout:
        description: How long to wait for requests that are in flight, before the window is undone and the slow request
          named.
        type: str
        default: 2s
      lease:
        description: A controller that dies before the routers are closed blocks the tenants no longer than this and 100
          ms.
        type: str
        default: 3s
      mode:
        description: What happens to requests that arrive in the window. V(hold) lets them wait, V(reject) answers 503
          with C(Retry-After).
        type: str
        choices: [hold, reject]
        default: hold
      transition:
        description:
          - How long the way back is planned to stay open after the switch. M(zdm.landscape.migration_info) tells what
            is left of it.
          - Nothing happens by itself when it is over.
        type: str
        default: 28d
      verified_within:
        description: How old the last comparison of all copies with their originals may be when a window opens. The
          stage compares anew what was compared before that.
        type: str
        default: 24h
      throttle:
        description:
          - How fast rows may be copied, and deleted again.
          - All limits hold together; between two chunks of rows the work waits until all allow the next one.
          - A running stage can be given other limits, see M(zdm.landscape.tenant_throttle).
        type: dict
        suboptions:
          rows_per_second:
            description: Rows per second over all databases; 0 is no limit. Rows are copied in chunks of 2,000 to
              10,000.
            type: int
          max_replica_lag:
            description:
              - The stage waits while a replica of a PostgreSQL database is further behind; V(none) is no limit.
              - Other databases do not know the lag of their replicas, so it has no effect on them. Refused when no
                database is PostgreSQL.
            type: str
          max_latency:
            description: The stage waits while an endpoint of C(health) takes longer to answer, does not answer or
              answers 5xx; V(none) is no limit.
            type: str
"""
