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
    IN_WINDOW,
    RELABEL,
    ROOT,
    STAGED,
    STAYING,
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
    first_line,
    literal,
    per_row_us,
    schema_digest,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import Engine, Rate, TableFacts
from ansible_collections.zdm.landscape.plugins.module_utils.participant.own_ids import (
    OwnIds,
    answered,
    given,
    unfinished,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.proposal.propose import Tenants
from ansible_collections.zdm.landscape.plugins.module_utils.participant.proposal.proposing import Proposing
from ansible_collections.zdm.landscape.plugins.module_utils.participant.root_row import shared_columns
from ansible_collections.zdm.landscape.plugins.module_utils.participant.rows import Rows
from ansible_collections.zdm.landscape.plugins.module_utils.participant.script import script
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import (
    Planned,
    State,
    StateTable,
    Survey,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.tenancy import entries_of

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
        self.rows = Rows(self.quote, self.spell, self.exact, self.label)

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
    def measure(
        self, connection: Connection, table: TableFacts, tenant: Sequence[str], live_id: str, other_id: str
    ) -> Rate | Refusal | None:
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
        moved = {plan.table: self.moved(survey.catalog[plan.table], plan.tenant_columns) for plan in tables}

        def value(table: str, column: str, tenant_id: str) -> str:
            return self.rows.value(moved[table], column, tenant_id)

        dialect = Dialect(self.quote, self.quote, value)
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
    def exact(self, column: str, kind: str, tenant_id: str) -> str:
        """SQL condition: the quoted *column* of a type holds *tenant_id* byte for byte, whatever its collation."""

    def spell(self, kind: str, tenant_id: str) -> str:
        """An id as a literal of a tenant column's type."""
        del kind
        return literal(tenant_id)

    def moved(self, table: TableFacts, columns: Sequence[str]) -> Planned:
        """A table's rows of source and target, found by the tenant *columns*."""
        kinds = {column.name: column.type for column in table.columns}
        return self.planned(
            table.name,
            tuple(columns),
            kinds=tuple(kinds[column] for column in columns),
            ids=self.spelled(table, columns),
        )

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
        if state:
            self.ids = OwnIds.staged(state.tables)
        return state

    def know_one(self, connection: Connection, tenant_id: str) -> None:
        own = (self.options.get("own_ids") or {}).get(tenant_id)
        if self.options.get("id_query"):
            own = self._own_id(connection, self.options["id_query"], tenant_id)
        self.ids = OwnIds({tenant_id: str(own)} if own else {})

    def know(self, connection: Connection, state: State | None, source_id: str, target_id: str) -> list[Refusal]:
        """Find out what the participant calls the tenants, as long as no stage has kept it."""
        if state is not None:
            return []
        self.ids, refusals = OwnIds(), list[Refusal]()
        query = self.options.get("id_query")
        if self.options.get("own_ids"):
            self.ids, refusals = given(self.options, (source_id, target_id), self.name)
        elif query:
            try:
                answers = {tenant: self._own_id(connection, query, tenant) for tenant in (source_id, target_id)}
            except (sa.exc.SQLAlchemyError, Refused) as error:
                reason = first_line(error) if isinstance(error, sa.exc.DBAPIError) else str(error).splitlines()[0]
                return [Refusal(self.name, f"`id_query` of participant {self.name} fails: {reason}", "Correct it.")]
            self.ids, refusals = answered(query, answers, source_id, target_id, self.name)
        return refusals

    def _own_id(self, connection: Connection, query: str, tenant_id: str) -> str | None:
        """:raises Refused: the query finds several rows."""
        with connection.begin_nested():
            found = connection.execute(sa.text(query), {"tenant_id": tenant_id}).fetchmany(2)
        if len(found) > 1:
            raise Refused(f"it finds several rows for {tenant_id}", "Make it find one.")
        value = found[0][0] if found else None
        return f"0x{bytes(value).hex()}" if isinstance(value, bytes | bytearray | memoryview) else value and str(value)

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
                ids = (source_id, target_id)
                look = partial(self._inspected, connection, migration, ids, live_id or source_id, signed)
                tenants = Tenants(*ids, self.options.get("subdomains") or {})
                proposing = Proposing(self, connection, partial(look, measured=False), tenants, live_id or source_id)
                found = proposing.complete(*look())
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
        self,
        connection: Connection,
        migration: str,
        ids: tuple[str, str],
        live_id: str,
        signed: str,
        measured: bool = True,
    ) -> tuple[Inspection, Survey]:
        """:param measured: without it, the predictions are those of the engine in general."""
        state = self.found(connection, migration)
        unknown = self.know(connection, state, *ids)
        example = State(migration, 0, STAGED, live_id, *ids, ())
        live, other = (state or example).standing
        survey = self.survey(connection, live, other, state.own_rows if state else ())
        tenant = self.tenant_tables(survey.catalog)
        samples = {
            name: self.measure(connection, survey.catalog[name], columns, live, other)
            for name, columns in (tenant.items() if measured else ())
        }
        rates = {name: rate for name, rate in samples.items() if isinstance(rate, Rate)}
        tables, refusals = classify(
            list(survey.catalog.values()),
            self.options,
            self.abilities(),
            rates,
            self.budget_ms,
            {table.name: table.strategy for table in state.tables} if state else {},
            strategies.read(signed, list(tenant)),
            self.ids,
        )
        unfit = {refusal.object for refusal in refusals}
        moving = [plan for plan in tables if plan.strategy not in STAYING]
        broken = self.broken(connection, survey, moving, unfit, live, other)
        unable = (found for found in samples.values() if isinstance(found, Refusal))
        known = self._known_again(connection, survey, state, refusals) if state else unfinished(self.ids, refusals)
        refused = (*unknown, *known, *self.obstacles(connection), *broken, *unable)
        planned = self._planned(survey, tables, state.tables if state else ())
        # a twin without a key is refused, and no statement could be written for it
        example = replace(example, tables=tuple(table for table in planned if table.strategy != TWIN or table.key))
        tables = tuple(self._with_difference(connection, survey, plan, example) for plan in tables)
        updates = [self.rows.update(table, example.live_id, example.other_id) for table in example.in_place]
        found = Inspection(
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
        return found, survey

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
        self.refuse(self.know(connection, state, move.source_id, move.target_id))
        survey = self.survey(connection, move.from_id, move.to_id, state.own_rows if state else ())
        planned = {
            table.table: table.strategy
            for table in plan.tables
            if table.strategy not in STAYING and table.table in survey.catalog
        }
        facts = list(survey.catalog.values())
        tables, refusals = classify(facts, self.options, self.abilities(), {}, 2**62, planned, ids=self.ids)
        self.refuse(refusals)
        if schema_digest(survey.catalog, tables) != plan.digest:
            raise Refused(
                f"{self.label}: the schema has changed since the plan was made.", "Make a new plan, then stage again."
            )
        return self._planned(survey, tables, state.tables if state else ())

    def differing(self, connection: Connection, table: Planned, live_id: str, other_id: str) -> tuple[str, ...]:
        """Columns in which the rows of both ids of a root differ, where both are there."""
        del connection, table, live_id, other_id
        return ()

    def _with_difference(self, connection: Connection, survey: Survey, plan: TablePlan, state: State) -> TablePlan:
        """A root whose other row is nobody's copy says in what it differs."""
        if plan.strategy != ROOT or not survey.catalog[plan.table].rows_of_target:
            return plan
        table = next(table for table in state.roots if table.name == plan.table)
        columns = self.differing(connection, table, state.live_id, state.other_id)
        differs = f"; it differs in {', '.join(columns)}" if columns else ""
        return replace(plan, why=f"{plan.why} The row of {state.other_id} is there and stays as it is{differs}.")

    def _values(self, survey: Survey, table: str, values: Mapping[str, Any]) -> dict[str, str]:
        """Values that the options give, as literals."""
        kinds = {column.name: column.type for column in survey.catalog[table].columns}
        return {
            column: "NULL" if value is None else self.spell(kinds[column], str(value))
            for column, value in values.items()
            if column in kinds
        }

    def _planned(self, survey: Survey, tables: Sequence[TablePlan], known: Sequence[Planned]) -> tuple[Planned, ...]:
        """The planned tables with what the participant calls the tenants in each."""
        result = []
        chosen = {plan.table: plan.strategy for plan in tables}
        for table in survey.planned(tables, known):
            rows = self.moved(survey.catalog[table.name], table.columns)
            entry, root = entries_of(self.options).get(table.name, {}), self.ids.root
            named = replace(table, strategy=chosen[table.name], kinds=rows.kinds, ids=rows.ids)
            if named.strategy == ROOT:
                new_row = entry.get("new_row") or {}
                shared = shared_columns(survey.catalog[table.name], table.columns[0], new_row)
                named = replace(named, copied=shared, key=(), new_row=self._values(survey, table.name, new_row))
            if named.strategy == RELABEL and root:
                named = replace(named, root_key=root.key, root_ids=dict(self.ids.known))
            result.append(named)
        return tuple(result)

    def refuse(self, refusals: Sequence[Refusal]) -> None:
        """:raises Refused: there are any."""
        if refusals:
            raise Refused(
                f"{self.label}: {refusals[0].reason}",
                refusals[0].advice,
                refusals=[asdict(refusal) for refusal in refusals],
            )
