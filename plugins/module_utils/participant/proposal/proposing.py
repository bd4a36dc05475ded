# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proposal of a participant: what its options lack, tried out on the database until it lifts no further refusal."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import Inspection, Proposal, Refusal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.own_ids import by_tenant
from ansible_collections.zdm.landscape.plugins.module_utils.participant.proposal.evidence import Evidence, Search
from ansible_collections.zdm.landscape.plugins.module_utils.participant.proposal.own import misfits
from ansible_collections.zdm.landscape.plugins.module_utils.participant.proposal.propose import (
    Changes,
    Tenants,
    propose,
    unclassified,
)
from ansible_collections.zdm.landscape.plugins.module_utils.participant.proposal.spelling import AS_IT_IS, spellings
from ansible_collections.zdm.landscape.plugins.module_utils.participant.proposal.written import entry
from ansible_collections.zdm.landscape.plugins.module_utils.participant.state import Survey
from ansible_collections.zdm.landscape.plugins.module_utils.participant.tenancy import tenancy

with suppress(ImportError):
    import sqlalchemy as sa

if TYPE_CHECKING:
    from ansible_collections.zdm.landscape.plugins.module_utils.participant.planning import Planning
    from sqlalchemy.engine import Connection

ROUNDS = 5
"""What a change makes known may need the next one: first the ids, then the tenant columns, then what they say."""

Look = Callable[[], tuple[Inspection, Survey]]


def with_options(options: dict[str, Any], changes: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """A participant's options after a proposal was applied.

    :param names: subdomains by tenant id.
    """
    own = {"own_ids": by_tenant(changes["ids"], names)} if "ids" in changes else {}
    return {**options, **changes, **own}


class Proposing:
    """One proposal.

    :param look: inspects once more, with the options that the participant then has.
    """

    def __init__(self, planning: Planning, connection: Connection, look: Look, tenants: Tenants, live_id: str) -> None:
        self.planning, self.connection, self.look = planning, connection, look
        self.tenants, self.live_id = tenants, live_id

    def complete(self, found: Inspection, survey: Survey) -> Inspection:
        """The inspection with what its options lack. Changes nothing, and never fails: it proposes less then."""
        given, ids = self.planning.options, self.planning.ids
        found = replace(found, refusals=(*found.refusals, *self._misspelled(found, survey)))
        changes, now = Changes(), found
        try:
            for _round in range(ROUNDS if found.refusals else 0):
                more = self._more(now, survey)
                fresh = {key: new for key, new in more.options.items() if self.planning.options.get(key) != new}
                if not fresh:
                    break
                for option, value in fresh.items():
                    changes.put(option, value, *more.confirm.get(option, ()))
                self.planning.options = with_options(given, changes.options, dict(self.tenants.names))
                with self.connection.begin_nested():
                    now, survey = self.look()
        except (ZdmError, sa.exc.DBAPIError):
            if self.connection.invalidated:
                raise
        finally:
            self.planning.options, self.planning.ids = given, ids
        if not changes.options:
            return found
        order = ("ids", "id_query", "tenant_columns", "ignore", "tables", "no_cross_tenant_readers")
        options = {option: changes.options[option] for option in order if option in changes.options}
        return replace(found, proposal=Proposal(options, entry(self.planning.name, options, changes.confirm)))

    def _more(self, found: Inspection, survey: Survey) -> Changes:
        options, ids = self.planning.options, self.planning.ids
        evidence = self._evidence(found, survey)
        return propose(survey.catalog, options, found.refusals, self.tenants, evidence, ids)

    def _evidence(self, found: Inspection, survey: Survey) -> Evidence:
        ids = self.planning.ids
        known = tenancy(survey.catalog, self.planning.options, ids)
        refused = {refusal.object for refusal in found.refusals}
        doubted = {name: columns for name, columns in known.columns.items() if name in refused}
        doubted |= misfits(survey.catalog, known, self.live_id, ids)
        doubted |= {name: (column,) for name, column in known.unclear.items()}
        unclear = unclassified(survey.catalog, known)
        name = self.tenants.names.get(self.live_id, "")
        return Search(self.planning, self.connection, survey.catalog, unclear, doubted).run(self.live_id, ids, name)

    def _misspelled(self, found: Inspection, survey: Survey) -> list[Refusal]:
        """A plan without a row is no plan, where the rows are there under an id that is written otherwise."""
        known = tenancy(survey.catalog, self.planning.options, self.planning.ids)
        if self.planning.ids.known or not known.columns or any(survey.catalog[name].rows for name in known.columns):
            return []
        search = Search(self.planning, self.connection, survey.catalog, (), known.columns)
        held = search.run(self.live_id, self.planning.ids, "").held
        refused = {refusal.object for refusal in found.refusals}
        for (table, column), way in sorted(held.items()):
            if way != AS_IT_IS and column in known.columns.get(table, ()) and table not in refused:
                text = spellings(self.live_id)[way]
                reason = f"No table holds a row of {self.live_id}, but {table} ({column}) does of {text}, {way}."
                return [
                    Refusal(table, reason, "Give the ids as they are written there: `ids: {<subdomain>: <own id>}`.")
                ]
        return []
