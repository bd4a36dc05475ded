# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wrong input: told before anything is touched, with the name of what is wrong and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import (
    InputError,
    Refused,
    Unreachable,
    ZdmError,
)
from ansible_collections.zdm.landscape.plugins.module_utils.http.web import Web
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.cloud_foundry import CloudFoundry
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.result import DeploymentFailed
from ansible_collections.zdm.landscape.tests.cloud.mtar import zipped
from ansible_collections.zdm.landscape.tests.integration.deploy.kit import Bench

CI = "ci@example.com"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"org": "other"},
            InputError,
            "There is no organization 'other' that ci@example.com can see; there are: my-org.",
        ),
        ({"space": "prod"}, InputError, "There is no space 'prod' that ci@example.com can see; there are: dev."),
        ({"password": "wrong"}, Refused, "UAA gives no token for password to cf: Bad credentials"),
        ({"api": "https://localhost:1"}, Unreachable, "GET https://localhost:1/ gets no answer"),
        ({"api": "http://localhost"}, InputError, "cloud_foundry.api http://localhost is not a URL of https"),
        ({"deploy_service": None}, InputError, "The deploy service's URL does not follow"),
        ({"passcode": "x"}, InputError, "cloud_foundry has username and passcode"),
        ({"client_id": "x"}, InputError, "client_id and cloud_foundry.client_secret belong together"),
    ],
)
def test_a_wrong_cloud_foundry(bench: Bench, changes: dict[str, Any], error: type[ZdmError], message: str) -> None:
    options = {**bench.cloud.options(), **changes}
    with pytest.raises(error) as raised:
        bench.run("testing", "1.0.0", options=options, attempts=2)
    assert message in raised.value.message
    assert raised.value.advice
    assert bench.sent("POST", "/api/") == 0


def test_a_certificate_that_nobody_trusts(bench: Bench) -> None:
    with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
        CloudFoundry({**bench.cloud.options(), "ca_file": None}, Web(attempts=1))


def test_a_user_without_any_role_and_one_who_may_only_look(bench: Bench) -> None:
    account = bench.cloud.uaa.users[CI]
    account.role = ""
    with pytest.raises(InputError, match="can't see any organization"):
        bench.run("testing", "1.0.0")
    account.role = "space_auditor"
    with pytest.raises(
        Refused, match=r"refuses the upload of incidents_1.0.0.mtar to ci@example.com in my-org/dev"
    ) as refusal:
        bench.run("testing", "1.0.0")
    assert ". Give the user the role SpaceDeveloper" in str(refusal.value)
    assert not bench.operations()


def test_archives_that_are_none(bench: Bench) -> None:
    folder = bench.folder
    (folder / "text.mtar").write_text("no zip")
    (folder / "zip.mtar").write_bytes(zipped({"a": "b"}))
    (folder / "app.zip").write_bytes(zipped({"a": "b"}))
    for name, message in (
        ("missing.mtar", "can't be read: No such file"),
        ("text.mtar", "is no zip"),
        ("zip.mtar", "has no META-INF/mtad.yaml"),
        ("app.zip", "does not end with .mtar"),
    ):
        with pytest.raises(InputError, match=message) as raised:
            bench.run("testing", archive=str(folder / name))
        assert name in raised.value.message
    assert not bench.cloud.requests


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"modules": ["mtx", "web"]}, "web of modules is not in the descriptor"),
        ({"resources": ["db", "cache"]}, "db, cache of resources are not in the descriptor"),
        ({"mta_id": "other"}, "is of the MTA incidents, not other"),
        ({"skip_testing_phase": True}, "There is no testing phase with skip_testing_phase"),
        ({"strategy": "default"}, "There is no testing phase with strategy default"),
        ({"start_timeout": "5"}, "start_timeout '5' is not a duration"),
        ({"extensions": ["/none.mtaext"]}, "The extension descriptor /none.mtaext can't be read"),
    ],
)
def test_options_that_contradict_archive_or_state(bench: Bench, params: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bench.run("testing", "1.0.0", **params)
    assert not bench.cloud.requests


def test_a_lower_version_is_refused_by_the_service(bench: Bench) -> None:
    bench.deployed("1.1.0")
    with pytest.raises(DeploymentFailed, match="A higher version of your MTA is already deployed"):
        bench.run("testing", "1.0.0", on_error="abort")
    assert bench.live_version() == "1.1.0"


def test_a_store_that_can_not_be_written_starts_nothing(bench: Bench) -> None:
    (bench.folder / "store" / "deployments").write_text("no folder")
    with pytest.raises(Unreachable):
        bench.run("testing", "1.0.0")
    assert not bench.operations()
    Path(bench.folder / "store" / "deployments").unlink()
    assert bench.run("testing", "1.0.0").outcome == "first_deployment"
