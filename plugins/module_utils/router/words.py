# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How text from outside stands in HAProxy's configuration (configuration manual 2.2, "Quoting and escaping").

Everything that the role's template puts into the configuration goes through :func:`quoted`. What may stand in a variable at
all is checked before (:mod:`variables`): addresses, for example, are expanded by HAProxy after its quotes are gone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ansible_collections.zdm.landscape.plugins.module_utils.errors import InputError

_STRING = r'"(?:[^"\\]++|\\.)*+"'
_KEY = r'(?:[^"\\]++|\\[^u]|\\u(?!00[2-7]))*+'
"""Characters of a member's name; an ASCII letter spelled as an escape would hide a name from one of two readers."""
_DEPTH = 12
"""How deep lists and objects of a token may lie in one another; a pattern without recursion needs a limit, and no stack."""


def quoted(text: object) -> str:
    """One word of HAProxy's configuration that stands for *text* literally.

    :raises InputError: the text has a line break or another control character, which no quoting carries.
    """
    value = str(text)
    if not value.isprintable():
        raise InputError(f"{value!r} can't stand in HAProxy's configuration.", "Remove line breaks and other characters that can't be printed.")
    return "'" + value.replace("'", r"'\''") + "'"


def issuer_pattern(issuer: str) -> str:
    """A regular expression for issuers like *issuer*, in which ``*`` is one whole label of a host's name (RFC 6125, 6.4.3)."""
    label = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
    return rf"\A{re.escape(issuer).replace(re.escape('*'), label)}\z"


def claims_pattern(whole_numbers: Sequence[str]) -> str:
    r"""A regular expression for one JSON object and nothing else, whose members of these names are whole numbers (RFC 7519, 4.1.4).

    HAProxy's ``json_query`` alone does not tell a member that is missing from one that is a list or ``null``.
    """
    names = "|".join(re.escape(name) for name in whole_numbers)
    value = _STRING
    for _level in range(_DEPTH):
        value = rf'(?:{_STRING}|[\[{{](?:[^][{{}}"]++|{value})*+[]}}])'
    number = rf'"(?:{names})"\s*+:\s*+-?[0-9]{{1,18}}\s*+(?=[,}}])'
    other = rf'"(?!(?:{names})"){_KEY}"\s*+:\s*+(?:[-+.0-9A-Za-z]++|{value})\s*+'
    return rf"\A\s*+\{{\s*+(?:(?:{number}|{other})(?:,\s*+|(?=\}})))*+\}}\s*+\z"
