# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the database participants share: connecting, reading the catalog, quoting, measuring, digests. Knows no
engine.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import (
    InputError,
    MissingRight,
    Unreachable,
    ZdmError,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import STAYING, Participant, TablePlan
from ansible_collections.zdm.landscape.plugins.module_utils.participant.facts import (
    TableFacts,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.own_ids import OwnIds
from ansible_collections.zdm.landscape.plugins.module_utils.participant.reflection import reflect
from ansible_collections.zdm.landscape.plugins.module_utils.participant.tenancy import entries_of, tenancy

try:
    import sqlalchemy as sa
    from sqlalchemy.pool import NullPool

    HAS_SQLALCHEMY = True
except ImportError:
    HAS_SQLALCHEMY = False

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Connection
    from sqlalchemy.engine import Engine as SqlEngine

_PARAMETER = re.compile("\0([0-9]+)\0")

SAMPLE_ROWS = 2000
"""Rows that the probe of a table's speed copies and changes."""
DEFAULT_BUDGET_MS = 20_000


class Database(Participant):
    """A participant that SQLAlchemy reaches. A subclass says how to connect and does the engine's own work.

    :param options: ``name``, ``host``, ``port``, ``database``, ``user``, ``password``, ``socket``, ``ssl``,
        ``ca_file``, ``tenant_columns``, ``tables``, ``no_cross_tenant_readers``, ``budget_ms``.
    :raises InputError: an option is missing.
    :raises ZdmError: SQLAlchemy or the driver is not installed.
    """

    driver = ""
    """Name of the driver's pip package, for the advice when it is missing."""
    text_type = "TEXT"
    """What a CAST to text names."""
    foreign_key_options: ClassVar[Mapping[str, Any]] = {}
    """Arguments of the engine's dialect for reading foreign keys."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = dict(options)
        for required in ("name", "database"):
            if not self.options.get(required):
                raise InputError(
                    f"Participant {self.options.get('name', '(without a name)')} has no {required}.",
                    f"Give it a {required}.",
                )
        self.name = str(self.options["name"])
        self.budget_ms = int(self.options.get("budget_ms") or DEFAULT_BUDGET_MS)
        if not HAS_SQLALCHEMY:
            raise ZdmError(f"Participant {self.name} needs SQLAlchemy.", "Install it: pip install 'SQLAlchemy>=2.0'.")
        self.ids = OwnIds()
        self._engine: SqlEngine | None = None
        self._connection: Connection | None = None

    # -- connection -------------------------------------------------------------------------------

    @abstractmethod
    def url(self) -> URL:
        """Where the database is."""

    def connect_args(self) -> dict[str, Any]:
        """Arguments for the driver; secrets go here or into the URL, never into a message."""
        return {}

    @abstractmethod
    def refused_login(self, message: str) -> bool:
        """Whether the server's *message* says that user or password are wrong."""

    def lacks_right(self, error: sa.exc.DBAPIError) -> bool:
        """Whether a statement, or the login to this database, failed as the user may not do it; no wrong password."""
        del error
        return False

    def translate(self, error: sa.exc.DBAPIError) -> ZdmError:
        """The engine's error in our words; called for every error of the driver but those of connecting, and of missing
        rights.
        """
        if error.connection_invalidated:
            return Unreachable(
                f"{self.label}: the connection broke: {first_line(error)}.", "Run the same command again."
            )
        return ZdmError(
            f"{self.label}: {first_line(error)}", "Correct the cause in the database and run the same command again."
        )

    @property
    def label(self) -> str:
        """How the participant is called in messages."""
        where = self.options.get("host") or self.options.get("socket")
        return (
            f"{self.kind} participant {self.name} (database"
            f" {self.options['database']}{f' on {where}' if where else ''})"
        )

    def engine(self) -> SqlEngine:
        if self._engine is None:
            try:
                # NullPool: a connection that we close is closed; hide_parameters keeps values out of error messages
                self._engine = sa.create_engine(
                    self.url(), connect_args=self.connect_args(), poolclass=NullPool, hide_parameters=True
                )
            except ImportError as error:
                raise ZdmError(
                    f"Participant {self.name} needs the driver {self.driver}.",
                    f"Install it: pip install {self.driver}.",
                ) from error
        return self._engine

    def open(self) -> Connection:
        """Open a connection of its own; the caller closes it.

        :raises Unreachable: the server does not answer, or refuses user or password.
        :raises MissingRight: the user may not use this database.
        """
        try:
            return self.engine().connect()
        except sa.exc.DBAPIError as error:
            message = first_line(error)
            if self.lacks_right(error):
                raise self._missing_right(error) from None
            if self.refused_login(message):
                reason = f"{self.label} refuses the login of user {self.options.get('user')!r}: wrong user or password."
                raise Unreachable(reason, "Correct user and password of the participant.") from None
            raise Unreachable(
                f"{self.label} cannot be reached: {message}", "Check host, port and database, and that the server runs."
            ) from None

    def connection(self) -> Connection:
        """The one connection of this participant, opened when needed and again when it broke."""
        if self._connection is not None and (self._connection.closed or self._connection.invalidated):
            self.close()
        if self._connection is None:
            self._connection = self.open()
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def transaction(self, *first: str) -> Iterator[Connection]:
        """One transaction on the participant's connection; *first* are statements to begin it with. Driver errors are
        translated.
        """
        with self.translated():
            connection = self.connection()
            try:
                with connection.begin():
                    for statement in first:
                        execute(connection, statement)
                    yield connection
            except sa.exc.DBAPIError as error:
                if error.connection_invalidated:
                    self.close()
                raise

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn the driver's errors into ours; no statement and no value of a row gets into the message."""
        try:
            yield
        except sa.exc.DBAPIError as error:
            if self.lacks_right(error):
                raise self._missing_right(error) from None
            raise self.translate(error) from None

    def _missing_right(self, error: sa.exc.DBAPIError) -> MissingRight:
        return MissingRight(
            f"{self.label}: user {self.options.get('user')!r} lacks a right: {first_line(error)}.",
            "Give it the rights that the plan lists (playbook zdm.landscape.plan).",
        )

    def round_trip(self) -> None:
        with self.transaction() as connection:
            execute(connection, "SELECT 1")

    def quote(self, *names: str) -> str:
        """A dotted, quoted identifier."""
        preparer = self.engine().dialect.identifier_preparer
        return ".".join(preparer.quote(name) for name in names)

    def table_sql(self, name: str) -> str:
        """A table of the catalog by its name for an operator, quoted."""
        return self.quote(name)

    # -- catalog ----------------------------------------------------------------------------------

    def reflect(self, connection: Connection, schemas: Sequence[str | None] = (None,)) -> dict[str, TableFacts]:
        """All tables with columns and keys, by the name that an operator writes; rows and triggers are the engine's to
        add.
        """
        return reflect(connection, schemas, self.display_name, self.foreign_key_options)

    def display_name(self, schema: str | None, table: str) -> str:
        """How an operator writes the table; the schema only where it is not the default one."""
        return f"{schema}.{table}" if schema else table

    def tenant_tables(self, catalog: Mapping[str, TableFacts]) -> dict[str, tuple[str, ...]]:
        """Tables that change id, with their tenant columns."""
        return tenancy(catalog, self.options, self.ids).columns

    def spelled(self, table: TableFacts, columns: Iterable[str]) -> dict[str, dict[str, str]]:
        """By column, by tenant id what a tenant column of *table* holds, where that is not the tenant's id."""
        entry = entries_of(self.options).get(table.name, {})
        called = {column.name: self.ids.of(column.type, entry) for column in table.columns if column.name in columns}
        root = self.ids.root
        if self.ids.relabel and root and table.name == root.table:
            return {}
        return {column: own for column, own in called.items() if own}

    # -- digests ----------------------------------------------------------------------------------

    def fingerprint(self, tenant_id: str) -> str:
        with self.transaction(*self.snapshot()) as connection:
            self.know_one(connection, tenant_id)
            catalog = self.catalog(connection)
            digests = {
                name: self.table_digest(connection, catalog[name], tenant, tenant_id)
                for name, tenant in self.tenant_tables(catalog).items()
            }
        return digest_of(digests)

    def know_one(self, connection: Connection, tenant_id: str) -> None:
        """Find out what the participant calls a tenant."""
        del connection, tenant_id

    def snapshot(self) -> tuple[str, ...]:
        """Statements that make the transaction read one state of the database."""
        return ()

    @abstractmethod
    def catalog(self, connection: Connection) -> dict[str, TableFacts]:
        """The application's tables, see :meth:`reflect`."""

    def table_digest(
        self, connection: Connection, table: TableFacts, tenant: Sequence[str], tenant_id: str
    ) -> tuple[int, str]:
        """Number of the tenant's rows and a digest that does not depend on their order; the tenant's own id is left out
        of it.

        This one reads the rows; an engine whose server can hash overrides it.
        """
        own = sa.table(table.name, *(sa.column(column.name) for column in table.columns))
        called = self.spelled(table, tenant)
        ids = {column: called.get(column, {}).get(tenant_id, tenant_id) for column in tenant}
        query = sa.select(own).where(sa.or_(*(own.c[column] == value for column, value in ids.items())))
        total, rows = 0, 0
        for row in connection.execute(query):
            values = [
                None if name in tenant and str(value) == ids[name] else repr(value)
                for name, value in zip(own.c.keys(), row, strict=True)
            ]
            total += int.from_bytes(hashlib.sha256(json.dumps(values).encode()).digest(), "big")
            rows += 1
        return rows, f"{total % 2**256:x}"


def schema_digest(catalog: Mapping[str, TableFacts], tables: Iterable[TablePlan]) -> str:
    """Digest of everything in the schema that a plan relies on, and of what it ignores; of no strategy and nothing
    measured. A change is schema drift.
    """
    parts = []
    for plan in sorted(tables, key=lambda plan: plan.table):
        part: list[Any] = [plan.table, plan.strategy in STAYING, plan.tenant_columns, plan.key]
        if plan.strategy not in STAYING:
            facts = catalog[plan.table]
            part += [
                repr(facts.columns),
                facts.primary_key,
                sorted(map(repr, facts.unique_keys)),
                sorted(map(repr, facts.foreign_keys)),
                facts.triggers,
            ]
        parts.append(part)
    return digest_of(parts)


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON-serialisable value, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def per_row_us(rows: int, action: Callable[[], Any]) -> float:
    """Run *action*, which handles *rows* rows, and return its microseconds per row."""
    begin = time.monotonic()
    action()
    return (time.monotonic() - begin) * 1_000_000 / max(rows, 1)


def execute(connection: Connection, statement: str) -> Any:
    """Run a complete statement as it is, without parameters: ``%`` and ``:`` have no meaning in it. Returns a
    ``CursorResult``.
    """
    return connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def parameter(number: int) -> str:
    """What stands for a value in a statement of :func:`execute_with`; no name of a database can hold it."""
    return f"\0{number}\0"


def execute_with(connection: Connection, statement: str, values: Sequence[str]) -> Any:
    """:func:`execute` with values that the driver binds: each :func:`parameter` stands for the one of its number."""
    order = [values[int(number)] for number in _PARAMETER.findall(statement)]
    if not order:
        return execute(connection, statement)
    # the driver's own mark; a percent sign of a name is doubled, and no value becomes a part of the statement here
    mark = "?" if connection.dialect.paramstyle == "qmark" else "%s"
    text = statement if mark == "?" else statement.replace("%", "%%")
    return connection.exec_driver_sql(_PARAMETER.sub(mark, text), tuple(order))


def first_line(error: sa.exc.DBAPIError) -> str:
    """The server's own message: no statement, no parameters, no DETAIL (which may quote a row)."""
    lines = [line.strip() for line in str(error.orig).splitlines() if line.strip()]
    return lines[0] if lines else type(error.orig).__name__


def literal(value: str) -> str:
    """A string literal of SQL; callers pass validated names only, quotes are doubled all the same."""
    return "'" + value.replace("'", "''") + "'"
