# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command of the cf CLI's multiapps plugin works against the stand-ins."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.zdm.landscape.tests.cloud.cloud import Cloud
from ansible_collections.zdm.landscape.tests.cloud.standin import Answer, Request, StandIn
from ansible_collections.zdm.landscape.tests.integration.stand_ins.cf_plugin import Failed, Plugin
from ansible_collections.zdm.landscape.tests.integration.stand_ins.go_models import LOGS, Unreadable
from ansible_collections.zdm.landscape.tests.integration.stand_ins.kit import MTA, Rest, Shop

BLUE_GREEN = "blue-green"


@pytest.fixture(name="plugin")
def _plugin(rest: Rest) -> Plugin:
    return Plugin(rest)


def body(cloud: Cloud) -> bytes:
    """The body with which the last operation was started."""
    return next(request for request in reversed(cloud.requests) if request.target.endswith("/operations")).body


def test_what_the_plugin_sends_is_what_was_seen(plugin: Plugin, shop: Shop) -> None:
    assert plugin.deploy(shop.archive("1.0.0"), strategy=BLUE_GREEN) == "FINISHED"
    sent = body(plugin.rest.cloud)
    given = json.loads(sent)["parameters"]
    assert (
        sent
        == json.dumps(
            {"parameters": dict(sorted(given.items())), "processType": "BLUE_GREEN_DEPLOY"}, separators=(",", ":")
        ).encode()
        + b"\n"
    )
    switches = {
        "abortOnError", "deleteServiceBrokers", "deleteServiceKeys", "deleteServices",
        "isDisposableUserProvidedServiceEnabled", "isSecurityEnabled", "keepFiles", "noConfirm",
        "noFailOnMissingPermissions", "noRestartSubscribedApps", "noStart", "shouldApplyIncrementalInstancesUpdate",
        "shouldBackupPreviousVersion", "skipIdleStart", "skipOwnershipValidation", "stopOrderIsDependencyAware",
    }  # fmt: skip
    assert given == {
        **dict.fromkeys(switches, "false"),
        "keepOriginalAppNamesAfterDeploy": "true",
        "mtaId": MTA,
        "appArchiveId": given["appArchiveId"],
    }


@pytest.mark.parametrize(
    ("flags", "state"),
    [
        ({}, "FINISHED"),
        ({"strategy": BLUE_GREEN}, "ACTION_REQUIRED"),
        ({"strategy": BLUE_GREEN, "skip_testing_phase": True}, "FINISHED"),
        ({"strategy": BLUE_GREEN, "skip_idle_start": True}, "FINISHED"),
        ({"strategy": "incremental-blue-green"}, "ACTION_REQUIRED"),
        ({"strategy": "incremental-blue-green", "skip_testing_phase": True, "keep_files": True}, "FINISHED"),
        ({"strategy": BLUE_GREEN, "backup_previous_version": True, "skip_testing_phase": True}, "FINISHED"),
        ({"strategy": BLUE_GREEN, "dependency_aware_stop_order": True, "apps_start_timeout": 77}, "ACTION_REQUIRED"),
        ({"no_start": True, "version_rule": "ALL", "abort_on_error": True}, "FINISHED"),
        ({"m": ["srv"], "r": ["auth"], "delete_services": True, "delete_service_keys": True}, "FINISHED"),
        ({"namespace": "blue", "apply_namespace_as_suffix": "true"}, "FINISHED"),
    ],
)
def test_deploy_with_its_flags(plugin: Plugin, shop: Shop, flags: dict[str, Any], state: str) -> None:
    assert plugin.deploy(shop.archive("1.0.0")) == "FINISHED"
    assert plugin.deploy(shop.archive("2.0.0"), **flags) == state
    if state == "ACTION_REQUIRED":
        (operation,) = plugin.mta_ops(MTA)
        assert plugin.action(operation["processId"], "resume") == "FINISHED"
    apps = plugin.rest.cloud.space.apps
    name = "srv-blue" if flags.get("namespace") else "srv"
    assert (apps[name].version, apps[name].state) == ("2.0.0", "STOPPED" if flags.get("no_start") else "STARTED")
    assert not [app for app in apps if app.endswith(("-idle", "-live")) and not app.startswith("mta-backup-")]


def test_a_conflicting_operation_is_aborted_with_f_alone(plugin: Plugin, shop: Shop) -> None:
    plugin.deploy(shop.archive("1.0.0"))
    plugin.deploy(shop.archive("2.0.0"), strategy=BLUE_GREEN)
    with pytest.raises(Failed, match="ongoing operation"):
        plugin.deploy(shop.archive("3.0.0"), strategy=BLUE_GREEN)
    assert plugin.deploy(shop.archive("3.0.0"), strategy=BLUE_GREEN, f=True) == "ACTION_REQUIRED"
    assert [entry["state"] for entry in plugin.mta_ops(everything=True)] == ["FINISHED", "ABORTED", "ACTION_REQUIRED"]
    assert plugin.action(plugin.mta_ops()[0]["processId"], "abort") == "ABORTED"
    with pytest.raises(Failed, match="not found"):
        plugin.action("none", "abort")


def test_infrastructure_errors_are_retried_and_content_errors_are_not(plugin: Plugin, shop: Shop) -> None:
    plugin.rest.cloud.faults.fail("srv", "502 Bad Gateway", "INFRASTRUCTURE", times=2)
    assert plugin.deploy(shop.archive("1.0.0")) == "FINISHED"
    plugin.rest.cloud.faults.fail("srv", "502 Bad Gateway", "INFRASTRUCTURE", times=4)
    assert plugin.deploy(shop.archive("2.0.0")) == "ERROR"
    plugin.action(plugin.mta_ops()[0]["processId"], "abort")
    plugin.rest.cloud.faults.fail("service auth", "no such plan", "CONTENT")
    assert plugin.deploy(shop.archive("3.0.0")) == "ERROR"
    assert plugin.said[-1] == "no such plan"


def test_mtas_and_mta(plugin: Plugin, shop: Shop) -> None:
    assert plugin.mtas() == []
    with pytest.raises(Failed, match="Multi-target app shop not found"):
        plugin.mta(MTA)
    plugin.deploy(shop.archive("1.0.0"))
    assert plugin.mtas() == [(MTA, "1.0.0")]
    assert plugin.mta(MTA) == {
        "version": "1.0.0",
        "apps": {name: ("STARTED", ["RUNNING"], [f"my-org-dev-{name}.apps.localhost"]) for name in ("srv", "web")},
        "services": {"auth": ("succeeded", ["srv", "web"])},
    }
    plugin.deploy(shop.archive("2.0.0"), strategy=BLUE_GREEN)
    found = plugin.mta(MTA)
    assert (found["version"], sorted(found["apps"])) == ("?", ["srv-idle", "srv-live", "web-idle", "web-live"])


def test_operations_and_their_logs(plugin: Plugin, shop: Shop) -> None:
    for version in ("1.0.0", "2.0.0"):
        plugin.deploy(shop.archive(version))
    first, second = plugin.mta_ops(everything=True)
    assert plugin.mta_ops(MTA) == []
    assert [entry["processId"] for entry in plugin.mta_ops(last=1)] == [second["processId"]]
    logs = plugin.dmol(first["processId"])
    assert sorted(logs) == ["OPERATION.log", "srv.log", "web.log"]
    assert "Detected deployed MTA" in plugin.dmol(second["processId"])["OPERATION.log"]
    with pytest.raises(Unreadable):  # what a list of logs with the service's stamps would do to it
        LOGS([{"id": "a", "lastModified": "2026-11-21T23:00:00.123Z[UTC]"}], "")


def test_undeploy(plugin: Plugin, shop: Shop) -> None:
    with pytest.raises(Failed, match="not found"):
        plugin.undeploy(MTA)
    plugin.deploy(shop.archive("1.0.0"))
    assert plugin.undeploy(MTA) == "FINISHED"
    space = plugin.rest.cloud.space
    assert (space.apps, space.routes, list(space.services)) == ({}, {}, ["auth"])
    plugin.deploy(shop.archive("1.0.0"))
    assert plugin.undeploy(MTA, delete_services=True) == "FINISHED"
    assert space.services == {}


def test_rollback(plugin: Plugin, shop: Shop) -> None:
    plugin.deploy(shop.archive("1.0.0"))
    plugin.deploy(shop.archive("2.0.0"), strategy=BLUE_GREEN, skip_testing_phase=True, backup_previous_version=True)
    assert [mta[1] for mta in plugin.mtas()] == ["2.0.0", "1.0.0"]
    assert plugin.rollback_mta(MTA) == "FINISHED"
    assert {app.version for app in plugin.rest.cloud.space.apps.values()} == {"1.0.0"}
    assert plugin.mtas() == [(MTA, "?")]  # services are not touched and carry the newer version
    assert plugin.rollback_mta(MTA) == "ERROR"


def test_an_archive_of_more_than_one_part(plugin: Plugin, shop: Shop) -> None:
    """Parts of 45 MB, sent at the same time."""
    path = shop.folder / "big.mtar"
    content = shop.archive("1.0.0").read_bytes()
    path.write_bytes(os.urandom(46 << 20) + content)  # a zip may have anything before it
    assert plugin.deploy(path) == "FINISHED"
    names = [request.body[:300] for request in plugin.rest.cloud.requests if request.target.endswith("/files")]
    found = sorted(re.findall(rb'filename="([^"]+)"', b"".join(names)))
    assert found == [b"big.mtar.part.0", b"big.mtar.part.1"]
    plugin.chunk = 1024
    assert plugin.deploy(shop.archive("2.0.0")) == "FINISHED"


def test_an_extension_descriptor_and_files_that_are_there(plugin: Plugin, shop: Shop, tmp_path: Path) -> None:
    extension = tmp_path / "my.mtaext"
    extension.write_text(
        yaml.safe_dump({"ID": "my", "extends": MTA, "modules": [{"name": "srv", "properties": {"A": "1"}}]})
    )
    archive = shop.archive("1.0.0")
    assert plugin.deploy(archive, extensions=[extension], keep_files=True) == "FINISHED"
    assert plugin.rest.cloud.space.apps["srv"].env["A"] == "1"
    before = len(plugin.rest.cloud.uploads.files)
    assert plugin.deploy(archive, extensions=[extension], keep_files=True) == "FINISHED"
    assert len(plugin.rest.cloud.uploads.files) == before


def test_an_archive_by_url(plugin: Plugin, shop: Shop) -> None:
    class Server(StandIn):
        def answer(self, request: Request) -> Answer:
            return Answer(200, shop.archive("1.0.0").read_bytes())

    with Server(str(plugin.rest.cloud.certificates.router)) as server:
        assert plugin.deploy(f"{server.url}/shop.mtar") == "FINISHED"
    with pytest.raises(Failed, match="Async upload job failed"):
        plugin.deploy(f"{server.url}/shop.mtar")


@pytest.mark.parametrize("disposable", [False, True])
def test_secure_parameters(plugin: Plugin, shop: Shop, disposable: bool) -> None:
    def change(descriptor: dict[str, Any]) -> None:
        descriptor["modules"][1]["properties"] = {"SESSIONS": "${sessions}"}

    shop.change = change
    assert plugin.deploy(shop.archive("1.0.0")) == "ERROR"
    plugin.action(plugin.mta_ops()[0]["processId"], "abort")
    given = {"sessions": "very secret"}
    assert (
        plugin.deploy(
            shop.archive("1.0.0"), require_secure_parameters=given, disposable_user_provided_service=disposable
        )
        == "FINISHED"
    )
    space = plugin.rest.cloud.space
    assert space.apps["srv"].env["SESSIONS"] == "very secret"
    assert sorted(space.services) == (["auth"] if disposable else ["__mta-secure-shop", "auth"])
    assert "very secret" not in json.dumps(plugin.dmol(plugin.mta_ops(everything=True)[-1]["processId"]))
