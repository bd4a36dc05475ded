# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All routers of a landscape as one: every verb goes to all of them at the same time, and all must succeed.

A router that does not answer is never skipped: it may still serve requests (cutover protocol, rule 5).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import (
    Refused,
    Superseded,
    Timeout,
    Unreachable,
    ZdmError,
)
from ansible_collections.zdm.landscape.plugins.module_utils.router.base import Router, RouterState

T = TypeVar("T")

_POLL_S = 0.005
# What a fleet's error is when its routers' errors differ: the first of these that occurred.
_GRAVITY = (Superseded, Refused, Unreachable)


class Fleet:
    """The routers; can be used by several threads. Errors: ``Superseded`` wins over ``Refused`` over
    ``Unreachable``.
    """

    def __init__(self, routers: Sequence[Router]) -> None:
        self.routers = tuple(routers)
        # Twice as many threads as routers: a renewal of leases need not wait for a drain.
        self._pool = ThreadPoolExecutor(max_workers=max(1, 2 * len(self.routers)), thread_name_prefix="zdm-router")

    def take_over(self, migration: str, epoch: int) -> None:
        """See :meth:`Router.take_over`, as for the verbs below."""
        self._all(lambda router: router.take_over(migration, epoch))

    def lease(self, migration: str, epoch: int, ids: Iterable[str], lease_ms: int, mode: str) -> None:
        every = list(ids)
        self._all(lambda router: router.lease(migration, epoch, every, lease_ms, mode))

    def close(self, migration: str, epoch: int, ids: Iterable[str], mode: str) -> None:
        every = list(ids)
        self._all(lambda router: router.close(migration, epoch, every, mode))

    def release(self, migration: str, epoch: int, ids: Iterable[str]) -> None:
        every = list(ids)
        self._all(lambda router: router.release(migration, epoch, every))

    def map(self, migration: str, epoch: int, overrides: Mapping[str, str | None]) -> None:
        self._all(lambda router: router.map(migration, epoch, overrides))

    def edit(self, table: str, entries: Mapping[str, str | None]) -> None:
        self._all(lambda router: router.edit(table, entries))

    def in_flight(self, ids: Iterable[str]) -> int:
        every = list(ids)
        return sum(self._all(lambda router: router.in_flight(every)))

    def drain(self, ids: Iterable[str], timeout_ms: int) -> int:
        """Wait until no router has a request of *ids* in flight; returns the milliseconds that it took.

        :raises Timeout: ``details["in_flight"]`` says how many requests hold which router up.
        """
        every, begin = list(ids), time.monotonic()
        while True:
            counts = {
                router.name: count
                for router, count in zip(self.routers, self._all(lambda router: router.in_flight(every)), strict=True)
                if count
            }
            elapsed_ms = round((time.monotonic() - begin) * 1000)
            if not counts:
                return elapsed_ms
            if elapsed_ms >= timeout_ms:
                where = ", ".join(f"{count} at router {name}" for name, count in counts.items())
                raise Timeout(
                    f"Requests of {', '.join(every)} are still in flight after {elapsed_ms} ms: {where}.",
                    "Look for a request that does not end (an event stream, a tunnel, a long report), or allow a longer"
                    " drain_timeout.",
                    in_flight=counts,
                    ids=every,
                )
            time.sleep(_POLL_S)

    def states(self, usage: bool = False) -> list[RouterState]:
        """The state of every router, in the fleet's order."""
        return self._all(lambda router: router.state(usage))

    @staticmethod
    def compare(states: Sequence[RouterState]) -> list[str]:
        """In what the routers' maps differ, one sentence each; a lease may end at different times."""
        if not states:
            return []
        views = {state.name: _view(state) for state in states}
        keys = sorted({key for view in views.values() for key in view})
        result = []
        for key in keys:
            values = {name: view.get(key, "nothing") for name, view in views.items()}
            if len(set(values.values())) > 1:
                result.append(
                    f"The routers differ in {key[0]} of {key[1]}:"
                    f" {', '.join(f'{name} has {value}' for name, value in values.items())}."
                )
        return result

    def _all(self, verb: Callable[[Router], T]) -> list[T]:
        futures = [self._pool.submit(verb, router) for router in self.routers]
        results: list[T] = []
        errors: list[ZdmError] = []
        for future in futures:
            try:
                results.append(future.result())
            except ZdmError as error:
                errors.append(error)
        if errors:
            raise _together(errors)
        return results


def _view(state: RouterState) -> dict[tuple[str, str], str]:
    """What must be equal at all routers: (map, key) → value."""
    view = {("the override", key): value for key, value in state.overrides.items()}
    view |= {("the home", key): value for key, value in state.onboarded.items()}
    view |= {("the subdomain", key): value for key, value in state.subdomains.items()}
    view |= {("the decommissioning", key): "yes" for key in state.decommissioned}
    view |= {
        ("the block", key): f"{block.mode} by {block.migration}{' until released' if block.far else ''}"
        for key, block in state.blocks.items()
    }
    return view


def _together(errors: Sequence[ZdmError]) -> ZdmError:
    """One error that stands for all: its class is the gravest, its message names every router."""
    for kind in _GRAVITY:
        of_kind = [error for error in errors if isinstance(error, kind)]
        if of_kind:
            first = of_kind[0]
            if len(of_kind) == 1:
                return first
            return kind(
                " ".join(error.message for error in of_kind),
                first.advice,
                **{**first.details, "errors": [error.details for error in of_kind]},
            )
    return errors[0]
