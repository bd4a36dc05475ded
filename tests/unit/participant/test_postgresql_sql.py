# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and statements that no server is needed for."""

from __future__ import annotations

import json

from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import BARRED, STAGED, STAGING, TWIN
from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import literal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.sql import (
    FENCE,
    LOG,
    Scheme,
    Work,
    quote,
    shifts,
)

WORK = Work(
    3,
    "order",
    "public",
    "order",
    TWIN,
    ("tenant_id",),
    ("uuid",),
    ("Id",),
    ("integer",),
    ("tenant_id", "Id"),
    ("Id", "user"),
)
SCHEME = Scheme("a--b", "A", "B", [WORK])


def test_names_are_quoted() -> None:
    assert quote("public", "order") == 'public."order"'
    assert literal("o'x") == "'o''x'"
    assert WORK.sql in SCHEME.lock()
    assert '"Id"' in SCHEME.apply("A", "B", [WORK])


def test_identifiers_fit_postgresql() -> None:
    names = [name for group in SCHEME.triggers(WORK).values() for name in group]
    assert len(set(names)) == len(names) == 14
    assert all(len(name) < 64 and name.startswith("zzz_zdm_") for name in names)
    assert len(SCHEME.log(WORK, "s")) < 64


def test_a_work_survives_the_state_row() -> None:
    assert Work.load(json.loads(json.dumps(WORK.dump()))) == WORK


def test_both_directions_are_symmetric() -> None:
    for state in (STAGING, STAGED, BARRED):
        mirrored = {(kind, "t" if role == "s" else "s") for kind, role in shifts(state, "s")}
        assert mirrored == shifts(state, "t")
    assert shifts(STAGED, "s") == {(FENCE, "t"), (LOG, "s")}


def test_the_window_switches_no_more_than_it_must() -> None:
    forward = SCHEME.flips(shifts(STAGED, "s"), shifts(BARRED, "s"))
    assert len(forward) == 1
    assert "DISABLE" not in forward[0]
    back = SCHEME.flips(shifts(BARRED, "s"), shifts(STAGED, "s"))
    assert back[0].count("DISABLE") == forward[0].count("ENABLE ALWAYS") == 7
