# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""tenant_config, tenant_mapping, tenant_mapping_info and landscape_health as Ansible runs them: check mode, diff,
idempotence, failures.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.zdm.landscape.plugins.modules import (
    landscape_health,
    tenant_config,
    tenant_mapping,
    tenant_mapping_info,
)

Run = Callable[..., dict[str, Any]]
DOCUMENT_A = {"id": "guidA", "subdomain": "venezia", "datacenter": "US10", "channel": "BETA"}
MAPPING = {"onboard_with_mapping_to_tenant": "venezia", "onboard_with_mapping_to_tenant_id": "guidA"}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a module; the result is what it prints."""

    def call(module: ModuleType, check: bool = False, **args: Any) -> dict[str, Any]:
        with (
            patch_module_args({**args, "_ansible_check_mode": check, "_ansible_diff": True}),
            pytest.raises(SystemExit),
        ):
            module.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return call


@pytest.fixture
def store(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "store" / "onboarded-tenants"
    folder.mkdir(parents=True)
    (folder / "venezia.json").write_text(json.dumps(DOCUMENT_A))
    return {"kind": "file", "path": str(tmp_path / "store")}


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.json"))}


def test_a_mapping_is_predicted_made_and_kept(run: Run, store: dict[str, str], tmp_path: Path) -> None:
    args = {"store": store, "subdomain": "b", "id": "guidB", "map_to_tenant": "venezia", "map_to_tenant_id": "guidA"}
    before = content(tmp_path)
    predicted = run(tenant_mapping, check=True, **args)
    assert predicted["changed"]
    assert content(tmp_path) == before
    made = run(tenant_mapping, **args)
    assert made["changed"]
    written = json.loads((tmp_path / "store/onboarded-tenants/b.json").read_text())
    assert written.pop("write_id")
    assert made["tenant"] == predicted["tenant"] == written
    assert made["diff"]["before"] == {}
    assert made["diff"]["after"]["mapToTenantId"] == "guidA"
    again = run(tenant_mapping, **args)
    assert not again["changed"]
    assert again["diff"]["before"] == again["diff"]["after"]


def test_offboarding_is_idempotent(run: Run, store: dict[str, str], tmp_path: Path) -> None:
    assert run(tenant_mapping, check=True, store=store, subdomain="venezia", state="absent")["changed"]
    assert "store/onboarded-tenants/venezia.json" in content(tmp_path)
    assert run(tenant_mapping, store=store, subdomain="venezia", state="absent")["tenant"] == {}
    assert run(tenant_mapping_info, store=store)["tenants"] == []
    assert not run(tenant_mapping, store=store, subdomain="venezia", state="absent")["changed"]


def test_a_refusal_names_object_and_advice(run: Run, store: dict[str, str]) -> None:
    result = run(
        tenant_mapping, store=store, subdomain="b", id="guidB", map_to_tenant="venezia", map_to_tenant_id="guidX"
    )
    assert result["failed"]
    assert result["error"] == "Refused"
    assert result["msg"].startswith("venezia has the id guidA, given is guidX.")
    assert result["msg"].endswith(result["advice"])


def test_a_store_that_is_not_there_is_named(run: Run, tmp_path: Path) -> None:
    result = run(tenant_mapping_info, store={"path": str(tmp_path / "nowhere")})
    assert result["failed"]
    assert result["error"] == "Unreachable"
    assert "nowhere" in result["msg"]


@pytest.mark.parametrize("name", ["a\nb", "a/b", "..", ""])
def test_a_name_that_is_none_is_refused(run: Run, store: dict[str, str], tmp_path: Path, name: str) -> None:
    before = content(tmp_path)
    calls = [
        run(tenant_mapping, store=store, subdomain=name, id="x", datacenter="US10", channel="BETA"),
        run(tenant_mapping, store=store, subdomain="b", id=name, datacenter="US10", channel="BETA"),
        run(tenant_config, store=store, path=str(tmp_path / "tenants.json"), subdomain=name, decommissioned=True),
        run(
            tenant_config,
            store=store,
            path=str(tmp_path / "tenants.json"),
            subdomain="b",
            **{**MAPPING, "onboard_with_mapping_to_tenant": name},
        ),
        run(tenant_mapping_info, store=store, subdomain=name),
    ]
    assert all(result["failed"] for result in calls)
    assert content(tmp_path) == before


def test_info_lists_tenants_and_problems(run: Run, store: dict[str, str], tmp_path: Path) -> None:
    wrong = {**DOCUMENT_A, "subdomain": "b", "id": "guidB", "mapToTenant": "venezia", "mapToTenantId": "guidX"}
    (tmp_path / "store/onboarded-tenants/b.json").write_text(json.dumps(wrong))
    result = run(tenant_mapping_info, store=store)
    assert [tenant["subdomain"] for tenant in result["tenants"]] == ["b", "venezia"]
    assert result["tenants"][0]["canonical_id"] == "guidX"
    assert result["tenants"][1]["canonical_id"] == "guidA"
    assert result["problems"] == ["b is mapped to the id guidX, but venezia has the id guidA."]
    only = run(tenant_mapping_info, store=store, subdomain="venezia")
    assert [tenant["subdomain"] for tenant in only["tenants"]] == ["venezia"]
    assert only["problems"] == []


def test_a_configuration_is_written_to_file_and_store(run: Run, store: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "tenants.json"
    file.write_text('{\n    "venezia": {"region": "eu"}\n}\n')
    file.chmod(0o664)
    args = {"store": store, "path": str(file), "subdomain": "b", **MAPPING}
    before = content(tmp_path)
    assert run(tenant_config, check=True, **args)["changed"]
    assert content(tmp_path) == before
    made = run(tenant_config, **args)
    config = {"onboardWithMappingToTenant": "venezia", "onboardWithMappingToTenantId": "guidA"}
    assert made["config"] == config
    assert json.loads((tmp_path / "store/tenants/b.json").read_text()) == config
    assert file.read_text() == '{\n    "venezia": {"region": "eu"},\n    "b": ' + json.dumps(config) + "\n}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o664
    assert [entry["before"] == entry["after"] for entry in made["diff"]] == [False, False]
    again = run(tenant_config, **args)
    assert not again["changed"]
    assert again["config"] == config


def test_decommissioned_is_set_and_lifted(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "tenants.json"
    made = run(tenant_config, path=str(file), subdomain="venezia", decommissioned=True)
    assert made["config"] == {"decommissioned": "true"}
    assert json.loads(file.read_text()) == {"venezia": {"decommissioned": "true"}}
    assert not run(tenant_config, path=str(file), subdomain="venezia", decommissioned=True)["changed"]
    assert run(tenant_config, path=str(file), subdomain="venezia", decommissioned=False)["config"] == {}
    assert run(tenant_config, path=str(file), subdomain="venezia", state="absent")["changed"]
    assert not run(tenant_config, path=str(file), subdomain="venezia", state="absent")["changed"]
    assert json.loads(file.read_text()) == {}


def test_a_removed_configuration_leaves_the_store(run: Run, store: dict[str, str], tmp_path: Path) -> None:
    run(tenant_config, store=store, subdomain="b", **MAPPING)
    assert run(tenant_config, store=store, subdomain="b", state="absent")["changed"]
    assert not (tmp_path / "store/tenants/b.json").exists()
    assert not run(tenant_config, store=store, subdomain="b", state="absent")["changed"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"subdomain": "venezia", **MAPPING}, "venezia can't be mapped to itself"),
        ({"subdomain": "b", "onboard_with_mapping_to_tenant": "venezia"}, "only the subdomain is given"),
    ],
)
def test_a_wrong_configuration_is_refused(run: Run, tmp_path: Path, args: dict[str, Any], message: str) -> None:
    result = run(tenant_config, path=str(tmp_path / "tenants.json"), **args)
    assert message in result["msg"]
    assert content(tmp_path) == {}


def test_a_broken_tenants_file_is_not_touched(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "tenants.json"
    file.write_text('{"a": {}')
    result = run(tenant_config, path=str(file), subdomain="b", decommissioned=True)
    assert "is not a JSON object of tenants" in result["msg"]
    assert file.read_text() == '{"a": {}'


def test_health_fails_unless_told_not_to(run: Run) -> None:
    endpoint = {"url": "http://user:hunter2@127.0.0.1:1/health"}
    result = run(landscape_health, health=[endpoint])
    assert result["failed"]
    assert "http://127.0.0.1:1/health does not answer" in result["msg"]
    told = run(landscape_health, health=[endpoint], fail_when_unhealthy=False)
    assert "failed" not in told
    assert (told["healthy"], told["changed"], len(told["endpoints"])) == (False, False, 1)
    assert run(landscape_health, health=[])["healthy"]
