# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The strategies of a participant's tables in a few characters, for the digest that people sign and type."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    IN_PLACE,
    RELABEL,
    ROOT,
    STAYING,
    TWIN,
    TablePlan,
)

_LETTERS = {IN_PLACE: "i", TWIN: "t", ROOT: "c", RELABEL: "r"}
_STRATEGIES = {letter: strategy for strategy, letter in _LETTERS.items()}
_NONE = "0"


def written(tables: Iterable[TablePlan]) -> str:
    """The strategies of the tables that change id, in the order of their names: ``12i3t`` are twelve in place, then
    three twins; ``0`` when there are no tables.
    """
    named = sorted((table.table, table.strategy) for table in tables if table.strategy not in STAYING)
    runs = itertools.groupby(_LETTERS[strategy] for _name, strategy in named)
    return "".join(f"{len(list(run))}{letter}" for letter, run in runs) or _NONE


def read(text: str, names: Sequence[str]) -> dict[str, str]:
    """The strategies by table; empty when *text* is not of so many tables, or wrong."""
    letter = f"[{''.join(_STRATEGIES)}]"
    if not re.fullmatch(f"([1-9][0-9]{{0,5}}{letter})+", text):
        return {}
    runs = [(int(count), kind) for count, kind in re.findall(f"([0-9]+)({letter})", text)]
    if sum(count for count, _letter in runs) != len(names):
        return {}
    letters = itertools.chain.from_iterable(letter * count for count, letter in runs)
    return {name: _STRATEGIES[letter] for name, letter in zip(sorted(names), letters, strict=True)}
