# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Descriptors for tests: the reference application of the guide on zero-downtime maintenance, and one for every form of
writing.
"""

from __future__ import annotations

from functools import lru_cache

from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Source

GUIDE = """\
_schema-version: "3.1"
ID: incident-management
version: 1.0.0
description: "An incident management app"   # kept as it is

parameters:
  enable-parallel-deployments: true
  deploy_mode: html5-repo

modules:
  - name: incident-management-mtx
    type: nodejs
    path: gen/mtx/sidecar
    build-parameters:
      builder: npm-ci
    parameters:
      memory: 256M
      disk-quota: 512M
    provides:
      - name: mtx-api
        properties:
          mtx-url: ${default-url}
  - name: incident-management-srv
    type: nodejs
    path: gen/srv
    provides:
      - name: srv-api # required by consumers of CAP services
        properties:
          srv-url: ${default-url}
    requires:
      - name: incident-management-auth
  ##### Approuter #######
  - name: approuter
    type: approuter.nodejs
    path: packages/deploy-int/approuter
    parameters:
      memory: 128M
      keep-existing-routes: true
      disk-quota: 256M
    requires:
      - name: incident-management-auth
      - name: incident-management-portal
      - name: incident-management-html5-repo-runtime
      - name: srv-api
        group: destinations
        properties:
          forwardAuthToken: true
          strictSSL: true
          name: srv-api
          url: '~{srv-url}'
      - name: mtx-api
        group: destinations
        properties:
          name: mtx-api # must be used in xs-app.json as well
          url: ~{mtx-url}
    provides:
      - name: app-api
        properties:
          app-protocol: ${protocol}
          app-uri: ${default-uri}
    properties:
      TENANT_HOST_PATTERN: "^(.*)-${default-uri}"

resources:
  - name: incident-management-auth
    type: org.cloudfoundry.managed-service
    parameters:
      service: xsuaa
      service-plan: application
      path: ./xs-security.json
  - name: incident-management-portal
    type: org.cloudfoundry.managed-service
    parameters: {service: portal, service-plan: standard}
  - name: incident-management-html5-repo-runtime
    type: org.cloudfoundry.managed-service
    parameters: {service: html5-apps-repo, service-plan: app-runtime}
  - name: incident-management-registry
    type: org.cloudfoundry.managed-service
    requires:
      - name: mtx-api
    parameters:
      service: saas-registry
      service-plan: application
      config:
        xsappname: incident-management-${org}-${space}
        appName: incident-management-${org}-${space}
        displayName: incident-management
        description: ZDM CAP APP.
        category: 'Refapps'
        appUrls:
          getDependencies: ~{mtx-api/mtx-url}/-/cds/saas-provisioning/dependencies
          onSubscription: ~{mtx-api/mtx-url}/-/cds/saas-provisioning/tenant/{tenantId}
          onSubscriptionAsync: true
          onUnSubscriptionAsync: true
          onUpdateDependenciesAsync: true
          callbackTimeoutMillis: 300000 # Increase if your deployments are taking longer than that
"""
"""The fragments of the guide put together, before its changes."""

HEAD = "_schema-version: 3.3.0\nID: app\nversion: 1.0.0\n"
MODULE = """\
modules:
- name: srv
  type: nodejs
  provides:
  - name: srv-api
    properties:
      srv-url: ${default-url}
"""
SERVICE = """\
resources:
- name: registry
  type: org.cloudfoundry.managed-service
  requires:
  - name: srv-api
  parameters:
    service: xsuaa
    config:
      url: ~{srv-api/srv-url}/callback
"""

FORMS = {
    "indentless lists": HEAD + MODULE + SERVICE,
    "schema 2": HEAD.replace("3.3.0", '"2.1"') + MODULE + SERVICE,
    "windows lines": (HEAD + MODULE + SERVICE).replace("\n", "\r\n"),
    "carriage returns": (HEAD + MODULE + SERVICE).replace("\n", "\r"),
    "byte order mark": "\ufeff" + HEAD + MODULE + SERVICE,
    "no newline at the end": HEAD + SERVICE + MODULE.rstrip("\n"),
    "json": (
        """\
{"_schema-version": "3.1", "ID": "app", "version": "1.0.0",
 "modules": [{"name": "srv", "type": "nodejs",
   "provides": [{"name": "srv-api", "properties": {"srv-url": "${default-url}"}}]}],
 "resources": [{"name": "registry", "type": "org.cloudfoundry.managed-service", "requires": [{"name": "srv-api"}],
   "parameters": {"service": "xsuaa", "config": {"urls": ["~{srv-api/srv-url}/a", {"b": "~{srv-api/srv-url}"}]}}}]}
"""
    ),
    "lists, strings and blocks": HEAD
    + MODULE
    + SERVICE
    + """\
      oauth2-configuration:
        redirect-uris:
        - "~{srv-api/srv-url}/login/callback"  # double
        - '~{srv-api/srv-url}/**'
        -   https://other.example/**
      text: |
        first ~{srv-api/srv-url}
          second ~{srv-api/srv-url}/x

      folded: >-
        one
        ~{srv-api/srv-url}/two ~{srv-api/srv-url}
      deep: {a: [{b: "~{srv-api/srv-url}"}], c: plain}
""",
    "several providers": HEAD
    + """\
modules:
  - name: a
    type: nodejs
    provides:
      - name: a-api
        properties: {a-url: "${default-url}", a-uri: '${default-uri}', other: 1}
  - name: b
    type: nodejs
    requires:
      - name: a-api
        properties: {A: "~{a-url}"}
    provides:
      - name: b-api
        properties:
          url: ${default-url}/odata   # the service
          host: ${default-host}
          live: taken
          url-live:
      - name: b-more
        properties:
          # the live one is there already
          more-url: ${default-url}
          elsewhere: "${default-live-url}"
resources:
  - name: one
    type: org.cloudfoundry.user-provided-service
    requires:
      - name: a-api
      - name: b-api
      - name: b-more
    parameters:
      config:
        all: "~{a-api/a-url} ~{a-api/a-uri} ~{b-api/url} ~{b-api/host} ~{b-more/more-url}"
""",
    "in requires": HEAD
    + MODULE
    + """\
resources:
- name: registry
  type: org.cloudfoundry.managed-service
  requires:
  - name: srv-api
    parameters:
      config:
        url: '~{srv-url}'
        other: ~{srv-url}/other
""",
    "a whole mapping": HEAD
    + MODULE.replace(
        "srv-url: ${default-url}",
        "urls: {main: {url: '${default-url}/v1', name: m, 'a: b': []}, more: ['${default-uri}', 1, x: z]}  # all",
    )
    + SERVICE.replace("srv-url}/callback", "urls}"),
    "by way of a resource": HEAD
    + MODULE
    + SERVICE.replace("srv-api/srv-url", "via/u").replace("srv-api", "via")
    + """\
- name: via
  type: org.cloudfoundry.existing-service
  requires:
  - name: srv-api
  parameters:
    version: v1
    base: ~{srv-api/srv-url}/${version}
  properties:
    u: ${base}/odata
    other: ${version}
""",
    "by a parameter": HEAD
    + """\
parameters: {prefix: v1}
modules:
- name: srv
  type: nodejs
  parameters:
    my-url: ${default-url}/${prefix}
  provides:
  - name: srv-api
    properties:
      srv-url: ${my-url}/x
"""
    + SERVICE,
    "anchors": HEAD
    + """\
x-defaults: &defaults
  memory: 128M
modules:
  - &srv
    name: srv
    type: nodejs
    parameters: &p
      <<: *defaults
      disk-quota: 256M
    provides:
      - name: srv-api
        properties:
          srv-url: ${default-url}
  - name: approuter
    type: approuter.nodejs
    parameters:
      <<: *defaults
resources:
  - name: registry
    type: org.cloudfoundry.managed-service
    requires: &needs
      - name: srv-api
    parameters:
      service: saas-registry
      config: &config
        appUrls: &urls
          getDependencies: &url ~{srv-api/srv-url}/dependencies
          onSubscription: *url
          onSubscriptionAsync: yes
          callbackTimeoutMillis: 9000000
  - name: second
    type: org.cloudfoundry.managed-service
    requires: *needs
    parameters:
      service: saas-registry
      config:
        <<: *config
""",
    "hooks": HEAD
    + MODULE
    + """\
  hooks:
  - name: migrate
    type: task
    phases:
    - blue-green.application.before-start.idle
    parameters:
      name: migrate
      command: "node migrate.js --url ${default-url}"
"""
    + SERVICE,
    "own host": HEAD
    + """\
modules:
- name: srv
  type: nodejs
  parameters:
    host: my-${space}
  provides:
  - name: srv-api
    properties:
      srv-url: ${default-url}
      srv-live: ${default-live-url}
"""
    + SERVICE.replace("/callback", "/callback ~{srv-api/srv-live}"),
    "own routes": (
        HEAD
        + """\
modules:
- name: srv
  type: nodejs
  parameters:
    routes:
    - route: my.${default-domain}
  provides:
  - name: srv-api
    properties:
      srv-url: https://${routes/0/route}
  - name: other-api
    properties:
      other-url: ${default-url}
- name: ui
  type: nodejs
  requires:
  - name: other-api
    properties: {O: '~{other-url}'}
"""
        + SERVICE.replace("/callback", " ~{other-api/other-url}").replace(
            "  - name: srv-api", "  - name: srv-api\n  - name: other-api"
        )
    ),
    "routes that modules use": HEAD
    + """\
modules:
- name: srv
  type: nodejs
  parameters:
    routes:
    - route: my.${default-domain}
  provides:
  - name: srv-api
    properties:
      srv-url: https://${routes/0/route}
- name: ui
  type: nodejs
  requires:
  - name: srv-api
    properties: {O: '~{srv-url}'}
"""
    + SERVICE,
    "directly": HEAD + MODULE + SERVICE.replace("~{srv-api/srv-url}", "${default-url}"),
    "approuter with nothing": (
        HEAD
        + SERVICE.replace("~{srv-api/srv-url}", "x").replace("xsuaa", "saas-registry")
        + "modules:\n- name: approuter\n  requires:\n- {name: srv, provides: [{name: srv-api}]}\n"
    ),
    "approuter with empty lists": HEAD
    + """\
resources: []
modules:
  - name: router
    type: approuter.nodejs
    requires: []
    parameters: {}
    properties:
      TENANT_HOST_PATTERN: "(.*)"
      # the last comment
      EMPTY:
""",
}


@lru_cache(maxsize=64)
def descriptor(text: str, name: str = "mta.yaml") -> Descriptor:
    return Descriptor.parse(Source(name, text))
