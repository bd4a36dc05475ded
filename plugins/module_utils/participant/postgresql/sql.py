# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The SQL of a migration in PostgreSQL: names of helper objects and the text of every statement. Pure, runs nothing.

Helper objects lie in schema ``zdm`` or are triggers with the prefix ``zzz_zdm_`` (BEFORE triggers fire in the order of
their names, so the fence sees what the application's triggers made of the row). The letter ``s`` or ``t`` in a name
says whether the object belongs to the migration's source or target id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.names import short_hash
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    BARRED,
    IN_PLACE,
    STAGED,
    STAGING,
    TWIN,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import literal

with suppress(ImportError):
    from sqlalchemy.dialects import postgresql

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import IdentifierPreparer

SCHEMA = "zdm"
TRIGGER_PREFIX = "zzz_zdm_"
FENCE = "fence"
LOG = "log"
ADVISORY_LOCK = 0x7A646D
"""Key of the advisory lock around making and dropping what all migrations share (``zdm`` in ASCII)."""

STATE_TABLE = f"""CREATE TABLE IF NOT EXISTS {SCHEMA}.migration (
  migration text PRIMARY KEY, format int NOT NULL, epoch bigint NOT NULL, state text NOT NULL, live_id text NOT NULL,
  source_id text NOT NULL, target_id text NOT NULL, digest text NOT NULL, plan jsonb NOT NULL, progress jsonb NOT NULL,
  session_pid int, session_start timestamptz)"""

# a plan that was made for a table without statistics would read a large table as a whole inside the window
KEY_LOOKUPS_ONLY = "SELECT " + ", ".join(
    f"set_config('enable_{node}', 'off', true)" for node in ("seqscan", "hashjoin", "mergejoin", "material")
)


def quote(*names: str) -> str:
    """A dotted, quoted identifier."""
    preparer = _preparer()
    return ".".join(preparer.quote(name) for name in names)


def assignment(column: str, kind: str, from_id: str, to_id: str) -> str:
    """Map one id of a quoted tenant column; a row may hold another tenant's id in its other tenant columns."""
    return f"{column} = CASE WHEN {column} = {literal(from_id)}::{kind} THEN {literal(to_id)}::{kind} ELSE {column} END"


@cache
def _preparer() -> IdentifierPreparer:
    return postgresql.base.PGDialect().identifier_preparer  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Work:
    """One planned table as the verbs need it; kept in the state row, so that no verb reads the catalog in a window.

    :param number: names the table's log; fixed at stage.
    :param key: primary key without the tenant column; ``unique`` with it.
    :param columns: all columns but the tenant columns and generated ones.
    :param fixed: those of them that cannot be updated (GENERATED ALWAYS AS IDENTITY).
    :param triggers: the application has triggers here.
    :param exchanging: it has secondary unique keys, whose values rows may exchange.
    """

    number: int
    name: str
    schema: str
    relation: str
    strategy: str
    tenant: tuple[str, ...]
    tenant_types: tuple[str, ...]
    key: tuple[str, ...]
    key_types: tuple[str, ...]
    unique: tuple[str, ...]
    columns: tuple[str, ...]
    fixed: tuple[str, ...] = ()
    triggers: bool = False
    exchanging: bool = False

    @property
    def sql(self) -> str:
        return quote(self.schema, self.relation)

    def is_id(self, tenant_id: str, prefix: str = "") -> str:
        """Condition: a row is of *tenant_id*."""
        parts = [
            f"{prefix}{quote(column)} = {value}"
            for column, value in zip(self.tenant, self.values(tenant_id), strict=True)
        ]
        return parts[0] if len(parts) == 1 else f"({' OR '.join(parts)})"

    def values(self, tenant_id: str) -> list[str]:
        return [f"{literal(tenant_id)}::{kind}" for kind in self.tenant_types]

    def same_key(self, left: str, right: str) -> str:
        return " AND ".join(f"{left}.{quote(column)} = {right}.{quote(column)}" for column in self.key)

    def listed(self, columns: Iterable[str], prefix: str = "") -> str:
        return ", ".join(prefix + quote(column) for column in columns)

    @classmethod
    def load(cls, value: Mapping[str, Any]) -> Work:
        fields: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
        return cls(**fields)

    def dump(self) -> dict[str, Any]:
        return asdict(self)


def shifts(state: str, live: str) -> frozenset[tuple[str, str]]:
    """What is switched on in a state: (kind, ``s`` or ``t``).

    :param live: ``s`` or ``t``, the id whose rows are live; while barred the id that was live before.
    """
    other = "t" if live == "s" else "s"
    if state == BARRED:
        return frozenset({(FENCE, "s"), (FENCE, "t"), (LOG, "s"), (LOG, "t")})
    if state in (STAGED, STAGING):
        return frozenset({(FENCE, other), (LOG, live)})
    return frozenset()


class Scheme:
    """Names and statements of one migration."""

    def __init__(self, migration: str, source_id: str, target_id: str, works: Sequence[Work]) -> None:
        self.migration, self.ids = migration, {"s": source_id, "t": target_id}
        self.hash = short_hash(migration)
        self.works = tuple(works)
        self.twins = tuple(work for work in works if work.strategy == TWIN)
        self.in_place = tuple(work for work in works if work.strategy == IN_PLACE)

    def role(self, tenant_id: str) -> str:
        return "s" if tenant_id == self.ids["s"] else "t"

    # -- helper objects ---------------------------------------------------------------------------

    def log(self, work: Work, role: str) -> str:
        return f"{SCHEMA}.log_{self.hash}_{role}_{work.number}"

    def note(self, work: Work, role: str) -> str:
        return f"{SCHEMA}.note_{self.hash}_{role}_{work.number}"

    @property
    def refuse(self) -> str:
        return f"{SCHEMA}.refuse_{self.hash}"

    def create_helpers(self) -> list[str]:
        """Functions and logs; they touch no table of the application."""
        body = (
            "BEGIN RAISE EXCEPTION 'Tenant % is being migrated: table % takes no writes under this id.', TG_ARGV[0],"
            " TG_TABLE_NAME USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Write under the id that the"
            " tenant is mapped to.'; END"
        )
        result = [
            f"CREATE OR REPLACE FUNCTION {self.refuse}() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog"
            f" AS $zdm${body}$zdm$"
        ]
        for work in self.twins:
            for role in "st":
                result += self._create_log(work, role)
        return result

    def _create_log(self, work: Work, role: str) -> list[str]:
        log = self.log(work, role)
        columns = "".join(
            f", {quote(column)} {kind} NOT NULL" for column, kind in zip(work.key, work.key_types, strict=True)
        )
        into = f"INSERT INTO {log} ({work.listed(work.key)}) VALUES "
        new, old = (f"{into}({work.listed(work.key, row)});" for row in ("NEW.", "OLD."))
        body = f"BEGIN IF TG_ARGV[0] = 'new' THEN {new} ELSE {old} END IF; RETURN NULL; END"
        return [
            f"CREATE TABLE IF NOT EXISTS {log} (seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY{columns})",
            # SECURITY DEFINER: the application's users have no rights on the log
            (
                f"CREATE OR REPLACE FUNCTION {self.note(work, role)}() RETURNS trigger LANGUAGE plpgsql SECURITY"
                f" DEFINER SET search_path = pg_catalog, pg_temp AS $zdm${body}$zdm$"
            ),
            f"REVOKE ALL ON FUNCTION {self.note(work, role)}() FROM PUBLIC",
        ]

    def triggers(self, work: Work) -> dict[tuple[str, str], dict[str, str]]:
        """(kind, role) → trigger's name → CREATE statement."""
        result = {(FENCE, role): self._fence(work, role) for role in "st"}
        if work.strategy == TWIN:
            result |= {(LOG, role): self._logging(work, role) for role in "st"}
        return result

    def _fence(self, work: Work, role: str) -> dict[str, str]:
        old, new = work.is_id(self.ids[role], "OLD."), work.is_id(self.ids[role], "NEW.")
        stranger = f"current_setting('zdm.worker', true) IS DISTINCT FROM {literal(self.migration)}"
        prefix = f"{TRIGGER_PREFIX}{self.hash}_{role}_fence_"
        return {
            prefix + event.lower(): (
                f"CREATE TRIGGER {prefix}{event.lower()} BEFORE {event} ON {work.sql} FOR EACH ROW"
                f" WHEN (({condition}) AND {stranger}) EXECUTE FUNCTION {self.refuse}({literal(self.ids[role])})"
            )
            for event, condition in (("INSERT", new), ("UPDATE", f"{old} OR {new}"), ("DELETE", old))
        }

    def _logging(self, work: Work, role: str) -> dict[str, str]:
        old, new = work.is_id(self.ids[role], "OLD."), work.is_id(self.ids[role], "NEW.")
        moved = f"ROW({work.listed(work.key, 'OLD.')}) IS DISTINCT FROM ROW({work.listed(work.key, 'NEW.')})"
        prefix = f"{TRIGGER_PREFIX}{self.hash}_{role}_log_"
        kinds = (
            ("insert", "INSERT", new, "new"),
            ("update", "UPDATE", old, "old"),
            ("become", "UPDATE", f"{new} AND (NOT ({old}) OR {moved})", "new"),
            ("delete", "DELETE", old, "old"),
        )
        return {
            prefix + kind: (
                f"CREATE TRIGGER {prefix}{kind} AFTER {event} ON {work.sql} FOR EACH ROW WHEN ({condition})"
                f" EXECUTE FUNCTION {self.note(work, role)}({literal(which)})"
            )
            for kind, event, condition, which in kinds
        }

    def flip(self, work: Work, on: Iterable[tuple[str, str]], off: Iterable[tuple[str, str]]) -> str:
        """Switch triggers of one table; empty when it has none of them. Transactional, so a window is all or
        nothing.
        """
        triggers = self.triggers(work)
        parts = [f"ENABLE ALWAYS TRIGGER {name}" for kind in sorted(on) for name in triggers.get(kind, ())]
        parts += [f"DISABLE TRIGGER {name}" for kind in sorted(off) for name in triggers.get(kind, ())]
        return f"ALTER TABLE {work.sql} {', '.join(parts)}" if parts else ""

    def flips(self, before: Iterable[tuple[str, str]], after: Iterable[tuple[str, str]]) -> list[str]:
        """Statements that lead all tables from one set of :func:`shifts` to another."""
        on, off = set(after) - set(before), set(before) - set(after)
        return [statement for work in self.works if (statement := self.flip(work, on, off))]

    def drop_helpers(self) -> list[str]:
        result = [f"DROP FUNCTION IF EXISTS {self.note(work, role)}()" for work in self.twins for role in "st"]
        result += [f"DROP TABLE IF EXISTS {self.log(work, role)}" for work in self.twins for role in "st"]
        return [*result, f"DROP FUNCTION IF EXISTS {self.refuse}()"]

    # -- window -----------------------------------------------------------------------------------

    def lock(self) -> str:
        """Keeps writers out and lets readers in; one sorted command, so that two migrations cannot deadlock."""
        return f"LOCK TABLE {', '.join(sorted(work.sql for work in self.works))} IN SHARE ROW EXCLUSIVE MODE"

    def move(self, from_id: str, to_id: str) -> str:
        """All rows of the in_place tables in ONE statement: foreign keys between them are checked at its end."""
        parts, counts = [], []
        for work in self.in_place:
            new = [
                assignment(quote(column), kind, from_id, to_id)
                for column, kind in zip(work.tenant, work.tenant_types, strict=True)
            ]
            parts.append(
                f"m{work.number} AS (UPDATE {work.sql} SET {', '.join(new)} WHERE {work.is_id(from_id)} RETURNING 1)"
            )
            counts.append(f"(SELECT count(*) FROM m{work.number})")
        return f"WITH {', '.join(parts)} SELECT {' + '.join(counts)}"

    def pending(self, role: str, works: Sequence[Work]) -> str:
        return "SELECT " + ", ".join(f"(SELECT count(*) FROM {self.log(work, role)})" for work in works)

    def empty_log(self, role: str, works: Sequence[Work]) -> str:
        return "; ".join(f"DELETE FROM {self.log(work, role)}" for work in works)

    def apply(self, from_id: str, to_id: str, works: Sequence[Work], whole: bool = False) -> str:
        """Bring the twins of all logged keys up to date in ONE statement.

        One snapshot for log and rows; deletes come before inserts, for secondary unique keys; foreign keys are checked
        at the end, so the order of tables does not matter.

        :param whole: where rows can exchange values of a unique key, take all logged rows away and insert them anew.
            Nowhere else: foreign keys with ON DELETE CASCADE would take the children along.
        """
        role = self.role(from_id)
        deletes, inserts, gone = [], [], []
        for work in works:
            n, log = work.number, self.log(work, role)
            deletes.append(f"k{n} AS MATERIALIZED {self._logged(work, log, to_id)}")
            anew = whole and work.exchanging
            lost = (
                ""
                if anew
                else (
                    f" AND NOT EXISTS (SELECT FROM {work.sql} a WHERE {work.is_id(from_id, 'a.')} AND"
                    f" {work.same_key('a', f'k{n}')})"
                )
            )
            deletes.append(
                f"d{n} AS (DELETE FROM {work.sql} b USING k{n} WHERE {self._twin_of(work, f'k{n}')}{lost} RETURNING 1)"
            )
            gone.append(f"(SELECT count(*) FROM d{n})")
            # the key too: 1.0 and 1.00 are equal, and so are two spellings of a citext, and yet they are not the same
            changes = [
                f"{quote(column)} = excluded.{quote(column)}" for column in work.columns if column not in work.fixed
            ]
            then = f"UPDATE SET {', '.join(changes)}" if changes else "NOTHING"
            conflict = "" if anew else f" ON CONFLICT ({work.listed(work.unique)}) DO {then}"
            source = (
                f"{work.sql} a JOIN k{n} ON {work.same_key('a', f'k{n}')} WHERE {work.is_id(from_id, 'a.')} AND (SELECT"
                " n FROM gone) >= 0"
            )
            inserts.append(f"u{n} AS ({self._insert(work, to_id, source)}{conflict} RETURNING 1)")
        parts = [*deletes, f"gone AS (SELECT {' + '.join(gone)} AS n)", *inserts]
        return (
            f"WITH {', '.join(parts)} SELECT {' + '.join(f'(SELECT count(*) FROM u{work.number})' for work in works)} +"
            " (SELECT n FROM gone)"
        )

    def _logged(self, work: Work, log: str, to_id: str) -> str:
        return f"(SELECT DISTINCT {work.listed(work.key)}, {work.values(to_id)[0]} AS zdm_to FROM {log})"

    def _twin_of(self, work: Work, keys: str) -> str:
        """The row ``b`` is the twin of a logged key. The id comes out of *keys*, not as a constant: the planner's
        statistics do not know the twins yet, so it would take them for a single row and read all of them once for every
        key."""
        return f"b.{quote(work.tenant[0])} = {keys}.zdm_to AND {work.same_key('b', keys)}"

    def differing(self, from_id: str, to_id: str, works: Sequence[Work]) -> str:
        """Number of logged keys whose rows are not the same under both ids, per table."""
        role = self.role(from_id)
        return "SELECT " + ", ".join(
            f"(SELECT count(*) FROM {self._logged(work, self.log(work, role), to_id)} k LEFT JOIN {work.sql} a ON"
            f" {work.is_id(from_id, 'a.')} AND {work.same_key('a', 'k')} LEFT JOIN {work.sql} b ON"
            f" {self._twin_of(work, 'k')} WHERE ROW({work.listed(work.columns, 'a.')})::text IS DISTINCT FROM"
            f" ROW({work.listed(work.columns, 'b.')})::text)"
            for work in works
        )

    # -- stage ------------------------------------------------------------------------------------

    def _insert(self, work: Work, to_id: str, source: str) -> str:
        columns = f"{quote(work.tenant[0])}, {work.listed(work.columns)}"
        return (
            f"INSERT INTO {work.sql} ({columns}) OVERRIDING SYSTEM VALUE SELECT {work.values(to_id)[0]},"
            f" {work.listed(work.columns, 'a.')} FROM {source}"
        )

    def _key_literals(self, work: Work, values: Sequence[str]) -> str:
        return ", ".join(f"{literal(value)}::{kind}" for value, kind in zip(values, work.key_types, strict=True))

    def _after(self, work: Work, last: Sequence[str] | None) -> str:
        return f" AND ({work.listed(work.key, 'a.')}) > ({self._key_literals(work, last)})" if last else ""

    def chunk_end(self, work: Work, from_id: str, last: Sequence[str] | None, rows: int) -> str:
        """The key of the last row of the next chunk; no row when fewer than *rows* are left."""
        keys = ", ".join(f"a.{quote(column)}::text" for column in work.key)
        order = work.listed(work.key, "a.")
        return (
            f"SELECT {keys} FROM {work.sql} a WHERE {work.is_id(from_id, 'a.')}{self._after(work, last)} ORDER BY"
            f" {order} OFFSET {rows - 1} LIMIT 1"
        )

    def chunk(self, work: Work, from_id: str, to_id: str, last: Sequence[str] | None, end: Sequence[str] | None) -> str:
        """Copy the rows between two keys; rows that the log brought before stay as they are."""
        until = f" AND ({work.listed(work.key, 'a.')}) <= ({self._key_literals(work, end)})" if end else ""
        source = f"{work.sql} a WHERE {work.is_id(from_id, 'a.')}{self._after(work, last)}{until}"
        return f"{self._insert(work, to_id, source)} ON CONFLICT ({work.listed(work.unique)}) DO NOTHING"

    def compare(self, work: Work, from_id: str, to_id: str) -> str:
        """Rows under either id, and those that differ although no change of theirs is pending."""
        role = self.role(from_id)
        rows = [
            f"(SELECT {work.listed(work.key)}, ROW({work.listed(work.columns)})::text AS content FROM {work.sql} WHERE"
            f" {work.is_id(tenant_id)})"
            for tenant_id in (from_id, to_id)
        ]
        return (
            "SELECT count(*), count(*) FILTER (WHERE a.content IS DISTINCT FROM b.content AND NOT EXISTS (SELECT FROM"
            f" {self.log(work, role)} k WHERE"
            f" {' AND '.join(f'k.{quote(c)} = coalesce(a.{quote(c)}, b.{quote(c)})' for c in work.key)})) FROM"
            f" {rows[0]} a FULL JOIN {rows[1]} b ON {work.same_key('a', 'b')}"
        )

    def purge(self, work: Work, tenant_id: str, rows: int) -> str:
        return (
            f"DELETE FROM {work.sql} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {work.sql} WHERE {work.is_id(tenant_id)}"
            f" LIMIT {rows}))"
        )
