# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad days of a real landscape: each ends with a message that names the object, and with the tenant served as
before.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused, ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.description.operation import Operation
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import FOLLOWS
from ansible_collections.zdm.landscape.tests.chaos.scene import Scene, scene
from ansible_collections.zdm.landscape.tests.landscape.databases import Database


@pytest.fixture(scope="module", name="scenery")
def _scenery() -> Iterator[Scene]:
    with scene(chaos=False) as prepared:
        yield prepared


@pytest.fixture(name="stage")
def _stage(scenery: Scene) -> Scene:
    scenery.settle()
    return scenery


def refused(stage: Scene, *texts: str, options: dict[str, Any] | None = None, for_window: bool = True) -> None:
    """The preflight names what is wrong, and nothing was touched."""
    before = artefacts(stage)
    operation = Operation(options or stage.options)
    try:
        with pytest.raises(Refused) as caught:
            operation.checked_plan(for_window=for_window)
    finally:
        operation.close()
    for text in texts:
        assert text in str(caught.value)
    assert artefacts(stage) == before
    stage.assert_agreed(stage.live)


def artefacts(stage: Scene) -> dict[str, Any]:
    """Everything that a refused command must leave alone: the store's files and the routers' maps."""
    store = {str(file): file.read_bytes() for file in sorted(stage.landscape.store_path.rglob("*.json"))}
    routers = [(state.name, state.blocks, state.overrides, state.epochs) for state in stage.router_states()]
    return {"store": store, "routers": routers}


@contextmanager
def edited(stage: Scene, path: str, **fields: Any) -> Iterator[None]:
    """A document of the store edited by hand; ``None`` removes a field."""
    file = stage.landscape.store_path / f"{path}.json"
    before = file.read_text()
    file.write_text(
        json.dumps({key: value for key, value in {**json.loads(before), **fields}.items() if value is not None})
    )
    try:
        yield
    finally:
        file.write_text(before)


def with_participant(stage: Scene, name: str, **fields: Any) -> dict[str, Any]:
    participants = [{**entry, **fields} if entry["name"] == name else entry for entry in stage.options["participants"]]
    return {**stage.options, "participants": participants}


@contextmanager
def sql(database: Database, do: str, undo: str) -> Iterator[None]:
    database.execute(*do.split(";"))
    try:
        yield
    finally:
        database.execute(*undo.split(";"))


def test_the_landscape_is_in_order_before_anything_is_broken(stage: Scene) -> None:
    operation = Operation(stage.options)
    assert operation.checked_plan(for_window=True).predicted_window_ms > 0
    operation.close()


@pytest.mark.parametrize(
    ("path", "fields", "text"),
    [
        ("onboarded-tenants/venezia-scp", {"mapToTenant": None, "mapToTenantId": None}, "venezia-scp leads to itself"),
        ("onboarded-tenants/venezia-scp", {"datacenter": "eu10"}, "venezia-scp is in datacenter eu10"),
        ("claims/venezia", {"migration": "venezia--genova"}, "venezia is claimed by the migration venezia--genova"),
    ],
)
def test_a_document_of_the_store_is_in_the_way(stage: Scene, path: str, fields: dict[str, Any], text: str) -> None:
    with edited(stage, path, **fields):
        operation = Operation(stage.options)
        with pytest.raises(Refused, match=text):
            operation.checked_plan(for_window=True)
        operation.close()
    stage.assert_agreed(stage.live)


def test_a_wrong_password_is_named_and_not_shown(stage: Scene) -> None:
    options = with_participant(stage, "bills", password="not-the-password")
    operation = Operation(options)
    with pytest.raises(ZdmError) as caught:
        operation.checked_plan(for_window=True)
    operation.close()
    assert "bills" in str(caught.value)
    assert "password" in str(caught.value)
    assert "not-the-password" not in str(caught.value)
    stage.assert_agreed(stage.live)


def test_health_is_red(stage: Scene) -> None:
    endpoint = {**stage.landscape.vars["health"][0], "assert": "status == 'SHINING'"}
    refused(stage, endpoint["url"], "SHINING", options={**stage.options, "health": [endpoint]})


def test_the_audit_log_can_not_be_written(stage: Scene) -> None:
    refused(stage, "audit log", "log_dir", options={**stage.options, "log_dir": "/dev/null/zdm"})


def test_a_limit_of_the_stage_that_has_no_effect(stage: Scene) -> None:
    throttle = {"policy": {**stage.options["policy"], "throttle": {"max_latency": "300ms"}}}
    stage.unstage()
    try:
        refused(stage, "max_latency", "health", options={**stage.options, **throttle, "health": []}, for_window=False)
    finally:
        stage.stage()


def test_a_table_that_nobody_classified(stage: Scene) -> None:
    with sql(
        stage.landscape.databases["bills"],
        "CREATE TABLE attachment (id integer PRIMARY KEY, path text)",
        "DROP TABLE attachment",
    ):
        refused(stage, "attachment", "ignore")


def test_a_table_without_tenant_column_follows_or_is_unclear(stage: Scene) -> None:
    create = "CREATE TABLE reminder (id integer PRIMARY KEY, outbox_id bigint REFERENCES outbox (id))"
    with sql(stage.landscape.databases["bills"], create, "DROP TABLE reminder"):
        operation = Operation(stage.options)
        plan = operation.checked_plan(for_window=True)
        operation.close()
        chosen = {(each.participant, t.table): t.strategy for each in plan.inspections for t in each.tables}
        assert chosen["bills", "reminder"] == FOLLOWS
    with sql(stage.landscape.databases["bills"], "CREATE TABLE reminder (id int)", "DROP TABLE reminder"):
        refused(stage, "reminder")


def test_a_schema_that_changed_since_the_stage(stage: Scene) -> None:
    """It closes the way until a stage has mended it, while the tenant is served."""
    live = stage.live
    with sql(
        stage.landscape.databases["bills"],
        "ALTER TABLE numbering ADD COLUMN remark text",
        "ALTER TABLE numbering DROP COLUMN remark",
    ):
        operation = Operation(stage.options)
        with pytest.raises(Refused, match=r"numbering have changed since the stage.*playbook zdm\.landscape\.stage"):
            operation.checked_plan(for_window=True)
        operation.close()
        status = stage.status()
        assert "bills: Columns, keys or triggers of numbering have changed since the stage." in status.problems
        assert "zdm.landscape.stage" in status.next_command
        assert stage.run(state="staged").code == 0
        stage.assert_agreed(live, replay=False)
    assert stage.run(state="staged").code == 0
    stage.assert_agreed(live, replay=False)


def test_a_router_is_down(stage: Scene) -> None:
    options = {
        **stage.options,
        "routers": [{**stage.options["routers"][0], "socket": "/nonexistent/router.sock"}, stage.options["routers"][1]],
    }
    refused(stage, "router-1", options=options)


def test_a_request_that_never_ends_undoes_the_window_and_is_named(stage: Scene) -> None:
    before = stage.live
    host, port = stage.landscape.fleet.addresses[0]
    with closing(socket.create_connection((host, port))) as connection:
        token = stage.landscape.token(stage.landscape.target)
        head = (
            f"POST /bills/writes HTTP/1.1\r\nHost: bills\r\nAuthorization: Bearer {token}\r\nContent-Length:"
            " 500\r\n\r\n"
        )
        connection.sendall(head.encode() + b"{")
        stage.wait_in_flight()
        with stage.policy(drain_timeout="1s"):
            ended = stage.run()
    assert ended.code == 3
    assert "router-1" in ended.result["message"]
    assert "in flight" in ended.result["message"]
    assert ended.result["details"]["undone"] is True
    stage.assert_agreed(before, replay=False)


def test_a_lease_that_ends_during_the_drain_is_made_good_by_the_second_drain(stage: Scene, tmp_path: Path) -> None:
    """The controller is stopped between block and drain until its lease has ended; requests pass; then it goes on."""
    goal = stage.other
    process = stage.controller("--stop", "SIGSTOP", "after", "lease:router-2")
    stage.wait_stopped(process)
    stage.wait_unblocked()
    stage.traffic.wait_requests(20)
    process.send_signal(signal.SIGCONT)
    ended = stage.end_of(process)
    assert ended.code == 0, ended.result
    stage.assert_agreed(goal)


def test_a_journal_that_somebody_edits_stops_the_controller(stage: Scene, tmp_path: Path) -> None:
    before, go = stage.live, tmp_path / "go"
    process = stage.controller("--hold", "lease:router-1", str(go))
    stage.wait_recorded("lease:router-1")
    journal = stage.landscape.store_path / "migrations" / "venezia--venezia-scp.json"
    journal.write_text(json.dumps({**json.loads(journal.read_text()), "remark": "edited by hand"}))
    go.touch()
    ended = stage.end_of(process)
    assert ended.code == 3
    assert "changed by somebody else" in ended.result["message"]
    again = stage.run(state="aborted")
    assert again.code == 0, again.result
    stage.assert_agreed(before, replay=False)


def test_no_space_for_the_journal_undoes_the_window(stage: Scene) -> None:
    """The store lies on a file system that is full at the close's journal write."""
    before = stage.live
    with small_disk(stage) as fill:
        process = stage.controller("--hold", "lease:router-1", str(stage.folder / "go-disk"))
        stage.wait_recorded("lease:router-1")
        free = fill()
        (stage.folder / "go-disk").touch()
        ended = stage.end_of(process)
        assert ended.code == 3
        assert "venezia--venezia-scp" in ended.result["message"]
        assert "space" in ended.result["message"]
        free()
        again = stage.run(state="aborted")
        assert again.code == 0, again.result
    stage.assert_agreed(before, replay=False)


@contextmanager
def small_disk(stage: Scene) -> Iterator[Callable[[], Callable[[], None]]]:
    """Lay the store on a small file system of its own while the block runs."""
    if os.getuid() != 0:
        pytest.skip("only root can mount a small file system")
    store = stage.landscape.store_path
    copy = stage.folder / "store-copy"
    shutil.copytree(store, copy)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=755", "zdm-test", str(store)], check=True)

    def fill() -> Callable[[], None]:
        ballast = store / "ballast"
        with ballast.open("wb") as stream, suppress(OSError):
            while True:
                stream.write(b"\0" * 4096)
                stream.flush()
        return ballast.unlink

    try:
        shutil.copytree(copy, store, dirs_exist_ok=True)
        yield fill
        shutil.rmtree(copy)
        shutil.copytree(store, copy)
    finally:
        subprocess.run(["umount", "--lazy", str(store)], check=True)
        shutil.copytree(copy, store, dirs_exist_ok=True)
        shutil.rmtree(copy)


def test_nothing_was_lost_on_all_those_days(stage: Scene) -> None:
    stage.assert_ledger()


@pytest.fixture(name="quiet")
def _quiet(stage: Scene) -> None:
    """Without load: databases go down, and with them their services."""
    stage.traffic.stop()


def test_rows_of_the_target_and_an_unsafe_strategy_are_refused_before_the_stage(stage: Scene) -> None:
    database, target = stage.landscape.databases["documents"], stage.landscape.target.id
    insert = f"INSERT INTO archive_setting (tenant_id, name, setting) VALUES ('{target}', 'x', 'y')"
    tables = next(entry for entry in stage.options["participants"] if entry["name"] == "bills")["tables"]
    unsafe = with_participant(stage, "bills", tables={**tables, "outbox": {"strategy": "twin"}})
    stage.unstage()
    try:
        with sql(database, insert, f"DELETE FROM archive_setting WHERE tenant_id = '{target}'"):
            refused(stage, "archive_setting", for_window=False)
        refused(stage, "outbox", "twin", options=unsafe, for_window=False)
    finally:
        stage.stage()


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("service", ["subscriptions", "rating"])
def test_a_database_down_at_the_plan(stage: Scene, service: str) -> None:
    server = stage.landscape.servers[service]
    server.stop()
    try:
        operation = Operation(stage.options)
        with pytest.raises(ZdmError, match=service):
            operation.checked_plan(for_window=True)
        operation.close()
    finally:
        server.start()
    stage.assert_agreed(stage.live)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("place", ["lease:router-2", "drained:journal"])
@pytest.mark.parametrize("service", ["subscriptions", "rating"])
def test_a_database_that_goes_down_in_the_window(stage: Scene, service: str, place: str) -> None:
    before, go = stage.live, stage.folder / f"go-{service}-{place}"
    server = stage.landscape.servers[service]
    process = stage.controller("--hold", place, str(go))
    stage.wait_recorded(place)
    server.stop()
    try:
        go.touch()
        ended = stage.end_of(process)
        assert ended.code == 3
        assert service in ended.result["message"]
    finally:
        server.start()
    again = stage.run(state="aborted")
    assert again.code == 0, again.result
    stage.assert_agreed(before, replay=False)


@pytest.mark.usefixtures("quiet")
def test_a_database_that_goes_down_in_the_stage(stage: Scene) -> None:
    stage.unstage()
    server = stage.landscape.servers["bills"]

    def break_it(entry: dict[str, Any]) -> None:
        if entry.get("participant") == "bills" and server.running:
            server.stop()

    with pytest.raises(ZdmError, match="bills"):
        stage.stage(break_it)
    server.start()
    stage.stage()
    goal = stage.other
    ended = stage.run()
    assert ended.code == 0, ended.result
    stage.assert_agreed(goal)
