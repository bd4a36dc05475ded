# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hooks of modules: the deploy service compares their phases with its own list, by the whole name."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Value
from ansible_collections.zdm.landscape.plugins.module_utils.mta.lint.findings import Finding, Subject, finding

_BARE = r"(?:before-stop|after-stop|before-unmap-routes|before-start)"
_PHASE = re.compile(rf"(?:deploy\.application\.{_BARE}|blue-green\.application\.{_BARE}\.(?:idle|live)|{_BARE})")
_UNREACHABLE = "blue-green.application.before-unmap-routes.idle"
_MEND = "Write blue-green.application.<phase>.idle or .live, or deploy.application.<phase>."


def hooks(subject: Subject) -> Iterator[Finding]:
    """Hooks that stop a deployment, and hooks that don't run in it."""
    for name, module in subject.descriptor.modules.items():
        found = module.listed("hooks")
        texts = [phase.text for hook in found for phase in hook.listed("phases")]
        moments = {text.split(".")[2] for text in texts if text.startswith("blue-green.application.")}
        for hook in found:
            title = f"The hook {hook.string('name')} of {name}"
            if subject.descriptor.major < 3:
                message = f"{title} is ignored: hooks need schema version 3."
                yield finding("hook-never-runs", hook, name, message, "Raise _schema-version.")
                continue
            phases = hook.get("phases")
            if phases is not None:
                yield from _phases(name, title, phases, moments)


def _phases(name: str, title: str, phases: Value, moments: set[str]) -> Iterator[Finding]:
    """The phases of one hook.

    :param moments: for which the module has hooks in blue-green deployments.
    """
    if not isinstance(phases.data, list):
        yield finding("hook-phase-unknown", phases, name, f"{title} has phases that are no list.", "Write a list.")
        return
    for phase in phases.items:
        if not _PHASE.fullmatch(phase.text):
            message = (
                f"{title} has the phase {phase.text or phase.raw}, which the deploy service does not know: it stops."
            )
            yield finding("hook-phase-unknown", phase, name, message, _MEND)
        elif re.fullmatch(_BARE, phase.text) or phase.text == _UNREACHABLE:
            message = f"{title} never runs in the phase {phase.text}, although the deploy service accepts it."
            yield finding("hook-never-runs", phase, name, message, _MEND)
    texts = [phase.text for phase in phases.items]
    if texts and all(text.startswith("deploy.") and text.rpartition(".")[2] not in moments for text in texts):
        mend = "Add the phases with blue-green. in place of deploy. (and .idle or .live at the end)."
        yield finding("hook-not-in-blue-green", phases, name, f"{title} runs in plain deployments only.", mend)
