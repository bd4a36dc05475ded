# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter haproxy_word."""

from __future__ import annotations

DOCUMENTATION = r"""
name: haproxy_word
short_description: One word of HAProxy's configuration
version_added: 1.0.0
author: zdm.landscape contributors (@zdm-landscape)
description:
  - Quotes text so that it is one word of HAProxy's configuration and stands for itself, whatever characters it has.
  - Fails on line breaks and other characters that can't be printed.
positional: form
options:
  _input:
    description: The text; with O(form=claims) and O(form=header) a list of names.
    type: raw
    required: true
  form:
    description:
      - V(text) is the text itself.
      - V(issuer) is a regular expression for issuers, in which C(*) stands for one whole label of a host's name.
      - V(claims) is a regular expression for the claims of a token in which the given ones are whole numbers.
      - V(header) is a regular expression for the header of a token in which the given members do not occur.
      - V(shallow) is a regular expression for JSON that is not nested too deep for the other two; the input does not
        matter.
    type: str
    choices: [text, issuer, claims, header, shallow]
    default: text
"""

EXAMPLES = r"""
- name: Show how HAProxy reads a path
  ansible.builtin.debug:
    msg: "http-request deny if { path {{ '/it is' | zdm.landscape.haproxy_word }} }"
"""

RETURN = r"""
_value:
  description: The word, in quotes.
  type: str
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.router.words import (
    issuer_pattern,
    object_pattern,
    quoted,
    shallow_pattern,
)

_FORMS: dict[str, Callable[[Any], object]] = {
    "text": str,
    "issuer": issuer_pattern,
    "claims": lambda names: object_pattern(whole_numbers=names),
    "header": lambda names: object_pattern(forbidden=names),
    "shallow": lambda _value: shallow_pattern(),
}


def run(value: Any, form: str = "text") -> str:
    """See DOCUMENTATION."""
    if form not in _FORMS:
        raise AnsibleFilterError(f"haproxy_word knows no form {form!r}. Use {', '.join(_FORMS)}.")
    try:
        return quoted(_FORMS[form](value))
    except ZdmError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"haproxy_word": run}
