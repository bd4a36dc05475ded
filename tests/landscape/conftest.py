# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders that servers' users can enter, removed also when a test fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.zdm.landscape.tests.landscape.processes import Processes, temporary_folder


@pytest.fixture(name="folder")
def _folder() -> Iterator[Path]:
    with temporary_folder() as folder:
        yield folder


@pytest.fixture(name="processes")
def _processes(folder: Path) -> Iterator[Processes]:
    logs = folder / "logs"
    logs.mkdir()
    with Processes(logs) as processes:
        yield processes
