# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One real service behind a front that can be told to do harm: what load generator and checker must notice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, web

from .checker import Checker, Ids, Snapshot, Verdict
from .databases import Database, SqliteDatabase
from .landscape import service_is_up
from .ledger import BYSTANDER, TENANT, LedgerWriter
from .load import Config, Credential, Load
from .processes import PATIENCE_S, Processes, free_port, module_command, module_environment
from .servers import HOST
from .spec import BY_NAME

LIVE, RETIRED, OTHER = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "abc")
HEADS = 20
SERVICE = "documents"
RATE = 120.0

Harm = Callable[["Front", web.Request, bytes], Awaitable[web.StreamResponse | None]]
"""Gets a request before it is passed on; answers it, or ``None`` to have it passed on."""


@dataclass
class Front:
    """Stands where the router stands: token → ``X-Tenant-Id``."""

    service_port: int
    harm: Harm | None = None
    seen: int = 0
    writes: int = 0
    kept: dict[str, bytes] = field(default_factory=dict)

    async def forward(self, request: web.Request, body: bytes, tenant_id: str = "") -> web.Response:
        """Pass a request on to the service."""
        assert self.session is not None
        token = request.headers["authorization"].removeprefix("Bearer ")
        headers = {"X-Tenant-Id": tenant_id or (OTHER if token == BYSTANDER else LIVE)}
        async with self.session.request(
            request.method, f"http://{HOST}:{self.service_port}{request.path}", data=body, headers=headers
        ) as answer:
            return web.Response(status=answer.status, body=await answer.read(), content_type="application/json")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen += 1
        self.writes += request.method == "POST"
        harmed = await self.harm(self, request, body) if self.harm else None
        return harmed if harmed is not None else await self.forward(request, body)

    session: ClientSession | None = None


class Bench:
    """A SQLite database, its service as a process, the load in this process."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.folder, self._processes = folder, processes
        self.database: Database = SqliteDatabase(BY_NAME[SERVICE], folder / SERVICE)
        self.database.create()
        self.database.fill({LIVE: HEADS, OTHER: HEADS})
        self._heads = {(tenant, SERVICE): HEADS for tenant in (TENANT, BYSTANDER)}
        self._baseline = {
            (tenant, SERVICE): Snapshot(self.database, tenant_id).fingerprint(HEADS)
            for tenant, tenant_id in ((TENANT, LIVE), (BYSTANDER, OTHER))
        }
        self.port = free_port()
        config = folder / "service.json"
        config.write_text(json.dumps({"service": SERVICE, "port": self.port, "database": self.database.address()}))
        service = processes.start("service", module_command("service", str(config)), env=module_environment())
        service.wait_ready(lambda: service_is_up(self.port, SERVICE))
        self._runs = 0
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self.front: Front

    def load(
        self,
        harm: Harm | None = None,
        chaos: bool = False,
        requests: int = 100,
        failures: int = 0,
        may_break: bool = False,
        timeout_s: float = PATIENCE_S,
    ) -> dict[str, Any]:
        """Run the load and return its summary.

        :param requests: so many at least are sent.
        :param failures: go on until there are so many, up to 3,000 requests.
        """
        return asyncio.run(self._load(harm, requests, failures, chaos=chaos, may_break=may_break, timeout_s=timeout_s))

    async def _load(self, harm: Harm | None, requests: int, failures: int, **allowed: Any) -> dict[str, Any]:
        self.front = Front(self.port, harm)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.front.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            async with ClientSession() as self.front.session:
                site = web.TCPSite(runner, HOST, 0)
                await site.start()
                with LedgerWriter(self.ledger) as ledger:
                    load = Load(self._config(runner.addresses[0][1], allowed), ledger)
                    running = asyncio.create_task(load.run())
                    counts = load.report.counts
                    while not running.done() and (
                        counts.requests < requests or (counts.failed < failures and counts.requests < 3000)
                    ):
                        await asyncio.sleep(0.01)
                    load.stopping.set()
                    return await running
        finally:
            await runner.cleanup()

    def _config(self, port: int, allowed: dict[str, Any]) -> Config:
        self._runs += 1
        credentials = [
            Credential("source", TENANT, "source", (LIVE, RETIRED)),
            Credential("target", TENANT, "target", (LIVE, RETIRED)),
            Credential("bystander", BYSTANDER, BYSTANDER, (OTHER,)),
        ]
        progress = str(self.folder / "progress")
        services = {SERVICE: {TENANT: HEADS, BYSTANDER: HEADS}}
        return Config(
            [(HOST, port)],
            credentials,
            services,
            RATE,
            str(self.ledger),
            progress,
            self._runs,
            [str(self.ledger)],
            write_share=0.6,
            **allowed,
        )

    def check(self, twins: tuple[str, ...] = ()) -> Verdict:
        return Checker([self.database], self._heads, self._baseline).check(
            [self.ledger], Ids(LIVE, RETIRED, OTHER), twins
        )
