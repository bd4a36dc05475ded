# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service behind the routers: ``python -m …bench.records <configuration file>``.

``POST /records/<number>`` changes one row of the tenant that ``X-Tenant-Id`` names: 200, 409 when there is no such row,
500 for an error of the database. ``GET /records/health`` says whether the database answers.
"""

from __future__ import annotations

import asyncio
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aiohttp import web
from ansible_collections.zdm.landscape.bench.tables import NAME
from ansible_collections.zdm.landscape.tests.landscape.servers import HOST
from ansible_collections.zdm.landscape.tests.landscape.service import KEEP_ALIVE_S, THREADS, Sessions

CHANGE = f"UPDATE {NAME} SET amount = amount + 1, version = version + 1 WHERE tenant_id = %s AND number = %s"


def application(kind: str, address: dict[str, Any]) -> web.Application:
    sessions, threads = Sessions(kind, address), ThreadPoolExecutor(THREADS)

    async def answer(statement: str, *values: Any) -> web.Response:
        def work(cursor: Any) -> int:
            cursor.execute(statement, values)
            return int(cursor.rowcount)

        try:
            rows = await asyncio.get_running_loop().run_in_executor(threads, sessions.transaction, work, True)
        except Exception as error:  # a service answers every request
            return web.json_response({"error": type(error).__name__}, status=500)
        return web.json_response({"status": "UP", "rows": rows}, status=200 if rows == 1 else 409)

    async def change(request: web.Request) -> web.Response:
        return await answer(CHANGE, request.headers.get("X-Tenant-Id", ""), int(request.match_info["number"]))

    async def health(_request: web.Request) -> web.Response:
        return await answer("SELECT 1")

    app = web.Application()
    app.add_routes([web.get(f"/{NAME}/health", health), web.post(f"/{NAME}/{{number:\\d+}}", change)])
    return app


def main() -> None:
    config = json.loads(Path(sys.argv[1]).read_text())
    web.run_app(
        application(config["kind"], config["database"]),
        host=HOST,
        port=config["port"],
        keepalive_timeout=KEEP_ALIVE_S,
        access_log=None,
        print=None,
    )


if __name__ == "__main__":
    main()
