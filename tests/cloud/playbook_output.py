# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows a playbook's output while it runs: the tasks that did something, their progress, and what failed."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL_S = 0.1
_TASK = re.compile(r"TASK \[(?:[\w.]+ : )?(.*)\] \*+$")
_DONE = re.compile(r"(?:ok|changed): \[\w+\](?: => \(item=(.*)\))?")
_MESSAGE = re.compile(r' {4}"msg": "(.*)"$')
_ERROR = re.compile(r"\[ERROR\]: (?:Task failed: )?(?:(?:Module|Action) failed: )?(.*)$")


class Shown:
    """Chooses what a person wants to see of Ansible's output: no task that is skipped or includes others, no error
    twice.
    """

    def __init__(self) -> None:
        self._task, self._failed = "", False

    def line(self, text: str) -> list[str]:
        """The lines to print for the next line of the output."""
        task = _TASK.match(text)
        if task:
            self._task, self._failed = task[1].partition(" - ")[0], False
            return []
        error = _ERROR.match(text)
        if error:
            self._failed = True  # its origin and its result follow
            return self._with_task(f"  ! {error[1]}")
        if self._failed:
            return []
        done, message = _DONE.match(text), _MESSAGE.match(text)
        if done:
            return self._with_task(*([f"  ok: {done[1]}"] if done[1] else []))
        if message:
            return [f"  {message[1]}"]
        if text.startswith(("  ", "[")) and text.strip():
            return self._with_task(text)
        return []

    def _with_task(self, *lines: str) -> list[str]:
        task, self._task = self._task, ""
        return [*([task] if task else []), *lines]


@contextmanager
def showing(log: Path) -> Iterator[None]:
    """Print what a playbook writes to *log*, from its beginning until the block ends."""
    stop = threading.Event()
    thread = threading.Thread(target=_follow, args=(log, stop), name="playbook output", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _follow(log: Path, stop: threading.Event) -> None:
    shown, rest, ended = Shown(), "", False
    with log.open(encoding="utf-8", errors="replace") as stream:
        while not ended:
            ended = stop.wait(_POLL_S)  # what was written before the end is read after it
            *lines, rest = (rest + stream.read()).split("\n")
            for chosen in itertools.chain.from_iterable(map(shown.line, lines)):
                print(f"    {chosen}", flush=True)
