# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An extension descriptor laid over a descriptor, every value with the place where it is written."""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Entry, Value, names


def overlay(base: Value, over: Value) -> Value:
    """*over* laid over *base* as an extension descriptor is: mappings by key, lists of named mappings by name, all else
    replaced.
    """
    if isinstance(base.data, dict) and isinstance(over.data, dict):
        merged: dict[str, Entry] = dict(base.data)
        for key, entry in over.data.items():
            below = base.data.get(key)
            merged[key] = Entry(overlay(below.value, entry.value), entry.key_start, entry.key_end) if below else entry
        return replace(base, data=merged, tabs=(*base.tabs, *over.tabs))
    if names(base) and isinstance(over.data, list) and len(names(over)) == len(over.data):
        extra = names(over)
        kept = [overlay(item, extra.pop(name)) if name in extra else item for name, item in names(base).items()]
        return replace(base, data=[*kept, *extra.values()])
    return over
