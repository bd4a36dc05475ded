# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An application that locks its tables (LOCK TABLES) while logs are written, read and emptied: no error 1442."""

from __future__ import annotations

import threading

import pytest
from ansible_collections.zdm.landscape.tests.integration.mariadb.bench import Bench, run
from ansible_collections.zdm.landscape.tests.integration.mariadb.twinsite import participant_of, switch
from ansible_collections.zdm.landscape.tests.integration.verb_kit import KEY, WAIT_MS, A, B, C, move, stage

WRITES = (
    "INSERT INTO customer (tenant_id, id, email, country) VALUES ('{t}', 'k{n}', '{n}@k', 'AT')",
    "UPDATE customer SET balance = 7 WHERE tenant_id = '{t}' AND id = 'k{n}'",
    "REPLACE INTO customer (tenant_id, id, email, country) VALUES ('{t}', 'k{n}', '{n}@m', 'IT')",
    "INSERT INTO customer (tenant_id, id, email, country) VALUES ('{t}', 'k{n}', 'x', 'AT') ON DUPLICATE KEY UPDATE"
    " balance = 9",
    "UPDATE customer SET id = 'l{n}' WHERE tenant_id = '{t}' AND id = 'k{n}'",
    "DELETE FROM customer WHERE tenant_id = '{t}' AND id = 'l{n}'",
    "INSERT INTO `order` (tenant_id, customer) VALUES ('{t}', 'c{n}')",
    "DELETE FROM `order` WHERE tenant_id = '{t}' ORDER BY id LIMIT 1",
)


@pytest.mark.parametrize("live", [A, B])
def test_writes_under_lock_tables_are_logged(site: Bench, live: str) -> None:
    site.sql("ALTER TABLE `order` DROP FOREIGN KEY order_ibfk_1")
    participant = participant_of(site)
    stage(participant)
    if live == B:
        switch(participant, 2)
    at = move(3, forward=live == A)
    session, other = site.application(), site.application()
    logs = [row[0] for row in site.sql("SHOW TABLES LIKE 'zdm\\_log\\_%'")]
    for number in range(6):
        for log in logs:  # in a handle that the server keeps
            run(other, f"SELECT COUNT(*) FROM {log}")
        run(session, "LOCK TABLES customer WRITE, `order` WRITE")
        for tenant in (live, C):
            for write in WRITES:
                run(session, write.format(t=tenant, n=number))
        run(session, "UNLOCK TABLES")
        if number % 2:
            assert participant.follow(at, WAIT_MS) > 0
    participant.take_over(at)
    participant.prelude(at, WAIT_MS)
    content = participant.fingerprint(live)
    participant.barrier(at, WAIT_MS)
    with pytest.raises(Exception, match="is closed by a migration"):
        run(session, f"UPDATE customer SET balance = 7 WHERE tenant_id = '{live}'")
    participant.turn(at)
    assert participant.fingerprint(B if live == A else A) == content


def test_the_worker_waits_for_a_table_lock(site: Bench) -> None:
    participant = participant_of(site)
    stage(participant)
    session = site.application()
    run(session, "LOCK TABLES customer WRITE")
    run(session, f"UPDATE customer SET balance = 8 WHERE tenant_id = '{A}'")
    thread = threading.Timer(1.5, run, (session, "UNLOCK TABLES"))
    thread.start()
    try:
        switch(participant, 2)
    finally:
        thread.join()
    assert site.sql(f"SELECT COUNT(*) FROM customer WHERE tenant_id = '{B}' AND balance = 8") == [(120,)]
    assert participant.status(KEY, A, B).problems == ()
