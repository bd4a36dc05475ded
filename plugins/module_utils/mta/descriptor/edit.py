# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of single lines of a descriptor: everything else keeps its bytes, and the result says what was meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, Refused
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Entry, Source, Value, parse
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.written import (
    STEP,
    Raw,
    block,
    flow,
    meaning,
    scalar,
)


@dataclass(frozen=True)
class _Piece:
    """YAML to insert: behind a line as block YAML at *column*, or within one as flow YAML where that is ``None``.

    Of several at one place the deeper ones come first. ``owner`` is the place of the mapping that gets a key.
    """

    at: int
    depth: int
    tree: Any
    column: int | None
    comma: bool = False
    owner: int = -1


@dataclass
class _Changes:
    """What was changed so far: in the text, and in the data that the text stands for.

    Text: ``replaced`` by range, and ``pieces``. Data: by the place where a scalar, mapping, list or key is written.
    """

    replaced: dict[tuple[int, int], str] = field(default_factory=dict)
    pieces: list[_Piece] = field(default_factory=list)
    scalars: dict[int, Any] = field(default_factory=dict)
    added: dict[int, dict[str, Any]] = field(default_factory=dict)
    appended: dict[int, list[Any]] = field(default_factory=dict)
    filled: dict[int, Any] = field(default_factory=dict)

    def copy(self) -> _Changes:
        return _Changes(
            dict(self.replaced),
            list(self.pieces),
            dict(self.scalars),
            deepcopy(self.added),
            {place: list(items) for place, items in self.appended.items()},
            dict(self.filled),
        )

    def meant(self, value: Value) -> Any:
        """The data below a value after the changes."""
        place = value.written.start
        if place in self.scalars:
            return self.scalars[place]
        if isinstance(value.data, dict):
            data = {
                key: self.filled.get(entry.key_start) or self.meant(entry.value) for key, entry in value.data.items()
            }
            return {**data, **self.added.get(place, {})}
        if isinstance(value.data, list):
            return [*map(self.meant, value.data), *self.appended.get(place, [])]
        return value.data


class Edits:
    """Collects changes of one text and applies them together.

    :param root: the text, parsed.
    :raises Refused: (all methods) the change would not only touch what is meant, or two changes meet at one place.
    """

    def __init__(self, root: Value) -> None:
        self.root = root
        self.source = source = root.source
        self.is_json = source.text.lstrip("\ufeff \t\r\n").startswith("{")
        self._now = _Changes()
        self._steps: list[_Changes] = []

    def __bool__(self) -> bool:
        return bool(self._now.replaced or self._now.pieces)

    def checkpoint(self) -> Callable[[], None]:
        """What takes back every change that is made after this call."""
        before = self._now.copy()

        def restore() -> None:
            self._now = before.copy()

        return restore

    def end_step(self) -> int:
        """Close what belongs together; its number counts from 0."""
        self._steps.append(self._now.copy())
        return len(self._steps) - 1

    def replace_in(self, value: Value, old: str, new: str, everywhere: bool = False) -> None:
        r"""Replace every *old* inside a string that is not escaped (``\${…}``). Several changes of one string add up.

        :param old: a placeholder or a reference.
        :param everywhere: the change is meant for all who repeat the string by an anchor.
        """
        value = value.written
        if not everywhere:
            self._check(value)
        raw, pattern = self._raw(value), re.compile(rf"(?<!\\){re.escape(old)}")
        found = list(pattern.finditer(raw))
        if len(found) != len(pattern.findall(value.text)):
            raise Refused(f"{value.place}: {old} is not written in one piece.", f"Write {new} there by hand.")
        start = value.start + len(value.raw) - len(raw)
        spans = [(start + match.start(), start + match.end()) for match in found]
        if all(self._now.replaced.get(span) == new for span in spans):
            return
        for span in spans:
            self._replace(*span, new)
        text = self._now.scalars.get(value.start, value.text)
        self._now.scalars[value.start] = pattern.sub(lambda _match: new, text)

    def set(self, value: Value, tree: Any) -> None:
        """Replace a scalar, an alias or an empty collection.

        :param tree: dictionaries, lists and scalars.
        """
        raw = self._raw(value)
        self._check(value)
        if value.start == value.end:
            raise Refused(f"{value.place}: there is no value.", "Write one, or remove the key, then run again.")
        start = value.start + len(value.raw) - len(raw)
        text = scalar(tree) if isinstance(tree, Raw) and not self.is_json else flow(tree, self.is_json)
        if "\n" in text:
            line = self.source.text[self.source.line_start(value.start) : value.start]
            pad = " " * (len(line) - len(line.lstrip(" -")) + STEP)
            text = f"{self.source.newline(value.start)}{pad}".join(text.split("\n"))
        self._replace(start, value.start + len(value.raw.rstrip()), text)
        self._now.scalars[value.start] = meaning(tree)

    def put(self, parent: Value, key: str, tree: Any, after: Entry | None = None) -> None:
        """Add a key to a mapping, behind the entry *after* or at its end. An own key of that name must not exist.

        :param tree: dictionaries, lists and scalars.
        """
        self._check(parent)
        known = self._now.added.setdefault(parent.start, {})
        if key in known:
            if known[key] != meaning(tree):
                raise Refused(f"{parent.place}: two different values of {key}.", f"Write {key} there by hand.")
            return
        known[key] = meaning(tree)
        own = [entry for entry in parent.mapping.values() if not entry.merged]
        if parent.flow:
            if not parent.raw.startswith("{"):
                raise Refused(f"{parent.place}: a mapping without braces.", "Write it in braces, then run again.")
            last = max((max(entry.value.end, entry.key_end) for entry in own), default=0)
            at = last or parent.start + 1
            self._now.pieces.append(_Piece(at, 0, {key: tree}, None, comma=bool(last), owner=parent.start))
            return
        if not own:  # nothing but <<
            self._lines(parent.end, parent.column - 1, {key: tree}, parent.start)
            return
        chosen = after if after in own else own[-1]
        end = chosen.key_end if chosen.value.end == chosen.value.start else chosen.value.end
        self._lines(end, self._column(own[0].key_start), {key: tree}, parent.start)

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
                self.set(entry.value, {child: tree})
        else:
            raise Refused(f"{entry.value.place}: {key} is not a mapping.", f"Correct {key}.")

    def set_flag(self, owner: Value, flag: str) -> None:
        """Set a parameter of a module or of an entry of its ``provides`` to true."""
        parameters = owner.get("parameters")
        entry = parameters.mapping.get(flag) if parameters else None
        if entry and not entry.merged and entry.value.data is not None:
            self.set(entry.value, True)
        else:
            self.put_below(owner, "parameters", flag, True)

    def append(self, parent: Value, key: str, item: Mapping[str, Any]) -> None:
        """Add an item to the list ``key``, which may be missing or empty."""
        entry = parent.mapping.get(key)
        if entry is None and key in self._now.added.get(parent.start, {}):
            self._grow(parent, key, item)
        elif entry is None:
            self.put(parent, key, [item])
        elif entry.value.data is None:
            self._fill(parent, entry, [item])
        elif isinstance(entry.value.data, list) and not entry.merged:
            value = entry.value
            self._check(value)
            known = self._now.appended.setdefault(value.start, [])
            if meaning(item) in known:
                return
            known.append(meaning(item))
            if not value.data:
                self._replace(value.start, value.end, flow([item], self.is_json))
            elif value.flow:
                self._now.pieces.append(_Piece(value.items[-1].end, 0, [item], None, comma=True))
            else:
                self._lines(value.end, value.column - 1, [item])
        else:
            raise Refused(
                f"{entry.value.place}: nothing can be added to {key}.", f"Write {key} out as a list of its own."
            )

    def apply(self) -> str:
        """The changed text."""
        return self._applied(self._now)

    def broken(self) -> int | None:
        """Number of the first step after which the text does not say what was meant; ``None`` when all do."""
        if self._right(self._now):
            return None
        return next(number for number, step in enumerate(self._steps) if not self._right(step))

    def _right(self, changes: _Changes) -> bool:
        try:
            after = parse(Source(self.source.name, self._applied(changes)))
        except (InputError, Refused):
            return False
        return bool(after.plain() == changes.meant(self.root))

    def _applied(self, changes: _Changes) -> str:
        pieces = [(start, end, (0, 0, 0), text) for (start, end), text in changes.replaced.items()]
        pieces += [
            (piece.at, piece.at, (1 + (piece.column is not None), -piece.depth, number), self._shown(piece))
            for number, piece in enumerate(changes.pieces)
        ]
        parts, position = [], 0
        for start, end, _order, text in sorted(pieces, key=lambda piece: (piece[0], piece[1] > piece[0], piece[2])):
            if start < position:
                raise Refused(f"{self.source.name}: two changes meet at one place.", "Make one of them by hand.")
            parts += [self.source.text[position:start], text]
            position = end
        return "".join([*parts, self.source.text[position:]])

    def _shown(self, piece: _Piece) -> str:
        if piece.column is None:
            return (", " if piece.comma else "") + flow(piece.tree, self.is_json)[1:-1]
        return "".join(self.source.newline(piece.at) + line for line in block(piece.tree, piece.column))

    def _grow(self, parent: Value, key: str, item: Mapping[str, Any]) -> None:
        """Add an item to a list that was added itself."""
        known = self._now.added[parent.start][key]
        if meaning(item) in known:
            return
        known.append(meaning(item))
        for number, piece in enumerate(self._now.pieces):
            if piece.owner == parent.start and key in piece.tree:
                self._now.pieces[number] = replace(piece, tree={key: [*piece.tree[key], item]})

    def _fill(self, parent: Value, entry: Entry, tree: Any) -> None:
        """Give a value to a key that has none, or ``null``."""
        if entry.value.end > entry.value.start:
            self.set(entry.value, tree)
        elif parent.flow:
            raise Refused(
                f"{parent.place}: a key without a value in a mapping in braces.", "Write null, or the value, there."
            )
        elif entry.key_start in self._now.filled:
            if self._now.filled[entry.key_start] != meaning(tree):
                raise Refused(f"{entry.value.place}: two different values.", "Write them there by hand.")
        else:
            self._now.filled[entry.key_start] = meaning(tree)
            self._lines(entry.key_end, self._column(entry.key_start) + STEP, tree)

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
        """What aliases repeat would change in every place that uses it. A collection with an anchor is left alone even
        when nothing repeats it yet.
        """
        self._own(value)
        is_anchored = value.raw.startswith("&") and isinstance(value.data, (dict, list))
        if is_anchored or value.alias_of or any(start <= value.start < end for start, end in self.root.shared):
            raise Refused(
                f"{value.place}: others may use this by its anchor.",
                "Write the value out where it has to differ, then run again.",
            )

    def _own(self, value: Value) -> None:
        if value.source is not self.source:
            raise Refused(f"{value.place} is not in {self.source.name}.", f"Make {value.source.name} safe itself.")

    def _column(self, index: int) -> int:
        return len(self.source.text[self.source.line_start(index) : index].lstrip("\ufeff"))

    def _replace(self, start: int, end: int, text: str) -> None:
        if self._now.replaced.setdefault((start, end), text) != text:
            raise Refused(
                f"{self.source.name}:{self.source.line(start)}: two different changes meet at one place.",
                "Write the shared value out at every place that uses it.",
            )

    def _lines(self, end: int, column: int, tree: Any, owner: int = -1) -> None:
        """Insert a tree behind the line in which *end* lies."""
        at = self.source.line_end(end)
        if self.source.text[:end].endswith(("\r", "\n")):  # a block scalar that keeps its empty lines
            at = self.source.line_end(end - len(self.source.newline(end - 1)))
        # An item belongs before a key of the same column: a list may stand right below its key.
        self._now.pieces.append(_Piece(at, 2 * column + isinstance(tree, list), tree, column, owner=owner))
