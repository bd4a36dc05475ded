# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tabs in descriptors. The builder of archives (go-yaml) reads a tab between the parts of a line, and writes the
deployment descriptor anew; the deploy service (SnakeYAML) reads one in and behind a plain scalar only.
"""

from __future__ import annotations

import re
from typing import Any

try:
    from ruamel.yaml.scanner import Scanner
except ImportError:  # whoever reads a descriptor says that the package is missing
    Scanner = object  # type: ignore[misc, assignment]

_BLANKS = " \t"
_LINE_ENDS = "\r\n\0"
_INDENTED = re.compile(r"(?:\A|(?<=[\r\n])) *\t")
"""A tab in front of a part of a line or a comment, in what lies between two parts."""


class TabScanner(Scanner):
    """Takes a tab wherever one of both readers does, but none in front of a value that begins a line.

    :ivar tabs: where the deploy service takes none.
    """

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader)
        self.tabs: list[int] = []

    def scan_to_next_token(self) -> None:
        start = self.reader.pointer
        super().scan_to_next_token()
        while self.reader.peek() == "\t" and (not self.allow_simple_key or self._ends_here()):
            self.reader.forward(self._blanks())
            super().scan_to_next_token()
        self.tabs += [
            start + tab.end() - 1 for tab in _INDENTED.finditer(self.reader.buffer[start : self.reader.pointer])
        ]

    def scan_plain_spaces(self, indent: Any, start_mark: Any) -> Any:
        blanks = self.reader.prefix(self._blanks())
        if "\t" in blanks:
            self.reader.forward(len(blanks))
            if self.reader.peek() not in _LINE_ENDS:
                return [blanks]
        return super().scan_plain_spaces(indent, start_mark)

    def _blanks(self) -> int:
        """How many spaces and tabs follow."""
        ahead = 0
        while self.reader.peek(ahead) in _BLANKS:
            ahead += 1
        return ahead

    def _ends_here(self) -> bool:
        """Whether nothing but a comment follows in the line."""
        return self.reader.peek(self._blanks()) in "#" + _LINE_ENDS
