# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Descriptors are read with the places of their values, checked, and merged with their extensions."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Source, parse
from ansible_collections.zdm.landscape.tests.unit.mta.descriptors import FORMS, GUIDE, HEAD, MODULE, descriptor
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML


def test_what_the_guide_s_descriptor_describes() -> None:
    read = descriptor(GUIDE)
    assert read.summary() == {
        "id": "incident-management",
        "version": "1.0.0",
        "schema_version": "3.1",
        "extends": "",
        "last": "incident-management",
        "modules": ["incident-management-mtx", "incident-management-srv", "approuter"],
        "resources": [
            "incident-management-auth",
            "incident-management-portal",
            "incident-management-html5-repo-runtime",
            "incident-management-registry",
        ],
        "approuters": ["approuter"],
    }
    assert (read.major, read.is_subscribed(), read.extends) == (3, True, "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [", "mta.yaml:2:5 is not YAML: expected the node content"),
        ("a: b: c", "mta.yaml:1:5 is not YAML: mapping values are not allowed here"),
        ("a:\n\t- b", "mta.yaml:2:1 is not YAML: found character"),
        ("a: 1\nb: \x01", "mta.yaml:2 is not YAML: unacceptable character"),
        ("a: *there", r"mta.yaml:1:4: \*there has no anchor before it"),
        ("a: &r {b: *r}", r"mta.yaml:1:11: \*r has no anchor before it"),
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("a: 1\n---\nb: 2\n", "has 2 YAML documents"),
        ("- a\n", "mta.yaml:1:1: the descriptor is not a mapping"),
        ("just text", "is not a mapping"),
        ("a: 1\nb: 2\na: 3\n", "mta.yaml:3:1: the key a is written twice, first in line 1"),
        ("modules:\n- name: x\n  type: a\n  type: b\n", "mta.yaml:4:3: the key type is written twice, first in line 3"),
        ("{[a]: 1}", "a key is a mapping or a list"),
        ("<<: 1\n", "<< takes a mapping"),
        (HEAD.replace("ID: app\n", ""), "mta.yaml has no ID"),
        (HEAD.replace("ID: app", "ID:"), "mta.yaml has no ID"),
        (HEAD.replace("ID: app", "ID: [app]"), "mta.yaml:2:5: ID is not a string"),
        (HEAD.replace("version: 1.0.0\n", ""), "mta.yaml has no version"),
        (HEAD.replace("_schema-version: 3.3.0\n", ""), "mta.yaml has no _schema-version"),
        (HEAD + "modules: {a: 1}\n", "modules is not a list"),
        (HEAD + "modules:\n- type: nodejs\n", "mta.yaml:5:3: a module has no name"),
        (HEAD + "modules: [x]\n", "a module has no name"),
        (HEAD + "resources:\n- name: a\n- name: a\n", "mta.yaml:6:9: the resource a is there twice, first in line 5"),
        ("[" * 200, "mta.yaml:1:101: more than 100 levels"),
        (
            "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"{c}: &{c} [{', '.join([f'*{p}'] * 10)}]\n" for p, c in zip("abcde", "bcdef", strict=True)),
            "expand to more",
        ),
    ],
)
def test_a_text_that_is_no_descriptor_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        descriptor(text)
    assert caught.value.advice


def test_a_file_that_can_not_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read: No such file"):
        Descriptor.load(str(tmp_path / "mta.yaml"))
    (tmp_path / "mta.yaml").write_bytes(b"ID: \xff\n")
    with pytest.raises(InputError, match="is not UTF-8: byte 4"):
        Descriptor.load(str(tmp_path / "mta.yaml"))


EXTENSION = "_schema-version: 3.3.0\nID: one\nextends: app\n"


def test_extensions_are_laid_over_the_descriptor_in_their_order() -> None:
    base = descriptor(HEAD + MODULE + "parameters: {a: 1, b: 1, c: 1}\n")
    one = descriptor(
        EXTENSION
        + "parameters: {b: 2, c: 2}\nmodules:\n- name: srv\n  provides:\n  - name: srv-api\n    properties: {more:"
        " x}\n",
        "one",
    )
    two = descriptor(
        EXTENSION.replace("extends: app", "extends: one").replace("ID: one", "ID: two")
        + "parameters: {c: 3, d: [1]}\n",
        "two",
    )
    merged = base.extended([two, one])
    assert (merged.id, merged.last) == ("app", "two")
    assert merged.root.plain()["parameters"] == {"a": 1, "b": 2, "c": 3, "d": [1]}
    provided = merged.modules["srv"].plain()["provides"]
    assert provided == [{"name": "srv-api", "properties": {"srv-url": "${default-url}", "more": "x"}}]
    assert "one:9:24" in [string.place for string in merged.modules["srv"].strings()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (EXTENSION.replace("extends: app", "extends: other"), "one extends other, not app"),
        (EXTENSION.replace("3.3.0", "2.1"), "one has schema version 2.1, app has 3.3.0"),
        (EXTENSION + "modules:\n- name: x\n", "one:5:3: app has no module x. There are srv."),
        (EXTENSION + "resources:\n- name: x\n", "one:5:3: app has no resource x. There are none."),
        (HEAD, "one extends nothing, not app"),
    ],
)
def test_an_extension_of_something_else_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        descriptor(HEAD + MODULE).extended([descriptor(text, "one")])


READ = {
    "in a value": ("a: b\tc", "b\tc", []),
    "behind a value": ("a: b \t# c", "b", []),
    "behind a value in braces": ("a: {b: c\t}", {"b": "c"}, []),
    "in front of a value": ("a:\tb", "b", [3]),
    "behind quotes": ("a: 'b'\t", "b", [7]),
    "behind a key": ("a: \t# c\n  b: d", {"b": "d"}, [4]),
    "between braces": ("a: {\n\tb: c,\n\t# d\n d: e\n\t}", {"b": "c", "d": "e"}, [1, 1, 1]),
    "in an empty line": ("a: b\n \t", "b", [2]),
    "in a comment": ("a: b\n#\tc\td", "b", []),
    "in quotes": ("a: 'b\n\tc'", "b c", []),
}


@pytest.mark.parametrize("where", READ)
def test_tabs_are_read_wherever_they_may_stand(where: str) -> None:
    """Whether the deploy service reads it, too, was seen with its parser, SnakeYAML 2.2 and 2.5."""
    text, data, tabs = READ[where]
    read = parse(Source("x", text))
    assert read.plain() == {"a": data}
    assert [tab.column for tab in read.tabs] == tabs
    assert all(tab.raw == "\t" for tab in read.tabs)


@pytest.mark.parametrize("text", ["a:\n\tb: c", "a:\n-\tb", "a:\n- \tb: c", "a:\n  b: c\n  \td: e"])
def test_tabs_do_not_indent(text: str) -> None:
    with pytest.raises(InputError, match="found character"):
        parse(Source("x", text))


@pytest.mark.parametrize("form", FORMS)
def test_values_are_those_of_a_yaml_library(form: str) -> None:
    library = YAML(typ="safe", pure=True)
    library.version = (1, 1)
    assert parse(Source("x", FORMS[form])).plain() == library.load(FORMS[form])


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b c", "d:", "'e'"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=40)
@given(plain, st.booleans())
def test_values_and_places_survive_any_way_of_writing(data: Any, flow: bool) -> None:
    library = YAML(typ="safe", pure=True)
    library.default_flow_style = flow
    library.allow_unicode = True
    stream = io.StringIO()
    library.dump({"top": data}, stream)
    text = stream.getvalue()
    read = parse(Source("x", text))
    assert read.plain() == {"top": data}
    for string in read.strings():
        line = text.splitlines()[string.line - 1]
        assert string.raw in text
        assert line[string.column - 1 :].startswith(string.raw.splitlines()[0])
