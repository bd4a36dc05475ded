# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The edge between the engine and Ansible: typed errors become ``fail_json``, nothing else knows ``AnsibleModule``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import ZdmError


@contextmanager
def guarded(module: AnsibleModule) -> Iterator[None]:
    """Turn a :class:`ZdmError` into the module's failure.

    The result carries ``msg`` (message and advice), ``advice``, ``error`` (the error's class, for ``rescue``) and
    ``details``. Values of options with ``no_log`` are censored by ``fail_json`` itself.
    """
    try:
        yield
    except ZdmError as error:
        module.fail_json(msg=str(error), advice=error.advice, error=type(error).__name__, details=error.details)


def create_module(*groups: dict[str, Any], **kwargs: Any) -> AnsibleModule:
    """Assemble a module's options from option groups (:mod:`options`); check mode is supported.

    :param groups: argument specs, for example ``options.STORE`` and the module's own.
    :param kwargs: what else ``AnsibleModule`` takes.
    """
    spec: dict[str, Any] = {}
    for group in groups:
        spec.update(group)
    return AnsibleModule(argument_spec=spec, supports_check_mode=True, **kwargs)


def diff(before: dict[str, Any] | None, after: dict[str, Any] | None, header: str) -> dict[str, Any]:
    """A diff of one document as ``--diff`` shows it; ``None`` stands for a document that does not exist."""
    return {"before": before or {}, "after": after or {}, "before_header": header, "after_header": header}


def replace_file(module: AnsibleModule, path: str, text: str) -> None:
    """Replace a file in one step, or what a link leads to; line ends are written as they are in *text*, and mode and
    owner stay.
    """
    handle, temporary = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    module.atomic_move(temporary, os.path.realpath(path))
