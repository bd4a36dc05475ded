# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module mta_descriptor_info."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: mta_descriptor_info
short_description: Lint the descriptor of a multi-target application for blue-green deployments
version_added: 1.0.0
author: zdm.landscape contributors (@zdm-landscape)
description:
  - Finds in C(mta.yaml), C(mtad.yaml) or an archive what breaks requests, sessions or subscriptions in a blue-green
    deployment. Every finding has a rule, a
    place, and a mend.
  - Needs nothing but the files, so that a CI job can run it alone.
  - The rules are described in C(docs/descriptor.md) of the collection.
extends_documentation_fragment:
  - zdm.landscape.archive
  - zdm.landscape.descriptor
  - zdm.landscape.attributes
attributes:
  check_mode:
    support: full
    details: The report is not written.
  diff_mode:
    support: N/A
    details: This module changes nothing.
  idempotent:
    support: full
    details: This module changes nothing but the report.
options:
  path:
    description: The descriptor, or an extension descriptor alone, for which only the rules hold that need nothing else.
      Either this or O(archive).
    type: path
  archive:
    description: An MTA archive (C(.mtar)) by its path or URL; its deployment descriptor is read.
    type: str
  extensions:
    description: Extension descriptors that are deployed with it, in any order. They are merged as the deploy service
      does.
    type: list
    elements: path
    default: []
  ignore:
    description: Rules that are not applied.
    type: list
    elements: str
    default: []
  report:
    description: A file with the findings.
    type: dict
    suboptions:
      path:
        description: The file, which is replaced.
        type: path
        required: true
      format:
        description: JSON, or JUnit XML as CI servers show it. There, errors are failures, warnings and hints are
          passed tests with an output.
        type: str
        choices: [json, junit]
        default: junit
  fail_on:
    description:
      - When the task fails. V(error) when there is an error, V(warning) when there is an error or a warning. Hints name
        what a descriptor alone can't mend, and never fail.
      - An info module gives facts, so the default is V(never); a CI job sets V(error). The report is written before the
        task fails.
    type: str
    choices: [error, warning, never]
    default: never
seealso:
  - module: zdm.landscape.mta_descriptor
"""

EXAMPLES = r"""
- name: Lint in a CI job
  zdm.landscape.mta_descriptor_info:
    path: mta.yaml
    extensions: [production.mtaext]
    longest_upgrade: 30m
    report:
      path: build/mta.xml
    fail_on: error

- name: Lint what is about to be deployed
  zdm.landscape.mta_descriptor_info:
    archive: https://ci.example.com/artifacts/incident-management_1.1.0.mtar
    extensions: [production.mtaext]
  register: lint
"""

RETURN = r"""
findings:
  description: What was found, by file and line.
  returned: always
  type: list
  elements: dict
  contains:
    rule:
      description: The rule's id, which stays the same from version to version.
      type: str
      returned: always
    severity:
      description: V(error), V(warning) or V(hint).
      type: str
      returned: always
    file:
      description: The file, as it was given.
      type: str
      returned: always
    line:
      description: The line, counted from 1.
      type: int
      returned: always
    column:
      description: The column, counted from 1.
      type: int
      returned: always
    object:
      description: The module, resource or provided entry.
      type: str
      returned: always
    message:
      description: What is wrong. Secrets are never shown.
      type: str
      returned: always
    mend:
      description: What to do.
      type: str
      returned: always
    fixable:
      description: Whether M(zdm.landscape.mta_descriptor) does it.
      type: bool
      returned: always
error_count:
  description: Number of errors.
  returned: always
  type: int
warning_count:
  description: Number of warnings.
  returned: always
  type: int
hint_count:
  description: Number of hints, which never fail the task.
  returned: always
  type: int
mta:
  description: What the descriptor describes.
  returned: always
  type: dict
  contains:
    id:
      description: The MTA's id.
      type: str
      returned: always
    version:
      description: The MTA's version.
      type: str
      returned: always
    schema_version:
      description: Its schema version.
      type: str
      returned: always
    extends:
      description: The id that an extension given alone extends; empty for a descriptor.
      type: str
      returned: always
    last:
      description: The id that a further extension descriptor extends. The last extension's, else the MTA's.
      type: str
      returned: always
    modules:
      description: Names of the modules.
      type: list
      elements: str
      returned: always
    resources:
      description: Names of the resources.
      type: list
      elements: str
      returned: always
    approuters:
      description: Names of the modules that are application routers.
      type: list
      elements: str
      returned: always
"""

import os
from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.zdm.landscape.plugins.module_utils.core import options
from ansible_collections.zdm.landscape.plugins.module_utils.core.durations import parse_ms
from ansible_collections.zdm.landscape.plugins.module_utils.core.edge import create_module, guarded, replace_file
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError
from ansible_collections.zdm.landscape.plugins.module_utils.mta.archive import Download, opened_archive
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor
from ansible_collections.zdm.landscape.plugins.module_utils.mta.lint.findings import ERROR, WARNING, Finding
from ansible_collections.zdm.landscape.plugins.module_utils.mta.lint.report import as_json, as_junit
from ansible_collections.zdm.landscape.plugins.module_utils.mta.lint.rules import lint

SPEC: dict[str, Any] = {
    "path": {"type": "path"},
    "archive": {"type": "str"},
    "extensions": {"type": "list", "elements": "path", "default": []},
    "ignore": {"type": "list", "elements": "str", "default": []},
    "report": {
        "type": "dict",
        "options": {
            "path": {"type": "path", "required": True},
            "format": {"type": "str", "choices": ["json", "junit"], "default": "junit"},
        },
    },
    "fail_on": {"type": "str", "choices": ["error", "warning", "never"], "default": "never"},
}

_FAILING = {"error": (ERROR,), "warning": (ERROR, WARNING), "never": ()}


def load(params: dict[str, Any]) -> Descriptor:
    """The descriptor with its extensions."""
    if params["archive"]:
        with opened_archive(params["archive"], Download.of(params)) as archive:
            descriptor = Descriptor.of_archive(archive)
    else:
        descriptor = Descriptor.load(params["path"])
    return descriptor.extended([Descriptor.load(path) for path in params["extensions"]])


def write_report(module: AnsibleModule, findings: list[Finding], name: str) -> None:
    """Replace the report.

    :raises InputError: its folder does not exist.
    """
    report, params = module.params["report"], module.params
    folder = os.path.dirname(os.path.abspath(report["path"]))
    if not os.path.isdir(folder):
        raise InputError(f"report.path: the folder {folder} does not exist.", "Create it before the lint.")
    text = as_json(findings) if report["format"] == "json" else as_junit(findings, name, params["ignore"])
    replace_file(module, report["path"], text)


def main() -> None:
    module = create_module(
        options.DESCRIPTOR,
        options.ARCHIVE,
        SPEC,
        mutually_exclusive=[("path", "archive")],
        required_one_of=[("path", "archive")],
    )
    params = module.params
    with guarded(module):
        longest = parse_ms(params["longest_upgrade"], "longest_upgrade") if params["longest_upgrade"] else 0
        descriptor = load(params)
        findings = lint(descriptor, longest, params["namespace"], params["ignore"], params["approuters"])
        if params["report"] and not module.check_mode:
            write_report(module, findings, descriptor.source.name)
        severities = [finding.severity for finding in findings]
        errors, warnings = severities.count(ERROR), severities.count(WARNING)
        result = {
            "changed": False,
            "findings": [asdict(finding) for finding in findings],
            "error_count": errors,
            "warning_count": warnings,
            "hint_count": len(findings) - errors - warnings,
            "mta": descriptor.summary(params["approuters"]),
        }
        if any(severity in _FAILING[params["fail_on"]] for severity in severities):
            reasons = [str(finding) for finding in findings if finding.severity in _FAILING[params["fail_on"]]]
            module.fail_json(msg="\n".join(reasons), **result)
        module.exit_json(**result)


if __name__ == "__main__":
    main()
