# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways to the service and back: parts, URLs, secure parameters, rollback, undeploy."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, Refused, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.http import web
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud import files
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.cloud_foundry import CloudFoundry
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.info import keep_logs, read_info
from ansible_collections.zdm.landscape.tests.cloud.standin import Answer
from ansible_collections.zdm.landscape.tests.integration.deploy.files import FileServer
from ansible_collections.zdm.landscape.tests.integration.deploy.kit import MTA, Bench

UPLOAD = r"/files$"
SECRET = "s3cr3t" * 12


@pytest.fixture(name="live")
def _live(bench: Bench) -> Bench:
    """Version 1.0.0 is live."""
    bench.standing()
    return bench


# -- parts ----------------------------------------------------------------------------------------


def test_a_long_archive_goes_in_parts_and_what_is_there_is_not_sent_again(
    live: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PART_BYTES", 200)
    parts = -(-Path(live.archive("1.1.0")).stat().st_size // 200)
    assert parts > 4
    live.cloud.faults.lose("POST", UPLOAD, executed=False, times=1)
    before = live.sent("POST", "/files")
    assert live.run("testing", "1.1.0").outcome == "testing"
    assert live.sent("POST", "/files") - before == parts + 1
    assert "MB of the archive are there" in live.texts()
    assert live.run("deployed", "1.1.0").outcome == "deployed"
    assert live.live_version() == "1.1.0"


def test_a_run_that_died_in_its_upload_goes_on_with_the_part_that_is_missing(
    live: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PART_BYTES", 200)
    parts = -(-Path(live.archive("1.1.0")).stat().st_size // 200)
    send = files.Files._upload

    def dying(self: files.Files, piece: files.Piece) -> web.Answer:
        if piece.name.endswith(".part.3"):
            raise Unreachable("The network is gone.", "")
        return send(self, piece)

    with monkeypatch.context() as patch:
        patch.setattr(files.Files, "_upload", dying)
        with pytest.raises(Unreachable):
            live.run("testing", "1.1.0")
    before = live.sent("POST", "/files")
    assert live.run("testing", "1.1.0").outcome == "testing"
    assert live.sent("POST", "/files") - before == parts - 3


# -- archives by URL ------------------------------------------------------------------------------


def test_the_service_fetches_an_archive_itself(live: Bench) -> None:
    with FileServer(str(live.cloud.certificates.router), live.archive("1.1.0")) as server:
        archive = f"{server.url}/incidents_1.1.0.mtar"
        login = {"archive_username": "me", "archive_password": "secret", "archive_ca_file": live.cloud.ca_file}
        assert live.run("testing", archive=archive, upload="service", **login).outcome == "testing"
        assert live.sent("POST", "/files/async") == 1
        assert live.document()["attempt"]["archive"]["path"] == archive
        assert "secret" not in live.texts()
        login["archive_password"] = "wrong"
        with pytest.raises(InputError, match="answers with status 401"):
            live.run("testing", archive=archive, upload="service", **login)


def test_the_service_fetches_what_this_host_has_read_already(live: Bench) -> None:
    """In a namespace too, whose jobs only those see who name it."""
    path = live.archive("1.1.0")
    with FileServer(str(live.cloud.certificates.router), path) as server:
        url = f"{server.url}/incidents_1.1.0.mtar?signature=hidden"
        login = {"archive_username": "me", "archive_password": "secret"}
        result = live.run("testing", archive=path, archive_source=url, upload="service", namespace="blue", **login)
        assert (result.outcome, server.sent) == ("first_deployment", 1)
    assert "hidden" not in f"{live.texts()} {live.document()}"
    with pytest.raises(InputError, match="archive_headers are given with upload service") as refused:
        live.run("testing", archive=path, archive_source=url, upload="service", archive_headers={"X-Key": "k"})
    assert "archive_username" in refused.value.advice


def test_a_job_that_nobody_knows_yet_or_any_more_is_asked_for_again(live: Bench) -> None:
    path = live.archive("1.1.0")
    live.cloud.faults.answer("GET", "/files/jobs/", Answer(404), times=2)
    with FileServer(str(live.cloud.certificates.router), path) as server:
        login = {"archive_username": "me", "archive_password": "secret"}
        url = f"{server.url}/incidents_1.1.0.mtar"
        assert live.run("testing", archive=path, archive_source=url, upload="service", **login).outcome == "testing"


def test_why_the_service_can_not_fetch_is_told_in_sentences(live: Bench) -> None:
    path = live.archive("1.1.0")
    with pytest.raises(Refused, match=r"HTTPS required\. Correct the URL"):
        live.run("testing", archive=path, archive_source="http://localhost/incidents_1.1.0.mtar", upload="service")


def test_an_archive_that_is_not_the_one_that_was_meant_is_refused(live: Bench) -> None:
    path = live.archive("1.1.0")
    before = len(live.operations())
    for checksum, message in (
        (f"sha256:{'0' * 64}", "has the checksum sha256:[0-9a-f]{64}, not sha256:000"),
        ("sha256", "is no checksum"),
        ("crc:00000000", "is no checksum"),
    ):
        with pytest.raises(InputError, match=message):
            live.run("testing", archive=path, archive_checksum=checksum)
    assert (len(live.operations()), live.sent("POST", "/files")) == (before, 0)


# -- secure parameters ----------------------------------------------------------------------------


def test_secure_parameters_are_in_the_encrypted_extension_alone(live: Bench) -> None:
    def refer(descriptor: dict[str, object]) -> None:
        modules = descriptor["modules"]
        assert isinstance(modules, list)
        modules[0]["properties"] = {"SESSION_SECRET": "${session-secret}"}

    path = live.archive("1.1.0", refer)
    for _again in range(2):
        result = live.run("testing", archive=path, secure_parameters={"session-secret": SECRET})
        assert result.outcome == "testing"
    (body,) = [
        request.body
        for request in live.cloud.requests
        if request.method == "POST" and b"isSecurityEnabled" in request.body
    ]
    assert b'"isSecurityEnabled": "true"' in body
    assert live.sent("POST", "/v3/service_instances") == 1
    assert f"__mta-secure-{MTA}" in live.cloud.space.services
    assert SECRET not in live.texts()
    assert SECRET not in str(live.document())


def test_another_secret_is_another_deployment(live: Bench) -> None:
    for secret, outcome in ((SECRET, "deployed"), (SECRET, "unchanged"), (SECRET[::-1], "deployed")):
        assert live.run("deployed", "1.1.0", secure_parameters={"session-secret": secret}).outcome == outcome


# -- back -----------------------------------------------------------------------------------------


def test_the_version_that_was_kept_comes_back_once(live: Bench) -> None:
    live.deployed("1.1.0")
    live.run("deployed", "1.2.0", keep_previous=True)
    result = live.run("previous", mta_id=MTA)
    assert (result.outcome, result.version_before, result.mta["version"]) == ("rolled_back", "1.2.0", "1.1.0")
    assert live.live_version() == "1.1.0"
    again = live.run("previous", mta_id=MTA)
    assert (again.outcome, again.changed) == ("unchanged", False)
    assert live.run("deployed", "1.1.0").outcome == "unchanged"


def test_a_version_that_was_not_kept_does_not_come_back(live: Bench) -> None:
    live.deployed("1.1.0")
    deployment, stack = live.deployment("previous", mta_id=MTA)
    with stack, pytest.raises(Refused, match="was not kept"):
        deployment.predict()
    with pytest.raises(Refused, match="version before of incidents was not kept") as refused:
        live.run("previous", mta_id=MTA)
    assert "version_rule ALL" in refused.value.advice


def test_tenants_that_were_upgraded_keep_the_version_before_away(live: Bench) -> None:
    live.deployed("1.1.0")
    live.run("testing", "1.2.0", keep_previous=True, upgrade="begun")
    live.run("deployed", "1.2.0", keep_previous=True, upgrade="done")
    with pytest.raises(Refused, match="Tenants were upgraded since the version before"):
        live.run("previous", mta_id=MTA)
    assert live.run("previous", mta_id=MTA, abort_upgraded=True).outcome == "rolled_back"


def test_of_a_first_deployment_nothing_was_kept(bench: Bench) -> None:
    bench.run("deployed", "1.0.0", keep_previous=True)
    with pytest.raises(Refused, match="version before of incidents was not kept"):
        bench.run("previous", mta_id=MTA)


def test_what_somebody_else_has_deployed_since_may_have_upgraded_tenants(live: Bench) -> None:
    live.run("deployed", "1.1.0", keep_previous=True)
    other = live.foreign("1.2.0")
    live.cloud.controller.act(other.id, "resume")
    live.cloud.controller.wait(other.id, "FINISHED")
    with pytest.raises(Refused, match="Tenants may have been upgraded since the version before"):
        live.run("previous", mta_id=MTA)
    assert live.live_version() == "1.2.0"


def test_an_mta_that_is_not_deployed_is_none(bench: Bench) -> None:
    """The service answers 404 for it, before its first deployment and after its last."""
    cloud = CloudFoundry(bench.cloud.options())
    for _time in range(2):
        assert read_info(cloud, bench.store, MTA, "").mtas == []
        assert bench.run("aborted", mta_id=MTA).outcome == "absent"
        assert bench.run("absent", mta_id=MTA).outcome == "unchanged"
        assert bench.run("deployed", "1.0.0").outcome == "first_deployment"
        assert [mta["version"] for mta in read_info(cloud, bench.store, MTA, "").mtas] == ["1.0.0"]
        assert bench.run("absent", mta_id=MTA).outcome == "undeployed"


def test_an_undeployed_mta_is_deployed_as_a_first_one(live: Bench) -> None:
    result = live.run("absent", mta_id=MTA)
    assert (result.outcome, result.changed, live.cloud.space.apps) == ("undeployed", True, {})
    assert live.cloud.space.services
    again = live.run("absent", mta_id=MTA)
    assert (again.outcome, again.changed) == ("unchanged", False)
    assert live.run("deployed", "1.0.0").outcome == "first_deployment"


def test_services_go_only_when_told(live: Bench) -> None:
    live.run("absent", mta_id=MTA, delete_services=True)
    assert live.cloud.space.services == {}


def test_nothing_is_undeployed_while_a_version_waits_in_its_testing_phase(live: Bench) -> None:
    live.run("testing", "1.1.0")
    with pytest.raises(Refused, match="Another archive"):
        live.run("absent", mta_id=MTA)


# -- logs -----------------------------------------------------------------------------------------


def test_the_logs_of_anybodys_operation_are_kept(live: Bench) -> None:
    foreign = live.foreign()
    deployment, stack = live.deployment("aborted", mta_id=MTA)
    with stack:
        kept = keep_logs(deployment._cloud, foreign.id, str(live.folder / "kept"))
        assert kept
        assert all(Path(file).stat().st_size for file in kept)
        with pytest.raises(InputError, match="knows no operation nobodys"):
            keep_logs(deployment._cloud, "nobodys", str(live.folder / "kept"))
