# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys are not checked while rows move: the plan asks whether they would refer to nothing."""

from __future__ import annotations

import pytest
from ansible_collections.zdm.landscape.tests.integration.mariadb.bench import Bench
from ansible_collections.zdm.landscape.tests.integration.verb_kit import KEY, WAIT_MS, A, B, C, move, stage


@pytest.mark.parametrize("strategy", ["in_place", "twin"])
def test_a_root_row_that_is_missing_is_found_and_mended(empty: Bench, strategy: str) -> None:
    for statement in (
        "CREATE TABLE tenant (id VARCHAR(63) PRIMARY KEY)",
        f"INSERT INTO tenant VALUES ('{A}'), ('{C}')",
        (
            "CREATE TABLE note (tenant_id VARCHAR(63) NOT NULL, id INT NOT NULL, PRIMARY KEY (tenant_id, id),"
            " CONSTRAINT note_root FOREIGN KEY (tenant_id) REFERENCES tenant (id))"
        ),
        f"INSERT INTO note SELECT '{A}', seq FROM seq_1_to_9",
    ):
        empty.sql(statement)
    tables = {"tenant": {"ignore": "roots"}, "note": {"strategy": strategy}}
    participant = empty.participant(tables=tables, no_cross_tenant_readers=True)
    (refusal,) = participant.inspect(KEY, A, B).refusals
    assert (
        refusal.reason
        == f"Foreign key note_root of note refers to tenant (id), whose rows stay, and rows that are to stand under {B}"
        " find none there."
    )
    empty.sql(f"INSERT INTO tenant VALUES ('{B}')")
    assert participant.inspect(KEY, A, B).refusals == ()
    stage(participant)
    participant.take_over(move(2))
    participant.prelude(move(2), WAIT_MS)
    participant.barrier(move(2), WAIT_MS)
    participant.turn(move(2))
    dangling = (
        f"SELECT COUNT(*) FROM note LEFT JOIN tenant ON tenant.id = note.tenant_id WHERE note.tenant_id = '{B}' AND"
        " tenant.id IS NULL"
    )
    assert empty.sql(dangling) == [(0,)]
