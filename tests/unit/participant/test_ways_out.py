# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No refusal of a plan gives advice that nobody has tried: every text of the source has a test that follows it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.zdm.landscape.tests.integration.mariadb import test_mariadb_ways_out as mariadb
from ansible_collections.zdm.landscape.tests.integration.postgresql import test_postgresql_ways_out as postgresql
from ansible_collections.zdm.landscape.tests.integration.sqlite import test_sqlite_ways_out as sqlite
from ansible_collections.zdm.landscape.tests.integration.ways_out_contract import TWINS, WAYS

SOURCES = Path(__file__).parents[3] / "plugins" / "module_utils" / "participant"
FILES = (
    *("classify", "choice", "table_options", "own_ids", "constraints", "planning", "proposal/proposing"),
    *("postgresql/catalog", "postgresql/constraints", "postgresql/inspect", "postgresql/probe"),
    *("mariadb/inspect", "mariadb/partitions", "mariadb/server", "sqlite/inspect"),
)
ADVISING = ("way_out", "_way_out", "_create_grant")
"""Functions that return advice."""
ELSEWHERE = {
    "Drop it; or, if it is still in use, ignore it": "test_mariadb_attacks.py, renamed tables",
    "Let a database administrator run: ": "test_the_first_plan_of_a_user_without_rights_lists_all_it_needs",
    "End it, or wait until it is over.": "test_postgresql_inspect.py, test_refusals_of_transactions",
    "COMMIT PREPARED {}, or ROLLBACK PREPARED {}.": "test_postgresql_inspect.py, test_refusals_of_transactions",
    "End it (ALTER TABLE <heir> NO INHERIT": "test_postgresql_partitions.py, heirs",
    " A function that reads other rows": "test_postgresql_odd_shapes.py, a function in a check",
    "Add a partition that takes them": "test_mariadb_odd_shapes.py, partitions by tenant",
    "Drop the slot for the migration": "test_postgresql_inspect.py, test_refusals_of_replication",
    "Drop it for the migration.": "test_mariadb_refusals.py, test_foreign_keys_of_another_database",
    "XA COMMIT or XA ROLLBACK": "test_mariadb_refusals.py, test_prepared_xa_transactions",
    "Wait until it ends, or end it: KILL": "test_mariadb_refusals.py, test_long_transactions",
    "SET GLOBAL binlog_format": "test_mariadb_refusals.py, test_a_binary_log",
    "SET GLOBAL log_bin_trust_function_creators": "test_mariadb_refusals.py, test_a_binary_log",
    "Choose `strategy: in_place`.": "of a note against twins alone: the choice advises, see WAYS",
    "Choose in_place.": "of a note against twins alone: the choice advises, see WAYS",
    "Rename it, or choose in_place.": "of a note against twins alone: the choice advises, see WAYS",
}
"""Advice that another test follows."""
PERSON = {
    "Use PostgreSQL {} or later.": "another server",
    "Upgrade to MariaDB": "another server",
    "Only MariaDB is supported.": "another server",
    "Not supported.": "a server that is no cluster",
    "Name the primary server.": "another server",
    "Use the primary server.": "another server",
    "Make room on the database's disk.": "a larger disk",
    "Use another id.": "another tenant",
    "Let this user write {} and {}.": "the right to write a file, which the tests' user always has",
    "Make its own database a participant": "a server of foreign tables",
}
"""Advice that no test can follow, and what it would take."""


def advice() -> Iterator[tuple[str, str]]:
    """File and text of every advice in the source; ``{}`` stands for what is put in."""
    for name in FILES:
        tree = ast.parse((SOURCES / f"{name}.py").read_text())
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef):
                given = {id(text): text for found in _arguments(function) for text in _texts(found, function)}
                yield from ((name, text) for text in given.values())
            if isinstance(function, ast.FunctionDef) and function.name in ADVISING:
                returned = [each for each in ast.walk(function) if isinstance(each, ast.Return)]
                yield from ((name, text) for each in returned for text in _strings(each))


def _arguments(function: ast.FunctionDef) -> Iterator[ast.expr]:
    places = {"Refusal": 2, "refuse": 2, "Note": 1, "_refuse_server": 1}
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            place = places.get(called)
            if place is not None and len(node.args) > place:
                yield node.args[place]
        if isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple) and function.name == "wrong_options":
            yield node.value.elts[1]


def _texts(node: ast.expr, function: ast.FunctionDef) -> Iterator[str]:
    """Texts of an expression, and of what is assigned to its names."""
    names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    assigned = [
        each.value
        for each in ast.walk(function)
        if isinstance(each, ast.Assign) and any(getattr(target, "id", "") in names for target in each.targets)
    ]
    for root in (node, *assigned):
        yield from _strings(root)


def _strings(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.JoinedStr):
        text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        parts: list[ast.AST] = [part for part in node.values if isinstance(part, ast.FormattedValue)]
    else:
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
        parts = list(ast.iter_child_nodes(node))
    if " " in text.strip("{}., "):
        yield text
    for part in parts:
        yield from _strings(part)


TRIED = {way.advice for ways in (WAYS, TWINS, postgresql.OWN, mariadb.OWN, sqlite.OWN) for way in ways.values()}
KNOWN = {*TRIED, *ELSEWHERE, *PERSON}
ADVICE = sorted(set(advice()))


def test_the_source_is_read() -> None:
    assert len(ADVICE) > 60


@pytest.mark.parametrize(("name", "text"), ADVICE)
def test_every_advice_is_tried(name: str, text: str) -> None:
    assert any(_same(known, text) for known in KNOWN), f"No test follows this advice of {name}."


@pytest.mark.parametrize("known", sorted(KNOWN))
def test_what_is_tried_is_still_advised(known: str) -> None:
    assert any(_same(known, text) for _name, text in ADVICE)


def _same(known: str, text: str) -> bool:
    return known.lower() in text.lower()
