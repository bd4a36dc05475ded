# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Durations are written ``500ms``, ``20s``, ``5m``, ``12h`` or ``28d`` and parsed here only."""

from __future__ import annotations

import re

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError

NO_LIMIT = "none"
"""Stands for no limit, where a duration is one."""
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_ms(value: object, what: str) -> int:
    """Return a duration in whole milliseconds.

    :param value: a string such as ``20s``.
    :param what: the name of the option, for the error.
    :raises InputError: when it is no positive duration with a unit.
    """
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    result = round(float(match[1]) * _UNITS[match[2]]) if match else 0
    if result <= 0:
        raise InputError(
            f"{what} {value!r} is not a duration.", "Write a positive number and a unit: 500ms, 20s, 5m, 12h or 28d."
        )
    return result


def format_ms(value: int) -> str:
    """Write milliseconds in the largest unit that keeps them whole, as :func:`parse_ms` reads them."""
    for unit in ("d", "h", "m", "s"):
        if value and value % _UNITS[unit] == 0:
            return f"{value // _UNITS[unit]}{unit}"
    return f"{value}ms"
