# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Routes of a deployed MTA."""

from __future__ import annotations

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.routes import route_url

ROUTES = {
    "srv": {
        "app": "srv",
        "live": ["https://srv.example.com/", "https://alias.example.com"],
        "idle": ["https://srv-idle.example.com"],
    },
    "job": {"app": "job", "live": [], "idle": []},
}


def test_the_first_route_of_the_phase_counts() -> None:
    assert route_url(ROUTES, "srv", "live") == "https://srv.example.com"
    assert route_url(ROUTES, "srv", "idle") == "https://srv-idle.example.com"


@pytest.mark.parametrize(
    ("module", "phase", "message"),
    [
        ("srw", "idle", "Module srw is not deployed; deployed are job, srv"),
        ("job", "live", "Module job has no live route; it has none at all"),
        ("srv", "Live", "'Live' is no phase"),
    ],
)
def test_what_is_not_there_is_refused(module: str, phase: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        route_url(ROUTES, module, phase)


def test_a_module_that_is_live_only_has_no_idle_route() -> None:
    with pytest.raises(InputError, match=r"it has live https://srv.example.com"):
        route_url({"srv": {"live": ["https://srv.example.com"], "idle": []}}, "srv", "idle")
