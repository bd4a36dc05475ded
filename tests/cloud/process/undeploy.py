# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The removal of an MTA."""

from __future__ import annotations

from .common import Process, Step


class Undeploy(Process):
    """All applications of the MTA go, whatever their suffix; services go only when that is asked for. What is not there
    is no error, and the applications that are kept for a rollback stay.
    """

    def steps(self) -> list[Step]:
        return [self._lock, self._remove]

    def _remove(self) -> None:
        mta = self._operation.mta_id
        self._at("undeploy")
        if not self._apps() and not self._services_there():
            self._say(f'No deployed MTA with ID "{mta}" detected', "WARNING")
        for app in self._apps():
            self._at(f"undeploy {app.name}")
            self._fail_at(f"undeploy {app.name}")
            self._undeploy(app)
        self._release(self._services_there())
