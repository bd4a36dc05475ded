# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of single lines of a descriptor: everything else keeps its bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Entry, Source, Value

_PLAIN = re.compile(r"[A-Za-z_$][A-Za-z0-9_.$(){}/~-]*(?:://[A-Za-z0-9_.$(){}/~-]+)?")
_SIMPLE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_WORD = re.compile(r"(?i)(?:y|n|yes|no|on|off|true|false|null)")
STEP = 2
"""How many columns a new level is indented."""


class Raw(str):
    """A string in single quotes that is already YAML; its lines after the first are indented below the key."""


class Edits:
    """Collects changes of one text and applies them together.

    :raises Refused: (all methods) the change would not only touch what is meant, or two changes meet at one place.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.is_json = source.text.lstrip("\ufeff \t\r\n").startswith("{")
        self.replaced: dict[tuple[int, int], str] = {}
        self.inserted: list[tuple[int, int, str]] = []

    def __bool__(self) -> bool:
        return bool(self.replaced or self.inserted)

    def replace_in(self, value: Value, old: str, new: str) -> None:
        """Replace every *old* inside a string. Several changes of one string add up."""
        value = value.written
        raw = self._raw(value)
        if raw.count(old) != value.text.count(old):
            raise Refused(f"{value.place}: {old} is not written in one piece.", f"Write {new} there by hand.")
        start = value.start + len(value.raw) - len(raw)
        position = raw.find(old)
        while position >= 0:
            self._replace(start + position, start + position + len(old), new)
            position = raw.find(old, position + len(old))

    def set(self, value: Value, scalar: str) -> None:
        """Replace a scalar or an alias by YAML that is given."""
        start = value.start + len(value.raw) - len(self._raw(value))
        self._replace(start, value.start + len(value.raw.rstrip()), scalar)

    def put(self, parent: Value, key: str, tree: Any, after: Entry | None = None) -> None:
        """Add a key to a mapping, behind the entry *after* or at its end. An own key of that name must not exist.

        :param tree: dictionaries, lists and scalars.
        """
        self._check(parent)
        own = [entry for entry in parent.mapping.values() if not entry.merged]
        if parent.flow:
            text = self.flow({key: tree})[1:-1]
            last = max((entry.value.end for entry in own), default=0)
            self._insert(last or parent.start + 1, 0, f", {text}" if last else text)
            return
        if not own:  # nothing but <<
            self._lines(parent.end, parent.column - 1, _block({key: tree}, parent.column - 1))
            return
        chosen = after if after in own else own[-1]
        column = self._column(own[0].key_start)
        end = chosen.key_end if chosen.value.end == chosen.value.start else chosen.value.end
        self._lines(end, column, _block({key: tree}, column))

    def put_below(self, parent: Value, key: str, child: str, tree: Any) -> None:
        """Add ``key: {child: tree}``, where *key* may be missing, empty or a mapping already."""
        entry = parent.mapping.get(key)
        if entry is None or entry.merged:
            if entry and entry.value.mapping:
                raise Refused(
                    f"{parent.place}: {key} comes from an anchor that others may use.",
                    f"Write {key} out there, then run again.",
                )
            self.put(parent, key, {child: tree})
        elif entry.value.data is None:
            self._fill(parent, entry, {child: tree})
        elif isinstance(entry.value.data, dict):
            if entry.value.data or not entry.value.flow:
                self.put(entry.value, child, tree)
            else:
                self.set(entry.value, self.flow({child: tree}))
        else:
            raise Refused(f"{entry.value.place}: {key} is not a mapping.", f"Correct {key}.")

    def append(self, parent: Value, key: str, item: Mapping[str, Any]) -> None:
        """Add an item to the list ``key``, which may be missing or empty."""
        entry = parent.mapping.get(key)
        if entry is None:
            self.put(parent, key, [item])
        elif entry.value.data is None:
            self._fill(parent, entry, [item])
        elif isinstance(entry.value.data, list) and not entry.merged:
            value = entry.value
            self._check(value)
            if not value.data:
                self.set(value, self.flow([item]))
            elif value.flow:
                self._insert(value.items[-1].end, 0, f", {self.flow(item)}")
            else:
                self._lines(value.end, value.column - 1, _block([item], value.column - 1))
        else:
            raise Refused(
                f"{entry.value.place}: nothing can be added to {key}.", f"Write {key} out as a list of its own."
            )

    def apply(self) -> str:
        """The changed text."""
        changes = [(start, end, 0, 0, text) for (start, end), text in self.replaced.items()]
        changes += [(at, at, -depth, number, text) for number, (at, depth, text) in enumerate(self.inserted)]
        parts, position = [], 0
        for start, end, _depth, _number, text in sorted(
            changes, key=lambda change: (change[0], change[1] > change[0], *change[2:4])
        ):
            if start < position:
                raise Refused(f"{self.source.name}: two changes meet at one place.", "Make one of them by hand.")
            parts += [self.source.text[position:start], text]
            position = end
        return "".join([*parts, self.source.text[position:]])

    def _fill(self, parent: Value, entry: Entry, tree: Any) -> None:
        """Give a value to a key that has none, or ``null``."""
        if entry.value.end > entry.value.start:
            self.set(entry.value, self.flow(tree))
        elif parent.flow:
            raise Refused(
                f"{parent.place}: a key without a value in a mapping in braces.", "Write null, or the value, there."
            )
        else:
            column = self._column(entry.key_start) + STEP
            self._lines(entry.key_end, column, _block(tree, column))

    def _raw(self, value: Value) -> str:
        """The value's text without anchor and tag.

        :raises Refused: it is an alias.
        """
        self._own(value)
        if value.alias_of:
            raise Refused(
                f"{value.place}: the value comes from an anchor.", "Write the value out there, then run again."
            )
        return re.sub(r"\A(?:[&!]\S*\s+)+", "", value.raw)

    def _check(self, value: Value) -> None:
        """Adding to a collection that an anchor names would add to every place that uses it."""
        self._own(value)
        if value.raw.startswith("&") or value.alias_of:
            raise Refused(
                f"{value.place}: others may use this by its anchor.",
                "Write the value out where it has to differ, then run again.",
            )

    def _own(self, value: Value) -> None:
        if value.source is not self.source:
            raise Refused(f"{value.place} is not in {self.source.name}.", f"Make {value.source.name} safe itself.")

    def _column(self, index: int) -> int:
        return len(self.source.text[self.source.text.rfind("\n", 0, index) + 1 : index].lstrip("\ufeff"))

    def _replace(self, start: int, end: int, text: str) -> None:
        if self.replaced.setdefault((start, end), text) != text:
            line = self.source.text.count("\n", 0, start) + 1
            raise Refused(
                f"{self.source.name}:{line}: two different changes meet at one place.",
                "Write the shared value out at every place that uses it.",
            )

    def _insert(self, at: int, depth: int, text: str) -> None:
        if (at, depth, text) not in self.inserted:
            self.inserted.append((at, depth, text))

    def flow(self, tree: Any) -> str:
        """Flow YAML: JSON where the file is JSON, else without quotes around simple words."""
        if isinstance(tree, Raw):
            line = " ".join(tree.split())
            return json.dumps(line[1:-1].replace("''", "'"), ensure_ascii=False) if self.is_json else line
        if isinstance(tree, Mapping):
            return "{" + ", ".join(f"{self.flow(key)}: {self.flow(value)}" for key, value in tree.items()) + "}"
        if isinstance(tree, list):
            return "[" + ", ".join(self.flow(item) for item in tree) + "]"
        simple = isinstance(tree, str) and _SIMPLE.fullmatch(tree) and not _WORD.fullmatch(tree) and not self.is_json
        return str(tree) if simple else json.dumps(tree, ensure_ascii=False)

    def _lines(self, end: int, column: int, lines: list[str]) -> None:
        """Insert lines behind the line in which *end* lies."""
        text = self.source.text
        at = text.find("\n", max(end - 1, 0) if text[end - 1 : end] == "\n" else end)
        newline = self.source.newline
        body = newline.join(lines)
        if at < 0:
            self._insert(len(text), column, newline + body)
        else:
            at -= text[at - 1 : at] == "\r"
            self._insert(at, column, newline + body)


def scalar(value: Any) -> str:
    """A scalar as block YAML, plain where that is safe in YAML 1.1, else in double quotes."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, str) and _PLAIN.fullmatch(value) and not _WORD.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _block(tree: Any, column: int) -> list[str]:
    """Block YAML, its first line at *column*."""
    pad = " " * column
    if isinstance(tree, list):
        lines: list[str] = []
        for item in tree:
            nested = _block(item, column + STEP)
            lines += [f"{pad}- {nested[0].lstrip()}", *nested[1:]]
        return lines
    lines = []
    for key, value in tree.items():
        if isinstance(value, (Mapping, list)):
            lines += [f"{pad}{key}:", *_block(value, column + STEP)]
        else:
            first, *rest = scalar(value).split("\n")
            lines += [f"{pad}{key}: {first}", *(f"{pad}{' ' * STEP}{line}" for line in rest)]
    return lines
