# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The digest of a plan: what is signed is what runs, or it is refused.

``5f1d0c7a9be24f31-12i3t.4i``: a hash of the migration and the schemas, then the strategies, participant by participant
in the order of their names. The strategies are written, not hashed. So whoever has the digest has what was signed: by
day, with more rows and other load, the plan of the night is made again from it. No file has to find its way from the
job that planned to the job that stages, and planning writes nothing. Nothing measured is in it: no rows, no rates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import Inspection
from ansible_collections.zdm.landscape.plugins.module_utils.participant.strategies import written

_HASH_LENGTH = 16


@dataclass(frozen=True)
class Signature:
    """A digest and its parts.

    :param structure: hash of the migration, the participants' names and their schemas.
    :param strategies: as :func:`written`, in the order of the participants' names.
    """

    structure: str
    strategies: tuple[str, ...]

    @classmethod
    def of(cls, migration: str, inspections: Sequence[Inspection]) -> Signature:
        """What a plan with these inspections is signed by."""
        ordered = sorted(inspections, key=lambda inspection: inspection.participant)
        parts = [migration, *(f"{inspection.participant}:{inspection.digest}" for inspection in ordered)]
        structure = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:_HASH_LENGTH]
        return cls(structure, tuple(written(inspection.tables) for inspection in ordered))

    @classmethod
    def read(cls, digest: str) -> Signature:
        """The parts of any text; what is no digest equals none that a plan has."""
        structure, _hyphen, strategies = digest.partition("-")
        return cls(structure, tuple(strategies.split(".")))

    def __str__(self) -> str:
        return f"{self.structure}-{'.'.join(self.strategies)}".removesuffix("-")

    def difference(self, signed: Signature) -> str:
        """What makes a plan of this signature another one than the *signed*; empty when it is the same."""
        if self == signed:
            return ""
        what = (
            "the stage or the options ask for other strategies"
            if self.structure == signed.structure
            else "a schema, the participants or what is ignored has changed"
        )
        return f"The plan's digest is {self}, signed was {signed}: {what}."

    def by_participant(self, names: Sequence[str]) -> dict[str, str]:
        """The strategies by participant; empty when these are not the participants that were signed for."""
        return dict(zip(sorted(names), self.strategies, strict=True)) if len(names) == len(self.strategies) else {}
