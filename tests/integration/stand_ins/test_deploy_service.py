# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The deploy service's REST API: as strict and as lax as the real one."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.zdm.landscape.tests.cloud.cloud import Cloud
from ansible_collections.zdm.landscape.tests.cloud.standin import Answer, Request, StandIn
from ansible_collections.zdm.landscape.tests.integration.stand_ins.kit import MTA, Rest, Shop
from ansible_collections.zdm.landscape.tests.landscape.processes import wait_until


def test_unknown_parameters_and_queries_are_dropped_without_a_word(rest: Rest, shop: Shop) -> None:
    operation = shop.start("1.0.0", skipOwnershipValidation="true", noConfrim="true", noConfirm=True)
    assert rest.wait(operation)["state"] == "FINISHED"
    assert rest.get(f"{operation}?nothing=1").status == 200
    assert "noConfirm" in rest.cloud.controller.operations[operation.rpartition("/")[2]].parameters
    misspelt = shop.start("2.0.0", noConfrim="true")
    assert rest.wait(misspelt)["state"] == "ACTION_REQUIRED"


@pytest.mark.parametrize(
    ("kind", "parameters", "status", "text"),
    [
        ("DEPLOY", {"mtaId": MTA}, 400, "Required parameters appArchiveId are not set!"),
        ("UNDEPLOY", {}, 400, "Required parameters mtaId are not set!"),
        ("REDEPLOY", {}, 400, "REDEPLOY"),
        ("UNDEPLOY", {"mtaId": MTA, "deleteServices": "yes"}, 500, "Parameter is not boolean yes"),
        ("DEPLOY", {"appArchiveId": "x", "versionRule": "LOWER"}, 400, "LOWER"),
        ("DEPLOY", {"appArchiveId": "x", "startTimeout": "soon"}, 400, "soon"),
    ],
)
def test_what_is_refused_at_the_start(
    rest: Rest, kind: str, parameters: dict[str, str], status: int, text: str
) -> None:
    reply = rest.post(f"{rest.base}/operations", {"processType": kind, "parameters": parameters})
    assert (reply.status, text in reply.text) == (status, True), reply.text
    assert rest.get(f"{rest.base}/operations").json() == []


def test_a_file_that_is_not_there_is_an_error_of_the_operation(rest: Rest) -> None:
    found = rest.run("DEPLOY", appArchiveId="none")
    assert (found["state"], found["errorType"], found["acquiredLock"]) == ("ERROR", "CONTENT", False)


def test_mtas_by_name_are_not_found_when_there_are_none(rest: Rest, shop: Shop) -> None:
    assert (rest.mtas().status, rest.mtas().json()) == (200, [])
    reply = rest.mtas(f"?name={MTA}")
    assert (reply.status, MTA in reply.text) == (404, True)
    assert rest.mtas(f"?name={MTA}&namespace=blue").status == 404
    shop.deploy("1.0.0")
    (mta,) = rest.mtas(f"?name={MTA}").json()
    assert mta["metadata"] == {"id": MTA, "version": "1.0.0", "namespace": None}
    assert mta["services"] == ["auth"]
    assert next(module for module in mta["modules"] if module["appName"] == "srv") == {
        "moduleName": "srv",
        "appName": "srv",
        "services": ["auth"],
        "providedDendencyNames": ["api"],
        "uris": ["my-org-dev-srv.apps.localhost"],
    }
    assert rest.get(f"{rest.base}/mtas/{MTA}").json() == mta
    assert rest.run("UNDEPLOY")["state"] == "FINISHED"
    assert rest.mtas(f"?name={MTA}").status == 404


def test_an_mta_of_mixed_versions_has_none(rest: Rest, shop: Shop) -> None:
    def version() -> Any:
        (mta,) = rest.mtas(f"?name={MTA}").json()
        return mta["metadata"]["version"]

    shop.deploy("1.0.0")
    operation = shop.testing("2.0.0")
    assert version() is None
    assert rest.act(operation, "abort") == 202
    assert version() is None
    assert {rest.app(name)["metadata"]["annotations"]["mta_version"] for name in ("srv-live", "web-live")} == {"1.0.0"}
    shop.deploy("3.0.0", versionRule="HIGHER")  # which is ignored while the version is not known
    assert version() == "3.0.0"
    shop.deploy("4.0.0", modulesForDeployment="srv")
    assert version() is None


def test_operations_are_listed_oldest_first_and_the_last_ones_newest_first(rest: Rest, shop: Shop) -> None:
    started = [shop.deploy(version)["processId"] for version in ("1.0.0", "2.0.0", "3.0.0")]

    def listed(query: str = "") -> list[str]:
        return [view["processId"] for view in rest.get(f"{rest.base}/operations{query}").json()]

    assert listed() == listed(f"?mtaId={MTA}&state=FINISHED&state=ERROR") == started
    assert listed("?last=2") == started[:0:-1]
    assert (listed("?mtaId=none"), listed("?state=ERROR")) == ([], [])
    assert rest.get(f"{rest.base}/operations?state=DONE").status == 400


def test_the_error_type_is_told_of_one_operation_alone(rest: Rest, shop: Shop) -> None:
    rest.cloud.faults.fail("srv-idle", "no memory", "INFRASTRUCTURE")
    operation = shop.start("1.0.0")
    assert rest.wait(operation)["errorType"] == "INFRASTRUCTURE"
    (listed,) = rest.get(f"{rest.base}/operations").json()
    assert (listed["state"], listed["errorType"], listed["messages"]) == ("ERROR", None, [])
    assert rest.act(operation, "retry") == 202
    assert rest.wait(operation)["state"] == "FINISHED"
    assert rest.wait(operation)["errorType"] is None


def test_logs_are_listed_by_their_ids_alone(rest: Rest, shop: Shop) -> None:
    operation = shop.start("1.0.0")
    rest.wait(operation, "FINISHED")
    logs = rest.get(f"{operation}/logs").json()
    assert logs[0] == {"id": "OPERATION.log"}
    assert {"id": "srv-idle.log"} in logs
    content = rest.get(f"{operation}/logs/srv-idle.log/content")
    assert content.headers["Content-Type"].startswith("text/plain")
    assert ('"srv-idle" started' in content.text, '"web-idle"' in content.text) == (True, False)
    assert rest.get(f"{operation}/logs/none/content").status == 404


def test_a_token_without_a_user_is_an_internal_error(cloud: Cloud) -> None:
    rest = Rest(cloud)
    form = b"grant_type=client_credentials"
    login = base64.b64encode(b"deployer:secret of deployer").decode()
    headers = {"Authorization": f"Basic {login}", "Content-Type": "application/x-www-form-urlencoded"}
    rest.token = rest.send("POST", "/oauth/token", form, headers).json()["access_token"]
    assert rest.get("/v3/organizations").status == 200
    assert rest.get(f"{rest.base}/operations").status == 500
    assert rest.mtas().status == 500


def test_bodies_above_the_limit_are_not_taken(rest: Rest) -> None:
    assert rest.post(f"{rest.base}/operations", b" " * ((1 << 20) + 1)).status == 413
    rest.cloud.uploads.max_file = 4096
    assert rest.upload("a.mtar", b"x" * 2048).status == 201
    assert rest.upload("a.mtar", b"x" * 4096).status == 413


def test_parts_are_joined_by_their_numbers(rest: Rest, shop: Shop) -> None:
    content = shop.archive("1.0.0").read_bytes()
    size = len(content) // 11 + 1
    parts = [content[start : start + size] for start in range(0, len(content), size)]
    assert len(parts) == 11
    ids = [rest.upload(f"shop.mtar.part.{number}", part).json()["id"] for number, part in enumerate(parts)]
    found = rest.run("BLUE_GREEN_DEPLOY", appArchiveId=",".join(sorted(ids)))
    assert found["state"] == "FINISHED", found
    assert rest.get(f"{rest.base}/files").json() == []


def test_parts_without_a_number_are_an_error(rest: Rest) -> None:
    ids = [rest.upload(name, b"x").json()["id"] for name in ("a.part.0", "a")]
    assert rest.run("DEPLOY", appArchiveId=",".join(ids))["errorType"] == "CONTENT"


# -- upload by URL ----------------------------------------------------------------------------------------


class FileServer(StandIn):
    """Serves an archive; ``go`` lets it answer."""

    def __init__(self, certificate: str, content: bytes) -> None:
        super().__init__(certificate)
        self.content, self.go = content, threading.Event()

    def answer(self, request: Request) -> Answer:
        self.go.wait(60)
        given = request.headers.get("authorization", "")
        if request.path.startswith("/private/") and given != "Basic " + base64.b64encode(b"me:secret").decode():
            return Answer(401, "who are you")
        return Answer(200, self.content)


@pytest.fixture(name="server")
def _server(cloud: Cloud, shop: Shop) -> Iterator[FileServer]:
    with FileServer(str(cloud.certificates.router), shop.archive("1.0.0").read_bytes()) as server:
        yield server
        server.go.set()


def fetch(rest: Rest, url: str, **more: Any) -> Any:
    body = {"file_url": base64.urlsafe_b64encode(url.encode()).decode(), **more}
    return rest.post(f"{rest.base}/files/async", body)


def ended(rest: Rest, location: str) -> dict[str, Any]:
    wait_until(lambda: rest.get(f"/api/v1/{location}").json()["status"] != "RUNNING", "the job ends")
    found: dict[str, Any] = rest.get(f"/api/v1/{location}").json()
    return found


def test_an_upload_by_url(rest: Rest, server: FileServer) -> None:
    first = fetch(rest, f"{server.url}/a.mtar")
    job = f"/api/v1/{first.headers['Location']}"
    assert (first.status, first.headers["Location"].startswith(f"spaces/{rest.cloud.space.guid}/files/jobs/")) == (
        202,
        True,
    )
    assert first.headers["x-cf-app-instance"]
    assert rest.get(job).json()["status"] == "RUNNING"
    again = fetch(rest, f"{server.url.replace('://', '://me:secret@')}/a.mtar")
    assert (again.status, again.headers["Location"]) == (303, first.headers["Location"])
    assert Rest(rest.cloud, "colleague@example.com").get(job).status == 404
    server.go.set()
    found = ended(rest, first.headers["Location"])
    assert rest.get(job).status == 201
    assert (found["mta_id"], found["schema_version"], found["file"]["name"]) == (MTA, "3.3", "a.mtar")
    assert rest.get(f"{rest.base}/files").json() == [found["file"]]
    assert rest.run("DEPLOY", appArchiveId=found["file"]["id"])["state"] == "FINISHED"


def test_too_many_uploads_by_url_at_a_time(rest: Rest, server: FileServer) -> None:
    rest.cloud.uploads.jobs_at_once = 1
    assert fetch(rest, f"{server.url}/a.mtar").status == 202
    refused = fetch(rest, f"{server.url}/b.mtar")
    assert (refused.status, refused.headers["Retry-After"]) == (429, "30")


def test_a_job_that_is_not_heard_of_asks_to_be_repeated(rest: Rest, server: FileServer) -> None:
    rest.cloud.uploads.stale_s = 0.0
    found = ended(rest, fetch(rest, f"{server.url}/a.mtar").headers["Location"])
    assert (found["status"], found["client_actions"]) == ("ERROR", ["RETRY_UPLOAD"])
    assert fetch(rest, f"{server.url}/a.mtar").status == 202


@pytest.mark.parametrize(
    ("path", "more", "error"),
    [
        ("/private/a.mtar", {"credentials": {"username": "me", "password": "secret"}}, None),
        ("/private/a.mtar", {}, "401"),
        ("/a", {}, "extension"),
    ],
)
def test_jobs_with_a_login_and_jobs_that_fail(
    rest: Rest, server: FileServer, path: str, more: dict[str, Any], error: str | None
) -> None:
    server.go.set()
    found = ended(rest, fetch(rest, server.url + path, **more).headers["Location"])
    assert (found["error"] is None) if error is None else (error in found["error"])
    assert found["status"] == ("FINISHED" if error is None else "ERROR")


def test_only_secure_servers_are_asked(rest: Rest) -> None:
    found = ended(rest, fetch(rest, "http://localhost:1/a.mtar").headers["Location"])
    assert "HTTPS required" in found["error"]
    assert fetch(rest, "x").status == 202
    assert rest.post(f"{rest.base}/files/async", {"file_url": "abcde"}).status == 400
    assert rest.post(f"{rest.base}/files", json.dumps({}).encode()).status == 400
