# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mta_descriptor and mta_descriptor_info as Ansible runs them: check mode, diff, idempotence, reports, failures."""

from __future__ import annotations

import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor import values as descriptor_values
from ansible_collections.zdm.landscape.plugins.modules import mta_descriptor, mta_descriptor_info
from ansible_collections.zdm.landscape.tests.unit.mta.descriptors import FORMS, GUIDE

Run = Callable[..., dict[str, Any]]
SECRET = "VqO446NAgSd795NiBW7SXPvuKKH4pDso3qVcWC1GyLa2Zq6XASh0FNZ3b26ePlZe"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run a module on ``mta.yaml``; the result is what it prints."""

    def call(module: ModuleType, check: bool = False, **args: Any) -> dict[str, Any]:
        options = {
            "path": str(tmp_path / "mta.yaml"),
            **args,
            "_ansible_check_mode": check,
            "_ansible_diff": True,
            "_ansible_remote_tmp": str(tmp_path),
        }
        with (
            patch_module_args({key: value for key, value in options.items() if value is not None}),
            pytest.raises(SystemExit),
        ):
            module.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return call


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mta.yaml"
    path.write_text(GUIDE)
    return path


def test_it_is_predicted_made_and_kept(run: Run, file: Path) -> None:
    file.chmod(0o640)
    wanted = {"longest_upgrade": "30m", "sessions": {"modules": ["approuter"], "plan": "standard"}}
    predicted = run(mta_descriptor, check=True, **wanted)
    assert (predicted["changed"], file.read_text()) == (True, GUIDE)
    made = run(mta_descriptor, **wanted)
    assert (made["changed"], made["session_modules"], made["not_mended"], made["diff"]) == (
        True,
        ["approuter"],
        [],
        predicted["diff"],
    )
    assert {finding["severity"] for finding in made["findings"]} == {"hint"}
    assert file.read_text() == made["diff"]["after"] != made["diff"]["before"] == GUIDE
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert made["mta"]["id"] == "incident-management"
    written = file.stat()
    again = run(mta_descriptor, **wanted)
    assert (again["changed"], file.stat().st_mtime_ns) == (False, written.st_mtime_ns)
    assert again["diff"]["before"] == again["diff"]["after"]


def test_bytes_and_links_are_kept(run: Run, file: Path, tmp_path: Path) -> None:
    file.write_bytes(FORMS["windows lines"].encode())
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    assert run(mta_descriptor, path=str(link))["changed"]
    assert link.is_symlink()
    assert b"      srv-live: ${default-live-url}\r\nresources:\r\n" in file.read_bytes()


def test_every_part_can_be_left_out(run: Run, file: Path) -> None:
    file.write_text(GUIDE.replace("      keep-existing-routes: true\n", ""))
    assert not run(mta_descriptor, live_urls=False, keep_existing_routes=False)["changed"]
    assert run(mta_descriptor, live_urls=False, check=True)["diff"]["after"].count("keep-existing-routes: true") == 1


def test_an_extension_with_its_descriptor(run: Run, file: Path, tmp_path: Path) -> None:
    run(mta_descriptor)
    extension = tmp_path / "a.mtaext"
    extension.write_text(
        '_schema-version: "3.1"\nID: a\nextends: incident-management\nresources:\n  - name:'
        " incident-management-registry\n    parameters: {config: {appUrls: {getDependencies:"
        " '~{mtx-api/mtx-url}/x'}}}\n"
    )
    made = run(mta_descriptor, path=str(extension), base=str(file))
    assert (made["changed"], made["mta"]["id"]) == (True, "incident-management")
    assert "'~{mtx-api/mtx-live}/x'" in extension.read_text()
    assert run(mta_descriptor, path=str(extension))["msg"].endswith(
        "is an extension of incident-management. Give the descriptor that it extends as base."
    )
    assert run(mta_descriptor_info, extensions=[str(extension)])["error_count"] == 1


def test_a_secret_in_an_extension_is_in_no_result(run: Run, file: Path, tmp_path: Path) -> None:
    run(mta_descriptor, sessions={})
    extension = tmp_path / "a.mtaext"
    extension.write_text(
        '_schema-version: "3.1"\nID: a\nextends: incident-management\nmodules:\n  - name: approuter\n    parameters:\n'
        f"      session-secret: {SECRET}\n      keep-existing-routes: false\n"
    )
    made = run(mta_descriptor, path=str(extension), base=str(file))
    assert made["changed"]
    assert SECRET in extension.read_text()
    assert SECRET not in json.dumps(made)


def test_a_host_without_the_yaml_library_is_told_what_to_install(
    run: Run, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptor_values, "HAS_RUAMEL", False)
    assert (
        run(mta_descriptor_info)["msg"]
        == "The Python package ruamel.yaml is missing. Install it where the module runs: pip install ruamel.yaml"
    )


def test_a_secret_in_the_descriptor_is_in_no_result(run: Run, file: Path) -> None:
    file.write_text(
        GUIDE.replace("      TENANT", f"""      EXT_SESSION_MGT: '{{"sessionSecret": "{SECRET}"}}'\n      TENANT""")
    )
    linted = run(mta_descriptor_info)
    assert "session-secret-in-descriptor" in [finding["rule"] for finding in linted["findings"]]
    made = run(mta_descriptor, sessions={})
    assert SECRET not in json.dumps([linted, made])
    assert "********" in made["diff"]["before"]
    assert SECRET not in file.read_text()


@pytest.mark.parametrize(
    ("content", "args", "message"),
    [
        ("a: [", {}, ":1:5 is not YAML"),
        ("a: 1\na: 2\n", {}, ":2:1: the key a is written twice"),
        ("[]", {}, "the descriptor is not a mapping"),
        ("_schema-version: 3\nversion: 1\n", {}, "has no ID"),
        (GUIDE, {"sessions": {"modules": ["x"]}}, "has no module x"),
        (GUIDE, {"longest_upgrade": "30"}, "longest_upgrade '30' is not a duration"),
        (GUIDE, {"base": "/nowhere"}, "/nowhere can't be read"),
    ],
)
def test_what_is_wrong_is_refused_and_changes_nothing(
    run: Run, file: Path, content: str, args: dict[str, Any], message: str
) -> None:
    file.write_text(content)
    result = run(mta_descriptor, **args)
    assert (result["failed"], result["error"]) == (True, "InputError")
    assert message in result["msg"]
    assert result["msg"].endswith(result["advice"])
    assert file.read_text() == content


def test_lint_fails_only_when_it_is_asked_to(run: Run, file: Path) -> None:
    found = run(mta_descriptor_info)
    assert (found["changed"], found["error_count"], found["warning_count"], "failed" in found) == (False, 4, 0, False)
    failed = run(mta_descriptor_info, fail_on="error")
    assert (failed["failed"], failed["findings"]) == (True, found["findings"])
    assert (
        failed["msg"]
        .splitlines()[0]
        .startswith(f"{file}:22:20: error live-property-missing: mtx-api/mtx-url is used by")
    )
    run(mta_descriptor, sessions={})
    file.write_text(file.read_text().replace("onSubscriptionAsync: true", "onSubscriptionAsync: false"))
    assert "failed" not in run(mta_descriptor_info, fail_on="error")
    assert run(mta_descriptor_info, fail_on="warning")["failed"]
    assert "failed" not in run(mta_descriptor_info, fail_on="warning", ignore=["callback-not-async"])
    assert "There is no rule callback." in run(mta_descriptor_info, ignore=["callback"])["msg"]


def test_an_archive_is_linted_by_its_deployment_descriptor(run: Run, tmp_path: Path) -> None:
    archive, extension = tmp_path / "app_1.0.0.mtar", tmp_path / "a.mtaext"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("META-INF/mtad.yaml", GUIDE)
    extension.write_text('_schema-version: "3.1"\nID: a\nextends: incident-management\n')
    found = run(mta_descriptor_info, path=None, archive=str(archive), extensions=[str(extension)])
    assert found["findings"][0]["file"] == f"{archive}/META-INF/mtad.yaml"
    assert (found["error_count"], found["mta"]["id"], found["mta"]["last"]) == (4, "incident-management", "a")
    assert "is no MTA archive" in run(mta_descriptor_info, path=None, archive=str(extension))["msg"]
    assert "mutually exclusive" in run(mta_descriptor_info, archive=str(archive))["msg"]


def test_what_can_not_be_mended_is_told_and_the_rest_is_mended(
    run: Run, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda _module, warning: warnings.append(warning))
    text = GUIDE.replace(
        "    parameters: {service: portal, service-plan: standard}",
        "    parameters: {service: portal, config: {u: '~{nobody/u}'}}",
    )
    file.write_text(text)
    made = run(mta_descriptor)
    assert (made["changed"], "failed" in made) == (True, False)
    assert file.read_text() == mend_text(text)
    (left,) = made["not_mended"]
    assert (left["line"], left["object"]) == (74, "incident-management-portal")
    assert left["message"] == "incident-management-portal refers to nobody, which nothing provides."
    assert warnings == [f"Not mended: {file}:74:47: {left['message']} {left['mend']}"]
    assert not run(mta_descriptor)["changed"]


def mend_text(text: str) -> str:
    """The guide's application with its live URL."""
    text = text.replace(
        "          mtx-url: ${default-url}\n",
        "          mtx-url: ${default-url}\n          mtx-live: ${default-live-url}\n",
    )
    return text.replace("~{mtx-api/mtx-url}", "~{mtx-api/mtx-live}")


def test_an_extension_alone_gets_the_rules_that_need_nothing_else(run: Run, tmp_path: Path) -> None:
    extension = tmp_path / "a.mtaext"
    extension.write_text(
        "_schema-version: 3.1.0\nID: a\nextends: incident-management\nmodules:\n- name: approuter\n  parameters:\n"
        "    session-secret: short\n    keep-existing-routes: false\n  hooks:\n  - {name: h, phases: [before-stop]}\n"
        "resources:\n- name: registry\n  parameters: {config: {appUrls: {callbackTimeoutMillis: 5, u: '${default-url}',"
        " v: '~{mtx-api/mtx-url}'}}}\n"
    )
    linted = run(mta_descriptor_info, path=str(extension), longest_upgrade="30m")
    assert [f"{one['rule']}:{one['line']}" for one in linted["findings"]] == [
        "session-secret-short:7",
        "hook-never-runs:10",
        "callback-timeout-short:13",
        "idle-url-in-service:13",
    ]
    assert (linted["mta"]["extends"], linted["mta"]["last"]) == ("incident-management", "a")


ROUTER = {"package.json": '{"dependencies": {"@sap/approuter": "^20"}}', "xs-app.json": "{}"}
HIDDEN = GUIDE.replace(
    "  - name: approuter\n    type: approuter.nodejs\n    path: packages/deploy-int/approuter",
    "  - name: web\n    type: nodejs\n    path: app/web",
)
HIDDEN = HIDDEN.replace("      TENANT_HOST_PATTERN:", "      PATTERN:")


@pytest.mark.parametrize(
    ("package", "found"),
    [
        ('{"dependencies": {"@sap/approuter": "^20"}}', ["web"]),
        ('{"dependencies": {"@sap/cds": "^9"}, "devDependencies": {"@sap/approuter": "^20"}}', []),
        ('{"dependencies": ["@sap/approuter"]}', []),
        ("[]", []),
        ("{", []),
        ("\xff", []),
        (None, []),
    ],
)
def test_an_application_router_is_known_by_its_package(
    run: Run, file: Path, tmp_path: Path, package: str | None, found: list[str]
) -> None:
    file.write_text(HIDDEN)
    folder = tmp_path / "app" / "web"
    folder.mkdir(parents=True)
    if package is not None:
        (folder / "package.json").write_bytes(package.encode("latin-1"))
    assert run(mta_descriptor_info)["mta"]["approuters"] == found
    made = run(mta_descriptor, sessions={}, check=True)
    assert made["session_modules"] == made["mta"]["approuters"] == found


def test_an_application_router_is_known_by_name(run: Run, file: Path) -> None:
    file.write_text(HIDDEN.replace("      keep-existing-routes: true\n", ""))
    assert run(mta_descriptor_info)["mta"]["approuters"] == []
    linted = run(mta_descriptor_info, approuters=["web"])
    assert linted["mta"]["approuters"] == ["web"]
    assert {"session-store-missing", "tenant-routes-not-kept"} <= {one["rule"] for one in linted["findings"]}
    assert run(mta_descriptor, check=True, approuters=["web"])["diff"]["after"].count("keep-existing-routes: true") == 1
    made = run(mta_descriptor, sessions={"modules": ["web"]})
    assert made["session_modules"] == ["web"]
    assert not run(mta_descriptor, sessions={"modules": ["web"]})["changed"]
    assert file.read_text().count("keep-existing-routes: true") == 1
    for module in (mta_descriptor, mta_descriptor_info):
        assert "approuters: " in run(module, approuters=["x"])["msg"]


@pytest.mark.parametrize("packed", ["web/data.zip", "web/", "web"])
def test_an_application_router_in_an_archive_is_known_by_its_package(run: Run, tmp_path: Path, packed: str) -> None:
    archive, inner = tmp_path / "app_1.0.0.mtar", tmp_path / "data.zip"
    with zipfile.ZipFile(inner, "w") as zipped:
        for name, text in ROUTER.items():
            zipped.writestr(name, text)
    sections = ["Manifest-Version: 1.0", f"Name: {packed[:5]}\r\n {packed[5:]}\r\nMTA-Module: web", "Name: x"]
    manifest = "\r\n\r\n".join(sections)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("META-INF/mtad.yaml", HIDDEN)
        zipped.writestr("META-INF/MANIFEST.MF", manifest)
        zipped.write(inner, "web/data.zip")
        zipped.writestr("web/package.json", ROUTER["package.json"])
    assert run(mta_descriptor_info, path=None, archive=str(archive))["mta"]["approuters"] == ["web"]


def test_an_archive_whose_modules_can_not_be_read_has_no_such_router(run: Run, tmp_path: Path) -> None:
    archive = tmp_path / "app_1.0.0.mtar"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("META-INF/mtad.yaml", HIDDEN)
        zipped.writestr(
            "META-INF/MANIFEST.MF", "Name: web/data.zip\nMTA-Module: web\n\nName: gone.zip\nMTA-Module: x\n"
        )
        zipped.writestr("web/data.zip", "no zip")
    assert run(mta_descriptor_info, path=None, archive=str(archive))["mta"]["approuters"] == []


def test_reports_are_written_before_the_task_fails(run: Run, file: Path, tmp_path: Path) -> None:
    report = {"path": str(tmp_path / "report"), "format": "json"}
    run(mta_descriptor_info, check=True, report=report)
    assert not (tmp_path / "report").exists()
    assert run(mta_descriptor_info, report=report, fail_on="error")["failed"]
    assert json.loads((tmp_path / "report").read_text())["error_count"] == 4
    run(mta_descriptor_info, report={"path": str(tmp_path / "report")})
    assert ElementTree.parse(tmp_path / "report").getroot().get("failures") == "4"
    missing = run(mta_descriptor_info, report={"path": str(tmp_path / "no" / "report")})
    assert f"report.path: the folder {tmp_path / 'no'} does not exist." in missing["msg"]
