# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways to the service and back: parts, URLs, secure parameters, rollback, undeploy."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, Refused, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.http.web import Answer
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud import files
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.info import keep_logs
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

    def dying(self: files.Files, piece: files.Piece) -> Answer:
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
