# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Statements of the MariaDB participant: helper tables, catalog queries, rights. No connection here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ansible_collections.zdm.landscape.plugins.module_utils.core.names import short_hash
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import literal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.own_ids import as_bytes, is_binary, is_numeric

Quote = Callable[[str], str]

RIGHTS = (
    *("SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "TRIGGER", "CREATE TEMPORARY TABLES"),
    *("CREATE ROUTINE", "ALTER ROUTINE", "EXECUTE"),
)
"""Rights on the participant's own database."""
ROLE_RIGHTS = ("SELECT", "INSERT", "TRIGGER", "EXECUTE")
"""Rights on it with which triggers run."""
OWN_TRIGGERS = r"zdm_([0-9a-f]{8})_([0-9]+)_[iud]"
"""Hash of the migration and number of the table."""

SQL_MODE = "STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO"
SESSION_VARIABLES = {
    # how statements and values are read and written
    "sql_mode": f"'{SQL_MODE}'",
    "time_zone": "'+00:00'",
    "sql_auto_is_null": "0",
    "sql_quote_show_create": "1",
    "lc_messages": "'en_US'",
    "div_precision_increment": "4",
    "group_concat_max_len": "1048576",
    # nothing is left out of a statement or refused for its size
    "sql_safe_updates": "0",
    "sql_select_limit": "18446744073709551615",
    "sql_big_selects": "1",
    "unique_checks": "1",
    "check_constraint_checks": "1",
    # parents and children move together: their keys are not checked meanwhile, and do not act
    "foreign_key_checks": "0",
    # a commit ends the transaction and begins no other
    "completion_type": "'NO_CHAIN'",
    # waits are limited where they are made; a controller that is paused inside a transaction loses it after 5 s, and
    # its locks go
    "max_statement_time": "0",
    "innodb_lock_wait_timeout": "1",
    "lock_wait_timeout": "1",
    "idle_transaction_timeout": "5",
    "idle_write_transaction_timeout": "0",
    "idle_readonly_transaction_timeout": "0",
    "wait_timeout": "28800",
    "net_read_timeout": "60",
    "net_write_timeout": "60",
}
SESSION = (
    "SET NAMES utf8mb4",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE",
    f"SET SESSION {', '.join(f'{name} = {value}' for name, value in SESSION_VARIABLES.items())}",
)
"""Makes every session of ours what it has to be, whatever the server, ``init_connect`` and the user's own settings make
of it.
"""
THREAD = "SELECT CONNECTION_ID() + 0, VERSION()"
"""A proxy answers the plain question for the thread itself; this one reaches the server."""

OWN_TRIGGER_TABLES = (
    "SELECT trigger_name, event_object_table FROM information_schema.triggers WHERE trigger_schema = DATABASE() AND"
    " trigger_name LIKE 'zdm\\_%'"
)
ROUTINES = "SELECT routine_name FROM information_schema.routines WHERE routine_schema = DATABASE()"
APPLICATION_TRIGGERS = (
    "SELECT event_object_table, trigger_name FROM information_schema.triggers WHERE event_object_schema = DATABASE()"
)
TABLES = "SELECT table_name, table_type, engine FROM information_schema.tables WHERE table_schema = DATABASE()"
COLUMNS = (
    "SELECT table_name, column_name, data_type, character_maximum_length, character_set_name, collation_name, extra,"
    " column_type FROM information_schema.columns WHERE table_schema = DATABASE()"
)
PARTITIONS = (
    "SELECT DISTINCT table_name, partition_method, partition_expression FROM information_schema.partitions "
    "WHERE table_schema = DATABASE() AND partition_method IS NOT NULL"
)
BOUNDS = (
    "SELECT partition_method, partition_description FROM information_schema.partitions WHERE table_schema = DATABASE()"
    " AND table_name = {table} GROUP BY partition_ordinal_position, partition_method, partition_description ORDER BY"
    " partition_ordinal_position"
)
PREFIXES = (
    "SELECT DISTINCT table_name, index_name FROM information_schema.statistics "
    "WHERE table_schema = DATABASE() AND non_unique = 0 AND sub_part IS NOT NULL"
)
"""Unique indexes over the beginning of a column only."""
FOREIGN_KEYS = "SELECT id, for_name, ref_name FROM information_schema.innodb_sys_foreign"
"""Of all databases, also of those that the user may not read; needs PROCESS. Names are ``database/name``, see
:func:`decoded`.
"""
SETTINGS = (
    "SELECT VERSION(), @@GLOBAL.log_bin, @@GLOBAL.binlog_format, @@GLOBAL.log_bin_trust_function_creators,"
    " @@GLOBAL.read_only"
)
LONG_TRANSACTIONS = (
    "SET STATEMENT time_zone = 'SYSTEM' FOR "
    "SELECT t.trx_mysql_thread_id, COALESCE(p.user, ''), COALESCE(p.host, ''), "
    "TIMESTAMPDIFF(SECOND, t.trx_started, NOW()) "
    "FROM information_schema.innodb_trx t LEFT JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id "
    "WHERE t.trx_mysql_thread_id <> CONNECTION_ID() AND (p.db = DATABASE() OR p.id IS NULL) ORDER BY t.trx_started"
)
"""Transactions of this database, the oldest first; ``trx_started`` is in the server's time zone whatever the session's
is.
"""
BLOCKERS = (
    "SET STATEMENT time_zone = 'SYSTEM' FOR SELECT b.trx_mysql_thread_id, COALESCE(p.user, ''), COALESCE(p.host, ''),"
    " TIMESTAMPDIFF(SECOND, b.trx_started, NOW()) FROM information_schema.innodb_lock_waits w JOIN"
    " information_schema.innodb_trx r ON r.trx_id = w.requesting_trx_id JOIN information_schema.innodb_trx b ON"
    " b.trx_id = w.blocking_trx_id LEFT JOIN information_schema.processlist p ON p.id = b.trx_mysql_thread_id WHERE"
    " r.trx_mysql_thread_id = {thread} AND b.trx_mysql_thread_id <> {thread} ORDER BY b.trx_started"
)
"""Who makes a thread wait for a row."""


_LONGEST_KEY = 3072
"""Bytes of an index of InnoDB."""


class ColumnInfo(NamedTuple):
    """A row of :data:`COLUMNS`."""

    table: str
    name: str
    type: str
    length: int | None
    charset: str | None
    collation: str | None
    extra: str
    definition: str

    @property
    def full_type(self) -> str:
        """As a CREATE TABLE writes it."""
        return (
            f"{self.definition} CHARACTER SET {self.charset} COLLATE {self.collation}"
            if self.charset
            else self.definition
        )


def spell(kind: str, tenant_id: str) -> str:
    """An id as a literal of a column's type: numbers as such, as a text would be compared as a floating-point one."""
    if is_numeric(kind) and tenant_id.isdecimal():
        return tenant_id
    return f"X'{as_bytes(tenant_id).hex()}'" if is_binary(kind) else literal(tenant_id)


def text(value: str) -> str:
    """A literal of any text, whatever characters it has: names of tables and columns may hold backslashes."""
    return f"_utf8mb4 X'{value.encode().hex()}'"


def widest(kind: str) -> str:
    """The type in which a key is logged: a release may widen the key, and until the next stage the log must take what
    the table takes, else the tenant's writes fail.
    """
    if match := re.fullmatch(r"(?:tiny|small|medium)?int\b(?:\([0-9]+\))?( unsigned)?.*", kind):
        return f"bigint{match[1] or ''}"
    if re.match(r"decimal\(", kind):
        return "decimal(65,30)"
    if match := re.fullmatch(r"(?:var)?char\(([0-9]+)\)( .*)?", kind):
        return f"varchar({max(int(match[1]), _LONGEST_KEY // 4)}){match[2] or ''}"
    if re.match(r"varbinary\(", kind):
        return f"varbinary({_LONGEST_KEY})"
    return kind


def fence_name(migration: str) -> str:
    """The table with a row for each id, which the triggers read."""
    return f"zdm_fence_{short_hash(migration)}"


def kept_name(migration: str) -> str:
    """The table of rows that a repair has replaced."""
    return f"zdm_kept_{short_hash(migration)}"


def log_name(migration: str, side: str, number: int) -> str:
    """The table of changed keys of one id in one planned table."""
    return f"zdm_log_{short_hash(migration)}_{side}_{number}"


def note_name(migration: str, side: str, number: int) -> str:
    """The procedure that writes to a log."""
    return f"zdm_note_{short_hash(migration)}_{number}_{side}"


def worker_variable(migration: str) -> str:
    return f"@zdm_worker_{short_hash(migration)}"


def worker_token(migration: str) -> str:
    """What the worker's session variable holds: no application has it by accident; it guards against accidents, not
    against attackers.
    """
    return hashlib.sha256(f"zdm.landscape worker {migration}".encode()).hexdigest()[:32]


def create_state(name: str) -> str:
    return (
        f"CREATE TABLE IF NOT EXISTS {name} (one TINYINT NOT NULL DEFAULT 1 PRIMARY KEY CHECK (one = 1), format INT NOT"
        " NULL, migration VARCHAR(255) NOT NULL, epoch BIGINT NOT NULL, state VARCHAR(16) NOT NULL, live_id"
        " VARCHAR(64) NOT NULL, source_id VARCHAR(64) NOT NULL, target_id VARCHAR(64) NOT NULL, finished BIGINT NOT"
        " NULL, digest VARCHAR(64) NOT NULL, tables MEDIUMTEXT NOT NULL, marks MEDIUMTEXT NOT NULL, progress MEDIUMTEXT"
        " NOT NULL) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
    )


def create_fence(name: str) -> str:
    return (
        f"CREATE TABLE IF NOT EXISTS {name} (id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,"
        " closed TINYINT NOT NULL) ENGINE=InnoDB"
    )


def create_kept(name: str) -> str:
    """Rows that a repair has replaced."""
    return (
        f"CREATE TABLE IF NOT EXISTS {name} (table_name VARCHAR(64) NOT NULL, at TIMESTAMP NOT NULL DEFAULT"
        " CURRENT_TIMESTAMP, `row` LONGTEXT NOT NULL) ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
    )


def fence_row(name: str, tenant_id: str, closed: bool) -> str:
    """IGNORE: the row of an earlier stage stays, and writers that hold a shared lock on it are not waited for."""
    return f"INSERT IGNORE INTO {name} VALUES ({literal(tenant_id)}, {int(closed)})"


def close_fence(name: str, tenant_id: str, closed: bool) -> str:
    """Or open it."""
    return f"UPDATE {name} SET closed = {int(closed)} WHERE id = {literal(tenant_id)}"


def lock_state(name: str) -> str:
    return f"SELECT one FROM {name} FOR UPDATE"


def lock_fences(name: str, tenant_id: str = "") -> str:
    """Of all ids, or of one."""
    return f"SELECT id FROM {name}{f' WHERE id = {literal(tenant_id)}' if tenant_id else ''} ORDER BY id FOR UPDATE"


def rights_of(grants: Iterable[str], database: str) -> tuple[set[str], set[str]]:
    """Rights on the server and on *database* by the lines of ``SHOW GRANTS``."""
    everywhere: set[str] = set()
    here: set[str] = set()
    for line in grants:
        match = re.match(r"GRANT (.+?) ON (?:TABLE )?(`(?:[^`]|``)+`|\*)\.\* TO ", line)
        if not match:
            continue
        rights = {right.strip().upper() for right in match[1].split(",")}
        if match[2] == "*":
            everywhere |= rights
        elif _like(match[2][1:-1].replace("``", "`"), database):
            here |= rights
    return everywhere, here


def decoded(name: str) -> list[str]:
    """The parts of a name as InnoDB writes it: ``database/table``, characters other than letters, digits and _ as ``@``
    and four digits.
    """
    return [re.sub("@([0-9a-f]{4})", lambda match: chr(int(match[1], 16)), part) for part in name.split("/")]


def _like(pattern: str, name: str) -> bool:
    """Whether a database name pattern of a GRANT (``%``, ``_``, backslash escapes) covers *name*."""
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    wild = {"%": ".*", "_": "."}
    regex = "".join(wild.get(part) or re.escape(part[-1]) for part in parts)
    return re.fullmatch(regex, name, re.DOTALL) is not None
