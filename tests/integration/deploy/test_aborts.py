# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Aborts around the switch: what may be half switched is never aborted unless that is asked for by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused, Timeout
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment import request
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.result import DeploymentFailed
from ansible_collections.zdm.landscape.tests.cloud.cloud import Cloud
from ansible_collections.zdm.landscape.tests.cloud.pace import Pace
from ansible_collections.zdm.landscape.tests.cloud.space import Space
from ansible_collections.zdm.landscape.tests.cloud.standin import Answer
from ansible_collections.zdm.landscape.tests.integration.deploy.dying import idle, kill_before
from ansible_collections.zdm.landscape.tests.integration.deploy.kit import MTA, Bench

ABORT = "actionId=abort"


@pytest.fixture(name="live")
def _live(bench: Bench) -> Bench:
    """Version 1.0.0 is live."""
    bench.deployed()
    return bench


@pytest.fixture(name="testing")
def _testing(live: Bench) -> Bench:
    """Version 1.1.0 is in its testing phase."""
    assert live.run("testing", "1.1.0").outcome == "testing"
    return live


def test_an_abort_waits_for_the_end_of_a_resume_that_was_sent(testing: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service executes it before it tells so: an abort now would leave two versions behind one route."""
    kill_before(testing, monkeypatch, "resume")
    operation = testing.document()["attempt"]["operation"]
    testing.cloud.controller.act(operation, "resume")
    with pytest.raises(Refused, match=r"has ended meanwhile: incidents_1.1.0.mtar is live"):
        testing.run("aborted", mta_id=MTA)
    assert testing.live_version() == "1.1.0"


def test_a_resume_that_never_arrived_can_be_aborted(testing: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    kill_before(testing, monkeypatch, "resume")
    monkeypatch.setattr(request, "RESUME_SETTLE_MS", 0)
    assert testing.run("aborted", mta_id=MTA).outcome == "aborted"
    assert testing.live_version() == "1.0.0"
    assert set(idle(testing).values()) == {"STARTED"}


def test_no_abort_while_the_service_executes_a_resume_and_does_not_tell_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cloud(tmp_path, Space(pace=Pace(resume_s=1.0))) as cloud:
        bench = Bench(cloud, tmp_path)
        bench.standing()
        bench.run("testing", "1.1.0")
        kill_before(bench, monkeypatch, "resume")
        operation = bench.operations()[-1]
        cloud.controller.act(operation.id, "resume")
        assert operation.state == "ACTION_REQUIRED"
        with pytest.raises(Refused, match="has ended meanwhile"):
            bench.run("aborted", mta_id=MTA)
        assert bench.live_version() == "1.1.0"
        assert bench.sent("POST", "actionId=abort") == 0


def test_an_interrupted_switch_is_aborted_only_when_told(testing: Bench) -> None:
    testing.cloud.faults.fail("switch approuter", "No space left", times=9)
    with pytest.raises(DeploymentFailed, match=r"No space left\."):
        testing.run("deployed", "1.1.0")
    with pytest.raises(Refused, match="has stopped while routes were being switched") as refused:
        testing.run("aborted", mta_id=MTA)
    assert "abort_switched" in refused.value.advice
    result = testing.run("aborted", mta_id=MTA, abort_switched=True)
    assert (result.outcome, result.mta["version"]) == ("aborted", "1.1.0")
    assert result.split
    assert all(testing.cloud.space.domain in url for url in result.split)


def test_a_resume_that_is_executed_at_the_last_moment_forbids_the_abort(
    testing: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It arrives after the decision, while the token for the abort is fetched."""
    kill_before(testing, monkeypatch, "resume")
    monkeypatch.setattr(request, "RESUME_SETTLE_MS", 0)
    cloud, operation = testing.cloud, testing.operations()[-1]
    answer = cloud._csrf

    def late(asked: Any) -> Answer:
        if operation.state == "ACTION_REQUIRED":
            cloud.controller.act(operation.id, "resume")
        return answer(asked)

    monkeypatch.setattr(cloud, "_csrf", late)
    with pytest.raises(Refused, match="has ended meanwhile"):
        testing.run("aborted", mta_id=MTA)
    assert (testing.sent("POST", ABORT), testing.live_version()) == (0, "1.1.0")


def test_what_was_half_switched_is_not_taken_for_the_version_that_was_live(testing: Bench) -> None:
    testing.cloud.faults.fail("switch approuter", "No space left", times=9)
    with pytest.raises(DeploymentFailed):
        testing.run("deployed", "1.1.0")
    aborted = testing.run("aborted", mta_id=MTA, abort_switched=True)
    assert aborted.split
    again = testing.run("testing", "1.0.0", version_rule="ALL")
    assert (again.outcome, again.changed) == ("testing", True)


def test_the_routes_with_two_versions_are_named_in_a_failure_too(testing: Bench) -> None:
    testing.cloud.faults.fail("switch approuter", "No space left", times=9)
    with pytest.raises(DeploymentFailed) as failure:
        testing.run("deployed", "1.1.0")
    split = failure.value.details["split"]
    assert split
    assert all(url in failure.value.message for url in split)


def test_a_resume_that_is_refused_was_none(testing: Bench) -> None:
    """The idle applications run again, and an abort need not wait."""
    testing.cloud.faults.answer("POST", "actionId=resume", Answer(403, "Forbidden"))
    with pytest.raises(Refused, match="refuses resume"):
        testing.run("deployed", "1.1.0")
    assert set(idle(testing).values()) == {"STARTED"}
    attempt = testing.document()["attempt"]
    assert (attempt["resumed"], attempt["requested"], attempt["stopped"]) == (False, "", [])
    assert testing.run("aborted", mta_id=MTA).outcome == "aborted"


@pytest.mark.parametrize(
    ("options", "step"),
    [
        ({"skip_testing_phase": True}, "switch approuter"),
        ({"skip_testing_phase": True}, "start mtx-idle"),
        ({"strategy": "default"}, "delete live"),
    ],
)
def test_what_switches_by_itself_is_waited_for(live: Bench, options: dict[str, Any], step: str) -> None:
    """Nobody can tell whether it switches at this moment."""
    there = live.cloud.faults.hold_at(step)
    with pytest.raises(Timeout):
        live.run_out_of_time(there, "deployed", "1.1.0", **options)
    with pytest.raises(Timeout, match="not reached state aborted"):
        live.run_out_of_time(there, "aborted", "1.1.0")
    assert live.sent("POST", ABORT) == 0
    assert "abort_switched" in live.texts()
    live.cloud.faults.release()
    with pytest.raises(Refused, match=r"has ended meanwhile: incidents_1.1.0.mtar is live"):
        live.run("aborted", "1.1.0")
    assert live.live_version() == "1.1.0"


def test_an_error_before_anything_was_switched_is_aborted(live: Bench) -> None:
    """It stands still, so that its routes tell."""
    live.cloud.faults.fail("mtx-idle", "No such buildpack")
    with pytest.raises(DeploymentFailed, match="is aborted.*No such buildpack"):
        live.run("deployed", "1.1.0", skip_testing_phase=True, on_error="abort")
    live.cloud.faults.fail("mtx-idle", "No such buildpack")
    with pytest.raises(DeploymentFailed):
        live.run("deployed", "1.1.0", skip_testing_phase=True)
    assert live.run("aborted", mta_id=MTA).outcome == "aborted"
    assert live.live_version() == "1.0.0"


def test_an_error_in_the_switch_that_came_by_itself_is_told_as_such(live: Bench) -> None:
    live.cloud.faults.fail("switch approuter", "No space left", times=9)
    with pytest.raises(DeploymentFailed, match=r"has stopped with an error\. No space left\.") as failure:
        live.run("deployed", "1.1.0", skip_testing_phase=True, on_error="abort")
    assert "do not abort" in failure.value.advice
    with pytest.raises(Refused, match="has stopped while routes were being switched"):
        live.run("aborted", mta_id=MTA)
    assert live.sent("POST", ABORT) == 0


def test_a_rollback_is_never_aborted_by_itself(live: Bench) -> None:
    live.run("deployed", "1.1.0", keep_previous=True)
    live.cloud.faults.fail("rollback approuter", "No space left", times=9)
    with pytest.raises(DeploymentFailed, match=r"No space left\.") as failure:
        live.run("previous", mta_id=MTA, on_error="abort")
    assert "Live is as it was" not in failure.value.advice
    with pytest.raises(Refused) as refused:
        live.run("aborted", mta_id=MTA)
    assert "state previous" in refused.value.advice
    assert live.sent("POST", ABORT) == 0
    assert live.run("aborted", mta_id=MTA, abort_switched=True).outcome == "aborted"


def test_an_undeploy_that_was_aborted_is_no_version_that_was(live: Bench) -> None:
    live.run("deployed", "1.1.0")
    live.cloud.faults.fail("undeploy approuter", "Locked", times=9)
    with pytest.raises(DeploymentFailed, match=r"Locked\.") as failure:
        live.run("absent", mta_id=MTA)
    assert "Live is as it was" not in failure.value.advice
    with pytest.raises(Refused, match="UNDEPLOY.*is under way") as refused:
        live.run("testing", "1.2.0")
    assert "state absent" in refused.value.advice
    aborted = live.run("aborted", mta_id=MTA)
    assert (aborted.outcome, aborted.mta["version"]) == ("aborted", "")


def test_an_abort_names_the_version_that_was_aborted_and_no_other(testing: Bench) -> None:
    assert testing.run("aborted", mta_id=MTA).mta["version"] == "1.1.0"
    assert testing.run("aborted", "1.2.0").outcome == "absent"
    assert testing.run("aborted", "1.1.0").outcome == "aborted"
