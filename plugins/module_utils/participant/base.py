# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the migration needs of a participant: a thing that owns tenant data.

Every verb is idempotent and refuses an older epoch. In a database the barrier is two transactions, turn and undo are
one each, and every transaction writes the state row: a crash leaves the state right before or right after one of them.

States of a participant for one migration (kept in its own state row, written in the same transaction as the work):

=========  ============================================================================================
absent     nothing of the migration is there
staging    helpers exist, the backfill is not finished
staged     ready for a window; the retired id is fenced, changes of the live id are logged (twin)
fenced     between the barrier's transactions: BOTH ids are fenced, the rows in place stand under the old id
moved      between barrier and turn or undo: BOTH ids are fenced, the rows stand under the new id
=========  ============================================================================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

IN_PLACE = "in_place"
TWIN = "twin"
RELABEL = "relabel"
"""Only the root's row changes, from the one tenant's id to the other's; the participant's own ids stay."""
ROOT = "root"
"""One row per tenant, to which others refer: the row of the other id is made as a copy, and both stay."""
FOLLOWS = "follows"
"""Without a tenant column: its rows go with rows that keep their keys."""
IGNORE = "ignore"
STAYING = (FOLLOWS, IGNORE)
"""Strategies of tables that the migration does not touch."""
MOVING = (IN_PLACE, RELABEL)
"""Strategies whose rows change id inside the window."""
AUTO = "auto"

COPY, PURGE = "copy", "purge"
"""The steps of a stage and of its removal in which rows are copied, or deleted, in chunks."""
APPLY = "apply"
"""The step in which logged keys are applied while the tenant is served."""
COMPARE, COMPARED = "compare", "compared"
"""The step in which rows and their twins are compared in chunks, and its end for one table."""

ABSENT = "absent"
STAGING = "staging"
STAGED = "staged"
FENCED = "fenced"
MOVED = "moved"
IN_WINDOW = (FENCED, MOVED)
"""States in which both ids are fenced."""

FORMAT = 1
"""Format number of helper objects; a newer one is refused."""

Progress = Callable[[dict[str, Any]], None]
"""Gets ``participant``, ``table``, ``step`` and, for :data:`COPY`, :data:`COMPARE` and :data:`PURGE`, the ``rows`` of
this table so far; for :data:`APPLY` no table, but the ``rows`` of all; for :data:`COMPARED` the ``rows``, and
``mended`` with the first keys of copies that differed and were rewritten, if any.

It is called after every chunk, outside of any transaction: it may block there, and what it raises ends the verb.
"""


def untold(_entry: dict[str, Any]) -> None:
    """A progress that nobody wants to see."""


@dataclass(frozen=True)
class Move:
    """One direction of one migration under one epoch.

    :param migration: the journal's key; helper objects are named after its hash.
    :param source_id: the migration's source id, the same in both directions.
    :param target_id: the migration's target id, the same in both directions.
    :param from_id: the id that is live before this window.
    :param to_id: the id that is live after it.
    """

    migration: str
    epoch: int
    source_id: str
    target_id: str
    from_id: str
    to_id: str


@dataclass(frozen=True)
class Refusal:
    """Why the preflight refuses, and the way out."""

    object: str
    reason: str
    advice: str


@dataclass(frozen=True)
class Proposal:
    """What would lift refusals, for a person to confirm.

    :param options: options of the participant, each with its whole new value; a text in angle brackets has to be filled
        in.
    :param text: the same as an entry of a YAML list, with what has to be confirmed.
    """

    options: dict[str, Any]
    text: str


@dataclass(frozen=True)
class TablePlan:
    """How one table changes id. ``strategy`` is one of in_place, twin, root, relabel, follows, ignore."""

    table: str
    strategy: str
    why: str
    rows: int
    tenant_columns: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    """Columns of the primary key without the tenant column (twin)."""
    stage_ms: int = 0
    window_ms: int = 0
    bystander_ms: int = 0
    """How much longer this table keeps writes of other tenants waiting."""
    shared_keys: tuple[str, ...] = ()
    """In place: unique keys without a tenant column. A write of a value that moves waits for the move."""
    inferred: tuple[str, ...] = ()
    """Tenant columns that no option names, but foreign keys tell."""
    follows: str = ""
    """The path to the rows with which the table's rows go."""


@dataclass(frozen=True)
class Inspection:
    """What a participant would do; read-only to make."""

    participant: str
    kind: str
    version: str
    tables: tuple[TablePlan, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    stage_ms: int = 0
    window_ms: int = 0
    """Predicted length of the barrier."""
    sql: tuple[str, ...] = ()
    """The exact statements of stage and window, for a DBA to sign; each ends as the database's client wants it."""
    grants: tuple[str, ...] = ()
    """The statements that give the participant's user its rights, ended likewise; also when a right is missing."""
    digest: str = ""
    """Of the schema, never of strategies, rows or anything measured: a change is schema drift."""
    bystander_ms: int = 0
    """How long other tenants' writes may wait: the fences of all tables are set in one transaction."""
    cautions: tuple[str, ...] = ()
    """What nobody may do to the database from the stage to the end of the transition."""
    proposal: Proposal | None = None
    """None when nothing is refused, or only a person can help."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Status:
    """What a participant says of itself, read from its catalog and its state row, not from memory."""

    participant: str
    kind: str
    state: str
    epoch: int = 0
    live_id: str = ""
    """The id whose rows the participant holds to be live; empty when absent."""
    fenced: tuple[str, ...] = ()
    """Ids that EVERY planned table fences."""
    pending: int = 0
    """Logged keys that the twin has not got yet."""
    rows: dict[str, int] = field(default_factory=dict)
    """Rows per tenant id over all planned tables."""
    problems: tuple[str, ...] = ()
    """Disagreements between the state row and the catalog."""
    unready: tuple[str, ...] = ()
    """Why no window may begin before the next stage; empty when one may, or when nothing is staged."""
    compared_s: int | None = field(default=None, compare=False)
    """Seconds since every twin was last found equal to its original; None when one never was, or there are none."""
    has_twins: bool = False

    @property
    def ready(self) -> bool:
        """Whether the participant can take part in a window, as far as it knows itself."""
        return self.state == STAGED and not self.unready

    def compared_within(self, seconds: int | None) -> bool:
        """Whether its twins were compared as a whole less than so long ago; ``None``: whenever that was."""
        if not self.has_twins or seconds is None:
            return True
        return self.compared_s is not None and self.compared_s < seconds


@dataclass(frozen=True)
class Care:
    """How a stage treats what it finds.

    :param compare_after_s: a twin whose last comparison is at least so many seconds old is compared again; None
        compares only what must be.
    :param repair: rewrite twins that differ; what is replaced is kept in a helper table.
    """

    compare_after_s: int | None = 0
    repair: bool = False


CAREFUL = Care()


class Participant(ABC):
    """One participant; used by one thread at a time. Verbs raise ``Unreachable``, ``Superseded``, ``Refused`` or
    ``Timeout``.
    """

    name: str
    kind: str
    knows_replica_lag = False
    """Whether :meth:`replica_lag_ms` can tell anything."""

    @abstractmethod
    def inspect(
        self, migration: str, source_id: str, target_id: str, signed: str = "", live_id: str = ""
    ) -> Inspection:
        """Classify every table, choose strategies, measure and predict. Changes nothing. Reports refusals, does not
        raise them; a missing right is one, with all grants.

        :param live_id: the id that is live, for a participant that is not staged yet; the source's when it is empty.
        :param signed: the strategies of the plan that was signed, as :mod:`strategies` writes them; they are kept.
        """

    @abstractmethod
    def stage(self, move: Move, plan: Inspection, progress: Progress, care: Care = CAREFUL) -> int:
        """Make the participant ready for a window, whatever has become of it since it was staged: install fences of the
        retired id, logs and twins of every planned table, backfill, apply what is logged, compare. Resumes. Returns the
        rows copied by this call.

        :raises Refused: rows differ, or rows of the retired id are not the migration's.
        """

    def follow(self, move: Move, timeout_ms: int, progress: Progress = untold) -> int:
        """Apply what is logged of the live ``from_id`` while it is served, until little is left or the time is up.
        Fences nothing.

        Returns the number of keys applied; 0 where nothing is logged. Legal from staged.
        """
        del move, timeout_ms, progress
        return 0

    @abstractmethod
    def take_over(self, move: Move) -> None:
        """Write the epoch, end sessions of an older controller. Does nothing to a participant whose state is absent."""

    @abstractmethod
    def prelude(self, move: Move, timeout_ms: int) -> int:
        """Wait out writers, apply the log, verify; fence nothing. Returns the number of keys applied.

        :raises Timeout: a writer does not end; ``details`` name it.
        """

    @abstractmethod
    def barrier(self, move: Move, timeout_ms: int) -> dict[str, Any]:
        """Lock, compare the catalog with the stage's, apply and verify the last keys, fence ``from_id``; then, without
        locks that other tenants meet, move the rows in place.

        Returns a fingerprint ``{"rows": n, ...}`` for the journal. Legal from staged and fenced (and moved: does
        nothing), never under an epoch that turn or undo has finished.

        :raises Refused: columns, keys or triggers are not those of the stage; nothing was changed.
        """

    @abstractmethod
    def confirm(self, move: Move) -> None:
        """Right before the commit: the rows stand under ``to_id``, and what the barrier has fenced still is.

        :raises Refused: it is not so, for example because somebody has switched triggers off.
        """

    @abstractmethod
    def turn(self, move: Move) -> None:
        """After the commit: ``to_id`` is live: drop the forward log, lift its fence. Legal from moved (and from
        turned: nothing).
        """

    @abstractmethod
    def undo(self, move: Move) -> None:
        """Back to before the barrier: rows back, ``from_id`` live again, its fence dropped last. From staged it does
        nothing.
        """

    @abstractmethod
    def remove(self, move: Move, progress: Progress = untold) -> int:
        """Take back the twins of the retired ``to_id`` and every helper object; ``from_id`` is live and stays as it is.
        Resumes.

        Returns the rows removed. No window can begin once it has begun.
        """

    @abstractmethod
    def status(self, migration: str, source_id: str, target_id: str) -> Status:
        """Read state row and catalog; works also when another controller holds the epoch."""

    @abstractmethod
    def fingerprint(self, tenant_id: str) -> str:
        """Digest of a tenant's rows in all planned or tenant-carrying tables, the tenant column left out."""

    def replica_lag_ms(self) -> float | None:
        """How far the slowest replica is behind; ``None`` without replicas, or when the server does not know of
        them.
        """
        return None

    def round_trip(self) -> None:
        """One small read-only transaction: the unit in which the fixed cost of a window is measured."""

    def close(self) -> None:
        """Close connections; the participant can be used again afterwards."""
