# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whoever has written a descriptor, and however: every idle URL that is written once is mended or named, the second run
changes nothing, everything else keeps its bytes and its meaning.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.safe import Mended, Wanted, mend
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.session import Sessions
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Source, Value, names
from ansible_collections.zdm.landscape.plugins.module_utils.mta.lint.findings import HINT
from ansible_collections.zdm.landscape.plugins.module_utils.mta.lint.rules import lint
from ansible_collections.zdm.landscape.tests.unit.mta.people import Writer, data
from ansible_collections.zdm.landscape.tests.unit.mta.phases import Phase, Unresolvable
from hypothesis import given, settings
from hypothesis import strategies as st

WANTED = Wanted(sessions=Sessions(), longest_upgrade_ms=600_000)
PLACE = re.compile(r"~\{|\$\{|[\[\]{}]|~|null|:\s*(?:#.*)?$|:\s*(?:&\w+ *)?(?:no|false)\b|\|-|>-|\*a\d")
"""What a line may hold that changes: a reference, a placeholder, a collection in brackets, or a value that is none."""
OWN = {"host", "hosts", "routes", "app-name"}
"""Parameters of modules whose default URL is none of their routes."""


def check(seed: Random) -> Mended:
    body = data(seed)
    text = Writer(seed).text(body)
    before = Descriptor.parse(Source("mta.yaml", text))
    assert before.root.plain() == body
    mended = mend(before, WANTED)
    after = before.rewritten(mended.text)
    again = mend(after, WANTED)
    assert (again.text, len(again.left)) == (mended.text, len(mended.left))
    _same_lines(text, mended.text)
    _same_data(body, after.root.plain(), "")
    _no_idle_left(before, after)
    return mended


def _same_lines(before: str, after: str) -> None:
    """Only lines with a place that may change are gone; their comments are still there, and line ends are kept."""
    lines = list(difflib.unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), n=0))[2:]
    gone = [line[1:] for line in lines if line[0] == "-"]
    new = "".join(line[1:] for line in lines if line[0] == "+")
    last = before.splitlines(keepends=True)[-1]
    for line in gone:
        assert PLACE.search(line) or line == last or not line.strip(), line
        comment = re.search(r"[ \t]#.*", line)
        assert comment is None or comment[0].rstrip() in new
    assert set(re.findall(r"\r\n|\r|\n", after)) == set(re.findall(r"\r\n|\r|\n", before))
    assert before.endswith(("\r", "\n")) == after.endswith(("\r", "\n"))
    assert before.startswith("\ufeff") == after.startswith("\ufeff")


def _same_data(before: Any, after: Any, where: str) -> None:
    """Keys and items may be added, strings with a reference may name another one; nothing else."""
    if isinstance(before, dict) and isinstance(after, dict):
        assert [key for key in after if key in before] == list(before), where
        for key in before:
            _same_data(before[key], after[key], f"{where}/{key}")
        added = set(after) - set(before)
        flags = r"EXT_SESSION_MGT|keep-existing-routes|use-live-routes|callbackTimeoutMillis|async|timeoutInMillis"
        parts = r"requires|provides|resources|parameters|properties"
        for key in added:
            assert re.fullmatch(rf"{parts}|{flags}", key) or "live" in key, (where, key)
    elif isinstance(before, list) and isinstance(after, list):
        assert len(after) >= len(before), where
        for number, item in enumerate(before):
            _same_data(item, after[number], f"{where}/{number}")
        assert all(isinstance(item, dict) and item.get("name") for item in after[len(before) :]), where
    elif isinstance(before, str) and ("~{" in before or "${" in before):
        assert isinstance(after, str), where
        assert re.sub(r"[~$]\{[^}]*\}", "", before) == re.sub(r"[~$]\{[^}]*\}", "", after) or "${" in before, where
    elif before is None:
        assert after is None or isinstance(after, (dict, list)), where
    elif before is False and where.endswith("keep-existing-routes"):
        assert isinstance(after, bool)
    else:
        assert before == after, where


def _once(root: Value) -> dict[tuple[str, ...], tuple[Value, str, Mapping[str, Any]]]:
    """What is written once: by its place the string, the requirement in which it stands, and whose it is."""
    found: dict[tuple[str, ...], tuple[Value, str, Mapping[str, Any]]] = {}
    modules, resources = names(root.get("modules")), names(root.get("resources"))
    services = {name: one for name, one in resources.items() if "existing" not in one.plain()["type"]}

    def add(name: str, owner: Value, value: Value | None, requirement: str = "") -> None:
        for path, string in _strings(value):
            found[(name, requirement, *path)] = string, requirement, owner.plain()

    for name, service in services.items():
        add(name, service, service.get("parameters"))
    for name, module in modules.items():
        if module.plain()["type"] == "com.sap.application.content":
            add(name, module, module.get("parameters"))
            continue
        for bound, item in names(module.get("requires")).items():
            if bound in services:
                add(name, module, item.get("parameters"), bound)
    return found


def _strings(value: Value | None) -> Iterator[tuple[tuple[str, ...], Value]]:
    if value is None:
        return
    if value.text:
        yield (), value
    pairs = [*enumerate(value.items), *((key, entry.value) for key, entry in value.mapping.items())]
    for key, child in pairs:
        for path, string in _strings(child):
            yield (str(key), *path), string


def _no_idle_left(before: Descriptor, after: Descriptor, file: str = "mta.yaml") -> None:
    """Every string that is written once resolves to the same in both phases, to no idle host, and to what it was after
    the switch, unless that was no route of the module; or its line is named.
    """
    root, body = after.root.plain(), before.root.plain()
    idle, live, was = Phase(root, idle=True), Phase(root, idle=False), Phase(body, idle=False)
    named = {(one.file, one.line) for one in lint(after) if one.severity != HINT and not one.fixable}
    own = any(OWN & set(module.get("parameters") or {}) for module in root["modules"])
    earlier = _once(before.root)
    for path, (string, requirement, owner) in _once(after.root).items():
        places = {(string.source.name, string.line), *_places_of(after, string.text, requirement)}
        if string.source.name != file or named & places:
            continue
        written, later = (phase.resolve(string.text, owner, requirement) for phase in (idle, live))
        assert "-idle" not in written == later, string.text
        if path in earlier and not own:
            text, requirement, owner = earlier[path][0].text, *earlier[path][1:]
            try:
                assert was.resolve(text, owner, requirement) == later, text
            except Unresolvable:  # it does now
                assert body != root


def _places_of(descriptor: Descriptor, text: str, requirement: str) -> Iterator[tuple[str, int]]:
    """The lines of the properties that a text refers to."""
    entries = [item for module in descriptor.modules.values() for item in names(module.get("provides")).items()]
    for match in re.finditer(r"(?<!\\)~\{(?:([^{}/]+)/)?([^{}]+)\}", text):
        for name, entry in entries:
            found = entry.get("properties", match[2])
            if name == (match[1] or requirement) and found is not None:
                yield found.source.name, found.line


def check_extension(seed: Random) -> None:
    """An extension that says parts of the descriptor anew: it is mended in its own lines, beside a safe descriptor."""
    body = data(seed)
    base = Descriptor.parse(Source("mta.yaml", Writer(seed).text(body)))
    base = base.rewritten(mend(base, WANTED).text)
    parts = {
        key: [{"name": one["name"], **_some(seed, one, keep)} for one in body.get(key) or [] if seed.random() < 0.7]
        for key, keep in (("modules", ("parameters", "properties")), ("resources", ("parameters",)))
    }
    head = {"_schema-version": "3.3", "ID": "more", "extends": "shop"}
    text = Writer(seed).text({**head, **{key: items for key, items in parts.items() if items}})
    extension = Descriptor.parse(Source("a.mtaext", text))
    want = Wanted(longest_upgrade_ms=600_000)
    mended = mend(extension, want, base)
    after = extension.rewritten(mended.text)
    assert mend(after, want, base).text == mended.text
    _same_lines(text, mended.text)
    _same_data(extension.root.plain(), after.root.plain(), "")
    _no_idle_left(base.extended([extension]), base.extended([after]), "a.mtaext")


def _some(random: Random, part: Mapping[str, Any], keep: tuple[str, ...]) -> dict[str, Any]:
    return {key: part[key] for key in keep if part.get(key) and random.random() < 0.7}


@settings(max_examples=30)
@given(st.randoms(use_true_random=False))
def test_however_people_extend(random: Random) -> None:
    check_extension(random)


@settings(max_examples=60)
@given(st.randoms(use_true_random=False))
def test_however_people_write(random: Random) -> None:
    check(random)


@pytest.mark.parametrize("seed", range(40))
def test_however_these_people_wrote(seed: int) -> None:
    check(Random(seed))
