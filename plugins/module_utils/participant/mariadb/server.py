# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands in the way of a migration on a MariaDB server beside the tables: its settings, rights, transactions; and
as whom the migration's triggers run.

MariaDB runs a trigger with the rights of its definer, for every tenant's writes: with its user gone all of them would
fail. A role as the definer outlives every user, so it is taken where a DBA has made one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import Refusal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import execute
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb import sql
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.sessions import (
    MariaDBSessions,
    describe,
)

with suppress(ImportError):  # Database refuses to be built without it
    import sqlalchemy as sa
    from sqlalchemy.pool import NullPool

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

OLDEST = (10, 6)
"""From here on DDL is atomic (MariaDB manual, "Atomic DDL"), on which resuming relies."""
LONG_TRANSACTION_S = 10
ALL_RIGHTS = {"ALL PRIVILEGES", "ALL"}
DEFINER_ROLE = "zdm_definer"
"""The role that the triggers run as where no other is named."""


class MariaDBServer(MariaDBSessions):
    """The server's half of the preflight."""

    # -- definer ----------------------------------------------------------------------------------

    @property
    def wanted_role(self) -> str:
        return str(self.options.get("definer_role") or DEFINER_ROLE)

    def role(self, connection: Connection) -> str:
        """The role that triggers are to run as; empty when it is not there, or not granted to the user."""
        roles = execute(connection, "SELECT role_name FROM information_schema.applicable_roles").scalars()
        return self.wanted_role if self.wanted_role in set(roles) else ""

    @contextmanager
    def as_definer(self) -> Iterator[str]:
        """While the block runs, the session's triggers and procedures can be made with the clause that it yields."""
        with self.transaction() as connection:
            role = self.role(connection)
            if role:
                self._set_role(connection, role)
        try:
            yield "DEFINER=CURRENT_ROLE " if role else ""
        finally:
            if role and self._connection is connection and not connection.invalidated:
                with self.transaction() as connection:
                    self._set_role(connection, "")

    def _set_role(self, connection: Connection, role: str) -> None:
        execute(connection, f"SET ROLE {self.quote(role) if role else 'NONE'}")

    def role_statements(self, connection: Connection) -> tuple[str, ...]:
        """What a DBA runs so that triggers run as the role."""
        role = self.quote(self.wanted_role)
        return (
            f"CREATE ROLE IF NOT EXISTS {role}",
            f"GRANT {', '.join(sql.ROLE_RIGHTS)} ON {self._every_table} TO {role}",
            f"GRANT {role} TO {self._account(connection)}",
        )

    def _missing_of_role(self, connection: Connection, role: str) -> list[str]:
        current = execute(connection, "SELECT CURRENT_ROLE()").scalar()
        # a role that is granted, but not set, may not be looked at
        self._set_role(connection, role)
        try:
            grants = list(execute(connection, f"SHOW GRANTS FOR {self.quote(role)}").scalars())
        finally:
            self._set_role(connection, str(current or ""))
        return self._missing(grants, sql.ROLE_RIGHTS)

    def _definer_refusals(self, connection: Connection) -> Iterator[Refusal]:
        role, statements = self.role(connection), self.role_statements(connection)
        if role:
            missing = self._missing_of_role(connection, role)
            if missing:
                yield self._refuse_server(
                    f"does not give role {role}, as which triggers of the migration run, {', '.join(missing)}",
                    f"{statements[1]};",
                )
            return
        without = "the migration's triggers would run as it, and without it all writes to their tables fail"
        if self.options.get("definer_role"):
            yield self._refuse_server(
                f"has no role {self.wanted_role} that is granted to user {self.options.get('user')!r}",
                f"{'; '.join(statements)};",
            )
        elif self.options.get("user_rotates"):
            yield self._refuse_server(
                f"has no role {self.wanted_role} that is granted to user {self.options.get('user')!r}, which rotates:"
                f" {without}",
                f"{'; '.join(statements)};",
            )

    def definer_ailments(self, connection: Connection, definers: Iterable[str]) -> list[str]:
        """What is wrong with whom the triggers run as.

        :param definers: as the catalog has them; a role's ends in ``@``.
        """
        account = str(execute(connection, "SELECT CURRENT_USER()").scalar())
        role, found = self.role(connection), []
        for definer in sorted(set(definers)):
            name = definer.removesuffix("@")
            if not definer.endswith("@") and definer != account:
                found.append(
                    f"The migration's triggers run as user {definer}, which is not the participant's: without it all"
                    " writes to their tables fail."
                )
            elif definer.endswith("@") and name != role:
                found.append(
                    f"The migration's triggers run as role {name}, which is gone or not granted to {account}: without"
                    " it all writes to their tables fail."
                )
            elif definer.endswith("@") and (missing := self._missing_of_role(connection, role)):
                found.append(
                    f"The migration's triggers run as role {name}, which lacks {', '.join(missing)}: writes to their"
                    " tables fail."
                )
        return found

    @contextmanager
    def elsewhere(self) -> Iterator[Connection]:
        """A session in no database."""
        engine = sa.create_engine(
            self.url().set(database=""), connect_args=self.connect_args(), poolclass=NullPool, hide_parameters=True
        )
        with self.translated(), engine.connect() as connection:
            yield connection

    # -- rights -----------------------------------------------------------------------------------

    @property
    def _every_table(self) -> str:
        database = str(self.options["database"]).replace("_", r"\_").replace("%", r"\%")
        return f"`{database}`.*"

    def _account(self, connection: Connection) -> str:
        user, _at, host = str(execute(connection, "SELECT CURRENT_USER()").scalar()).rpartition("@")
        return f"{self.quote(user)}@{self.quote(host)}"

    def own_grants(self, connection: Connection) -> tuple[str, str]:
        """What the participant's user needs: on its database, and on the server."""
        account = self._account(connection)
        return (
            f"GRANT {', '.join(sql.RIGHTS)} ON {self._every_table} TO {account}",
            f"GRANT PROCESS ON *.* TO {account}",
        )

    def grants(self, connection: Connection | None) -> tuple[str, ...]:
        if connection is None:  # it may not use the database: a session without one knows its account
            with self.elsewhere() as other:
                return self.grants(other)
        return (*self.own_grants(connection), *self._log_setting(connection), *self.role_statements(connection))

    def _log_setting(self, connection: Connection) -> tuple[str, ...]:
        """What a server with a binary log needs so that triggers can be made."""
        _version, log_bin, _format, trust, _read_only = execute(connection, sql.SETTINGS).one()
        everywhere, _here = sql.rights_of(execute(connection, "SHOW GRANTS").scalars(), str(self.options["database"]))
        needed = log_bin and int(trust) == 0 and not {"SUPER", *ALL_RIGHTS} & everywhere
        return ("SET GLOBAL log_bin_trust_function_creators = 1",) if needed else ()

    def _missing(self, grants: Iterable[str], wanted: Iterable[str]) -> list[str]:
        everywhere, here = sql.rights_of(grants, str(self.options["database"]))
        there = everywhere | here
        return [] if ALL_RIGHTS & there else [right for right in wanted if right not in there]

    def missing_rights(self, connection: Connection) -> list[str]:
        """Rights on the database that the user lacks."""
        return self._missing(execute(connection, "SHOW GRANTS").scalars(), sql.RIGHTS)

    # -- obstacles --------------------------------------------------------------------------------

    def obstacles(self, connection: Connection) -> tuple[Refusal, ...]:
        version, log_bin, binlog_format, trust, read_only = execute(connection, sql.SETTINGS).one()
        found = list(self._server_refusals(str(version), bool(log_bin), str(binlog_format), int(read_only)))
        if any(row[1] == "ON" for row in execute(connection, "SHOW VARIABLES LIKE 'wsrep_on'")):
            found.append(
                self._refuse_server(
                    "is a node of a Galera cluster, whose other nodes do not see the fence's locks", "Not supported."
                )
            )
        everywhere, _here = sql.rights_of(execute(connection, "SHOW GRANTS").scalars(), str(self.options["database"]))
        missing = self.missing_rights(connection)
        on_database, on_server = self.own_grants(connection)
        if missing:
            found.append(
                self._refuse_server(
                    f"does not give user {self.options.get('user')!r} the rights {', '.join(missing)}",
                    f"{on_database};",
                )
            )
        if log_bin and int(trust) == 0 and not {"SUPER", *ALL_RIGHTS} & everywhere:
            found.append(
                self._refuse_server(
                    "writes a binary log and lets only SUPER make triggers",
                    "SET GLOBAL log_bin_trust_function_creators = 1; or grant SUPER for the stage.",
                )
            )
        found += self._definer_refusals(connection)
        if not {"PROCESS", *ALL_RIGHTS} & everywhere:
            reason = f"does not give user {self.options.get('user')!r} the right PROCESS, which shows who holds locks"
            return (*found, self._refuse_server(reason, f"{on_server};"))
        return (*found, *self._foreign_references(connection), *self._transactions_in_the_way(connection))

    def _foreign_references(self, connection: Connection) -> Iterator[Refusal]:
        own = str(self.options["database"])
        for key, child, parent in execute(connection, sql.FOREIGN_KEYS):
            (schema, table), (referred_schema, referred) = sql.decoded(child), sql.decoded(parent)
            if referred_schema == own != schema:
                reason = (
                    f"Foreign key {sql.decoded(key)[-1]} of {schema}.{table} in another database refers to table"
                    f" {referred}."
                )
                yield Refusal(referred, reason, "Drop it for the migration.")

    def _server_refusals(self, version: str, log_bin: bool, binlog_format: str, read_only: int) -> Iterator[Refusal]:
        numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
        if "mariadb" not in version.lower():
            yield self._refuse_server(f"is {version}, not MariaDB", "Only MariaDB is supported.")
        elif numbers < OLDEST:
            yield self._refuse_server(f"is version {version}", f"Upgrade to MariaDB {OLDEST[0]}.{OLDEST[1]} or later.")
        if log_bin and binlog_format.upper() == "STATEMENT":
            yield self._refuse_server(
                "logs statements, which InnoDB refuses at READ COMMITTED",
                "SET GLOBAL binlog_format = 'MIXED' (or 'ROW').",
            )
        if read_only:
            yield self._refuse_server("is read-only", "Use the primary server.")

    def _refuse_server(self, reason: str, advice: str) -> Refusal:
        return Refusal(self.name, f"The server of {self.label} {reason}.", advice)

    def _transactions_in_the_way(self, connection: Connection) -> Iterator[Refusal]:
        for row in execute(connection, "XA RECOVER").all():
            yield Refusal(
                self.name,
                f"{self.label}: a prepared XA transaction is left over.",
                f"XA COMMIT or XA ROLLBACK {row[3]!r} as its application decides.",
            )
        for entry in self.transactions(connection, sql.LONG_TRANSACTIONS):
            if entry["age_s"] >= LONG_TRANSACTION_S:
                yield Refusal(
                    self.name,
                    f"{self.label}: {describe(entry)}.",
                    f"Wait until it ends, or end it: KILL {entry['thread']}.",
                )
