# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options as YAML of few lines, as people write them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_][\w.$-]*")
_TOLD = 4
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


def flow(value: Any) -> str:
    """A value on one line.

    >>> flow({"a": ["b", 1, True], "^(c|d)$": "no data"})
    '{a: [b, 1, true], "^(c|d)$": "no data"}'
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{flow(str(key))}: {flow(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(flow, value))}]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    # JSON allows what YAML does not
    return "".join(
        each if each.isprintable() else f"\\U{ord(each):08x}" for each in json.dumps(value, ensure_ascii=False)
    )


def entry(name: str, options: Mapping[str, Any], confirm: Mapping[str, Sequence[str]]) -> str:
    """One participant of a list, a line for each option.

    :param confirm: by option what a person has to confirm.
    """
    lines = [f"- name: {flow(name)}"]
    lines += [f"  {option}: {flow(value)}{_comment(confirm.get(option, ()))}" for option, value in options.items()]
    return "\n".join(lines)


def _comment(confirm: Sequence[str]) -> str:
    told = list(confirm[:_TOLD])
    if len(confirm) > _TOLD:
        told.append(f"and {len(confirm) - _TOLD} more like these")
    return f"  # confirm: {'; '.join(told)}" if told else ""
