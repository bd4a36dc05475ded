# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No text from outside becomes configuration: every printable character in every variable and every file name of the
role.
"""

from __future__ import annotations

import copy
import re
import string
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from ansible_collections.zdm.landscape.plugins.filter.haproxy_word import FilterModule
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError
from ansible_collections.zdm.landscape.plugins.module_utils.router.variables import VARIABLES, problems
from ansible_collections.zdm.landscape.plugins.module_utils.router.words import issuer_pattern, quoted, shallow_pattern
from hypothesis import given
from hypothesis import strategies as st

ROLE = Path(__file__).parents[3] / "roles" / "landscape_router"
CHARACTERS = [*string.printable, "\0", "\x1b", "\x7f", "\x85", "\xa0", "ü", "\u2028", "\u2019"]
TEMPLATES = ("haproxy.cfg.j2", "zdm-router.j2", "zdm-router.service.j2")

EVERYTHING: dict[str, Any] = {
    "dir": "/etc/zdm-router",
    "name": "router-1",
    "bind_address": "router.example.com",
    "port": 8080,
    "tls_cert": "/keys/client.pem",
    "control_port": 9443,
    "control_address": "10.0.0.1",
    "control_cert": "/keys/control.pem",
    "control_ca": "/keys/ca.pem",
    "control_group": "operators",
    "issuers": [
        {
            "issuer": "https://*.auth.example.com/token",
            "algorithm": "RS256",
            "keys_dir": "/keys/xsuaa",
            "audience": "rc!b1",
            "tenant_claim": "a.zid",
        },
        {
            "issuer": "https://api.yaas.example",
            "algorithm": "HS256",
            "secret": "s" * 32,
            "audience": "rc",
            "tenant_claim_is": "subdomain",
        },
    ],
    "backends": [
        {
            "name": "bills",
            "path": "/bills",
            "servers": ["bills-1:8080", "[::1]:8080"],
            "datacenter": "us10",
            "channel": "stable",
        }
    ],
    "store": {"kind": "file", "path": "/var/lib/zdm/store"},
    "upgrades": ["websocket"],
    "hold_max": "10s",
    "timeout_connect": "2s",
    "timeout_client": "30s",
    "timeout_server": "30s",
    "timeout_tunnel": "1m",
    "timeout_keep_alive": "30s",
    "server_idle": "1s",
    "hard_stop_after": "60s",
    "held_limit": "500",
    "maxconn": "4000",
    "threads": "2",
    "haproxy": "/usr/sbin/haproxy",
    "python": "/usr/bin/python3",
    "service": "systemd",
    "restart": False,
    "service_name": "zdm-router",
    "user": "haproxy",
    "group": "haproxy",
    "allow_root": False,
}
Path_ = tuple[str | int, ...]


def full(variables: dict[str, Any]) -> dict[str, Any]:
    return {f"landscape_router_{name}": value for name, value in variables.items()}


def leaves(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    else:
        yield path


def value_at(variables: Any, path: Path_) -> Any:
    for step in path:
        variables = variables[step]
    return variables


def changed(path: Path_, value: Any) -> dict[str, Any]:
    """All variables with another value in one place."""
    result = copy.deepcopy(EVERYTHING)
    value_at(result, path[:-1])[path[-1]] = value
    return full(result)


def named(path: Path_) -> str:
    """A variable's place as a problem names it."""
    return "landscape_router_" + "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" for step in path
    ).removeprefix(".")


ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(ROLE / "templates"), trim_blocks=True, undefined=jinja2.StrictUndefined
)
ENVIRONMENT.filters["zdm.landscape.haproxy_word"] = FilterModule().filters()["haproxy_word"]
ENVIRONMENT.filters["comment"] = lambda text: f"# {text}"
ENVIRONMENT.filters["regex_replace"] = lambda text, pattern, by: re.sub(pattern, by, text)


def render(variables: dict[str, Any], keys: tuple[str, ...] = ("0/key-1.pem", "0/key-2.pem")) -> list[str]:
    """The role's templates as Ansible renders them."""
    derived = {
        "ansible_managed": "managed\r\nby \x85\u2028somebody",
        "__landscape_router_keys": [f"keys/{key}" for key in keys],
        "__landscape_router_backends": variables["landscape_router_backends"],
        "__landscape_router_python": variables["landscape_router_python"],
    }
    return [ENVIRONMENT.get_template(name).render(**variables, **derived) for name in TEMPLATES]


@cache
def words(line: str) -> list[str]:
    """A line of the configuration in words, as HAProxy reads it (configuration manual 2.2)."""
    result, word, quote, escaped = list[str](), "", "", False
    begun = False
    for character in line:
        if escaped:
            word, escaped, begun = word + character, False, True
        elif quote == "'":
            word, quote = (word, "") if character == "'" else (word + character, quote)
        elif character == "\\":
            escaped = True
        elif character == quote:
            quote = ""
        elif not quote and character in "'\"":
            quote, begun = character, True
        elif not quote and character in " \t":
            result, word, begun = [*result, word] if begun else result, "", False
        elif not quote and character == "#":
            break
        else:
            word, begun = word + character, True
    assert not quote, f"a quote is not closed: {line}"
    return [*result, word] if begun else result


def shape(configuration: str) -> list[list[str]]:
    return [words(line) for line in configuration.splitlines()]


PLAIN = render(full(EVERYTHING))
PLAIN_SHAPE = shape(PLAIN[0])


def assert_only_words_differ(rendered: list[str], text: str) -> None:
    """The configuration has the same lines and words, and those that differ carry *text*; the other files have the same
    lines.
    """
    lines = shape(rendered[0])
    assert [len(line) for line in lines] == [len(line) for line in PLAIN_SHAPE]
    pattern = re.escape(text)
    for line, plain in zip(lines, PLAIN_SHAPE, strict=True):
        for word, before in zip(line, plain, strict=True):
            assert (
                word == before or text in word or pattern.replace(r"\*", "") in word or issuer_pattern(text) == word
            ), (word, before)
    for file, plain in zip(rendered[1:], PLAIN[1:], strict=True):
        assert len(file.splitlines()) == len(plain.splitlines())


def test_the_variables_here_are_all_of_the_role() -> None:
    specified = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
    given = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())["__landscape_router_given"]
    assert (
        full(EVERYTHING).keys() == specified.keys() == defaults.keys() == given.keys() == full(dict(VARIABLES)).keys()
    )
    assert problems(full(EVERYTHING)) == []


NOT_RENDERED = ("tls_cert", "control_cert", "control_ca", "store", "keys_dir", "secret")
"""Their text stands in none of the templates."""
OTHER_SHAPE = {"control_port": r"0*", "threads": r"0*", "path": "/"}
"""Values that leave lines or words out."""


@pytest.mark.parametrize("path", list(leaves(EVERYTHING)), ids=named)
def test_every_character_in_every_variable(path: Path_) -> None:
    """It is refused by the variable's name, or it is a part of one word."""
    before = str(value_at(EVERYTHING, path))
    variable = "landscape_router_" + str(path[0])
    for character in CHARACTERS:
        for text in (f"{before}{character}", f"{character}{before}", f"{before[:2]}{character}{before[2:]}", character):
            variables = changed(path, text)
            found = problems(variables)
            if found:
                assert any(problem.path.startswith(variable) for problem in found), found
                assert not any("s" * 30 in str(problem) for problem in found), "a secret is shown"
            elif not {*NOT_RENDERED} & {*path} and not re.fullmatch(OTHER_SHAPE.get(str(path[-1]), "(?!)"), text):
                assert_only_words_differ(render(variables), text)


@pytest.mark.parametrize("character", CHARACTERS, ids=repr)
def test_every_character_in_a_file_name(character: str) -> None:
    for kid in (f"key{character}1", f"{character}key-1", f"key-1{character}", character):
        name = f"{kid}.pem"
        found = problems(full(EVERYTHING), [f"0/{name}"])
        if found:
            assert [problem.path for problem in found] == ["landscape_router_issuers[0].keys_dir"]
            assert repr(name) in found[0].problem
        else:
            assert_only_words_differ(render(full(EVERYTHING), (f"0/{name}", "0/key-2.pem")), kid)


@pytest.mark.parametrize("kid", ["-i", "-f", "--", "-m", "key-1 old", "a'b\"c", "a,b", "$HOME", "%[x]", "}"])
def test_a_key_id_is_never_an_option_or_a_second_one(kid: str) -> None:
    if problems(full(EVERYTHING), [f"0/{kid}.pem"]):
        return
    lines = [
        line
        for line in shape(render(full(EVERYTHING), (f"0/{kid}.pem",))[0])
        if "set-var(txn.valid)" in line and "by_0" in line
    ]
    assert [line[line.index("--") :] for line in lines] == [
        ["--", kid, "}", "{", f"var(txn.token),jwt_verify(RS256,keys/0/{kid}.pem)", "-m", "int", "1", "}"]
    ]


@given(st.text())
def test_a_word_is_the_text_itself_or_refused(text: str) -> None:
    if text.isprintable():
        assert words(f"before {quoted(text)} after") == ["before", text, "after"]
    else:
        with pytest.raises(InputError, match="can't stand in HAProxy's configuration"):
            quoted(text)


@pytest.mark.parametrize(
    ("issuer", "good", "bad"),
    [
        (
            "https://*.x.y/t",
            ["https://a.x.y/t", "https://a-1_b.x.y/t"],
            ["https://.x.y/t", "https://a.b.x.y/t", "https://a..x.y/t", "https://-a.x.y/t"],
        ),
        ("https://x.y", ["https://x.y"], ["https://xay", "https://x.y\n", "https://x.y/", "xhttps://x.y"]),
        ("https://x/*/t", ["https://x/a/t"], ["https://x//t", "https://x/a/b/t"]),
    ],
)
def test_a_wildcard_is_one_whole_label(issuer: str, good: list[str], bad: list[str]) -> None:
    pattern = re.compile(issuer_pattern(issuer).replace(r"\z", r"\Z"))
    assert [text for text in (*good, *bad) if pattern.match(text)] == good


@pytest.mark.parametrize("issuer", ["https://a*.x.y", "https://*a.x.y", "https://**.x.y", "https://*-a.x.y"])
def test_a_wildcard_is_no_part_of_a_label(issuer: str) -> None:
    (problem,) = problems(changed(("issuers", 0, "issuer"), issuer))
    assert "whole label" in str(problem)


SHALLOW = re.compile(shallow_pattern().replace(r"\z", r"\Z"))


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ("{}", True),
        ('{"a":[1,{"b":"]]]]]]]]]"}]}', True),
        ("[" * 8 + "]" * 8, True),
        ("[" * 9 + "]" * 9, False),
        ("{" * 5000, False),
    ],
)
def test_depth(text: str, fits: bool) -> None:
    """What calls itself is only asked about text that this one accepts; what it accepts is shown with real tokens on
    real routers.
    """
    assert bool(SHALLOW.match(text)) is fits


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"control_cert": ""},
            (
                "landscape_router_control_port is 9443, without landscape_router_control_cert and"
                " landscape_router_control_ca; expected both"
            ),
        ),
        (
            {"user": ""},
            "landscape_router_user is '', and systemd starts the router as root; expected an unprivileged user",
        ),
        (
            {"user": "root"},
            "landscape_router_user is 'root', and systemd starts the router as root; expected an unprivileged user",
        ),
        (
            {"group": "root"},
            "landscape_router_group is 'root'; expected an unprivileged group, or landscape_router_allow_root: true",
        ),
        (
            {"issuers": [EVERYTHING["issuers"][1]] * 2},
            "landscape_router_issuers[1].issuer is 'https://api.yaas.example', as landscape_router_issuers[0]",
        ),
        ({"dir": "/tmp/router"}, "landscape_router_dir is '/tmp/router', which the unit can't see"),
        ({"store": {"path": "/var/tmp/x"}}, "landscape_router_store.path is '/var/tmp/x', which the unit can't see"),
    ],
)
def test_variables_that_do_not_fit_together(changes: dict[str, Any], said: str) -> None:
    (problem,) = problems(full({**EVERYTHING, **changes}))
    assert said in str(problem)
    if "issuers" not in changes:
        assert problems(full({**EVERYTHING, **changes, "service": "none", "control_port": 0, "allow_root": True})) == []


def test_root_may_be_asked_for() -> None:
    assert problems(full({**EVERYTHING, "user": "root", "group": "root", "allow_root": True})) == []


@pytest.mark.parametrize("name", ["h2c", "H2C", "h2", "TLS/1.0", "tls/1.3"])
def test_a_protocol_that_carries_requests_is_no_upgrade(name: str) -> None:
    (problem,) = problems(full({**EVERYTHING, "upgrades": ["websocket", name]}))
    assert problem.path == "landscape_router_upgrades[1]"


@pytest.mark.parametrize("path", ["/etc/../tmp/x", "/etc/zdm/..", "//tmp/x", "/etc//x"])
def test_a_folder_is_written_as_it_is(path: str) -> None:
    assert [problem.path for problem in problems(full({**EVERYTHING, "dir": path}))] == ["landscape_router_dir"]
