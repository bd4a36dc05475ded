# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the demos share: one at a time, steps on the terminal, a folder for their data, and an orderly end."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from .processes import ServerError, remove_folder, work_folder

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / ".demo"


class Ended(BaseException):
    """The demo was asked to end; everything is stopped on the way out."""


@contextmanager
def step(text: str) -> Iterator[None]:
    """Print what is done and how long it took."""
    print(f"» {text}", flush=True)
    begin = time.monotonic()
    yield
    print(f"    {time.monotonic() - begin:.1f} s", flush=True)


@contextmanager
def alone() -> Iterator[None]:
    """Only one demo at a time in this checkout."""
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("A demo runs in this checkout already.")
        yield


def clear(place: Path, *results: Path) -> None:
    """Remove the data of a demo's last run, which may lie under the system's temporary folder, and its *results*."""
    record = place / "folder"
    if record.exists():
        remove_folder(Path(record.read_text()))
    for path in (place / "data", record, *results):
        if path.is_dir():
            remove_folder(path)
        else:
            path.unlink(missing_ok=True)


def perform(place: Path, demo: Callable[[Path], bool]) -> int:
    """Run a demo to its end, or until a signal ends it.

    :param place: its own folder in :data:`FOLDER`, cleared before.
    :param demo: works in the folder that it gets, has stopped everything when it returns or raises, and says whether
        all went well.
    :returns: the exit code.
    """
    place.mkdir(exist_ok=True)
    folder = work_folder(place / "data")
    (place / "folder").write_text(str(folder))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        return 0 if demo(folder) else 1
    except Ended as end:
        print(f"\nEnded by {end}; everything is stopped.", file=sys.stderr)
        return 130
    except (ServerError, OSError, subprocess.SubprocessError) as error:
        logs = f"\nLogs are under {folder}." if any(folder.rglob("*.log")) else ""
        print(f"\n{error}{logs}", file=sys.stderr)
        return 1


def shown(path: Path) -> str:
    """A path of the checkout as a person at its top would write it."""
    return os.path.relpath(path, CHECKOUT)


def _end(number: int, _frame: FrameType | None) -> None:
    # once is enough: a second signal must not disturb the clean-up
    for again in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(again, signal.SIG_IGN)
    raise Ended(signal.Signals(number).name)
