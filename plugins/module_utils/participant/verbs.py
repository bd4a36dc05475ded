# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs of a database, written once; an engine adds locks, fences, helpers and, where it can, twins.

Barrier, turn and undo are each one transaction that brings the twins up to date, moves the rows in place, sets the
fences and writes the state row together: a crash leaves the state right before or right after. The state row is the
only row of ``zdm_migration_<hash>``.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused, Superseded, Timeout
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    ABSENT,
    APPLY,
    BARRED,
    FORMAT,
    IGNORE,
    STAGED,
    STAGING,
    Inspection,
    Move,
    Progress,
    Refusal,
    Status,
    untold,
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
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import (
    Planned,
    Rows,
    State,
    Survey,
    read_state,
    write_state,
)

with suppress(ImportError):  # Database refuses to be built without it
    import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

VERB_TIMEOUT_MS = 10_000
"""How long (milliseconds) a verb without a time-out of its own waits for locks."""
LEFT_FOR_THE_BARRIER = 20
"""Logged keys that the barrier may apply itself."""

T = TypeVar("T")


class Verbs(Database):
    """Base of the engines whose window is one transaction per verb. Each public verb keeps the contract of
    :class:`Participant`.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.rows = Rows(self.quote, self.exact, self.label)

    # -- what an engine adds ----------------------------------------------------------------------

    @abstractmethod
    def in_window(self, move: Move, timeout_ms: int, work: Callable[[Connection, State], T]) -> T:
        """Run *work* in one write transaction that holds the state row; the epoch has been checked. *work* may run
        again after a deadlock.

        :raises Refused: not staged.
        :raises Timeout: a lock was not to be had.
        """

    @abstractmethod
    def exclude_writers(self, connection: Connection, state: State) -> None:
        """Wait until every transaction that wrote rows of either id has ended, and keep new ones waiting until this one
        ends.
        """

    @abstractmethod
    def exempt(self, connection: Connection, state: State) -> None:
        """Let this transaction's own writes pass the fences."""

    @abstractmethod
    def set_fences(self, connection: Connection, state: State, fenced: Iterable[str]) -> None:
        """Fence exactly these ids on every planned table, in the running transaction."""

    @abstractmethod
    def fenced(self, connection: Connection, state: State) -> tuple[str, ...]:
        """Ids that every planned table fences, by the catalog."""

    def catch_up(self, connection: Connection, state: State) -> int:
        """Apply logged keys of the live id to the twins and verify them; how many, 0 when none were left."""
        del connection, state
        return 0

    def pending(self, connection: Connection, state: State) -> int:
        """Logged keys of the live id that the twins have not got yet."""
        del connection, state
        return 0

    @abstractmethod
    def install(self, move: Move, state: State, progress: Progress) -> int:
        """Create state row and fences (the id that is not live is fenced), fill the twins, end in *state*. Resumes.
        Returns the rows copied.
        """

    @abstractmethod
    def uninstall(self, move: Move, progress: Progress) -> int:
        """Delete the twins of ``to_id`` and drop every helper object of the migration. Resumes. Returns the rows
        deleted.
        """

    @abstractmethod
    def leftovers(self, connection: Connection, migration: str) -> tuple[str, ...]:
        """Names of the migration's helper objects in the catalog."""

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

    def move_to_and_fro(self, connection: Connection, probe: Planned, rows: int, live_id: str, other_id: str) -> float:
        """Microseconds that one of the probe's *rows* takes to move: the median of three, as other work on the host
        disturbs single ones.
        """
        ways = ((live_id, other_id), (other_id, live_id), (live_id, other_id))
        return sorted(
            per_row_us(rows, partial(execute, connection, self.rows.update(probe, old, new))) for old, new in ways
        )[1]

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

    def grants(self) -> tuple[str, ...]:
        """The GRANT statements that the participant's user needs."""
        return ()

    # -- checks -----------------------------------------------------------------------------------

    def state(self, connection: Connection, migration: str, lock: bool = False) -> State | None:
        """The state row; None when there is none.

        :raises Refused: a newer version of the collection wrote it.
        """
        try:
            state = read_state(connection, migration, lock)
        except (
            sa.exc.DBAPIError
        ) as error:  # asking the catalog first would cost every verb of a window a few milliseconds
            if not self.no_such_table(error):
                raise
            return None
        if state and state.format > FORMAT:
            raise Refused(
                f"{self.label}: a newer version of the collection staged migration {migration}.",
                "Use that version or a newer one.",
            )
        return state

    def staged_state(self, connection: Connection, move: Move, lock: bool = False) -> State:
        """The state row of a controller that may go on.

        :raises Refused: not staged.
        :raises Superseded: a newer controller was here.
        """
        state = self.state(connection, move.migration, lock)
        if state is None:
            raise Refused(f"{self.label}: migration {move.migration} is not staged.", "Run the stage playbook first.")
        self.check_epoch(state, move)
        return state

    def check_epoch(self, state: State, move: Move) -> None:
        """:raises Superseded: a newer controller was here."""
        if move.epoch < state.epoch:
            raise Superseded(
                f"{self.label}: epoch {move.epoch} of migration {move.migration} is over, epoch {state.epoch} has taken"
                " over.",
                "Stop here.",
            )

    def _wrong_state(self, state: State, move: Move, verb: str) -> NoReturn:
        raise Refused(
            f"{self.label}: {verb} from {move.from_id} to {move.to_id} does not fit state {state.state}, in which"
            f" {state.live_id} is live.",
            "Run the status playbook: it says which id is live and what to do.",
        )

    def refuse_barred_or_turned(self, state: State, move: Move, verb: str) -> None:
        """:raises Refused: ``from_id`` is not the live id of a participant at rest."""
        if state.state == BARRED or state.live_id != move.from_id:
            self._wrong_state(state, move, verb)

    # -- plan -------------------------------------------------------------------------------------

    def inspect(self, migration: str, source_id: str, target_id: str) -> Inspection:
        with self.transaction() as connection:
            state = self.state(connection, migration)
            live, other = state.standing if state else (source_id, target_id)
            survey = self.survey(connection, live, other, state.own_rows if state else ())
            tenant = self.tenant_tables(survey.catalog)
            measured = {name: self.measure(connection, survey.catalog[name], live, other) for name in tenant}
            rates = {name: rate for name, rate in measured.items() if isinstance(rate, Rate)}
            staged = {table.name: table.strategy for table in state.tables} if state else {}
            tables, refusals = classify(
                list(survey.catalog.values()), self.options, self.abilities(), rates, self.budget_ms, staged
            )
            planned = survey.planned(tables)
            dialect = Dialect(self.quote, self.quote, lambda _table, _column, tenant_id: literal(tenant_id))
            keys = [
                refusal
                for query, refusal in dangling(survey.catalog, tables, dialect, live, other)
                if execute(connection, query).first()
            ]
            obstacles = (*self.obstacles(connection), *keys)
        digest = schema_digest(survey.catalog, tables)
        example = State(migration, 0, STAGED, source_id, source_id, target_id, digest, planned)
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
            digest=digest,
        )

    def _present(
        self, connection: Connection, move: Move, plan: Inspection, state: State | None
    ) -> tuple[Planned, ...]:
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
        self._refuse(refusals)
        if schema_digest(survey.catalog, tables) != plan.digest:
            raise self._drift()
        return survey.planned(tables)

    def _refuse(self, refusals: Sequence[Refusal]) -> None:
        if refusals:
            raise Refused(
                f"{self.label}: {refusals[0].reason}",
                refusals[0].advice,
                refusals=[asdict(refusal) for refusal in refusals],
            )

    def _drift(self) -> Refused:
        return Refused(
            f"{self.label}: the schema has changed since the migration was planned.",
            "Abort the stage, plan again and stage again.",
        )

    # -- verbs ------------------------------------------------------------------------------------

    def stage(self, move: Move, plan: Inspection, progress: Progress) -> int:
        self._refuse(plan.refusals)
        with self.transaction() as connection:
            state = self.state(connection, move.migration)
            if state:
                self.check_epoch(state, move)
                self.refuse_barred_or_turned(state, move, "stage")
                if state.state == STAGED and state.digest != plan.digest:
                    raise self._drift()
            self._refuse(self.obstacles(connection))
            tables = self._present(connection, move, plan, state)
        wanted = State(
            move.migration,
            move.epoch,
            STAGED,
            move.from_id,
            move.source_id,
            move.target_id,
            plan.digest,
            tables,
            state.progress if state else {},
        )
        return self.install(move, wanted, progress)

    def _absent(self, move: Move) -> bool:
        with self.transaction() as connection:
            return self.state(connection, move.migration) is None

    def take_over(self, move: Move) -> None:
        if not self._absent(move):
            self.in_window(
                move,
                VERB_TIMEOUT_MS,
                lambda connection, state: write_state(connection, replace(state, epoch=move.epoch)),
            )

    def prelude(self, move: Move, timeout_ms: int) -> int:
        """Bring the twins so close to their originals that the rest takes a moment, then wait out writers."""
        checked = False

        def work(connection: Connection, state: State) -> int:
            nonlocal checked
            if state.state == STAGED and not checked and move.to_id not in self.fenced(connection, state):
                raise Refused(
                    f"{self.label}: the fence of {move.to_id} is not on every planned table.",
                    "Abort the stage and stage again.",
                )
            checked = True
            applied = self._follow(connection, state)
            if applied <= LEFT_FOR_THE_BARRIER:
                self.exclude_writers(connection, state)
            return applied

        deadline, total, applied = time.monotonic() + timeout_ms / 1000, 0, LEFT_FOR_THE_BARRIER + 1
        while applied > LEFT_FOR_THE_BARRIER:
            left_ms = round((deadline - time.monotonic()) * 1000)
            if left_ms <= 0:
                reason = f"{self.label}: changes of tenant {move.from_id} come in faster than they are applied."
                raise Timeout(reason, "Run the same command again when the tenant is less busy.")
            applied = self.in_window(move, left_ms, work)
            total += applied
        return total

    def follow(self, move: Move, timeout_ms: int, progress: Progress = untold) -> int:
        def work(connection: Connection, state: State) -> int:
            self.refuse_barred_or_turned(state, move, "follow")
            return self._follow(connection, state)

        deadline, total, applied = time.monotonic() + timeout_ms / 1000, 0, LEFT_FOR_THE_BARRIER + 1
        while applied > LEFT_FOR_THE_BARRIER and time.monotonic() < deadline:
            applied = self.in_window(move, timeout_ms, work)
            total += applied
            if applied:
                progress({"participant": self.name, "step": APPLY, "rows": total})
        return total

    def _follow(self, connection: Connection, state: State) -> int:
        if state.state != STAGED or not state.twins:
            return 0
        self.exempt(connection, state)
        return self.catch_up(connection, state)

    def barrier(self, move: Move, timeout_ms: int) -> dict[str, Any]:
        def work(connection: Connection, state: State) -> dict[str, Any]:
            if state.state == BARRED and state.live_id == move.from_id:
                return _fingerprint(
                    state, {table.name: self.rows.count(connection, table, move.to_id)[0] for table in state.in_place}
                )
            if state.state != STAGED or state.live_id != move.from_id:
                self._wrong_state(state, move, "barrier")
            self.exclude_writers(connection, state)
            self.exempt(connection, state)
            while self.catch_up(connection, state):
                pass
            rows = {table.name: self.rows.move(connection, table, move.from_id, move.to_id) for table in state.in_place}
            self.set_fences(connection, state, (move.from_id, move.to_id))
            write_state(connection, replace(state, state=BARRED, epoch=move.epoch))
            return _fingerprint(state, rows)

        return self.in_window(move, timeout_ms, work)

    def turn(self, move: Move) -> None:
        def work(connection: Connection, state: State) -> None:
            if state.state == STAGED and state.live_id == move.to_id:
                return
            if state.state != BARRED or state.live_id != move.from_id:
                self._wrong_state(state, move, "turn")
            self.exclude_writers(connection, state)
            self.set_fences(connection, state, (move.from_id,))
            write_state(connection, replace(state, state=STAGED, live_id=move.to_id, epoch=move.epoch))

        self.in_window(move, VERB_TIMEOUT_MS, work)

    def undo(self, move: Move) -> None:
        def work(connection: Connection, state: State) -> None:
            if state.live_id != move.from_id:
                self._wrong_state(state, move, "undo")
            if state.state != BARRED:
                return
            self.exclude_writers(connection, state)
            self.exempt(connection, state)
            for table in state.in_place:
                self.rows.move(connection, table, move.to_id, move.from_id)
            self.set_fences(connection, state, (move.to_id,))
            write_state(connection, replace(state, state=STAGED, epoch=move.epoch))

        if not self._absent(move):
            self.in_window(move, VERB_TIMEOUT_MS, work)

    def remove(self, move: Move, progress: Progress = untold) -> int:
        with self.transaction() as connection:
            state = self.state(connection, move.migration)
            if state:
                self.check_epoch(state, move)
                self.refuse_barred_or_turned(state, move, "remove")
        return self.uninstall(move, progress)

    def status(self, migration: str, source_id: str, target_id: str) -> Status:
        with self.transaction(*self.snapshot()) as connection:
            state = self.state(connection, migration)
            if state is None:
                left = self.leftovers(connection, migration)
                problems = (f"Helper objects without a state row: {', '.join(left)}.",) if left else ()
                return Status(self.name, self.kind, STAGING if left else ABSENT, problems=problems)
            fenced = self.fenced(connection, state)
            pending = 0 if state.state == STAGING else self.pending(connection, state)
            moving, copied = (
                self._rows(connection, tables, source_id, target_id) for tables in (state.in_place, state.twins)
            )
        rows = {tenant: moving[tenant] + copied[tenant] for tenant in moving}
        return Status(
            self.name,
            self.kind,
            state.state,
            state.epoch,
            state.live_id,
            fenced,
            pending,
            rows,
            tuple(state.problems(fenced, moving)),
        )

    def _rows(self, connection: Connection, tables: Sequence[Planned], *ids: str) -> dict[str, int]:
        return {tenant: sum(self.rows.count(connection, table, tenant)[0] for table in tables) for tenant in ids}


def _fingerprint(state: State, moved: Mapping[str, int]) -> dict[str, Any]:
    """Rows by table: those in place as the window counted them, those of twins as the stage did."""
    tables = {**{table.name: state.progress.get("rows", {}).get(table.name, 0) for table in state.twins}, **moved}
    return {"rows": sum(tables.values()), "tables": tables}
