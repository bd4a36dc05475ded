# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and statements that no server is needed for."""

from __future__ import annotations

import json
from dataclasses import asdict

from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import STAGED, TWIN
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import literal, parameter
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.session import lock_key
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.sql import Work, quote
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.twin_sql import Twins
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import State

WORK = Work(
    "order",
    ("tenant_id",),
    3,
    TWIN,
    ("Id",),
    ("integer",),
    ("Id", "user"),
    schema="public",
    relation="order",
    kinds=("uuid",),
    unique=("tenant_id", "Id"),
)
SCHEME = Twins(State("a--b", 1, STAGED, "A", "A", "B", (WORK,)))


def test_names_are_quoted() -> None:
    assert quote("public", "order") == 'public."order"'
    assert literal("o'x") == "'o''x'"
    assert WORK.sql in SCHEME.lock()
    assert '"Id"' in SCHEME.apply([WORK], None)


def test_identifiers_fit_postgresql() -> None:
    names = list(SCHEME.triggers(WORK))
    assert len(set(names)) == len(names) == 12
    assert all(len(name) < 64 and name.startswith("zzz_zdm_") for name in names)
    assert len(SCHEME.log(WORK, "s")) < 64


def test_a_work_survives_the_state_row() -> None:
    assert Work.load(json.loads(json.dumps(asdict(WORK)))) == WORK


def test_a_fence_is_closed_by_the_body_of_its_function() -> None:
    closed, opened = SCHEME.set_fences(["A", "B"]), SCHEME.set_fences([])
    assert closed.count("CREATE OR REPLACE FUNCTION") == opened.count("CREATE OR REPLACE FUNCTION") == 2
    assert (closed.count("RAISE EXCEPTION"), opened.count("RAISE EXCEPTION")) == (2, 0)
    assert SCHEME.set_fences(["A"]).index("RAISE") < SCHEME.set_fences(["B"]).index("RAISE")


def test_keys_are_bound_and_never_text() -> None:
    lower, upper = parameter(0), parameter(1)
    assert (SCHEME.chunk(WORK, True, True).count(lower), SCHEME.chunk(WORK, True, True).count(upper)) == (1, 1)
    assert SCHEME.compare(WORK, True, True, 20, mend=True).count(upper) == 2
    assert lower not in SCHEME.chunk(WORK, False, False)


def test_every_migration_has_its_own_lock() -> None:
    keys = {lock_key(f"a--b{number}") for number in range(100)}
    assert len(keys) == 100
    assert all(0 <= key < 2**62 for key in keys)
