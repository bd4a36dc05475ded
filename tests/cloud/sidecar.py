# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real CAP MTX sidecar over SQLite: one file for each tenant, and one for the list of tenants and the jobs."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .app import APPS, App, Launch, service, vcap_services
from .node import Node

LIVE, IDLE = "live", "idle"
"""The versions of the sample's schema; the idle one has the column ``urgency`` more."""


class Sidecar(App):
    """A sidecar of one version of the sample application; versions that share *data* are a live and an idle one.

    :param version: :data:`LIVE` or :data:`IDLE`.
    :param data: the folder of the SQLite files.
    :param slow_ms: how much longer the upgrade of a tenant takes.
    :param fail_tenants: tenants whose upgrade fails.
    """

    def __init__(
        self, launch: Launch, *, version: str, data: Path, slow_ms: int = 0, fail_tenants: Iterable[str] = ()
    ) -> None:
        self._hooks = launch.folder / f"{launch.name}-hooks.json"
        own = {"CDS_ENV": "production", "HOOKS": str(self._hooks)}
        super().__init__(replace(launch, environment={**launch.environment, **own}))
        self.version, self.data = version, data
        self.give_up_jobs_after()
        self.behave(slow_ms, fail_tenants)

    def behave(self, slow_ms: int = 0, fail_tenants: Iterable[str] = ()) -> None:
        """How upgrades of tenants go from now on, those under way among them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = self._hooks.with_suffix(".new")
        fresh.write_text(json.dumps({"slow_ms": slow_ms, "fail_tenants": list(fail_tenants)}))
        fresh.replace(self._hooks)

    def give_up_jobs_after(self, silence_ms: int | None = None) -> None:
        """From the next start on a job that was not heard of for so long is given up; ``None``: the product's own 90
        minutes.

        A sidecar can't tell a job whose sidecar has ended from one on a busy machine.
        """
        jobs = {} if silence_ms is None else {"heartbeatInterval": silence_ms, "heartbeatAge": silence_ms}
        database = {"credentials": {"url": str(self.data / "db.sqlite")}}
        self.environment["CDS_CONFIG"] = json.dumps({"requires": {"db": database, "multitenancy": {"jobs": jobs}}})

    def command(self, node: Node) -> list[str]:
        project = self.folder / self.name
        if not project.exists():
            shutil.copytree(APPS / "incidents" / self.version, project)
            shutil.copytree(APPS / "sidecar", project / "mtx" / "sidecar")
            (project / "node_modules").symlink_to(node.modules)
        self.data.mkdir(parents=True, exist_ok=True)
        return [
            str(node.program),
            str(node.modules / "@sap" / "cds" / "bin" / "serve.js"),
            "--project",
            str(project / "mtx" / "sidecar"),
        ]

    def columns(self, tenant: str) -> list[str]:
        """The columns of a tenant's table of incidents; they tell which version's schema it has."""
        with sqlite3.connect(self.data / f"db-{tenant}.sqlite") as connection:
            found = [str(row[1]) for row in connection.execute("PRAGMA table_info(incidents_Incidents)")]
        connection.close()
        return found


def sidecar_environment(xsuaa: Mapping[str, Any], registry: Mapping[str, Any], **more: str) -> dict[str, str]:
    """The environment that Cloud Foundry would give a sidecar.

    :param xsuaa: credentials of its XSUAA binding.
    :param registry: credentials of its saas-registry binding.
    """
    bindings = (
        service("xsuaa", "incident-management-auth", xsuaa, tags=("xsuaa",)),
        service("saas-registry", "incident-management-registry", registry, tags=("SaaS",)),
    )
    return {"VCAP_SERVICES": json.dumps(vcap_services(*bindings)), **more}
