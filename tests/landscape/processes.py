# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Child processes that never outlive their parent, free ports, waiting, and the users that servers run as."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
_PACKAGE = __package__ or "tests.landscape"
IMPORT_ROOT = Path(__file__).parents[_PACKAGE.count(".") + 1]
"""The folder from which this package was imported; not resolved, as the collection may be a link."""
PATIENCE_S = 300.0
"""A condition that will not come true is told apart from a busy machine; nothing waits so long where all is well."""


class ServerError(RuntimeError):
    """A process of the landscape did not start, ended early or does not answer; the text carries its last output."""


@dataclass(frozen=True)
class User:
    """The account that a process runs as."""

    name: str
    uid: int
    gid: int

    @classmethod
    def current(cls) -> User:
        return cls(pwd.getpwuid(os.getuid()).pw_name, os.getuid(), os.getgid())

    @classmethod
    def unprivileged(cls, *names: str) -> User:
        """The first of *names* that exists (then ``nobody``) when root asks, else the user who asks."""
        if os.getuid() != 0:
            return cls.current()
        for name in (*names, "nobody"):
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)
        raise ServerError("No unprivileged user exists; servers do not run as root.")


def wait_until(
    condition: Callable[[], object], what: str, timeout_s: float = PATIENCE_S, pause_s: float = 0.02
) -> None:
    """Poll *condition* until it is true.

    :raises ServerError: when it is still false after *timeout_s* seconds.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            raise ServerError(f"{what}: not within {timeout_s:g} s.")
        time.sleep(pause_s)


def free_port() -> int:
    """A loopback port from the kernel, kept from other askers for a minute.

    A connection that is accepted and closed leaves the port in TIME_WAIT: the kernel gives it to nobody who asks for
    any port, while a server that sets SO_REUSEADDR (all of ours do) may bind it.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        with socket.create_connection(listener.getsockname()):
            accepted, _peer = listener.accept()
            accepted.close()
        return int(listener.getsockname()[1])


def work_folder(wanted: Path) -> Path:
    """Return *wanted* if servers can work there, else a new folder under the system's temporary one.

    Root's servers run as other users, who may not be able to enter the checkout; a unix socket's path holds about
    100 bytes.
    """
    if os.getuid() != 0 and len(str(wanted)) <= 60:
        wanted.mkdir(parents=True, exist_ok=True)
        return wanted
    folder = Path(tempfile.mkdtemp(prefix="zdm-landscape-"))
    folder.chmod(0o755)
    return folder


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that every user may enter, under the system's temporary one; removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="zdm-landscape-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        remove_folder(folder)


def private_folder(path: Path, user: User) -> Path:
    """Make a folder that only *user* can read."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    if os.getuid() == 0:
        os.chown(path, user.uid, user.gid)
    return path


def reachable_by_all(path: Path) -> bool:
    """Whether another user can enter every folder above *path* and read it."""
    resolved = path.resolve()
    return all(folder.stat().st_mode & 0o001 for folder in resolved.parents) and bool(resolved.stat().st_mode & 0o004)


def run(argv: Sequence[str], user: User | None = None, timeout_s: float = PATIENCE_S, cwd: Path | None = None) -> str:
    """Run a short command and return its output.

    :raises ServerError: when it fails; with its output.
    """
    output: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
    }
    done = subprocess.run(list(argv), timeout=timeout_s, check=False, cwd=cwd, **output, **_identity(user))
    if done.returncode != 0:
        raise ServerError(f"{argv[0]} ended with code {done.returncode}: {done.stdout[-2000:]}")
    return str(done.stdout)


def module_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module of this package, however the package is called here."""
    return [sys.executable, "-m", f"{_PACKAGE}.{module}", *arguments]


def module_environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(IMPORT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }


def _stat(pid: int) -> tuple[str, int]:
    """State and parent of a process; ``("", 0)`` when it does not exist."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "", 0
    return fields[0], int(fields[1])


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has buried yet does not."""
    return _stat(pid)[0] not in ("", "Z", "X")


def _descendants(pid: int) -> list[int]:
    parents = {int(entry.name): _stat(int(entry.name))[1] for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    found = [pid]
    for parent in found:
        found += [child for child, its_parent in parents.items() if its_parent == parent]
    return found[1:]


def _identity(user: User | None) -> dict[str, Any]:
    if user is None or user.uid == os.getuid():
        return {}
    return {"user": user.uid, "group": user.gid, "extra_groups": []}


@dataclass
class Process:
    """One running child with its log file."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    stop_signal: signal.Signals

    @property
    def pid(self) -> int:
        return self.popen.pid

    def check(self) -> None:
        """Raise :class:`ServerError` when the process has ended."""
        code = self.popen.poll()
        if code is not None:
            raise ServerError(f"{self.name} ended with code {code}: {self.tail()}")

    def tail(self, size: int = 2000) -> str:
        return self.log.read_text(errors="replace")[-size:] if self.log.exists() else ""

    def wait_ready(self, ready: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
        """Poll *ready* until it is true; ends early when the process does."""

        def alive_and_ready() -> object:
            self.check()
            return ready()

        try:
            wait_until(alive_and_ready, f"{self.name} is ready", timeout_s)
        except ServerError as error:
            raise ServerError(f"{error} Its log ends: {self.tail()}") from error

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process group; a process that has ended is no error."""
        if self.popen.poll() is None:
            try:
                os.killpg(self.popen.pid, number)
            except ProcessLookupError:
                return

    def stop(self, timeout_s: float = 10.0) -> int:
        """Stop the process group, by force after *timeout_s*; returns the exit code."""
        if self.popen.poll() is None:
            # only the leader gets the polite signal: PostgreSQL and HAProxy stop their own children
            self.popen.send_signal(self.stop_signal)
            self.popen.send_signal(signal.SIGCONT)
            try:
                self.popen.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
        return int(self.popen.returncode)

    def kill(self) -> None:
        """End the process and its descendants as a crash does; returns when none of them is left."""
        family = [self.pid, *_descendants(self.pid)]
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.popen.wait(30)
        wait_until(lambda: not any(alive(pid) for pid in family), f"{self.name} and its children end")


@dataclass
class Processes:
    """The children of one landscape; as a context manager it stops them all, the last one first."""

    logs: Path
    children: list[Process] = field(default_factory=list)

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        user: User | None = None,
        env: Mapping[str, str] | None = None,
        stdout: Path | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> Process:
        """Start a process in its own session.

        :param stdout: a file for its standard output; else it goes to the log, as standard error does.
        :param stop_signal: what asks it politely to stop.
        :param death_signal: what the kernel sends it when this process dies, however that happens.
        """
        if threading.current_thread() is not threading.main_thread():
            # the kernel's "parent" is the thread: a child of a thread that ends would be killed
            raise ServerError(f"{name}: start processes from the main thread.")
        parent = os.getpid()

        def before_exec() -> None:
            # after the change of user, which would clear it
            if _LIBC.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0 or os.getppid() != parent:
                os._exit(127)

        log = self.logs / f"{name}.log"
        with log.open("ab") as log_file, (stdout or log).open("ab") as out_file:
            files: dict[str, Any] = {
                "stdin": subprocess.DEVNULL,
                "stdout": out_file,
                "stderr": log_file,
                "cwd": self.logs,
            }
            popen = subprocess.Popen(
                list(argv),
                env=dict(env) if env else None,
                start_new_session=True,
                preexec_fn=before_exec,
                **files,
                **_identity(user),
            )
        process = Process(name, popen, log, stop_signal)
        self.children.append(process)
        return process

    def stop(self, *processes: Process) -> None:
        """Stop the given processes and forget them."""
        for process in processes:
            process.stop()
            self.children.remove(process)

    def stop_all(self) -> None:
        for process in reversed(self.children):
            process.signal(signal.SIGCONT)
            if process.popen.poll() is None:
                process.popen.send_signal(process.stop_signal)
        for process in reversed(self.children):
            process.stop()
        self.children.clear()

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_all()


def remove_folder(folder: Path) -> None:
    """Remove a landscape's folder; what is already gone is no error."""
    shutil.rmtree(folder, ignore_errors=True)
