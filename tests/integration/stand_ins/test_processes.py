# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What operations do to a space, in the order of the deploy service."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.zdm.landscape.tests.cloud.pace import REAL, Pace
from ansible_collections.zdm.landscape.tests.cloud.space import App
from ansible_collections.zdm.landscape.tests.integration.stand_ins.kit import MTA, Rest, Shop
from ansible_collections.zdm.landscape.tests.landscape.processes import wait_until

LIVE = {name: f"my-org-dev-{name}.apps.localhost" for name in ("srv", "web")}
IDLE = {name: f"my-org-dev-{name}-idle.apps.localhost" for name in ("srv", "web")}


def apps(rest: Rest) -> dict[str, str]:
    """The applications with their versions."""
    return {app.name: app.version for app in sorted(rest.cloud.space.apps.values(), key=lambda app: app.name)}


def behind(rest: Rest, url: str) -> list[str]:
    """The versions of the running applications behind a route."""
    space = rest.cloud.space
    guids = space.routes[url].apps if url in space.routes else []
    found = [app for app in space.apps.values() if app.guid in guids and app.instance == "RUNNING"]
    return sorted(app.version for app in found)


def steps(found: dict[str, Any]) -> list[str]:
    """What the operation has told, in short."""
    texts = [message["text"] for message in found["messages"]]
    short = [re.sub(r"(application|route|service) |from MTA .*| started and.*|\.\.\.|\"", "", text) for text in texts]
    verbs = ("Ren", "Cre", "Upd", "Sta", "Sto", "Del", "Pro")
    return [text.strip() for text in short if text.startswith(verbs)]


def test_the_order_of_a_blue_green_deployment(rest: Rest, shop: Shop) -> None:
    """Providers come first, a running idle application is stopped and started under its new name, and only then its
    idle routes go; those of the consumer last of all.
    """
    shop.deploy("1.0.0")
    operation = shop.testing("2.0.0")
    assert (behind(rest, LIVE["web"]), behind(rest, IDLE["web"])) == (["1.0.0"], ["2.0.0"])
    assert rest.act(operation, "resume") == 202
    assert steps(rest.wait(operation, "FINISHED")) == [
        "Renaming srv to srv-live",
        "Renaming web to web-live",
        "Creating srv-idle",
        "Starting srv-idle",
        "Creating web-idle",
        "Starting web-idle",
        "Process has entered testing phase. After testing your new deployment you can resume or abort the process.",
        "Renaming srv-idle to srv",
        "Stopping srv",
        "Starting srv",
        f"Deleting idle {IDLE['srv']}",
        "Renaming web-idle to web",
        "Stopping web",
        "Starting web",
        f"Deleting idle {IDLE['web']}",
        "Deleting srv-live",
        "Deleting web-live",
    ]


def test_live_routes_come_first_and_the_environment_with_the_restart(rest: Rest, shop: Shop) -> None:
    shop.deploy("1.0.0")
    operation = shop.testing("2.0.0")
    faults, runner = rest.cloud.faults, rest.cloud.space.runner
    running: dict[str, dict[str, str]] = getattr(runner, "running")  # noqa: B009
    bound = faults.hold_at("bind web-idle")
    rest.act(operation, "resume")
    assert bound.wait(60)
    assert behind(rest, LIVE["web"]) == ["1.0.0", "2.0.0"]
    assert "srv-idle" in running["web-idle"]["destinations"]
    assert "srv-idle" not in rest.cloud.space.apps["web-idle"].env["destinations"]
    assert IDLE["srv"] not in rest.cloud.space.routes
    stopping = faults.hold_at("stop web")
    faults.release("bind web-idle")
    assert stopping.wait(60)
    assert "srv-idle" in running["web"]["destinations"]
    faults.release()
    rest.wait(operation, "FINISHED")
    assert "srv-idle" not in running["web"]["destinations"]


def test_an_application_that_is_stopped_is_only_started_by_the_resume(rest: Rest, shop: Shop) -> None:
    shop.deploy("1.0.0")
    operation = shop.testing("2.0.0")
    for name in ("web-idle", "srv-idle"):
        rest.stop(name)
    bound = rest.cloud.faults.hold_at("bind web-idle")
    rest.act(operation, "resume")
    assert bound.wait(60)
    assert behind(rest, LIVE["web"]) == ["1.0.0"]
    rest.cloud.faults.release()
    assert not [text for text in steps(rest.wait(operation, "FINISHED")) if text.startswith("Stopping")]
    assert behind(rest, LIVE["web"]) == ["2.0.0"]


def test_after_an_abort_in_the_testing_phase_all_is_used_again(rest: Rest, shop: Shop) -> None:
    shop.deploy("1.0.0")
    operation = shop.testing("2.0.0")
    guid = rest.app("srv-idle")["guid"]
    rest.act(operation, "abort")
    assert apps(rest) == {"srv-idle": "2.0.0", "srv-live": "1.0.0", "web-idle": "2.0.0", "web-live": "1.0.0"}
    assert "srv-idle" in rest.cloud.space.services["auth"].config["url"]
    found = shop.deploy("2.0.0")
    assert rest.app("srv")["guid"] == guid
    assert apps(rest) == {"srv": "2.0.0", "web": "2.0.0"}
    assert "Updating srv-idle" in steps(found)
    assert not [text for text in steps(found) if text == "Starting srv-idle"]


def test_after_an_abort_in_mid_switch_the_next_deployment_deletes_the_old_version(rest: Rest, shop: Shop) -> None:
    shop.deploy("1.0.0")
    operation = shop.testing("2.0.0")
    switching = rest.cloud.faults.hold_at("bind web-idle")
    rest.act(operation, "resume")
    assert switching.wait(60)
    assert rest.act(operation, "abort") == 202
    rest.cloud.faults.release()
    wait_until(lambda: not rest.cloud.controller.at_work, "the operation ends")
    assert apps(rest) == {"srv": "2.0.0", "srv-live": "1.0.0", "web-idle": "2.0.0", "web-live": "1.0.0"}
    assert behind(rest, LIVE["srv"]) == behind(rest, LIVE["web"]) == ["1.0.0", "2.0.0"]
    found = shop.deploy("3.0.0")
    assert steps(found)[:2] == ["Deleting srv-live", "Renaming srv to srv-live"]
    assert apps(rest) == {"srv": "3.0.0", "web": "3.0.0"}


@pytest.mark.parametrize("action", ["abort", "resume"])
def test_the_resume_window(rest: Rest, shop: Shop, action: str) -> None:
    """A resume that was accepted is not seen for a while, in which the process goes on and an abort is taken."""
    shop.deploy("1.0.0")
    rest.cloud.space.pace = Pace(resume_s=60.0)
    operation = shop.testing("2.0.0")
    switched = rest.cloud.faults.hold_at("stop srv")
    assert rest.act(operation, "resume") == 202
    assert switched.wait(60)
    assert rest.operation(operation)["state"] == "ACTION_REQUIRED"
    assert behind(rest, LIVE["srv"]) == ["1.0.0", "2.0.0"]
    assert rest.act(operation, action) == 202
    rest.cloud.faults.release()
    if action == "abort":
        wait_until(lambda: not rest.cloud.controller.at_work, "the operation ends")
        assert rest.operation(operation)["state"] == "ABORTED"
        assert "srv-live" in apps(rest)
    else:
        rest.wait(operation, "FINISHED")


def test_the_window_closes(rest: Rest, shop: Shop) -> None:
    shop.deploy("1.0.0")
    rest.cloud.space.pace = Pace(resume_s=0.05)
    operation = shop.testing("2.0.0")
    rest.cloud.faults.hold_at("switch srv")
    rest.act(operation, "resume")
    rest.wait(operation, "RUNNING")
    rest.cloud.faults.release()
    rest.wait(operation, "FINISHED")


def test_bindings_take_their_time_and_an_abort_ends_it(rest: Rest, shop: Shop) -> None:
    assert REAL.scaled(0.1) == Pace((0.30000000000000004, 1.0), 0.05, 0.1)
    assert 3 <= REAL.bindings() <= 10
    shop.deploy("1.0.0")
    rest.cloud.space.pace = Pace((300.0, 300.0))
    operation = shop.start("2.0.0")
    wait_until(lambda: "srv-idle" in rest.cloud.space.apps, "it is created")
    assert rest.act(operation, "abort") == 202
    wait_until(lambda: not rest.cloud.controller.at_work, "the operation ends")


def test_a_switch_that_fails_goes_on_where_it_failed(rest: Rest, shop: Shop) -> None:
    shop.deploy("1.0.0")
    operation = shop.testing("2.0.0")
    rest.cloud.faults.fail("web", "no memory", "INFRASTRUCTURE")
    rest.act(operation, "resume")
    assert rest.wait(operation, "ERROR")["errorType"] == "INFRASTRUCTURE"
    assert apps(rest) == {"srv": "2.0.0", "srv-live": "1.0.0", "web": "2.0.0", "web-live": "1.0.0"}
    rest.act(operation, "retry")
    told = steps(rest.wait(operation, "FINISHED"))
    assert (told.count("Stopping srv"), told.count("Starting web"), apps(rest)["web"]) == (1, 2, "2.0.0")
    assert IDLE["web"] not in rest.cloud.space.routes


def test_a_first_deployment_has_no_testing_phase_and_one_after_leftovers_has(rest: Rest, shop: Shop) -> None:
    rest.cloud.faults.fail("web-idle", "no memory")
    operation = shop.start("1.0.0")
    rest.wait(operation, "ERROR")
    rest.act(operation, "abort")
    assert rest.wait(shop.start("1.0.0"))["state"] == "ACTION_REQUIRED"


def test_an_error_that_aborts_by_itself(rest: Rest, shop: Shop) -> None:
    rest.cloud.faults.fail("srv", "no memory", "INFRASTRUCTURE")
    found = shop.deploy("1.0.0", "DEPLOY", abortOnError="true")
    assert (found["state"], found["acquiredLock"]) == ("ABORTED", False)
    assert [message["text"] for message in found["messages"] if message["type"] == "ERROR"] == ["no memory"]


def test_dependents_are_stopped_before_their_provider_is_switched(rest: Rest, shop: Shop) -> None:
    shop.deploy("1.0.0")
    operation = shop.testing("2.0.0", stopOrderIsDependencyAware="true")
    rest.act(operation, "resume")
    told = steps(rest.wait(operation, "FINISHED"))
    assert told.index("Stopping dependent web-idle") < told.index("Renaming srv-idle to srv")
    assert "Stopping web" not in told


def test_a_plain_deployment_updates_in_place(rest: Rest, shop: Shop) -> None:
    shop.deploy("1.0.0", "DEPLOY")
    guid = rest.app("srv")["guid"]
    found = shop.deploy("2.0.0", "DEPLOY", noStart="true")
    assert (rest.app("srv")["guid"], rest.app("srv")["state"]) == (guid, "STOPPED")
    assert [text for text in steps(found) if text.startswith("Starting")] == []
    shop.deploy("3.0.0", "DEPLOY")
    assert (apps(rest), behind(rest, LIVE["web"])) == ({"srv": "3.0.0", "web": "3.0.0"}, ["3.0.0"])


def test_modules_that_are_gone_go_and_their_services_stay_unless_told(rest: Rest, shop: Shop) -> None:
    def more(descriptor: dict[str, Any]) -> None:
        descriptor["modules"].append({"name": "job", "requires": [{"name": "queue"}]})
        parameters = {"service": "queue", "service-plan": "small"}
        descriptor["resources"].append(
            {"name": "queue", "type": "org.cloudfoundry.managed-service", "parameters": parameters}
        )

    plain = shop.change
    for version, delete, left in ((1, "false", ["auth", "queue"]), (3, "true", ["auth"])):
        shop.change = more
        shop.deploy(f"{version}.0.0")
        shop.change = plain
        shop.deploy(f"{version + 1}.0.0", deleteServices=delete)
        assert set(apps(rest)) == {"srv", "web"}
        assert sorted(rest.cloud.space.services) == left
    assert rest.mtas(f"?name={MTA}").json()[0]["services"] == ["auth"]


def test_a_service_of_another_offering_is_recreated_when_that_is_told(rest: Rest, shop: Shop) -> None:
    shop.deploy("1.0.0")

    def change(descriptor: dict[str, Any]) -> None:
        descriptor["resources"][0]["parameters"]["service"] = "identity"

    shop.change = change
    assert shop.deploy("2.0.0")["errorType"] == "CONTENT"
    (operation,) = rest.get(f"{rest.base}/operations?state=ERROR").json()
    rest.act(f"{rest.base}/operations/{operation['processId']}", "abort")
    assert shop.deploy("2.0.0", deleteServices="true")["state"] == "FINISHED"
    assert rest.cloud.space.services["auth"].offering == "identity"


def test_tasks_and_content_are_done_in_the_idle_phase_alone(rest: Rest, shop: Shop) -> None:
    def change(descriptor: dict[str, Any]) -> None:
        descriptor["modules"][1]["parameters"] = {"tasks": [{"name": "migrate", "command": "x"}]}
        parameters = {"config": {"url": "~{api/url}"}}
        content = {"name": "destinations", "type": "com.sap.application.content", "parameters": parameters}
        descriptor["modules"].append({**content, "requires": [{"name": "api"}]})

    shop.change = change
    shop.deploy("1.0.0")
    space = rest.cloud.space
    assert [task.name for task in space.apps["srv"].tasks] == ["migrate"]
    assert (sorted(space.apps), "srv-idle" in space.contents["destinations"]["config"]["url"]) == (["srv", "web"], True)


@pytest.mark.parametrize(
    "change",
    [
        lambda descriptor: descriptor["modules"][0].update(parameters={"keep-existing-routes": True}),
        lambda descriptor: descriptor["modules"][0].update({"keep-existing": {"routes": True}}),
        lambda descriptor: descriptor.update(parameters={"keep-existing-routes": True}),
        None,
    ],
)
def test_routes_of_tenants_are_kept_when_one_of_three_places_says_so(rest: Rest, shop: Shop, change: Any) -> None:
    if change:
        shop.change = change
    shop.deploy("1.0.0")
    rest.cloud.space.map("t1-web.apps.localhost", "web")
    shop.deploy("2.0.0")
    assert behind(rest, "t1-web.apps.localhost") == (["2.0.0"] if change else [])


def test_bindings_and_services_keep_what_the_idle_phase_has_made(rest: Rest, shop: Shop) -> None:
    def change(descriptor: dict[str, Any]) -> None:
        descriptor["modules"][0]["requires"][1]["parameters"] = {"config": {"url": "${default-url}"}}

    shop.change = change
    shop.deploy("1.0.0")
    idle = f"https://{IDLE['web']}"
    assert rest.cloud.space.apps["web"].bindings == {"auth": {"url": idle}}
    assert rest.cloud.space.services["auth"].config == {"url": f"https://{IDLE['srv']}"}
    assert not rest.cloud.space.answers(idle)
    shop.deploy("2.0.0", "DEPLOY")
    assert rest.cloud.space.apps["web"].bindings == {"auth": {"url": f"https://{LIVE['web']}"}}


def test_service_updates_may_be_skipped(rest: Rest, shop: Shop) -> None:
    def change(descriptor: dict[str, Any]) -> None:
        descriptor["resources"][0]["parameters"]["skip-service-updates"] = {"parameters": True}

    shop.deploy("1.0.0")
    shop.change = change
    shop.deploy("2.0.0", "DEPLOY")
    assert "srv-idle" in rest.cloud.space.services["auth"].config["url"]


@pytest.mark.parametrize(
    ("phase", "schema", "state"),
    [
        ("blue-green.application.before-stop.live", "3.3", "FINISHED"),
        ("deploy.application.before-start", "3.3", "FINISHED"),
        ("before-stop", "3.3", "FINISHED"),
        ("application.before-stop.live", "3.3", "ERROR"),
        ("application.before-stop.live", "2.1", "FINISHED"),
    ],
)
def test_hooks_of_a_phase_that_there_is_not(rest: Rest, shop: Shop, phase: str, schema: str, state: str) -> None:
    def change(descriptor: dict[str, Any]) -> None:
        descriptor["_schema-version"] = schema
        descriptor["modules"][1]["hooks"] = [{"name": "bye", "type": "task", "phases": [phase]}]

    shop.change = change
    assert shop.deploy("1.0.0")["state"] == state


def test_routes_that_the_descriptor_no_longer_names_go(rest: Rest, shop: Shop) -> None:
    def change(descriptor: dict[str, Any]) -> None:
        descriptor["modules"][1]["parameters"] = {"hosts": ["a", "b"], "domain": "example.com"}

    plain, shop.change = shop.change, change
    shop.deploy("1.0.0", "DEPLOY")
    assert [route.url for route in rest.cloud.space.routes_of("srv")] == ["a.example.com", "b.example.com"]
    shop.change = plain
    shop.deploy("2.0.0", "DEPLOY")
    assert [route.url for route in rest.cloud.space.routes_of("srv")] == [LIVE["srv"]]


def test_versions_that_are_kept_and_come_back(rest: Rest, shop: Shop) -> None:
    def kept() -> list[App]:
        return rest.cloud.space.apps_of(MTA, "mta-backup")

    shop.deploy("1.0.0")
    refused = rest.start("ROLLBACK_MTA")
    assert rest.wait(refused, "ERROR")["errorType"] == "CONTENT"
    rest.act(refused, "abort")
    shop.deploy("2.0.0", shouldBackupPreviousVersion="true")
    assert {(app.version, app.state) for app in kept()} == {("1.0.0", "STOPPED")}
    shop.deploy("3.0.0", shouldBackupPreviousVersion="true")
    assert {app.version for app in kept()} == {"2.0.0"}
    shop.deploy("3.0.0", shouldBackupPreviousVersion="true")
    assert {app.version for app in kept()} == {"2.0.0"}
    for name in ("srv", "web"):
        rest.cloud.faults.hold_at(f"rollback {name}")
    operation = rest.start("ROLLBACK_MTA")
    wait_until(lambda: "srv-live" in apps(rest), "it has begun")
    assert behind(rest, LIVE["web"]) == ["3.0.0"]
    rest.cloud.faults.release()
    rest.wait(operation, "FINISHED")
    assert (apps(rest), behind(rest, LIVE["web"]), kept()) == ({"srv": "2.0.0", "web": "2.0.0"}, ["2.0.0"], [])
    assert not [text for text in steps(rest.operation(operation)) if text.startswith(("Creating", "Updating"))]


def test_a_second_operation_on_an_mta_stops_without_its_lock(rest: Rest, shop: Shop) -> None:
    shop.deploy("1.0.0")
    shop.testing("2.0.0")
    for kind in ("UNDEPLOY", "ROLLBACK_MTA"):
        found = rest.run(kind)
        assert (found["state"], found["acquiredLock"]) == ("ERROR", False)
    assert rest.run("UNDEPLOY", mtaId="other")["state"] == "FINISHED"
