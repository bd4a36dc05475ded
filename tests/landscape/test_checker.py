# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checker finds every kind of damage in a database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ansible_collections.zdm.landscape.tests.landscape.bench import HEADS, LIVE, OTHER, RETIRED, Bench
from ansible_collections.zdm.landscape.tests.landscape.ledger import ACKNOWLEDGED, LedgerWriter, Write, read_ledger
from ansible_collections.zdm.landscape.tests.landscape.processes import Processes, temporary_folder
from ansible_collections.zdm.landscape.tests.landscape.spec import item_id


@pytest.fixture(scope="module", name="loaded")
def _loaded() -> Iterator[Bench]:
    """A service with a run of the load behind it; every test damages it and puts it back."""
    with temporary_folder() as folder:
        (folder / "logs").mkdir()
        with Processes(folder / "logs") as processes:
            bench = Bench(folder, processes)
            summary = bench.load(requests=200)
            assert summary["failed"] == 0, summary["failures"]
            bench.database.keep_seed()
            yield bench


@pytest.fixture(name="bench")
def _bench(loaded: Bench) -> Iterator[Bench]:
    yield loaded
    loaded.database.reset()


def newest(bench: Bench, operation: str) -> str:
    """The newest write of the tenant with this operation."""
    return str(
        bench.database.query(
            f"SELECT write_id FROM outbox WHERE tenant_id = '{LIVE}' AND operation = '{operation}' ORDER BY id DESC"
            " LIMIT 1"
        )[0][0]
    )


def test_nothing_is_found_where_nothing_is_wrong(bench: Bench) -> None:
    verdict = bench.check()
    assert verdict.ok, verdict.findings
    assert verdict.acknowledged > 50
    assert verdict.unknown == 0


DAMAGE = {
    "an acknowledged write is gone": ("lost_writes", "DELETE FROM outbox WHERE write_id = '{write}'"),
    "a write is there twice": (
        "doubled_writes",
        (
            "INSERT INTO outbox (tenant_id, write_id, bucket, operation, item) SELECT tenant_id, write_id, bucket,"
            " operation, item FROM outbox WHERE write_id = '{write}'"
        ),
    ),
    "a change is undone": (
        "lost_writes",
        "UPDATE document SET version = version - 1 WHERE tenant_id = '{live}' AND id = '{item}'",
    ),
    "a change is done twice": (
        "doubled_writes",
        "UPDATE document SET version = version + 1 WHERE tenant_id = '{live}' AND id = '{item}'",
    ),
    "a line has an old value": (
        "lost_writes",
        "UPDATE page SET quantity = quantity + 7 WHERE tenant_id = '{live}' AND head_id = '{item}' AND position = 1",
    ),
    "a line is gone": (
        "lost_writes",
        "DELETE FROM page WHERE tenant_id = '{live}' AND head_id = '{item}' AND position = 2",
    ),
    "the hot row missed a write": (
        "lost_writes",
        "UPDATE tenant_statistic SET writes = writes - 1 WHERE tenant_id = '{live}'",
    ),
    "the hot row counted twice": (
        "doubled_writes",
        "UPDATE tenant_statistic SET writes = writes + 1 WHERE tenant_id = '{live}'",
    ),
    "a write stands under the bystander's id": (
        "wrong_tenant",
        "UPDATE outbox SET tenant_id = '{other}' WHERE write_id = '{write}'",
    ),
    "a first row stands under the retired id": (
        "wrong_tenant",
        "UPDATE outbox SET tenant_id = '{retired}' WHERE tenant_id = '{live}' AND write_id = 'seed-7'",
    ),
    "a setting stands under the retired id": (
        "wrong_tenant",
        "UPDATE archive_setting SET tenant_id = '{retired}' WHERE tenant_id = '{live}' AND name = 'option1'",
    ),
    "a row of nobody": (
        "wrong_tenant",
        "INSERT INTO archive_setting (tenant_id, name, setting) VALUES ('somebody', 'a', 'b')",
    ),
    "a first row of the tenant was changed": (
        "damaged_rows",
        "UPDATE document SET customer = 'x' WHERE tenant_id = '{live}' AND number = 3",
    ),
    "a first row of the bystander was changed": (
        "bystander_changed",
        "UPDATE page SET note = 'x' WHERE tenant_id = '{other}' AND id = 31",
    ),
    "a first row of the bystander is gone": (
        "bystander_changed",
        "DELETE FROM template WHERE tenant_id = '{other}' AND code = 'C12'",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found(bench: Bench, damage: str) -> None:
    kind, statement = DAMAGE[damage]
    names = {"write": newest(bench, "change"), "live": LIVE, "other": OTHER, "retired": RETIRED, "item": item_id(5)}
    foreign_keys_off = "PRAGMA foreign_keys = OFF"
    bench.database.execute(foreign_keys_off, statement.format(**names))
    verdict = bench.check()
    assert not verdict.ok
    assert getattr(verdict, kind) > 0, verdict
    assert verdict.findings


def test_a_deleted_item_that_came_back_is_found(bench: Bench) -> None:
    deleted = next(write for write, _outcome in read_ledger([bench.ledger]) if write.operation == "delete")
    tenant_id = LIVE if deleted.tenant == "tenant" else OTHER
    values = f"'{tenant_id}', '{deleted.item}', {deleted.number}, 'C1', 'x', 1, 1"
    bench.database.execute(
        f"INSERT INTO document (tenant_id, id, number, code, customer, amount, version) VALUES ({values})"
    )
    assert bench.check().lost_writes == 1


def test_twins_may_stand_under_the_retired_id_where_they_were_announced(bench: Bench) -> None:
    columns = "code, country, title"
    bench.database.execute(
        f"INSERT INTO template (tenant_id, {columns}) SELECT '{RETIRED}', {columns} FROM template WHERE tenant_id ="
        f" '{LIVE}'"
    )
    assert bench.check(twins=("documents.template",)).ok
    assert bench.check(twins=("documents.document",)).wrong_tenant > 0


def test_a_write_without_an_answer_may_be_there_or_not(bench: Bench) -> None:
    lines = bench.ledger.read_text().splitlines()
    number = max(index for index, line in enumerate(lines) if '"operation": "create"' in line and ACKNOWLEDGED in line)
    original = bench.ledger.read_text()
    try:
        lines[number] = lines[number].replace(ACKNOWLEDGED, "unknown")
        later = [line for line in lines[number + 1 :] if lines[number].split('"number": ')[1].split(",")[0] not in line]
        bench.ledger.write_text("\n".join([*lines[: number + 1], *later]) + "\n")
        there = bench.check()
        assert there.ok or not there.lost_writes
        assert there.unknown == 1
    finally:
        bench.ledger.write_text(original)


def test_an_acknowledged_write_that_never_arrived_is_lost(bench: Bench) -> None:
    original = bench.ledger.read_text()
    try:
        with LedgerWriter(bench.ledger) as ledger:
            ledger.record(Write("never", "tenant", "documents", "change", HEADS, 5, 1), ACKNOWLEDGED)
        assert bench.check().lost_writes == 2  # its row of the outbox, and the item's state
    finally:
        bench.ledger.write_text(original)
