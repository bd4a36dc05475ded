# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""As whom the migration's triggers run: with a role as their definer no user's end stops anybody's writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pymysql
import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import ABSENT
from ansible_collections.zdm.landscape.tests.integration.mariadb.bench import Bench, run
from ansible_collections.zdm.landscape.tests.integration.mariadb.twinsite import participant_of, switch
from ansible_collections.zdm.landscape.tests.integration.verb_kit import KEY, A, B, C, move, stage


@pytest.fixture
def role(site: Bench) -> Iterator[str]:
    """The statements of the plan, run by a DBA; an application that has no rights on helpers; the role's name."""
    name = f"r_{site.name}"
    try:
        for grant in participant_of(site, definer_role=name).inspect(KEY, A, B).grants:
            site.sql(grant)
        site.sql(f"CREATE USER app_{site.name} IDENTIFIED BY 'x'")
        site.sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {site.name}.* TO app_{site.name}")
        yield name
    finally:
        site.sql(f"DROP USER IF EXISTS app_{site.name}, other_{site.name}")
        site.sql(f"DROP ROLE IF EXISTS {name}")


def write(site: Bench) -> list[str]:
    """One write of each tenant to a twin and to a table in place, by the application; what failed."""
    failed = []
    session = site.server.connect(site.name, user=f"app_{site.name}", password="x")
    for tenant in (A, C):
        for statement in (
            f"UPDATE customer SET balance = balance + 1 WHERE tenant_id = '{tenant}' LIMIT 3",
            f"INSERT INTO `order` (tenant_id, customer) SELECT tenant_id, id FROM customer WHERE tenant_id = '{tenant}'"
            " LIMIT 1",
            f"DELETE FROM odd WHERE tenant_id = '{tenant}' ORDER BY at LIMIT 1",
            f"INSERT INTO outbox (tenant_id, body) VALUES ('{tenant}', 'x')",
        ):
            try:
                run(session, statement)
            except pymysql.err.MySQLError as error:
                failed.append(str(error))
    session.close()
    return failed


def drop_user(site: Bench) -> None:
    site.sql(f"DROP USER {site.name}")
    site.sql(f"CREATE USER {site.name} IDENTIFIED BY 'x'")  # the bench drops it


def test_a_dropped_user_stops_nobody(site: Bench, role: str) -> None:
    participant = participant_of(site, definer_role=role)
    stage(participant)
    assert write(site) == []
    assert participant.status(KEY, A, B).problems == ()
    participant.close()
    drop_user(site)
    assert write(site) == []
    # the next user goes on with the same triggers
    site.sql(f"CREATE USER other_{site.name} IDENTIFIED BY 'y'")
    for grant in _grants_of_next(site, role):
        site.sql(grant)
    successor = participant_of(site, definer_role=role, user=f"other_{site.name}", password="y")
    assert successor.status(KEY, A, B).problems == ()
    content = successor.fingerprint(A)
    switch(successor, 2)
    assert successor.fingerprint(B) == content
    stage(successor, move(2, forward=False))
    successor.remove(move(2, forward=False))
    assert successor.status(KEY, A, B).state == ABSENT


def _grants_of_next(site: Bench, role: str) -> tuple[str, ...]:
    participant = participant_of(site, definer_role=role, user=f"other_{site.name}", password="y")
    return participant.inspect(KEY, A, B).grants


def test_a_named_role_that_is_not_there_is_refused(site: Bench) -> None:
    name = f"r_{site.name}"
    (refusal,) = participant_of(site, definer_role=name).inspect(KEY, A, B).refusals
    assert f"has no role {name} that is granted to user" in refusal.reason
    assert f"CREATE ROLE IF NOT EXISTS `{name}`; GRANT SELECT, INSERT, TRIGGER, EXECUTE ON" in refusal.advice


def test_a_user_who_rotates_is_refused_without_a_role(site: Bench, role: str) -> None:
    (refusal,) = participant_of(site, user_rotates=True).inspect(KEY, A, B).refusals
    assert "which rotates" in refusal.reason
    assert participant_of(site, user_rotates=True, definer_role=role).inspect(KEY, A, B).refusals == ()


def test_without_a_role_the_plan_says_what_may_happen(site: Bench) -> None:
    plan = participant_of(site).inspect(KEY, A, B)
    assert plan.refusals == ()
    assert any(line.startswith(f"-- triggers run as {site.name}@%: without it all writes") for line in plan.sql)
    assert any(line.startswith("-- CREATE ROLE IF NOT EXISTS") for line in plan.sql)


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        ("REVOKE TRIGGER ON {database}.* FROM {role}", "which lacks TRIGGER"),
        ("REVOKE EXECUTE, INSERT ON {database}.* FROM {role}", "which lacks INSERT, EXECUTE"),
        ("REVOKE {role} FROM {site}", "which is gone or not granted"),
        ("DROP ROLE {role}", "which is gone or not granted"),
    ],
)
def test_a_role_that_is_taken_away_is_told(site: Bench, role: str, harm: str, problem: str) -> None:
    participant = participant_of(site, definer_role=role)
    stage(participant)
    database = f"`{site.name}`".replace("_", r"\_")  # as the plan's statements have it
    site.sql(harm.format(site=site.name, database=database, role=role))
    participant.close()
    assert [problem in text for text in participant.status(KEY, A, B).problems] == [True]
    if "FROM {role}" in harm:
        refusals = participant.inspect(KEY, A, B).refusals
        assert [problem.removeprefix("which lacks ") in refusal.reason for refusal in refusals] == [True]
        site.sql(refusals[0].advice)
        assert (write(site), participant.inspect(KEY, A, B).refusals) == ([], ())


def test_a_stage_gives_triggers_of_another_user_to_the_role(site: Bench, role: str) -> None:
    participant = participant_of(site)
    stage(participant)
    participant.close()
    owned = participant_of(site, definer_role=role)
    definers: list[Any] = []
    for _run in range(2):
        stage(owned)
        query = "SELECT DISTINCT definer FROM information_schema.triggers WHERE trigger_schema = DATABASE()"
        definers.append(site.sql(query))
    assert definers == [[(f"{role}@",)]] * 2
    owned.close()
    drop_user(site)
    assert write(site) == []
