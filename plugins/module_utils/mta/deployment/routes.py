# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The routes of a deployed MTA, as the module mta_deploy returns them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError

PHASES = ("idle", "live")


def route_url(routes: Mapping[str, Mapping[str, Any]], module: str, phase: str) -> str:
    """The first URL of a module's route, without a slash at its end.

    :param routes: module → ``live`` and ``idle`` URLs.
    :param phase: ``idle`` or ``live``.
    :raises InputError: the module is not in the MTA, or has no such route.
    """
    if phase not in PHASES:
        raise InputError(f"{phase!r} is no phase.", f"Use {' or '.join(PHASES)}.")
    if module not in routes:
        raise InputError(
            f"Module {module} is not deployed; deployed are {', '.join(sorted(routes)) or 'none'}.",
            "Correct the module's name in the check.",
        )
    urls: Sequence[str] = routes[module].get(phase) or ()
    if not urls:
        others = ", ".join(f"{other} {url}" for other in PHASES for url in routes[module].get(other) or ())
        raise InputError(
            f"Module {module} has no {phase} route; it has {others or 'none at all'}.",
            "Give the check a url of its own.",
        )
    return str(urls[0]).rstrip("/")
