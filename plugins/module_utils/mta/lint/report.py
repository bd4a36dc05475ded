# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings as files that a CI server reads."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from xml.etree import ElementTree

from ansible_collections.zdm.landscape.plugins.module_utils.mta.lint.findings import (
    ERROR,
    HINT,
    RULES,
    WARNING,
    Finding,
)

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_json(findings: Sequence[Finding]) -> str:
    """The findings and their numbers."""
    severities = [finding.severity for finding in findings]
    report = {
        "error_count": severities.count(ERROR),
        "warning_count": severities.count(WARNING),
        "hint_count": severities.count(HINT),
        "findings": [asdict(finding) for finding in findings],
    }
    return json.dumps(report, indent=2, ensure_ascii=False) + "\n"


def as_junit(findings: Sequence[Finding], name: str, ignore: Sequence[str] = ()) -> str:
    """JUnit XML: a test case for every finding, failed when it is an error, and a passed one for every rule that is
    kept.

    A warning or a hint is a passed test case with its text in ``system-out``: a CI server shows it and stays green.
    """
    suite = ElementTree.Element("testsuite", name=_clean(name), errors="0", skipped="0")
    for rule in RULES:
        if rule in ignore:
            continue
        mine = [finding for finding in findings if finding.rule == rule]
        for finding in mine:
            label = _clean(f"{finding.object} ({finding.file}:{finding.line}:{finding.column})")
            case = ElementTree.SubElement(
                suite, "testcase", classname=rule, name=label, file=_clean(finding.file), line=str(finding.line)
            )
            kind = "failure" if finding.severity == ERROR else "system-out"
            attributes = {"message": _clean(finding.message), "type": finding.severity} if kind == "failure" else {}
            ElementTree.SubElement(case, kind, attributes).text = _clean(str(finding))
        if not mine:
            ElementTree.SubElement(suite, "testcase", classname=rule, name=_clean(name))
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(sum(finding.severity == ERROR for finding in findings)))
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _clean(text: str) -> str:
    """Without characters that XML can't hold."""
    return _NOT_XML.sub("�", text)
