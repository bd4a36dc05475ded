# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""./setup in a checkout that was copied or moved: a skeleton of one, which requires no package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINK = Path(".build", "ansible_collections", "zdm", "landscape")
PIP = Path(".build", "venv", "bin", "pip")


@pytest.fixture(name="checkout")
def _checkout(tmp_path: Path) -> Path:
    """Set up, and with something in ``.build`` that was made there."""
    checkout = tmp_path / "old"
    (checkout / "requirements").mkdir(parents=True)
    shutil.copy2(ROOT / "setup", checkout)
    (checkout / "requirements" / "test.txt").touch()
    set_up(checkout)
    (checkout / ".build" / "made-here").touch()
    return checkout


def set_up(checkout: Path) -> str:
    """Run ./setup; returns what it says."""
    env = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(
        [str(checkout / "setup"), "test"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def assert_of(checkout: Path) -> None:
    """Code and programs are the checkout's own."""
    assert (checkout / LINK).samefile(checkout)
    assert str(checkout / ".build") in (checkout / PIP).read_text()


@pytest.mark.parametrize(
    "carry", [lambda old, new: shutil.copytree(old, new, symlinks=True), Path.rename], ids=["copied", "moved"]
)
def test_a_checkout_at_another_place_is_made_anew(checkout: Path, carry: Callable[[Path, Path], object]) -> None:
    assert_of(checkout)
    assert set_up(checkout) == "", "what is at its place is left alone"
    assert (checkout / ".build" / "made-here").exists()
    there = checkout.with_name("new")
    carry(checkout, there)
    assert "was copied or moved" in set_up(there)
    assert_of(there)
    assert not (there / ".build" / "made-here").exists()
    assert set_up(there) == ""
    if checkout.exists():
        assert_of(checkout)
        assert set_up(checkout) == ""
