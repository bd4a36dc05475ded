# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A deployment on its way: first, testing, live, unchanged, aborted; and back."""

from __future__ import annotations

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.cloud_foundry import CloudFoundry
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.info import read_info
from ansible_collections.zdm.landscape.tests.integration.deploy.kit import MTA, Bench

APPROUTER = "https://my-org-dev-approuter.apps.localhost"
IDLE = "https://my-org-dev-approuter-idle.apps.localhost"


def test_a_version_goes_live_through_its_testing_phase(bench: Bench) -> None:
    first = bench.run("testing", "1.0.0")
    assert (first.outcome, first.changed, first.previous) == ("first_deployment", True, {})
    assert not bench.run("testing", "1.0.0").changed
    testing = bench.run("testing", "1.1.0")
    assert (testing.outcome, testing.changed, testing.version_before) == ("testing", True, "1.0.0")
    assert testing.routes["approuter"] == {"app": "approuter", "live": [APPROUTER], "idle": [IDLE]}
    assert testing.previous["name"] == "incidents_1.0.0.mtar"
    assert (testing.operation["state"], testing.leftovers["apps"]) == ("ACTION_REQUIRED", [])
    told = len(bench.told)
    again = bench.run("testing", "1.1.0")
    assert (again.outcome, again.changed, again.operation["id"], len(bench.told)) == (
        "testing",
        False,
        testing.operation["id"],
        told,
    )
    assert bench.live_version() == "1.0.0"
    live = bench.run("deployed", "1.1.0")
    assert (live.outcome, live.changed, live.operation["id"]) == ("deployed", True, testing.operation["id"])
    assert live.routes["approuter"] == {"app": "approuter", "live": [APPROUTER], "idle": []}
    assert live.previous["version"] == "1.0.0"
    assert Path(live.previous["path"]).is_file()
    assert bench.live_version() == "1.1.0"
    unchanged = bench.run("deployed", "1.1.0")
    assert (unchanged.outcome, unchanged.changed, unchanged.previous["version"]) == ("unchanged", False, "1.0.0")
    assert len(bench.operations()) == 2
    assert 'Starting application "approuter-idle"' in bench.texts()


def test_the_document_holds_intent_and_operation_and_no_secret(bench: Bench) -> None:
    bench.deployed()
    bench.run("testing", "1.1.0")
    document = bench.document()
    attempt = document["attempt"]
    assert (document["format"], document["mta_id"], document["live"]["archive"]["version"]) == (1, MTA, "1.0.0")
    assert (attempt["operation"], attempt["state"]) == (bench.operations()[1].id, "ACTION_REQUIRED")
    assert attempt["nonce"]
    assert attempt["testing_since"]
    assert len(attempt["archive"]["digest"]) == 64
    assert "password" not in json.dumps(document)


def test_a_service_that_got_the_idle_url_leads_to_404_after_the_switch(bench: Bench) -> None:
    def unsafe(descriptor: dict[str, Any]) -> None:
        descriptor["resources"][0]["parameters"]["config"]["appUrls"]["getDependencies"] = "~{mtx-api/mtx-url}/deps"

    def registry() -> str:
        return str(bench.cloud.space.services["registry"].config["appUrls"]["getDependencies"])

    bench.standing()
    assert bench.cloud.space.answers(registry())
    bench.run("testing", archive=bench.archive("1.1.0", unsafe))
    assert bench.cloud.space.answers(registry())
    bench.run("deployed", archive=bench.archive("1.1.0", unsafe))
    assert "-idle" in registry()
    assert not bench.cloud.space.answers(registry())
    bench.deployed("1.2.0")
    assert bench.cloud.space.answers(registry())


def test_the_environment_names_the_idle_host_until_the_switch(bench: Bench) -> None:
    bench.standing()
    bench.run("testing", "1.1.0")
    apps = bench.cloud.space.apps
    assert apps["approuter-idle"].env["TENANT_HOST_PATTERN"] == "^(.*)-my-org-dev-approuter-idle.apps.localhost"
    assert (
        json.loads(apps["approuter-idle"].env["destinations"])[0]["url"] == "https://my-org-dev-mtx-idle.apps.localhost"
    )
    bench.run("deployed", "1.1.0")
    assert apps["approuter"].env["TENANT_HOST_PATTERN"] == "^(.*)-my-org-dev-approuter.apps.localhost"


def test_an_abort_leaves_what_the_next_deployment_uses(bench: Bench) -> None:
    assert bench.run("aborted", mta_id=MTA).outcome == "absent"
    bench.standing()
    bench.run("testing", "1.1.0")
    aborted = bench.run("aborted", "1.1.0")
    assert (aborted.outcome, aborted.changed, bench.operations()[1].state) == ("aborted", True, "ABORTED")
    assert {entry["name"]: entry["kept"] for entry in aborted.leftovers["apps"]} == {
        "approuter-idle": "",
        "approuter-live": "it serves users",
        "mtx-idle": "",
        "mtx-live": "it serves users",
    }
    assert IDLE in aborted.leftovers["routes"]
    assert APPROUTER not in aborted.leftovers["routes"]
    assert not bench.run("aborted", "1.1.0").changed
    assert bench.run("testing", "1.1.0").outcome == "testing"
    assert bench.run("deployed", "1.1.0").outcome == "deployed"
    assert sorted(bench.cloud.space.apps) == ["approuter", "mtx"]


def test_leftovers_are_removed_on_request_and_live_stays(bench: Bench) -> None:
    bench.standing()
    bench.run("testing", "1.1.0")
    aborted = bench.run("aborted", mta_id=MTA, remove_leftovers=True)
    assert aborted.leftovers["removed"] == ["approuter-idle", "mtx-idle"]
    assert sorted(bench.cloud.space.apps) == ["approuter-live", "mtx-live"]
    assert sorted(bench.cloud.space.routes) == ["my-org-dev-approuter.apps.localhost", "my-org-dev-mtx.apps.localhost"]
    assert bench.live_version() == "1.0.0"
    again = bench.run("aborted", mta_id=MTA, remove_leftovers=True)
    assert (again.changed, again.leftovers["removed"]) == (False, [])


def test_an_idle_application_with_a_live_route_is_never_removed(bench: Bench) -> None:
    bench.standing()
    bench.run("testing", "1.1.0")
    bench.cloud.space.map("my-org-dev-approuter.apps.localhost", "approuter-idle")
    with pytest.raises(Refused, match="Two versions are behind https://my-org-dev-approuter.apps.localhost"):
        bench.run("aborted", mta_id=MTA, remove_leftovers=True)
    kept = bench.run("aborted", mta_id=MTA, remove_leftovers=True, abort_switched=True).leftovers
    assert kept["removed"] == ["mtx-idle"]
    assert "it serves https://my-org-dev-approuter.apps.localhost" in [entry["kept"] for entry in kept["apps"]]


def test_the_previous_archive_is_the_way_back(bench: Bench) -> None:
    bench.deployed()
    live = bench.run("deployed", "1.1.0")
    back = bench.run("deployed", archive=live.previous["path"], version_rule="ALL")
    assert (back.outcome, back.previous["version"], bench.live_version()) == ("deployed", "1.1.0", "1.0.0")


@pytest.mark.parametrize(
    ("options", "process", "parameters"),
    [
        (
            {},
            "BLUE_GREEN_DEPLOY",
            {"noConfirm": "false", "skipIdleStart": "false", "shouldApplyIncrementalInstancesUpdate": "false"},
        ),
        (
            {"strategy": "incremental-blue-green"},
            "BLUE_GREEN_DEPLOY",
            {"shouldApplyIncrementalInstancesUpdate": "true"},
        ),
        ({"skip_testing_phase": True}, "BLUE_GREEN_DEPLOY", {"noConfirm": "true", "skipIdleStart": "false"}),
        ({"skip_idle_start": True}, "BLUE_GREEN_DEPLOY", {"noConfirm": "true", "skipIdleStart": "true"}),
        (
            {"strategy": "default", "start_timeout": "5m", "task_timeout": "90s"},
            "DEPLOY",
            {"startTimeout": "300", "appsTaskExecutionTimeout": "90"},
        ),
        (
            {"modules": ["mtx"], "resources": ["registry"]},
            "BLUE_GREEN_DEPLOY",
            {"modulesForDeployment": "mtx", "resourcesForDeployment": "registry"},
        ),
    ],
)
def test_options_reach_the_service_as_it_wants_them(
    bench: Bench, options: dict[str, Any], process: str, parameters: dict[str, str]
) -> None:
    bench.standing()
    assert bench.run("deployed", "1.1.0", **options).outcome == "deployed"
    operation = bench.operations()[1]
    assert operation.type == process
    assert parameters.items() <= operation.parameters.items()
    assert ("TESTING" in operation.states) is False
    assert ("ACTION_REQUIRED" in operation.states) is (
        process == "BLUE_GREEN_DEPLOY" and parameters.get("noConfirm") != "true"
    )


def test_extension_descriptors_and_namespace(bench: Bench) -> None:
    extension = bench.folder / "prod.mtaext"
    extension.write_text(
        '{"ID": "prod", "extends": "incidents", "modules": [{"name": "approuter", "properties": {"MODE": "prod"}}]}'
    )
    extensions = [str(extension)]
    assert bench.run("deployed", "1.0.0", extensions=extensions, namespace="blue").outcome == "first_deployment"
    assert bench.cloud.space.apps["blue-approuter"].env["MODE"] == "prod"
    assert bench.run("deployed", "1.0.0", extensions=extensions, namespace="blue").outcome == "unchanged"
    extension.write_text(extension.read_text().replace('"prod"}', '"test"}'))
    assert bench.run("deployed", "1.0.0", extensions=extensions, namespace="blue").outcome == "deployed"
    assert bench.run("deployed", "1.0.0").outcome == "first_deployment"
    assert sorted(document.name.partition("/")[2] for document in bench.store.list("deployments")) == [
        "incidents",
        "incidents@blue",
    ]


def test_an_archive_from_a_url(bench: Bench) -> None:
    path = Path(bench.archive("1.0.0"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(bench.folder)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        result = bench.run(
            "deployed", archive=f"http://127.0.0.1:{server.server_address[1]}/{path.name}?signature=secret"
        )
    finally:
        server.shutdown()
        server.server_close()
    assert result.outcome == "first_deployment"
    assert bench.run("deployed", archive=str(path)).outcome == "unchanged"
    assert "secret" not in json.dumps(bench.document())


def test_the_same_version_with_another_content_is_deployed(bench: Bench) -> None:
    bench.deployed()

    def other(descriptor: dict[str, Any]) -> None:
        descriptor["modules"][1]["properties"]["MODE"] = "new"

    assert bench.run("deployed", archive=bench.archive("1.0.0", other)).outcome == "deployed"
    assert bench.cloud.space.apps["approuter"].env["MODE"] == "new"


def test_what_somebody_else_has_deployed_since_is_replaced(bench: Bench) -> None:
    bench.deployed()
    other = bench.foreign("1.0.0")
    bench.cloud.controller.act(other.id, "resume")
    bench.cloud.controller.wait(other.id, "FINISHED")
    assert bench.run("deployed", "1.0.0").outcome == "deployed"


def test_predictions_change_nothing(bench: Bench) -> None:
    def predict(state: str, version: str, **params: Any) -> tuple[str, bool, str]:
        before = [len(bench.operations()), bench.sent("POST", "/api/")]
        deployment, stack = bench.deployment(state, version, **params)
        with stack:
            result, text = deployment.predict()
        assert [len(bench.operations()), bench.sent("POST", "/api/")] == before
        return result.outcome, result.changed, text

    assert predict("testing", "1.0.0") == ("first_deployment", True, "incidents: starts an operation.")
    bench.deployed()
    assert predict("testing", "1.0.0")[:2] == ("unchanged", False)
    assert predict("testing", "1.1.0")[:2] == ("testing", True)
    bench.run("testing", "1.1.0")
    assert predict("testing", "1.1.0")[:2] == ("testing", False)
    assert predict("deployed", "1.1.0")[2].startswith("incidents: resumes operation ")
    assert predict("aborted", "1.1.0")[2].startswith("incidents: aborts operation ")


def test_information_for_a_person(bench: Bench) -> None:
    bench.standing()
    bench.run("testing", "1.1.0")
    info = read_info(CloudFoundry(bench.cloud.options()), bench.store, MTA, "")
    (operation,) = info.operations
    assert (operation["ours"], operation["actions"], operation["state"]) == (
        True,
        ["abort", "resume"],
        "ACTION_REQUIRED",
    )
    assert [(mta["id"], mta["version"]) for mta in info.mtas] == [(MTA, "1.0.0")]
    assert info.deployments[0]["attempt"]["operation"] == operation["id"]
    assert info.routes["approuter"]["idle"] == [IDLE]
    bench.run("aborted", mta_id=MTA)
    bench.foreign()
    info = read_info(CloudFoundry(bench.cloud.options()), bench.store, "", "")
    assert [(entry["ours"], entry["user"]) for entry in info.operations] == [(False, "colleague@example.com")]
