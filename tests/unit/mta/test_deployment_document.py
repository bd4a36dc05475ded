# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The document of a deployment and its log."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Conflict, InputError, Refused
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.document import (
    Attempt,
    DeploymentDocument,
    Place,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.log import (
    DeploymentLog,
    deployments_log,
    shown,
)
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import DEPLOYMENTS
from ansible_collections.zdm.landscape.plugins.module_utils.store.file import FileStore

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
PLACE = Place("0b9c7e2e-guid", "shop.mta_1", "")
ARCHIVE, EXTENSIONS = {"name": "a.mtar", "version": "1.0.0"}, [{"name": "a.mtaext"}]
ATTEMPT = Attempt(
    "print", ARCHIVE, EXTENSIONS, "DEPLOY", "ci", NOW, lost_at=NOW, seen=frozenset({"b", "a"}), testing_since=NOW
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    document = DeploymentDocument(store, PLACE).read()
    assert document.attempt is None
    document.begin(ATTEMPT)
    document.update(operation="o", state="RUNNING")
    again = DeploymentDocument(store, PLACE).read()
    assert again.attempt == document.attempt
    assert (tmp_path / "deployments" / "0b9c7e2e-guid" / "shop.mta_1.json").is_file()
    assert [found.name for found in store.list(DEPLOYMENTS)] == ["0b9c7e2e-guid/shop.mta_1"]
    again.went_live("FINISHED", "2026-11-22T12:00:00Z")
    third = DeploymentDocument(store, PLACE).read()
    assert (third.live["archive"]["version"], third.live["operation"], third.previous) == ("1.0.0", "o", {})


def test_of_two_runs_one_stops(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    one, two = DeploymentDocument(store, PLACE).read(), DeploymentDocument(store, PLACE).read()
    one.begin(ATTEMPT)
    with pytest.raises(Conflict):
        two.begin(ATTEMPT)


def test_nothing_is_written_where_nothing_changes(tmp_path: Path) -> None:
    document = DeploymentDocument(FileStore(tmp_path), PLACE).read()
    document.begin(ATTEMPT)
    file = tmp_path / "deployments" / "0b9c7e2e-guid" / "shop.mta_1.json"
    before = file.stat().st_mtime_ns
    document.update(state=ATTEMPT.state)
    assert file.stat().st_mtime_ns == before


def test_a_request_is_asked_for_only_once_the_other_run_is_heard(tmp_path: Path) -> None:
    """Also one that was asked for before: another run may have noted meanwhile that tenants are being upgraded."""
    store = FileStore(tmp_path)
    document = DeploymentDocument(store, PLACE).read()
    document.begin(ATTEMPT)
    document.ask("abort", resumed=False)
    again, other = DeploymentDocument(store, PLACE).read(), DeploymentDocument(store, PLACE).read()
    other.update(upgrade="begun")
    with pytest.raises(Conflict):
        again.ask("abort", resumed=False)
    other.ask("resume", resumed=True)
    assert other.attempt
    assert (other.attempt.requested, other.attempt.resumed, other.attempt.upgrade) == ("resume", True, "begun")


def test_documents_that_can_not_be_used(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    document = DeploymentDocument(store, PLACE).read()
    document.begin(ATTEMPT)
    file = tmp_path / "deployments" / "0b9c7e2e-guid" / "shop.mta_1.json"
    body = json.loads(file.read_text())
    for change, error in (
        ({"format": 2}, Refused),
        ({"mta_id": "other"}, Refused),
        ({"attempt": {"at": "x"}}, InputError),
    ):
        file.write_text(json.dumps({**body, **change}))
        with pytest.raises(error):
            DeploymentDocument(store, PLACE).read()


@pytest.mark.parametrize("name", ["../x", "a/../b", "a/b/c", "a", "/a", "a/.b", "a/"])
def test_names_that_are_no_document(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        FileStore(tmp_path).get(DEPLOYMENTS, name)


def test_a_namespace_has_a_document_of_its_own() -> None:
    assert Place("space", "mta", "blue").name == "space/mta@blue"


def test_lines_of_the_log_hold_no_secret(tmp_path: Path) -> None:
    log = DeploymentLog(str(tmp_path / "logs"), "run1", ["hidden"])
    log.write({"mta_id": "shop", "type": "ERROR", "text": "wrong: hidden"})
    log.close()
    line = json.loads(deployments_log(str(tmp_path / "logs")).read_text())
    assert (line["run"], "hidden" in line["text"]) == ("run1", False)
    assert shown(line) == ""  # it is told once, where the operation ends
    assert shown({"mta_id": "shop", "type": "WARNING", "text": "wrong"}) == "shop: WARNING wrong"
    assert shown({"mta_id": "shop", "type": "INFO", "text": "Starting"}) == "shop: Starting"
    with pytest.raises(Refused, match="log_dir"):
        DeploymentLog("/dev/null/logs")
