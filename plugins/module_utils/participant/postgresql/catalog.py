# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What PostgreSQL's catalog says beyond what every engine says, and what of it forbids a strategy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import IN_PLACE, TWIN, TablePlan
from ansible_collections.zdm.landscape.plugins.module_utils.participant.constraints import ties
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import Column, Note, TableFacts
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.partitions import (
    Partitioned,
    as_one,
    partition_notes,
    read_partitions,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.sql import (
    SCHEMA,
    TRIGGER_PREFIX,
    Work,
    quote,
    spell,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.types import read_bases
from ansible_collections.zdm.landscape.plugins.module_utils.participant.table_options import (
    DEFAULT_TENANT_COLUMNS,
    tenant_columns_of,
)

if TYPE_CHECKING:
    from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.session import PostgreSQLSession
    from sqlalchemy.engine import Connection

_UPDATE_EVENT = 16  # bit of pg_trigger.tgtype

_TABLES = f"""
SELECT n.nspname, c.relname, c.relkind, c.relispartition, c.relpages, c.reltuples,
 pg_total_relation_size(c.oid) AS size,
 pg_get_userbyid(c.relowner) AS owner, current_user::text AS me,
 pg_has_role(c.relowner, 'USAGE') AS owned, row_security_active(c.oid) AS hidden,
 c.relispopulated AS readable,
 EXISTS (SELECT FROM pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent)) AS inherits,
 ARRAY(SELECT rulename::text FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type <> '1' ORDER BY 1) AS rules,
 ARRAY(SELECT conname::text FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'x' ORDER BY 1) AS exclusions,
 ARRAY(SELECT conname::text FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype IN ('p', 'u')
  AND k.condeferrable ORDER BY 1) AS deferrable,
 ARRAY(SELECT conname::text FROM pg_constraint k WHERE k.confrelid = c.oid AND (k.confdeltype IN ('r', 'c', 'n', 'd'))
  ORDER BY 1) AS strict_references,
 ARRAY(SELECT ROW(tgname, tgtype, tgenabled)::text FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
  AND t.tgenabled <> 'D' AND t.tgname NOT LIKE '{TRIGGER_PREFIX}%' ORDER BY 1) AS triggers,
 ARRAY(SELECT ARRAY(SELECT a.attname::text FROM unnest(i.indkey) WITH ORDINALITY k(n, o) JOIN pg_attribute a
  ON a.attrelid = c.oid AND a.attnum = k.n
  ORDER BY k.o)::text FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL
   ORDER BY 1) AS indexes,
 ARRAY(SELECT pubname::text FROM pg_publication_tables p WHERE p.schemaname = n.nspname AND p.tablename = c.relname
  ORDER BY 1) AS publications
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f', 'm') AND n.nspname <> 'information_schema' AND n.nspname <> '{SCHEMA}'
 AND n.nspname NOT LIKE 'pg\\_%'"""

_COLUMNS = f"""
SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod) AS type, a.attidentity, a.attgenerated,
 (SELECT quote_ident(s.nspname) || '.' || quote_ident(l.collname) FROM pg_collation l JOIN pg_namespace s
  ON s.oid = l.collnamespace WHERE l.oid = a.attcollation AND l.oid <> t.typcollation) AS collation
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
 JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'f', 'm') AND n.nspname <> '{SCHEMA}'
 AND n.nspname NOT LIKE 'pg\\_%'"""


@dataclass(frozen=True)
class Detail:
    """What only PostgreSQL knows of a table; ``row`` is one of the query above, ``types``, ``collations`` (where it is
    not the type's own) and ``always`` are by column.
    """

    row: Mapping[str, Any]
    types: Mapping[str, str]
    always: frozenset[str]
    triggers: tuple[tuple[str, int, str], ...]
    """Name, event bits, when it is enabled."""
    indexes: tuple[tuple[str, ...], ...]
    collations: Mapping[str, str] = field(default_factory=dict)
    partitioned: Partitioned | None = None
    bases: Mapping[str, str] = field(default_factory=dict)
    """The types below those that are domains or enums."""

    def base(self, column: str) -> str:
        return self.bases.get(self.types[column], self.types[column])

    @property
    def schema(self) -> str:
        return str(self.row["nspname"])

    @property
    def relation(self) -> str:
        return str(self.row["relname"])

    @property
    def sql(self) -> str:
        return quote(self.schema, self.relation)

    @property
    def is_view(self) -> bool:
        """A materialised view."""
        return bool(self.row["relkind"] == "m")

    def key_type(self, column: str) -> str:
        """As a CREATE TABLE writes it: equal keys must be equal in the log too."""
        collation = self.collations.get(column)
        return f"{self.types[column]} COLLATE {collation}" if collation else self.types[column]

    def indexed(self, columns: Sequence[str]) -> bool:
        """Whether an index begins with *columns*, in any order."""
        return any(set(index[: len(columns)]) == set(columns) for index in self.indexes)


def read_details(session: PostgreSQLSession, connection: Connection) -> dict[str, Detail]:
    """Details of all tables and materialised views of the application, partitions left out, by the operator's name."""
    session.may(connection)  # names depend on the default schema
    types: dict[tuple[str, str], dict[str, str]] = {}
    always: dict[tuple[str, str], set[str]] = {}
    collations: dict[tuple[str, str], dict[str, str]] = {}
    for row in execute(connection, _COLUMNS).mappings():
        key = (row["nspname"], row["relname"])
        types.setdefault(key, {})[row["attname"]] = row["type"]
        if row["collation"]:
            collations.setdefault(key, {})[row["attname"]] = row["collation"]
        if row["attidentity"] == "a":
            always.setdefault(key, set()).add(row["attname"])
    result = {}
    partitioned, bases = read_partitions(connection, session.display_name), read_bases(connection)
    for found in execute(connection, _TABLES).mappings():
        if found["relispartition"]:
            continue
        key = (found["nspname"], found["relname"])
        whole = partitioned.get(session.display_name(*key))
        row = whole.of_the_whole(found) if whole else dict(found)
        triggers = tuple(_trigger(text) for text in row["triggers"])
        indexes = tuple(tuple(_array(text)) for text in row["indexes"])
        detail = Detail(
            row,
            types.get(key, {}),
            frozenset(always.get(key, ())),
            triggers,
            indexes,
            collations.get(key, {}),
            whole,
            bases,
        )
        result[session.display_name(*key)] = detail
    return result


def _trigger(text: str) -> tuple[str, int, str]:
    name, events, enabled = text[1:-1].rsplit(",", 2)
    return name.strip('"').replace('""', '"'), int(events), enabled


def _array(text: str) -> list[str]:
    return [name.strip('"').replace('\\"', '"') for name in text[1:-1].split(",") if name]


def read_catalog(session: PostgreSQLSession, connection: Connection) -> dict[str, TableFacts]:
    """All tables of the application, with their triggers and PostgreSQL's own names of types."""
    details = read_details(session, connection)
    partitioned = {name: detail.partitioned for name, detail in details.items() if detail.partitioned}
    schemas = {detail.schema for detail in details.values()}
    schemas |= {part["nspname"] for table in partitioned.values() for part in table.rows}
    reflected = as_one(connection, session.reflect(connection, sorted(schemas)), partitioned, session.display_name)
    catalog = {name: table for name, table in reflected.items() if name in details}
    views = {name: _materialized(name, detail) for name, detail in details.items() if detail.is_view}
    patterns = session.options.get("tenant_columns") or DEFAULT_TENANT_COLUMNS
    catalog |= {name: view for name, view in views.items() if tenant_columns_of(view, patterns)}
    for name, table in catalog.items():
        detail = details[name]
        columns = tuple(
            replace(
                column,
                type=detail.types.get(column.name, column.type),
                base=detail.bases.get(detail.types.get(column.name, ""), ""),
            )
            for column in table.columns
        )
        parts = len(detail.partitioned.rows) if detail.partitioned else 1
        names = tuple(trigger[0] for trigger in detail.triggers)
        catalog[name] = replace(table, columns=columns, triggers=names, parts=parts)
    return catalog


def _materialized(name: str, detail: Detail) -> TableFacts:
    """A materialised view as a table that cannot be moved; an operator can only ignore it."""
    return TableFacts(
        name, tuple(Column(column, kind) for column, kind in detail.types.items()), primary_key=tuple(detail.types)
    )


def notes_of(table: TableFacts, detail: Detail, tenant: Sequence[str], may_exempt: bool) -> tuple[Note, ...]:
    """What forbids strategies for a table with tenant columns.

    :param may_exempt: the user may switch off the application's triggers in its session.
    """
    return (
        *_unfit_kinds(table.name, detail.row),
        *(partition_notes(table, detail.partitioned, tenant) if detail.partitioned else ()),
        *_hindered(table.name, detail.row),
        *_uncopyable(table, detail.row),
        *_triggered(table, detail, may_exempt),
    )


def _hindered(name: str, row: Mapping[str, Any]) -> Iterator[Note]:
    """What keeps the migration's user, or its writes, from the table."""
    if not row["owned"]:
        reason = f"The migration's user is not an owner of {name}, so it may make no triggers there."
        yield Note(reason, f"GRANT {quote(row['owner'])} TO {quote(row['me'])};")
    if row["hidden"]:
        reason = f"Row security hides rows of {name} from this user."
        yield Note(reason, "Let the table's owner run the migration, or a user with BYPASSRLS.")
    if row["rules"]:
        yield Note(f"Rule {row['rules'][0]} rewrites changes of {name}.", "Replace the rule by a trigger.")
    if row["publications"]:
        reason = f"Publication {row['publications'][0]} sends changes of {name} to others."
        yield Note(reason, "Take the table out of it for the migration.")


def _uncopyable(table: TableFacts, row: Mapping[str, Any]) -> Iterator[Note]:
    """What only copies mind."""
    name = table.name
    for column in table.columns:
        if column.name.startswith("zdm_"):
            reason = f"Column {column.name} of {name} has a name that is reserved here."
            yield Note(reason, "Rename it, or choose in_place.", (TWIN,))
    if row["exclusions"]:
        reason = f"Exclusion constraint {row['exclusions'][0]} of {name} may forbid a copy."
        yield Note(reason, "Choose in_place.", (TWIN,))
    if row["deferrable"]:
        reason = f"Key {row['deferrable'][0]} of {name} is deferrable, ON CONFLICT cannot use it."
        yield Note(reason, "Choose in_place.", (TWIN,))


def _triggered(table: TableFacts, detail: Detail, may_exempt: bool) -> Iterator[Note]:
    """Triggers of the application, and of foreign keys, that would fire for the migration."""
    name = table.name
    firing = [trigger for trigger in detail.triggers if trigger[2] in "AR"]
    if firing:
        reason = f"Trigger {firing[0][0]} of {name} fires in every session (ENABLE ALWAYS or REPLICA)."
        yield Note(reason, "Enable it as an ordinary trigger.")
    if may_exempt:
        return
    advice = (
        "Grant it: GRANT SET ON PARAMETER session_replication_role TO the migration's user (from PostgreSQL 15), or use"
        " a superuser."
    )
    changing = [trigger for trigger in detail.triggers if trigger[1] & _UPDATE_EVENT]
    if changing:
        reason = (
            f"Trigger {changing[0][0]} of {name} would fire when the rows move, and this user may not exempt its"
            " session."
        )
        yield Note(reason, advice, (IN_PLACE,))
    secondary = [key.name for key in table.unique_keys if set(key.columns) != set(table.primary_key)]
    if secondary and detail.row["strict_references"]:
        held = detail.row["strict_references"][0]
        reason = (
            f"Rows of {name} may exchange values of {secondary[0]} while {held} refers to them; copies need an exempt"
            " session then"
        )
        yield Note(reason, advice, (TWIN,))


def _unfit_kinds(name: str, row: Mapping[str, Any]) -> list[Note]:
    ignore = f'Choose another way for it and ignore it: `{name}: {{ignore: "<reason>"}}`.'
    if row["relkind"] == "m":
        return [
            Note(
                f"Materialised view {name} holds the tenant's id.",
                f"Refresh it after each switch and {ignore[0].lower()}{ignore[1:]}",
                ignorable="refreshed after each switch",
            )
        ]
    if row["relkind"] == "f":
        return [
            Note(
                f"Table {name} is a foreign table, which is not supported.",
                "Make its own database a participant, and ignore it here.",
            )
        ]
    if row["inherits"] and row["relkind"] != "p":
        reason = (
            f"Table {name} takes part in inheritance (INHERITS), which is not supported: its rows are seen through two"
            " tables, and an heir has triggers and keys of its own."
        )
        return [
            Note(reason, f"End it (ALTER TABLE <heir> NO INHERIT <parent>), or make the heirs partitions. {ignore}")
        ]
    return []


def make_work(
    catalog: Mapping[str, TableFacts],
    details: Mapping[str, Detail],
    moving: Mapping[str, Sequence[str]],
    plan: TablePlan,
    number: int,
) -> Work:
    """What the verbs need of a planned table.

    :param moving: tenant columns of the tables that change id.
    """
    table, detail = catalog[plan.table], details[plan.table]
    copied = tuple(
        column.name for column in table.columns if not column.generated and column.name not in plan.tenant_columns
    )
    return Work(
        plan.table,
        plan.tenant_columns,
        number,
        plan.strategy,
        plan.key,
        tuple(map(detail.key_type, plan.key)),
        copied,
        ties=ties(catalog, moving, plan.table, lambda name: details[name].sql),
        schema=detail.schema,
        relation=detail.relation,
        partitioned=bool(detail.partitioned),
        partitions=detail.partitioned.names if detail.partitioned else (),
        unique=(*plan.tenant_columns, *plan.key),
        fixed=tuple(column for column in copied if column in detail.always),
        triggers=bool(detail.triggers),
        exchanging=any(
            set(columns) - {*plan.tenant_columns, *plan.key}
            for columns in (table.primary_key, *(key.columns for key in table.unique_keys))
        ),
    )


def table_digest(
    session: PostgreSQLSession, connection: Connection, table: TableFacts, tenant: Sequence[str], tenant_id: str
) -> tuple[int, str]:
    """See :meth:`~.database.Database.table_digest`; the server hashes, rows stay where they are."""
    sql = session.table_sql(table.name)
    types = {column.name: column.type for column in table.columns}
    called = session.spelled(table, tenant)
    own = {column: spell(types[column], called.get(column, {}).get(tenant_id, tenant_id)) for column in tenant}
    shown = [
        f"nullif({quote(column.name)}, {own[column.name]})" if column.name in own else quote(column.name)
        for column in table.columns
    ]
    condition = " OR ".join(f"{quote(column)} = {value}" for column, value in own.items())
    # a sum does not depend on the rows' order; 60 of 128 bits of each row's hash
    number = f"('x' || substr(md5(ROW({', '.join(shown)})::text), 1, 15))::bit(60)::bigint::numeric"
    found = execute(connection, f"SELECT count(*), coalesce(sum({number}), 0)::text FROM {sql} WHERE {condition}").one()
    return int(found[0]), str(found[1])
