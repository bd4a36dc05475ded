# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What operations are asked for, and requests that contradict themselves."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError
from ansible_collections.zdm.landscape.plugins.module_utils.mta.archive import Archive
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.parameters import FURTHER, further
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.request import Wanted, wanted
from ansible_collections.zdm.landscape.plugins.modules.mta_deploy import OWN

ARCHIVE = Archive("a_1.mtar", "/a_1.mtar", "/a_1.mtar", "0" * 64, "0" * 32, "a", "1.0.0", ("srv",), ("db",))
DEFAULTS = {name: option.get("default") for name, option in OWN.items()}


def ask(archive: Archive | None = ARCHIVE, **params: Any) -> Wanted:
    return wanted({**DEFAULTS, "archive": archive.path if archive else None, **params}, archive, [])


def test_a_blue_green_deployment_keeps_names_and_waits_in_its_testing_phase() -> None:
    body = ask(namespace="n").request("1,2", ["3"])
    assert body["processType"] == "BLUE_GREEN_DEPLOY"
    assert body["namespace"] == "n"
    assert body["parameters"] == {
        "mtaId": "a",
        "appArchiveId": "1,2",
        "mtaExtDescriptorId": "3",
        "deleteServices": "false",
        "noStart": "false",
        "keepFiles": "false",
        "keepOriginalAppNamesAfterDeploy": "true",
        "noConfirm": "false",
        "skipIdleStart": "false",
        "shouldApplyIncrementalInstancesUpdate": "false",
        "shouldBackupPreviousVersion": "false",
        "stopOrderIsDependencyAware": "false",
    }


@pytest.mark.parametrize(
    ("params", "parameters"),
    [
        ({"skip_idle_start": True}, {"noConfirm": "true", "skipIdleStart": "true"}),
        ({"strategy": "incremental-blue-green"}, {"shouldApplyIncrementalInstancesUpdate": "true"}),
        ({"keep_previous": True}, {"shouldBackupPreviousVersion": "true"}),
        ({"dependency_aware_stop_order": True}, {"stopOrderIsDependencyAware": "true"}),
        ({"no_start": True}, {"noStart": "true"}),
        ({"delete_services": True}, {"deleteServices": "true"}),
        ({"secure_parameters": {"key": "s3cret"}}, {"isSecurityEnabled": "true"}),
        ({"start_timeout": "2m"}, {"startTimeout": "120"}),
        ({"parameters": {"noRestartSubscribedApps": True}}, {"noRestartSubscribedApps": "true"}),
        ({"modules": ["srv"]}, {"modulesForDeployment": "srv"}),
    ],
)
def test_options_are_parameters_of_the_service(params: dict[str, Any], parameters: dict[str, str]) -> None:
    found = ask(**params).request()["parameters"]
    assert parameters.items() <= found.items()
    assert all(isinstance(value, str) for value in found.values())
    assert "s3cret" not in str(found)


@pytest.mark.parametrize(
    ("state", "kind", "parameters"),
    [
        ("previous", "ROLLBACK_MTA", {"mtaId": "a", "deleteServices": "false"}),
        ("absent", "UNDEPLOY", {"mtaId": "a", "deleteServices": "false"}),
    ],
)
def test_what_brings_no_archive_names_the_mta_alone(state: str, kind: str, parameters: dict[str, str]) -> None:
    for given in (ask(None, state=state, mta_id="a"), ask(state=state)):
        assert given.request() == {"processType": kind, "parameters": parameters}
        assert given.goal.fingerprint == state


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"parameters": {"noRestartSubscribedApp": True}}, "knows no parameter 'noRestartSubscribedApp'"),
        ({"parameters": {"retries": 1}}, "knows no parameter 'retries'"),
        ({"parameters": {"versionRule": "ALL"}}, "parameters has versionRule"),
        ({"parameters": {"keepOriginalAppNamesAfterDeploy": False}}, "keepOriginalAppNamesAfterDeploy"),
        ({"retries": -1}, "retries is -1"),
        ({"no_start": True, "state": "testing"}, "no_start is given with state testing"),
        ({"keep_previous": True, "strategy": "default"}, "keep_previous has no meaning with strategy default"),
        ({"keep_previous": True, "state": "absent"}, "keep_previous is given with state absent"),
        ({"secure_parameters": {"a": "b"}, "state": "previous"}, "secure_parameters is given with state previous"),
        ({"upload": "service"}, "archive is no URL"),
        ({"mta_id": "b"}, "not b"),
        ({"start_timeout": "soon"}, "start_timeout"),
    ],
)
def test_a_request_that_contradicts_itself_is_refused_at_once(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        ask(**params)
    assert raised.value.advice


def test_a_misspelt_parameter_is_answered_with_the_right_one() -> None:
    with pytest.raises(InputError) as raised:
        further({"noRestartSubscribedApp": True}, "DEPLOY")
    assert raised.value.advice == "Did you mean noRestartSubscribedApps?"
    for kind, names in FURTHER.items():
        assert further(dict.fromkeys(names, False), kind) == dict.fromkeys(names, "false")


@pytest.mark.parametrize("state", ["testing", "deployed"])
def test_a_deployment_needs_an_archive(state: str) -> None:
    with pytest.raises(InputError, match="archive is missing"):
        ask(None, state=state, mta_id="a")
    with pytest.raises(InputError, match="archive and mta_id are missing"):
        ask(None, state="absent")
