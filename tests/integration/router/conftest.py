# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One directory per run made by the role, one running router per test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ansible_collections.zdm.landscape.tests.integration.router.kit import Deployment, deployed
from ansible_collections.zdm.landscape.tests.landscape.processes import temporary_folder


@pytest.fixture(scope="session")
def deployment() -> Iterator[Deployment]:
    with temporary_folder() as folder, deployed(folder) as made:
        yield made


@pytest.fixture
def stopped(deployment: Deployment) -> Iterator[Deployment]:
    """The store is filled, the router does not run."""
    deployment.fill_store()
    deployment.service.reset()
    yield deployment
    deployment.service.gate.set()
    deployment.stop()


@pytest.fixture
def router(stopped: Deployment) -> Deployment:
    """The router runs and is ready."""
    stopped.start()
    return stopped


@pytest.fixture(scope="module")
def shared(deployment: Deployment) -> Iterator[Deployment]:
    """A running router for tests that change nothing in it."""
    deployment.fill_store()
    deployment.service.gate.set()
    deployment.start()
    yield deployment
    deployment.stop()
