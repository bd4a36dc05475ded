# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A child process that recovers at once when its parent dies while routers fail closed (cutover protocol, rule 2).

The parent tells it over a pipe which epoch it has taken over, and says goodbye at its end. A pipe that ends without a
goodbye means that the parent was killed: then the guardian does what the operator's next command would do, the quickest
way. A parent that is merely stopped keeps its pipe open, and the guardian waits with it.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict
from types import TracebackType
from typing import NoReturn

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import (
    OutcomeUnknown,
    Refused,
    Superseded,
    ZdmError,
)
from ansible_collections.zdm.landscape.plugins.module_utils.migration.cutover import Cutover
from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import (
    CLOSED,
    COMMITTED,
    GUARDIAN,
    RELEASED,
    UNDOING,
    UNDONE,
)
from ansible_collections.zdm.landscape.plugins.module_utils.migration.owner import Owner

GIVE_UP_S = 60.0
"""No attempt begins later than this after the parent's death; then all is left as it is, for the operator's command."""

_HELD = (CLOSED, UNDOING, UNDONE, COMMITTED, RELEASED)
"""Phases in which routers may fail closed; in W leases end by themselves."""
_PAUSE_S = 0.5
_GOODBYE = b"goodbye"


class Guardian:
    """Watches over the process that makes it, as a context manager.

    Make it before the first thread and the first connection: it forks. Leaving the context says goodbye, unless an
    error leaves it that nobody expected: then the window may be open, and the guardian acts when the process ends.

    :param recover: called in the child with the epoch of the last :meth:`arm`, when the parent dies.
    :raises Refused: no process can be started.
    """

    def __init__(self, recover: Callable[[int], None]) -> None:
        reader, self._writer = os.pipe()
        try:
            self.pid = os.fork()
        except OSError as error:
            os.close(reader)
            os.close(self._writer)
            raise Refused(
                f"The guardian can't be started: {error.strerror}.", "Free some memory or processes on the controller."
            ) from error
        if self.pid == 0:
            _guard(reader, recover)
        os.close(reader)

    def arm(self, epoch: int) -> None:
        """From now on the parent drives the migration under *epoch*."""
        with suppress(OSError):  # Without its guardian a run is as safe as any: the operator's command recovers.
            os.write(self._writer, b"%d\n" % epoch)

    def dismiss(self) -> None:
        """Say goodbye and wait until the guardian is gone."""
        with suppress(OSError):
            os.write(self._writer, _GOODBYE)
        os.close(self._writer)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def __enter__(self) -> Guardian:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, (ZdmError, SystemExit)):
            self.dismiss()


def recover(build: Callable[[], AbstractContextManager[Cutover]], epoch: int, give_up_s: float = GIVE_UP_S) -> None:
    """Undo or finish the window of *epoch*; does nothing when the journal shows another epoch or routers are open.

    :param build: opens a cutover of the dead run's options; called for every attempt.
    """
    deadline = time.monotonic() + give_up_s
    unsure = False
    while time.monotonic() < deadline:
        mine = epoch
        try:
            with build() as cutover:
                journal = cutover.journal.read()
                if unsure and journal.body.get("owner") == asdict(Owner.here()):
                    epoch = mine = journal.body["epoch"]  # The take over of an attempt before has landed.
                if journal.body.get("epoch") != epoch or journal.phase not in _HELD:
                    return
                journal.ended_by = _by_guardian
                try:
                    cutover.abort(of_epoch=epoch)
                    return
                finally:
                    mine = journal.epoch or epoch
        except Superseded:
            return
        except Exception as error:  # Whatever it was, nobody else would try again.
            epoch, unsure = mine, unsure or isinstance(error, OutcomeUnknown)
            time.sleep(_PAUSE_S)


def _by_guardian() -> str:
    return GUARDIAN


def _guard(reader: int, recover_epoch: Callable[[int], None]) -> NoReturn:
    """The child's life. It never returns: what the parent has on its stack is not the child's to run."""
    try:
        heard = _hear(_detach(reader))
        if not heard.endswith(_GOODBYE) and b"\n" in heard:
            recover_epoch(int(heard.splitlines()[-1]))
    finally:
        os._exit(0)


def _detach(reader: int) -> int:
    """Leave the parent's session and terminal, and keep none of its files but the pipe; returns the pipe's new number.

    Ansible waits until nobody holds the module's output any more, and a pipe ends only when nobody holds its other end.
    """
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    pipe = fcntl.fcntl(reader, fcntl.F_DUPFD_CLOEXEC, 3)
    null = fcntl.fcntl(os.open(os.devnull, os.O_RDWR), fcntl.F_DUPFD_CLOEXEC, 3)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != pipe:
            with suppress(OSError):  # The folder's own number is among the names.
                os.close(int(name))
    return pipe


def _hear(pipe: int) -> bytes:
    """All that the parent says until the pipe ends."""
    heard = b""
    while chunk := os.read(pipe, 4096):
        heard += chunk
    return heard
