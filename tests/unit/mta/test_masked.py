# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No diff shows a session secret, however it is written, and nothing else is hidden."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.secret import masked
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Source
from ansible_collections.zdm.landscape.tests.unit.mta.descriptors import HEAD, descriptor
from hypothesis import given, settings
from hypothesis import strategies as st

MASK = "********"


def text_of(variable: str, more: str = "") -> str:
    return (
        f"{HEAD}modules:\n- name: r\n  type: approuter.nodejs\n  parameters:\n    other: 'e'{more}\n  properties:\n"
        f"    BEFORE: here\n    EXT_SESSION_MGT: {variable}\n    AFTER: there\n"
    )


characters = st.characters(max_codepoint=0x17F, categories=["L", "N", "P", "S"]) | st.just(" ")
secrets = st.text(characters, min_size=1, max_size=80).filter(
    lambda text: text == text.strip() and "${" not in text and "  " not in text and "#" not in text
)
# How the variable is written, and how a secret is written in it.
STYLES: dict[str, Callable[[str], str]] = {
    "single": lambda text: "'" + text.replace("'", "''") + "'",
    "double": json.dumps,
    "literal": lambda text: "|\n      " + text,
    "commented": lambda text: "'{ // mine\n      " + text[1:].replace("'", "''") + "'",
    "unclosed": lambda text: "'" + text[:-2].replace("'", "''") + "'",
}


@settings(max_examples=150)
@given(secrets, st.sampled_from([*STYLES]))
def test_a_secret_in_json_is_hidden_and_nothing_else(secret: str, style: str) -> None:
    variable = json.dumps({"instanceName": "r-1", "sessionSecret": "@", "x": 1}, ensure_ascii=False)
    written = json.dumps(secret, ensure_ascii=False)[1:-1]
    text = text_of(STYLES[style](variable.replace("@", written)))
    shown = masked(descriptor(text), text)
    assert "BEFORE: here\n" in shown
    assert "    AFTER: there\n" in shown
    assert "other: 'e'\n" in shown
    assert MASK in shown
    hidden = shown.partition("EXT_SESSION_MGT")[2]
    if len(secret) > 3 and secret not in "instanceName r-1 sessionSecret AFTER there":
        assert secret not in hidden
    if style in ("single", "double", "literal", "commented"):
        rest = text_of(STYLES[style](variable.replace("@", MASK)))
        assert shown == rest or len(secret) > 11


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('# "sessionSecret": "old, one", more', f'# "sessionSecret": "{MASK}", more'),
        ("# sessionSecret: bare, one # x", f"# sessionSecret: {MASK}"),
        ("#   session-secret: the old one", f"#   session-secret: {MASK}"),
        ("# cookie-key: 'the old one'", f"# cookie-key: {MASK}"),
        ("# sessionSecret: ${cookie-key}", "# sessionSecret: ${cookie-key}"),
        ("# session-secret: ${from-elsewhere}", "# session-secret: ${from-elsewhere}"),
        ("# some other comment: e", "# some other comment: e"),
    ],
)
def test_secrets_in_comments_are_hidden(line: str, expected: str) -> None:
    text = text_of('\'{"sessionSecret": "${cookie-key}"}\'', f"\n    {line}")
    assert masked(descriptor(text), text) == text.replace(line, expected)


@pytest.mark.parametrize("written", ["e", "'e'", "|\n      e", "&a e", "1234", '"a\\tb"'])
def test_a_parameter_is_hidden_at_its_place(written: str) -> None:
    text = text_of('\'{"sessionSecret": "${session-secret}"}\'', f"\n    session-secret: {written}")
    shown = masked(descriptor(text), text)
    assert MASK in shown.partition("session-secret:")[2].partition("properties")[0]
    assert shown.replace(MASK, "") != text
    assert "    other: 'e'\n    session-secret:" in shown
    assert shown.endswith(text.partition("  properties")[2])


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("{sessionSecret: 'a, b', storageType: redis}", f"{{sessionSecret: '{MASK}', storageType: redis}}"),
        (
            "\n      sessionSecret: a, b\n      storageType: redis",
            f"\n      sessionSecret: {MASK}\n      storageType: redis",
        ),
        ("'not JSON at all'", f"'{MASK}'"),
        ("'{}'", "'{}'"),
        ('\'{"instanceName": "a"}\'', '\'{"instanceName": "a"}\''),
        ("${from-elsewhere}", "${from-elsewhere}"),
        ('\'{"sessionSecret": "${a}-and-more"}\'', f'\'{{"sessionSecret": "{MASK}"}}\''),
    ],
)
def test_a_variable_of_another_form(variable: str, expected: str) -> None:
    text = text_of(variable)
    assert masked(descriptor(text), text) == text_of(expected)


def test_a_long_secret_is_hidden_wherever_it_occurs_and_in_extensions() -> None:
    secret = "0123456789abcdef" * 4
    base = descriptor(text_of('\'{"sessionSecret": "${cookie-key}"}\''))
    extension = (
        f"_schema-version: 3.3.0\nID: x\nextends: app\nmodules:\n- name: r\n  parameters:\n    cookie-key: {secret}\n"
        f"  properties: {{COPY: {secret}}}\n"
    )
    merged = base.extended([Descriptor.parse(Source("x.mtaext", extension))])
    assert masked(merged, extension) == extension.replace(secret, MASK)
    assert masked(merged, base.source.text) == base.source.text
