# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which migration holds a tenant (cutover protocol, step 0 and rule 9).

A claim carries the migration and the epoch of the run that wrote it last. After step 1 a run writes every claim again
under its own epoch, also one that it found as its migration's: else another run of the same migration, which is about
to give the claim back, lets a second migration have the tenant, and both commit. Claims are given back by writing that
they are free, never deleted: a write without an answer may land at any later moment, and a document that is not there
takes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused, Superseded
from ansible_collections.zdm.landscape.plugins.module_utils.migration.journal import FORMAT, Journal, check_format
from ansible_collections.zdm.landscape.plugins.module_utils.migration.mapping import Parties
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import CLAIMS, Document, Store
from ansible_collections.zdm.landscape.plugins.module_utils.store.settle import Decision, decide

_ATTEMPTS = 10
"""Compare-and-sets that lose in a row before a claim counts as one that can't be written."""


def holder_of(document: Document | None) -> str:
    """The key of the migration that a claim's document names; empty when the tenant is free."""
    check_format(document)
    return str(document.body.get("migration") or "") if document else ""


def claims_of(store: Store, journal: Journal) -> list[Document]:
    """The claims that the migration holds.

    :raises Refused: a newer collection wrote one.
    """
    return [document for document in store.list(CLAIMS) if holder_of(document) == journal.key]


class Claims:
    """The claims of one migration, as one run writes them.

    :param journal: gives the migration's key and, after step 1, the run's own epoch.
    """

    def __init__(self, store: Store, journal: Journal) -> None:
        self._store, self._journal = store, journal
        self._written: dict[str, str] = {}

    def take(self, parties: Parties) -> None:
        """Step 0: hold every tenant and alias, in sorted order. What the migration holds already stays as it is.

        :raises Refused: another migration holds one of them; what this call took is given back. A finalized migration
            claims nothing.
        """
        if self._journal.body.get("finalized_at_ms"):
            self._journal.expect_way_back()
        for name in _names(parties):
            try:
                self._hold(name, again=False)
            except Refused:
                self.leave()
                raise

    def confirm(self, parties: Parties) -> None:
        """After step 1: every claim under the run's own epoch.

        :raises Superseded: a run of a newer epoch wrote one.
        :raises Refused: another migration holds one.
        """
        for name in _names(parties):
            self._hold(name, again=True)

    @contextmanager
    def given_back_without_the_migration(self) -> Iterator[None]:
        """Around step 1: a run that does not get the migration leaves. One that does not know keeps what it took."""
        try:
            yield
        except (Refused, Superseded):
            self.leave()
            raise

    def leave(self) -> None:
        """A run that does not get the migration gives back what it wrote itself, if nobody has written it since."""
        for name, revision in self._written.items():
            self._write(name, "", revision)
        self._written.clear()

    def give_back(self) -> None:
        """After finalize or abort: all that the migration holds under this run's epoch or an older one."""
        for document in claims_of(self._store, self._journal):
            found: Document | None = document
            for _attempt in range(_ATTEMPTS):
                if holder_of(found) != self._journal.key or _epoch(found) > self._epoch:
                    break
                found = self._write(document.name, "", found.revision if found else None).found
            else:
                raise _contested(document.name)
        self._written.clear()

    @property
    def _epoch(self) -> int:
        return self._journal.epoch or int(self._journal.body.get("epoch", 0))

    def _hold(self, name: str, *, again: bool) -> None:
        for _attempt in range(_ATTEMPTS):
            found = self._store.get(CLAIMS, name)
            holder = holder_of(found)
            if holder and holder != self._journal.key:
                raise Refused(
                    f"Tenant {name} is claimed by the migration {holder}.",
                    f"Finish or abort {holder} first (playbook zdm.landscape.status shows it).",
                )
            if holder and not again:
                return
            if holder and _epoch(found) > self._epoch:
                raise Superseded(
                    f"Tenant {name} is claimed under epoch {_epoch(found)} of {holder}.",
                    "Another controller took over.",
                )
            if found and holder and _epoch(found) == self._epoch and self._written.get(name) == found.revision:
                return
            written = self._write(name, self._journal.key, found.revision if found else None).ours
            if written:
                self._written[name] = written.revision
                return
        raise _contested(name)

    def _write(self, name: str, holder: str, revision: str | None) -> Decision:
        body = {"format": FORMAT, "migration": holder, "epoch": self._epoch}
        return decide(self._store, CLAIMS, name, body, revision)


def _names(parties: Parties) -> list[str]:
    return sorted(tenant.subdomain for tenant in parties.all)


def _epoch(document: Document | None) -> int:
    """0 for a claim of a collection that wrote none."""
    return int(document.body.get("epoch", 0)) if document else 0


def _contested(name: str) -> Refused:
    return Refused(f"claims/{name} is changed all the time.", "Stop the writer, then run the same command again.")
