# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role: what it writes, what it refuses, and that no secret leaves it."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.router.base import HOLD
from ansible_collections.zdm.landscape.plugins.module_utils.router.install import Installation
from ansible_collections.zdm.landscape.tests.integration.router.kit import (
    MIGRATION,
    PUBLIC_PEM,
    SECRET,
    A,
    Background,
    Deployment,
    token,
)


def digest(home: Path) -> dict[str, str]:
    """Every file that the role writes, with mode and content."""
    files = [
        path for path in home.rglob("*") if path.is_file() and not {"__pycache__", "maps", "run"} & set(path.parts)
    ]
    return {
        str(path.relative_to(home)): f"{path.stat().st_mode:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in files
    }


def changed(output: str) -> bool:
    assert "failed=0" in output, output
    return "changed=0" not in output


@pytest.mark.thorough
def test_a_second_run_changes_nothing(stopped: Deployment) -> None:
    before = digest(stopped.home)
    assert not changed(stopped.play().stdout)
    assert digest(stopped.home) == before


def test_check_mode_shows_the_difference_and_changes_nothing_and_no_secret(stopped: Deployment) -> None:
    before = digest(stopped.home)
    issuers = stopped.variables["zdm_landscape"]["issuers"]
    secret = "another-secret-" * 4
    done = stopped.play(
        "--check",
        "--diff",
        "-vvv",
        landscape_router_hold_max="4s",
        landscape_router_issuers=[issuers[0], {**issuers[1], "secret": secret}],
    )
    assert changed(done.stdout)
    assert "setenv ZDM_HOLD_MAX '4s'" in done.stdout
    assert digest(stopped.home) == before
    for text in (SECRET, secret):
        assert text not in done.stdout + done.stderr
        assert base64.b64encode(text.encode()).decode() not in done.stdout + done.stderr


def test_secrets_are_readable_by_the_owner_alone(stopped: Deployment) -> None:
    modes = {
        path: (stopped.home / path).stat().st_mode & 0o777
        for path in ("haproxy.cfg", "tls/control.pem", "keys/0/key-1.pem", "keys", "tls", "maps")
    }
    assert modes == {
        "haproxy.cfg": 0o600,
        "tls/control.pem": 0o600,
        "keys/0/key-1.pem": 0o600,
        "keys": 0o700,
        "tls": 0o700,
        "maps": 0o700,
    }
    assert base64.b64encode(SECRET.encode()).decode() in (stopped.home / "haproxy.cfg").read_text()


def test_a_configuration_that_haproxy_does_not_accept_changes_nothing(stopped: Deployment) -> None:
    before = digest(stopped.home)
    done = stopped.play(landscape_router_bind_address="no-such-host.invalid")
    assert done.returncode != 0
    assert "HAProxy does not accept the configuration" in done.stdout
    assert SECRET not in done.stdout
    assert base64.b64encode(SECRET.encode()).decode() not in done.stdout
    assert digest(stopped.home) == before


def test_nothing_is_replaced_while_a_tenant_is_blocked(router: Deployment) -> None:
    before = digest(router.home)
    client = router.client()
    client.lease(MIGRATION, 1, [A], 120_000, HOLD)
    assert not changed(router.play().stdout), "without a change there is nothing to refuse"
    done = router.play(landscape_router_hold_max="4s")
    assert done.returncode != 0
    assert f"a block of migration {MIGRATION} is live" in done.stdout
    assert digest(router.home) == before
    client.release(MIGRATION, 1, [A])


def test_nothing_is_replaced_while_an_old_worker_remains(router: Deployment) -> None:
    """What the role's module asks before it writes: the role itself may take longer than a request."""
    installation = Installation(
        router.home, {name: (router.home / name).read_text() for name in ("haproxy.cfg", "router.json")}, [], "haproxy"
    )
    assert installation.refuse_when_busy() is True
    slow = Background(lambda: router.get("/bills/slow", token(A)))
    router.service.await_arrival()
    subprocess.run([str(router.home / "bin" / "zdm-router"), "reload"], check=True, timeout=60)
    with pytest.raises(
        Refused,
        match=(
            "Router router-1 can't be reloaded now: 1 old worker\\(s\\) of an earlier reload still finish requests."
            " Wait"
        ),
    ):
        installation.refuse_when_busy()
    router.service.gate.set()
    assert slow.answer().status == 200


def test_a_change_that_was_made_is_taken_over_by_a_reload(router: Deployment) -> None:
    try:
        assert changed(
            router.play(
                landscape_router_backends=[{**router.variables["landscape_router_backends"][0], "path": "/invoices"}]
            ).stdout
        )
        assert router.get("/invoices/1", token(A)).status == 404, "the old configuration serves until the reload"
        subprocess.run([str(router.home / "bin" / "zdm-router"), "reload"], check=True, timeout=60)
        assert router.get("/invoices/1", token(A)).tenant == A
    finally:
        assert changed(router.play().stdout)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"landscape_router_control_cert": ""}, "control without mutual TLS does not exist"),
    (
        {"landscape_router_hold_max": "10"},
        "landscape_router_hold_max is '10'; expected a whole number and a unit: 500ms, 20s or 5m.",
    ),
    (
        {"landscape_router_issuers": [{"issuer": "https://x", "algorithm": "HS256", "secret": "too-short-a-secret"}]},
        "landscape_router_issuers[0].secret does not have the right form; expected a string of at least 32 characters.",
    ),
    (
        {"landscape_router_issuers": [{"issuer": "https://x", "algorithm": "RS256", "keys_dir": "/nonexistent"}]},
        "holds no <kid>.pem",
    ),
    ({"landscape_router_issuers": []}, "landscape_router_issuers is empty; expected at least 1 entry."),
    (
        {"landscape_router_backends": [{"name": "b", "path": "/b/", "servers": ["h:1"]}]},
        "landscape_router_backends[0].path is '/b/'",
    ),
    (
        {"landscape_router_backends": [{"name": "b", "path": "/b } or TRUE", "servers": ["h:1"]}]},
        "landscape_router_backends[0].path is '/b } or TRUE'",
    ),
    (
        {"landscape_router_store": {"path": "relative"}},
        "landscape_router_store.path is 'relative'; expected an absolute path",
    ),
    (
        {"landscape_router_user": "root", "landscape_router_service": "systemd"},
        "landscape_router_user is 'root', and systemd starts the router as root",
    ),
    ({"landscape_router_haproxy": "no-such-haproxy"}, "HAProxy (no-such-haproxy) was not found"),
]


def test_wrong_input_is_named(stopped: Deployment) -> None:
    """All cases in one run of Ansible."""
    before = digest(stopped.home)
    keys = stopped.folder / "wrong-keys"
    keys.mkdir(exist_ok=True)
    (keys / "key-1.pem").write_bytes(stopped.certificates.controller.read_bytes())
    private = {"landscape_router_issuers": [{"issuer": "https://x", "algorithm": "RS256", "keys_dir": str(keys)}]}
    cases = [*WRONG, (private, "keys/0/key-1.pem is no public key")]
    for position, name in enumerate(("key-1 old", "a'b\"c", "-m str key-1 } or { always_true", "$HOME", "ü")):
        folder = stopped.folder / f"named-keys-{position}"
        folder.mkdir(exist_ok=True)
        for kid in ("key-1", name):
            (folder / f"{kid}.pem").write_bytes(PUBLIC_PEM)
        issuers = [{"issuer": "https://x", "algorithm": "RS256", "keys_dir": str(folder)}]
        cases.append(
            (
                {"landscape_router_issuers": issuers},
                f"landscape_router_issuers[0].keys_dir holds {name + '.pem'!r}, whose name is no key id",
            )
        )
    tasks = []
    # In Base64: the output of a playbook escapes quotes.
    every = (
        "[ansible_failed_result.msg | default('')] + ansible_failed_result.results | default([]) | map(attribute='msg')"
    )
    words = f"{{{{ ({every}) | join(' ') | b64encode }}}}"
    for position, (changes, _message) in enumerate(cases):
        role = {"ansible.builtin.include_role": {"name": "zdm.landscape.landscape_router"}, "vars": changes}
        said = {"ansible.builtin.debug": {"msg": f"<case {position}|{words}|>"}}
        tasks.append({"block": [role], "rescue": [said]})
    done = stopped.run_play({"tasks": tasks}, "--check")
    assert done.returncode == 0, done.stdout
    said_in = [
        " ".join(base64.b64decode(part.split("|")[1]).decode().split()) for part in done.stdout.split("<case ")[1:]
    ]
    assert len(said_in) == len(cases), done.stdout
    for (_changes, message), words in zip(cases, said_in, strict=True):
        assert message in words
    assert "too-short-a-secret" not in done.stdout + "".join(said_in)
    assert digest(stopped.home) == before
