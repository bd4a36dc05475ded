# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Statements of MariaDB's twins: key logs, triggers that fill them, chunks, application, comparison. No connection
here.

The alias ``a`` is always a row of the live id, ``b`` its twin, ``k`` a logged key. Joins are written in the order in
which they must run: the optimizer's statistics know nothing of rows that were written a moment ago.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ansible_collections.zdm.landscape.plugins.module_utils.core.names import short_hash
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import literal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.sql import (
    EVENTS,
    Quote,
    Trigger,
    worker_token,
    worker_variable,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import Planned, State

SEQUENCE = "zdm_seq"
"""Primary key of a log; a table's own key columns stand beside it."""
_NUMBERS = ("tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "year")
SIDES = ("s", "t")
"""Logs belong to the migration's source or target id; only the live one's is written to, as the other id is fenced."""


class Twin:
    """The statements of one planned table.

    :param number: the table's place in the state row, which names its log.
    """

    def __init__(self, state: State, number: int, quote: Quote) -> None:
        self.table: Planned = state.tables[number]
        self.quote = quote
        self.number = number
        self.live, self.other = state.live_id, state.other_id
        self._migration = state.migration
        self._ids = dict(zip(SIDES, (state.source_id, state.target_id), strict=True))
        self.name = quote(self.table.name)
        self._taken = quote(f"zdm_taken_{short_hash(self._migration)}_{number}")
        self.log = quote(self.log_name("s" if state.live_id == state.source_id else "t"))

    def log_name(self, side: str) -> str:
        return f"zdm_log_{short_hash(self._migration)}_{side}_{self.number}"

    # -- helper objects ---------------------------------------------------------------------------

    def create_logs(self) -> dict[str, str]:
        """Statement by the log's name."""
        columns = "".join(
            f", {self.quote(column)} {kind} NOT NULL"
            for column, kind in zip(self.table.key, self.table.key_types, strict=True)
        )
        head = f"({SEQUENCE} BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY{columns}) ENGINE=InnoDB"
        return {
            (name := self.log_name(side)): f"CREATE TABLE IF NOT EXISTS {self.quote(name)} {head}" for side in SIDES
        }

    def triggers(self) -> dict[str, Trigger]:
        """Every change commits together with its key, whoever makes it but the migration's own worker."""
        result = {}
        for event in EVENTS:
            name = f"zdm_{short_hash(self._migration)}_{self.number}_l{event[0].lower()}"
            result[name] = Trigger(name, self.table.name, event, self._body(event), "AFTER")
        return result

    def _body(self, event: str) -> str:
        tenant = self.quote(self.table.columns[0])
        same_key = " AND ".join(f"OLD.{column} <=> NEW.{column}" for column in map(self.quote, self.table.key))
        notes = []
        for side, tenant_id in self._ids.items():
            old, new = (f"{row}.{tenant} = {literal(tenant_id)}" for row in ("OLD", "NEW"))
            conditions = {
                "INSERT": (("NEW", new),),
                "UPDATE": (("OLD", old), ("NEW", f"{new} AND NOT ({old} AND {same_key})")),
                "DELETE": (("OLD", old),),
            }
            notes += [f"IF {condition} THEN {self._note(side, row)} END IF;" for row, condition in conditions[event]]
        return (
            f"IF NOT ({worker_variable(self._migration)} <=> {literal(worker_token(self._migration))}) THEN"
            f" {' '.join(notes)} END IF"
        )

    def _note(self, side: str, row: str) -> str:
        columns = ", ".join(map(self.quote, self.table.key))
        values = ", ".join(f"{row}.{self.quote(column)}" for column in self.table.key)
        return f"INSERT INTO {self.quote(self.log_name(side))} ({columns}) VALUES ({values});"

    # -- chunks -----------------------------------------------------------------------------------

    def _columns(self, names: Iterable[str], prefix: str = "") -> str:
        return ", ".join(prefix + self.quote(name) for name in names)

    def _is(self, prefix: str, tenant_id: str) -> str:
        return f"{prefix}{self.quote(self.table.columns[0])} = {literal(tenant_id)}"

    def _same_key(self, left: str, right: str) -> str:
        return " AND ".join(f"{left}.{column} = {right}.{column}" for column in map(self.quote, self.table.key))

    def _aliased(self, alias: str) -> str:
        return f"{self.name} {alias} FORCE INDEX ({self.quote(self.table.index)})"

    def _beyond(self, bound: Sequence[str], compare: str, last: str) -> str:
        return f" AND {beyond([f'a.{self.quote(column)}' for column in self.table.key], bound, compare, last)}"

    def chunk_end(self, tenant_id: str, after: Sequence[str] | None, rows: int) -> str:
        """The key of the last row of a tenant's next chunk as literals; no row when fewer than *rows* are left."""
        where = self._is("a.", tenant_id) + (self._beyond(after, ">", ">") if after else "")
        literals = ", ".join(
            _as_literal(f"a.{self.quote(column)}", kind)
            for column, kind in zip(self.table.key, self.table.key_types, strict=True)
        )
        return (
            f"SELECT {literals} FROM {self._aliased('a')} WHERE {where} ORDER BY {self._columns(self.table.key, 'a.')}"
            f" LIMIT 1 OFFSET {rows - 1}"
        )

    def chunk(self, after: Sequence[str] | None, until: Sequence[str] | None) -> str:
        """Copy the rows between two keys; rows that the log has brought before stay as they are.

        At READ COMMITTED the statement reads one snapshot and locks nothing that it reads.
        """
        where = (
            self._is("a.", self.live)
            + (self._beyond(after, ">", ">") if after else "")
            + (self._beyond(until, "<", "<=") if until else "")
        )
        join = f"LEFT JOIN {self._aliased('b')} ON {self._is('b.', self.other)} AND {self._same_key('b', 'a')}"
        absent = f"b.{self.quote(self.table.columns[0])} IS NULL"
        return f"{self._insert()} FROM {self._aliased('a')} {join} WHERE {where} AND {absent}"

    def _insert(self) -> str:
        columns = f"{self.quote(self.table.columns[0])}, {self._columns(self.table.copied)}"
        return (
            f"INSERT INTO {self.name} ({columns}) SELECT {literal(self.other)},"
            f" {self._columns(self.table.copied, 'a.')}"
        )

    # -- the log ----------------------------------------------------------------------------------

    def waiting(self) -> str:
        return f"(SELECT COUNT(*) FROM {self.log})"

    def take(self, limit: int) -> tuple[str, ...]:
        """Note the oldest committed entries of the log in a temporary table; the last statement's row count is their
        number.

        Later statements join this table: one that read the log to change rows would wait for its uncommitted entries.
        """
        keys = self._columns(self.table.key)
        columns = ", ".join(
            f"{self.quote(column)} {kind} NOT NULL"
            for column, kind in zip(self.table.key, self.table.key_types, strict=True)
        )
        return (
            (
                f"CREATE TEMPORARY TABLE IF NOT EXISTS {self._taken} ({SEQUENCE} BIGINT UNSIGNED NOT NULL PRIMARY KEY,"
                f" {columns}) ENGINE=InnoDB"
            ),
            f"DELETE FROM {self._taken}",
            f"INSERT INTO {self._taken} SELECT {SEQUENCE}, {keys} FROM {self.log} ORDER BY {SEQUENCE} LIMIT {limit}",
        )

    @property
    def _keys(self) -> str:
        return f"(SELECT DISTINCT {self._columns(self.table.key)} FROM {self._taken}) k"

    def apply(self) -> tuple[str, ...]:
        """Take the twins of the noted keys away, write them as their originals are now, drop the entries."""
        return (
            (
                f"DELETE b FROM {self._taken} k STRAIGHT_JOIN {self._aliased('b')} ON {self._is('b.', self.other)} AND"
                f" {self._same_key('b', 'k')}"
            ),
            (
                f"{self._insert()} FROM {self._keys} STRAIGHT_JOIN {self._aliased('a')} ON {self._is('a.', self.live)}"
                f" AND {self._same_key('a', 'k')}"
            ),
            (
                f"DELETE l FROM {self._taken} k STRAIGHT_JOIN {self.log} l FORCE INDEX (PRIMARY) ON l.{SEQUENCE} ="
                f" k.{SEQUENCE}"
            ),
        )

    # -- comparison -------------------------------------------------------------------------------

    def _differ(self) -> str:
        """Condition: the rows ``a`` and ``b`` differ, byte for byte."""
        pairs = []
        for column in self.table.copied:
            cast = "BINARY " if column in self.table.texts else ""
            pairs.append(f"{cast}a.{self.quote(column)} <=> {cast}b.{self.quote(column)}")
        return f"NOT ({' AND '.join(pairs)})"

    def _not_waiting(self, alias: str) -> str:
        return f"NOT EXISTS (SELECT 1 FROM {self.log} l WHERE {self._same_key('l', alias)})"

    def differing(self) -> str:
        """How many of the applied keys have unequal rows although no further change of them is logged, at one
        snapshot.
        """
        tenant = self.quote(self.table.columns[0])
        unequal = f"(a.{tenant} IS NULL) <> (b.{tenant} IS NULL) OR (a.{tenant} IS NOT NULL AND {self._differ()})"
        return (
            f"SELECT COUNT(*) FROM {self._keys}"
            f" LEFT JOIN {self._aliased('a')} ON {self._is('a.', self.live)} AND {self._same_key('a', 'k')}"
            f" LEFT JOIN {self._aliased('b')} ON {self._is('b.', self.other)} AND {self._same_key('b', 'k')}"
            f" WHERE ({unequal}) AND {self._not_waiting('k')}"
        )

    def compare(self) -> tuple[str, str]:
        """Two statements: rows of the live id and those without an equal twin; twins without an original. Waiting keys
        do not count.
        """
        tenant = self.quote(self.table.columns[0])
        missing = f"(b.{tenant} IS NULL OR {self._differ()}) AND {self._not_waiting('a')}"
        return (
            (
                f"SELECT COUNT(*), COALESCE(SUM({missing}), 0) FROM {self._aliased('a')} LEFT JOIN {self._aliased('b')}"
                f" ON {self._is('b.', self.other)} AND {self._same_key('b', 'a')} WHERE {self._is('a.', self.live)}"
            ),
            (
                f"SELECT COUNT(*) FROM {self._aliased('b')}"
                f" LEFT JOIN {self._aliased('a')} ON {self._is('a.', self.live)} AND {self._same_key('a', 'b')}"
                f" WHERE {self._is('b.', self.other)} AND a.{tenant} IS NULL AND {self._not_waiting('b')}"
            ),
        )

    def purge(self, until: Sequence[str] | None) -> str:
        """Delete the twins up to a key; by its index, so that no other tenant's locks are met where the key begins with
        the tenant.
        """
        return (
            f"DELETE a FROM {self._aliased('a')} WHERE"
            f" {self._is('a.', self.other)}{self._beyond(until, '<', '<=') if until else ''}"
        )

    def exists(self) -> str:
        return f"SELECT EXISTS (SELECT 1 FROM {self.name} WHERE {self._is('', self.other)})"


def beyond(columns: Sequence[str], bound: Sequence[str], compare: str, last: str) -> str:
    """(columns) *compare* (bound), written out: MariaDB has no range access for row comparisons.

    :param bound: SQL literals, one for each column.
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


def _as_literal(column: str, kind: str) -> str:
    """SQL that writes a column's value as a literal of the same value."""
    if kind.startswith(_NUMBERS):
        return f"CAST({column} AS CHAR)"
    if kind.startswith(("binary", "varbinary")):
        return f"CONCAT('X''', HEX({column}), '''')"
    return f"QUOTE({column})"
