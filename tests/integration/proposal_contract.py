# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A proposal is confirmed, and the plan is green but for what only a person knows; an engine's tests inherit
:class:`ProposalContract`.

Fixture: ``ground`` (an empty database, see :class:`Ground`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import yaml
from ansible_collections.zdm.landscape.plugins.module_utils.description.checks import mapping
from ansible_collections.zdm.landscape.plugins.module_utils.description.keys import COLUMNS_AND_TABLES
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    FOLLOWS,
    IGNORE,
    IN_PLACE,
    RELABEL,
    ROOT,
    STAYING,
    Inspection,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.proposal.proposing import with_options
from ansible_collections.zdm.landscape.tests.integration.shape_kit import A, B, C, Ground, Journey

NAMES = {A: "venezia", B: "venezia-scp"}
PLAIN = A.replace("-", "")
LINES = 6
"""A participant's name and its options, each on a line."""


@dataclass(frozen=True)
class Case:
    """A schema that nobody has classified.

    :param strategies: some tables' under the proposal.
    :param options: that the operator has written.
    :param proposed: what stands in the text of the proposal.
    :param left: objects that stay refused, as only a person can help.
    """

    schema: Sequence[str]
    strategies: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    proposed: Sequence[str] = ()
    left: Sequence[str] = ()


def table(name: str, *columns: str) -> str:
    return f"CREATE TABLE {name} (id int NOT NULL PRIMARY KEY{''.join(f', {column}' for column in columns)})"


ITEM = (
    table("item", "tenant_id {id} NOT NULL", "v {text}"),
    f"INSERT INTO item VALUES (1, '{A}', 'x'), (2, '{C}', 'y')",
)
ACCOUNTS = (
    "CREATE TABLE accounts (nr {big} NOT NULL PRIMARY KEY, external_id {id} NOT NULL UNIQUE)",
    table("bill", "account_nr {big} NOT NULL", "FOREIGN KEY (account_nr) REFERENCES accounts (nr)"),
    table("outbox", "account_nr {big}"),
    f"INSERT INTO accounts VALUES (17, '{A}'), (19, '{C}')",
    "INSERT INTO bill VALUES (1, 17), (2, 17), (3, 19)",
    "INSERT INTO outbox VALUES (1, 17), (2, NULL)",
)
TENANTS = "CREATE TABLE tenants (id {id} NOT NULL PRIMARY KEY, slug {text} NOT NULL UNIQUE, mail {text} UNIQUE)"

CASES = {
    "look-up tables and bookkeeping": Case(
        (
            *ITEM,
            *(table(name) for name in ("country", "currency", "act_ge_property", "flyway_schema_history")),
            *(table(f"ref_{name}") for name in ("unit", "colour", "size")),
        ),
        {"item": IN_PLACE, "country": IGNORE, "ref_unit": IGNORE, "flyway_schema_history": IGNORE},
        proposed=(
            '"^(country|currency|ref_.*)$": "no tenant data (confirm)"',
            "which migrations of the schema have run",
        ),
    ),
    "a beginning that a planned table shares": Case(
        (
            table("app_item", "tenant_id {id}"),
            *(table(f"app_{name}") for name in ("unit", "colour", "size")),
        ),
        {"app_item": IN_PLACE, "app_unit": IGNORE},
        proposed=("^(app_colour|app_size|app_unit)$",),
    ),
    "another name of the tenant, with keys to a root": Case(
        (
            "CREATE TABLE organizations (id {id} NOT NULL PRIMARY KEY, name {text})",
            *(
                table(name, "org_id {id}", "FOREIGN KEY (org_id) REFERENCES organizations (id)")
                for name in ("item", "bill", "note")
            ),
            table("line", "item_id int", "FOREIGN KEY (item_id) REFERENCES item (id)"),
            f"INSERT INTO organizations VALUES ('{A}', 'Venezia'), ('{C}', 'other')",
            f"INSERT INTO item VALUES (1, '{A}')",
            f"INSERT INTO bill VALUES (1, '{A}')",
        ),
        {"organizations": ROOT, "item": IN_PLACE, "note": IN_PLACE, "line": FOLLOWS},
        proposed=("tenant_columns: [org_id]  # confirm: org_id holds the tenant's id (2 times)",),
    ),
    "no foreign keys at all": Case(
        (
            "CREATE TABLE workspaces (id {id} NOT NULL PRIMARY KEY, name {text})",
            *(table(name, "workspace_id {id}") for name in ("item", "bill", "note")),
            table("line", "item_id int"),
            table("part", "line_id int"),
            f"INSERT INTO workspaces VALUES ('{A}', 'Venezia'), ('{C}', 'other')",
            f"INSERT INTO item VALUES (1, '{A}')",
            "INSERT INTO line VALUES (1, 1)",
        ),
        {"workspaces": ROOT, "item": IN_PLACE, "bill": IN_PLACE, "line": FOLLOWS, "part": FOLLOWS},
        proposed=("tenant_columns: [workspace_id]", "workspaces: {tenant_columns: [id]}", "part: {follows: line}"),
    ),
    "no row of the tenant anywhere": Case(
        (table("item", "tenant_uuid {id}"), table("note", "realm_id {id}"), table("country")),
        {"item": IN_PLACE, "note": IN_PLACE, "country": IGNORE},
        proposed=("tenant_columns: [tenant_uuid, realm_id]", "no row of this one was seen"),
    ),
    "numbers, and a root that tells them": Case(
        (
            "CREATE TABLE tenants (id {big} NOT NULL PRIMARY KEY, external_id {id} NOT NULL UNIQUE)",
            table("bill", "tenant_id {big} NOT NULL"),
            table("note", "tenant_id {big} NOT NULL"),
            f"INSERT INTO tenants VALUES (17, '{A}'), (19, '{C}')",
            "INSERT INTO bill VALUES (1, 17), (2, 19)",
        ),
        {"tenants": RELABEL, "bill": FOLLOWS, "note": FOLLOWS},
        proposed=('id_query: "SELECT id FROM tenants WHERE external_id = :tenant_id"',),
    ),
    "a root that nothing names": Case(
        ACCOUNTS,
        {"accounts": RELABEL, "bill": FOLLOWS, "outbox": FOLLOWS},
        proposed=('"SELECT nr FROM accounts WHERE external_id = :tenant_id"', "tenant_columns: [account_nr]"),
    ),
    "a root with rows of both tenants": Case(
        (*ACCOUNTS, f"INSERT INTO accounts VALUES (18, '{B}')"),
        {"accounts": ROOT, "bill": IN_PLACE, "outbox": IN_PLACE},
        proposed=("tenant_columns: [account_nr]",),
    ),
    "numbers, and the tenant's id in a text": Case(
        (
            "CREATE TABLE tenants (id {big} NOT NULL PRIMARY KEY, external_id {text} NOT NULL UNIQUE)",
            table("bill", "tenant_id {big} NOT NULL"),
            table("event", "tenant_id {text} NOT NULL"),
            table("job", "tenant_id {text} NOT NULL"),
            f"INSERT INTO tenants VALUES (17, '{A}'), (19, '{C}')",
            "INSERT INTO bill VALUES (1, 17), (2, 19)",
            f"INSERT INTO event VALUES (1, '{A}')",
            "INSERT INTO job VALUES (1, '17')",
        ),
        {"tenants": RELABEL, "bill": FOLLOWS, "job": FOLLOWS, "event": IN_PLACE},
        proposed=("event: {own_ids: false}", "job: {own_ids: true}"),
    ),
    "numbers that nothing explains": Case(
        (table("bill", "tenant_id {big} NOT NULL"), "INSERT INTO bill VALUES (1, 17)"),
        proposed=('ids: {venezia: "<own id>", venezia-scp: "<own id>"}',),
        left=("bill",),
    ),
    "bytes": Case(
        (table("bill", "tenant_id {bytes} NOT NULL"), "INSERT INTO bill VALUES (1, {A bytes}), (2, {C bytes})"),
        {"bill": IN_PLACE},
        proposed=(f'venezia: "0x{PLAIN}"', "the ids are written as bytes here"),
    ),
    "no hyphens, and no room for them": Case(
        (table("bill", "tenant_id varchar(32) NOT NULL"), f"INSERT INTO bill VALUES (1, '{PLAIN}')"),
        {"bill": IN_PLACE},
        proposed=(f'venezia: "{PLAIN}"', "the ids are written without hyphens here"),
    ),
    "no hyphens, and nothing refuses": Case(
        (table("bill", "tenant_id {text} NOT NULL"), f"INSERT INTO bill VALUES (1, '{PLAIN}')"),
        {"bill": IN_PLACE},
        proposed=(f'venezia: "{PLAIN}"',),
    ),
    "polymorphic children": Case(
        (
            *ITEM,
            table("orders", "item_id int", "FOREIGN KEY (item_id) REFERENCES item (id)"),
            table("comment", "subject_type {text}", "subject_id int"),
            table("tagging", "taggable_type {text}", "taggable_id int"),
            "INSERT INTO comment VALUES (1, 'Item', 1), (2, 'Crm::Order', 1)",
        ),
        {"comment": FOLLOWS},
        proposed=(
            "comment: {follows: [item, orders]}",
            "the tables that subject_type names",
            'tagging: {follows: "<table>"}',
        ),
        left=("tagging",),
    ),
    "a root whose keys allow no copy": Case(
        (
            TENANTS,
            table("item", "tenant_id {id} NOT NULL", "FOREIGN KEY (tenant_id) REFERENCES tenants (id)"),
            f"INSERT INTO tenants VALUES ('{A}', 'venezia', 'a@example.com')",
            f"INSERT INTO item VALUES (1, '{A}')",
        ),
        {"tenants": ROOT, "item": IN_PLACE},
        proposed=('tenants: {new_row: {mail: "<value>", slug: venezia-scp}}',),
        left=("tenants",),
    ),
    "the id inside a table of which nobody knows what it is": Case(
        (
            *ITEM,
            table("job", "payload {text}"),
            f"INSERT INTO job VALUES (1, '{A[:20]}'), (2, '{A}/x')",
            table("country"),
        ),
        {"item": IN_PLACE, "country": IGNORE},
        proposed=('ignore: {"^country$": "no tenant data (confirm)"}',),
        left=("job",),
    ),
    "what is written stays": Case(
        (*ITEM, table("country"), table("old"), table("note", "org_id {id}"), f"INSERT INTO note VALUES (1, '{A}')"),
        {"note": IN_PLACE, "country": IGNORE, "old": IGNORE, "item": IN_PLACE},
        {"ignore": {"old": "of the last century"}, "tables": {"item": {"no_cross_tenant_readers": True}}},
        proposed=('{old: "of the last century", "^country$"', "tenant_columns: [tenant_id, org_id]"),
    ),
}


class ProposalContract:
    """Every schema becomes green by what is proposed, or says what a person must fill in."""

    bytes_of: ClassVar[str] = "X'{}'"

    def _prepare(self, ground: Ground, case: Case) -> None:
        for statement in case.schema:
            for name, tenant in (("A", A), ("C", C)):
                statement = statement.replace(f"{{{name} bytes}}", self.bytes_of.format(tenant.replace("-", "")))
            ground.sql(statement)

    @pytest.mark.parametrize("name", CASES)
    def test_a_confirmed_proposal_makes_the_plan_green(self, ground: Ground, name: str) -> None:
        case = CASES[name]
        self._prepare(ground, case)
        self.confirm(ground, case)

    def confirm(self, ground: Ground, case: Case) -> Inspection:
        """Apply the proposal as a whole, and look again."""
        options = {"subdomains": NAMES, **case.options}
        plan = Journey(ground, **options).plan()
        assert plan.refusals
        assert plan.proposal, plan.refusals
        text = plan.proposal.text
        assert [part for part in case.proposed if part not in text] == [], text
        assert len(text.splitlines()) <= LINES
        read = yaml.safe_load(text)
        assert read == [{"name": plan.participant, **plan.proposal.options}]
        wrong = list(mapping({}, COLUMNS_AND_TABLES)(plan.proposal.options, "participant"))
        assert not wrong

        applied = Journey(ground, **with_options(options, plan.proposal.options, NAMES)).plan()
        assert {refusal.object for refusal in applied.refusals} <= {plan.participant, *case.left}, applied.refusals
        assert bool(applied.refusals) == bool(case.left)
        assert len(applied.refusals) <= len(plan.refusals)
        again = applied.proposal.options if applied.proposal else {}
        assert {key: value for key, value in again.items() if value != plan.proposal.options.get(key)} == {}

        found = {table.table: table.strategy for table in applied.tables}
        assert {table: found[table] for table in case.strategies} == case.strategies
        for pattern in plan.proposal.options.get("ignore", {}):
            assert not [each for each in found if re.fullmatch(pattern, each) and found[each] != IGNORE]
        if not case.left:
            Journey(ground, **with_options(options, plan.proposal.options, NAMES)).stage()
        return applied

    def test_a_large_schema_takes_no_more_lines(self, ground: Ground) -> None:
        schema = [
            TENANTS.replace(
                "id {id} NOT NULL PRIMARY KEY, slug {text} NOT NULL UNIQUE, mail {text} UNIQUE",
                "id {id} NOT NULL PRIMARY KEY",
            )
        ]
        key = "FOREIGN KEY (org_id) REFERENCES tenants (id)"
        schema += [table(f"entity_{number}", "org_id {id}", key) for number in range(40)]
        schema += [
            table(f"entity_{number}_line", "parent int", f"FOREIGN KEY (parent) REFERENCES entity_{number} (id)")
            for number in range(30)
        ]
        schema += [table(f"{kind}_{number}") for kind in ("code", "i18n", "qrtz") for number in range(16)]
        schema += [f"INSERT INTO tenants VALUES ('{A}')", f"INSERT INTO entity_1 VALUES (1, '{A}')"]
        case = Case(schema, {"tenants": ROOT, "entity_39": IN_PLACE, "entity_7_line": FOLLOWS, "code_3": IGNORE})
        self._prepare(ground, case)
        applied = self.confirm(ground, case)
        assert len(applied.tables) == 119
        counted = [table.strategy for table in applied.tables]
        assert (counted.count(IGNORE), sum(strategy in STAYING for strategy in counted)) == (48, 78)

    def test_nothing_is_proposed_where_nothing_is_refused(self, ground: Ground) -> None:
        ground.sql(*ITEM)
        assert Journey(ground).plan().proposal is None

    def test_only_a_person_removes_rows(self, ground: Ground) -> None:
        ground.sql(*ITEM, f"INSERT INTO item VALUES (3, '{B}', 'z')")
        plan = Journey(ground, subdomains=NAMES).plan()
        assert [refusal.object for refusal in plan.refusals] == ["item"]
        assert plan.proposal is None
