# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Typed errors of the engine.

Every error says what is wrong with which object (``message``) and what to do next (``advice``).
The engine raises them; only the edge (a module, an action plugin) turns them into ``fail_json``.
"""

from __future__ import annotations

from typing import Any


class ZdmError(Exception):
    """Base of all errors that the engine raises on purpose.

    :param message: names the object and what is wrong with it, one sentence, no secret.
    :param advice: the next step for the person who reads it, one sentence.
    :param details: JSON-serialisable facts for the module's result.
    """

    def __init__(self, message: str, advice: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice
        self.details = details

    def __str__(self) -> str:
        return f"{self.message} {self.advice}".rstrip()


class InputError(ZdmError):
    """The caller's input is wrong; nothing was touched."""


class Refused(ZdmError):
    """A rule of safety refuses the step; nothing was changed by it."""


class Conflict(ZdmError):
    """A compare-and-set lost: somebody else changed the document first."""


class Superseded(ZdmError):
    """A newer epoch exists: this controller must stop and touch nothing."""


class Unreachable(ZdmError):
    """A system (store, router, participant) does not answer."""


class MissingRight(Refused):
    """The user of a database may not do what is needed; nothing was changed.

    :param grants: in ``details``, when the statements that give the rights are known where it was raised.
    """


class OutcomeUnknown(ZdmError):
    """A write was sent and it is not known whether it happened: read again before going on."""


class Timeout(ZdmError):
    """A condition did not come true in time; ``details`` carry the partial state."""


def sentence(text: str) -> str:
    """Somebody else's words as a sentence of their own, on one line, so that ours may follow."""
    text = " ".join(text.split())
    if not text:
        return "It gives no reason."
    return text if text.endswith((".", "!", "?")) else f"{text}."
