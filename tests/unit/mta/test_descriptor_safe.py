# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A descriptor is made safe line by line: what the guide adds is added, what it deletes is gone, all else keeps its
bytes.
"""

from __future__ import annotations

import difflib
import json
import re
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.safe import Wanted, make_safe
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.session import Sessions
from ansible_collections.zdm.landscape.plugins.module_utils.mta.lint.rules import lint
from ansible_collections.zdm.landscape.tests.cloud.resolve import Resolved, Surroundings
from ansible_collections.zdm.landscape.tests.unit.mta.descriptors import FORMS, GUIDE, HEAD, descriptor
from hypothesis import given, settings
from hypothesis import strategies as st

LONGEST = 600_000
GUIDE_SESSIONS = Sessions(resource="incident-session-management", retry_timeout_ms=10000, back_off_multiplier=10)


def changes(before: str, after: str) -> tuple[list[str], list[str]]:
    """Lines that are gone and lines that are new."""
    lines = list(difflib.unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), n=0))[2:]
    return [line[1:] for line in lines if line.startswith("-")], [line[1:] for line in lines if line.startswith("+")]


def safe(text: str, **wanted: Any) -> str:
    """Made safe; doing it again changes no byte, and nothing that could be mended is left."""
    want = Wanted(**wanted)
    result = make_safe(descriptor(text), want)
    assert make_safe(descriptor(result), want) == result
    kinds = {
        "idle-url-in-service",
        "live-property-missing",
        "live-url-ignores-host",
        "live-routes-not-used",
        "tenant-routes-not-kept",
    }
    assert not [str(finding) for finding in lint(descriptor(result)) if finding.rule in kinds]
    return result


def test_the_guide_s_application_gets_the_guide_s_lines() -> None:
    gone, new = changes(GUIDE, safe(GUIDE, sessions=GUIDE_SESSIONS, longest_upgrade_ms=LONGEST))
    assert [line.strip() for line in gone] == [
        "getDependencies: ~{mtx-api/mtx-url}/-/cds/saas-provisioning/dependencies",
        "onSubscription: ~{mtx-api/mtx-url}/-/cds/saas-provisioning/tenant/{tenantId}",
        "callbackTimeoutMillis: 300000 # Increase if your deployments are taking longer than that",
    ]
    assert "".join(new) == (
        """\
          mtx-live: ${default-live-url}
      - name: incident-session-management
        EXT_SESSION_MGT: '{
            "instanceName": "incident-session-management",
            "storageType": "redis",
            "sessionSecret": "${session-secret}",
            "defaultRetryTimeout": 10000,
            "backOffMultiplier": 10
          }'
          getDependencies: ~{mtx-api/mtx-live}/-/cds/saas-provisioning/dependencies
          onSubscription: ~{mtx-api/mtx-live}/-/cds/saas-provisioning/tenant/{tenantId}
          callbackTimeoutMillis: 600000 # Increase if your deployments are taking longer than that
  - name: incident-session-management
    type: org.cloudfoundry.managed-service
    parameters:
      service: redis-cache
      service-plan: development
"""
    ).replace("        EXT", "      EXT").replace('            "', '          "').replace("          }'", "        }'")


def test_the_idle_approuter_still_calls_the_idle_sidecar() -> None:
    result = descriptor(safe(GUIDE, sessions=GUIDE_SESSIONS))
    wanted = {
        item["name"]: item.get("properties", {}).get("url") for item in result.modules["approuter"].plain()["requires"]
    }
    assert (wanted["mtx-api"], wanted["srv-api"]) == ("~{mtx-url}", "~{srv-url}")
    assert result.root.plain()["modules"][0]["provides"][0]["properties"] == {
        "mtx-url": "${default-url}",
        "mtx-live": "${default-live-url}",
    }


def test_the_variable_is_strict_json_without_the_secret() -> None:
    value = descriptor(safe(GUIDE, sessions=GUIDE_SESSIONS)).modules["approuter"].get("properties", "EXT_SESSION_MGT")
    assert value is not None
    assert json.loads(value.text) == {
        "instanceName": "incident-session-management",
        "storageType": "redis",
        "sessionSecret": "${session-secret}",
        "defaultRetryTimeout": 10000,
        "backOffMultiplier": 10,
    }


EXPECTED = {
    "indentless lists": "      srv-live: ${default-live-url}|      url: ~{srv-api/srv-live}/callback",
    "schema 2": "      srv-live: ${default-live-url}|      url: ~{srv-api/srv-live}/callback",
    "windows lines": "      srv-live: ${default-live-url}|      url: ~{srv-api/srv-live}/callback",
    "carriage returns": "      srv-live: ${default-live-url}|      url: ~{srv-api/srv-live}/callback",
    "byte order mark": "      srv-live: ${default-live-url}|      url: ~{srv-api/srv-live}/callback",
    "hooks": "      srv-live: ${default-live-url}|      url: ~{srv-api/srv-live}/callback",
    "directly": "      srv-live: ${default-live-url}|      url: ~{srv-api/srv-live}/callback",
    "no newline at the end": (
        "      url: ~{srv-api/srv-live}/callback|      srv-url: ${default-url}|      srv-live: ${default-live-url}"
    ),
    "in requires": "      srv-live: ${default-live-url}|        url: '~{srv-live}'|        other: ~{srv-live}/other",
    "a whole mapping": (
        '      urls-live:|        main:|          url: ${default-live-url}/v1|          name: m|          "a: b": []|'
        "        more:|          - ${default-live-uri}|          - 1|          - x: z|      url: ~{srv-api/urls-live}"
    ),
    "by way of a resource": "      srv-live: ${default-live-url}|    base: ~{srv-api/srv-live}/${version}",
    "by a parameter": "      srv-live: ${default-live-url}/${prefix}/x|      url: ~{srv-api/srv-live}/callback",
    "anchors": (
        "          srv-live: ${default-live-url}|      keep-existing-routes: true|          getDependencies: &url"
        " ~{srv-api/srv-live}/dependencies"
    ),
    "own host": (
        "      srv-live: ${protocol}://my-${space}.${default-live-domain}|      url: ~{srv-api/srv-live}/callback"
        " ~{srv-api/srv-live}"
    ),
    "own routes": (
        "    parameters:|      use-live-routes: true|  - name: other-api-live|    properties:|      other-live:"
        " ${protocol}://${routes/0/route}|    parameters:|      use-live-routes: true|  - name: other-api-live|     "
        " url: ~{srv-api/srv-url} ~{other-api-live/other-live}"
    ),
    "routes that modules use": (
        "  - name: srv-api-live|    properties:|      srv-live: https://${routes/0/route}|    parameters:|     "
        " use-live-routes: true|  - name: srv-api-live|      url: ~{srv-api-live/srv-live}/callback"
    ),
    "several providers": (
        "        properties: {a-url: \"${default-url}\", a-uri: '${default-uri}', other: 1, a-live:"
        ' "${default-live-url}", a-uri-live: "${default-live-uri}"}|          url-live-2: ${default-live-url}/odata|   '
        '       host-live: ${default-live-host}|        all: "~{a-api/a-live} ~{a-api/a-uri-live} ~{b-api/url-live-2}'
        ' ~{b-api/host-live} ~{b-more/elsewhere}"'
    ),
}


@pytest.mark.parametrize("form", EXPECTED)
def test_only_these_lines_are_new(form: str) -> None:
    _gone, new = changes(FORMS[form], safe(FORMS[form]))
    assert "|".join(line.rstrip("\r\n") for line in new) == EXPECTED[form]
    ends = {"windows lines": "\r\n", "carriage returns": "\r"}
    assert {line[len(line.rstrip("\r\n")) :] for line in new} - {""} == {ends.get(form, "\n")}


@pytest.mark.parametrize("form", FORMS)
def test_every_other_line_keeps_its_bytes(form: str) -> None:
    before = FORMS[form]
    sessions = Sessions() if "approuter" in form else None
    gone, new = changes(before, safe(before, sessions=sessions, longest_upgrade_ms=LONGEST))
    assert new
    changed = re.compile(r"~\{.*(url|uri|host|live)|\$\{default-|\[\]|\{\}")
    assert [line for line in gone if not changed.search(line)] == []


@pytest.mark.parametrize("form", ["approuter with nothing", "approuter with empty lists"])
def test_whatever_is_missing_around_the_approuter_is_added(form: str) -> None:
    result = descriptor(safe(FORMS[form], sessions=Sessions()))
    router = result.modules[result.approuters()[0]].plain()
    assert router["requires"] == [{"name": "app-session-management"}]
    assert router["parameters"]["keep-existing-routes"] is True
    assert json.loads(router["properties"]["EXT_SESSION_MGT"])["instanceName"] == "app-session-management"
    assert result.resources["app-session-management"].plain()["parameters"] == {
        "service": "redis-cache",
        "service-plan": "development",
    }
    assert not [str(finding) for finding in lint(result) if finding.rule.startswith("session")]


def test_settings_that_are_right_stay_and_what_stops_the_approuter_goes() -> None:
    variable = '{"instanceName":"other","rejectUnauthorized":true,"keepAlive":1,"defaultRetryTimeout":"9"}'
    text = (
        GUIDE + "  - name: cache\n    type: org.cloudfoundry.managed-service\n    parameters: {service: redis-cache,"
        " service-name: my-redis}\n"
    )
    text = text.replace("      TENANT_HOST_PATTERN", f"      EXT_SESSION_MGT: '{variable}'\n      TENANT_HOST_PATTERN")
    text = text.replace(
        "      - name: incident-management-portal\n",
        "      - name: incident-management-portal\n      - name: cache\n",
        1,
    )
    result = descriptor(safe(text, sessions=Sessions(), namespace="blue"))
    environment = json.loads(result.modules["approuter"].plain()["properties"]["EXT_SESSION_MGT"])
    assert list(environment) == [
        "instanceName",
        "rejectUnauthorized",
        "defaultRetryTimeout",
        "sessionSecret",
        "storageType",
    ]
    assert (environment["instanceName"], environment["rejectUnauthorized"], environment["defaultRetryTimeout"]) == (
        "blue-my-redis",
        True,
        9,
    )
    assert "incident-management-session-management" not in result.resources


@pytest.mark.parametrize(
    "style", ["'{}'", ">\n        {}", "|+\n        {}\n", ">-\n        {}", "&v '{}'", '!!str "{{}}"']
)
def test_a_variable_is_replaced_however_it_is_written(style: str) -> None:
    text = GUIDE.replace(
        "      TENANT_HOST_PATTERN", f"      EXT_SESSION_MGT: {style.format('{}')}\n      TENANT_HOST_PATTERN"
    )
    properties = descriptor(safe(text, sessions=Sessions())).modules["approuter"].plain()["properties"]
    assert properties["TENANT_HOST_PATTERN"] == "^(.*)-${default-uri}"
    assert json.loads(properties["EXT_SESSION_MGT"])["storageType"] == "redis"


@pytest.mark.parametrize("properties", [{"TENANT_HOST_PATTERN": "x"}, {"EXT_SESSION_MGT": "{}"}])
def test_json_stays_json(properties: dict[str, str]) -> None:
    text = json.dumps(
        {"_schema-version": "3.1", "ID": "app", "version": "1", "modules": [{"name": "r", "properties": properties}]}
    )
    result = json.loads(safe(text, sessions=Sessions()))
    assert json.loads(result["modules"][0]["properties"]["EXT_SESSION_MGT"])["instanceName"] == "app-session-management"
    assert [resource["name"] for resource in result["resources"]] == ["app-session-management"]


def test_routes_that_are_given_up_on_purpose_are_kept() -> None:
    text = GUIDE.replace("routes: true", "routes: false")
    turned = changes(text, make_safe(descriptor(text), Wanted(live_urls=False)))
    assert turned == (["      keep-existing-routes: false\n"], ["      keep-existing-routes: true\n"])


@pytest.mark.parametrize("written", ["keep-existing: {routes: true}", "keep-existing-routes: yes"])
def test_routes_that_are_kept_already_change_nothing(written: str) -> None:
    text = GUIDE.replace("keep-existing-routes: true", written)
    assert make_safe(descriptor(text), Wanted(live_urls=False)) == text


def test_an_extension_changes_only_itself() -> None:
    base = descriptor(safe(GUIDE, sessions=GUIDE_SESSIONS))
    text = """\
_schema-version: "3.1"
ID: incident-production
extends: incident-management
resources:
  - name: incident-management-registry
    parameters:
      config:
        appUrls:
          callbackTimeoutMillis: 7000
          getDependencies: ~{mtx-api/mtx-url}/other   # ours
"""
    want = Wanted(longest_upgrade_ms=LONGEST)
    result = make_safe(descriptor(text, "a.mtaext"), want, base)
    assert result == text.replace("mtx-url}/other", "mtx-live}/other").replace("7000", "600000")
    assert make_safe(descriptor(result, "a.mtaext"), want, base) == result
    with pytest.raises(Refused, match=r"b\.yaml:\d+:\d+ is not in a\.mtaext\. Make b\.yaml safe itself"):
        make_safe(descriptor(text, "a.mtaext"), want, descriptor(GUIDE, "b.yaml"))


def resolved(text: str, idle: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the deploy service's stand-in makes of a descriptor: the configuration of services, and the environment of
    modules.
    """
    plain = descriptor(text).root.plain()
    phase = Resolved(plain, Surroundings("org", "space", "example.com", "me", idle))
    services = [entry["name"] for entry in plain.get("resources") or () if "config" in entry.get("parameters", {})]
    return {name: phase.config(name) for name in services}, {
        entry["name"]: phase.environment(entry["name"]) for entry in plain["modules"]
    }


@pytest.mark.parametrize("form", sorted({*FORMS, "guide"} - {"directly", "approuter with empty lists"}))
def test_services_are_configured_the_same_in_both_phases_and_modules_are_not_changed(form: str) -> None:
    before = FORMS.get(form, GUIDE)
    after = safe(before)
    idle, live = resolved(after, True), resolved(after, False)
    assert idle[0] == live[0]
    assert "-idle" not in str(idle[0])
    assert resolved(before, True)[1] == idle[1]
    if form not in ("own host", "own routes", "several providers"):
        assert resolved(before, False)[0] == live[0]


def test_live_urls_are_those_of_the_live_routes() -> None:
    for form in ("own host", "own routes", "routes that modules use"):
        services, _environment = resolved(safe(FORMS[form]), True)
        live = Resolved(
            descriptor(FORMS[form]).root.plain(), Surroundings("org", "space", "example.com", "me", idle=False)
        ).hosts("srv")[0]
        assert set(re.findall(r"https://([^/ ]+)", services["registry"]["url"])) == {live}


@st.composite
def approuters(draw: st.DrawFn) -> str:
    """A descriptor whose application router has each of its parts in a random form, in a random order."""
    written = {
        "parameters": [
            "",
            " ~",
            " {}",
            " {memory: 1G}",
            "\n      memory: 1G  # comment",
            "\n      <<: *base",
            "\n      keep-existing-routes: no\n      # last\n",
        ],
        "requires": [
            "",
            " null",
            " []",
            " [{name: a}]",
            " [ ]  # none",
            "\n    - name: a",
            "\n      - name: a\n        group: x\n\n      # - name: b\n",
        ],
        "properties": [
            " {TENANT_HOST_PATTERN: a}",
            "\n      TENANT_HOST_PATTERN: |\n        a\n",
            "\n      TENANT_HOST_PATTERN: a\n      E:",
            "\n        TENANT_HOST_PATTERN: 'a\n\n          b'",
        ],
    }
    parts = [
        f"    {key}:{draw(st.sampled_from(forms))}\n"
        for key, forms in written.items()
        if key == "properties" or draw(st.booleans())
    ]
    module = "modules:\n  - name: router\n" + "".join(draw(st.permutations(parts)))
    resources = draw(
        st.sampled_from(
            [
                "",
                "resources:\n",
                "resources: []\n",
                "resources: [{name: a}]\n",
                "resources:\n- name: a\n  # end\n",
                "resources:\n    - {name: a}\n",
            ]
        )
    )
    text = "x: &base {disk: 1G}\n" + HEAD + "".join(draw(st.permutations([module, resources, "parameters: {p: 1}\n"])))
    return text.rstrip("\n") + draw(st.sampled_from(["\n", "\n\n# end\n"]))


@settings(max_examples=60)
@given(approuters())
def test_however_an_approuter_is_written_its_parts_are_added_and_nothing_else(text: str) -> None:
    before, result = descriptor(text), descriptor(safe(text, sessions=Sessions()))
    assert not [str(finding) for finding in lint(result) if finding.rule.startswith("session")]
    gone, _new = changes(text.rstrip("\n") + "\n", result.source.text.rstrip("\n") + "\n")
    assert all(re.search(r"\[|\{|~|null|routes: no", line) for line in gone)
    after = result.root.plain()
    router = after["modules"][0]
    assert router["parameters"].pop("keep-existing-routes") is True
    assert json.loads(router["properties"].pop("EXT_SESSION_MGT"))["sessionSecret"] == "${session-secret}"
    assert router["requires"].pop() == {"name": "app-session-management"}
    assert after["resources"].pop()["name"] == "app-session-management"
    wanted = before.root.plain()
    (wanted["modules"][0].get("parameters") or {}).pop("keep-existing-routes", None)
    for one in (wanted, after):
        for owner, keys in ((one, ("resources",)), (one["modules"][0], ("parameters", "requires"))):
            for key in keys:
                owner[key] = owner.get(key) or None
    assert wanted == after
