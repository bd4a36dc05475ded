# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter session_extension."""

from __future__ import annotations

DOCUMENTATION = r"""
name: session_extension
short_description: An extension descriptor that gives application routers their session secret
version_added: 1.0.0
author: zdm.landscape contributors (@zdm-landscape)
description:
  - Returns the text of an extension descriptor (C(.mtaext)) that sets a parameter of the modules, to which
    C(EXT_SESSION_MGT) refers as
    M(zdm.landscape.mta_descriptor) writes it.
  - The text holds the secret. Give it to M(zdm.landscape.mta_deploy) as
    O(zdm.landscape.mta_deploy#module:extension_texts), or write it with mode V(0600) and C(no_log), and remove it in
    C(always).
  - Refuses a secret of fewer than 64 characters, and characters that would not arrive as they are; no message shows the
    secret.
positional: schema_version, modules, secret
options:
  _input:
    description: The id of the MTA, or of the extension that is given before this one.
    type: str
    required: true
  schema_version:
    description: The schema version of the descriptor.
    type: str
    required: true
  modules:
    description: Names of the modules that are application routers.
    type: list
    elements: str
    required: true
  secret:
    description: The session secret, 64 characters or more, the same in every deployment.
    type: str
    required: true
  parameter:
    description: Name of the parameter.
    type: str
    default: session-secret
  extension_id:
    description: The extension's own id. By default that of the MTA with C(-session) behind it.
    type: str
"""

EXAMPLES = r"""
- name: Write the secret for the deployment
  ansible.builtin.copy:
    content: "{{ mta.id | zdm.landscape.session_extension(mta.schema_version, mta.approuters, vault_session_secret) }}"
    dest: "{{ folder }}/session.mtaext"
    mode: "0600"
  no_log: true
"""

RETURN = r"""
_value:
  description: The extension descriptor's text.
  type: str
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.secret import extension
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.session import PARAMETER


def run(
    mta_id: Any,
    schema_version: Any,
    modules: Any,
    secret: Any,
    parameter: str = PARAMETER,
    extension_id: str | None = None,
) -> str:
    """See DOCUMENTATION."""
    names = [modules] if isinstance(modules, str) else list(modules)
    try:
        return extension(mta_id, str(schema_version), names, secret, parameter, extension_id or "")
    except ZdmError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"session_extension": run}
