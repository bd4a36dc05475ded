# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database with tables that become twins, and a participant that makes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.participant import MariaDB
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.sql import (
    worker_token,
    worker_variable,
)
from ansible_collections.zdm.landscape.tests.integration.mariadb.bench import Bench
from ansible_collections.zdm.landscape.tests.integration.verb_kit import KEY, WAIT_MS, move

ROWS = 120
TABLES = {
    "country": {"ignore": "no tenant data"},
    **{name: {"strategy": "twin"} for name in ("customer", "order", "odd")},
    "outbox": {"strategy": "in_place"},
}
SCHEMA = """
CREATE TABLE country (code CHAR(2) NOT NULL PRIMARY KEY);
INSERT INTO country VALUES ('AT'), ('IT');
CREATE TABLE customer (tenant_id VARCHAR(63) NOT NULL, id VARCHAR(36) NOT NULL, email VARCHAR(80) NOT NULL,
 country CHAR(2) NOT NULL,
  changed TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),
   balance DECIMAL(12,4) NOT NULL DEFAULT 0,
  doubled DECIMAL(12,4) AS (balance * 2) STORED, extra JSON, PRIMARY KEY (tenant_id, id), UNIQUE KEY mail (tenant_id,
   email),
  FOREIGN KEY (country) REFERENCES country (code));
CREATE TABLE `order` (id BIGINT NOT NULL AUTO_INCREMENT, tenant_id VARCHAR(63) NOT NULL,
 customer VARCHAR(36) NOT NULL, `select` VARCHAR(50),
  PRIMARY KEY (tenant_id, id), KEY (id), FOREIGN KEY (tenant_id, customer) REFERENCES customer (tenant_id, id)
   ON DELETE RESTRICT ON UPDATE RESTRICT);
CREATE TABLE odd (at DATETIME(6) NOT NULL, tenant_id CHAR(40) CHARACTER SET ascii NOT NULL, raw VARBINARY(8) NOT NULL,
 uid UUID NOT NULL,
  part DECIMAL(6,2) NOT NULL, data BLOB, ratio DOUBLE, flags SET('a','b'), label VARCHAR(20) COLLATE utf8mb4_general_ci,
  PRIMARY KEY (at, raw, uid, part, tenant_id), KEY (tenant_id, part));
CREATE TABLE outbox (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, tenant_id VARCHAR(63) NOT NULL, body VARCHAR(50),
 KEY (tenant_id))
"""
FILL = (
    (
        "INSERT INTO customer (tenant_id, id, email, country, balance, extra) SELECT '{t}', CONCAT('c''\\\\', seq),"
        " CONCAT(seq, '@x'), 'AT', seq / 7, '{{\"a\": 1}}' FROM {n}"
    ),
    (
        "INSERT INTO `order` (tenant_id, customer, `select`) SELECT '{t}', CONCAT('c''\\\\', seq), IF(seq % 3, 'x',"
        " NULL) FROM {n}"
    ),
    (
        "INSERT INTO odd SELECT '2020-01-01' + INTERVAL seq DIV 5 SECOND, '{t}', UNHEX(LPAD(HEX(seq % 5), 4, '0')),"
        " UUID(), seq / 4, UNHEX('00FF27'), seq / 3, 'a,b', 'É' FROM {n}"
    ),
    "INSERT INTO outbox (tenant_id, body) SELECT '{t}', seq FROM {n}",
)


def participant_of(site: Bench, **changes: Any) -> MariaDB:
    return site.participant(
        **{
            "tables": TABLES,
            "tenant_columns": ["tenant_id"],
            "no_cross_tenant_readers": True,
            "ddl_wait_ms": 50,
            **changes,
        }
    )


def options_of(site: Bench) -> dict[str, Any]:
    return site.options(tables=TABLES, tenant_columns=["tenant_id"], no_cross_tenant_readers=True)


def switch(participant: MariaDB, epoch: int, forward: bool = True) -> dict[str, Any]:
    at = move(epoch, forward)
    participant.take_over(at)
    participant.prelude(at, WAIT_MS)
    result = participant.barrier(at, WAIT_MS)
    participant.turn(at)
    return result


@contextmanager
def bypassing(site: Bench) -> Iterator[None]:
    """What the admin's session writes in the block is neither fenced nor logged, as with a restored backup."""
    site.sql(f"SET {worker_variable(KEY)} = '{worker_token(KEY)}'")
    yield
    site.sql(f"SET {worker_variable(KEY)} = NULL")


def rows(site: Bench) -> dict[str, list[tuple[Any, ...]]]:
    return {
        table: sorted(site.sql(f"SELECT * FROM `{table}`"), key=repr)
        for table in ("customer", "order", "odd", "outbox")
    }


def catalog(site: Bench) -> list[tuple[Any, ...]]:
    """The schema without the counters."""
    return [tuple(str(part).split(" AUTO_INCREMENT=", maxsplit=1)[0] for part in entry) for entry in site.catalog()]
