# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The session secret gets to the application routers by an extension descriptor, unchanged, and is never shown."""

from __future__ import annotations

import json

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.zdm.landscape.plugins.filter.session_extension import FilterModule
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.safe import Wanted, make_safe
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.secret import masked
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.session import SECRET_LENGTH, Sessions
from ansible_collections.zdm.landscape.plugins.module_utils.mta.lint.findings import HINT
from ansible_collections.zdm.landscape.plugins.module_utils.mta.lint.rules import lint
from ansible_collections.zdm.landscape.tests.cloud.resolve import Resolved, Surroundings, merged
from ansible_collections.zdm.landscape.tests.unit.mta.descriptors import GUIDE, descriptor
from hypothesis import given, settings
from hypothesis import strategies as st

session_extension = FilterModule().filters()["session_extension"]
SECRET = "VqO446NAgSd795NiBW7SXPvuKKH4pDso3qVcWC1GyLa2Zq6XASh0FNZ3b26ePlZe"
PRINTABLE = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp", "Zs"]) | st.just(" "),
    min_size=SECRET_LENGTH,
    max_size=80,
)


def test_the_extension_gives_every_module_the_parameter() -> None:
    assert (
        session_extension("app", 3.1, ["approuter", "second"], SECRET, extension_id="mine")
        == '_schema-version: "3.1"\nID: "mine"\nextends: "app"\nmodules:\n'
        f'  - name: "approuter"\n    parameters:\n      "session-secret": "{SECRET}"\n'
        f'  - name: "second"\n    parameters:\n      "session-secret": "{SECRET}"\n'
    )


def test_the_approuter_gets_strict_json_with_the_secret() -> None:
    base = descriptor(make_safe(descriptor(GUIDE), Wanted(sessions=Sessions(parameter="my-secret"))))
    extension = descriptor(
        session_extension(base.id, base.schema_version, base.approuters(), SECRET, "my-secret"), "s.mtaext"
    )
    assert [one for one in lint(base.extended([extension])) if one.severity != HINT] == []
    deployed = merged(base.root.plain(), [extension.root.plain()])
    environment = Resolved(deployed, Surroundings("org", "space", "example.com", "me", idle=True)).environment(
        "approuter"
    )
    assert json.loads(environment["EXT_SESSION_MGT"]) == {
        "instanceName": "incident-management-session-management",
        "storageType": "redis",
        "sessionSecret": SECRET,
        "defaultRetryTimeout": 2000,
        "backOffMultiplier": 50,
    }


@settings(max_examples=40)
@given(PRINTABLE)
def test_every_secret_that_is_taken_arrives_as_it_is(secret: str) -> None:
    if any(mark in secret for mark in ('"', "\\", "${", "~{")):
        with pytest.raises(AnsibleFilterError) as caught:
            session_extension("app", "3", ["approuter"], secret)
        assert secret not in str(caught.value)
        return
    text = session_extension("app", "3", ["approuter"], secret)
    value = descriptor(text).modules["approuter"].plain()["parameters"]["session-secret"]
    assert value == secret
    assert json.loads('{"sessionSecret": "${session-secret}"}'.replace("${session-secret}", value)) == {
        "sessionSecret": secret
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"secret": SECRET[1:]}, "has 63 characters, fewer than 64. Generate"),
        ({"secret": None}, "is not a string"),
        *[
            ({"secret": SECRET + mark}, "has a character that JSON or the deploy service would change")
            for mark in ('"', "\\", "\n", "\x7f", "${x}", "~{x}", "\u2028")
        ],
        ({"modules": []}, "No module is named"),
        ({"modules": ["a\nb"]}, "The module 'a\\\\nb' is not a name"),
        ({"mta_id": ""}, "The id of the MTA '' is not a name"),
        ({"schema_version": "x"}, "The schema version 'x' is not a version"),
        ({"parameter": " "}, "The parameter ' ' is not a name"),
    ],
)
def test_what_would_not_work_is_refused_without_the_secret(change: dict[str, object], message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message) as caught:
        session_extension(
            **{"mta_id": "app", "schema_version": "3.1", "modules": "approuter", "secret": SECRET, **change}
        )
    assert SECRET[1:40] not in str(caught.value)


@pytest.mark.parametrize(
    "variable",
    [
        f"""'{{"sessionSecret": "{SECRET}"}}'""",
        f'"{{\\"sessionSecret\\": \\"{SECRET}\\"}}"',
        f"""'{{ // Add
            "sessionSecret": "{SECRET}" // Add
          }}'""",
        f"{{sessionSecret: {SECRET}}}",
    ],
)
def test_a_secret_in_the_descriptor_is_masked_in_every_way_of_writing(variable: str) -> None:
    text = GUIDE.replace("      TENANT_HOST_PATTERN", f"      EXT_SESSION_MGT: {variable}\n      TENANT_HOST_PATTERN")
    shown = masked(descriptor(text), text)
    assert SECRET not in shown
    assert shown.replace("********", SECRET) == text


def test_a_secret_in_a_parameter_is_masked_and_a_placeholder_is_not() -> None:
    text = make_safe(descriptor(GUIDE), Wanted(sessions=Sessions()))
    assert masked(descriptor(text), text) == text
    text = text.replace("      keep-existing-routes", f"      session-secret: {SECRET}\n      keep-existing-routes")
    assert masked(descriptor(text), text) == text.replace(SECRET, "********")
