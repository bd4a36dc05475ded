# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps a window's leases alive until the close, so that a dead controller blocks nobody longer than one lease (rule
2).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.router.fleet import Fleet


class LeaseKeeper:
    """Blocks ids with a lease on all routers and renews it three times per lease until :meth:`stop`."""

    def __init__(self, fleet: Fleet, lease_ms: int, mode: str) -> None:
        self._fleet = fleet
        self._lease_ms = lease_ms
        self._mode = mode
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, migration: str, epoch: int, ids: Sequence[str]) -> None:
        """Block now; the caller's error when a router refuses or does not answer."""
        self._fleet.lease(migration, epoch, ids, self._lease_ms, self._mode)
        self._stop.clear()
        self._thread = threading.Thread(target=self._renew, args=(migration, epoch, ids), name="zdm-lease", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """After this no renewal is sent any more: none may follow the release."""
        self._stop.set()
        if self._thread:
            self._thread.join()
            self._thread = None

    def _renew(self, migration: str, epoch: int, ids: Sequence[str]) -> None:
        while not self._stop.wait(self._lease_ms / 3000):
            try:
                self._fleet.lease(migration, epoch, ids, self._lease_ms, self._mode)
            except ZdmError:
                # A lease that ends is made good by the second drain; the next step meets the same error and tells it.
                continue
