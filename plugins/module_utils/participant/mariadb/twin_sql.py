# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Statements of MariaDB's twins: chunks, application of logged keys, comparison. No connection here.

The alias ``a`` is always a row of the live id, ``b`` its twin, ``k`` a key that is being applied, ``l`` a logged one.
Joins are written in the order in which they must run: the optimizer's statistics know nothing of rows that were written
a moment ago. A key that bounds a range is a list of texts; statements hold :func:`database.parameter` marks for its
columns: those of the lower bound come first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from ansible_collections.zdm.landscape.plugins.module_utils.core.names import short_hash
from ansible_collections.zdm.landscape.plugins.module_utils.participant.constraints import loose
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.planned import (
    MariaDBPlanned,
    as_text,
    from_text,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.sql import (
    Quote,
    kept_name,
    log_name,
    spell,
    text,
    widest,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.triggers import SEQUENCE
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import State

Key = Sequence[str]
SHOWN = 25
"""Differing keys of a chunk that are told."""
_CLASHING = 2**63
"""Numbers in the table of taken keys from here on belong to no entry of the log."""


class Range:
    """Keys beyond *after* and up to *until*; without a bound where it is None."""

    def __init__(self, after: Key | None, until: Key | None) -> None:
        self.after, self.until = after, until

    @property
    def values(self) -> list[str]:
        """What the statements' marks stand for."""
        return [*(self.after or ()), *(self.until or ())]


class Twin:
    """The statements of one planned table."""

    def __init__(self, state: State, table: MariaDBPlanned, quote: Quote) -> None:
        self.table = table
        self.quote = quote
        self.live, self.other = state.live_id, state.other_id
        self.name = quote(table.name)
        self._taken = quote(f"zdm_taken_{short_hash(state.migration)}_{table.number}")
        self._kept = quote(kept_name(state.migration))
        self.log = quote(log_name(state.migration, state.side(state.live_id), table.number))

    # -- pieces -----------------------------------------------------------------------------------

    def _columns(self, names: Iterable[str], prefix: str = "") -> str:
        return ", ".join(prefix + self.quote(name) for name in names)

    def _keys(self, alias: str) -> str:
        return self._columns(self.table.key, f"{alias}.")

    def _key_texts(self, alias: str) -> str:
        kinds = zip(self.table.key, self.table.key_types, strict=True)
        return ", ".join(as_text(f"{alias}.{self.quote(column)}", kind) for column, kind in kinds)

    def _is(self, prefix: str, tenant_id: str) -> str:
        return f"{prefix}{self.quote(self.table.columns[0])} = {self._value(tenant_id)}"

    def _value(self, tenant_id: str) -> str:
        column = self.table.columns[0]
        return spell(self.table.kind(column), self.table.called(column, tenant_id))

    def _none(self, alias: str) -> str:
        return f"{alias}.{self.quote(self.table.columns[0])} IS NULL"

    def _same_key(self, left: str, right: str) -> str:
        return self._same(self.table.key, left, right)

    def _same(self, names: Iterable[str], left: str, right: str) -> str:
        return " AND ".join(f"{left}.{column} = {right}.{column}" for column in map(self.quote, names))

    def _aliased(self, alias: str) -> str:
        return f"{self.name} {alias} FORCE INDEX ({self.quote(self.table.index)})"

    def _twin_of(self, left: str) -> str:
        return f"{self._aliased('b')} ON {self._is('b.', self.other)} AND {self._same_key('b', left)}"

    def _original_of(self, left: str) -> str:
        return f"{self._aliased('a')} ON {self._is('a.', self.live)} AND {self._same_key('a', left)}"

    def _within(self, alias: str, keys: Range) -> str:
        """The rows of ``a`` or ``b`` in a range."""
        where = self._is(f"{alias}.", self.live if alias == "a" else self.other)
        columns = [f"{alias}.{self.quote(column)}" for column in self.table.key]
        first = 0
        for bound, compare, last in ((keys.after, ">", ">"), (keys.until, "<", "<=")):
            if bound:
                marks = [from_text(first + number, kind) for number, kind in enumerate(self.table.key_types)]
                where += f" AND {beyond(columns, marks, compare, last)}"
                first += len(columns)
        return where

    # -- chunks -----------------------------------------------------------------------------------

    def chunk_end(self, alias: str, after: Key | None, rows: int) -> str:
        """The key of the last row of the next chunk of ``a`` or ``b``; no row when fewer than *rows* are left."""
        return (
            f"SELECT {self._key_texts(alias)} FROM {self._aliased(alias)} WHERE"
            f" {self._within(alias, Range(after, None))} ORDER BY {self._keys(alias)} LIMIT 1 OFFSET {rows - 1}"
        )

    def chunk(self, keys: Range, present: bool) -> str:
        """Copy the rows of a range.

        At READ COMMITTED the statement reads one snapshot and locks nothing that it reads.

        :param present: some of them may have been copied before; they stay as they are.
        """
        join = f" LEFT JOIN {self._twin_of('a')}" if present else ""
        absent = f" AND {self._none('b')}" if present else ""
        return f"{self._insert()} FROM {self._aliased('a')}{join} WHERE {self._within('a', keys)}{absent}"

    def _insert(self) -> str:
        columns = f"{self.quote(self.table.columns[0])}, {self._columns(self.table.copied)}"
        return (
            f"INSERT INTO {self.name} ({columns}) SELECT {self._value(self.other)},"
            f" {self._columns(self.table.copied, 'a.')}"
        )

    def purge(self, keys: Range) -> str:
        """Delete the twins of a range; by its index, so that no other tenant's locks are met where the key begins with
        the tenant.
        """
        return f"DELETE b FROM {self._aliased('b')} WHERE {self._within('b', keys)}"

    def purge_some(self, rows: int) -> str:
        """The same without key and index, which may be gone."""
        return f"DELETE FROM {self.name} WHERE {self._is('', self.other)} LIMIT {rows}"

    # -- the log ----------------------------------------------------------------------------------

    def waiting(self) -> str:
        return f"(SELECT COUNT(*) FROM {self.log})"

    def make_taken(self) -> tuple[str, str]:
        """An empty temporary table of keys.

        Statements that change rows join it: one that read the log would wait for the log's uncommitted entries.
        """
        columns = ", ".join(
            f"{self.quote(column)} {widest(kind)} NOT NULL"
            for column, kind in zip(self.table.key, self.table.key_types, strict=True)
        )
        return (
            f"CREATE TEMPORARY TABLE IF NOT EXISTS {self._taken} ({SEQUENCE} BIGINT UNSIGNED NOT NULL PRIMARY KEY,"
            f" {columns}) ENGINE=InnoDB",
            f"DELETE FROM {self._taken}",
        )

    def take(self, most: int | None) -> str:
        """Note the oldest committed entries of the log; the row count is their number."""
        return (
            f"INSERT INTO {self._taken} SELECT {SEQUENCE}, {self._columns(self.table.key)} FROM {self.log} ORDER BY"
            f" {SEQUENCE}{f' LIMIT {most}' if most is not None else ''}"
        )

    def take_clashing(self, keys: Range | None) -> Iterator[str]:
        """Note twins that hold what a row to be written needs for itself alone: such a twin is not what its original
        is now. Where the rows are those of *keys*, or of the keys noted before.
        """
        source = f"{self._aliased('a')}" if keys else f"{self._some_keys()} STRAIGHT_JOIN {self._original_of('k')}"
        where = self._within("a", keys) if keys else self._is("a.", self.live)
        number = f"{_CLASHING} + (SELECT COUNT(*) FROM {self._taken}) + ROW_NUMBER() OVER (ORDER BY {self._keys('c')})"
        for unique in self.table.uniques:
            same = self._same(json.loads(unique), "b", "a")
            clashing = (
                f"SELECT DISTINCT {self._keys('b')} FROM {source} STRAIGHT_JOIN {self.name} b ON"
                f" {self._is('b.', self.other)} AND {same} WHERE {where} AND NOT ({self._same_key('b', 'a')})"
            )
            yield (
                f"INSERT INTO {self._taken} SELECT {number}, {self._keys('c')} FROM ({clashing}) c LEFT JOIN"
                f" {self._taken} t ON {self._same_key('t', 'c')} WHERE t.{SEQUENCE} IS NULL"
            )

    def _some_keys(self) -> str:
        return f"(SELECT DISTINCT {self._columns(self.table.key)} FROM {self._taken}) k"

    def apply(self) -> tuple[str, ...]:
        """Take the twins of the noted keys away, write them as their originals are now, drop the entries."""
        return (
            f"DELETE b FROM {self._taken} k STRAIGHT_JOIN {self._twin_of('k')}",
            f"{self._insert()} FROM {self._some_keys()} STRAIGHT_JOIN {self._original_of('k')}",
            f"DELETE l FROM {self._taken} k STRAIGHT_JOIN {self.log} l FORCE INDEX (PRIMARY) ON l.{SEQUENCE} ="
            f" k.{SEQUENCE}",
        )

    def loose(self) -> Iterator[tuple[str, str]]:
        """For each foreign key to rows that stay: a query that has a row when an applied twin refers to nothing, and
        the key in words.
        """
        twins = (
            f"FROM {self._taken} k STRAIGHT_JOIN {self._aliased('c')} ON {self._is('c.', self.other)} AND"
            f" {self._same_key('c', 'k')}"
        )
        for tie in self.table.ties:
            yield loose(tie, twins, self.quote)

    # -- comparison -------------------------------------------------------------------------------

    def _differ(self) -> str:
        """Condition: the rows ``a`` and ``b`` differ, byte for byte."""
        pairs = []
        for column in self.table.copied:
            cast = "BINARY " if column in self.table.texts else ""
            pairs.append(f"{cast}a.{self.quote(column)} <=> {cast}b.{self.quote(column)}")
        return f"NOT ({' AND '.join(pairs)})"

    def applied_wrong(self) -> str:
        """Applied keys with unequal rows although no further change of them is logged, at one snapshot."""
        unequal = f"({self._none('a')}) <> ({self._none('b')}) OR (NOT {self._none('a')} AND {self._differ()})"
        return (
            f"SELECT {self._key_texts('k')} FROM {self._some_keys()} LEFT JOIN {self._original_of('k')} LEFT JOIN"
            f" {self._twin_of('k')} WHERE ({unequal}) AND NOT EXISTS (SELECT 1 FROM {self.log} l WHERE"
            f" {self._same_key('l', 'k')}) LIMIT {SHOWN}"
        )

    def compare(self, keys: Range) -> str:
        """Rows of the live id in a range, those without an equal twin, twins in the range; at one snapshot. Waiting
        keys are not left out.
        """
        return (
            f"SELECT COUNT(*), COALESCE(SUM({self._none('b')} OR {self._differ()}), 0), (SELECT COUNT(*) FROM"
            f" {self._aliased('b')} WHERE {self._within('b', keys)}) FROM {self._aliased('a')} LEFT JOIN"
            f" {self._twin_of('a')} WHERE {self._within('a', keys)}"
        )

    def _wrong(self, keys: Range) -> tuple[str, str]:
        """FROM and WHERE of the rows ``x`` that differ: originals without an equal twin, and twins without an original;
        keys that wait in the log do not count.
        """
        waiting = f"(SELECT DISTINCT {self._columns(self.table.key)} FROM {self.log}) l"
        known = f"l.{self.quote(self.table.key[0])} IS NULL"
        return (
            f"FROM {self._aliased('a')} LEFT JOIN {self._twin_of('a')} LEFT JOIN {waiting} ON"
            f" {self._same_key('l', 'a')} WHERE {self._within('a', keys)} AND ({self._none('b')} OR {self._differ()})"
            f" AND {known}",
            f"FROM {self._aliased('b')} LEFT JOIN {self._original_of('b')} LEFT JOIN {waiting} ON"
            f" {self._same_key('l', 'b')} WHERE {self._within('b', keys)} AND {self._none('a')} AND {known}",
        )

    def wrong(self, keys: Range) -> tuple[str, str]:
        """Keys of rows that differ; two statements."""
        originals, twins = self._wrong(keys)
        return (
            f"SELECT {self._key_texts('a')} {originals} LIMIT {SHOWN}",
            f"SELECT {self._key_texts('b')} {twins} LIMIT {SHOWN}",
        )

    def mend(self, keys: Range) -> Iterator[str]:
        """Keep the twins that differ, and log the keys."""
        for alias, wrong in zip("ab", self._wrong(keys), strict=True):
            row = f"{text(self.table.name)}, {self._as_json()}"
            yield f"INSERT INTO {self._kept} (table_name, `row`) SELECT {row} {wrong} AND NOT {self._none('b')}"
            yield f"INSERT INTO {self.log} ({self._columns(self.table.key)}) SELECT {self._keys(alias)} {wrong}"

    def _as_json(self) -> str:
        """The twin as a JSON object; bytes in hexadecimal."""
        pairs = []
        for column in (self.table.columns[0], *self.table.copied):
            value = f"b.{self.quote(column)}"
            if column in self.table.binaries:
                value = f"HEX({value})"
            elif column in self.table.texts:
                value = f"CONVERT({value} USING utf8mb4)"
            pairs.append(f"{text(column)}, {value}")
        return f"JSON_OBJECT({', '.join(pairs)})"


def beyond(columns: Sequence[str], bound: Sequence[str], compare: str, last: str) -> str:
    """(columns) *compare* (bound), written out: MariaDB has no range access for row comparisons.

    :param bound: SQL, one for each column.
    :param compare: ``<`` or ``>``.
    :param last: how the last column compares: the same, or ``<=``.
    """
    ways = []
    for number, column in enumerate(columns):
        equal = [f"{before} = {value}" for before, value in zip(columns[:number], bound[:number], strict=True)]
        final = last if number == len(columns) - 1 else compare
        ways.append(" AND ".join([*equal, f"{column} {final} {bound[number]}"]))
    # the first column alone gives the optimizer its range
    return f"{columns[0]} {compare}= {bound[0]} AND ({' OR '.join(f'({way})' for way in ways)})"
