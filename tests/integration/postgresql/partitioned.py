# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Partitioned tables of several kinds, with rows of two tenants, and an application that writes."""

from __future__ import annotations

from ansible_collections.zdm.landscape.tests.integration.postgresql.pgsite import A, B, C

BY_TIME = (
    (
        "CREATE TABLE ev (tenant_id uuid NOT NULL, id int NOT NULL, at date NOT NULL, v int DEFAULT 0, PRIMARY KEY"
        " (tenant_id, id, at)) PARTITION BY RANGE (at)"
    ),
    "CREATE TABLE ev24 PARTITION OF ev FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')",
    "CREATE TABLE ev25 PARTITION OF ev FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')",
    "CREATE TABLE ev_rest PARTITION OF ev DEFAULT",
)
FILL = tuple(
    f"INSERT INTO ev SELECT '{tenant}', n, '2024-01-01'::date + n * 10 FROM generate_series(1, 100) n"
    for tenant in (A, C)
)
BY_TENANT = (
    (
        "CREATE TABLE ev (tenant_id uuid NOT NULL, id int NOT NULL, at date NOT NULL, v int DEFAULT 0, PRIMARY KEY"
        " (tenant_id, id, at)) PARTITION BY LIST (tenant_id)"
    ),
    f"CREATE TABLE ev_a PARTITION OF ev FOR VALUES IN ('{A}')",
    f"CREATE TABLE ev_c PARTITION OF ev FOR VALUES IN ('{C}')",
)
OF_B = f"CREATE TABLE ev_b PARTITION OF ev FOR VALUES IN ('{B}')"
BY_HASH = (
    BY_TENANT[0].replace("LIST", "HASH"),
    *(f"CREATE TABLE ev_{n} PARTITION OF ev FOR VALUES WITH (MODULUS 7, REMAINDER {n})" for n in range(7)),
)
BY_RANGE = (
    BY_TENANT[0].replace("LIST", "RANGE"),
    f"CREATE TABLE ev_low PARTITION OF ev FOR VALUES FROM (MINVALUE) TO ('{B}')",
    f"CREATE TABLE ev_high PARTITION OF ev FOR VALUES FROM ('{B}') TO (MAXVALUE)",
)
CHANGES = (
    "UPDATE ev SET v = v + 1 WHERE tenant_id = '{t}' AND id < 20",
    "UPDATE ev SET at = at + 400 WHERE tenant_id = '{t}' AND id BETWEEN 10 AND 15",
    "DELETE FROM ev WHERE tenant_id = '{t}' AND id = (SELECT min(id) FROM ev WHERE tenant_id = '{t}' AND id > 30)",
    "INSERT INTO ev SELECT '{t}', max(id) + 1, '2025-06-06' FROM ev WHERE tenant_id = '{t}'",
)
