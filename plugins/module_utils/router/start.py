# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts and accompanies one router (cutover protocol, rule 5): its state is a function of the config store.

Maps are rendered before HAProxy listens. HAProxy then starts *not ready*: it holds every tenant's requests. The store
is read once more, differences are loaded by commands that never undo a live edit, and only then the router is made
ready. So a router that could be reached during its start reads the store last. Every new worker (a reload) goes the
same way.

Runs without Ansible: the role copies this module and what it imports to the router's host.
"""

from __future__ import annotations

import ctypes
import fcntl
import grp
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused, Timeout, Unreachable, ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.router.base import Block, RouterState
from ansible_collections.zdm.landscape.plugins.module_utils.router.haproxy import MAPS, HAProxyRouter
from ansible_collections.zdm.landscape.plugins.module_utils.router.render import Documents, Maps, block_value, render

_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD}
_SOON_S = 0.02
_IDLE_S = 1.0
_PATIENCE_S = 2.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Settings:
    """One router on its host.

    :param home: the router's directory.
    :param haproxy: path of the binary.
    :param name: the router's name in messages.
    :param user: whom the worker runs as when the start script runs as root.
    :param group: empty: the user's own.
    :param allow_root: whether the worker may be root.
    :param control_group: who may use the control socket beside the start script's user.
    :param control_by_worker: whether the worker itself reaches the control socket, for the endpoint with mutual TLS.
    """

    home: Path
    haproxy: str
    name: str
    user: str = ""
    group: str = ""
    allow_root: bool = False
    control_group: str = ""
    control_by_worker: bool = False

    @property
    def socket(self) -> Path:
        return self.home / "run" / "master.sock"

    def client(self) -> HAProxyRouter:
        return HAProxyRouter(self.name, socket=str(self.socket))


def differences(wanted: Maps, state: RouterState) -> dict[str, dict[str, str | None]]:
    """What to load into a router that has *state* to make it what the store says: map → key → value (``None``:
    remove).
    """
    blocks = {key: block_value(block.mode, block.until_ms, block.migration) for key, block in state.blocks.items()}
    there: dict[str, Mapping[str, str]] = {
        "onboarded": state.onboarded,
        "subdomains": state.subdomains,
        "override": state.overrides,
        "block": blocks,
        "decommissioned": dict.fromkeys(state.decommissioned, "1"),
    }
    files = wanted.files()
    result: dict[str, dict[str, str | None]] = {"epochs": dict(files["epochs"])}
    for name in MAPS:
        changes: dict[str, str | None] = {
            key: value for key, value in files[name].items() if there[name].get(key) != value
        }
        changes.update(dict.fromkeys(there[name].keys() - files[name].keys()))
        result[name] = changes
    return {name: changes for name, changes in result.items() if changes}


def reload_router(settings: Settings, timeout_ms: int = 30_000) -> None:
    """Ask the running start script for a reload and wait until the new worker is ready.

    :raises Refused: a block is live or an old worker remains.
    :raises Timeout: the new worker did not become ready; the old one goes on.
    """
    router = settings.client()
    refuse_when_busy(router.state())
    before = router.workers().current
    os.kill(int((settings.home / "run" / "pid").read_text(encoding="ascii")), signal.SIGHUP)
    deadline = time.monotonic() + timeout_ms / 1000
    while time.monotonic() < deadline:
        try:
            if router.workers().current != before and router.state().ready:
                return
        except Unreachable:
            pass  # the master starts itself again during a reload
        time.sleep(_SOON_S)
    raise Timeout(
        f"Router {settings.name} did not become ready within {timeout_ms} ms after a reload.",
        "Look at its log; the old worker still serves.",
    )


def refuse_when_busy(state: RouterState) -> None:
    """A reload would lose leases and counts.

    :raises Refused: a block is live or an old worker remains; names what is in the way and the way out.
    """
    if state.blocks:
        migrations = ", ".join(sorted({block.migration for block in state.blocks.values()}))
        blocked = ", ".join(
            f"{tenant_id} ({_until(block, state.clock_ms)})" for tenant_id, block in sorted(state.blocks.items())
        )
        raise Refused(
            f"Router {state.name} can't be reloaded now: a block of migration {migrations} is live, on {blocked}.",
            "A lease ends by itself when its controller is gone; a block until released needs the migration's own"
            " command again, or its abort. Then reload again.",
            router=state.name,
            blocks={tenant_id: block.migration for tenant_id, block in state.blocks.items()},
        )
    if state.old_workers:
        raise Refused(
            f"Router {state.name} can't be reloaded now: {state.old_workers} old worker(s) of an earlier reload still"
            " finish requests.",
            "Wait until they have ended, at the latest after landscape_router_hard_stop_after; event streams and"
            " tunnels keep them. Then reload again.",
            router=state.name,
            old_workers=state.old_workers,
        )


def _until(block: Block, clock_ms: int) -> str:
    return "until released" if block.far else f"a lease of {block.until_ms - clock_ms} ms more"


def unprivileged(settings: Settings) -> tuple[str, str] | None:
    """User and group that the worker changes to; ``None``: it runs as the start script does.

    :raises Refused: that would be root and was not asked for, or there is no such user or group.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(settings.user or "root")
        group = grp.getgrnam(settings.group) if settings.group else grp.getgrgid(entry.pw_gid)
        if settings.control_group:
            grp.getgrnam(settings.control_group)
    except KeyError as error:
        raise Refused(
            f"The worker of router {settings.name} can't run as {settings.user}: {error.args[0]}.",
            "Create the user and the groups, or set landscape_router_user, landscape_router_group and"
            " landscape_router_control_group to others, and run the role again.",
        ) from error
    if settings.allow_root or (entry.pw_uid != 0 and group.gr_gid != 0):
        return None if entry.pw_uid == 0 else (entry.pw_name, group.gr_name)
    raise Refused(
        f"The worker of router {settings.name} would run as {entry.pw_name}, group {group.gr_name}.",
        "Set landscape_router_user and landscape_router_group to an unprivileged user and group and run the role again,"
        " or start the router as such a user; landscape_router_allow_root: true lets it run as root.",
    )


def refuse_foreign_folders(settings: Settings) -> None:
    """As root write nowhere where somebody else may put a link: an earlier worker's user, for example, who owned
    ``run``.

    :raises Refused: a folder is a link, or not root's.
    """
    if os.geteuid() != 0:
        return
    for folder in (settings.home, *(settings.home / name for name in ("run", "maps", "keys", "lib", "lua", "tls"))):
        if folder.is_symlink() or (folder.exists() and folder.stat().st_uid != 0):
            raise Refused(
                f"{folder} of router {settings.name} is {'a link' if folder.is_symlink() else 'not owned by root'}, and"
                " the router was started by root.",
                "Run the role again, which gives it to root; or start the router as the folder's owner.",
            )


class RouterProcess:
    """HAProxy as the child of this process, in the foreground.

    :param read: reads the config store; raises ``ZdmError`` when it can't.
    :param spawn: ``subprocess.Popen``, which only the start script may call.
    :raises Refused: the worker would be root, or its user or group does not exist.
    """

    def __init__(
        self, settings: Settings, read: Callable[[], Documents], spawn: Callable[..., subprocess.Popen[bytes]]
    ) -> None:
        self._settings = settings
        self._worker = unprivileged(settings)
        self._read = read
        self._spawn = spawn
        self._router = settings.client()
        self._said: set[str] = set()
        self._complaint = ""
        self._patience = time.monotonic() + _PATIENCE_S
        self._serving = 0
        self._replacing = 0
        self._replace_until = 0.0

    def run(self) -> int:
        """Serve until HAProxy ends; returns its exit status.

        :raises ZdmError: the store can't be read or the directory is in use; nothing was started.
        """
        refuse_foreign_folders(self._settings)
        lock = self._lock()
        try:
            self._write_maps(self._render())
            signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            child = self._start()
            self._write_pid()
            status = self._accompany(child)
            return status if status >= 0 else 128 - status
        finally:
            (self._settings.home / "run" / "pid").unlink(missing_ok=True)
            os.close(lock)

    def _accompany(self, child: subprocess.Popen[bytes]) -> int:
        while True:
            if child.poll() is not None:
                return child.returncode
            soon = not self._make_ready() or time.monotonic() < self._replace_until
            number = _next_signal(_SOON_S if soon else _IDLE_S)
            if number in (signal.SIGHUP, signal.SIGUSR2):
                self._reload(child)
            elif number != signal.SIGCHLD:
                child.send_signal(signal.SIGTERM if number == signal.SIGINT else number)

    def _make_ready(self) -> bool:
        """Bring the current worker to the store's state; ``False`` when that has to be tried again."""
        try:
            worker = self._router.workers().current
            if worker == self._serving:
                return True
            state = self._router.state()
            if not state.ready:
                for name, changes in differences(self._render(), state).items():
                    self._router.load(name, changes)
                self._router.set_ready()
        except ZdmError as error:
            self._complain(error)
            return False
        self._serving, self._complaint = worker, ""
        if worker != self._replacing:
            self._replace_until = 0.0
        _log(f"router {self._settings.name} is ready (worker {worker})")
        _notify("READY=1")
        return True

    def _reload(self, child: subprocess.Popen[bytes]) -> None:
        try:
            refuse_when_busy(self._router.state())
            self._write_maps(self._render())
        except ZdmError as error:
            _log(f"reload refused: {error}")
            return
        self._replacing, self._replace_until = self._serving, time.monotonic() + 30
        child.send_signal(signal.SIGUSR2)

    def _render(self) -> Maps:
        maps = render(self._read())
        for problem in maps.problems:
            if problem not in self._said:
                self._said.add(problem)
                _log(problem)
        return maps

    def _write_maps(self, maps: Maps) -> None:
        folder = self._settings.home / "maps"
        for name, entries in {**maps.files(), "router": {}}.items():
            scratch = folder / f".{name}.new"
            scratch.unlink(missing_ok=True)
            handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="ascii") as stream:
                stream.writelines(f"{key} {value}\n" for key, value in sorted(entries.items()))
            scratch.replace(folder / f"{name}.map")

    def _write_pid(self) -> None:
        scratch = self._settings.home / "run" / ".pid.new"
        scratch.unlink(missing_ok=True)
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w", encoding="ascii") as stream:
            stream.write(f"{os.getpid()}\n")
        scratch.replace(self._settings.home / "run" / "pid")

    def _lock(self) -> int:
        path = self._settings.home / "run" / "lock"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise Refused(
                f"A router already runs in {self._settings.home}.", "Stop it first, or send it SIGHUP to reload."
            ) from error
        return handle

    def _start(self) -> subprocess.Popen[bytes]:
        settings, worker = self._settings, self._worker
        master = f"{settings.socket},mode,{'660' if settings.control_group else '600'}"
        if worker and settings.control_by_worker:
            master += f",user,{worker[0]}"
        if settings.control_group:
            master += f",group,{settings.control_group}"
        environment = {
            key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET" and not key.startswith("ZDM_")
        }
        environment["ZDM_AS_STARTER"] = "1"
        if worker:
            environment |= {
                "ZDM_WORKER_USER": worker[0],
                "ZDM_WORKER_GROUP": worker[1],
                "ZDM_JAIL": str(settings.socket.parent),
            }
        command = [self._settings.haproxy, "-W", "-S", master, "-f", str(self._settings.home / "haproxy.cfg")]
        return self._spawn(
            command,
            cwd=self._settings.home,
            env=environment,
            stdin=subprocess.DEVNULL,
            preexec_fn=_child_of(os.getpid()),
        )

    def _complain(self, error: ZdmError) -> None:
        """Log why the router is not ready, once; the first moments, in which HAProxy does not answer yet, say
        nothing.
        """
        if time.monotonic() > self._patience and self._complaint != str(error):
            self._complaint = str(error)
            _log(f"not ready: {error}")


def _next_signal(seconds: float) -> int:
    """Wait for a signal; SIGCHLD when there was none."""
    received = signal.sigtimedwait(_SIGNALS, seconds)
    # After this process was stopped and continued, Python answers with a signal that there is not.
    return received.si_signo if received and received.si_signo in _SIGNALS else signal.SIGCHLD


def _child_of(parent: int) -> Callable[[], None]:
    """HAProxy gets its signals unblocked, and SIGTERM when this process dies: no router without its start script."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

    return prepare


def _notify(text: str) -> None:
    """Tell systemd (sd_notify protocol)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
            notifier.sendto(text.encode(), "\0" + address[1:] if address.startswith("@") else address)


def _log(text: str) -> None:
    sys.stderr.write(f"zdm-router: {text}\n")
    sys.stderr.flush()
