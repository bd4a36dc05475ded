# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every write of a window and of an undo, in the order of the cutover protocol; see :mod:`recorder` for the names.

A test compares them with what a run without a fault writes, so that none can be missing here.
"""

from __future__ import annotations

SERVICES = ("subscriptions", "bills", "rating", "documents")
ROUTERS = ("router-1", "router-2")


def at(operation: str, *objects: str) -> list[str]:
    return [f"{operation}:{name}" for name in objects]


WINDOW = [
    *at("take_over I>W", "journal"),
    *at("claim", "venezia", "venezia-scp"),
    *at("take_over", *SERVICES, *ROUTERS),
    *at("lease", *ROUTERS),
    *at("prelude", *SERVICES),
    *at("phase W>C", "journal"),
    *at("close", *ROUTERS),
    *at("drained", "journal"),
    *at("barrier", *SERVICES),
    *at("phase C>K", "journal"),
    *at("mapping_documents", "venezia", "venezia-scp"),
    *at("turn", *SERVICES),
    *at("map", *ROUTERS),
    *at("phase K>R", "journal"),
    *at("release", *ROUTERS),
    *at("phase R>I", "journal"),
]
UNDO = [
    *at("phase C>U", "journal"),
    *at("undo", *SERVICES),
    *at("map", *ROUTERS),
    *at("phase U>V", "journal"),
    *at("release", *ROUTERS),
    *at("phase V>I", "journal"),
]
BARRIER = [*at("row fenced", *SERVICES), *at("row moved", *SERVICES)]
"""The writes of the barrier's two transactions."""
FAILING = "barrier:documents"
STAGE = [
    *at("claim", "venezia", "venezia-scp"),
    *at("take_over I>I", "journal"),
    *at("stage", *SERVICES),
]
REMOVE = [
    *at("take_over I>I", "journal"),
    *at("remove", *SERVICES),
    *at("free", "venezia", "venezia-scp"),
]
