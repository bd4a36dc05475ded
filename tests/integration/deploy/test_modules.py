# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules as Ansible runs them: check mode, diff, results, failures, messages as they come, and no secret
anywhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.zdm.landscape.plugins.modules import mta_deploy, mta_descriptor_info, mta_operation_info
from ansible_collections.zdm.landscape.tests.integration.deploy.files import FileServer
from ansible_collections.zdm.landscape.tests.integration.deploy.kit import MTA, Bench
from ansible_collections.zdm.landscape.tests.landscape.processes import IMPORT_ROOT

Run = Callable[..., dict[str, Any]]
PASSWORD = "password of ci@example.com"


@pytest.fixture(name="run")
def _run(bench: Bench, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a module in this process; the result is what it prints."""

    def call(module: Any = mta_deploy, check: bool = False, **args: Any) -> dict[str, Any]:
        common: dict[str, Any] = {}
        if module is not mta_descriptor_info:
            common |= {"store": {"path": str(bench.folder / "store")}, "cloud_foundry": bench.cloud.options()}
        if module is mta_deploy:
            common |= {"poll_interval": "10ms", "log_dir": str(bench.folder / "logs")}
        with (
            patch_module_args({**common, **args, "_ansible_check_mode": check, "_ansible_diff": True}),
            pytest.raises(SystemExit),
        ):
            module.main()
        printed = capsys.readouterr().out
        assert PASSWORD not in printed
        result: dict[str, Any] = json.loads(printed)
        return result

    return call


def test_check_mode_diff_and_results(bench: Bench, run: Run) -> None:
    run(archive=bench.archive("1.0.0"))
    archive = bench.archive("1.1.0")
    predicted = run(archive=archive, check=True)
    assert (predicted["changed"], predicted["outcome"], bench.live_version()) == (True, "deployed", "1.0.0")
    assert predicted["msg"] == f"{MTA}: starts an operation."
    assert (predicted["diff"]["before"], predicted["diff"]["after"]) == ("1.0.0\n", "1.1.0\n")
    testing = run(archive=archive, state="testing")
    assert (testing["changed"], testing["outcome"], testing["diff"]["after"]) == (True, "testing", "1.0.0\n")
    assert testing["operation"]["messages"][0]["text"].startswith("Operation ID: ")
    info = run(mta_operation_info, mta_id=MTA)
    assert (info["changed"], info["operations"][0]["ours"], info["operations"][0]["actions"]) == (
        False,
        True,
        ["abort", "resume"],
    )
    live = run(archive=archive)
    assert (live["outcome"], live["mta"]["version"], live["diff"]["before"]) == ("deployed", "1.1.0", "1.0.0\n")
    assert not run(archive=archive)["changed"]
    failed = run(archive=bench.archive("1.0.0"))
    assert (failed["failed"], failed["error"], failed["details"]["operation"]["state"]) == (
        True,
        "DeploymentFailed",
        "ERROR",
    )
    assert failed["advice"]


def test_the_lint_reads_archives_that_need_a_login(bench: Bench, run: Run) -> None:
    with FileServer(str(bench.cloud.certificates.router), bench.archive("1.0.0")) as server:
        given = {"archive": f"{server.url}/incidents_1.0.0.mtar", "archive_ca_file": bench.cloud.ca_file}
        assert "answers with status 401" in run(mta_descriptor_info, **given)["msg"]
        login = {"archive_username": "me", "archive_password": "secret"}
        assert run(mta_descriptor_info, **given, **login)["mta"]["id"] == MTA
        wrong = {"archive_checksum": f"sha256:{'0' * 64}"}
        assert "has the checksum sha256:" in run(mta_descriptor_info, **given, **login, **wrong)["msg"]


def test_wrong_arguments_fail_with_advice(bench: Bench, run: Run) -> None:
    missing = run(archive=str(bench.folder / "none.mtar"))
    assert (missing["failed"], missing["error"]) == (True, "InputError")
    assert "none.mtar can't be read: No such file" in missing["msg"]
    assert run()["error"] == "InputError"
    assert "fail" in run(archive=bench.archive("1.0.0"), on_error="ignore")["msg"]


def test_messages_appear_while_a_playbook_runs(bench: Bench) -> None:
    arguments = {
        "store": {"path": str(bench.folder / "store")},
        "cloud_foundry": {**bench.cloud.options(), "password": "{{ lookup('env', 'CF_PASSWORD') }}"},
        "archive": bench.archive("1.0.0"),
        "log_dir": str(bench.folder / "logs"),
        "poll_interval": "20ms",
    }
    play = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "tasks": [{"zdm.landscape.mta_deploy": arguments, "register": "done"}],
        }
    ]
    playbook = bench.folder / "deploy.yml"
    playbook.write_text(json.dumps(play))
    env = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(IMPORT_ROOT),
        "CF_PASSWORD": PASSWORD,
        "ANSIBLE_HOME": str(bench.folder / "home"),
        "NO_COLOR": "1",
    }
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", "-c", "local", "-vvv"]
    done = subprocess.run(
        [*command, "-e", f"ansible_python_interpreter={sys.executable}", str(playbook)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f'{MTA}: Starting application "approuter-idle"...' in done.stderr
    log = (bench.folder / "logs" / "deployments.jsonl").read_text()
    assert PASSWORD not in done.stdout + done.stderr + log
    assert (bench.folder / "logs" / "deployments.jsonl").stat().st_mode & 0o777 == 0o600
    assert bench.live_version() == "1.0.0"
