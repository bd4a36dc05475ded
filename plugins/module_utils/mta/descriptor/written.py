# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Data as YAML 1.1 that a person would write, and what such YAML means when it is read again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_$][A-Za-z0-9_.$(){}/~-]*(?:://[A-Za-z0-9_.$(){}/~-]+)?")
_SIMPLE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_WORD = re.compile(r"(?i)(?:y|n|yes|no|on|off|true|false|null)")
STEP = 2
"""How many columns a new level is indented."""


class Raw(str):
    """A string in single quotes that is already YAML; its lines after the first are indented below the key."""


def scalar(value: Any) -> str:
    """A scalar as block YAML, plain where that is safe, else in double quotes."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, str) and _PLAIN.fullmatch(value) and not _WORD.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def block(tree: Any, column: int) -> list[str]:
    """Lines of block YAML, the first one at *column*.

    :param tree: a dictionary or list that is not empty, of dictionaries, lists and scalars.
    """
    pad = " " * column
    if isinstance(tree, list):
        lines: list[str] = []
        for item in tree:
            first, *rest = block(item, column + STEP) if _spreads(item) else _one(item, column)
            lines += [f"{pad}- {first.lstrip()}", *rest]
        return lines
    lines = []
    for key, value in tree.items():
        if _spreads(value):
            lines += [f"{pad}{scalar(key)}:", *block(value, column + STEP)]
        else:
            first, *rest = _one(value, column)
            lines += [f"{pad}{scalar(key)}: {first}", *rest]
    return lines


def _spreads(tree: Any) -> bool:
    """Whether it takes lines of its own."""
    return isinstance(tree, (Mapping, list)) and bool(tree)


def _one(tree: Any, column: int) -> list[str]:
    """What stands behind a key or a dash, and its further lines."""
    first, *rest = (flow(tree, False) if isinstance(tree, (Mapping, list)) else scalar(tree)).split("\n")
    return [first, *(f"{' ' * (column + STEP)}{line}" for line in rest)]


def flow(tree: Any, is_json: bool) -> str:
    """Flow YAML in one line: JSON where the file is JSON, else without quotes around simple words."""
    if isinstance(tree, Raw):
        return json.dumps(meaning(tree), ensure_ascii=False) if is_json else " ".join(tree.split())
    if isinstance(tree, Mapping):
        return "{" + ", ".join(f"{flow(key, is_json)}: {flow(value, is_json)}" for key, value in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(flow(item, is_json) for item in tree) + "]"
    simple = isinstance(tree, str) and _SIMPLE.fullmatch(tree) and not _WORD.fullmatch(tree) and not is_json
    return str(tree) if simple else json.dumps(tree, ensure_ascii=False)


def meaning(tree: Any) -> Any:
    """What is read back."""
    if isinstance(tree, Raw):
        return " ".join(line.strip() for line in tree[1:-1].replace("''", "'").split("\n"))
    if isinstance(tree, Mapping):
        return {key: meaning(value) for key, value in tree.items()}
    return [meaning(item) for item in tree] if isinstance(tree, list) else tree
