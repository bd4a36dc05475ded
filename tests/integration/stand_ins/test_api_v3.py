# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The API v3: what tells of applications and their instances, and what starts and stops them."""

from __future__ import annotations

import base64
import threading
from typing import Any
from urllib.parse import urlencode

import pytest
from ansible_collections.zdm.landscape.tests.cloud.api import AUDITOR, JWT_BEARER
from ansible_collections.zdm.landscape.tests.cloud.cloud import Cloud
from ansible_collections.zdm.landscape.tests.cloud.runners import NoRunner
from ansible_collections.zdm.landscape.tests.integration.stand_ins.kit import MTA, Rest, Shop
from ansible_collections.zdm.landscape.tests.landscape.processes import wait_until


class Held(NoRunner):
    """Applications start and end when the test lets them."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.fails = False

    def start(self, app_name: str, module_name: str, env: Any, content: bytes) -> int:
        self.go.wait(60)
        if self.fails:
            raise RuntimeError("it crashes")
        return super().start(app_name, module_name, env, content)

    def stop(self, app_name: str) -> None:
        self.go.wait(60)
        super().stop(app_name)


@pytest.fixture(name="held")
def _held(cloud: Cloud, shop: Shop) -> Held:
    """A deployed MTA, from now on with a runner that waits."""
    shop.deploy("1.0.0")
    runner = Held()
    cloud.space.runner = runner
    return runner


def test_an_application_is_stopped_and_started_after_the_answer(rest: Rest, held: Held) -> None:
    guid = rest.app("srv")["guid"]
    assert (rest.app("srv")["state"], rest.instance("srv")) == ("STARTED", "RUNNING")
    reply = rest.post(f"/v3/apps/{guid}/actions/stop")
    assert (reply.status, reply.json()["state"]) == (200, "STOPPED")
    wait_until(lambda: rest.instance("srv") == "STOPPING", "it ends")
    assert rest.get(f"/v3/apps/{guid}").json()["state"] == "STOPPED"
    assert not rest.cloud.space.answers("my-org-dev-srv.apps.localhost")
    held.go.set()
    wait_until(lambda: rest.instance("srv") == "DOWN", "it has ended")
    held.go.clear()
    assert rest.post(f"/v3/apps/{guid}/actions/start").json()["state"] == "STARTED"
    wait_until(lambda: rest.instance("srv") == "STARTING", "it starts")
    held.go.set()
    wait_until(lambda: rest.instance("srv") == "RUNNING", "it runs")
    assert rest.cloud.space.answers("my-org-dev-srv.apps.localhost")
    assert rest.post(f"/v3/apps/{guid}/actions/restart").json()["state"] == "STARTED"
    wait_until(lambda: rest.instance("srv") == "RUNNING", "it runs again")


def test_the_last_wish_counts(rest: Rest, held: Held) -> None:
    guid = rest.app("srv")["guid"]
    for action in ("stop", "start", "stop", "start", "stop"):
        assert rest.post(f"/v3/apps/{guid}/actions/{action}").status == 200
    held.go.set()
    wait_until(lambda: rest.instance("srv") == "DOWN", "it has ended")
    assert rest.app("srv")["state"] == "STOPPED"


def test_an_application_that_does_not_start_has_crashed(rest: Rest, held: Held) -> None:
    held.go.set()
    rest.stop("srv")
    held.fails = True
    rest.post(f"/v3/apps/{rest.app('srv')['guid']}/actions/start")
    wait_until(lambda: rest.instance("srv") == "CRASHED", "it has crashed")
    assert rest.app("srv")["state"] == "STARTED"


def test_processes_tasks_and_metadata(rest: Rest, shop: Shop) -> None:
    def change(descriptor: dict[str, Any]) -> None:
        descriptor["modules"][1]["parameters"] = {"tasks": [{"name": "migrate", "command": "npm run migrate"}]}

    shop.change = change
    shop.deploy("1.0.0")
    app = rest.app("srv")
    assert {"mta_id": MTA, "mta_version": "1.0.0", "mta_module": '{"name": "srv"}'}.items() <= app["metadata"][
        "annotations"
    ].items()
    (process,) = rest.get(f"/v3/processes?app_guids={app['guid']}&types=web").json()["resources"]
    assert (process["type"], process["relationships"]["app"]["data"]["guid"]) == ("web", app["guid"])
    assert rest.get("/v3/processes").json()["pagination"]["total_results"] == 2
    stats = rest.get(f"/v3/processes/{process['guid']}/stats").json()
    assert stats == rest.get(f"/v3/apps/{app['guid']}/processes/web/stats").json()
    assert rest.get(f"/v3/apps/{app['guid']}/processes").json()["resources"] == [process]
    (task,) = rest.get(f"/v3/apps/{app['guid']}/tasks").json()["resources"]
    assert (task["name"], task["state"]) == ("migrate", "SUCCEEDED")
    assert rest.get(f"/v3/apps/{app['guid']}/tasks?states=RUNNING").json()["resources"] == []
    assert rest.get("/v3/processes/none/stats").status == 404
    assert rest.get("/v3/processes?instances=1").status == 400


def test_who_only_looks_changes_nothing(rest: Rest, shop: Shop) -> None:
    shop.deploy("1.0.0")
    guid = rest.app("srv")["guid"]
    rest.cloud.uaa.users[rest.user].role = AUDITOR
    assert rest.post(f"/v3/apps/{guid}/actions/stop").status == 403
    assert rest.send("DELETE", f"/v3/apps/{guid}").status == 403
    assert rest.app("srv")["state"] == "STARTED"


def test_user_provided_services(rest: Rest, shop: Shop) -> None:
    body = {
        "type": "user-provided",
        "name": "key",
        "credentials": {"encryptionKey": "k"},
        "relationships": {"space": {"data": {"guid": rest.cloud.space.guid}}},
    }
    assert rest.post("/v3/service_instances", body).status == 201
    assert rest.post("/v3/service_instances", body).status == 422
    assert rest.post("/v3/service_instances", {**body, "name": "other", "type": "managed"}).status == 422
    (found,) = rest.get("/v3/service_instances?names=key").json()["resources"]
    assert (found["type"], "credentials" in found) == ("user-provided", False)
    assert rest.send("DELETE", f"/v3/service_instances/{found['guid']}").status == 204
    assert rest.send("DELETE", f"/v3/service_instances/{found['guid']}").status == 404
    shop.deploy("1.0.0")
    (auth,) = rest.get("/v3/service_instances?names=auth").json()["resources"]
    assert rest.send("DELETE", f"/v3/service_instances/{auth['guid']}").status == 422


def granted(rest: Rest, **form: str) -> int:
    login = base64.b64encode(b"cf:").decode()
    headers = {"Authorization": f"Basic {login}", "Content-Type": "application/x-www-form-urlencoded"}
    return rest.send("POST", "/oauth/token", urlencode(form).encode(), headers).status


def test_ways_to_log_in(rest: Rest) -> None:
    uaa, user, password = rest.cloud.uaa, rest.user, f"password of {rest.user}"
    uaa.users[user].origin = "sap.custom"
    hint = '{"origin":"sap.custom"}'
    assert granted(rest, grant_type="password", username=user, password=password) == 401
    assert granted(rest, grant_type="password", username=user, password=password, login_hint="x") == 401
    assert granted(rest, grant_type="password", username=user, password=password, login_hint=hint) == 200
    code = uaa.passcode(user)
    assert [granted(rest, grant_type="password", passcode=code) for _time in range(2)] == [200, 401]
    assert granted(rest, grant_type=JWT_BEARER, assertion=uaa.assertion(user)) == 200
    assert granted(rest, grant_type=JWT_BEARER, assertion=uaa.assertion(user, -1)) == 401
    assert granted(rest, grant_type=JWT_BEARER, assertion="x") == 401
