# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control endpoint: mutual TLS or a socket, and no answer is ever taken for success."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, Refused, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.router.base import HOLD
from ansible_collections.zdm.landscape.plugins.module_utils.router.haproxy import HAProxyRouter
from ansible_collections.zdm.landscape.tests.integration.router.kit import HOST, MIGRATION, A, B, C, Deployment
from ansible_collections.zdm.landscape.tests.landscape.keys import Certificates
from ansible_collections.zdm.landscape.tests.landscape.processes import free_port


def test_tls_and_socket_lead_to_the_same_router(shared: Deployment) -> None:
    by_tls, by_socket = shared.client(tls=True).state(), shared.client().state()
    assert (by_tls.overrides, by_tls.onboarded, by_tls.version) == (
        by_socket.overrides,
        by_socket.onboarded,
        by_socket.version,
    )


def said(router: Deployment, command: str) -> str:
    """What the worker answers to a command that no client would send."""
    return str(router.client()._cli.ask([f"@1 zdm {command}"])[0].strip())


@pytest.mark.parametrize(
    "epoch",
    ["-1", "-9223372036854775808", "9223372036854775808", "1e300", "1.5", "0x10", "x", "1000000000000000", "''"],
)
def test_an_epoch_that_is_none_is_refused_by_the_router(shared: Deployment, epoch: str) -> None:
    assert said(shared, f"epoch {MIGRATION} {epoch}") == "invalid migration or epoch"


def test_an_edit_that_makes_a_chain_or_leads_to_nobody_is_refused_by_the_router(router: Deployment) -> None:
    """B and C lead to A; D leads nowhere. The router refuses what a start would leave out."""
    client = router.client()
    before = client.state()
    for command, answer in {
        f"edit override guid-d={B}": f"chain guid-d {B} {A}",
        f"edit override {A}=guid-d": f"chain {B} {A} guid-d",
        "edit override guid-d=guid-x": "nobody guid-d guid-x",
        f"edit override guid-x={A} guid-d=guid-x": "nobody guid-d guid-x",
        f"edit onboarded {A}=-": f"nobody {B} {A}",
    }.items():
        assert said(router, command) in (answer, answer.replace(f" {B} {A}", f" {C} {A}"))
    with pytest.raises(Refused, match=f"guid-d would lead to {B}, which leads to {A} itself. Let guid-d lead to {A}"):
        client.edit("override", {"guid-d": B})
    with pytest.raises(Refused, match="guid-d would lead to guid-x, which is not onboarded. Onboard guid-x first"):
        client.edit("override", {"guid-d": "guid-x"})
    assert client.state().overrides == before.overrides
    client.edit("override", {"guid-d": A, B: None})
    client.edit("override", {C: B, "guid-d": None})
    with pytest.raises(Refused, match=f"{C} would lead to {B}, which leads to {A} itself"):
        client.edit("override", {B: A})
    client.edit("override", {C: None, B: A})
    assert client.state().overrides == {B: A}


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (f"map {MIGRATION} 1 {A}={B} {B}={C}", f"chain {A} {B} {C}"),
        (f"map {MIGRATION} 1 {A}={A}", f"chain {A} {A} {A}"),
        (f"map {MIGRATION} 1 {A}=x/y|z", f"invalid entry of {A}"),
        (f"lease {MIGRATION} 1 hold 1e3 {A}", "invalid lease"),
        (f"lease {MIGRATION} 1 hold 0x10 {A}", "invalid lease"),
        (f"lease {MIGRATION} 1 hold -5 {A}", "invalid lease"),
    ],
)
def test_what_makes_no_sense_in_a_window_is_refused_by_the_router(
    router: Deployment, command: str, answer: str
) -> None:
    before = router.client().state()
    assert said(router, command) == answer
    assert (router.client().state().overrides, router.client().state().blocks) == (before.overrides, before.blocks)


def test_without_a_client_certificate_nothing_is_answered(shared: Deployment) -> None:
    context = ssl.create_default_context(cafile=str(shared.certificates.authority))
    with socket.create_connection((HOST, shared.control_port), timeout=10) as plain:
        received = b""
        try:
            with context.wrap_socket(plain, server_hostname=HOST) as connection:
                connection.sendall(b"show proc\nquit\n")
                received = connection.recv(4096)
        except OSError:
            pass
    assert received == b""


def test_plain_text_is_not_answered(shared: Deployment) -> None:
    with socket.create_connection((HOST, shared.control_port), timeout=10) as plain:
        plain.sendall(b"show proc\nquit\n")
        try:
            received = plain.recv(4096)
        except ConnectionResetError:
            received = b""
    assert b"master" not in received
    assert b"worker" not in received


def test_a_certificate_of_another_authority_is_refused(shared: Deployment, tmp_path: Path) -> None:
    stranger = Certificates.make(tmp_path)
    with pytest.raises(Unreachable, match=rf"Router router-1 at {HOST}:{shared.control_port}"):
        shared.client(tls=True, cert_file=str(stranger.controller)).state()


def test_a_router_of_another_authority_is_refused(shared: Deployment, tmp_path: Path) -> None:
    stranger = Certificates.make(tmp_path)
    with pytest.raises(Unreachable, match="TLS failed") as error:
        shared.client(tls=True, ca_file=str(stranger.authority)).state()
    assert error.value.details["reason"] == "tls"


def test_a_router_with_another_name_is_refused(shared: Deployment) -> None:
    with pytest.raises(Unreachable, match="TLS failed"):
        shared.client(tls=True, server_name="router.example.com").state()
    assert shared.client(tls=True, server_name="localhost").state().ready


def test_the_key_may_stand_in_a_file_of_its_own(shared: Deployment, tmp_path: Path) -> None:
    text = shared.certificates.controller.read_text()
    begin = text.index("-----BEGIN PRIVATE KEY")
    (tmp_path / "cert.pem").write_text(text[:begin])
    (tmp_path / "key.pem").write_text(text[begin:])
    assert (
        shared.client(tls=True, cert_file=str(tmp_path / "cert.pem"), key_file=str(tmp_path / "key.pem")).state().ready
    )


def test_an_encrypted_key_fails_without_a_question(shared: Deployment, tmp_path: Path) -> None:
    encrypted = tmp_path / "key.pem"
    command = [
        "openssl",
        "pkcs8",
        "-topk8",
        "-in",
        str(shared.certificates.controller),
        "-out",
        str(encrypted),
        "-passout",
        "pass:secret-word",
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    with pytest.raises(InputError, match="certificates of router router-1 can't be loaded"):
        shared.client(tls=True, key_file=str(encrypted)).state()


def test_a_connection_that_the_router_closed_is_opened_again(shared: Deployment) -> None:
    client = shared.client(tls=True)
    assert client.in_flight([A]) == 0
    for connection in client._cli._idle:
        connection.shutdown(socket.SHUT_RDWR)
    assert client.in_flight([A]) == 0


def test_nothing_listens(tmp_path: Path) -> None:
    certificates, port = Certificates.make(tmp_path), free_port()
    by_tls = HAProxyRouter(
        "r", host=HOST, port=port, ca_file=str(certificates.authority), cert_file=str(certificates.controller)
    )
    for client, endpoint in (
        (HAProxyRouter("r", socket=str(tmp_path / "none.sock")), f"{tmp_path}/none.sock"),
        (by_tls, f"{HOST}:{port}"),
    ):
        with pytest.raises(
            Unreachable, match=f"Router r at {endpoint} does not answer: nothing listens there"
        ) as error:
            client.in_flight([A])
        assert error.value.details == {"router": "r", "endpoint": endpoint, "reason": "absent"}


@contextmanager
def fake_master(path: Path, answer: bytes, close: bool) -> Iterator[None]:
    """Answers every connection with the same bytes."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        kept = []

        def serve() -> None:
            while True:
                try:
                    connection, _peer = listener.accept()
                except OSError:
                    return
                connection.recv(65536)
                connection.sendall(answer)
                if close:
                    connection.close()
                else:
                    kept.append(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        for connection in kept:
            connection.close()


PROC = (
    b"#<PID> <type> <reloads> <uptime> <version>\n1 master 0 0 2.6.12\n# workers\n2 worker 0 0 2.6.12\n# programs\n\n"
)
WRONG = {
    "nothing": b"",
    "an empty answer": b"\n",
    "workers only": PROC,
    "an empty count": PROC + b"\n",
    "half a count": PROC + b"ok",
    "a count without its end": PROC + b"ok 0\n",
    "no number": PROC + b"ok many\n\n",
    "no such table": PROC + b"No such table\n\n",
    "unknown command": PROC + b"Unknown command: 'zdm'\n  help\n\n",
    "one answer too many": PROC + b"ok 0\n\nok 0\n\n",
    "no worker": PROC.replace(b"2 worker 0 0 2.6.12\n", b"") + b"ok 0\n\n",
    "two workers": PROC.replace(b"# programs", b"3 worker 0 0 2.6.12\n# programs") + b"ok 0\n\n",
    "a lost worker": PROC + b"Can't find the target PID matching the prefix '@1'\n",
}


@pytest.mark.parametrize("close", [True, False], ids=["closed", "kept open"])
@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_answer_is_never_taken_for_zero(tmp_path: Path, answer: bytes, close: bool) -> None:
    with fake_master(tmp_path / "m.sock", answer, close), pytest.raises(Unreachable, match=r"^Router r at .*m.sock"):
        HAProxyRouter("r", socket=str(tmp_path / "m.sock"), timeout_ms=300).in_flight([A])


def test_a_good_fake_is_understood(tmp_path: Path) -> None:
    """The answers above are wrong for the reason in their name, not because the fake is no master."""
    with fake_master(tmp_path / "m.sock", PROC + b"ok 3\n\n", True):
        assert HAProxyRouter("r", socket=str(tmp_path / "m.sock")).in_flight([A]) == 3


def test_a_router_that_does_not_answer_in_time_is_unreachable(tmp_path: Path) -> None:
    with (
        fake_master(tmp_path / "m.sock", PROC, False),
        pytest.raises(Unreachable, match="no complete answer within 200 ms") as error,
    ):
        HAProxyRouter("r", socket=str(tmp_path / "m.sock"), timeout_ms=200).lease(MIGRATION, 1, [A], 100, HOLD)
    assert error.value.details == {"router": "r", "endpoint": str(tmp_path / "m.sock"), "reason": "timeout"}


def test_a_confirmation_of_fewer_ids_is_no_confirmation(tmp_path: Path) -> None:
    with fake_master(tmp_path / "m.sock", PROC + b"ok 1\n\n", True), pytest.raises(Unreachable, match="not understood"):
        HAProxyRouter("r", socket=str(tmp_path / "m.sock")).lease(MIGRATION, 1, [A, "guid-b"], 100, HOLD)
