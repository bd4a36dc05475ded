# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How text from outside stands in HAProxy's configuration (configuration manual 2.2, "Quoting and escaping").

Everything that the role's template puts into the configuration goes through :func:`quoted`. What may stand in a
variable at all is checked before (:mod:`variables`): addresses, for example, are expanded by HAProxy after its quotes
are gone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError

_STRING = r'"(?:[^"\\\x00-\x1f]++|\\(?!u0000).)*+"'
"""A string of JSON, but for escaped NULs: what compares text as C does would not see what follows."""
_NAME = r'(?:[^"\\\x00-\x1f]++|\\[^u]|\\u(?!00[067]))*+'
"""Characters of a member's name; a letter spelled as an escape would hide a name from one of two readers."""
_JSON = (
    r"(?(DEFINE)(?<s>[ \t\r\n]*+)(?<t>" + _STRING + r")"
    r"(?<v>(?&t)|true|false|null|-?(?:0|[1-9][0-9]*+)(?:[.][0-9]++)?+(?:[eE][-+]?+[0-9]++)?+"
    r"|\[(?&s)(?:(?&v)(?&s)(?:,(?&s)(?&v)(?&s))*+)?+\]"
    r"|\{(?&s)(?:(?&t)(?&s):(?&s)(?&v)(?&s)(?:,(?&s)(?&t)(?&s):(?&s)(?&v)(?&s))*+)?+\}))"
)
"""White space, a string and a value of JSON (RFC 8259) as groups to call. Values call themselves: ask
:func:`shallow_pattern` first.
"""
_DEPTH = 8


def quoted(text: object) -> str:
    """One word of HAProxy's configuration that stands for *text* literally.

    :raises InputError: the text has a line break or another control character, which no quoting carries.
    """
    value = str(text)
    if not value.isprintable():
        raise InputError(
            f"{value!r} can't stand in HAProxy's configuration.",
            "Remove line breaks and other characters that can't be printed.",
        )
    return "'" + value.replace("'", r"'\''") + "'"


def issuer_pattern(issuer: str) -> str:
    """A regular expression for issuers like *issuer*, in which ``*`` is one whole label of a host's name (RFC 6125,
    6.4.3).
    """
    label = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
    return rf"\A{re.escape(issuer).replace(re.escape('*'), label)}\z"


def shallow_pattern() -> str:
    """A regular expression for text whose brackets are nested 8 levels deep at most; it uses no stack itself."""
    part = rf'(?:[^][{{}}"]++|{_STRING})'
    for _level in range(_DEPTH):
        part = rf'(?:[^][{{}}"]++|{_STRING}|[\[{{]{part}*+[]}}])'
    return rf"\A{part}*+\z"


def object_pattern(whole_numbers: Sequence[str] = (), forbidden: Sequence[str] = ()) -> str:
    r"""A regular expression for one JSON object and nothing else.

    HAProxy's ``json_query`` alone does not tell a member that is missing from one that is a list or ``null``, and reads
    what is no JSON as far as it can.

    :param whole_numbers: members of these names, where they exist, are whole numbers of 15 digits at most (RFC 7519,
        4.1.4).
    :param forbidden: there are no members of these names.
    """
    names = "|".join(re.escape(name) for name in (*whole_numbers, *forbidden))
    other = rf'"{f"(?!(?:{names}){chr(34)})" if names else ""}{_NAME}"(?&s):(?&s)(?&v)'
    numbers = "|".join(re.escape(name) for name in whole_numbers)
    number = rf'"(?:{numbers})"(?&s):(?&s)-?(?:0|[1-9][0-9]{{0,14}})(?=[ \t\r\n,}}])|' if numbers else ""
    return rf"{_JSON}\A(?&s)\{{(?&s)(?:(?:{number}{other})(?&s)(?:,(?&s)(?!\}})|(?=\}})))*+\}}(?&s)\z"
