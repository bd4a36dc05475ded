# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A staged landscape under load, one for the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ansible_collections.zdm.landscape.tests.chaos.scene import Scene, scene


@pytest.fixture(scope="module", name="scenery")
def _scenery() -> Iterator[Scene]:
    with scene() as prepared:
        yield prepared


@pytest.fixture(name="stage")
def _stage(scenery: Scene) -> Scene:
    scenery.settle()
    return scenery
