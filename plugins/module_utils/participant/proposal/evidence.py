# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a sample of the rows says that no catalog does: which columns hold a tenant's id, and how it is written."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import SAMPLE_ROWS, execute, literal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import Column, TableFacts
from ansible_collections.zdm.landscape.plugins.module_utils.participant.own_ids import OwnIds
from ansible_collections.zdm.landscape.plugins.module_utils.participant.proposal.names import (
    is_tenant_like,
    polymorphic,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.proposal.spelling import (
    family,
    fitting,
    is_text,
)

with suppress(ImportError):
    import sqlalchemy as sa

if TYPE_CHECKING:
    from ansible_collections.zdm.landscape.plugins.module_utils.participant.planning import Planning
    from sqlalchemy.engine import Connection

Place = tuple[str, str]
"""Table and column."""
_KINDS = 20


@dataclass(frozen=True)
class Evidence:
    """What was found for the id that is live.

    :param held: by place the way in which the id is written there; see :func:`.spelling.spellings`.
    :param inside: places whose text or JSON holds the id among other things.
    :param own: places that hold the participant's own id.
    :param named: places of keys that hold the tenant's subdomain.
    :param kinds: by place of a column that says to what kind of row another one refers, its values.
    """

    held: Mapping[Place, str] = field(default_factory=dict)
    inside: frozenset[Place] = frozenset()
    own: frozenset[Place] = frozenset()
    kinds: Mapping[Place, tuple[str, ...]] = field(default_factory=dict)
    named: frozenset[Place] = frozenset()


def unique_columns(table: TableFacts) -> set[str]:
    """Columns that are a key by themselves."""
    keys = (table.primary_key, *(key.columns for key in table.unique_keys if key.whole))
    return {key[0] for key in keys if len(key) == 1}


class Search:
    """One look at a database, which asks each table no more than four questions.

    :param unclear: tables of which nobody said what they hold: all their columns are looked at.
    :param doubted: columns by table that should hold the id, and may hold it written in another way.
    """

    def __init__(
        self,
        database: Planning,
        connection: Connection,
        catalog: Mapping[str, TableFacts],
        unclear: Collection[str],
        doubted: Mapping[str, Sequence[str]],
    ) -> None:
        self.database, self.connection = database, connection
        self.catalog, self.unclear, self.doubted = catalog, unclear, doubted

    def run(self, live_id: str, ids: OwnIds, subdomain: str = "") -> Evidence:
        """Look for *live_id*, for its *subdomain*, and for what the participant calls it."""
        held: dict[Place, str] = {}
        inside, own, named = set[Place](), set[Place](), set[Place]()
        kinds: dict[Place, tuple[str, ...]] = {}
        for name, table in self.catalog.items():
            held |= self._held(table, live_id)
            doubted = [column for column in table.columns if column.name in self.doubted.get(name, ())]
            own |= self._among(table, doubted, ids.known.get(live_id, ""))
            unique = unique_columns(table)
            keys = [column for column in table.columns if column.name in unique and family(column.type) == "text"]
            named |= self._among(table, keys, subdomain)
            if name in self.unclear:
                texts = [column for column in table.columns if is_text(column.type) and (name, column.name) not in held]
                inside |= set(self._true([((name, each.name), self._mentions(name, each, live_id)) for each in texts]))
                kinds |= self._kinds_of(table)
        return Evidence(held, frozenset(inside), frozenset(own), kinds, frozenset(named))

    def _held(self, table: TableFacts, live_id: str) -> dict[Place, str]:
        questions = [
            ((column.name, way), self._holds(table, column, text))
            for column in self._candidates(table)
            for way, text in fitting(column.type, live_id).items()
        ]
        found: dict[Place, str] = {}
        for column, way in self._true(questions):
            found.setdefault((table.name, column), way)
        return found

    def _among(self, table: TableFacts, columns: Sequence[Column], text: str) -> set[Place]:
        """Which of *columns* hold a text."""
        asked = [((table.name, column.name), self._holds(table, column, text)) for column in columns]
        return set(self._true(asked)) if text else set()

    def _candidates(self, table: TableFacts) -> list[Column]:
        if table.name in self.unclear:
            return list(table.columns)
        wanted = {*unique_columns(table), *self.doubted.get(table.name, ())}
        return [column for column in table.columns if column.name in wanted]

    def _holds(self, table: TableFacts, column: Column, text: str) -> str:
        """A condition that is true when the column holds *text*; where no index and no name helps, of a sample."""
        name, whole = self.database.quote(column.name), self.database.table_sql(table.name)
        same = f"{name} = {self.database.spell(column.type, text)}"
        if column.name in self.doubted.get(table.name, ()):
            same = f"{same} AND {self.database.exact(name, column.type, text)}"
        elif column.name not in unique_columns(table) and not is_tenant_like(column.name):
            whole = f"(SELECT {name} FROM {whole} LIMIT {SAMPLE_ROWS}) s"
        return f"EXISTS (SELECT 1 FROM {whole} WHERE {same})"

    def _mentions(self, table: str, column: Column, text: str) -> str:
        name = self.database.quote(column.name)
        sample = f"(SELECT {name} FROM {self.database.table_sql(table)} LIMIT {SAMPLE_ROWS}) s"
        like = f"CAST({name} AS {self.database.text_type}) LIKE {literal(f'%{text}%')}"
        return f"EXISTS (SELECT 1 FROM {sample} WHERE {like})"

    def _true(self, questions: Sequence[tuple[Place, str]]) -> Iterator[Place]:
        """Those whose condition is true; none where the table cannot be read."""
        if not questions:
            return
        asked = ", ".join(f"CASE WHEN {condition} THEN 1 ELSE 0 END" for _place, condition in questions)
        for row in self._rows(f"SELECT {asked}"):
            yield from (place for (place, _condition), answer in zip(questions, row, strict=True) if answer)

    def _kinds_of(self, table: TableFacts) -> dict[Place, tuple[str, ...]]:
        found = {}
        for kind, _reference in polymorphic(table):
            name, whole = self.database.quote(kind), self.database.table_sql(table.name)
            sample = f"(SELECT {name} FROM {whole} LIMIT {SAMPLE_ROWS}) s"
            rows = self._rows(f"SELECT DISTINCT {name} FROM {sample} WHERE {name} IS NOT NULL LIMIT {_KINDS}")
            found[table.name, kind] = tuple(sorted(str(row[0]) for row in rows))
        return found

    def _rows(self, statement: str) -> Sequence[Sequence[object]]:
        try:
            with self.connection.begin_nested():
                return list(execute(self.connection, statement))
        except sa.exc.DBAPIError as error:
            if error.connection_invalidated:
                raise
            return []  # what cannot be read, or compared, is no evidence
