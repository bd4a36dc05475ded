# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a descriptor safe for blue-green deployments: as few lines as possible change, all others keep their bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, Refused, ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.callbacks import callbacks
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.edit import Edits
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.plans import LivePlans
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.references import Providers
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.session import Sessions
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.sessions import SessionPlans
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.tenant_routes import (
    KEEP_ROUTES,
    keeps_routes,
    routes_of_tenants,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Value

_PLACE = re.compile(r"(.+?):(\d+):(\d+): (.*)", re.DOTALL)
"""How an error of the engine begins that has a place."""
_PASSES = 5


@dataclass(frozen=True)
class Wanted:
    """What to make safe.

    :ivar live_urls: what is written once while idle is tested gets live URLs.
    :ivar sessions: application routers keep their sessions in Redis; ``None`` leaves them alone.
    :ivar keep_existing_routes: application routers keep the routes of their tenants.
    :ivar longest_upgrade_ms: the SaaS registry waits at least so long for an answer of a subscription; 0 leaves it
        alone.
    :ivar namespace: namespace of the deployment.
    :ivar approuters: modules that are application routers although nothing tells so.
    """

    live_urls: bool = True
    sessions: Sessions | None = None
    keep_existing_routes: bool = True
    longest_upgrade_ms: int = 0
    namespace: str = ""
    approuters: tuple[str, ...] = ()

    def known_approuters(self) -> tuple[str, ...]:
        """The modules that the caller says are application routers."""
        return self.approuters + (self.sessions.modules if self.sessions else ())


@dataclass(frozen=True)
class Unmended:
    """A place that could not be mended: why, and what to do by hand.

    :ivar object: the module or resource.
    """

    file: str
    line: int
    column: int
    object: str
    message: str
    mend: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message} {self.mend}"


@dataclass(frozen=True)
class Mended:
    """The descriptor's text, the same when it is safe already, and what is left, with its places in that text."""

    text: str
    left: tuple[Unmended, ...]


def mend(descriptor: Descriptor, wanted: Wanted, base: Descriptor | None = None) -> Mended:
    """Make a descriptor safe. A place that can't be mended without touching others is left as it is, and listed.

    :param base: the descriptor that an extension extends; needed when *descriptor* is an extension, only whose own
        lines change.
    :raises InputError: an option names what does not exist, or an extension comes without its descriptor.
    """
    _check(descriptor, wanted, base)
    for _pass in range(_PASSES):
        mended = _mended_once(descriptor, wanted, base)
        if mended.text == descriptor.source.text:
            break
        descriptor = descriptor.rewritten(mended.text)
    return mended


def _mended_once(descriptor: Descriptor, wanted: Wanted, base: Descriptor | None) -> Mended:
    """One pass: what is provided by way of others may need another one."""
    merged = base.extended([descriptor]) if base else descriptor
    broken: set[tuple[str, int]] = set()
    while True:
        attempt = _Attempt(merged, wanted, Edits(descriptor.root), broken)
        attempt.run()
        step = attempt.edits.broken()
        if step is None:
            return Mended(attempt.edits.apply(), tuple(dict.fromkeys(attempt.left)))
        broken.add(attempt.steps[step])


def make_safe(descriptor: Descriptor, wanted: Wanted, base: Descriptor | None = None) -> str:
    """The descriptor's text, made safe in all places; see :func:`mend`.

    :raises Refused: a place can't be mended; ``details`` list all such places.
    """
    mended = mend(descriptor, wanted, base)
    if mended.left:
        first = mended.left[0]
        raise Refused(
            f"{first.file}:{first.line}:{first.column}: {first.message}", first.mend, left=[*map(str, mended.left)]
        )
    return mended.text


def _check(descriptor: Descriptor, wanted: Wanted, base: Descriptor | None) -> None:
    if descriptor.extends and base is None:
        raise InputError(
            f"{descriptor.source.name} is an extension of {descriptor.extends}.",
            "Give the descriptor that it extends as base.",
        )
    if base is not None and not descriptor.extends:
        raise InputError(
            f"{descriptor.source.name} is not an extension.", "Leave out base, or give an .mtaext as path."
        )
    if base is not None and wanted.sessions is not None:
        raise InputError(
            "Sessions are set up in the descriptor, not in an extension.",
            f"Leave out sessions, and make {base.source.name} safe with them.",
        )
    (base or descriptor).check_modules("approuters", wanted.approuters)


class _Attempt:
    """One pass over a descriptor; every change that belongs together is a step, which is made as a whole or not.

    :ivar left: what could not be mended.
    :ivar steps: by their number, what they were for.
    """

    def __init__(self, descriptor: Descriptor, wanted: Wanted, edits: Edits, broken: set[tuple[str, int]]) -> None:
        self.descriptor = descriptor
        self.wanted = wanted
        self.edits = edits
        self.left: list[Unmended] = []
        self.steps: list[tuple[str, int]] = []
        self._broken = broken
        self._plans = LivePlans(Providers(descriptor, wanted.namespace), self.edits)

    def run(self) -> None:
        if self.wanted.live_urls:
            self._live_urls()
        if self.wanted.sessions is not None:
            self._sessions(self.wanted.sessions.checked(self.descriptor, self.wanted.approuters))
        if self.wanted.keep_existing_routes:
            self._keep_routes()
        if self.wanted.longest_upgrade_ms:
            for found in callbacks(self.descriptor):
                wait = partial(found.wait, self.descriptor, self.wanted.longest_upgrade_ms, self.edits)
                self._step([(found.urls, found.name)], "time", wait)

    def _step(self, users: Sequence[tuple[Value, str]], what: str, change: Callable[[], None]) -> None:
        """Make changes that belong together, or list why they can't be made and take them back.

        :param users: the places that they are for, and whose those are.
        """
        first = users[0][0]
        back, key = self._plans.offers.checkpoint(), (what, first.start)
        try:
            if key in self._broken:
                raise Refused(f"{first.place}: the change would touch more than this place.", "Mend it by hand.")
            change()
        except (InputError, Refused) as error:
            back()
            for value, owner in users:
                self._leave(value, owner, error)
        else:
            self.edits.end_step()
            self.steps.append(key)

    def _leave(self, value: Value, owner: str, error: ZdmError) -> None:
        place = _PLACE.fullmatch(error.message)
        name, line, column, message = place.groups() if place else (value.source.name, value.line, value.column, "")
        message = message or error.message
        self.left.append(Unmended(name, int(line), int(column), owner, message, error.advice))

    def _live_urls(self) -> None:
        for task in self._plans.tasks():
            self._step(task.users, task.key[1], task)

    def _sessions(self, sessions: Sessions) -> None:
        if not sessions.modules:
            root = self.descriptor.root
            advice = "Name its module in sessions.modules, or leave out sessions."
            self._leave(root, self.descriptor.id, Refused("No module is known as an application router.", advice))
        plans = SessionPlans(self.descriptor, sessions, self.wanted.namespace, self.edits)
        for name in sessions.modules:
            self._step([(self.descriptor.modules[name], name)], "sessions", partial(plans.mend, name))
            secret = plans.kept_secret(name)
            if secret is not None:
                message = f"The session secret of {name} is written in the descriptor."
                advice = "Give sessions.parameter, and deploy with an extension that sets it to another secret."
                self._leave(secret, name, Refused(message, advice))

    def _keep_routes(self) -> None:
        """Keep the routes of tenants when the live application is removed."""
        for name in routes_of_tenants(self.descriptor, self.wanted.known_approuters()):
            module = self.descriptor.modules[name]
            if not keeps_routes(self.descriptor, module):
                self._step([(module, name)], "routes", partial(self.edits.set_flag, module, KEEP_ROUTES))
