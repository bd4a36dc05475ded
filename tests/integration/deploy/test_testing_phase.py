# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What others do while a version waits in its testing phase, and while its tenants are upgraded."""

from __future__ import annotations

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Conflict, Refused
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.result import DeploymentFailed
from ansible_collections.zdm.landscape.tests.integration.deploy.kit import MTA, Bench


@pytest.fixture(name="tested")
def _tested(bench: Bench) -> Bench:
    """Version 1.0.0 is live, 1.1.0 waits in its testing phase."""
    bench.standing()
    bench.run("testing", "1.1.0")
    return bench


def test_what_was_aborted_while_it_was_tested_does_not_go_live_untested(tested: Bench) -> None:
    operation = tested.operations()[1].id
    tested.cloud.controller.act(operation, "abort")
    with pytest.raises(Refused, match=rf"Operation {operation} has ended \(ABORTED\), and not by us"):
        tested.run("deployed", "1.1.0", operation=operation)
    assert (len(tested.operations()), tested.live_version()) == (2, "1.0.0")
    assert tested.run("aborted", "1.1.0", operation=operation).outcome == "aborted"
    assert tested.run("testing", "1.1.0").outcome == "testing"
    for state in ("deployed", "aborted"):
        with pytest.raises(Refused, match="is another one"):
            tested.run(state, "1.1.0", operation=operation)
    assert tested.run("deployed", "1.1.0", operation=tested.operations()[2].id).outcome == "deployed"


def test_who_has_ended_it_is_told_where_that_was_a_run_of_ours(tested: Bench) -> None:
    operation = tested.operations()[1].id
    tested.run("aborted", mta_id=MTA)
    message = rf"Operation {operation} was ended \(ABORTED\) by another run \(.+@.+:\d+\)"
    with pytest.raises(Conflict, match=message) as lost:
        tested.run("deployed", "1.1.0", operation=operation)
    assert lost.value.advice == "Let it end; the same command starts afresh."


def test_no_upgrade_begins_in_a_testing_phase_that_is_over(tested: Bench) -> None:
    operation = tested.operations()[1]
    tested.cloud.controller.act(operation.id, "resume")
    noted = tested.run("testing", "1.1.0", operation=operation.id, upgrade="begun")
    assert (noted.outcome, noted.upgrade, tested.document()["attempt"]["upgrade"]) == ("deployed", "", "")


def test_nothing_goes_live_while_tenants_are_upgraded(tested: Bench) -> None:
    assert tested.run("testing", "1.1.0", upgrade="begun").upgrade == "begun"
    with pytest.raises(Refused, match="a job may still run") as refusal:
        tested.run("deployed", "1.1.0")
    assert "upgrade done" in refusal.value.advice
    assert tested.operations()[1].states[-1] == "ACTION_REQUIRED"
    assert tested.run("testing", "1.1.0", upgrade="done").upgrade == "done"
    assert tested.run("deployed", "1.1.0").outcome == "deployed"


def test_an_error_after_somebody_elses_resume_is_not_aborted_by_itself(tested: Bench) -> None:
    operation = tested.operations()[1]
    tested.cloud.faults.fail("switch mtx", "no route", times=4)
    tested.cloud.controller.act(operation.id, "resume")
    tested.cloud.controller.wait(operation.id, "ERROR")
    with pytest.raises(DeploymentFailed, match="no route") as failure:
        tested.run("testing", "1.1.0", on_error="abort")
    assert "do not abort" in failure.value.advice
    assert operation.state == "ERROR"


def test_an_abort_that_was_asked_for_is_asked_for_again(tested: Bench) -> None:
    """Killed between its note and its request, which may still arrive: nobody tests on what is about to vanish."""
    tested.cloud.faults.lose("POST", "actionId=abort", executed=False)
    with pytest.raises(Exception, match="not reached state aborted"):
        tested.run("aborted", mta_id=MTA, timeout="1ms")
    assert tested.run("testing", "1.1.0").outcome == "testing"
    assert [found.state for found in tested.operations()] == ["FINISHED", "ABORTED", "ACTION_REQUIRED"]
