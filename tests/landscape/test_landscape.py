# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole landscape: it serves, tells tenants apart, and goes back to its first state exactly."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.description.build import build_fleet
from ansible_collections.zdm.landscape.plugins.module_utils.router.base import HOLD
from ansible_collections.zdm.landscape.tests.landscape.landscape import Landscape, Tenant
from ansible_collections.zdm.landscape.tests.landscape.processes import temporary_folder
from ansible_collections.zdm.landscape.tests.landscape.servers import HOST

ROWS = 1_000


@pytest.fixture(scope="module", name="landscape")
def _landscape() -> Iterator[Landscape]:
    with temporary_folder() as folder, Landscape(folder, rows=ROWS) as landscape:
        yield landscape


def get(landscape: Landscape, path: str, token: str, **headers: str) -> tuple[int, Any]:
    """The status and JSON (or text) that each router answers; both must agree."""
    answers = []
    for _host, port in landscape.fleet.addresses:
        connection = http.client.HTTPConnection(HOST, port, timeout=10)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}", **headers})
            answer = connection.getresponse()
            body = answer.read()
            answers.append((answer.status, json.loads(body) if answer.status == 200 else body))
        finally:
            connection.close()
    assert answers[0] == answers[1]
    return answers[0]


def test_the_source_and_the_mapped_target_see_the_same_data_and_the_bystander_its_own(landscape: Landscape) -> None:
    for name in landscape.databases:
        path = f"/{name}/writes/0"
        source, target = (
            get(landscape, path, landscape.token(tenant)) for tenant in (landscape.source, landscape.target)
        )
        assert source == target
        assert source[0] == 200
        assert source[1]["tenant"] == landscape.source.id
        assert get(landscape, path, landscape.token(landscape.bystander))[1]["tenant"] == landscape.bystander.id


def test_a_tenant_that_nobody_knows_is_refused_whatever_its_headers_say(landscape: Landscape) -> None:
    stranger = Tenant("nobody", str(uuid.uuid4()))
    assert (
        get(landscape, "/bills/writes/0", landscape.token(stranger), **{"X-Tenant-Id": landscape.source.id})[0] == 403
    )


def test_rows_are_as_many_as_were_asked_for(landscape: Landscape) -> None:
    for name, database in landscape.databases.items():
        tables = database.service.tenant_tables
        rows = sum(
            database.query(f"SELECT count(*) FROM {table} WHERE tenant_id = '{landscape.source.id}'")[0][0]
            for table in tables
        )
        assert rows == landscape.tenant_rows()[name]
        assert rows >= (ROWS // 4 if database.service.kind == "sqlite" else ROWS)


def test_the_second_router_is_controlled_by_mutual_tls_alone(landscape: Landscape) -> None:
    first, second = landscape.vars["routers"]
    assert "socket" in first
    assert "socket" not in second
    hidden = landscape.fleet.routers[1].folder.parent
    assert hidden.stat().st_mode & 0o777 == 0o700
    if os.getuid() == 0:
        assert hidden.stat().st_uid != 0
    assert str(hidden) not in json.dumps(landscape.vars)


def test_the_load_passes_and_a_reset_restores_everything(landscape: Landscape) -> None:
    store = {path.name: path.read_text() for path in landscape.store_path.rglob("*.json")}
    with landscape.traffic(80) as traffic:
        traffic.wait_requests(300)
    assert traffic.summary["failed"] == 0, traffic.summary["failures"]
    assert traffic.summary["bystander_requests"] > 0
    verdict = landscape.check(landscape.source, [traffic])
    assert verdict.ok, verdict.findings
    assert verdict.acknowledged == traffic.summary["writes"]

    fleet = build_fleet(landscape.vars)
    fleet.take_over("venezia--venezia-scp", 7)
    fleet.close("venezia--venezia-scp", 7, [landscape.source.id], HOLD)
    landscape.databases["bills"].execute("DELETE FROM bill_line", "CREATE TABLE leftover (id integer)")
    (landscape.store_path / "claims" / "venezia.json").write_text('{"migration": "venezia--venezia-scp"}')
    landscape.reset()

    assert {path.name: path.read_text() for path in landscape.store_path.rglob("*.json")} == store
    for state in build_fleet(landscape.vars).states():
        assert state.ready
        assert not state.blocks
        assert not state.epochs
        assert state.overrides == {landscape.target.id: landscape.source.id}
    with landscape.traffic(80) as again:
        again.wait_requests(100)
    assert again.summary["failed"] == 0, again.summary["failures"]
    verdict = landscape.check(landscape.source, [again])
    assert verdict.ok, verdict.findings


def test_the_inventory_is_one_that_the_collection_understands(landscape: Landscape) -> None:
    done = subprocess.run(
        landscape.playbook("validate"),
        env=landscape.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
