# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One directory per run made by the role, one running router per test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from ansible_collections.zdm.landscape.tests.integration.router.kit import Deployment, deployed
from ansible_collections.zdm.landscape.tests.landscape.processes import temporary_folder
from ansible_collections.zdm.landscape.tests.landscape.programs import every_haproxy


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


@pytest.fixture(scope="module", params=every_haproxy(), ids=lambda program: program.version_text)
def shared(request: pytest.FixtureRequest, deployment: Deployment) -> Iterator[Deployment]:
    """A running router for tests that change nothing in it, on every HAProxy."""
    router = deployment.copy_to(f"haproxy-{request.param.version_text}", program=request.param)
    router.fill_store()
    router.service.gate.set()
    router.start()
    yield router
    router.stop()
    shutil.rmtree(router.home)
