# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Descriptors that once went wrong, each with what is found in it, what is mended, and what is left."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.safe import Wanted, mend
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.session import Sessions
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Source
from ansible_collections.zdm.landscape.plugins.module_utils.mta.lint.rules import lint

CASES = sorted(Path(__file__).with_name("cases").glob("*.json"))
LONGEST = 1_800_000


def read(case: Path) -> tuple[Source, dict[str, Any]]:
    """The descriptor, in a file of its own unless its line ends are special, and what is expected."""
    expected: dict[str, Any] = json.loads(case.read_text())
    text = expected.get("text") or case.with_suffix(".descriptor").read_bytes().decode()
    return Source("mta.yaml", text), expected


def changes(before: str, after: str) -> tuple[list[str], list[str]]:
    """Lines that are gone and lines that are new, with their ends."""
    lines = list(difflib.unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), n=0))[2:]
    return [line[1:] for line in lines if line[0] == "-"], [line[1:] for line in lines if line[0] == "+"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_a_case_gets_its_right_answer(case: Path) -> None:
    source, expected = read(case)
    if "error" in expected:
        with pytest.raises(InputError) as caught:
            Descriptor.parse(source)
        assert str(caught.value) == expected["error"]
        return
    modules = tuple(expected["modules"])
    want = Wanted(sessions=Sessions(modules) if expected["sessions"] else None, longest_upgrade_ms=LONGEST)
    before = Descriptor.parse(source)
    mended = mend(before, want)
    after = before.rewritten(mended.text)
    assert changes(source.text, mended.text) == (expected["gone"], expected["new"])
    assert [f"{place.line}: {place.message}" for place in mended.left] == expected["left"]
    for descriptor, key in ((before, "findings"), (after, "still")):
        found = [f"{one.line}: {one.rule}" for one in lint(descriptor, LONGEST, approuters=modules)]
        assert found == expected[key]
    assert mend(after, want).text == mended.text
