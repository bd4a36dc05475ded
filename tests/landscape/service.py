# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A sample service as its own process: ``python -m …service <configuration file>``.

It knows nothing of migrations: the tenant is what the router's ``X-Tenant-Id`` header says. A request is one
transaction; an error of the database is a 500 and never tried again.

=======================================  =====================================================================
``GET  /<service>/health``               ``{"status": "UP", "service": …, "checks": {"database": "UP"}}``
``POST /<service>/writes``               one write: create, change or delete an item
``GET  /<service>/writes/<bucket>``      the number of all writes, and the ids of one bucket's
``GET  /<service>/items/<id>``           an item and its lines, ``null`` when it does not exist
=======================================  =====================================================================
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pymysql
from aiohttp import web

from .databases import open_sqlite
from .servers import HOST
from .spec import BY_NAME, LINES, Service

THREADS = 4
KEEP_ALIVE_S = 3600.0
"""Longer than any router keeps an idle connection: the service never closes one that a request is about to use."""

Work = Callable[[Any], Any]
_log = logging.getLogger("service")


class NoSuchItem(Exception):
    """A change or delete found no item."""


def open_session(kind: str, address: dict[str, Any]) -> Any:
    """A DB-API connection in autocommit mode: transactions are begun and ended by statements."""
    if kind == "sqlite":
        return open_sqlite(address["database"])
    login = {"host": address["host"], "port": address["port"], "user": address["user"], "password": address["password"]}
    if kind == "postgresql":
        return psycopg.connect(**login, dbname=address["database"], autocommit=True, connect_timeout=5)
    return pymysql.connect(
        **login, database=address["database"], charset="utf8mb4", autocommit=True, connect_timeout=5, ssl_disabled=True
    )


class Sessions:
    """One connection per thread; a transaction on each request."""

    def __init__(self, kind: str, address: dict[str, Any]) -> None:
        self._kind, self._address = kind, address
        self._begin = "BEGIN IMMEDIATE" if kind == "sqlite" else "BEGIN"
        self._local = threading.local()
        # SQLite has one writer: threads that wait here do not poll for its lock
        self._writer = threading.Lock()

    def transaction(self, work: Work, write: bool) -> Any:
        """Run *work* with a cursor in one transaction; roll back and drop the connection on any error."""
        if self._kind == "sqlite" and write:
            with self._writer:
                return self._run(work, self._begin)
        return self._run(work, "BEGIN" if self._kind == "sqlite" else self._begin)

    def _run(self, work: Work, begin: str) -> Any:
        cursor = self._started(begin)
        try:
            result = work(cursor)
            cursor.execute("COMMIT")
            return result
        except NoSuchItem:
            cursor.execute("ROLLBACK")
            raise
        except BaseException:
            self._drop()
            raise

    def _started(self, begin: str) -> Any:
        """A cursor whose transaction has begun. A connection that the server closed meanwhile is opened anew: nothing
        was sent on it.
        """
        if getattr(self._local, "session", None) is not None:
            try:
                cursor = self._local.session.cursor()
                cursor.execute(begin)
                return cursor
            except (psycopg.Error, pymysql.Error):
                self._drop()
        self._local.session = open_session(self._kind, self._address)
        cursor = self._local.session.cursor()
        cursor.execute(begin)
        return cursor

    def _drop(self) -> None:
        session, self._local.session = self._local.session, None
        try:
            session.close()
        except (psycopg.Error, pymysql.Error):
            _log.info("the connection was already closed")


class Statements:
    """The SQL of one service; the tenant id is the first parameter of each statement."""

    def __init__(self, service: Service) -> None:
        s, mark = service, "?" if service.kind == "sqlite" else "%s"

        def sql(text: str) -> str:
            return text.replace("?", mark)

        self.create_head = sql(
            f"INSERT INTO {s.head} (tenant_id, id, number, code, customer, amount, version) VALUES (?, ?, ?, 'C1', ?,"
            " ?, 1)"
        )
        self.create_line = sql(
            f"INSERT INTO {s.line} (tenant_id, id, head_id, position, quantity, note) VALUES (?, ?, ?, ?, ?, 'new')"
        )
        self.change_head = sql(
            f"UPDATE {s.head} SET amount = amount + ?, version = version + 1 WHERE tenant_id = ? AND id = ?"
        )
        self.change_line = sql(
            f"UPDATE {s.line} SET quantity = quantity + 1 WHERE tenant_id = ? AND head_id = ? AND position = 1"
        )
        self.delete_lines = sql(f"DELETE FROM {s.line} WHERE tenant_id = ? AND head_id = ?")
        self.delete_head = sql(f"DELETE FROM {s.head} WHERE tenant_id = ? AND id = ?")
        self.log_write = sql(
            f"INSERT INTO {s.outbox} (tenant_id, write_id, bucket, operation, item) VALUES (?, ?, ?, ?, ?)"
        )
        self.count_write = sql(f"UPDATE {s.statistic} SET writes = writes + 1 WHERE tenant_id = ?")
        self.writes = sql(f"SELECT writes FROM {s.statistic} WHERE tenant_id = ?")
        self.bucket = sql(f"SELECT write_id FROM {s.outbox} WHERE tenant_id = ? AND bucket = ?")
        # one statement, so that no reader sees half of a write
        self.item = sql(
            f"SELECT h.amount, h.version, l.quantity FROM {s.head} h JOIN {s.line} l ON l.tenant_id = h.tenant_id AND"
            " l.head_id = h.id WHERE h.tenant_id = ? AND h.id = ? ORDER BY l.position"
        )


class Handlers:
    """The requests of one service."""

    def __init__(self, service: Service, address: dict[str, Any]) -> None:
        self._service, self._sql = service, Statements(service)
        self._sessions = Sessions(service.kind, address)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="session")

    def routes(self) -> list[web.RouteDef]:
        prefix = f"/{self._service.name}"
        return [
            web.get(f"{prefix}/health", self.health),
            web.post(f"{prefix}/writes", self.write),
            web.get(f"{prefix}/writes/{{bucket:\\d+}}", self.writes),
            web.get(f"{prefix}/items/{{item}}", self.item),
        ]

    async def _transaction(self, work: Work, write: bool = False) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._sessions.transaction, work, write)

    async def _answer(self, work: Work, write: bool = False) -> web.Response:
        try:
            return web.json_response(await self._transaction(work, write))
        except NoSuchItem as error:
            return web.json_response({"error": f"no item {error}"}, status=409)
        except Exception as error:  # a service answers every request
            _log.exception("request failed")
            return web.json_response({"error": f"{type(error).__name__}: {error}"}, status=500)

    async def health(self, _request: web.Request) -> web.Response:
        def ask(cursor: Any) -> None:
            cursor.execute("SELECT 1")
            cursor.fetchall()

        try:
            await self._transaction(ask)
            state = "UP"
        except Exception:  # whatever the driver raises: the database does not serve
            _log.exception("health")
            state = "DOWN"
        body = {"status": state, "service": self._service.name, "checks": {"database": state}}
        return web.json_response(body, status=200 if state == "UP" else 503)

    async def write(self, request: web.Request) -> web.Response:
        tenant, body = request.headers.get("X-Tenant-Id", ""), await request.json()
        sql, item, operation = self._sql, body["item"], body["operation"]

        def affect(cursor: Any, statement: str, *values: Any) -> None:
            cursor.execute(statement, values)
            if cursor.rowcount < 1:
                raise NoSuchItem(item)

        def work(cursor: Any) -> dict[str, Any]:
            if operation == "create":
                cursor.execute(
                    sql.create_head, (tenant, item, body["number"], f"customer {body['number']}", body["amount"])
                )
                for position in range(1, LINES + 1):
                    cursor.execute(sql.create_line, (tenant, 10 * body["number"] + position, item, position, position))
            elif operation == "change":
                affect(cursor, sql.change_head, body["amount"], tenant, item)
                affect(cursor, sql.change_line, tenant, item)
            else:
                affect(cursor, sql.delete_lines, tenant, item)
                affect(cursor, sql.delete_head, tenant, item)
            cursor.execute(sql.log_write, (tenant, body["write_id"], body["bucket"], operation, item))
            affect(cursor, sql.count_write, tenant)
            return {"tenant": tenant, "item": self._state(cursor, tenant, item)}

        return await self._answer(work, write=True)

    async def writes(self, request: web.Request) -> web.Response:
        tenant, bucket = request.headers.get("X-Tenant-Id", ""), int(request.match_info["bucket"])

        def work(cursor: Any) -> dict[str, Any]:
            cursor.execute(self._sql.writes, (tenant,))
            count = cursor.fetchone()
            cursor.execute(self._sql.bucket, (tenant, bucket))
            return {
                "tenant": tenant,
                "count": count[0] if count else 0,
                "writes": [row[0] for row in cursor.fetchall()],
            }

        return await self._answer(work)

    async def item(self, request: web.Request) -> web.Response:
        tenant, item = request.headers.get("X-Tenant-Id", ""), request.match_info["item"]
        return await self._answer(lambda cursor: {"tenant": tenant, "item": self._state(cursor, tenant, item)})

    def _state(self, cursor: Any, tenant: str, item: str) -> list[int] | None:
        """Amount, version and the lines' quantities: everything that writes change."""
        cursor.execute(self._sql.item, (tenant, item))
        rows = cursor.fetchall()
        return [rows[0][0], rows[0][1], *(row[2] for row in rows)] if rows else None


def main() -> None:
    config = json.loads(Path(sys.argv[1]).read_text())
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    app = web.Application()
    app.add_routes(Handlers(BY_NAME[config["service"]], config["database"]).routes())
    web.run_app(app, host=HOST, port=config["port"], keepalive_timeout=KEEP_ALIVE_S, access_log=None, print=None)


if __name__ == "__main__":
    main()
