# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The config store that a module's options name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import Store
from ansible_collections.zdm.landscape.plugins.module_utils.store.file import FileStore

STORES: dict[str, Callable[[Mapping[str, Any]], Store]] = {
    "file": lambda options: FileStore(options["path"]),
}


def build_store(params: Mapping[str, Any]) -> Store:
    """The config store of ``params["store"]``.

    :raises InputError: for a kind that does not exist.
    """
    options = params["store"]
    kind = options.get("kind") or "file"
    if kind not in STORES:
        raise InputError(f"store.kind {kind!r} does not exist.", f"Use one of: {', '.join(sorted(STORES))}.")
    return STORES[kind](options)
