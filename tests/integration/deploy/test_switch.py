# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The moment of the switch: idle applications are stopped before it, and nothing is aborted in it."""

from __future__ import annotations

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Conflict, Refused
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.log import shown
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.result import DeploymentFailed
from ansible_collections.zdm.landscape.tests.integration.deploy.dying import idle, kill_after_the_stop
from ansible_collections.zdm.landscape.tests.integration.deploy.kit import MTA, Bench

RESUME = r"actionId=resume"
STOP = r"/actions/stop"


@pytest.fixture(name="live")
def _live(bench: Bench) -> Bench:
    """Version 1.0.0 is live."""
    bench.standing()
    return bench


@pytest.fixture(name="testing")
def _testing(live: Bench) -> Bench:
    """Version 1.1.0 is in its testing phase."""
    assert live.run("testing", "1.1.0").outcome == "testing"
    return live


def test_idle_applications_are_stopped_before_the_resume(testing: Bench) -> None:
    assert set(idle(testing).values()) == {"STARTED"}
    assert testing.run("deployed", "1.1.0").outcome == "deployed"
    asked = [request.target for request in testing.cloud.requests if request.method == "POST"]
    stops = [number for number, target in enumerate(asked) if "/actions/stop" in target]
    (resume,) = [number for number, target in enumerate(asked) if "actionId=resume" in target]
    assert len(stops) == 2
    assert max(stops) < resume
    assert testing.live_version() == "1.1.0"
    assert {app.state for app in testing.cloud.space.apps.values()} == {"STARTED"}


def test_a_stop_without_a_resume_is_taken_back_where_the_test_goes_on(
    testing: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_after_the_stop(testing, monkeypatch)
    assert set(idle(testing).values()) == {"STOPPED"}
    assert len(testing.document()["attempt"]["stopped"]) == 2
    assert testing.run("testing", "1.1.0").outcome == "testing"
    assert set(idle(testing).values()) == {"STARTED"}
    assert testing.document()["attempt"]["stopped"] == []
    assert testing.run("deployed", "1.1.0").outcome == "deployed"


def test_a_stop_is_taken_back_after_an_abort(testing: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    kill_after_the_stop(testing, monkeypatch)
    assert testing.run("aborted", mta_id=MTA).outcome == "aborted"
    assert set(idle(testing).values()) == {"STARTED"}


def test_what_somebody_has_stopped_stays_so_until_the_resume(testing: Bench) -> None:
    space = testing.cloud.space
    name = next(iter(idle(testing)))
    space.stop(name)
    before = testing.sent("POST", STOP)
    assert testing.run("deployed", "1.1.0").outcome == "deployed"
    assert testing.sent("POST", STOP) == before + 1


def test_no_application_is_stopped_while_an_upgrade_is_open(testing: Bench) -> None:
    testing.run("testing", "1.1.0", upgrade="begun")
    with pytest.raises(Refused, match="has begun and is not known to be done"):
        testing.run("deployed", "1.1.0")
    assert testing.sent("POST", STOP) == 0
    assert testing.run("deployed", "1.1.0", upgrade="done").outcome == "deployed"


@pytest.mark.parametrize("on_error", ["fail", "abort"])
def test_an_error_of_infrastructure_is_retried_before_anything_is_aborted(live: Bench, on_error: str) -> None:
    live.cloud.faults.fail("approuter-idle", "502 Bad Gateway", "INFRASTRUCTURE", times=3)
    assert live.run("testing", "1.1.0", on_error=on_error).outcome == "testing"
    assert live.sent("POST", "actionId=retry") == 3
    assert live.texts().count("Retrying after an error of infrastructure") == 3
    assert "502" not in "".join(map(shown, live.told))


def test_an_error_of_content_is_not_retried(live: Bench) -> None:
    live.cloud.faults.fail("approuter-idle", "No such buildpack", "CONTENT", times=1)
    with pytest.raises(DeploymentFailed, match=r"No such buildpack\. The live version was not touched"):
        live.run("testing", "1.1.0", on_error="abort")
    assert live.sent("POST", "actionId=retry") == 0


def test_what_is_live_is_recognised_after_an_abort(live: Bench) -> None:
    """The service names no version then."""
    assert live.run("deployed", "1.1.0").outcome == "deployed"
    live.run("testing", "1.2.0")
    live.run("aborted", mta_id=MTA)
    assert live.run("deployed", "1.1.0").outcome == "unchanged"
    assert live.run("deployed", "1.2.0").version_before == "1.1.0"


def test_of_two_runs_each_loser_is_told_of_the_other(live: Bench) -> None:
    first, stack = live.deployment("testing", "1.1.0")
    with stack:
        first.sight.begin()
        assert live.run("testing", "1.1.0").outcome == "testing"
        with pytest.raises(Conflict, match=r"Another run \(.+@.+:\d+\) is at work on the MTA incidents") as lost:
            first._refuse(first.sight.decide(first._goal))
    assert lost.value.advice == "Let it end; the same command goes on from where it is."
    assert live.run("testing", "1.1.0").outcome == "testing"
