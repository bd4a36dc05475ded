# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store for sessions that works is never overwritten: only what is missing, wrong or given changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.safe import Wanted, mend
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.session import (
    CRASHING,
    DRIVER,
    INTEGERS,
    MANDATORY,
    Environment,
    Sessions,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.lint.rules import lint
from ansible_collections.zdm.landscape.tests.unit.mta.descriptors import HEAD, descriptor
from hypothesis import given, settings
from hypothesis import strategies as st

SECRET = "0123456789abcdef" * 4
RESOURCES = """\
resources:
- {name: cache, type: org.cloudfoundry.managed-service, parameters: {service: redis-cache, service-plan: free}}
- {name: mine, type: org.cloudfoundry.existing-service, parameters: {service-name: my-redis}}
- {name: pg, type: org.cloudfoundry.managed-service, parameters: {service: postgresql-db}}
"""
INSTANCES = {"cache": "cache", "mine": "my-redis", "pg": "pg"}


def text_of(settings: dict[str, Any], style: str, bound: list[str]) -> str:
    """A descriptor with an application router whose variable is written in one of many styles."""
    strict, spread = json.dumps(settings), json.dumps(settings, indent=2).replace("\n", "\n        ")
    written = {
        "single": f"'{strict}'",
        "double": json.dumps(strict),
        "literal": f"|-\n        {spread}",
        "folded": f">\n        {spread}",
        "flow mapping": json.dumps(settings),
        "block mapping": "".join(f"\n      {key}: {json.dumps(value)}" for key, value in settings.items()) or "{}",
        "comments": "'" + spread.replace(",\n", ", // mine\n").replace("{", "{ // a store", 1) + "'",
        "trailing comma": f"'{strict[:-1]},}}'",
    }[style]
    requires = "".join(f"\n  - name: {name}" for name in bound) or " []"
    return (
        f"{HEAD}modules:\n- name: r\n  type: approuter.nodejs  # it\n  requires:{requires}\n  properties:\n"
        f"    EXT_SESSION_MGT: {written}\n    B: c\n{RESOURCES}"
    )


def variable(read: Descriptor) -> dict[str, Any]:
    environment = Environment.of(read, read.modules["r"])
    assert environment is not None
    assert environment.is_json
    return dict(environment.settings)


def problems(read: Descriptor) -> list[str]:
    """What stops the application router, or nobody remembers."""
    secrets = ("session-secret-short", "session-secret-in-descriptor")
    return [one.rule for one in lint(read) if one.rule.startswith("session-") and one.rule not in secrets]


optional = {
    "instanceName": st.sampled_from(["cache", "my-redis", "pg", "elsewhere", "", 7]),
    "storageType": st.sampled_from(["redis", "redis", "mongo", ""]),
    "sessionSecret": st.sampled_from(["${session-secret}", "${cookie-key}", SECRET, "short", "pre-${x}", ""]),
    "defaultRetryTimeout": st.sampled_from([10000, "9000", True, "x", "${n}"]),
    "backOffMultiplier": st.sampled_from([10, "10"]),
    "externalStoreFilePath": st.just("./store.js"),
    "rejectUnauthorized": st.just(False),
    "keepAlive": st.just(1),
}
variables = st.fixed_dictionaries({}, optional=optional)
styles = st.sampled_from(["single", "double", "literal", "folded", "flow mapping", "block mapping"])
broken_styles = st.sampled_from(["comments", "trailing comma"])
bindings = st.lists(st.sampled_from(list(INSTANCES)), unique=True)


@settings(max_examples=100)
@given(variables, styles | broken_styles, bindings)
def test_what_works_stays_and_what_does_not_is_made_to_work(own: dict[str, Any], style: str, bound: list[str]) -> None:
    before = descriptor(text_of(own, style, bound))
    mended = mend(before, Wanted(sessions=Sessions()))
    secret = own.get("sessionSecret", "")
    is_complete = all(own.get(key) not in (None, "", 7) for key in MANDATORY)
    is_kept = "${" in secret or (is_complete and style not in ("comments", "trailing comma"))
    left = [place for place in mended.left if "session secret" not in place.message]
    if not left:
        assert len(mended.left) == (is_kept and "${" not in secret)
    if not problems(before):
        assert mended.text == before.source.text
        return
    after = before.rewritten(mended.text)
    assert mend(after, Wanted(sessions=Sessions())).text == mended.text
    if left:
        assert mended.text == before.source.text
        assert "mapping" in style or DRIVER in own
        return
    assert problems(after) == []
    now = variable(after)
    kept = {key: value for key, value in own.items() if key not in (*CRASHING, *INTEGERS)}
    if DRIVER in own:
        assert now[DRIVER] == own[DRIVER]
    elif kept.get("instanceName") not in INSTANCES.values():
        kept.pop("instanceName", None)
    if not is_kept:
        kept.pop("sessionSecret", None)
    if DRIVER not in own and kept.get("storageType") != "redis":
        kept.pop("storageType", None)
    assert {key: now[key] for key in kept if kept[key] != ""} == {key: kept[key] for key in kept if kept[key] != ""}
    for key in INTEGERS:
        if key in own and str(own[key]).isdigit():
            assert now[key] == int(own[key])
        assert key in own or key not in now


@pytest.mark.parametrize(
    ("given_sessions", "change"),
    [
        (Sessions(resource="cache"), {"instanceName": "cache"}),
        (Sessions(parameter="other"), {"sessionSecret": "${other}"}),
        (Sessions(retry_timeout_ms=7), {"defaultRetryTimeout": 7}),
        (Sessions(back_off_multiplier=3), {"backOffMultiplier": 3}),
        (Sessions(service="redis-other", plan="large"), {}),
        (Sessions(retry_timeout_ms=10000), {}),
    ],
)
@pytest.mark.parametrize("style", ["single", "literal", "flow mapping", "block mapping"])
def test_only_what_is_given_changes(given_sessions: Sessions, change: dict[str, Any], style: str) -> None:
    own = {
        "instanceName": "my-redis",
        "storageType": "redis",
        "sessionSecret": "${cookie-key}",
        "defaultRetryTimeout": 10000,
    }
    before = descriptor(text_of(own, style, ["mine"]))
    mended = mend(before, Wanted(sessions=given_sessions))
    assert mended.left == ()
    assert variable(before.rewritten(mended.text)) == {**own, **change}
    assert (mended.text == before.source.text) == (change == {})


@pytest.mark.parametrize("style", ["single", "double", "literal", "flow mapping", "block mapping"])
def test_a_secret_that_works_is_taken_out_when_its_parameter_is_given(style: str) -> None:
    """Without a parameter for it the deployment would stop, and with another secret everybody would be logged out."""
    own = {"instanceName": "cache", "storageType": "redis", "sessionSecret": SECRET}
    before = descriptor(text_of(own, style, ["cache"]))
    mended = mend(before, Wanted(sessions=Sessions()))
    assert mended.text == before.source.text
    (left,) = mended.left
    assert (left.object, left.message) == ("r", "The session secret of r is written in the descriptor.")
    assert left.mend.startswith("Give sessions.parameter")
    assert SECRET not in str(left)
    (finding,) = [one for one in lint(before) if one.rule == "session-secret-in-descriptor"]
    assert not finding.fixable
    mended = mend(before, Wanted(sessions=Sessions(parameter="session-secret")))
    assert mended.left == ()
    assert variable(before.rewritten(mended.text)) == {**own, "sessionSecret": "${session-secret}"}


def test_a_variable_from_elsewhere_is_left_alone_unless_something_is_given() -> None:
    text = text_of({}, "single", []).replace("'{}'", "${sessions}")
    before = descriptor(text)
    assert mend(before, Wanted(sessions=Sessions())).text == text
    mended = mend(before, Wanted(sessions=Sessions(retry_timeout_ms=5)))
    assert mended.text == text
    assert "EXT_SESSION_MGT of r comes from elsewhere" in str(mended.left[0])


def test_parameters_without_quotes_are_left_alone_unless_something_is_given() -> None:
    own = {"instanceName": "cache", "storageType": "redis", "sessionSecret": "${s}", "defaultRetryTimeout": 1}
    text = text_of(own, "single", ["cache"]).replace(": 1}", ": ${retry}}")
    assert mend(descriptor(text), Wanted(sessions=Sessions())).text == text
    (left,) = mend(descriptor(text), Wanted(sessions=Sessions(back_off_multiplier=5))).left
    assert "has parameters without quotes. Write by hand: backOffMultiplier." in str(left)


def test_a_router_is_set_up_as_a_whole_or_not_at_all() -> None:
    """With the variable and without the binding it would not start."""
    text = f"x: &r []\n{HEAD}modules:\n- name: r\n  type: approuter.nodejs\n  requires: *r\n"
    mended = mend(descriptor(text), Wanted(sessions=Sessions()))
    assert mended.text == text
    assert [place.object for place in mended.left] == ["r"]


def test_a_second_router_takes_the_store_of_the_first() -> None:
    own = {"instanceName": "my-redis", "storageType": "redis", "sessionSecret": "${s}"}
    text = text_of(own, "single", ["mine"]).replace(RESOURCES, "- {name: second, type: approuter.nodejs}\n" + RESOURCES)
    before = descriptor(text)
    after = before.rewritten(mend(before, Wanted(sessions=Sessions())).text)
    second = after.modules["second"].plain()
    assert second["requires"] == [{"name": "mine"}]
    assert json.loads(second["properties"]["EXT_SESSION_MGT"])["instanceName"] == "my-redis"
    assert after.modules["r"].plain() == before.modules["r"].plain()


def test_the_namespace_of_the_deployment_counts() -> None:
    own = {"instanceName": "cache", "storageType": "redis", "sessionSecret": "${s}"}
    before = descriptor(text_of(own, "single", ["cache"]))
    after = before.rewritten(mend(before, Wanted(sessions=Sessions(), namespace="blue")).text)
    assert variable(after) == {**own, "instanceName": "blue-cache"}
    missing = descriptor(text_of({**own, "instanceName": "blue-new"}, "single", []))
    after = missing.rewritten(mend(missing, Wanted(sessions=Sessions(), namespace="blue")).text)
    assert variable(after)["instanceName"] == "blue-new"
    assert after.resources["new"].plain()["parameters"]["service"] == "redis-cache"


def test_modules_that_take_the_secret_from_the_parameter_are_told() -> None:
    own = {"instanceName": "cache", "storageType": "redis", "sessionSecret": "${cookie-key}"}
    read = descriptor(text_of(own, "single", ["cache"]))
    assert Sessions().wanting(read) == []
    assert Sessions(parameter="cookie-key").wanting(read) == ["r"]
