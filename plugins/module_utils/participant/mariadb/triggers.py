# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MariaDB's triggers of a planned table: the fence of both ids and, for twins, the notes of changed keys in one body,
as every trigger costs every tenant's rows some microseconds.

MariaDB refuses a write under LOCK TABLES (error 1442) when triggers of several events name one log that somebody has
read since; so no trigger names a log: each calls the log's one procedure.
"""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.zdm.landscape.plugins.module_utils.core.names import short_hash
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import ROOT, TWIN
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import literal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.sql import (
    Quote,
    fence_name,
    log_name,
    note_name,
    spell,
    widest,
    worker_token,
    worker_variable,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import Planned, State

EVENTS = {"INSERT": ("NEW",), "UPDATE": ("NEW", "OLD"), "DELETE": ("OLD",)}
SIDES = ("s", "t")
"""Logs belong to the migration's source or target id; only the live one's is written to, as the other id is fenced."""
SEQUENCE = "zdm_seq"
"""Primary key of a log; a table's own key columns stand beside it."""


@dataclass(frozen=True)
class Trigger:
    """A trigger of ours as it should be."""

    name: str
    table: str
    event: str
    body: str
    timing: str

    def create(self, quote: Quote, definer: str = "") -> str:
        """With the clause *definer*. Nobody can write between the end of an older one and this one."""
        return (
            f"CREATE OR REPLACE {definer}TRIGGER {quote(self.name)} {self.timing} {self.event} ON {quote(self.table)}"
            f" FOR EACH ROW {self.body}"
        )


class Triggers:
    """The triggers of one migration."""

    def __init__(self, state: State, quote: Quote) -> None:
        self.migration = state.migration
        self.ids = dict(zip(SIDES, (state.source_id, state.target_id), strict=True))
        self.quote = quote

    def of(self, table: Planned) -> dict[str, Trigger]:
        """The three triggers of a planned table, by name."""
        found = (self._trigger(table, event) for event in EVENTS)
        return {trigger.name: trigger for trigger in found}

    def _trigger(self, table: Planned, event: str) -> Trigger:
        name = f"zdm_{short_hash(self.migration)}_{table.number}_{event[0].lower()}"
        # only after an INSERT has a key that the server counts its value
        timing = "AFTER" if table.strategy == TWIN and event == "INSERT" else "BEFORE"
        return Trigger(name, table.name, event, self._body(table, event), timing)

    def _body(self, table: Planned, event: str) -> str:
        """A fence: the row's id is looked up with a LOCKING read, which sees the latest committed row even in an old
        snapshot (MariaDB manual, "LOCK IN SHARE MODE") and keeps the barrier waiting until the writer's transaction
        ends. Rows of other tenants cost three comparisons and touch nothing. Without its fence row an id counts as
        closed.
        """
        any_of = " OR ".join(
            f"{row}.{self.quote(column)} IN ({', '.join(self._value(table, column, side) for side in SIDES)})"
            for column in table.columns
            for row in EVENTS[event]
        )
        worker = f"{worker_variable(self.migration)} <=> {literal(worker_token(self.migration))}"
        return (
            f"IF NOT ({worker}) AND ({any_of}) THEN"
            f" {' '.join(self._of_id(table, event, side) for side in SIDES)} END IF"
        )

    def _value(self, table: Planned, column: str, side: str) -> str:
        return spell(table.kind(column), table.called(column, self.ids[side]))

    def _of_id(self, table: Planned, event: str, side: str) -> str:
        tenant = literal(self.ids[side])
        its = " OR ".join(
            f"{row}.{self.quote(column)} = {self._value(table, column, side)}"
            for column in table.columns
            for row in EVENTS[event]
        )
        message = literal(f"zdm: tenant id {self.ids[side]} is closed by a migration")
        notes = self._notes(table, event, side) if table.strategy == TWIN else ""
        fence = self.quote(fence_name(self.migration))
        if table.strategy == ROOT and event != "INSERT":
            notes = self._guard(table, event, side)
        return (
            f"IF {its} THEN BEGIN DECLARE zdm_closed TINYINT DEFAULT"
            f" 1; SELECT closed INTO zdm_closed FROM {fence} WHERE id = {tenant} LOCK IN SHARE MODE; IF zdm_closed THEN"
            f" SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = {message}; END IF; END;{notes} END IF;"
        )

    def _guard(self, table: Planned, event: str, side: str) -> str:
        """A root's row can neither go nor get another key: its children would follow it without a trigger."""
        column = self.quote(table.columns[0])
        message = literal(f"zdm: the row of tenant id {self.ids[side]} is needed by a migration")
        refuse = f" SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = {message};"
        return refuse if event == "DELETE" else f" IF NOT (OLD.{column} <=> NEW.{column}) THEN{refuse} END IF;"

    def _notes(self, table: Planned, event: str, side: str) -> str:
        """Every change commits together with its key, whoever makes it but the migration's own worker."""
        call = {
            row: f" CALL {self.quote(note_name(self.migration, side, table.number))}"
            f"({', '.join(f'{row}.{self.quote(column)}' for column in table.key)});"
            for row in EVENTS[event]
        }
        if event != "UPDATE":
            return next(iter(call.values()))
        value = self._value(table, table.columns[0], side)
        old, new = (f"{row}.{self.quote(table.columns[0])} = {value}" for row in ("OLD", "NEW"))
        same_key = " AND ".join(f"OLD.{column} <=> NEW.{column}" for column in map(self.quote, table.key))
        return f" IF {old} THEN{call['OLD']} END IF; IF {new} AND NOT ({old} AND {same_key}) THEN{call['NEW']} END IF;"


def create_log(state: State, table: Planned, quote: Quote, side: str) -> str:
    """The table of changed keys of one id."""
    columns = "".join(
        f", {quote(column)} {widest(kind)} NOT NULL" for column, kind in zip(table.key, table.key_types, strict=True)
    )
    return (
        f"CREATE TABLE IF NOT EXISTS {quote(log_name(state.migration, side, table.number))} ({SEQUENCE} BIGINT UNSIGNED"
        f" NOT NULL AUTO_INCREMENT PRIMARY KEY{columns}) ENGINE=InnoDB"
    )


def create_note(state: State, table: Planned, quote: Quote, side: str, definer: str = "") -> str:
    """The procedure that writes to the log; its parameters have names of their own, as a column's would hide it."""
    values = [f"zdm_key_{number}" for number in range(len(table.key))]
    parameters = ", ".join(f"{value} {widest(kind)}" for value, kind in zip(values, table.key_types, strict=True))
    return (
        f"CREATE OR REPLACE {definer}PROCEDURE {quote(note_name(state.migration, side, table.number))}({parameters})"
        f" MODIFIES SQL DATA INSERT INTO {quote(log_name(state.migration, side, table.number))}"
        f" ({', '.join(map(quote, table.key))}) VALUES ({', '.join(values)})"
    )
