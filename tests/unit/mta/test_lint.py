# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every rule finds what it is for, at its place, and nothing in a descriptor that was made safe."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.safe import Wanted, make_safe
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.session import Sessions
from ansible_collections.zdm.landscape.plugins.module_utils.mta.lint.findings import HINT, RULES, Finding
from ansible_collections.zdm.landscape.plugins.module_utils.mta.lint.report import as_json, as_junit
from ansible_collections.zdm.landscape.plugins.module_utils.mta.lint.rules import lint
from ansible_collections.zdm.landscape.tests.unit.mta.descriptors import FORMS, GUIDE, HEAD, MODULE, SERVICE, descriptor
from ansible_collections.zdm.landscape.tests.unit.mta.lint_cases import (
    CASES,
    HINTS,
    HOOK,
    REGISTRY,
    SECRET,
    router,
    variable,
)

DOCUMENTATION = Path(__file__).resolve().parents[3] / "docs" / "descriptor.md"


def problems(linted: Descriptor, longest: int = 0, namespace: str = "") -> list[Finding]:
    """Errors and warnings."""
    return [one for one in lint(linted, longest, namespace) if one.severity != HINT]


def found(text: str, longest: int = 0, namespace: str = "") -> list[str]:
    """Their rules and lines."""
    return [f"{one.rule}:{one.line}" for one in problems(descriptor(text), longest, namespace)]


def test_the_guide_s_application_before_and_after() -> None:
    before = GUIDE.replace("      keep-existing-routes: true\n", "").replace(
        "          onSubscriptionAsync: true\n", ""
    )
    assert found(before, longest=600_000) == [
        "live-property-missing:22",
        "session-store-missing:33",
        "tenant-routes-not-kept:33",
        "callback-not-async:90",
        "idle-url-in-service:90",
        "idle-url-in-service:91",
        "callback-timeout-short:94",
    ]
    want = Wanted(sessions=Sessions(), longest_upgrade_ms=600_000)
    assert found(make_safe(descriptor(before), want), longest=600_000) == ["callback-not-async:100"]


@pytest.mark.parametrize("form", FORMS)
def test_what_is_said_to_be_mended_is_mended(form: str) -> None:
    after = [finding.rule for finding in lint(descriptor(make_safe(descriptor(FORMS[form]), Wanted())))]
    for finding in lint(descriptor(FORMS[form])):
        if finding.rule not in ("callback-timeout-missing", "session-store-missing"):
            assert finding.fixable == (finding.rule not in after)


@pytest.mark.parametrize("name", HINTS)
def test_a_hint_is_given_where_it_holds_and_only_there(name: str) -> None:
    text, expected = HINTS[name]
    assert [f"{one.rule}:{one.line}" for one in lint(descriptor(text)) if one.severity == HINT] == expected


@pytest.mark.parametrize("name", CASES)
def test_a_rule_finds_what_it_is_for_and_only_that(name: str) -> None:
    text, expected = CASES[name]
    assert found(text) == expected


@pytest.mark.parametrize(
    ("file", "text", "places"),
    [
        ("mta.yaml", HEAD + "parameters: {\n\ta:\tb}\n", []),
        ("more/mtad.yaml", HEAD + "parameters: {\n\ta:\tb}\t\n", ["5:1", "5:4", "5:7"]),
        ("a.mtar/META-INF/mtad.yaml", HEAD + "modules:\t# none\n", ["4:9"]),
        ("mtad.yaml", HEAD + "parameters: {a: b\tc\t} #\td\n", []),
        ("prod.mtaext", HEAD + "extends:\tx\n", ["4:9"]),
    ],
)
def test_tabs_count_in_files_that_nobody_writes_anew(file: str, text: str, places: list[str]) -> None:
    findings = [one for one in lint(descriptor(text, file)) if one.rule == "tab-not-read"]
    assert [f"{one.line}:{one.column}" for one in findings] == places


def test_every_rule_is_tested_and_documented() -> None:
    tested = {rule.partition(":")[0] for _text, rules in [*CASES.values(), *HINTS.values()] for rule in rules}
    assert (
        set(RULES) - tested
        == {
            "idle-url-in-service",
            "live-property-missing",
            "session-store-missing",
            "callback-timeout-short",
            "tab-not-read",
        }
        - tested
    )
    rows = re.findall(r"^\| `([a-z-]+)` \| (error|warning|hint) \|", DOCUMENTATION.read_text(), re.MULTILINE)
    assert dict(rows) == RULES


def test_a_timeout_is_compared_with_the_longest_upgrade() -> None:
    text = HEAD + MODULE + REGISTRY + "        callbackTimeoutMillis: '60000'\n"
    assert found(text, longest=60_000) == []
    (finding,) = lint(descriptor(text), 60_001)
    assert (
        str(finding)
        == "mta.yaml:22:32: error callback-timeout-short: An answer to a callback of registry may take 1m, the longest"
        " upgrade takes 60001ms. Set callbackTimeoutMillis: 60001."
    )


@pytest.mark.parametrize(
    ("resource", "instance", "namespace", "right"),
    [
        ("service: redis-cache", "redis", "", True),
        ("service: redis-cache", "redis", "blue", False),
        ("service: redis-cache", "blue-redis", "blue", True),
        ("service: redis-cache, apply-namespace: false", "redis", "blue", True),
        ("service: redis-cache, service-name: mine", "mine", "", True),
        ("service: redis-cache, service-name: mine", "redis", "", False),
        ("service: redis-cache, service-name: '${space}-mine'", "whatever", "", True),
    ],
)
def test_the_instance_has_the_name_that_the_deployment_gives_it(
    resource: str, instance: str, namespace: str, right: bool
) -> None:
    text = router(variable(instanceName=instance)).replace("service: redis-cache", resource)
    assert found(text, namespace=namespace) == ([] if right else ["session-service-not-bound:9"])


def test_no_finding_shows_a_secret() -> None:
    for text in (
        router(variable(sessionSecret=SECRET)),
        router(variable(sessionSecret="s3cretshort")),
        router(variable(), f"session-secret: {SECRET}"),
    ):
        findings = lint(descriptor(text))
        assert findings
        assert "s3cret" not in as_json(findings) + as_junit(findings, "mta.yaml")


def test_extensions_count_with_their_own_places() -> None:
    extension = (
        "_schema-version: 3.3.0\nID: x\nextends: app\nmodules:\n- name: approuter\n  parameters:\n    session-secret:"
        f" {SECRET}\n"
    )
    base = descriptor(router(variable()))
    assert problems(base.extended([descriptor(extension, "x.mtaext")])) == []
    (finding,) = problems(base.extended([descriptor(extension.replace(SECRET, "short"), "x.mtaext")]))
    assert (finding.rule, finding.file, finding.line, finding.column) == ("session-secret-short", "x.mtaext", 7, 21)
    wrong = (
        "_schema-version: 3.3.0\nID: x\nextends: app\nresources:\n- name: registry\n  parameters: {config: {more:"
        " '~{srv-api/srv-url}'}}\n"
    )
    findings = lint(
        descriptor(make_safe(descriptor(HEAD + MODULE + SERVICE), Wanted())).extended([descriptor(wrong, "x.mtaext")])
    )
    assert [(one.rule, one.file, one.line) for one in findings] == [("idle-url-in-service", "x.mtaext", 6)]
    assert lint(descriptor(wrong, "x.mtaext")) == []


def test_rules_can_be_ignored_if_they_exist() -> None:
    assert lint(descriptor(HEAD + SERVICE), ignore=["unknown-reference"]) == []
    with pytest.raises(ZdmError, match="There is no rule unknown"):
        lint(descriptor(HEAD), ignore=["unknown"])


def test_reports_for_ci_servers() -> None:
    findings = lint(
        descriptor(HEAD + MODULE + SERVICE + "\n" + HOOK.format("").replace("  hooks", "modules-more:\n  hooks"))
    )
    report = json.loads(as_json(findings))
    assert (report["error_count"], report["warning_count"], len(report["findings"])) == (2, 0, 2)
    assert report["findings"][0]["rule"] == "live-property-missing"
    suite = ElementTree.fromstring(
        as_junit(
            lint(descriptor(CASES["hooks of plain deployments"][0] + SERVICE)),
            "a\x00 <b>.yaml",
            ignore=["unknown-reference"],
        )
    )
    assert (suite.get("failures"), suite.get("tests"), suite.get("name")) == ("2", str(len(RULES) - 1), "a� <b>.yaml")
    (warning,) = [case for case in suite if case.find("system-out") is not None]
    assert (warning.get("classname"), warning.get("file"), warning.get("line")) == (
        "hook-not-in-blue-green",
        "mta.yaml",
        "14",
    )
    failures = [case.find("failure") for case in suite if case.find("failure") is not None]
    assert [failure.get("type") for failure in failures if failure is not None] == ["error", "error"]
    assert all(str(failure.get("message")) in str(failure.text) for failure in failures if failure is not None)
