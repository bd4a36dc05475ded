# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""YAML that a person owns: every value with the place where it is written, so that single lines can be changed and
named.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.mta.archive import DESCRIPTOR, Archive

try:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError
except ImportError:
    HAS_RUAMEL = False
else:
    from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.scanner import TabScanner

    HAS_RUAMEL = True

_MAX_WEIGHT = 200_000
_MAX_DEPTH = 100
_BREAK = re.compile(r"\r\n|\r|\n")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_WORDS: dict[str, Any] = {
    "": None,
    "~": None,
    "null": None,
    "true": True,
    "yes": True,
    "on": True,
    "false": False,
    "no": False,
    "off": False,
}


@dataclass(frozen=True)
class Source:
    """A file's name, as the caller gave it, and its text."""

    name: str
    text: str

    def line(self, index: int) -> int:
        """The number of the line in which *index* lies, counted from 1."""
        return sum(1 for _break in _BREAK.finditer(self.text, 0, index)) + 1

    def line_start(self, index: int) -> int:
        """Where the line in which *index* lies begins."""
        return max(self.text.rfind(mark, 0, index) for mark in "\r\n") + 1

    def line_end(self, index: int) -> int:
        """Where the line in which *index* lies ends, before its line break."""
        match = _BREAK.search(self.text, index)
        return match.start() if match else len(self.text)

    def newline(self, index: int) -> str:
        """How the line in which *index* lies ends; at the end of the text, how the one before does."""
        match = _BREAK.search(self.text, index)
        breaks = [match] if match else [*_BREAK.finditer(self.text)][-1:]
        return breaks[0][0] if breaks else "\n"


@dataclass(frozen=True)
class Entry:
    """One key of a mapping. ``merged`` says that it comes from ``<<`` and is not written in the mapping itself."""

    value: Value
    key_start: int
    key_end: int
    merged: bool = False


@dataclass(frozen=True, eq=False)
class Value:
    """A value, its place (``line`` and ``column`` count from 1) and its text, ``source.text[start:end]``.

    ``data`` is a scalar of YAML 1.1, which the deploy service reads, a list of values or a dictionary of
    :class:`Entry`.
    An alias has the place of the alias and the data of its anchor, ``alias_of``. ``shared`` of a whole document tells
    from where to where it is written what aliases repeat, ``tabs`` where the deploy service reads no tab.
    """

    source: Source
    data: Any
    start: int
    end: int
    line: int
    column: int
    flow: bool = False
    style: str | None = None
    alias_of: Value | None = None
    weight: int = 1
    shared: tuple[tuple[int, int], ...] = ()
    tabs: tuple[Value, ...] = ()

    @property
    def place(self) -> str:
        return f"{self.source.name}:{self.line}:{self.column}"

    @property
    def written(self) -> Value:
        """Where its text is: the anchor of an alias."""
        return self.alias_of.written if self.alias_of else self

    @property
    def raw(self) -> str:
        """The value as it is written."""
        return self.source.text[self.start : self.end]

    @property
    def mapping(self) -> dict[str, Entry]:
        """The entries of a mapping; none when it is something else."""
        return self.data if isinstance(self.data, dict) else {}

    @property
    def items(self) -> list[Value]:
        """The values of a list; none when it is something else."""
        return self.data if isinstance(self.data, list) else []

    @property
    def text(self) -> str:
        """The string; empty when it is something else."""
        return self.data if isinstance(self.data, str) else ""

    def get(self, *path: str) -> Value | None:
        """The value below the keys of *path*; ``None`` when there is none."""
        found: Value = self
        for key in path:
            entry = found.mapping.get(key)
            if entry is None:
                return None
            found = entry.value
        return found

    def string(self, *path: str) -> str:
        """The string below the keys of *path*; empty when there is none."""
        found = self.get(*path)
        return found.text if found else ""

    def listed(self, *path: str) -> list[Value]:
        """The values of the list below the keys of *path*; none when there is no list."""
        found = self.get(*path)
        return found.items if found else []

    def strings(self) -> Iterator[Value]:
        """All strings in it, nested ones too."""
        if isinstance(self.data, str):
            yield self
        for child in [*self.items, *(entry.value for entry in self.mapping.values())]:
            yield from child.strings()

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.data, dict):
            return {key: entry.value.plain() for key, entry in self.data.items()}
        return [item.plain() for item in self.data] if isinstance(self.data, list) else self.data


def read(path: str) -> Source:
    """Read a file.

    :raises InputError: it can't be read or is no UTF-8.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return Source(path, file.read())
    except OSError as error:
        raise InputError(
            f"{path} can't be read: {error.strerror}.", "Name an existing descriptor that this user may read."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8: byte {error.start} can't be decoded.", "Save the descriptor as UTF-8."
        ) from error


def read_archived(archive: Archive) -> Source:
    """Read the deployment descriptor in an archive.

    :raises InputError: it is no UTF-8.
    """
    name = f"{archive.source}/{DESCRIPTOR}"
    with zipfile.ZipFile(archive.path) as zipped:
        try:
            return Source(name, zipped.read(DESCRIPTOR).decode())
        except UnicodeDecodeError as error:
            raise InputError(
                f"{name} is not UTF-8: byte {error.start} can't be decoded.", "Save the descriptor as UTF-8."
            ) from error


def parse(source: Source) -> Value:
    """Parse one YAML document.

    :raises InputError: no YAML, more or less than one document, a key twice in a mapping, too deep or too large; the
        message names the line.
    :raises ZdmError: the Python package ruamel.yaml is missing.
    """
    if not HAS_RUAMEL:
        raise ZdmError(
            "The Python package ruamel.yaml is missing.", "Install it where the module runs: pip install ruamel.yaml"
        )
    try:
        builder = _Builder(source)
        library = YAML(typ="safe", pure=True)
        library.Scanner = TabScanner
        for event in library.parse(source.text):
            builder.take(event)
        return replace(builder.document(), tabs=tuple(builder.place(tab) for tab in library.scanner.tabs))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source.name}:{mark.line + 1}:{mark.column + 1}" if mark else source.name
        line = source.text[source.line_start(mark.index) : source.line_end(mark.index)] if mark else ""
        slashes = "// begins no comment in YAML: write # in place of it." if " //" in line else ""
        raise InputError(
            f"{where} is not YAML: {error.problem or error.context}.",
            slashes or "Correct the line; an online or editor check of YAML helps.",
        ) from error
    except YAMLError as error:
        number = source.line(getattr(error, "position", 0))
        raise InputError(
            f"{source.name}:{number} is not YAML: {str(error).splitlines()[0]}.", "Remove the character."
        ) from error


def _scalar(event: Any) -> Any:
    """A scalar's data: YAML 1.1's booleans, null and integers when it is plain and has no tag, else a string."""
    value: str = event.value
    if event.style or not event.implicit[0]:
        return value
    if value.lower() in _WORDS:
        return _WORDS[value.lower()]
    return int(value) if _INTEGER.fullmatch(value) and len(value) < 19 else value


@dataclass
class _Open:
    """A collection whose end was not seen yet. ``pending`` is the key that waits for its value."""

    event: Any
    data: Any
    pending: Value | None = None
    merges: list[Value] = field(default_factory=list)
    weight: int = 1
    end: int = 0


class _Builder:
    """Builds values from the parser's events."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.documents: list[Value] = []
        self.anchors: dict[str, Value] = {}
        self.stack: list[_Open] = []
        self.repeated: list[Value] = []

    def take(self, event: Any) -> None:
        name = type(event).__name__
        if name in ("MappingStartEvent", "SequenceStartEvent"):
            if len(self.stack) == _MAX_DEPTH:
                raise self._error(event, f"more than {_MAX_DEPTH} levels", "Write a descriptor with fewer levels.")
            self.stack.append(_Open(event, {} if name.startswith("Mapping") else [], end=event.end_mark.index))
        elif name in ("MappingEndEvent", "SequenceEndEvent"):
            opened = self.stack.pop()
            end = event.end_mark.index if opened.event.flow_style else opened.end
            if isinstance(opened.data, dict):
                self._merge(opened)
            flow = bool(opened.event.flow_style)
            self._add(self._value(opened.event, opened.data, end, flow=flow, weight=opened.weight), opened.event.anchor)
        elif name == "ScalarEvent":
            end = event.end_mark.index
            if event.style in ("|", ">") and "+" not in _header(self.source.text, event):
                end = event.start_mark.index + len(self.source.text[event.start_mark.index : end].rstrip())
            self._add(self._value(event, _scalar(event), end, style=event.style), event.anchor)
        elif name == "AliasEvent":
            target = self.anchors.get(event.anchor)
            if target is None:
                raise self._error(
                    event,
                    f"*{event.anchor} has no anchor before it",
                    f"Write &{event.anchor} at the value that it stands for.",
                )
            self.repeated.append(target)
            self._add(
                self._value(event, target.data, event.end_mark.index, alias_of=target, weight=target.weight), None
            )

    def document(self) -> Value:
        if len(self.documents) != 1:
            if not self.documents:
                raise InputError(f"{self.source.name} is empty.", "A descriptor is one YAML document.")
            raise InputError(
                f"{self.source.name} has {len(self.documents)} YAML documents, the second from line"
                f" {self.documents[1].line} on.",
                "A descriptor is one YAML document: the deploy service reads no more.",
            )
        return replace(self.documents[0], shared=tuple((value.start, value.end) for value in self.repeated))

    def _value(self, event: Any, data: Any, end: int, **more: Any) -> Value:
        mark = event.start_mark
        return Value(self.source, data, mark.index, end, mark.line + 1, mark.column + 1, **more)

    def place(self, index: int) -> Value:
        """A character of the text, as a value without data."""
        return Value(
            self.source, None, index, index + 1, self.source.line(index), index - self.source.line_start(index) + 1
        )

    def _error(self, event: Any, what: str, advice: str) -> InputError:
        return InputError(
            f"{self.source.name}:{event.start_mark.line + 1}:{event.start_mark.column + 1}: {what}.", advice
        )

    def _add(self, value: Value, anchor: str | None) -> None:
        if anchor:
            self.anchors[anchor] = value
        if not self.stack:
            self.documents.append(value)
            return
        opened = self.stack[-1]
        opened.weight += value.weight
        if opened.weight > _MAX_WEIGHT:
            raise InputError(
                f"{value.place}: the anchors expand to more than {_MAX_WEIGHT} values.",
                "Write a descriptor with fewer aliases.",
            )
        if value.data is not None or value.end > value.start:
            opened.end = max(opened.end, value.end)
        if isinstance(opened.data, list):
            opened.data.append(value)
        elif opened.pending is None:
            if isinstance(value.data, (dict, list)):
                raise InputError(f"{value.place}: a key is a mapping or a list.", "Keys of a descriptor are strings.")
            opened.pending = value
        else:
            self._pair(opened, opened.pending, value)
            opened.pending = None

    def _pair(self, opened: _Open, key: Value, value: Value) -> None:
        name = key.text or key.raw
        if name == "<<" and key.style is None:
            opened.merges += value.items or [value]
            return
        if name in opened.data:
            first = self.source.line(opened.data[name].key_start)
            raise InputError(
                f"{key.place}: the key {name} is written twice, first in line {first}.", "Keep one of them."
            )
        opened.data[name] = Entry(value, key.start, key.end)

    def _merge(self, opened: _Open) -> None:
        """Add what ``<<`` brings: own keys win, then the first of the merged mappings."""
        for merged in opened.merges:
            if not isinstance(merged.data, dict):
                raise InputError(
                    f"{merged.place}: << takes a mapping.", "Name the anchor of a mapping, or a list of such."
                )
            for name, entry in merged.mapping.items():
                opened.data.setdefault(name, Entry(entry.value, entry.key_start, entry.key_end, merged=True))


def _header(text: str, event: Any) -> str:
    """The line in which a block scalar begins: its indicators."""
    return text[event.start_mark.index : event.end_mark.index].partition("\n")[0]


def names(value: Value | None) -> dict[str, Value]:
    """The mappings of a list by their ``name``."""
    found: dict[str, Value] = {}
    for item in value.items if value else []:
        name = item.get("name")
        if name and name.text:
            found[name.text] = item
    return found
