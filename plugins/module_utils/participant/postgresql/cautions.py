# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a PostgreSQL plan says of the weeks from the stage to the end of the transition."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import IN_PLACE
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.catalog import Detail
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.sql import Work


def cautions_of(tables: Sequence[Work], details: Mapping[str, Detail], holding: Collection[str]) -> tuple[str, ...]:
    """What to mind of planned *tables* and of materialised views, a sentence each.

    :param holding: names of the tables, and of the views with a tenant column.
    """
    views = sorted(name for name, detail in details.items() if detail.is_view and name in holding)
    return (
        *(caution for work in tables for caution in _of_partitions(work, details)),
        *(
            f"after each switch, also back, refresh view {name}: REFRESH MATERIALIZED VIEW {details[name].sql}"
            for name in views
        ),
    )


def _of_partitions(work: Work, details: Mapping[str, Detail]) -> Iterator[str]:
    table = details[work.name].partitioned if work.name in details else None
    if table is None:
        return
    yield f"after a partition of {work.name} is made, attached or detached, no window begins before the next stage"
    moving = sorted(table.key & set(work.columns))
    if not moving:
        return
    if work.strategy == IN_PLACE:
        yield (
            f"each switch writes the tenant's rows of {work.name} anew in other partitions, as {moving[0]} is in its"
            " partition key"
        )
    yield f"do not drop or detach partitions of {work.name} that are for one of the two ids"
