# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every way out that a refusal names leads out: what the advice says is done, and the plan is green and can be staged.
An engine's tests inherit :class:`WaysOutContract` and add ways of their own.

Fixture: ``ground`` (an empty database, see :class:`Ground`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from ansible_collections.zdm.landscape.tests.integration.shape_kit import A, B, C, Ground, Journey

Out = dict[str, Any] | tuple[str, ...]
"""Options that are written, or statements that are run; ``{A bytes}`` stands for an id of sixteen bytes."""


@dataclass(frozen=True)
class Way:
    """A refusal and its ways out.

    :param advice: a part of the advice, as it stands in the source.
    :param outs: each is tried on a database of its own, and is enough by itself.
    :param green: whether nothing else is refused then.
    """

    advice: str
    schema: Sequence[str]
    outs: Sequence[Out]
    options: dict[str, Any] = field(default_factory=dict)
    green: bool = True


def table(name: str, *columns: str) -> str:
    return f"CREATE TABLE {name} (id int NOT NULL PRIMARY KEY{''.join(f', {column}' for column in columns)})"


ITEM = (
    table("item", "tenant_id {id} NOT NULL", "v {text}"),
    f"INSERT INTO item VALUES (1, '{A}', 'x'), (2, '{C}', 'y')",
)
KEYED = "CREATE TABLE {0} (tenant_id {{id}} NOT NULL, id int NOT NULL, up int, PRIMARY KEY (tenant_id, id){1})"
TREE = (
    KEYED.format("node", ""),
    KEYED.format("leaf", ", FOREIGN KEY (tenant_id, up) REFERENCES node (tenant_id, id)"),
    f"INSERT INTO node VALUES ('{A}', 1, NULL)",
    f"INSERT INTO leaf VALUES ('{A}', 1, 1)",
)
ROOT_TABLE = "CREATE TABLE tenants (id {id} NOT NULL PRIMARY KEY, slug {text} NOT NULL UNIQUE)"
ROOT = (
    ROOT_TABLE,
    table("item", "tenant_id {id} NOT NULL", "FOREIGN KEY (tenant_id) REFERENCES tenants (id)"),
    f"INSERT INTO tenants VALUES ('{A}', 'venezia')",
    f"INSERT INTO item VALUES (1, '{A}')",
)
ACCOUNTS = (
    "CREATE TABLE accounts (nr {big} NOT NULL PRIMARY KEY, external_id {text} NOT NULL UNIQUE)",
    table("bill", "account_nr {big} NOT NULL", "FOREIGN KEY (account_nr) REFERENCES accounts (nr)"),
    f"INSERT INTO accounts VALUES (17, '{A}')",
    "INSERT INTO bill VALUES (1, 17)",
)
NUMBERS = (table("bill", "tenant_id {big} NOT NULL"), "INSERT INTO bill VALUES (1, 17)")
QUERY = "SELECT nr FROM accounts WHERE external_id = :tenant_id"
BY_NUMBER = {"tenant_columns": ["account_nr"]}
OWN = {"own_ids": {A: "17", B: "18"}}
NO_READERS = {"no_cross_tenant_readers": True}
TWIN = {"tables": {"item": {"strategy": "twin"}}}

WAYS = {
    # what the options say
    "a table that is not there": Way(
        "Correct the name under `tables`, or remove it.",
        ITEM,
        [{"tables": {}}, {"tables": {"item": {"strategy": "in_place"}}}],
        {"tables": {"itme": {"strategy": "in_place"}}},
    ),
    "an unknown option of a table": Way("Known are ", ITEM, [{"tables": {}}], {"tables": {"item": {"x": 1}}}),
    "an unknown strategy": Way(
        "Use one of ", ITEM, [{"tables": {"item": {"strategy": "in_place"}}}], {"tables": {"item": {"strategy": "x"}}}
    ),
    "no reason": Way(
        "Write why: `ignore:",
        (*ITEM, table("country")),
        [{"tables": {"country": {"ignore": "a list"}}}],
        {"tables": {"country": {"ignore": " "}}},
    ),
    "a column that is not there": Way(
        "Its columns are ",
        ITEM,
        [{"tables": {"item": {"tenant_columns": ["tenant_id"]}}}],
        {"tables": {"item": {"tenant_columns": ["tenant_id", "tenantid"]}}},
    ),
    "a wrong word about the id inside": Way(
        "Write columns of the table, each with a reason",
        ITEM,
        [{"tables": {"item": {"id_stays": {"v": "history"}}}}],
        {"tables": {"item": {"id_stays": {"x": "history"}}}},
    ),
    "a pattern for columns": Way(
        "Correct `{}`.", ITEM, [{"tenant_columns": ["tenant.id"]}], {"tenant_columns": ["tenant_id", "("]}
    ),
    "a pattern for tables": Way(
        "Correct `{}`.", (*ITEM, table("country")), [{"ignore": {"c.*": "x"}}], {"ignore": {"(": "x", "country": "x"}}
    ),
    "a key that is none": Way(
        "Name all columns of one unique key.",
        ITEM,
        [{"tables": {"item": {"key": ["id"]}}}],
        {"tables": {"item": {"key": ["v"]}}},
    ),
    # tables
    "a tenant column of another name": Way(
        "Name its tenant column in `tenant_columns`", (table("item", "org {id}"),), [{"tenant_columns": ["org"]}]
    ),
    "a child that no key ties": Way(
        "Name its tenant column in `tenant_columns`",
        (*ITEM, table("tag", "item_id int")),
        [{"tables": {"tag": {"follows": "item"}}}, {"ignore": {"tag": "no data"}}],
    ),
    "a parent that is none": Way(
        "Name the table that its rows belong to.",
        (*ITEM, table("tag", "item_id int"), table("country")),
        [{"tables": {"tag": {"follows": "item"}}}],
        {"tables": {"tag": {"follows": "country"}}, "ignore": {"country": "x"}},
    ),
    "an ignored parent": Way(
        "Do not ignore it.",
        TREE,
        [{"tables": {}}],
        {"tables": {"node": {"ignore": "x"}}},
    ),
    "a tenant column of no id": Way(
        "Narrow `tenant_columns` to the columns that hold tenant ids.",
        (table("item", "tenant_id {id}", "tenant_at date"),),
        [{"tenant_columns": ["tenant_id"]}],
        {"tenant_columns": ["tenant_.*"]},
    ),
    "a generated tenant column": Way(
        "Name the column that it is computed from.",
        (
            table("item", "raw {id}", "tenant_id {id} GENERATED ALWAYS AS (raw) STORED"),
            f"INSERT INTO item (id, raw) VALUES (1, '{A}')",
        ),
        [{"tables": {"item": {"tenant_columns": ["raw"]}}}],
    ),
    "rows of the other id": Way(
        "Remove them, or migrate to a tenant without data",
        (*ITEM, f"INSERT INTO item VALUES (3, '{B}', 'z')"),
        [(f"DELETE FROM item WHERE tenant_id = '{B}'",)],
    ),
    # roots
    "a value that must differ": Way(
        "Give the value of the new row: `tables:", ROOT, [{"tables": {"tenants": {"new_row": {"slug": "venezia-scp"}}}}]
    ),
    "a value that is still to be filled in": Way(
        "Write what the other tenant's row has there.",
        ROOT,
        [{"tables": {"tenants": {"new_row": {"slug": "venezia-scp"}}}}],
        {"tables": {"tenants": {"new_row": {"slug": "<value>"}}}},
    ),
    "a strategy for a root": Way(
        "Leave the strategy to `auto`.",
        (*ROOT, f"INSERT INTO tenants VALUES ('{B}', 'venezia-scp')"),
        [{"tables": {}}],
        {"tables": {"tenants": {"strategy": "in_place"}}},
    ),
    "rows that would refer to nothing": Way(
        "Insert the row of {} into {}",
        ROOT,
        [
            (f"INSERT INTO tenants VALUES ('{B}', 'venezia-scp')",),
            {"tables": {"tenants": {"new_row": {"slug": "venezia-scp"}}}},
        ],
        {"tables": {"tenants": {"ignore": "x"}}},
    ),
    # strategies
    "different wishes": Way(
        "Give all of them the same.",
        TREE,
        [{"tables": {"leaf": {"strategy": "in_place"}, "node": {"strategy": "in_place"}}}],
        {"tables": {"leaf": {"strategy": "in_place"}, "node": {"strategy": "twin"}}, **NO_READERS},
    ),
    "a twin that cannot be": Way(
        "or choose `strategy: in_place`.",
        ITEM,
        [{"tables": {"item": {"strategy": "in_place"}}}],
        {**TWIN, **NO_READERS},
    ),
    "a window that is too short": Way(
        "raise window_budget.",
        (*ITEM, f"INSERT INTO item VALUES {', '.join(f'({3 + row}, {A!r}, NULL)' for row in range(5000))}"),
        [{"budget_ms": 20_000}],
        {"budget_ms": 0.5},
    ),
    # own ids
    "numbers": Way("`ids: {<subdomain>: <own id>}`, or", NUMBERS, [OWN]),
    "numbers, by a query": Way(
        "`ids: {<subdomain>: <own id>}`, or",
        (*ACCOUNTS, table("note", "tenant_id {big}"), "INSERT INTO note VALUES (1, 17)"),
        [{"id_query": QUERY}],
        {"tenant_columns": ["tenant_id", "account_nr"]},
    ),
    "an own id of one tenant": Way("Add it to `ids`", NUMBERS, [OWN], {"own_ids": {A: "17"}}),
    "an own id that is still to be filled in": Way(
        "Write it in `ids`", NUMBERS, [OWN], {"own_ids": {A: "<own id>", B: "<own id>"}}
    ),
    "one own id of two tenants": Way(
        "Correct `ids`: each tenant has its own.", NUMBERS, [OWN], {"own_ids": {A: "17", B: "17"}}
    ),
    "own ids that do not fit": Way("Correct the participant's `ids`.", NUMBERS, [OWN], {"own_ids": {A: "17", B: "x"}}),
    "the id is written in another way": Way(
        "Give the ids as they are written there",
        (table("item", "tenant_id {text}"), f"INSERT INTO item VALUES (1, '{A.replace('-', '')}')"),
        [{"own_ids": {A: A.replace("-", ""), B: B.replace("-", "")}}],
    ),
    "a query that fails": Way("Correct it.", ACCOUNTS, [{"id_query": QUERY}], {**BY_NUMBER, "id_query": f"{QUERY}x"}),
    "a query that finds several rows": Way(
        "Correct it.",
        (*ACCOUNTS, "INSERT INTO accounts VALUES (18, 'x')"),
        [{"id_query": QUERY}],
        {**BY_NUMBER, "id_query": "SELECT nr FROM accounts WHERE :tenant_id = :tenant_id"},
    ),
    "a query that does not find the source": Way(
        "Correct `id_query`, or leave the participant out",
        ACCOUNTS,
        [{"id_query": QUERY}],
        {**BY_NUMBER, "id_query": f"{QUERY} AND nr > 17"},
    ),
    "a query that does not find the target": Way(
        "Onboard the tenant there; or write `id_query` as SELECT",
        ACCOUNTS,
        [{"id_query": QUERY}],
        {**BY_NUMBER, "id_query": f"{QUERY} AND nr > 1"},
    ),
    "a query that does not find the target yet": Way(
        "Onboard the tenant there; or write `id_query` as SELECT",
        ACCOUNTS,
        [(f"INSERT INTO accounts VALUES (18, '{B}')",)],
        {
            **BY_NUMBER,
            "id_query": f"{QUERY} AND nr > 1",
            "tables": {"accounts": {"id_stays": {"external_id": "the query asks by it"}}},
        },
    ),
    "a query that finds one id for both": Way(
        "Correct `id_query`: each tenant has its own.",
        ACCOUNTS,
        [{"id_query": QUERY}],
        {**BY_NUMBER, "id_query": "SELECT nr FROM accounts WHERE :tenant_id <> 'x'"},
    ),
    "a column of which nobody knows whose ids it holds": Way(
        "Say which: `tables:",
        (*ACCOUNTS, table("job", "tenant_id {text}"), "INSERT INTO job VALUES (1, '17')"),
        [{"tables": {"job": {"own_ids": True}}}, {"tables": {"job": {"own_ids": False}}}],
        {"tenant_columns": ["tenant_id", "account_nr"], "id_query": QUERY},
    ),
}
"""By name what holds for every engine."""

TWINS = {
    "readers across tenants": Way(
        "Declare `no_cross_tenant_readers: true`",
        TREE,
        [NO_READERS, {"tables": {name: {"strategy": "twin", **NO_READERS} for name in ("node", "leaf")}}],
        {"tables": {name: {"strategy": "twin"} for name in ("node", "leaf")}},
    ),
    "a key that allows no copy": Way(
        "Change the table",
        ITEM,
        [("DROP TABLE item", KEYED.format("item", ""), f"INSERT INTO item VALUES ('{A}', 1, NULL)")],
        {"tables": {"item": {"strategy": "twin"}}, **NO_READERS},
    ),
    "a parent that is to be a twin": Way(
        "Choose `strategy: in_place` for {}.",
        (KEYED.format("node", ""), table("tag", "node_id int")),
        [{"tables": {"tag": {"follows": "node"}, "node": {"strategy": "in_place"}}}],
        {"tables": {"tag": {"follows": "node"}, "node": {"strategy": "twin"}}, **NO_READERS},
    ),
}
"""What holds for engines that have twins."""


class WaysOutContract:
    """Each way is tried, and enough."""

    bytes_of: ClassVar[str] = "X'{}'"

    def try_out(self, ground: Ground, way: Way, number: int) -> None:
        ground.sql(*way.schema)
        before = Journey(ground, **way.options).plan().refusals
        parts = way.advice.split("{}")
        advised = [each for each in before if all(part in each.advice for part in parts)]
        assert advised, before
        out = way.outs[number]
        options = way.options
        if isinstance(out, dict):
            options = {**options, **out}
        else:
            ground.sql(*out)
        journey = Journey(ground, **options)
        after = journey.plan().refusals
        assert not {each.object for each in after} & {each.object for each in advised}, after
        if way.green:
            assert not after
            journey.stage()
            journey.switch()


def every(ways: dict[str, Way]) -> list[Any]:
    """Each way out of each refusal, as parameters of a test."""
    return [
        pytest.param(way, number, id=f"{name}-{number}")
        for name, way in ways.items()
        for number in range(len(way.outs))
    ]
