# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan as a person reads and signs it: a line for each table that changes, all others together by their reasons."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence

from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import (
    FOLLOWS,
    IGNORE,
    IN_PLACE,
    RELABEL,
    ROOT,
    STAYING,
    TWIN,
    Inspection,
    Refusal,
    TablePlan,
)

WIDTH = 140
FEW = 5
"""Fewer tables without rows are listed as any other."""
_HEADER = ("table", "rows", "strategy", "stage", "window", "why")
_CALLED = {IN_PLACE: "in place", TWIN: "as twins", RELABEL: "relabelled", FOLLOWS: "follow"}
_CALLED[IGNORE] = "ignored"
_NO_FENCE = "not fenced: a late write to them is not lost, since keys stay"


def plan_text(migration: str, digest: str, window_ms: int, inspections: Sequence[Inspection]) -> str:
    """Everything that is signed, database by database, then what is proposed, then what to sign."""
    blocks = [_summary(migration, digest, window_ms, inspections)]
    blocks += ["\n".join(_database(inspection)) for inspection in inspections]
    proposed = proposal_text(inspections)
    if proposed:
        blocks.append(f"Proposed, for you to confirm:\n{proposed}")
    blocks.append(_to_sign(digest, sum(len(inspection.refusals) for inspection in inspections)))
    return "\n\n".join(blocks)


def proposal_text(inspections: Sequence[Inspection]) -> str:
    """YAML of what would lift refusals; empty when there is nothing to propose."""
    entries = [inspection.proposal.text for inspection in inspections if inspection.proposal]
    head = "# zdm_landscape.participants: each value replaces the one that is there; <…> is to be filled in"
    return "\n".join([head, *entries]) if entries else ""


def _summary(migration: str, digest: str, window_ms: int, inspections: Sequence[Inspection]) -> str:
    tables = [table for inspection in inspections for table in inspection.tables]
    unclear = sum(len(_unclassified(inspection)) for inspection in inspections)
    stage_ms = max((inspection.stage_ms for inspection in inspections), default=0)
    changing = sum(table.rows for table in tables if table.strategy not in STAYING)
    return (
        f"Plan {digest} of {migration}: predicted window {window_ms} ms\n"
        f"  {_many(len(inspections), 'database')}, {_many(len(tables), 'table')}: {_counted(tables, unclear)};"
        f" {_many(changing, 'row')} under the id that is live; stage {_took(stage_ms)}"
    )


def _counted(tables: Sequence[TablePlan], unclear: int) -> str:
    counts = Counter(table.strategy for table in tables)
    counts[IGNORE] -= unclear
    parts = [f"{counts[strategy]} {called}" for strategy, called in _CALLED.items() if counts[strategy]]
    parts += [_many(counts[ROOT], "root")] if counts[ROOT] else []
    return ", ".join(parts + ([f"{unclear} not classified"] if unclear else []))


def _refused(inspection: Inspection) -> set[str]:
    return {refusal.object for refusal in inspection.refusals}


def _unclassified(inspection: Inspection) -> set[str]:
    """Tables that would be left out, if somebody said that they may."""
    return {table.table for table in inspection.tables if table.strategy == IGNORE} & _refused(inspection)


def _database(inspection: Inspection) -> Iterator[str]:
    version = f"{inspection.kind} {inspection.version}".rstrip()
    yield (
        f"{inspection.participant} ({version}): stage {_took(inspection.stage_ms)}, window {inspection.window_ms} ms"
    )
    yield from _bystanders(inspection)
    for caution in inspection.cautions:
        yield from _wrapped(f"  until the end of the transition: {caution}")
    yield from _changing(inspection)
    yield from _told(inspection)
    yield from _staying(inspection)
    yield from _refusals(inspection.refusals)


def _bystanders(inspection: Inspection) -> Iterator[str]:
    """What other tenants feel of the window."""
    if inspection.bystander_ms:
        yield f"  other tenants: writes wait up to {inspection.bystander_ms} ms"
    shared = [f"{table.table} ({', '.join(table.shared_keys)})" for table in inspection.tables if table.shared_keys]
    if shared:
        yield from _wrapped(
            "  other tenants: a write of a value that moves waits for the move, up to"
            f" {inspection.window_ms} ms: {', '.join(shared)}"
        )


def _changing(inspection: Inspection) -> Iterator[str]:
    refused = _refused(inspection)
    tables = [table for table in inspection.tables if table.strategy not in STAYING]
    empty = [table for table in tables if table.strategy == IN_PLACE and not table.rows and table.table not in refused]
    empty = empty if len(empty) >= FEW else []
    rows = [
        (
            table.table,
            f"{table.rows:,}",
            table.strategy,
            _took(table.stage_ms),
            f"{table.window_ms} ms",
            "refused, see below" if table.table in refused else table.why,
        )
        for table in tables
        if table not in empty
    ]
    if rows:
        widths = [max(len(row[column]) for row in (_HEADER, *rows)) for column in range(len(_HEADER) - 1)]
        for row in (_HEADER, *rows):
            yield "  " + "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
    if empty:
        window_ms = sum(table.window_ms for table in empty)
        yield f"  {len(empty)} without a row of the tenant, in place, {window_ms} ms of the window together:"
        yield from _wrapped(f"    {', '.join(table.table for table in empty)}")


def _told(inspection: Inspection) -> Iterator[str]:
    """What no option says, but the schema."""
    roots = [table for table in inspection.tables if table.strategy == ROOT]
    if roots:
        names = ", ".join(f"{table.table} ({', '.join(table.tenant_columns)})" for table in roots)
        yield from _wrapped(f"  roots, of which the other tenant's row is made as a copy: {names}")
    by_columns: dict[str, list[str]] = {}
    for table in inspection.tables:
        if table.inferred:
            by_columns.setdefault(", ".join(table.inferred), []).append(table.table)
    for columns, tables in by_columns.items():
        yield from _wrapped(f"  tenant column by foreign keys alone: {columns} of {', '.join(tables)}")


def _staying(inspection: Inspection) -> Iterator[str]:
    unclassified = _unclassified(inspection)
    following: dict[str, list[str]] = {}
    ignored: dict[str, list[str]] = {}
    for table in inspection.tables:
        if table.strategy == FOLLOWS:
            following.setdefault(table.follows.rpartition("→ ")[2], []).append(table.table)
        elif table.strategy == IGNORE and table.table not in unclassified:
            ignored.setdefault(table.why, []).append(table.table)
    if following:
        yield f"  {sum(map(len, following.values()))} follow, {_NO_FENCE}"
        ways = [f"{', '.join(names)} → {end}" for end, names in following.items()]
        yield from _wrapped(f"    {'; '.join(ways)}")
    if ignored:
        yield f"  {sum(map(len, ignored.values()))} ignored"
        for reason, names in ignored.items():
            yield from _wrapped(f"    {reason}: {', '.join(names)}")


def _refusals(refusals: Sequence[Refusal]) -> Iterator[str]:
    """Each once; those that differ in the table's name only, together."""
    groups: dict[tuple[str, str], list[Refusal]] = {}
    for refusal in refusals:
        name = re.compile(rf"(?<![\w.]){re.escape(refusal.object)}(?!\w)")
        groups.setdefault((name.sub("…", refusal.reason), name.sub("…", refusal.advice)), []).append(refusal)
    if refusals:
        yield f"  refused, {_many(len(refusals), 'time')}"
    for first, *others in groups.values():
        yield from _wrapped(f"    {first.object}: {first.reason}")
        if others:
            yield from _wrapped(f"      the same: {', '.join(other.object for other in others)}")
        if first.advice:
            yield f"      way out: {first.advice}"


def _to_sign(digest: str, refusals: int) -> str:
    if refusals:
        return f"Nothing to sign yet: {_many(refusals, 'refusal')}."
    return f"To sign, and to give to stage and migrate as plan_digest: {digest}"


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _took(milliseconds: int) -> str:
    """A prediction, in the unit in which a person thinks of it."""
    seconds = milliseconds / 1000
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _wrapped(line: str) -> list[str]:
    """A line that is not too long, as several: those after the first are indented further."""
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    return textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
