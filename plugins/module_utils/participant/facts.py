# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an engine tells the classification: its tables, its abilities, its measured speed."""

from __future__ import annotations

from dataclasses import dataclass, field

from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import IN_PLACE, TWIN


@dataclass(frozen=True)
class Column:
    """A column; ``type`` as the engine writes it, for example ``character varying(36)``; ``base`` is the type below it
    where it is a domain or an enum.
    """

    name: str
    type: str
    nullable: bool = False
    generated: bool = False
    identity: bool = False
    base: str = field(default="", repr=False)


@dataclass(frozen=True)
class UniqueKey:
    """A unique key or unique index. ``columns`` holds plain columns only; ``whole`` is false for partial or expression
    indexes.
    """

    name: str
    columns: tuple[str, ...]
    whole: bool = True


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key of a table; actions as the standard writes them: NO ACTION, RESTRICT, CASCADE, SET NULL, SET
    DEFAULT.
    """

    name: str
    columns: tuple[str, ...]
    table: str
    referred: tuple[str, ...]
    on_delete: str = "NO ACTION"
    on_update: str = "NO ACTION"

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """(own column, referred column)."""
        return tuple(zip(self.columns, self.referred, strict=True))

    @property
    def acts(self) -> bool:
        """The server itself changes rows of the child when the parent's change."""
        return not {self.on_delete.upper(), self.on_update.upper()} <= {"NO ACTION", "RESTRICT", ""}


@dataclass(frozen=True)
class Note:
    """Something engine-specific that forbids strategies (all of them by default) for one table.

    :param writes: what it minds are writes of the migration, of which a root whose rows both stay sees none.
    :param ignorable: the reason with which the table may be left out, where that is the way out.
    """

    reason: str
    advice: str
    strategies: tuple[str, ...] = (IN_PLACE, TWIN)
    ignorable: str = ""
    writes: bool = False


@dataclass(frozen=True)
class TableFacts:
    """What the catalog says of one table, without the migration's own triggers.

    :param name: as the operator writes it in ``tables``; the schema only where it is not the default one.
    :param rows: rows of the live id, exact or estimated.
    :param rows_of_target: rows of the other id that are not the migration's own twins.
    :param bytes: size of the tenant's rows, 0 when unknown.
    :param ids_inside: columns of text or JSON in which a sample of the tenant's rows holds the id; see ``id_stays``.
    :param look_ms: milliseconds of counting the rows of both ids: full scans without an index. The window of a table in
        place takes three such looks: before the update, for it and after it.
    :param parts: tables of the database that it is made of: itself, and its partitions.
    """

    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    unique_keys: tuple[UniqueKey, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    triggers: tuple[str, ...] = ()
    rows: int = 0
    rows_of_target: int = 0
    bytes: int = 0
    ids_inside: tuple[str, ...] = ()
    look_ms: float = 0.0
    parts: int = 1
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class Rate:
    """Measured cost of one row in microseconds: changed in place inside the window, copied while staging."""

    update_us: float = 30.0
    copy_us: float = 60.0


@dataclass(frozen=True)
class Engine:
    """What an engine can do.

    :param name: as it is called in messages.
    :param strategies: the strategies it has.
    :param may_exempt_app_triggers: its worker can write without firing the application's triggers.
    :param cascades_fire_triggers: changes that a foreign key's action makes reach row triggers (else twin loses them).
    :param table_ms: cost of one table in the window whatever its rows (lock, fence, last keys).
    :param fence_ms: how long setting the fence of one table keeps other tenants' writes waiting.
    :param one_writer: while one transaction writes, others wait: bystanders feel the rows in place too.
    :param rate: what a row costs in general: chooses strategies, and predicts for tables without a measured one.
    """

    name: str
    strategies: tuple[str, ...] = (IN_PLACE,)
    may_exempt_app_triggers: bool = False
    cascades_fire_triggers: bool = False
    table_ms: int = 5
    fence_ms: int = 2
    one_writer: bool = False
    rate: Rate = field(default_factory=Rate)
