# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many names of tables in one regular expression that matches no other table of the schema."""

from __future__ import annotations

import re
from collections.abc import Collection

MANY = 3
"""So many tables with one beginning become a pattern of it."""
_SHORTEST = 3


def folded(names: Collection[str], others: Collection[str]) -> str:
    """An expression for whole names that matches all of *names*: beginnings that many of them share, if no table of
    *others* begins so, and the rest one by one.

    >>> folded(["country", "ACT_GE_A", "ACT_GE_B", "ACT_GE_C"], ["ACT_RU_TASK"])
    '^(ACT_GE_.*|country)$'
    """
    left, parts = set(names), list[str]()
    for beginning in _beginnings(names):
        found = {name for name in left if name.startswith(beginning)}
        if len(found) >= MANY and not any(name.startswith(beginning) for name in others):
            parts.append(f"{_escaped(beginning)}.*")
            left -= found
    parts += map(_escaped, left)
    return f"^({'|'.join(sorted(parts))})$" if len(parts) > 1 else f"^{parts[0]}$"


def _beginnings(names: Collection[str]) -> list[str]:
    """Beginnings that end with an underscore or a dot, short ones first."""
    found = {name[: match.end()] for name in names for match in re.finditer(r"[_.](?=.)", name)}
    return sorted((each for each in found if len(each) > _SHORTEST), key=lambda each: (len(each), each))


def _escaped(name: str) -> str:
    """As :func:`re.escape`, but leaves alone what means itself: people have to read it."""
    return re.sub(r"[.^$*+?{}\[\]\\|()]", r"\\\g<0>", name)
