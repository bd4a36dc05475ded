# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks as an operator runs them, on one landscape, with traffic that must not notice."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.zdm.landscape.tests.chaos.scene import ENOUGH, Scene, scene
from ansible_collections.zdm.landscape.tests.landscape.databases import Database
from ansible_collections.zdm.landscape.tests.landscape.processes import PATIENCE_S

ROOT = Path(__file__).resolve().parents[3]


class Theatre:
    """The scene on which the tests play, a new one after what has no way back."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._scene: Scene | None = None

    @property
    def scene(self) -> Scene:
        """As the last test has left it."""
        if self._scene is None:
            self._scene = self._stack.enter_context(scene(chaos=False, staged=False))
        return self._scene

    @property
    def finalized(self) -> bool:
        claimed = claims(self.scene)
        return not claimed and self.scene.journal().get("canonical") == self.scene.landscape.target.id

    def at(self, live: str, *, staged: bool) -> Scene:
        """The scene with this tenant live, ``source`` or ``target``."""
        if self.finalized:
            self.close()
        self.scene.staged = staged
        self.scene.settle()
        if self.scene.live != getattr(self.scene.landscape, live):
            goal = self.scene.other
            ended = self.scene.run()
            assert ended.code == 0, ended.result
            self.scene.assert_agreed(goal)
        return self.scene

    def close(self) -> None:
        self._scene = None
        self._stack.close()


@pytest.fixture(scope="module", name="theatre")
def _theatre() -> Iterator[Theatre]:
    theatre = Theatre()
    yield theatre
    theatre.close()


@pytest.fixture(name="unstaged")
def _unstaged(theatre: Theatre) -> Scene:
    return theatre.at("source", staged=False)


@pytest.fixture(name="staged")
def _staged(theatre: Theatre) -> Scene:
    return theatre.at("source", staged=True)


@pytest.fixture(name="switched")
def _switched(theatre: Theatre) -> Scene:
    return theatre.at("target", staged=True)


@pytest.fixture(name="finalized")
def _finalized(theatre: Theatre) -> Scene:
    if not theatre.finalized:
        ended = theatre.at("target", staged=True).run(state="purged")
        assert ended.code == 0, ended.result
    return theatre.scene


def claims(stage: Scene) -> list[str]:
    """The tenants that a migration holds."""
    files = (stage.landscape.store_path / "claims").glob("*.json")
    return [file.stem for file in files if json.loads(file.read_text())["migration"]]


def play(
    stage: Scene,
    name: str,
    *arguments: str,
    code: int = 0,
    tenants: tuple[str, str] | None = ("venezia", "venezia-scp"),
) -> str:
    """Run a playbook by its name (or path) and return what it printed."""
    command = stage.landscape.playbook(name)[:3] + ([name] if name.endswith(".yml") else [f"zdm.landscape.{name}"])
    if tenants:
        command += ["-e", json.dumps({"migrate_db_from_tenant": tenants[0], "migrate_db_to_tenant": tenants[1]})]
    done = subprocess.run(
        [*command, *arguments],
        env=stage.landscape.environment,
        cwd=stage.folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == code, done.stdout
    for entry in stage.options["participants"]:
        assert entry.get("password") is None or entry["password"] not in done.stdout
    return done.stdout


def everything(stage: Scene) -> dict[str, Any]:
    """What no read-only command may change: store, routers, and the databases' catalogs."""
    store = {
        str(file): file.read_bytes()
        for file in sorted(stage.landscape.store_path.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }
    routers = [
        (state.name, state.blocks, state.overrides, state.epochs, state.onboarded) for state in stage.router_states()
    ]
    return {
        "store": store,
        "routers": routers,
        "catalogs": {name: catalog(database) for name, database in stage.landscape.databases.items()},
    }


def catalog(database: Database) -> list[Any]:
    kind = database.service.kind
    if kind == "sqlite":
        return database.query("SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2")
    if kind == "mariadb":
        tables, triggers = database.queries(
            "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = database() ORDER BY 1",
            "SELECT trigger_name, action_statement FROM information_schema.triggers WHERE trigger_schema = database()"
            " ORDER BY 1",
        )
    else:
        tables, triggers = database.queries(
            "SELECT n.nspname, c.relname, c.relkind::text FROM pg_class c"
            " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname !~ '^pg_' ORDER BY 1, 2",
            "SELECT tgrelid::regclass::text, tgname::text, tgenabled::text FROM pg_trigger WHERE NOT tgisinternal ORDER"
            " BY 1, 2",
        )
    return [*tables, *triggers]


@contextmanager
def unchanged(stage: Scene) -> Iterator[None]:
    before = everything(stage)
    yield
    assert everything(stage) == before


def test_validate_says_that_all_is_well(unstaged: Scene) -> None:
    play(unstaged, "validate", tenants=None)


def test_validate_names_a_wrong_key(unstaged: Scene) -> None:
    output = play(
        unstaged,
        "validate",
        "-e",
        json.dumps({"zdm_landscape": {"name": "x", "partcipants": []}}),
        code=2,
        tenants=None,
    )
    assert "partcipants" in output
    assert "participants" in output


@pytest.mark.parametrize(
    ("tenants", "text"),
    [
        (("venezia", "milano"), "milano is not onboarded"),
        pytest.param(("venezia", "venezia"), "both venezia", marks=pytest.mark.thorough),
        (("venezia\n", "venezia-scp"), "not a valid name"),
        pytest.param(("../venezia", "venezia-scp"), "not a valid name", marks=pytest.mark.thorough),
    ],
)
def test_wrong_tenants_are_refused_before_anything(unstaged: Scene, tenants: tuple[str, str], text: str) -> None:
    with unchanged(unstaged):
        assert text in re.sub(r"\s+", " ", play(unstaged, "migrate", code=2, tenants=tenants))


def test_plan_changes_nothing_and_writes_what_to_sign(unstaged: Scene) -> None:
    with unchanged(unstaged):
        output = play(unstaged, "plan", "-e", f"zdm_output_dir={unstaged.folder}/output")
    assert "predicted window" in output
    assert "subscription_item" in output
    written = [path for path in (unstaged.folder / "output").rglob("*") if path.is_file()]
    assert any("CREATE TRIGGER" in path.read_text() for path in written)
    rights = [path for path in written if path.name.endswith(".grants.sql")]
    assert rights
    for path in written:
        lines = path.read_text().splitlines()
        assert path.suffix != ".sql" or lines[-1].endswith(";")


def test_a_refused_plan_proposes_what_makes_it_green(unstaged: Scene) -> None:
    written = unstaged.landscape.inventory.parent / "group_vars" / "all" / "landscape.yml"
    landscape = yaml.safe_load(written.read_text())["zdm_landscape"]
    for participant in landscape["participants"]:
        tables = participant.get("tables") or {}
        participant["tables"] = {name: entry for name, entry in tables.items() if "ignore" not in entry}
    file = unstaged.folder / "proposal.yml"
    arguments = ("-e", json.dumps({"zdm_landscape": landscape}), "-e", f"proposal={file}", "-e", "zdm_output_dir=")
    with unchanged(unstaged):
        output = play(unstaged, "plan", "--check", *arguments, code=2)
        assert not file.exists()
        output = play(unstaged, "plan", *arguments, code=2)
    assert "Nothing to sign yet" in output
    assert output.index("way out: ") < output.index("Proposed, for you to confirm:")
    proposed = {entry.pop("name"): entry for entry in yaml.safe_load(file.read_text())}
    assert proposed
    assert all(entry.keys() == {"ignore"} for entry in proposed.values())
    for participant in landscape["participants"]:
        participant.update(proposed.get(participant["name"], {}))
    output = play(unstaged, "plan", "-e", json.dumps({"zdm_landscape": landscape}))
    assert "To sign, and to give to stage and migrate as plan_digest: " in output


def test_check_mode_of_migrate_changes_nothing_and_shows_the_plan(unstaged: Scene) -> None:
    told = audit_log(unstaged)
    with unchanged(unstaged):
        output = play(unstaged, "migrate", "--check")
    assert "predicted window" in output
    assert audit_log(unstaged) == told


def test_stage_by_path_is_shown_while_its_limits_are_changed_and_again(unstaged: Scene) -> None:
    told = len(audit_log(unstaged))
    play(unstaged, "throttle", "-e", "rows_per_second=10")
    command = [
        *unstaged.landscape.playbook("stage")[:3],
        str(ROOT / "playbooks" / "stage.yml"),
        *unstaged.landscape.playbook("stage")[4:],
    ]
    files = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=unstaged.landscape.environment, cwd=unstaged.folder, **files) as process:  # type: ignore[call-overload]
        assert any("throttled: rows_per_second (rows_per_second 10)" in line for line in process.stdout)
        assert "rows/s" in play(unstaged, "status")
        play(unstaged, "throttle", "-e", "throttle_state=absent")
        output = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == 0, output
    assert "Limits of the policy: none" in output
    assert "bills: staged" in output
    assert re.search(r"changed=[1-9]", output)
    copied = [entry for entry in audit_log(unstaged)[told:] if entry["step"] == "copied"]
    assert [entry["table"] for entry in copied if entry["participant"] == "bills"] == ["tax_rule", "bill", "bill_line"]
    assert applied(play(unstaged, "stage")) > 0


def applied(output: str) -> int:
    found = re.search(r"(\d+) logged keys were applied", re.sub(r"\s+", " ", output))
    assert found, output
    return int(found[1])


def audit_log(stage: Scene) -> list[dict[str, Any]]:
    file = stage.folder / "audit" / "venezia--venezia-scp.jsonl"
    text = file.read_text() if file.exists() else ""
    for entry in stage.options["participants"]:
        assert entry.get("password") is None or entry["password"] not in text
    return [json.loads(line) for line in text.splitlines()]


def test_status_of_a_staged_migration(staged: Scene) -> None:
    with unchanged(staged):
        assert "the stage is ready" in play(staged, "status", tenants=None)


def test_migrate_and_again(staged: Scene) -> None:
    told = len(audit_log(staged))
    with unchanged_after(staged):
        output = play(staged, "migrate")
        assert "venezia-scp" in output
    steps = [entry["step"] for entry in audit_log(staged)[told:] if entry["command"] == "tenant_cutover switched"]
    assert steps[0] == "begin"
    assert steps[-1] == "end"
    shown = re.findall(r" ms {2}(\w+) \(", output)
    assert shown == steps[1:-1]
    assert {"block", "commit", "release"} < set(shown)
    staged.assert_agreed(staged.landscape.target)
    assert "changed=0" in play(staged, "migrate")


@contextmanager
def unchanged_after(stage: Scene) -> Iterator[None]:
    """A switch makes no object on a server, where DDL would have to wait: it only changes which of them work."""
    servers = {name: database for name, database in stage.landscape.databases.items() if database.server}
    names = {name: [row[:2] for row in catalog(database)] for name, database in servers.items()}
    yield
    assert {name: [row[:2] for row in catalog(database)] for name, database in servers.items()} == names


def test_status_in_transition(switched: Scene) -> None:
    output = re.sub(r"\s+", " ", play(switched, "status"))
    assert "both credentials work" in output
    assert "28.0 days are left" in output
    assert re.search(r"A reverse would hold requests for about \d+ ms", output)


def test_what_was_logged_in_the_transition_is_applied_while_the_tenant_is_served(switched: Scene) -> None:
    switched.traffic.wait_requests(ENOUGH)
    with unchanged(switched):
        assert re.search(
            r"[1-9]\d* logged keys would be applied", re.sub(r"\s+", " ", play(switched, "stage", "--check"))
        )
    output = play(switched, "stage")
    assert applied(output) > 0
    assert re.search(r"changed=[1-9]", output)


def test_rows_that_differ_are_named_and_repaired_on_request(switched: Scene) -> None:
    """Somebody has written past the triggers, to a copy of the retired id."""
    retired = switched.landscape.source.id
    switched.landscape.databases["bills"].execute(
        "SET zdm.worker = 'venezia--venezia-scp'",
        f"UPDATE bill SET customer = 'spoilt' WHERE tenant_id = '{retired}' AND number = 1",
    )
    output = re.sub(r"\s+", " ", play(switched, "stage", code=2))
    assert "rows differ from their copies: bill (00000000-0000-4000-8000-000000000001)" in output
    assert "repair=true" in output
    assert "zdm.landscape.stage" in play(switched, "status", code=2)
    play(switched, "stage", "-e", "repair=true")
    switched.assert_agreed(switched.landscape.target, replay=False)


def test_abort_is_refused_while_the_target_is_live(switched: Scene) -> None:
    with unchanged(switched):
        assert "zdm.landscape.reverse" in play(switched, "abort", code=2)


def test_reverse(switched: Scene) -> None:
    switched.traffic.wait_requests(ENOUGH)
    assert applied(play(switched, "reverse", "-e", json.dumps({"unverified": "the shop is down"}))) > 0
    assert switched.journal()["unverified"]["reason"] == "the shop is down"
    switched.assert_agreed(switched.landscape.source)


@pytest.mark.thorough
def test_status_after_a_crash_says_what_to_run(staged: Scene) -> None:
    killed = staged.run("--stop", "SIGKILL", "after", "lease:router-2")
    assert killed.code == -9
    output = re.sub(r"\s+", " ", play(staged, "status", code=2))
    assert (
        "ansible-playbook zdm.landscape.migrate -e migrate_db_from_tenant=venezia -e migrate_db_to_tenant=venezia-scp"
        in output
    )
    play(staged, "migrate")
    staged.assert_agreed(staged.landscape.target, replay=False)
    play(staged, "reverse")
    staged.assert_agreed(staged.landscape.source)


def test_abort_leaves_nothing_behind(staged: Scene) -> None:
    play(staged, "abort")
    for database in staged.landscape.databases.values():
        assert not [row for row in catalog(database) if "zdm" in str(row)]
    assert not claims(staged)


CONFIRM = ("-e", "tenant_finalize_confirm=venezia")


def test_finalize_is_refused_while_the_source_is_live_and_without_confirmation(staged: Scene) -> None:
    with unchanged(staged):
        assert "zdm.landscape.abort" in play(staged, "finalize", *CONFIRM, code=2)
        assert "tenant_finalize_confirm=venezia" in play(
            staged, "finalize", "-e", "tenant_finalize_confirm=venezia-scp", code=2
        )


def test_finalize_leaves_the_live_rows_and_the_mapping_alone(unstaged: Scene) -> None:
    before = {name: catalog(database) for name, database in unstaged.landscape.databases.items()}
    play(unstaged, "migrate")
    unstaged.assert_agreed(unstaged.landscape.target, replay=False)
    with unchanged(unstaged):
        output = re.sub(r"\s+", " ", play(unstaged, "finalize", "--check"))
        assert re.search(r"[1-9]\d* rows of venezia would be deleted", output)
    output = play(unstaged, "finalize", *CONFIRM)
    assert re.search(r"[1-9]\d* rows of venezia were deleted", re.sub(r"\s+", " ", output))
    assert re.search(r"changed=[1-9]", output)
    assert {name: catalog(database) for name, database in unstaged.landscape.databases.items()} == before
    assert not claims(unstaged)
    unstaged.traffic.wait_requests(ENOUGH)
    unstaged.assert_agreed(unstaged.landscape.target, replay=False)


@pytest.mark.thorough
def test_after_finalize_there_is_no_way_back(finalized: Scene) -> None:
    with unchanged(finalized):
        assert "changed=0" in play(finalized, "finalize", *CONFIRM)
        assert "Finalized 20" in play(finalized, "status")
        assert "the way back has ended" in re.sub(r"\s+", " ", play(finalized, "reverse", code=2))


def test_nobody_noticed(theatre: Theatre) -> None:
    stage = theatre.scene if theatre.finalized else theatre.at("source", staged=False)
    stage.assert_ledger(twins=False)
