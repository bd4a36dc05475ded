# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the worker may do: it is not root, sees nothing but its jail, and reaches the control socket only where it has
to.
"""

from __future__ import annotations

import grp
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.router.base import HOLD
from ansible_collections.zdm.landscape.tests.integration.router.kit import (
    MIGRATION,
    A,
    Deployment,
    is_ready,
    token,
    wait_for,
)
from ansible_collections.zdm.landscape.tests.landscape.processes import User
from ansible_collections.zdm.landscape.tests.landscape.programs import every_haproxy

ROLE = Path(__file__).parents[3] / "roles" / "landscape_router"
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.. may lead to deadlocks:DeprecationWarning")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up rights")


@pytest.fixture(params=every_haproxy(), ids=lambda program: program.version_text)
def copied(request: pytest.FixtureRequest, stopped: Deployment, tmp_path: Path) -> Iterator[Deployment]:
    """A router that does not run yet, on every HAProxy."""
    router = stopped.copy_to(tmp_path.name, program=request.param)
    yield router
    router.stop()


def settings(router: Deployment, **changes: Any) -> None:
    """Change what the role has written for the start script."""
    file = router.home / "router.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def status(pid: int) -> dict[str, str]:
    lines = (line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {key: value.strip() for key, value in lines}


def assert_unprivileged(router: Deployment) -> None:
    worker = router.client().workers().current
    seen, user = status(worker), User.unprivileged("haproxy")
    assert (seen["Uid"].split(), seen["Gid"].split(), seen["Groups"]) == ([str(user.uid)] * 4, [str(user.gid)] * 4, "")
    assert {seen[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert os.readlink(f"/proc/{worker}/root") == str(router.home / "run")


def said_as(user: User, router: Deployment) -> str:
    """What the control socket says to a user; or the error's name."""
    reader, writer = os.pipe()
    child = os.fork()  # nothing is executed: the interpreter may lie where the user can't go
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(20)
                connection.connect(str(router.home / "run" / "master.sock"))
                connection.sendall(b"show proc\n")
                connection.shutdown(socket.SHUT_WR)
                os.write(writer, connection.recv(4096))
        except BaseException as error:
            os.write(writer, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


@as_root
def test_the_worker_is_not_root_also_after_a_reload(copied: Deployment) -> None:
    copied.start()
    assert_unprivileged(copied)
    before = copied.client().workers().current
    subprocess.run([str(copied.home / "bin" / "zdm-router"), "reload"], check=True, timeout=60)
    assert copied.client().workers().current != before
    assert_unprivileged(copied)
    assert copied.get("/bills/1", token(A)).tenant == A
    client = copied.client(tls=True)
    client.lease(MIGRATION, 1, [A], 60_000, HOLD)
    assert client.state().blocks.keys() == {A}, "the endpoint with mutual TLS reaches the socket from inside the jail"


@as_root
def test_a_worker_that_needs_no_control_socket_can_not_use_it(copied: Deployment) -> None:
    settings(copied, control_by_worker=False)
    copied.start()
    assert_unprivileged(copied)
    stat = (copied.home / "run" / "master.sock").stat()
    assert (stat.st_uid, stat.st_gid, stat.st_mode & 0o777) == (0, 0, 0o600)
    assert said_as(User.unprivileged("haproxy"), copied).strip() == "PermissionError"
    assert copied.client().state().ready


@as_root
def test_a_group_may_use_the_control_socket(copied: Deployment) -> None:
    member, stranger = User.unprivileged("nobody"), User.unprivileged("daemon")
    settings(copied, control_by_worker=False, control_group=grp.getgrgid(member.gid).gr_name)
    copied.start()
    stat = (copied.home / "run" / "master.sock").stat()
    assert (stat.st_uid, stat.st_gid, stat.st_mode & 0o777) == (0, member.gid, 0o660)
    if all(folder.stat().st_mode & 0o001 for folder in copied.home.parents):
        assert "# workers" in said_as(member, copied)
        assert said_as(stranger, copied).strip() == "PermissionError"


@as_root
@pytest.mark.parametrize("user", ["", "root"])
def test_root_is_refused_unless_told(stopped: Deployment, tmp_path: Path, user: str) -> None:
    router = stopped.copy_to(tmp_path.name)
    settings(router, user=user)
    refused = router.launch()
    assert refused.popen.wait(60) == 1
    assert (
        "The worker of router router-1 would run as root, group root. Set landscape_router_user and"
        " landscape_router_group to" in refused.tail()
    )
    assert not (router.home / "run" / "pid").exists(), "nothing was started"
    settings(router, user=user, allow_root=True)
    router.start()
    assert status(router.client().workers().current)["Uid"].split() == ["0"] * 4
    router.stop()


@as_root
@pytest.mark.parametrize(
    "changes", [{"user": "no-such-user"}, {"group": "no-such-group"}, {"control_group": "no-such-group"}]
)
def test_a_user_that_is_not_there_is_named(stopped: Deployment, tmp_path: Path, changes: dict[str, str]) -> None:
    router = stopped.copy_to(tmp_path.name)
    settings(router, **changes)
    refused = router.launch()
    assert refused.popen.wait(60) == 1
    assert "no-such-" in refused.tail()
    assert "Create the user and the groups" in refused.tail()


@as_root
def test_a_group_of_root_is_refused_unless_told(stopped: Deployment, tmp_path: Path) -> None:
    router = stopped.copy_to(tmp_path.name)
    settings(router, group="root")
    refused = router.launch()
    assert refused.popen.wait(60) == 1
    assert "would run as haproxy, group root" in refused.tail().replace("nobody", "haproxy")


@as_root
@pytest.mark.parametrize("name", ["run", "maps", "keys", "."])
def test_root_does_not_start_in_a_folder_of_somebody_else(stopped: Deployment, tmp_path: Path, name: str) -> None:
    """Who owns the folder puts a link where root is about to write; the role gives the folder back to root."""
    router = stopped.copy_to(tmp_path.name)
    user, victim = User.unprivileged("haproxy"), tmp_path / "victim"
    victim.write_text("untouched")
    (router.home / "run" / "pid").symlink_to(victim)
    (router.home / "run" / "lock").symlink_to(victim)
    os.chown(router.home / name, user.uid, user.gid)
    refused = router.launch()
    assert refused.popen.wait(60) == 1
    assert "is not owned by root, and the router was started by root. Run the role again" in refused.tail()
    os.chown(router.home / name, 0, 0)
    refused = router.launch()
    assert refused.popen.wait(60) == 1, "a lock that is a link is not followed"
    assert victim.read_text() == "untouched"


@as_root
def test_the_role_gives_folders_and_files_back_to_root(stopped: Deployment) -> None:
    user, places = User.unprivileged("haproxy"), ("run", "maps", "keys", "haproxy.cfg")
    for name in places:
        os.chown(stopped.home / name, user.uid, user.gid)
    for name in ("maps", "keys", "run"):
        (stopped.home / name).chmod(0o777)
    assert "changed=0" not in stopped.play("--check").stdout
    assert (stopped.home / "maps").stat().st_uid == user.uid, "check mode changes nothing"
    assert "failed=0" in stopped.play().stdout
    assert {name: (stopped.home / name).stat().st_uid for name in places} == dict.fromkeys(places, 0)
    assert [(stopped.home / name).stat().st_mode & 0o777 for name in ("maps", "keys", "run")] == [0o700, 0o700, 0o711]
    assert "changed=0" in stopped.play().stdout


def test_a_configuration_is_not_taken_over_by_a_start_script_that_does_not_know_of_rights(router: Deployment) -> None:
    """An older one would leave the new worker as root: HAProxy refuses, and the old worker goes on."""
    before = router.client().workers().current
    checked = [str(every_haproxy()[0].path), "-c", "-f", str(router.home / "haproxy.cfg")]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("ZDM_")}
    refused = subprocess.run(checked, env=clean, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode != 0
    assert "restart the router" in refused.stderr
    assert router.client().workers().current == before


def test_lists_of_tenants_are_not_for_everybody(router: Deployment) -> None:
    subprocess.run([str(router.home / "bin" / "zdm-router"), "reload"], check=True, timeout=60)
    private = [
        router.home / "maps",
        *(router.home / "maps").iterdir(),
        router.home / "router.json",
        router.home / "haproxy.cfg",
        router.home / "run" / "lock",
    ]
    assert {path.name: path.stat().st_mode & 0o077 for path in private if path.stat().st_mode & 0o077} == {}
    assert (router.home / "maps" / "onboarded.map").read_text().count("\n") == 4


def unit(home: Path) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROLE / "templates"), trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["comment"] = lambda text: f"# {text}"
    environment.filters["regex_replace"] = lambda text, pattern, by: re.sub(pattern, by, text)
    return environment.get_template("zdm-router.service.j2").render(
        ansible_managed="managed", landscape_router_name="router-1", landscape_router_dir=str(home)
    )


def test_the_unit_is_valid_and_hardened(stopped: Deployment, tmp_path: Path) -> None:
    file = tmp_path / "zdm-router.service"
    file.write_text(unit(stopped.home))
    verified = subprocess.run(
        ["systemd-analyze", "verify", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert "zdm-router" not in verified.stderr, verified.stderr
    options = dict(line.split("=", 1) for line in file.read_text().splitlines() if "=" in line)
    for name in (
        "NoNewPrivileges",
        "PrivateTmp",
        "PrivateDevices",
        "ProtectKernelModules",
        "RestrictNamespaces",
        "LockPersonality",
    ):
        assert options[name] == "yes"
    assert options["ProtectSystem"] == "strict"
    assert options["RestrictAddressFamilies"] == "AF_INET AF_INET6 AF_UNIX"
    analysed = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=40", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert analysed.returncode == 0, f"{analysed.stdout}{analysed.stderr}"


@as_root
def test_the_rights_that_the_unit_leaves_are_enough(copied: Deployment) -> None:
    """Start, window, reload and end with nothing but the unit's capabilities."""
    wanted = re.search(r"(?m)^CapabilityBoundingSet=(.*)$", unit(copied.home))
    assert wanted
    kept = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in wanted[1].split())
    settings(copied, control_group="daemon")
    script = str(copied.home / "bin" / "zdm-router")
    limited = ["setpriv", f"--bounding-set=-all,{kept}", "--inh-caps=-all", "--no-new-privs", "--"]
    copied.process = copied.processes.start("limited-router", [*limited, script])
    copied.process.wait_ready(lambda: is_ready(copied.client()))
    assert_unprivileged(copied)
    worker = copied.client().workers().current
    assert status(worker)["NoNewPrivs"] == "1"
    client = copied.client(tls=True)
    client.lease(MIGRATION, 1, [A], 60_000, HOLD)
    client.release(MIGRATION, 1, [A])
    subprocess.run([*limited, script, "reload"], check=True, timeout=60)
    assert copied.client().workers().current != worker
    copied.process.popen.send_signal(signal.SIGTERM)
    wait_for(lambda: copied.process and copied.process.popen.poll() is not None, "it ends when it is told to")
