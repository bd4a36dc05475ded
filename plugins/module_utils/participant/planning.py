# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a database, written once; an engine adds how it reads its catalog and measures its speed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused, Superseded
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    FORMAT,
    IGNORE,
    STAGED,
    Inspection,
    Move,
    Refusal,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.classify import classify
from ansible_collections.zdm.landscape.plugins.module_utils.participant.constraints import Dialect, dangling
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import (
    Database,
    execute,
    literal,
    per_row_us,
    schema_digest,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import Engine, Rate, TableFacts
from ansible_collections.zdm.landscape.plugins.module_utils.participant.rows import Rows
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import (
    Planned,
    State,
    StateTable,
    Survey,
)

with suppress(ImportError):  # Database refuses to be built without it
    import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


class Planning(Database):
    """Base of the engines: the state row, and the reading half of the verbs."""

    planned: type[Planned] = Planned

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.rows = Rows(self.quote, self.exact, self.label)

    # -- what an engine adds ----------------------------------------------------------------------

    @abstractmethod
    def survey(self, connection: Connection, live_id: str, other_id: str, own_rows: Collection[str]) -> Survey:
        """The catalog with rows, triggers and notes of the engine. Changes nothing.

        :param own_rows: tables in which rows of *other_id* are the migration's own.
        """

    @abstractmethod
    def obstacles(self, connection: Connection) -> tuple[Refusal, ...]:
        """What stands in the way of planning and staging beside the tables: the server, rights, long transactions."""

    @abstractmethod
    def measure(self, connection: Connection, table: TableFacts, live_id: str, other_id: str) -> Rate | Refusal | None:
        """Measured cost per row, or why the table cannot take the other id; None when there is nothing to measure."""

    @abstractmethod
    def no_such_table(self, error: sa.exc.DBAPIError) -> bool:
        """Whether the statement failed because its table does not exist."""

    @abstractmethod
    def exact(self, column: str, tenant_id: str) -> str:
        """SQL condition: the quoted *column* holds *tenant_id* byte for byte, whatever its collation."""

    @abstractmethod
    def statements(self, state: State, updates: list[str]) -> tuple[str, ...]:
        """Every statement of stage and barrier around the *updates* of the rows in place, for a DBA to sign."""

    @abstractmethod
    def abilities(self) -> Engine:
        """What the classification needs to know of the engine."""

    @abstractmethod
    def state_table(self, migration: str) -> StateTable:
        """Where the migration's state row stands."""

    def grants(self) -> tuple[str, ...]:
        """The GRANT statements that the participant's user needs."""
        return ()

    # -- the state row ----------------------------------------------------------------------------

    def state(self, connection: Connection, migration: str, lock: bool = False) -> State | None:
        """The state row; None when there is none.

        :raises Refused: a newer version of the collection wrote it.
        """
        try:
            state = self.state_table(migration).read(connection, migration, lock)
        except sa.exc.DBAPIError as error:
            # asking the catalog first would cost every verb of a window a few milliseconds
            if not self.no_such_table(error):
                raise
            return None
        if state and state.format > FORMAT:
            raise Refused(
                f"{self.label}: a newer version of the collection staged migration {migration}.",
                "Use that version or a newer one.",
            )
        return state

    def write_state(self, connection: Connection, state: State, insert: bool = False) -> None:
        """Write the state row, in the transaction that did the work."""
        self.state_table(state.migration).write(connection, state, insert)

    def staged_state(self, connection: Connection, move: Move, lock: bool = False) -> State:
        """The state row of a controller that may go on.

        :raises Refused: not staged, or staged for other ids.
        :raises Superseded: a newer controller was here.
        """
        state = self.state(connection, move.migration, lock)
        if state is None:
            raise Refused(f"{self.label}: migration {move.migration} is not staged.", "Run the stage playbook first.")
        self.check_owner(state, move)
        return state

    def check_owner(self, state: State, move: Move) -> None:
        """See :meth:`staged_state`."""
        if move.epoch < state.epoch:
            raise Superseded(
                f"{self.label}: epoch {move.epoch} of migration {move.migration} is over, epoch {state.epoch} has taken"
                " over.",
                "Leave it to the newer run, or run the same command again.",
            )
        if (state.source_id, state.target_id) != (move.source_id, move.target_id):
            raise Refused(
                f"{self.label}: migration {move.migration} is staged for the ids {state.source_id} and"
                f" {state.target_id}, not for these.",
                "Remove the stage (abort) before you stage it for other ids.",
            )

    # -- plan -------------------------------------------------------------------------------------

    @abstractmethod
    def found(self, connection: Connection, migration: str) -> State | None:
        """The state row; tables that were renamed since have their new names in it."""

    def inspect(self, migration: str, source_id: str, target_id: str) -> Inspection:
        with self.transaction() as connection:
            state = self.found(connection, migration)
            live, other = state.standing if state else (source_id, target_id)
            survey = self.survey(connection, live, other, state.own_rows if state else ())
            tenant = self.tenant_tables(survey.catalog)
            measured = {name: self.measure(connection, survey.catalog[name], live, other) for name in tenant}
            rates = {name: rate for name, rate in measured.items() if isinstance(rate, Rate)}
            staged = {table.name: table.strategy for table in state.tables} if state else {}
            tables, refusals = classify(
                list(survey.catalog.values()), self.options, self.abilities(), rates, self.budget_ms, staged
            )
            dialect = Dialect(self.quote, self.quote, lambda _table, _column, tenant_id: literal(tenant_id))
            keys = [
                refusal
                for query, refusal in dangling(survey.catalog, tables, dialect, live, other)
                if execute(connection, query).first()
            ]
            obstacles = (*self.obstacles(connection), *keys)
        planned = survey.planned(tables, state.tables if state else ())
        example = State(migration, 0, STAGED, source_id, source_id, target_id, planned)
        return Inspection(
            participant=self.name,
            kind=self.kind,
            version=survey.version,
            tables=tables,
            refusals=(*refusals, *obstacles, *(found for found in measured.values() if isinstance(found, Refusal))),
            stage_ms=sum(table.stage_ms for table in tables),
            window_ms=sum(table.window_ms for table in tables),
            sql=self.statements(example, [self.rows.update(table, source_id, target_id) for table in example.in_place]),
            grants=self.grants(),
            digest=schema_digest(survey.catalog, tables),
        )

    def move_to_and_fro(self, connection: Connection, probe: Planned, rows: int, live_id: str, other_id: str) -> float:
        """Microseconds that one of the probe's *rows* takes to move: the median of three, as other work on the host
        disturbs single ones.
        """
        ways = ((live_id, other_id), (other_id, live_id), (live_id, other_id))
        return sorted(
            per_row_us(rows, partial(execute, connection, self.rows.update(probe, old, new))) for old, new in ways
        )[1]

    def present(self, connection: Connection, move: Move, plan: Inspection, state: State | None) -> tuple[Planned, ...]:
        """The planned tables as the catalog is now.

        :raises Refused: the catalog refuses the migration, or is not the one that was planned.
        """
        survey = self.survey(connection, move.from_id, move.to_id, state.own_rows if state else ())
        strategies = {
            table.table: table.strategy
            for table in plan.tables
            if table.strategy != IGNORE and table.table in survey.catalog
        }
        tables, refusals = classify(
            list(survey.catalog.values()), self.options, self.abilities(), {}, 2**62, strategies
        )
        self.refuse(refusals)
        if schema_digest(survey.catalog, tables) != plan.digest:
            raise Refused(
                f"{self.label}: the schema has changed since the plan was made.", "Make a new plan, then stage again."
            )
        return survey.planned(tables, state.tables if state else ())

    def refuse(self, refusals: Sequence[Refusal]) -> None:
        """:raises Refused: there are any."""
        if refusals:
            raise Refused(
                f"{self.label}: {refusals[0].reason}",
                refusals[0].advice,
                refusals=[asdict(refusal) for refusal in refusals],
            )
