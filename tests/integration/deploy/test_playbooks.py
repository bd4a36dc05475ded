# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks of deployments, with nothing that runs: archives from URLs, rollback, undeploy, wrong input."""

from __future__ import annotations

import hashlib
import json
import secrets
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.zdm.landscape.tests.integration.deploy.files import FileServer
from ansible_collections.zdm.landscape.tests.integration.deploy.kit import MTA, Bench
from ansible_collections.zdm.landscape.tests.landscape.processes import PATIENCE_S, wait_until
from ansible_collections.zdm.landscape.tests.landscape.routers import ansible_environment, ansible_playbook

Play = Callable[..., tuple[int, str]]
PASSWORD = "password of ci@example.com"


@pytest.fixture(name="play")
def _play(bench: Bench) -> Play:
    """Run a playbook; *deploy* are keys of the section of the description."""

    def call(
        playbook: str, *variables: str, deploy: dict[str, Any] | None = None, check: bool = False
    ) -> tuple[int, str]:
        section = {"cloud_foundry": bench.cloud.options(), "poll_interval": "20ms", **(deploy or {})}
        landscape = {
            "name": "us10",
            "store": {"path": str(bench.folder / "store")},
            "log_dir": str(bench.folder / "logs"),
            "deploy": section,
        }
        host = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        inventory = bench.folder / f"inventory-{secrets.token_hex(4)}.json"
        inventory.write_text(
            json.dumps(
                {"all": {"vars": {"zdm_landscape": landscape}}, "zdm_controller": {"hosts": {"localhost": host}}}
            )
        )
        rules = json.dumps({"mta_blue_green_ignore_rules": ["session-store-missing", "tenant-routes-not-kept"]})
        arguments = [part for variable in (rules, *variables) for part in ("-e", variable)]
        ended = subprocess.run(
            [str(ansible_playbook()), "-i", str(inventory), f"zdm.landscape.{playbook}", *arguments]
            + (["--check"] if check else []),
            env={**ansible_environment(bench.folder), "SSL_CERT_FILE": bench.cloud.ca_file},
            capture_output=True,
            text=True,
            check=False,
        )
        output = ended.stdout + ended.stderr
        assert PASSWORD not in output
        assert "wrong or secret" not in output
        return ended.returncode, output

    return call


def test_an_archive_from_a_url_is_fetched_once_and_pinned(bench: Bench, play: Play) -> None:
    bench.standing()
    with FileServer(str(bench.cloud.certificates.router), bench.archive("1.1.0")) as server:
        url = f"{server.url}/incidents_1.1.0.mtar"
        login = {"archive": {"username": "me", "password": "secret"}}
        code, output = play("deploy", f"mta_archive={url}", deploy=login)
        assert code == 0, output
        assert bench.live_version() == "1.1.0"
        assert server.sent == 1
        assert bench.document()["live"]["archive"]["path"] == url
        assert not list((bench.folder / "logs" / "downloads").iterdir())
        code, output = play("deploy", f"mta_archive={url}", f"mta_checksum=sha256:{'0' * 64}", deploy=login)
        assert code == 2
        code, output = play(
            "deploy", f"mta_archive={url}", deploy={"archive": {"username": "me", "password": "wrong or secret"}}
        )
        assert code == 2
    assert len(bench.operations()) == 2


def test_an_archive_of_this_host_has_the_checksum_that_was_given(bench: Bench, play: Play) -> None:
    archive = bench.archive("1.0.0")
    code, output = play("deploy", f"mta_archive={archive}", f"mta_checksum=sha256:{'0' * 64}")
    assert code == 2
    assert "has the checksum sha256:" in output
    assert bench.operations() == []
    digest = hashlib.md5(Path(archive).read_bytes(), usedforsecurity=False).hexdigest()
    code, output = play("deploy", f"mta_archive={archive}", f"mta_checksum=md5:{digest}")
    assert code == 0, output


def test_the_service_fetches_it_and_this_host_reads_it_once(bench: Bench, play: Play) -> None:
    bench.standing()
    with FileServer(str(bench.cloud.certificates.router), bench.archive("1.1.0")) as server:
        deploy = {"archive": {"username": "me", "password": "secret"}, "upload": "service"}
        code, output = play("deploy", f"mta_archive={server.url}/incidents_1.1.0.mtar", deploy=deploy)
        assert code == 0, output
        assert server.sent == 2
    assert bench.live_version() == "1.1.0"


def test_of_two_playbooks_one_goes_on_and_the_other_is_told_so(bench: Bench, play: Play) -> None:
    """The one that was second takes nothing away from the first."""
    bench.standing()
    there = bench.cloud.faults.hold_at("start mtx-idle")
    secret = "wrong or secret" * 5
    sessions = {"modules": ["approuter"], "secret": secret}
    with (
        FileServer(str(bench.cloud.certificates.router), bench.archive("1.1.0")) as server,
        ThreadPoolExecutor(2) as pool,
    ):
        deploy = {"archive": {"username": "me", "password": "secret"}, "sessions": sessions}
        url = f"mta_archive={server.url}/incidents_1.1.0.mtar"
        first = pool.submit(play, "deploy", url, deploy=deploy)
        assert there.wait(PATIENCE_S)
        second = pool.submit(play, "deploy", url, deploy=deploy)
        wait_until(lambda: server.sent == 2, "both have the archive")
        wait_until(lambda: bench.waiting() >= 2, "both wait for the operation")
        files = [path for path in (bench.folder / "logs").rglob("*") if path.is_file()]
        assert not [path for path in files if secret.encode() in path.read_bytes()]
        bench.cloud.faults.release()
        ended = [first.result(), second.result()]
    assert sorted(code for code, _output in ended) == [0, 2], ended
    (lost,) = [output for code, output in ended if code]
    assert "is at work on the MTA incidents. Let it end; the same command goes on from where it is." in lost
    assert "cf deploy" not in lost
    assert (bench.live_version(), len(bench.operations())) == ("1.1.0", 2)
    assert not list((bench.folder / "logs" / "downloads").iterdir())


def test_an_abort_leaves_no_copy_and_tells_what_it_has_done(bench: Bench, play: Play) -> None:
    bench.standing()
    with FileServer(str(bench.cloud.certificates.router), bench.archive("1.1.0")) as server:
        url, login = (
            f"mta_archive={server.url}/incidents_1.1.0.mtar",
            {"archive": {"username": "me", "password": "secret"}},
        )
        code, output = play("deploy", url, "mta_state=aborted", deploy=login)
        assert code == 0, output
        assert f"{MTA}: there was nothing to abort" in output
    assert not list((bench.folder / "logs" / "downloads").iterdir())


def test_the_choices_stand_on_lines_of_their_own(bench: Bench, play: Play) -> None:
    bench.standing()
    tasks = bench.folder / "smoke.yml"
    tasks.write_text(
        "- ansible.builtin.assert:\n    that: mta_blue_green_phase == 'idle'\n    fail_msg: The page is red\n"
    )
    code, output = play(
        "deploy",
        f"mta_archive={bench.archive('1.1.0')}",
        f"mta_blue_green_tasks={tasks}",
        deploy={"keep_previous": True},
    )
    assert code == 2
    assert "The page is red.\nThe new version is live. Choose:\n1. Mend the cause" in output
    assert "\n2. Go back to version 1.0.0: deploy its archive with" in output
    assert f"\n3. Go back to it within seconds: zdm.landscape.rollback -e mta_id={MTA}" in output


def test_there_and_back_and_away(bench: Bench, play: Play) -> None:
    bench.standing()
    kept = {"keep_previous": True}
    code, output = play("deploy", f"mta_archive={bench.archive('1.1.0')}", deploy=kept)
    assert code == 0, output
    assert f"{MTA} 1.1.0: deployed" in output
    code, output = play("rollback", f"mta_id={MTA}", check=True)
    assert code == 0, output
    assert bench.live_version() == "1.1.0"
    code, output = play("rollback", f"mta_id={MTA}")
    assert code == 0, output
    assert bench.live_version() == "1.0.0"
    code, output = play("undeploy", f"mta_id={MTA}")
    assert code == 2
    assert f"Confirm it with -e mta_undeploy_confirm={MTA}" in output
    assert bench.live_version() == "1.0.0"
    code, output = play("undeploy", f"mta_id={MTA}", f"mta_undeploy_confirm={MTA}")
    assert code == 0, output
    assert not bench.cloud.space.apps
    assert bench.cloud.space.services
    code, output = play("undeploy", f"mta_id={MTA}", f"mta_undeploy_confirm={MTA}")
    assert (code, "changed=0" in output) == (0, True), output


def test_the_session_secret_is_a_secure_parameter_where_that_is_wanted(bench: Bench, play: Play) -> None:
    secret = "wrong or secret" * 5
    sessions = {"modules": ["approuter"], "secret": secret, "secure": True}
    code, output = play("deploy", f"mta_archive={bench.archive('1.0.0')}", deploy={"sessions": sessions})
    assert code == 0, output
    (started,) = [request.body for request in bench.cloud.requests if b"isSecurityEnabled" in request.body]
    assert b'"isSecurityEnabled": "true"' in started
    assert f"__mta-secure-{MTA}" in bench.cloud.space.services
    files = [request.body for request in bench.cloud.requests if request.target.endswith("/files")]
    (secure,) = [body for body in files if secret.encode() in body]
    assert b'filename="__mta.secure.mtaext"' in secure
    assert not list(bench.folder.rglob("session.mtaext"))


@pytest.mark.parametrize(
    ("playbook", "variables", "message"),
    [
        ("deploy", (), "Name the archive: -e mta_archive=FILE"),
        ("deploy", ("mta_archive=/nowhere.mtar",), "There is no archive /nowhere.mtar"),
        ("undeploy", (), "Name the MTA: -e mta_id=ID"),
        ("rollback", ("mta_id=unknown",), "The MTA unknown is not deployed here"),
    ],
)
def test_wrong_input(bench: Bench, play: Play, playbook: str, variables: tuple[str, ...], message: str) -> None:
    code, output = play(playbook, *variables)
    assert code == 2
    assert message in output
    assert bench.operations() == []


def test_a_description_with_what_the_service_does_not_know(bench: Bench, play: Play) -> None:
    archive = f"mta_archive={bench.archive('1.0.0')}"
    code, output = play("deploy", archive, deploy={"parameters": {"noRestartSubscribedApp": True}})
    assert code == 2
    assert "Did you mean noRestartSubscribedApps?" in output
    code, output = play("deploy", archive, deploy={"keep_previous": "perhaps"})
    assert code == 2
    assert "zdm_landscape.deploy.keep_previous" in output
    assert Path(bench.folder / "logs").exists() or bench.operations() == []


def test_an_error_is_told_in_sentences(bench: Bench, play: Play) -> None:
    bench.standing()
    bench.cloud.faults.fail("mtx-idle", "No space left on the disk", times=9)
    code, output = play("deploy", f"mta_archive={bench.archive('1.1.0')}")
    assert code == 2
    assert "No space left on the disk. The live version was not touched" in output
    assert "The MTA :" not in output
    assert f"{MTA} 1.0.0: aborted" not in output
