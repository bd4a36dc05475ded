# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Descriptors with what the lint finds in them: for every rule one where it holds, and one where it does not."""

from __future__ import annotations

import json

from ansible_collections.zdm.landscape.tests.unit.mta.descriptors import HEAD, MODULE, SERVICE

SECRET = "s3cret" * 11


def router(variable: str, more: str = "", requires: str = "[{name: redis}]") -> str:
    """A descriptor with an application router and a Redis; the variable's line is 9."""
    return (
        f"{HEAD}modules:\n- name: approuter\n  requires:"
        f" {requires}\n{'  parameters: {' + more + '}' if more else '  type: x'}\n  properties:\n    EXT_SESSION_MGT:"
        f" {variable}\nresources:\n- name: redis\n  type: org.cloudfoundry.managed-service\n  parameters: {{service:"
        " redis-cache}\n"
    )


def variable(**changed: object) -> str:
    settings = {"instanceName": "redis", "storageType": "redis", "sessionSecret": "${session-secret}", **changed}
    return "'" + json.dumps({key: value for key, value in settings.items() if value is not None}) + "'"


OWN = "  parameters: {host: h}\n  provides"
ROUTES = "  parameters: {routes: [{route: h.example}]}\n  provides"
URLS = """\
      appUrls:
        onSubscription: https://x
        onSubscriptionAsync: true
"""
REGISTRY = SERVICE.replace("xsuaa", "saas-registry").replace("      url: ~{srv-api/srv-url}/callback\n", URLS)
HOOK = "  hooks:\n  - name: h\n    type: task\n    phases: [deploy.application.before-stop{}]\n"

CASES: dict[str, tuple[str, list[str]]] = {
    "unknown provider": (HEAD + SERVICE, ["unknown-reference:12"]),
    "unknown property": (
        HEAD + MODULE + "  requires: [{name: srv-api, properties: {A: '~{nothing}'}}]\n",
        ["unknown-reference:11"],
    ),
    "a property by its provider's name in requires": (
        HEAD + MODULE + "- name: ui\n  requires: [{name: srv-api, properties: {A: '~{srv-api/srv-url}'}}]\n",
        ["unknown-reference:12"],
    ),
    "a property of another provider in requires": (
        HEAD + MODULE + "- name: ui\n  requires: [{name: srv}, {name: srv-api, properties: {A: '~{srv/x}'}}]\n",
        ["unknown-reference:12"],
    ),
    "nothing in a list": (
        HEAD + MODULE + "- name: ui\n  requires: [{name: srv-api, list: apis, properties: {A: '~{name}'}}]\n",
        [],
    ),
    "no property of a resource": (
        HEAD + MODULE + "  requires: [{name: db}]\n  properties: {A: '~{db/schema}'}\nresources:\n- name: db\n",
        ["unknown-reference:12"],
    ),
    "a property of a resource": (
        HEAD
        + MODULE
        + "  requires: [{name: db}]\n  properties: {A: '~{db/schema}'}\n"
        + "resources:\n- name: db\n  properties: {schema: }\n",
        [],
    ),
    "not required": (HEAD + MODULE + "  properties: {A: '~{srv-api/srv-url}'}\n", ["unknown-reference:11"]),
    "a property of a cross-MTA reference is not known here": (
        HEAD + SERVICE + "- name: srv-api\n  type: configuration\n  parameters: {provider-nid: mta}\n",
        [],
    ),
    "a cross-MTA reference by its older name": (
        HEAD + SERVICE + "- name: srv-api\n  type: mta-provides-dependency\n  parameters: {provider-id: 'mta:api'}\n",
        [],
    ),
    "an existing service is not configured": (
        HEAD + MODULE + SERVICE.replace("managed-service", "existing-service"),
        [],
    ),
    "by way of a resource": (
        HEAD
        + MODULE
        + "resources:\n- name: via\n  type: configuration\n  requires: [{name: srv-api}]\n  properties: {u:"
        " '~{srv-api/srv-url}'}\n"
        + SERVICE.replace("resources:\n", "").replace("srv-api/srv-url", "via/u").replace("srv-api", "via"),
        ["idle-url-in-service:23"],
    ),
    "live ignores the host": (
        HEAD + MODULE.replace("  provides", OWN).replace("default-url", "default-live-url") + SERVICE,
        ["live-url-ignores-host:11"],
    ),
    "routes": (
        HEAD + MODULE.replace("  provides", ROUTES).replace("default-url", "routes/0/route") + SERVICE,
        ["live-routes-not-used:11"],
    ),
    "live routes": (
        HEAD
        + MODULE.replace("  provides", ROUTES)
        .replace("default-url", "routes/0/route")
        .replace("    properties", "    parameters: {use-live-routes: true}\n    properties")
        + SERVICE,
        [],
    ),
    "a route that does not exist": (
        HEAD + MODULE.replace("  provides", ROUTES).replace("default-url", "routes/7/route") + SERVICE,
        ["live-routes-not-used:11"],
    ),
    "idle calls live": (
        HEAD
        + MODULE.replace("default-url", "default-live-url")
        + "- name: ui\n  requires: [{name: srv-api, properties: {A: '~{srv-url}'}}]\n",
        ["idle-calls-live:12"],
    ),
    "idle calls a live route": (
        HEAD
        + MODULE.replace("  provides", ROUTES)
        .replace("default-url", "routes/0/route")
        .replace("    properties", "    parameters: {use-live-routes: true}\n    properties")
        + "- name: ui\n  requires: [{name: srv-api, properties: {A: '~{srv-url}'}}]\n",
        ["idle-calls-live:14"],
    ),
    "routes of tenants": (
        HEAD
        + "modules:\n- name: r\n  parameters:\n    keep-existing-routes: false\n  properties: {TENANT_HOST_PATTERN:"
        " x}\n",
        ["session-store-missing:5", "tenant-routes-not-kept:7"],
    ),
    "no tenants": (router(variable()), []),
    "a mapping is JSON, too": (router(variable().strip("'")), []),
    "comments": (router('\'{ // Add\n        "instanceName": "redis" }\''), ["session-not-json:9"]),
    "a list": (router("'[]'"), ["session-not-json:9"]),
    "not a number": (router("'{\"instanceName\": NaN}'"), ["session-not-json:9"]),
    "keys": (router("'{}'"), ["session-key-missing:9", "session-key-missing:9", "session-key-missing:9"]),
    "a key that is empty": (router(variable(instanceName="")), ["session-key-missing:9"]),
    "types": (
        router(variable(instanceName=7, defaultRetryTimeout="2000", backOffMultiplier=True)),
        ["session-value-wrong:9"] * 3,
    ),
    "numbers by parameters": (router(variable(defaultRetryTimeout="x").replace('"x"', "${retry}"), "retry: 5"), []),
    "numbers by extensions": (router(variable(defaultRetryTimeout="x").replace('"x"', "${retry}")), []),
    "another storage": (router(variable(storageType="mongo")), ["session-value-wrong:9"]),
    "another storage with its driver": (router(variable(storageType="mongo", externalStoreFilePath="./x.js")), []),
    "keys that stop it": (
        router(variable(keepAlive=1, connectTimeout=2)),
        ["session-key-crashes:9", "session-key-crashes:9"],
    ),
    "secret": (router(variable(sessionSecret=SECRET)), ["session-secret-in-descriptor:9"]),
    "short secret": (
        router(variable(sessionSecret="abc")),
        ["session-secret-in-descriptor:9", "session-secret-short:9"],
    ),
    "secret in a parameter": (router(variable(), f"session-secret: {SECRET}"), ["session-secret-in-descriptor:7"]),
    "secret from a parameter of an extension": (router(variable(), "session-secret: '${other}'"), []),
    "another instance": (router(variable(instanceName="other")), ["session-service-not-bound:9"]),
    "not bound": (router(variable(), requires="[]"), ["session-service-not-bound:9"]),
    "not async": (
        HEAD + MODULE + REGISTRY.replace("Async: true", "Async: false\n        callbackTimeoutMillis: 1"),
        ["callback-not-async:21"],
    ),
    "unsubscription not async": (
        HEAD
        + MODULE
        + REGISTRY.replace("Async: true", "Async: true\n        onUnSubscription: x\n        callbackTimeoutMillis: 1"),
        ["callback-not-async:20"],
    ),
    "no timeout": (HEAD + MODULE + REGISTRY, ["callback-timeout-missing:20"]),
    "timeout by a parameter": (
        HEAD + "parameters: {t: 9}\n" + MODULE + REGISTRY + "        callbackTimeoutMillis: ${t}\n",
        [],
    ),
    "timeout by an extension": (HEAD + MODULE + REGISTRY + "        callbackTimeoutMillis: ${t}\n", []),
    "hooks of plain deployments": (HEAD + MODULE + HOOK.format(""), ["hook-not-in-blue-green:14"]),
    "hooks of both": (HEAD + MODULE + HOOK.format(", blue-green.application.before-stop.live"), []),
    "a hook for each": (
        HEAD + MODULE + HOOK.format("") + "  - {name: i, phases: [blue-green.application.before-stop.idle]}\n",
        [],
    ),
    "a hook for another phase": (
        HEAD + MODULE + HOOK.format("") + "  - {name: i, phases: [blue-green.application.after-stop.idle]}\n",
        ["hook-not-in-blue-green:14"],
    ),
}


CONTENT = """\
- name: dest-content
  type: com.sap.application.content
  requires:
  - name: srv-api
  - name: dest
    parameters: {content-target: true}
  parameters: {content: {instance: {destinations: [{Name: srv, URL: '~{srv-api/srv-url}'}]}}}
"""
DESTINATION = "resources:\n- {name: dest, type: org.cloudfoundry.managed-service, parameters: {service: destination}}\n"
BINDING = """\
  requires:
  - name: dest
    parameters: {config: {url: '${default-url}/x', text: '\\${default-url}'}}
"""
LIVE = MODULE.replace("default-url", "default-live-url")
APPCALLBACKS = """\
      appCallbacks:
        subscriptionCallbacks:
          url: https://x
          async: {subscribeEnable: true, unSubscribeEnable: false, timeoutInMillis: 5}
"""
MANAGER = SERVICE.replace("xsuaa", "subscription-manager").replace(
    "      url: ~{srv-api/srv-url}/callback\n", APPCALLBACKS
)

_TENANTS = "modules:\n- name: r\n  parameters: {{routes: [{{route: {}}}]}}\n  properties: {{TENANT_HOST_PATTERN: {}}}\n"
_PATTERN = (
    "modules:\n- {{name: r, requires: [{{name: uaa}}], properties: {{TENANT_HOST_PATTERN: x}}}}\nresources:\n"
    "- name: uaa\n  type: org.cloudfoundry.managed-service\n"
    "  parameters: {{service: xsuaa, config: {{tenant-mode: {}}}}}\n"
)

CASES |= {
    "the name of the idle application": (
        HEAD + MODULE.replace("${default-url}", "https://${app-name}.x") + SERVICE,
        ["live-property-missing:10", "idle-url-in-service:19"],
    ),
    "content": (HEAD + MODULE + CONTENT + DESTINATION, ["live-property-missing:10", "idle-url-in-content:17"]),
    "content calls live": (HEAD + LIVE + CONTENT + DESTINATION, []),
    "content without a URL of its own": (
        HEAD + LIVE + CONTENT.replace("~{srv-api/srv-url}", "${default-url}") + DESTINATION,
        ["idle-url-in-content:17"],
    ),
    "binding": (HEAD + MODULE + BINDING + DESTINATION, ["idle-url-in-binding:13"]),
    "binding with the live URL": (
        HEAD + MODULE + BINDING.replace("'${default-url}", "'${default-live-url}") + DESTINATION,
        [],
    ),
    "a parameter for an application is no binding": (HEAD + MODULE + BINDING.replace("dest", "srv-api"), []),
    "a URL in a resource": (
        HEAD + MODULE + SERVICE.replace("~{srv-api/srv-url}", "${default-live-uri}"),
        ["idle-url-in-service:19"],
    ),
    "a URL in a resource by a parameter": (
        HEAD + "parameters: {app: 'https://${host}.x'}\n" + MODULE + SERVICE.replace("~{srv-api/srv-url}", "${app}"),
        ["idle-url-in-service:20"],
    ),
    "a parameter of a resource that is called so": (
        HEAD + MODULE + SERVICE.replace("~{srv-api/srv-url}", "${host}") + "    host: h.example\n",
        [],
    ),
    "a skipped update": (
        HEAD + LIVE + SERVICE + "    skip-service-updates: {parameters: true}\n",
        ["service-update-skipped:20"],
    ),
    "another skipped update": (HEAD + LIVE + SERVICE + "    skip-service-updates: {plan: true}\n", []),
    "slashes": (HEAD + "modules:\n- name: srv // Added\n  type: nodejs\n", ["comment-in-value:5"]),
    "slashes that are text": (HEAD + "description: either // or\nx: 'srv // Added'\ny: https://a # // b\n", []),
    "slashes after a URL": (HEAD + "x: https://a.example // b\n", ["comment-in-value:4"]),
    "routes of tenants kept by all": (
        HEAD
        + "parameters: {keep-existing: {routes: true}}\n"
        + CASES["routes of tenants"][0].replace(HEAD, "").replace("    keep-existing-routes: false", "    memory: 1G"),
        ["session-store-missing:6"],
    ),
    "a wildcard serves all tenants": (
        HEAD
        + "modules:\n- name: r\n  parameters: {routes: [{route: '*.x.y'}]}\n  properties: {TENANT_HOST_PATTERN: x}\n",
        ["session-store-missing:5"],
    ),
    "a wildcard that serves no tenant": (
        HEAD + _TENANTS.format("'*.x.y'", "^(.*)-r.cfapps.z$"),
        ["session-store-missing:5", "tenant-routes-not-kept:5"],
    ),
    "a wildcard that serves what lies below it": (
        HEAD + _TENANTS.format("'*.x.y'", "'^(.*)-r\\.x\\.y$'"),
        ["session-store-missing:5"],
    ),
    "a wildcard of what the deployment names": (
        HEAD + _TENANTS.format("'*.${default-uri}'", "'^(.*).${default-uri}'"),
        ["session-store-missing:5"],
    ),
    "a wildcard by parameters": (
        HEAD + "parameters: {d: x.y}\n" + _TENANTS.format("'https://*.${d}/p'", "^(.*)-r.x.z"),
        ["session-store-missing:6", "tenant-routes-not-kept:6"],
    ),
    "a pattern without tenants": (HEAD + _PATTERN.format("dedicated"), ["session-store-missing:5"]),
    "a pattern with tenants": (
        HEAD + _PATTERN.format("shared"),
        ["session-store-missing:5", "tenant-routes-not-kept:5"],
    ),
    "a variable from elsewhere": (router("${sessions}"), []),
    "a variable from a parameter": (
        router("${sessions}", "sessions: '{}'"),
        ["session-key-missing:7", "session-key-missing:7", "session-key-missing:7"],
    ),
    "a secret in JSON with comments": (
        router(variable(sessionSecret=SECRET).replace("{", "{ // mine\n        ", 1)),
        ["session-not-json:9", "session-secret-in-descriptor:9"],
    ),
    "subscription manager": (HEAD + MODULE + MANAGER, ["callback-not-async:22"]),
    "subscription manager without a time": (
        HEAD + MODULE + MANAGER.replace(", timeoutInMillis: 5", "").replace("false", "true"),
        ["callback-timeout-missing:21"],
    ),
    "a phase that is not known": (
        HEAD + MODULE + HOOK.format(", application.before-stop.live, blue-green.application.before-stop"),
        ["hook-phase-unknown:14", "hook-phase-unknown:14"],
    ),
    "phases that are no list": (
        HEAD + MODULE + HOOK.format("").replace("[deploy.application.before-stop]", "before-stop"),
        ["hook-phase-unknown:14"],
    ),
    "phases that never run": (
        HEAD + MODULE + HOOK.format(", before-start, blue-green.application.before-unmap-routes.idle"),
        ["hook-never-runs:14", "hook-never-runs:14"],
    ),
    "hooks of an old schema": (
        HEAD.replace("3.3.0", '"2.1"') + MODULE + HOOK.format(", blue-green.application.before-stop.live"),
        ["hook-never-runs:12"],
    ),
    "references of an old schema": (
        HEAD.replace("3.3.0", '"2.1"') + LIVE + SERVICE,
        ["reference-not-resolved:19"],
    ),
    "nothing to resolve in an old schema": (
        HEAD.replace("3.3.0", '"2.1"') + MODULE + CONTENT.replace("URL", "Url") + DESTINATION,
        ["live-property-missing:10", "idle-url-in-content:17"],
    ),
    "a reference that goes too deep": (
        HEAD + MODULE.replace("srv-url: ${default-url}", "urls: {main: x}") + SERVICE.replace("srv-url", "urls/main"),
        ["unknown-reference:19"],
    ),
    "references that are text": (HEAD + MODULE + SERVICE.replace("~{", "\\~{"), []),
}
_CALLER = "- name: ui\n  type: nodejs\n  requires: [{name: srv-api, properties: {A: '~{srv-url}'}}]\n"
_HTML5 = CONTENT.replace("~{srv-api/srv-url}", "x") + DESTINATION.replace("destination", "html5-apps-repo")
_TASKS = MODULE + "  parameters: {tasks: [{name: t, command: c}]}\n"
_ROUTER = "- name: r\n  type: approuter.nodejs\n  requires: [{name: dest}]\n  parameters: {instances: 2}\n"
HINTS: dict[str, tuple[str, list[str]]] = {
    "nobody calls": (HEAD + MODULE, []),
    "one calls the other": (HEAD + MODULE + _CALLER, ["stop-order-not-set:1", "resume-loses-requests:13"]),
    "in order": (
        HEAD + "parameters: {bg-dependency-aware-stop-order: true}\n" + MODULE + _CALLER,
        ["resume-loses-requests:14"],
    ),
    "one calls the live other": (HEAD + LIVE + _CALLER, []),
    "one starts after the other": (
        HEAD + MODULE + "- {name: ui, type: nodejs, deployed-after: [srv]}\n",
        ["stop-order-not-set:1"],
    ),
    "one instance": (HEAD + MODULE + "  parameters: {instances: 1}\n", ["single-instance:11"]),
    "one by a parameter": (
        HEAD + "parameters: {n: 1}\n" + MODULE + "  parameters: {instances: '${n}'}\n",
        ["single-instance:12"],
    ),
    "two for all": (HEAD + "parameters: {instances: 2}\nmodules:\n- {name: r, type: approuter.nodejs}\n", []),
    "one for all": (HEAD + "parameters: {instances: 1}\n" + MODULE, ["single-instance:4"]),
    "no routes for all": (HEAD + "parameters: {no-route: true}\n" + MODULE + "  parameters: {instances: 1}\n", []),
    "some by an extension": (HEAD + MODULE + "  parameters: {instances: '${n}'}\n", []),
    "one router": (HEAD + "modules:\n- {name: r, type: approuter.nodejs}\n", ["single-instance:5"]),
    "two routers": (HEAD + "modules:\n- {name: r, type: approuter.nodejs, parameters: {instances: 2}}\n", []),
    "one without traffic": (HEAD + MODULE + "  parameters: {instances: 1, no-route: true}\n", []),
    "html5 content": (HEAD + MODULE + _HTML5, ["content-live-before-switch:11"]),
    "destinations are no user interface": (HEAD + MODULE + CONTENT + DESTINATION, []),
    "content of old": (
        HEAD + "modules:\n- {name: c, type: com.sap.portal.content}\n",
        ["content-live-before-switch:5"],
    ),
    "a deployer": (HEAD + "modules:\n- {name: db, type: hdb}\n", ["database-in-idle-phase:5"]),
    "tasks": (HEAD + _TASKS, ["database-in-idle-phase:11"]),
    "no tasks": (HEAD + _TASKS.replace("[{name: t, command: c}]", "[]"), []),
    "a router by destinations": (HEAD + LIVE + CONTENT + _ROUTER + DESTINATION, ["idle-tests-live:20"]),
    "a router by destinations of a service": (
        HEAD + LIVE + _ROUTER + SERVICE.replace("xsuaa", "destination").replace("name: registry", "name: dest"),
        ["idle-tests-live:13"],
    ),
    "a router by other destinations": (HEAD + LIVE + _ROUTER + DESTINATION, []),
}
