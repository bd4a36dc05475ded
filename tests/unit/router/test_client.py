# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the client makes of input before it sends anything, and what the modules plan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, Refused
from ansible_collections.zdm.landscape.plugins.module_utils.router.base import FAR_MS, HOLD, Block, RouterState
from ansible_collections.zdm.landscape.plugins.module_utils.router.entries import Wanted, plan_absent, plan_present
from ansible_collections.zdm.landscape.plugins.module_utils.router.haproxy import HAProxyRouter
from ansible_collections.zdm.landscape.plugins.module_utils.router.install import Installation
from ansible_collections.zdm.landscape.plugins.module_utils.router.render import Maps
from ansible_collections.zdm.landscape.plugins.module_utils.router.start import differences
from hypothesis import given
from hypothesis import strategies as st

TLS = {"host": "h", "port": 1, "ca_file": "ca", "cert_file": "cert"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either a socket or a host"),
        ({"socket": "/s", **TLS}, "either a socket or a host"),
        ({**TLS, "port": None}, "lacks a port"),
        ({**TLS, "ca_file": None}, "lacks ca_file"),
        ({**TLS, "cert_file": None}, "lacks ca_file or cert_file"),
    ],
)
def test_an_endpoint_is_a_socket_or_mutual_tls(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        HAProxyRouter("r", **options)


@given(
    st.text().filter(lambda text: not text or not text[0].isascii() or any(letter in text for letter in " \n;\\<=|/"))
)
def test_no_text_becomes_a_command(text: str) -> None:
    router = HAProxyRouter("r", socket="/nonexistent")
    calls: list[Callable[[], object]] = [
        lambda: router.in_flight([text]),
        lambda: router.lease("m", 1, ["a", text], 1000, HOLD),
        lambda: router.lease(text, 1, ["a"], 1000, HOLD),
        lambda: router.close("m", 1, ["a"], text),
        lambda: router.map("m", 1, {text: "a"}),
        lambda: router.map("m", 1, {"a": text}),
        lambda: router.edit("override", {text: "a"}),
    ]
    for call in calls:
        with pytest.raises(InputError):
            call()


@pytest.mark.parametrize("lease_ms", [-1, 0, 99])
def test_a_lease_is_long_enough_to_come_into_force(lease_ms: int) -> None:
    with pytest.raises(InputError, match="too short"):
        HAProxyRouter("r", socket="/nonexistent").lease("m", 1, ["a"], lease_ms, HOLD)


def state(name: str = "r", **changes: Any) -> RouterState:
    known: dict[str, Any] = {
        "onboarded": {},
        "subdomains": {},
        "overrides": {},
        "blocks": {},
        "decommissioned": frozenset(),
        "epochs": {},
    }
    return RouterState(name=name, version="1", ready=True, clock_ms=1, old_workers=0, **{**known, **changes})


KNOWN = state("known", onboarded={"a": "us10/x", "b": "us10/x"}, subdomains={"sub": "b"}, overrides={"b": "a"})


EMPTY = state(onboarded={"a": "us10/x"})


def test_what_is_there_needs_no_edit() -> None:
    assert plan_present([KNOWN], Wanted("b", "sub", "us10/x", "a", False)) == {}
    assert plan_absent([state()], "b") == {}


def test_the_override_is_set_before_the_tenant_is_let_in_and_removed_last() -> None:
    edits = plan_present([EMPTY, KNOWN], Wanted("b", "sub", "us10/x", "a", False))
    assert list(edits) == ["override", "onboarded", "subdomains"]
    assert edits["override"] == {"b": "a"}
    gone = plan_absent([state(), KNOWN], "b")
    assert gone == {"subdomains": {"sub": None}, "onboarded": {"b": None}, "override": {"b": None}}
    assert list(gone)[-1] == "override"


@pytest.mark.parametrize("leads_to", ["", "b"])
def test_a_tenant_that_leads_to_itself_has_no_override(leads_to: str) -> None:
    assert plan_present([KNOWN], Wanted("b", leads_to=leads_to)) == {"override": {"b": None}}


def test_decommissioning_needs_no_more_than_the_id() -> None:
    assert plan_present([KNOWN], Wanted("b", decommissioned=True)) == {"decommissioned": {"b": "1"}}
    with pytest.raises(InputError, match="is not onboarded at r"):
        plan_present([KNOWN, state()], Wanted("b", decommissioned=True))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Wanted("c", home="us10/x", leads_to="b"), "tenant id c would lead to b, which leads to a itself"),
        (Wanted("a", leads_to="c"), "tenant id b would lead to a, which leads to c itself"),
        (Wanted("b", leads_to="x"), "tenant id b would lead to x, which is not onboarded"),
    ],
)
def test_no_chain_and_nobody(wanted: Wanted, said: str) -> None:
    there = state("full", onboarded=dict.fromkeys("abc", "us10/x"), overrides={"b": "a"})
    with pytest.raises(Refused, match=f"Router full refuses: {said}"):
        plan_present([there], wanted)


def test_a_tenant_to_which_others_lead_is_not_forgotten() -> None:
    with pytest.raises(Refused, match="Router known refuses: tenant id b would lead to a, which is not onboarded"):
        plan_absent([state(), KNOWN], "a")


@pytest.mark.parametrize("epoch", [-1, -(2**63), 10**15, 2**63])
def test_an_epoch_that_no_router_can_hold_is_not_sent(epoch: int) -> None:
    with pytest.raises(InputError, match="is no epoch of migration a--b"):
        HAProxyRouter("r", socket="/nonexistent").take_over("a--b", epoch)


@pytest.mark.parametrize("wanted", [Wanted("b c"), Wanted("b", "s/b"), Wanted("b", leads_to="x\n")])
def test_names_are_validated(wanted: Wanted) -> None:
    with pytest.raises(InputError):
        plan_present([KNOWN], wanted)


maps = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz"))


@given(wanted=maps, there=maps, blocked=st.booleans())
def test_the_late_load_makes_a_router_what_the_store_says(
    wanted: dict[str, str], there: dict[str, str], blocked: bool
) -> None:
    blocks = {"a": Block(HOLD, FAR_MS, "m")} if blocked else {}
    changes = differences(Maps(override=wanted, epochs={"m": "3"}), state(overrides=there, blocks=blocks))
    result = {**there, **changes.pop("override", {})}
    assert {key: value for key, value in result.items() if value is not None} == wanted
    assert changes.pop("epochs") == {"m": "3"}
    assert changes == ({"block": {"a": None}} if blocked else {})


def installation(home: Path, **files: str) -> Installation:
    paths = {name.replace("_", "/", 1).replace("_", "."): content for name, content in files.items()}
    return Installation(home, {"haproxy.cfg": "str(@secret:0@),b64dec\n", **paths}, ["geheim"], "/nonexistent")


def test_files_are_compared_by_content_and_mode_and_strangers_are_removed(tmp_path: Path) -> None:
    wanted = installation(tmp_path, lua_zdm_lua="-- one\n")
    assert [change.path for change in wanted.changes() if not change.path.endswith("/")] == [
        "haproxy.cfg",
        "lua/zdm.lua",
    ]
    wanted.apply()
    assert wanted.changes() == []
    assert (tmp_path / "haproxy.cfg").read_text() == "str(Z2VoZWlt),b64dec\n"
    (tmp_path / "lua" / "old.lua").write_text("-- old\n")
    (tmp_path / "haproxy.cfg").chmod(0o644)
    changes = wanted.changes()
    assert [(change.path, change.after) for change in changes] == [
        ("haproxy.cfg", "str(********),b64dec\n"),
        ("lua/old.lua", None),
    ]
    assert "Z2VoZWlt" not in repr(changes)
    wanted.apply()
    assert wanted.changes() == []
    assert not (tmp_path / "lua" / "old.lua").exists()


def test_only_what_haproxy_reads_needs_a_reload(tmp_path: Path) -> None:
    installation(tmp_path, lua_zdm_lua="-- one\n").apply()
    assert not Installation.need_reload(installation(tmp_path, lua_zdm_lua="-- one\n", lib_x_py="1\n").changes())
    assert Installation.need_reload(installation(tmp_path, lua_zdm_lua="-- two\n").changes())


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../x",
        "lua/../../x",
        "lua/a b",
        "lua/a\nb",
        "lua//a",
        "lua/.x",
        "lua/-x",
        "keys/0/a'b.pem",
        "run/pid",
        "run/master.sock",
        "maps/block.map",
        "haproxy.cfg/x",
        "lua",
        "x",
        "",
        "lua/" + "x" * 300,
    ],
)
def test_what_is_no_file_of_a_router_is_named(tmp_path: Path, path: str) -> None:
    with pytest.raises(InputError, match="is no file of a router") as caught:
        Installation(tmp_path, {"haproxy.cfg": "", path: ""}, [], "/nonexistent")
    assert repr(path) in caught.value.message


@pytest.mark.parametrize("content", [None, 1, True, ["x"], {"x": 1}, "\ud800"])
@pytest.mark.parametrize("path", ["haproxy.cfg", "lua/zdm.lua", "keys/0/key-1.pem"])
def test_content_that_is_no_text_is_named(tmp_path: Path, path: str, content: Any) -> None:
    with pytest.raises(InputError, match=f"The content of {path} is no text"):
        Installation(tmp_path, {"haproxy.cfg": "", path: content}, [], "/nonexistent")


def test_a_configuration_must_be_there_and_no_name_twice(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="haproxy.cfg is not among the files"):
        Installation(tmp_path, {"lua/zdm.lua": ""}, [], "/nonexistent")
    with pytest.raises(InputError, match="lua/a is a file and a folder at once"):
        Installation(tmp_path, {"haproxy.cfg": "", "lua/a": "", "lua/a/b": ""}, [], "/nonexistent")


@pytest.mark.parametrize("name", ["lua", "run", "keys"])
def test_a_folder_that_is_a_link_is_refused_and_nothing_behind_it_touched(tmp_path: Path, name: str) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir(0o750)
    (elsewhere / "precious").write_text("kept")
    (home / name).symlink_to(elsewhere)
    with pytest.raises(Refused, match="is a link; nothing was changed"):
        installation(home).changes()
    assert (elsewhere / "precious").read_text() == "kept"
    assert elsewhere.stat().st_mode & 0o777 == 0o750


def test_a_folder_where_a_file_is_to_be_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "lua" / "zdm.lua").mkdir(parents=True)
    with pytest.raises(Refused, match="zdm.lua is a folder, where a file is to be; nothing was changed"):
        installation(tmp_path, lua_zdm_lua="-- one\n").changes()


def test_rights_of_folders_are_differences_and_are_repaired(tmp_path: Path) -> None:
    wanted = installation(tmp_path, lua_zdm_lua="-- one\n")
    wanted.apply()
    for name, mode in (("maps", 0o755), ("run", 0o777), ("keys", 0o777)):
        (tmp_path / name).chmod(mode)
    assert [(change.path, change.after) for change in wanted.changes()] == [
        ("keys/", "mode 0700\n"),
        ("maps/", "mode 0700\n"),
        ("run/", "mode 0711\n"),
    ]
    wanted.apply()
    assert wanted.changes() == []


def test_what_the_start_script_has_read_needs_a_restart(tmp_path: Path) -> None:
    installation(tmp_path, lua_zdm_lua="-- one\n").apply()
    assert not Installation.need_restart(installation(tmp_path, lua_zdm_lua="-- two\n").changes())
    for changed in ({"lib_x_py": "1\n"}, {"bin_zdm": "1\n"}):
        assert Installation.need_restart(installation(tmp_path, lua_zdm_lua="-- one\n", **changed).changes())
