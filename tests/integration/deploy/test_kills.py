# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is killed after any of its requests is gone on with: one operation, the same end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ansible_collections.zdm.landscape.tests.integration.deploy.kit import MTA, Bench
from ansible_collections.zdm.landscape.tests.integration.deploy.runs import LOGIN, Runs, killable


@pytest.fixture(name="runs")
def _runs(bench: Bench) -> Iterator[Runs]:
    with killable(bench) as runs:
        yield runs


def test_a_deployment_that_is_killed_after_each_request(bench: Bench, runs: Runs) -> None:
    bench.standing()
    requests, alive = LOGIN, True
    while alive:
        requests += 1
        before, version = len(bench.operations()), f"1.{requests}.0"
        alive = runs.killed_after(requests, "deployed", bench.archive(version))
        result = bench.run("deployed", version)
        assert result.outcome in ("deployed", "unchanged"), requests
        assert len(bench.operations()) - before == 1, requests
        assert bench.live_version() == version, requests
        assert bench.operations()[-1].states.count("ACTION_REQUIRED") == 1, requests
    assert requests > LOGIN + 12


def test_an_abort_that_is_killed_after_each_request(bench: Bench, runs: Runs) -> None:
    bench.standing()
    archive = bench.archive("1.1.0")
    for requests in range(LOGIN + 1, LOGIN + 7):
        bench.run("testing", "1.1.0")
        assert runs.killed_after(requests, "aborted", archive)
        result = bench.run("aborted", mta_id=MTA)
        assert result.outcome == "aborted", requests
        assert bench.operations()[-1].states == ["RUNNING", "ACTION_REQUIRED", "ABORTED"], requests
        assert bench.live_version() == "1.0.0", requests
    assert len(bench.operations()) == 7
