# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and helper objects of a migration in PostgreSQL, and the statements of its window. Pure, runs nothing.

Helper objects lie in schema ``zdm`` or are triggers with the prefix ``zzz_zdm_`` (BEFORE triggers fire in the order of
their names, so the fence sees what the application's triggers made of the row). The letter ``s`` or ``t`` in a name
says whether the object belongs to the migration's source or target id, the number to which planned table.

All triggers are enabled ALWAYS for good, and nothing switches them. What closes and opens an id is the body of one
function, which every fence of the id calls: PostgreSQL reads its catalogs as of now, whatever the snapshot of the
writer's transaction, so that an old snapshot never passes a closed fence, and a trigger that somebody enables by
accident refuses nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, cast

from ansible_collections.zdm.landscape.plugins.module_utils.core.names import short_hash
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import TWIN
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import literal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.rows import Rows
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import Planned, State

with suppress(ImportError):
    from sqlalchemy.dialects import postgresql

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection
    from sqlalchemy.sql.compiler import IdentifierPreparer

SCHEMA = "zdm"
TRIGGER_PREFIX = "zzz_zdm_"
ADVISORY_LOCK = 0x7A646D
"""Key of the advisory lock around making and dropping what all migrations share (``zdm`` in ASCII)."""

STATE_TABLE = f"""CREATE TABLE IF NOT EXISTS {SCHEMA}.migration (
  migration text PRIMARY KEY, format int NOT NULL, epoch bigint NOT NULL, state text NOT NULL, live_id text NOT NULL,
  source_id text NOT NULL, target_id text NOT NULL, finished bigint NOT NULL, digest text NOT NULL,
  tables text NOT NULL, marks text NOT NULL, progress text NOT NULL)"""

_OPEN = "BEGIN IF TG_OP = 'DELETE' THEN RETURN OLD; END IF; RETURN NEW; END"
_CLOSED = (
    "BEGIN RAISE EXCEPTION 'Tenant % is being migrated: table % takes no writes under this id.', TG_ARGV[0],"
    " TG_TABLE_NAME USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Write under the id that the tenant is"
    " mapped to.'; END"
)


def quote(*names: str) -> str:
    """A dotted, quoted identifier."""
    preparer = _preparer()
    # it doubles percent signs for drivers that read parameters, and our statements have none
    return ".".join(preparer.quote(name).replace("%%", "%") for name in names)


@cache
def _preparer() -> IdentifierPreparer:
    return postgresql.base.PGDialect().identifier_preparer  # type: ignore[no-untyped-call]


def _widest(kind: str) -> str:
    """The type of a log's column for a key's: a release may widen the key, and until the next stage the log must take
    what the table takes, else the tenant's writes fail.
    """
    kind, collate, collation = kind.partition(" COLLATE ")
    return _widest_type(kind) + collate + collation


def _widest_type(kind: str) -> str:
    if kind in ("smallint", "integer"):
        return "bigint"
    if re.fullmatch(r"character\([0-9]+\)", kind):
        return "bpchar"
    sized = re.fullmatch(
        r"((?:character varying|numeric|time|timestamp|interval)\b[^([]*)\([0-9, -]+\)( [a-z ]+)?", kind
    )
    return f"{sized[1]}{sized[2] or ''}" if sized else kind


def spell(kind: str, tenant_id: str) -> str:
    """An id as a literal of a column's type; bytes may be written as ``0x…``."""
    if kind == "bytea" and tenant_id.startswith("0x"):
        tenant_id = f"\\x{tenant_id[2:]}"
    return f"{literal(tenant_id)}::{kind}"


@dataclass(frozen=True)
class Work(Planned):
    """One planned table as PostgreSQL's verbs need it; kept in the state row, so that no verb reads the catalog for it.

    :param unique: primary key with the tenant column.
    :param fixed: columns that cannot be updated (GENERATED ALWAYS AS IDENTITY).
    :param triggers: the application has triggers here.
    :param exchanging: it has secondary unique keys, whose values rows may exchange.
    :param partitioned: it is a partitioned table, and ``partitions`` names its partitions.
    """

    schema: str = ""
    relation: str = ""
    unique: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    triggers: bool = False
    exchanging: bool = False
    partitioned: bool = False
    partitions: tuple[str, ...] = ()

    @property
    def sql(self) -> str:
        return quote(self.schema, self.relation)

    def is_id(self, tenant_id: str, prefix: str = "") -> str:
        """Condition: a row is of *tenant_id*."""
        parts = [
            f"{prefix}{quote(column)} = {value}"
            for column, value in zip(self.columns, self.values(tenant_id), strict=True)
        ]
        return parts[0] if len(parts) == 1 else f"({' OR '.join(parts)})"

    def values(self, tenant_id: str) -> list[str]:
        kinds = zip(self.columns, self.kinds, strict=True)
        return [spell(kind, self.called(column, tenant_id)) for column, kind in kinds]

    def same_key(self, left: str, right: str) -> str:
        return " AND ".join(f"{left}.{quote(column)} = {right}.{quote(column)}" for column in self.key)

    def listed(self, columns: Iterable[str], prefix: str = "") -> str:
        return ", ".join(prefix + quote(column) for column in columns)


def works(tables: Iterable[Planned]) -> tuple[Work, ...]:
    """Planned tables of this engine."""
    return cast("tuple[Work, ...]", tuple(tables))


class WorkRows(Rows):
    """Rows that move in ONE statement: foreign keys between the tables are checked at its end."""

    def table(self, table: Planned) -> str:
        return works((table,))[0].sql

    def move_statement(self, tables: Sequence[Planned], old: str, new: str) -> str:
        # PostgreSQL does the last part first, and a CHECK of a child may look by a function for the row's parent
        parts = [f"m{table.number} AS ({self.update(table, old, new)})" for table in reversed(tables)]
        return f"WITH {', '.join(parts)} SELECT"

    def update_all(self, connection: Connection, tables: Sequence[Planned], old: str, new: str) -> None:
        connection.exec_driver_sql(self.move_statement(tables, old, new), execution_options={"no_parameters": True})


class Scheme:
    """Names and statements of one migration."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.migration, self.ids = state.migration, {"s": state.source_id, "t": state.target_id}
        self.hash = short_hash(state.migration)
        self.works, self.twins, self.in_place = works(state.tables), works(state.twins), works(state.in_place)
        self.live, self.other = state.live_id, state.other_id

    # -- helper objects ---------------------------------------------------------------------------

    def log(self, work: Work, side: str) -> str:
        return f"{SCHEMA}.log_{self.hash}_{side}_{work.number}"

    def live_log(self, work: Work) -> str:
        return self.log(work, self.state.side(self.live))

    def note(self, work: Work, side: str) -> str:
        return f"{SCHEMA}.note_{self.hash}_{side}_{work.number}"

    def fence(self, side: str) -> str:
        return f"{SCHEMA}.fence_{self.hash}_{side}"

    @property
    def kept(self) -> str:
        """Rows that a repair has replaced."""
        return f"{SCHEMA}.kept_{self.hash}"

    @property
    def trigger_prefix(self) -> str:
        return f"{TRIGGER_PREFIX}{self.hash}_"

    def set_fences(self, closed: Iterable[str]) -> str:
        """Close these ids and open the other ones, on all tables at once."""
        shut = set(closed)
        return "; ".join(
            f"CREATE OR REPLACE FUNCTION {self.fence(side)}() RETURNS trigger LANGUAGE plpgsql AS"
            f" $zdm${_CLOSED if tenant_id in shut else _OPEN}$zdm$"
            for side, tenant_id in self.ids.items()
        )

    def closed(self) -> str:
        """Query: the sides whose fence is closed."""
        bodies = " UNION ALL ".join(
            f"SELECT {literal(side)} AS side, to_regproc({literal(self.fence(side))}) AS fence" for side in self.ids
        )
        return f"SELECT f.side FROM ({bodies}) f JOIN pg_proc p ON p.oid = f.fence WHERE p.prosrc = {literal(_CLOSED)}"

    def create_logs(self, work: Work) -> list[str]:
        """Log and the function that writes it, for both ids; they touch no table of the application."""
        return [statement for side in self.ids for statement in self._create_log(work, side)]

    def _create_log(self, work: Work, side: str) -> list[str]:
        log = self.log(work, side)
        columns = "".join(
            f", {quote(column)} {_widest(kind)} NOT NULL" for column, kind in zip(work.key, work.key_types, strict=True)
        )
        body = self._note_body(work, side)
        return [
            f"CREATE TABLE IF NOT EXISTS {log} (zdm_seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY{columns})",
            # SECURITY DEFINER: the application's users have no rights on the log
            (
                f"CREATE OR REPLACE FUNCTION {self.note(work, side)}() RETURNS trigger LANGUAGE plpgsql SECURITY"
                f" DEFINER SET search_path = pg_catalog, pg_temp AS $zdm${body}$zdm$"
            ),
            # whoever makes or attaches a partition must be allowed to execute what its triggers call
            f"{'GRANT' if work.partitioned else 'REVOKE'} ALL ON FUNCTION {self.note(work, side)}()"
            f" {'TO' if work.partitioned else 'FROM'} PUBLIC",
        ]

    def _note_body(self, work: Work, side: str) -> str:
        """The keys are named here and not in the triggers' conditions, on which columns would depend: an ALTER COLUMN
        TYPE of a release would be refused. No type and no operator of an extension (citext) is named, as they are not
        in the function's search path; so an update logs both keys, also one of another tenant's row: a key too many
        does no harm.
        """
        into = f"INSERT INTO {self.log(work, side)} ({work.listed(work.key)}) VALUES "
        new, old = (f"{into}({work.listed(work.key, row)});" for row in ("NEW.", "OLD."))
        rows = (f"ROW({work.listed(work.key, row)})::record" for row in ("OLD.", "NEW."))
        moved = " OPERATOR(pg_catalog.*<>) ".join(rows)
        return (
            f"BEGIN IF TG_OP = 'INSERT' THEN {new} ELSIF TG_OP = 'DELETE' THEN {old} ELSE {old} IF {moved} THEN {new}"
            " END IF; END IF; RETURN NULL; END"
        )

    def drop_logs(self, work: Work) -> list[str]:
        return [
            *(f"DROP FUNCTION IF EXISTS {self.note(work, side)}()" for side in self.ids),
            *(f"DROP TABLE IF EXISTS {self.log(work, side)}" for side in self.ids),
        ]

    def triggers(self, work: Work) -> dict[str, str]:
        """Trigger's name → CREATE statement."""
        result: dict[str, str] = {}
        for side in self.ids:
            result |= self._fencing(work, side)
            if work.strategy == TWIN:
                result |= self._logging(work, side)
        return result

    def always(self, work: Work) -> str:
        """Make all of a table's triggers fire in every session."""
        return f"ALTER TABLE {work.sql} " + ", ".join(f"ENABLE ALWAYS TRIGGER {name}" for name in self.triggers(work))

    def _name(self, work: Work, side: str, kind: str) -> str:
        return f"{self.trigger_prefix}{work.number}_{side}_{kind}"

    @property
    def _stranger(self) -> str:
        """Condition: the session is not the migration's worker."""
        return f"current_setting('zdm.worker', true) IS DISTINCT FROM {literal(self.migration)}"

    def _fencing(self, work: Work, side: str) -> dict[str, str]:
        old, new = work.is_id(self.ids[side], "OLD."), work.is_id(self.ids[side], "NEW.")
        return {
            (name := self._name(work, side, f"fence_{event.lower()}")): (
                f"CREATE TRIGGER {name} BEFORE {event} ON {work.sql} FOR EACH ROW WHEN (({condition}) AND"
                f" {self._stranger}) EXECUTE FUNCTION {self.fence(side)}({literal(self.ids[side])})"
            )
            for event, condition in (("INSERT", new), ("UPDATE", f"{old} OR {new}"), ("DELETE", old))
        }

    def _logging(self, work: Work, side: str) -> dict[str, str]:
        old, new = work.is_id(self.ids[side], "OLD."), work.is_id(self.ids[side], "NEW.")
        return {
            (name := self._name(work, side, f"log_{event.lower()}")): (
                f"CREATE TRIGGER {name} AFTER {event} ON {work.sql} FOR EACH ROW WHEN (({condition}) AND"
                f" {self._stranger}) EXECUTE FUNCTION {self.note(work, side)}()"
            )
            for event, condition in (("INSERT", new), ("UPDATE", f"{old} OR {new}"), ("DELETE", old))
        }

    # -- window -----------------------------------------------------------------------------------

    def lock(self) -> str:
        """Keeps writers out and lets readers in; one sorted command, so that two migrations cannot deadlock."""
        return f"LOCK TABLE {', '.join(sorted(work.sql for work in self.works))} IN SHARE ROW EXCLUSIVE MODE"
