# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Engines whose sessions check no foreign keys while parents and children move together: they ask afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.participant.constraints import loose
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import Planned, State
from ansible_collections.zdm.landscape.plugins.module_utils.participant.verbs import Verbs

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


@dataclass(frozen=True)
class TiedPlanned(Planned):
    """A planned table with its foreign keys to rows that stay.

    :param ties: see :func:`constraints.ties`.
    """

    ties: tuple[str, ...] = ()


class UncheckedKeys(Verbs):
    """The verbs of such an engine."""

    def refuse_loose(self, connection: Connection, state: State, tenant_id: str) -> None:
        for table in state.in_place:
            rows = f"FROM {self.quote(table.name)} c WHERE {self.rows.has(table, tenant_id)}"
            for tie in cast("TiedPlanned", table).ties:
                query, key = loose(tie, rows, self.quote, self.quote)
                if execute(connection, query).first():
                    raise self.loose(table.name, key, tenant_id)

    def loose(self, table: str, key: str, tenant_id: str) -> Refused:
        """The error of rows that refer to nothing.

        :param key: the foreign key in words.
        """
        return Refused(
            f"{self.label}: {key} of table {table}: rows of {tenant_id} find no row there.",
            f"Insert the row of {tenant_id}, as the application does when it onboards a tenant.",
        )
