# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``tenants.json`` of a landscape repository: one entry is edited, every other character stays as people wrote it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class _Entry:
    """One top-level entry: where its key begins, where its value begins and ends, and the value."""

    start: int
    value_start: int
    end: int
    value: Any


class TenantsFile:
    """The text of a ``tenants.json``: a JSON object, subdomain → the tenant's configuration.

    :param text: the file's text; empty stands for a file that does not exist yet.
    :param name: how the file is called in errors.
    :raises InputError: it is no JSON object, or has an entry twice.
    """

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self.text = text if text.strip() else "{}\n"
        try:
            self._entries = self._scan()
        except ValueError as error:
            raise InputError(f"{name} is not a JSON object of tenants: {error}.", "Repair the file by hand.") from error

    def get(self, subdomain: str) -> dict[str, Any] | None:
        """The tenant's configuration.

        :raises InputError: the entry is no JSON object.
        """
        entry = self._entries.get(subdomain)
        if entry is None:
            return None
        if not isinstance(entry.value, dict):
            raise InputError(f"The entry {subdomain} of {self.name} is no JSON object.", "Repair the file by hand.")
        return dict(entry.value)

    def replaced(self, subdomain: str, value: dict[str, Any] | None) -> str:
        """The file's text with this entry set, or with ``None`` removed."""
        entry = self._entries.get(subdomain)
        if value is None:
            return self._without(subdomain) if entry else self.text
        if entry:
            one_line = "\n" not in self.text[entry.value_start : entry.end]
            return self.text[: entry.value_start] + self._dump(value, one_line) + self.text[entry.end :]
        one_line = bool(self._entries) and all(
            "\n" not in self.text[known.value_start : known.end] for known in self._entries.values()
        )
        added = f"{self._newline}{self._indent}{json.dumps(subdomain)}: {self._dump(value, one_line)}"
        if self._entries:
            end = list(self._entries.values())[-1].end
            return f"{self.text[:end]},{added}{self.text[end:]}"
        opening = self.text.index("{") + 1
        closing = self.text.rindex("}")
        return f"{self.text[:opening]}{added}{self._newline}{self.text[closing:]}"

    @property
    def _newline(self) -> str:
        return "\r\n" if "\r\n" in self.text else "\n"

    @property
    def _indent(self) -> str:
        for entry in self._entries.values():
            lead = re.search(r"\n([ \t]*)\Z", self.text[: entry.start])
            if lead:
                return lead[1]
        return "  "

    def _dump(self, value: dict[str, Any], one_line: bool) -> str:
        ascii_only = self.text.isascii()
        if one_line:
            return json.dumps(value, ensure_ascii=ascii_only)
        lines = json.dumps(value, indent=self._indent or "  ", ensure_ascii=ascii_only).split("\n")
        return (self._newline + self._indent).join(lines)

    def _without(self, subdomain: str) -> str:
        """Remove an entry with the comma and the space that belong to it."""
        names = list(self._entries)
        place = names.index(subdomain)
        entry = self._entries[subdomain]
        if place + 1 < len(names):
            return self.text[: entry.start] + self.text[self._entries[names[place + 1]].start :]
        if place:
            return self.text[: self._entries[names[place - 1]].end] + self.text[entry.end :]
        return self.text[: self.text.index("{") + 1] + self.text[self.text.rindex("}") :]

    def _scan(self) -> dict[str, _Entry]:
        position = self._skip(0)
        if not self.text.startswith("{", position):
            raise ValueError("it does not begin with {")
        position = self._skip(position + 1)
        entries: dict[str, _Entry] = {}
        while not self.text.startswith("}", position):
            if entries:
                position = self._skip(self._expect(",", position))
            key, after = _DECODER.raw_decode(self.text, position)
            if not isinstance(key, str):
                raise ValueError(f"{key!r} is no key")
            if key in entries:
                raise ValueError(f"{key} stands in it twice")
            value_start = self._skip(self._expect(":", self._skip(after)))
            value, end = _DECODER.raw_decode(self.text, value_start)
            entries[key] = _Entry(position, value_start, end, value)
            position = self._skip(end)
        if self._skip(position + 1) != len(self.text):
            raise ValueError(f"text follows after its end at character {position + 1}")
        return entries

    def _skip(self, position: int) -> int:
        match = _SPACE.match(self.text, position)
        return match.end() if match else position

    def _expect(self, character: str, position: int) -> int:
        if not self.text.startswith(character, position):
            raise ValueError(f"{character!r} is missing at character {position}")
        return position + 1
