# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One entry of tenants.json is edited; nothing else changes."""

from __future__ import annotations

import json

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError
from ansible_collections.zdm.landscape.plugins.module_utils.tenants.tenants_file import TenantsFile
from hypothesis import given
from hypothesis import strategies as st

ODD = """{
    "venezia" : {"datacenter":"US10",   "channel": "BETA"},

    "a.b"     : { "flags": [1,2,
                            3] },
  "zürich": {}
}
"""
MAPPING = {"onboardWithMappingToTenant": "venezia", "onboardWithMappingToTenantId": "1b2f"}


def test_a_new_entry_comes_last_and_the_rest_stays() -> None:
    text = TenantsFile(ODD, "tenants.json").replaced("neu", MAPPING)
    assert text.startswith(ODD.rstrip().removesuffix("}").rstrip())
    assert json.loads(text) == {**json.loads(ODD), "neu": MAPPING}
    assert list(json.loads(text))[-1] == "neu"


def test_an_entry_is_replaced_where_it_stands() -> None:
    text = TenantsFile(ODD, "tenants.json").replaced("venezia", {"decommissioned": "true"})
    assert text == ODD.replace('{"datacenter":"US10",   "channel": "BETA"}', '{"decommissioned": "true"}')


@pytest.mark.parametrize("name", ["venezia", "a.b", "zürich"])
def test_an_entry_is_removed_with_its_comma(name: str) -> None:
    text = TenantsFile(ODD, "tenants.json").replaced(name, None)
    expected = json.loads(ODD)
    del expected[name]
    assert json.loads(text) == expected
    assert all(
        line in text
        for line in ODD.splitlines()
        if name not in line and not line.strip().startswith(("3]", '"a.b"', '"zürich"', '"venezia"'))
    )


def test_a_file_is_begun() -> None:
    text = TenantsFile("", "tenants.json").replaced("b", {"decommissioned": "true"})
    assert text == '{\n  "b": {\n    "decommissioned": "true"\n  }\n}\n'
    assert TenantsFile(text, "tenants.json").replaced("b", None) == "{}\n"


def test_indentation_and_line_ends_are_the_files_own() -> None:
    text = TenantsFile('{\r\n\t"a": {\r\n\t\t"x": 1\r\n\t}\r\n}\r\n', "tenants.json").replaced("b", {"y": 2})
    assert text == '{\r\n\t"a": {\r\n\t\t"x": 1\r\n\t},\r\n\t"b": {\r\n\t\t"y": 2\r\n\t}\r\n}\r\n'


def test_an_entry_that_is_absent_needs_no_edit() -> None:
    assert TenantsFile(ODD, "tenants.json").replaced("nobody", None) == ODD


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "does not begin with {"),
        ('{"a": {}', "',' is missing"),
        ('{"a": {}} {}', "text follows"),
        ('{"a": {}, "a": {}}', "a stands in it twice"),
        ('{"a" {}}', "':' is missing"),
        ('{"a": {},}', "tenants.json is not a JSON object"),
        ("{1: {}}", "1 is no key"),
        ('{"a": nope}', "tenants.json is not a JSON object"),
    ],
)
def test_a_broken_file_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TenantsFile(text, "tenants.json")


def test_an_entry_that_is_no_object_is_refused() -> None:
    with pytest.raises(InputError, match="The entry a of tenants.json is no JSON object"):
        TenantsFile('{"a": 3}', "tenants.json").get("a")


VALUES = st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=5), max_size=3)
ENTRIES = st.dictionaries(st.text(max_size=5), VALUES, max_size=4)


@given(ENTRIES, st.text(max_size=5), st.none() | VALUES, st.sampled_from([None, 1, 2, "\t"]))
def test_any_edit_of_any_file_does_what_it_says(
    entries: dict[str, dict[str, int | str]], name: str, value: dict[str, int | str] | None, indent: int | str | None
) -> None:
    before = json.dumps(entries, indent=indent)
    expected = (
        {**entries, name: value} if value is not None else {key: entry for key, entry in entries.items() if key != name}
    )
    assert json.loads(TenantsFile(before, "tenants.json").replaced(name, value)) == expected
