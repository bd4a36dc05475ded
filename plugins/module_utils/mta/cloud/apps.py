# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Applications of an MTA and their routes: which are idle, which live, what an abort left, what is half switched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

IDLE, LIVE = "-idle", "-live"


@dataclass(frozen=True)
class Route:
    guid: str
    host: str
    url: str
    """With its scheme."""
    apps: frozenset[str]
    """The guids of the applications behind it."""


@dataclass(frozen=True)
class App:
    guid: str
    name: str
    module: str
    state: str
    routes: tuple[Route, ...]
    version: str = ""
    """Of the MTA that deployed it, by its annotation."""

    @property
    def base(self) -> str:
        """The name without the suffix that a deployment gives."""
        return self.name.removesuffix(IDLE).removesuffix(LIVE)

    @property
    def is_idle(self) -> bool:
        return self.name.endswith(IDLE)


@dataclass(frozen=True)
class Leftover:
    """An application that an aborted deployment has left. ``kept`` says why it must stay; empty when it may be
    removed.
    """

    app: App
    kept: str = ""


def routes_by_module(apps: Iterable[App]) -> dict[str, dict[str, Any]]:
    """The live and idle URLs of each module: a route is idle when only an idle application is behind it and it is named
    so, or another one is live.
    """
    apps = list(apps)
    standing = {app.guid for app in apps if not app.is_idle}
    served = {app.module for app in apps if not app.is_idle and app.routes}
    result: dict[str, dict[str, Any]] = {}
    for app in apps:
        module = result.setdefault(app.module, {"app": app.base, "live": [], "idle": []})
        for route in app.routes:
            idle = not route.apps & standing and (route.host.endswith(IDLE) or app.module in served)
            urls = module["idle" if idle else "live"]
            if route.url not in urls:
                urls.append(route.url)
    return result


def live_versions(apps: Iterable[App]) -> tuple[str, ...]:
    """The versions of the MTA that the applications which are not idle came with, sorted. The deploy service itself
    names none as soon as they differ from the idle ones, or from the services'.
    """
    return tuple(sorted({app.version for app in apps if not app.is_idle and app.version}))


def split_routes(apps: Iterable[App]) -> list[str]:
    """URLs behind which two applications of one module stand: their switch was interrupted, or is under way."""
    apps = list(apps)
    found = set()
    for app in apps:
        others = {other.guid for other in apps if other.module == app.module and other.guid != app.guid}
        found |= {route.url for route in app.routes if route.apps & others}
    return sorted(found)


def leftovers_of(apps: Iterable[App]) -> list[Leftover]:
    """What an aborted deployment has left, and what of it serves users and must stay."""
    apps = list(apps)
    return [Leftover(app, _why_kept(app, apps)) for app in apps if app.name.endswith((IDLE, LIVE))]


def _why_kept(app: App, apps: list[App]) -> str:
    """Only an application that has another one of its module beside it, and no live route, may go."""
    if not app.is_idle and app.routes:
        return "it serves users"
    if not any(other.base == app.base and other.guid != app.guid and not other.is_idle for other in apps):
        return "no other application of this module is there"
    busy = [route.url for route in app.routes if not route.host.endswith(IDLE) or route.apps - {app.guid}]
    return f"it serves {', '.join(busy)}" if busy else ""
