# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a description says of a participant's tables and ids: each wrong value is named, once, with what is expected."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.options import PARTICIPANTS
from ansible_collections.zdm.landscape.plugins.module_utils.description.keys import (
    COLUMNS_AND_TABLES,
    TABLE,
    problems,
)

QUERY = "SELECT id FROM accounts WHERE external_id = :tenant_id"


def found(**options: Any) -> list[str]:
    participant = {"name": "crm", "kind": "sqlite", "database": "/crm.db", **options}
    description = {"name": "x", "store": {"path": "/s"}, "participants": [participant]}
    return [str(problem).removeprefix("zdm_landscape.participants[0].") for problem in problems(description)]


@pytest.mark.parametrize(
    "options",
    [
        {"ignore": {}},
        {"ignore": {"^(country|ACT_GE_.*)$": "no tenant data", "schema_migrations": "Rails"}},
        {"ids": {"venezia": 17, "venezia-scp": "0x0a0b"}},
        {"id_query": QUERY},
        {"id_query": "  with a AS (SELECT 1)\nselect id from a where x = :tenant_id"},
        {"tables": {"tenants": {"tenant_columns": ["id"], "new_row": {"slug": "x", "nr": 7, "parent": None}}}},
        {"tables": {"comment": {"follows": "item"}, "tag": {"follows": ["item", "bill"]}}},
        {"tables": {"event": {"own_ids": False}, "job": {"own_ids": True, "strategy": "in_place"}}},
    ],
)
def test_what_is_right(options: dict[str, Any]) -> None:
    assert found(**options) == []


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"ignore": ["country"]}, "ignore is a list; expected a mapping"),
    ({"ignore": "country"}, "ignore is a string; expected a mapping"),
    ({"ignore": {"country": ""}}, "ignore.country is ''; expected the reason why these tables hold no data"),
    ({"ignore": {"country": None}}, "ignore.country is empty; expected the reason why"),
    ({"ignore": {"country": {"reason": "x"}}}, "ignore.country is a mapping; expected the reason why"),
    ({"ignore": {"(": "x"}}, "ignore.( is '('; expected a name, or a regular expression for names"),
    ({"ignore": {"*": "x"}}, "ignore.* is '*'; expected a name, or a regular expression for names"),
    ({"ignore": {3: "x"}}, "ignore.3 is 3; expected a name, or a regular expression for names"),
    ({"ids": [17]}, "ids is a list; expected a mapping"),
    ({"ids": {"venezia": [17]}}, "ids.venezia is a list; expected an id: a text or a whole number"),
    ({"ids": {"venezia": None}}, "ids.venezia is empty; expected an id"),
    ({"ids": {"venezia": True}}, "ids.venezia is True; expected an id"),
    ({"ids": {"venezia": 1.5}}, "ids.venezia is 1.5; expected an id"),
    ({"ids": {"venezia": ""}}, "ids.venezia is ''; expected an id"),
    ({"id_query": 17}, "id_query is 17; expected a SELECT of one value with :tenant_id"),
    ({"id_query": "SELECT id FROM accounts"}, "id_query is 'SELECT id FROM accounts'; expected a SELECT"),
    ({"id_query": "DELETE FROM a WHERE b = :tenant_id"}, "expected a SELECT of one value with :tenant_id"),
    ({"ids": {"venezia": 17}, "id_query": QUERY}, "id_query is given, and ids too; expected only one of the two"),
    ({"tables": {"t": {"tenant_columns": "id"}}}, "tables.t.tenant_columns is a string; expected a list"),
    ({"tables": {"t": {"tenant_columns": []}}}, "tables.t.tenant_columns is empty; expected at least 1 entry"),
    ({"tables": {"t": {"tenant_columns": [7]}}}, "tables.t.tenant_columns[0] is 7; expected text"),
    ({"tables": {"t": {"follows": True}}}, "tables.t.follows is True; expected text"),
    ({"tables": {"t": {"follows": []}}}, "tables.t.follows is empty; expected at least 1 entry"),
    ({"tables": {"t": {"follows": ["item", None]}}}, "tables.t.follows[1] is empty; expected text"),
    ({"tables": {"t": {"follows": {"item": 1}}}}, "tables.t.follows is a mapping; expected text"),
    ({"tables": {"t": {"own_ids": "yes"}}}, "tables.t.own_ids is 'yes'; expected true or false"),
    ({"tables": {"t": {"own_ids": {"venezia": 1}}}}, "tables.t.own_ids is a mapping; expected true or false"),
    ({"tables": {"t": {"new_row": ["x"]}}}, "tables.t.new_row is a list; expected a mapping"),
    ({"tables": {"t": {"new_row": {"slug": ["x"]}}}}, "tables.t.new_row.slug is a list; expected a text, a number"),
    ({"tables": {"t": {"new_rows": {}}}}, "tables.t.new_rows is not known (did you mean new_row?)"),
    ({"tables": {"t": {"folows": "x"}}}, "tables.t.folows is not known (did you mean follows?)"),
    (
        {"tables": {"t": {"ignore": "x", "follows": "y"}}},
        "tables.t has ignore and more; expected ignore with the reason",
    ),
    ({"tables": {"t": {"ignore": "x", "own_ids": True}}}, "tables.t has ignore and more"),
    (
        {"tables": {"t": {"follows": "item", "tenant_columns": ["id"]}}},
        "tables.t has follows and tenant_columns; expected follows alone, as its rows keep their keys",
    ),
    ({"tables": {"t": {"follows": "item", "strategy": "twin"}}}, "tables.t has follows and strategy"),
]


@pytest.mark.parametrize(("options", "expected"), WRONG, ids=[expected for _options, expected in WRONG])
def test_the_wrong_value_is_named(options: dict[str, Any], expected: str) -> None:
    told = found(**options)
    assert len(told) == 1, told
    assert expected in told[0]


def test_modules_know_the_same_options() -> None:
    options = PARTICIPANTS["participants"]["options"]
    assert set(COLUMNS_AND_TABLES) <= set(options)
    assert ("ids", "id_query") in PARTICIPANTS["participants"]["mutually_exclusive"]
    assert not list(TABLE({}, "t"))
