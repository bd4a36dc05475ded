# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""tenant_throttle as Ansible runs it: check mode, diff, idempotence, refusals, and who changed it in the audit log."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.zdm.landscape.plugins.modules import tenant_throttle

Run = Callable[..., dict[str, Any]]
LIMITS = {"rows_per_second": 500, "max_latency": "300ms"}


@pytest.fixture(name="run")
def _run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the module for two onboarded tenants; the result is what it prints."""
    folder = tmp_path / "store" / "onboarded-tenants"
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        (folder / f"{name}.json").write_text(json.dumps({"id": f"guid-{name}", "subdomain": name}))

    def call(check: bool = False, **args: Any) -> dict[str, Any]:
        options = {
            "store": {"path": str(tmp_path / "store")},
            "source": "a",
            "target": "b",
            "log_dir": str(tmp_path / "log"),
            **args,
        }
        with (
            patch_module_args({**options, "_ansible_check_mode": check, "_ansible_diff": True}),
            pytest.raises(SystemExit),
        ):
            tenant_throttle.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return call


def test_limits_are_predicted_set_kept_and_removed(run: Run, tmp_path: Path) -> None:
    file, log = tmp_path / "store" / "throttles" / "a--b.json", tmp_path / "log" / "a--b.jsonl"
    predicted = run(check=True, **LIMITS)
    assert (predicted["changed"], file.exists(), log.exists()) == (True, False, False)
    made = run(**LIMITS)
    assert (made["changed"], made["throttle"], made["diff"]["after"]) == (True, LIMITS, LIMITS)
    assert json.loads(file.read_text()) == LIMITS
    assert not run(**LIMITS)["changed"]
    changed = run(rows_per_second=0)
    assert (changed["diff"]["before"], changed["throttle"]) == (LIMITS, {"rows_per_second": 0})
    assert run(state="absent", check=True)["changed"]
    assert run(state="absent")["throttle"] == {}
    assert not file.exists()
    assert not run(state="absent")["changed"]
    ends = [json.loads(line) for line in log.read_text().splitlines() if '"end"' in line]
    assert [entry["throttle"] for entry in ends] == [LIMITS, {"rows_per_second": 0}, {}]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "state is present but any of the following are missing"),
        ({"rows_per_second": -1}, "throttle.rows_per_second -1 is not a number of rows"),
        ({"max_latency": "300"}, "throttle.max_latency '300' is not a duration"),
        ({"rows_per_second": 5, "target": "c"}, "migrate_db_to_tenant c is not onboarded"),
        ({"rows_per_second": 5, "log_dir": "/dev/null/x"}, "log_dir"),
    ],
)
def test_what_is_wrong_is_refused_and_changes_nothing(
    run: Run, tmp_path: Path, args: dict[str, Any], message: str
) -> None:
    result = run(**args)
    assert result["failed"]
    assert message in result["msg"]
    assert not (tmp_path / "store" / "throttles").exists()
