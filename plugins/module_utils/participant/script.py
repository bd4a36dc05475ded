# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Statements as a database's command-line client reads them from a file."""

from __future__ import annotations

import re
from collections.abc import Iterable

_COMPOUND = re.compile(r"CREATE\b.*\bBEGIN\b", re.IGNORECASE | re.DOTALL)


def script(statements: Iterable[str], *, delimiter: bool = False) -> tuple[str, ...]:
    """The statements, each ended by a semicolon; comments stay as they are.

    :param delimiter: the client ends a statement at any semicolon, also inside the body of a trigger, unless it is told
        of another delimiter (``mariadb``).
    """
    return tuple(_ended(statement.strip(), delimiter) for statement in statements if statement.strip())


def _ended(statement: str, delimiter: bool) -> str:
    if all(line.lstrip().startswith("--") for line in statement.splitlines()):
        return statement
    bare = statement.rstrip("; \n")
    if delimiter and ";" in bare and _COMPOUND.match(bare):
        mark = next(mark for mark in ("//", "$$", "##") if mark not in bare)
        return f"DELIMITER {mark}\n{bare}{mark}\nDELIMITER ;"
    return f"{bare};"
