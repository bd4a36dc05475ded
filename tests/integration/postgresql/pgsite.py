# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One test's database with the rows of three tenants, and the migration on it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import psycopg
from ansible_collections.zdm.landscape.plugins.module_utils.participant import copying
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import Inspection, Move, Status
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql import twin
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.participant import PostgreSQL
from ansible_collections.zdm.landscape.tests.landscape.servers import PostgresServer

WAIT_MS = 60_000
"""For a verb that nothing is in the way of, however busy the machine is."""
A = "0a0a0a0a-0000-4000-8000-000000000001"
B = "0b0b0b0b-0000-4000-8000-000000000002"
C = "0c0c0c0c-0000-4000-8000-000000000003"
MIGRATION = "venezia--venezia-scp"

SCHEMA = """
CREATE TABLE country (code char(2) PRIMARY KEY, title text NOT NULL);
INSERT INTO country VALUES ('AT', 'Austria'), ('IT', 'Italy');
CREATE TABLE customer (
  tenant_id uuid NOT NULL, id int NOT NULL, email text NOT NULL, country char(2) NOT NULL REFERENCES country,
  PRIMARY KEY (tenant_id, id), UNIQUE (tenant_id, email));
CREATE TABLE invoice (
  tenant_id uuid NOT NULL, id uuid NOT NULL, number bigint GENERATED ALWAYS AS IDENTITY, customer_id int NOT NULL,
   amount numeric NOT NULL,
  doubled numeric GENERATED ALWAYS AS (amount * 2) STORED, payload jsonb, raw json, PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, customer_id) REFERENCES customer (tenant_id, id) ON DELETE RESTRICT);
CREATE TABLE line (
  tenant_id uuid NOT NULL, invoice_id uuid NOT NULL, position int NOT NULL, "order" text NOT NULL,
   PRIMARY KEY (tenant_id, invoice_id, position),
  FOREIGN KEY (tenant_id, invoice_id) REFERENCES invoice (tenant_id, id) ON DELETE CASCADE);
CREATE TABLE statistic (tenant_id uuid PRIMARY KEY, writes bigint NOT NULL);
CREATE TABLE outbox (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id uuid NOT NULL, body text NOT NULL,
 UNIQUE (tenant_id, id));
CREATE TABLE receipt (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id uuid NOT NULL, outbox_id bigint NOT NULL,
  FOREIGN KEY (tenant_id, outbox_id) REFERENCES outbox (tenant_id, id)
   ON UPDATE RESTRICT DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE sharing (tenant_id uuid NOT NULL, with_tenant uuid NOT NULL, PRIMARY KEY (tenant_id, with_tenant));
"""

FILL = """
INSERT INTO customer SELECT '{t}', n, 'c' || n || '@example.com', (ARRAY['AT','IT'])[1 + n % 2]
 FROM generate_series(1, {n}) n;
INSERT INTO invoice (tenant_id, id, customer_id, amount, payload, raw)
 SELECT '{t}', ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 1 + n % {n}, n, '{{"a": 1}}',
  '{{"b" : 2}}' FROM generate_series(1, {n}) n;
INSERT INTO line SELECT '{t}', ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, p, 'x'
 FROM generate_series(1, {n}) n, generate_series(1, 2) p;
INSERT INTO statistic VALUES ('{t}', 1);
INSERT INTO outbox (tenant_id, body) SELECT '{t}', 'b' || n FROM generate_series(1, 50) n;
INSERT INTO receipt (tenant_id, outbox_id) SELECT tenant_id, id FROM outbox WHERE tenant_id = '{t}';
"""

TABLES: dict[str, dict[str, Any]] = {
    "country": {"ignore": "no tenant data"},
    "customer": {"strategy": "twin"},
    "statistic": {"strategy": "in_place"},
    "outbox": {"strategy": "in_place"},
    "sharing": {"strategy": "in_place"},
}
ROWS = 300


class Site:
    """One test's database, and the migration on it."""

    def __init__(self, server: PostgresServer, database: str) -> None:
        self.server, self.database = server, database
        self.epoch = 1
        self.opened: list[PostgreSQL] = []

    def participant(self, **changes: Any) -> PostgreSQL:
        options = {
            "name": "bills",
            "kind": "postgresql",
            "host": "127.0.0.1",
            "port": self.server.port,
            "database": self.database,
            "user": "zdm",
            "password": self.server.zdm.password,
            "tenant_columns": ["tenant_id", "with_.*"],
            "tables": TABLES,
            "no_cross_tenant_readers": True,
        }
        self.opened.append(PostgreSQL(options | changes))
        return self.opened[-1]

    def connect(self, admin: bool = False) -> psycopg.Connection[Any]:
        return self.server.connect(self.database, self.server.admin if admin else self.server.app)

    def sql(self, *statements: str, admin: bool = False) -> list[Any]:
        """Run statements as the application (or the administrator); rows of the last one."""
        with self.connect(admin) as session:
            cursor = None
            for statement in statements:
                cursor = session.execute(statement)
            return cursor.fetchall() if cursor and cursor.description else []

    def move(self, reverse: bool = False, epoch: int | None = None) -> Move:
        live, other = (B, A) if reverse else (A, B)
        return Move(MIGRATION, self.epoch if epoch is None else epoch, A, B, live, other)

    def plan(self, participant: PostgreSQL) -> Inspection:
        plan = participant.inspect(MIGRATION, A, B)
        assert not plan.refusals, plan.refusals
        return plan

    def staged(self, **changes: Any) -> PostgreSQL:
        """A participant that has been staged."""
        participant = self.participant(**changes)
        participant.stage(self.move(), self.plan(participant), lambda event: None)
        return participant

    def switch(self, participant: PostgreSQL, reverse: bool = False) -> dict[str, Any]:
        """A whole window under a new epoch."""
        self.epoch += 1
        move = self.move(reverse)
        participant.take_over(move)
        participant.prelude(move, WAIT_MS)
        result = participant.barrier(move, WAIT_MS)
        participant.turn(move)
        return result

    def status(self, participant: PostgreSQL) -> Status:
        return participant.status(MIGRATION, A, B)

    def catalog(self) -> list[Any]:
        """Everything of the schema that a migration could leave behind or change."""
        return [self.sql(query, admin=True) for query in CATALOG]


CATALOG = (
    (
        "SELECT n.nspname, c.relname, c.relkind, c.relhasrules, c.relrowsecurity, c.relreplident, c.relacl::text FROM"
        " pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname NOT LIKE 'pg_%' AND n.nspname <>"
        " 'information_schema' ORDER BY 1, 2"
    ),
    "SELECT nspname, nspacl::text FROM pg_namespace WHERE nspname NOT LIKE 'pg_t%' ORDER BY 1",
    (
        "SELECT tgrelid::regclass::text, tgname, tgenabled, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT"
        " tgisinternal ORDER BY 1, 2"
    ),
    (
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated FROM pg_constraint ORDER BY"
        " 1, 2"
    ),
    (
        "SELECT attrelid::regclass::text, attname, atttypid, attnotnull, attidentity, attgenerated FROM pg_attribute"
        " JOIN pg_class c ON c.oid = attrelid WHERE c.relnamespace = 'public'::regnamespace AND attnum > 0 ORDER BY 1,"
        " attnum"
    ),
    (
        "SELECT proname, prosrc FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace"
        " WHERE nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1"
    ),
    (
        "SELECT classid, objid, deptype FROM pg_shdepend WHERE dbid = (SELECT oid FROM pg_database WHERE datname ="
        " current_database()) ORDER BY 1, 2, 3"
    ),
)

CHILD = """
import json, os, signal, sys
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import Move
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.participant import PostgreSQL
options, move, verb, number = json.load(sys.stdin)
from ansible_collections.zdm.landscape.tests.integration.postgresql.pgsite import make_small_chunks
make_small_chunks(setattr)
participant, move, seen = PostgreSQL(options), Move(**move), 0
inner = PostgreSQL.write_state
def count(_entry=None):
    global seen
    seen += 1
    if seen == number:
        os.kill(os.getpid(), signal.SIGKILL)
def write_state(self, *arguments, **named):
    inner(self, *arguments, **named)
    count()
PostgreSQL.write_state = write_state
if verb == "stage":
    participant.stage(move, participant.inspect(move.migration, move.source_id, move.target_id), lambda event: None)
elif verb == "remove":
    participant.remove(move, count)
else:
    getattr(participant, verb)(move, *([60_000] if verb == "barrier" else []))
"""


def make_small_chunks(setattribute: Callable[[Any, str, Any], None], rows: int = 50) -> None:
    """Copy, compare and delete that many rows at a time."""
    setattribute(copying, "CHUNK_ROWS", rows)
    setattribute(copying, "COMPARE_ROWS", rows)
    setattribute(copying.Pace, "measured", lambda pace, run: run(pace.rows))
    setattribute(twin, "PURGE_ROWS", rows)


def killed(site: Site, verb: str, number: int, reverse: bool = False) -> bool:
    """Run a verb in a process that kills itself inside the transaction of its *number*-th write of the state.

    Of a removal the chunks count too; after a chunk it dies outside of any transaction.
    """
    move = asdict(site.move(reverse))
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps([site.participant().options, move, verb, number]),
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL)
    return done.returncode != 0
