# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Statements of PostgreSQL's twins: chunks, application of the log, comparison. Pure, runs nothing.

``a`` is always a row of the live id, ``b`` its twin, ``k`` a logged key.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import literal, parameter
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.sql import Scheme, Work, quote

# a plan that was made for a table without statistics would read a large table as a whole inside the window
KEY_LOOKUPS_ONLY = "SELECT " + ", ".join(
    f"set_config('enable_{node}', 'off', true)" for node in ("seqscan", "hashjoin", "mergejoin", "material")
)


class Twins(Scheme):
    """Statements of all twins of one migration; :attr:`live` is copied to :attr:`other`."""

    # -- the log ----------------------------------------------------------------------------------

    def waiting(self, tables: Sequence[Work]) -> str:
        """Entries in the log of each table."""
        return "SELECT " + ", ".join(f"(SELECT count(*) FROM {self.live_log(work)})" for work in tables)

    def _oldest(self, work: Work, columns: str, most: int | None) -> str:
        """The first entries of a log; the same ones in every statement that reads the same state of the database."""
        return f"SELECT {columns} FROM {self.live_log(work)} ORDER BY zdm_seq LIMIT {most or 'ALL'}"

    def empty_log(self, tables: Sequence[Work], most: int | None) -> str:
        return "; ".join(
            f"DELETE FROM {self.live_log(work)} WHERE zdm_seq IN ({self._oldest(work, 'zdm_seq', most)})"
            for work in tables
        )

    def apply(self, tables: Sequence[Work], most: int | None, anew: Collection[int] = ()) -> str:
        """Bring the twins of the logged keys up to date in ONE statement.

        One snapshot for log and rows; deletes come before inserts, for secondary unique keys; foreign keys are checked
        at the end, so the order of tables does not matter.

        :param anew: numbers of tables whose logged rows are all taken away and inserted anew, as rows may have
            exchanged values of a unique key, or a value has changed that no UPDATE can set. Nowhere else: foreign keys
            with ON DELETE CASCADE would take the children along.
        """
        deletes, inserts, gone = [], [], []
        for work in tables:
            n = work.number
            deletes.append(f"k{n} AS MATERIALIZED {self._logged(work, most)}")
            lost = (
                ""
                if n in anew
                else (
                    f" AND NOT EXISTS (SELECT FROM {work.sql} a WHERE {work.is_id(self.live, 'a.')} AND"
                    f" {work.same_key('a', f'k{n}')})"
                )
            )
            deletes.append(
                f"d{n} AS (DELETE FROM {work.sql} b USING k{n} WHERE {self._twin_of(work, f'k{n}')}{lost} RETURNING 1)"
            )
            gone.append(f"(SELECT count(*) FROM d{n})")
            # the key too: 1.0 and 1.00 are equal, and so are two spellings of a citext, and yet they are not the same
            changes = [
                f"{quote(column)} = excluded.{quote(column)}" for column in work.copied if column not in work.fixed
            ]
            then = f"UPDATE SET {', '.join(changes)}" if changes else "NOTHING"
            conflict = "" if n in anew else f" ON CONFLICT ({work.listed(work.unique)}) DO {then}"
            source = (
                f"{work.sql} a JOIN k{n} ON {work.same_key('a', f'k{n}')} WHERE {work.is_id(self.live, 'a.')} AND"
                " (SELECT n FROM gone) >= 0"
            )
            inserts.append(f"u{n} AS ({self._insert(work, source)}{conflict} RETURNING 1)")
        parts = [*deletes, f"gone AS (SELECT {' + '.join(gone)} AS n)", *inserts]
        counts = " + ".join(f"(SELECT count(*) FROM u{work.number})" for work in tables)
        return f"WITH {', '.join(parts)} SELECT {counts} + (SELECT n FROM gone)"

    def _logged(self, work: Work, most: int | None) -> str:
        entries = self._oldest(work, work.listed(work.key), most)
        return f"(SELECT DISTINCT {work.listed(work.key)}, {work.values(self.other)[0]} AS zdm_to FROM ({entries}) l)"

    def _twin_of(self, work: Work, keys: str) -> str:
        """The row ``b`` is the twin of a logged key. The id comes out of *keys*, not as a constant: the planner's
        statistics do not know the twins yet, so it would take them for a single row and read all of them once for every
        key."""
        return f"b.{quote(work.columns[0])} = {keys}.zdm_to AND {work.same_key('b', keys)}"

    def _insert(self, work: Work, source: str) -> str:
        columns = f"{quote(work.columns[0])}, {work.listed(work.copied)}"
        return (
            f"INSERT INTO {work.sql} ({columns}) OVERRIDING SYSTEM VALUE SELECT {work.values(self.other)[0]},"
            f" {work.listed(work.copied, 'a.')} FROM {source}"
        )

    def differing(self, tables: Sequence[Work], most: int | None) -> str:
        """Number of logged keys whose rows are not the same under both ids, per table."""
        return "SELECT " + ", ".join(
            f"(SELECT count(*) FROM {self._logged(work, most)} k LEFT JOIN {work.sql} a ON"
            f" {work.is_id(self.live, 'a.')} AND {work.same_key('a', 'k')} LEFT JOIN {work.sql} b ON"
            f" {self._twin_of(work, 'k')} WHERE {_unequal(work)})"
            for work in tables
        )

    # -- chunks -----------------------------------------------------------------------------------

    def _between(self, work: Work, after: bool, until: bool, prefix: str) -> str:
        """Condition on the key; its bounds are the statement's parameters, first the lower one."""
        numbers = itertools.count()

        def bound() -> str:
            return ", ".join(f"{parameter(next(numbers))}::{kind}" for kind in work.key_types)

        keys = work.listed(work.key, prefix)
        return (f" AND ({keys}) > ({bound()})" if after else "") + (f" AND ({keys}) <= ({bound()})" if until else "")

    def chunk_end(self, work: Work, after: bool, rows: int) -> str:
        """The key of the last row of the next chunk; no row when fewer than *rows* are left."""
        keys = ", ".join(f"a.{quote(column)}::text" for column in work.key)
        return (
            f"SELECT {keys} FROM {work.sql} a WHERE {work.is_id(self.live, 'a.')}"
            f"{self._between(work, after, False, 'a.')} ORDER BY {work.listed(work.key, 'a.')} OFFSET {rows - 1}"
            " LIMIT 1"
        )

    def fresh_chunk(self, work: Work, after: bool, rows: int) -> str:
        """Copy the next rows where the log has brought none; an error where it has. Their number, and the last key.

        It takes two thirds of the time of :meth:`chunk`, which looks for every row before it writes it.
        """
        source = f"{work.sql} a WHERE {work.is_id(self.live, 'a.')}{self._between(work, after, False, 'a.')}"
        ordered = f"ORDER BY {work.listed(work.key, 'a.')} LIMIT {rows}"
        keys = ", ".join(f"c.{quote(column)}::text" for column in work.key)
        last = ", ".join(f"c.{quote(column)} DESC" for column in work.key)
        return (
            f"WITH c AS ({self._insert(work, f'{source} {ordered}')} RETURNING {work.listed(work.key)})"
            f" SELECT (SELECT count(*) FROM c), {keys} FROM c ORDER BY {last} LIMIT 1"
        )

    def chunk(self, work: Work, after: bool, until: bool) -> str:
        """Copy the rows between two keys; rows that the log brought before stay as they are."""
        source = f"{work.sql} a WHERE {work.is_id(self.live, 'a.')}{self._between(work, after, until, 'a.')}"
        return f"{self._insert(work, source)} ON CONFLICT ({work.listed(work.unique)}) DO NOTHING"

    def log_range(self, work: Work, after: bool, until: bool) -> str:
        """Log the rows between two keys, so that they are copied together with all that the log has."""
        source = f"{work.sql} a WHERE {work.is_id(self.live, 'a.')}{self._between(work, after, until, 'a.')}"
        keys = work.listed(work.key)
        return f"INSERT INTO {self.live_log(work)} ({keys}) SELECT {work.listed(work.key, 'a.')} FROM {source}"

    def followed_by_others(self, works: Sequence[Work]) -> str:
        """Query: whether a foreign key would change rows, or refuse, when rows of these tables are deleted."""
        names = ", ".join(f"to_regclass({literal(work.sql)})" for work in works)
        return f"SELECT EXISTS (SELECT FROM pg_constraint WHERE confrelid IN ({names}) AND confdeltype <> 'a')"

    def compare(self, work: Work, after: bool, until: bool, shown: int, mend: bool) -> str:
        """Rows of the live id between two keys, and up to *shown* keys of those that differ from their twins, or of
        twins without an original, although no change of theirs is logged.

        To mend: the twins that differ are kept, their keys are logged.
        """
        log = self.live_log(work)
        sides = [
            f"(SELECT {work.listed(work.copied)} FROM {work.sql} WHERE {work.is_id(tenant_id)}"
            f"{self._between(work, after, until, '')})"
            for tenant_id in (self.live, self.other)
        ]
        either = [f"coalesce(a.{quote(column)}, b.{quote(column)})" for column in work.key]
        logged = " AND ".join(f"l.{quote(column)} = {key}" for column, key in zip(work.key, either, strict=True))
        named = ", ".join(f"{key} AS {quote(column)}" for column, key in zip(work.key, either, strict=True))
        joined = f"{sides[0]} a FULL JOIN {sides[1]} b ON {work.same_key('a', 'b')}"
        live = f"a.{quote(work.key[0])} IS NOT NULL AS zdm_live"
        parts = [
            f"j AS MATERIALIZED (SELECT {named}, {live}, {_unequal(work)} AND NOT EXISTS (SELECT FROM {log} l WHERE"
            f" {logged}) AS zdm_differs FROM {joined})",
            f"d AS MATERIALIZED (SELECT {work.listed(work.key)} FROM j WHERE zdm_differs)",
        ]
        if mend:
            twins = f"{work.sql} b JOIN d ON {work.same_key('b', 'd')} WHERE {work.is_id(self.other, 'b.')}"
            parts += [
                f"kept AS (INSERT INTO {self.kept} (table_name, kept) SELECT {literal(work.name)}, to_jsonb(b) FROM"
                f" {twins})",
                f"noted AS (INSERT INTO {log} ({work.listed(work.key)}) SELECT {work.listed(work.key)} FROM d)",
            ]
        sample = f"SELECT concat_ws(', ', {work.listed(work.key)}) AS key FROM d LIMIT {shown}"
        return (
            f"WITH {', '.join(parts)} SELECT (SELECT count(*) FROM j WHERE zdm_live),"
            f" ARRAY(SELECT key FROM ({sample}) s)"
        )

    def create_kept(self) -> str:
        return (
            f"CREATE TABLE IF NOT EXISTS {self.kept} (table_name text NOT NULL, at timestamptz NOT NULL DEFAULT now(),"
            " kept jsonb NOT NULL)"
        )

    def purge(self, work: Work, rows: int) -> str:
        """The id stands there twice: rows of other partitions, and of other tenants, have the same ctid."""
        return (
            f"DELETE FROM {work.sql} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {work.sql} WHERE"
            f" {work.is_id(self.other)} LIMIT {rows})) AND {work.is_id(self.other)}"
        )


def _unequal(work: Work) -> str:
    """Condition: the rows ``a`` and ``b`` differ in a byte; equal values that are written differently do too, which
    the operator of materialised views' refresh sees (manual, "Row and Array Comparisons").
    """
    left, right = (f"ROW({work.listed(work.copied, prefix)})::record" for prefix in ("a.", "b."))
    return f"{left} OPERATOR(pg_catalog.*<>) {right}"
