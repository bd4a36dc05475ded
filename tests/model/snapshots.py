# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small models of what one database does while its fence closes: old snapshots, and tables that somebody changes.

A trigger is seen as of now, a row as of the snapshot: the transaction's (REPEATABLE READ and above) or the statement's.
"""

from __future__ import annotations

from ansible_collections.zdm.landscape.tests.model.small import END, Action, Small, Variables

ROW, ENABLED, BODY = "reads a state row", "is enabled by the barrier", "has its function replaced by the barrier"
"""A fence is a trigger that always fires and reads a state row, one that the barrier enables, or one that always fires
and whose function the barrier replaces under the table lock."""

PASSED = "a write with an old snapshot passes the fence"
HARMED = "a write under the live id is refused"
MISSED = "a write that was waited for is not copied"
UNCOPIED = "what stands in the new column is lost"
LEFT_BEHIND = "a write that was accepted is left under the retired id"


def fence(kind: str, repeatable_read: bool) -> Small:
    """A writer of the live id, a barrier that commits or is undone, and a person who enables all triggers of a
    table.
    """

    def refuses(v: Variables) -> bool:
        if kind == ROW:
            return bool(v["seen"] if repeatable_read else v["closed"])
        return bool(v["enabled"] if kind == ENABLED else v["closed"])

    def begin(v: Variables) -> None:
        v["seen"] = v["closed"]

    def write(v: Variables) -> None:
        if refuses(v):
            v["problem"] = "" if v["closed"] or v["seen"] else HARMED
        elif v["closed"]:
            v["problem"] = PASSED

    def close(v: Variables) -> None:
        v["closed"] = v["enabled"] = 1

    def undo(v: Variables) -> None:
        v["closed"] = v["enabled"] = 0

    def enable_all(v: Variables) -> None:
        v["enabled"] = 1

    writer = (
        Action("a writer begins, its snapshot is taken", begin),
        Action("the writer writes under the live id", write),
    )
    barrier = (Action("the barrier closes the fence", close), Action("the undo opens it", undo))
    person = (Action("somebody enables all triggers of the table", enable_all),)
    variables: Variables = {"closed": 0, "enabled": 0, "seen": 0, "problem": ""}
    return Small(variables, (writer, barrier, person), lambda v, over: str(v["problem"]))


def barrier_snapshot(read_committed: bool) -> Small:
    """The barrier waits for a writer's lock and then copies what its snapshot shows: as of now, or as of its first
    statement.
    """

    def begin(v: Variables) -> object:
        if v["locked"]:
            return False
        v["writing"] = 1
        return None

    def commit(v: Variables) -> None:
        v.update(writing=0, rows=1)

    def first(v: Variables) -> None:
        v["snapshot"] = v["rows"]

    def lock(v: Variables) -> object:
        if v["writing"]:
            return False
        v["locked"] = 1
        return None

    def copy(v: Variables) -> None:
        v["copied"] = v["rows"] if read_committed else v["snapshot"]

    writer = (Action("a writer writes", begin), Action("the writer commits", commit))
    barrier = (
        Action("the barrier's first statement takes a snapshot", first),
        Action("the barrier has waited for writers and locks the table", lock),
        Action("the barrier copies the last rows", copy),
    )

    def broken(v: Variables, over: bool) -> str:
        return MISSED if v["copied"] not in ("nothing yet", v["rows"]) else ""

    return Small(
        {"locked": 0, "writing": 0, "rows": 0, "snapshot": 0, "copied": "nothing yet"}, (writer, barrier), broken
    )


def added_column(held: bool) -> Small:
    """A column is added and filled while the barrier reads the catalog and copies. *held*: a metadata lock keeps
    changes of the table out from before the catalog is read until the transaction has ended."""

    def hold(v: Variables) -> None:
        v["held"] = int(held)

    def read(v: Variables) -> object:
        return END if v["column"] else None  # not the plan's: undo

    def end(v: Variables) -> None:
        v.update(held=0, fenced=1, copied=1)

    def add(v: Variables) -> object:
        if v["held"]:
            return False
        v["column"] = 1
        return None

    def fill(v: Variables) -> object:
        if not v["fenced"]:
            v["filled"] = 1
        return None

    barrier = (
        Action("the barrier updates no row of the table: its metadata lock is held", hold),
        Action("the barrier compares the catalog with the plan", read),
        Action("the barrier copies by the plan, fences, and ends its transaction", end),
    )
    owner = (Action("the owner adds a column", add), Action("the application fills it", fill))

    def broken(v: Variables, over: bool) -> str:
        return UNCOPIED if v["copied"] and v["filled"] else ""

    return Small({"held": 0, "column": 0, "filled": 0, "fenced": 0, "copied": 0}, (barrier, owner), broken)


def fence_switched_off(read_again: bool) -> Small:
    """Tables in place were moved; somebody switches the fence of the retired id off and a late writer inserts.
    *read_again*: the catalog is read right before the commit. What happens between that read and the commit is the
    small gap that stays.
    """

    def switch_off(v: Variables) -> object:
        if v["read"]:
            return False
        v["fence"] = 0
        return None

    def insert(v: Variables) -> object:
        if not v["fence"]:
            v["behind"] = 1
        return None

    def read(v: Variables) -> object:
        v["read"] = 1
        return END if read_again and not v["fence"] else None  # undo: what stands there stays and lives

    run = (
        Action("the run reads the catalog before the commit", read),
        Action("the run commits", lambda v: v.update(committed=1)),
    )
    person = (
        Action("somebody switches the fence off", switch_off),
        Action("a late writer inserts under the retired id", insert),
    )

    def broken(v: Variables, over: bool) -> str:
        return LEFT_BEHIND if v["committed"] and v["behind"] else ""

    return Small({"fence": 1, "read": 0, "behind": 0, "committed": 0}, (run, person), broken)
