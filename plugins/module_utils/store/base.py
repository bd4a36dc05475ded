# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every config store offers: JSON documents with revisions and compare-and-set.

The contract fits a directory, a REST store with ETags (If-Match, If-None-Match, 412) and etcd (mod_revision).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

TENANTS = "tenants"
ONBOARDED = "onboarded-tenants"
MIGRATIONS = "migrations"
CLAIMS = "claims"
THROTTLES = "throttles"
DEPLOYMENTS = "deployments"
"""Its documents are named ``<space>/<mta>``."""
COLLECTIONS = (TENANTS, ONBOARDED, MIGRATIONS, CLAIMS, THROTTLES, DEPLOYMENTS)
WRITE_ID = "write_id"
"""Key of a body: tells the write apart from every other, also one with the same text."""


@dataclass(frozen=True)
class Document:
    """One document as it was read or written.

    :param collection: one of :data:`COLLECTIONS`.
    :param name: the document's name in its collection, validated before it gets here.
    :param body: the JSON object.
    :param revision: opaque; equal revisions mean that nobody wrote in between.
    """

    collection: str
    name: str
    body: dict[str, Any]
    revision: str

    @property
    def path(self) -> str:
        return f"{self.collection}/{self.name}"

    @property
    def emptied(self) -> bool:
        """Whether it says nothing any more: to its readers it is none. It stays, as a late create would land where no
        document is.
        """
        return self.body.keys() - {WRITE_ID} == {"format"}


class Store(ABC):
    """A config store. Every write is a compare-and-set on one document."""

    @abstractmethod
    def get(self, collection: str, name: str) -> Document | None:
        """Read a document; ``None`` when it does not exist.

        :raises Unreachable: when the store does not answer or holds no valid JSON there.
        """

    @abstractmethod
    def list(self, collection: str) -> list[Document]:
        """Read all documents of a collection, sorted by name."""

    @abstractmethod
    def put(self, collection: str, name: str, body: dict[str, Any], revision: str | None) -> Document:
        """Write a document if its revision is still *revision* (``None``: if it does not exist yet).

        :raises Conflict: somebody else wrote first; nothing was changed.
        :raises OutcomeUnknown: the write has happened, or has not, or will; :func:`settle.decide` finds out.
        :raises Unreachable: the write did not happen.
        """

    @abstractmethod
    def delete(self, collection: str, name: str, revision: str) -> None:
        """Delete a document if its revision is still *revision*. Errors as for :meth:`put`."""

    @abstractmethod
    def describe(self) -> str:
        """How the store is called in messages, without secrets."""
