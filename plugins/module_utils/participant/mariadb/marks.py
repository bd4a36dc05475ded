# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What planned tables and the migration's triggers on them look like in MariaDB's catalog.

Every part of the one query names schema and table by equality, so the server opens that table only (MariaDB manual,
"Information Schema optimization"): thirty tables take about 25 ms, however many others there are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ansible_collections.zdm.landscape.plugins.module_utils.core.names import short_hash
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import TWIN
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import digest_of, execute
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.sql import log_name, text
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.triggers import SIDES, Trigger
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import Planned

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

_TABLES_A_QUERY = 50
_OURS = re.compile("zdm_[0-9a-f]{8}_")

Row = tuple[str, ...]


@dataclass
class Look:
    """What was found of one table.

    :param triggers: the migration's own: by name their event, timing, definer, time of creation and MD5 of the body.
    :param helpers: names of its log tables and procedures, these with their times.
    """

    there: bool = False
    shape: list[Row] = field(default_factory=list)
    triggers: dict[str, Row] = field(default_factory=dict)
    helpers: list[Row] = field(default_factory=list)

    @property
    def mark(self) -> str:
        return f"{digest_of(sorted(self.shape))[:16]}|{self.own_mark}"

    @property
    def own_mark(self) -> str:
        """Whatever drops a trigger or makes one anew changes the time of its creation."""
        return digest_of([sorted(self.triggers.items()), sorted(self.helpers)])[:16]

    def has(self, wanted: Iterable[Trigger]) -> bool:
        """Whether the triggers are as they should be, whoever made them and when."""
        found = {name: (row[0], row[1], row[4]) for name, row in self.triggers.items()}
        return found == {trigger.name: (trigger.event, trigger.timing, _md5(trigger.body)) for trigger in wanted}


def _md5(text: str) -> str:
    """As the server has it."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def look(connection: Connection, database: str, migration: str, tables: Sequence[Planned]) -> dict[str, Look]:
    """Look at planned tables, by their names."""
    found = {table.number: Look() for table in tables}
    for first in range(0, len(tables), _TABLES_A_QUERY):
        parts = [
            part for table in tables[first : first + _TABLES_A_QUERY] for part in _parts(database, migration, table)
        ]
        parts += [] if first else [_procedures(database, migration)]
        for number, kind, *values in execute(connection, " UNION ALL ".join(parts)):
            at = int(number) if int(number) >= 0 else int(str(values[0]).split("_")[-2])
            if at in found:
                _note(found[at], str(kind), [str(value) for value in values], migration)
    return {table.name: found[table.number] for table in tables}


def _note(seen: Look, kind: str, values: list[str], migration: str) -> None:
    name, *rest = values
    if kind == "helper":
        seen.helpers.append(tuple(values))
    elif kind == "trigger" and name.startswith(f"zdm_{short_hash(migration)}_"):
        seen.triggers[name] = tuple(rest)
    elif kind == "trigger" and not _OURS.match(name):  # of the application; another migration's is no matter
        seen.shape.append((kind, name, *rest[:2]))
    elif kind != "trigger":
        seen.there = True
        seen.shape.append((kind, *values))


def _parts(database: str, migration: str, table: Planned) -> Iterator[str]:
    """SELECTs of the table's number, a kind, a name and five values."""
    here, name, number = text(database), text(table.name), table.number
    of_table = f"table_schema = {here} AND table_name = {name}"
    yield (
        f"SELECT {number}, 'trigger', trigger_name, event_manipulation, action_timing, definer, CAST(created AS CHAR),"
        f" MD5(action_statement) FROM information_schema.triggers WHERE event_object_schema = {here} AND"
        f" event_object_table = {name}"
    )
    # every ALTER makes the table's definition anew; a column that was dropped and made again shows in nothing else
    yield (
        f"SELECT {number}, 'made', '', CAST(create_time AS CHAR), '', '', '', '' FROM"
        f" information_schema.tables WHERE {of_table}"
    )
    yield (
        f"SELECT {number}, 'column', column_name, column_type, is_nullable, COALESCE(collation_name, ''), extra,"
        f" is_generated FROM information_schema.columns WHERE {of_table}"
    )
    yield (
        f"SELECT {number}, 'unique', index_name, seq_in_index, column_name, COALESCE(sub_part, ''), '', '' FROM"
        f" information_schema.statistics WHERE {of_table} AND non_unique = 0"
    )
    yield (
        f"SELECT {number}, 'foreign', constraint_name, column_name, referenced_table_name, referenced_column_name, '',"
        f" '' FROM information_schema.key_column_usage WHERE {of_table} AND referenced_table_name IS NOT NULL"
    )
    yield (
        f"SELECT {number}, 'rule', constraint_name, delete_rule, update_rule, referenced_table_name, '', '' FROM"
        f" information_schema.referential_constraints WHERE constraint_schema = {here} AND table_name = {name}"
    )
    for side in SIDES if table.strategy == TWIN else ():
        yield (
            f"SELECT {number}, 'helper', table_name, '', '', '', '', '' FROM information_schema.tables WHERE"
            f" table_schema = {here} AND table_name = {text(log_name(migration, side, table.number))}"
        )


def _procedures(database: str, migration: str) -> str:
    """All of the migration's: looked up one by one they would take longer than all others together."""
    prefix = f"zdm_note_{short_hash(migration)}_".replace("_", r"\_")
    return (
        "SELECT -1, 'helper', routine_name, definer, CAST(created AS CHAR), CAST(last_altered AS CHAR), '', '' FROM"
        f" information_schema.routines WHERE routine_schema = {text(database)} AND routine_name LIKE '{prefix}%'"
    )
