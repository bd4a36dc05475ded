# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a database, written once; an engine adds how it reads its catalog and measures its speed."""

from __future__ import annotations

import statistics
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import MissingRight, Refused, Superseded
from ansible_collections.zdm.landscape.plugins.module_utils.participant import strategies
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    FORMAT,
    IGNORE,
    IN_WINDOW,
    STAGED,
    TWIN,
    Inspection,
    Move,
    Refusal,
    TablePlan,
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
from ansible_collections.zdm.landscape.plugins.module_utils.participant.script import script
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


LONG_US = 100_000
"""What takes longer (microseconds) is measured once: it evens out by itself what disturbs short work."""


def typical_us(rows: int, action: Callable[[], object], take_back: Callable[[], object] = lambda: None) -> float:
    """Microseconds per row of *action*, which handles *rows* rows: the median of three, as other work on the host
    disturbs single ones.

    :param take_back: makes it possible to do it again; not measured.
    """
    times: list[float] = []
    while len(times) < 3 and sum(times) * max(rows, 1) < LONG_US:
        if times:
            take_back()
        times.append(per_row_us(rows, action))
    return statistics.median_high(times)


class Planning(Database):
    """Base of the engines: the state row, and the reading half of the verbs."""

    planned: type[Planned] = Planned
    client_wants_delimiters = False
    """Whether the command-line client ends a statement at a semicolon inside the body of a trigger."""

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

    def broken(
        self,
        connection: Connection,
        survey: Survey,
        tables: Sequence[TablePlan],
        unfit: Collection[str],
        live_id: str,
        other_id: str,
    ) -> list[Refusal]:
        """What rows of *live_id* in planned *tables* would break under *other_id*: one query for each constraint.

        :param unfit: tables that are refused already; they may not even be readable.
        """
        dialect = Dialect(self.quote, self.quote, lambda _table, _column, tenant_id: literal(tenant_id))
        found = dangling(survey.catalog, tables, unfit, dialect, live_id, other_id)
        return [refusal for query, refusal in found if execute(connection, query).first()]

    @abstractmethod
    def trigger_tables(self, connection: Connection, migration: str) -> dict[int, str]:
        """By number the table on which a planned table's triggers are now: it may have been renamed."""

    def renamed(self, table: Planned, name: str) -> Planned:
        """A planned table that has another *name* now."""
        return replace(table, name=name)

    @abstractmethod
    def no_such_table(self, error: sa.exc.DBAPIError) -> bool:
        """Whether the statement failed because its table does not exist."""

    @abstractmethod
    def exact(self, column: str, tenant_id: str) -> str:
        """SQL condition: the quoted *column* holds *tenant_id* byte for byte, whatever its collation."""

    @abstractmethod
    def statements(self, connection: Connection, state: State, updates: list[str]) -> tuple[str, ...]:
        """Every statement of stage and barrier around the *updates* of the rows in place, for a DBA to sign."""

    def cautions(self, state: State) -> tuple[str, ...]:
        """What nobody may do to the database from the stage to the end of the transition."""
        del state
        return ()

    @abstractmethod
    def abilities(self) -> Engine:
        """What the classification needs to know of the engine."""

    @abstractmethod
    def state_table(self, migration: str) -> StateTable:
        """Where the migration's state row stands."""

    def grants(self, connection: Connection | None) -> tuple[str, ...]:
        """Every statement, settings of the server too, that lets the participant's user do all the work of a migration.

        It is asked before the first look at tables, which may fail: no right may be needed for it.

        :param connection: None when there is none, as the user may not use the database at all.
        """
        del connection
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

    def found(self, connection: Connection, migration: str) -> State | None:
        """The state row; tables that were renamed since have their new names in it."""
        state = self.state(connection, migration)
        if state is None or state.state in IN_WINDOW:
            return state
        now = self.trigger_tables(connection, migration)
        names = {table.name: now.get(table.number, table.name) for table in state.tables}
        if all(old == new for old, new in names.items()):
            return state
        catalog = self.catalog(connection)
        return state.renamed({old: new for old, new in names.items() if old not in catalog})

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

    def inspect(
        self, migration: str, source_id: str, target_id: str, signed: str = "", live_id: str = ""
    ) -> Inspection:
        grants: tuple[str, ...] | None = None
        try:
            with self.transaction() as connection:
                grants = self.grants(connection)
                found = self._inspected(connection, migration, (source_id, target_id), live_id or source_id, signed)
        except MissingRight as missing:
            found = self._without_rights(missing, self.grants(None) if grants is None else grants)
        return replace(found, grants=script(found.grants or grants or ()))

    def _without_rights(self, missing: MissingRight, grants: tuple[str, ...]) -> Inspection:
        """A plan that can only say what it needs: all at once, so that nobody is asked for rights one by one."""
        needed = script(missing.details.get("grants") or grants)
        statements = " ".join(statement for statement in needed if not statement.startswith("--"))
        advice = f"Let a database administrator run: {statements}" if statements else missing.advice
        return Inspection(
            self.name, self.kind, "", refusals=(Refusal(self.name, missing.message, advice),), grants=needed
        )

    def _inspected(
        self, connection: Connection, migration: str, ids: tuple[str, str], live_id: str, signed: str
    ) -> Inspection:
        state = self.found(connection, migration)
        example = State(migration, 0, STAGED, live_id, *ids, ())
        live, other = (state or example).standing
        survey = self.survey(connection, live, other, state.own_rows if state else ())
        tenant = self.tenant_tables(survey.catalog)
        measured = {name: self.measure(connection, survey.catalog[name], live, other) for name in tenant}
        rates = {name: rate for name, rate in measured.items() if isinstance(rate, Rate)}
        tables, refusals = classify(
            list(survey.catalog.values()),
            self.options,
            self.abilities(),
            rates,
            self.budget_ms,
            {table.name: table.strategy for table in state.tables} if state else {},
            strategies.read(signed, list(tenant)),
        )
        unfit = {refusal.object for refusal in refusals}
        moving = [plan for plan in tables if plan.strategy != IGNORE]
        broken = self.broken(connection, survey, moving, unfit, live, other)
        unable = (found for found in measured.values() if isinstance(found, Refusal))
        known = self._known_again(connection, survey, state, refusals) if state else refusals
        refused = (*known, *self.obstacles(connection), *broken, *unable)
        planned = survey.planned(tables, state.tables if state else ())
        # a twin without a key is refused, and no statement could be written for it
        example = replace(example, tables=tuple(table for table in planned if table.strategy != TWIN or table.key))
        updates = [self.rows.update(table, example.live_id, example.other_id) for table in example.in_place]
        return Inspection(
            participant=self.name,
            kind=self.kind,
            version=survey.version,
            tables=tables,
            refusals=refused,
            stage_ms=sum(table.stage_ms for table in tables),
            window_ms=sum(table.window_ms for table in tables),
            sql=script(self.statements(connection, example, updates), delimiter=self.client_wants_delimiters),
            digest=schema_digest(survey.catalog, tables),
            bystander_ms=sum(table.bystander_ms for table in tables),
            cautions=self.cautions(example),
        )

    def _known_again(
        self, connection: Connection, survey: Survey, state: State, refusals: Sequence[Refusal]
    ) -> tuple[Refusal, ...]:
        """A table that carries the migration's triggers under a name that is not planned was a planned one before
        another took its name: its rows of the other id are copies, and our own fence keeps anybody from removing them.
        """
        there = set(self.trigger_tables(connection, state.migration).values()) - {table.name for table in state.tables}
        return tuple(
            Refusal(
                refusal.object,
                f"Table {refusal.object} was staged under another name, which another table has now.",
                f'Drop it; or, if it is still in use, ignore it (`{refusal.object}: {{ignore: "<reason>"}}`) and stage:'
                " then its triggers go, its rows of the id that is not live can be removed, and it can be staged anew.",
            )
            if refusal.object in there and survey.catalog[refusal.object].rows_of_target
            else refusal
            for refusal in refusals
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
        planned = {
            table.table: table.strategy
            for table in plan.tables
            if table.strategy != IGNORE and table.table in survey.catalog
        }
        tables, refusals = classify(list(survey.catalog.values()), self.options, self.abilities(), {}, 2**62, planned)
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
