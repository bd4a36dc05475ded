# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Partitioned tables of PostgreSQL. A partitioned table is one table to the migration: it is planned, fenced, counted
and moved by its parent's name, and what its partitions have of their own (triggers, keys, owners) counts as the
parent's.

Row triggers of the parent are cloned to every partition, also to one that is made or attached later (PostgreSQL 13).
A row whose partition key holds the tenant's id moves to another partition when it changes id: PostgreSQL deletes and
inserts it, so that it is written anew with all entries of its indexes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import IN_PLACE, Refusal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute, literal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import (
    ForeignKey,
    Note,
    TableFacts,
    UniqueKey,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.sql import SCHEMA, Work, quote

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

Display = Callable[[Any, str], str]
"""(schema, relation) → the name that an operator writes."""

MOVES_KEYS = 150000
"""The version from which a referred row that moves to another partition is updated for its foreign keys; before, their
ON DELETE action is done to its children (release notes of 15)."""

_PARTITIONS = f"""
WITH RECURSIVE published AS MATERIALIZED (SELECT * FROM pg_publication_tables), tree(root, oid) AS (
 SELECT c.oid, c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'p'
  AND NOT c.relispartition AND n.nspname <> '{SCHEMA}'
 UNION ALL SELECT t.root, i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid)
SELECT rn.nspname AS root_schema, r.relname AS root_name, n.nspname, c.relname, c.relkind, c.oid = t.root AS is_root,
 c.relpages, c.reltuples, pg_total_relation_size(c.oid) AS size, pg_get_userbyid(c.relowner) AS owner,
 pg_has_role(c.relowner, 'USAGE') AS owned, current_setting('server_version_num')::int AS version,
 c.oid::bigint AS oid, pt.partstrat AS strategy, pt.partexprs IS NOT NULL AS expressions,
 ARRAY(SELECT a.attname::text FROM pg_depend d JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.objsubid
  WHERE c.relkind = 'p' AND d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid > 0
  AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid AND d.refobjsubid = 0 ORDER BY 1) AS key,
 ARRAY(SELECT ROW(tgname, tgtype, tgenabled)::text FROM pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal
  AND g.tgparentid = 0 AND g.tgenabled <> 'D' ORDER BY 1) AS triggers,
 ARRAY(SELECT conname::text FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'x' ORDER BY 1) AS exclusions,
 ARRAY(SELECT conname::text FROM pg_constraint k WHERE k.confrelid = c.oid AND k.contype = 'f' AND k.conparentid = 0
  ORDER BY 1) AS referring,
 ARRAY(SELECT pubname::text FROM published p WHERE p.schemaname = n.nspname AND p.tablename = c.relname
  ORDER BY 1) AS publications,
 ARRAY(SELECT x.relname::text FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = c.oid
  AND i.indisunique AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.indexrelid) ORDER BY 1)
  AS unique_keys
FROM tree t JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace
 JOIN pg_class r ON r.oid = t.root JOIN pg_namespace rn ON rn.oid = r.relnamespace
 LEFT JOIN pg_partitioned_table pt ON pt.partrelid = c.oid
ORDER BY 1, 2, c.oid <> t.root, 3, 4"""

_FOREIGN_KEYS = """
SELECT n.nspname, c.relname, k.conname, rn.nspname, r.relname, k.conparentid <> 0 FROM pg_constraint k
 JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
 JOIN pg_class r ON r.oid = k.confrelid JOIN pg_namespace rn ON rn.oid = r.relnamespace WHERE k.contype = 'f'"""


def tree(oids: str) -> str:
    """Query: these tables (a set of SQL) with all of their partitions; it takes no locks on them."""
    return (
        f"WITH RECURSIVE tree(oid) AS ({oids} UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent ="
        " tree.oid) SELECT oid FROM tree"
    )


@dataclass(frozen=True)
class Partitioned:
    """A partitioned table: ``rows`` of the query above, the parent's first, and the names of its partitions."""

    rows: tuple[Mapping[str, Any], ...]
    names: tuple[str, ...]

    @property
    def parts(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Name and row of each partition, partitioned ones too."""
        return zip(self.names, self.rows[1:], strict=True)

    @property
    def key(self) -> frozenset[str]:
        """Columns of the partition keys of all levels, also of those that are expressions."""
        return frozenset(column for row in self.rows for column in row["key"])

    def of_the_whole(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The parent's *row* of the catalog with what its partitions add to it."""
        stranger = next((part for part in self.rows if not part["owned"]), None)
        joined = {
            name: [item for part in self.rows for item in part[name]]
            for name in ("triggers", "exclusions", "publications")
        }
        # the parent's own are in its row, without ours
        joined["triggers"] = [*row["triggers"], *(item for part in self.rows[1:] for item in part["triggers"])]
        return {
            **row,
            **joined,
            "size": sum(part["size"] for part in self.rows),
            "relpages": sum(part["relpages"] for part in self.rows[1:]),
            "reltuples": sum(max(part["reltuples"], 0) for part in self.rows[1:] if part["relkind"] != "p"),
            "owned": stranger is None,
            "owner": (stranger or row)["owner"],
        }


def read_partitions(connection: Connection, display: Display) -> dict[str, Partitioned]:
    """The partitioned tables by the operator's name."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in execute(connection, _PARTITIONS).mappings():
        rows.setdefault(display(row["root_schema"], row["root_name"]), []).append(row)
    return {
        name: Partitioned(tuple(parts), tuple(display(part["nspname"], part["relname"]) for part in parts[1:]))
        for name, parts in rows.items()
    }


def as_one(
    connection: Connection,
    reflected: Mapping[str, TableFacts],
    partitioned: Mapping[str, Partitioned],
    display: Display,
) -> dict[str, TableFacts]:
    """All tables without partitions: their own keys are the parent's, and a key to one of them is a key to the
    parent. SQLAlchemy takes a key from another schema into the default one for a key to a table beside it.
    """
    root = {part: name for name, table in partitioned.items() for part in table.names}
    referred: dict[tuple[str, str], str] = {}
    for schema, table, key, parent_schema, parent, inherited in execute(connection, _FOREIGN_KEYS):
        name = display(parent_schema, parent)
        referred |= {} if inherited else {(display(schema, table), key): root.get(name, name)}

    def foreign_keys(facts: TableFacts) -> list[ForeignKey]:
        found = ((key, referred.get((facts.name, key.name))) for key in facts.foreign_keys)
        return [replace(key, table=parent) for key, parent in found if parent]

    result = {}
    for name, facts in reflected.items():
        if name in root:
            continue
        keys, unique = foreign_keys(facts), list(facts.unique_keys)
        for part, row in partitioned[name].parts if name in partitioned else ():
            own = reflected[part]
            keys += foreign_keys(own)
            # only a part of the table: no key that identifies its rows
            unique += [
                UniqueKey(f"{key.name} of partition {part}", key.columns, whole=False)
                for key in (UniqueKey(_primary(row, own), own.primary_key), *own.unique_keys)
                if key.name in row["unique_keys"]
            ]
        result[name] = replace(facts, foreign_keys=tuple(keys), unique_keys=tuple(unique))
    return result


def _primary(row: Mapping[str, Any], own: TableFacts) -> str:
    """Name of a partition's own primary key; empty when it is the parent's."""
    others = {key.name for key in own.unique_keys}
    return next((name for name in row["unique_keys"] if name not in others), "") if own.primary_key else ""


def partition_notes(table: TableFacts, partitioned: Partitioned, tenant: Sequence[str]) -> Iterator[Note]:
    """What forbids strategies for a partitioned table."""
    for part, row in partitioned.parts:
        if row["relkind"] == "f":
            reason = f"Partition {part} of {table.name} is a foreign table, which is not supported."
            yield Note(reason, "Detach it, make its own database a participant, and ignore it here.")
    moving = sorted(partitioned.key & set(tenant))
    if not moving:
        return
    for part, row in partitioned.parts:
        if row["referring"]:
            reason = (
                f"Foreign key {row['referring'][0]} refers to partition {part} of {table.name}, and rows that change"
                f" {moving[0]} leave it."
            )
            yield Note(reason, f"Let the key refer to {table.name}, or drop it for the migration.")
    root = partitioned.rows[0]
    if root["version"] < MOVES_KEYS and root["referring"]:
        reason = (
            f"{moving[0]} is in the partition key of {table.name}, and before PostgreSQL 15 a row that moves to another"
            f" partition counts as deleted for foreign key {root['referring'][0]}."
        )
        yield Note(reason, "Drop the key for the migration, or upgrade the server.", (IN_PLACE,))


def takers(connection: Connection, partitioned: Partitioned) -> dict[str, str]:
    """By name of each partition that holds rows itself the condition of its rows, on the parent's columns."""
    leaves = {row["oid"]: part for part, row in partitioned.parts if row["relkind"] != "p"}
    listed = ", ".join(map(str, leaves)) or "0"
    query = f"SELECT oid, coalesce(pg_get_partition_constraintdef(oid), 'true') FROM pg_class WHERE oid IN ({listed})"
    return {leaves[row[0]]: row[1] for row in execute(connection, query)}


def homeless(connection: Connection, table: str, partitioned: Partitioned, rows: str, other_id: str) -> Refusal | None:
    """The refusal of rows that no partition takes when they stand under *other_id*.

    :param rows: the tenant's rows as they will stand, as a query.
    """
    distinct = "" if any(row["expressions"] for row in partitioned.rows) else "DISTINCT "
    columns = ", ".join(map(quote, sorted(partitioned.key)))
    taken = " OR ".join(f"({condition})" for condition in takers(connection, partitioned).values()) or "false"
    query = f"SELECT 1 FROM (SELECT {distinct}{columns} FROM ({rows}) r) d WHERE ({taken}) IS NOT TRUE LIMIT 1"
    if not execute(connection, query).first():
        return None
    root = partitioned.rows[0]
    example = f"a partition of {table} for them, with the same sub-partitions as the tenant's own"
    flat = not any(row["relkind"] == "p" for _part, row in partitioned.parts)
    if flat and root["strategy"] == "l" and len(root["key"]) == 1 and not root["expressions"]:
        parent = quote(root["root_schema"], root["root_name"])
        example = f"one: CREATE TABLE <name> PARTITION OF {parent} FOR VALUES IN ({literal(other_id)})"
    return Refusal(
        table,
        f"Table {table} has no partition for rows of {other_id}: the tenant column is in its partition key.",
        f"Make {example}.",
    )


def were_partitions(
    refusals: Sequence[Refusal], catalog: Mapping[str, TableFacts], staged: Sequence[Work]
) -> tuple[Refusal, ...]:
    """The same refusals; one of rows of the other id in a table that was a partition when its parent was staged says
    whose they are.
    """
    parents = {part: work.name for work in staged for part in work.partitions}
    return tuple(
        Refusal(
            refusal.object,
            f"Table {refusal.object} was a partition of {parents[refusal.object]} when that was staged, and holds"
            f" {catalog[refusal.object].rows_of_target} rows of the id that is not live.",
            "They are the migration's: attach it again; or, if it is to stay alone, remove them and stage again.",
        )
        if refusal.object in parents and refusal.object in catalog and catalog[refusal.object].rows_of_target
        else refusal
        for refusal in refusals
    )
