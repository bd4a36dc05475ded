# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store in memory whose answers get lost, and whose unanswered writes land when a test wants it, as in a cluster
whose leader dies.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Conflict, OutcomeUnknown, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import Document, Store

ANSWERED, LANDED, LOST, LATE, REFUSED = "answered", "landed", "lost", "late", "refused"
"""What becomes of a write: it is answered; it lands, or is lost, or is under way for now, without an answer; the store
is not there.
"""
Body = dict[str, Any]


class Sent(NamedTuple):
    """One write as it left its sender."""

    collection: str
    name: str
    body: Body
    revision: str | None

    @property
    def what(self) -> str:
        """What it writes, for a person: ``migrations W``."""
        return f"{self.collection} {self.body.get('phase', self.body.get('migration', ''))}"


class LossyStore(Store):
    """A store in memory.

    :param fate: asked about every write; one of the words above.
    """

    def __init__(self, fate: Callable[[Sent], str] = lambda _sent: ANSWERED) -> None:
        self.fate = fate
        self.documents: dict[tuple[str, str], Document] = {}
        self.sent: list[Sent] = []
        self.written: list[Sent] = []
        """What has been written, in this order."""
        self.late: list[Sent] = []
        """What is under way."""
        self.down = False
        self._revisions = 0

    def describe(self) -> str:
        return "store in memory"

    def get(self, collection: str, name: str) -> Document | None:
        self._expect_up()
        return self.documents.get((collection, name))

    def list(self, collection: str) -> list[Document]:
        self._expect_up()
        return [document for (there, _name), document in sorted(self.documents.items()) if there == collection]

    def put(self, collection: str, name: str, body: Body, revision: str | None) -> Document:
        self._expect_up()
        sent = Sent(collection, name, json.loads(json.dumps(body)), revision)
        self.sent.append(sent)
        fate = self.fate(sent)
        if fate == ANSWERED:
            return self.write(sent)
        if fate == REFUSED:
            raise Unreachable("The store is not there.")
        if fate == LATE:
            self.late.append(sent)
        elif fate == LANDED:
            self.land(sent)
        raise OutcomeUnknown("no answer")

    def delete(self, collection: str, name: str, revision: str) -> None:
        self._expect(collection, name, revision)
        del self.documents[collection, name]

    def write(self, sent: Sent) -> Document:
        """The compare-and-set itself."""
        self._expect(sent.collection, sent.name, sent.revision)
        self._revisions += 1
        document = Document(sent.collection, sent.name, sent.body, str(self._revisions))
        self.documents[sent.collection, sent.name] = document
        self.written.append(sent)
        return document

    def land(self, *sent: Sent) -> list[Sent]:
        """Writes that are under way arrive, all of them when none is named. Returns those that were written."""
        landed = []
        for each in sent or tuple(self.late):
            if each in self.late:
                self.late.remove(each)
            try:
                self.write(each)
            except Conflict:
                continue
            landed.append(each)
        return landed

    def _expect_up(self) -> None:
        if self.down:
            raise Unreachable("The store is not there.")

    def _expect(self, collection: str, name: str, revision: str | None) -> None:
        found = self.documents.get((collection, name))
        if (found.revision if found else None) != revision:
            raise Conflict(f"{collection}/{name} was changed by somebody else.")


def fates(words: Iterable[str], those: Callable[[Sent], bool] = lambda _sent: True) -> Callable[[Sent], str]:
    """The fates of the first writes of *those*, one after the other; all other writes are answered."""
    left = list(words)
    return lambda sent: left.pop(0) if left and those(sent) else ANSWERED
